"""ResNet-101 with pre-activation units (He et al. 2016, "Identity mappings"), as trained by TF-Slim.

To the end of block 3, at stride 16: the last unit of block 3 keeps its stride at 1, so every second row and
column of the map is the original map. Batch-norms are folded: those before a unit into a scale and a shift,
the others into the convolutions.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional

from coocnet.backbones.record import Backbone, Tap, Trunk, Weights


class ScaleShift(nn.Module):
    """x·mul + add per channel: a folded batch-norm."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mul = nn.Parameter(torch.ones(channels))
        self.add = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Same shape."""
        return torch.addcmul(self.add[:, None, None], x, self.mul[:, None, None])


class PreActivationUnit(nn.Module):
    """Scale, shift, ReLU; then 1×1, 3×3 (carries the stride), 1×1; plus the shortcut, with no ReLU after."""

    def __init__(self, c_in: int, width: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.preact = ScaleShift(c_in)
        self.conv1 = nn.Conv2d(c_in, width, 1)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1)
        self.conv3 = nn.Conv2d(width, c_out, 1)
        self.shortcut = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else None

    def forward(self, x: Tensor) -> Tensor:
        """(b, c_in, h, w) to (b, c_out, h/stride, w/stride)."""
        a = torch.relu_(self.preact(x))
        y = torch.relu_(self.conv1(a))
        y = torch.relu_(self.conv2(y))
        shortcut = x[:, :, :: self.stride, :: self.stride] if self.shortcut is None else self.shortcut(a)
        out: Tensor = shortcut + self.conv3(y)
        return out


class FinalActivation(nn.Module):
    """The scale, shift and ReLU with which the next block would begin."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.preact = ScaleShift(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Same shape, ≥ 0."""
        return torch.relu_(self.preact(x))


class ResNet101V2(Trunk):
    """conv1, max-pool, blocks 1 to 3, and the pre-activation of block 4."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3)
        self.block1 = _block(64, 64, units=3, last_stride=2)
        self.block2 = _block(256, 128, units=4, last_stride=2)
        self.block3 = _block(512, 256, units=23, last_stride=1)
        self.block4 = nn.Sequential(OrderedDict(unit1=FinalActivation(1024)))

    def forward(self, x: Tensor, tap: str) -> Tensor:
        """See :class:`Trunk`."""
        y = self.block2(self.block1(_max_pool_same(self.conv1(x))))
        if tap == "block2":
            following: Tensor = self.block3.get_submodule("unit1.preact")(y)
            return torch.relu_(following)
        out: Tensor = self.block4(self.block3(y))
        return out


def _block(c_in: int, width: int, units: int, last_stride: int) -> nn.Sequential:
    c_out = 4 * width
    named: OrderedDict[str, nn.Module] = OrderedDict()
    for unit in range(1, units + 1):
        stride = last_stride if unit == units else 1
        named[f"unit{unit}"] = PreActivationUnit(c_in if unit == 1 else c_out, width, c_out, stride)
    return nn.Sequential(named)


def _max_pool_same(x: Tensor) -> Tensor:
    """3×3 max-pool of stride 2 with TensorFlow's SAME padding: the odd cell goes to the bottom and right."""
    pads = [max((-(-side // 2) - 1) * 2 + 3 - side, 0) for side in x.shape[2:]]
    (top, left) = (pad // 2 for pad in pads)
    padded = functional.pad(x, (left, pads[1] - left, top, pads[0] - top), value=-torch.inf)
    return functional.max_pool2d(padded, 3, stride=2)


RESNET101V2 = Backbone(
    title="ResNet-101 v2 (pre-activation), to the end of block 3",
    build=ResNet101V2,
    taps={
        "block3": Tap(1024, 16, "pre-activation after block 3"),
        "block2": Tap(512, 16, "pre-activation after block 2"),
    },
    min_side_px=1,
    weights={
        "tf-slim": Weights(
            file="resnet101v2_block3.safetensors",
            sha256="f997c68f63af57ff21fa7fe43dc263f4e96640ebc1b1720d4dcb3dafe9f8ca1e",
            urls=(),
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
            source="TF-Slim resnet_v2_101, by way of github.com/BruceDai/test-data, batch-norms folded, float16",
            licence="Apache-2.0 as stated by the source; trained on ImageNet",
            rename=lambda name: name.replace("_", "."),
            engines=("bfloat16",),
        )
    },
)
