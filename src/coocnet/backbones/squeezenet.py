"""SqueezeNet 1.1 (Iandola et al. 2016), convolutional part."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from coocnet.backbones.record import IMAGENET_MEAN, IMAGENET_STD, Backbone, Tap, Trunk, Weights

# squeeze, expand (each of the two halves); a max-pool stands before fires 0, 2 and 4
_FIRES = ((16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256))
_POOL_BEFORE = (0, 2, 4)


class SqueezeNet11(Trunk):
    """``conv0``, then per fire a squeeze and two expansions: ``conv1`` to ``conv24`` in the order they run."""

    def __init__(self) -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(3, 64, 3, stride=2)
        c_in = 64
        for fire, (squeeze, expand) in enumerate(_FIRES):
            self.add_module(f"conv{3 * fire + 1}", nn.Conv2d(c_in, squeeze, 1))
            self.add_module(f"conv{3 * fire + 2}", nn.Conv2d(squeeze, expand, 1))
            self.add_module(f"conv{3 * fire + 3}", nn.Conv2d(squeeze, expand, 3, padding=1))
            c_in = 2 * expand

    def forward(self, x: Tensor, tap: str) -> Tensor:  # noqa: ARG002 - it has one tap
        """See :class:`Trunk`."""
        y = torch.relu(self.conv0(x))
        for fire in range(len(_FIRES)):
            if fire in _POOL_BEFORE:
                y = functional.max_pool2d(y, 3, stride=2)
            s = torch.relu(self.get_submodule(f"conv{3 * fire + 1}")(y))
            halves = [self.get_submodule(f"conv{3 * fire + half}")(s) for half in (2, 3)]
            y = torch.relu(torch.cat(halves, 1))
        return y


def _rename(name: str) -> str | None:
    return None if name.startswith("conv25_") else name.replace("_", ".")


SQUEEZENET11 = Backbone(
    title="SqueezeNet 1.1",
    build=SqueezeNet11,
    taps={"features": Tap(512, 16, "ReLU of the last fire module")},
    min_side_px=31,
    weights={
        "onnx-zoo": Weights(
            file="squeezenet1_1.safetensors",
            sha256="8bf0dd7e516624baaeb6a8b79e6d191bf463f76aa2716d460c03a9edbf7889d6",
            urls=(),
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
            source="ONNX model zoo squeezenet1.1, by way of github.com/BruceDai/test-data, float16",
            licence="Apache-2.0 as stated by the source; trained on ImageNet",
            rename=_rename,
        )
    },
)
