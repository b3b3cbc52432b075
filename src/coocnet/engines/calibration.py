"""What eight bits need to know of a network: how large activations get, and what rounding does to their mean."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from coocnet.backbones import Step, Trunk

LEVELS = 255
"""Steps between the least and the largest number of eight bits."""
_SAMPLED = 4096
_CLIPPED = np.linspace(0.3, 1, 29)


@dataclass(frozen=True)
class Calibration:
    """How the activations of a trunk are written in eight bits.

    What a step gives, y, is stored as q = round(y / (unit · share)) + zero, between 0 and 255, with a unit for the
    whole map and a share for each channel: the same share wherever channels are added to each other.

    Attributes:
        unit: by step, one number.
        zero: by step, the q of y = 0.
        share: by step, (c,) of mean 1 in logarithms.
        correction: by convolution, (c,) to be added to its bias: what rounding its weights takes from the mean.
    """

    unit: dict[str, float]
    zero: dict[str, int]
    share: dict[str, Tensor]
    correction: dict[str, Tensor]

    def save(self, path: str | os.PathLike[str], *, weights_sha256: str) -> None:
        """Writes it with the digest of the weights that it is for."""
        tensors = {
            "unit": torch.tensor(list(self.unit.values()), dtype=torch.float64),
            "zero": torch.tensor(list(self.zero.values())),
            **{f"share.{name}": share.clone() for name, share in self.share.items()},
            **{f"correction.{name}": correction for name, correction in self.correction.items()},
        }
        save_file(tensors, path, metadata={"weights_sha256": weights_sha256, "steps": " ".join(self.unit)})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> tuple[Calibration, str]:
        """One that :meth:`save` wrote, and the digest of the weights that it is for."""
        with safe_open(path, "pt") as stream:
            metadata, tensors = stream.metadata(), {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
        steps = metadata["steps"].split()
        named: dict[str, dict[str, Tensor]] = {"share": {}, "correction": {}}
        for name, tensor in tensors.items():
            kind, _, step = name.partition(".")
            if step:
                named[kind][step] = tensor
        units, zeros = tensors["unit"].tolist(), tensors["zero"].tolist()
        made = cls(dict(zip(steps, units, strict=True)), dict(zip(steps, zeros, strict=True)), **named)
        return made, metadata["weights_sha256"]


def calibrated(trunk: Trunk, tap: str, inputs: Iterable[Tensor], *, stem: int = 1) -> Calibration:
    """Learns it from a few pictures, normalised as the weights ask, each (1, 3, H, W).

    The share of a channel is the geometric mean of what the activations and what the weights that read them would
    like, so that neither loses (Nagel et al. 2019, "Data-free quantization", eq. 11, with the range of activations
    in place of that of the weights before); the unit is the one of least square error; the correction is theirs too
    (section 4.2), with the mean measured.

    Args:
        trunk: a list of steps.
        tap: of it.
        inputs: the pictures.
        stem: how many convolutions at the beginning are left as they are.
    """
    steps = trunk.steps(tap)
    convolutions = [place for place, step in enumerate(steps) if _is_convolution(trunk, step)]
    inner = [step.layer for step in steps[convolutions[stem - 1] : convolutions[-1]]]
    seen = [_seen(trunk, steps, x) for x in inputs]
    largest = {name: torch.stack([one[name].largest for one in seen]).quantile(0.98, 0) for name in inner}
    mean = {name: torch.stack([one[name].mean for one in seen]).mean(0) for name in inner}
    share = _shares(trunk, steps, largest)
    unit, zero = {}, {}
    for name in inner:
        sampled = torch.cat([(one[name].sampled / share[name][one[name].channels]) for one in seen])
        unit[name], zero[name] = _unit(sampled)
    correction = {}
    for step in (steps[place] for place in convolutions[stem:]):
        weight = convolution(trunk, step).weight * share[step.source][None, :, None, None]
        whole, worth = rounded(weight)
        lost = (weight - whole * worth[:, None, None, None]).sum((2, 3))
        correction[step.layer] = lost @ (mean[step.source] / share[step.source])
    return Calibration(unit, zero, share, correction)


def convolution(trunk: Trunk, step: Step) -> nn.Conv2d:
    """The layer of a step that is a convolution."""
    layer = trunk.get_submodule(step.layer)
    assert isinstance(layer, nn.Conv2d)
    return layer


def rounded(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A filter (c_out, c_in, s, s) as whole numbers from −127 to 127, and what one of them is worth, (c_out,)."""
    worth = weight.abs().amax((1, 2, 3)).clamp_min(torch.finfo(weight.dtype).tiny) / 127
    return (weight / worth[:, None, None, None]).round().clamp(-127, 127), worth


@dataclass(frozen=True)
class _Seen:
    """Of an activation on a picture: the largest of each channel, the mean, and some values with their channels."""

    largest: Tensor
    mean: Tensor
    sampled: Tensor
    channels: Tensor


def _is_convolution(trunk: Trunk, step: Step) -> bool:
    return isinstance(trunk.get_submodule(step.layer), nn.Conv2d)


def _seen(trunk: Trunk, steps: Sequence[Step], x: Tensor) -> dict[str, _Seen]:
    generator, found, values = torch.Generator().manual_seed(0), {}, {"": x}
    for step in steps:
        layer = trunk.get_submodule(step.layer)
        y = layer(values[step.source])
        y = y + values[step.add] if step.add else y
        values[step.layer] = y = functional.relu(y) if step.relu else y
        flat = y[0].flatten(1)
        channels = torch.randint(len(flat), (_SAMPLED,), generator=generator)
        cells = torch.randint(flat.shape[1], (_SAMPLED,), generator=generator)
        largest, mean = flat.abs().amax(1), flat.mean(1)
        found[step.layer] = _Seen(largest, mean, flat[channels, cells], channels)
    return found


def _shares(trunk: Trunk, steps: Sequence[Step], largest: dict[str, Tensor]) -> dict[str, Tensor]:
    """By step; one for all that are added to each other, or are pooled of each other."""
    group = {name: {name} for name in largest}
    for step in (one for one in steps if one.layer in group):
        for other in filter(None, (step.add, "" if _is_convolution(trunk, step) else step.source)):
            joined = group[step.layer] | group[other]
            group.update(dict.fromkeys(joined, joined))
    share: dict[str, Tensor] = {}
    for members in map(sorted, group.values()):
        large = torch.stack([largest[name] for name in members]).amax(0).clamp_min(1e-6)
        readers = [trunk.get_submodule(step.layer) for step in steps if step.source in members]
        weights = [one.weight for one in readers if isinstance(one, nn.Conv2d)]
        relative = [
            (w / w.abs().amax((1, 2, 3), keepdim=True).clamp_min(1e-12)).abs().amax((0, 2, 3)) for w in weights
        ]
        wanted = (large / torch.stack(relative).amax(0).clamp_min(1e-6)).sqrt()
        share.update(dict.fromkeys(members, wanted / wanted.log().mean().exp()))
    return share


def _unit(values: Tensor) -> tuple[float, int]:
    """The unit and zero of least square error for these values; those beyond are cut off."""
    low, high = min(values.min().item(), 0.0), max(values.max().item(), 1e-6)
    tried = []
    for clipped in _CLIPPED:
        unit = float(clipped) * (high - low) / LEVELS
        zero = round(-low * float(clipped) / unit)
        error = (((values / unit).round() + zero).clamp(0, LEVELS) - zero) * unit - values
        tried.append((error.square().sum().item(), unit, zero))
    return min(tried)[1:]
