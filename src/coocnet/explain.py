"""Why two pictures are similar: the part of their similarity that each cell of their maps contributes.

A row is a sum over cells, of values (linear pooling) or of products of values (bilinear), so its similarity to
another row is a sum over cells too. With unit row x = Σ_p x_p, whitening y = P (x − m), and the other picture's
unit ŷ', cell p contributes

    c_p = (x_p − ω_p m) · Pᵀ ŷ' / |y|,   Σ_p c_p = similarity

where ω_p, the cell's share of the row's L1 mass, says how the mean is divided: empty cells have no part in it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from coocnet import ops
from coocnet.errors import InputError
from coocnet.poolings import POOLINGS, SECOND_ORDER, centred_factors, map_context, map_cooccurrence
from coocnet.recipe import Recipe
from coocnet.whitening import Whitening

_MOST_MATCHES = 8
_LEAST_OF_BEST = 0.15
_APART_CELLS = 2


@dataclass(frozen=True)
class Match:
    """Two cells, (row, column) in each map, and what they contribute together."""

    query_cell: tuple[int, int]
    result_cell: tuple[int, int]
    contribution: float


@dataclass(frozen=True)
class Explanation:
    """Where a similarity comes from.

    Attributes:
        similarity: cosine of the two rows, whitened if a whitening was given.
        query: contribution of each cell of the query's map at the first scale; sums to the similarity.
        result: the same for the other picture.
        matches: pairs of cells that contribute most together, best first, none near another.
        notes: what is approximated, in words; empty where all of it is exact.
    """

    similarity: float
    query: Float[np.ndarray, "h w"]
    result: Float[np.ndarray, "h2 w2"]
    matches: list[Match]
    notes: list[str]


def _relative(a: Tensor) -> Tensor:
    top = a.amax(dim=(2, 3), keepdim=True)
    return a.clamp(min=0) / torch.where(top > 0, top, 1)


def _contextual(a: Tensor, recipe: Recipe) -> Tensor:
    t = map_context(a, recipe)
    most = t.amax(dim=(1, 2), keepdim=True)
    t = (t / torch.where(most > 0, most, 1))[:, None]
    return _relative(a) ** recipe.value_power * t**recipe.context_power


# For each linear pooling the values v whose sum over cells makes a channel's entry: cell p has v_p / Σv of it.
_VALUES: dict[str, Callable[[Tensor, Recipe], Tensor]] = {
    "ucrow": lambda a, _: a,
    "spoc": lambda a, _: a * ops.centre_prior(a.shape[2], a.shape[3], like=a),
    "mac": lambda a, _: (a == a.amax(dim=(2, 3), keepdim=True)).to(a.dtype),
    "gem": lambda a, recipe: _relative(a) ** recipe.gem_power,
    "crow": lambda a, _: a * ops.sct_weights(a)[:, None],
    "sct": lambda a, recipe: a * ops.sct_weights(map_cooccurrence(a, recipe))[:, None],
    "chco": lambda a, _: a,
    "chco-sct": lambda a, recipe: a * ops.sct_weights(map_cooccurrence(a, recipe))[:, None],
    "context": _contextual,
    "shih-chco-sct": lambda a, r: (
        a * ops.sct_weights(ops.shih_tensor(a, radius_cells=r.cooccurrence.radius_cells))[:, None]
    ),
}
_FACTORS: dict[str, Callable[[Tensor, Recipe], tuple[Tensor, Tensor, Tensor | None]]] = {
    "bp-aa": lambda a, _: (a, a, None),
    "bp-act": lambda a, recipe: (a, map_cooccurrence(a, recipe), None),
    "bp-at": lambda a, recipe: (a, a, map_context(a, recipe)),
    "centred": centred_factors,
    "shih-bp": lambda a, r: (a, ops.shih_tensor(a, radius_cells=r.cooccurrence.radius_cells), None),
}
_BY_SHARE = ("mac", "gem", "context")
EXPLAINED = (*_VALUES, *_FACTORS)
"""Poolings whose rows can be taken apart by cells."""


def explain(
    query_maps: Sequence[Float[Tensor, "1 d h w"]],
    result_maps: Sequence[Float[Tensor, "1 d h w"]],
    recipe: Recipe,
    *,
    whitening: Whitening | None = None,
) -> Explanation:
    """Takes the similarity of two pictures apart by the cells of their maps, in float64.

    Exact, to rounding, for linear and bilinear pooling with any whitening: the contributions sum to the similarity
    of the rows that were searched. Of a count sketch they explain the sketched similarity, which is itself an
    approximation of the bilinear one. In power means, maxima and signed roots a cell has that share of an entry
    that its value has in the sum before the power.

    Args:
        query_maps: of one picture, after the prior, one for each scale; see :meth:`Describer.maps_of`.
        result_maps: of the other.
        recipe: the recipe of both.
        whitening: the one in force.

    Raises:
        InputError: a pooling that cannot be taken apart, or no maps.
        WhiteningError: a whitening for rows of another dimension.
    """
    if recipe.pooling not in EXPLAINED:
        raise InputError(
            f"rows of pooling {recipe.pooling!r} cannot be taken apart by cells; {', '.join(EXPLAINED)} can"
        )
    if not query_maps or not result_maps:
        raise InputError("explain needs at least one map of each picture")
    if recipe.scale_power != 1 and len(query_maps) > 1:
        raise InputError(
            f"a power mean over scales ({recipe.scale_power}) cannot be taken apart by cells; the mean can"
        )
    with torch.inference_mode():
        asked, found = (_Picture([m.double().cpu() for m in maps], recipe) for maps in (query_maps, result_maps))
        y, y2 = _whitened(asked.row, whitening), _whitened(found.row, whitening)
        lengths = float(y.norm() * y2.norm())
        similarity = float(y @ y2) / lengths if lengths > 0 else 0.0
        maps = []
        for picture, other in ((asked, y2), (found, y)):
            direction = other / (lengths or 1.0)
            maps.append(picture.against(*_pulled_back(direction, whitening)).numpy())
        together = asked.scales[0].together(found.scales[0], whitening)
        matches = _matches(together / (asked.length * found.length * (lengths or 1.0)), asked, found)
    return Explanation(similarity, maps[0], maps[1], matches, _notes(recipe, whitening, len(query_maps)))


class _Picture:
    """One picture's row as a sum over the cells of its maps."""

    def __init__(self, maps: Sequence[Tensor], recipe: Recipe) -> None:
        self.scales: list[_Cells] = [
            _BilinearCells(a, recipe) if recipe.pooling in SECOND_ORDER else _LinearCells(a, recipe) for a in maps
        ]
        total = torch.stack([scale.row for scale in self.scales]).sum(0)
        self.length = float(total.norm()) or 1.0
        self.row = total / self.length
        self.shape = (int(maps[0].shape[2]), int(maps[0].shape[3]))

    def against(self, direction: Tensor, constant: float) -> Tensor:
        """Contribution of each cell of the first scale's grid, (h, w)."""
        total = torch.zeros(self.shape, dtype=torch.float64)
        for scale in self.scales:
            part = scale.against(direction) / self.length
            part = part - constant * scale.mass / len(self.scales)
            total += _on_grid(part, self.shape)
        return total


