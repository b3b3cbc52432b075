"""The index keeps up with a folder, loses nothing, and finds."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from coocnet.describe import Describer
from coocnet.errors import (
    ForeignIndexError,
    IndexBusyError,
    IndexFileError,
    IndexMissingError,
    IndexStorageError,
    InputError,
    NewerIndexError,
    RecipeMismatchError,
    WeightsMissingError,
)
from coocnet.index import open_index
from coocnet.index.database import DATABASE_NAME, LOCK_NAME
from coocnet.index.store import Store
from coocnet.recipe import Recipe
from indexing import Unused, contents, counts, sync

# Keeping up


def test_a_second_sync_has_nothing_to_do_and_loads_no_network(place, photos, recipe, describer) -> None:
    assert counts(sync(place, photos, recipe, describer)) == {"added": 18}
    with open_index(place) as index:
        assert counts(index.sync(photos, describer=Unused)) == {"unchanged": 18}


def test_rows_are_those_of_the_describer(place, photos, recipe, describer) -> None:
    sync(place, photos, recipe, describer)
    stored = contents(place)
    paths = [path for path, _, _ in stored]
    assert paths == sorted(str(path) for path in photos.iterdir())
    rows = np.frombuffer(b"".join(row for _, _, row in stored), "<f4").reshape(len(paths), -1)
    np.testing.assert_allclose(rows, describer.describe(paths), atol=1e-6)


def test_new_changed_and_deleted_pictures_are_followed(place, photos, recipe, describer) -> None:
    sync(place, photos, recipe, describer)
    first, second, third = sorted(photos.iterdir())[:3]
    first.unlink()
    Image.new("RGB", (90, 70), "teal").save(second)
    shutil.copy(third, photos / "new.png")
    Image.new("RGB", (70, 90), "navy").save(photos / "newer.jpg")
    assert counts(sync(place, photos, recipe, describer)) == {
        "added": 1, "updated": 1, "recognised": 1, "unchanged": 16, "dropped": 1,
    }  # fmt: skip
    stored = contents(place)
    fresh = place.with_name("fresh.cooc")
    sync(fresh, photos, recipe, describer)
    assert contents(fresh) == stored


def test_renamed_and_copied_pictures_are_not_described_again(place, photos, recipe, describer) -> None:
    sync(place, photos, recipe, describer)
    before = {digest for _, digest, _ in contents(place)}
    for path in list(photos.iterdir()):
        path.rename(photos / f"renamed_{path.name}")
    shutil.copytree(photos, photos / "copies")
    report = sync(place, photos, recipe, describer)
    assert counts(report) == {"recognised": 36, "dropped": 18}
    assert report.described == 0
    assert {digest for _, digest, _ in contents(place)} == before


def test_copies_that_arrive_together_are_described_once(place, photos, recipe, describer) -> None:
    shutil.copytree(photos, photos / "copies")
    report = sync(place, photos, recipe, describer)
    assert report.described == 18
    assert counts(report) == {"added": 18, "recognised": 18}


def test_the_mean_row_counts_each_different_picture_once(place, photos, recipe, describer) -> None:
    some = sorted(photos.iterdir())
    for number in range(5):
        shutil.copy(some[0], photos / f"copy{number}.jpg")
    sync(place, photos, recipe, describer)
    with open_index(place) as index:
        rows = np.stack([index.row_of_file(path) for path in some]).astype(np.float64)
        np.testing.assert_allclose(index.mean_row(), rows.mean(0), atol=1e-12)


def test_a_handful_of_pictures_has_no_mean_row(place, photos, recipe, describer, tmp_path) -> None:
    with open_index(place, recipe) as index:
        assert index.mean_row() is None
    for path in sorted(photos.iterdir())[9:]:
        path.unlink()
    sync(place, photos, recipe, describer)
    with open_index(place) as index:
        assert index.mean_row() is None


def test_rows_no_picture_points_to_are_removed(place, photos, recipe, describer) -> None:
    sync(place, photos, recipe, describer)
    for path in list(photos.iterdir())[5:]:
        path.unlink()
    sync(place, photos, recipe, describer)
    with open_index(place) as index:
        assert (index.info().pictures, index.info().contents) == (5, 5)


def test_content_changed_behind_an_old_stamp_is_seen_when_asked(place, photos, recipe, describer) -> None:
    path = photos / "bmp.bmp"
    Image.new("RGB", (40, 30), "red").save(path)
    sync(place, photos, recipe, describer)
    stamp = path.stat()
    Image.new("RGB", (40, 30), "blue").save(path)
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert counts(sync(place, photos, recipe, describer)) == {"unchanged": 19}
    assert sync(place, photos, recipe, describer, verify_content=True).described == 1


def test_folders_in_one_index_leave_each_other_alone(place, photos, recipe, describer) -> None:
    one, two = photos / "one", photos / "two"
    for number, path in enumerate(sorted(photos.iterdir())):
        target = (one, two)[number % 2]
        target.mkdir(exist_ok=True)
        path.rename(target / path.name)
    sync(place, one, recipe, describer)
    assert counts(sync(place, two, recipe, describer)) == {"added": 9}
    with open_index(place) as index:
        assert index.info().pictures == 18


def test_bad_files_are_skipped_named_and_kept_in_the_report(place, photos, recipe, describer) -> None:
    (photos / "empty.jpg").touch()
    (photos / "text.png").write_text("hello")
    (photos / "folder.jpg").mkdir()
    os.mkfifo(photos / "pipe.jpg")
    whole = sorted(photos.glob("instance*.jpg"))[0].read_bytes()
    (photos / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    report = sync(place, photos, recipe, describer)
    assert {Path(e.path).name: e.reason for e in report.skipped} == {
        "empty.jpg": "empty file",
        "text.png": "not a picture",
        "folder.jpg": "a folder",
        "pipe.jpg": "not a regular file",
        "cut.jpg": "truncated",
    }
    assert report.added == 18
    with open_index(place) as index:
        assert len(index.info().skipped) == 5
    for name in ("empty.jpg", "text.png", "pipe.jpg", "cut.jpg"):
        (photos / name).unlink()
    sync(place, photos, recipe, describer)
    with open_index(place) as index:
        assert [Path(path).name for path in index.info().skipped] == ["folder.jpg"]


def test_a_picture_that_became_unusable_leaves_the_index_and_comes_back(place, photos, recipe, describer) -> None:
    sync(place, photos, recipe, describer)
    path = sorted(photos.iterdir())[0]
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    assert counts(sync(place, photos, recipe, describer)) == {"unchanged": 17, "dropped": 1, "skipped": 1}
    path.write_bytes(whole)
    assert counts(sync(place, photos, recipe, describer)) == {"unchanged": 17, "added": 1}


def test_a_folder_found_empty_drops_nothing_unless_allowed(place, photos, recipe, describer) -> None:
    sync(place, photos, recipe, describer)
    shutil.rmtree(photos)
    with pytest.raises(InputError, match="does not exist"):
        sync(place, photos, recipe, describer)
    photos.mkdir()
    with pytest.raises(InputError, match="not mounted"):
        sync(place, photos, recipe, describer)
    assert len(contents(place)) == 18
    assert counts(sync(place, photos, recipe, describer, allow_empty=True)) == {"dropped": 18}


def test_a_folder_that_is_gone_can_be_dropped(place, photos, recipe, describer) -> None:
    sync(place, photos, recipe, describer)
    moved = photos.rename(photos.with_name("moved"))
    assert sync(place, moved, recipe, describer).described == 0
    with open_index(place) as index:
        assert [(f.path, f.pictures) for f in index.info().folders] == [(str(moved), 18), (str(photos), 18)]
        with pytest.raises(InputError, match=r"18 pictures from there.*--allow-empty"):
            index.sync(photos)
        assert counts(index.sync(photos, allow_empty=True)) == {"dropped": 18}
        assert [(f.path, f.pictures) for f in index.info().folders] == [(str(moved), 18)]
        with pytest.raises(InputError, match="does not exist"):
            index.sync(photos, allow_empty=True)


def test_a_folder_that_became_a_link_goes_by_its_new_name(place, photos, recipe, describer) -> None:
    sync(place, photos, recipe, describer)
    moved = photos.rename(photos.with_name("moved"))
    photos.symlink_to(moved)
    assert counts(sync(place, photos, recipe, describer)) == {"recognised": 18, "dropped": 18}
    assert {Path(path).parent for path, _, _ in contents(place)} == {moved}
    with open_index(place) as index:
        assert [folder.path for folder in index.info().folders] == [str(moved)]


def test_a_folder_that_became_a_file_can_be_dropped_and_one_out_of_reach_cannot(
    place, photos, recipe, describer, monkeypatch
) -> None:
    sync(place, photos, recipe, describer)
    stat = os.stat

    def denied(path, *arguments, **options):
        if path == str(photos):
            raise PermissionError(13, "Permission denied", path)
        return stat(path, *arguments, **options)

    with monkeypatch.context() as patched, open_index(place) as index:
        patched.setattr(os, "stat", denied)
        with pytest.raises(InputError, match="permission denied"):
            index.sync(photos, allow_empty=True)
    shutil.rmtree(photos)
    photos.write_text("a file now")
    with open_index(place) as index:
        assert counts(index.sync(photos, allow_empty=True)) == {"dropped": 18}


@pytest.mark.parametrize("wrong", [3, None, b"x", "a\0b"], ids=repr)
def test_what_is_no_path_is_refused(place, recipe, wrong) -> None:
    with pytest.raises(InputError, match="got "):
        open_index(wrong, recipe)
    with open_index(place, recipe) as index, pytest.raises(InputError, match="got "):
        index.sync(wrong)


def test_what_is_no_describer_is_refused(place, photos, recipe) -> None:
    with open_index(place, recipe) as index, pytest.raises(InputError, match=r"a describer is a Describer.*got 3"):
        index.sync(photos, describer=3)


def test_an_index_belongs_to_the_thread_that_opened_it(place, recipe) -> None:
    with open_index(place, recipe) as index, ThreadPoolExecutor(1) as pool:
        elsewhere = pool.submit(index.info)
        assert isinstance(elsewhere.exception(), IndexFileError)
        assert "once in every thread" in str(elsewhere.exception())


def test_a_folder_reached_through_a_link_is_the_same_folder(place, photos, recipe, describer, tmp_path) -> None:
    sync(place, photos, recipe, describer)
    (tmp_path / "link").symlink_to(photos)
    assert counts(sync(place, tmp_path / "link", recipe, describer)) == {"unchanged": 18}


def test_a_link_whose_target_is_gone_leaves_the_index_but_not_if_its_disk_may_be_missing(
    place, photos, recipe, describer, tmp_path
) -> None:
    disk = tmp_path / "disk" / "below"
    disk.mkdir(parents=True)
    one, two = sorted(photos.iterdir())[:2]
    for path in (one, two):
        path.rename(disk / path.name)
        path.symlink_to(disk / path.name)
    sync(place, photos, recipe, describer)
    (disk / one.name).unlink()
    assert counts(sync(place, photos, recipe, describer)) == {"unchanged": 17, "dropped": 1, "skipped": 1}
    disk.rename(tmp_path / "unmounted")
    assert counts(sync(place, photos, recipe, describer)) == {"unchanged": 16, "skipped": 2}
    assert len(contents(place)) == 17


def test_what_is_not_looked_at_is_counted(place, photos, recipe, describer, tmp_path) -> None:
    (photos / "film.mov").touch()
    (photos / "notes.txt").touch()
    (photos / "elsewhere").symlink_to(tmp_path)
    report = sync(place, photos, recipe, describer)
    assert (report.others, report.linked_folders) == (2, 1)


def test_pictures_below_a_folder_that_cannot_be_listed_are_kept(
    place, photos, recipe, describer, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = photos / "inner"
    inner.mkdir()
    for path in sorted(photos.glob("*.jpg"))[:4]:
        path.rename(inner / path.name)
    sync(place, photos, recipe, describer)
    scandir = os.scandir

    def failing(path):
        if os.fspath(path) == str(inner):
            raise PermissionError(13, "Permission denied", str(inner))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", failing)
    report = sync(place, photos, recipe, describer)
    assert counts(report) == {"unchanged": 14, "skipped": 1}
    assert len(contents(place)) == 18


def test_names_that_are_not_text_are_indexed(place, photos, recipe, describer) -> None:
    odd = os.fsencode(photos) + b"/caf\xe9.jpg"
    shutil.copy(sorted(photos.iterdir())[0], odd)
    assert counts(sync(place, photos, recipe, describer)) == {"added": 18, "recognised": 1}
    assert os.fsdecode(odd) in [path for path, _, _ in contents(place)]


def test_progress_counts_every_file_that_needs_a_look(place, photos, recipe, describer) -> None:
    told = []
    sync(place, photos, recipe, describer, progress=lambda state: told.append((state.done, state.total)))
    assert told == [(done, 18) for done in range(1, 19)]


def test_what_was_described_before_an_interruption_is_kept(place, photos, recipe, describer) -> None:
    def interrupt(state) -> None:
        if state.done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sync(place, photos, recipe, describer, progress=interrupt)
    assert counts(sync(place, photos, recipe, describer)) == {"added": 11, "unchanged": 7}


# Searching


def test_search_agrees_with_sorting_every_similarity(place, photos, recipe, describer, scenes) -> None:
    sync(place, photos, recipe, describer)
    paths = [path for path, _, _ in contents(place)]
    rows = describer.describe(paths)
    queries = describer.describe([scenes[0] / view.path for view in scenes[1] if view.role == "query"])
    with open_index(place) as index:
        found = index.search(queries, k=7)
    for query, hits in zip(queries, found, strict=True):
        order = np.argsort(-(rows @ query), kind="stable")[:7]
        assert [hit.path for hit in hits] == [paths[i] for i in order]
        assert [hit.rank for hit in hits] == list(range(1, 8))
        np.testing.assert_allclose([hit.similarity for hit in hits], (rows @ query)[order], atol=1e-5)


def test_a_picture_finds_itself_first_and_copies_in_order_of_path(place, photos, recipe, describer) -> None:
    path = sorted(photos.iterdir())[3]
    for name in ("b.jpg", "a.jpg", "c.jpg"):
        shutil.copy(path, photos / name)
    sync(place, photos, recipe, describer)
    with open_index(place) as index:
        row = index.row_of_file(path)
        hits = index.search(row[None], k=2)[0]
    assert [Path(hit.path).name for hit in hits] == ["a.jpg", "b.jpg"]
    assert hits[0].similarity == pytest.approx(1, abs=1e-5)


def test_a_threshold_leaves_out_what_is_less_similar(place, photos, recipe, describer) -> None:
    sync(place, photos, recipe, describer)
    with open_index(place) as index:
        row = index.row_of_file(sorted(photos.iterdir())[0])[None]
        every = index.search(row, k=18)[0]
        cut = every[4].similarity
        assert index.search(row, k=18, threshold=cut)[0] == every[:5]
        assert index.search(row, k=18, threshold=1.5) == [[]]


def test_searching_more_than_there_is_gives_all_and_an_empty_index_nothing(
    place, photos, recipe, describer, tmp_path
) -> None:
    sync(place, photos, recipe, describer)
    with open_index(place) as index, open_index(tmp_path / "empty.cooc", recipe) as empty:
        row = index.row_of_file(sorted(photos.iterdir())[0])[None]
        assert len(index.search(row, k=1000)[0]) == 18
        assert empty.search(row, k=5) == [[]]
        with pytest.raises(InputError, match="at least 1, got 0"):
            index.search(row, k=0)
        with pytest.raises(InputError, match="512 dimensions in this index, got 3"):
            index.search(np.ones((1, 3), np.float32), k=1)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"k": 2.5}, "got 2.5"),
        ({"k": True}, "got True"),
        ({"threshold": float("nan")}, "got nan"),
        ({"rows": np.zeros(512, np.float32)}, r"shape \(512,\)"),
        ({"rows": np.zeros((1, 512), np.int64)}, "int64"),
        ({"rows": np.full((1, 512), np.nan, np.float32)}, "lengths from nan"),
        ({"rows": np.ones((2, 512), np.float32)}, "lengths from 22.6274"),
    ],
    ids=str,
)
def test_what_cannot_be_searched_for_is_refused(place, photos, recipe, describer, wrong, says) -> None:
    sync(place, photos, recipe, describer)
    with open_index(place) as index, pytest.raises(InputError, match=says):
        index.search(**{"rows": np.zeros((1, 512), np.float32), "k": 1, **wrong})


def test_a_sync_that_changes_nothing_spares_an_open_index_reading_all_rows_again(
    place, photos, recipe, describer, monkeypatch
) -> None:
    sync(place, photos, recipe, describer)
    with open_index(place) as reader:
        row = reader.row_of_file(sorted(photos.iterdir())[0])[None]
        reader.search(row, k=1)
        sync(place, photos, recipe, describer)
        monkeypatch.setattr(Store, "matrix", lambda _: pytest.fail("read again"))
        assert reader.search(row, k=1)[0]


def test_no_queries_have_no_answers(place, photos, recipe, describer) -> None:
    sync(place, photos, recipe, describer)
    with open_index(place) as index:
        assert index.search(np.zeros((0, 512), np.float32), k=1) == []


def test_a_closed_index_says_that_it_is_closed(place, recipe) -> None:
    index = open_index(place, recipe)
    index.close()
    index.close()
    with pytest.raises(IndexStorageError, match="was closed"):
        index.info()


def test_an_open_index_sees_what_another_connection_stored(place, photos, recipe, describer) -> None:
    sync(place, photos, recipe, describer)
    with open_index(place) as reader:
        row = reader.row_of_file(sorted(photos.iterdir())[0])[None]
        assert len(reader.search(row, k=100)[0]) == 18
        shutil.copy(sorted(photos.iterdir())[0], photos / "later.jpg")
        sync(place, photos, recipe, describer)
        assert len(reader.search(row, k=100)[0]) == 19


# What is refused


def test_another_recipe_is_refused_with_the_fields_that_differ(place, photos, recipe, describer) -> None:
    sync(place, photos, recipe, describer)
    other = recipe.replace(pooling="gem", size_px=200)
    with pytest.raises(RecipeMismatchError, match=r"size_px 128 there, 200 here; pooling 'context' there"):
        open_index(place, other)
    with open_index(place) as index, pytest.raises(RecipeMismatchError, match="size_px"):
        index.sync(photos, describer=Describer(other), verify_content=True)
    assert len(contents(place)) == 18


def test_other_weights_are_refused(place, photos, recipe, describer, random_weights, tmp_path) -> None:
    sync(place, photos, recipe, describer)
    altered = bytearray(random_weights.read_bytes())
    altered[-1] ^= 1
    other_weights = tmp_path / "other.safetensors"
    other_weights.write_bytes(altered)
    (photos / "new.png").write_bytes(sorted(photos.iterdir())[0].read_bytes() + b"\0")
    with pytest.raises(RecipeMismatchError, match="SHA-256"):
        sync(place, photos, recipe, Describer(recipe.replace(weights=str(other_weights))))


def test_a_recipe_that_differs_only_above_the_rows_is_used_and_stored_by_a_sync(
    place, photos, recipe, describer
) -> None:
    sync(place, photos, recipe, describer)
    changed = recipe.replace(dim=7, whitening="pca")
    with open_index(place, changed) as index:
        assert index.recipe == changed
    with open_index(place) as index:
        assert index.recipe == recipe
    with open_index(place, changed) as index:
        index.sync(photos, describer=Unused)
    with open_index(place) as index:
        assert index.recipe == changed


def test_an_index_in_which_nothing_was_described_takes_any_recipe(place, photos, recipe, describer) -> None:
    with open_index(place, Recipe.preset("resnet101v2")) as index, pytest.raises(WeightsMissingError):
        index.sync(photos)
    assert counts(sync(place, photos, recipe, describer)) == {"added": 18}


def test_opening_with_another_recipe_leaves_a_first_sync_in_progress_alone(place, photos, recipe, describer) -> None:
    other = recipe.replace(size_px=64)

    def intrude(state) -> None:
        if state.done == 1:
            open_index(place).close()
            with pytest.raises(RecipeMismatchError, match="size_px"):
                open_index(place, other)

    with open_index(place, other) as too_early:
        sync(place, photos, recipe, describer, progress=intrude)
        with pytest.raises(RecipeMismatchError, match="size_px"):
            too_early.search(np.eye(1, describer.dim, dtype=np.float32), k=1)
        with pytest.raises(RecipeMismatchError, match="size_px"):
            too_early.sync(photos)
    with open_index(place) as index:
        assert index.recipe == recipe


def test_a_describer_of_another_recipe_is_refused_in_a_new_index(place, photos, recipe, describer) -> None:
    with open_index(place, recipe.replace(size_px=64)) as index, pytest.raises(RecipeMismatchError, match="size_px"):
        index.sync(photos, describer=describer)


def test_the_same_weights_may_move_and_others_are_not_taken_over(place, photos, recipe, describer, tmp_path) -> None:
    sync(place, photos, recipe, describer)
    moved = tmp_path / "moved.safetensors"
    shutil.move(shutil.copy(recipe.weights, tmp_path / "copy"), moved)
    with open_index(place, recipe.replace(weights=str(moved))) as index:
        assert counts(index.sync(photos, describer=Unused)) == {"unchanged": 18}
    with open_index(place) as index:
        assert index.recipe.weights == str(moved)
    content = bytearray(moved.read_bytes())
    content[-1] ^= 1
    other = tmp_path / "other.safetensors"
    other.write_bytes(content)
    with open_index(place, recipe.replace(weights=str(other))) as index:
        with pytest.raises(RecipeMismatchError, match="SHA-256"):
            index.describer()
        with pytest.raises(RecipeMismatchError, match="SHA-256"):
            index.sync(photos, describer=Unused)
    with open_index(place) as index:
        assert index.recipe.weights == str(moved)


def test_weights_that_are_not_here_are_not_taken_over_before_they_are_needed(
    place, photos, recipe, describer
) -> None:
    by_file = describer.recipe.weights
    sync(place, photos, recipe, describer)
    with open_index(place, recipe.replace(weights="")) as index:
        index.sync(photos, describer=Unused)
    with open_index(place) as index:
        assert index.recipe.weights == by_file


@pytest.mark.parametrize("left_by_a_kill", ["", "header"])
def test_a_database_without_tables_is_no_index_yet(place, photos, recipe, describer, left_by_a_kill) -> None:
    place.mkdir()
    connection = sqlite3.connect(place / DATABASE_NAME)
    if left_by_a_kill:
        connection.execute("PRAGMA journal_mode = WAL")
    connection.close()
    (place / DATABASE_NAME).touch()
    with pytest.raises(IndexMissingError, match="there is no index"):
        open_index(place)
    assert counts(sync(place, photos, recipe, describer)) == {"added": 18}


def test_a_disk_that_is_full_while_an_index_is_made_leaves_no_index(place, recipe, monkeypatch) -> None:
    connect = sqlite3.connect

    def on_a_small_disk(*arguments, **options):
        connection = connect(*arguments, **options)
        connection.execute("PRAGMA max_page_count = 2")
        return connection

    with monkeypatch.context() as patched:
        patched.setattr(sqlite3, "connect", on_a_small_disk)
        with pytest.raises(IndexStorageError, match="full"):
            open_index(place, recipe)
    with pytest.raises(IndexMissingError):
        open_index(place)
    open_index(place, recipe).close()


def test_an_index_that_is_moved_away_during_a_sync_is_not_reported_as_written(
    place, photos, recipe, describer
) -> None:
    sync(place, photos, recipe, describer)
    Image.new("RGB", (90, 70), "teal").save(photos / "new.png")
    with (
        open_index(place) as index,
        pytest.raises(IndexStorageError, match="moved or deleted"),
    ):
        index.sync(photos, describer=describer, progress=lambda _: place.rename(place.with_name("moved.cooc")))


def test_what_is_no_recipe_is_refused(place) -> None:
    with pytest.raises(InputError, match=r"Recipe.load\('mobile'\)"):
        open_index(place, "mobile")


def test_no_index_and_foreign_places_are_refused_and_left_alone(tmp_path, recipe) -> None:
    with pytest.raises(IndexMissingError, match="make one with"):
        open_index(tmp_path / "none.cooc")
    assert not (tmp_path / "none.cooc").exists()
    (tmp_path / "file").write_text("x")
    with pytest.raises(ForeignIndexError, match="is a file"):
        open_index(tmp_path / "file", recipe)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "diary.txt").write_text("x")
    with pytest.raises(ForeignIndexError, match="holds other things"):
        open_index(tmp_path / "mine", recipe)
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["diary.txt"]
    with pytest.raises(InputError, match="redis://host/photos"):
        open_index("redis://host/photos", recipe)


def _other_database(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE recipes (soup TEXT)")
    connection.close()


def _newer(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()


@pytest.mark.parametrize("with_recipe", [True, False])
@pytest.mark.parametrize(
    ("spoil", "error", "says"),
    [
        (lambda path: path.write_bytes(b"hello, I am a letter" * 100), ForeignIndexError, "not a database"),
        (_newer, NewerIndexError, "format 99"),
        (lambda path: (path.unlink(), _other_database(path)), ForeignIndexError, "not a coocnet index"),
    ],
    ids=["text", "newer", "other database"],
)
def test_a_file_that_is_not_our_index_is_refused_unchanged(
    place, photos, recipe, describer, spoil, error, says, with_recipe
) -> None:
    sync(place, photos, recipe, describer)
    path = place / DATABASE_NAME
    spoil(path)
    before = path.read_bytes()
    with pytest.raises(error, match=says):
        open_index(place, recipe if with_recipe else None)
    assert path.read_bytes() == before


def test_a_damaged_database_is_said_to_be_damaged(place, photos, recipe, describer) -> None:
    sync(place, photos, recipe, describer)
    path = place / DATABASE_NAME
    content = bytearray(path.read_bytes())
    content[4096 : len(content)] = b"\xff" * (len(content) - 4096)
    path.write_bytes(content)
    with pytest.raises(ForeignIndexError, match="damaged"), open_index(place) as index:
        index.search(np.eye(1, describer.dim, dtype=np.float32), k=1)


def test_a_second_sync_at_the_same_time_is_refused_and_search_goes_on(place, photos, recipe, describer) -> None:
    sync(place, photos, recipe, describer)
    with FileLock(place / LOCK_NAME), open_index(place) as index:
        with pytest.raises(IndexBusyError, match="another process"):
            index.sync(photos, describer=describer)
        assert index.search(index.row_of_file(sorted(photos.iterdir())[0])[None], k=1)[0]


def test_what_sqlite_took_back_by_itself_does_not_hide_why(place, recipe) -> None:
    def fails(index) -> None:
        with index._store._database._transaction("BEGIN") as db:
            db.execute("ROLLBACK")  # as SQLite does where it gets no memory
            raise MemoryError

    with open_index(place, recipe) as index, pytest.raises(MemoryError):
        fails(index)


@pytest.mark.slow
def test_a_full_disk_is_reported_and_the_index_stays_usable(place, photos, recipe, describer) -> None:
    for path in sorted(photos.iterdir())[9:]:
        path.rename(photos.parent / path.name)
    sync(place, photos, recipe, describer)
    before = contents(place)
    for path in photos.parent.glob("*.jpg"):
        path.rename(photos / path.name)
    with open_index(place) as index:
        # SQLite answers a database at its page limit exactly as one on a full disk: SQLITE_FULL.
        pages = index._store._database.read("PRAGMA page_count")[0][0]
        index._store._database.read(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(IndexStorageError, match=r"full.*intact"):
            index.sync(photos, describer=describer)
        assert len(index.search(describer.describe([before[0][0]]), k=99)[0]) == 9
    assert contents(place) == before
    assert counts(sync(place, photos, recipe, describer)) == {"added": 9, "unchanged": 9}


FROZEN = """
import os, sys, numpy as np
from coocnet.index import open_index
if os.getuid() == 0:
    os.setgid(65534); os.setuid(65534)
