"""Nearest rows, expansion and re-ranking against their equations, in any block, and on awkward collections."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from functools import partial

import numpy as np
import pytest

import reference_ranking as reference
from coocnet import ranking
from coocnet.errors import InputError
from coocnet.evaluate import Truth, average_precision
from coocnet.ranking import (
    EXPANSIONS,
    RERANKINGS,
    Diffusion,
    Ranked,
    Reciprocal,
    mean_similarity,
    neighbours,
    reciprocal_rerank,
)
from coocnet.ranking import nearest as nearest_module
from coocnet.whitening import fit_pca, unit_rows

average_expansion = partial(ranking.average_expansion, n=10)
alpha_expansion = partial(ranking.alpha_expansion, n=20, alpha=3.0)
augment_database = partial(ranking.augment_database, n=10, alpha=3.0)
BUILDS = {
    **RERANKINGS,
    "truncated": partial(Diffusion.build, truncation=30),
    "truncated offline": partial(Diffusion.build, truncation=30, offline=True),
}


def _clusters(n: int, d: int = 16, things: int = 6, spread: float = 0.8, seed: int = 0):
    """Unit rows around a few centres without a common direction, as whitened ones are; and which thing each shows."""
    random = np.random.default_rng(seed)
    centres = unit_rows(random.normal(size=(things, d))) * np.sqrt(d)
    label = random.integers(0, things, n)
    return unit_rows(centres[label] + spread * random.normal(size=(n, d))), label


def _ties(n: int, seed: int = 0) -> np.ndarray:
    """Rows whose similarities are exact in float32, of few values, many equal; some rows are blank."""
    random = np.random.default_rng(seed)
    halves = random.choice([-0.5, 0.5], (n, 4))
    axes = np.eye(4)[random.integers(0, 4, n)] * random.choice([-1, 1], (n, 1))
    rows = np.where(random.uniform(size=(n, 1)) < 0.5, halves, axes)
    rows[random.uniform(size=n) < 0.1] = 0
    return rows.astype(np.float32)


def _activations(n: int, d: int = 64, seed: int = 0) -> np.ndarray:
    """Rows as pooled activations give them before whitening: nothing negative, some channels always large."""
    random = np.random.default_rng(seed)
    return unit_rows(random.gamma(1.5, 1, (n, d)) * random.gamma(2, 1, d))


def _mean_precision(found: Ranked, label: np.ndarray, asked: np.ndarray) -> float:
    truths = [Truth(frozenset(np.flatnonzero(label == one).tolist())) for one in asked]
    return float(np.mean([average_precision(r.tolist(), t) for r, t in zip(found.positions, truths, strict=True)]))


# ------------------------------------------------------------------------------------------ neighbours


@pytest.mark.parametrize("n", [1, 2, 7, 60, 200])
@pytest.mark.parametrize("k", [1, 3, 50])
@pytest.mark.parametrize("make", [_ties, lambda n: _clusters(n)[0]], ids=["ties", "clusters"])
def test_neighbours_are_those_of_a_full_sort_in_order_of_position_where_equal(make, n: int, k: int) -> None:
    rows = make(n)
    found = neighbours(rows, k=k)
    expected = [reference.nearest(rows.astype(np.float64), row.astype(np.float64), k) for row in rows]
    assert found.positions.tolist() == expected
    similarities = np.take_along_axis(rows.astype(np.float64) @ rows.T.astype(np.float64), found.positions, 1)
    np.testing.assert_allclose(found.scores, similarities, atol=1e-6)
    assert (found.positions.dtype, found.scores.dtype) == (np.int32, np.float32)


@pytest.mark.parametrize("block", [1, 3, 7, 64, 1000])
def test_no_block_size_changes_a_bit_of_the_result(block: int) -> None:
    rows, _ = _clusters(300, d=100, things=20)
    rows[100:220] = rows[5]
    whole, parts = neighbours(rows, k=40), neighbours(rows, k=40, block=block)
    np.testing.assert_array_equal(parts.positions, whole.positions)
    np.testing.assert_array_equal(parts.scores, whole.scores)


def test_equal_rows_are_equally_similar_and_similarity_goes_both_ways() -> None:
    rows, _ = _clusters(300, d=100)
    rows[10:290:20] = rows[7]
    found = neighbours(rows, k=300)
    similarity = np.empty((300, 300), np.float32)
    np.put_along_axis(similarity, found.positions, found.scores, 1)
    np.testing.assert_array_equal(similarity, similarity.T)
    assert (similarity[:, 10:290:20] == similarity[:, [7]]).all()


def test_more_equal_rows_than_spare_candidates_lose_none_of_the_first() -> None:
    rows, _ = _clusters(900, d=100)
    rows[300:600] = rows[0]
    found = neighbours(rows, rows[[0, 700]], k=10)
    assert found.positions[0].tolist() == [0, *range(300, 309)]
    assert found.positions[1].tolist() == reference.nearest(rows.astype(np.float64), rows[700].astype(np.float64), 10)


def test_progress_counts_the_queries() -> None:
    rows, _ = _clusters(10)
    calls = []
    neighbours(rows, k=1, block=4, progress=lambda done, of: calls.append((done, of)))
    assert calls == [(4, 10), (8, 10), (10, 10)]


# ------------------------------------------------------------------------------------------- expansion


@pytest.mark.parametrize("make", [_ties, lambda n: _clusters(n)[0]], ids=["ties", "clusters"])
@pytest.mark.parametrize("n", [1, 4, 1000])
def test_expansions_are_the_means_of_their_equations(make, n: int) -> None:
    rows, queries = np.split(make(70), [50])
    exact, asked = rows.astype(np.float64), queries.astype(np.float64)
    expected = [reference.average_expansion(exact, one, min(n, 50)) for one in asked]
    np.testing.assert_allclose(average_expansion(rows, queries, n=n), expected, atol=2e-6)
    for alpha in (0.0, 1.0, 3.0):
        expected = [reference.alpha_expansion(exact, one, n, alpha) for one in asked]
        np.testing.assert_allclose(alpha_expansion(rows, queries, n=n, alpha=alpha), expected, atol=2e-6)
        expected = [reference.augmented(exact, at, n, alpha) for at in range(50)]
        np.testing.assert_allclose(augment_database(rows, n=n, alpha=alpha), expected, atol=2e-6)


def test_means_are_the_same_in_any_block(monkeypatch) -> None:
    rows, _ = _clusters(100)
    whole = alpha_expansion(rows, rows), augment_database(rows)
    monkeypatch.setattr("coocnet.ranking.expansion._NUMBERS_AT_ONCE", 1000)
    monkeypatch.setattr(nearest_module, "_NUMBERS_AT_ONCE", 100)
    for one, other in zip(whole, (alpha_expansion(rows, rows), augment_database(rows)), strict=True):
        np.testing.assert_array_equal(one, other)


def test_augmenting_leaves_the_rows_given_as_they_were_and_takes_a_known_graph() -> None:
    rows, _ = _clusters(80)
    before = rows.copy()
    new = augment_database(rows, n=5)
    np.testing.assert_array_equal(rows, before)
    np.testing.assert_array_equal(augment_database(rows, n=5, graph=neighbours(rows, k=20)), new)


def test_more_equal_rows_than_a_list_is_long_do_no_harm() -> None:
    rows = np.repeat(_clusters(2)[0], 40, axis=0)
    np.testing.assert_allclose(augment_database(rows, n=4, whitened=True), rows, atol=1e-6)
    for build in BUILDS.values():
        found = build(rows).rank(rows[[75]], k=40)
        assert found.positions[0, :10].min() >= 40
    for offline in (True, False):
        found = Diffusion.build(rows, truncation=3, offline=offline).rank(rows[[75]], k=10)
        assert sorted(found.positions[0]) == list(range(40, 50))
        assert found.scores.min() > 0


@pytest.mark.parametrize("make", [_ties, _activations, lambda n: _clusters(n)[0]], ids=["ties", "raw", "clusters"])
def test_mean_similarity_is_that_of_all_pairs(make) -> None:
    rows = make(40)
    described = rows[rows.any(1)].astype(np.float64)
    pairs = [float(a @ b) for i, a in enumerate(described) for j, b in enumerate(described) if i != j]
    assert mean_similarity(rows) == pytest.approx(np.mean(pairs), abs=1e-5)
    assert mean_similarity(rows[:0]) == mean_similarity(rows[:1]) == 0


@pytest.mark.parametrize("expand", [lambda rows, **o: alpha_expansion(rows, rows, **o), augment_database])
def test_weights_by_similarity_are_refused_on_rows_that_were_never_whitened(expand) -> None:
    rows = _activations(200)
    with pytest.raises(InputError, match=r"similarity of 0\.[5-9].* never whitened.*coocnet whitening"):
        expand(rows)
    expand(fit_pca(rows).apply(rows))
    expand(rows, whitened=True)
    expand(rows[:4])
    with pytest.raises(InputError, match="never whitened"):
        expand(rows[:4], whitened=False)


# ------------------------------------------------------------------------------------------ reciprocal


@pytest.mark.parametrize(("k1", "k2"), [(1, 1), (5, 1), (6, 3), (9, 9)])
@pytest.mark.parametrize("n", [2, 5, 40])
@pytest.mark.parametrize("make", [_ties, lambda n: _clusters(n, spread=1.2)[0]], ids=["ties", "clusters"])
def test_reciprocal_scores_are_those_of_the_equations(make, n: int, k1: int, k2: int) -> None:
    rows, queries = np.split(make(n + 5), [n])
    queries[0] = rows[0]
    found = reciprocal_rerank(rows, queries, k=15, k1=k1, k2=k2, lam=0.3)
    for positions, scores, query in zip(*found, queries, strict=True):
        if not query.any():
            continue
        exact, asked = rows.astype(np.float64), query.astype(np.float64)
        shortlist = reference.nearest(exact, asked, 15)
        expected = reference.reciprocal_scores(exact, asked, k1=k1, k2=k2, lam=0.3, shortlist=shortlist)
        assert sorted(positions) == sorted(shortlist)
        np.testing.assert_allclose(scores, [expected[at] for at in positions], atol=1e-5)
        assert (np.diff(scores) <= 0).all()


def test_reciprocal_encoding_is_the_same_in_any_block(monkeypatch) -> None:
    rows, _ = _clusters(200)
    whole = reciprocal_rerank(rows, rows[:10])
    monkeypatch.setattr("coocnet.ranking.reciprocal._NODES_AT_ONCE", 7)
    np.testing.assert_array_equal(reciprocal_rerank(rows, rows[:10]).scores, whole.scores)


def test_similarity_alone_keeps_the_order() -> None:
    rows, _ = _clusters(100)
    found = reciprocal_rerank(rows, rows[:10], lam=1.0, k=30)
    np.testing.assert_array_equal(found.positions, neighbours(rows, rows[:10], k=30).positions)


# ------------------------------------------------------------------------------------------- diffusion


@pytest.mark.parametrize(("k_graph", "k_query", "alpha"), [(1, 1, 0.5), (5, 3, 0.99), (100, 10, 0.9)])
@pytest.mark.parametrize("n", [1, 2, 50])
@pytest.mark.parametrize("make", [_ties, lambda n: _clusters(n)[0]], ids=["ties", "clusters"])
def test_diffusion_is_the_solution_of_the_dense_system(
    make, n: int, k_graph: int, k_query: int, alpha: float
) -> None:
    rows, queries = np.split(make(n + 5), [n])
    built = partial(Diffusion.build, rows, k_graph=k_graph, k_query=k_query, alpha=alpha)
    whole, stored = built().rank(queries, k=n), built(offline=True, truncation=None).rank(queries, k=n)
    exact = rows.astype(np.float64)
    for at, query in enumerate(queries.astype(np.float64)):
        expected = reference.diffusion_scores(exact, query, k=k_graph, k_query=k_query, gamma=3, alpha=alpha)
        for found in (whole, stored):
            np.testing.assert_allclose(found.scores[at], expected[found.positions[at]], rtol=1e-3, atol=1e-4)
            assert (np.diff(found.scores[at]) <= 0).all()


@pytest.mark.parametrize("truncation", [1, 2, 12])
@pytest.mark.parametrize("offline", [True, False])
def test_truncated_solutions_are_those_on_the_nearest_rows_alone(truncation: int, offline: bool) -> None:
    rows, queries = np.split(_clusters(65)[0], [60])
    built = Diffusion.build(rows, k_graph=8, k_query=5, truncation=truncation, offline=offline)
    found = built.rank(queries, k=60)
    exact = rows.astype(np.float64)
    for at, query in enumerate(queries.astype(np.float64)):
        expected = reference.truncated_scores(
            exact, query, k=8, k_query=5, gamma=3, alpha=0.99, truncation=truncation
        )
        np.testing.assert_allclose(found.scores[at], expected[found.positions[at]], rtol=1e-3, atol=1e-4)


def test_solutions_that_were_kept_rank_as_when_they_were_made() -> None:
    rows, _ = _clusters(60)
    made = Diffusion.build(rows, truncation=20, offline=True)
    again = Diffusion.build(rows, truncation=20, solved=made.solved)
    for one, other in zip(made.rank(rows[:7], k=60), again.rank(rows[:7], k=60), strict=True):
        np.testing.assert_array_equal(one, other)
    columns, values = made.solved
    for wrong in ((columns[:-1], values[:-1]), (columns, values[:, :-1]), (columns + 60, values)):
        with pytest.raises(InputError, match="solutions for 60 rows"):
            Diffusion.build(rows, solved=wrong)


def test_diffusion_refuses_rows_of_which_the_caller_says_they_were_never_whitened() -> None:
    with pytest.raises(InputError, match="never whitened"):
        Diffusion.build(_activations(50), whitened=False)


def test_what_nothing_reaches_comes_last_by_similarity() -> None:
    rows, _ = _clusters(60)
    found = Diffusion.build(rows, k_graph=2, k_query=2).rank(rows[:8], k=60)
    for positions, scores, query in zip(*found, rows[:8], strict=True):
        assert sorted(positions) == list(range(60))
        rest = positions[scores == 0]
        assert len(rest) > 40
        assert rest.tolist() == [i for i in neighbours(rows, query[None], k=60).positions[0] if i in set(rest)]


def test_diffusion_follows_a_chain_past_what_is_nearer() -> None:
    """A chain of views each like the next; another thing lies nearer to its first view than its last does."""
    turns = np.radians(np.arange(0, 90, 6))
    chain = np.stack([np.cos(turns), np.sin(turns), 0 * turns], 1)
    tilts = np.radians([50.0, 52, 54, 56])
    other = np.stack([np.cos(tilts), 0 * tilts, np.sin(tilts)], 1)
    rows = np.concatenate([chain, other]).astype(np.float32)
    assert 15 in neighbours(rows, rows[:1], k=15).positions
    found = Diffusion.build(rows, k_graph=3, k_query=2).rank(rows[:1], k=15)
    assert sorted(found.positions[0]) == list(range(15))


def test_diffusion_without_scipy_names_the_extra(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(InputError, match=r"pip install 'coocnet\[rerank\]'"):
        Diffusion.build(_clusters(5)[0])


# -------------------------------------------------------------------------- what holds for every entry


def _collections() -> dict[str, np.ndarray]:
    clusters, _ = _clusters(60)
    some_blank = clusters.copy()
    some_blank[::7] = 0
    return {
        "none": clusters[:0],
        "one": clusters[:1],
        "two": clusters[:2],
        "sixty": clusters,
        "some blank": some_blank,
        "all blank": np.zeros((9, 16), np.float32),
        "all equal but one": np.concatenate([np.repeat(clusters[:1], 3, axis=0), clusters[5:6]]),
    }


@pytest.mark.parametrize("rows", _collections().values(), ids=_collections())
@pytest.mark.parametrize("name", EXPANSIONS)
def test_an_expansion_gives_unit_rows_whatever_the_collection(name: str, rows: np.ndarray) -> None:
    queries = np.concatenate([_clusters(5, seed=1)[0], np.zeros((1, 16), np.float32)])
    before = queries.copy()
    new = EXPANSIONS[name](rows, queries, n=20, alpha=3.0, whitened=True)
    assert (new.shape, new.dtype) == (queries.shape, np.float32)
    np.testing.assert_allclose(np.linalg.norm(new, axis=1), [1, 1, 1, 1, 1, 0], atol=1e-5)
    np.testing.assert_array_equal(queries, before)
    np.testing.assert_array_equal(EXPANSIONS[name](rows, queries[2:3], n=20, alpha=3.0, whitened=True), new[2:3])


@pytest.mark.parametrize("rows", _collections().values(), ids=_collections())
@pytest.mark.parametrize("name", BUILDS)
@pytest.mark.parametrize("k", [1, 7, 1000])
def test_a_reranking_ranks_each_row_once_whatever_the_collection(name: str, rows: np.ndarray, k: int) -> None:
    queries = np.concatenate([_clusters(5, seed=1)[0], np.zeros((1, 16), np.float32)])
    prepared = BUILDS[name](rows)
    found = prepared.rank(queries, k=k)
    assert found.positions.shape == found.scores.shape == (6, min(k, len(rows)))
    assert (found.positions.dtype, found.scores.dtype) == (np.int32, np.float32)
    assert np.isfinite(found.scores).all()
    assert (np.diff(found.scores, axis=1) <= 0).all()
    assert all(len(set(one.tolist())) == len(one) for one in found.positions)
    assert found.positions[5].tolist() == list(range(min(k, len(rows))))
    assert not found.scores[5].any()
    alone = prepared.rank(queries[2:3], k=k)
    np.testing.assert_array_equal(alone.positions, found.positions[2:3])
    np.testing.assert_array_equal(alone.scores, found.scores[2:3])


@pytest.mark.parametrize("name", BUILDS)
def test_a_known_graph_gives_the_same_ranking(name: str) -> None:
    rows, _ = _clusters(150)
    expected = BUILDS[name](rows).rank(rows[:5], k=20)
    found = BUILDS[name](rows, graph=neighbours(rows, k=80)).rank(rows[:5], k=20)
    np.testing.assert_array_equal(found.positions, expected.positions)
    np.testing.assert_array_equal(found.scores, expected.scores)


@pytest.mark.parametrize("name", [*EXPANSIONS, *BUILDS, "augmented"])
def test_overlapping_things_are_told_apart_better_than_by_similarity_alone(name: str) -> None:
    rows, label = _clusters(600, d=32, things=20, spread=1.0)
    queries, asked = rows[:30], label[:30]
    plain = _mean_precision(neighbours(rows, queries, k=600), label, asked)
    if name in EXPANSIONS:
        found = neighbours(rows, EXPANSIONS[name](rows, queries, n=20, alpha=3.0), k=600)
    elif name in BUILDS:
        found = BUILDS[name](rows).rank(queries, k=600)
    else:
        found = neighbours(augment_database(rows), queries, k=600)
    assert 0.8 < plain < 0.92
    assert _mean_precision(found, label, asked) > plain + 0.02


@pytest.mark.slow
def test_no_step_holds_a_square_of_the_database() -> None:
    rows, _ = _clusters(6000, d=8, things=300)
    square = 4 * len(rows) ** 2
    tracemalloc.start()
    try:
        graph = neighbours(rows, k=51, block=128)
        for step in (
            lambda: augment_database(rows, graph=graph),
            lambda: alpha_expansion(rows, rows[:50]),
            lambda: Reciprocal.build(rows, graph=graph).rank(rows[:2]),
            lambda: Diffusion.build(rows, graph=graph).rank(rows[:2]),
        ):
            step()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < square / 3


# -------------------------------------------------------------------------------------- what is refused

ROWS = _clusters(8)[0]
LONG = ROWS.copy()
LONG[3] *= 2
BAD = ROWS.copy()
BAD[2, 1] = np.nan


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: neighbours(LONG, k=1), "number 3 has length 2"),
        (lambda: neighbours(BAD, k=1), "number 2 has length nan"),
        (lambda: neighbours(ROWS[0], k=1), r"\(16,\)"),
        (lambda: neighbours(np.eye(3, dtype=int), k=1), "int64"),
        (lambda: neighbours(ROWS, ROWS[:, :5], k=1), "16 dimensions like the rows that are searched, got 5"),
        (lambda: neighbours(ROWS, LONG, k=1), "queries have length 1.* number 3"),
        (lambda: neighbours(ROWS, k=0), "got 0"),
        (lambda: neighbours(ROWS, k=True), "got True"),
        (lambda: neighbours(ROWS, k=2.0), "got 2.0"),
        (lambda: neighbours(ROWS, k=1, block=0), "block"),
        (lambda: average_expansion(ROWS, ROWS, n=0), "n is .* got 0"),
        (lambda: average_expansion(ROWS, LONG), "number 3"),
        (lambda: alpha_expansion(ROWS, ROWS, n=0), "n is .* got 0"),
        (lambda: alpha_expansion(ROWS, ROWS, alpha=-1), "alpha .* got -1"),
        (lambda: alpha_expansion(ROWS, ROWS, alpha=float("inf")), "alpha .* got inf"),
        (lambda: augment_database(ROWS, n=0), "n is .* got 0"),
        (lambda: augment_database(ROWS, alpha=float("nan")), "alpha .* got nan"),
        (lambda: augment_database(ROWS, graph=neighbours(_clusters(9)[0], k=9)), r"8 lists .* k=11"),
        (lambda: augment_database(ROWS, graph=neighbours(ROWS, k=7)), r"at least 8 positions"),
        (lambda: Reciprocal.build(ROWS, k1=0), "k1 .* got 0"),
        (lambda: Reciprocal.build(ROWS, k1=3, k2=4), "k2 is at most 3 here, got 4"),
        (lambda: Reciprocal.build(ROWS, lam=1.5), "lam is a number from 0 to 1, got 1.5"),
        (lambda: Reciprocal.build(ROWS, graph=Ranked(np.full((8, 8), 9), np.ones((8, 8)))), "position 9"),
        (lambda: Reciprocal.build(ROWS).rank(ROWS, k=0), "k is .* got 0"),
        (lambda: Reciprocal.build(ROWS).rank(LONG), "number 3"),
        (lambda: Diffusion.build(ROWS, k_graph=0), "k_graph .* got 0"),
        (lambda: Diffusion.build(ROWS, k_query=0), "k_query .* got 0"),
        (lambda: Diffusion.build(ROWS, gamma=-1), "gamma .* got -1"),
        (lambda: Diffusion.build(ROWS, alpha=1), "alpha is below 1"),
        (lambda: Diffusion.build(ROWS, alpha=-0.1), "alpha .* got -0.1"),
        (lambda: Diffusion.build(ROWS, truncation=0), "truncation .* got 0"),
        (lambda: Diffusion.build(LONG), "number 3"),
        (lambda: Diffusion.build(ROWS).rank(ROWS[:, :4]), "16 dimensions"),
        (lambda: Diffusion.build(ROWS).rank(ROWS, k=-1), "k is .* got -1"),
    ],
)
def test_what_cannot_be_used_is_quoted(call, says: str) -> None:
    with pytest.raises(InputError, match=says):
        call()


def test_ranking_loads_neither_torch_nor_scipy() -> None:
    code = "import sys, coocnet.ranking; sys.exit(str({'torch', 'scipy'} & set(sys.modules) or ''))"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert done.stderr.strip() == ""


# ------------------------------------------------------------------------------------ relevance feedback


def test_relevance_feedback_is_the_mean_of_a_query_and_its_relevant_rows() -> None:
    queries = np.concatenate([ROWS[:3], np.zeros_like(ROWS[:2])])
    relevant = [ROWS[5:8], ROWS[:0], ROWS[9:10], ROWS[4:6], ROWS[:0]]
    expected = [
        reference.relevance_feedback(query.astype(np.float64), some.astype(np.float64))
        for query, some in zip(queries, relevant, strict=True)
    ]
    moved = ranking.relevance_feedback(queries, relevant)
    np.testing.assert_allclose(moved, expected, atol=2e-6)
    np.testing.assert_array_equal(moved[1], queries[1])
    opposite = ranking.relevance_feedback(ROWS[:1], [-ROWS[:1]])
    assert not opposite.any()


@pytest.mark.parametrize(
    ("relevant", "says"),
    [([], "each of 2 queries, got 0"), ([LONG, LONG], "number 3"), ([ROWS[:1, :3], ROWS[:1]], "dimensions")],
    ids=str,
)
def test_relevant_rows_that_cannot_be_are_refused(relevant, says: str) -> None:
    with pytest.raises(InputError, match=says):
        ranking.relevance_feedback(ROWS[:2], relevant)
