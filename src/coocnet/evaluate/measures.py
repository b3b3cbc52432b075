"""Measures of a ranking against the truth of one query, and their means with intervals."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Float, Int

from coocnet.errors import InputError

_DRAWN_AT_ONCE = 1 << 22
_TIE_WITHIN = 1e-12  # the same places give the same value; others may differ from it by a rounding only

Measure = Callable[[Int[np.ndarray, " f"], int], float]
"""From the places of the positives that were found, see :func:`places`, and the number of all positives."""


@dataclass(frozen=True)
class Truth:
    """What is right for one query.

    Attributes:
        positives: positions of relevant pictures in the database.
        junk: positions that count neither way: they are taken out of the ranking first.
    """

    positives: frozenset[int]
    junk: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Interval:
    """A mean with a bootstrap interval of 95 % over the queries.

    Attributes:
        mean: over the queries.
        low: 2.5 % of the bootstrap's means are below it.
        high: 2.5 % of them are above it.
    """

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """One result minus another on the same queries.

    Attributes:
        interval: mean difference, its bootstrap over queries drawn for both at once.
        wins, losses, ties: queries on which the one is better, worse, level.
    """

    interval: Interval
    wins: int
    losses: int
    ties: int


def rank(similarities: Float[np.ndarray, " n"]) -> np.ndarray:
    """Database positions by falling similarity; equal ones keep their order.

    Args:
        similarities: of each database picture to one query.
    """
    return np.argsort(-np.asarray(similarities), kind="stable")


def places_without_junk(positives: Int[np.ndarray, " p"], junk: Int[np.ndarray, " j"]) -> Int[np.ndarray, " p"]:
    """Places of the positives, rising from 0 on, once the junk before them is gone.

    Args:
        positives: places in the whole ranking, from 0 on.
        junk: the same of what counts neither way.
    """
    found = np.sort(positives)
    return found - np.searchsorted(np.sort(junk), found)


def places(ranking: Sequence[int] | Int[np.ndarray, " n"], truth: Truth) -> Int[np.ndarray, " f"]:
    """Places of the positives in a ranking, rising from 0 on, after junk is taken out of it.

    Every measure is a function of these and of the number of positives. Positives missing from the ranking have none.

    Args:
        ranking: database positions, best first.
        truth: positives and junk.

    Raises:
        InputError: no positive, a picture both positive and junk, or a position ranked twice.
    """
    if not truth.positives:
        raise InputError("a query without positives has no measure: leave it out of the mean")
    if both := truth.positives & truth.junk:
        raise InputError(f"pictures cannot be both positive and junk, got {sorted(both)}")
    order = np.asarray(ranking, np.int64)
    if len(np.unique(order)) != len(order):
        raise InputError("a ranking names each picture once")
    right, neither = (np.flatnonzero(np.isin(order, list(some))) for some in (truth.positives, truth.junk))
    return places_without_junk(right, neither)


def average_precision(ranking: Sequence[int] | Int[np.ndarray, " n"], truth: Truth) -> float:
    """Area under the precision-recall polygon, as in the Oxford and Paris protocols (trapezoid rule).

    With 0-based place r_j of the j-th positive (j from 0 on) after junk is taken out, and n positives in all:

        AP = Σ_j (p0_j + p1_j) / 2n,   p0_j = j / r_j (1 at r_j = 0),   p1_j = (j + 1) / (r_j + 1)

    Source: ``compute_ap`` of the Oxford buildings benchmark (Philbin et al. 2007). Positives missing from
    the ranking count as never found. Holidays (Jégou et al. 2008) drops the query from its own list and closes the
    gap: the same number with the query as junk.

    Args:
        ranking: database positions, best first.
        truth: positives and junk.

    Raises:
        InputError: as of :func:`places`.
    """
    return _average_precision(places(ranking, truth), len(truth.positives))


def precision_at(ranking: Sequence[int] | Int[np.ndarray, " n"], truth: Truth, k: int) -> float:
    """Precision among the first k, or up to the last positive where that comes earlier.

    With 1-based places r_j of the positives after junk is taken out:

        k' = min(max_j r_j, k),   P = |{j : r_j ≤ k'}| / k'

    Not the common precision at k, which a query with fewer than k positives could never bring to 1. Source: mP@k of
    the revisited Oxford and Paris benchmarks (Radenović et al. 2018). A positive missing from the ranking comes after
    all others, so that k' = k.

    Args:
        ranking: database positions, best first.
        truth: positives and junk.
        k: at least 1.

    Raises:
        InputError: k below 1, and as of :func:`places`.
    """
    if k < 1:
        raise InputError(f"precision is taken among the first k of at least 1, got {k}")
    return _precision_at(places(ranking, truth), len(truth.positives), k=k)


def right_among_four(ranking: Sequence[int] | Int[np.ndarray, " n"], truth: Truth) -> float:
    """How many of the first four, after junk is taken out, are right: 0 to 4.

    Source: the score of the UKBench set (Nistér and Stewénius 2006), where each thing has four pictures, the query
    one of them: it is in the database, is positive, and counts where it is found.

    Args:
        ranking: database positions, best first.
        truth: positives and junk.

    Raises:
        InputError: as of :func:`places`.
    """
    return _right_among_four(places(ranking, truth), len(truth.positives))


def measure_named(name: str) -> Measure:
    """The measure that a ground truth names: "map", "ns", or "mp@k" for a k.

    Raises:
        InputError: another name.
    """
    if name in MEASURES:
        return MEASURES[name]
    kind, _, k = name.partition("@")
    if kind == "mp" and k.isascii() and k.isdecimal() and k[0] != "0":
        return partial(_precision_at, k=int(k))
    raise InputError(f"a measure is one of {', '.join(MEASURES)} or mp@k with a whole k from 1 on, got {name!r}")


def mean_with_interval(values: Collection[float], *, seed: int = 0, draws: int = 10_000) -> Interval:
    """Mean over queries and its 95 % percentile bootstrap interval (Efron 1979).

    Args:
        values: a measure of each query; differences of two for a paired comparison.
        seed: of the drawing.
        draws: samples of the queries, drawn with replacement, each as large as they are.

    Raises:
        InputError: no values.
    """
    data = np.asarray(list(values), np.float64)
    if not len(data):
        raise InputError("there is nothing to take the mean of")
    random, means = np.random.default_rng(seed), np.empty(draws)
    step = max(1, _DRAWN_AT_ONCE // len(data))
    for start in range(0, draws, step):
        some = means[start : start + step]
        some[:] = data[random.integers(0, len(data), (len(some), len(data)))].mean(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return Interval(float(data.mean()), float(low), float(high))


def paired_difference(values: Sequence[float], others: Sequence[float]) -> Difference:
    """The one minus the other, query by query: the same queries are drawn for both, so what is hard in them cancels.

    Args:
        values: a measure of each query.
        others: the same of the other result, in the same order.

    Raises:
        InputError: not as many of the one as of the other, or none.
    """
    if len(values) != len(others):
        raise InputError(f"a paired difference is of the same queries, got {len(values)} and {len(others)} values")
    differences = np.subtract(values, others, dtype=np.float64)
    wins, losses = int((differences > _TIE_WITHIN).sum()), int((differences < -_TIE_WITHIN).sum())
    return Difference(mean_with_interval(differences.tolist()), wins, losses, len(values) - wins - losses)


def _average_precision(found: Int[np.ndarray, " f"], positives: int) -> float:
    before = np.arange(len(found))
    old = np.where(found == 0, 1.0, before / np.maximum(found, 1))
    return float((old + (before + 1) / (found + 1)).sum() / 2 / positives)


def _precision_at(found: Int[np.ndarray, " f"], positives: int, *, k: int) -> float:
    reach = min(int(found[-1]) + 1, k) if len(found) == positives else k
    return int((found < reach).sum()) / reach


def _right_among_four(found: Int[np.ndarray, " f"], positives: int) -> float:
    del positives
    return float((found < 4).sum())


MEASURES: dict[str, Measure] = {"map": _average_precision, "ns": _right_among_four}
"""The measures without a number in their name; :func:`measure_named` knows them all."""
