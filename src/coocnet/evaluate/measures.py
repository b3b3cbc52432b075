"""Measures of a ranking against the truth of one query, and their means with intervals."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from coocnet.errors import InputError


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
    """A mean with a bootstrap interval of 95 % over the queries."""

    mean: float
    low: float
    high: float


def rank(similarities: Float[np.ndarray, " n"]) -> np.ndarray:
    """Database positions by falling similarity; equal ones keep their order."""
    return np.argsort(-np.asarray(similarities), kind="stable")


def average_precision(ranking: Sequence[int] | np.ndarray, truth: Truth) -> float:
    """Area under the precision-recall polygon, as in the Oxford and Paris protocols (trapezoid rule).

    With 0-based rank r_j of the j-th positive after junk is taken out, and n positives in all:

        AP = Σ_j (p0_j + p1_j) / 2n,   p0_j = j / r_j (1 at r_j = 0),   p1_j = (j + 1) / (r_j + 1)

    Source: ``compute_ap`` of the Oxford buildings benchmark (Philbin et al. 2007). Positives missing from
    the ranking count as never found.

    Args:
        ranking: database positions, best first.
        truth: positives and junk.

    Raises:
        InputError: no positive, a picture both positive and junk, or a position ranked twice.
    """
    if not truth.positives:
        raise InputError("average precision is not defined for a query without positives: leave it out of the mean")
    if both := truth.positives & truth.junk:
        raise InputError(f"pictures cannot be both positive and junk, got {sorted(both)}")
    if len(set(ranking)) != len(ranking):
        raise InputError("a ranking names each picture once")
    found, area, position = 0, 0.0, 0
    for picture in ranking:
        if picture in truth.junk:
            continue
        if picture in truth.positives:
            before = 1.0 if position == 0 else found / position
            found += 1
            area += (before + found / (position + 1)) / 2
        position += 1
    return area / len(truth.positives)


def mean_with_interval(values: Collection[float], *, seed: int = 0, draws: int = 10_000) -> Interval:
    """Mean over queries and its 95 % percentile bootstrap interval; give differences for a paired comparison."""
    data = np.asarray(list(values), np.float64)
    if not len(data):
        raise InputError("there is nothing to take the mean of")
    picks = np.random.default_rng(seed).integers(0, len(data), (draws, len(data)))
    low, high = np.percentile(data[picks].mean(1), [2.5, 97.5])
    return Interval(float(data.mean()), float(low), float(high))
