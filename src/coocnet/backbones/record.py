"""What is known about a backbone and its weights, as data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

StateDict = dict[str, Tensor]


@dataclass(frozen=True)
class Tap:
    """A layer whose ReLU map can be taken.

    Attributes:
        channels: d of the map.
        stride_px: pixels of the input per cell of the map.
        layer: what stands there, in words.
    """

    channels: int
    stride_px: int
    layer: str


@dataclass(frozen=True)
class Weights:
    """One set of trained weights: where it comes from, and how its network wants to be fed.

    Attributes:
        file: file name in the weights folder and in the cache.
        sha256: full digest, or the leading digits its publisher put in the name; None where none is known,
            and then what is downloaded is reported as unverified.
        urls: mirrors, tried in order; empty where no public download of this file exists.
        mean, std: per RGB channel, of pixels scaled to 0..1: input = (pixel/255 − mean)/std.
        source: who trained and published them.
        licence: as stated by the source.
        rename: from the file's tensor names to the module's; names it maps to None are left out knowingly.
        engines: of ``coocnet.engines``, fastest first: those whose rows were measured to agree with float32 with
            these weights (``benchmarks/engines.py``), so that they may be chosen by themselves.
        calibration: file of the package that says how int8 writes the activations of these weights; empty for none.
    """

    file: str
    sha256: str | None
    urls: tuple[str, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    source: str
    licence: str
    rename: Callable[[str], str | None] = lambda name: name
    engines: tuple[str, ...] = ()
    calibration: str = ""


@dataclass(frozen=True)
class Step:
    """One step of a trunk that is a list of them: y = layer(source) + add, and then perhaps a ReLU.

    Attributes:
        layer: the module's name, and the name of what it gives: a convolution with a bias, or a 2×2 max-pool.
        source: the step whose output is read; empty for the pixels.
        add: the step whose output is added, and which nothing reads later; empty for none.
        relu: whether there is one.
    """

    layer: str
    source: str
    add: str = ""
    relu: bool = True


class Trunk(nn.Module):
    """A convolutional trunk: ``forward(pixels, tap)`` gives the map at ``tap`` and computes nothing beyond it."""

    def steps(self, tap: str) -> tuple[Step, ...]:  # noqa: ARG002 - most have none
        """What ``forward`` does up to ``tap`` as a list, for engines that change it; empty where there is none."""
        return ()

    def forward(self, x: Tensor, tap: str) -> Tensor:  # noqa: ARG002 - an interface
        """Pixels (b, 3, H, W), normalised as the weights ask, to the map (b, d, h, w) at ``tap``."""
        raise AssertionError("every trunk defines forward")


@dataclass(frozen=True)
class Backbone:
    """An architecture, the layers that can be tapped, and the weights that fit it.

    Attributes:
        title: name in words.
        build: makes the module, with arbitrary weights.
        taps: by name; the first is the default.
        min_side_px: the smallest side that still gives a map of at least one cell.
        weights: by name; the first is the default.
    """

    title: str
    build: Callable[[], Trunk]
    taps: Mapping[str, Tap]
    min_side_px: int
    weights: Mapping[str, Weights]


IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def torchvision_urls(file: str) -> tuple[str, ...]:
    """Where torchvision's checkpoints are: its own address, and the storage behind it."""
    return (f"https://download.pytorch.org/models/{file}", f"https://s3.amazonaws.com/pytorch/models/{file}")
