"""The nearest rows, exactly, in blocks: the one search of an index, and what expansion and re-ranking build on."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from coocnet.errors import InputError
from coocnet.ranking.checks import need_count, unit_or_zero

_BLOCK = 512  # queries at once
_PRODUCTS = 1 << 23  # similarities at once: 32 MiB
_FEW = 6  # so many queries are summed one after the other: a matrix product of few rows is slower
_IN_CACHE = 1 << 18  # numbers of the database that stay in a core's cache from one query to the next
_WORTH_THREADS = 1 << 23  # numbers of the database
_CHUNK = 256  # similarities of which the largest stands for all
_SPARE = 32  # candidates beyond k, so that rounding inside the matrix product loses none of the k
_ROUNDING = 1e-5  # bound on that rounding, for unit rows; measured: below 1e-6 up to 8192 dimensions
_NUMBERS_AT_ONCE = 1 << 24
_WIDENED_BY = np.float32(2.0**112)  # what lies between the exponents of float16 and float32


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
        block: queries at once; memory beside the result is about 50 MB, however large the database is.
        progress: called after each block with the number of queries done and that of all.

    Returns:
        (q, min(k, n)) positions and similarities. A blank query is similar to none: positions 0, 1, ... with 0.

    Raises:
        InputError: rows that are not of length 1 or 0, queries of other dimensions, or k or block below 1.

    Cost: 2qnd operations; for a single query, the time it takes to read the database from memory once.
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
    """:func:`neighbours` of rows and queries that were checked already.

    Rows may be float16, half of the memory; they are widened block by block, and the similarities are those of the
    rounded rows.
    """
    count = min(k, len(rows))
    positions, scores = np.empty((len(queries), count), np.int32), np.empty((len(queries), count), np.float32)
    for start in range(0, len(queries), block):
        some = slice(start, start + block)
        positions[some], scores[some] = _nearest(rows, queries[some], count)
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
        np.einsum(
            "pd,pd->p", left[at_left[some]], right[at_right[some]].astype(np.float32, copy=False), out=out[some]
        )
    return out


def similarities_at(
    rows: Float[np.ndarray, "n d"], queries: Float[np.ndarray, "q d"], positions: Int[np.ndarray, "q k"]
) -> Float[np.ndarray, "q k"]:
    """The similarity of each query to rows that are named for it."""
    if positions.shape[1] > len(rows) // 8:
        return np.take_along_axis(_products(rows, queries), positions, 1)
    return _exact(rows, queries, positions)


def _exact(
    rows: Float[np.ndarray, "n d"], queries: Float[np.ndarray, "q d"], positions: Int[np.ndarray, "q k"]
) -> Float[np.ndarray, "q k"]:
    owners = np.repeat(np.arange(len(queries)), positions.shape[1])
    return similarities_of_pairs(queries, rows, owners, positions.ravel()).reshape(positions.shape)


def _nearest(
    rows: Float[np.ndarray, "n d"], queries: Float[np.ndarray, "q d"], count: int
) -> tuple[Int[np.ndarray, "q k"], Float[np.ndarray, "q k"]]:
    width = min(count + _SPARE, len(rows))
    positions, rough = _candidates(rows, queries, width)
    positions.sort(axis=1)
    exact = _exact(rows, queries, positions)
    order = np.argsort(-exact, axis=1, kind="stable")[:, :count]
    best, scores = np.take_along_axis(positions, order, 1), np.take_along_axis(exact, order, 1)
    if 0 < count < width < len(rows):
        margin = np.partition(rough, width - count, axis=1)[:, width - count] - rough.min(1)
        for at_query in np.flatnonzero(margin <= 2 * _ROUNDING):
            best[at_query], scores[at_query] = _nearest_of_many_equal(rows, queries[at_query], count)
    return best, scores


def _candidates(
    rows: Float[np.ndarray, "n d"], queries: Float[np.ndarray, "q d"], width: int
) -> tuple[Int[np.ndarray, "q w"], Float[np.ndarray, "q w"]]:
    """The ``width`` rows with the largest rough similarities to each query, in no order, and these."""
    stretch = max(_CHUNK, _PRODUCTS // max(1, len(queries)))
    positions = [np.empty(0, np.int64)] * len(queries)
    rough = [np.empty(0, np.float32)] * len(queries)
    for start in range(0, len(rows), stretch):
        products = _products(rows[start : start + stretch], queries)
        for one, values in enumerate(products):
            held = rough[one]
            at = _largest(values, width, held.min() if len(held) == width else None)
            both = np.concatenate([held, values[at]])
            kept = np.argpartition(both, -width)[-width:] if len(both) > width else slice(None)
            positions[one], rough[one] = np.concatenate([positions[one], at + start])[kept], both[kept]
    shape = (len(queries), width)
    return np.array(positions, np.int64).reshape(shape), np.array(rough, np.float32).reshape(shape)


def _largest(values: Float[np.ndarray, " n"], width: int, least: np.floating | None) -> Int[np.ndarray, " c"]:
    """Where the ``width`` largest are, and perhaps some more; with ``least``, only of those that exceed it."""
    if least is None and len(values) > _CHUNK * width:
        # As many chunks as are wanted have a value of at least this one, so the values wanted do.
        chunks = values[: len(values) // _CHUNK * _CHUNK].reshape(-1, _CHUNK).max(1)
        at = np.flatnonzero(~(values < np.partition(chunks, -width)[-width]))
    elif least is not None:
        at = np.flatnonzero(~(values <= least))
    else:
        at = np.arange(len(values))
    return at if len(at) <= width else at[np.argpartition(values[at], -width)[-width:]]


def _products(rows: Float[np.ndarray, "n d"], queries: Float[np.ndarray, "q d"]) -> Float[np.ndarray, "q n"]:
    """The similarities, with as many threads as the library for matrix products has."""
    out = np.empty((len(queries), len(rows)), np.float32)
    threads = _threads() if len(queries) <= _FEW and rows.size >= _WORTH_THREADS else 1
    if threads == 1:
        _multiply(rows, queries, out)
        return out
    part = -(-len(rows) // threads)
    with ThreadPoolExecutor(threads) as pool:
        parts = [slice(start, start + part) for start in range(0, len(rows), part)]
        list(pool.map(lambda some: _multiply(rows[some], queries, out[:, some]), parts))
    return out


def _multiply(
    rows: Float[np.ndarray, "n d"], queries: Float[np.ndarray, "q d"], out: Float[np.ndarray, "q n"]
) -> None:
    half = rows.dtype == np.float16
    if half:
        queries = queries * _WIDENED_BY
    if not half and len(queries) > _FEW:
        np.matmul(queries, rows.T, out=out)
        return
    step = max(1, _IN_CACHE // max(1, rows.shape[1])) * (1 if len(queries) <= _FEW else 16)
    room = np.empty((step, rows.shape[1]), np.int32) if half else None
    for start in range(0, len(rows), step):
        some = slice(start, start + step)
        block = rows[some] if room is None else _widened(rows[some], room)
        if len(queries) > _FEW:
            out[:, some] = queries @ block.T
            continue
        for one, query in enumerate(queries):
            # Row by row: a product of matrix and vector reads memory at half the speed with one thread of OpenBLAS.
            np.matmul(block[:, None, :], query[:, None], out=out[one, some].reshape(-1, 1, 1))


def _widened(rows: Float[np.ndarray, "n d"], room: Int[np.ndarray, "m d"]) -> Float[np.ndarray, "n d"]:
    """float16 as float32 divided by 2¹¹², in ``room``: sign, exponent and fraction moved to their places.

    Exact, and six times faster than numpy's own conversion, without which a search would wait for it.
    """
    bits = room[: len(rows)]
    np.copyto(bits, rows.view(np.int16))
    np.left_shift(bits, 13, out=bits)
    np.bitwise_and(bits, ~0x70000000, out=bits)
    return bits.view(np.float32)


def _threads() -> int:
    """As many as OpenBLAS and OpenMP would take; of a list for nested parallel regions the first."""
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        asked = os.environ.get(name, "").split(",")[0].strip()
        if asked.isdecimal() and int(asked):
            return int(asked)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _nearest_of_many_equal(
    rows: Float[np.ndarray, "n d"], query: Float[np.ndarray, " d"], count: int
) -> tuple[Int[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    """For a query at whose last place more rows are as good as equal than there are spare candidates."""
    if not query.any():
        return np.arange(count), np.zeros(count, np.float32)
    rough = _products(rows, query[None])[0]
    least = np.partition(rough, -count)[-count] - 2 * _ROUNDING
    candidates = np.flatnonzero(rough >= least)
    exact = similarities_of_pairs(query[None], rows, np.zeros(len(candidates), np.int64), candidates)
    order = np.argsort(-exact, kind="stable")[:count]
    return candidates[order], exact[order]
