"""What comes with the package: a network and a whitening that need nothing from outside."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from coocnet.backbones import BACKBONES, find_weights
from coocnet.describe import Describer
from coocnet.fetch import sha256_of
from coocnet.index import layer, open_index
from coocnet.recipe import Recipe
from coocnet.shipped import SHIPPED
from coocnet.whitening import Whitening, shipped_whitening
from indexing import sync

MOST_MB = 6


@pytest.fixture(scope="module")
def mini() -> Recipe:
    """The default recipe: quick enough as it is."""
    return Recipe()


@pytest.fixture(scope="module")
def its_describer(mini: Recipe) -> Describer:
    return Describer(mini)


@pytest.fixture(scope="module")
def shipped(mini: Recipe, its_describer: Describer) -> Whitening:
    found = shipped_whitening(mini.row_fingerprint(), its_describer.weights_sha256)
    assert found is not None, "the whitening was fitted for another recipe or other weights"
    return found


def in_force(place) -> dict[str, str] | None:
    with open_index(place) as index:
        return index.info().whitening


def test_the_default_recipe_describes_with_nothing_but_the_package(its_describer: Describer, photos) -> None:
    assert its_describer.weights_place.found_in == "package"
    assert its_describer.weights_place.verified
    rows = its_describer.describe(sorted(photos.iterdir())[:2])
    assert rows.shape == (2, 512)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-5)


def test_the_shipped_files_stay_small() -> None:
    assert sum(path.stat().st_size for path in SHIPPED.iterdir() if path.is_file()) <= MOST_MB * 1e6


def test_the_record_names_the_shipped_weights_by_their_digest() -> None:
    weights = next(iter(BACKBONES["mini"].weights.values()))
    assert weights.sha256 == sha256_of(SHIPPED / weights.file)
    found = find_weights(weights)
    assert found is not None
    assert found.path.parent == SHIPPED


def test_the_provenance_names_data_steps_seed_and_losses() -> None:
    told = json.loads((SHIPPED / "mini.json").read_text())
    assert told["weights_sha256"] == sha256_of(SHIPPED / "mini.safetensors")
    assert told["licence"] == "MIT"
    assert {"steps", "seed", "pairs"} <= told["training"]["settings"].keys()
    assert not {"paris6k_subset", "paintings"} & set(told["training"]["pictures"]["folders"])
    assert told["training"]["curve"][-1]["step"] == told["training"]["settings"]["steps"]
    assert {"cells resnet101v2", "rows resnet101v2", "pairs"} <= told["training"]["curve"][-1].keys()


def test_a_map_of_the_shipped_network_fires_in_many_channels_and_not_in_all_places(
    its_describer: Describer, photos
) -> None:
    from coocnet.data import decode, read_bytes

    path = min(photos.iterdir())
    a = its_describer.map_of(decode(read_bytes(path), path, size_px=512).pixels)
    assert (a.amax((0, 2, 3)) > 0).float().mean() > 0.5
    assert 0.02 < (a > 0).float().mean() < 0.98


def test_a_new_index_is_whitened_from_the_first_picture_on(
    place, photos, mini: Recipe, its_describer: Describer, shipped: Whitening
) -> None:
    paths = sorted(photos.iterdir())
    for path in paths[1:]:
        path.unlink()
    sync(place, photos, mini, its_describer)
    assert (in_force(place) or {})["weights_sha256"] == its_describer.weights_sha256
    row = its_describer.describe(paths[:1])
    with open_index(place) as index:
        held = index.whitening()
        found = index.search(row, k=1)[0][0]
    assert held is not None
    np.testing.assert_array_equal(held.apply(row), shipped.first(min(shipped.dim, mini.dim)).apply(row))
    assert found.similarity == pytest.approx(1, abs=1e-5)


def test_an_interrupted_first_sync_leaves_it_in_force(place, photos, mini, its_describer, monkeypatch) -> None:
    def stop(*_) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sync(place, photos, mini, its_describer, progress=stop)
    assert in_force(place) is not None


def test_a_growing_collection_keeps_it(place, photos, mini, its_describer, shipped, monkeypatch) -> None:
    monkeypatch.setattr(layer, "WHITEN_FROM_PICTURES", 4)
    small = replace(shipped, provenance={**shipped.provenance, "pictures": "3"})
    monkeypatch.setattr(layer, "shipped_whitening", lambda *_: small)
    away = [path.rename(photos.parent / path.name) for path in sorted(photos.iterdir())[2:]]
    sync(place, photos, mini, its_describer)
    first = in_force(place)
    assert first is not None
    assert first["fitted_on"] != str(photos)
    for path in away:
        path.rename(photos / path.name)
    report = sync(place, photos, mini, its_describer)
    assert report.added >= 2 * 3, "more than twice as many as it was fitted on"
    assert report.whitening == ""
    assert in_force(place) == first


def test_it_stays_where_a_later_package_has_none_for_these_rows(
    place, photos, mini, its_describer, monkeypatch
) -> None:
    monkeypatch.setattr(layer, "WHITEN_FROM_PICTURES", 4)
    sync(place, photos, mini, its_describer)
    first = in_force(place)
    monkeypatch.setattr(layer, "shipped_whitening", lambda *_: None)
    sync(place, photos, mini.replace(dim=128), its_describer)
    assert in_force(place) == first


def test_a_recipe_of_fewer_dimensions_takes_the_first_of_it(place, photos, mini, its_describer, shipped) -> None:
    sync(place, photos, mini, its_describer)
    short = mini.replace(dim=32)
    sync(place, photos, short, its_describer)
    with open_index(place) as index:
        held = index.whitening()
    assert held is not None
    np.testing.assert_array_equal(held.projection, shipped.projection[:32])
    sync(place, photos, short.replace(shrinkage=0.0), its_describer)
    assert (in_force(place) or {})["version"] == "2"


@pytest.mark.parametrize("change", [{"size_px": 96}, {"pooling": "gem"}, {"whitening": "none"}], ids=str)
def test_it_is_not_taken_for_other_rows_or_against_the_recipe(place, photos, mini, change) -> None:
    other = mini.replace(**change)
    sync(place, photos, other, Describer(other))
    assert in_force(place) is None


def test_it_stays_away_once_declined_and_comes_back_when_asked_for(
    place, photos, mini, its_describer, shipped
) -> None:
    sync(place, photos, mini, its_describer)
    with open_index(place) as index:
        index.use_whitening(None)
    sync(place, photos, mini, its_describer)
    assert in_force(place) is None
    with open_index(place) as index:
        index.use_whitening("auto")
    sync(place, photos, mini, its_describer)
    assert in_force(place) is not None


def test_a_given_whitening_is_not_replaced_by_it(place, photos, mini, its_describer) -> None:
    sync(place, photos, mini, its_describer)
    with open_index(place) as index:
        index.use_whitening(index.fit_whitening(dim=3))
    sync(place, photos, mini, its_describer)
    with open_index(place) as index:
        held = index.whitening()
    assert held is not None
    assert held.dim == 3


def test_weights_named_by_the_user_are_not_whitened_by_it(place, photos, mini, tmp_path) -> None:
    from safetensors.torch import load_file, save_file

    changed = {name: tensor * 1.01 for name, tensor in load_file(SHIPPED / "mini.safetensors").items()}
    save_file(changed, tmp_path / "other.safetensors")
    other = mini.replace(weights=str(tmp_path / "other.safetensors"))
    sync(place, photos, other, Describer(other))
    assert in_force(place) is None


def test_rows_do_not_depend_on_the_number_of_threads(its_describer: Describer, photos) -> None:
    paths = sorted(photos.iterdir())[:2]
    one = its_describer.describe(paths)
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        np.testing.assert_allclose(its_describer.describe(paths), one, atol=1e-5)
    finally:
        torch.set_num_threads(threads)
