"""Poolings: a feature map (b, d, h, w) to one row (b, d) per image, before any normalisation.

Each is defined on every map: all zero, constant, one cell, one active channel. Where nothing counts, the
row is zero; there is no NaN, and gradients are finite. What is no map is refused with an InputError: see
:func:`coocnet.ops.checks.need_map`.

Sources: Forcén et al. 2020 (SCT, ChCO, ChCO-SCT; equation numbers are that paper's), Kalantidis et al.
2016 (uCroW, CroW), Babenko and Lempitsky 2015 (SPoC), Tolias et al. 2016 (MAC, R-MAC), Radenović et al.
2018 (GeM).
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from coocnet.ops.checks import need_like, need_map, need_positive, need_rows, need_tensor, need_whole
from coocnet.ops.precision import in_float32
from coocnet.ops.priors import centre_prior


@in_float32
def unit_rows(rows: Float[Tensor, "n dim"]) -> Float[Tensor, "n dim"]:
    """Rows scaled to unit L2 norm; a zero row stays zero. Safe for the smallest and largest floats.

    Source: Forcén et al. 2020, section 4, which L2-normalises what was pooled.

    Args:
        rows: any floats.

    Raises:
        InputError: no floating-point tensor (n, dim) with dim ≥ 1.
    """
    need_rows(rows)
    largest = rows.detach().abs().amax(1, keepdim=True)
    scaled = rows / torch.where(largest > 0, largest, 1)
    norm = scaled.square().sum(1, keepdim=True)
    return scaled * torch.where(norm > 0, norm, 1).rsqrt()


@in_float32
def ucrow(a: Float[Tensor, "b d h w"]) -> Float[Tensor, "b d"]:
    """Mean over the cells: aggregation without any weight (uCroW; Kalantidis et al. 2016).

    Args:
        a: feature map.

    Raises:
        InputError: no map.
    """
    need_map(a)
    return a.mean(dim=(2, 3))


@in_float32
def spoc(a: Float[Tensor, "b d h w"]) -> Float[Tensor, "b d"]:
    """Sum over the cells under the Gaussian :func:`centre_prior` (SPoC; Babenko and Lempitsky 2015).

    Args:
        a: feature map.

    Raises:
        InputError: no map.
    """
    need_map(a)
    prior = centre_prior(a.shape[2], a.shape[3], like=a)
    return (a * prior).sum(dim=(2, 3))


@in_float32
def mac(a: Float[Tensor, "b d h w"]) -> Float[Tensor, "b d"]:
    """Maximum over the cells (MAC; Tolias et al. 2016).

    Args:
        a: feature map.

    Raises:
        InputError: no map.
    """
    need_map(a)
    return a.amax(dim=(2, 3))


@in_float32
def gem(a: Float[Tensor, "b d h w"], *, power: float | Tensor) -> Float[Tensor, "b d"]:
    """Generalised mean over the cells (GeM): (mean a^p)^(1/p), of activations clamped at 0 from below.

    Source: Radenović et al. 2018, "Fine-tuning CNN Image Retrieval with No Human Annotation".

    Args:
        a: feature map.
        power: p > 0, a number or a learned tensor of one element; 1 is the mean, large p tends to the maximum. The
            authors use 3.

    Raises:
        InputError: no map, or p is not one finite number above 0.
    """
    need_map(a)
    need_positive("the power of GeM", power.item() if isinstance(power, Tensor) and power.numel() == 1 else power)
    positive = a.clamp(min=0)
    # Dividing by each channel's maximum keeps a^p within the floats for any p.
    top = positive.detach().amax(dim=(2, 3), keepdim=True)
    top = torch.where(top > 0, top, 1)
    mean = _power(positive / top, power).mean(dim=(2, 3))
    return _power(mean, 1 / power) * top[:, :, 0, 0]


@in_float32
def rmac(a: Float[Tensor, "b d h w"], *, levels: int = 3) -> Float[Tensor, "b d"]:
    """Regional MAC: the maxima of overlapping square regions, each L2-normalised, summed (R-MAC).

    At level l the regions have side 2·min(h, w)/(l+1); their number along the longer side is the one whose
    overlap is closest to 40 %. Source: Tolias et al. 2016, whose whitening of regions is left to the whitening after
    pooling.

    Args:
        a: feature map.
        levels: scales of regions, ≥ 1. The paper of R-MAC uses 3.

    Raises:
        InputError: no map, or ``levels`` is no whole number ≥ 1.
    """
    need_map(a)
    need_whole("levels", levels, 1)
    row = torch.zeros(a.shape[:2], dtype=a.dtype, device=a.device)
    for top, left, side in _rmac_regions(a.shape[2], a.shape[3], levels):
        row = row + unit_rows(a[:, :, top : top + side, left : left + side].amax(dim=(2, 3)))
    return row


def _rmac_regions(height: int, width: int, levels: int) -> list[tuple[int, int, int]]:
    """(top, left, side) of each region, in cells."""
    short, long = min(height, width), max(height, width)
    extra = 0
    if long > short:
        # With m regions of side `short` along the long side, neighbours overlap by 1 - (long-short)/((m-1)·short).
        misses = [abs(3 * m * short - 5 * (long - short)) / m for m in range(1, 7)]  # |overlap - 0.4|·5·short, exact
        extra = 1 + misses.index(min(misses))
    regions = []
    for level in range(1, levels + 1):
        side = max(1, 2 * short // (level + 1))
        down, across = (level + extra, level) if height > width else (level, level + extra)
        for top in _spread(height - side, down):
            regions += [(top, left, side) for left in _spread(width - side, across)]
    return regions


def _spread(room: int, count: int) -> list[int]:
    """``count`` starts spread evenly over 0..room; one start stands in the middle."""
    if count == 1:
        return [room // 2]
    return [room * i // (count - 1) for i in range(count)]


@in_float32
def crow(a: Float[Tensor, "b d h w"], *, a_norm: float = 2.0, b_root: float = 2.0) -> Float[Tensor, "b d"]:
    r"""Cross-dimensional weighting (CroW): strong cells and rare channels count more.

    α = (S / (Σ S^a)^(1/a))^(1/b) with S = Σ_k A_k, and β_k = log(Σ_l Q_l / Q_k) with Q_k the share of
    cells in which channel k is above 0; a channel that never fires has weight 0. Source: Kalantidis et al. 2016.

    Args:
        a: feature map.
        a_norm: a > 0; the paper of CroW uses 2.
        b_root: b > 0; the paper of CroW uses 2.

    Raises:
        InputError: no map, or ``a_norm`` or ``b_root`` is no finite number above 0.
    """
    need_map(a)
    alpha = _power_normalised(a.clamp(min=0).sum(1), a_norm, b_root)
    share = (a.detach() > 0).to(a.dtype).mean(dim=(2, 3))
    total = share.sum(1, keepdim=True)
    beta = torch.where(share > 0, torch.log(total / torch.where(share > 0, share, 1)), 0)
    return beta * _weighted_sum(a, alpha)


@in_float32
def cell_weights(s: Float[Tensor, "b h w"], *, a_norm: float = 2.0, b_root: float = 2.0) -> Float[Tensor, "b h w"]:
    r"""Weights of the cells from their sums (eqs. 9, 10): α = (S / (Σ S^a)^(1/a))^(1/b), a = b = 2.

    Source: Forcén et al. 2020, section 4.1.

    Args:
        s: S_ij = Σ_k CT_k(i, j). A negative one, as under a learned filter, counts as 0.
        a_norm: a > 0; the paper uses 2.
        b_root: b > 0; the paper uses 2.

    Raises:
        InputError: ``a_norm`` or ``b_root`` is no finite number above 0.
    """
    return _power_normalised(s, a_norm, b_root)


@in_float32
def channel_weights(v: Float[Tensor, "b d"], *, epsilon: float) -> Float[Tensor, "b d"]:
    r"""Weights of the channels from their sums (eqs. 4, 11): β_k = log(ΣV / (ε·ΣV + V_k)).

    Source: Forcén et al. 2020, section 4.1, which prints an ε without a value. Here it is relative to ΣV, so that
    scaling the map changes nothing; a channel that never co-occurs has weight log(1/ε). Where nothing co-occurs, all
    weights are 0.

    Args:
        v: V_k = Σ_ij CT_k. Under a learned filter a V_k may be negative; it counts as 0.
        epsilon: ε > 0, relative.

    Raises:
        InputError: no rows, or ε is no finite number above 0.
    """
    need_rows(v)
    need_positive("epsilon", epsilon)
    v = v.clamp(min=0)
    total = v.sum(1, keepdim=True)
    share = v / torch.where(total > 0, total, 1)
    return torch.where(total > 0, -torch.log(epsilon + share), 0)


@in_float32
def weighted_sum(a: Float[Tensor, "b d h w"], alpha: Float[Tensor, "b h w"]) -> Float[Tensor, "b d"]:
    """Sum over the cells under weights: f_k = Σ_ij α_ij A_k(i, j) (eq. 8 of Forcén et al. 2020 without β).

    Args:
        a: feature map.
        alpha: α, of any sign.

    Raises:
        InputError: no map, or weights of another shape, dtype or device.
    """
    need_map(a)
    need_tensor("alpha", alpha, (a.shape[0], *a.shape[2:]), a)
    return _weighted_sum(a, alpha)


@in_float32
def sct_weights(ct: Float[Tensor, "b d h w"], *, a_norm: float = 2.0, b_root: float = 2.0) -> Float[Tensor, "b h w"]:
    r"""Spatial co-occurrence weights (eqs. 9, 10 of Forcén et al. 2020): :func:`cell_weights` of S = Σ_k CT_k.

    Args:
        ct: co-occurrence tensor.
        a_norm: a > 0; the paper uses 2.
        b_root: b > 0; the paper uses 2.

    Raises:
        InputError: no map, or ``a_norm`` or ``b_root`` is no finite number above 0.
    """
    need_map(ct)
    return cell_weights(ct.sum(1), a_norm=a_norm, b_root=b_root)


@in_float32
def chco_weights(ct: Float[Tensor, "b d h w"], *, epsilon: float) -> Float[Tensor, "b d"]:
    r"""Channel co-occurrence weights (eqs. 4, 11 of Forcén et al. 2020): :func:`channel_weights` of V_k = Σ_ij CT_k.

    Args:
        ct: co-occurrence tensor.
        epsilon: see :func:`channel_weights`.

    Raises:
        InputError: no map, or ε is no finite number above 0.
    """
    need_map(ct)
    return channel_weights(ct.sum(dim=(2, 3)), epsilon=epsilon)


@in_float32
def sct(a: Float[Tensor, "b d h w"], ct: Float[Tensor, "b d h w"]) -> Float[Tensor, "b d"]:
    """Pooling with the spatial co-occurrence weights alone: f_k = Σ_ij α_ij A_k(i, j).

    Source: Forcén et al. 2020, section 4.1: eq. 8 without β, α by eqs. 9 and 10.

    Args:
        a: feature map, after any prior.
        ct: its co-occurrence tensor.

    Raises:
        InputError: no map, or a ``ct`` of another shape, dtype or device.
    """
    _need_both(a, ct)
    return _weighted_sum(a, sct_weights(ct))


@in_float32
def chco(a: Float[Tensor, "b d h w"], ct: Float[Tensor, "b d h w"], *, epsilon: float) -> Float[Tensor, "b d"]:
    """Pooling with the channel co-occurrence weights alone: f_k = β_k Σ_ij A_k(i, j).

    Source: Forcén et al. 2020, section 4.1: eq. 8 without α, β by eqs. 4 and 11.

    Args:
        a: feature map, after any prior.
        ct: its co-occurrence tensor.
        epsilon: see :func:`channel_weights`.

    Raises:
        InputError: no map, a ``ct`` of another shape, dtype or device, or ε is no finite number above 0.
    """
    _need_both(a, ct)
    return chco_weights(ct, epsilon=epsilon) * a.sum(dim=(2, 3))


@in_float32
def chco_sct(a: Float[Tensor, "b d h w"], ct: Float[Tensor, "b d h w"], *, epsilon: float) -> Float[Tensor, "b d"]:
    """Linear pooling with both weights (eq. 8 of Forcén et al. 2020): f_k = β_k Σ_ij α_ij A_k(i, j).

    Args:
        a: feature map, after any prior.
        ct: its co-occurrence tensor, :func:`direct_cooccurrence` or one with a filter.
        epsilon: see :func:`channel_weights`.

    Raises:
        InputError: no map, a ``ct`` of another shape, dtype or device, or ε is no finite number above 0.
    """
    _need_both(a, ct)
    return chco_weights(ct, epsilon=epsilon) * sct(a, ct)


def _need_both(a: Tensor, ct: Tensor) -> None:
    need_map(a)
    need_like("ct", ct, a, same_dtype=True)


def _weighted_sum(a: Tensor, alpha: Tensor) -> Tensor:
    return torch.einsum("bdhw,bhw->bd", a, alpha)


def _power_normalised(s: Tensor, a_norm: float, b_root: float) -> Tensor:
    """(s / (Σ s^a)^(1/a))^(1/b) per image for s ≥ 0; zero where s is, with zero gradient there."""
    need_positive("a_norm", a_norm)
    need_positive("b_root", b_root)
    top = s.detach().amax(dim=(1, 2), keepdim=True)
    scaled = s / torch.where(top > 0, top, 1)
    norm = _power(_power(scaled, a_norm).sum(dim=(1, 2), keepdim=True), 1 / a_norm)
    return _power(scaled / torch.where(norm > 0, norm, 1), 1 / b_root)


def _power(x: Tensor, exponent: float | Tensor) -> Tensor:
    """x^exponent for x ≥ 0 with gradient 0, not infinity or NaN, where x is 0 or its power underflows."""
    if isinstance(exponent, float | int) and exponent == 1:
        return x
    tiny = math.sqrt(torch.finfo(x.dtype).tiny)
    usable = x > tiny
    return torch.where(usable, torch.where(usable, x, 1) ** exponent, 0)
