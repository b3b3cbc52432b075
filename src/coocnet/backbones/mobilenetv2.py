"""MobileNetV2 1.0 (Sandler et al. 2018), convolutions with their batch-norms folded in."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from coocnet.backbones.record import IMAGENET_MEAN, IMAGENET_STD, Backbone, Tap, Trunk, Weights

# expansion, channels out, units, stride of the first unit (table 2 of the paper)
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class MobileNetV2(Trunk):
    """Convolutions ``layer0`` to ``layer51`` in the order in which they run."""

    def __init__(self) -> None:
        super().__init__()
        self._units: list[tuple[int, int, bool]] = []  # first layer, number of layers, residual
        self._count = 0
        self._conv(3, 32, 3, stride=2)
        c_in = 32
        for expansion, c_out, units, first_stride in _STAGES:
            for unit in range(units):
                stride = first_stride if unit == 0 else 1
                first, width = self._count, c_in * expansion
                if expansion != 1:
                    self._conv(c_in, width, 1)
                self._conv(width, width, 3, stride=stride, groups=width)
                self._conv(width, c_out, 1)
                self._units.append((first, self._count - first, stride == 1 and c_in == c_out))
                c_in = c_out
        self._conv(c_in, 1280, 1)

    def _conv(self, c_in: int, c_out: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        layer = nn.Conv2d(c_in, c_out, kernel, stride=stride, padding=kernel // 2, groups=groups)
        self.add_module(f"layer{self._count}", layer)
        self._count += 1

    def forward(self, x: Tensor, tap: str) -> Tensor:
        """See :class:`Trunk`."""
        y = functional.relu6(self.get_submodule("layer0")(x))
        for first, count, residual in self._units:
            z = y
            for index in range(first, first + count - 1):
                z = functional.relu6(self.get_submodule(f"layer{index}")(z))
                if index == 39 and tap == "expand":
                    return z
            z = self.get_submodule(f"layer{first + count - 1}")(z)
            y = y + z if residual else z
        return functional.relu6(self.get_submodule("layer51")(y))


MOBILENETV2 = Backbone(
    title="MobileNetV2 1.0",
    build=MobileNetV2,
    taps={
        "features": Tap(1280, 32, "ReLU6 of the last 1×1 convolution"),
        "expand": Tap(576, 16, "ReLU6 of the expansion in the first unit with 160 channels"),
    },
    min_side_px=1,
    weights={
        "onnx-zoo": Weights(
            file="mobilenetv2_features.safetensors",
            sha256="787064d7fbbc4c31bc6a5c076acf323bdf621cafb3c6de377e1b184be72363d9",
            urls=(),
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
            source="ONNX model zoo mobilenetv2-7, by way of github.com/BruceDai/test-data, batch-norms folded, "
            "float16 but for the depthwise layers",
            licence="Apache-2.0 as stated by the source; trained on ImageNet",
            rename=lambda name: name.replace("_", "."),
        )
    },
)
