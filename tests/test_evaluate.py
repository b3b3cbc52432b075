"""Measures against numbers worked out by hand and a plain second implementation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coocnet.errors import InputError
from coocnet.evaluate import Truth, average_precision, mean_with_interval, rank


def area_under_polygon(ranking, kinds) -> float:
    """Second implementation: strike out junk, join the points (recall, precision), add up trapezoids."""
    kept = [kinds[i] for i in ranking if kinds[i] != "j"]
    total = kinds.count("p")
    area, recall, precision, hits = 0.0, 0.0, 1.0, 0
    for position, kind in enumerate(kept, start=1):
        hits += kind == "p"
        new_recall, new_precision = hits / total, hits / position
        area += (new_recall - recall) * (precision + new_precision) / 2
        recall, precision = new_recall, new_precision
    return area


@pytest.mark.parametrize(
    ("ranking", "positives", "junk", "expected"),
    [
        ([0, 1, 2], {0}, set(), 1.0),
        ([1, 0, 2], {0}, set(), (0 + 1 / 2) / 2),
        ([0, 1, 2], {0, 1}, set(), 1.0),
        ([0, 2, 1], {0, 1}, set(), (1 + (1 / 2 + 2 / 3) / 2) / 2),
        ([3, 0, 1, 2], {0}, {3}, 1.0),
        ([3, 1, 0], {0}, {3}, 1 / 4),
        ([1, 2], {0}, set(), 0.0),
        ([0], {0, 1}, set(), 0.5),
    ],
)
def test_average_precision_by_hand(ranking, positives, junk, expected) -> None:
    assert average_precision(ranking, Truth(frozenset(positives), frozenset(junk))) == pytest.approx(expected)


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_average_precision_is_the_area_under_the_polygon(data) -> None:
    n = data.draw(st.integers(1, 12))
    kinds = data.draw(st.lists(st.sampled_from("pjn"), min_size=n, max_size=n))
    kinds[data.draw(st.integers(0, n - 1))] = "p"
    ranking = data.draw(st.permutations(range(n)))
    truth = Truth(
        frozenset(i for i, kind in enumerate(kinds) if kind == "p"),
        frozenset(i for i, kind in enumerate(kinds) if kind == "j"),
    )
    assert average_precision(ranking, truth) == pytest.approx(area_under_polygon(ranking, kinds))


@pytest.mark.parametrize(
    ("ranking", "truth", "says"),
    [
        ([0], Truth(frozenset()), "without positives"),
        ([0], Truth(frozenset({1}), frozenset({1})), r"\[1\]"),
        ([0, 0], Truth(frozenset({0})), "once"),
    ],
)
def test_undefined_precision_is_refused(ranking, truth, says) -> None:
    with pytest.raises(InputError, match=says):
        average_precision(ranking, truth)


def test_equal_similarities_keep_their_order() -> None:
    assert rank(np.array([0.5, 0.9, 0.5, 0.5])).tolist() == [1, 0, 2, 3]


def test_the_interval_holds_the_mean_and_narrows_with_queries() -> None:
    random = np.random.default_rng(0)
    few, many = (mean_with_interval(random.uniform(size=n)) for n in (10, 1000))
    assert few.low < few.mean < few.high
    assert many.high - many.low < (few.high - few.low) / 3
    same = mean_with_interval([0.25] * 5)
    assert (same.mean, same.low, same.high) == (0.25, 0.25, 0.25)
    with pytest.raises(InputError):
        mean_with_interval([])
