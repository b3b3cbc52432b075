"""The recipe's poolings and priors: contracts that hold for every entry of the tables."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from coocnet import ops
from coocnet.errors import InputError
from coocnet.poolings import POOLINGS, PRIORS, need_centre, row_dim
from coocnet.recipe import Cooccurrence, Recipe

CHANNELS = 7
RECIPE = Recipe(
    cooccurrence=Cooccurrence(radius_cells=1), sketch_dim=64, centre=tuple(0.1 * k for k in range(CHANNELS))
)
OTHER_VALUES = {
    "prior_floor": 0.25,
    "gem_power": 4.0,
    "rmac_levels": 2,
    "context_power": 1.0,
    "value_power": 2.0,
    "sketch_dim": 0,
    "sketch_seed": 1,
    "signed_root": True,
    "centre": (),
    "cooccurrence.radius_cells": 2,
    "cooccurrence.threshold": 1.0,
    "cooccurrence.quantile": 0.8,
    "cooccurrence.epsilon": 0.1,
}


def a_map(height: int = 5, width: int = 6) -> torch.Tensor:
    return torch.relu(torch.randn(2, CHANNELS, height, width, generator=torch.Generator().manual_seed(0)))


def with_other(recipe: Recipe, field: str) -> Recipe:
    owner, _, name = field.rpartition(".")
    if not owner:
        return recipe.replace(**{name: OTHER_VALUES[field]})
    return recipe.replace(cooccurrence=dataclasses.replace(recipe.cooccurrence, **{name: OTHER_VALUES[field]}))


@pytest.mark.parametrize("field", OTHER_VALUES)
@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_pooling_reads_just_the_fields_that_its_fingerprint_counts(pooling: str, field: str) -> None:
    recipe = RECIPE.replace(pooling=pooling)
    changed = with_other(recipe, field)
    rows, other = (ops.unit_rows(POOLINGS[pooling](a_map(), one)) for one in (recipe, changed))
    same_rows = rows.shape == other.shape and torch.equal(rows, other)
    assert same_rows == (recipe.row_fingerprint() == changed.row_fingerprint())


@pytest.mark.parametrize("field", OTHER_VALUES)
@pytest.mark.parametrize("prior", PRIORS)
def test_a_prior_reads_just_the_fields_that_its_fingerprint_counts(prior: str, field: str) -> None:
    recipe = RECIPE.replace(prior=prior, pooling="ucrow")
    changed = with_other(recipe, field)
    same = torch.equal(PRIORS[prior](a_map(), recipe), PRIORS[prior](a_map(), changed))
    assert same == (recipe.row_fingerprint() == changed.row_fingerprint())


@pytest.mark.parametrize("sketch_dim", [0, 64])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_rows_have_the_dimensions_that_are_announced(pooling: str, sketch_dim: int) -> None:
    recipe = RECIPE.replace(pooling=pooling, sketch_dim=sketch_dim)
    assert POOLINGS[pooling](a_map(), recipe).shape == (2, row_dim(recipe, CHANNELS))


@pytest.mark.parametrize("kind", ["zero", "constant", "one cell", "one channel"])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_every_pooling_is_defined_on_every_map(pooling: str, kind: str) -> None:
    a = a_map(1, 1) if kind == "one cell" else a_map()
    a = {"zero": 0 * a, "constant": torch.ones_like(a), "one cell": a, "one channel": a.clone()}[kind]
    if kind == "one channel":
        a[:, 1:] = 0
    for prior in PRIORS:
        for centre in ((), RECIPE.centre):
            recipe = RECIPE.replace(pooling=pooling, prior=prior, centre=centre)
            assert POOLINGS[pooling](PRIORS[prior](a, recipe), recipe).isfinite().all()


def test_a_window_over_the_whole_map_leaves_nothing_of_a_map_centred_by_its_own_mean() -> None:
    recipe = RECIPE.replace(pooling="centred", centre=(), cooccurrence=Cooccurrence(radius_cells=9))
    assert not POOLINGS["centred"](a_map(), recipe).any()


def test_a_centre_of_another_network_is_refused() -> None:
    recipe = RECIPE.replace(pooling="centred")
    need_centre(recipe, CHANNELS)
    with pytest.raises(InputError, match=r"has 7 numbers, but .* has 512 channels"):
        need_centre(recipe, 512)