index = open_index(sys.argv[1])
rows = np.eye(1, index.info().dim, dtype=np.float32)
for line in sys.stdin:
    print(len(index.search(rows, k=99)[0]), flush=True)
"""


@pytest.mark.slow
def test_a_reader_that_may_not_write_sees_what_others_stored(place, photos, recipe, describer, tmp_path) -> None:
    sync(place, photos, recipe, describer)
    for folder in (tmp_path, *tmp_path.parents):
        if os.stat(folder).st_uid == os.getuid() and str(folder).startswith("/tmp/"):
            folder.chmod(0o755)
    for file in place.iterdir():
        file.chmod(0o644)
    place.chmod(0o755 if os.getuid() == 0 else 0o555)
    reader = subprocess.Popen(
        [sys.executable, "-c", FROZEN, str(place)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with reader:
        reader.stdin.write("\n")
        reader.stdin.flush()
        assert reader.stdout.readline() == "18\n"
        place.chmod(0o755)
        for path in sorted(photos.iterdir())[:5]:
            path.unlink()
        sync(place, photos, recipe, describer)
        reader.stdin.write("\n")
        reader.stdin.close()
        assert reader.stdout.readline() == "13\n"


READ_ONLY = """
import os, sys
import coocnet.describe
from coocnet.index import open_index
from coocnet.errors import IndexStorageError
import numpy as np
if os.getuid() == 0:
    os.setgid(65534); os.setuid(65534)
