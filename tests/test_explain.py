"""The contributions of the cells are those of the similarity that was searched."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from coocnet import ops
from coocnet.errors import InputError, WhiteningError
from coocnet.explain import EXPLAINED, explain
from coocnet.poolings import POOLINGS
from coocnet.recipe import Cooccurrence, Recipe
from coocnet.whitening import Whitening, fit_pca

CHANNELS = 7
RECIPE = Recipe(cooccurrence=Cooccurrence(radius_cells=1), sketch_dim=64)


def a_map(height: int, width: int, seed: int) -> torch.Tensor:
    return torch.relu(torch.randn(1, CHANNELS, height, width, generator=torch.Generator().manual_seed(seed)))


def row_of(maps: list[torch.Tensor], recipe: Recipe) -> np.ndarray:
    """As the describer makes it."""
    rows = sum(ops.unit_rows(POOLINGS[recipe.pooling](a, recipe)) for a in maps)
    return ops.unit_rows(rows).numpy()


def a_whitening(recipe: Recipe) -> Whitening:
    rows = np.concatenate([row_of([a_map(4, 5, seed)], recipe) for seed in range(100, 140)])
    return fit_pca(rows, dim=5)


@pytest.mark.parametrize("scales", [1, 3])
@pytest.mark.parametrize("whitened", [False, True])
@pytest.mark.parametrize("sketch_dim", [0, 64])
@pytest.mark.parametrize("pooling", EXPLAINED)
def test_contributions_sum_to_the_similarity_of_the_rows(
    pooling: str, sketch_dim: int, whitened: bool, scales: int
) -> None:
    recipe = RECIPE.replace(pooling=pooling, sketch_dim=sketch_dim)
    asked = [a_map(6 - scale, 5, 1 + scale) for scale in range(scales)]
    other = [a_map(4, 7 - scale, 11 + scale) for scale in range(scales)]
    whitening = a_whitening(recipe) if whitened else None
    rows = [row_of(maps, recipe) for maps in (asked, other)]
    if whitening is not None:
        rows = [whitening.apply(one) for one in rows]
    found = explain(asked, other, recipe, whitening=whitening)
    assert found.similarity == pytest.approx(float(rows[0][0] @ rows[1][0]), abs=1e-5)
    assert found.query.shape == (6, 5)
    assert found.result.shape == (4, 7)
    assert found.query.sum() == pytest.approx(found.similarity, abs=1e-5)
    assert found.result.sum() == pytest.approx(found.similarity, abs=1e-5)


@pytest.mark.parametrize("pooling", ["bp-aa", "bp-act", "bp-at", "centred"])
def test_contributions_to_signed_roots_sum_to_the_similarity_too(pooling: str) -> None:
    recipe = RECIPE.replace(pooling=pooling, signed_root=True)
    asked, other = [a_map(5, 6, 1)], [a_map(4, 4, 2)]
    found = explain(asked, other, recipe)
    assert found.similarity == pytest.approx(float((row_of(asked, recipe) @ row_of(other, recipe).T)[0, 0]), abs=1e-5)
    assert found.query.sum() == pytest.approx(found.similarity, abs=1e-5)
    assert "share" in " ".join(found.notes)


def test_the_contribution_of_a_cell_is_what_leaving_it_out_of_the_sum_takes_away() -> None:
    recipe = RECIPE.replace(pooling="ucrow")
    whitening = a_whitening(recipe)
    asked, other = a_map(3, 4, 1).double(), a_map(4, 4, 2).double()
    found = explain([asked], [other], recipe, whitening=whitening)
    x = asked[0].flatten(1).numpy()
    mean, projection = whitening.mean.astype(float), whitening.projection.astype(float)
    y, y2 = (projection @ (row_of([a], recipe)[0] - mean) for a in (asked, other))
    for cell in range(12):
        part = x[:, cell] / 12 / np.linalg.norm(x.mean(1))
        share = part.sum() / (x.mean(1).sum() / np.linalg.norm(x.mean(1)))
        expected = projection @ (part - share * mean) @ y2 / np.linalg.norm(y) / np.linalg.norm(y2)
        assert found.query.flatten()[cell] == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("pooling", ["ucrow", "chco-sct", "context", "bp-aa"])
def test_the_thing_that_both_pictures_show_is_where_the_contributions_are(pooling: str) -> None:
    random = torch.Generator().manual_seed(0)
    thing = torch.zeros(CHANNELS, 2, 2)
    thing[:3] = 2 + torch.rand(3, 2, 2, generator=random)
    asked, other = (0.3 * torch.rand(1, CHANNELS, 8, 8, generator=random) for _ in range(2))
    for picture in (asked, other):
        picture[:, :3] = 0
    asked[0, :, 1:3, 1:3] = thing
    other[0, :, 5:7, 4:6] = thing
    found = explain([asked], [other], RECIPE.replace(pooling=pooling))
    assert found.query[1:3, 1:3].sum() > 0.4 * found.similarity
    assert found.result[5:7, 4:6].sum() > 0.4 * found.similarity
    best = found.matches[0]
    assert best.query_cell in {(1, 1), (1, 2), (2, 1), (2, 2)}
    assert best.result_cell in {(5, 4), (5, 5), (6, 4), (6, 5)}
    contributions = [match.contribution for match in found.matches]
    assert contributions == sorted(contributions, reverse=True)


def test_empty_cells_have_no_part_in_the_mean() -> None:
    recipe = RECIPE.replace(pooling="ucrow")
    asked = a_map(3, 4, 1)
    asked[:, :, 0] = 0
    found = explain([asked], [a_map(4, 4, 2)], recipe, whitening=a_whitening(recipe))
    assert not found.query[0].any()


def test_pictures_without_activations_have_similarity_zero_and_no_matches() -> None:
    blank = torch.zeros(1, CHANNELS, 3, 4)
    for pooling in EXPLAINED:
        found = explain([blank], [a_map(4, 4, 2)], RECIPE.replace(pooling=pooling))
        assert (found.similarity, found.matches) == (0.0, [])
        assert not found.query.any()


@pytest.mark.parametrize(
    ("pooling", "changes", "says"),
    [
        ("chco-sct", {}, ""),
        ("bp-act", {"sketch_dim": 0}, ""),
        ("bp-act", {}, "approximates the bilinear one"),
        ("gem", {}, "share"),
    ],
)
def test_what_is_approximated_is_said(pooling: str, changes: dict[str, int], says: str) -> None:
    found = explain([a_map(3, 4, 1)], [a_map(4, 4, 2)], RECIPE.replace(pooling=pooling, **changes))
    assert bool(found.notes) == bool(says)
    assert says in " ".join(found.notes)


def test_what_cannot_be_explained_is_refused() -> None:
    maps = [a_map(3, 4, 1)]
    with pytest.raises(InputError, match="'rmac' cannot be taken apart"):
        explain(maps, maps, RECIPE.replace(pooling="rmac"))
    with pytest.raises(InputError, match="at least one map"):
        explain([], maps, RECIPE)
    with pytest.raises(WhiteningError, match="rows of 64 dimensions, got 7"):
        explain(maps, maps, RECIPE.replace(pooling="ucrow"), whitening=a_whitening(RECIPE.replace(pooling="bp-aa")))
