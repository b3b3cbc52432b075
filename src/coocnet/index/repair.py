"""An index in a folder looked over, and mended where it is damaged.

Nothing is mended in place. What can be read of a damaged database and can be right is carried into a new one, which
is looked over itself and then takes the name; the damaged file stays beside it under another. Until that moment the
index is as it was, so a repair may be interrupted, and what it leaves then is in the way of nothing. Pictures are
carried without the stamps of their files: the next sync reads every file once and compares its content with what is
stored.
"""

from __future__ import annotations

import datetime
import os
import secrets
import shutil
import sqlite3
from collections import Counter
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

from coocnet.data.remote import is_url
from coocnet.errors import ForeignIndexError, InputError, NewerIndexError, printable
from coocnet.index import approximate, kept, layer, prepared, salvage
from coocnet.index.database import (
    APPLICATION_ID,
    DATABASE_NAME,
    DERIVED_NAMES,
    OBJECTS,
    REMOVED,
    SCHEMA_VERSION,
    Database,
    check_place,
    missing,
    put_meta,
    put_sum,
    sole_writer,
    typed_errors,
)
from coocnet.index.derived import sweep
from coocnet.index.facts import NO_WHITENING
from coocnet.index.milvus.address import is_in_milvus
from coocnet.index.store import Store
from coocnet.recipe import Recipe

_LOG, _SHARED = f"{DATABASE_NAME}-wal", f"{DATABASE_NAME}-shm"
_WORK = f"{DATABASE_NAME}.repairing"
_KEPT = f"{DATABASE_NAME}.damaged-"
_UNSEEN_BYTES = -1  # a size that no file has, so that the next sync reads it
_MOST_TOLD = 5
_APPROXIMATE = "approximate"


@dataclass
class RepairReport:
    """What was found, and what was done about it.

    Attributes:
        location: the index's folder.
        damage: what is damaged, in words; empty for a sound index.
        is_mended: whether it was repaired; not where it was only looked over, or was sound.
        kept_as: where the damaged database is now; empty where it was sound.
        pictures: that were carried into the new database.
        rows: of contents that were carried into it.
        to_do: what is left for the user, in words.
    """

    location: str
    damage: list[str] = field(default_factory=list)
    is_mended: bool = False
    kept_as: str = ""
    pictures: int = 0
    rows: int = 0
    to_do: list[str] = field(default_factory=list)


def repair(location: str | os.PathLike[str], *, check: bool = False, recipe: Recipe | None = None) -> RepairReport:
    """Looks an index over, and mends what is damaged.

    Args:
        location: the index's own folder.
        check: only look.
        recipe: what the index was made with, needed where that can be read no more; then its rows cannot be told to
            belong to it, and are described anew.

    Raises:
        InputError: an index in Milvus, or not a path.
        IndexMissingError: no index there.
        ForeignIndexError: nothing in it can be recognised as an index of ours; or the recipe is lost and not given.
        NewerIndexError: written by a newer coocnet.
        IndexBusyError: another process writes the index.
        IndexStorageError: it cannot be written.
    """
    folder = _folder(location)
    with typed_errors(folder):
        if check:
            damage, derived = _damage_of(folder)
            if derived:  # perhaps of files that another process made anew just then
                damage, derived = _damage_of(folder)
            return RepairReport(str(folder), damage + list(derived))
        with sole_writer(folder):
            return _repaired(folder, recipe)


def _folder(location: str | os.PathLike[str]) -> Path:
    given: object = location
    if not isinstance(given, str | os.PathLike) or "\0" in os.fspath(given):
        raise InputError(f"an index that is repaired is a folder on this machine, got {given!r}")
    name = os.fspath(location)
    if is_in_milvus(name):
        raise InputError(
            "repair is for indexes in folders; Milvus looks after its own files. If an index there is damaged, make "
            "it anew under another name, or copy one from a folder: coocnet migrate FOLDER milvus://…"
        )
    if is_url(name):
        raise InputError(f"an index that is repaired is a folder on this machine, got {name!r}")
    folder = Path(os.path.abspath(os.path.expanduser(name)))
    with typed_errors(folder):
        check_place(folder, may_make=False)
    return folder


def _repaired(folder: Path, recipe: Recipe | None) -> RepairReport:
    _sweep(folder)
    damage, derived = _damage_of(folder)
    report = RepairReport(str(folder), damage + list(derived))
    if damage:
        _rebuild(folder, recipe, report)
    for name in DERIVED_NAMES if damage else derived.values():
        if name == _APPROXIMATE:
            approximate.take_away(folder)
            continue
        for file in folder.glob(f"{name}*"):
            file.unlink(missing_ok=True)
    report.is_mended = bool(report.damage)
    return report


def _sweep(folder: Path) -> None:
    """Takes away what an interrupted repair left, and whatever else was never finished."""
    sweep(folder)
    shutil.rmtree(folder / _WORK, ignore_errors=True)
    for file in folder.glob(f"{_KEPT}*"):
        if file.samefile(folder / DATABASE_NAME):  # not put aside yet
            file.unlink()
            file.with_name(f"{file.name}-wal").unlink(missing_ok=True)


