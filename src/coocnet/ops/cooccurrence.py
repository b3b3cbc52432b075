"""The co-occurrence tensor of a feature map: direct in closed form, with a dense filter, and with a factorised one.

Source: Forcén, Pagola, Barrenechea, Bustince, "Co-occurrence of deep convolutional features for image
search" (2020, arXiv:2003.13827), section 3. Equation numbers below are the paper's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from coocnet.errors import InputError
from coocnet.ops import quick
from coocnet.ops.checks import is_number, need_filter, need_like, need_map, need_tensor, need_whole, told
from coocnet.ops.precision import in_float32, in_full


@dataclass(frozen=True)
class Quantile:
    """A threshold at a quantile of one image's activations (ours).

    Attributes:
        q: the share of the image's entries that are at most t, 0 to 1.
    """

    q: float


Threshold = Literal["mean"] | float | Quantile
"""What :func:`activation_mask` takes."""


@in_float32
def activation_mask(a: Float[Tensor, "b d h w"], threshold: Threshold = "mean") -> Float[Tensor, "b d h w"]:
    r"""Which activations count as active: ρ = 1 where a > t, 0 elsewhere (eq. 7 of Forcén et al. 2020).

    The threshold t belongs to each image alone, so an image's mask never depends on its batch. (The
    authors' published code takes one mean over the batch; the two agree at batch size one.)

    Args:
        a: feature map, any float dtype.
        threshold: ``"mean"`` for the mean of all entries of the image, as in the paper; a number for a
            fixed t; a :class:`Quantile` for the entry of that rank, nearest, no interpolation.

    Returns:
        ρ as 0 and 1 in the dtype of ``a``; carries no gradient. A constant map has no active entry under
        ``"mean"``: the comparison is strict, and the mean is computed so that rounding cannot break it.

    Raises:
        InputError: no map, an unknown threshold, or a quantile outside 0..1.

    Examples:
        >>> activation_mask(torch.tensor([[[[0.0, 3.0]], [[1.0, 0.0]]]]))
        tensor([[[[0., 1.]],
        <BLANKLINE>
                 [[0., 0.]]]])
    """
    need_map(a)
    values = a.detach()
    # gt into floats at once: a bool mask and its conversion cost several times the comparison.
    return torch.gt(values, _per_image_threshold(values, threshold), out=torch.empty_like(values))


def _per_image_threshold(a: Tensor, threshold: Threshold) -> Tensor:
    """The threshold t as (b, 1, 1, 1); for float32, rounded so that a > t decides as with the float64 mean."""
    images, count = a.shape[0], a.shape[1:].numel()
    if isinstance(threshold, str) and threshold == "mean":
        if a.dtype == torch.float64 or a.device.type == "mps":
            t = a.mean(dim=(1, 2, 3))
            low, high = a.flatten(1).aminmax(dim=1)
            t = t.clamp(low, high)
        else:
            exact = a.sum(dim=(1, 2, 3), dtype=torch.float64) / count
            t = exact.to(a.dtype)
            below = torch.nextafter(t, t.new_tensor(-torch.inf))
            t = torch.where(t.double() > exact, below, t)
    elif isinstance(threshold, Quantile):
        if not is_number(threshold.q) or not 0 <= threshold.q <= 1:
            raise InputError(f"a quantile lies between 0 and 1, got {threshold.q!r}")
        rank = max(1, min(count, round(threshold.q * (count - 1)) + 1))
        t = a.flatten(1).kthvalue(rank, dim=1).values
    else:
        # By way of float64, for a number beyond the dtype is infinite in it.
        t = torch.full((images,), _number(threshold), dtype=torch.float64, device=a.device).to(a.dtype)
    return t.view(images, 1, 1, 1)


def _number(threshold: object) -> float:
    if is_number(threshold) and not math.isnan(threshold):
        return float(threshold)
    raise InputError(f"threshold is 'mean', a number or a Quantile, got {threshold!r}")


@in_float32
def window_sum(x: Float[Tensor, "b d h w"], radius_cells: int) -> Float[Tensor, "b d h w"]:
    """Sum over the (2r+1)×(2r+1) window around every cell; cells outside the map count as 0.

    The box of :func:`direct_cooccurrence` (eqs. 2, 3 of Forcén et al. 2020). Two products with banded matrices of
    ones, one per axis.

    Args:
        x: map of any size and sign.
        radius_cells: r in cells, ≥ 0, may exceed the map.

    Raises:
        InputError: no map, or ``radius_cells`` is no whole number ≥ 0.
    """
    need_map(x)
    return _banded(x, radius_cells, scale=1.0)


def _banded(x: Tensor, radius_cells: int, scale: float) -> Tensor:
    need_whole("radius_cells", radius_cells, 0)
    h, w = x.shape[2:]
    across = _band(w, radius_cells, x)
    down = _band(h, radius_cells, x) * scale
    return down @ (x.reshape(-1, w) @ across).view(x.shape)


def _band(n: int, radius_cells: int, like: Tensor) -> Tensor:
    i = torch.arange(n, device=like.device)
    return ((i[:, None] - i[None, :]).abs() <= min(radius_cells, n)).to(like.dtype)


def direct_cooccurrence(
    a: Float[Tensor, "b d h w"],
    *,
    radius_cells: int,
    threshold: Threshold = "mean",
    mask: Float[Tensor, "b d h w"] | Bool[Tensor, "b d h w"] | None = None,
    window_mean: bool = False,
) -> Float[Tensor, "b d h w"]:
    r"""Sum of the *other* channels' active values in a window, per cell and channel.

    Source: Forcén et al. 2020, eqs. 2, 3, 5-7. Equals the paper's dense filter of ones off the diagonal without
    ever building it. With X = a·ρ and box the (2r+1)² window sum, zero outside the map:

        CT_k = ρ_k · box(Σ_w X_w − X_k) / (D − 1)

    The own channel is excluded exactly, at every cell of the window; the authors' code keeps 1e-10 there.

    Args:
        a: feature map, any float dtype, d ≥ 2.
        radius_cells: r in cells of the map, ≥ 0, may exceed the map. The paper uses 4.
        threshold: of ρ, as for :func:`activation_mask`; the paper's is the image's mean.
        mask: a ρ of another origin, which then counts instead.
        window_mean: divide by (2r+1)² as the authors' code does; a constant that an L2 norm removes.

    Returns:
        CT, same shape, dtype and device as ``a``; ≥ 0 where ``a`` is; exactly 0 where ρ is.

    Raises:
        InputError: no map, d < 2, ``radius_cells`` is no whole number ≥ 0, an unknown threshold, or a mask of another
            shape or device.

    Cost: linear in d; the dense filter needs d·(2r+1)² times the channels. With numba, on a processor and where no
    gradient is asked, three times what a copy of the map takes; else two banded products.

    Examples:
        >>> a = torch.ones(1, 2, 3, 3)
        >>> direct_cooccurrence(a, radius_cells=1, mask=a)[0, 0]
        tensor([[4., 6., 4.],
                [6., 9., 6.],
                [4., 6., 4.]])
    """
    need_whole("radius_cells", radius_cells, 0)
    _need_channels(a)
    scale = _scale(a, radius_cells, window_mean)
    if mask is None and quick.takes(a, radius_cells):
        ct = quick.cooccurrence(a, radius_cells, per_image_thresholds(a, threshold), scale)
        if ct is not None:
            return ct
    return _direct_cooccurrence(a, mask, threshold, radius_cells, scale)


class CooccurrenceSums(NamedTuple):
    """The sums of a co-occurrence tensor, all that linear poolings read of it (Forcén et al. 2020, section 4.1).

    Attributes:
        cells: S, the sum over the channels at every cell (eq. 10).
        channels: V, the sum over the cells of every channel (eq. 4).
    """

    cells: Float[Tensor, "b h w"]
    channels: Float[Tensor, "b d"]


def cooccurrence_sums(ct: Float[Tensor, "b d h w"]) -> CooccurrenceSums:
    """The sums of a given co-occurrence tensor, in its dtype (eqs. 4, 10 of Forcén et al. 2020).

    Args:
        ct: co-occurrence tensor, direct or learned.

    Raises:
        InputError: no map.
    """
    need_map(ct)
    wide = in_full(ct)
    return CooccurrenceSums(wide.sum(1).to(ct.dtype), wide.sum(dim=(2, 3)).to(ct.dtype))


def direct_cooccurrence_sums(
    a: Float[Tensor, "b d h w"], *, radius_cells: int, threshold: Threshold = "mean"
) -> CooccurrenceSums:
    """The sums of :func:`direct_cooccurrence` (eqs. 4, 10); with numba without ever writing the tensor.

    Args:
        a: feature map, any float dtype, d ≥ 2.
        radius_cells: r in cells, ≥ 0.
        threshold: of ρ.

    Raises:
        InputError: as for :func:`direct_cooccurrence`.
    """
    need_whole("radius_cells", radius_cells, 0)
    _need_channels(a)
    if quick.takes(a, radius_cells):
        scale = _scale(a, radius_cells, window_mean=False)
        sums = quick.cooccurrence_sums(a, radius_cells, per_image_thresholds(a, threshold), scale)
        if sums is not None:
            return CooccurrenceSums(*(part.to(a.dtype) for part in sums))
    ct = direct_cooccurrence(in_full(a), radius_cells=radius_cells, threshold=threshold)
    return CooccurrenceSums(*(part.to(a.dtype) for part in cooccurrence_sums(ct)))


@in_float32
def _direct_cooccurrence(
    a: Tensor, mask: Tensor | None, threshold: Threshold, radius_cells: int, scale: float
) -> Tensor:
    rho = _active(a, mask, threshold)
    x = a * rho
    # Subtracting before the window sum, not after, leaves exactly 0 where no other channel fires.
    others = x.sum(1, keepdim=True) - x
    return _banded(others, radius_cells, scale) * rho


def _scale(a: Tensor, radius_cells: int, window_mean: bool) -> float:
    scale = 1 / (a.shape[1] - 1)
    return scale / (2 * radius_cells + 1) ** 2 if window_mean else scale


def per_image_thresholds(a: Tensor, threshold: Threshold) -> Tensor | None:
    """The threshold of each image, in float32; None for the mean, which the compiled loops find themselves."""
    if isinstance(threshold, str) and threshold == "mean":
        return None
    return _per_image_threshold(in_full(a.detach()), threshold).flatten()


@in_float32
def filtered_cooccurrence(
    a: Float[Tensor, "b d h w"],
    weight: Float[Tensor, "d d s s"],
    *,
    mask: Float[Tensor, "b d h w"] | Bool[Tensor, "b d h w"] | None = None,
) -> Float[Tensor, "b d h w"]:
    r"""Co-occurrence tensor with a dense filter: CT = ρ · conv2d(a·ρ, F) / (D − 1).

    Source: Forcén et al. 2020, eq. 6; section 5 learns F.

    Args:
        a: feature map, any float dtype, d ≥ 2.
        weight: F, (d, d, s, s) with s odd; F[k, w] weighs channel w around channel k.
        mask: ρ; None for the image's mean.

    Returns:
        CT, same shape and dtype as ``a``.

    Raises:
        InputError: no map, d < 2, a filter whose shape is not (d, d, s, s) with s odd or whose dtype is not
            the map's, or a mask of another shape; or either on another device.

    Cost: d²·s² multiply-adds per cell: use :func:`direct_cooccurrence` for the direct filter.
    """
    rho = _active(a, mask)
    need_filter(weight, a)
    return functional.conv2d(a * rho, weight, padding=weight.shape[3] // 2) / (a.shape[1] - 1) * rho


@in_float32
def factorised_cooccurrence(
    a: Float[Tensor, "b d h w"],
    *,
    out_factors: Float[Tensor, "d q"],
    in_factors: Float[Tensor, "d q"],
    windows: Float[Tensor, "q s s"],
    own_factors: Float[Tensor, " d"],
    mask: Float[Tensor, "b d h w"] | Bool[Tensor, "b d h w"] | None = None,
) -> Float[Tensor, "b d h w"]:
    r"""Co-occurrence tensor with a filter of low rank, which is never built (ours).

    That of :func:`filtered_cooccurrence` under :func:`factorised_filter`: q mixtures of the channels, each summed
    under a window of its own, mixed back into channels, less each channel's own window sum:

        CT_k = ρ_k / (D − 1) · ( Σ_q U_kq (G_q ⋆ Σ_w V_wq X_w) − u_k box(X_k) )

    With U = V = G = u = 1 and q = 1 this is :func:`direct_cooccurrence`.

    Args:
        a: feature map, any float dtype, d ≥ 2.
        out_factors: U.
        in_factors: V.
        windows: G, s = 2r + 1.
        own_factors: u.
        mask: ρ; None for the image's mean.

    Returns:
        CT, same shape and dtype as ``a``; may be negative.

    Raises:
        InputError: no map, d < 2, factors that do not fit it or each other in shape, dtype or device, or a mask of
            another shape or device.

    Cost: 2·d·q + q·s² multiply-adds per cell, where a dense filter has d²·s²; and one window sum.
    """
    rho = _active(a, mask)
    d = a.shape[1]
    need_tensor("windows", windows, (None, None, None), a)
    q, s = windows.shape[:2]
    if s % 2 == 0 or windows.shape[2] != s:
        raise InputError(f"windows are (q, s, s) with s odd, got {told(windows)}")
    for name, factors in (("out_factors", out_factors), ("in_factors", in_factors)):
        need_tensor(name, factors, (d, q), a)
    need_tensor("own_factors", own_factors, (d,), a)
    x = a * rho
    mixed = functional.conv2d(x, in_factors.T[:, :, None, None])
    around = functional.conv2d(mixed, windows[:, None], padding=s // 2, groups=q)
    all_channels = functional.conv2d(around, out_factors[:, :, None, None])
    own = _banded(x, s // 2, scale=1.0) * own_factors[:, None, None]
    return (all_channels - own) * rho / (d - 1)


def factorised_filter(
    *,
    out_factors: Float[Tensor, "d q"],
    in_factors: Float[Tensor, "d q"],
    windows: Float[Tensor, "q s s"],
    own_factors: Float[Tensor, " d"],
) -> Float[Tensor, "d d s s"]:
    """The dense filter that factors stand for (ours): F[k, w] = Σ_q U_kq V_wq G_q − [k = w] u_k, to look at.

    Args:
        out_factors: U.
        in_factors: V.
        windows: G, s = 2r + 1.
        own_factors: u.

    Returns:
        F, d²·s² numbers, for :func:`filtered_cooccurrence`.
    """
    weight = torch.einsum("kq,wq,qij->kwij", out_factors, in_factors, windows)
    return weight - torch.diag(own_factors)[:, :, None, None]


def direct_filter(
    channels: int,
    *,
    radius_cells: int,
    dtype: torch.dtype = torch.float32,
    device: torch.device | None = None,
) -> Float[Tensor, "d d s s"]:
    """The dense filter of the direct co-occurrence: 1 between different channels, 0 on the diagonal.

    Source: Forcén et al. 2020, eq. 5, which as printed has the two cases exchanged; the text and algorithm 1 say
    which is meant. At 512 channels and r = 4 it holds 21 million weights; at 2048, 340 million.

    Args:
        channels: d ≥ 2.
        radius_cells: r in cells, ≥ 0.
        dtype: of the weights.
        device: of the weights; None for the processor.

    Raises:
        InputError: ``channels`` is no whole number ≥ 2, or ``radius_cells`` none ≥ 0.
    """
    need_whole("channels", channels, 2)
    need_whole("radius_cells", radius_cells, 0)
    s = 2 * radius_cells + 1
    off_diagonal = 1 - torch.eye(channels, dtype=dtype, device=device)
    return off_diagonal[:, :, None, None].expand(channels, channels, s, s).contiguous()


def _need_channels(a: Tensor) -> None:
    """Two channels or more, without which nothing co-occurs."""
    need_map(a)
    if a.shape[1] < 2:
        raise InputError(f"co-occurrence needs at least 2 channels, got a map of shape {tuple(a.shape)}")


def _active(a: Tensor, mask: Tensor | None, threshold: Threshold = "mean") -> Tensor:
    """ρ in the dtype of the map, which co-occurs only with two channels or more."""
    _need_channels(a)
    if mask is None:
        return activation_mask(a, threshold)
    need_like("mask", mask, a, same_dtype=False)
    return mask.to(a.dtype)
