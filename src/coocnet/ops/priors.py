"""Spatial priors: a weight per cell that multiplies the map before pooling (section 4.3.1 of the paper).

They assume upright photographs that the photographer framed. Never compare a pooling that has one with a
pooling that has none.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from coocnet.errors import InputError
from coocnet.ops.checks import is_number, need_whole, told


def centre_prior(height: int, width: int, *, like: Tensor | None = None) -> Float[Tensor, "h w"]:
    r"""Gaussian around the centre of the map (SpCt; Babenko and Lempitsky 2015, the prior of SPoC).

    Source: section 4.3.1 of Forcén et al. 2020 takes it from there.

    w(i, j) = exp(−((i − H/2)² + (j − W/2)²) / (2 s²)), s = a third of the way from the centre to the
    nearest edge, with i and j at the middle of their cells, so that a mirrored map has a mirrored prior.

    Args:
        height: H, rows of the map, ≥ 1.
        width: W, columns of the map, ≥ 1.
        like: a tensor that lends its dtype and device.

    Raises:
        InputError: a side that is no whole number ≥ 1, or a ``like`` that is no floating-point tensor.
    """
    i, j = _cell_middles(height, like), _cell_middles(width, like)
    s = min(height, width) / 2 / 3
    squares = (i[:, None] - height / 2) ** 2 + (j[None, :] - width / 2) ** 2
    return _as(torch.exp(-squares / (2 * s * s)), like)


def top_down_prior(height: int, width: int, *, floor: float, like: Tensor | None = None) -> Float[Tensor, "h w"]:
    """Falls linearly from 1 at the top row to ``floor`` at the bottom row (SpTD).

    Source: Forcén et al. 2020, section 4.3.1, which gives no formula; this one is ours. A map of one row has
    weight 1.

    Args:
        height: rows of the map, ≥ 1.
        width: columns of the map, ≥ 1.
        floor: weight of the bottom row, 0 ≤ floor ≤ 1.
        like: a tensor that lends its dtype and device.

    Raises:
        InputError: a side that is no whole number ≥ 1, a floor outside 0..1, or a ``like`` that is no
            floating-point tensor.
    """
    if not is_number(floor) or not 0 <= floor <= 1:
        raise InputError(f"floor lies between 0 and 1, got {floor!r}")
    depth = (_cell_middles(height, like) - 0.5) / max(height - 1, 1)
    _cell_middles(width, like)
    return _as((1 - (1 - floor) * depth)[:, None].expand(height, width), like)


def _cell_middles(n: int, like: Tensor | None) -> Tensor:
    need_whole("a side of a map", n, 1)
    given: object = like
    if not (given is None or (isinstance(given, Tensor) and given.is_floating_point())):
        raise InputError(f"like is a floating-point tensor, got {told(given)}")
    dtype = torch.float64 if like is not None and like.dtype == torch.float64 else torch.float32
    return torch.arange(n, dtype=dtype, device=None if like is None else like.device) + 0.5


def _as(prior: Tensor, like: Tensor | None) -> Tensor:
    return prior if like is None else prior.to(like.dtype)
