"""The recipe: everything that decides a descriptor, and the only home of its defaults."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import tomli_w

from coocnet.errors import RecipeError, printable, quoted
from coocnet.fetch import sha256_of

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

T = TypeVar("T")

REVISION = 1
"""Raised whenever the same recipe starts to give other numbers, so that old rows are recognised as old."""

_CT = ("cooccurrence.radius_cells", "cooccurrence.threshold", "cooccurrence.quantile")
_TENSOR = (*_CT, "cooccurrence.filter_sha256")
_CHCO = (*_TENSOR, "cooccurrence.epsilon")
_BILINEAR = ("sketch_dim", "sketch_seed", "signed_root")

POOLINGS: dict[str, tuple[str, ...]] = {
    "ucrow": (),
    "spoc": (),
    "mac": (),
    "rmac": ("rmac_levels",),
    "gem": ("gem_power",),
    "crow": (),
    "sct": _TENSOR,
    "chco": _CHCO,
    "chco-sct": _CHCO,
    "context": (*_TENSOR, "context_power", "value_power"),
    "sct-gem": (*_TENSOR, "context_power", "value_power"),
    "bp-aa": _BILINEAR,
    "bp-act": (*_TENSOR, *_BILINEAR),
    "bp-at": (*_TENSOR, *_BILINEAR),
    "centred": (*_TENSOR, "centre", *_BILINEAR),
    "shih": ("cooccurrence.radius_cells", "signed_root"),
    "shih-chco-sct": ("cooccurrence.radius_cells", "cooccurrence.epsilon"),
    "shih-bp": ("cooccurrence.radius_cells", *_BILINEAR),
}
"""The poolings by name, each with the fields that it reads; ``coocnet.poolings`` has the functions."""
NON_NEGATIVE = ("ucrow", "spoc", "mac", "rmac", "gem", "crow", "sct", "chco", "chco-sct", "context", "sct-gem")
"""The poolings whose rows have no negative entries, as maps after a ReLU have none."""
LEARNABLE = tuple(name for name, fields in POOLINGS.items() if "cooccurrence.filter_sha256" in fields)
"""The poolings that a co-occurrence filter can be learned for."""
PRIORS: dict[str, tuple[str, ...]] = {"none": (), "centre": (), "top-down": ("prior_floor",)}
"""The priors by name, each with the fields that it reads."""
WHITENINGS = ("none", "pca")
"""What :attr:`Recipe.whitening` may be."""
EXPANSIONS = ("none", "aqe", "alpha-qe")
"""What :attr:`Recipe.expansion` may be; ``coocnet.ranking`` has the functions."""


@dataclass(frozen=True)
class Cooccurrence:
    """How the co-occurrence tensor is made.

    Attributes:
        radius_cells: r; the window is (2r+1)² cells. The paper's 4.
        threshold: "mean" of the image's map as in the paper, or a number.
        quantile: a quantile of the image's map instead of ``threshold``; None to use ``threshold``.
        epsilon: ε of the channel weights, relative to the sum over channels; the paper gives none.
        filter: the file of a learned filter, which has a window of its own; empty for the direct filter. Held as
            that file's absolute path where a recipe is loaded from a TOML file beside it.
        filter_sha256: digest of that file, which is checked; :meth:`Recipe.with_filter` sets both.
    """

    radius_cells: int = 4
    threshold: Literal["mean"] | float = "mean"
    quantile: float | None = None
    epsilon: float = 1e-3
    filter: str = ""
    filter_sha256: str = ""


@dataclass(frozen=True)
class Recipe:
    """A descriptor, described. Frozen; read from and written to TOML; its fingerprint marks every file made with it.

    Attributes:
        name: for people; takes no part in the fingerprint.
        backbone: a name in ``BACKBONES``.
        weights: one of the backbone's weights by name, or the path of a file; empty for its first. Where a recipe
            is loaded from a TOML file and such a file lies beside it, held as that file's absolute path.
        tap: the layer whose map is pooled; ``coocnet weights`` lists those of each backbone.
        size_px: limit of the longer side; 0 for none. Pictures are never enlarged.
        scales: factors at which a picture is described; the unit rows are averaged.
        scale_power: exponent of that mean over scales, entry by entry; 1 is the plain mean, cirtorch takes GeM's p.
            Other than 1 it needs a pooling whose rows have no negative entries.
        pooling: one of ``POOLINGS``.
        prior: one of ``PRIORS``; multiplies the map before everything else.
        prior_floor: weight of the bottom row under the top-down prior.
        gem_power: p of GeM.
        rmac_levels: scales of regions of R-MAC.
        cooccurrence: see :class:`Cooccurrence`.
        context_power: g of context pooling and of "sct-gem": how much a cell's co-occurrence counts.
        value_power: q of both: 1 sums activations, a large one takes their maximum.
        sketch_dim: length of a bilinear row by count sketch; 0 for the full d².
        sketch_seed: names the sketch's hash functions.
        signed_root: take the signed square root of a bilinear row.
        centre: for centred co-occurrence, the mean of each channel over the cells of other pictures; empty for the
            mean of the picture itself.
        whitening: "pca", a layer above the stored rows that comes with the package, or that an index learns or is
            given; or "none".
        dim: dimensions kept by the whitening, at most; 0 for as many as there are.
        shrinkage: of a whitening that an index learns on its own collection; see ``fit_pca``. A collection with
            many pictures of few things would lose by plain whitening, which is 0.
        expansion: query expansion of a search, one of ``EXPANSIONS``.
        expansion_neighbours: pictures that a query is expanded by. The paper gives no number; 10 is CroW's.
        expansion_alpha: exponent of their similarities under "alpha-qe". The paper gives none; 3 is the usual one.
    """

    name: str = "mini"
    backbone: str = "mini"
    weights: str = ""
    tap: str = "head"
    size_px: int = 512
    scales: tuple[float, ...] = (1.0,)
    scale_power: float = 1.0
    pooling: str = "context"
    prior: str = "none"
    prior_floor: float = 0.5
    gem_power: float = 3.0
    rmac_levels: int = 3
    cooccurrence: Cooccurrence = field(default_factory=Cooccurrence)
    context_power: float = 2.0
    value_power: float = 1.5
    sketch_dim: int = 8192
    sketch_seed: int = 0
    signed_root: bool = False
    centre: tuple[float, ...] = ()
    whitening: str = "pca"
    dim: int = 512
    shrinkage: float = 10.0
    expansion: str = "none"
    expansion_neighbours: int = 10
    expansion_alpha: float = 3.0

    def __post_init__(self) -> None:
        """Refuses what cannot be described, with the field and its value."""
        if not isinstance(self.cooccurrence, Cooccurrence):
            raise RecipeError(f"cooccurrence is a Cooccurrence, got {quoted(self.cooccurrence)}")
        _check_fields(self)
        _check_fields(self.cooccurrence, "cooccurrence.")
        _check_unions(self)
        _choice("pooling", self.pooling, POOLINGS)
        _choice("prior", self.prior, PRIORS)
        _choice("whitening", self.whitening, WHITENINGS)
        _choice("expansion", self.expansion, EXPANSIONS)
        if self.scale_power != 1 and self.pooling not in NON_NEGATIVE:
            raise RecipeError(
                f"scale_power is 1 where rows may have negative entries, as with pooling {self.pooling!r}, "
                f"got {self.scale_power}"
            )
        c = self.cooccurrence
        if bool(c.filter) != bool(c.filter_sha256):
            raise RecipeError(
                f"a learned filter is named by its file and its digest, got {quoted(c.filter)} and "
                f"{quoted(c.filter_sha256)}; Recipe.with_filter(FILE) sets both"
            )
        if c.filter and self.pooling not in LEARNABLE:
            raise RecipeError(
                f"a learned filter counts under the poolings {', '.join(LEARNABLE)}, but not {self.pooling!r}"
            )

    @classmethod
    def preset(cls, name: str) -> Recipe:
        """A named recipe of :data:`PRESETS`.

        Raises:
            RecipeError: no such preset; the message lists them.
        """
        if name not in PRESETS:
            raise RecipeError(f"no recipe is called {name!r}; there are {', '.join(PRESETS)}, or give a TOML file")
        return PRESETS[name]

    @classmethod
    def load(cls, source: str | os.PathLike[str]) -> Recipe:
        """A preset by name, or a TOML file by path.

        Raises:
            RecipeError: neither, or a file that does not parse.
        """
        given: object = source
        text = os.fspath(given) if isinstance(given, str | os.PathLike) else None
        if not isinstance(text, str):
            raise RecipeError(f"a recipe is a preset's name or the path of a TOML file, got {quoted(given)}")
        path = os.path.expanduser(text)
        if text in PRESETS or not os.path.isfile(path):
            return cls.preset(text)
        folder = os.path.dirname(os.path.abspath(path))
        try:
            recipe = _of_table(_parsed(Path(path).read_text(encoding="utf-8-sig")), folder)
        except (RecipeError, OSError, UnicodeDecodeError) as error:
            raise RecipeError(f"{printable(path)}: {error}") from error
        beside = os.path.join(folder, recipe.weights)
        return recipe.replace(weights=beside) if os.path.isfile(beside) else recipe

    @classmethod
    def from_toml(cls, text: str) -> Recipe:
        """The recipe that ``text`` spells; fields left out have their defaults.

        Raises:
            RecipeError: not TOML, an unknown field, or a value that cannot be.
        """
        return _of_table(_parsed(text))

    def to_toml(self) -> str:
        """The whole recipe as TOML; :meth:`from_toml` gives an equal one back."""
        table = dataclasses.asdict(self)
        table["scales"], table["centre"] = list(self.scales), list(self.centre)
        table["cooccurrence"] = {k: v for k, v in table["cooccurrence"].items() if v is not None}
        return tomli_w.dumps(table)

    def replace(self, **changes: Any) -> Recipe:
        """A copy with some fields changed; ``dim=128``, ``cooccurrence=Cooccurrence(radius_cells=2)``."""
        return dataclasses.replace(self, **changes)

    def with_filter(self, path: str | os.PathLike[str]) -> Recipe:
        """A copy with a learned filter, by the absolute path of its file and its digest.

        Raises:
            RecipeError: the file cannot be read, or the pooling reads no filter.
        """
        place = os.path.abspath(os.path.expanduser(os.fspath(path)))
        named = dataclasses.replace(self.cooccurrence, filter=place, filter_sha256=_filter_digest(place))
        return self.replace(cooccurrence=named)

    def row_table(self) -> dict[str, object]:
        """The fields that decide a stored row: all but the name and what is layered above the rows.

        Fields that this recipe's pooling and prior do not read are left out: they change nothing.
        """
        table: dict[str, object] = {"revision": REVISION}
        read = (*PRIORS[self.prior], *POOLINGS[self.pooling])
        for key in ("backbone", "tap", "size_px", "scales", "pooling", "prior", *read):
            owner, _, name = key.rpartition(".")
            value = getattr(getattr(self, owner) if owner else self, name)
            if name != "filter_sha256" or value:
                table[key] = value
        if len(self.scales) > 1 and self.scale_power != 1:
            table["scale_power"] = self.scale_power
        return table

    def row_fingerprint(self) -> str:
        """Names the rows this recipe stores, with any weights: 16 hexadecimal digits."""
        return _digest(self.row_table())

    def fingerprint(self) -> str:
        """Names the whole recipe, whitening and weights included: 16 hexadecimal digits."""
        weights = os.path.basename(self.weights)
        layers = ("whitening", "dim", "shrinkage", "expansion", "expansion_neighbours", "expansion_alpha")
        above = {name: getattr(self, name) for name in layers}
        return _digest({**self.row_table(), "weights": weights, **above})


def _digest(table: dict[str, object]) -> str:
    text = json.dumps(table, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _parsed(text: str) -> dict[str, Any]:
    try:
        content: dict[str, Any] = tomllib.loads(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise RecipeError(f"not TOML: {printable(str(error))[:_QUOTED]}") from error
    return content


def _of_table(content: dict[str, Any], folder: str = "") -> Recipe:
    """A recipe of parsed TOML; of a file's, the filter that lies beside it is found, and its digest if need be."""
    table = content.pop("cooccurrence", {})
    if not isinstance(table, dict):
        raise RecipeError(f"cooccurrence is a table, got {quoted(table)}")
    named = table.get("filter")
    if folder and named and _is_text(named):
        place = os.path.join(folder, os.path.expanduser(named))
        table = {"filter_sha256": "", **table, "filter": place}
        table["filter_sha256"] = table["filter_sha256"] or _filter_digest(place)
    return _construct(Recipe, {**content, "cooccurrence": _construct(Cooccurrence, table)})


