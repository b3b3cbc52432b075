"""What rows take: an index in a folder, and one in Milvus."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from coocnet.planning.figures import value

_PAGE, KEY, _STAMP, _PLACE_HOLDER = 4096, 32, 16, 8
_DIGEST, _NUMBER = 16, 8


@dataclass(frozen=True)
class Folder:
    """An index in a folder, in bytes on disk; and what of it a search wants in memory.

    Attributes:
        database: SQLite, the store of record.
        kept_rows: the rows that are searched, as float32.
        kept_rows_float16: the same as float16.
        approximate: the lists of FAISS.
        exact_memory: of an exact search in float32.
        approximate_memory: of an approximate one.
    """

    database: float
    kept_rows: float
    kept_rows_float16: float
    approximate: float
    exact_memory: float
    approximate_memory: float


@dataclass(frozen=True)
class InMilvus:
    """An index in Milvus by the kind of its approximate search, payload alone: Milvus's own overhead comes on top.

    Attributes:
        kind: as Milvus names it; "FLAT" is the exact search alone.
        index: memory of the approximate index alone, in bytes.
        memory: with everything that coocnet has loaded, in bytes.
        nodes: query nodes that hold it, each with the memory of a machine.
        local_disk: of all query nodes, in bytes.
        object_storage: in bytes, at least: without the write-ahead log and what was deleted and not yet cleaned up.
    """

    kind: str
    index: float
    memory: float
    nodes: int
    local_disk: float
    object_storage: float


def database_row_bytes(dim: int) -> float:
    """What a row takes in SQLite's pages of 4 KiB, as https://sqlite.org/fileformat2.html lays them out.

    A page holds whole rows, so one of 512 numbers has a page for itself; of one that is larger than a page the end
    lies on pages of its own.
    """
    payload = 4 * dim + _DIGEST + 5  # the record's header
    whole, least, overflow = _PAGE - 35, (_PAGE - 12) * 32 // 255 - 23, _PAGE - 4
    if payload <= whole:
        return _PAGE / ((_PAGE - 8) // (payload + 7))
    local = least + (payload - least) % overflow
    local = local if local <= whole else least
    return _PAGE / ((_PAGE - 8) // (local + 11)) + _PAGE * math.ceil((payload - local) / overflow)


def folder_of(pictures: int, stored: int, dim: int) -> Folder:
    """Bytes by the form of the files; what SQLite's own indexes take beside the rows is measured, straight in paths.

    Kept rows are 4 bytes a number, with digest, path and its end; the lists of FAISS a byte a number and a number of
    8 bytes, with digest, number of the picture and the centroids of 4√n lists.
    """
    path = value("path")
    short, long = (value(f"database, paths of {length}") - database_row_bytes(64) for length in (40, 160))
    beside = short + (long - short) * (path - 40) / 120
    table = _DIGEST + _NUMBER + path
    lists = lists_of(pictures) * (4 * dim + _NUMBER)
    return Folder(
        database=pictures * (database_row_bytes(stored) + beside),
        kept_rows=pictures * (4 * dim + table),
        kept_rows_float16=pictures * (2 * dim + table),
        approximate=pictures * (dim + _NUMBER + _DIGEST + _NUMBER) + lists,
        exact_memory=pictures * (4 * dim + table),
        approximate_memory=pictures * (dim + _NUMBER + _DIGEST + _NUMBER + table) + lists,
    )


def lists_of(pictures: int) -> int:
    """Of an approximate search through FAISS."""
    return int(4 * math.sqrt(pictures))


def _diskann_on_disk(dim: int) -> float:
    """A row with its neighbours, of which whole ones stand in sectors of 4 KiB."""
    node = 4 * dim + 4 * (value("DISKANN degree") + 1)
    return _PAGE / (_PAGE // node) if node <= _PAGE else _PAGE * math.ceil(node / _PAGE)


@dataclass(frozen=True)
class _Kind:
    """An approximate index of Milvus: bytes of a row in memory and on a query node's disk, from its numbers."""

    in_memory: Callable[[int], float]
    on_disk: Callable[[int], float] = lambda _: 0.0


MILVUS_KINDS: dict[str, _Kind] = {
    "FLAT": _Kind(lambda _: 0.0),
    "IVF_FLAT": _Kind(lambda dim: 4.0 * dim),
    "IVF_SQ8": _Kind(lambda dim: 1.0 * dim),
    "IVF_PQ": _Kind(lambda dim: dim / 8),
    "DISKANN": _Kind(
        lambda dim: 4 * dim * (value("DISKANN codes") + value("DISKANN cache")),
        _diskann_on_disk,
    ),
}
"""What may stand beside the exact rows; IVF_PQ with a byte for eight numbers."""
KIND = "IVF_SQ8"
"""The kind that a verdict counts with."""


def kinds_in_milvus(
    pictures: int, stored: int, dim: int, *, is_whitened: bool, machine_bytes: float
) -> tuple[InMilvus, ...]:
    """The collections of an index: rows, the same whitened, files, and rows in an approximate index; all are loaded.

    A key is the digest in 32 digits; that of a file its path in two digits a byte, with digest, stamp and the vector
    that Milvus wants of every collection.
    """
    exact = 4 * stored + KEY + (4 * dim + KEY if is_whitened else 0)
    files = 2 * value("path") + KEY + _STAMP + _PLACE_HOLDER
    found = []
    for name, kind in MILVUS_KINDS.items():
        beside = kind.in_memory(dim)
        memory = pictures * (exact + files + (beside + KEY if beside else 0))
        found.append(
            InMilvus(
                kind=name,
                index=pictures * beside,
                memory=memory,
                nodes=math.ceil(memory / (value("loaded") * machine_bytes)),
                local_disk=pictures * kind.on_disk(dim),
                object_storage=pictures * (exact + files + (4 * dim + KEY + beside if beside else 0)),
            )
        )
    return tuple(found)
