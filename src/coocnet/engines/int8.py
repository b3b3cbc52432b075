"""A network in whole numbers of eight bits, summed in 32: AVX512-VNNI, by way of oneDNN."""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import chain

import torch
from torch import Tensor, nn

from coocnet.backbones import Step, Trunk
from coocnet.engines.calibration import LEVELS, Calibration, convolution, rounded
from coocnet.engines.memory import channels_first, halved

_LIKELY_CELLS = [24, 32]
"""Rows and columns of the maps that weights are laid out for; others are computed too."""


class InInt8(Trunk):
    """A trunk in int8 but for its first convolutions and for what its last one gives.

    The first read pixels in ``stem`` and sum in float32, up to the first step that the calibration knows: filters for
    edges sum to zero, and would not in eight bits. Elsewhere weights are rounded by the channel.

    Args:
        trunk: a list of steps that begins with convolutions.
        tap: the only one that it is prepared for.
        calibration: of this trunk with these weights.
        stem: type of the first convolutions.
    """

    def __init__(self, trunk: Trunk, tap: str, calibration: Calibration, *, stem: torch.dtype) -> None:
        super().__init__()
        steps = trunk.steps(tap)
        first = next(place for place, step in enumerate(steps) if step.layer in calibration.unit)
        self._tap, self._dtype, self._last = tap, stem, steps[first].layer
        layers = [copy.deepcopy(trunk.get_submodule(step.layer)) for step in steps[:first]]
        in_units = _in_units(trunk, steps[first], calibration)
        self._stem = nn.Sequential(*chain.from_iterable((layer, nn.ReLU()) for layer in layers), in_units).to(stem)
        self._steps = [(step, _computed(trunk, step, calibration)) for step in steps[first + 1 :]]

    def forward(self, x: Tensor, tap: str) -> Tensor:
        """See :class:`Trunk`; the map is float32."""
        assert tap == self._tap, f"prepared for {self._tap}, not {tap}"
        x = x.to(self._dtype).contiguous(memory_format=torch.channels_last)
        y = self._stem(x).clamp_(0, LEVELS).to(torch.int32).to(torch.uint8)
        values = {self._last: y}
        for step, computed in self._steps:
            y = computed(values[step.source], values[step.add] if step.add else None)
            values[step.layer] = y
        return channels_first(y).float()


def _in_units(trunk: Trunk, step: Step, calibration: Calibration) -> nn.Conv2d:
    """A convolution with its output in units and a half above: cut to 0..255 and truncated, that is rounded."""
    layer = copy.deepcopy(convolution(trunk, step))
    assert layer.bias is not None
    unit = calibration.unit[step.layer] * calibration.share[step.layer]
    weight = (layer.weight / unit[:, None, None, None]).contiguous(memory_format=torch.channels_last)
    layer.weight = nn.Parameter(weight, requires_grad=False)
    layer.bias = nn.Parameter(layer.bias / unit + 0.5, requires_grad=False)
    return layer


def _computed(trunk: Trunk, step: Step, calibration: Calibration) -> Callable[[Tensor, Tensor | None], Tensor]:
    """From what a step reads, and what is added, to what it gives; what is added is overwritten."""
    layer = trunk.get_submodule(step.layer)
    if not isinstance(layer, nn.Conv2d):
        return lambda x, _: halved(x)
    c, source = calibration, step.source
    share_in = c.share[source][None, :, None, None]
    share_out = c.share.get(step.layer, torch.ones(layer.out_channels))
    whole, worth = rounded(layer.weight * share_in / share_out[:, None, None, None])
    bias = (layer.bias + c.correction[step.layer]) / share_out  # type: ignore[operator]
    place = [list(layer.stride), list(layer.padding), list(layer.dilation), layer.groups]
    of_source = [c.unit[source], c.zero[source]]
    packed = torch.ops.onednn.qconv_prepack(
        whole.to(torch.int8), worth, *of_source, *place, [1, layer.in_channels, *_LIKELY_CELLS]
    )
    weights = [packed, worth, torch.zeros(layer.out_channels, dtype=torch.int32)]
    inner = step.layer in c.unit
    of_output = [c.unit[step.layer], c.zero[step.layer], torch.uint8] if inner else [1.0, 0, torch.bfloat16]
    activation = "relu" if step.relu else "none"

    def alone(x: Tensor, _: Tensor | None) -> Tensor:
        out: Tensor = torch.ops.onednn.qconv2d_pointwise(
            x, *of_source, *weights, bias, *place, *of_output, activation, [], ""
        )
        return out

    def added(x: Tensor, other: Tensor | None) -> Tensor:
        out: Tensor = torch.ops.onednn.qconv2d_pointwise.binary(
            x, *of_source, *weights, other, bias, *place, *of_output, *of_other, "sum", 1.0, activation, [], ""
        )
        return out

    if not step.add:
        return alone
    of_other = [c.unit[step.add], c.zero[step.add]]
    return added
