"""The whitening of an index: learned when it is due, given, declined, and never in the way of the rows."""

from __future__ import annotations

import numpy as np
import pytest

from coocnet.errors import InputError, RecipeMismatchError, WhiteningError
from coocnet.index import layer, open_index
from coocnet.recipe import PRESETS
from coocnet.whitening import Whitening, fit_pca
from indexing import Unused, contents, sync


@pytest.fixture
def whitened_from_8(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer, "WHITEN_FROM_PICTURES", 8)


@pytest.mark.slow
@pytest.mark.usefixtures("whitened_from_8")
def test_a_whitening_is_learned_when_the_collection_is_large_enough_and_again_when_it_doubled(
    place, photos, recipe, describer
) -> None:
    pca = recipe.replace(whitening="pca", dim=4)
    later = photos.with_name("later")
    later.mkdir()
    for path in sorted(photos.iterdir())[7:]:
        path.rename(later / path.name)

    def state() -> tuple[str, str] | None:
        with open_index(place) as index:
            held = index.info().whitening
        return held and (held["version"], held["pictures"])

    sync(place, photos, pca, describer)
    assert state() is None
    for count, expected in ((1, ("1", "8")), (5, ("1", "8")), (3, ("2", "16"))):
        for path in sorted(later.iterdir())[:count]:
            path.rename(photos / path.name)
        sync(place, photos, pca, describer)
        assert state() == expected


@pytest.mark.usefixtures("whitened_from_8")
def test_search_uses_the_whitening_and_stored_rows_stay_as_they_are(place, photos, recipe, describer) -> None:
    sync(place, photos, recipe, describer)
    before = contents(place)
    pca = recipe.replace(whitening="pca", dim=4)
    sync(place, photos, pca, describer)
    assert contents(place) == before
    paths = [path for path, _, _ in before]
    rows = describer.describe(paths)
    fitted = fit_pca(rows, dim=4, shrinkage=pca.shrinkage)
    whitened = fitted.apply(rows)
    with open_index(place) as index:
        hits = index.search(rows[:1], k=18)[0]
    expected = dict(zip(paths, whitened @ whitened[0], strict=True))
    np.testing.assert_allclose([hit.similarity for hit in hits], [expected[hit.path] for hit in hits], atol=1e-3)


def test_a_given_whitening_is_used_kept_and_refused_for_other_rows(place, photos, recipe, describer) -> None:
    pca = recipe.replace(whitening="pca")
    sync(place, photos, pca, describer)
    provenance = {"row_fingerprint": pca.row_fingerprint(), "weights_sha256": describer.weights_sha256}
    rows = describer.describe(sorted(photos.iterdir()))
    with open_index(place) as index:
        index.use_whitening(fit_pca(rows, dim=3, provenance=provenance))
        assert index.info().whitening["pictures"] == "18"
        assert len(index.search(rows[:1], k=3)[0]) == 3
        with pytest.raises(WhiteningError, match="fitted on rows of recipe"):
            index.use_whitening(fit_pca(rows, dim=3, provenance={**provenance, "row_fingerprint": "x"}))
        index.use_whitening(None)
        assert index.info().whitening is None
        assert index.info().whitening_declined


@pytest.mark.parametrize("wrong", ["none", "white.safetensors", 3, np.eye(3)], ids=str)
def test_what_is_no_whitening_is_refused_and_changes_nothing(place, photos, recipe, describer, wrong) -> None:
    sync(place, photos, recipe, describer)
    with open_index(place) as index:
        index.use_whitening(index.fit_whitening(dim=3))
        with pytest.raises(InputError, match="'auto', got"):
            index.use_whitening(wrong)
        assert index.info().whitening["version"] == "1"


def test_the_same_whitening_given_again_is_no_new_version(place, photos, recipe, describer) -> None:
    sync(place, photos, recipe, describer)
    with open_index(place) as index:
        fitted = index.fit_whitening(dim=3)
        for _ in range(3):
            index.use_whitening(fitted)
        assert index.info().whitening["version"] == "1"


