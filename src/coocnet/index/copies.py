"""The files of a repair: the copies that it works on, and the damaged ones that it puts aside."""

from __future__ import annotations

import datetime
import os
import secrets
import shutil
import sqlite3
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from coocnet.errors import ForeignIndexError, IndexFileError, printable
from coocnet.index import salvage, soundness
from coocnet.index.database import DATABASE_NAME, size_of
from coocnet.index.derived import sweep

LOG = f"{DATABASE_NAME}-wal"
WORK = f"{DATABASE_NAME}.repairing"
_SHARED = f"{DATABASE_NAME}-shm"
_KEPT = f"{DATABASE_NAME}.damaged-"


@dataclass(frozen=True)
class Opened:
    """A copy of a damaged database.

    Attributes:
        db: a connection to it.
        has_its_head: whether its first page is its own, not that of a new database.
        without_log: whether a log was there and is left out.
    """

    db: sqlite3.Connection
    has_its_head: bool
    without_log: bool


def sweep_up(folder: Path) -> None:
    """Takes away what an interrupted repair left, and whatever else was never finished."""
    sweep(folder)
    shutil.rmtree(folder / WORK, ignore_errors=True)
    database, log = folder / DATABASE_NAME, folder / LOG
    aside = sorted(file for file in folder.glob(f"{_KEPT}*") if not file.name.endswith("-wal"))
    for file in aside:
        if database.exists() and file.samefile(database):  # not put aside yet
            kept_log = _log_of(file)
            if kept_log.exists() and not log.exists():
                os.replace(kept_log, log)
            kept_log.unlink(missing_ok=True)
            file.unlink()
    for kept_log in folder.glob(f"{_KEPT}*-wal"):
        if kept_log.with_name(kept_log.name.removesuffix("-wal")) not in aside:
            kept_log.unlink()


def _log_of(database: Path) -> Path:
    return database.with_name(f"{database.name}-wal")


def opened(folder: Path, work: Path) -> Opened:
    """Opens a copy of the damaged database, below the folder ``work``.

    With its log, unless that is what is damaged: where the file is sound without it, or can only be read so.

    Raises:
        ForeignIndexError: nothing can be read.
    """
    has_log = size_of(folder / LOG) > 0
    alone = work / "alone.sqlite"
    if has_log and _copied(folder, alone, with_log=False) and _is_sound(alone):
        tries = [(False, True)]
    else:
        tries = [(True, True), (True, False)] if has_log else []
        tries += [(False, True), (False, False)]
    for number, (with_log, is_its_own) in enumerate(tries):
        copy = work / f"damaged{number}.sqlite"
        is_there = _copied(folder, copy, with_log=with_log)
        if not is_its_own:
            salvage.with_new_first_page(copy, work)
        elif not is_there or not salvage.is_database(copy):
            continue
        db = salvage.connect(copy, "mode=rw")
        with suppress(sqlite3.DatabaseError):
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        with suppress(sqlite3.DatabaseError):
            salvage.give_columns_back(db)
        with suppress(sqlite3.DatabaseError):
            if set(salvage.TABLES) - {salvage.OPTIONAL} <= salvage.tables_of(db):
                return Opened(db, is_its_own, without_log=has_log and not with_log)
        db.close()
    raise nothing_left(folder)


def _copied(folder: Path, copy: Path, *, with_log: bool) -> bool:
    """Copies the damaged file, an empty one where it is missing or empty; and says whether it was there."""
    is_there = size_of(folder / DATABASE_NAME) > 0
    if is_there:
        shutil.copyfile(folder / DATABASE_NAME, copy)
    else:
        copy.write_bytes(b"")
    if with_log:
        shutil.copyfile(folder / LOG, _log_of(copy))
    return is_there


def _is_sound(database: Path) -> bool:
    try:
        return not soundness.damage_of(database)
    except IndexFileError:
        return False


def nothing_left(folder: Path) -> ForeignIndexError:
    """The error that says that a database cannot be mended."""
    return ForeignIndexError(
        f"{printable(folder)} cannot be mended: nothing can be read of its {DATABASE_NAME}. "
        "Make the index anew at another place."
    )


def put_in_place(folder: Path, mended: Path) -> Path:
    """Gives a mended database the name of the damaged one, which stays beside it under the name that is returned."""
    original, log = folder / DATABASE_NAME, folder / LOG
    aside = folder / f"{_KEPT}{datetime.datetime.now(datetime.timezone.utc):%Y%m%dT%H%M%S}-{secrets.token_hex(2)}"
    if size_of(log):
        shutil.copyfile(log, _log_of(aside))
    try:
        os.link(original, aside)
    except FileNotFoundError:
        aside.touch()
    except OSError:
        shutil.copyfile(original, aside)
    for file in (log, folder / _SHARED):
        file.unlink(missing_ok=True)
    os.replace(mended, original)
    _sync_folder(folder)
    return aside


def _sync_folder(folder: Path) -> None:
    with suppress(OSError):  # where folders cannot be opened
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