class _Cells:
    """One map's unit row as a sum over its cells."""

    row: Tensor
    mass: Tensor

    def against(self, direction: Tensor) -> Tensor:
        """What each cell has along a direction in the space of rows, (h, w)."""
        raise NotImplementedError

    def together(self, other: Any, whitening: Whitening | None) -> Tensor:
        """What each cell here and each cell there contribute together, (h·w, h2·w2)."""
        raise NotImplementedError


class _LinearCells(_Cells):
    def __init__(self, a: Tensor, recipe: Recipe) -> None:
        pooled = POOLINGS[recipe.pooling](a, recipe)[0]
        values = _VALUES[recipe.pooling](a, recipe)[0].flatten(1)
        sums = values.sum(1, keepdim=True)
        length = pooled.norm()
        self._parts = torch.where(sums > 0, values / torch.where(sums > 0, sums, 1), 0)
        self._parts *= (pooled / torch.where(length > 0, length, 1))[:, None]
        self._shape = a.shape[2:]
        self.row = self._parts.sum(1)
        self.mass = _shares(self._parts.abs().sum(0)).view(self._shape)

    def against(self, direction: Tensor) -> Tensor:
        return (direction @ self._parts).view(self._shape)

    def together(self, other: _LinearCells, whitening: Whitening | None) -> Tensor:
        return self._projected(whitening) @ other._projected(whitening).T

    def _projected(self, whitening: Whitening | None) -> Tensor:
        parts = self._parts.T
        if whitening is None:
            return parts
        mean, projection = _as_tensors(whitening)
        return (parts - self.mass.flatten()[:, None] * mean) @ projection.T


