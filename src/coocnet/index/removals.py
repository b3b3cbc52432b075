"""What was taken out of the collection on purpose: contents, with the files that had them.

Kept in a table that is made where it is needed and missing, so that an index without it stays one of this format.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable

from coocnet.data.remote import is_url
from coocnet.data.walk import FileStamp
from coocnet.index.database import REMOVED, Database, forget_sums, put_sum, sum_noted, sum_of
from coocnet.index.records import Removal

TAKEN_OUT = "taken out of the collection"
"""The reason under which a sync leaves such a file out."""
CHANGED = f"changed since it was {TAKEN_OUT}"
SUM = b"removed"
"""What the checksum of all of them goes by."""
NOT_AS_NOTED = "what was taken out of the collection is not as it was stored"
_WHETHER_MADE = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'removed'"


def removals(database: Database) -> list[Removal]:
    """All of them, by content and path."""
    if not database.read(_WHETHER_MADE):
        return []
    found = database.read("SELECT digest, path, size_bytes, modified_ns FROM removed ORDER BY digest, path")
    return [Removal(digest, os.fsdecode(path), FileStamp(size, modified)) for digest, path, size, modified in found]


def take_out(db: sqlite3.Connection, digests: Iterable[bytes]) -> int:
    """Moves the files of contents from the collection here, within a transaction.

    Returns:
        How many files.
    """
    db.execute(REMOVED)
    count = 0
    for digest in digests:
        of_content = "descriptor = (SELECT id FROM descriptors WHERE digest = ?)"
        db.execute(
            "INSERT OR REPLACE INTO removed (digest, path, size_bytes, modified_ns)"  # noqa: S608
            f" SELECT ?, path, size_bytes, modified_ns FROM pictures WHERE {of_content}",
            (digest, digest),
        )
        count += db.execute(f"DELETE FROM pictures WHERE {of_content}", (digest,)).rowcount  # noqa: S608
        db.execute("DELETE FROM descriptors WHERE digest = ?", (digest,))
    forget_sums(db)
    note_sum(db)
    return count


def has_table(db: sqlite3.Connection) -> bool:
    """Whether there is a table of them."""
    return db.execute(_WHETHER_MADE).fetchone() is not None


def knows(db: sqlite3.Connection, digest: bytes) -> bool:
    """Whether a content was taken out."""
    return has_table(db) and db.execute("SELECT 1 FROM removed WHERE digest = ?", (digest,)).fetchone() is not None


def forget(db: sqlite3.Connection, digests: Iterable[bytes]) -> None:
    """No longer remembers that these were taken out, within a transaction."""
    db.executemany("DELETE FROM removed WHERE digest = ?", ((digest,) for digest in digests))
    note_sum(db)


def note(db: sqlite3.Connection, met: Iterable[Removal], *, as_they_are: bool) -> None:
    """Remembers files of contents; those they were renamed from are forgotten, unless taken ``as_they_are``.

    Not those at URLs, of which it could be told only by asking for each.
    """
    db.execute(REMOVED)
    for one in met:
        paths = db.execute("SELECT path FROM removed WHERE digest = ?", (one.digest,)).fetchall()
        gone = [(one.digest, path) for (path,) in paths if not as_they_are and _is_gone(os.fsdecode(path))]
        db.executemany("DELETE FROM removed WHERE digest = ? AND path = ?", gone)
        db.execute(
            "INSERT OR REPLACE INTO removed (digest, path, size_bytes, modified_ns) VALUES (?, ?, ?, ?)",
            (one.digest, os.fsencode(one.path), one.stamp.size_bytes, one.stamp.modified_ns),
        )
    note_sum(db)


def note_sum(db: sqlite3.Connection) -> None:
    """Notes the checksum of all of them together, by which it is known that none is lost or changed."""
    put_sum(db, SUM, _spelt(db))


def is_as_noted(db: sqlite3.Connection) -> bool:
    """Whether they are those that were noted, or none were.

    Raises:
        sqlite3.DatabaseError: they cannot be read.
    """
    noted = sum_noted(db, SUM)
    return noted is None or noted == sum_of(_spelt(db))


def _spelt(db: sqlite3.Connection) -> bytes:
    rows = "SELECT digest, path, size_bytes, modified_ns FROM removed ORDER BY digest, path"
    found = db.execute(rows).fetchall() if has_table(db) else []
    return repr(found).encode(errors="surrogateescape")


def _is_gone(path: str) -> bool:
    return not is_url(path) and not os.path.lexists(path)
