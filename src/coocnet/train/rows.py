"""Rows of pictures under a filter that is learning, from their maps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from coocnet import ops
from coocnet.describe import Describer
from coocnet.nn import CooccurrenceFilter
from coocnet.poolings import POOLED_WITH, POOLINGS, map_mask
from coocnet.train.maps import Maps

_PICTURES_AT_ONCE = 64
_BATCH_ON_ACCELERATOR = 16


class Rows:
    """The recipe's rows at its first scale, with any filter.

    Args:
        describer: its recipe and device.
        maps: of the pictures.
        mixed_precision: bfloat16 for the filter's products; the rest stays in float32.
    """

    def __init__(self, describer: Describer, maps: Maps, *, mixed_precision: bool) -> None:
        self._recipe, self._device, self._maps = describer.recipe, describer.device, maps
        self._mixed_precision, self._dim = mixed_precision, describer.dim

    def under(self, learned: CooccurrenceFilter | None, paths: Sequence[str]) -> Float[Tensor, "n dim"]:
        """Unit rows, in order, with a gradient to the filter; without one, as the recipe has them."""
        maps = list(self._maps.of(paths))
        found: dict[int, Tensor] = {}
        for group in self._groups(maps):
            a = torch.cat([maps[at] for at in group])
            found |= dict(zip(group, ops.unit_rows(self._pooled(learned, a)), strict=True))
        return torch.stack([found[at] for at in range(len(maps))])

    def of_many(
        self,
        learned: CooccurrenceFilter | None,
        paths: Sequence[str],
        pictures: Int[np.ndarray, " n"],
        tell: Callable[[int, int], None],
    ) -> Float[np.ndarray, "n dim"]:
        """Unit rows of some of the pictures, in order, a few in memory at a time; ``tell`` is told done and total."""
        out = np.zeros((len(pictures), self._dim), np.float32)
        with torch.no_grad():
            for start in range(0, len(pictures), _PICTURES_AT_ONCE):
                some = [paths[at] for at in pictures[start : start + _PICTURES_AT_ONCE].tolist()]
                out[start : start + len(some)] = self.under(learned, some).cpu().numpy()
                tell(start + len(some), len(pictures))
        return out

    def _pooled(self, learned: CooccurrenceFilter | None, a: Tensor) -> Tensor:
        if learned is None:
            return POOLINGS[self._recipe.pooling](a, self._recipe)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._mixed_precision):
            ct = learned(a, map_mask(a, self._recipe))
        return POOLED_WITH[self._recipe.pooling](a, ct.float(), self._recipe)

    def _groups(self, maps: Sequence[Tensor]) -> Iterator[list[int]]:
        """Maps of one size together: on the processor one by one, which is faster there."""
        most = 1 if self._device.type == "cpu" else _BATCH_ON_ACCELERATOR
        by_shape: dict[torch.Size, list[int]] = {}
        for at, a in enumerate(maps):
            by_shape.setdefault(a.shape, []).append(at)
        for listed in by_shape.values():
            yield from (listed[start : start + most] for start in range(0, len(listed), most))
