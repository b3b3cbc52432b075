"""The recipe's choices as functions: a map to the map under its prior, and to rows that are not yet normalised."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from coocnet import ops
from coocnet.errors import FilterError, InputError, printable
from coocnet.fetch import sha256_of
from coocnet.nn import CooccurrenceFilter, read_filter
from coocnet.recipe import Recipe


def map_mask(a: Float[Tensor, "b d h w"], recipe: Recipe) -> Float[Tensor, "b d h w"]:
    """The recipe's activation mask of a map."""
    return ops.activation_mask(a, _threshold(recipe))


def _threshold(recipe: Recipe) -> ops.Threshold:
    c = recipe.cooccurrence
    return c.threshold if c.quantile is None else ops.Quantile(c.quantile)


def map_cooccurrence(a: Float[Tensor, "b d h w"], recipe: Recipe) -> Float[Tensor, "b d h w"]:
    """The recipe's co-occurrence tensor of a map: direct, or with its learned filter."""
    if recipe.cooccurrence.filter:
        return learned_cooccurrence(a, recipe, recipe_filter(recipe, a.shape[1], a.device))
    return direct_cooccurrence(a, recipe)


def direct_cooccurrence(a: Float[Tensor, "b d h w"], recipe: Recipe) -> Float[Tensor, "b d h w"]:
    """The direct co-occurrence tensor of a map, whether or not the recipe has a learned filter."""
    return ops.direct_cooccurrence(a, radius_cells=recipe.cooccurrence.radius_cells, threshold=_threshold(recipe))


def learned_cooccurrence(
    a: Float[Tensor, "b d h w"], recipe: Recipe, learned: CooccurrenceFilter
) -> Float[Tensor, "b d h w"]:
    """The co-occurrence tensor of a map with a filter on the same device, under the recipe's mask."""
    with torch.no_grad():
        ct: Tensor = learned(a.float(), map_mask(a, recipe).float())
    return ct.to(a.dtype)


def recipe_filter(
    recipe: Recipe,
    channels: int,
    device: torch.device,
    *,
    weights_sha256: str | None = None,
    even_refused: bool = False,
) -> CooccurrenceFilter:
    """The learned filter of a recipe; read once, checked, and kept for the next map.

    Args:
        recipe: names it.
        channels: of the maps.
        device: where it is to be.
        weights_sha256: of the network, to be compared with those that it was learned over; None to leave that.
        even_refused: also one that its gate refused, to look at.

    Raises:
        FilterError: its file is missing, damaged, another one than the recipe names, for other maps than these, or
            one that its gate refused.
    """
    c = recipe.cooccurrence
    learned, provenance = _filter(c.filter, c.filter_sha256, device)
    name = printable(c.filter)
    made_for = {key: provenance.get(key) for key in ("backbone", "tap")}
    here = {"backbone": recipe.backbone, "tap": recipe.tap}
    if learned.channels != channels or (any(made_for.values()) and made_for != here):
        network = " ".join(filter(None, made_for.values())) or "a network that it does not name"
        raise FilterError(
            f"{name} was learned on maps of {learned.channels} channels of {network}; "
            f"{recipe.backbone} {recipe.tap} has {channels}. Give the recipe that was written with the filter."
        )
    theirs = provenance.get("weights_sha256", "")
    if weights_sha256 and theirs and theirs != weights_sha256:
        raise FilterError(
            f"{name} was learned over weights of SHA-256 {theirs[:12]}…, not {weights_sha256[:12]}…. Give the weights"
            " it was learned over, or train one over these."
        )
    if not even_refused and provenance.get("gate", "passed") != "passed":
        raise FilterError(
            f"{name} was refused by its gate: on held-out pictures it is worse than the direct filter "
            f"({provenance.get('gate_judged')}). Use a recipe without it, or train on more or other pictures."
        )
    return learned


