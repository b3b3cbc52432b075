"""The SQLite file of an index: made, opened, recognised, and its failures told apart.

Write-ahead mode with full synchronisation. An index exists from the moment its tables do: they are made in one
transaction, so a file without tables, left by a process that was ended before, counts as no index.
"""

from __future__ import annotations

import datetime
import os
import sqlite3
import stat
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from coocnet.errors import (
    ForeignIndexError,
    IndexBusyError,
    IndexFileError,
    IndexMissingError,
    IndexStorageError,
    NewerIndexError,
    printable,
)
from coocnet.index.columns import Check, check_of

DATABASE_NAME = "index.sqlite"
LOCK_NAME = "sync.lock"
DERIVED_NAMES = ("gallery", "neighbours.npz", "approximate")
"""How the files begin that are made from the rows and may be removed at any time."""
APPLICATION_ID = 0x434F4F43  # "COOC"
SCHEMA_VERSION = 1
_LAST_FORMAT = 999
"""No index will have a format beyond; a file that says so is damaged."""
_BUSY_TIMEOUT_S = 30
OBJECTS = {
    "meta": "table",
    "descriptors": "table",
    "pictures": "table",
    "pictures_by_descriptor": "index",
    "folders": "table",
    "skipped": "table",
    "whitenings": "table",
}
"""What every database of an index has."""
_DAMAGE = (
    "malformed",
    "no such table",
    "no such column",
    "has no column named",
    "unsupported file format",
    "Could not decode",
)
_Stamp = tuple[int, int, int]

REMOVED = (
    "CREATE TABLE IF NOT EXISTS removed (digest BLOB NOT NULL, path BLOB NOT NULL, size_bytes INTEGER NOT NULL,"
    " modified_ns INTEGER NOT NULL, PRIMARY KEY (digest, path)) WITHOUT ROWID"
)
SUMS = "CREATE TABLE IF NOT EXISTS sums (name BLOB PRIMARY KEY, sum INTEGER NOT NULL) WITHOUT ROWID"
"""These two are made where they are missing, so that an index without them stays one of this format."""

SCHEMA = (
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE descriptors (id INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE, row BLOB NOT NULL)",
    "CREATE TABLE pictures (path BLOB PRIMARY KEY, descriptor INTEGER NOT NULL REFERENCES descriptors (id),"
    " size_bytes INTEGER NOT NULL, modified_ns INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE INDEX pictures_by_descriptor ON pictures (descriptor)",
    "CREATE TABLE folders (path BLOB PRIMARY KEY, synchronised TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE skipped (path BLOB PRIMARY KEY, reason TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE whitenings (version INTEGER PRIMARY KEY AUTOINCREMENT, made TEXT NOT NULL,"
    " learned_here INTEGER NOT NULL, content BLOB NOT NULL)",
    REMOVED,
    SUMS,
)