def test_a_whitening_of_other_dimensions_is_refused_whatever_its_provenance_says(
    place, photos, recipe, describer
) -> None:
    sync(place, photos, recipe, describer)
    with open_index(place) as index:
        fitted = index.fit_whitening(dim=3)
        cut = Whitening(fitted.mean[:7], fitted.projection[:, :7], fitted.provenance)
        with pytest.raises(WhiteningError, match="rows of 7 dimensions, these have 512"):
            index.use_whitening(cut)


def test_a_whitening_is_fitted_and_given_for_the_recipe_of_the_rows_alone(place, photos, recipe, describer) -> None:
    other = recipe.replace(size_px=64)
    with open_index(place, other) as early:
        sync(place, photos, recipe, describer)
        with pytest.raises(RecipeMismatchError, match="size_px"):
            early.fit_whitening()
        facts = {"row_fingerprint": other.row_fingerprint(), "weights_sha256": describer.weights_sha256}
        with pytest.raises(RecipeMismatchError, match="size_px"):
            early.use_whitening(fit_pca(describer.describe(sorted(photos.iterdir())), dim=3, provenance=facts))


@pytest.mark.usefixtures("whitened_from_8")
@pytest.mark.parametrize("error", [np.linalg.LinAlgError("no convergence"), MemoryError()], ids=repr)
def test_a_whitening_that_cannot_be_computed_does_not_fail_the_sync(
    place, photos, recipe, describer, monkeypatch, error
) -> None:
    def failing(*_, **__):
        raise error

    monkeypatch.setattr(layer, "fit_pca", failing)
    assert "no whitening learned: " in sync(place, photos, recipe.replace(whitening="pca"), describer).whitening
    assert len(contents(place)) == 18


@pytest.mark.usefixtures("whitened_from_8")
def test_a_whitening_asked_for_counts_whatever_the_recipe_says_and_info_says_what_search_uses(
    place, photos, recipe, describer
) -> None:
    pca = recipe.replace(whitening="pca", dim=4)
    sync(place, photos, pca, describer)
    with open_index(place, recipe) as index:
        row = index.row_of_file(sorted(photos.iterdir())[0])[None]
        assert index.info().whitening is None
        plain = index.search(row, k=18)[0]
        index.learn_whitening()
        assert index.info().whitening["version"] == "2"
        assert index.search(row, k=18)[0] != plain


@pytest.mark.usefixtures("whitened_from_8")
def test_a_declined_whitening_stays_away_until_it_is_left_to_the_recipe_again(
    place, photos, recipe, describer
) -> None:
    pca = recipe.replace(whitening="pca", dim=4)
    with open_index(place, pca) as index:
        index.use_whitening(None)
        index.sync(photos, describer=describer)
        assert index.info().whitening is None
        index.use_whitening("auto")
        assert "to 4 dimensions learned on 18 pictures" in index.sync(photos, describer=Unused).whitening
        assert index.info().whitening["version"] == "1"


@pytest.mark.usefixtures("whitened_from_8")
@pytest.mark.parametrize("change", [{"dim": 3}, {"shrinkage": 0.5}], ids=str)
def test_a_recipe_that_asks_for_another_whitening_gets_it(place, photos, recipe, describer, change) -> None:
    pca = recipe.replace(whitening="pca", dim=4)
    sync(place, photos, pca, describer)
    with open_index(place, pca.replace(**change)) as index:
        assert index.sync(photos, describer=Unused).whitening
        assert index.sync(photos, describer=Unused).whitening == ""
        assert index.info().whitening["version"] == "2"
        assert index.info().whitening["shrinkage"] == str(pca.replace(**change).shrinkage)


@pytest.mark.usefixtures("whitened_from_8")
def test_pictures_that_determine_few_dimensions_are_whitened_to_as_many(place, photos, recipe, describer) -> None:
    first, *others = sorted(photos.iterdir())
    for path in others[4:]:
        path.unlink()
    for number in range(20):  # other files, the same picture
        (photos / f"{number}.jpg").write_bytes(first.read_bytes() + bytes([number]))
    report = sync(place, photos, recipe.replace(whitening="pca"), describer)
    assert "to 4 dimensions" in report.whitening
    with open_index(place) as index:
        assert len(index.search(describer.describe([first]), k=25)[0]) == 25


