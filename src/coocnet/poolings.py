"""The recipe's choices as functions: a map to the map under its prior, and to rows that are not yet normalised."""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

from coocnet import ops
from coocnet.errors import InputError
from coocnet.recipe import Recipe


def map_mask(a: Float[Tensor, "b d h w"], recipe: Recipe) -> Float[Tensor, "b d h w"]:
    """The recipe's activation mask of a map."""
    c = recipe.cooccurrence
    return ops.activation_mask(a, c.threshold if c.quantile is None else ops.Quantile(c.quantile))


def map_cooccurrence(a: Float[Tensor, "b d h w"], recipe: Recipe) -> Float[Tensor, "b d h w"]:
    """The recipe's direct co-occurrence tensor of a map."""
    return ops.direct_cooccurrence(a, radius_cells=recipe.cooccurrence.radius_cells, mask=map_mask(a, recipe))


def map_context(a: Float[Tensor, "b d h w"], recipe: Recipe) -> Float[Tensor, "b h w"]:
    """The recipe's co-occurrence context of a map."""
    return ops.context(a, radius_cells=recipe.cooccurrence.radius_cells, mask=map_mask(a, recipe))


def _chco_sct(a: Tensor, ct: Tensor, recipe: Recipe) -> Tensor:
    return ops.chco_sct(a, ct, epsilon=recipe.cooccurrence.epsilon)


def _context(a: Tensor, recipe: Recipe) -> Tensor:
    return ops.context_pooling(
        a,
        radius_cells=recipe.cooccurrence.radius_cells,
        mask=map_mask(a, recipe),
        context_power=recipe.context_power,
        power=recipe.value_power,
    )


def _bilinear(a: Tensor, b: Tensor | None, recipe: Recipe, weights: Tensor | None = None) -> Tensor:
    if recipe.sketch_dim:
        sketch = ops.Sketch(a.shape[1], recipe.sketch_dim, recipe.sketch_seed)
        rows = ops.compact_bilinear(a, b, sketch=sketch, weights=weights)
    else:
        rows = ops.bilinear(a, b, weights=weights)
    return _rooted(rows, recipe)


def _rooted(rows: Tensor, recipe: Recipe) -> Tensor:
    return ops.signed_root(rows) if recipe.signed_root else rows


def centred_factors(a: Float[Tensor, "b d h w"], recipe: Recipe) -> tuple[Tensor, Tensor, Tensor]:
    """The two factors of the recipe's centred co-occurrence, and the weights of the cells."""
    mean = a.new_tensor(recipe.centre) if recipe.centre else None
    left, right = ops.centred_cooccurrence_pair(a, radius_cells=recipe.cooccurrence.radius_cells, mean=mean)
    return left, right, ops.sct_weights(map_cooccurrence(a, recipe), a_norm=1, b_root=1)


def _centred(a: Tensor, recipe: Recipe) -> Tensor:
    left, right, weights = centred_factors(a, recipe)
    return _bilinear(left, right, recipe, weights)


def _shih(a: Tensor, recipe: Recipe) -> Tensor:
    return ops.shih_tensor(a, radius_cells=recipe.cooccurrence.radius_cells)


POOLINGS: dict[str, Callable[[Tensor, Recipe], Tensor]] = {
    "ucrow": lambda a, _: ops.ucrow(a),
    "spoc": lambda a, _: ops.spoc(a),
    "mac": lambda a, _: ops.mac(a),
    "rmac": lambda a, recipe: ops.rmac(a, levels=recipe.rmac_levels),
    "gem": lambda a, recipe: ops.gem(a, power=recipe.gem_power),
    "crow": lambda a, _: ops.crow(a),
    "sct": lambda a, recipe: ops.sct(a, map_cooccurrence(a, recipe)),
    "chco": lambda a, r: ops.chco(a, map_cooccurrence(a, r), epsilon=r.cooccurrence.epsilon),
    "chco-sct": lambda a, recipe: _chco_sct(a, map_cooccurrence(a, recipe), recipe),
    "context": _context,
    "bp-aa": lambda a, recipe: _bilinear(a, None, recipe),
    "bp-act": lambda a, recipe: _bilinear(a, map_cooccurrence(a, recipe), recipe),
    "bp-at": lambda a, recipe: _bilinear(a, None, recipe, map_context(a, recipe)),
    "centred": _centred,
    "shih": lambda a, r: _rooted(ops.shih_vector(a, radius_cells=r.cooccurrence.radius_cells), r),
    "shih-chco-sct": lambda a, recipe: _chco_sct(a, _shih(a, recipe), recipe),
    "shih-bp": lambda a, recipe: _bilinear(a, _shih(a, recipe), recipe),
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
