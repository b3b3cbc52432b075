"""The records of an index in Milvus.

They are in these collections::

    facts      what the index is, its folders, whitenings in pieces, what was skipped and what was taken out, by key
    pictures   files by path, in hexadecimal digits so that every path has a key, and keys are in order of path
    rows       rows of contents by digest, before whitening
    v1, v2 …   the same whitened, for each version of the whitening; the one in force is searched
    a0, a1 …   the same in lists, for an approximate search

Milvus has no transactions. Rows are written before the pictures that point to them, and deleted after; the digests
meanwhile at stake are noted first, and the next writer takes back what an interruption left half done.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from itertools import islice
from typing import Any

import numpy as np
from typing_extensions import override

from coocnet.data.walk import FileStamp
from coocnet.errors import IndexMissingError, IndexStorageError, NewerIndexError, printable
from coocnet.index.approximate import ANOTHER_WHITENING, ApproximateInfo
from coocnet.index.database import now
from coocnet.index.facts import NO_WHITENING, StoredWhitening
from coocnet.index.milvus.address import Address
from coocnet.index.milvus.lease import Lease
from coocnet.index.milvus.notes import KEY_LETTERS, VALUE_BYTES, Notes
from coocnet.index.milvus.server import Server
from coocnet.index.milvus.vectors import Vectors
from coocnet.index.records import Described, Known, Records, Removal, SyncedFolder
from coocnet.recipe import Recipe
from coocnet.whitening import Whitening

_FORMAT = 1
_AT_ONCE = 500
_PENDING = "pending"
_NOTHING = '{"digests": [], "out": false}'
_UNUSED = "unused/"
_OF_A_PICTURE = ("digest", "size_bytes", "modified_ns")


class MilvusRecords(Records):
    """The records of an index, over one connection to a server."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._notes = Notes(server)
        self.vectors = Vectors(server, self._notes)

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
        if address.is_file and not os.path.exists(address.uri):  # Milvus Lite would make it, but not its folder
            if recipe is None:
                raise _missing(address.shown)
            try:
                os.makedirs(os.path.dirname(address.uri), exist_ok=True)
            except OSError as error:
                raise IndexStorageError(f"{printable(address.shown)} cannot be made: {error.strerror}") from error
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
                raise _missing(self.place)
            makers = {"pictures": self._make_pictures, "facts": self._notes.make}
            with ThreadPoolExecutor() as threads:  # each takes a server a second or three
                list(threads.map(lambda kind: makers[kind](), makers.keys() - kinds))
            self._notes.put({f"fact/{key}": value for key, value in (("recipe", recipe.to_toml()), ("made", now()))})
            self._notes.put({"fact/format": str(_FORMAT)})  # from here on there is an index
        elif recipe is not None:
            self.check_recipe(recipe)

    def _make_pictures(self) -> None:
        fields = {"digest": 32, "size_bytes": None, "modified_ns": None}
        self._server.make("pictures", KEY_LETTERS, fields, found_by="digest")

    # What the index is

    @property
    @override
    def place(self) -> str:
        return self._server.address.shown

    @override
    def check_in_place(self) -> None:
        if "facts" not in self._server.made():
            raise IndexStorageError(f"{printable(self.place)} was deleted; open or make the index anew")

    @override
    def close(self) -> None:
        self._server.close()

    @override
    def snapshot(self) -> AbstractContextManager[None]:
        return self._notes.held("fact/")

    @override
    @contextmanager
    def sole_writer(self) -> Iterator[None]:
        self.check_in_place()
        with Lease(self._server) as lease:
            self._server.before_writing = lease.check
            self._server.settle()
            try:
                with self._notes.held():
                    self._take_back()
                    yield
            finally:
                self._server.before_writing = lambda: None

    @override
    def state(self) -> str:
        found = self._facts("made", "change")
        return f"{found.get('made', '')} {found.get('change', '')}"

    @override
    def meta(self, key: str) -> str | None:
        return self._facts(key).get(key)

    @override
    def put_facts(self, facts: Mapping[str, str]) -> None:
        self._notes.put({f"fact/{key}": value for key, value in {**facts, "change": secrets.token_hex(8)}.items()})

    def _facts(self, *keys: str) -> dict[str, str]:
        found = self._notes.get(f"fact/{key}" for key in keys)
        return {key.removeprefix("fact/"): text for key, text in found.items()}

    # Pictures and rows

    @override
    def pictures_below(self, root: str) -> dict[str, FileStamp]:
        below = _key(os.path.join(root, ""))
        found = self._server.rows("pictures", f'key like "{below}%"', ["size_bytes", "modified_ns"])
        return {_path(row["key"]): _stamp(row) for row in found}

    @override
    def contents_below(self, root: str) -> dict[bytes, str]:
        found = self._server.rows("pictures", f'key like "{_key(os.path.join(root, ""))}%"', ["digest"])
        return {bytes.fromhex(row["digest"]): _path(row["key"]) for row in found}

    @override
    def digests(self) -> Known:
        return _Known(self.vectors) if self.vectors.has_rows() else set[bytes]()

    @override
    def row_of(self, digest: bytes) -> np.ndarray | None:
        return self.vectors.get([digest]).get(digest)

    @override
    def rows_of_each(self, digests: Sequence[bytes]) -> dict[bytes, np.ndarray]:
        return self.vectors.get(digests)

    @override
    def each_picture(self) -> Iterator[Described]:
        return map(_described, self._server.rows("pictures", "", _OF_A_PICTURE))

    @override
    def pictures_at(self, paths: Sequence[str]) -> dict[str, Described]:
        found = self._server.get("pictures", [_key(path) for path in paths], _OF_A_PICTURE)
        return {one.path: one for one in map(_described, found.values())}

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
        # Others may have been told already that these contents are known: they go when a sync ends, as in a folder.
        self._notes.put({f"{_UNUSED}{digest}": "" for digest in former})
        with self._pending(sorted(now_there)):
            self.vectors.put(list(new), np.array(list(new.values()), np.float32))
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
            self._notes.forget([f"skipped/{_key(one.path)}" for one in listed])
            self.forget_removals([one.digest for one in listed])
        self.put_facts({})

    @override
    def drop(self, paths: Iterable[str]) -> None:
        gone = [_key(path) for path in paths]
        for start in range(0, len(gone), _AT_ONCE):
            some = gone[start : start + _AT_ONCE]
            digests = {row["digest"] for row in self._server.get("pictures", some, ["digest"]).values()}
            with self._pending(sorted(digests)):
                self._server.delete("pictures", some)
                self._drop_unused(digests)
            self.put_facts({})
        unused = [digest for digest, _ in self._notes.below(_UNUSED)]
        if unused:
            self._drop_unused(unused)
            self._notes.forget([f"{_UNUSED}{digest}" for digest in unused])
            self.put_facts({})

    def _drop_unused(self, digests: Iterable[str]) -> None:
        """Deletes those of the rows that no picture points to."""
        wanted = sorted(digests)
        used = self._files(wanted)
        self.vectors.delete([digest for digest in wanted if digest not in used])

    @contextmanager
    def _pending(self, digests: Sequence[str], *, out: bool = False) -> Iterator[None]:
        """Notes which contents are at stake, or on their way ``out``, until the block has ended well."""
        self._notes.put({_PENDING: json.dumps({"digests": list(digests), "out": out})})
        yield
        self._notes.put({_PENDING: _NOTHING})

    def _take_back(self) -> None:
        """Mends what an interruption left half done; for the sole writer."""
        told = json.loads(self._notes.get([_PENDING]).get(_PENDING, _NOTHING))
        digests = told["digests"]
        if digests:
            pictures = self._files(digests)
            if told["out"]:
                self._server.delete("pictures", [key for keys in pictures.values() for key in keys])
            else:
                self.forget_removals([bytes.fromhex(digest) for digest in pictures])
            self._drop_unused(digests)
            self._notes.put({_PENDING: _NOTHING})
            self.put_facts({})
        self.vectors.drop_unnamed()

    @override
    def take_out(self, digests: Iterable[bytes]) -> int:
        count = 0
        for digest in digests:
            name = digest.hex()
            found = list(self._server.rows("pictures", f'digest == "{name}"', ["size_bytes", "modified_ns"]))
            with self._pending([name], out=True):
                self.note_removals([Removal(digest, _path(row["key"]), _stamp(row)) for row in found])
                self._server.delete("pictures", [row["key"] for row in found])
                self._drop_unused([name])
            count += len(found)
        self.put_facts({})
        return count

    @override
    def taken_out(self) -> list[Removal]:
        found = []
        for key, value in self._notes.below("removed/"):
            digest, _, path = key.partition("/")
            size, modified = value.split()
            found.append(Removal(bytes.fromhex(digest), _path(path), FileStamp(int(size), int(modified))))
        return found

    @override
    def forget_removals(self, digests: Iterable[bytes]) -> None:
        gone = {digest.hex() for digest in digests}
        keys = [f"removed/{key}" for key, _ in self._notes.below("removed/") if key.partition("/")[0] in gone]
        self._notes.forget(keys)

    @override
    def note_removals(self, met: Sequence[Removal], *, as_they_are: bool = False) -> None:
        self._notes.put(
            {
                f"removed/{one.digest.hex()}/{_key(one.path)}": f"{one.stamp.size_bytes} {one.stamp.modified_ns}"
                for one in met
            }
        )

    @override
    def note_sync(self, root: str, skipped: dict[str, str], *, when: str | None = None) -> None:
        self._forget_skipped(root)
        self._notes.put({f"skipped/{_key(path)}": _fitting(reason) for path, reason in skipped.items()})
        self._notes.put({f"folder/{_key(root)}": when or now()})

    @override
    def forget_folder(self, root: str) -> None:
        self._forget_skipped(root)
        self._notes.forget([f"folder/{_key(root)}"])

    def _forget_skipped(self, root: str) -> None:
        below = _key(os.path.join(root, ""))
        former = [f"skipped/{below}{key}" for key, _ in self._notes.below(f"skipped/{below}")]
        self._notes.forget([*former, f"skipped/{_key(root)}"])

    @override
    def folder_paths(self) -> list[bytes]:
        return [bytes.fromhex(key) for key, _ in self._notes.below("folder/")]

    @override
    def folders(self) -> list[SyncedFolder]:
        found = []
        for key, when in self._notes.below("folder/"):
            path = _path(key)
            count = self._server.count("pictures", f'key like "{_key(os.path.join(path, ""))}%"')
            found.append(SyncedFolder(path, count, when))
        return found

    @override
    def skipped(self) -> dict[str, str]:
        return {_path(key): reason for key, reason in self._notes.below("skipped/")}

    @override
    def count_pictures(self) -> int:
        return self._server.count("pictures")

    @override
    def count_contents(self) -> int:
        return self.vectors.count()

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
        rows = np.zeros((len(place), self.dim), np.float32)
        for digests, some in self.vectors.each():
            for digest, row in zip(digests, some, strict=True):
                if digest in place:
                    rows[place[digest]] = row
        order = [place[digest] for _, digest in listed]
        return [_path(key) for key, _ in listed], [bytes.fromhex(digest) for _, digest in listed], rows[order]

    @override
    def each_row(self) -> Iterator[np.ndarray]:
        return (rows for _, rows in self.vectors.each())

    # Whitenings

    @override
    def whitening(self) -> StoredWhitening | None:
        return self.vectors.whitening()

    @override
    def put_whitening(self, whitening: Whitening | None, *, learned_here: bool) -> None:
        version = NO_WHITENING
        if whitening is not None:
            version = str(self.vectors.add_whitening(whitening, learned_here=learned_here))
        self.put_facts({"whitening": version, **self._approximate_without_whitening()})
        self.vectors.drop_unnamed()

    @override
    def forget_whitening(self) -> None:
        self._notes.forget(["fact/whitening"])
        self.put_facts(self._approximate_without_whitening())
        self.vectors.drop_unnamed()

    # The approximate search

    def approximate(self) -> tuple[int | None, ApproximateInfo] | None:
        """The approximate search that is kept up to date, with the version of its rows' whitening; or None."""
        told = json.loads(self.meta("approximate") or "null")
        return None if told is None else (told["version"], ApproximateInfo(**told["info"], installed=True))

    def put_approximate(self, version: int | None, info: ApproximateInfo) -> None:
        """Puts an approximate search in force, in the rows of a version of the whitening or as they are stored."""
        known = {key: value for key, value in asdict(info).items() if key != "installed"}
        self.put_facts({"approximate": json.dumps({"version": version, "info": known}), "out_of_force": ""})
        self.vectors.drop_unnamed()

    def refuse_approximate(self, contents: int, why: str) -> None:
        """Notes that for so many contents an approximate search does not pay, so that no sync tries again soon."""
        self.put_facts({"approximate": "null", "refused": str(contents), "out_of_force": why})
        self.vectors.drop_unnamed()

    def _approximate_without_whitening(self) -> dict[str, str]:
        """What becomes of an approximate search in whitened rows when these are no longer kept up to date."""
        held = self.approximate()
        if held is None or held[0] is None:
            return {}
        return {"approximate": "null", "out_of_force": ANOTHER_WHITENING}


def _missing(place: str) -> IndexMissingError:
    shown = printable(place)
    return IndexMissingError(f"there is no index at {shown}; make one with: coocnet index FOLDER --index {shown}")


class _Known:
    """Contents that have rows, asked for one by one: a large collection has too many to hold."""

    def __init__(self, vectors: Vectors) -> None:
        self._vectors = vectors
        self._seen: set[bytes] = set()

    def __contains__(self, digest: object) -> bool:
        if not isinstance(digest, bytes):
            return False
        if digest not in self._seen and digest in self._vectors:
            self._seen.add(digest)
        return digest in self._seen

    def add(self, digest: bytes) -> None:
        self._seen.add(digest)


def _described(row: Mapping[str, Any]) -> Described:
    return Described(_path(row["key"]), _stamp(row), bytes.fromhex(row["digest"]), None)


def _fitting(text: str) -> str:
    return text.encode()[:VALUE_BYTES].decode(errors="ignore")


def _key(path: str) -> str:
    return os.fsencode(path).hex()


def _path(key: str) -> str:
    return os.fsdecode(bytes.fromhex(key))


def _stamp(row: Mapping[str, int]) -> FileStamp:
    return FileStamp(row["size_bytes"], row["modified_ns"])