@pytest.mark.usefixtures("whitened_from_8")
def test_pictures_that_are_all_alike_are_indexed_without_a_whitening(place, photos, recipe, describer) -> None:
    first, *others = sorted(photos.iterdir())
    for path in others:
        path.unlink()
    for number in range(20):
        (photos / f"{number}.jpg").write_bytes(first.read_bytes() + bytes([number]))
    pca = recipe.replace(whitening="pca")
    for _ in range(2):
        assert "no whitening learned: the rows" in sync(place, photos, pca, describer).whitening
    with open_index(place) as index:
        assert len(index.search(describer.describe([first]), k=25)[0]) == 21


def test_a_given_whitening_counts_whatever_the_recipe_says(place, photos, recipe, describer) -> None:
    sync(place, photos, recipe, describer)
    rows = describer.describe(sorted(photos.iterdir()))
    with open_index(place) as index:
        assert index.recipe.whitening == "none"
        before = index.search(rows[:1], k=18)[0]
        fitted = index.fit_whitening(dim=3)
        assert index.search(rows[:1], k=18)[0] == before
        index.use_whitening(fitted)
        hits = index.search(rows[:1], k=18)[0]
    whitened = fitted.apply(rows)
    assert hits[-1].similarity == pytest.approx(min(whitened @ whitened[0]), abs=1e-3)


def test_a_whitening_from_another_collection_can_be_saved_and_given_before_anything_is_described(
    place, photos, recipe, describer, tmp_path
) -> None:
    other = tmp_path / "other.cooc"
    sync(other, photos, recipe, describer)
    with open_index(other) as index:
        index.fit_whitening(dim=5, shrinkage=0).save(tmp_path / "white.safetensors")
    given = Whitening.load(tmp_path / "white.safetensors")
    assert given.provenance["fitted_on"] == str(photos)
    with open_index(place, recipe) as index:
        index.use_whitening(given)
        index.sync(photos, describer=describer)
        assert index.info().whitening["fitted_on"] == str(photos)
    smaller = recipe.replace(size_px=64)
    with (
        open_index(tmp_path / "third.cooc", smaller) as index,
        pytest.raises(WhiteningError, match="fitted on rows of recipe"),
    ):
        index.use_whitening(given)


def test_a_whitening_of_other_weights_is_refused_before_anything_is_described(
    place, photos, recipe, describer
) -> None:
    facts = {"row_fingerprint": recipe.row_fingerprint(), "weights_sha256": "0" * 64}
    other = fit_pca(describer.describe(sorted(photos.iterdir())), dim=3, provenance=facts)
    with open_index(place, recipe) as index:
        index.use_whitening(other)
        with pytest.raises(WhiteningError, match="with weights 000000000000"):
            index.sync(photos, describer=describer)
        assert index.info().pictures == 0


def test_rows_and_whitening_of_one_search_belong_together(place, photos, recipe, describer) -> None:
    sync(place, photos, recipe, describer)
    row = describer.describe(sorted(photos.iterdir())[:1])
    with open_index(place) as reader, open_index(place) as writer:
        assert len(reader.search(row, k=18)[0]) == 18
        for dim in (3, 5):
            writer.use_whitening(writer.fit_whitening(dim=dim))
            assert reader.search(row, k=1)[0][0].similarity == pytest.approx(1, abs=1e-5)


def test_the_papers_presets_learn_nothing_on_the_collection_that_is_searched() -> None:
    assert {p.whitening for name, p in PRESETS.items() if name.startswith("paper-")} == {"none"}


def test_a_whitening_can_be_learned_on_demand(place, photos, recipe, describer) -> None:
    sync(place, photos, recipe.replace(whitening="pca"), describer)
    with open_index(place) as index:
        assert index.learn_whitening().dim == 9
        assert index.learn_whitening(dim=5).dim == 5
        with pytest.raises(WhiteningError, match="17 dimensions, 40 were asked"):
            index.learn_whitening(dim=40)
        assert index.info().whitening["version"] == "2"
