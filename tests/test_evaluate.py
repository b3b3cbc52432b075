"""Measures against numbers worked out by hand and a plain second implementation."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import reference_evaluation as reference
from coocnet.errors import InputError
from coocnet.evaluate import (
    GroundTruth,
    Query,
    Truth,
    average_precision,
    mean_with_interval,
    measure_named,
    paired_difference,
    places,
    precision_at,
    rank,
    right_among_four,
    score,
    score_rows,
    scoring,
)


@st.composite
def rankings_and_truths(draw, *, complete: bool = False):
    """A ranking of some pictures, perhaps not all, and what is right, with one positive at least."""
    n = draw(st.integers(1, 12))
    kinds = draw(st.lists(st.sampled_from("pjn"), min_size=n, max_size=n))
    kinds[draw(st.integers(0, n - 1))] = "p"
    ranking = draw(st.permutations(range(n)))[: n if complete else draw(st.integers(0, n))]
    positives, junk = ({i for i, kind in enumerate(kinds) if kind == one} for one in "pj")
    return list(ranking), positives, junk


def truth_of(positives, junk=()) -> Truth:
    return Truth(frozenset(positives), frozenset(junk))


def plain(truths: list[tuple[set[int], set[int]]], n: int, measures=("map",)) -> GroundTruth:
    queries = tuple(
        Query(f"q{i}", None, {"ok": frozenset(ok), "junk": frozenset(junk)}) for i, (ok, junk) in enumerate(truths)
    )
    return GroundTruth("t", "plain", tuple(f"i{i}" for i in range(n)), queries, measures)


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
        ([], {0}, set(), 0.0),
    ],
)
def test_average_precision_by_hand(ranking, positives, junk, expected) -> None:
    assert average_precision(ranking, truth_of(positives, junk)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("ranking", "positives", "junk", "k", "expected"),
    [
        ([0, 1, 2, 3], {0}, set(), 10, 1.0),  # not 1 / 10: the list ends with its last positive
        ([0, 2, 1, 3], {0, 1}, set(), 10, 2 / 3),
        ([0, 2, 1, 3], {0, 1}, set(), 2, 1 / 2),
        ([2, 3, 0, 1], {0, 1}, set(), 1, 0.0),
        ([3, 0, 1, 2], {0}, {3}, 5, 1.0),
        ([3, 2, 0, 1], {0}, {3}, 5, 1 / 2),
        ([0, 2, 3], {0, 1}, set(), 10, 1 / 10),  # a positive that was never found comes after everything
        ([2, 3], {0}, set(), 5, 0.0),
    ],
)
def test_precision_of_the_revisited_benchmarks_by_hand(ranking, positives, junk, k, expected) -> None:
    assert precision_at(ranking, truth_of(positives, junk), k) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("ranking", "expected"),
    [([0, 1, 2, 3, 4], 4), ([0, 4, 1, 5, 2, 3], 2), ([4, 5, 6, 7, 0], 0), ([1, 0, 4], 2)],
)
def test_ukbench_counts_the_right_among_four_with_the_query_itself(ranking, expected) -> None:
    assert right_among_four(ranking, truth_of({0, 1, 2, 3})) == expected


@pytest.mark.slow
@given(rankings_and_truths(), st.integers(1, 14))
@settings(max_examples=200, deadline=None)
def test_measures_equal_their_definitions(drawn, k) -> None:
    ranking, positives, junk = drawn
    truth = truth_of(positives, junk)
    assert average_precision(ranking, truth) == pytest.approx(reference.average_precision(*drawn))
    assert precision_at(ranking, truth, k) == pytest.approx(reference.precision_at(*drawn, k))
    assert right_among_four(ranking, truth) == reference.right_among_four(*drawn)


@given(rankings_and_truths(), st.data())
@settings(max_examples=100, deadline=None)
def test_where_junk_stands_and_what_comes_last_change_nothing(drawn, data) -> None:
    ranking, positives, junk = drawn
    truth = truth_of(positives, junk)
    moved = reference.without(ranking, junk)
    for one in junk:
        moved.insert(data.draw(st.integers(0, len(moved))), one)
    assert places(moved, truth).tolist() == places(ranking, truth).tolist()
    beyond = [*ranking, *range(100, 100 + data.draw(st.integers(0, 5)))]
    for measure in (average_precision, right_among_four):
        assert measure(beyond, truth) == measure(ranking, truth)


@given(rankings_and_truths(), st.permutations(range(12)))
@settings(max_examples=100, deadline=None)
def test_the_names_of_pictures_do_not_matter(drawn, new) -> None:
    ranking, positives, junk = drawn
    renamed = truth_of({new[one] for one in positives}, {new[one] for one in junk})
    assert np.array_equal(places([new[one] for one in ranking], renamed), places(ranking, truth_of(positives, junk)))


@given(rankings_and_truths(complete=True), st.data())
@settings(max_examples=100, deadline=None)
def test_holidays_is_average_precision_with_the_query_as_junk(drawn, data) -> None:
    ranking, positives, _ = drawn
    query = data.draw(st.sampled_from(ranking))
    if positives <= {query}:
        return
    expected = reference.holidays_average_precision(ranking, query, positives - {query})
    assert average_precision(ranking, truth_of(positives - {query}, {query})) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("ranking", "truth", "says"),
    [
        ([0], Truth(frozenset()), "without positives"),
        ([0], truth_of({1}, {1}), r"\[1\]"),
        ([0, 0], truth_of({0}), "once"),
    ],
)
def test_undefined_measures_are_refused(ranking, truth, says) -> None:
    for measure in (average_precision, right_among_four, lambda *given: precision_at(*given, 5)):
        with pytest.raises(InputError, match=says):
            measure(ranking, truth)
    with pytest.raises(InputError, match="got 0"):
        precision_at([0], truth_of({0}), 0)


@pytest.mark.parametrize(
    "name", ["mAP", "mp@", "mp@0", "mp@05", "mp@x", "mp", "ns@4", "mp@-1", "mp@²", "mp@\u0663", ""]
)
def test_unknown_measures_are_refused(name) -> None:
    with pytest.raises(InputError, match="map, ns or mp@k"):
        measure_named(name)
    with pytest.raises(InputError, match="map, ns or mp@k"):
        plain([({0}, set())], 2, measures=(name,))


def test_equal_similarities_keep_their_order() -> None:
    assert rank(np.array([0.5, 0.9, 0.5, 0.5])).tolist() == [1, 0, 2, 3]
    many = np.tile([0.5, 0.9], 500)
    assert rank(many).tolist() == [*range(1, 1000, 2), *range(0, 1000, 2)]


def test_the_interval_holds_the_mean_and_narrows_with_queries() -> None:
    random = np.random.default_rng(0)
    few, many = (mean_with_interval(random.uniform(size=n)) for n in (10, 1000))
    assert few.low < few.mean < few.high
    assert many.high - many.low < (few.high - few.low) / 3
    same = mean_with_interval([0.25] * 5)
    assert (same.mean, same.low, same.high) == (0.25, 0.25, 0.25)
    with pytest.raises(InputError):
        mean_with_interval([])


def test_a_paired_difference_is_surer_than_two_means() -> None:
    random = np.random.default_rng(0)
    hard = random.uniform(size=70)
    one, other = hard * 0.9 + 0.05, hard * 0.9
    found = paired_difference(one.tolist(), other.tolist())
    assert found.interval.mean == pytest.approx(0.05)
    assert found.interval.low > 0.049
    assert (found.wins, found.losses, found.ties) == (70, 0, 0)
    mixed = paired_difference([1.0, 0.5, 0.25, 0.0], [0.5, 0.5, 0.5, 0.0])
    assert (mixed.wins, mixed.losses, mixed.ties) == (1, 1, 2)
    with pytest.raises(InputError, match="2 and 1"):
        paired_difference([0.1, 0.2], [0.1])


# ------------------------------------------------------------------------------------------- a whole benchmark

REVISITED = GroundTruth(
    "small",
    "revisited",
    tuple("abcdef"),
    (
        Query("q0", (0, 0, 9, 9), {"easy": frozenset({0}), "hard": frozenset({1}), "junk": frozenset({2})}),
        Query("q1", None, {"easy": frozenset(), "hard": frozenset({3}), "junk": frozenset({4})}),
    ),
    ("map", "mp@1", "mp@10"),
)


def test_the_setups_of_the_revisited_benchmarks_by_hand() -> None:
    scores = score([[2, 5, 0, 1, 3, 4], [4, 3, 0, 1, 2, 5]], REVISITED)
    found = {(one.setup, one.measure): one.values for one in scores}
    # Of q0, easy: 5 then 0, as 1 and 2 are junk; hard: 5 then 1; medium: 5, 0, 1.
    assert found == {
        ("easy", "map"): (0.25, None),
        ("easy", "mp@1"): (0.0, None),
        ("easy", "mp@10"): (0.5, None),
        ("medium", "map"): (pytest.approx((1 / 4 + (1 / 2 + 2 / 3) / 2) / 2), 1.0),
        ("medium", "mp@1"): (0.0, 1.0),
        ("medium", "mp@10"): (pytest.approx(2 / 3), 1.0),
        ("hard", "map"): (0.25, 1.0),
        ("hard", "mp@1"): (0.0, 1.0),
        ("hard", "mp@10"): (0.5, 1.0),
    }
    easy = scores[0]
    assert (easy.counted, easy.left_out, easy.interval.mean) == ([0.25], 1, 0.25)


def test_a_setup_without_any_positive_has_no_mean() -> None:
    empty = plain([(set(), {0})], 2)
    (found,) = score([[0, 1]], empty)
    assert (found.values, found.left_out, found.interval) == ((None,), 1, None)


@given(st.lists(rankings_and_truths(), min_size=1, max_size=4), st.integers(0, 3))
@settings(max_examples=100, deadline=None)
def test_scores_are_the_measures_of_each_query(drawn, distractors) -> None:
    n = 12
    truth = plain([(positives, junk) for _, positives, junk in drawn], n, ("map", "mp@3", "ns"))
    rankings = [[n + d for d in range(distractors)] + ranking for ranking, _, _ in drawn]
    found = {one.measure: one.values for one in score(rankings, truth, distractors=distractors)}
    for i, (ranking, (_, positives, junk)) in enumerate(zip(rankings, drawn, strict=True)):
        assert found["map"][i] == pytest.approx(reference.average_precision(ranking, positives, junk))
        assert found["mp@3"][i] == pytest.approx(reference.precision_at(ranking, positives, junk, 3))
        assert found["ns"][i] == reference.right_among_four(ranking, positives, junk)


@pytest.mark.parametrize(
    ("rankings", "says"),
    [
        ([[0, 1]], "2 queries, but there are 1 rankings"),
        ([[0, 1], [0, 9]], "ranking 1 names position 9, outside the 6 pictures"),
        ([[0, 1], [-1, 0]], "position -1"),
        ([[0, 1], [1, 1]], "ranking 1 names position 1 more than once"),
        ([[0.5, 1], [0, 1]], "whole numbers"),
        ([[[0], [1]], [[0], [1]]], "whole numbers"),
        ([[1, 2, 3, 4, 5, 6]] * 2, "count from 1, subtract 1"),
    ],
)
def test_rankings_that_are_none_are_refused(rankings, says) -> None:
    with pytest.raises(InputError, match=says):
        score(rankings, REVISITED)


# ------------------------------------------------------------------------------------------- from rows


@pytest.mark.slow
@given(st.data())
@settings(max_examples=60, deadline=None)
def test_scores_of_rows_are_those_of_their_sorted_list(data) -> None:
    """Small whole numbers, so that products are exact everywhere and many are equal."""
    n, d, q, images = (data.draw(st.integers(low, high)) for low, high in ((1, 30), (1, 4), (1, 3), (1, 30)))
    n = max(n, images)
    numbers = st.integers(-2, 2)
    database = data.draw(st.lists(st.lists(numbers, min_size=d, max_size=d), min_size=n, max_size=n))
    queries = data.draw(st.lists(st.lists(numbers, min_size=d, max_size=d), min_size=q, max_size=q))
    kinds = [data.draw(st.lists(st.sampled_from("pjn"), min_size=images, max_size=images)) for _ in range(q)]
    truth = plain(
        [tuple({i for i, kind in enumerate(some) if kind == one} for one in "pj") for some in kinds],
        images,
        ("map", "mp@2", "ns"),
    )
    expected = score([reference.ranked(database, query) for query in queries], truth, distractors=n - images)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(scoring, "_NUMBERS_AT_ONCE", data.draw(st.integers(1, 40)))
        patched.setattr(scoring, "_QUERIES_AT_ONCE", data.draw(st.integers(1, 3)))
        found = score_rows(np.array(database, np.float32), np.array(queries, np.float32), truth, lengths="as-given")
    assert found == expected


@pytest.mark.parametrize("at_once", [1, 64, 1000, 10**6])
def test_equal_rows_are_equal_wherever_blocks_end(at_once, monkeypatch) -> None:
    random = np.random.default_rng(0)
    rows = random.normal(size=(40, 96)).astype(np.float32)
    database = rows[random.integers(0, 40, 400)]
    truth = plain([(set(random.choice(300, 20, replace=False).tolist()), {0}) for _ in range(5)], 300)
    truth = plain([(ok - {0}, {0}) for ok in (set(one.labels["ok"]) for one in truth.queries)], 300)
    queries = random.normal(size=(5, 96)).astype(np.float32)
    one_by_one = [
        [sum(float(a) * float(b) for a, b in zip(row, query, strict=True)) for row in rows] for query in queries
    ]
    which = [int(np.flatnonzero((rows == row).all(1))[0]) for row in database]
    rankings = [sorted(range(400), key=lambda at, s=s: (-s[which[at]], at)) for s in one_by_one]
    monkeypatch.setattr(scoring, "_NUMBERS_AT_ONCE", at_once)
    assert score_rows(database, queries, truth, lengths="as-given") == score(rankings, truth, distractors=100)


def test_distractors_at_the_end_of_the_list_change_nothing() -> None:
    random = np.random.default_rng(1)
    rows = np.abs(random.normal(size=(20, 8)))
    truth, queries = plain([({1, 2}, {3}), ({4}, set())], 20), rows[:2]
    alone = score_rows(rows, queries, truth, lengths="normalise")
    assert score_rows(np.concatenate([rows, -rows]), queries, truth, lengths="normalise") == alone
    assert score_rows(np.concatenate([rows, queries]), queries, truth, lengths="normalise") != alone


def test_lengths_are_demanded_made_or_left_as_asked() -> None:
    database = np.array([[3.0, 0.0], [0.6, 0.8], [0.0, 0.0]])
    query, truth = np.array([[0.6, 0.8]]), plain([({1}, set())], 3)
    before = database.copy()
    with pytest.raises(InputError, match=r"database row 0 has length 3, not 1.*normalise.*as-given"):
        score_rows(database, query, truth)
    (cosine,) = score_rows(database, query, truth, lengths="normalise")
    (product,) = score_rows(database, query, truth, lengths="as-given")
    assert (cosine.values, product.values) == ((1.0,), (0.25,))
    assert np.array_equal(database, before)
    assert score_rows(database[1:], query, plain([({0}, set())], 2))[0].values == (1.0,)  # a blank one is no mistake
    with pytest.raises(InputError, match="'long'"):
        score_rows(database, query, truth, lengths="long")


@pytest.mark.parametrize(
    ("database", "queries", "says"),
    [
        (np.ones((3, 1)), np.ones((2, 1)), "3 pictures and 1 queries, got 3 and 2 rows"),
        (np.ones((2, 1)), np.ones((1, 1)), "got 2 and 1 rows"),
        (np.ones((3, 1)), np.ones((1, 2)), r"\(3, 1\).*\(1, 2\)"),
        (np.ones(3), np.ones((1, 1)), r"\(3,\)"),
        (np.array([[1.0], [np.nan], [1.0]]), np.ones((1, 1)), "database row 1 .*not finite"),
        (np.ones((3, 1)), np.array([[np.inf]]), "query 0 .*not finite"),
        (np.ones((3, 1), complex), np.ones((1, 1)), "complex"),
    ],
)
def test_rows_that_cannot_be_ranked_are_refused(database, queries, says) -> None:
    with pytest.raises(InputError, match=says):
        score_rows(database, queries, plain([({1}, set())], 3))


# ------------------------------------------------------------------------------------------- the ground truth


def test_the_digest_is_of_what_decides_a_score() -> None:
    again = GroundTruth.from_json(REVISITED.to_json())
    assert again.digest() == REVISITED.digest()
    document = json.loads(REVISITED.to_json())
    for change, same in (
        ({"name": "other", "measures": ["map"]}, True),
        ({"images": list("abcdeg")}, False),
        ({"queries": document["queries"][::-1]}, False),
    ):
        other = GroundTruth.from_json(json.dumps({**document, **change}))
        assert (other.digest() == REVISITED.digest()) is same


def test_queries_are_counted_by_where_their_own_picture_is() -> None:
    labels = {"ok": frozenset({0}), "junk": frozenset({1})}
    truth = GroundTruth("t", "plain", tuple("abc"), tuple(Query(name, None, labels) for name in "aabcxy"))
    assert truth.queries_in_database() == {"junk": 1, "ok": 2, "outside": 2, "unlabelled": 1}


@pytest.mark.parametrize(("name", "queries", "images"), [("oxford5k", 55, 5063), ("paris6k", 55, 6392)])
def test_a_perfect_ranking_of_a_real_benchmark_scores_one(real_data, name, queries, images) -> None:
    published = json.loads((real_data / "ground_truth" / f"gnd_{name}.json").read_text())
    truth = GroundTruth(
        name,
        "plain",
        tuple(published["imlist"]),
        tuple(
            Query(image, None, {"ok": frozenset(entry["ok"]), "junk": frozenset(entry["junk"])})
            for image, entry in zip(published["qimlist"], published["gnd"], strict=True)
        ),
        ("map", "mp@10"),
    )
    assert (len(truth.queries), len(truth.images)) == (queries, images)
    assert truth.queries_in_database() == {"ok": queries}
    perfect, worst = [], []
    for query in truth.queries:
        first = [*query.labels["junk"], *query.labels["ok"]]
        rest = sorted(set(range(images)) - set(first))
        perfect.append(first + rest)
        worst.append(rest + first)
    for found in score(perfect, truth):
        assert found.values == (1.0,) * queries
    for found in score(worst, truth):
        assert max(found.counted) < 0.1
