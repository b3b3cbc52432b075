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
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

from coocnet.data.images import content_digest, read_bytes
from coocnet.data.remote import is_url
from coocnet.data.walk import FileStamp
from coocnet.errors import ForeignIndexError, ImageError, InputError, printable
from coocnet.index import approximate, copies, kept, layer, prepared, removals, salvage, soundness
from coocnet.index.database import (
    DATABASE_NAME,
    DERIVED_NAMES,
    Database,
    check_place,
    lost_database,
    name_of_fact,
    put_meta,
    put_sum,
    sole_writer,
    typed_errors,
)
from coocnet.index.facts import NO_WHITENING
from coocnet.index.milvus.address import is_in_milvus
from coocnet.index.records import Removal
from coocnet.index.store import Store
from coocnet.recipe import Recipe
from coocnet.whitening import Whitening

_UNSEEN_BYTES = -1  # a size that no file has, so that the next sync reads it
_APPROXIMATE = "approximate"
_OF_ROWS = ("weights_sha256", "dim")
_FACT = name_of_fact("")
_CHOSEN = {"storage": "--storage", "thumbnails": "--thumbnails"}
_WHITENING_LOST = (
    "Which whitening was in force is lost: if you gave one, or none, say so again: coocnet index DIR --whitening FILE"
)


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
    """Looks an index over, and mends what is damaged; to be called where this process has not opened the index.

    Args:
        location: the index's own folder.
        check: only look.
        recipe: what the index was made with, needed where that can be read no more; rows that no stored whitening
            tells to belong to it are then described anew.

    Raises:
        InputError: an index in Milvus, not a path, or a database that is a link.
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
        lost = lost_database(folder)
        if lost is None or not lost.has_log:
            check_place(folder, may_make=False)
        if (folder / DATABASE_NAME).is_symlink():
            raise InputError(
                f"{printable(folder / DATABASE_NAME)} is a link, and repair would replace it by a file: put the file "
                "that it leads to in its place, with its -wal if there is one, and repair it then"
            )
    return folder


def _repaired(folder: Path, recipe: Recipe | None) -> RepairReport:
    copies.sweep_up(folder)
    damage, derived = _damage_of(folder)
    report = RepairReport(str(folder), damage + list(derived))
    if damage:
        _rebuild(folder, recipe, report)
    for name in DERIVED_NAMES if damage else derived.values():
        for file in folder.glob(f"{name}*"):
            if file.is_dir():
                shutil.rmtree(file)
                if file.name.startswith(_APPROXIMATE):
                    file.touch()
            elif name != _APPROXIMATE:
                file.unlink(missing_ok=True)
        if name == _APPROXIMATE:
            approximate.take_away(folder)
    report.is_mended = bool(report.damage)
    return report


# Looking


def _damage_of(folder: Path) -> tuple[list[str], dict[str, str]]:
    """What is damaged of the database; and, where that is sound, of what is derived, with how its files begin."""
    damage = soundness.damage_of(folder / DATABASE_NAME)
    return damage, {} if damage else _derived_damage(folder)


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
    work = folder / copies.WORK
    work.mkdir()
    try:
        mended = _carried(folder, work, recipe, report)
        assert not soundness.damage_of(mended), "what was mended is damaged"
        report.kept_as = str(copies.put_in_place(folder, mended))
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _carried(folder: Path, work: Path, recipe: Recipe | None, report: RepairReport) -> Path:
    opened = copies.opened(folder, work)
    if opened.without_log:
        report.damage.append(f"{copies.LOG}: it is damaged, or of another state of the index")
        report.to_do.append(
            "The log of the last changes could not be used: what was taken out of the collection since may come back "
            "with the next sync."
        )
    with closing(opened.db) as old:
        facts = _facts(old, recipe, report)
        with closing(Database.open(work / "mended", {})) as made:
            path = made.location / DATABASE_NAME
        with closing(salvage.connect(path, "mode=rw")) as new:
            new.execute("PRAGMA journal_mode = DELETE")
            new.execute("PRAGMA synchronous = OFF")  # it counts only when it is whole
            new.execute("BEGIN")
            new.execute("DELETE FROM meta")
            new.execute("DELETE FROM sums")
            if not _carry_tables(old, new, facts, report) and not facts and not opened.has_its_head:
                raise copies.nothing_left(folder)
            _settle_facts(new, facts, report)
            new.execute("COMMIT")
            new.execute("PRAGMA journal_mode = WAL")
    with open(path, "rb+") as stream:
        os.fsync(stream.fileno())
    return path


def _facts(old: sqlite3.Connection, recipe: Recipe | None, report: RepairReport) -> dict[str, str]:
    """The facts that hold of what is carried, as far as they can be read or found out."""
    facts = salvage.facts_of(old)
    if "recipe" not in facts:
        facts = {name: value for name, value in facts.items() if name not in _OF_ROWS}
    known = salvage.recipe_of(facts["recipe"]) if "recipe" in facts else recipe
    if known is not None and not facts.keys() >= {"recipe", *_OF_ROWS} and (found := _recognised(old, known)):
        facts |= {"recipe": known.to_toml(), **found}
    _tell_lost_facts(old, facts, report)
    if "recipe" not in facts and recipe is not None:
        facts["recipe"] = recipe.to_toml()
    return facts


def _tell_lost_facts(old: sqlite3.Connection, facts: dict[str, str], report: RepairReport) -> None:
    """Says which facts are lost; the whitening in force is then the last one that was stored, if there is one."""
    noted = (name for name in salvage.stream(old, "SELECT name FROM sums") if isinstance(name, bytes))
    named = {name.removeprefix(_FACT).decode(errors="replace") for name in noted if name.startswith(_FACT)}
    named |= {row[0] for row in salvage.readable(old, "meta") if isinstance(row[0], str)}
    is_lost = "made" not in facts  # every index has it
    chosen = [
        f"{key} ({option})" for key, option in _CHOSEN.items() if key not in facts and (is_lost or key in named)
    ]
    if chosen:
        report.to_do.append(f"If you had chosen these for the index, choose them again: {', '.join(chosen)}.")
    if "whitening" in facts or not (is_lost or "whitening" in named):
        return
    versions = [row[0] for row in salvage.readable(old, "whitenings") if salvage.is_right("whitenings", row, 0)]
    if versions and facts.keys() >= {"recipe", *_OF_ROWS}:
        facts["whitening"] = str(max(versions))
        report.to_do.append(
            f"Which whitening was in force is lost: it is the last one that was stored, version {max(versions)}."
        )
    elif versions or "whitening" in named or not salvage.can_be_read(old, "whitenings"):
        report.to_do.append(_WHITENING_LOST)


def _recognised(old: sqlite3.Connection, recipe: Recipe) -> dict[str, str]:
    """What rows of this recipe are of, by a stored whitening that was fitted on such; nothing where there is none."""
    for row in salvage.readable(old, "whitenings"):
        if salvage.is_right("whitenings", row, 0):
            whitening = Whitening.from_bytes(row[3])
            weights = whitening.provenance.get("weights_sha256", "")
            fits = whitening.provenance.get("row_fingerprint") == recipe.row_fingerprint()
            if fits and salvage.is_right("meta", ("weights_sha256", weights), 0):
                return {"weights_sha256": weights, "dim": str(len(whitening.mean))}
    return {}


def _carry_tables(
    old: sqlite3.Connection, new: sqlite3.Connection, facts: dict[str, str], report: RepairReport
) -> int:
    """Carries what can be read and can be right; says how many entries."""
    before = new.total_changes
    dim = int(facts.get("dim", 0))
    whole = facts.keys() >= {"recipe", *_OF_ROWS}  # else nobody knows what the rows are
    names = ["folders", "skipped", *(["whitenings", "pictures", "descriptors"] if whole else [])]
    there = salvage.tables_of(old)
    if salvage.OPTIONAL in there:
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
    _settle_removals(old, new, report)
    if not salvage.can_be_read(old, "folders"):
        report.to_do.append("Folders of the index may be lost: name each to a sync once, as with coocnet index DIR.")
    return carried


def _settle_removals(old: sqlite3.Connection, new: sqlite3.Connection, report: RepairReport) -> None:
    """Says where it may be lost what was taken out; of files that are still there it is found out again."""
    is_lost = True
    with suppress(sqlite3.DatabaseError):
        there = salvage.OPTIONAL in salvage.tables_of(old)
        is_lost = (there and not salvage.can_be_read(old, salvage.OPTIONAL)) or not removals.is_as_noted(old)
    if is_lost:
        known = {path for (path,) in new.execute("SELECT path FROM removed")}
        out = [path for (path,) in new.execute("SELECT path FROM skipped WHERE reason = ?", (removals.TAKEN_OUT,))]
        for path in (os.fsdecode(path) for path in out if path not in known):
            if not is_url(path):
                with suppress(ImageError, OSError):
                    digest, status = content_digest(read_bytes(path)), os.stat(path)
                    stamp = FileStamp(status.st_size, status.st_mtime_ns)
                    is_here = new.execute("SELECT 1 FROM descriptors WHERE digest = ?", (digest,)).fetchone()
                    if not is_here:  # else the file is another picture by now
                        removals.note(new, [Removal(digest, path, stamp)], as_they_are=True)
        report.to_do.append(
            "Which pictures were taken out of the collection may be lost in part, and such come back with the next "
            "sync: coocnet restore lists those that are known or were found again, coocnet remove takes others out."
        )
    removals.note_sum(new)


def _settle_facts(new: sqlite3.Connection, facts: dict[str, str], report: RepairReport) -> None:
    """Stores the facts that hold for what was carried."""
    if "recipe" not in facts:
        raise ForeignIndexError(
            f"{printable(report.location)} is damaged, and the recipe that it was made with is lost: name "
            f"it, as with: coocnet repair {printable(report.location)} --recipe mini. "
            "Rows that cannot be told to be of this recipe are described anew."
        )
    if not report.rows:
        facts = {name: value for name, value in facts.items() if name not in {*_OF_ROWS, "engines"}}
    version = facts.get("whitening", NO_WHITENING)
    if version != NO_WHITENING and not soundness.has_whitening(new, version):
        del facts["whitening"]
        report.to_do.append(_WHITENING_LOST)
    facts.setdefault("made", _now().isoformat(timespec="seconds"))
    facts |= {"generation": str(int(facts.get("generation", 0)) + 1), "change": secrets.token_hex(8)}
    for key, value in facts.items():
        put_meta(new, key, value)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.timezone.utc)
