"""When a map goes to the compiled loops of :mod:`coocnet.loops`, and how; all others stay with PyTorch.

The loops compute what the functions of :mod:`coocnet.ops` define, to float32 rounding, some ten times as fast on a
processor. They are there where numba is (``pip install 'coocnet[fast]'``), and take a map of float32 or bfloat16 in
the processor's memory from which no gradient is asked, to which no other transform or mode of PyTorch applies, and
whose entries are finite. (Where sums of finite entries leave the range of float32, the loops say infinite, and the
banded products of PyTorch NaN.)
"""

from __future__ import annotations

import math
import threading
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils._python_dispatch import _get_current_dispatch_mode

from coocnet.compiler import let_go

_KINDS = (torch.float32, torch.bfloat16)
_LARGEST_RADIUS = 15  # measured: from about 16 on, the banded products of PyTorch are as quick


_gave_up = threading.Event()


@cache
def compiled_loops() -> Any:
    """The loops, or None where numba is missing, told not to compile, or of no use for another reason."""
    try:
        import numba  # noqa: PLC0415 - an extra

        from coocnet import loops  # noqa: PLC0415 - needs the extra
    except ImportError:
        return None
    except Exception as error:  # noqa: BLE001 - such as no place to keep what is compiled
        _give_up(error)
        return None
    return None if numba.config.DISABLE_JIT else loops


def _give_up(error: Exception) -> None:
    """PyTorch computes the same; what failed once takes its time to fail again."""
    let_go()
    if not _gave_up.is_set():
        _gave_up.set()
        warnings.warn(
            f"the compiled loops cannot be used, so PyTorch computes instead, more slowly: {error}. What numba keeps "
            "may be damaged, or have no place: delete it, or name a folder of yours in NUMBA_CACHE_DIR.",
            RuntimeWarning,
            stacklevel=2,
        )


def takes(a: Tensor, radius_cells: int) -> bool:
    """Whether a map is one for the compiled loops."""
    return (
        type(a) is Tensor
        and a.device.type == "cpu"
        and a.dtype in _KINDS
        and a.layout == torch.strided
        and a.numel() > 0
        and radius_cells <= _LARGEST_RADIUS
        and not (a.requires_grad and torch.is_grad_enabled())
        and not torch.compiler.is_compiling()
        and not torch._C._is_tracing()
        and torch._C._functorch.peek_interpreter_stack() is None
        and forward_ad._current_level < 0
        and _get_current_dispatch_mode() is None
        and not _gave_up.is_set()
        and compiled_loops() is not None
    )


def cooccurrence(a: Tensor, radius_cells: int, thresholds: Tensor | None, scale: float) -> Tensor | None:
    """The direct co-occurrence tensor, in the dtype of the map; None where the loops cannot.

    Args:
        a: a map that :func:`takes` accepts.
        radius_cells: r.
        thresholds: t of each image; None for the mean.
        scale: what the window sums are multiplied by.
    """
    out = a.new_empty(a.shape)
    target = _channels_of(out)
    done = _for_each_image(
        a,
        thresholds,
        lambda loops, image, x, t: loops.cooccurrence(
            x, a.shape[3], radius_cells, t, np.float32(scale), target[image]
        ),
    )
    return out if done else None


def cooccurrence_sums(
    a: Tensor, radius_cells: int, thresholds: Tensor | None, scale: float
) -> tuple[Tensor, Tensor] | None:
    """The sums of :func:`cooccurrence` over the channels, (b, h, w), and over the cells, (b, d), float32."""
    b, d, h, w = a.shape
    cells, channels = (a.new_zeros(shape, dtype=torch.float32) for shape in ((b, h, w), (b, d)))
    of_cells, of_channels = cells.view(b, h * w).numpy(), channels.numpy()
    done = _for_each_image(
        a,
        thresholds,
        lambda loops, image, x, t: loops.sums(
            x, w, radius_cells, t, np.float32(scale), of_cells[image], of_channels[image]
        ),
    )
    return (cells, channels) if done else None


def context(a: Tensor, radius_cells: int, thresholds: Tensor | None) -> Tensor | None:
    """The co-occurrence context, (b, h, w), float32."""
    b, _, h, w = a.shape
    out = a.new_empty((b, h, w), dtype=torch.float32)
    target = out.view(b, h * w).numpy()
    done = _for_each_image(
        a, thresholds, lambda loops, image, x, t: loops.context(x, w, radius_cells, t, target[image])
    )
    return out if done else None


def _for_each_image(
    a: Tensor, thresholds: Tensor | None, run: Callable[[Any, int, np.ndarray, np.float32], None]
) -> bool:
    """Calls ``run`` with the loops, an image's number, its channels (d, cells) and its t; False where it fails."""
    loops = compiled_loops()
    try:
        for image, x in enumerate(_channels_of(a)):
            total = loops.total(x)
            if not math.isfinite(total):
                return False
            t = _at_most(total / x.size) if thresholds is None else np.float32(thresholds[image].item())
            run(loops, image, x, t)
    except Exception as error:  # noqa: BLE001 - such as a compiler that fails here: PyTorch computes the same
        _give_up(error)
        return False
    return True


def _at_most(mean: float) -> np.float32:
    """The float32 for which a > t decides as a > mean would."""
    t = np.float32(mean)
    return np.nextafter(t, np.float32(-np.inf)) if t > mean else t


def _channels_of(a: Tensor) -> np.ndarray:
    """A map as an array (b, d, cells), float32 or the bits of bfloat16; shares its memory where that is in order."""
    b, d, h, w = a.shape
    plain = a.detach() if a.requires_grad else a
    plain = (plain.resolve_neg() if plain.is_neg() else plain).contiguous()
    array: np.ndarray = (plain.view(torch.uint16) if plain.dtype == torch.bfloat16 else plain).numpy()
    return array.reshape(b, d, h * w)