@lru_cache(maxsize=4)
def _filter(path: str, digest: str, device: torch.device) -> tuple[CooccurrenceFilter, dict[str, str]]:
    try:
        content_digest = sha256_of(path)
    except OSError as error:
        raise FilterError(
            f"the recipe's filter {printable(path)} cannot be read: {error.strerror}. Put it back, or give a recipe "
            "that names it where it is now."
        ) from error
    if content_digest != digest:
        raise FilterError(
            f"{printable(path)} is not the filter of the recipe: its SHA-256 is {content_digest[:12]}…, not "
            f"{digest[:12]}…. To use it nevertheless, take filter_sha256 out of the recipe."
        )
    learned, provenance = read_filter(path)
    return learned.to(device).eval().requires_grad_(False), provenance


def map_cooccurrence_sums(a: Float[Tensor, "b d h w"], recipe: Recipe) -> ops.CooccurrenceSums:
    """The sums of the recipe's co-occurrence tensor; of the direct one without the tensor."""
    if recipe.cooccurrence.filter:
        return ops.cooccurrence_sums(map_cooccurrence(a, recipe))
    radius_cells = recipe.cooccurrence.radius_cells
    return ops.direct_cooccurrence_sums(a, radius_cells=radius_cells, threshold=_threshold(recipe))


def map_context(a: Float[Tensor, "b d h w"], recipe: Recipe) -> Float[Tensor, "b h w"]:
    """The recipe's co-occurrence context of a map: direct, or of the tensor of its learned filter."""
    if recipe.cooccurrence.filter:
        return ops.tensor_context(map_cooccurrence(a, recipe), map_mask(a, recipe))
    return ops.context(a, radius_cells=recipe.cooccurrence.radius_cells, threshold=_threshold(recipe))


def _power_pooled(a: Tensor, weights: Tensor, recipe: Recipe) -> Tensor:
    return ops.power_pooling(a, weights, weight_power=recipe.context_power, power=recipe.value_power)


def _bilinear(a: Tensor, b: Tensor | None, recipe: Recipe, weights: Tensor | None = None) -> Tensor:
    if recipe.sketch_dim:
        sketch = ops.Sketch(a.shape[1], recipe.sketch_dim, recipe.sketch_seed)
        rows = ops.compact_bilinear(a, b, sketch=sketch, weights=weights)
    else:
        rows = ops.bilinear(a, b, weights=weights)
    return _rooted(rows, recipe)


def _rooted(rows: Tensor, recipe: Recipe) -> Tensor:
    return ops.signed_root(rows) if recipe.signed_root else rows


