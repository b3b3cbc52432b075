"""An index that is looked over, and mended where it is damaged."""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from coocnet.errors import (
    ForeignIndexError,
    IndexBusyError,
    IndexFileError,
    IndexMissingError,
    InputError,
    NewerIndexError,
)
from coocnet.index import kept, open_index
from coocnet.index.database import DATABASE_NAME, LOCK_NAME
from coocnet.index.repair import repair
from coocnet.recipe import Recipe
from coocnet.whitening import fit_pca
from indexing import Unused, contents, digest_of, held, named, put, sync, synthetic_rows

PAGE = 4096
DIM = 200


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of 300 pictures on some 90 pages, two of them taken out. Not to be written to."""
    return made_at(tmp_path_factory.mktemp("sound") / "photos.cooc", 300)


def made_at(place: Path, count: int) -> Path:
    rows = synthetic_rows(count, dim=DIM)
    put(place, named(rows))
    with open_index(place) as index:
        index._store.note_sync("/photos", {"/photos/torn.jpg": "truncated"})
        index.remove([digest_of(rows[0]), digest_of(rows[1])])
    return place


@pytest.fixture
def place(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "photos.cooc"))


def database(place: Path) -> Path:
    return place / DATABASE_NAME


def spoil(place: Path, page: int, content: bytes = bytes(PAGE), *, at: int = 0) -> None:
    """Writes over a page, the first of which is 0."""
    with open(database(place), "rb+") as stream:
        stream.seek(page * PAGE + at)
        stream.write(content)


def execute(place: Path, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(database(place))) as db, db:
        db.execute(statement, values)


def root(place: Path, name: str) -> int:
    """The first page of a table or an index."""
    with closing(sqlite3.connect(database(place))) as db:
        return db.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (name,)).fetchone()[0] - 1


def facts_in(place: Path) -> int:
    with closing(sqlite3.connect(database(place))) as db:
        return db.execute("SELECT count(*) FROM meta").fetchone()[0]


def rows_by_content(place: Path) -> dict[bytes, bytes]:
    return {digest: row for _, digest, row in contents(place)}


def test_a_sound_index_is_left_as_it_is(place) -> None:
    before = {file.name: file.read_bytes() for file in place.iterdir()}
    for check in (True, False):
        report = repair(place, check=check)
        assert (report.damage, report.is_mended, report.kept_as) == ([], False, "")
    after = {file.name: file.read_bytes() for file in place.iterdir() if file.name != LOCK_NAME}
    assert after == {name: content for name, content in before.items() if name != LOCK_NAME}


def test_a_look_changes_nothing_of_a_damaged_index(place) -> None:
    spoil(place, root(place, "descriptors"))
    before = database(place).read_bytes()
    report = repair(place, check=True)
    assert report.damage
    assert not report.is_mended
    assert database(place).read_bytes() == before


@pytest.mark.slow
@pytest.mark.parametrize("content", [bytes(PAGE), random.Random(0).randbytes(PAGE)], ids=["zeros", "noise"])
def test_whichever_page_is_lost_every_row_that_is_not_on_it_is_saved(tmp_path, content) -> None:
    sound = made_at(tmp_path / "sound.cooc", 60)
    before = rows_by_content(sound)
    on_a_page = PAGE // (4 * DIM)
    for page in range(database(sound).stat().st_size // PAGE):
        if page == root(sound, "meta"):
            continue  # a test of its own
        place = Path(shutil.copytree(sound, tmp_path / str(page)))
        spoil(place, page, content)
        report = repair(place)
        assert report.is_mended, page
        assert not repair(place, check=True).damage, page
        with closing(sqlite3.connect(database(place))) as db:
            rows = dict(db.execute("SELECT digest, row FROM descriptors"))
        assert rows.items() <= before.items(), page
        assert len(rows) >= len(before) - on_a_page, page
        with open_index(place) as index:
            assert index.folders == ["/photos"] or page == root(sound, "folders")
            assert len(index.removed()) == 2 or page == root(sound, "removed")
        shutil.rmtree(place)


@pytest.mark.parametrize("lost", ["descriptors", "pictures", "pictures_by_descriptor", None])
def test_where_the_beginning_of_a_table_is_lost_its_rows_are_saved(sound, place, lost) -> None:
    spoil(place, 0 if lost is None else root(place, lost))
    damaged = database(place).read_bytes()
    report = repair(place)
    assert Path(report.kept_as).read_bytes() == damaged
    with closing(sqlite3.connect(database(place))) as db:
        assert dict(db.execute("SELECT digest, row FROM descriptors")) == rows_by_content(sound)
    assert report.pictures == (0 if lost == "pictures" else 298)
    assert report.rows == 298


@pytest.mark.slow
def test_the_next_sync_reads_every_file_and_describes_what_is_missing(tmp_path, photos, recipe, describer) -> None:
    place, calm = tmp_path / "photos.cooc", tmp_path / "calm.cooc"
    sync(calm, photos, recipe, describer)
    sync(place, photos, recipe, describer)
    execute(place, "UPDATE descriptors SET row = zeroblob(7) WHERE id = 3")
    report = repair(place)
    assert report.damage == [
        f"1 of {report.rows + 1} entries of table descriptors are not right",
    ]
    done = sync(place, photos, recipe, describer)
    assert (done.described, done.unchanged) == (1, 0)
    assert contents(place) == contents(calm)


@pytest.mark.parametrize(
    "value",
    [b"", np.full(DIM, np.nan, "<f4").tobytes(), np.ones(DIM, "<f4").tobytes(), b"\xff" * 4 * DIM, "text", None],
    ids=["empty", "nan", "long", "ones", "text", "short"],
)
def test_a_row_that_cannot_be_right_is_left_out(place, value) -> None:
    execute(place, "UPDATE descriptors SET row = ? WHERE id = 5", b"\0" * 5 if value is None else value)
    report = repair(place)
    assert report.damage == ["1 of 298 entries of table descriptors are not right"]
    assert (report.pictures, report.rows) == (297, 297)


def test_a_row_is_known_by_its_checksum_where_nothing_else_tells(place) -> None:
    with open_index(place) as index:
        ((row,),) = index._store._database.read("SELECT row FROM descriptors WHERE id = 5")
    turned = np.frombuffer(row, "<f4").copy()
    turned[3] *= -1
    execute(place, "UPDATE descriptors SET row = ? WHERE id = 5", turned.tobytes())
    assert repair(place).damage == ["1 of 298 entries of table descriptors are not right"]


def test_a_fact_is_known_by_its_checksum_too(place) -> None:
    execute(place, "UPDATE meta SET value = replace(value, '512', '513') WHERE key = 'recipe'")
    assert repair(place, check=True).damage[:2] == [
        f"1 of {facts_in(place)} entries of table meta are not right",
        "what the index was made with is lost: recipe",
    ]


def test_an_index_of_before_checksums_is_sound_and_has_them_of_new_rows(place) -> None:
    execute(place, "DROP TABLE sums")
    execute(place, "DROP TABLE removed")
    assert not repair(place, check=True).damage
    rows = synthetic_rows(2, seed=5, dim=DIM)
    put(place, named(rows, "new "))
    assert not repair(place, check=True).damage
    turned = np.where(np.arange(DIM) == 3, -1, 1).astype(np.float32) * rows[0]
    execute(place, "UPDATE descriptors SET row = ? WHERE digest = ?", turned.tobytes(), digest_of(rows[0]))
    assert repair(place).rows == 299


def test_checksums_are_forgotten_with_their_rows(place) -> None:
    def count() -> tuple[int, int]:
        with closing(sqlite3.connect(database(place))) as db:
            noted = "SELECT count(*) FROM sums WHERE length(name) = 16"
            return tuple(db.execute(one).fetchone()[0] for one in (noted, "SELECT count(*) FROM descriptors"))

    assert count() == (298, 298)
    paths = [path for path, _, _ in contents(place)]
    with open_index(place) as index:
        index._store.drop(paths[:8])
        assert count() == (290, 290)
        index.remove([digest for _, digest, _ in held(index)[:5]])
    assert count() == (285, 285)


def test_a_picture_that_points_nowhere_is_left_to_the_next_sync(place) -> None:
    execute(place, "DELETE FROM descriptors WHERE id = 5")
    assert repair(place, check=True).damage == ["1 pictures have no row"]
    assert repair(place).pictures == 297


def test_without_its_recipe_an_index_is_mended_with_one_that_is_named(sound, place) -> None:
    spoil(place, root(place, "meta"))
    before = database(place).read_bytes()
    with pytest.raises(ForeignIndexError, match=r"recipe that it was made with is lost.*--recipe"):
        repair(place)
    assert database(place).read_bytes() == before
    report = repair(place, recipe=Recipe(whitening="none"))
    assert (report.pictures, report.rows) == (0, 0)
    with open_index(place) as index, open_index(sound) as original:
        assert index.recipe == original.recipe
        assert index.removed() == original.removed()
        assert index.folders == ["/photos"]


def test_a_whitening_that_is_lost_is_said_to_be(place) -> None:
    whitening = fit_pca(synthetic_rows(300, dim=DIM), dim=8)
    with open_index(place) as index:
        index._store.put_whitening(whitening, learned_here=False)
    assert not repair(place, check=True).damage
    execute(place, "UPDATE whitenings SET content = zeroblob(length(content))")
    report = repair(place)
    assert "1 of 1 entries of table whitenings are not right" in report.damage
    assert "coocnet index DIR --whitening FILE" in report.to_do[0]
    with open_index(place) as index:
        assert index.whitening() is None


@pytest.mark.parametrize("version", [-1, 0, 2**62])
def test_a_whitening_of_a_version_that_none_has_is_lost(place, version) -> None:
    with open_index(place) as index:
        index._store.put_whitening(fit_pca(synthetic_rows(300, dim=DIM), dim=8), learned_here=False)
    execute(place, f"UPDATE whitenings SET version = {version}")
    execute(place, "DELETE FROM meta WHERE key = 'whitening'")
    assert "1 of 1 entries of table whitenings are not right" in repair(place).damage
    assert not repair(place, check=True).damage
    with open_index(place) as index:
        assert index.whitening() is None


def test_an_earlier_whitening_is_carried_with_the_one_in_force(place) -> None:
    rows = synthetic_rows(300, dim=DIM)
    with open_index(place) as index:
        for dim in (8, 9):
            index._store.put_whitening(fit_pca(rows, dim=dim), learned_here=False)
    spoil(place, 0)
    assert not repair(place).to_do
    with open_index(place) as index:
        assert index.whitening().dim == 9
        assert index._store.whitening().version == 2


@pytest.mark.parametrize("pattern", ["gallery.npz", "gallery-*.npy", "neighbours.npz"])
def test_derived_files_that_are_damaged_are_dropped_and_made_anew(place, monkeypatch, pattern) -> None:
    monkeypatch.setattr(kept, "KEEP_FROM", 100)
    rows = synthetic_rows(300, dim=DIM)[2:9]
    with open_index(place) as index:
        index.prepare_reranking()
        expected = index.search(rows, k=9)
    before = database(place).read_bytes()
    assert not repair(place, check=True).damage
    (file,) = place.glob(pattern)
    with open(file, "rb+") as stream:
        stream.seek(file.stat().st_size - 2 * 4 * DIM)
        stream.write(b"\x7f\xff" * DIM)
    (told,) = repair(place, check=True).damage
    assert "kept" in told or "prepared" in told
    assert repair(place).is_mended
    assert not list(place.glob(pattern))
    assert database(place).read_bytes() == before
    assert not repair(place, check=True).damage
    with open_index(place) as index:
        assert index.search(rows, k=9) == expected


@pytest.mark.slow
def test_an_approximate_search_that_is_damaged_is_dropped_and_built_anew_by_the_next_sync(tmp_path) -> None:
    pytest.importorskip("faiss")
    place = tmp_path / "photos.cooc"
    put(place, named(synthetic_rows(1500)))
    with open_index(place) as index:
        index.build_ann()
    assert not repair(place, check=True).damage
    (file,) = place.glob("approximate-*.faiss")
    with open(file, "rb+") as stream:
        stream.seek(file.stat().st_size // 2)
        stream.write(b"torn")
    assert repair(place).damage == ["the file of the approximate search is not the one that was written"]
    assert not list(place.glob("approximate-*"))
    assert not repair(place, check=True).damage
    with open_index(place) as index:
        assert "a repair took it away" in index.info().out_of_force
        assert "approximate search of 1500 pictures built" in index._made_ready(None)
        assert not index.info().out_of_force


@pytest.mark.slow
def test_with_a_new_database_an_approximate_search_is_built_anew_too(tmp_path) -> None:
    pytest.importorskip("faiss")
    place = tmp_path / "photos.cooc"
    put(place, named(synthetic_rows(1500)))
    with open_index(place) as index:
        index.build_ann()
    spoil(place, root(place, "pictures"))
    assert repair(place).rows == 1500
    assert [file.name for file in place.glob("approximate*")] == ["approximate.npz"]
    with open_index(place) as index:
        assert "a repair took it away" in index.info().out_of_force


def test_what_is_in_the_log_is_saved_too(place) -> None:
    with open_index(place) as index:
        rows = synthetic_rows(3, seed=5, dim=DIM)
        put(place, named(rows, "new "))  # stays in the log, as another process has the index open
        assert (place / f"{DATABASE_NAME}-wal").stat().st_size
        spoil(place, root(place, "folders"))
        report = repair(place)
        del index
    assert report.rows == 301


@pytest.mark.parametrize("when", ["coocnet.index.repair._carried", "coocnet.index.copies.put_in_place"])
def test_an_interrupted_repair_leaves_the_index_as_it_was_and_is_run_again(place, monkeypatch, when) -> None:
    spoil(place, root(place, "pictures"))
    before = database(place).read_bytes()

    def interrupted(*_) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(when, interrupted)
        patched.setattr(shutil, "rmtree", lambda *_, **__: None)  # a kill takes nothing away
        with pytest.raises(KeyboardInterrupt):
            repair(place)
    assert database(place).read_bytes() == before
    assert repair(place).rows == 298
    assert not list(place.glob("*.repairing"))


def test_a_repair_that_ended_before_the_new_file_took_the_name_is_run_again(place, monkeypatch) -> None:
    spoil(place, root(place, "pictures"))

    def interrupted(*_) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            repair(place)
    report = repair(place)
    assert report.rows == 298
    assert [str(file) for file in place.glob("*damaged*")] == [report.kept_as]


def test_a_writer_is_not_disturbed(place) -> None:
    with FileLock(place / LOCK_NAME), pytest.raises(IndexBusyError, match="another process"):
        repair(place)
    assert not repair(place, check=True).damage


@pytest.mark.parametrize("page", [0, 1, 2, 4])
def test_what_opens_a_damaged_index_names_the_repair(place, page) -> None:
    spoil(place, page)
    with pytest.raises(IndexFileError, match=f"coocnet repair {place}"), open_index(place) as index:
        index.search(np.eye(1, DIM, dtype=np.float32), k=1)


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("UPDATE meta SET value = 'x' WHERE key = 'dim'", "its fact dim is 'x'"),
        ("UPDATE meta SET value = 'backbone = 7' WHERE key = 'recipe'", "its recipe cannot be read"),
        ("UPDATE meta SET value = x'ff' WHERE key = 'recipe'", "a value in it is of the type bytes|Could not decode"),
        ("DELETE FROM meta WHERE key = 'recipe'", "its recipe is lost"),
        ("UPDATE whitenings SET content = x'00'", "its whitening cannot be read"),
        ("UPDATE descriptors SET digest = x'00' WHERE id = 3", "a digest in it has 1 bytes"),
        ("UPDATE descriptors SET row = x'00' WHERE id = 3", "has 1 bytes instead of 800"),
        (f"UPDATE descriptors SET row = x'{'0000c07f' * DIM}' WHERE id = 3", "not finite"),
        ("DELETE FROM descriptors WHERE id = 3", "pictures without a row"),
    ],
)
def test_what_a_search_reads_and_cannot_be_right_is_told(place, monkeypatch, statement, says) -> None:
    with open_index(place) as index:
        index._store.put_whitening(fit_pca(synthetic_rows(300, dim=DIM), dim=8), learned_here=False)
    execute(place, statement)
    for keep_from in (10**6, 1):
        monkeypatch.setattr(kept, "KEEP_FROM", keep_from)
        with pytest.raises(ForeignIndexError, match=says) as told, open_index(place) as index:
            index.search(np.eye(1, DIM, dtype=np.float32), k=1)
        assert f"coocnet repair {place}" in str(told.value)


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("UPDATE descriptors SET row = zeroblob(800) WHERE id = 5", "rows are not as they were stored: 1"),
        ("UPDATE meta SET value = '9' WHERE key = 'generation'", "has changed: 'generation'"),
        ("DROP INDEX pictures_by_descriptor", "no index pictures_by_descriptor"),
    ],
)
def test_a_sync_tells_damage_that_it_would_not_meet(place, tmp_path, statement, says) -> None:
    execute(place, statement)
    (tmp_path / "photos").mkdir()
    before = database(place).read_bytes()
    with open_index(place) as index, pytest.raises(ForeignIndexError, match=f"{says}.*coocnet repair"):
        index.sync(tmp_path / "photos", describer=Unused, allow_empty=True)
    assert database(place).read_bytes() == before


def test_a_sync_of_an_index_too_large_to_be_looked_over_goes_on(place, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("coocnet.index.store._LOOKED_OVER_BYTES", database(place).stat().st_size - 1)
    execute(place, "UPDATE meta SET value = '9' WHERE key = 'generation'")
    (tmp_path / "photos").mkdir()
    with open_index(place) as index:
        index.sync(tmp_path / "photos", describer=Unused, allow_empty=True)


def test_other_things_are_refused(place, tmp_path) -> None:
    with pytest.raises(IndexMissingError, match="no index at"):
        repair(tmp_path / "nowhere")
    with pytest.raises(InputError, match="Milvus looks after its own files"):
        repair("milvus://localhost:19530/photos")
    with pytest.raises(InputError, match="s3://"):
        repair("s3://bucket/photos.cooc")
    database(place).write_text("a text, long enough to be more than a head of a page " * 100)
    with pytest.raises(ForeignIndexError, match=r"nothing can be (read|recognised)"):
        repair(place)
    database(place).unlink()
    with closing(sqlite3.connect(database(place))) as db, db:
        db.execute("CREATE TABLE recipes (name TEXT)")
    with pytest.raises(ForeignIndexError, match="not a coocnet index"):
        repair(place)


def test_an_index_whose_mark_is_lost_is_told_from_another_database(place) -> None:
    execute(place, "PRAGMA application_id = 7")
    with pytest.raises(ForeignIndexError, match=f"not marked as an index.*coocnet repair {place}"):
        open_index(place)
    assert repair(place).damage == [f"{DATABASE_NAME}: it is not marked as an index"]
    assert repair(place).rows == 0
    with open_index(place) as index:
        assert index.contents == 298


def test_a_newer_index_is_left_to_its_coocnet(place) -> None:
    execute(place, "PRAGMA user_version = 99")
    with pytest.raises(NewerIndexError, match="format 99"):
        repair(place)


@pytest.mark.slow
def test_random_bytes_anywhere_end_in_a_sound_index_or_in_a_typed_error(sound, tmp_path) -> None:
    chance, before = random.Random(3), contents(sound)
    for number in range(12):
        place = Path(shutil.copytree(sound, tmp_path / str(number)))
        for _ in range(number):
            spoil(place, chance.randrange(database(sound).stat().st_size // PAGE), chance.randbytes(40), at=1000)
        with suppress(ForeignIndexError):
            repair(place)
            assert not repair(place, check=True).damage
            with open_index(place) as index:
                assert set(held(index)) <= set(before)


@pytest.fixture
def told(run) -> Callable[..., tuple[int, str, str]]:
    def tell(*arguments: object) -> tuple[int, str, str]:
        done = run("repair", *arguments)
        return done.returncode, done.stdout, done.stderr

    return tell


def test_the_command_says_what_it_found_and_did(place, told) -> None:
    assert told(place, "--check") == (0, f"{place} is sound.\n", "")
    spoil(place, root(place, "pictures"))
    status, said, damage = told(place, "--check")
    assert (status, said) == (1, f"{place} is damaged. Save what can be read: coocnet repair {place}\n")
    assert damage.startswith(f"{DATABASE_NAME}: ")
    status, said, _ = told(place)
    assert status == 0
    assert said.startswith(f"{place} is mended: 0 pictures and 298 rows were carried into a new database.")
    assert f"coocnet index DIR --index {place}" in said
    assert told(place) == (0, f"{place} is sound.\n", "")


def test_the_command_speaks_json_and_takes_a_recipe(place, told) -> None:
    spoil(place, root(place, "meta"))
    status, said, _ = told(place, "--check", "--json")
    assert status == 1
    assert json.loads(said)["damage"]
    assert told(place)[0] == 1
    status, said, _ = told(place, "--recipe", "mini", "--json")
    assert status == 0
    assert json.loads(said)["is_mended"] is True