with open_index(sys.argv[1]) as index:
    assert len(index.search(np.eye(1, index.info().dim, dtype=np.float32), k=99)[0]) == 18
    try:
        index.sync(sys.argv[2])
    except IndexStorageError as error:
        print("refused:", error)
"""


@pytest.mark.slow
def test_a_read_only_index_is_searched_and_its_sync_refused(place, photos, recipe, describer, tmp_path) -> None:
    sync(place, photos, recipe, describer)
    (place / LOCK_NAME).unlink(missing_ok=True)
    for folder in (tmp_path, *tmp_path.parents):
        if os.stat(folder).st_uid == os.getuid() and str(folder).startswith("/tmp/"):
            folder.chmod(0o755)
    for file in place.iterdir():
        file.chmod(0o444)
    place.chmod(0o555)
    try:
        done = subprocess.run(
            [sys.executable, "-c", READ_ONLY, str(place), str(photos)], capture_output=True, text=True
        )
    finally:
        place.chmod(0o755)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("refused:")


@pytest.mark.slow
def test_two_processes_that_make_one_index_at_once_agree(place, photos, recipe) -> None:
    code = (
        "import sys; from coocnet.index import open_index; from coocnet.recipe import Recipe\n"
        "from coocnet.errors import IndexBusyError\n"
        "with open_index(sys.argv[1], Recipe.from_toml(sys.argv[3])) as index:\n"
        "    try: print(index.sync(sys.argv[2]).added)\n"
        "    except IndexBusyError: print('busy')\n"
    )
    command = [sys.executable, "-c", code, str(place), str(photos), recipe.to_toml()]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    answers = [process.communicate() for process in running]
    assert all(process.returncode == 0 for process in running), answers
    assert "18" in [out.strip() for out, _ in answers]
    assert len(contents(place)) == 18
