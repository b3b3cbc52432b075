"""Recipes as TOML."""

from __future__ import annotations

import dataclasses
from functools import cache
from pathlib import Path
from typing import Any

import tomli_w
from hypothesis import strategies as st

from coocnet.recipe import EXPANSIONS, POOLINGS, PRESETS, PRIORS, WHITENINGS, Cooccurrence, Recipe
from fuzz.target import Reads, Target


@cache
def seeds() -> list[bytes]:
    """What recipes of the table write of themselves, and some as people write them."""
    short = ['pooling = "chco-sct"\nsize_px = 1024\n', "[cooccurrence]\nradius_cells = 2\nthreshold = 0.5\n"]
    some = ("mini", "context", "paper-shih-chco-sct-td", "paper-bp-aa-ms-alpha-qe", "centred")
    return [text.encode() for text in (*short, *(PRESETS[name].to_toml() for name in some))]


def _prepared(folder: Path) -> Reads:
    place = folder / "recipe.toml"

    def reads(data: bytes) -> None:
        place.write_bytes(data)
        recipe = Recipe.load(place)
        assert len(recipe.fingerprint()) == len(recipe.row_fingerprint()) == 16
        assert Recipe.from_toml(recipe.to_toml()) == recipe

    return reads


_texts = st.one_of(
    st.text(max_size=12), st.sampled_from([*POOLINGS, *PRIORS, *WHITENINGS, *EXPANSIONS, "mean", "mini", "../x"])
)
_plain = st.one_of(
    _texts,
    st.booleans(),
    st.integers(-3, 2000),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.datetimes(),
    st.dates(),
    st.times(),
)
_values: st.SearchStrategy[Any] = st.recursive(
    _plain,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(_texts, inner, max_size=3)),
    max_leaves=6,
)


def _fields(kind: type) -> st.SearchStrategy[dict[str, Any]]:
    names = st.one_of(st.sampled_from([field.name for field in dataclasses.fields(kind)]), st.text(max_size=8))
    return st.dictionaries(names, _values, max_size=5)


def _document(own: dict[str, Any], below: dict[str, Any] | None) -> bytes:
    table = own if below is None else {**own, "cooccurrence": below}
    try:
        return tomli_w.dumps(table).encode("utf-8", "surrogatepass")
    except ValueError:  # a number that the writer does not write
        return repr(table).encode("utf-8", "surrogatepass")


def _line(name: str, number: str) -> bytes:
    return f"{name} = {number}\n".encode()


_odd = st.one_of(
    st.integers(3000, 6000).map(lambda count: "0x" + "f" * count),
    st.integers(3000, 6000).map(lambda count: "1" * count),
    st.integers(1, 3000).map(lambda depth: "[" * depth + "]" * depth),
    st.integers(1, 3000).map(lambda depth: "{a=" * depth),
    st.integers(1, 400).map(lambda exponent: f"1e{exponent}"),
)
_named = st.sampled_from([field.name for kind in (Recipe, Cooccurrence) for field in dataclasses.fields(kind)])
RECIPES = Target(
    "recipes (TOML)",
    _prepared,
    seeds,
    st.one_of(
        st.builds(_document, _fields(Recipe), st.none() | _fields(Cooccurrence)), st.builds(_line, _named, _odd)
    ),
    longest_bytes=1 << 13,
)
