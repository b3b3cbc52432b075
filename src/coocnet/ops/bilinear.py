"""Bilinear pooling: which channels fire together, summed over the cells; and its sketch of a few thousand numbers.

Sources: Lin, RoyChowdhury, Maji 2015 (bilinear pooling); Pham and Pagh 2013 (tensor sketch); Gao et al. 2016
(compact bilinear pooling by it); Forcén et al. 2020, section 4.2 (pooling with the co-occurrence tensor).

Sums of products of activations soon exceed what float16 holds, 65504; bfloat16 and float32 have room.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from coocnet.errors import InputError
from coocnet.ops.checks import need_like, need_map, need_rows, need_tensor, need_whole, told
from coocnet.ops.precision import in_float32


@in_float32
def bilinear(
    a: Float[Tensor, "n d h w"],
    b: Float[Tensor, "n d h w"] | None = None,
    *,
    weights: Float[Tensor, "n h w"] | None = None,
) -> Float[Tensor, "n d*d"]:
    r"""Bilinear pooling: B = Σ_p ω_p a_p b_pᵀ over the cells p, row by row.

    Entry k·d + l holds channel k of ``a`` against channel l of ``b``. Source: Lin et al. 2015; with the co-occurrence
    tensor for ``b``, Forcén et al. 2020, eq. 12. The weights are ours.

    Args:
        a: feature map.
        b: another map of its shape, as the co-occurrence tensor; None for ``a`` itself.
        weights: ω, a weight per cell of any sign; None for 1.

    Returns:
        B in the dtype of ``a``; not normalised. Half precision is summed in float32.

    Raises:
        InputError: no map, or a ``b`` or weights of another shape, dtype or device.

    Examples:
        >>> bilinear(torch.tensor([[[[1.0, 2.0]], [[0.0, 3.0]]]]))
        tensor([[5., 6., 6., 9.]])
    """
    left, right = _sides(a, b, weights)
    return torch.bmm(left, right.mT).flatten(1)


@dataclass(frozen=True)
class Sketch:
    """A count sketch of pairs of channels, named by three numbers (Pham and Pagh 2013).

    Two hash functions h₁, h₂ send each channel to one of ``dim`` places, two sign functions s₁, s₂ to −1 or 1.
    The pair (k, l) goes to place (h₁(k) + h₂(l)) mod dim with the sign s₁(k)·s₂(l). Inner products of
    sketched rows are those of the rows, plus an error with mean 0 and a variance that falls as 1 / dim.

    The four functions are drawn from ``numpy.random.RandomState(seed)``, in the order h₁, s₁, h₂, s₂. NumPy has
    frozen that generator's stream, so a seed names the same sketch in every version and on every machine.

    Attributes:
        channels: d, of both maps, ≥ 1.
        dim: length of a sketched row, ≥ 1.
        seed: 0 ≤ seed < 2³².

    Raises:
        InputError: a number that is not whole or out of range.
    """

    channels: int
    dim: int = 8192
    seed: int = 0

    def __post_init__(self) -> None:
        need_whole("channels", self.channels, 1)
        need_whole("dim", self.dim, 1)
        need_whole("seed", self.seed, 0)
        if self.seed >= 2**32:
            raise InputError(f"seed is below 2**32, got {self.seed}")

    def functions(
        self, device: torch.device | None = None
    ) -> tuple[Int[Tensor, " d"], Int[Tensor, " d"], Int[Tensor, " d"], Int[Tensor, " d"]]:
        """h₁, s₁, h₂, s₂ by channel, on the processor or a given device. Shared and cached: not to be written to."""
        return _functions(self, device or torch.device("cpu"))

    def places(self, device: torch.device | None = None) -> Int[Tensor, " pairs"]:
        """(h₁(k) + h₂(l)) mod dim at entry k·d + l, as in a bilinear row. Shared and cached: not to be written to.

        8·d² bytes: 2 MB for 512 channels, 34 MB for 2048.
        """
        return _places(self, device or torch.device("cpu"))


@in_float32
def compact_bilinear(
    a: Float[Tensor, "n d h w"],
    b: Float[Tensor, "n d h w"] | None = None,
    *,
    sketch: Sketch,
    weights: Float[Tensor, "n h w"] | None = None,
) -> Float[Tensor, "n dim"]:
    r"""The sketch of :func:`bilinear` without any Fourier transform (Gao et al. 2016 by a shorter way).

    The tensor sketch of a cell is a linear function of a_p b_pᵀ, and pooling is a sum, so the sketch of the
    sum is the sum of the sketches:

        y_j = Σ_{k, l: (h₁(k) + h₂(l)) mod dim = j} s₁(k) s₂(l) B_kl

    One product of d × hw × d per image, then one pass over its d² entries.

    Args:
        a: feature map.
        b: another map of its shape; None for ``a`` itself.
        sketch: made for d channels.
        weights: a weight per cell; None for 1.

    Returns:
        y in the dtype of ``a``; not normalised. Images are taken one by one, so a row on the processor does not
        depend on its batch in any bit; on CUDA the order of the additions, hence the last bits, may vary.

    Raises:
        InputError: no map, a ``b`` or weights of another shape, dtype or device, or no sketch for d channels.

    Cost: d²·hw multiply-adds and d² numbers at a time, where the usual form has some hw·dim·log(dim) operations. At
    512 channels and 8192 numbers it is far ahead of any Fourier form; at 2048 channels it is still ahead of the usual
    one, but behind :func:`compact_bilinear_by_fft` of 64 cells at a time (see benchmarks/bilinear.py).
    """
    left, right = _sides(a, b, weights)
    _need_sketch(sketch, a)
    _, s1, _, s2 = sketch.functions(a.device)
    s1, s2 = s1[:, None].to(a.dtype), s2[:, None].to(a.dtype)
    places = sketch.places(a.device)
    rows = []
    for x, y in zip(left, right, strict=True):
        signed = (x * s1) @ (y * s2).mT
        rows.append(signed.new_zeros(sketch.dim).scatter_add(0, places, signed.flatten()))
    return torch.stack(rows) if rows else a.new_zeros(0, sketch.dim)


@in_float32
def compact_bilinear_by_fft(
    a: Float[Tensor, "n d h w"],
    b: Float[Tensor, "n d h w"] | None = None,
    *,
    sketch: Sketch,
    weights: Float[Tensor, "n h w"] | None = None,
    inverse_per_cell: bool = False,
    cells_at_once: int | None = None,
) -> Float[Tensor, "n dim"]:
    r"""The same row as :func:`compact_bilinear`, in the usual form (Gao et al. 2016), for comparison.

        y = Σ_p F⁻¹( F(C₁ a_p) ∘ F(C₂ b_p) ),  (C x)_j = Σ_{k: h(k) = j} s(k) x_k

    F⁻¹ is linear, so by default it is taken once, of the sum.

    Args:
        a: feature map.
        b: another map of its shape; None for ``a`` itself.
        sketch: made for d channels.
        weights: a weight per cell; None for 1.
        inverse_per_cell: take F⁻¹ of every cell and sum then, as most published code does.
        cells_at_once: cells that are transformed together; None for all, as most published code does. Some 64
            stay within a processor's cache, which is about twice as fast.

    Returns:
        y, equal to the other form within rounding.

    Raises:
        InputError: as :func:`compact_bilinear`, or ``cells_at_once`` is no whole number ≥ 1.
    """
    left, right = _sides(a, b, weights)
    _need_sketch(sketch, a)
    if cells_at_once is not None:
        need_whole("cells_at_once", cells_at_once, 1)
    h1, s1, h2, s2 = sketch.functions(a.device)
    dim = sketch.dim
    rows = []
    for x, y in zip(left.mT, right.mT, strict=True):
        step = cells_at_once or len(x)
        total: Tensor | float = 0.0
        for p in range(0, len(x), step):
            spectra = _spectra(x[p : p + step], h1, s1, dim) * _spectra(y[p : p + step], h2, s2, dim)
            total = total + (torch.fft.irfft(spectra, n=dim) if inverse_per_cell else spectra).sum(0)
        assert isinstance(total, Tensor)
        rows.append(total if inverse_per_cell else torch.fft.irfft(total, n=dim))
    return torch.stack(rows) if rows else a.new_zeros(0, dim)


@in_float32
def signed_root(rows: Float[Tensor, "n dim"]) -> Float[Tensor, "n dim"]:
    """sign(x)·√|x| of every entry: usual after bilinear pooling, where few entries outweigh the rest.

    The gradient at 0 is 0, not infinity. Source: Lin et al. 2015; Forcén et al. 2020 do not mention it.

    Args:
        rows: any floats.

    Raises:
        InputError: no floating-point tensor (n, dim) with dim ≥ 1.

    Examples:
        >>> signed_root(torch.tensor([[4.0, 0.0, -9.0]]))
        tensor([[ 2.,  0., -3.]])
    """
    need_rows(rows)
    some = rows != 0
    return torch.where(some, torch.where(some, rows, 1).abs().sqrt() * rows.sign(), 0)


def _sides(a: Tensor, b: Tensor | None, weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """Both factors as (n, d, cells); the weights are in the first."""
    need_map(a)
    if b is not None:
        need_like("b", b, a, same_dtype=True)
    right = a if b is None else b
    if weights is None:
        return a.flatten(2), right.flatten(2)
    need_tensor("weights", weights, (a.shape[0], *a.shape[2:]), a)
    return (a * weights[:, None]).flatten(2), right.flatten(2)


def _need_sketch(sketch: object, a: Tensor) -> None:
    if not (isinstance(sketch, Sketch) and sketch.channels == a.shape[1]):
        got = repr(sketch) if isinstance(sketch, Sketch) else told(sketch)
        raise InputError(f"for this map the sketch is a Sketch(channels={a.shape[1]}, ...), got {got}")


def _spectra(cells: Tensor, places: Tensor, signs: Tensor, dim: int) -> Tensor:
    """The Fourier transform of each cell's count sketch."""
    counts = cells.new_zeros(len(cells), dim).index_add(1, places, cells * signs)
    spectra: Tensor = torch.fft.rfft(counts)
    return spectra


# Made outside of any inference mode: a table that is first asked for within one must serve training later.


@lru_cache(maxsize=8)
@torch.inference_mode(False)
def _functions(sketch: Sketch, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    random = np.random.RandomState(sketch.seed)
    drawn = []
    for _ in range(2):
        # The type is named because the stream depends on it, and its default on the platform.
        drawn.append(random.randint(0, sketch.dim, sketch.channels, dtype=np.int64))
        drawn.append(2 * random.randint(0, 2, sketch.channels, dtype=np.int64) - 1)
    h1, s1, h2, s2 = (torch.from_numpy(values).to(device) for values in drawn)
    return h1, s1, h2, s2


@lru_cache(maxsize=4)
@torch.inference_mode(False)
def _places(sketch: Sketch, device: torch.device) -> Tensor:
    h1, _, h2, _ = _functions(sketch, device)
    return ((h1[:, None] + h2) % sketch.dim).flatten()
