"""What is compared on real photographs: each variant a recipe, and some a pooling of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from coocnet import ops
from coocnet.poolings import POOLINGS, PRIORS, map_mask
from coocnet.recipe import Cooccurrence, Recipe

SHIH_AXES = 128
SHIH_CHANNELS = 128
WHOLE = 1024
_PRIOR_NAMES = {"ct": "centre", "td": "top-down"}


@dataclass(frozen=True)
class Learned:
    """What some variants need beforehand, learned on pictures of no set.

    Attributes:
        mean: of each channel over the cells, (d,).
        axes: the first principal directions of cells, (SHIH_AXES, d).
        channels: those that vary most, (SHIH_CHANNELS,).
    """

    mean: Tensor
    axes: Tensor
    channels: Tensor


@dataclass(frozen=True)
class Variant:
    """One way from a map to a row.

    Attributes:
        name: of the variant.
        group: of the table it stands in.
        recipe: says the prior and the pooling.
        pooled: the map under the prior to rows; the recipe's pooling if not given.
        multiscale: also to be averaged over scales.
    """

    name: str
    group: str
    recipe: Recipe
    pooled: Callable[[Tensor, Recipe], Tensor] | None = None
    multiscale: bool = False

    def row(self, a: Tensor) -> Tensor:
        """A unit row of a map (1, d, h, w)."""
        weighted = PRIORS[self.recipe.prior](a, self.recipe)
        return ops.unit_rows((self.pooled or POOLINGS[self.recipe.pooling])(weighted, self.recipe))[0]


def variants(base: Recipe, learned: Learned) -> list[Variant]:
    """Every variant, with the base recipe's defaults in all that it does not change."""
    base = base.replace(prior="none", scales=(1.0,))
    return [*_methods(base, learned), *_ablations(base)]


def _methods(base: Recipe, learned: Learned) -> Iterator[Variant]:
    for pooling in ("ucrow", "crow", "mac", "rmac", "gem", "sct", "chco", "chco-sct", "context"):
        yield Variant(pooling, "linear", base.replace(pooling=pooling), multiscale=True)
    yield Variant("spoc (ucrow-ct)", "linear, prior", base.replace(pooling="spoc"), multiscale=True)
    for pooling in ("ucrow", "crow", "gem", "chco-sct", "context"):
        for short, prior in _PRIOR_NAMES.items():
            if (pooling, short) != ("ucrow", "ct"):
                recipe = base.replace(pooling=pooling, prior=prior)
                yield Variant(f"{pooling}-{short}", "linear, prior", recipe, multiscale=True)
    for pooling in ("bp-aa", "bp-act", "bp-at"):
        yield Variant(pooling, "second order", base.replace(pooling=pooling), multiscale=True)
    for pooling in ("bp-aa", "bp-act"):
        recipe = base.replace(pooling=pooling, prior="top-down")
        yield Variant(f"{pooling}-td", "second order, prior", recipe, multiscale=True)
    centred = _with(base.replace(pooling="centred"), radius_cells=1)
    yield Variant("centred (own mean)", "second order", centred, multiscale=True)
    centre = tuple(learned.mean.tolist())
    yield Variant("centred (learned mean)", "second order", centred.replace(centre=centre), multiscale=True)

    def on_axes(a: Tensor, recipe: Recipe) -> Tensor:
        return POOLINGS[recipe.pooling](ops.reduce_channels(a, learned.axes), recipe)

    def on_channels(a: Tensor, recipe: Recipe) -> Tensor:
        return POOLINGS[recipe.pooling](a[:, learned.channels].contiguous(), recipe)

    group = "Shih et al."
    yield Variant(f"shih (vector, {SHIH_AXES} axes)", group, base.replace(pooling="shih"), on_axes)
    unsketched = base.replace(pooling="bp-aa", sketch_dim=0)
    yield Variant(f"bp-aa (full, {SHIH_AXES} axes)", group, unsketched, on_axes)
    for pooling in ("shih-chco-sct", "chco-sct", "shih-bp", "bp-act"):
        yield Variant(f"{pooling} ({SHIH_CHANNELS} channels)", group, base.replace(pooling=pooling), on_channels)


