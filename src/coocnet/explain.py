"""Why two pictures are similar: the part of their similarity that each cell of their maps contributes.

A row is a sum over cells, of values (linear pooling) or of products of values (bilinear), so its similarity to
another row is a sum over pairs of cells. With unit rows x = Σ_p x_p and x' = Σ_q x'_q, a mean m that is taken away
from both, and a whitening P (P = 1 where there is none), the cells p and q contribute together

    c_pq = ((x_p − ω_p m) · Pᵀ P (x'_q − ω'_q m)) / s

where ω_p, the cell's share of the row's L1 mass, says how the mean is divided: empty cells have no part in it. Cell
p contributes c_p = Σ_q c_pq and cell q contributes Σ_p c_pq. With a whitening s is the product of both whitened
rows' lengths and Σ_pq c_pq the similarity; without one s = 1 and

    Σ_pq c_pq = (x − m) · (x' − m) = x·x' − (m·x + m·x' − m·m)

that is the similarity less a constant, which is 0 where no mean is taken away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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
_NUMBERS_AT_ONCE = 2**24


@dataclass(frozen=True)
class Match:
    """Two cells that raise a similarity together.

    Attributes:
        query_cell: (row, column) in the query's map.
        result_cell: (row, column) in the result's map.
        contribution: the part of the similarity that they contribute together.
    """

    query_cell: tuple[int, int]
    result_cell: tuple[int, int]
    contribution: float


@dataclass(frozen=True)
class Explanation:
    """Where a similarity comes from.

    Attributes:
        similarity: cosine of the two rows, whitened if a whitening was given.
        query: contribution of each cell of the query's map at the first scale; sums to the similarity less the
            constant.
        result: the same for the other picture.
        matches: of the cells that raise the similarity, the pairs that raise it most together, best first, none near
            another.
        notes: what is approximated, or left out, in words; empty where all of it is exact.
        constant: the part of the similarity that no cell is given, because the mean row of a collection would have
            it too; 0 where no such mean was taken away.
    """

    similarity: float
    query: Float[np.ndarray, "h w"]
    result: Float[np.ndarray, "h2 w2"]
    matches: list[Match]
    notes: list[str]
    constant: float = 0.0


def _relative(a: Tensor) -> Tensor:
    top = a.amax(dim=(2, 3), keepdim=True)
    return a.clamp(min=0) / torch.where(top > 0, top, 1)


def _under(a: Tensor, weights: Tensor, recipe: Recipe) -> Tensor:
    t = weights.clamp(min=0)
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
    "context": lambda a, recipe: _under(a, map_context(a, recipe), recipe),
    "sct-gem": lambda a, recipe: _under(a, map_cooccurrence(a, recipe).sum(1), recipe),
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
_BY_SHARE = ("mac", "gem", "context", "sct-gem")
EXPLAINED = (*_VALUES, *_FACTORS)
"""Poolings whose rows can be taken apart by cells."""


def explain(
    query_maps: Sequence[Float[Tensor, "1 d h w"]],
    result_maps: Sequence[Float[Tensor, "1 d h w"]],
    recipe: Recipe,
    *,
    whitening: Whitening | None = None,
    centre: Float[np.ndarray, " dim"] | None = None,
) -> Explanation:
    """Takes the similarity of two pictures apart by the cells of their maps, in float64.

    Exact, to rounding, for linear and bilinear pooling with any whitening: the contributions sum to the similarity
    of the rows that were searched, less the constant. Of a count sketch they explain the sketched similarity, which
    is itself an approximation of the bilinear one. In power means, maxima and signed roots a cell has that share of
    an entry that its value has in the sum before the power.

    Args:
        query_maps: of one picture, after the prior, one for each scale; see :meth:`Describer.maps_of`.
        result_maps: of the other.
        recipe: the recipe of both.
        whitening: the one in force.
        centre: where there is no whitening, the mean row of a collection, see :meth:`LocalIndex.mean_row`. Rows that
            were never whitened are all alike, and so nearly every cell would raise the similarity; what raises it
            beyond what the collection has in common is then shown.

    Raises:
        InputError: a pooling that cannot be taken apart, no maps, or a centre that is no row of these pictures or
            given beside a whitening.
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
    notes = _notes(recipe, len(query_maps))
    with torch.inference_mode():
        asked, found = (_Picture([m.double().cpu() for m in maps], recipe) for maps in (query_maps, result_maps))
        frame = _frame(len(asked.row), whitening, centre)
        if not (asked.row.any() and found.row.any()):
            return Explanation(0.0, np.zeros(asked.shape), np.zeros(found.shape), [], notes)
        y, y2 = frame.seen(asked.row), frame.seen(found.row)
        divisor = (float(y.norm() * y2.norm()) or 1.0) if whitening is not None else 1.0
        shared = float(y @ y2) / divisor
        similarity = shared if whitening is not None else float(asked.row @ found.row)
        maps = [one.against(frame, other / divisor).numpy() for one, other in ((asked, y2), (found, y))]
        matches = _matches(_together(asked, found, frame) / divisor, maps[0], maps[1])
    return Explanation(similarity, maps[0], maps[1], matches, notes, constant=similarity - shared)


