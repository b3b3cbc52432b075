"""The network inside the package: small, of plain convolutions, trained for co-occurrence pooling (docs/mini.md).

Residual blocks (He et al. 2016) of dense 3×3 convolutions: on a processor these run nearer to its peak than the
depthwise ones of networks with fewer operations. Batch-norms are folded in.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from coocnet.backbones.record import IMAGENET_MEAN, IMAGENET_STD, Backbone, Step, Tap, Trunk, Weights

STEM = (24, 48)
"""Channels of its two convolutions."""
BLOCKS = ((80, 2), (80, 1), (160, 2), (160, 1), (160, 1), (160, 1))
"""Channels of each block, and the stride of its first convolution."""
CHANNELS = 512
"""Channels of the map."""


class Mini(Trunk):
    """Two convolutions of stride 2, six residual ``blocks``, and a 1×1 convolution to 512 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem0 = nn.Conv2d(3, STEM[0], 3, stride=2, padding=1)
        self.stem1 = nn.Conv2d(STEM[0], STEM[1], 3, stride=2, padding=1)
        c_in = STEM[1]
        self.blocks = nn.ModuleList()
        for c_out, stride in BLOCKS:
            self.blocks.append(_Block(c_in, c_out, stride))
            c_in = c_out
        self.head = nn.Conv2d(c_in, CHANNELS, 1)

    def forward(self, x: Tensor, tap: str) -> Tensor:  # noqa: ARG002 - it has one tap
        """See :class:`Trunk`."""
        last = deque(self.stages(x), maxlen=1).pop()
        return torch.relu(self.head(last))

    def stages(self, x: Tensor) -> Iterator[Tensor]:
        """What there is after the stem and after every block."""
        y = torch.relu(self.stem1(torch.relu(self.stem0(x))))
        yield y
        for block in self.blocks:
            y = block(y)
            yield y

    def steps(self, tap: str) -> tuple[Step, ...]:  # noqa: ARG002 - it has one tap
        """See :class:`Trunk`."""
        listed = [Step("stem0", ""), Step("stem1", "stem0")]
        y = "stem1"
        for number, block in enumerate(self.blocks):
            first, second, skip = (f"blocks.{number}.{name}" for name in ("first", "second", "skip"))
            projected = isinstance(block.get_submodule("skip"), nn.Conv2d)
            listed += [Step(first, y), *([Step(skip, y, relu=False)] if projected else [])]
            listed.append(Step(second, first, add=skip if projected else y))
            y = second
        return (*listed, Step("head", y))


class _Block(nn.Module):
    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(c_in, c_out, 3, stride=stride, padding=1)
        self.second = nn.Conv2d(c_out, c_out, 3, padding=1)
        self.skip = nn.Conv2d(c_in, c_out, 1, stride=stride) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = torch.relu(self.second(torch.relu(self.first(x))) + self.skip(x))
        return y


MINI = Backbone(
    title="coocnet mini",
    build=Mini,
    taps={"head": Tap(CHANNELS, 16, "ReLU of the last 1×1 convolution")},
    min_side_px=1,
    weights={
        "coocnet": Weights(
            file="mini.safetensors",
            sha256="7d3ea763e946021ac84ec50bdc903f11a1ab21abdefe31d50f4924d5a121eb51",
            urls=(),
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
            source="comes with the package, float16; trained by training/ in its repository",
            licence="MIT",
            engines=("bfloat16",),
            calibration="mini-int8.safetensors",
        )
    },
)