class Database:
    """One open connection to an index's file. Not for use by several threads at once."""

    def __init__(self, location: Path, connection: sqlite3.Connection, frozen: _Stamp | None = None) -> None:
        self.location = location
        self._db: sqlite3.Connection | None = connection
        self._file = _identity(location)
        self._frozen = frozen

    @classmethod
    def open(cls, location: str | os.PathLike[str], make_with: Mapping[str, str] | None) -> Database:
        """Opens an index; makes it, with these facts in its table ``meta``, when they are given and there is none.

        Raises:
            IndexFileError: see the subclasses in :mod:`coocnet.errors`.
        """
        folder = Path(os.path.abspath(os.path.expanduser(os.fspath(location))))
        may_make = make_with is not None
        with typed_errors(folder):
            check_place(folder, may_make=may_make)
            if may_make:
                folder.mkdir(parents=True, exist_ok=True)
            connection, frozen = _connect(folder, may_make=may_make)
            try:
                opened = cls(folder, connection, frozen)
                if not opened._is_ours():
                    opened._make(make_with)
            except BaseException:
                connection.close()
                raise
        return opened

    def close(self) -> None:
        """Closes the connection; the index is complete on disk after every call anyway."""
        if self._db is not None:
            self._db.close()
            self._db = None

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction: all of it is stored when it ends, or nothing.

        Raises:
            IndexStorageError: it could not be stored, or the file is no longer where it was opened.
        """
        with self._transaction("BEGIN IMMEDIATE") as db:
            yield db
        self.check_in_place()

    def check_in_place(self) -> None:
        """Refuses to go on where the file is no longer at its place.

        Raises:
            IndexStorageError: it was moved or deleted.
        """
        if _identity(self.location) != self._file:
            raise IndexStorageError(
                f"{printable(self.location)} was moved or deleted while it was open: "
                "what was described since may not be there. Open it where it is now, and run it again."
            )

    @contextmanager
    def reading(self) -> Iterator[None]:
        """What is read within belongs together, whatever other processes store meanwhile.

        Raises:
            IndexBusyError: the index cannot be locked, being read-only, and was written meanwhile.
        """
        with self._transaction("BEGIN"):
            try:
                yield
            finally:
                self._check_unchanged()

    def damage(self, look: Callable[[sqlite3.Connection], list[str]]) -> list[str]:
        """What a look at the database finds, in one transaction over this connection."""
        with self._transaction("BEGIN") as db:
            return look(db)

    def read(self, query: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """All rows of a query."""
        with typed_errors(self.location):
            cursor = self._connection().execute(query, values)
            found = cursor.fetchall()
            self._check(check_of(column[0] for column in cursor.description or ()), found)
            return found

    def stream(self, query: str, values: Sequence[object] = ()) -> Iterator[tuple[Any, ...]]:
        """The rows of a query, one after the other."""
        with typed_errors(self.location):
            cursor = self._connection().execute(query, values)
            check = check_of(column[0] for column in cursor.description or ())
            for row in cursor:
                self._check(check, (row,))
                yield row

    def _check(self, check: Check, rows: Sequence[tuple[Any, ...]]) -> None:
        if wrong := check(rows):
            raise damaged(self.location, wrong)

    def _connection(self) -> sqlite3.Connection:
        if self._db is None:
            raise IndexStorageError(f"{printable(self.location)} was closed: open it again with open_index")
        if self._frozen and not self._db.in_transaction and self._frozen != _stamp(self.location):
            self._db.close()
            self._db, self._frozen = _connect(self.location, may_make=False)
        return self._db

    def _check_unchanged(self) -> None:
        if self._frozen and self._frozen != _stamp(self.location):
            raise IndexBusyError(f"{printable(self.location)} was written while it was being read: try again")

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[sqlite3.Connection]:
        with typed_errors(self.location):
            db = self._connection()
            db.execute(begin)
            try:
                yield db
            except BaseException:
                if db.in_transaction:  # without memory or room SQLite has taken it back by itself
                    db.execute("ROLLBACK")
                raise
            try:
                db.execute("COMMIT")
            except sqlite3.Error:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise

    def _is_ours(self) -> bool:
        """Whether this is an index; False for a file in which nothing was made yet."""
        with self.reading():
            tables = self.read("SELECT count(*) FROM sqlite_master")[0][0]
            application = self.read("PRAGMA application_id")[0][0]
            version = self.read("PRAGMA user_version")[0][0]
            active = self.read("SELECT count(*) FROM sqlite_master WHERE type IN ('view', 'trigger')")[0][0]
        if application != APPLICATION_ID and tables:
            names = {name for (name,) in self.read("SELECT name FROM sqlite_master")}
            if names >= OBJECTS.keys():
                raise damaged(self.location, "its database is not marked as an index")
            raise ForeignIndexError(
                f"{printable(self.location / DATABASE_NAME)} is a database, but not a coocnet index: "
                "choose another place."
            )
        if tables and not is_format(version):
            raise damaged(self.location, f"its format is {version}, which none has")
        if version > SCHEMA_VERSION:
            raise NewerIndexError(
                f"{printable(self.location)} has format {version}; this coocnet reads up to {SCHEMA_VERSION}. "
                "Use the coocnet that wrote it, or a newer one; nothing was changed."
            )
        if active:
            raise ForeignIndexError(
                f"{printable(self.location / DATABASE_NAME)} has views or triggers in it, which run when it is read: "
                "no coocnet wrote it so, and it is not used."
            )
        return bool(tables)

    def _make(self, facts: Mapping[str, str] | None) -> None:
        if facts is None:
            raise missing(self.location)
        self._switch_to_write_ahead()
        with self.writing() as db:
            if db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                return  # another process was quicker
            for statement in SCHEMA:
                db.execute(statement)
            for key, value in {**facts, "made": now()}.items():
                put_meta(db, key, value)
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def _switch_to_write_ahead(self) -> None:
        """Unlike all other statements, this one does not wait where another process makes the same index."""
        until = time.monotonic() + _BUSY_TIMEOUT_S
        while time.monotonic() < until:
            with suppress(IndexBusyError):
                self.read("PRAGMA journal_mode = WAL")
                break
            time.sleep(0.02)
        else:
            self.read("PRAGMA journal_mode = WAL")


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Holds an index against a second writer, until the block ends or this process does.

    Raises:
        IndexBusyError: another one holds it.
        IndexStorageError: it cannot be written.
    """
    lock = FileLock(folder / LOCK_NAME, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise IndexBusyError(
            f"{printable(folder)} is being synchronised by another process; "
            "searching is possible meanwhile, a second sync when it has finished."
        ) from error
    except OSError as error:
        raise IndexStorageError(f"{printable(folder)} cannot be written: {error}") from error
    try:
        yield
    finally:
        lock.release()


def is_format(version: int) -> bool:
    """Whether a format can be that of an index, of this coocnet or of a newer one."""
    return 1 <= version <= _LAST_FORMAT


def put_meta(db: sqlite3.Connection, key: str, value: str) -> None:
    """Stores a fact about the index as a whole, within a transaction."""
    db.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", (key, value))
    put_sum(db, name_of_fact(key), value.encode())


def put_sum(db: sqlite3.Connection, name: bytes, content: bytes) -> None:
    """Notes the checksum of a fact or a row, which SQLite keeps none of, for :mod:`coocnet.index.repair`."""
    db.execute(SUMS)
    db.execute("INSERT OR REPLACE INTO sums (name, sum) VALUES (?, ?)", (name, sum_of(content)))


def sum_noted(db: sqlite3.Connection, name: bytes) -> object:
    """The checksum that was noted under a name; None where none was, or none can be read."""
    with suppress(sqlite3.DatabaseError):
        found = db.execute("SELECT sum FROM sums WHERE name = ?", (name,)).fetchone()
        return None if found is None else found[0]
    return None


def forget_sums(db: sqlite3.Connection) -> None:
    """Forgets those of rows that are no longer there."""
    db.execute(SUMS)
    db.execute("DELETE FROM sums WHERE length(name) = 16 AND name NOT IN (SELECT digest FROM descriptors)")


def name_of_fact(key: str) -> bytes:
    """What the checksum of a fact goes by; that of a row goes by its content's digest."""
    return b"meta " + key.encode()


def sum_of(content: bytes) -> int:
    """The checksum of a fact or a row."""
    return zlib.crc32(content)


def now() -> str:
    """The time, UTC, to the second."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def _identity(folder: Path) -> tuple[int, int] | None:
    """What tells the database file from another of the same name."""
    try:
        status = os.stat(folder / DATABASE_NAME)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _is_file(path: Path) -> bool:
    """Whether a file is there; what cannot be looked at raises, for it is not known to be missing."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def missing(folder: Path) -> IndexMissingError:
    """The error that says that there is no index, and how to make one."""
    name = printable(folder)
    return IndexMissingError(f"there is no index at {name}; make one with: coocnet index FOLDER --index {name}")


def damaged(folder: Path, what: str) -> ForeignIndexError:
    """The error that says what is damaged, and what to do."""
    name = printable(folder)
    return ForeignIndexError(f"{name} is damaged ({what}). See what can be saved: coocnet repair {name}")


class Lost(NamedTuple):
    """What is said of an index whose database is missing or empty; and whether its log is there."""

    what: str
    advice: str
    has_log: bool


def lost_database(folder: Path) -> Lost | None:
    """What is left of an index whose database is missing or empty; None of any other place."""
    database, log = folder / DATABASE_NAME, folder / f"{DATABASE_NAME}-wal"
    is_there = _is_file(database)
    if size_of(database) or not os.path.isdir(folder):
        return None
    name, has_log = printable(folder), size_of(log) > 0
    advice = {
        f"{DATABASE_NAME}.damaged-": f"A repair put that aside: call it {DATABASE_NAME}, and coocnet repair {name}",
        **dict.fromkeys(DERIVED_NAMES, "Put the database back, or delete the folder and make the index anew."),
    }
    names = sorted(entry.name for entry in folder.iterdir())
    found = [(log.name, f"See what can be saved: coocnet repair {name}")] if has_log else []
    found += [(one, said) for start, said in advice.items() for one in names if one.startswith(start)]
    if not found or size_of(database):  # another process has made it just now
        return None
    what = f"its {DATABASE_NAME} is {'empty' if is_there else 'missing'}, beside {found[0][0]}"
    return Lost(what, found[0][1], has_log)


def size_of(path: Path) -> int:
    """Of a file, in bytes; 0 where there is none."""
    with suppress(FileNotFoundError):
        return os.stat(path).st_size
    return 0


def check_place(folder: Path, *, may_make: bool) -> None:
    """Refuses a place where an index neither is nor may be, or where one was whose database is lost."""
    name = printable(folder)
    if _is_file(folder):
        raise ForeignIndexError(f"{name} is a file; an index is a folder. Choose another place.")
    if lost := lost_database(folder):  # to be said before SQLite is asked, which drops the log of an empty database
        raise ForeignIndexError(f"{name} is damaged ({lost.what}). {lost.advice}")
    if _is_file(folder / DATABASE_NAME):
        return
    if not may_make:
        raise missing(folder)
    ours = (DATABASE_NAME, LOCK_NAME, *DERIVED_NAMES)
    if os.path.isdir(folder) and any(not entry.name.startswith(ours) for entry in folder.iterdir()):
        raise ForeignIndexError(
            f"{name} is a folder that holds other things; "
            f"give a new folder, such as {printable(folder / 'photos.cooc')}"
        )


def _stamp(folder: Path) -> _Stamp:
    """What changes when the file does."""
    status = os.stat(folder / DATABASE_NAME)
    return status.st_ino, status.st_size, status.st_mtime_ns


def _connect(folder: Path, *, may_make: bool) -> tuple[sqlite3.Connection, _Stamp | None]:
    """A connection; with the file's stamp where it is one that cannot lock, as on a read-only folder."""
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
        return connect("mode=rwc" if may_make and not _is_file(folder / DATABASE_NAME) else "mode=rw"), None
    except sqlite3.OperationalError as error:
        text = str(error)
        if not ("readonly" in text or "unable to open" in text) or not _is_file(folder / DATABASE_NAME):
            raise
        log = folder / f"{DATABASE_NAME}-wal"
        if log.is_file() and log.stat().st_size:
            raise IndexStorageError(
                f"{printable(folder)} is read-only and its last changes are not merged yet: "
                "open it once where it can be written."
            ) from error
        stamp = _stamp(folder)
        return connect("immutable=1"), stamp


@contextmanager
def typed_errors(location: Path) -> Iterator[None]:
    """SQLite's errors as ours, with what to do."""
    name = printable(location)
    try:
        yield
    except sqlite3.ProgrammingError as error:
        raise IndexFileError(
            f"{name} belongs to the thread that opened it: open the index once in every thread ({error})"
        ) from error
    except UnicodeDecodeError as error:  # what SQLite would say names a table by other bytes
        raise damaged(location, str(error)) from error
    except sqlite3.DatabaseError as error:
        text = str(error)
        if "not a database" in text:
            raise ForeignIndexError(
                f"{name} holds no index: its {DATABASE_NAME} is not a database. "
                f"If it was one, see what can be saved: coocnet repair {name}"
            ) from error
        if not text or any(sign in text for sign in _DAMAGE):  # no text: as above, before Python 3.11
            raise damaged(location, text or "what SQLite says of it is no text") from error
        if "locked" in text:
            raise IndexBusyError(f"{name} is in use by another process; try again when it has finished.") from error
        raise IndexStorageError(
            f"{name} could not be written or read: {text}. What was stored before is intact; "
            "free space or allow writing there, and run it again."
        ) from error
    except OSError as error:
        raise IndexStorageError(f"{name} could not be written or read: {error}.") from error