@dataclass(frozen=True)
class _Frame:
    """What rows are seen through: a mean that is taken away, then the projection of a whitening if there is one."""

    mean: Tensor
    projection: Tensor | None = None

    def seen(self, row: Tensor) -> Tensor:
        less = row - self.mean
        return less if self.projection is None else self.projection @ less

    def pulled_back(self, direction: Tensor) -> Tensor:
        """A direction among the rows as they are seen, in the space of plain rows."""
        return direction if self.projection is None else self.projection.T @ direction


def _frame(dim: int, whitening: Whitening | None, centre: object) -> _Frame:
    if whitening is not None:
        if centre is not None:
            raise InputError("a whitening takes its own mean away: give a whitening or a centre, not both")
        whitening.apply(np.zeros((1, dim), np.float32))  # refuses rows of another dimension
        return _Frame(torch.from_numpy(whitening.mean).double(), torch.from_numpy(whitening.projection).double())
    if centre is None:
        return _Frame(torch.zeros(dim, dtype=torch.float64))
    mean = np.asarray(centre)
    if mean.shape != (dim,) or not np.issubdtype(mean.dtype, np.floating) or not np.isfinite(mean).all():
        raise InputError(
            f"a centre is the mean of rows, {dim} finite floats here, got {mean.dtype} of shape {mean.shape}"
        )
    return _Frame(torch.from_numpy(mean.astype(np.float64)))


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

    def against(self, frame: _Frame, direction: Tensor) -> Tensor:
        """What each cell of the first scale's grid has along a direction in the frame, (h, w)."""
        back = frame.pulled_back(direction)
        of_the_mean = float(frame.mean @ back)
        total = torch.zeros(self.shape, dtype=torch.float64)
        for scale in self.scales:
            part = scale.against(back) / self.length - of_the_mean * scale.mass / len(self.scales)
            total += _on_grid(part, self.shape)
        return total


