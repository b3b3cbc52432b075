"""What ranking asks of its arguments; an InputError quotes what was given."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float

from coocnet.errors import InputError

_UNIT_WITHIN = 1e-3
_MOST_ALIKE = 0.4
_FEWEST_TO_JUDGE = 5


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


def need_between(name: str, value: object, least: float, most: float = math.inf) -> None:
    """A finite number from ``least`` to ``most``.

    Raises:
        InputError: anything else.
    """
    if not isinstance(value, int | float | np.number) or not (least <= value <= most and math.isfinite(value)):
        limits = f"of at least {least:g}" if math.isinf(most) else f"from {least:g} to {most:g}"
        raise InputError(f"{name} is a number {limits}, got {value!r}")


def mean_similarity(rows: Float[np.ndarray, "n d"]) -> float:
    """Mean similarity of two different rows, (|Σ_i x_i|² − n) / (n (n − 1)) over the n rows that are not zero.

    0 where there are fewer than two.
    """
    return _mean_similarity(rows)[0]


def _mean_similarity(rows: Float[np.ndarray, "n d"]) -> tuple[float, int]:
    """The mean similarity, and of how many rows that are not zero."""
    described = int(np.count_nonzero(np.einsum("nd,nd->n", rows, rows)))
    total = (np.ones(len(rows), np.float32) @ rows).astype(np.float64)
    pairs = described * (described - 1)
    return (float(total @ total - described) / pairs if pairs else 0.0), described


def need_whitened(rows: Float[np.ndarray, "n d"], power: float, whitened: bool | None) -> None:
    """Refuses rows of which the caller says, or their similarities tell, that they were never whitened.

    Raises:
        InputError: with the mean similarity, and what to do.
    """
    if whitened:
        return
    alike, described = _mean_similarity(rows)
    if whitened is None and (alike <= _MOST_ALIKE or described < _FEWEST_TO_JUDGE):
        return
    raise InputError(
        f"two rows of this database have a similarity of {alike:.2f} on average and were never whitened, so the "
        f"weights similarity^{power:g} hardly differ and unrelated pictures count like related ones. Give the index "
        "a whitening (coocnet whitening makes a file, coocnet index DIR --whitening FILE uses it); arrays are "
        "whitened by coocnet.fit_pca, and whitened=True says that they are"
    )