def centred_factors(
    a: Float[Tensor, "b d h w"], recipe: Recipe, ct: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """The two factors of the recipe's centred co-occurrence, and the weights of the cells."""
    ct = map_cooccurrence(a, recipe) if ct is None else ct
    mean = a.new_tensor(recipe.centre) if recipe.centre else None
    left, right = ops.centred_cooccurrence_pair(a, radius_cells=recipe.cooccurrence.radius_cells, mean=mean)
    return left, right, ops.sct_weights(ct, a_norm=1, b_root=1)


def _centred(a: Tensor, ct: Tensor, recipe: Recipe) -> Tensor:
    left, right, weights = centred_factors(a, recipe, ct)
    return _bilinear(left, right, recipe, weights)


def _channel_weights(sums: ops.CooccurrenceSums, recipe: Recipe) -> Tensor:
    return ops.channel_weights(sums.channels, epsilon=recipe.cooccurrence.epsilon)


def _under_cell_weights(a: Tensor, sums: ops.CooccurrenceSums) -> Tensor:
    return ops.weighted_sum(a, ops.cell_weights(sums.cells))


POOLED_WITH_SUMS: dict[str, Callable[[Tensor, ops.CooccurrenceSums, Recipe], Tensor]] = {
    "sct": lambda a, sums, _: _under_cell_weights(a, sums),
    "chco": lambda a, sums, recipe: _channel_weights(sums, recipe) * a.sum(dim=(2, 3)),
    "chco-sct": lambda a, sums, recipe: _channel_weights(sums, recipe) * _under_cell_weights(a, sums),
    "sct-gem": lambda a, sums, recipe: _power_pooled(a, sums.cells, recipe),
}
"""The poolings that read nothing of the co-occurrence tensor but its sums, from a map and those."""


def _through_sums(
    pooled: Callable[[Tensor, ops.CooccurrenceSums, Recipe], Tensor],
) -> Callable[[Tensor, Tensor, Recipe], Tensor]:
    return lambda a, ct, recipe: pooled(a, ops.cooccurrence_sums(ct), recipe)


def _with_sums(
    pooled: Callable[[Tensor, ops.CooccurrenceSums, Recipe], Tensor],
) -> Callable[[Tensor, Recipe], Tensor]:
    return lambda a, recipe: pooled(a, map_cooccurrence_sums(a, recipe), recipe)


POOLED_WITH: dict[str, Callable[[Tensor, Tensor, Recipe], Tensor]] = {
    **{name: _through_sums(pooled) for name, pooled in POOLED_WITH_SUMS.items()},
    "context": lambda a, ct, recipe: _power_pooled(a, ops.tensor_context(ct, map_mask(a, recipe)), recipe),
    "bp-act": _bilinear,
    "bp-at": lambda a, ct, r: _bilinear(a, None, r, ops.tensor_context(ct, map_mask(a, r))),
    "centred": _centred,
}
"""The poolings that read the co-occurrence tensor: a map and its tensor to rows that are not yet normalised."""


def _with_cooccurrence(pooled: Callable[[Tensor, Tensor, Recipe], Tensor]) -> Callable[[Tensor, Recipe], Tensor]:
    return lambda a, recipe: pooled(a, map_cooccurrence(a, recipe), recipe)


def _shih(a: Tensor, recipe: Recipe) -> Tensor:
    return ops.shih_tensor(a, radius_cells=recipe.cooccurrence.radius_cells)


POOLINGS: dict[str, Callable[[Tensor, Recipe], Tensor]] = {
    "ucrow": lambda a, _: ops.ucrow(a),
    "spoc": lambda a, _: ops.spoc(a),
    "mac": lambda a, _: ops.mac(a),
    "rmac": lambda a, recipe: ops.rmac(a, levels=recipe.rmac_levels),
    "gem": lambda a, recipe: ops.gem(a, power=recipe.gem_power),
    "crow": lambda a, _: ops.crow(a),
    "bp-aa": lambda a, recipe: _bilinear(a, None, recipe),
    "shih": lambda a, r: _rooted(ops.shih_vector(a, radius_cells=r.cooccurrence.radius_cells), r),
    "shih-chco-sct": lambda a, recipe: POOLED_WITH["chco-sct"](a, _shih(a, recipe), recipe),
    "shih-bp": lambda a, recipe: _bilinear(a, _shih(a, recipe), recipe),
    **{name: _with_cooccurrence(pooled) for name, pooled in POOLED_WITH.items()},
    **{name: _with_sums(pooled) for name, pooled in POOLED_WITH_SUMS.items()},
    "context": lambda a, recipe: _power_pooled(a, map_context(a, recipe), recipe),
    "bp-at": lambda a, recipe: _bilinear(a, None, recipe, map_context(a, recipe)),
}
"""The recipe's poolings by name: a map, after the prior, to rows that are not yet normalised."""

PRIORS: dict[str, Callable[[Tensor, Recipe], Tensor]] = {
    "none": lambda a, _: a,
    "centre": lambda a, _: a * ops.centre_prior(a.shape[2], a.shape[3], like=a),
    "top-down": lambda a, r: a * ops.top_down_prior(a.shape[2], a.shape[3], floor=r.prior_floor, like=a),
}
"""The recipe's priors by name: a map to the weighted map."""

SECOND_ORDER = ("bp-aa", "bp-act", "bp-at", "centred", "shih-bp")
"""Poolings whose rows hold pairs of channels, sketched or in full."""


def row_dim(recipe: Recipe, channels: int) -> int:
    """Dimensions of a row of a map of so many channels."""
    if recipe.pooling in SECOND_ORDER:
        return recipe.sketch_dim or channels**2
    return channels * (channels + 1) // 2 if recipe.pooling == "shih" else channels


def need_centre(recipe: Recipe, channels: int) -> None:
    """Refuses a recipe whose learned centre is of another network.

    Raises:
        InputError: the centre has another number of channels than the map.
    """
    if recipe.pooling == "centred" and recipe.centre and len(recipe.centre) != channels:
        raise InputError(
            f"the recipe's centre has {len(recipe.centre)} numbers, but {recipe.backbone} {recipe.tap} has "
            f"{channels} channels: learn it on maps of this network"
        )
