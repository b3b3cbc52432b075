"""What every index does, wherever it is: the same as one in a folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import coocnet
from coocnet.describe import Describer
from coocnet.errors import (
    ImageError,
    IndexBusyError,
    IndexMissingError,
    IndexStorageError,
    InputError,
    RecipeMismatchError,
)
from coocnet.index import Hit, Index, open_index
from coocnet.recipe import Recipe
from indexing import Unused, counts, described, digest_of, held, named, synthetic_rows


@pytest.fixture
def beside(tmp_path: Path, recipe: Recipe) -> Iterator[Index]:
    """An index in a folder, to compare with."""
    with open_index(tmp_path / "beside.cooc", recipe) as index:
        yield index


def agree(ours: list[list[Hit]], theirs: list[list[Hit]]) -> None:
    for one, other in zip(ours, theirs, strict=True):
        assert [hit.rank for hit in one] == list(range(1, len(one) + 1))
        assert [(hit.path, hit.digest) for hit in one] == [(hit.path, hit.digest) for hit in other]
        np.testing.assert_allclose([hit.similarity for hit in one], [hit.similarity for hit in other], atol=2e-6)


@pytest.fixture
def both(where, beside, photos, recipe, describer) -> Iterator[tuple[Index, Index]]:
    """The index and one in a folder, of the same pictures."""
    copied = sorted(photos.iterdir())[4]
    for number in range(3):
        shutil.copy(copied, photos / f"copy{number}.jpg")
    with open_index(where, recipe) as index:
        for one in (index, beside):
            one.sync(photos, describer=describer)
        yield index, beside


def test_a_second_sync_has_nothing_to_do_and_loads_no_network(where, photos, recipe, describer) -> None:
    with open_index(where, recipe) as index:
        assert counts(index.sync(photos, describer=describer)) == {"added": 18}
    with open_index(where) as index:
        assert counts(index.sync(photos, describer=Unused)) == {"unchanged": 18}
        assert index.recipe == recipe
        assert (index.pictures, index.contents, index.dim) == (18, 18, describer.dim)


def test_new_changed_and_deleted_pictures_are_followed(where, beside, photos, recipe, describer) -> None:
    with open_index(where, recipe) as index:
        index.sync(photos, describer=describer)
        first, second, third = sorted(photos.iterdir())[:3]
        first.unlink()
        Image.new("RGB", (90, 70), "teal").save(second)
        shutil.copy(third, photos / "new.png")
        Image.new("RGB", (70, 90), "navy").save(photos / "newer.jpg")
        (photos / "broken.jpg").write_bytes(b"no picture")
        assert counts(index.sync(photos, describer=describer)) == {
            "added": 1, "updated": 1, "recognised": 1, "unchanged": 16, "dropped": 1, "skipped": 1,
        }  # fmt: skip
        beside.sync(photos, describer=describer)
        assert held(index) == held(beside)
        assert index.info().skipped == beside.info().skipped
        assert [(one.path, one.pictures) for one in index.info().folders] == [(str(photos), 19)]
        assert (index.pictures, index.contents) == (beside.pictures, beside.contents) == (19, 18)


@pytest.mark.parametrize(
    "options", [{}, {"threshold": 0.9}, {"expansion": "aqe"}, {"k": 100}, {"k": 1}, {"exact": True}]
)
def test_it_finds_what_one_in_a_folder_finds(both, describer, scenes, options) -> None:
    queries = describer.describe(sorted((scenes[0] / "queries").iterdir())[:5])
    index, beside = both
    agree(index.search(queries, **{"k": 6, **options}), beside.search(queries, **{"k": 6, **options}))


def test_relevant_pictures_move_the_query_as_they_do_in_a_folder(both, describer, scenes) -> None:
    index, beside = both
    queries = describer.describe(sorted((scenes[0] / "queries").iterdir())[:2])
    right = beside.search(queries, k=9)[0]
    liked = [[right[5].digest, right[8].digest], []]
    agree(index.search(queries, k=6, relevant=liked), beside.search(queries, k=6, relevant=liked))
    with pytest.raises(InputError, match="3f3f"):
        index.search(queries, k=6, relevant=[[b"?" * 16], []])


def test_an_index_without_pictures_finds_nothing(where, recipe, describer) -> None:
    with open_index(where, recipe) as index:
        assert index.search(np.eye(1, describer.dim, dtype=np.float32), k=3) == [[]]
        assert (index.pictures, index.contents, index.dim, index.folders) == (0, 0, 0, [])
        assert index.mean_row() is None


@pytest.mark.slow
def test_a_whitening_is_a_layer_that_is_put_on_and_taken_off(both, describer, scenes) -> None:
    index, beside = both
    queries = describer.describe(sorted((scenes[0] / "queries").iterdir())[:3])
    plain = index.search(queries, k=5)
    whitening = beside.fit_whitening(dim=8)
    for one in (index, beside):
        one.use_whitening(whitening)
    agree(index.search(queries, k=5), beside.search(queries, k=5))
    assert index.whitening().equals(whitening)
    added = Path(index.folders[0]) / "added.png"
    Image.new("RGB", (50, 40), "olive").save(added)
    for one in (index, beside):
        one.sync(added.parent, describer=describer)
    agree(index.search(queries, k=30), beside.search(queries, k=30))
    index.use_whitening(beside.fit_whitening(dim=4))
    beside.use_whitening(beside.fit_whitening(dim=4))
    agree(index.search(queries, k=5), beside.search(queries, k=5))
    index.use_whitening(None)
    agree(index.search(queries, k=5), plain)


def test_a_learned_whitening_that_the_recipe_does_not_want_is_not_searched_with(both, describer, scenes) -> None:
    queries = describer.describe(sorted((scenes[0] / "queries").iterdir())[:3])
    index, beside = both
    whitening = beside.fit_whitening(dim=8)
    for one in (index, beside):
        with one._store.sole_writer():
            one._store.put_whitening(whitening, learned_here=True)
    agree(index.search(queries, k=5, expansion="aqe"), beside.search(queries, k=5, expansion="aqe"))


def test_what_is_read_is_told_from_what_was_read_before(both, tmp_path, describer) -> None:
    index, _ = both
    before = index.state()
    assert index.state() == before
    lone = tmp_path / "lone.png"
    Image.new("RGB", (60, 40), "teal").save(lone)
    index.add([lone], describer=describer)
    assert index.state() != before


def test_pictures_are_taken_out_and_taken_back(both, photos, describer) -> None:
    index, beside = both
    copied = beside.row_of_file(photos / "copy0.jpg")
    digest = beside.search(copied[None], k=1)[0][0].digest
    for one in (index, beside):
        assert one.remove([digest]) == 4
    assert index.removed() == beside.removed()
    assert index.row_of(digest) is None
    assert counts(index.sync(photos, describer=Unused)) == counts(beside.sync(photos, describer=Unused))
    assert held(index) == held(beside)
    with pytest.raises(InputError, match=digest.hex()):
        index.remove([digest])
    for one in (index, beside):
        one.restore([digest], describer=describer)
    assert index.removed() == {}
    assert held(index) == held(beside)


@pytest.mark.slow
def test_single_pictures_are_added(both, tmp_path, describer) -> None:
    lone = tmp_path / "lone.png"
    Image.new("RGB", (60, 40), "teal").save(lone)
    for one in both:
        assert counts(one.add([lone], describer=describer)) == {"added": 1}
    assert held(both[0]) == held(both[1])


def test_pictures_are_listed_in_order_under_the_same_names(both) -> None:
    index, beside = both
    for page in (
        {"offset": 0, "limit": 5},
        {"offset": 17, "limit": 50},
        {"offset": 0, "limit": 3, "contains": "COPY"},
    ):
        assert index.listing(**page) == beside.listing(**page)
    _, listed = index.listing(offset=0, limit=50)
    assert index.names_of([path for path, _ in listed]) == [os.path.basename(path) for path, _ in listed]
    digests = [digest for _, digest in listed]
    assert index.files_of_each(digests) == beside.files_of_each(digests)
    np.testing.assert_array_equal(index.row_of(digests[0]), beside.row_of(digests[0]))
    np.testing.assert_allclose(index.mean_row(), beside.mean_row(), atol=1e-12)
    assert index.holds(listed[0][0])
    assert not index.holds("/nowhere.jpg")


def test_files_with_odd_names_are_kept_apart(where, photos, recipe, describer) -> None:
    names = ['"quoted".jpg', "50%_.jpg", "ümläut.jpg", "line\nbreak.jpg", os.fsdecode(b"not \xff utf-8.jpg")]
    for name, picture in zip(names, sorted(photos.iterdir()), strict=False):
        picture.rename(photos / name)
    with open_index(where, recipe) as index:
        index.sync(photos, describer=describer)
        paths = [path for path, _ in index.listing(offset=0, limit=50)[1]]
        assert paths == sorted(map(str, photos.iterdir()), key=os.fsencode)
        shutil.rmtree(photos / names[0], ignore_errors=True)
        os.unlink(photos / names[1])
        assert counts(index.sync(photos, describer=describer)) == {"unchanged": 17, "dropped": 1}


@pytest.mark.slow
def test_an_interrupted_sync_goes_on_where_it_stopped(where, beside, photos, recipe, describer, monkeypatch) -> None:
    monkeypatch.setattr("coocnet.index.sync._STORE_EVERY_S", 0.0)

    def interrupt(progress) -> None:
        if progress.done == 7:
            raise KeyboardInterrupt

    with open_index(where, recipe) as index, pytest.raises(KeyboardInterrupt):
        index.sync(photos, describer=describer, progress=interrupt)
    with open_index(where) as index:
        assert counts(index.sync(photos, describer=describer)) == {"added": 11, "unchanged": 7}
        beside.sync(photos, describer=describer)
        assert held(index) == held(beside)


def test_a_second_writer_is_refused_while_searches_go_on(both, where, photos, describer) -> None:
    index, _ = both
    row = index.row_of_file(sorted(photos.iterdir())[0])
    with open_index(where) as other, index._store.sole_writer():
        with pytest.raises(IndexBusyError, match="another process"):
            other.sync(photos, describer=describer)
        assert len(other.search(row[None], k=3)[0]) == 3
    with open_index(where) as other:
        assert counts(other.sync(photos, describer=Unused)) == {"unchanged": 21}


@pytest.mark.slow
def test_another_process_finds_what_was_stored(where, photos, recipe_file) -> None:
    picture = sorted(photos.iterdir())[0]
    environment = {**os.environ, "PYTHONPATH": str(Path(coocnet.__file__).parents[1]), "COLUMNS": "500"}
    for command in (["index", photos, "--recipe", recipe_file], ["search", picture, "-k", "3"], ["info"]):
        asked = [sys.executable, "-m", "coocnet", *map(str, command), "--index", where]
        done = subprocess.run(asked, capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 0, done.stderr
        assert {"index": "18 added", "search": picture.name, "info": "18"}[command[0]] in done.stdout + done.stderr


def test_rows_of_another_recipe_are_refused(both, where, recipe) -> None:
    with pytest.raises(RecipeMismatchError, match="size_px 128 there, 200 here"):
        open_index(where, recipe.replace(size_px=200))


def test_where_there_is_no_index_one_is_told_how_to_make_it(where) -> None:
    with pytest.raises(IndexMissingError, match="make one with"):
        open_index(where)


@pytest.mark.parametrize("kind", ["rows", "pictures", "facts"])
def test_what_a_failure_left_half_done_is_taken_back(both, photos, describer, monkeypatch, kind) -> None:
    index, beside = both
    server = getattr(index._store, "_server", None)
    if server is None:
        pytest.skip("a folder has transactions")
    Image.new("RGB", (60, 40), "teal").save(photos / "new.png")
    Image.new("RGB", (61, 40), "navy").save(sorted(photos.iterdir())[3])
    put, puts = server.put, []

    def fail_then(to, rows, **options):
        puts.append(to)
        if to == kind and puts.count(kind) == (5 if kind == "facts" else 1):
            raise IndexStorageError("the server went away")
        put(to, rows, **options)

    monkeypatch.setattr(server, "put", fail_then)
    with pytest.raises(IndexStorageError, match="went away"):
        index.sync(photos, describer=describer)
    monkeypatch.undo()
    index.sync(photos, describer=describer)
    beside.sync(photos, describer=describer)
    assert held(index) == held(beside)
    assert index.contents == beside.contents


@pytest.mark.parametrize(
    "location",
    [
        "milvus://host",
        "milvus:///photos",
        "milvus://host:x/photos",
        "milvus://host/two/parts",
        "milvus://host/pho tos",
        "milvus-lite://host/photos",
        "redis://host/photos",
        "milvus://user:secret@host/1st",
        "milvus://user:sec/secret@host/photos__of",
        "milvus://host/photos?db=2",
    ],
)
def test_an_address_that_is_none_is_refused_and_quoted_without_its_password(location, recipe) -> None:
    with pytest.raises(InputError) as caught:
        open_index(location, recipe)
    assert location.partition("@")[2] in str(caught.value) if "@" in location else location in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_server_that_is_not_there_is_named(recipe: Recipe, describer: Describer) -> None:
    pytest.importorskip("pymilvus")
    with pytest.raises(IndexStorageError, match=r"milvus://127\.0\.0\.1:9/photos"):
        open_index("milvus://user:secret@127.0.0.1:9/photos", recipe)


def test_the_threshold_auto_is_that_of_a_folder(where, beside, recipe, monkeypatch) -> None:
    rows = synthetic_rows(130)
    rows[7] = 0  # a blank picture, which counts for nothing
    paths = {**named(rows), "/photos/copy.jpg": rows[3]}
    with open_index(where, recipe) as index:
        for one in (index, beside):
            with one._store.sole_writer():
                one._store.bind(recipe, "0" * 64, rows.shape[1], "float32")
                one._store.put(described(paths))
        assert index.auto_threshold() == pytest.approx(beside.auto_threshold(), abs=1e-6)
        monkeypatch.setattr("coocnet.index.milvus.index._ALL_UP_TO", 100)  # as in a large collection
        index._cut = None
        assert index.auto_threshold() == pytest.approx(beside.auto_threshold(), abs=1e-6)
        queries = np.vstack([rows[:4], synthetic_rows(4, seed=5)])
        for options in ({}, {"expansion": "aqe"}):
            agree(
                index.search(queries, k=200, threshold="auto", **options),
                beside.search(queries, k=200, threshold="auto", **options),
            )
        index.remove([beside.search(rows[:1], k=1)[0][0].digest])
        assert index.auto_threshold() != beside.auto_threshold()  # learned anew


def test_a_content_whose_file_is_overwritten_before_its_copy_comes_keeps_its_row(where, recipe) -> None:
    x, y, z = synthetic_rows(3)
    with open_index(where, recipe) as index:
        store = index._store
        with store.sole_writer():
            store.bind(recipe, "0" * 64, len(x), "float32")
            store.put(described({"/a.jpg": x, "/b.jpg": z}))
            known = store.digests()
            assert digest_of(x) in known  # so that b, which was renamed from a, is not described anew
            store.put(described({"/a.jpg": y}))
            store.put([replace(one, row=None) for one in described({"/b.jpg": x})])
            store.drop([])
        assert index.contents == 2
        assert held(index) == [("/a.jpg", digest_of(y), y.tobytes()), ("/b.jpg", digest_of(x), x.tobytes())]


def test_too_few_pictures_give_no_threshold_auto(both, describer, scenes) -> None:
    for index in both:
        with pytest.raises(InputError, match="50 different pictures"):
            index.auto_threshold()


def test_a_reason_with_a_name_that_is_no_text_is_remembered(where, recipe) -> None:
    error = ImageError("/photos/a.jpg", "no file b\udcff.jpg")
    with open_index(where, recipe) as index:
        with index._store.sole_writer():
            index._store.note_sync("/photos", {error.path: error.reason})
        assert index.info().skipped == {"/photos/a.jpg": "no file b\\udcff.jpg"}
