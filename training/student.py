"""The network as it is trained: every convolution followed by a batch-norm, folded away at the end."""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from coocnet import ops
from coocnet.backbones.mini import BLOCKS, CHANNELS, STEM, Mini
from coocnet.backbones.record import IMAGENET_MEAN, IMAGENET_STD
from teacher import HINTS, RECIPE, TEACHERS


class NormedConv(nn.Sequential):
    """A convolution without bias and its batch-norm, in place of one convolution."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        fresh = copy.deepcopy(convolution)
        fresh.bias = None
        nn.init.kaiming_normal_(fresh.weight, nonlinearity="relu")
        super().__init__(fresh, nn.BatchNorm2d(fresh.out_channels))

    def folded(self) -> nn.Conv2d:
        """One convolution that does the same once training is over."""
        convolution, norm = self
        assert isinstance(convolution, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        return nn.utils.fusion.fuse_conv_bn_eval(copy.deepcopy(convolution).eval(), copy.deepcopy(norm).eval())


def with_batch_norm(trunk: Mini) -> Mini:
    """The trunk with a batch-norm behind every convolution, its weights drawn anew."""
    for module in list(trunk.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Conv2d) and not isinstance(module, NormedConv):
                setattr(module, name, NormedConv(child))
    return trunk


def folded(trunk: Mini) -> Mini:
    """A copy with every batch-norm folded into its convolution."""
    plain = copy.deepcopy(trunk).eval()
    for module in list(plain.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, NormedConv):
                setattr(module, name, child.folded())
    return plain


def pool(a: Tensor) -> Tensor:
    """The recipe's context pooling of maps (b, d, h, w) of a ReLU, quick forwards and backwards.

    As :func:`coocnet.ops.context_pooling`, but for a trifle that keeps the slope at 0 finite.
    """
    assert (RECIPE.pooling, RECIPE.context_power, RECIPE.value_power) == ("context", 2, 1.5)
    cells = a.permute(0, 2, 3, 1)
    mask = a.detach() > a.detach().mean((1, 2, 3), keepdim=True)
    active = (cells * mask.permute(0, 2, 3, 1)).sum(3)
    context = ops.window_sum(active[:, None], RECIPE.cooccurrence.radius_cells)[:, 0]
    weights = (context / context.amax((1, 2), keepdim=True).clamp(min=1e-6)).square()
    powered = cells * (cells + 1e-6).sqrt()
    summed = weights.flatten(1)[:, None] @ powered.flatten(1, 2)
    return (summed[:, 0] + 1e-6) ** (1 / RECIPE.value_power)


class Told(NamedTuple):
    """What a student says of views: every hint and, of each teacher, cells and unit rows; and unit embeddings."""

    hints: list[Tensor]
    cells: list[Tensor]
    rows: list[Tensor]
    embedded: Tensor


class Student(nn.Module):
    """The trunk, and the heads that tell from its map what the teachers would say; the heads are left behind.

    Args:
        row_dim: of the teachers' rows.
        embedding_dim: of the rows by which views of one thing are told from others.
    """

    def __init__(self, row_dim: int, embedding_dim: int) -> None:
        super().__init__()
        self.trunk = with_batch_norm(Mini())
        widths = [STEM[-1], *(width for width, _ in BLOCKS)]
        self.hints = nn.ModuleList(nn.Conv2d(widths[hint.after_stage], hint.channels, 1) for hint in HINTS)
        self.cells = nn.ModuleList(nn.Conv2d(CHANNELS, teacher.axes, 1) for teacher in TEACHERS)
        self.rows = nn.ModuleList(nn.Linear(CHANNELS, row_dim) for _ in TEACHERS)
        for head in (*self.cells, *self.hints):
            assert isinstance(head, nn.Conv2d)
            nn.init.zeros_(head.weight)
        self.embedding = nn.Linear(CHANNELS, embedding_dim)
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN)[:, None, None])
        self.register_buffer("std", torch.tensor(IMAGENET_STD)[:, None, None])

    def forward(self, x: Tensor) -> Told:
        """Pixels from 0 to 1 (b, 3, h, w) to all that the teachers would say of them."""
        x = ((x - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            stages = list(self.trunk.stages(x))
            a = torch.relu(self.trunk.head(stages[-1]))
            hints = [head(stages[hint.after_stage]).float() for head, hint in zip(self.hints, HINTS, strict=True)]
            size = a.shape[-1]
            cells = [
                head(functional.avg_pool2d(a, size // teacher.cells) if teacher.cells < size else a).float()
                for head, teacher in zip(self.cells, TEACHERS, strict=True)
            ]
        pooled = pool(a.float())
        # Rows of about 1 a channel are what a linear layer likes.
        unit = functional.normalize(pooled, dim=1) * pooled.shape[1] ** 0.5
        rows = [functional.normalize(head(unit), dim=1) for head in self.rows]
        return Told(hints, cells, rows, functional.normalize(self.embedding(unit), dim=1))
