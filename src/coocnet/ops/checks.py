"""What the operators ask of their arguments, checked in microseconds; an InputError quotes what was given."""

from __future__ import annotations

import math
import reprlib
from numbers import Real
from typing import TypeGuard

from torch import Tensor

from coocnet.errors import InputError


def need_map(a: object) -> None:
    """A map is (b, d, h, w), floating point, d, h and w ≥ 1; b may be 0.

    Raises:
        InputError: anything else.
    """
    if not (isinstance(a, Tensor) and a.ndim == 4 and a.is_floating_point() and 0 not in a.shape[1:]):
        raise InputError(
            "a map is a floating-point tensor of images, channels, rows and columns, "
            f"with at least one channel and one cell; got {told(a)}"
        )


def need_like(name: str, other: object, a: Tensor, *, same_dtype: bool) -> None:
    """``other`` has the shape and device of the map ``a``, and its dtype where that matters.

    Raises:
        InputError: it has not.
    """
    if not (
        isinstance(other, Tensor)
        and (other.shape, other.device) == (a.shape, a.device)
        and (other.dtype == a.dtype or not same_dtype)
    ):
        raise InputError(f"{name} is a tensor like the map, which is {told(a)}; got {told(other)}")


def need_filter(weight: object, a: Tensor) -> None:
    """A filter for the map ``a`` is (d, d, s, s), s odd, with its dtype and device.

    Raises:
        InputError: anything else.
    """
    d = a.shape[1]
    if not (
        isinstance(weight, Tensor)
        and weight.ndim == 4
        and weight.shape == (d, d, weight.shape[3], weight.shape[3])
        and weight.shape[3] % 2 == 1
        and (weight.dtype, weight.device) == (a.dtype, a.device)
    ):
        raise InputError(
            f"for {d} channels the filter is ({d}, {d}, s, s) with s odd, {a.dtype} on {a.device}, got {told(weight)}"
        )


def need_tensor(name: str, value: object, shape: tuple[int | None, ...], a: Tensor) -> None:
    """``value`` is a tensor of this shape, None for any length ≥ 1, with the dtype and device of the map ``a``.

    Raises:
        InputError: anything else.
    """
    if not (
        isinstance(value, Tensor)
        and value.ndim == len(shape)
        and all(has == want or (want is None and has > 0) for has, want in zip(value.shape, shape, strict=True))
        and (value.dtype, value.device) == (a.dtype, a.device)
    ):
        sides = ", ".join("any" if side is None else str(side) for side in shape)
        raise InputError(f"{name} is a tensor ({sides}), {a.dtype} on {a.device} like the map; got {told(value)}")


def need_rows(rows: object) -> None:
    """Rows are (n, dim), floating point, dim ≥ 1.

    Raises:
        InputError: anything else.
    """
    if not (isinstance(rows, Tensor) and rows.ndim == 2 and rows.is_floating_point() and rows.shape[1] > 0):
        raise InputError(f"rows are a floating-point tensor (n, dim) with dim at least 1, got {told(rows)}")


def need_whole(name: str, value: object, least: int) -> None:
    """``value`` is an int, no bool, of at least ``least``.

    Raises:
        InputError: anything else.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InputError(f"{name} is a whole number, {least} or more, got {told(value)}")


def need_positive(name: str, value: object) -> None:
    """``value`` is a finite number above 0.

    Raises:
        InputError: anything else.
    """
    if not is_number(value) or not 0 < value < math.inf:
        raise InputError(f"{name} is a finite number above 0, got {told(value)}")


def is_number(value: object) -> TypeGuard[float]:
    """A real number, and neither a truth value nor a tensor."""
    return isinstance(value, Real) and not isinstance(value, bool)


def told(value: object) -> str:
    """The value as it is quoted in an error: a tensor by its shape, dtype and device."""
    if isinstance(value, Tensor):
        return f"a tensor {tuple(value.shape)} of {value.dtype} on {value.device}"
    return reprlib.repr(value)