def _filter_digest(path: str) -> str:
    try:
        return sha256_of(path)
    except OSError as error:
        raise RecipeError(f"the filter {printable(path)} cannot be read: {error.strerror}") from error


def _construct(kind: type[T], table: dict[str, Any]) -> T:
    known = [f.name for f in dataclasses.fields(kind)]  # type: ignore[arg-type]
    unknown = [name for name in table if name not in known]
    if unknown:
        raise RecipeError(f"unknown field {quoted(unknown[0])}; there are {', '.join(known)}")
    return kind(**table)


# Upper limits lie far beyond use: they stop a slip of the pen before it takes all memory or time.
_LIMITS: dict[str, tuple[float, float]] = {
    "size_px": (0, 65536),
    "prior_floor": (0, 1),
    "scale_power": (0.01, 1000),
    "gem_power": (0.01, 1000),
    "rmac_levels": (1, 16),
    "radius_cells": (0, 1024),
    "epsilon": (1e-30, 1),
    "context_power": (0.01, 1000),
    "value_power": (0.01, 1000),
    "sketch_dim": (0, 2**20),
    "sketch_seed": (0, 2**32 - 1),
    "dim": (0, 2**20),
    "shrinkage": (0, 10**9),
    "expansion_neighbours": (1, 10**6),
    "expansion_alpha": (0, 1000),
}
_MOST_SCALES = 16
_QUOTED = 300
_MOST_CHANNELS = 65536