# Looking


def _damage_of(folder: Path) -> tuple[list[str], dict[str, str]]:
    """What is damaged of the database; and, where that is sound, of what is derived, with how its files begin."""
    damage = _database_damage(folder / DATABASE_NAME)
    return damage, {} if damage else _derived_damage(folder)


def _database_damage(path: Path) -> list[str]:
    """What is damaged in a database, in words.

    Raises:
        IndexFileError: it is no index of ours, or of a newer one.
    """
    if salvage.size_bytes(path) and not salvage.is_database(path):
        return [f"{DATABASE_NAME}: its first bytes are not those of a database"]
    try:
        with closing(_reading(path)) as db:
            db.execute("BEGIN")
            _check_ours(path, db)
            told = [text for (text,) in db.execute(f"PRAGMA integrity_check({_MOST_TOLD})") if text != "ok"]
            found = [line for text in told for line in text.splitlines() if not line.startswith("***")]
            return [f"{DATABASE_NAME}: {line}" for line in found[:_MOST_TOLD]] or _wrong_schema(db) or _wrong_rows(db)
    except sqlite3.OperationalError as error:
        if any(text in str(error) for text in ("locked", "unable to open", "disk I/O")):
            raise
        return [f"{DATABASE_NAME}: {error}"]
    except sqlite3.DatabaseError as error:
        return [f"{DATABASE_NAME}: {error}"]


def _reading(path: Path) -> sqlite3.Connection:
    """A connection that changes nothing; where even the log cannot be opened, without it if it is empty."""
    db = salvage.connect(path, "mode=ro")
    try:
        db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.OperationalError:
        db.close()
        if salvage.size_bytes(path.with_name(f"{path.name}-wal")):
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
    if application == APPLICATION_ID and version > SCHEMA_VERSION:
        raise NewerIndexError(
            f"{place} has format {version}: repair it with the coocnet that wrote it, or a newer one"
        )


def _wrong_schema(db: sqlite3.Connection) -> list[str]:
    found = dict(db.execute("SELECT name, type FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'").fetchall())
    application = db.execute("PRAGMA application_id").fetchone()[0]
    missing = [name for name, kind in OBJECTS.items() if found.get(name) != kind]
    wrong = [f"{DATABASE_NAME}: no {OBJECTS[name]} {name}" for name in missing]
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
    lonely = db.execute(
        "SELECT count(*) FROM pictures LEFT JOIN descriptors ON id = descriptor WHERE id IS NULL"
    ).fetchone()[0]
    if lonely:
        damage.append(f"{lonely} pictures have no row")
    if facts.get("whitening", NO_WHITENING) != NO_WHITENING and not _has_whitening(db, facts["whitening"]):
        damage.append(f"the whitening in force, version {facts['whitening']}, is lost")
    return damage


def _has_whitening(db: sqlite3.Connection, version: str) -> bool:
    return db.execute("SELECT 1 FROM whitenings WHERE version = ?", (int(version),)).fetchone() is not None


def _derived_damage(folder: Path) -> dict[str, str]:
    with closing(Store.open(folder, None)) as store, store.snapshot():
        stored = layer.in_force(store, store.recipe)
        whitening = None if stored is None else stored.whitening
        found = {
            kept.damage(store, whitening): "gallery",
            approximate.damage(folder): _APPROXIMATE,
            prepared.damage(folder): "neighbours",
        }
    return {what: name for what, name in found.items() if what}


# Mending


def _rebuild(folder: Path, recipe: Recipe | None, report: RepairReport) -> None:
    """Carries what can be read and can be right into a new database, which takes the damaged one's place."""
    work = folder / _WORK
    work.mkdir()
    try:
        copy = work / "damaged.sqlite"
        shutil.copyfile(folder / DATABASE_NAME, copy)
        if (folder / _LOG).is_file():
            shutil.copyfile(folder / _LOG, work / f"{copy.name}-wal")
        mended = _carried(copy, work, recipe, report)
        assert not _database_damage(mended), "what was mended is damaged"
        _put_in_place(folder, mended, report)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _carried(copy: Path, work: Path, recipe: Recipe | None, report: RepairReport) -> Path:
    old, is_its_own = _opened(copy, work)
    with closing(old):
        facts = salvage.facts_of(old)
        with closing(Database.open(work / "mended", {})) as made:
            path = made.location / DATABASE_NAME
        with closing(salvage.connect(path, "mode=rw")) as new:
            new.execute("PRAGMA journal_mode = DELETE")
            new.execute("PRAGMA synchronous = OFF")  # it counts only when it is whole
            new.execute("BEGIN")
            new.execute("DELETE FROM meta")
            new.execute("DELETE FROM sums")
            if not _carry_tables(old, new, facts, report) and not facts and not is_its_own:
                raise ForeignIndexError(
                    f"{printable(report.location)} holds no index: nothing in its {DATABASE_NAME} can be recognised. "
                    "Make the index anew at another place."
                )
            _settle_facts(new, facts, recipe, report)
            new.execute("COMMIT")
            new.execute("PRAGMA journal_mode = WAL")
    with open(path, "rb+") as stream:
        os.fsync(stream.fileno())
    return path


