"""Scores of a whole benchmark, from rankings or from rows, whoever made them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from coocnet.errors import InputError
from coocnet.evaluate.ground_truth import GroundTruth
from coocnet.evaluate.measures import Interval, Truth, mean_with_interval, measure_named, places_without_junk

LENGTHS = ("unit", "normalise", "as-given")
"""What to do about the lengths of rows: demand 1 (0 where a picture is blank), make them so, or leave them."""

_UNIT_WITHIN = 1e-3
_QUERIES_AT_ONCE = 256
_NUMBERS_AT_ONCE = 1 << 23  # 64 MiB of float64
_EPSILON = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class Score:
    """One measure in one setup of a benchmark.

    Attributes:
        setup: its name; "" for the only one of a plain labelling.
        measure: "map", "mp@k" or "ns".
        values: of each query in the benchmark's order; None where a query has no positive and is left out.
    """

    setup: str
    measure: str
    values: tuple[float | None, ...]

    @property
    def counted(self) -> list[float]:
        """The values of the queries that are not left out."""
        return [value for value in self.values if value is not None]

    @property
    def left_out(self) -> int:
        """How many queries have no positive."""
        return len(self.values) - len(self.counted)

    @cached_property
    def interval(self) -> Interval | None:
        """The mean over the counted queries with its bootstrap interval; None where none is counted."""
        return mean_with_interval(self.counted) if self.counted else None


def score(
    rankings: Int[np.ndarray, "q k"] | Sequence[Sequence[int]], ground_truth: GroundTruth, *, distractors: int = 0
) -> tuple[Score, ...]:
    """What rankings are worth, in every setup and measure of a benchmark.

    Args:
        rankings: database positions for each query, best first, from 0 on. Lists may end early, and be of different
            lengths; positives that are missing count as never found.
        ground_truth: the benchmark.
        distractors: pictures ranked beyond those of the benchmark, at positions from ``len(ground_truth.images)`` on:
            wrong for every query.

    Returns:
        One score for each setup and measure, in the benchmark's order.

    Raises:
        InputError: another number of rankings than of queries, no whole numbers, a position outside the database, or
            one ranked twice.
    """
    if len(rankings) != len(ground_truth.queries):
        raise InputError(
            f"{ground_truth.name} has {len(ground_truth.queries)} queries, but there are {len(rankings)} rankings: "
            "give one for each query"
        )
    size = len(ground_truth.images) + distractors
    ranks = []
    for number, (ranking, labelled) in enumerate(zip(rankings, ground_truth.labelled(), strict=True)):
        rank_of = _inverse(np.asarray(ranking), size, f"ranking {number}")
        ranks.append({picture: int(rank_of[picture]) for picture in labelled if rank_of[picture] >= 0})
    return _scores(ground_truth, ranks)


def score_rows(
    database: Float[np.ndarray, "n d"],
    queries: Float[np.ndarray, "q d"],
    ground_truth: GroundTruth,
    *,
    lengths: str = "unit",
) -> tuple[Score, ...]:
    """What rows are worth when the database is ranked by falling inner product with each query, exactly.

    Equal products keep the order of the database. They are summed in float64 in an order that depends on the two rows
    alone, so equal rows are equal wherever they stand, and no block size changes a result. Nothing is sorted: a score
    needs only how many rows come before each labelled picture.

    Args:
        database: the rows of the benchmark's pictures in its order, then those of distractors, which are wrong for
            every query. May be a memory map: it is read in blocks, once for each 256 queries.
        queries: the rows of its queries, in its order.
        ground_truth: the benchmark.
        lengths: one of :data:`LENGTHS`; with "normalise" the inner product is the cosine.

    Returns:
        As :func:`score`.

    Raises:
        InputError: rows of other numbers or shapes, not finite, or of lengths that ``lengths`` does not allow.

    Cost: 2qnd operations; some 200 MB beside what was given.
    """
    if lengths not in LENGTHS:
        raise InputError(f"lengths are one of {', '.join(LENGTHS)}, got {lengths!r}")
    if database.ndim != 2 or queries.ndim != 2 or database.shape[1] != queries.shape[1]:
        raise InputError(
            f"rows are arrays (n, d) and (q, d), got {database.shape} for the database and {queries.shape} for the "
            "queries"
        )
    if len(queries) != len(ground_truth.queries) or len(database) < len(ground_truth.images):
        raise InputError(
            f"{ground_truth.name} has {len(ground_truth.images)} pictures and {len(ground_truth.queries)} queries, "
            f"got {len(database)} and {len(queries)} rows"
        )
    ranks: list[dict[int, int]] = []
    labelled = ground_truth.labelled()
    for start in range(0, len(queries), _QUERIES_AT_ONCE):
        some = slice(start, start + _QUERIES_AT_ONCE)
        asked = _prepared(queries, np.arange(len(queries))[some], "query", lengths)
        ranks += _ranks(database, asked, labelled[some], lengths)
    return _scores(ground_truth, ranks)


def _scores(ground_truth: GroundTruth, ranks: Sequence[Mapping[int, int]]) -> tuple[Score, ...]:
    scores = []
    for setup in ground_truth.setups:
        truths = ground_truth.truths(setup)
        found = [
            None if truth is None else _places(rank_of, truth) for rank_of, truth in zip(ranks, truths, strict=True)
        ]
        for name in ground_truth.measures:
            measure = measure_named(name)
            values = (
                None if truth is None or places is None else measure(places, len(truth.positives))
                for truth, places in zip(truths, found, strict=True)
            )
            scores.append(Score(setup, name, tuple(values)))
    return tuple(scores)


def _places(rank_of: Mapping[int, int], truth: Truth) -> Int[np.ndarray, " f"]:
    positives, junk = ([rank_of[one] for one in some if one in rank_of] for some in (truth.positives, truth.junk))
    return places_without_junk(np.array(positives, np.int64), np.array(junk, np.int64))


def _inverse(ranking: np.ndarray, size: int, what: str) -> Int[np.ndarray, " n"]:
    if ranking.ndim != 1 or (ranking.size and not np.issubdtype(ranking.dtype, np.integer)):
        raise InputError(f"{what} is a list of whole numbers, got {ranking.dtype} of shape {ranking.shape}")
    rank_of = np.full(size, -1, np.int64)
    if not ranking.size:
        return rank_of
    ranking = ranking.astype(np.int64, copy=False)
    least, most = int(ranking.min()), int(ranking.max())
    if least < 0 or most >= size:
        from_one = ": it seems to count from 1, subtract 1" if (least, most) == (1, size) else ""
        raise InputError(
            f"{what} names position {least if least < 0 else most}, outside the {size} pictures, which count from "
            f"0{from_one}"
        )
    rank_of[ranking] = np.arange(len(ranking))
    if int((rank_of >= 0).sum()) != len(ranking):
        twice = int(np.argmax(np.bincount(ranking)))
        raise InputError(f"{what} names position {twice} more than once")
    return rank_of


class _Asked(NamedTuple):
    """A query with its labelled pictures, by rising similarity."""

    query: Float[np.ndarray, " d"]
    pictures: Int[np.ndarray, " m"]
    levels: Float[np.ndarray, " m"]


def _ranks(
    database: Float[np.ndarray, "n d"],
    queries: Float[np.ndarray, "q d"],
    labelled: Sequence[Sequence[int]],
    lengths: str,
) -> list[dict[int, int]]:
    """Rank of each labelled picture of each query: how many rows are more similar, or as similar and stand before it.

    A row whose product lies within the rounding of a labelled one's has it summed anew; the bound is that of an inner
    product in any order of summation, |error| ≤ γ |a||b| with γ about d·ε/2 (Higham 2002, section 3.1).
    """
    dim, asked = queries.shape[1], []
    for query, some in zip(queries, labelled, strict=True):
        pictures = np.array(some, np.int64)
        levels = _of_pictures(database, pictures, query, lengths)
        order = np.argsort(levels, kind="stable")
        asked.append(_Asked(query, pictures[order], levels[order]))
    ranks = [np.zeros(len(one.pictures), np.int64) for one in asked]
    reach = 2 * (dim + 2) * _EPSILON * _norms(queries)
    step = max(1, _NUMBERS_AT_ONCE // max(dim, len(asked)))
    for start in range(0, len(database), step):
        numbers = np.arange(start, min(start + step, len(database)))
        rows = _prepared(database, numbers, "database row", lengths)
        longest, products = float(_norms(rows).max()), queries @ rows.T
        for at, one in enumerate(asked):
            ranks[at] += _before(products[at], rows, numbers, one, reach[at] * longest)
    return [
        dict(zip(one.pictures.tolist(), some.tolist(), strict=True)) for one, some in zip(asked, ranks, strict=True)
    ]


def _before(
    products: Float[np.ndarray, " n"],
    rows: Float[np.ndarray, "n d"],
    numbers: Int[np.ndarray, " n"],
    asked: _Asked,
    reach: float,
) -> Int[np.ndarray, " m"]:
    """How many of these rows, of which the numbers are given, come before each labelled picture."""
    fenced = np.concatenate([[-np.inf], asked.levels, [np.inf]])
    bucket = np.searchsorted(asked.levels, products)
    near = np.flatnonzero((products - fenced[bucket] <= reach) | (fenced[bucket + 1] - products <= reach))
    exact = _products(rows[near], asked.query)
    bucket[near] = np.searchsorted(asked.levels, exact)
    level_but_first = (exact[:, None] == asked.levels) & (numbers[near][:, None] < asked.pictures)
    before: np.ndarray = np.bincount(bucket, minlength=len(asked.levels) + 1)[::-1].cumsum()[::-1][1:]
    before += level_but_first.sum(0)
    return before


def _of_pictures(
    database: Float[np.ndarray, "n d"], pictures: Int[np.ndarray, " m"], query: Float[np.ndarray, " d"], lengths: str
) -> Float[np.ndarray, " m"]:
    step = max(1, _NUMBERS_AT_ONCE // len(query))
    parts = [pictures[start : start + step] for start in range(0, len(pictures), step)]
    exact = [_products(_prepared(database, part, "database row", lengths), query) for part in parts]
    return np.concatenate([*exact, np.empty(0)])


def _products(rows: Float[np.ndarray, "n d"], query: Float[np.ndarray, " d"]) -> Float[np.ndarray, " n"]:
    """Inner products, each summed in an order that depends on nothing but d."""
    sums: np.ndarray = (rows * query).sum(1)
    return sums


def _norms(rows: Float[np.ndarray, "n d"]) -> Float[np.ndarray, " n"]:
    lengths: np.ndarray = np.sqrt((rows * rows).sum(1))
    return lengths


def _prepared(rows: np.ndarray, numbers: Int[np.ndarray, " n"], what: str, lengths: str) -> Float[np.ndarray, "n d"]:
    """Some of the rows in float64, checked, brought to length 1 where that is asked for."""
    whole = slice(int(numbers[0]), int(numbers[-1]) + 1) if len(numbers) else slice(0)
    taken = rows[whole] if whole.stop - whole.start == len(numbers) else rows[numbers]
    if not (np.issubdtype(rows.dtype, np.floating) or np.issubdtype(rows.dtype, np.integer)):
        raise InputError(f"rows are real numbers, got {rows.dtype}")
    block: np.ndarray = np.ascontiguousarray(taken, np.float64)
    with np.errstate(over="ignore"):
        norms = _norms(block)
    if not np.isfinite(norms).all():
        raise InputError(f"{what} {numbers[np.argmin(np.isfinite(norms))]} holds numbers that are not finite")
    if lengths == "normalise":
        brought: np.ndarray = block / np.where(norms == 0, 1, norms)[:, None]  # a new one: block may be the caller's
        return brought
    wrong = (np.abs(norms - 1) > _UNIT_WITHIN) & (norms != 0)
    if lengths == "unit" and wrong.any():
        first = int(np.argmax(wrong))
        raise InputError(
            f"{what} {numbers[first]} has length {norms[first]:.4g}, not 1: have rows normalised, which ranks by the "
            "cosine (lengths: normalise), or say that their inner products are meant (lengths: as-given)"
        )
    return block
