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
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from coocnet.data.walk import FileStamp
from coocnet.errors import ForeignIndexError, printable
from coocnet.index import removals
from coocnet.index.database import Database, now, put_meta
from coocnet.index.facts import NO_WHITENING, Facts, StoredWhitening
from coocnet.recipe import Recipe
from coocnet.whitening import Whitening

_AT_ONCE = 500


@dataclass(frozen=True)
class Described:
    """A picture to write: its path, its stamp, its content's digest, and the row if the content is new."""

    path: str
    stamp: FileStamp
    digest: bytes
    row: np.ndarray | None


@dataclass(frozen=True)
class SyncedFolder:
    """A folder of the collection: how many pictures of it are here, and when it was last looked through."""

    path: str
    pictures: int
    synchronised: str


class Store(Facts):
    """What an index holds, over one open connection. Not for use by several threads at once."""

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

    def check_in_place(self) -> None:
        """Refuses to go on where the index is no longer at its place.

        Raises:
            IndexStorageError: it was moved or deleted.
        """
        self._database.check_in_place()

    def close(self) -> None:
        """Closes the connection; the index is complete on disk after every call anyway."""
        self._database.close()

    def snapshot(self) -> AbstractContextManager[None]:
        """What is read within belongs together, whatever other processes store meanwhile."""
        return self._database.reading()

    def generation(self) -> int:
        """Changes whenever what a search answers may have changed."""
        return int(self.meta("generation") or 0)

    def state(self) -> str:
        """What is read now, told from every other state of this index, and of one restored from a copy."""
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
    def place(self) -> str:
        """The index's folder, as messages say it."""
        return os.fspath(self.location)

    def meta(self, key: str) -> str | None:
        """A fact about the index as a whole."""
        found = self._database.read("SELECT value FROM meta WHERE key = ?", (key,))
        return str(found[0][0]) if found else None

    def _put_facts(self, facts: Mapping[str, str]) -> None:
        with self._changing() as db:
            for key, value in facts.items():
                put_meta(db, key, value)

    # Pictures and rows

    def pictures_below(self, root: str) -> dict[str, FileStamp]:
        """Stored pictures below a folder, with the stamps they were described at."""
        below = os.path.join(root, "")
        found = self._database.read("SELECT path, size_bytes, modified_ns FROM pictures")
        stamps = {os.fsdecode(path): FileStamp(size, modified) for path, size, modified in found}
        return {path: stamp for path, stamp in stamps.items() if path.startswith(below)}

    def digests(self) -> set[bytes]:
        """Digests of every content that has a row."""
        return {digest for (digest,) in self._database.read("SELECT digest FROM descriptors")}

    def row_of(self, digest: bytes) -> np.ndarray | None:
        """The stored row of a content, or None."""
        found = self._database.read("SELECT row FROM descriptors WHERE digest = ?", (digest,))
        return np.frombuffer(found[0][0], "<f4") if found else None

    def put(self, described: Iterable[Described]) -> None:
        """Stores pictures, and rows where the content is new, in one transaction; none of it is left out any more."""
        with self._changing() as db:
            some_removed = removals.has_table(db)
            for one in described:
                if one.row is not None:
                    db.execute(
                        "INSERT OR IGNORE INTO descriptors (digest, row) VALUES (?, ?)",
                        (one.digest, one.row.astype("<f4").tobytes()),
                    )
                path = os.fsencode(one.path)
                db.execute(
                    "INSERT INTO pictures (path, descriptor, size_bytes, modified_ns)"
                    " SELECT ?, id, ?, ? FROM descriptors WHERE digest = ?"
                    " ON CONFLICT (path) DO UPDATE SET descriptor = excluded.descriptor,"
                    " size_bytes = excluded.size_bytes, modified_ns = excluded.modified_ns",
                    (path, one.stamp.size_bytes, one.stamp.modified_ns, one.digest),
                )
                db.execute("DELETE FROM skipped WHERE path = ?", (path,))
                if some_removed:
                    removals.forget(db, [one.digest])

    def drop(self, paths: Iterable[str]) -> None:
        """Forgets pictures, then rows that no picture points to."""
        gone = [(os.fsencode(path),) for path in paths]
        if gone:
            with self._changing() as db:
                db.executemany("DELETE FROM pictures WHERE path = ?", gone)
        with self._database.writing() as db:
            db.execute("DELETE FROM descriptors WHERE id NOT IN (SELECT descriptor FROM pictures)")

    def take_out(self, digests: Iterable[bytes]) -> int:
        """Takes contents out of the collection with all their files, which are remembered; says how many files."""
        with self._changing() as db:
            return removals.take_out(db, digests)

    def taken_out(self) -> list[removals.Removal]:
        """The files that were taken out, by content and path."""
        return removals.removals(self._database)

    def forget_removals(self, digests: Iterable[bytes]) -> None:
        """Leaves contents that were taken out to the next sync again."""
        with self._database.writing() as db:
            removals.forget(db, digests)

    def note_removals(self, met: Sequence[removals.Removal]) -> None:
        """Remembers files that were met with contents which had been taken out."""
        if met:
            with self._database.writing() as db:
                removals.note(db, met)

    def note_sync(self, root: str, skipped: dict[str, str]) -> None:
        """Notes that ``root`` was looked through, and which files below it were left out and why."""
        below = os.fsencode(os.path.join(root, ""))
        with self._database.writing() as db:
            same_or_below = (os.fsencode(root), len(below), below)
            db.execute("DELETE FROM skipped WHERE path = ? OR substr(path, 1, ?) = ?", same_or_below)
            db.executemany(
                "INSERT OR REPLACE INTO skipped (path, reason) VALUES (?, ?)",
                ((os.fsencode(path), reason) for path, reason in skipped.items()),
            )
            db.execute(
                "INSERT OR REPLACE INTO folders (path, synchronised) VALUES (?, ?)", (os.fsencode(root), now())
            )

    def forget_folder(self, root: str) -> None:
        """No longer counts ``root`` among the folders of the collection."""
        self.note_sync(root, {})
        with self._database.writing() as db:
            db.execute("DELETE FROM folders WHERE path = ?", (os.fsencode(root),))

    def folder_paths(self) -> list[bytes]:
        """The folders of the collection, in order of their paths; quick, whatever they hold."""
        return [path for (path,) in self._database.read("SELECT path FROM folders ORDER BY path")]

    def folders(self) -> list[SyncedFolder]:
        """The folders of the collection, in order of their paths."""
        found = self._database.read("SELECT path, synchronised FROM folders ORDER BY path")
        paths = [path for (path,) in self._database.read("SELECT path FROM pictures")]
        return [
            SyncedFolder(os.fsdecode(folder), sum(path.startswith(os.path.join(folder, b"")) for path in paths), when)
            for folder, when in found
        ]

    def skipped(self) -> dict[str, str]:
        """Files left out when their folders were last looked through, with the reasons."""
        found = self._database.read("SELECT path, reason FROM skipped ORDER BY path")
        return {os.fsdecode(path): reason for path, reason in found}

    def count_pictures(self) -> int:
        """Number of files."""
        return int(self._database.read("SELECT count(*) FROM pictures")[0][0])

    def count_contents(self) -> int:
        """Number of different contents, each with one row."""
        return int(self._database.read("SELECT count(*) FROM descriptors")[0][0])

    def files_of(self, digest: bytes) -> list[str]:
        """The files with a content, in order of path; none where it is unknown."""
        found = self._database.read(
            "SELECT path FROM pictures JOIN descriptors ON id = descriptor WHERE digest = ? ORDER BY path", (digest,)
        )
        return [os.fsdecode(path) for (path,) in found]

    def files_of_each(self, digests: Sequence[bytes]) -> dict[bytes, list[str]]:
        """The files with each of these contents, in order of path; unknown contents are left out."""
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
                digest, path = map(bytes.fromhex, pair.split())
                files.setdefault(digest, []).append(path)
        return {digest: [os.fsdecode(path) for path in sorted(paths)] for digest, paths in files.items()}

    def stamp_of(self, path: str) -> FileStamp | None:
        """The stamp that a file was described at, or None where it is not in the collection."""
        found = self._database.read(
            "SELECT size_bytes, modified_ns FROM pictures WHERE path = ?", (os.fsencode(path),)
        )
        return FileStamp(*found[0]) if found else None

    def pictures(self, offset: int = 0, limit: int = -1) -> Iterator[tuple[bytes, int]]:
        """Paths, in order, with the numbers of their contents; from ``offset`` on, so many if ``limit`` is not -1."""
        return self._database.stream(
            "SELECT path, descriptor FROM pictures ORDER BY path LIMIT ? OFFSET ?", (limit, offset)
        )

    def digest_of(self, content: int) -> bytes:
        """The digest of a content by its number, which is there."""
        digest: bytes = self._database.read("SELECT digest FROM descriptors WHERE id = ?", (content,))[0][0]
        return digest

    def holds(self, path: str) -> bool:
        """Whether a file of this path is in the collection."""
        return bool(self._database.read("SELECT 1 FROM pictures WHERE path = ?", (os.fsencode(path),)))

    def matrix(self) -> tuple[list[str], list[bytes], np.ndarray]:
        """Paths in order, their contents' digests, and their rows (n, d) float32."""
        dim = int(self.meta("dim") or 0)
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
        return paths, digests, rows[: len(paths)]

    def listing(self) -> tuple[list[bytes], np.ndarray, np.ndarray]:
        """Paths in order, and for each its content's digest, (n, 16) uint8, and number, (n,) int64; no rows."""
        contents = self._database.read("SELECT id, digest FROM descriptors")
        digests = np.frombuffer(b"".join(digest for _, digest in contents), np.uint8).reshape(-1, 16)
        numbers = np.array([number for number, _ in contents], np.int64)
        pictures = self._database.read("SELECT path, descriptor FROM pictures ORDER BY path")
        shown = np.array([number for _, number in pictures], np.int64)
        order = np.argsort(numbers)
        return [path for path, _ in pictures], digests[order[np.searchsorted(numbers, shown, sorter=order)]], shown

    def rows_of(self, contents: Sequence[int] | np.ndarray) -> np.ndarray:
        """Rows of contents by their numbers, which are rising and all there, (n, d) float32."""
        dim = int(self.meta("dim") or 0)
        rows = np.empty((len(contents), dim), np.float32)
        for start in range(0, len(rows), _AT_ONCE):
            some = [int(number) for number in contents[start : start + _AT_ONCE]]
            query = f"SELECT row FROM descriptors WHERE id IN ({','.join('?' * len(some))}) ORDER BY id"  # noqa: S608
            for position, (row,) in enumerate(self._database.stream(query, some), start):
                rows[position] = self._decoded(row, "a picture", dim)
        return rows

    def mean_row(self) -> np.ndarray:
        """The mean of the rows of every different content, (d,) float64; of one content at least."""
        dim = int(self.meta("dim") or 0)
        total, count = np.zeros(dim), 0
        for (row,) in self._database.stream("SELECT row FROM descriptors"):
            total += self._decoded(row, "a picture", dim)
            count += 1
        return total / count

    def _decoded(self, row: bytes, whose: str, dim: int) -> np.ndarray:
        if len(row) != 4 * dim:
            raise ForeignIndexError(
                f"{printable(self.location)} is damaged: the row of {whose} has "
                f"{len(row)} bytes instead of {4 * dim}. Make the index anew."
            )
        return np.frombuffer(row, "<f4")

    # Whitenings

    def whitening(self) -> StoredWhitening | None:
        """The whitening in force, or None."""
        found = self._database.read(
            "SELECT version, learned_here, content FROM whitenings"
            " WHERE version = (SELECT CAST(value AS INTEGER) FROM meta WHERE key = 'whitening')"
        )
        if not found:
            return None
        version, learned_here, content = found[0]
        return StoredWhitening(version, bool(learned_here), Whitening.from_bytes(content))

    def put_whitening(self, whitening: Whitening | None, *, learned_here: bool) -> None:
        """Puts a whitening in force as a new version; None for none. Earlier versions stay in the file."""
        with self._changing() as db:
            version = NO_WHITENING
            if whitening is not None:
                cursor = db.execute(
                    "INSERT INTO whitenings (made, learned_here, content) VALUES (?, ?, ?)",
                    (now(), int(learned_here), whitening.to_bytes()),
                )
                version = str(cursor.lastrowid)
            put_meta(db, "whitening", version)

    def forget_whitening(self) -> None:
        """As if none had ever been in force or declined. Earlier versions stay in the file."""
        with self._changing() as db:
            db.execute("DELETE FROM meta WHERE key = 'whitening'")
