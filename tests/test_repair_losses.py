"""What a repair says of losses that it cannot mend, and what it must not lose itself."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest

from coocnet.data.images import content_digest
from coocnet.data.walk import FileStamp
from coocnet.errors import ForeignIndexError, InputError
from coocnet.index import open_index
from coocnet.index import repair as repairing
from coocnet.index.database import DATABASE_NAME, put_meta
from coocnet.index.records import Described
from coocnet.index.repair import repair
from coocnet.recipe import Recipe
from coocnet.whitening import Whitening, fit_pca
from indexing import Unused, contents, digest_of, named, put, synthetic_rows

PAGE = 4096
DIM = 200
LOG = f"{DATABASE_NAME}-wal"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """An index of 98 pictures in a folder that has them, two more of which were taken out."""
    rows = synthetic_rows(100, dim=DIM)
    put(tmp_path / "photos.cooc", named(rows))
    with open_index(tmp_path / "photos.cooc") as index:
        index._store.note_sync("/photos", {})
        index.remove([digest_of(rows[0]), digest_of(rows[1])])
    return tmp_path / "photos.cooc"


def database(place: Path) -> Path:
    return place / DATABASE_NAME


def execute(place: Path, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(database(place))) as db, db:
        db.execute(statement, values)


def wipe(place: Path, *names: str) -> None:
    """Fills the first page of each table with zeros, and merges no log."""
    with closing(sqlite3.connect(f"{database(place).as_uri()}?immutable=1", uri=True)) as db:
        pages = dict(db.execute("SELECT name, rootpage FROM sqlite_master"))
    for name in names:
        with open(database(place), "rb+") as stream:
            stream.seek((pages[name] - 1) * PAGE)
            stream.write(bytes(PAGE))


def with_a_log(place: Path, copy: Path, count: int, seed: int) -> Path:
    """A copy of an index whose last changes, so many new pictures, are in its log alone."""
    shutil.copytree(place, copy)
    with open_index(copy) as index:
        put(copy, named(synthetic_rows(count, seed=seed, dim=DIM), f"new {seed} "))
        shutil.copytree(copy, kept := copy.with_suffix(".kept"))
        del index
    shutil.rmtree(copy)
    kept.rename(copy)
    assert (copy / LOG).stat().st_size
    return copy


# The log


def test_a_log_of_another_state_of_the_index_is_left_out(place, tmp_path) -> None:
    put(tmp_path / "other.cooc", named(synthetic_rows(300, seed=6, dim=DIM)))
    logged = with_a_log(tmp_path / "other.cooc", tmp_path / "logged.cooc", 40, seed=5)
    shutil.copyfile(logged / LOG, place / LOG)
    before = (place / LOG).read_bytes()
    report = repair(place)
    assert f"{LOG}: it is damaged, or of another state of the index" in report.damage
    assert report.rows == 98
    assert "taken out" in report.to_do[0]
    assert Path(f"{report.kept_as}-wal").read_bytes() == before


@pytest.mark.parametrize("is_there", [True, False], ids=["empty", "missing"])
def test_a_lost_database_is_told_and_its_log_neither_lost_nor_ignored(place, tmp_path, is_there) -> None:
    logged = with_a_log(place, tmp_path / "logged.cooc", 3, seed=5)
    before = (logged / LOG).read_bytes()
    database(logged).unlink()
    if is_there:
        database(logged).touch()
    says = f"its {DATABASE_NAME} is {'empty' if is_there else 'missing'}, beside {LOG}"
    for recipe in (None, Recipe()):
        with pytest.raises(ForeignIndexError, match=f"{says}.*coocnet repair"):
            open_index(logged, recipe)
    assert repair(logged, check=True).damage == [says]
    assert (logged / LOG).read_bytes() == before
    assert repair(logged).rows >= 3  # what was in the database alone is gone
    assert {path for path, _, _ in contents(logged)} >= {f"/photos/new 5 {at:06}é.jpg" for at in range(3)}


def test_an_index_that_was_never_merged_is_mended_from_its_log(tmp_path) -> None:
    with open_index(tmp_path / "first.cooc", Recipe(whitening="none")) as index:
        put(tmp_path / "first.cooc", named(synthetic_rows(5, dim=DIM)))
        shutil.copytree(tmp_path / "first.cooc", place := tmp_path / "photos.cooc")
        expected = contents(tmp_path / "first.cooc")
        del index
    database(place).write_bytes(b"")
    report = repair(place)
    assert (report.pictures, report.rows, report.to_do) == (5, 5, [])
    assert contents(place) == expected
    assert Path(report.kept_as).exists()
    assert Path(f"{report.kept_as}-wal").exists()
    assert not repair(place, check=True).damage


@pytest.mark.parametrize(
    ("left", "says"),
    [
        ("gallery.npz", "delete the folder"),
        ("neighbours.npz", "delete the folder"),
        ("approximate.npz", "delete the folder"),
        (f"{DATABASE_NAME}.damaged-1", f"call it {DATABASE_NAME}"),
    ],
)
def test_where_an_index_was_none_is_made_unasked_and_the_advice_leads_on(place, left, says) -> None:
    database(place).rename(place / left)
    for act in (lambda: open_index(place, Recipe()), lambda: repair(place)):
        with pytest.raises(ForeignIndexError, match=f"missing, beside {left}.*{says}"):
            act()
    (place / left).rename(database(place))
    assert not repair(place, check=True).damage


_OPENS_AND_CLOSES = "import coocnet, sys; coocnet.open_index(sys.argv[1]).close()"


@pytest.mark.slow
def test_a_process_that_looked_the_database_over_keeps_its_locks_on_it(place, tmp_path) -> None:
    """Else the next process that closes the index takes the log away under this one, with all that is in it."""
    (tmp_path / "photos").mkdir()
    with open_index(place) as index:
        index.sync(tmp_path / "photos", describer=Unused, allow_empty=True)
        subprocess.run([sys.executable, "-c", _OPENS_AND_CLOSES, str(place)], check=True)
        assert (place / LOG).exists()
        put(place, named(synthetic_rows(5, seed=7, dim=DIM), "later "))
        subprocess.run([sys.executable, "-c", _OPENS_AND_CLOSES, str(place)], check=True)
        with open_index(place) as other:
            assert other.pictures == index.pictures == 103


# What was taken out


def test_that_removals_are_lost_is_said(place) -> None:
    wipe(place, "removed")
    report = repair(place)
    assert any("taken out of the collection may be lost" in what for what in report.to_do)
    assert not repair(place, check=True).damage


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE removed SET size_bytes = 'x' WHERE rowid_of = 1",
        "UPDATE removed SET digest = zeroblob(16) WHERE rowid_of = 1",
        "DELETE FROM removed WHERE rowid_of = 1",
        "DROP TABLE removed",
    ],
)
def test_one_removal_that_is_wrong_or_missing_is_seen(place, statement) -> None:
    first = "path = (SELECT min(path) FROM removed)"
    execute(place, statement.replace("rowid_of = 1", first))
    assert repair(place, check=True).damage
    assert any("may be lost" in what for what in repair(place).to_do)


def test_a_removal_that_is_lost_is_found_again_in_the_file_itself(place, tmp_path) -> None:
    (tmp_path / "out.jpg").write_bytes(b"a picture that was taken out")
    with open_index(place) as index:
        index._store.note_sync(str(tmp_path), {str(tmp_path / "out.jpg"): "taken out of the collection"})
    wipe(place, "removed")
    repair(place)
    with open_index(place) as index:
        (known,) = index._store.taken_out()
        assert known.digest == content_digest(b"a picture that was taken out")
        assert known.path == str(tmp_path / "out.jpg")


def test_a_picture_of_the_collection_is_not_taken_for_one_that_was_taken_out(place, tmp_path) -> None:
    content = b"a picture that is in the collection"
    (tmp_path / "out.jpg").write_bytes(content)
    row = synthetic_rows(1, seed=8, dim=DIM)[0]
    with open_index(place) as index:
        index._store.put([Described("/photos/in.jpg", FileStamp(3, 4), content_digest(content), row)])
        index._store.note_sync(str(tmp_path), {str(tmp_path / "out.jpg"): "taken out of the collection"})
    wipe(place, "removed")
    assert repair(place).rows == 99
    with open_index(place) as index:
        assert index._store.taken_out() == []


def test_removals_that_are_damaged_are_not_changed(place) -> None:
    with open_index(place) as index:
        out = [one.digest for one in index._store.taken_out()]
        execute(place, "DELETE FROM removed WHERE digest = ?", out[0])
        some = [digest for _, digest, _ in contents(place)[:1]]
        for change in (
            lambda: index._store.take_out(some),
            lambda: index._store.forget_removals(out[1:]),
            lambda: index._store.note_removals(index._store.taken_out()),
        ):
            with pytest.raises(ForeignIndexError, match=r"taken out.*coocnet repair"):
                change()
    assert repair(place, check=True).damage


def test_removals_that_come_and_go_have_their_checksum(place) -> None:
    with open_index(place) as index:
        assert not repair(place, check=True).damage
        digests = [one.digest for one in index._store.taken_out()]
        index._store.forget_removals(digests[:1])
        assert not repair(place, check=True).damage
        index._store.note_removals(index._store.taken_out())
        assert not repair(place, check=True).damage
        index._store.forget_removals(digests)
    assert not repair(place, check=True).damage


# Facts


def given_whitening(place: Path, recipe: Recipe, weights: str) -> Whitening:
    fitted = fit_pca(synthetic_rows(300, dim=DIM), dim=8)
    facts = {"row_fingerprint": recipe.row_fingerprint(), "weights_sha256": weights}
    whitening = Whitening(fitted.mean, fitted.projection, facts)
    with open_index(place) as index:
        index._store.put_whitening(whitening, learned_here=False)
    return whitening


def test_rows_are_recognised_by_their_whitening_where_all_facts_are_lost(place) -> None:
    with open_index(place) as index:
        recipe, weights = index.recipe, index._store.meta("weights_sha256")
    whitening = given_whitening(place, recipe, weights)
    before = contents(place)
    wipe(place, "meta")
    report = repair(place, recipe=recipe)
    assert report.rows == 98
    assert contents(place) == before
    with open_index(place) as index:
        assert index.whitening().equals(whitening)
        assert index._store.meta("weights_sha256") == weights
    assert any("--storage" in what for what in report.to_do)
    assert any("the last one that was stored, version 1" in what for what in report.to_do)


@pytest.mark.parametrize("key", ["whitening", "storage", "thumbnails"])
def test_a_choice_that_is_lost_alone_is_named(place, key) -> None:
    with open_index(place) as index, index._store._database.writing() as db:
        put_meta(db, key, "0")
    assert not repair(place, check=True).damage
    execute(place, "UPDATE meta SET value = '3' WHERE key = ?", key)
    (said,) = repair(place).to_do
    assert f"--{key}" in said


def test_rows_of_another_recipe_are_not_taken_for_those_of_the_named_one(place) -> None:
    with open_index(place) as index:
        given_whitening(place, index.recipe, "0" * 64)
    wipe(place, "meta")
    report = repair(place, recipe=Recipe(whitening="none", size_px=300))
    assert report.rows == 0
    assert any("coocnet index DIR --whitening FILE" in what for what in report.to_do)


def test_that_folders_are_lost_is_said(place) -> None:
    wipe(place, "folders")
    assert any("Folders of the index may be lost" in what for what in repair(place).to_do)


@pytest.mark.parametrize("key", ["whitening", "dim", "generation"])
@pytest.mark.parametrize("value", ["9" * 20, "9" * 5000])
def test_a_number_that_no_index_has_is_damage_like_any_other(place, key, value) -> None:
    execute(place, "DROP TABLE sums")
    execute(place, "INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", key, value)
    assert repair(place, check=True).damage
    repair(place)
    assert not repair(place, check=True).damage
    open_index(place).close()


@pytest.mark.parametrize(
    ("table", "column", "damaged"),
    [
        ("descriptors", b"row BLOB", b"ro\xf7 BLOB"),
        ("pictures", b"(path BLOB PRIMARY KEY, descriptor", b"(pith BLOB PRIMARY KEY, descriptor"),
        ("meta", b"(key TEXT PRIMARY", b"(kez TEXT PRIMARY"),
        ("removed", b"modified_ns INTEGER NOT NULL, PRIMARY", b"modified_no INTEGER NOT NULL, PRIMARY"),
        ("sums", b"sum INTEGER", b"sun INTEGER"),
    ],
)
def test_a_table_whose_column_lost_its_name_keeps_its_rows(place, table, column, damaged) -> None:
    before = contents(place)
    with closing(sqlite3.connect(database(place))) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = database(place).read_bytes()
    changed = content.replace(column, damaged)
    assert len(changed) == len(content)
    assert changed != content
    database(place).write_bytes(changed)
    assert repair(place, check=True).damage == [f"{DATABASE_NAME}: table {table} has lost a column"]
    report = repair(place)
    assert (report.rows, report.pictures) == (98, 98)
    assert contents(place) == before
    assert not repair(place, check=True).damage
    with open_index(place) as index:
        assert len(index.removed()) == 2


def test_where_nothing_can_be_written_for_a_lost_column_it_is_called_damaged(place) -> None:
    execute(place, "ALTER TABLE sums RENAME COLUMN sum TO sun")
    with open_index(place) as index, pytest.raises(ForeignIndexError, match=r"damaged.*coocnet repair"):
        index.remove([digest_of(synthetic_rows(100, dim=DIM)[2])])


@pytest.mark.parametrize("version", [0, -1, 872415233])
def test_a_format_that_no_index_has_is_damage(place, version) -> None:
    execute(place, f"PRAGMA user_version = {version}")
    with pytest.raises(ForeignIndexError, match=f"format is {version}.*coocnet repair"):
        open_index(place)
    assert repair(place).rows == 98
    open_index(place).close()


# Files that are no files, and interruptions


@pytest.mark.parametrize("name", ["approximate.npz", "neighbours.npz", "gallery.npz"])
def test_a_folder_where_a_derived_file_should_be_is_taken_away(place, name) -> None:
    (place / name).mkdir()
    (place / name / "x").touch()
    assert repair(place, check=True).damage
    repair(place)
    assert not repair(place, check=True).damage
    assert not (place / name).is_dir()


def test_a_database_that_is_a_link_is_left_where_it_is(place, tmp_path) -> None:
    database(place).rename(tmp_path / "elsewhere.sqlite")
    database(place).symlink_to(tmp_path / "elsewhere.sqlite")
    with pytest.raises(InputError, match="is a link"):
        repair(place)
    assert database(place).is_symlink()


@pytest.mark.parametrize("when", ["link", "replace"])
def test_a_repair_that_is_killed_loses_no_log(place, tmp_path, monkeypatch, when) -> None:
    logged = with_a_log(place, tmp_path / "logged.cooc", 3, seed=5)
    wipe(logged, "folders")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, when, killed)
        with pytest.raises(KeyboardInterrupt):
            repair(logged)
    report = repair(logged)
    assert report.rows == 101
    aside = Path(report.kept_as)
    assert sorted(file.name for file in logged.glob("*damaged*")) == [aside.name, f"{aside.name}-wal"]


def test_a_row_that_says_to_be_longer_than_memory_is_lost_alone(place) -> None:
    with closing(sqlite3.connect(database(place))) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        page = (db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'meta'").fetchone()[0] - 1) * PAGE
        keys = [key for (key,) in db.execute("SELECT key FROM meta ORDER BY key")]
    content = bytearray(database(place).read_bytes())
    cell = page + int.from_bytes(content[page + 8 + 2 * keys.index("engines") :][:2], "big")
    content[cell : cell + 11] = b"\xff" * 10 + b"\x6e"
    database(place).write_bytes(content)
    with closing(sqlite3.connect(database(place))) as db, pytest.raises(MemoryError):
        db.execute("SELECT key FROM meta ORDER BY key DESC").fetchall()
    report = repair(place)
    assert (report.rows, report.pictures) == (98, 98)
    assert not repair(place, check=True).damage


def test_pages_that_lead_to_one_another_many_times_give_no_more_rows_than_there_is_room_for(place) -> None:
    """Four pages of 300 ways each to the next: beyond them are eight thousand million rows."""

    def ways_to(child: int) -> bytes:
        page = bytearray(PAGE)
        page[0], page[3:5], page[5:7] = 0x05, (300).to_bytes(2, "big"), (4000).to_bytes(2, "big")
        page[8:12] = page[4000:4004] = child.to_bytes(4, "big")
        page[4004] = 1
        for at in range(12, 12 + 600, 2):
            page[at : at + 2] = (4000).to_bytes(2, "big")
        return bytes(page)

    with closing(sqlite3.connect(database(place))) as db:
        (root,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'descriptors'").fetchone()
    chain = [root, 12, 13, 14, 15]
    with open(database(place), "rb+") as stream:
        for page, child in pairwise(chain):
            stream.seek((page - 1) * PAGE)
            stream.write(ways_to(child))
    with closing(repairing.salvage.connect(database(place), "mode=ro")) as db:
        rows = sum(1 for _ in islice(repairing.salvage.readable(db, "descriptors"), 10**6))
    assert rows < 10**6
    assert repair(place).damage


def test_what_a_page_leads_to_is_followed_no_more_often_than_the_file_is_long() -> None:
    row = np.zeros(3000, np.float32).tobytes()
    kinds = [0, 12 + 2 * 16, 12 + 2 * len(row)]

    def varint(value: int) -> bytes:
        return bytes([0x80 | value >> 14, 0x80 | value >> 7 & 0x7F, value & 0x7F]) if value > 127 else bytes([value])

    header = b"".join(map(varint, kinds))
    record = bytes([len(header) + 1]) + header + bytes(16) + row
    followed: list[int] = []

    class Endless:
        size = PAGE

        def follow(self, number: int) -> bytes:
            followed.append(number)
            return (7).to_bytes(4, "big") + bytes(PAGE - 4)

    page = bytearray(PAGE)
    cell = varint(len(record)) + b"\1" + record
    least = (PAGE - 12) * 32 // 255 - 23
    local = least + (len(record) - least) % (PAGE - 4)
    page[100 : 100 + 4 + local] = cell[: 4 + local]
    page[104 + local : 108 + local] = (7).to_bytes(4, "big")
    found = repairing.salvage._content_in(Endless(), bytes(page), 100)
    assert found is not None
    assert (len(found[2]), len(followed)) == (len(row), -(-(len(record) - local) // (PAGE - 4)))
