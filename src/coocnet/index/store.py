"""The store of record: one SQLite file in write-ahead mode that holds pictures, rows and whitenings.

Every change is one transaction. Rows belong to content, not to names: a picture is a path with a stamp that
points to the row of its bytes, so a renamed or copied file finds its row again.
"""

from __future__ import annotations

import datetime
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from coocnet.data.walk import FileStamp
from coocnet.errors import (
    ForeignIndexError,
    IndexBusyError,
    IndexFileError,
    IndexStorageError,
    NewerIndexError,
    RecipeMismatchError,
    printable,
)
from coocnet.recipe import Recipe
from coocnet.whitening import Whitening

DATABASE_NAME = "index.sqlite"
LOCK_NAME = "sync.lock"
_APPLICATION_ID = 0x434F4F43  # "COOC"
_SCHEMA_VERSION = 1
_BUSY_TIMEOUT_S = 30

_SCHEMA = (
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE descriptors (id INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE, row BLOB NOT NULL)",
    "CREATE TABLE pictures (path BLOB PRIMARY KEY, descriptor INTEGER NOT NULL REFERENCES descriptors (id),"
    " size_bytes INTEGER NOT NULL, modified_ns INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE INDEX pictures_by_descriptor ON pictures (descriptor)",
    "CREATE TABLE skipped (path BLOB PRIMARY KEY, reason TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE whitenings (version INTEGER PRIMARY KEY AUTOINCREMENT, made TEXT NOT NULL,"
    " learned_here INTEGER NOT NULL, content BLOB NOT NULL)",
)


@dataclass(frozen=True)
class Described:
    """A picture to write: its path, its stamp, its content's digest, and the row if the content is new."""

    path: str
    stamp: FileStamp
    digest: bytes
    row: np.ndarray | None


@dataclass(frozen=True)
class StoredWhitening:
    """A whitening with its version and whether it was learned on this collection."""

    version: int
    learned_here: bool
    whitening: Whitening


