"""Half-precision maps are computed in float32: their sums over thousands of entries need the bits."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from inspect import signature
from typing import ParamSpec

import torch
from torch import Tensor

_HALF = (torch.float16, torch.bfloat16)
P = ParamSpec("P")


def in_float32(operator: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """Runs ``operator`` on float32 copies of half-precision tensors and returns the dtype of the first argument."""
    name = next(iter(signature(operator).parameters))

    @wraps(operator)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        first = args[0] if args else kwargs.get(name)
        dtype = first.dtype if isinstance(first, Tensor) else None
        if dtype not in _HALF:
            return operator(*args, **kwargs)
        wide_args = [_widened(value) for value in args]
        wide_kwargs = {name: _widened(value) for name, value in kwargs.items()}
        return operator(*wide_args, **wide_kwargs).to(dtype)  # type: ignore[arg-type]

    return wrapper


def in_full(x: Tensor) -> Tensor:
    """A half-precision tensor in float32; anything else as it is."""
    return x.float() if getattr(x, "dtype", None) in _HALF else x


def _widened(value: object) -> object:
    return in_full(value) if isinstance(value, Tensor) else value