def _ablations(base: Recipe) -> Iterator[Variant]:
    chco, act = base.replace(pooling="chco-sct"), base.replace(pooling="bp-act")
    for name, recipe in (("chco-sct", chco), ("bp-act", act)):
        yield Variant(f"{name}, threshold 0", "ablation", _with(recipe, threshold=0.0))
        for radius in (1, 2, 8, WHOLE):
            label = "whole map" if radius == WHOLE else f"r = {radius}"
            yield Variant(f"{name}, {label}", "ablation", _with(recipe, radius_cells=radius))
    yield Variant("chco-sct, threshold median", "ablation", _with(chco, quantile=0.5))
    for epsilon in (1e-6, 1e-4, 1e-2, 1e-1):
        yield Variant(f"chco-sct, ε = {epsilon:g}", "ablation", _with(chco, epsilon=epsilon))
    yield Variant("chco-sct, own channel kept", "ablation", chco, _chco_with_own)
    yield Variant("bp-act, own channel kept", "ablation", act, _bp_with_own)
    for pooling in ("bp-aa", "bp-act", "bp-at"):
        rooted = base.replace(pooling=pooling, signed_root=True)
        yield Variant(f"{pooling}, signed root", "ablation", rooted)
    for floor in (0.0, 0.25, 0.75):
        lower = chco.replace(prior="top-down", prior_floor=floor)
        yield Variant(f"chco-sct-td, floor {floor:g}", "ablation", lower)
    context = base.replace(pooling="context")
    for g, q in ((1.0, 1.0), (1.0, 1.5), (1.0, 2.0), (2.0, 1.0), (2.0, 2.0), (3.0, 1.5)):
        powers = context.replace(context_power=g, value_power=q)
        yield Variant(f"context, g = {g:g}, q = {q:g}", "ablation", powers)
    yield Variant("context, whole map", "ablation", _with(context, radius_cells=WHOLE))


def _with(recipe: Recipe, **changes: Any) -> Recipe:
    cooccurrence: Cooccurrence = replace(recipe.cooccurrence, **changes)
    return recipe.replace(cooccurrence=cooccurrence)


def _own_kept(a: Tensor, recipe: Recipe) -> Tensor:
    """ρ_k · box(Σ_w X_w) / (d − 1): the co-occurrence tensor without the exclusion of the own channel."""
    mask = map_mask(a, recipe)
    context = ops.context(a, radius_cells=recipe.cooccurrence.radius_cells, mask=mask)
    return mask.to(a.dtype) * context[:, None] / (a.shape[1] - 1)


def _chco_with_own(a: Tensor, recipe: Recipe) -> Tensor:
    return ops.chco_sct(a, _own_kept(a, recipe), epsilon=recipe.cooccurrence.epsilon)


def _bp_with_own(a: Tensor, recipe: Recipe) -> Tensor:
    sketch = ops.Sketch(a.shape[1], recipe.sketch_dim, recipe.sketch_seed)
    return ops.compact_bilinear(a, _own_kept(a, recipe), sketch=sketch)


def learn(maps: Iterator[Tensor]) -> Learned:
    """What the variants need, from the cells of maps (d, h, w); every cell counts alike."""
    count, total, products = 0, None, None
    for a in maps:
        cells = a.flatten(1).double()
        count += cells.shape[1]
        total = cells.sum(1) if total is None else total + cells.sum(1)
        products = cells @ cells.T if products is None else products + cells @ cells.T
    assert total is not None
    assert products is not None
    mean = total / count
    covariance = products / count - torch.outer(mean, mean)
    _, vectors = torch.linalg.eigh(covariance)
    most = covariance.diagonal().argsort(descending=True)[:SHIH_CHANNELS]
    return Learned(mean.float(), vectors[:, -SHIH_AXES:].flip(1).T.float().contiguous(), most.sort().values)