class Store:
    """One open connection to an index on disk. Not for use by several threads at once."""

    def __init__(self, location: Path, connection: sqlite3.Connection) -> None:
        self.location = location
        self._db = connection

    @classmethod
    def open(cls, location: str | os.PathLike[str], recipe: Recipe | None) -> Store:
        """Opens an index; makes it when ``recipe`` is given and there is none.

        Raises:
            IndexFileError: see the subclasses in :mod:`coocnet.errors`.
        """
        folder = Path(os.path.abspath(os.path.expanduser(os.fspath(location))))
        _check_place(folder, may_make=recipe is not None)
        with _typed_errors(folder):
            if recipe is not None:
                folder.mkdir(parents=True, exist_ok=True)
            store = cls(folder, _connect(folder, may_make=recipe is not None))
        try:
            with _typed_errors(folder):
                store._check_kind()
                if recipe is not None:
                    store._make_or_check(recipe)
        except BaseException:
            store.close()
            raise
        return store

    def close(self) -> None:
        """Closes the connection; the index is complete on disk after every call anyway."""
        self._db.close()

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction: all of it is stored when it ends, or nothing."""
        with _typed_errors(self.location):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            try:
                self._db.execute("COMMIT")
            except sqlite3.Error:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def read(self, query: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """All rows of a query."""
        with _typed_errors(self.location):
            return self._db.execute(query, values).fetchall()

    # What the index is

    def meta(self, key: str) -> str | None:
        """A fact about the index as a whole."""
        found = self.read("SELECT value FROM meta WHERE key = ?", (key,))
        return str(found[0][0]) if found else None

    def set_meta(self, key: str, value: str) -> None:
        """Stores a fact."""
        with self.writing() as db:
            _put_meta(db, key, value)

    @property
    def recipe(self) -> Recipe:
        """The recipe the rows were made with."""
        return Recipe.from_toml(self.meta("recipe") or "")

    def check_recipe(self, recipe: Recipe) -> None:
        """Refuses a recipe whose rows would differ from those here.

        Raises:
            RecipeMismatchError: the message lists the fields that differ.
        """
        stored = self.recipe
        if stored.row_fingerprint() != recipe.row_fingerprint():
            raise RecipeMismatchError(_differences(self.location, stored, recipe))

    def data_version(self) -> int:
        """Changes whenever another connection has written."""
        return int(self.read("PRAGMA data_version")[0][0])

    def check_weights(self, weights_sha256: str) -> None:
        """Refuses other weights than those of the rows here.

        Raises:
            RecipeMismatchError: other weights.
        """
        bound = self.meta("weights_sha256")
        if bound is not None and bound != weights_sha256:
            raise RecipeMismatchError(
                f"{printable(self.location)} was made with weights of SHA-256 {bound[:12]}…, "
                f"not {weights_sha256[:12]}…. Give the weights it was made with, or make another index."
            )

    def bind_weights(self, weights_sha256: str, dim: int) -> None:
        """Notes the weights at the first description, and refuses others from then on.

        Raises:
            RecipeMismatchError: the rows here were made with other weights.
        """
        self.check_weights(weights_sha256)
        with self.writing() as db:
            _put_meta(db, "weights_sha256", weights_sha256)
            _put_meta(db, "dim", str(dim))

    # Pictures and rows

    def pictures_below(self, root: str) -> dict[str, FileStamp]:
        """Stored pictures below a folder, with the stamps they were described at."""
        below = os.path.join(root, "")
        found = self.read("SELECT path, size_bytes, modified_ns FROM pictures")
        stamps = {os.fsdecode(path): FileStamp(size, modified) for path, size, modified in found}
        return {path: stamp for path, stamp in stamps.items() if path.startswith(below)}

    def digests(self) -> set[bytes]:
        """Digests of every content that has a row."""
        return {digest for (digest,) in self.read("SELECT digest FROM descriptors")}

    def row_of(self, digest: bytes) -> np.ndarray | None:
        """The stored row of a content, or None."""
        found = self.read("SELECT row FROM descriptors WHERE digest = ?", (digest,))
        return np.frombuffer(found[0][0], "<f4") if found else None

    def put(self, described: Iterable[Described]) -> None:
        """Stores pictures, and rows where the content is new, in one transaction."""
        with self.writing() as db:
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

    def drop(self, paths: Iterable[str]) -> None:
        """Forgets pictures, then rows that no picture points to, in one transaction."""
        with self.writing() as db:
            db.executemany("DELETE FROM pictures WHERE path = ?", ((os.fsencode(path),) for path in paths))
            db.execute("DELETE FROM descriptors WHERE id NOT IN (SELECT descriptor FROM pictures)")

    def replace_skipped(self, root: str, skipped: dict[str, str]) -> None:
        """Notes which files below ``root`` were left out and why, in place of what was noted before."""
        below = os.fsencode(os.path.join(root, ""))
        with self.writing() as db:
            db.execute("DELETE FROM skipped WHERE substr(path, 1, ?) = ?", (len(below), below))
            db.executemany(
                "INSERT OR REPLACE INTO skipped (path, reason) VALUES (?, ?)",
                ((os.fsencode(path), reason) for path, reason in skipped.items()),
            )

    def matrix(self) -> tuple[list[str], list[bytes], np.ndarray]:
        """Paths in order, their contents' digests, and their rows (n, d) float32."""
        with _typed_errors(self.location):
            count = self._db.execute("SELECT count(*) FROM pictures").fetchone()[0]
            dim = int(self.meta("dim") or 0)
            rows = np.empty((count, dim), np.float32)
            paths, digests = [], []
            query = (
                "SELECT path, digest, row FROM pictures JOIN descriptors ON descriptors.id = pictures.descriptor"
                " ORDER BY path LIMIT ?"
            )
            for position, (path, digest, row) in enumerate(self._db.execute(query, (count,))):
                if len(row) != 4 * dim:
                    raise ForeignIndexError(
                        f"{printable(self.location)} is damaged: the row of {printable(os.fsdecode(path))} has "
                        f"{len(row)} bytes instead of {4 * dim}. Make the index anew."
                    )
                rows[position] = np.frombuffer(row, "<f4")
                paths.append(os.fsdecode(path))
                digests.append(digest)
        return paths, digests, rows[: len(paths)]

    # Whitenings

    def whitening(self) -> StoredWhitening | None:
        """The whitening in force, or None."""
        found = self.read(
            "SELECT version, learned_here, content FROM whitenings"
            " WHERE version = (SELECT CAST(value AS INTEGER) FROM meta WHERE key = 'whitening')"
        )
        if not found:
            return None
        version, learned_here, content = found[0]
        return StoredWhitening(version, bool(learned_here), Whitening.from_bytes(content))

    def put_whitening(self, whitening: Whitening | None, *, learned_here: bool) -> None:
        """Puts a whitening in force as a new version; None for none. Earlier versions stay in the file."""
        with self.writing() as db:
            version = 0
            if whitening is not None:
                cursor = db.execute(
                    "INSERT INTO whitenings (made, learned_here, content) VALUES (?, ?, ?)",
                    (_now(), int(learned_here), whitening.to_bytes()),
                )
                version = cursor.lastrowid or 0
            _put_meta(db, "whitening", str(version))

    # Opening

    def _check_kind(self) -> None:
        application = self._db.execute("PRAGMA application_id").fetchone()[0]
        tables = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if application != _APPLICATION_ID and tables:
            raise ForeignIndexError(
                f"{printable(self.location / DATABASE_NAME)} is a database, but not a coocnet index: "
                "choose another place."
            )
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version > _SCHEMA_VERSION:
            raise NewerIndexError(
                f"{printable(self.location)} has format {version}; this coocnet reads up to {_SCHEMA_VERSION}. "
                "Use the coocnet that wrote it, or a newer one; nothing was changed."
            )

    def _make_or_check(self, recipe: Recipe) -> None:
        if self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
            self._db.execute("PRAGMA journal_mode = WAL")
            with self.writing() as db:
                if db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
                    for statement in _SCHEMA:
                        db.execute(statement)
                    _put_meta(db, "recipe", recipe.to_toml())
                    _put_meta(db, "made", _now())
                    db.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
                    db.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
        if self.meta("weights_sha256") is None:
            self.set_meta("recipe", recipe.to_toml())  # nothing was described yet
            return
        self.check_recipe(recipe)
        stored = self.recipe
        changed = stored.replace(whitening=recipe.whitening, dim=recipe.dim, shrinkage=recipe.shrinkage)
        if changed != stored:
            self.set_meta("recipe", changed.to_toml())