def _opened(copy: Path, work: Path) -> tuple[sqlite3.Connection, bool]:
    """The damaged file opened, with a new first page where its own says nothing; and whether that is its own."""
    for is_its_own in (True, False):
        if not is_its_own:
            salvage.with_new_first_page(copy, work)
        elif not salvage.is_database(copy):
            continue
        db = salvage.connect(copy, "mode=rw")
        with suppress(sqlite3.DatabaseError):
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            if set(salvage.TABLES) - {salvage.OPTIONAL} <= salvage.tables_of(db):
                return db, is_its_own
        db.close()
    raise ForeignIndexError(
        f"{printable(copy.parent.parent)} cannot be mended: nothing can be read of its {DATABASE_NAME}. "
        "Make the index anew at another place."
    )


def _carry_tables(
    old: sqlite3.Connection, new: sqlite3.Connection, facts: dict[str, str], report: RepairReport
) -> int:
    """Carries what can be read and can be right; says how many entries."""
    before = new.total_changes
    dim = int(facts.get("dim", 0))
    whole = facts.keys() >= {"recipe", "weights_sha256", "dim"}  # else nobody knows what the rows are
    names = ["folders", "skipped", *(["whitenings", "pictures", "descriptors"] if whole else [])]
    there = salvage.tables_of(old)
    if salvage.OPTIONAL in there:
        new.execute(REMOVED)
        names.append(salvage.OPTIONAL)
    for name in names:
        columns = salvage.TABLES[name].columns
        insert = f"INSERT OR IGNORE INTO {name} ({columns}) VALUES ({', '.join('?' * len(columns.split(', ')))})"  # noqa: S608
        for row in salvage.readable(old, name):
            if not salvage.is_right(name, row, dim) or salvage.contradicted(old, name, row):
                continue
            if new.execute(insert, row).rowcount and name == "descriptors":
                put_sum(new, row[1], row[2])
    carried = new.total_changes - before
    new.execute("DELETE FROM pictures WHERE descriptor NOT IN (SELECT id FROM descriptors)")
    new.execute("UPDATE pictures SET size_bytes = ?", (_UNSEEN_BYTES,))
    report.pictures = new.execute("SELECT count(*) FROM pictures").fetchone()[0]
    report.rows = new.execute("SELECT count(*) FROM descriptors").fetchone()[0]
    return carried


def _settle_facts(
    new: sqlite3.Connection, facts: dict[str, str], recipe: Recipe | None, report: RepairReport
) -> None:
    """Stores the facts that hold for what was carried."""
    if "recipe" not in facts:
        if recipe is None:
            raise ForeignIndexError(
                f"{printable(report.location)} is damaged, and the recipe that it was made with is lost: name "
                f"it, as with: coocnet repair {printable(report.location)} --recipe mini. "
                "Its pictures are described anew."
            )
        facts["recipe"] = recipe.to_toml()
    if not report.rows:
        facts = {name: value for name, value in facts.items() if name not in {"weights_sha256", "dim", "engines"}}
    version = facts.get("whitening", NO_WHITENING)
    if version != NO_WHITENING and not _has_whitening(new, version):
        del facts["whitening"]
        report.to_do.append(
            "The whitening is lost: if you gave one, give it again: coocnet index DIR --whitening FILE"
        )
    facts.setdefault("made", _now().isoformat(timespec="seconds"))
    facts |= {"generation": str(int(facts.get("generation", 0)) + 1), "change": secrets.token_hex(8)}
    for key, value in facts.items():
        put_meta(new, key, value)


def _put_in_place(folder: Path, mended: Path, report: RepairReport) -> None:
    original, log = folder / DATABASE_NAME, folder / _LOG
    aside = folder / f"{_KEPT}{_now():%Y%m%dT%H%M%S}-{secrets.token_hex(2)}"
    if salvage.size_bytes(log):
        shutil.copyfile(log, aside.with_name(f"{aside.name}-wal"))
    try:
        os.link(original, aside)
    except OSError:
        shutil.copyfile(original, aside)
    with suppress(sqlite3.DatabaseError), closing(salvage.connect(original, "mode=rw")) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # so that nothing is lost with the log, ended here or not
    for file in (log, folder / _SHARED):
        file.unlink(missing_ok=True)
    os.replace(mended, original)
    _sync_folder(folder)
    report.kept_as = str(aside)


def _sync_folder(folder: Path) -> None:
    with suppress(OSError):  # where folders cannot be opened
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.timezone.utc)
