"""The records of an index in Milvus.

They are in these collections::

    facts      what the index is, its folders, whitenings in pieces, what was skipped and what was taken out, by key
    pictures   files by path, in hexadecimal digits so that every path has a key, and keys are in order of path
    rows       rows of contents by digest, before whitening
    v1, v2 …   the same whitened, for each version of the whitening; the one in force is searched

Milvus has no transactions. Rows are written before the pictures that point to them, and deleted after; the digests
meanwhile at stake are noted first, and the next writer takes back what an interruption left half done.
"""

from __future__ import annotations

import base64
import json
import os
import platform
import secrets
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from itertools import islice

import numpy as np
from typing_extensions import override

from coocnet.data.walk import FileStamp
from coocnet.errors import (
    ForeignIndexError,
    IndexBusyError,
    IndexMissingError,
    IndexStorageError,
    NewerIndexError,
    printable,
)
from coocnet.index.database import now
from coocnet.index.facts import NO_WHITENING, StoredWhitening
from coocnet.index.milvus.address import Address
from coocnet.index.milvus.server import Server
from coocnet.index.records import Described, Known, Records, Removal, SyncedFolder
from coocnet.recipe import Recipe
from coocnet.whitening import Whitening

_KEY_LETTERS = 16_384
_VALUE_LETTERS = 65_535
_PIECE_LETTERS = 60_000
_FORMAT = 1
_AT_ONCE = 500
_PENDING = "pending"
_WRITER = "writer"
_LEASE_S = 60.0
_RENEWED_S = 15.0
_SETTLES_S = 1.0


