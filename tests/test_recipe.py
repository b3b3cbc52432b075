"""Recipes: one home of defaults, TOML in and out, fingerprints that change when and only when rows do."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest

from coocnet.describe import POOLINGS, PRIORS
from coocnet.errors import RecipeError
from coocnet.recipe import POOLINGS as POOLING_NAMES
from coocnet.recipe import PRESETS, Cooccurrence, Recipe
from coocnet.recipe import PRIORS as PRIOR_NAMES


def test_the_names_a_recipe_accepts_are_those_the_describer_has() -> None:
    assert set(POOLING_NAMES) == set(POOLINGS)
    assert set(PRIOR_NAMES) == set(PRIORS)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_survives_toml(name: str) -> None:
    recipe = Recipe.preset(name)
    again = Recipe.from_toml(recipe.to_toml())
    assert again == recipe
    assert again.fingerprint() == recipe.fingerprint()


def test_fields_left_out_of_toml_have_their_defaults() -> None:
    assert Recipe.from_toml("") == Recipe()
    read = Recipe.from_toml('pooling = "gem"\n[cooccurrence]\nradius_cells = 2\n')
    assert read == Recipe(pooling="gem", cooccurrence=Cooccurrence(radius_cells=2))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("size_px = ", "not TOML"),
        ("colour = 1", "colour"),
        ("[cooccurrence]\nradius = 1\n", "radius"),
        ("size_px = -1", "size_px"),
        ("size_px = 1.5", "size_px"),
        ("size_px = true", "size_px"),
        ('pooling = "max"', "ucrow"),
        ('prior = "left"', "top-down"),
        ("scales = []", "scales"),
        ("scales = 1", "scales"),
        ('scales = ["a"]', "scales"),
        ("gem_power = 0", "gem_power"),
        ('cooccurrence = "r4"', "cooccurrence"),
        ("[cooccurrence]\nepsilon = 0.0\n", "epsilon"),
        ('[cooccurrence]\nthreshold = "median"\n', "threshold"),
        ("[cooccurrence]\nquantile = 1.5\n", "quantile"),
        ("backbone = 3", "backbone"),
    ],
)
def test_bad_toml_is_refused_with_the_field(text: str, says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        Recipe.from_toml(text)


def test_an_unknown_preset_lists_those_there_are() -> None:
    with pytest.raises(RecipeError, match="paper-chco-sct-td"):
        Recipe.load("no-such-recipe")


def test_a_toml_file_is_read_and_its_name_is_in_the_error(tmp_path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('name = "mine"\nsize_px = 300\n')
    assert Recipe.load(path).size_px == 300
    path.write_text("size_px = 'big'\n")
    with pytest.raises(RecipeError, match=r"mine\.toml.*'big'"):
        Recipe.load(path)


CHANGES = {
    "name": "other",
    "backbone": "resnet50",
    "weights": "torchvision",
    "tap": "layer3",
    "size_px": 333,
    "scales": (1.0, 0.5),
    "pooling": "crow",
    "prior": "centre",
    "prior_floor": 0.25,
    "gem_power": 4.0,
    "rmac_levels": 2,
    "cooccurrence": Cooccurrence(radius_cells=3),
    "whitening": "none",
    "dim": 128,
    "shrinkage": 1.0,
}
ABOVE_THE_ROWS = {"name", "weights", "whitening", "dim", "shrinkage"}
NOT_READ_BY_CHCO_SCT_WITHOUT_PRIOR = {"prior_floor", "gem_power", "rmac_levels"}


def test_every_field_is_covered_by_the_fingerprint_test() -> None:
    assert set(CHANGES) == {field.name for field in dataclasses.fields(Recipe)}


@pytest.mark.parametrize("field", CHANGES)
def test_the_row_fingerprint_changes_when_and_only_when_the_rows_do(field: str) -> None:
    changed = Recipe().replace(**{field: CHANGES[field]})
    same = field in ABOVE_THE_ROWS | NOT_READ_BY_CHCO_SCT_WITHOUT_PRIOR
    assert (changed.row_fingerprint() == Recipe().row_fingerprint()) is same
    same_recipe = field == "name" or field in NOT_READ_BY_CHCO_SCT_WITHOUT_PRIOR
    assert (changed.fingerprint() == Recipe().fingerprint()) is same_recipe


def test_options_count_where_they_are_read() -> None:
    gem = Recipe(pooling="gem")
    assert gem.replace(gem_power=4.0).row_fingerprint() != gem.row_fingerprint()
    assert gem.replace(cooccurrence=Cooccurrence(radius_cells=1)).row_fingerprint() == gem.row_fingerprint()
    top_down = Recipe(prior="top-down")
    assert top_down.replace(prior_floor=0.1).row_fingerprint() != top_down.row_fingerprint()


def test_an_integer_power_is_the_same_recipe_as_a_float() -> None:
    assert Recipe(pooling="gem", gem_power=3).fingerprint() == Recipe(pooling="gem", gem_power=3.0).fingerprint()


def test_fingerprints_are_the_same_in_every_process() -> None:
    code = "from coocnet.recipe import Recipe; print(Recipe().fingerprint())"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == Recipe().fingerprint()
