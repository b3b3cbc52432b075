"""What a search needs of a large collection, kept beside the index: derived from it, and made anew at any time.

The rows with their whitening lie in ``gallery-<token>.npy``, which a search maps into memory; ``gallery.npz`` names
that file and holds the paths, the digests, and what both were made of. The table is written last and whole, so it
never names rows that are not there. It is guarded by the checksums of its format; the rows by their size and by a
digest, above 64 MiB by one of some rows spread over the file, since to read two gigabytes at every start would cost
what is to be saved. What does not fit is ignored.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
from jaxtyping import Float, Int, UInt8

from coocnet.errors import InputError
from coocnet.index.derived import UNREADABLE, Derived, spread
from coocnet.index.store import Store
from coocnet.recipe import Recipe
from coocnet.whitening import Whitening

KEEP_FROM = 5_000
"""Fewer pictures are read from the database and whitened in a tenth of a second."""
STORAGES = {"float32": np.float32, "float16": np.float16}
"""Types in which rows are kept: float16 takes half of the disk and of the memory."""
_BESIDE = Derived("gallery.npz", "gallery-{}.npy")
_AT_ONCE = 8192
_SAMPLED = 64
_READ_WHOLE = 64 << 20
_HEADER = 1 << 12
_SAME_WITHIN = 1e-3  # float16 rounds a number below 1 by less


class Paths(Sequence[str]):
    """Paths in one piece of memory, decoded when they are asked for."""

    def __init__(self, joined: bytes, ends: Int[np.ndarray, " n"]) -> None:
        self._joined = joined
        self._ends = ends

    @classmethod
    def of(cls, paths: Sequence[bytes]) -> Paths:
        """The paths given, in their order."""
        return cls(b"".join(paths), np.cumsum([len(path) for path in paths], dtype=np.int64))

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """What :meth:`__init__` takes, as arrays."""
        return {"paths": np.frombuffer(self._joined, np.uint8), "ends": self._ends}

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice) -> list[str]: ...
    def __getitem__(self, at: int | slice) -> str | list[str]:
        if isinstance(at, slice):
            return [self[one] for one in range(*at.indices(len(self)))]
        place = range(len(self))[at]
        start = int(self._ends[place - 1]) if place else 0
        return os.fsdecode(self._joined[start : int(self._ends[place])])


@dataclass(frozen=True)
class Pictures:
    """Paths in order, the digests of their contents, and their rows as they are searched; copies have equal ones."""

    paths: Sequence[str]
    digests: UInt8[np.ndarray, "n 16"]
    rows: Float[np.ndarray, "n d"]


def pictures_of(store: Store, whitening: Whitening | None) -> Pictures:
    """What is searched, from what is kept where that is of this state; made, and kept, where it is not.

    To be called within a snapshot of the store. That it cannot be kept is no error.
    """
    if store.count_pictures() < KEEP_FROM:
        paths, stored, rows = store.matrix()
        joined = Paths.of([os.fsencode(path) for path in paths])
        digests = np.frombuffer(b"".join(stored), np.uint8).reshape(-1, 16)
        rows = rows if whitening is None else whitening.apply(rows)
        return Pictures(joined, digests, rows[places(digests, digests)])
    kind, state = kind_of(store, whitening), store.state()
    held = _load(store.location, kind)
    if held is not None and held[0] == state:
        return held[1]
    making = _Making(store, whitening, None if held is None else held[1])
    try:
        return _keep(making, store.location, kind, state)
    except (OSError, InputError):
        return making.fill(np.empty(making.shape, STORAGES[kind["storage"]]))


def places(known: UInt8[np.ndarray, "n 16"], wanted: UInt8[np.ndarray, "m 16"]) -> Int[np.ndarray, " m"]:
    """Where each digest wanted stands first among those known; -1 for nowhere."""
    if not len(known):
        return np.full(len(wanted), -1)
    keys, asked = (np.ascontiguousarray(some[:, :8]).view(np.uint64)[:, 0] for some in (known, wanted))
    order = np.argsort(keys, kind="stable")
    at: np.ndarray = order[np.minimum(np.searchsorted(keys, asked, sorter=order), len(keys) - 1)]
    return np.where((known[at] == wanted).all(1), at, -1)


def firsts(digests: UInt8[np.ndarray, "n 16"]) -> Int[np.ndarray, " m"]:
    """Where each different content stands for the first time, rising."""
    found: np.ndarray = np.sort(np.unique(np.ascontiguousarray(digests).view("V16")[:, 0], return_index=True)[1])
    return found


class _Making:
    """What is searched, made from the store; rows that are known already are not read again."""

    def __init__(self, store: Store, whitening: Whitening | None, known: Pictures | None) -> None:
        self._store = store
        self._whitening = whitening
        self._known = known
        listed, self._digests, self._contents = store.listing()
        self.paths = Paths.of(listed)
        self.shape = (len(listed), whitening.dim if whitening else store.dim)

    def fill(self, out: Float[np.ndarray, "n d"]) -> Pictures:
        """Fills ``out`` with the rows."""
        unknown: np.ndarray = np.ones(len(out), bool)
        if self._known is not None:
            at = places(self._known.digests, self._digests)
            unknown = at < 0
            for some in _blocks(np.flatnonzero(~unknown)):
                out[some] = self._known.rows[at[some]]
        new = np.flatnonzero(unknown)
        new = new[np.argsort(self._contents[new], kind="stable")]
        contents, copies = np.unique(self._contents[new], return_counts=True)
        ends = np.cumsum(copies)
        for some in _blocks(np.arange(len(contents))):
            rows = self._store.rows_of(contents[some])
            rows = rows if self._whitening is None else self._whitening.apply(rows)
            out[new[ends[some[0]] - copies[some[0]] : ends[some[-1]]]] = np.repeat(rows, copies[some], axis=0)
        return Pictures(self.paths, self._digests, out)


def kind_of(store: Store, whitening: Whitening | None) -> dict[str, str]:
    """What decides the row of a content."""
    numbers = b"" if whitening is None else whitening.mean.tobytes() + whitening.projection.tobytes()
    return {
        "format": "1",
        "row_fingerprint": store.recipe.row_fingerprint(),
        "weights_sha256": store.weights_sha256 or "",
        "whitening": hashlib.blake2b(numbers, digest_size=16).hexdigest(),
        "storage": storage_of(store),
    }


def state_of(store: Store, recipe: Recipe) -> str:
    """What decides the rows that are searched: the store, and the recipe, which can put a whitening away."""
    return f"{store.state()} {recipe.whitening}"


def storage_of(store: Store) -> str:
    """The name in :data:`STORAGES` under which this index is to keep its rows."""
    asked = store.meta("storage")
    return asked if asked in STORAGES else "float32"


def _load(folder: Path, kind: dict[str, str]) -> tuple[str, Pictures] | None:
    """The state and what was kept of it; None where there is nothing, of another kind, or damaged."""
    try:
        with _BESIDE.reading(folder) as (facts, array):
            if facts["kind"] != kind:
                return None
            paths, digests = Paths(array("paths").tobytes(), array("ends")), array("digests")
        rows = _mapped(_BESIDE.file_of(folder, facts))
        if not len(paths) == len(digests) == len(rows) or facts["sample"] != _sample(rows):
            return None
        return str(facts["state"]), Pictures(paths, digests, rows)
    except UNREADABLE:
        return None


def damage(store: Store, whitening: Whitening | None) -> str:
    """What is damaged of the rows that are kept; empty where nothing is, or nothing is kept.

    Every row is compared with that of the database, where it was made of such with this whitening.
    """
    if not (store.location / _BESIDE.table).exists():
        return ""
    try:
        with _BESIDE.reading(store.location) as (facts, array):
            paths, digests = Paths(array("paths").tobytes(), array("ends")), array("digests")
        rows = _mapped(_BESIDE.file_of(store.location, facts))
        if not len(paths) == len(digests) == len(rows) or facts["sample"] != _sample(rows):
            return "the rows that are kept for searching are not those that were written"
        if facts["kind"] == kind_of(store, whitening):
            for some in _blocks(np.arange(len(rows))):
                wrong = _wrong_ones(store, whitening, digests[some], rows[some])
                if wrong:
                    return f"{wrong} of the rows that are kept for searching are not those of the index"
    except UNREADABLE as error:
        return f"what is kept for searching cannot be read ({type(error).__name__}: {error})"
    return ""


def _wrong_ones(store: Store, whitening: Whitening | None, digests: np.ndarray, rows: np.ndarray) -> int:
    known = store.rows_of_each(list({digest.tobytes() for digest in digests}))
    here = [at for at, digest in enumerate(digests) if digest.tobytes() in known]
    if not here:
        return 0
    expected = np.stack([known[digests[at].tobytes()] for at in here])
    expected = expected if whitening is None else whitening.apply(expected)
    return int((~(np.abs(rows[here] - expected) <= _SAME_WITHIN).all(1)).sum())


def _keep(making: _Making, folder: Path, kind: dict[str, str], state: str) -> Pictures:
    token, target = _BESIDE.new(folder)
    dtype = np.dtype(STORAGES[kind["storage"]])
    try:
        filled = np.lib.format.open_memmap(target, "w+", dtype, making.shape)  # type: ignore[no-untyped-call]
        _reserve(target)
        pictures = making.fill(filled)
        filled.flush()
        rows = _mapped(target)
        facts = {"kind": kind, "state": state, "token": token, "sample": _sample(rows)}
        _BESIDE.write(folder, facts, {"digests": pictures.digests, **making.paths.arrays})
    except BaseException:
        with suppress(OSError):
            target.unlink()
        raise
    return Pictures(pictures.paths, pictures.digests, rows)


def _reserve(file: Path) -> None:
    """Takes a new file's place on the disk: a mapped one that met a full disk would end the process."""
    with open(file, "rb+") as stream:
        left = os.fstat(stream.fileno()).st_size - stream.seek(_HEADER)
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(stream.fileno(), _HEADER, left)
            return
        while left > 0:
            left -= stream.write(bytes(min(left, 1 << 20)))


def _mapped(path: Path) -> Float[np.ndarray, "n d"]:
    """The rows of a file, read from it as they are needed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about what a damaged header says
        rows = np.load(path, mmap_mode="r", allow_pickle=False)
    if rows.ndim != 2 or not rows.flags.c_contiguous or rows.dtype not in STORAGES.values():
        raise ValueError(f"{path} holds no rows")
    if os.stat(path).st_size != rows.offset + rows.nbytes:
        raise ValueError(f"{path} has another size than its rows")
    return np.asarray(rows)


def _sample(rows: Float[np.ndarray, "n d"]) -> str:
    """A digest of the rows; of many of some of them, the first and the last among them."""
    some = rows if rows.nbytes <= _READ_WHOLE else rows[spread(len(rows), _SAMPLED)]
    return hashlib.blake2b(some.tobytes(), digest_size=16).hexdigest()


def _blocks(positions: Int[np.ndarray, " n"]) -> Iterator[Int[np.ndarray, " b"]]:
    return (positions[start : start + _AT_ONCE] for start in range(0, len(positions), _AT_ONCE))
