"""The contributions of the cells are those of the similarity that was searched."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from coocnet import ops
from coocnet.errors import InputError, WhiteningError
from coocnet.explain import EXPLAINED, explain
from coocnet.poolings import POOLINGS, PRIORS, map_cooccurrence
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


@cache
def other_rows(recipe: Recipe) -> np.ndarray:
    return np.concatenate([row_of([a_map(4, 5, seed)], recipe) for seed in range(100, 140)])


@cache
def a_whitening(recipe: Recipe) -> Whitening:
    return fit_pca(other_rows(recipe), dim=5)


def pairs_by_loops(
    asked: torch.Tensor, other: torch.Tensor, recipe: Recipe, whitening: Whitening | None, centre: np.ndarray | None
) -> np.ndarray:
    """What each two cells contribute together, straight from the equation: the part of its row that a cell has."""
    pictures = []
    for a in (asked, other):
        cells = [a[0, :, row, column].numpy() for row in range(a.shape[2]) for column in range(a.shape[3])]
        parts = cells
        if recipe.pooling.startswith("bp"):
            context = map_cooccurrence(a, recipe) if recipe.pooling == "bp-act" else a
            beside = [context[0, :, row, column].numpy() for row in range(a.shape[2]) for column in range(a.shape[3])]
            outer = [np.outer(one, two) for one, two in zip(cells, beside, strict=True)]
            parts = [sketched_by_loops(one, recipe) if recipe.sketch_dim else one.flatten() for one in outer]
        total = sum(parts)
        root = np.sqrt(np.abs(total)) if recipe.signed_root else np.ones_like(total)
        parts = [np.divide(part, root, out=np.zeros_like(part), where=total != 0) for part in parts]
        length = np.linalg.norm(sum(parts))
        masses = [
            np.abs(one).sum() * (np.abs(two).sum() if recipe.pooling.startswith("bp") else 1)
            for one, two in zip(cells, beside if recipe.pooling.startswith("bp") else cells, strict=True)
        ]
        mean = whitening.mean.astype(float) if whitening is not None else 0 if centre is None else centre
        shares = np.array(masses) / sum(masses)
        seen = [part / length - share * mean for part, share in zip(parts, shares, strict=True)]
        if whitening is not None:
            seen = [whitening.projection.astype(float) @ part for part in seen]
            seen = [part / np.linalg.norm(sum(seen)) for part in seen]
        pictures.append(seen)
    return np.array([[part @ part2 for part2 in pictures[1]] for part in pictures[0]])


def sketched_by_loops(outer: np.ndarray, recipe: Recipe) -> np.ndarray:
    h, s, h2, s2 = (f.numpy() for f in ops.Sketch(CHANNELS, recipe.sketch_dim, recipe.sketch_seed).functions())
    row = np.zeros(recipe.sketch_dim)
    for k in range(CHANNELS):
        for w in range(CHANNELS):
            row[(h[k] + h2[w]) % recipe.sketch_dim] += s[k] * s2[w] * outer[k, w]
    return row


FRAMES = ["as they are", "centred", "whitened"]
CHANGES = [
    {"pooling": "ucrow"},
    {"pooling": "bp-act", "sketch_dim": 0},
    {"pooling": "bp-act"},
    {"pooling": "bp-aa", "signed_root": True},
    {"pooling": "bp-aa", "signed_root": True, "sketch_dim": 0},
]


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("changes", CHANGES, ids=str)
def test_contributions_and_joined_cells_are_those_of_plain_loops(changes: dict[str, Any], frame: str) -> None:
    recipe = RECIPE.replace(**changes)
    asked, other = a_map(6, 9, 1).double(), a_map(7, 8, 2).double()
    whitening = a_whitening(recipe) if frame == "whitened" else None
    centre = other_rows(recipe).mean(0) if frame == "centred" else None
    found = explain([asked], [other], recipe, whitening=whitening, centre=centre)
    pairs = pairs_by_loops(asked, other, recipe, whitening, centre)
    np.testing.assert_allclose(found.query.flatten(), pairs.sum(1), atol=1e-7)
    np.testing.assert_allclose(found.result.flatten(), pairs.sum(0), atol=1e-7)
    least = 0.15 * pairs.max()
    left = {
        (divmod(p, 9), divmod(q, 8)): pairs[p, q]
        for p in range(54)
        for q in range(56)
        if pairs[p].sum() > 0 and pairs[:, q].sum() > 0 and pairs[p, q] > least
    }
    expected = []
    while left and len(expected) < 8:
        best = max(left, key=left.__getitem__)
        expected.append((*best, pytest.approx(left[best], abs=1e-7)))
        left = {pair: value for pair, value in left.items() if all(map(apart, pair, best))}
    assert [(match.query_cell, match.result_cell, match.contribution) for match in found.matches] == expected
    assert len(expected) > 1


def apart(cell: tuple[int, int], other: tuple[int, int]) -> bool:
    """No two numbers of a drawing so near each other that they say the same."""
    return abs(cell[0] - other[0]) > 2 or abs(cell[1] - other[1]) > 2


def test_as_many_things_as_both_pictures_show_are_joined_but_no_more_than_eight() -> None:
    random = np.random.default_rng(0)
    corners = [(row, column) for row in (0, 4, 8) for column in (0, 4, 8, 12)]
    places = [corners[at] for at in random.permutation(12)[:10]]
    for things, expected in ((3, 3), (10, 8)):
        asked, other = torch.zeros(1, 10, 9, 13), torch.zeros(1, 10, 9, 13)
        for thing in range(things):
            asked[0, thing][corners[thing]] = 2 - 0.1 * thing
            other[0, thing][places[thing]] = 2 - 0.1 * thing
        found = explain([asked], [other], RECIPE.replace(pooling="ucrow"))
        cells = [(match.query_cell, match.result_cell) for match in found.matches]
        assert cells == list(zip(corners, places, strict=False))[:expected]


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


@pytest.mark.parametrize("scales", [1, 3])
@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("pooling", EXPLAINED)
def test_contributions_less_the_mean_of_a_collection_sum_to_the_rest_of_the_similarity(
    pooling: str, prior: str, scales: int
) -> None:
    recipe = RECIPE.replace(pooling=pooling, prior=prior)
    asked = [PRIORS[prior](a_map(6 - scale, 5, 1 + scale), recipe) for scale in range(scales)]
    other = [PRIORS[prior](a_map(4, 7 - scale, 11 + scale), recipe) for scale in range(scales)]
    x, y = (row_of(maps, recipe)[0].astype(float) for maps in (asked, other))
    mean = other_rows(recipe).mean(0).astype(float)
    found = explain(asked, other, recipe, centre=mean)
    assert found.similarity == pytest.approx(x @ y, abs=1e-5)
    assert found.constant == pytest.approx(mean @ x + mean @ y - mean @ mean, abs=1e-5)
    assert found.query.sum() + found.constant == pytest.approx(found.similarity, abs=1e-5)
    assert found.result.sum() + found.constant == pytest.approx(found.similarity, abs=1e-5)


def test_what_every_picture_of_a_collection_shows_contributes_nothing() -> None:
    recipe = RECIPE.replace(pooling="ucrow")
    common, own = torch.zeros(CHANNELS), torch.zeros(CHANNELS)
    common[:3], own[5] = 1, 1
    asked, other = (common[None, :, None, None].repeat(1, 1, 4, 4) for _ in range(2))
    asked[0, :, 1, 1] = other[0, :, 3, 0] = own
    mean = (common / common.norm()).numpy()
    plain = explain([asked], [other], recipe)
    assert plain.constant == 0
    assert (plain.query > 0.001).all()
    found = explain([asked], [other], recipe, centre=mean)
    at = np.unravel_index(found.query.argmax(), found.query.shape)
    at2 = np.unravel_index(found.result.argmax(), found.result.shape)
    assert (at, at2) == ((1, 1), (3, 0))
    assert np.abs(np.delete(found.query.flatten(), 5)).max() < 0.1 * found.query.max()
    assert [(match.query_cell, match.result_cell) for match in found.matches] == [((1, 1), (3, 0))]


def test_an_explanation_is_the_same_from_either_side() -> None:
    recipe = RECIPE.replace(pooling="chco-sct")
    asked, other, mean = [a_map(5, 6, 1)], [a_map(4, 4, 2)], other_rows(recipe).mean(0)
    one, two = explain(asked, other, recipe, centre=mean), explain(other, asked, recipe, centre=mean)
    assert (one.similarity, one.constant) == pytest.approx((two.similarity, two.constant))
    np.testing.assert_allclose(one.query, two.result, atol=1e-12)
    np.testing.assert_allclose(one.result, two.query, atol=1e-12)


def test_what_another_scale_contributes_stays_in_its_place() -> None:
    recipe = RECIPE.replace(pooling="ucrow")
    fine, coarse = torch.zeros(1, CHANNELS, 8, 8), torch.zeros(1, CHANNELS, 4, 4)
    fine[0, 0, 7, 7] = coarse[0, 0, 0, 0] = 1
    found = explain([fine, coarse], [a_map(4, 4, 2), a_map(3, 3, 2)], recipe)
    assert found.query[7, 7] == pytest.approx(found.similarity / 2)
    assert found.query[:3, :3].sum() == pytest.approx(found.similarity / 2)
    assert found.query[0, 0] > found.query[1, 1] > 0
    assert not found.query[:4, 4:].any()


def test_cells_are_joined_by_what_they_contribute_at_the_first_scale() -> None:
    recipe, whitening = RECIPE.replace(pooling="ucrow"), a_whitening(RECIPE.replace(pooling="ucrow"))
    maps = [a_map(4, 5, 1).double(), a_map(3, 4, 2).double()]
    once, twice = (explain(m, m, recipe, whitening=whitening) for m in (maps[:1], [maps[0], maps[0]]))
    assert [(match.query_cell, match.result_cell) for match in once.matches] == [
        (match.query_cell, match.result_cell) for match in twice.matches
    ]
    # The same picture twice is the same row; its first half alone is joined, a quarter of every product.
    assert [match.contribution for match in twice.matches] == pytest.approx(
        [match.contribution / 4 for match in once.matches]
    )


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


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("pooling", EXPLAINED)
def test_pictures_without_activations_have_similarity_zero_and_no_matches(pooling: str, frame: str) -> None:
    recipe, blank = RECIPE.replace(pooling=pooling), torch.zeros(1, CHANNELS, 3, 4)
    whitening = a_whitening(recipe) if frame == "whitened" else None
    centre = other_rows(recipe).mean(0) if frame == "centred" else None
    found = explain([blank], [a_map(4, 4, 2)], recipe, whitening=whitening, centre=centre)
    assert (found.similarity, found.constant, found.matches) == (0.0, 0.0, [])
    assert not found.query.any()
    assert not found.result.any()
    assert (found.query.shape, found.result.shape) == ((3, 4), (4, 4))


SKETCHED = "the sketched similarity is explained exactly; it approximates the bilinear one"
SHARED = "a cell's part of an entry is its share of the sum before the power"
SPREAD = "other scales are spread on the first scale's grid; cells are joined at the first scale alone"


@pytest.mark.parametrize(
    ("changes", "scales", "says"),
    [
        ({"pooling": "chco-sct"}, 1, []),
        ({"pooling": "bp-act", "sketch_dim": 0}, 1, []),
        ({"pooling": "bp-act"}, 1, [SKETCHED]),
        ({"pooling": "gem"}, 1, [SHARED]),
        ({"pooling": "mac"}, 1, [SHARED]),
        ({"pooling": "context"}, 1, [SHARED]),
        ({"pooling": "bp-aa", "signed_root": True}, 1, [SKETCHED, SHARED]),
        ({"pooling": "chco-sct"}, 2, [SPREAD]),
        ({"pooling": "chco-sct", "expansion": "aqe"}, 1, ["search expands the query (aqe)"]),
    ],
    ids=str,
)
@pytest.mark.parametrize("whitened", [False, True])
def test_what_is_approximated_or_left_out_is_said(
    changes: dict[str, Any], scales: int, says: list[str], whitened: bool
) -> None:
    recipe = RECIPE.replace(**changes)
    whitening = a_whitening(recipe) if whitened else None
    found = explain([a_map(3, 4, 1)] * scales, [a_map(4, 4, 2)] * scales, recipe, whitening=whitening)
    assert len(found.notes) == len(says)
    assert all(expected in note for expected, note in zip(says, found.notes, strict=True))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "centre", [np.zeros(6), np.zeros((1, 7)), np.zeros(7, int), np.full(7, np.nan), [0.0] * 6, "mean"]
)
def test_a_centre_that_is_no_mean_of_rows_is_refused(centre: object) -> None:
    maps = [a_map(3, 4, 1)]
    with pytest.raises(InputError, match="7 finite floats here"):
        explain(maps, maps, RECIPE.replace(pooling="ucrow"), centre=centre)


def test_a_whitening_has_a_mean_of_its_own() -> None:
    maps, recipe = [a_map(3, 4, 1)], RECIPE.replace(pooling="ucrow")
    with pytest.raises(InputError, match="not both"):
        explain(maps, maps, recipe, whitening=a_whitening(recipe), centre=np.zeros(7))


def test_what_cannot_be_explained_is_refused() -> None:
    maps = [a_map(3, 4, 1)]
    with pytest.raises(InputError, match="'rmac' cannot be taken apart"):
        explain(maps, maps, RECIPE.replace(pooling="rmac"))
    with pytest.raises(InputError, match="at least one map"):
        explain([], maps, RECIPE)
    with pytest.raises(WhiteningError, match="rows of 64 dimensions, got 7"):
        explain(maps, maps, RECIPE.replace(pooling="ucrow"), whitening=a_whitening(RECIPE.replace(pooling="bp-aa")))
