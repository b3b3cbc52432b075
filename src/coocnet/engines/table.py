"""The table of engines: one entry makes a way to compute usable everywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from coocnet.backbones import LoadedBackbone, Trunk
from coocnet.data.scenes import render
from coocnet.engines.calibration import Calibration, calibrated
from coocnet.engines.int8 import InInt8
from coocnet.engines.memory import channels_first
from coocnet.errors import InputError
from coocnet.shipped import SHIPPED

PLAIN = "float32"
_SCENES, _SCENE_PX = 8, 320


@dataclass(frozen=True)
class Engine:
    """One way to compute a trunk.

    Attributes:
        is_native: whether this processor has the instructions that make it fast.
        needs: what those are, where it does not compute without; empty where it does, slowly.
        prepared: from a loaded backbone and a tap to a trunk that computes the tap this way. The loaded one may be
            changed.
    """

    is_native: Callable[[], bool]
    needs: str
    prepared: Callable[[LoadedBackbone, str], Trunk]


class InBfloat16(Trunk):
    """A trunk with its weights and what flows between its layers in bfloat16; each layer sums in float32."""

    def __init__(self, trunk: Trunk) -> None:
        super().__init__()
        self.trunk = trunk.to(torch.bfloat16)

    def forward(self, x: Tensor, tap: str) -> Tensor:
        """See :class:`Trunk`; the map is float32."""
        out: Tensor = self.trunk(x.to(torch.bfloat16), tap)
        return channels_first(out).float()


def _in_int8(loaded: LoadedBackbone, tap: str) -> Trunk:
    """With the calibration that the package has for these weights, or else one of rendered scenes."""
    trunk, weights = loaded.trunk, loaded.weights
    if not trunk.steps(tap):
        raise InputError(f"the engine 'int8' does not know how {loaded.record.title} is made; take 'bfloat16'")
    calibration = shipped_calibration(loaded)
    if calibration is None:
        with torch.inference_mode():
            calibration = calibrated(trunk, tap, _rendered(weights.mean, weights.std))
    return InInt8(trunk, tap, calibration, stem=torch.bfloat16 if _has_bfloat16() else torch.float32)


def shipped_calibration(loaded: LoadedBackbone) -> Calibration | None:
    """The package's calibration of these weights, if it has one."""
    if not loaded.weights.calibration:
        return None
    calibration, weights_sha256 = Calibration.load(SHIPPED / loaded.weights.calibration)
    return calibration if weights_sha256 == loaded.place.sha256 else None


def _rendered(mean: tuple[float, ...], std: tuple[float, ...]) -> Iterator[Tensor]:
    for instance in range(_SCENES):
        pixels = np.array(render(instance, 0, size_px=_SCENE_PX)[0], np.float32) / 255
        x = (torch.from_numpy(pixels) - torch.tensor(mean)) / torch.tensor(std)
        yield x.permute(2, 0, 1)[None]


def _has_bfloat16() -> bool:
    """AVX512-BF16 or AMX: oneDNN then computes bfloat16 natively."""
    return _has_onednn() and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def _has_int8() -> bool:
    """AVX512-VNNI: without it, sums of two products would overflow their 16 bits."""
    return _has_onednn() and torch.cpu._is_vnni_supported() and hasattr(torch.ops.onednn, "qconv2d_pointwise")


def _has_onednn() -> bool:
    has: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return has


ENGINES: dict[str, Engine] = {
    PLAIN: Engine(lambda: True, "", lambda loaded, _: loaded.trunk),
    "bfloat16": Engine(_has_bfloat16, "", lambda loaded, _: InBfloat16(loaded.trunk)),
    "int8": Engine(_has_int8, "AVX512-VNNI", _in_int8),
}
"""The engines by name."""


def chosen_engine(name: str | None, loaded: LoadedBackbone, device: torch.device) -> str:
    """The engine asked for; if none is, the first that the weights' record names and this processor has.

    Raises:
        InputError: see :func:`need_engine`.
    """
    if name is None:
        measured = loaded.weights.engines if loaded.place.is_of(loaded.weights) and device.type == "cpu" else ()
        return next((engine for engine in measured if ENGINES[engine].is_native()), PLAIN)
    need_engine(name, device)
    return name


def need_engine(name: object, device: torch.device) -> None:
    """Refuses an engine that cannot be had.

    Raises:
        InputError: no such engine, one of the processor where the device is another, or one that this processor
            cannot compute.
    """
    if not isinstance(name, str) or name not in ENGINES:
        raise InputError(
            f"no engine is called {name!r}; there are {', '.join(ENGINES)}, or None for the best one here"
        )
    if name != PLAIN and device.type != "cpu":
        raise InputError(f'the engine {name!r} is one of the processor, device "cpu"; on {device} leave it out')
    if ENGINES[name].needs and not ENGINES[name].is_native():
        raise InputError(f"the engine {name!r} needs {ENGINES[name].needs}, which is not here; leave it out")
