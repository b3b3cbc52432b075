"""A moved index holds what the first one held, however often moving was interrupted."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from coocnet.describe import Describer
from coocnet.errors import IndexStorageError, InputError, RecipeMismatchError
from coocnet.index import Index, open_index
from coocnet.index.migration import migrate
from coocnet.recipe import Recipe
from indexing import counts, held

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that these few pictures are several blocks."""
    monkeypatch.setattr("coocnet.index.migration._AT_ONCE", 4)
    monkeypatch.setattr("coocnet.index.milvus.lease._SETTLES_S", 0.05, raising=False)


@pytest.fixture
def source(tmp_path: Path, photos: Path, recipe: Recipe, describer: Describer) -> Iterator[Index]:
    """An index with copies, names that are no UTF-8, what was skipped, what was taken out, and a whitening."""
    first, second, third = sorted(photos.iterdir())[:3]
    shutil.copy(first, photos / "copy.jpg")
    second.rename(photos / os.fsdecode(b"not \xff utf-8.jpg"))
    (photos / "broken.jpg").write_bytes(b"no picture")
    beyond = tmp_path / "beyond"
    beyond.mkdir()
    Image.new("RGB", (90, 70), "teal").save(beyond / "one.png")
    with open_index(tmp_path / "source.cooc", recipe) as index:
        index.sync(photos, describer=describer)
        index.sync(beyond, describer=describer)
        index.remove([index._store.digest_of(os.fsencode(third))])
        index.use_whitening(index.fit_whitening(dim=8))
        yield index


def everything(index: Index) -> dict[str, object]:
    """What is to be the same in both."""
    info, whitening = index.info(), index.whitening()
    return {
        "held": held(index),
        "pictures": list(index._store.each_picture()),
        "folders": info.folders,
        "skipped": info.skipped,
        "removed": index._store.taken_out(),
        "recipe": info.recipe,
        "weights": info.weights_sha256,
        "engines": info.engines,
        "dim": info.dim,
        "declined": info.whitening_declined,
        "whitening": None if whitening is None else (whitening.projection.tobytes(), whitening.provenance),
    }


def test_all_of_it_is_there_and_searches_find_the_same(source, where, recipe, photos, scenes, describer) -> None:
    before = everything(source)
    with open_index(where, recipe) as moved:
        report = migrate(source, moved)
        assert everything(moved) == everything(source) == before
        assert (report.pictures, report.copied, report.contents) == (
            source.pictures,
            source.pictures,
            source.contents,
        )
        queries = describer.describe(sorted((scenes[0] / "queries").iterdir())[:4])
        for one, other in zip(source.search(queries, k=6), moved.search(queries, k=6), strict=True):
            assert [(hit.path, hit.digest) for hit in one] == [(hit.path, hit.digest) for hit in other]
            np.testing.assert_allclose([hit.similarity for hit in one], [hit.similarity for hit in other], atol=2e-6)
    with open_index(where) as moved:
        again = counts(moved.sync(photos, describer=describer))
        assert again == counts(source.sync(photos, describer=describer))
        assert set(again) == {"unchanged", "skipped"}


def test_it_moves_back(source, where, recipe, tmp_path) -> None:
    with open_index(where, recipe) as moved, open_index(tmp_path / "back.cooc", recipe) as back:
        migrate(source, moved)
        migrate(moved, back)
        assert everything(back) == everything(source)


@pytest.mark.parametrize("at", [1, 3, 6])
def test_what_an_interrupted_run_copied_is_not_copied_again(source, where, recipe, at) -> None:
    seen = []

    def interrupt(what: str, done: int, total: int) -> None:
        seen.append((what, done, total))
        if len(seen) == at:
            raise KeyboardInterrupt

    with open_index(where, recipe) as moved, pytest.raises(KeyboardInterrupt):
        migrate(source, moved, progress=interrupt)
    copied = max(done for what, done, _ in seen if what == "Copying")
    with open_index(where) as moved:
        report = migrate(source, moved)
        assert report.copied == source.pictures - copied
        assert everything(moved) == everything(source)


