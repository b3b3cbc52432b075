"""The nearest rows, exactly, in blocks: the one search that expansion and re-ranking build on."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from coocnet.errors import InputError
from coocnet.ranking.checks import need_count, unit_or_zero

_BLOCK = 512  # queries at once; with _STRETCH, 32 MiB of similarities
_STRETCH = 32  # database rows at once, for each of them
_SPARE = 32  # candidates beyond k, so that rounding inside the matrix product loses none of the k
_ROUNDING = 1e-5  # bound on that rounding, for unit rows; measured: below 1e-6 up to 8192 dimensions
_NUMBERS_AT_ONCE = 1 << 24


class Ranked(NamedTuple):
    """Database positions for each query, best first.

    Attributes:
        positions: (q, k) int32.
        scores: (q, k) float32, falling; cosine similarities where :func:`neighbours` made them.
    """

    positions: Int[np.ndarray, "q k"]
    scores: Float[np.ndarray, "q k"]


def neighbours(
    rows: Float[np.ndarray, "n d"],
    queries: Float[np.ndarray, "q d"] | None = None,
    *,
    k: int,
    block: int = _BLOCK,
    progress: Callable[[int, int], None] | None = None,
) -> Ranked:
    """The k most similar rows of each query, exactly.

    Similarities come by falling value, equal ones in order of position. A matrix product rounds differently with
    every shape of its blocks, so it only picks the candidates; each candidate's similarity is then summed anew in
    an order that depends on the two rows alone. Equal rows have therefore equal similarities, s(a, b) = s(b, a) to
    the last bit, and no block size changes a result.

    Args:
        rows: the database.
        queries: what to look for; the database's own rows if not given, each of which then finds itself too.
        k: how many for each query; all rows where there are fewer.
        block: queries at once; memory beside the result is about 200 kB for each.
        progress: called after each block with the number of queries done and that of all.

    Returns:
        (q, min(k, n)) positions and similarities. A blank query is similar to none: positions 0, 1, ... with 0.

    Raises:
        InputError: rows that are not of length 1 or 0, queries of other dimensions, or k or block below 1.

    Cost: 2qnd operations, and one partial sort of n numbers for each query.
    """
    rows = unit_or_zero("rows", rows)
    asked = rows if queries is None else unit_or_zero("queries", queries, dim=rows.shape[1])
    need_count("k", k)
    need_count("block", block)
    return nearest(rows, asked, k, block=block, progress=progress)


def nearest(
    rows: Float[np.ndarray, "n d"],
    queries: Float[np.ndarray, "q d"],
    k: int,
    *,
    block: int = _BLOCK,
    progress: Callable[[int, int], None] | None = None,
) -> Ranked:
    """:func:`neighbours` of rows and queries that were checked already."""
    count = min(k, len(rows))
    positions, scores = np.empty((len(queries), count), np.int32), np.empty((len(queries), count), np.float32)
    for start in range(0, len(queries), block):
        some = slice(start, start + block)
        positions[some], scores[some] = _nearest(rows, queries[some], count, block * _STRETCH)
        if progress is not None:
            progress(min(start + block, len(queries)), len(queries))
    return Ranked(positions, scores)


def nearest_others(graph: Ranked, k: int) -> Ranked:
    """The k nearest rows of each row without itself, (n, min(k, n − 1)), from a list of k + 1 with itself."""
    n = len(graph.positions)
    width = max(min(k, n - 1), 0)
    positions, scores = (part[:, : width + 1] for part in graph)
    drop = positions == np.arange(n)[:, None]
    drop[~drop.any(1), -1:] = True  # more rows equal to this one than the list is long
    return Ranked(positions[~drop].reshape(n, width), scores[~drop].reshape(n, width))


def graph_of(rows: Float[np.ndarray, "n d"], graph: Ranked | None, k: int) -> Ranked:
    """A list of the k nearest rows of each row, itself included: the one given, or a new one.

    Raises:
        InputError: the one given is of other rows, or shorter.
    """
    if graph is None:
        return nearest(rows, rows, k)
    positions, scores = graph
    need = min(k, len(rows))
    if positions.shape != scores.shape or positions.shape[0] != len(rows) or positions.shape[1] < need:
        raise InputError(
            f"a graph of these rows is {len(rows)} lists of at least {need} positions and similarities, "
            f"got {positions.shape} and {scores.shape}: make it with neighbours(rows, k={k})"
        )
    if positions.size and not 0 <= int(positions.min()) <= int(positions.max()) < len(rows):
        raise InputError(f"a graph of {len(rows)} rows names position {int(positions.max())}: it is of other rows")
    return Ranked(positions, scores)


def similarities_of_pairs(
    left: Float[np.ndarray, "a d"],
    right: Float[np.ndarray, "b d"],
    at_left: Int[np.ndarray, " p"],
    at_right: Int[np.ndarray, " p"],
) -> Float[np.ndarray, " p"]:
    """Cosine of each pair of unit rows; a pair's value does not depend on the other pairs."""
    out = np.empty(len(at_left), np.float32)
    step = max(1, _NUMBERS_AT_ONCE // max(1, left.shape[1]) // 2)
    for start in range(0, len(out), step):
        some = slice(start, start + step)
        np.einsum("pd,pd->p", left[at_left[some]], right[at_right[some]], out=out[some])
    return out


def _nearest(
    rows: Float[np.ndarray, "n d"], queries: Float[np.ndarray, "q d"], count: int, stretch: int
) -> tuple[Int[np.ndarray, "q k"], Float[np.ndarray, "q k"]]:
    width = min(count + _SPARE, len(rows))
    positions: np.ndarray = np.empty((len(queries), 0), np.int64)
    rough: np.ndarray = np.empty((len(queries), 0), np.float32)
    for start in range(0, len(rows), stretch):
        products = queries @ rows[start : start + stretch].T
        at = _largest(products, width)
        positions = np.concatenate([positions, at + start], axis=1)
        rough = np.concatenate([rough, np.take_along_axis(products, at, 1)], axis=1)
        at = _largest(rough, width)
        positions, rough = np.take_along_axis(positions, at, 1), np.take_along_axis(rough, at, 1)
    positions.sort(axis=1)
    owners = np.repeat(np.arange(len(queries)), width)
    exact = similarities_of_pairs(queries, rows, owners, positions.ravel()).reshape(positions.shape)
    order = np.argsort(-exact, axis=1, kind="stable")[:, :count]
    best, scores = np.take_along_axis(positions, order, 1), np.take_along_axis(exact, order, 1)
    if 0 < count < width < len(rows):
        margin = np.partition(rough, width - count, axis=1)[:, width - count] - rough.min(1)
        for at_query in np.flatnonzero(margin <= 2 * _ROUNDING):
            best[at_query], scores[at_query] = _nearest_of_many_equal(rows, queries[at_query], count)
    return best, scores


def _largest(values: Float[np.ndarray, "q n"], width: int) -> Int[np.ndarray, "q w"]:
    """Where the ``width`` largest of each row are, in no order."""
    if values.shape[1] <= width:
        return np.broadcast_to(np.arange(values.shape[1]), values.shape)
    return np.argpartition(values, -width, axis=1)[:, -width:]


def _nearest_of_many_equal(
    rows: Float[np.ndarray, "n d"], query: Float[np.ndarray, " d"], count: int
) -> tuple[Int[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    """For a query at whose last place more rows are as good as equal than there are spare candidates."""
    if not query.any():
        return np.arange(count), np.zeros(count, np.float32)
    rough = rows @ query
    least = np.partition(rough, -count)[-count] - 2 * _ROUNDING
    candidates = np.flatnonzero(rough >= least)
    exact = similarities_of_pairs(query[None], rows, np.zeros(len(candidates), np.int64), candidates)
    order = np.argsort(-exact, kind="stable")[:count]
    return candidates[order], exact[order]
