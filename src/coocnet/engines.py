"""Engines: how a processor computes a network. Choices are entries of ``ENGINES``.

Rows of any two engines agree within the tolerance that :class:`coocnet.describe.Describer` states. An engine is
chosen by itself only for weights that this was measured for, whose record names it (``Weights.engines``), and only
where the processor has the instructions; elsewhere it is float32, the same to the bit as without engines.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from coocnet.backbones import LoadedBackbone, Trunk
from coocnet.errors import InputError

PLAIN = "float32"


@dataclass(frozen=True)
class Engine:
    """One way to compute a trunk.

    Attributes:
        is_native: whether this processor has the instructions that make it fast; elsewhere it computes, slowly.
        prepared: from a loaded trunk to one that computes this way. The loaded one may be changed.
    """

    is_native: Callable[[], bool]
    prepared: Callable[[Trunk], Trunk]


class _InBfloat16(Trunk):
    """A trunk with its weights and what flows between its layers in bfloat16; each layer sums in float32."""

    def __init__(self, trunk: Trunk) -> None:
        super().__init__()
        self.trunk = trunk.to(torch.bfloat16)

    def forward(self, x: Tensor, tap: str) -> Tensor:
        """See :class:`Trunk`; the map is float32."""
        out: Tensor = self.trunk(x.to(torch.bfloat16), tap)
        return channels_first(out).float()


def _has_bfloat16() -> bool:
    """AVX512-BF16 or AMX: oneDNN then computes bfloat16 natively."""
    has_library: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return has_library and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


ENGINES: dict[str, Engine] = {
    PLAIN: Engine(is_native=lambda: True, prepared=lambda trunk: trunk),
    "bfloat16": Engine(is_native=_has_bfloat16, prepared=_InBfloat16),
}
"""The engines by name."""


def chosen_engine(name: str | None, loaded: LoadedBackbone, device: torch.device) -> str:
    """The engine asked for; if none is, the first that the weights' record names and this processor has.

    Raises:
        InputError: no such engine, or one of the processor where the device is another.
    """
    if name is None:
        measured = loaded.weights.engines if loaded.place.is_of(loaded.weights) and device.type == "cpu" else ()
        return next((engine for engine in measured if ENGINES[engine].is_native()), PLAIN)
    need_engine(name, device)
    return name


def need_engine(name: object, device: torch.device) -> None:
    """Refuses an engine that is not there.

    Raises:
        InputError: no such engine, or one of the processor where the device is another.
    """
    if not isinstance(name, str) or name not in ENGINES:
        raise InputError(
            f"no engine is called {name!r}; there are {', '.join(ENGINES)}, or None for the best one here"
        )
    if name != PLAIN and device.type != "cpu":
        raise InputError(f'the engine {name!r} is one of the processor, device "cpu"; on {device} leave it out')


def channels_first(a: Tensor) -> Tensor:
    """``a.contiguous()`` of maps that lie in memory channels last: the same bits in half the time.

    PyTorch transposes a matrix by blocks, a map entry by entry.
    """
    if a.device.type != "cpu" or a.is_contiguous():
        return a.contiguous()
    b, d, h, w = a.shape
    out = a.new_empty((b, d, h, w))
    for source, target in zip(a, out, strict=True):
        target.view(d, h * w).copy_(source.permute(1, 2, 0).reshape(h * w, d).t())
    return out
