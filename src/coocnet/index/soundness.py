"""Whether a database is sound: what SQLite says of it, and what stands in it and cannot be right."""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

from coocnet.errors import ForeignIndexError, NewerIndexError, printable, quoted
from coocnet.index import removals, salvage
from coocnet.index.database import (
    APPLICATION_ID,
    DATABASE_NAME,
    OBJECTS,
    SCHEMA_VERSION,
    is_format,
    lost_database,
    missing,
    size_of,
    sum_of,
)
from coocnet.index.facts import NO_WHITENING

_MOST_TOLD = 5


def damage_of(path: Path) -> list[str]:
    """What is damaged in a database, in words, looked at row by row.

    Raises:
        IndexFileError: it is no index of ours, or of a newer one.
    """
    if lost := lost_database(path.parent):
        return [lost.what]
    if size_of(path) and not salvage.is_database(path):
        return [f"{DATABASE_NAME}: its first bytes are not those of a database"]
    try:
        with closing(_reading(path)) as db:
            db.execute("BEGIN")
            _check_ours(path, db)
            return _wrong_structure(db) or _wrong_rows(db)
    except sqlite3.OperationalError as error:
        if any(text in str(error) for text in ("locked", "unable to open", "disk I/O")):
            raise
        return [f"{DATABASE_NAME}: {error}"]
    except sqlite3.DatabaseError as error:
        return [f"{DATABASE_NAME}: {error}"]


def quick_damage_of(db: sqlite3.Connection) -> list[str]:
    """As :func:`damage_of`, by the structure and the checksums alone, which takes a fraction of the time.

    Over a connection that is open: a process that opens the file a second time and closes it loses all its locks on
    it (https://sqlite.org/howtocorrupt.html, 2.2), and others then take its log away.

    Raises:
        sqlite3.DatabaseError: it cannot be read.
    """
    return _wrong_structure(db) or _wrong_sums(db)


def _wrong_structure(db: sqlite3.Connection) -> list[str]:
    try:
        told = [text for (text,) in db.execute(f"PRAGMA integrity_check({_MOST_TOLD})") if text != "ok"]
    except MemoryError as error:
        raise salvage.too_long(db) from error
    found = [line for text in told for line in text.splitlines() if not line.startswith("***")]
    return [f"{DATABASE_NAME}: {line}" for line in found[:_MOST_TOLD]] or _wrong_schema(db)


def _reading(path: Path) -> sqlite3.Connection:
    """A connection that changes nothing; where even the log cannot be opened, without it if it is empty."""
    db = salvage.connect(path, "mode=ro")
    try:
        db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.OperationalError:
        db.close()
        if size_of(path.with_name(f"{path.name}-wal")):
            raise
        return salvage.connect(path, "immutable=1")
    except BaseException:
        db.close()
        raise
    return db


def _check_ours(path: Path, db: sqlite3.Connection) -> None:
    """Refuses a readable database that is another's."""
    tables = salvage.tables_of(db)
    application = db.execute("PRAGMA application_id").fetchone()[0]
    version = db.execute("PRAGMA user_version").fetchone()[0]
    place = printable(path.parent)
    if not tables:
        raise missing(path.parent)
    if application != APPLICATION_ID and not set(salvage.TABLES) - {salvage.OPTIONAL} <= tables:
        raise ForeignIndexError(f"{place} holds a database, but not a coocnet index: there is nothing to repair.")
    if application == APPLICATION_ID and is_format(version) and version > SCHEMA_VERSION:
        raise NewerIndexError(
            f"{place} has format {version}: repair it with the coocnet that wrote it, or a newer one"
        )


def _wrong_schema(db: sqlite3.Connection) -> list[str]:
    found = dict(db.execute("SELECT name, type FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'").fetchall())
    application = db.execute("PRAGMA application_id").fetchone()[0]
    lost = [name for name, kind in OBJECTS.items() if found.get(name) != kind]
    wrong = [f"{DATABASE_NAME}: no {OBJECTS[name]} {name}" for name in lost]
    wrong += [f"{DATABASE_NAME}: table {name} has lost a column" for name in salvage.without_their_columns(db)]
    version = db.execute("PRAGMA user_version").fetchone()[0]
    wrong += [f"{DATABASE_NAME}: its format is {version}, which none has"] * (not is_format(version))
    return wrong + [f"{DATABASE_NAME}: it is not marked as an index"] * (application != APPLICATION_ID)


def _wrong_rows(db: sqlite3.Connection) -> list[str]:
    """What stands in a sound database and cannot be right."""
    facts = salvage.facts_of(db)
    count, damage = {}, []
    for name in sorted(salvage.TABLES.keys() & salvage.tables_of(db)):
        dim = int(facts.get("dim", 0))
        wrong = Counter(
            salvage.is_right(name, row, dim) and not (name in salvage.SUMMED and salvage.contradicted(db, name, row))
            for row in salvage.readable(db, name)
        )
        count[name] = wrong.total()
        if wrong[False]:
            damage.append(f"{wrong[False]} of {wrong.total()} entries of table {name} are not right")
    needed = {"recipe", "made"} | ({"weights_sha256", "dim"} if count["descriptors"] else set())
    damage += [f"what the index was made with is lost: {name}" for name in sorted(needed - facts.keys())]
    damage += _wrong_removals(db)
    lonely = db.execute(
        "SELECT count(*) FROM pictures LEFT JOIN descriptors ON id = descriptor WHERE id IS NULL"
    ).fetchone()[0]
    if lonely:
        damage.append(f"{lonely} pictures have no row")
    if facts.get("whitening", NO_WHITENING) != NO_WHITENING and not has_whitening(db, facts["whitening"]):
        damage.append(f"the whitening in force, version {facts['whitening']}, is lost")
    return damage


def _wrong_removals(db: sqlite3.Connection) -> list[str]:
    return [] if removals.is_as_noted(db) else [removals.NOT_AS_NOTED]


def _wrong_sums(db: sqlite3.Connection) -> list[str]:
    """Rows and facts that have another checksum than the one that was noted."""
    if "sums" not in salvage.tables_of(db):
        return []
    rows = db.execute("SELECT row, sum FROM descriptors JOIN sums ON name = digest")
    wrong = sum(not isinstance(row, bytes) or sum_of(row) != noted for row, noted in rows)
    damage = [f"rows are not as they were stored: {wrong}"] if wrong else []
    damage += _wrong_removals(db)
    facts = db.execute("SELECT key, value FROM meta").fetchall()
    changed = [
        row[0] for row in facts if not salvage.is_right("meta", row, 0) or salvage.contradicted(db, "meta", row)
    ]
    return damage + [f"what the index was made with has changed: {quoted(key)}" for key in changed]


def has_whitening(db: sqlite3.Connection, version: str) -> bool:
    """Whether a whitening of this version is stored."""
    return db.execute("SELECT 1 FROM whitenings WHERE version = ?", (int(version),)).fetchone() is not None
