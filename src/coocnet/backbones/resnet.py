"""ResNet-50 and -101 with bottlenecks (He et al. 2016), in the layout and with the stride of torchvision."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from coocnet.backbones.record import IMAGENET_MEAN, IMAGENET_STD, Backbone, Tap, Trunk, Weights, torchvision_urls


class Bottleneck(nn.Module):
    """1×1 reduce, 3×3 (carries the stride), 1×1 expand by four, residual sum, ReLU."""

    def __init__(self, c_in: int, width: int, stride: int) -> None:
        super().__init__()
        c_out = 4 * width
        self.conv1 = nn.Conv2d(c_in, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, c_out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(c_out)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or c_in != c_out:
            self.downsample = nn.Sequential(
                nn.Conv2d(c_in, c_out, 1, stride=stride, bias=False), nn.BatchNorm2d(c_out)
            )

    def forward(self, x: Tensor) -> Tensor:
        """(b, c_in, h, w) to (b, 4·width, h/stride, w/stride)."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        shortcut = x if self.downsample is None else self.downsample(x)
        out: Tensor = self.relu(y + shortcut)
        return out


class ResNet(Trunk):
    """Stem and four stages; ``units`` bottlenecks in each."""

    def __init__(self, units: tuple[int, int, int, int]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = _stage(64, 64, units[0], stride=1)
        self.layer2 = _stage(256, 128, units[1], stride=2)
        self.layer3 = _stage(512, 256, units[2], stride=2)
        self.layer4 = _stage(1024, 512, units[3], stride=2)

    def forward(self, x: Tensor, tap: str) -> Tensor:
        """See :class:`Trunk`."""
        y = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        y = self.layer3(self.layer2(self.layer1(y)))
        out: Tensor = y if tap == "layer3" else self.layer4(y)
        return out


def _stage(c_in: int, width: int, units: int, stride: int) -> nn.Sequential:
    first = Bottleneck(c_in, width, stride)
    return nn.Sequential(first, *(Bottleneck(4 * width, width, 1) for _ in range(units - 1)))


def _rename(name: str) -> str | None:
    """Torchvision's names, less the classifier."""
    return None if name.startswith("fc.") else name


_TAPS = {
    "layer4": Tap(2048, 32, "ReLU of the last unit of stage 4"),
    "layer3": Tap(1024, 16, "ReLU of the last unit of stage 3"),
}


def _torchvision(file: str, version: str) -> Weights:
    return Weights(
        file=file,
        sha256=file.rpartition("-")[2].removesuffix(".pth"),
        urls=torchvision_urls(file),
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        source=f"torchvision, {version}",
        licence="BSD-3-Clause (torchvision); trained on ImageNet",
        rename=_rename,
    )


RESNET50 = Backbone(
    title="ResNet-50",
    build=partial(ResNet, (3, 4, 6, 3)),
    taps=_TAPS,
    min_side_px=1,
    weights={
        "torchvision": _torchvision("resnet50-0676ba61.pth", "ResNet50_Weights.IMAGENET1K_V1"),
        "torchvision-v2": _torchvision("resnet50-11ad3fa6.pth", "ResNet50_Weights.IMAGENET1K_V2"),
    },
)
RESNET101 = Backbone(
    title="ResNet-101",
    build=partial(ResNet, (3, 4, 23, 3)),
    taps=_TAPS,
    min_side_px=1,
    weights={
        "torchvision": _torchvision("resnet101-63fe2227.pth", "ResNet101_Weights.IMAGENET1K_V1"),
        "torchvision-v2": _torchvision("resnet101-cd907fc2.pth", "ResNet101_Weights.IMAGENET1K_V2"),
    },
)
