"""Co-occurrence as the largest correlation of two channels over a set of offsets, to compare with.

Sources: Shih et al., "Deep co-occurrence feature learning for visual object recognition" (CVPR 2017), the vector
form, eq. 1 of Forcén et al. 2020; Forcén et al., section 6.1, its adaptation to a tensor.

With a^w_{p+o} the map w moved by the offset o, zero outside, the correlations of all pairs at one offset are one
product of d × hw × d, and there are (2r+1)² offsets: at 512 channels and r = 4 more than a thousand times the
work of :func:`coocnet.ops.direct_cooccurrence`. Blocks of channels keep the memory at a few times d·(d + hw) numbers
beside the result; in training too, where each block is computed once more for its gradient, one block at a time.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from coocnet.ops.checks import need_map, need_tensor, need_whole
from coocnet.ops.precision import in_float32


@in_float32
def shih_vector(a: Float[Tensor, "n d h w"], *, radius_cells: int, block: int = 128) -> Float[Tensor, "n pairs"]:
    r"""The largest correlation of each pair of channels (Shih et al. 2017): one row per image.

        c(k, w) = max_{|o| ≤ r} Σ_p a^k_p a^w_{p+o},  zero outside the map, |o| the larger of its two parts

    Moving one map by o or the other by −o is the same, and the offsets contain both: c(k, w) = c(w, k). So the
    row holds the pairs k ≤ w once, in the order (0, 0), (0, 1) … (0, d−1), (1, 1) … (d−1, d−1).

    Equation 1 of Forcén et al. says no more than this. The original authors' published code, with r = 5, also blurs
    the moved map by a 3×3 Gaussian, which is left out here, and writes both (k, w) and (w, k).

    Args:
        a: feature map; see :func:`reduce_channels`, for the row grows with d².
        radius_cells: r ≥ 0 in cells, may exceed the map.
        block: channels k at a time, ≥ 1: bounds the memory, changes nothing else.

    Returns:
        c, d·(d+1)/2 long, in the dtype of ``a``; not normalised.

    Raises:
        InputError: no map, or a radius or block that is not whole or too small.

    Examples:
        >>> shih_vector(torch.tensor([[[[1.0, 0.0]], [[0.0, 3.0]]]]), radius_cells=1)
        tensor([[1., 3., 9.]])
    """
    _need(a, radius_cells, block)
    d = a.shape[1]
    rows = []
    for image in a:
        shifts = _Shifts(image, radius_cells)
        blocks = []
        for k in range(0, d, block):
            values = _lean(shifts.largest, shifts.padded[k : k + block], shifts.padded[k:])
            i, j = torch.triu_indices(*values.shape, device=a.device)
            blocks.append(values[i, j])
        rows.append(torch.cat(blocks))
    return torch.stack(rows) if rows else a.new_zeros(0, d * (d + 1) // 2)


@in_float32
def shih_tensor(a: Float[Tensor, "n d h w"], *, radius_cells: int, block: int = 128) -> Float[Tensor, "n d h w"]:
    r"""The correlation maps of each channel at its best offsets, summed (Forcén et al. 2020, section 6.1).

        m^{k,w}_p = a^k_p a^w_{p+o*},  o* = argmax_{|o| ≤ r} Σ_p a^k_p a^w_{p+o},  C_k(p) = Σ_w m^{k,w}_p

    The sum runs over all w, k itself included, as the text has it. Among equal offsets, o* is the first from
    top left to bottom right, row by row. (The published code of the vector form takes no offset before any.)
    o* is a choice: gradients hold it fixed.

    In products of matrices: with M_o(k, w) = 1 where o*(k, w) = o, C_k = a^k ∘ Σ_o (M_o A_o)_k, where A_o is the
    map moved by o.

    Args:
        a: feature map.
        radius_cells: r ≥ 0 in cells, may exceed the map.
        block: channels k at a time, ≥ 1: bounds the memory, changes nothing else.

    Returns:
        C, in shape and dtype as ``a``; its sum over the cells is Σ_w c(k, w) of :func:`shih_vector`.

    Raises:
        InputError: no map, or a radius or block that is not whole or too small.

    Examples:
        >>> shih_tensor(torch.tensor([[[[1.0, 0.0]], [[0.0, 3.0]]]]), radius_cells=1)
        tensor([[[[ 4.,  0.]],
        <BLANKLINE>
                 [[ 0., 12.]]]])
    """
    _need(a, radius_cells, block)
    d, h, w = a.shape[1:]
    images = []
    for image in a:
        shifts = _Shifts(image, radius_cells)
        blocks = []
        for k in range(0, d, block):
            best = shifts.best(shifts.padded[k : k + block].detach(), shifts.padded.detach())
            blocks.append(_lean(shifts.gathered, best, shifts.padded))
        images.append(image * torch.cat(blocks).view(d, h, -1)[:, :, :w])
    return torch.stack(images) if images else torch.zeros_like(a)


@in_float32
def reduce_channels(
    a: Float[Tensor, "n d h w"], weight: Float[Tensor, "m d"], bias: Float[Tensor, " m"] | None = None
) -> Float[Tensor, "n m h w"]:
    """Projects every cell from d to m channels, as Shih et al. do before their layer: (W a_p + bias).

    Source: Shih et al. 2017, who learn a 1×1 convolution with a bias and put no ReLU behind it (published code: 2048
    to 128 channels). The weight is learned elsewhere: such a layer's, or the first m principal directions of cells.

    Args:
        a: feature map.
        weight: W, a row per new channel.
        bias: a number per new channel; None for 0.

    Raises:
        InputError: no map, or a weight or bias of another shape, dtype or device.
    """
    need_map(a)
    need_tensor("weight", weight, (None, a.shape[1]), a)
    if bias is not None:
        need_tensor("bias", bias, (weight.shape[0],), a)
    return functional.conv2d(a, weight[:, :, None, None], bias)


def _need(a: object, radius_cells: object, block: object) -> None:
    need_map(a)
    need_whole("radius_cells", radius_cells, 0)
    need_whole("block", block, 1)


def _lean(function: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor) -> Tensor:
    """function(x, y), computed again for the gradient rather than remembered at every offset."""
    if torch.is_grad_enabled() and y.requires_grad:
        result: Tensor = checkpoint(function, x, y, use_reentrant=False)
        return result
    return function(x, y)


class _Shifts:
    """One image, padded with zeros so that the map moved by an offset is a stretch of the same memory.

    Rows of the map are followed by r zeros, which stand left of the next row too, and r + 1 rows of zeros lie above
    and below. In the stretch of the map itself the added columns are zeros, so whatever a moved map has there counts
    for nothing. Offsets that leave no overlap all give the zero map: one of them stands for all, and as the corner
    (−r, −r) is among them, it comes first.
    """

    def __init__(self, image: Tensor, radius_cells: int) -> None:
        h, w = image.shape[1:]
        up, left = min(radius_cells, h - 1), min(radius_cells, w - 1)
        width = w + left
        self.padded = functional.pad(image, (0, left, up + 1, up + 1)).flatten(1)
        self.start, self.cells = (up + 1) * width, h * width
        self.begins = [self.start + i * width + j for i in range(-up, up + 1) for j in range(-left, left + 1)]
        self.leaves = radius_cells >= min(h, w)

    def largest(self, some: Tensor, others: Tensor) -> Tensor:
        """c(k, w) for k of ``some`` and w of ``others``, channels of the padded map."""
        value = self._lowest(some, others)
        for begin in self.begins:
            value = torch.maximum(value, self._correlation(some, others, begin))
        return value

    @torch.no_grad()
    def best(self, some: Tensor, others: Tensor) -> Tensor:
        """The number of the best offset; −1 where none that overlaps is better than none."""
        value = self._lowest(some, others)
        best = torch.full(value.shape, -1, dtype=torch.int32, device=value.device)
        for number, begin in enumerate(self.begins):
            correlation = self._correlation(some, others, begin)
            best.masked_fill_(correlation > value, number)
            value = torch.maximum(value, correlation)
        return best

    def gathered(self, best: Tensor, others: Tensor) -> Tensor:
        """Σ_w a^w_{p+o*(k, w)} for each k of ``best``, with the added columns."""
        total = others.new_zeros(len(best), self.cells)
        for number, begin in enumerate(self.begins):
            total = torch.addmm(total, (best == number).to(others.dtype), others[:, begin : begin + self.cells])
        return total

    def _lowest(self, some: Tensor, others: Tensor) -> Tensor:
        return some.new_full((len(some), len(others)), 0 if self.leaves else -torch.inf)

    def _correlation(self, some: Tensor, others: Tensor, begin: int) -> Tensor:
        here = some[:, self.start : self.start + self.cells]
        return here @ others[:, begin : begin + self.cells].mT
