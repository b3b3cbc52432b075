"""Poolings beyond the paper: cells weighted by their co-occurrence context, and centred co-occurrence.

These are ours. They start from the co-occurrence tensor of Forcén et al. 2020 (eqs. 3, 7) and keep what carries it.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from coocnet.ops import quick
from coocnet.ops.checks import need_like, need_map, need_positive, need_tensor, need_whole
from coocnet.ops.cooccurrence import Threshold, activation_mask, per_image_thresholds, window_sum
from coocnet.ops.pooling import _power
from coocnet.ops.precision import in_float32, in_full

_ROUNDINGS = 32


def context(
    a: Float[Tensor, "n d h w"],
    *,
    radius_cells: int,
    threshold: Threshold = "mean",
    mask: Float[Tensor, "n d h w"] | Bool[Tensor, "n d h w"] | None = None,
) -> Float[Tensor, "n h w"]:
    r"""The co-occurrence context of a cell: all that is active in the window around it, no channel left out (ours).

        T = box( Σ_k X_k ),  X = a·ρ, box the (2r+1)² window sum, zero outside the map

    Derivation: the direct co-occurrence tensor is CT_k = ρ_k · (T − box(X_k)) / (D − 1). With hundreds of channels
    box(X_k) is a small part of T, so CT_k ≈ ρ_k · T / (D − 1): one map T says almost all, and ρ where it counts.

    Used as the weights of :func:`coocnet.ops.bilinear` or its sketch it gives BP(A, A∘T) = Σ_p T_p a_p a_pᵀ: the
    bilinear pooling with the co-occurrence tensor, BP(A, CT), with the values of the map for its mask.

    Args:
        a: feature map, any float dtype.
        radius_cells: r in cells, ≥ 0, may exceed the map.
        threshold: of ρ, as for :func:`activation_mask`; the paper's is the image's mean.
        mask: a ρ of another origin, which then counts instead.

    Returns:
        T in the dtype of ``a``; ≥ 0 where ``a`` is, 0 where nothing is active near.

    Raises:
        InputError: no map, ``radius_cells`` is no whole number ≥ 0, an unknown threshold, or a mask of another shape
            or device.

    Examples:
        >>> context(torch.tensor([[[[4.0, 0.0, 0.0]], [[0.0, 2.0, 0.0]]]]), radius_cells=1)
        tensor([[[6., 6., 2.]]])
    """
    need_map(a)
    need_whole("radius_cells", radius_cells, 0)
    if mask is None and quick.takes(a, radius_cells):
        t = quick.context(a, radius_cells, per_image_thresholds(a, threshold))
        if t is not None:
            return t.to(a.dtype)
    return _context(a, mask, threshold, radius_cells)


@in_float32
def _context(a: Tensor, mask: Tensor | None, threshold: Threshold, radius_cells: int) -> Tensor:
    if mask is None:
        mask = activation_mask(a, threshold)
    need_like("mask", mask, a, same_dtype=False)
    return window_sum((a * mask.to(a.dtype)).sum(1, keepdim=True), radius_cells)[:, 0]


@in_float32
def tensor_context(
    ct: Float[Tensor, "n d h w"], mask: Float[Tensor, "n d h w"] | Bool[Tensor, "n d h w"]
) -> Float[Tensor, "n h w"]:
    r"""The context of a cell from a co-occurrence tensor (ours): T = (D − 1) · Σ_k CT_k / Σ_k ρ_k.

    What the tensor says on average over the channels that are active; 0 where none is. Of the direct tensor it is
    :func:`context` less the mean over those channels of box(X_k), their own part; of another it may be negative.

    Args:
        ct: co-occurrence tensor, direct or learned.
        mask: the ρ that it was made with.

    Returns:
        T in the dtype of ``ct``.

    Raises:
        InputError: no map, or a mask of another shape or device.
    """
    need_map(ct)
    need_like("mask", mask, ct, same_dtype=False)
    active = mask.to(ct.dtype).sum(1)
    return ct.sum(1) * (ct.shape[1] - 1) / active.clamp(min=1)


@in_float32
def context_pooling(
    a: Float[Tensor, "n d h w"],
    *,
    radius_cells: int,
    mask: Float[Tensor, "n d h w"] | Bool[Tensor, "n d h w"] | None = None,
    context_power: float = 2.0,
    power: float = 1.5,
) -> Float[Tensor, "n d"]:
    r"""Context pooling (ours): a generalised sum over the cells in which cells of rich context count more.

        d_k = ( Σ_p T_p^g A_kp^q )^(1/q),  T of :func:`context` over its maximum in the image

    Derivation: ChCO-SCT and uCroW are sums of A under spatial weights, GeM is a power mean under none. This is the
    power mean under the co-occurrence context: the q-norm over the cells of A_k · T^(g/q), as it is computed.

    Dividing T by its maximum divides a row by one number, which the L2 norm would remove; a map that is c times as
    bright has a row c times as long. Activations and contexts below 0 count as 0.

    Args:
        a: feature map.
        radius_cells: r of the context in cells, ≥ 0.
        mask: ρ of the context; None for the image's mean.
        context_power: g > 0. Small g tends to the power sum without context.
        power: q > 0. Large q tends to the maximum of A where there is context at all.

    Returns:
        d in the dtype of ``a``, not normalised; zero where nothing is active, as in a constant map.

    Raises:
        InputError: no map, ``radius_cells`` is no whole number ≥ 0, a mask of another shape or device, or g or q is
            no finite number above 0.
    """
    need_positive("context_power", context_power)
    t = context(a, radius_cells=radius_cells, mask=mask)
    return power_pooling(a, t, weight_power=context_power, power=power)


@in_float32
def power_pooling(
    a: Float[Tensor, "n d h w"], weights: Float[Tensor, "n h w"], *, weight_power: float, power: float
) -> Float[Tensor, "n d"]:
    r"""A generalised sum over the cells under weights (ours): d_k = ( Σ_p ω_p^g A_kp^q )^(1/q), ω over its maximum.

    :func:`context_pooling` with any ω in place of the context T.

    Args:
        a: feature map.
        weights: ω, (n, h, w); below 0 counts as 0.
        weight_power: g > 0.
        power: q > 0.

    Returns:
        d in the dtype of ``a``, not normalised.

    Raises:
        InputError: no map, weights of another shape, dtype or device, or g or q is no finite number above 0.
    """
    need_map(a)
    need_tensor("weights", weights, (a.shape[0], *a.shape[2:]), a)
    need_positive("weight_power", weight_power)
    need_positive("power", power)
    w = weights.clamp(min=0)
    most = w.amax(dim=(1, 2), keepdim=True)
    weighted = a.clamp(min=0) * _power(w / torch.where(most > 0, most, 1), weight_power / power)[:, None]
    # Dividing by each channel's maximum keeps the powers within the floats.
    top = weighted.detach().amax(dim=(2, 3), keepdim=True)
    top = torch.where(top > 0, top, 1)
    return _power(_power(weighted / top, power).sum(dim=(2, 3)), 1 / power) * top[:, :, 0, 0]


def centred_cooccurrence_pair(
    a: Float[Tensor, "n d h w"], *, radius_cells: int = 1, mean: Float[Tensor, " d"] | None = None
) -> tuple[Float[Tensor, "n d h w"], Float[Tensor, "n d h w"]]:
    r"""The two factors of centred co-occurrence (ours): (A − m, box(A − m)), for :func:`coocnet.ops.bilinear`.

        B = Σ_p ω_p (a_p − m) ( box(A − m) )_pᵀ,  m a number per channel

    Derivation: without m, Σ_p a_p (box A)_pᵀ counts which channels fire within r of each other, most of which is
    what their means alone would give. Taking m away leaves the covariance of channel k at a cell with channel l in
    the window around it: which channels fire together more than each of them fires. Zero padding then says that the
    outside is the mean.

    Meant to be weighted by ω = S / ΣS, S = Σ_k CT_k of the direct co-occurrence tensor, which is
    ``sct_weights(ct, a_norm=1, b_root=1)``, and zero where nothing co-occurs.

    Args:
        a: feature map.
        radius_cells: r of the box in cells, ≥ 0.
        mean: m, learned on other pictures; None for the image's own mean over its cells, with which a channel that
            is constant becomes exactly 0, and a window that holds the whole map sums to exactly 0. Which is better
            depends on the network; the learned one is safer.

    Returns:
        Both factors in shape and dtype as ``a``; half precision is computed in float32.

    Raises:
        InputError: no map, ``radius_cells`` is no whole number ≥ 0, or a mean that is not (d,) with the map's dtype
            and device.
    """
    need_map(a)
    wide = in_full(a)
    if mean is not None:
        mean = in_full(mean)
        need_tensor("mean", mean, (a.shape[1],), wide)
    centred = _centred(wide, mean)
    around = window_sum(centred, radius_cells)
    # Where a window holds the whole map, its sum is 0 but for rounding, which an L2 norm would blow up to a row.
    noise = _ROUNDINGS * torch.finfo(wide.dtype).eps * window_sum(centred.detach().abs(), radius_cells)
    return centred.to(a.dtype), torch.where(around.detach().abs() > noise, around, 0).to(a.dtype)


def _centred(a: Tensor, mean: Tensor | None) -> Tensor:
    if mean is not None:
        return a - mean[:, None, None]
    # Counted from the first cell, the mean of a constant channel has no rounding.
    from_first = a - a[:, :, :1, :1].detach()
    return from_first - from_first.mean(dim=(2, 3), keepdim=True)
