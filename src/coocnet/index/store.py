"""The store of record: pictures, rows and whitenings in the index's database.

Every change is one transaction. Rows belong to content, not to names: a picture is a path with a stamp that
points to the row of its bytes, so a renamed or copied file finds its row again.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import islice
from pathlib import Path

import numpy as np
from typing_extensions import override

from coocnet.data.walk import FileStamp
from coocnet.errors import RecipeError, WhiteningError, printable
from coocnet.index import removals, soundness
from coocnet.index.database import (
    DATABASE_NAME,
    Database,
    damaged,
    forget_sums,
    now,
    put_meta,
    put_sum,
    size_of,
    sole_writer,
)
from coocnet.index.facts import NO_WHITENING, StoredWhitening
from coocnet.index.records import Described, Records, Removal, SyncedFolder
from coocnet.index.salvage import is_right
from coocnet.recipe import Recipe
from coocnet.whitening import Whitening

_AT_ONCE = 500
_LOOKED_OVER_BYTES = 64 << 20
"""A database of so many bytes, some 15,000 pictures of 4 KiB, is looked over at each sync."""
_ROWS_AT_ONCE = 4096
_PICTURES = (
    "SELECT path, size_bytes, modified_ns, digest FROM pictures JOIN descriptors ON descriptors.id = descriptor"
)


class Store(Records):
    """The records of an index in its folder, over one open connection to a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @classmethod
    def open(cls, location: str | os.PathLike[str], recipe: Recipe | None) -> Store:
        """Opens an index; makes it when ``recipe`` is given and there is none.

        Raises:
            RecipeMismatchError: the index holds rows of another recipe.
            IndexFileError: see the subclasses in :mod:`coocnet.errors`.
        """
        store = cls(Database.open(location, None if recipe is None else {"recipe": recipe.to_toml()}))
        try:
            if recipe is not None:
                store.check_recipe(recipe)
        except BaseException:
            store.close()
            raise
        return store

    @property
    def location(self) -> Path:
        """The index's folder."""
        return self._database.location

    @override
    def check_in_place(self) -> None:
        self._database.check_in_place()

    @override
    def close(self) -> None:
        self._database.close()

    @override
    def snapshot(self) -> AbstractContextManager[None]:
        return self._database.reading()

    def generation(self) -> int:
        """Changes whenever what a search answers may have changed."""
        return self.whole("generation")

    @override
    @contextmanager
    def sole_writer(self) -> Iterator[None]:
        self.check_in_place()
        with sole_writer(self.location):
            yield

    @override
    def check_soundness(self) -> None:
        files = (self.location / DATABASE_NAME, self.location / f"{DATABASE_NAME}-wal")
        if sum(map(size_of, files)) > _LOOKED_OVER_BYTES:
            return
        if found := self._database.damage(soundness.quick_damage_of):
            more = f", and {len(found) - 1} more" if len(found) > 1 else ""
            raise damaged(self.location, found[0] + more)

    @override
    def state(self) -> str:
        found = dict(self._database.read("SELECT key, value FROM meta WHERE key IN ('made', 'generation', 'change')"))
        return " ".join(str(found.get(key, "")) for key in ("made", "generation", "change"))

    @contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        """One transaction that begins a new generation."""
        with self._database.writing() as db:
            yield db
            put_meta(db, "generation", str(self.generation() + 1))
            put_meta(db, "change", secrets.token_hex(8))

    # What the index is

    @property
    @override
    def place(self) -> str:
        return os.fspath(self.location)

    @override
    def meta(self, key: str) -> str | None:
        found = self._database.read("SELECT value FROM meta WHERE key = ?", (key,))
        if not found:
            return None
        if key != "recipe" and not is_right("meta", (key, found[0][0]), 0):
            raise damaged(self.location, f"its fact {key} is {found[0][0]!r}")
        return str(found[0][0])

    @property
    @override
    def recipe(self) -> Recipe:
        if self.meta("recipe") is None:
            raise damaged(self.location, "its recipe is lost")
        try:
            return super().recipe
        except RecipeError as error:
            raise damaged(self.location, f"its recipe cannot be read: {error}") from error

    @property
    @override
    def dim(self) -> int:
        dim = super().dim
        for (row,) in self._database.read("SELECT row FROM descriptors LIMIT 1"):
            self._decoded(row, "a picture", dim)  # or memory would be asked for as a damaged number says
        return dim

    @override
    def put_facts(self, facts: Mapping[str, str]) -> None:
        with self._changing() as db:
            for key, value in facts.items():
                put_meta(db, key, value)

    # Pictures and rows

    @override
    def pictures_below(self, root: str) -> dict[str, FileStamp]:
        below = os.path.join(root, "")
        found = self._database.read("SELECT path, size_bytes, modified_ns FROM pictures")
        stamps = {os.fsdecode(path): FileStamp(size, modified) for path, size, modified in found}
        return {path: stamp for path, stamp in stamps.items() if path.startswith(below)}

    @override
    def contents_below(self, root: str) -> dict[bytes, str]:
        below = os.path.join(root, "")
        found = self._database.read("SELECT digest, path FROM pictures JOIN descriptors ON id = descriptor")
        files = ((digest, os.fsdecode(path)) for digest, path in found)
        return {digest: path for digest, path in files if path.startswith(below)}

    @override
    def digests(self) -> set[bytes]:
        return {digest for (digest,) in self._database.read("SELECT digest FROM descriptors")}

    @override
    def row_of(self, digest: bytes) -> np.ndarray | None:
        found = self._database.read("SELECT row FROM descriptors WHERE digest = ?", (digest,))
        return np.frombuffer(found[0][0], "<f4") if found else None

    @override
    def rows_of_each(self, digests: Sequence[bytes]) -> dict[bytes, np.ndarray]:
        dim, rows = self.dim, {}
        for start in range(0, len(digests), _AT_ONCE):
            some = digests[start : start + _AT_ONCE]
            query = f"SELECT digest, row FROM descriptors WHERE digest IN ({','.join('?' * len(some))})"  # noqa: S608
            for digest, row in self._database.read(query, some):
                rows[digest] = self._decoded(row, "a picture", dim)
        return rows

    @override
    def each_picture(self) -> Iterator[Described]:
        return map(_described, self._database.stream(f"{_PICTURES} ORDER BY path"))

    @override
    def pictures_at(self, paths: Sequence[str]) -> dict[str, Described]:
        found = {}
        for start in range(0, len(paths), _AT_ONCE):
            some = [os.fsencode(path) for path in paths[start : start + _AT_ONCE]]
            query = f"{_PICTURES} WHERE path IN ({','.join('?' * len(some))})"
            found.update({one.path: one for one in map(_described, self._database.read(query, some))})
        return found

    @override
    def put(self, described: Iterable[Described]) -> None:
        with self._changing() as db:
            met = set()
            for one in described:
                met.add(one.digest)
                if one.row is not None:
                    row = one.row.astype("<f4").tobytes()
                    insert = "INSERT OR IGNORE INTO descriptors (digest, row) VALUES (?, ?)"
                    if db.execute(insert, (one.digest, row)).rowcount:
                        put_sum(db, one.digest, row)
                path = os.fsencode(one.path)
                db.execute(
                    "INSERT INTO pictures (path, descriptor, size_bytes, modified_ns)"
                    " SELECT ?, id, ?, ? FROM descriptors WHERE digest = ?"
                    " ON CONFLICT (path) DO UPDATE SET descriptor = excluded.descriptor,"
                    " size_bytes = excluded.size_bytes, modified_ns = excluded.modified_ns",
                    (path, one.stamp.size_bytes, one.stamp.modified_ns, one.digest),
                )
                db.execute("DELETE FROM skipped WHERE path = ?", (path,))
            self._forget(db, met)

    @override
    def drop(self, paths: Iterable[str]) -> None:
        gone = [(os.fsencode(path),) for path in paths]
        if gone:
            with self._changing() as db:
                db.executemany("DELETE FROM pictures WHERE path = ?", gone)
        with self._database.writing() as db:
            if db.execute("DELETE FROM descriptors WHERE id NOT IN (SELECT descriptor FROM pictures)").rowcount:
                forget_sums(db)

    @override
    def take_out(self, digests: Iterable[bytes]) -> int:
        with self._changing() as db:
            self._check_removals(db)
            return removals.take_out(db, digests)

    @override
    def taken_out(self) -> list[Removal]:
        return removals.removals(self._database)

    @override
    def forget_removals(self, digests: Iterable[bytes]) -> None:
        with self._database.writing() as db:
            self._forget(db, digests)

    def _forget(self, db: sqlite3.Connection, digests: Iterable[bytes]) -> None:
        """No longer remembers that these were taken out, within a transaction."""
        known = [digest for digest in digests if removals.knows(db, digest)]
        if known:
            self._check_removals(db)
            removals.forget(db, known)

    def _check_removals(self, db: sqlite3.Connection) -> None:
        """Refuses to change what is damaged: its checksum would be made anew, and nobody know of it any more."""
        if not removals.is_as_noted(db):
            raise damaged(self.location, removals.NOT_AS_NOTED)

    @override
    def note_removals(self, met: Sequence[Removal], *, as_they_are: bool = False) -> None:
        if met:
            with self._database.writing() as db:
                self._check_removals(db)
                removals.note(db, met, as_they_are=as_they_are)

    @override
    def note_sync(self, root: str, skipped: dict[str, str], *, when: str | None = None) -> None:
        below = os.fsencode(os.path.join(root, ""))
        with self._database.writing() as db:
            same_or_below = (os.fsencode(root), len(below), below)
            db.execute("DELETE FROM skipped WHERE path = ? OR substr(path, 1, ?) = ?", same_or_below)
            db.executemany(
                "INSERT OR REPLACE INTO skipped (path, reason) VALUES (?, ?)",
                ((os.fsencode(path), reason) for path, reason in skipped.items()),
            )
            db.execute(
                "INSERT OR REPLACE INTO folders (path, synchronised) VALUES (?, ?)",
                (os.fsencode(root), when or now()),
            )

    @override
    def forget_folder(self, root: str) -> None:
        self.note_sync(root, {})
        with self._database.writing() as db:
            db.execute("DELETE FROM folders WHERE path = ?", (os.fsencode(root),))

    @override
    def folder_paths(self) -> list[bytes]:
        return [path for (path,) in self._database.read("SELECT path FROM folders ORDER BY path")]

    @override
    def folders(self) -> list[SyncedFolder]:
        found = self._database.read("SELECT path, synchronised FROM folders ORDER BY path")
        paths = [path for (path,) in self._database.read("SELECT path FROM pictures")]
        return [
            SyncedFolder(os.fsdecode(folder), sum(path.startswith(os.path.join(folder, b"")) for path in paths), when)
            for folder, when in found
        ]

    @override
    def skipped(self) -> dict[str, str]:
        found = self._database.read("SELECT path, reason FROM skipped ORDER BY path")
        return {os.fsdecode(path): reason for path, reason in found}

    @override
    def count_pictures(self) -> int:
        return int(self._database.read("SELECT count(*) FROM pictures")[0][0])

    @override
    def count_contents(self) -> int:
        return int(self._database.read("SELECT count(*) FROM descriptors")[0][0])

    @override
    def files_of(self, digest: bytes) -> list[str]:
        found = self._database.read(
            "SELECT path FROM pictures JOIN descriptors ON id = descriptor WHERE digest = ? ORDER BY path", (digest,)
        )
        return [os.fsdecode(path) for (path,) in found]

    @override
    def files_of_each(self, digests: Sequence[bytes]) -> dict[bytes, list[str]]:
        files: dict[bytes, list[bytes]] = {}
        for start in range(0, len(digests), _AT_ONCE):
            some = digests[start : start + _AT_ONCE]
            # One row of text: with other threads at work, each row fetched is a wait for the interpreter's lock.
            query = (
                "SELECT group_concat(hex(digest) || ' ' || hex(path)) "  # noqa: S608 - only question marks are put in
                f"FROM pictures JOIN descriptors ON id = descriptor WHERE digest IN ({', '.join('?' * len(some))})"
            )
            ((told,),) = self._database.read(query, some)
            for pair in told.split(",") if told else ():
                digest, _, path = map(bytes.fromhex, pair.partition(" "))
                files.setdefault(digest, []).append(path)
        return {digest: [os.fsdecode(path) for path in sorted(paths)] for digest, paths in files.items()}

    @override
    def stamp_of(self, path: str) -> FileStamp | None:
        found = self._database.read(
            "SELECT size_bytes, modified_ns FROM pictures WHERE path = ?", (os.fsencode(path),)
        )
        return FileStamp(*found[0]) if found else None

    @override
    def paths(self, offset: int = 0, limit: int = -1) -> Iterator[bytes]:
        query = "SELECT path FROM pictures ORDER BY path LIMIT ? OFFSET ?"
        return (path for (path,) in self._database.stream(query, (limit, offset)))

    @override
    def digest_of(self, path: bytes) -> bytes:
        query = "SELECT digest FROM pictures JOIN descriptors ON id = descriptor WHERE path = ?"
        digest: bytes = self._database.read(query, (path,))[0][0]
        return digest

    @override
    def holds(self, path: str) -> bool:
        return bool(self._database.read("SELECT 1 FROM pictures WHERE path = ?", (os.fsencode(path),)))

    @override
    def matrix(self) -> tuple[list[str], list[bytes], np.ndarray]:
        dim = self.dim
        count = self.count_pictures()
        rows = np.empty((count, dim), np.float32)
        paths, digests = [], []
        query = (
            "SELECT path, digest, row FROM pictures JOIN descriptors ON descriptors.id = pictures.descriptor"
            " ORDER BY path LIMIT ?"
        )
        for position, (path, digest, row) in enumerate(self._database.stream(query, (count,))):
            rows[position] = self._decoded(row, printable(os.fsdecode(path)), dim)
            paths.append(os.fsdecode(path))
            digests.append(digest)
        if len(paths) < count:  # some were dropped meanwhile, or point nowhere
            self._check_pictures_have_rows()
        return paths, digests, self._finite(rows[: len(paths)])

    def listing(self) -> tuple[list[bytes], np.ndarray, np.ndarray]:
        """Paths in order, and for each its content's digest, (n, 16) uint8, and number, (n,) int64; no rows."""
        contents = self._database.read("SELECT id, digest FROM descriptors")
        digests = np.frombuffer(b"".join(digest for _, digest in contents), np.uint8).reshape(-1, 16)
        numbers = np.array([number for number, _ in contents], np.int64)
        pictures = self._database.read("SELECT path, descriptor FROM pictures ORDER BY path")
        shown = np.array([number for _, number in pictures], np.int64)
        order = np.argsort(numbers)
        at = np.searchsorted(numbers, shown, sorter=order)
        if (len(shown) and not (at < len(order)).all()) or not (numbers[order[at]] == shown).all():
            raise damaged(self.location, "there are pictures without a row")
        return [path for path, _ in pictures], digests[order[at]], shown

    def rows_of(self, contents: Sequence[int] | np.ndarray) -> np.ndarray:
        """Rows of contents by their numbers, which are rising and all there, (n, d) float32."""
        dim = self.dim
        rows = np.empty((len(contents), dim), np.float32)
        for start in range(0, len(rows), _AT_ONCE):
            some = [int(number) for number in contents[start : start + _AT_ONCE]]
            query = f"SELECT row FROM descriptors WHERE id IN ({','.join('?' * len(some))}) ORDER BY id"  # noqa: S608
            for position, (row,) in enumerate(self._database.stream(query, some), start):
                rows[position] = self._decoded(row, "a picture", dim)
        return self._finite(rows)

    @override
    def each_row(self) -> Iterator[np.ndarray]:
        dim = self.dim
        rows = self._database.stream("SELECT row FROM descriptors")
        while some := [self._decoded(row, "a picture", dim) for (row,) in islice(rows, _ROWS_AT_ONCE)]:
            yield self._finite(np.array(some))

    def _finite(self, rows: np.ndarray) -> np.ndarray:
        if not np.isfinite(rows).all():
            raise damaged(self.location, "a row has numbers that are not finite")
        return rows

    def _check_pictures_have_rows(self) -> None:
        lonely = "SELECT 1 FROM pictures LEFT JOIN descriptors ON id = descriptor WHERE id IS NULL LIMIT 1"
        if self._database.read(lonely):
            raise damaged(self.location, "there are pictures without a row")

    def _decoded(self, row: bytes, whose: str, dim: int) -> np.ndarray:
        if len(row) != 4 * dim:
            raise damaged(self.location, f"the row of {whose} has {len(row)} bytes instead of {4 * dim}")
        return np.frombuffer(row, "<f4")

    # Whitenings

    @override
    def whitening(self) -> StoredWhitening | None:
        found = self._database.read(
            "SELECT version, learned_here, content FROM whitenings"
            " WHERE version = (SELECT CAST(value AS INTEGER) FROM meta WHERE key = 'whitening')"
        )
        if not found:
            return None
        version, learned_here, content = found[0]
        try:
            return StoredWhitening(version, bool(learned_here), Whitening.from_bytes(content))
        except WhiteningError as error:
            raise damaged(self.location, f"its whitening cannot be read: {error}") from error

    @override
    def put_whitening(self, whitening: Whitening | None, *, learned_here: bool) -> None:
        with self._changing() as db:
            version = NO_WHITENING
            if whitening is not None:
                cursor = db.execute(
                    "INSERT INTO whitenings (made, learned_here, content) VALUES (?, ?, ?)",
                    (now(), int(learned_here), whitening.to_bytes()),
                )
                version = str(cursor.lastrowid)
            put_meta(db, "whitening", version)

    @override
    def forget_whitening(self) -> None:
        with self._changing() as db:
            db.execute("DELETE FROM meta WHERE key = 'whitening'")


def _described(found: tuple[bytes, int, int, bytes]) -> Described:
    path, size, modified, digest = found
    return Described(os.fsdecode(path), FileStamp(size, modified), digest, None)
