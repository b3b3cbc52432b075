"""VGG16, convolutional part (Simonyan and Zisserman 2015): the paper's network."""

from __future__ import annotations

from torch import Tensor, nn

from coocnet.backbones.record import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Backbone,
    Step,
    Tap,
    Trunk,
    Weights,
    torchvision_urls,
)

_POOL = 0
_PLAN = (64, 64, _POOL, 128, 128, _POOL, 256, 256, 256, _POOL, 512, 512, 512, _POOL, 512, 512, 512, _POOL)


class Vgg16(Trunk):
    """Thirteen 3×3 convolutions with ReLU and five 2×2 max-pools, named as in torchvision: ``features.N``."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for step in _PLAN:
            if step == _POOL:
                layers.append(nn.MaxPool2d(2, 2))
            else:
                layers += [nn.Conv2d(channels, step, 3, padding=1), nn.ReLU(inplace=True)]
                channels = step
        self.features = nn.Sequential(*layers)

    def forward(self, x: Tensor, tap: str) -> Tensor:
        """See :class:`Trunk`."""
        layers = self.features[:-1] if tap == "conv5_3" else self.features
        out: Tensor = layers(x)
        return out

    def steps(self, tap: str) -> tuple[Step, ...]:
        """See :class:`Trunk`."""
        layers = [(f"features.{place}", layer) for place, layer in enumerate(self.features.children())]
        names = [name for name, layer in layers if not isinstance(layer, nn.ReLU)]
        names = names[:-1] if tap == "conv5_3" else names
        return tuple(
            Step(name, source, relu=isinstance(self.get_submodule(name), nn.Conv2d))
            for source, name in zip(["", *names[:-1]], names, strict=True)
        )


def _rename(name: str) -> str | None:
    """Both layouts: ``features.0.weight`` of the whole network, ``0.weight`` of its features alone."""
    if name.startswith(("classifier.", "pool.", "whiten.")):
        return None
    return name if name.startswith("features.") else f"features.{name}"


VGG16 = Backbone(
    title="VGG16, convolutional part",
    build=Vgg16,
    taps={
        "pool5": Tap(512, 32, "after the fifth max-pool, as in the paper"),
        "conv5_3": Tap(512, 16, "ReLU of conv5_3, before the fifth max-pool"),
    },
    min_side_px=32,
    weights={
        "torchvision": Weights(
            file="vgg16-397923af.pth",
            sha256="397923af",
            urls=torchvision_urls("vgg16-397923af.pth"),
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
            source="torchvision, VGG16_Weights.IMAGENET1K_V1",
            licence="BSD-3-Clause (torchvision); trained on ImageNet",
            rename=_rename,
        ),
        "caffe": Weights(
            file="imagenet-caffe-vgg16-features-d369c8e.pth",
            sha256=None,
            urls=(
                "http://cmp.felk.cvut.cz/cnnimageretrieval/data/networks/imagenet/"
                "imagenet-caffe-vgg16-features-d369c8e.pth",
            ),
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
            source="the authors' Caffe model, as converted for cnnimageretrieval-pytorch",
            licence="none stated by the conversion; see the VGG authors' terms",
            rename=_rename,
        ),
        "gem-sfm120k": Weights(
            file="retrievalSfM120k-vgg16-gem-b4dcdc6.pth",
            sha256=None,
            urls=(
                "http://cmp.felk.cvut.cz/cnnimageretrieval/data/networks/retrieval-SfM-120k/"
                "retrievalSfM120k-vgg16-gem-b4dcdc6.pth",
            ),
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
            source="Radenović et al. 2018, fine-tuned with GeM on retrieval-SfM-120k",
            licence="none stated; the code beside it is MIT",
            rename=_rename,
        ),
    },
)
