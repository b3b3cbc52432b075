"""Checks of what other people wrote; what is wrong is told once, by :func:`told`, with where."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from coocnet.data.images import Box
from coocnet.errors import BenchmarkError, InputError, printable
from coocnet.evaluate.ground_truth import GroundTruth, Query

MAX_POSITIONS = 5_000_000
_FARTHEST_PX = 1e9


class Bad(Exception):  # noqa: N818 - never leaves this package
    """What is wrong, in words; :func:`told` adds where."""


@contextmanager
def told(where: str) -> Iterator[None]:
    """Raises what is wrong as a :class:`BenchmarkError` that begins with ``where``."""
    try:
        yield
    except Bad as error:
        raise BenchmarkError(f"{where}: {error}") from error


class Budget:
    """Bounds the work that lists referred to many times would ask for."""

    def __init__(self) -> None:
        self.left = MAX_POSITIONS

    def spend(self, count: int) -> None:
        """Takes away; raises :class:`Bad` when nothing is left."""
        self.left -= count
        if self.left < 0:
            raise Bad(f"it has more than {MAX_POSITIONS:,} positions")


def checked_truth(
    name: str, labelling: str, images: Sequence[str], queries: Sequence[Query], measures: Sequence[str]
) -> GroundTruth:
    """A ground truth whose labels and positions fit."""
    try:
        return GroundTruth(name, labelling, tuple(images), tuple(queries), tuple(measures))
    except InputError as error:
        raise Bad(str(error)) from error


def names(table: Mapping[object, object], key: str) -> tuple[str, ...]:
    """The names of pictures under a key; none twice, unless they are queries."""
    listed = table.get(key)
    if not isinstance(listed, list | tuple) or not listed:
        raise Bad(f"{key!r} is not a list of names")
    found = []
    for one in listed:
        text = one.decode("utf-8", "replace") if isinstance(one, bytes) else one
        if not isinstance(text, str) or not text or not text.isprintable():
            raise Bad(f"{key!r} has an entry that is no name: {short(one)}")
        found.append(text)
    if key != "qimlist" and len(set(found)) != len(found):
        raise Bad(f"{key!r} names a picture twice")
    return tuple(found)


def integers(values: object, key: str, budget: Budget) -> tuple[int, ...]:
    """A list of whole numbers."""
    if not isinstance(values, list | tuple):
        raise Bad(f"{key!r} is not a list of whole numbers")
    budget.spend(len(values))
    for value in values:
        # MATLAB's way, in which some copies are kept, writes whole numbers as 3.0.
        if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1:
            raise Bad(f"{key!r} has an entry that is no whole number: {short(value)}")
    return tuple(map(int, values))


def box(edges: object) -> Box | None:
    """A box of four numbers of pixels, or none."""
    if edges is None:
        return None
    if not isinstance(edges, list | tuple) or len(edges) != 4:
        raise Bad(f"a box is four numbers, got {short(edges)}")
    if not all(type(edge) in (int, float) and abs(edge) < _FARTHEST_PX for edge in edges):
        raise Bad(f"a box is four numbers, got {short(edges)}")
    x1, y1, x2, y2 = map(float, edges)
    if not (x1 < x2 and y1 < y2):
        raise Bad(f"in a box x1 is left of x2 and y1 above y2, got {short(edges)}")
    return x1, y1, x2, y2


def number(text: str) -> float:
    """A number that stands in a text."""
    try:
        return float(text)
    except ValueError:
        raise Bad(f"a box is four numbers, got {short(text)}") from None


def short(value: object) -> str:
    """A value in a message; containers, which may hold themselves a million times, by what they are."""
    if isinstance(value, str | bytes | int | float):
        return printable(repr(value)[:60])
    if isinstance(value, list | tuple) and all(isinstance(one, int | float | str) for one in value[:4]):
        return printable(repr(list(value[:4]))[:60])
    return f"a {type(value).__name__}"