def test_what_changed_between_two_runs_is_followed(source, where, recipe, photos, describer) -> None:
    def interrupt(what: str, done: int, total: int) -> None:
        if what == "Comparing":
            raise KeyboardInterrupt

    with open_index(where, recipe) as moved, pytest.raises(KeyboardInterrupt):
        migrate(source, moved, progress=interrupt)
    gone, changed = sorted(photos.glob("*.png"))[:2] if list(photos.glob("*.png")) else sorted(photos.iterdir())[5:7]
    gone.unlink()
    Image.new("RGB", (90, 70), "navy").save(changed, format="PNG")
    source.sync(photos, describer=describer)
    source.use_whitening(None)
    with open_index(where) as moved:
        migrate(source, moved)
        assert everything(moved) == everything(source)


def test_a_source_that_changes_meanwhile_is_told(source, where, recipe, photos, describer) -> None:
    def change(what: str, done: int, total: int) -> None:
        if (what, done) == ("Comparing", total):
            Image.new("RGB", (90, 70), "navy").save(photos / "new.png")
            source.sync(photos, describer=describer)

    with open_index(where, recipe) as moved:
        with pytest.raises(IndexStorageError, match="was changed meanwhile"):
            migrate(source, moved, progress=change)
        assert migrate(source, moved).copied == 1
        assert everything(moved) == everything(source)


def test_a_row_that_is_not_as_it_was_copied_is_told(source, where, recipe, monkeypatch) -> None:
    with open_index(where, recipe) as moved:
        rows_of_each = moved._store.rows_of_each

        def with_a_bit_turned(digests):
            rows = {digest: row.copy() for digest, row in rows_of_each(digests).items()}
            next(iter(rows.values()))[3] += 1e-6
            return rows

        monkeypatch.setattr(moved._store, "rows_of_each", with_a_bit_turned)
        with pytest.raises(IndexStorageError, match="as it was copied"):
            migrate(source, moved)


def test_pictures_of_its_own_are_not_overwritten(source, tmp_path, recipe, photos, describer) -> None:
    with open_index(tmp_path / "other.cooc", recipe) as other:
        other.sync(photos, describer=describer)
        before = everything(other)
        with pytest.raises(InputError, match="holds pictures already"):
            migrate(source, other)
        assert everything(other) == before
        with pytest.raises(InputError, match="to itself"):
            migrate(source, source)


def test_an_unfinished_copy_is_not_copied_from(source, where, recipe, tmp_path) -> None:
    with open_index(where, recipe) as moved, open_index(tmp_path / "back.cooc", recipe) as back:
        with pytest.raises(KeyboardInterrupt):
            migrate(source, moved, progress=interrupt)
        with pytest.raises(InputError, match="is an unfinished copy"):
            migrate(moved, back)
        assert back.pictures == 0


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_finished_copy_is_compared_again_and_one_that_is_used_since_refused(source, where, recipe) -> None:
    with open_index(where, recipe) as moved:
        first, again = migrate(source, moved), migrate(source, moved)
        assert first.copied == first.pictures
        assert (again.copied, again.pictures, again.removed) == (0, first.pictures, first.removed)
        moved.remove([moved.listing(offset=0, limit=1)[1][0][1]])
        before = everything(moved)
        with pytest.raises(InputError, match="holds pictures already"):
            migrate(source, moved)
        assert everything(moved) == before


def test_an_index_of_another_recipe_is_refused(source, tmp_path, recipe) -> None:
    with (
        open_index(tmp_path / "other.cooc", recipe.replace(size_px=200)) as other,
        pytest.raises(RecipeMismatchError, match="size_px"),
    ):
        migrate(source, other)


def test_the_command_moves_an_index(source, run, tmp_path) -> None:
    done = run("migrate", source.location, tmp_path / "moved.cooc")
    assert done.returncode == 0, done.stderr
    assert f"holds {source.pictures} pictures ({source.pictures} copied now)" in done.stdout
    with open_index(tmp_path / "moved.cooc") as index:
        assert everything(index) == everything(source)
    refused = run("migrate", tmp_path / "nothing.cooc", tmp_path / "elsewhere.cooc")
    assert refused.returncode != 0
    assert "no index" in refused.stderr
    assert not (tmp_path / "elsewhere.cooc").exists()