class _Cells:
    """One map's unit row as a sum over its cells."""

    row: Tensor
    mass: Tensor

    def against(self, direction: Tensor) -> Tensor:
        """What each cell has along a direction in the space of rows, (h, w)."""
        raise NotImplementedError

    def blocks(self) -> Iterator[Tensor]:
        """The parts of the row that the cells have, (n, dim), a few cells at a time."""
        raise NotImplementedError

    def products(self, other: Any) -> Tensor:
        """Inner products of the parts of the cells here and there, (h·w, h2·w2)."""
        return torch.cat([torch.cat([a @ b.T for b in other.blocks()], 1) for a in self.blocks()])


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

    def blocks(self) -> Iterator[Tensor]:
        yield self._parts.T


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
        self._at_once = max(1, _NUMBERS_AT_ONCE // pooled.numel())
        self._entry_factor = torch.ones_like(pooled)
        self._rooted = recipe.signed_root
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

    def blocks(self) -> Iterator[Tensor]:
        for start in range(0, self._left.shape[1], self._at_once):
            some = slice(start, start + self._at_once)
            yield self._outer(self._left[:, some].T, self._right[:, some].T) * (self._entry_factor * self._scale)

    def products(self, other: _BilinearCells) -> Tensor:
        if self._sketch is None and not self._rooted:
            left = self._left.T @ other._left * (self._scale * other._scale)
            return left * (self._right.T @ other._right)
        return super().products(other)

    def _outer(self, left: Tensor, right: Tensor) -> Tensor:
        """Products of the values of each cell by pairs of channels, sketched as the rows are, (n, dim)."""
        if self._sketch is None:
            return (left[:, :, None] * right[:, None, :]).flatten(1)
        h, signs, h2, signs2 = self._sketch.functions()
        spectra = [
            torch.fft.rfft(values.new_zeros(len(values), self._sketch.dim).index_add(1, places, values * s))
            for values, places, s in ((left, h, signs), (right, h2, signs2))
        ]
        sketched: Tensor = torch.fft.irfft(spectra[0] * spectra[1], n=self._sketch.dim)
        return sketched


def _shares(mass: Tensor) -> Tensor:
    total = mass.sum()
    return mass / total if total > 0 else torch.full_like(mass, 1 / mass.numel())


def _together(asked: _Picture, found: _Picture, frame: _Frame) -> Tensor:
    """What each cell of the one and each of the other contribute together, at the first scale, (h·w, h2·w2)."""
    both = (asked, found)
    cells = [picture.scales[0] for picture in both]
    shares = [one.mass.flatten() / len(picture.scales) for one, picture in zip(cells, both, strict=True)]
    if frame.projection is not None:
        back = frame.projection.T
        seen = [
            torch.cat([block @ back for block in one.blocks()]) / picture.length
            - share[:, None] * (frame.mean @ back)
            for one, picture, share in zip(cells, both, shares, strict=True)
        ]
        return seen[0] @ seen[1].T
    along = [one.against(frame.mean).flatten() / picture.length for one, picture in zip(cells, both, strict=True)]
    products = cells[0].products(cells[1]) / (asked.length * found.length)
    of_the_mean = float(frame.mean @ frame.mean) * shares[0][:, None] * shares[1]
    return products - along[0][:, None] * shares[1] - shares[0][:, None] * along[1] + of_the_mean


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


def _matches(together: Tensor, query: np.ndarray, result: np.ndarray) -> list[Match]:
    """Pairs of cells by falling contribution, each at a distance from those before it in both pictures.

    Only of cells that raise the similarity: what a cell has with one other may be outweighed by all the rest.
    """
    values = together.clone()
    least = _LEAST_OF_BEST * float(values.max())
    values[torch.from_numpy(query.flatten() <= 0)] = -torch.inf
    values[:, torch.from_numpy(result.flatten() <= 0)] = -torch.inf
    width, width2 = query.shape[1], result.shape[1]
    rows, columns = (torch.arange(values.shape[0]) // width, torch.arange(values.shape[0]) % width)
    rows2, columns2 = (torch.arange(values.shape[1]) // width2, torch.arange(values.shape[1]) % width2)
    matches: list[Match] = []
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


def _notes(recipe: Recipe, scales: int) -> list[str]:
    notes = []
    if recipe.expansion != "none":
        notes.append(
            f"this is the similarity of a plain search: search expands the query ({recipe.expansion}), so it shows "
            "another one"
        )
    if recipe.pooling in SECOND_ORDER and recipe.sketch_dim:
        notes.append("the sketched similarity is explained exactly; it approximates the bilinear one")
    if recipe.pooling in _BY_SHARE or (recipe.pooling in SECOND_ORDER and recipe.signed_root):
        notes.append("a cell's part of an entry is its share of the sum before the power")
    if scales > 1:
        notes.append("other scales are spread on the first scale's grid; cells are joined at the first scale alone")
    return notes