def _check_fields(owner: Recipe | Cooccurrence, prefix: str = "") -> None:
    """TOML and callers may hand over anything: each field must have the kind its annotation says, and its limits."""
    for f in dataclasses.fields(owner):
        value = getattr(owner, f.name)
        if f.type == "str" and not _is_text(value):
            raise RecipeError(f"{prefix}{f.name} is a text that can be written as UTF-8, got {quoted(value)}")
        if f.type == "bool" and not isinstance(value, bool):
            raise RecipeError(f"{prefix}{f.name} is true or false, got {quoted(value)}")
        if f.type in {"int", "float"}:
            least, most = _LIMITS[f.name]
            if not _is_number(value, least, most) or (f.type == "int" and not isinstance(value, int)):
                kind = "whole number" if f.type == "int" else "number"
                raise RecipeError(f"{prefix}{f.name} is a {kind} from {least} to {most}, got {quoted(value)}")
            if f.type == "float":
                object.__setattr__(owner, f.name, float(value))


def _check_unions(recipe: Recipe) -> None:
    """The fields whose annotation is no plain kind."""
    c, largest = recipe.cooccurrence, sys.float_info.max
    scales: object = recipe.scales
    if (
        not isinstance(scales, tuple | list)
        or not 1 <= len(scales) <= _MOST_SCALES
        or not all(_is_number(s, 0, 4) and s > 0 for s in scales)
    ):
        raise RecipeError(f"scales is a list of 1 to {_MOST_SCALES} numbers above 0, at most 4, got {quoted(scales)}")
    object.__setattr__(recipe, "scales", tuple(float(s) for s in scales))
    centre: object = recipe.centre
    if (
        not isinstance(centre, tuple | list)
        or len(centre) > _MOST_CHANNELS
        or not all(_is_number(m, -largest, largest) for m in centre)
    ):
        raise RecipeError(f"centre is a list of numbers, one for each channel, got {quoted(centre)}")
    object.__setattr__(recipe, "centre", tuple(float(m) for m in centre))
    if c.threshold != "mean":
        if not _is_number(c.threshold, -largest, largest):
            raise RecipeError(f"cooccurrence.threshold is 'mean' or a finite number, got {quoted(c.threshold)}")
        object.__setattr__(c, "threshold", float(c.threshold))
    if c.quantile is not None:
        if not _is_number(c.quantile, 0, 1):
            raise RecipeError(f"cooccurrence.quantile is a number from 0 to 1, got {quoted(c.quantile)}")
        object.__setattr__(c, "quantile", float(c.quantile))