class _BilinearCells(_Cells):
    def __init__(self, a: Tensor, recipe: Recipe) -> None:
        left, right, weights = _FACTORS[recipe.pooling](a, recipe)
        if weights is not None:
            left = left * weights[:, None]
        self._left, self._right = left[0].flatten(1), right[0].flatten(1)
        self._shape, self._channels = a.shape[2:], a.shape[1]
        self._sketch = ops.Sketch(a.shape[1], recipe.sketch_dim, recipe.sketch_seed) if recipe.sketch_dim else None
        pooled = POOLINGS[recipe.pooling](a, recipe)[0]
        self._scale = 1 / (float(pooled.norm()) or 1.0)
        self._entry_factor = torch.ones_like(pooled)
        if recipe.signed_root:
            # The root of an entry is the entry over its root's size: each cell keeps its share of it.
            self._entry_factor = torch.where(pooled != 0, 1 / torch.where(pooled != 0, pooled.abs(), 1), 0)
        self.row = pooled * self._scale
        both = self._left.abs().sum(0) * self._right.abs().sum(0)
        self.mass = _shares(both).view(self._shape)

    def against(self, direction: Tensor) -> Tensor:
        weighed = direction * self._entry_factor * self._scale
        if self._sketch is not None:
            # The sketch is linear: an entry of the product weighs what its place weighs, with its sign.
            _, signs, _, signs2 = self._sketch.functions()
            weighed = weighed[self._sketch.places()] * (signs[:, None] * signs2).flatten()
        matrix = weighed.view(self._channels, self._channels)
        return (self._left * (matrix @ self._right)).sum(0).view(self._shape)

    def together(self, other: _BilinearCells, whitening: Whitening | None) -> Tensor:
        del whitening  # of the plain bilinear similarity: (a_p · a'_q) (b_p · b'_q)
        left = self._left.T @ other._left * (self._scale * other._scale)
        return left * (self._right.T @ other._right)


def _shares(mass: Tensor) -> Tensor:
    total = mass.sum()
    return mass / total if total > 0 else torch.full_like(mass, 1 / mass.numel())


def _as_tensors(whitening: Whitening) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(whitening.mean).double(), torch.from_numpy(whitening.projection).double()


def _whitened(row: Tensor, whitening: Whitening | None) -> Tensor:
    if whitening is None or not row.any():
        return row
    whitening.apply(row[None].numpy())  # refuses rows of another dimension
    mean, projection = _as_tensors(whitening)
    return projection @ (row - mean)


def _pulled_back(direction: Tensor, whitening: Whitening | None) -> tuple[Tensor, float]:
    """The direction in the space of plain rows, and what the mean has along it."""
    if whitening is None:
        return direction, 0.0
    mean, projection = _as_tensors(whitening)
    back = projection.T @ direction
    return back, float(mean @ back)


def _on_grid(part: Tensor, shape: tuple[int, int]) -> Tensor:
    """A map of another scale on the first scale's grid, its sum kept."""
    if tuple(part.shape) == shape:
        return part
    total = part.sum()
    spread = functional.interpolate(part[None, None], size=shape, mode="bilinear", align_corners=False)[0, 0]
    kept = spread.sum()
    size = part.abs().sum()
    # Where positive and negative parts nearly cancel, the difference is spread evenly instead.
    if kept.abs() > 0.1 * size:
        return spread * (total / kept)
    return spread + (total - kept) / spread.numel()


def _matches(together: Tensor, asked: _Picture, found: _Picture) -> list[Match]:
    """Pairs of cells by falling contribution, each at a distance from those before it in both pictures."""
    values = together.clone()
    width, width2 = asked.shape[1], found.shape[1]
    rows, columns = (torch.arange(values.shape[0]) // width, torch.arange(values.shape[0]) % width)
    rows2, columns2 = (torch.arange(values.shape[1]) // width2, torch.arange(values.shape[1]) % width2)
    matches: list[Match] = []
    least = _LEAST_OF_BEST * float(values.max())
    while len(matches) < _MOST_MATCHES:
        at = int(values.argmax())
        best = float(values.flatten()[at])
        if best <= max(least, 0.0):
            break
        p, q = divmod(at, values.shape[1])
        cell, cell2 = divmod(p, width), divmod(q, width2)
        matches.append(Match(cell, cell2, best))
        near = ((rows - cell[0]).abs() <= _APART_CELLS) & ((columns - cell[1]).abs() <= _APART_CELLS)
        near2 = ((rows2 - cell2[0]).abs() <= _APART_CELLS) & ((columns2 - cell2[1]).abs() <= _APART_CELLS)
        values[near] = -torch.inf
        values[:, near2] = -torch.inf
    return matches


def _notes(recipe: Recipe, whitening: Whitening | None, scales: int) -> list[str]:
    notes = []
    if recipe.pooling in SECOND_ORDER and recipe.sketch_dim:
        notes.append("the sketched similarity is explained exactly; it approximates the bilinear one")
    if recipe.pooling in SECOND_ORDER and whitening is not None:
        notes.append("the joined cells are matched before the whitening")
    if recipe.pooling in _BY_SHARE or (recipe.pooling in SECOND_ORDER and recipe.signed_root):
        notes.append("a cell's part of an entry is its share of the sum before the power")
    if scales > 1:
        notes.append("other scales are spread on the first scale's grid; cells are joined at the first scale alone")
    return notes