def _check_place(folder: Path, *, may_make: bool) -> None:
    """Refuses a place where an index neither is nor may be."""
    name = printable(folder)
    if folder.is_file():
        raise ForeignIndexError(f"{name} is a file; an index is a folder. Choose another place.")
    if (folder / DATABASE_NAME).is_file():
        return
    if not may_make:
        raise IndexFileError(f"there is no index at {name}; make one with: coocnet index FOLDER --index {name}")
    ours = (DATABASE_NAME, LOCK_NAME)
    if folder.is_dir() and any(not entry.name.startswith(ours) for entry in folder.iterdir()):
        raise ForeignIndexError(
            f"{name} is a folder that holds other things; "
            f"give a new folder, such as {printable(folder / 'photos.cooc')}"
        )


def _connect(folder: Path, *, may_make: bool) -> sqlite3.Connection:
    place = (folder / DATABASE_NAME).as_uri()

    def connect(options: str) -> sqlite3.Connection:
        connection = sqlite3.connect(f"{place}?{options}", uri=True, timeout=_BUSY_TIMEOUT_S, isolation_level=None)
        try:
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except BaseException:
            connection.close()
            raise
        return connection

    try:
        return connect("mode=rwc" if may_make else "mode=rw")
    except sqlite3.OperationalError as error:
        text = str(error)
        if may_make or not ("readonly" in text or "unable to open" in text):
            raise
        log = folder / f"{DATABASE_NAME}-wal"
        if log.is_file() and log.stat().st_size:
            raise IndexStorageError(
                f"{printable(folder)} is read-only and its last changes are not merged yet: "
                "open it once where it can be written."
            ) from error
        return connect("immutable=1")


def _differences(location: Path, stored: Recipe, given: Recipe) -> str:
    ours, theirs = stored.row_table(), given.row_table()
    fields = [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]
    listed = "; ".join(f"{name} {ours.get(name)!r} there, {theirs.get(name)!r} here" for name in fields)
    return (
        f"{printable(location)} holds rows of another recipe: {listed}. "
        "Search it with its own recipe (leave the recipe out), or make another index for this one."
    )


def _put_meta(db: sqlite3.Connection, key: str, value: str) -> None:
    db.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", (key, value))


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


@contextmanager
def _typed_errors(location: Path) -> Iterator[None]:
    """SQLite's errors as ours, with what to do."""
    name = printable(location)
    try:
        yield
    except sqlite3.DatabaseError as error:
        text = str(error)
        if "not a database" in text:
            raise ForeignIndexError(f"{name} holds no index: its {DATABASE_NAME} is not a database.") from error
        if "malformed" in text or "no such table" in text:
            raise ForeignIndexError(f"{name} is damaged ({text}). Make the index anew.") from error
        if "locked" in text:
            raise IndexBusyError(f"{name} is in use by another process; try again when it has finished.") from error
        raise IndexStorageError(
            f"{name} could not be written or read: {text}. What was stored before is intact; "
            "free space or allow writing there, and run it again."
        ) from error
    except OSError as error:
        raise IndexStorageError(f"{name} could not be written or read: {error}.") from error
