"""What ranking asks of its arguments; an InputError quotes what was given."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float

from coocnet.errors import InputError

_UNIT_WITHIN = 1e-3


def unit_or_zero(name: str, rows: np.ndarray, *, dim: int | None = None) -> Float[np.ndarray, "n d"]:
    """Rows as float32 in one piece, (n, d); those that are so already are not copied.

    Raises:
        InputError: not an array (n, d) of floats, not ``dim`` numbers each, or a row whose length is neither 1 nor 0.
    """
    given = np.asarray(rows)
    if given.ndim != 2 or not np.issubdtype(given.dtype, np.floating):
        raise InputError(f"{name} are an array (n, d) of floats, got {given.dtype} of shape {given.shape}")
    if dim is not None and given.shape[1] != dim:
        raise InputError(f"{name} have {dim} dimensions like the rows that are searched, got {given.shape[1]}")
    checked: np.ndarray = np.ascontiguousarray(given, np.float32)
    lengths = np.sqrt(np.einsum("nd,nd->n", checked, checked))
    wrong = ~((np.abs(lengths - 1) < _UNIT_WITHIN) | (lengths == 0))
    if wrong.any():
        first = int(np.argmax(wrong))
        raise InputError(
            f"{name} have length 1 (0 where a picture is blank), but number {first} has length {lengths[first]:g}: "
            "divide each by its length, as coocnet.whitening.unit_rows does"
        )
    return checked


def need_count(name: str, value: object, *, most: int | None = None) -> None:
    """A whole number of at least 1, and at most ``most``.

    Raises:
        InputError: anything else.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise InputError(f"{name} is a whole number of at least 1, got {value!r}")
    if most is not None and value > most:
        raise InputError(f"{name} is at most {most} here, got {value}")


def need_between(name: str, value: float, least: float, most: float = math.inf) -> None:
    """A finite number from ``least`` to ``most``.

    Raises:
        InputError: anything else.
    """
    if not (least <= value <= most and math.isfinite(value)):
        limits = f"of at least {least:g}" if math.isinf(most) else f"from {least:g} to {most:g}"
        raise InputError(f"{name} is a number {limits}, got {value}")
