"""Recipes: one home of defaults, TOML in and out, fingerprints that change when and only when rows do."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from coocnet.errors import RecipeError
from coocnet.poolings import POOLINGS, PRIORS
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
        ('expansion = "more"', "alpha-qe"),
        ("signed_root = 1", "signed_root .*1"),
        ("sketch_seed = 4294967296", "sketch_seed .*4294967296"),
        ("centre = [nan]", "centre .*nan"),
        ("centre = 1.0", "centre .*1.0"),
        ("scales = []", "scales"),
        ("scales = 1", "scales"),
        ('scales = ["a"]', "scales"),
        ("gem_power = 0", "gem_power"),
        ('cooccurrence = "r4"', "cooccurrence"),
        ("[cooccurrence]\nepsilon = 0.0\n", "epsilon"),
        ('[cooccurrence]\nthreshold = "median"\n', "threshold"),
        ("[cooccurrence]\nquantile = 1.5\n", "quantile"),
        ("backbone = 3", "backbone"),
        ("size_px = 65537", "size_px .*65537"),
        ("rmac_levels = 17", "rmac_levels .*17"),
        ("dim = 1048577", "dim .*1048577"),
        ("gem_power = 1001", "gem_power .*1001"),
        ("gem_power = inf", "gem_power .*inf"),
        ("gem_power = nan", "gem_power .*nan"),
        pytest.param(f"gem_power = 1{'0' * 400}", "gem_power .*1000", id="a power of 401 digits"),
        pytest.param(f"dim = 1{'0' * 5000}", "not TOML", id="more digits than Python reads"),
        pytest.param(f"dim = {'[' * 5000}", "not TOML", id="brackets without end"),
        ("prior_floor = nan", "prior_floor .*nan"),
        ("shrinkage = inf", "shrinkage .*inf"),
        ("shrinkage = nan", "shrinkage .*nan"),
        ("scales = [1.0, nan]", "scales .*nan"),
        ("scales = [1.0, 5]", "scales .*5"),
        ("scales = [true]", "scales .*True"),
        (f"scales = {[1.0] * 17}", "scales .*1 to 16"),
        ("[cooccurrence]\nradius_cells = 1025\n", "cooccurrence.radius_cells .*1025"),
        ("[cooccurrence]\nradius_cells = true\n", "cooccurrence.radius_cells .*True"),
        ("[cooccurrence]\nepsilon = inf\n", "cooccurrence.epsilon .*inf"),
        ("[cooccurrence]\nepsilon = nan\n", "cooccurrence.epsilon .*nan"),
        ("[cooccurrence]\nepsilon = 1e-300\n", "cooccurrence.epsilon .*1e-300"),
        ("[cooccurrence]\nthreshold = inf\n", "cooccurrence.threshold .*inf"),
        ("[cooccurrence]\nthreshold = nan\n", "cooccurrence.threshold .*nan"),
        ("[cooccurrence]\nthreshold = true\n", "cooccurrence.threshold .*True"),
        ("[cooccurrence]\nquantile = nan\n", "cooccurrence.quantile .*nan"),
        ("[cooccurrence]\nquantile = true\n", "cooccurrence.quantile .*True"),
    ],
)
def test_bad_toml_is_refused_with_the_field(text: str, says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        Recipe.from_toml(text)


def test_the_largest_values_are_accepted() -> None:
    largest = Cooccurrence(radius_cells=1024, threshold=-1e30, quantile=1, epsilon=1)
    recipe = Recipe(size_px=65536, rmac_levels=16, gem_power=1000, dim=2**20, scales=(4,) * 16, cooccurrence=largest)
    assert Recipe.from_toml(recipe.to_toml()) == recipe


@pytest.mark.parametrize("name", ["no-such-recipe", "x" * 5000, "~nouser-of-this-name/x", "a\0b", "", "."])
def test_a_recipe_that_is_not_there_lists_the_presets(name: str) -> None:
    with pytest.raises(RecipeError, match="paper-chco-sct-td") as caught:
        Recipe.load(name)
    assert repr(name) in str(caught.value)


@pytest.mark.parametrize("source", [None, 7, b"mobile", ["mobile"], Recipe()], ids=lambda value: type(value).__name__)
def test_a_source_that_is_neither_name_nor_path_is_refused(source: Any) -> None:
    with pytest.raises(RecipeError, match=r"preset.*TOML file.*got"):
        Recipe.load(source)


def test_a_toml_file_is_read_and_its_name_is_in_the_error(tmp_path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('name = "mine"\nsize_px = 300\n')
    assert Recipe.load(path).size_px == 300
    path.write_text("size_px = 'big'\n")
    with pytest.raises(RecipeError, match=r"mine\.toml.*'big'"):
        Recipe.load(path)


def test_weights_beside_the_toml_file_are_found_from_every_folder(tmp_path: Path, monkeypatch) -> None:
    mine = tmp_path / "mine"
    (mine / "nets").mkdir(parents=True)
    toml, weights = mine / "recipe.toml", mine / "nets" / "own.pth"
    weights.touch()
    toml.write_text('weights = "nets/own.pth"\n')
    for folder, name in ((tmp_path, "mine/recipe.toml"), (mine, "recipe.toml"), (mine / "nets", toml)):
        monkeypatch.chdir(folder)
        assert Recipe.load(name).weights == str(weights)


@pytest.mark.parametrize("weights", ["torchvision", "elsewhere/own.pth", "/elsewhere/own.pth", "~/own.pth", ""])
def test_weights_that_do_not_lie_beside_the_toml_file_stay_as_they_are(tmp_path: Path, weights: str) -> None:
    (tmp_path / "recipe.toml").write_text(f'weights = "{weights}"\n')
    assert Recipe.load(tmp_path / "recipe.toml").weights == weights


CHANGES = {
    "name": "other",
    "backbone": "resnet50",
    "weights": "torchvision",
    "tap": "layer3",
    "size_px": 333,
    "scales": (1.0, 0.5),
    "scale_power": 3.0,
    "pooling": "crow",
    "prior": "centre",
    "prior_floor": 0.25,
    "gem_power": 4.0,
    "rmac_levels": 2,
    "cooccurrence": Cooccurrence(radius_cells=3),
    "context_power": 1.0,
    "value_power": 2.0,
    "sketch_dim": 1024,
    "sketch_seed": 1,
    "signed_root": True,
    "centre": (0.5,),
    "whitening": "none",
    "dim": 128,
    "shrinkage": 1.0,
    "expansion": "aqe",
    "expansion_neighbours": 5,
    "expansion_alpha": 2.0,
}
ABOVE_THE_ROWS = {
    "name", "weights", "whitening", "dim", "shrinkage", "expansion", "expansion_neighbours", "expansion_alpha",
}  # fmt: skip
NOT_READ_BY_CHCO_SCT_WITHOUT_PRIOR = {
    "prior_floor", "gem_power", "rmac_levels", "context_power", "value_power", "sketch_dim", "sketch_seed",
    "signed_root", "centre", "scale_power",
}  # fmt: skip


def test_every_field_is_covered_by_the_fingerprint_test() -> None:
    assert set(CHANGES) == {field.name for field in dataclasses.fields(Recipe)}


@pytest.mark.parametrize("field", CHANGES)
def test_the_row_fingerprint_changes_when_and_only_when_the_rows_do(field: str) -> None:
    chco_sct = Recipe(pooling="chco-sct")
    changed = chco_sct.replace(**{field: CHANGES[field]})
    same = field in ABOVE_THE_ROWS | NOT_READ_BY_CHCO_SCT_WITHOUT_PRIOR
    assert (changed.row_fingerprint() == chco_sct.row_fingerprint()) is same
    same_recipe = field == "name" or field in NOT_READ_BY_CHCO_SCT_WITHOUT_PRIOR
    assert (changed.fingerprint() == chco_sct.fingerprint()) is same_recipe


def test_an_integer_is_the_same_recipe_as_a_float() -> None:
    assert Recipe(pooling="gem", gem_power=3).fingerprint() == Recipe(pooling="gem", gem_power=3.0).fingerprint()
    for field in ("threshold", "quantile"):
        whole, real = (Recipe(cooccurrence=Cooccurrence(**{field: one})) for one in (1, 1.0))
        assert whole.fingerprint() == real.fingerprint()


def test_fingerprints_are_the_same_in_every_process() -> None:
    code = "from coocnet.recipe import Recipe; print(Recipe().fingerprint())"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == Recipe().fingerprint()


def test_a_power_mean_over_scales_needs_rows_without_negative_entries() -> None:
    with pytest.raises(RecipeError, match=r"scale_power is 1 .* 'bp-act', got 3.0"):
        Recipe(pooling="bp-act", scale_power=3.0)
    assert Recipe(scale_power=3.0).row_fingerprint() == Recipe().row_fingerprint()
    several = Recipe(scales=(1.0, 0.5))
    assert several.replace(scale_power=3.0).row_fingerprint() != several.row_fingerprint()


def test_the_defaults_are_those_that_the_documentation_states() -> None:
    recipe = Recipe()
    assert (recipe.pooling, recipe.prior, recipe.whitening, recipe.dim) == ("context", "none", "pca", 512)
    assert (recipe.context_power, recipe.value_power) == (2.0, 1.5)
    assert (recipe.expansion, recipe.expansion_neighbours, recipe.expansion_alpha) == ("none", 10, 3.0)
    assert (recipe.sketch_dim, recipe.cooccurrence) == (8192, Cooccurrence(4, "mean", None, 1e-3))