def _is_text(value: object) -> bool:
    return isinstance(value, str) and not any("\ud800" <= character <= "\udfff" for character in value)


def _is_number(value: object, least: float, most: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most


def _choice(field_name: str, value: str, choices: Collection[str]) -> None:
    if value not in choices:
        raise RecipeError(f"{field_name} is one of {', '.join(choices)}, got {quoted(value)}")


# The paper whitens by what was learned on another collection, which is to be given: nothing is learned on this one.
_PAPER = Recipe(
    name="paper",
    backbone="vgg16",
    weights="caffe",
    tap="pool5",
    size_px=1024,
    pooling="chco-sct",
    whitening="none",
    shrinkage=0.0,
)
TUNED_GEM = "gem-sfm120k"
"""Weights of the fine-tuned baseline of table 7, by name."""
_MULTISCALE = (1.0, 2**-0.5, 0.5)
_PRIORS = {"": "none", "-td": "top-down", "-ct": "centre"}


def _paper() -> Iterator[Recipe]:
    """The rows of the paper's tables 1 to 5 and 7, without those of a learned filter."""
    linear = ("ucrow", "crow", "spoc", "mac", "rmac", "gem")
    rows = [_PAPER.replace(name=f"paper-{pooling}", pooling=pooling) for pooling in linear]
    for short, prior in _PRIORS.items():
        rows.append(_PAPER.replace(name=f"paper-chco-sct{short}", prior=prior))
    rows.append(_PAPER.replace(name="paper-shih-chco-sct-td", pooling="shih-chco-sct", prior="top-down"))
    rows.append(_PAPER.replace(name="paper-bp-aa", pooling="bp-aa"))
    rows.append(_PAPER.replace(name="paper-bp-act", pooling="bp-act"))
    for pooling, dims in (("bp-act", (512, 1024, 2048, 4096)), ("shih-bp", (512, 4096))):
        for dim in dims:
            longer = "" if dim == 512 else f"-{dim}"
            rows.append(
                _PAPER.replace(name=f"paper-{pooling}-td{longer}", pooling=pooling, prior="top-down", dim=dim)
            )
    yield from rows
    without = ("paper-spoc", "paper-mac", "paper-rmac", "paper-gem")
    yield from (row.replace(name=f"{row.name}-aqe", expansion="aqe") for row in rows if row.name not in without)
    for pooling in ("bp-aa", "bp-act"):
        row = _PAPER.replace(name=f"paper-{pooling}-ms", pooling=pooling, scales=_MULTISCALE, dim=8192)
        yield row
        yield row.replace(name=f"{row.name}-alpha-qe", expansion="alpha-qe")
    # The powers are in the checkpoint; coocnet.reproduce puts them in. These stand for it until then.
    tuned = _PAPER.replace(
        name="paper-gem-tuned-ms",
        weights=TUNED_GEM,
        tap="conv5_3",
        pooling="gem",
        scales=_MULTISCALE,
        scale_power=3.0,
    )
    yield tuned
    yield tuned.replace(name="paper-gem-tuned-ms-alpha-qe", expansion="alpha-qe")


PRESETS: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(),
        Recipe(name="resnet101v2", backbone="resnet101v2", tap="block3"),
        Recipe(name="mobile", backbone="mobilenetv2", tap="features"),
        Recipe(name="resnet50", backbone="resnet50", tap="layer3"),
        Recipe(name="chco-sct", pooling="chco-sct"),
        Recipe(name="context", pooling="context"),
        Recipe(name="bp-at", pooling="bp-at", whitening="none"),
        Recipe(name="centred", pooling="centred", whitening="none", cooccurrence=Cooccurrence(radius_cells=1)),
        *_paper(),
    )
}
"""Recipes by name: the default one, those of other networks, those beyond the paper, and the rows of the paper's
tables."""