class MilvusRecords(Records):
    """The records of an index, over one connection to a server."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._held: tuple[tuple[str, str], StoredWhitening] | None = None
        self._notes: dict[str, str] | None = None

    @classmethod
    def open(cls, address: Address, recipe: Recipe | None) -> MilvusRecords:
        """Opens an index; makes it when ``recipe`` is given and there is none.

        Raises:
            InputError: pymilvus is not installed.
            IndexMissingError: there is none, and no recipe.
            RecipeMismatchError: the index holds rows of another recipe.
            NewerIndexError: a newer coocnet made it.
            IndexStorageError: the server cannot be reached.
        """
        server = Server(address)
        records = cls(server)
        try:
            records._open(recipe)
        except BaseException:
            server.close()
            raise
        return records

    def _open(self, recipe: Recipe | None) -> None:
        kinds = self._server.kinds()
        version = self.meta("format") if "facts" in kinds else None
        if version is not None and int(version) > _FORMAT:
            raise NewerIndexError(
                f"{self.place} has format {version}; this coocnet reads up to {_FORMAT}. "
                "Use the coocnet that wrote it, or a newer one; nothing was changed."
            )
        if version is None:
            if recipe is None:
                raise IndexMissingError(
                    f"there is no index at {self.place}; make one with: coocnet index FOLDER --index {self.place}"
                )
            if "pictures" not in kinds:
                fields = {"digest": 32, "size_bytes": None, "modified_ns": None}
                self._server.make("pictures", _KEY_LETTERS, fields)
            if "facts" not in kinds:
                self._server.make("facts", _KEY_LETTERS, {"value": _VALUE_LETTERS})
            self._put({f"fact/{key}": value for key, value in (("recipe", recipe.to_toml()), ("made", now()))})
            self._put({"fact/format": str(_FORMAT)})  # from here on there is an index
        elif recipe is not None:
            self.check_recipe(recipe)

    # What the index is

    @property
    @override
    def place(self) -> str:
        return self._server.address.shown

    @override
    def check_in_place(self) -> None:
        if "facts" not in self._server.kinds():
            raise IndexStorageError(f"{printable(self.place)} was deleted; open or make the index anew")

    @override
    def close(self) -> None:
        self._server.close()

    @override
    def snapshot(self) -> AbstractContextManager[None]:
        return nullcontext()

    @override
    @contextmanager
    def sole_writer(self) -> Iterator[None]:
        self.check_in_place()
        with Lease(self._server, self.place):
            self._server.settle()
            # Nobody else writes now, and to read back what was just written takes a fifth of a second each time.
            self._notes = {row["key"]: row["value"] for row in self._server.rows("facts", "", ["value"])}
            try:
                self._take_back()
                yield
            finally:
                self._notes = None

    @override
    def state(self) -> str:
        found = self._facts("made", "change")
        return f"{found.get('made', '')} {found.get('change', '')}"

    @override
    def meta(self, key: str) -> str | None:
        return self._facts(key).get(key)

    @override
    def _put_facts(self, facts: Mapping[str, str]) -> None:
        self._put({f"fact/{key}": value for key, value in {**facts, "change": secrets.token_hex(8)}.items()})

    def _facts(self, *keys: str) -> dict[str, str]:
        return {key.removeprefix("fact/"): text for key, text in self._get(f"fact/{key}" for key in keys).items()}

    def _get(self, keys: Iterable[str]) -> dict[str, str]:
        """What stands under keys in the facts; unknown keys are left out."""
        if self._notes is not None:
            return {key: self._notes[key] for key in keys if key in self._notes}
        return {key: str(row["value"]) for key, row in self._server.get("facts", list(keys), ["value"]).items()}

    def _put(self, values: Mapping[str, str]) -> None:
        if values:
            self._server.put("facts", [{"key": key, "value": value} for key, value in values.items()])
            if self._notes is not None:
                self._notes |= values

    def _forget(self, keys: Sequence[str]) -> None:
        if self._notes is not None:
            keys = [key for key in keys if self._notes.pop(key, None) is not None]
        self._server.delete("facts", keys)

    def _noted(self, before: str) -> list[tuple[str, str]]:
        """What stands under keys that begin like this, without that beginning, in order."""
        if self._notes is not None:
            found = sorted((key, text) for key, text in self._notes.items() if key.startswith(before))
        else:
            rows = self._server.rows("facts", f'key like "{before}%"', ["value"])
            found = [(row["key"], row["value"]) for row in rows]
        return [(key.removeprefix(before), text) for key, text in found]

    # Pictures and rows

    @override
    def pictures_below(self, root: str) -> dict[str, FileStamp]:
        below = _key(os.path.join(root, ""))
        found = self._server.rows("pictures", f'key like "{below}%"', ["size_bytes", "modified_ns"])
        return {_path(row["key"]): _stamp(row) for row in found}

    @override
    def digests(self) -> Known:
        return _Known(self._server) if self._has_rows() else set[bytes]()

    @override
    def row_of(self, digest: bytes) -> np.ndarray | None:
        found = self._server.get("rows", [digest.hex()], ["row"]) if self._has_rows() else {}
        return np.array(found[digest.hex()]["row"], "<f4") if found else None

    @override
    def put(self, described: Iterable[Described]) -> None:
        listed = list(described)
        for start in range(0, len(listed), _AT_ONCE):
            self._put_some(listed[start : start + _AT_ONCE])

    def _put_some(self, listed: Sequence[Described]) -> None:
        new = {one.digest.hex(): one.row for one in listed if one.row is not None}
        now_there = {one.digest.hex() for one in listed}
        known = self._server.get("pictures", [_key(one.path) for one in listed], ["digest"])
        former = {row["digest"] for row in known.values()} - now_there
        with self._pending(sorted(now_there | former)):
            self._put_rows(list(new), np.array(list(new.values()), np.float32))
            self._server.put(
                "pictures",
                [
                    {
                        "key": _key(one.path),
                        "digest": one.digest.hex(),
                        "size_bytes": one.stamp.size_bytes,
                        "modified_ns": one.stamp.modified_ns,
                    }
                    for one in listed
                ],
            )
            self._drop_unused(former)
        self._forget([f"skipped/{_key(one.path)}" for one in listed])
        self.forget_removals([one.digest for one in listed])
        self._put_facts({})

    def _put_rows(self, digests: Sequence[str], rows: np.ndarray) -> None:
        if not digests:
            return
        kinds = self._server.kinds()
        if "rows" not in kinds:
            self._server.make("rows", 32, {}, dim=rows.shape[1])
        self._server.put("rows", _with_keys(digests, rows))
        stored = self.whitening()
        if stored is not None:
            self._server.put(f"v{stored.version}", _with_keys(digests, stored.whitening.apply(rows)))

    @override
    def drop(self, paths: Iterable[str]) -> None:
        gone = [_key(path) for path in paths]
        for start in range(0, len(gone), _AT_ONCE):
            some = gone[start : start + _AT_ONCE]
            digests = {row["digest"] for row in self._server.get("pictures", some, ["digest"]).values()}
            with self._pending(sorted(digests)):
                self._server.delete("pictures", some)
                self._drop_unused(digests)
            self._put_facts({})

    def _drop_unused(self, digests: Iterable[str]) -> None:
        """Deletes those of the rows that no picture points to."""
        wanted = sorted(digests)
        used = self._files(wanted)
        unused = [digest for digest in wanted if digest not in used]
        kinds = self._server.kinds() if unused else []
        for kind in kinds:
            if kind == "rows" or _is_version(kind):
                self._server.delete(kind, unused)

    @contextmanager
    def _pending(self, digests: Sequence[str]) -> Iterator[None]:
        """Notes what is at stake until the block has ended well."""
        self._put({_PENDING: json.dumps(list(digests))})
        yield
        self._put({_PENDING: "[]"})

    def _take_back(self) -> None:
        """Mends what an interruption left half done; for the sole writer."""
        digests = json.loads(self._get([_PENDING]).get(_PENDING, "[]"))
        if digests:
            self._drop_unused(digests)
            self._put({_PENDING: "[]"})
        stored = self.meta("whitening")
        for kind in self._server.kinds():
            if _is_version(kind) and kind != f"v{stored}":
                self._server.drop(kind)

    @override
    def take_out(self, digests: Iterable[bytes]) -> int:
        count = 0
        for digest in digests:
            name = digest.hex()
            found = list(self._server.rows("pictures", f'digest == "{name}"', ["size_bytes", "modified_ns"]))
            self.note_removals([Removal(digest, _path(row["key"]), _stamp(row)) for row in found])
            with self._pending([name]):
                self._server.delete("pictures", [row["key"] for row in found])
                self._drop_unused([name])
            count += len(found)
        self._put_facts({})
        return count

    @override
    def taken_out(self) -> list[Removal]:
        found = []
        for key, value in self._noted("removed/"):
            digest, _, path = key.partition("/")
            size, modified = value.split()
            found.append(Removal(bytes.fromhex(digest), _path(path), FileStamp(int(size), int(modified))))
        return found

    @override
    def forget_removals(self, digests: Iterable[bytes]) -> None:
        gone = {digest.hex() for digest in digests}
        keys = [f"removed/{key}" for key, _ in self._noted("removed/") if key.partition("/")[0] in gone]
        self._forget(keys)

    @override
    def note_removals(self, met: Sequence[Removal]) -> None:
        self._put(
            {
                f"removed/{one.digest.hex()}/{_key(one.path)}": f"{one.stamp.size_bytes} {one.stamp.modified_ns}"
                for one in met
            }
        )

    @override
    def note_sync(self, root: str, skipped: dict[str, str]) -> None:
        self._forget_skipped(root)
        self._put({f"skipped/{_key(path)}": reason[:_VALUE_LETTERS] for path, reason in skipped.items()})
        self._put({f"folder/{_key(root)}": now()})

    @override
    def forget_folder(self, root: str) -> None:
        self._forget_skipped(root)
        self._forget([f"folder/{_key(root)}"])

    def _forget_skipped(self, root: str) -> None:
        below = _key(os.path.join(root, ""))
        former = [f"skipped/{below}{key}" for key, _ in self._noted(f"skipped/{below}")]
        self._forget([*former, f"skipped/{_key(root)}"])

    @override
    def folder_paths(self) -> list[bytes]:
        return [bytes.fromhex(key) for key, _ in self._noted("folder/")]

    @override
    def folders(self) -> list[SyncedFolder]:
        found = []
        for key, when in self._noted("folder/"):
            path = _path(key)
            count = self._server.count("pictures", f'key like "{_key(os.path.join(path, ""))}%"')
            found.append(SyncedFolder(path, count, when))
        return found

    @override
    def skipped(self) -> dict[str, str]:
        return {_path(key): reason for key, reason in self._noted("skipped/")}

    @override
    def count_pictures(self) -> int:
        return self._server.count("pictures")

    @override
    def count_contents(self) -> int:
        return self._server.count("rows") if self._has_rows() else 0

    @override
    def files_of(self, digest: bytes) -> list[str]:
        return self.files_of_each([digest]).get(digest, [])

    @override
    def files_of_each(self, digests: Sequence[bytes]) -> dict[bytes, list[str]]:
        found = self._files([digest.hex() for digest in digests])
        return {bytes.fromhex(digest): [_path(key) for key in sorted(keys)] for digest, keys in found.items()}

    def _files(self, digests: Sequence[str]) -> dict[str, list[str]]:
        """Keys of the pictures with each of these contents; unknown contents are left out."""
        files: dict[str, list[str]] = {}
        for start in range(0, len(digests), _AT_ONCE):
            listed = ", ".join(f'"{digest}"' for digest in digests[start : start + _AT_ONCE])
            for row in self._server.rows("pictures", f"digest in [{listed}]", ["digest"]):
                files.setdefault(row["digest"], []).append(row["key"])
        return files

    @override
    def stamp_of(self, path: str) -> FileStamp | None:
        found = self._server.get("pictures", [_key(path)], ["size_bytes", "modified_ns"])
        return _stamp(found[_key(path)]) if found else None

    @override
    def paths(self, offset: int = 0, limit: int = -1) -> Iterator[bytes]:
        rows = self._server.rows("pictures", "", [])
        return (bytes.fromhex(row["key"]) for row in islice(rows, offset, None if limit < 0 else offset + limit))

    @override
    def digest_of(self, path: bytes) -> bytes:
        found = self._server.get("pictures", [path.hex()], ["digest"])
        return bytes.fromhex(found[path.hex()]["digest"])

    @override
    def holds(self, path: str) -> bool:
        return self.stamp_of(path) is not None

    @override
    def matrix(self) -> tuple[list[str], list[bytes], np.ndarray]:
        listed = [(row["key"], row["digest"]) for row in self._server.rows("pictures", "", ["digest"])]
        place = {digest: at for at, digest in enumerate(dict.fromkeys(digest for _, digest in listed))}
        rows = np.zeros((len(place), int(self.meta("dim") or 0)), np.float32)
        for digests, some in self.all_rows():
            for digest, row in zip(digests, some, strict=True):
                if digest in place:
                    rows[place[digest]] = row
        order = [place[digest] for _, digest in listed]
        return [_path(key) for key, _ in listed], [bytes.fromhex(digest) for _, digest in listed], rows[order]

    @override
    def mean_row(self) -> np.ndarray:
        total, count = np.zeros(int(self.meta("dim") or 0)), 0
        for _, rows in self.all_rows():
            total += rows.sum(0, dtype=np.float64)
            count += len(rows)
        return total / count

    def all_rows(self) -> Iterator[tuple[list[str], np.ndarray]]:
        """Digests and rows (b, d) of all contents, some at a time."""
        if not self._has_rows():
            return
        pages = self._server.rows("rows", "", ["row"])
        while some := list(islice(pages, _AT_ONCE)):
            yield [row["key"] for row in some], np.array([row["row"] for row in some], np.float32)

    def _has_rows(self) -> bool:
        return self.meta("dim") is not None and "rows" in self._server.kinds()

    # Whitenings

    @override
    def whitening(self) -> StoredWhitening | None:
        facts = self._facts("made", "whitening")
        version = facts.get("whitening", NO_WHITENING)
        if version == NO_WHITENING:
            return None
        if self._held is None or self._held[0] != (facts["made"], version):
            self._held = (facts["made"], version), self._read_whitening(int(version))
        return self._held[1]

    def _read_whitening(self, version: int) -> StoredWhitening:
        before = f"whitening/{version}/"
        head = json.loads(self._get([before])[before])
        keys = [f"{before}{number:06}" for number in range(head["pieces"])]
        found = self._get(keys)
        if len(found) < len(keys):
            raise ForeignIndexError(f"{printable(self.place)} is damaged: a part of its whitening is missing")
        content = base64.b64decode("".join(found[key] for key in keys))
        return StoredWhitening(version, head["learned_here"], Whitening.from_bytes(content))

    @override
    def put_whitening(self, whitening: Whitening | None, *, learned_here: bool) -> None:
        if whitening is None:
            self._put_facts({"whitening": NO_WHITENING})
            return
        versions = [int(key.partition("/")[0]) for key, _ in self._noted("whitening/")]
        version = max(versions, default=0) + 1
        text = base64.b64encode(whitening.to_bytes()).decode()
        pieces = [text[start : start + _PIECE_LETTERS] for start in range(0, len(text), _PIECE_LETTERS)]
        head = {f"whitening/{version}/": json.dumps({"learned_here": learned_here, "pieces": len(pieces)})}
        self._put({f"whitening/{version}/{number:06}": piece for number, piece in enumerate(pieces)} | head)
        self._server.make(f"v{version}", 32, {}, dim=whitening.dim)
        for digests, rows in self.all_rows():
            self._server.put(f"v{version}", _with_keys(digests, whitening.apply(rows)))
        former = self.meta("whitening")
        self._put_facts({"whitening": str(version)})
        if former not in (None, NO_WHITENING):
            self._server.drop(f"v{former}")

    @override
    def forget_whitening(self) -> None:
        self._forget(["fact/whitening"])
        self._put_facts({})

    # Searching

    def nearest(self, version: int | None, queries: np.ndarray, k: int) -> list[list[tuple[bytes, float]]]:
        """Digests and inner products of the k nearest contents of each query, best first.

        Args:
            version: of the whitening that queries and rows have; None for none.
            queries: (q, d).
            k: how many for each.
        """
        found = self._server.nearest(_searched(version), queries, k)
        return [[(bytes.fromhex(digest), score) for digest, score in hits] for hits in found]

    def searched_rows(self, version: int | None, digests: Sequence[bytes]) -> dict[bytes, np.ndarray]:
        """Rows of contents under a version of the whitening, or as they are stored for None."""
        found = self._server.get(_searched(version), [digest.hex() for digest in digests], ["row"])
        return {bytes.fromhex(key): np.array(row["row"], np.float32) for key, row in found.items()}


class Lease:
    """The right to write, for a minute at a time, renewed meanwhile; a process that was killed loses it by then.

    Milvus compares nothing before it writes, so two writers that begin in the same second wait and see who came last.

    Raises:
        IndexBusyError: another one has it.
    """

    def __init__(self, server: Server, place: str) -> None:
        self._server = server
        self._place = place
        self._own = f"{platform.node()} {os.getpid()} {secrets.token_hex(8)}"
        self._ended = threading.Event()
        self._renewing = threading.Thread(target=self._renew, daemon=True)

    def __enter__(self) -> None:
        self._server.settle()
        owner, until = self._read()
        if owner and until > time.time():
            raise self._busy(owner)
        self._write(self._own, time.time() + _LEASE_S)
        time.sleep(_SETTLES_S)
        self._server.settle()
        owner, _ = self._read()
        if owner != self._own:
            raise self._busy(owner)
        self._renewing.start()

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._renewing.join()
        self._write("", 0)

    def _renew(self) -> None:
        while not self._ended.wait(_RENEWED_S):
            with suppress(IndexStorageError):  # what is written meanwhile says so itself
                self._write(self._own, time.time() + _LEASE_S)

    def _read(self) -> tuple[str, float]:
        found = self._server.get("facts", [_WRITER], ["value"])
        if not found:
            return "", 0.0
        told = json.loads(found[_WRITER]["value"])
        return str(told["owner"]), float(told["until"])

    def _write(self, owner: str, until: float) -> None:
        self._server.put("facts", [{"key": _WRITER, "value": json.dumps({"owner": owner, "until": until})}])

    def _busy(self, owner: str) -> IndexBusyError:
        return IndexBusyError(
            f"{printable(self._place)} is being written by another process ({printable(owner)}); searching is "
            f"possible meanwhile, a second sync when it has finished, or {_LEASE_S:g} s after it was killed."
        )


class _Known:
    """Contents that have rows, asked for one by one: a large collection has too many to hold."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._seen: set[bytes] = set()

    def __contains__(self, digest: object) -> bool:
        if not isinstance(digest, bytes):
            return False
        if digest not in self._seen and self._server.get("rows", [digest.hex()], []):
            self._seen.add(digest)
        return digest in self._seen

    def add(self, digest: bytes) -> None:
        self._seen.add(digest)


def _with_keys(digests: Sequence[str], rows: np.ndarray) -> list[dict[str, object]]:
    return [{"key": digest, "row": row.tolist()} for digest, row in zip(digests, rows, strict=True)]


def _key(path: str) -> str:
    return os.fsencode(path).hex()


def _path(key: str) -> str:
    return os.fsdecode(bytes.fromhex(key))


def _stamp(row: Mapping[str, int]) -> FileStamp:
    return FileStamp(row["size_bytes"], row["modified_ns"])


def _searched(version: int | None) -> str:
    return "rows" if version is None else f"v{version}"


def _is_version(kind: str) -> bool:
    return kind[:1] == "v" and kind[1:].isdecimal()
