"""What an epoch learns from: queries, each with matches and the hardest pictures of other things."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from coocnet.train.examples import Examples

NONE = -1


@dataclass(frozen=True)
class Drawn:
    """What an epoch draws before it looks at any row.

    Attributes:
        queries: positions.
        matches: for each query pictures that match it; −1 where there are fewer.
        pool: the pictures that negatives are looked for in.
    """

    queries: Int[np.ndarray, " m"]
    matches: Int[np.ndarray, "m k"]
    pool: Int[np.ndarray, " p"]


def draw(examples: Examples, *, queries: int, matches: int, pool: int, seed: int, epoch: int) -> Drawn:
    """Draws the queries of an epoch, matches for each, and the pool; the same for the same seed and epoch."""
    random = np.random.default_rng([seed, 1, epoch])
    possible = examples.queries
    chosen = random.permutation(possible)[:queries]
    found = np.full((len(chosen), matches), NONE, np.int64)
    for place, query in enumerate(chosen.tolist()):
        some = random.permutation(examples.matches(query))[:matches]
        found[place, : len(some)] = some
    return Drawn(chosen, found, np.sort(random.permutation(len(examples))[:pool]))


def hard_negatives(
    rows: Float[np.ndarray, "n dim"],
    clusters: Int[np.ndarray, " n"],
    drawn: Drawn,
    negatives: int,
) -> Int[np.ndarray, "m width"]:
    """Tuples of a query, its matches and its nearest pictures of other clusters, at most one of each cluster.

    Mined as by Radenović et al. 2018, section 4.

    Args:
        rows: unit rows of all pictures that were drawn, by position; others are not looked at.
        clusters: of all pictures.
        drawn: queries, matches and pool.
        negatives: how many for each query.

    Returns:
        Positions, (m, 1 + matches + negatives); −1 where there are too few.
    """
    asked = 1 + drawn.matches.shape[1]
    tuples = np.full((len(drawn.queries), asked + negatives), NONE, np.int64)
    tuples[:, 0], tuples[:, 1:asked] = drawn.queries, drawn.matches
    if not negatives:
        return tuples
    pool_rows, pool_clusters = rows[drawn.pool], clusters[drawn.pool]
    for place, query in enumerate(drawn.queries.tolist()):
        order = np.argsort(-(pool_rows @ rows[query]), kind="stable")
        order = order[pool_clusters[order] != clusters[query]]
        _, first = np.unique(pool_clusters[order], return_index=True)
        hardest = drawn.pool[order[np.sort(first)[:negatives]]]
        tuples[place, asked : asked + len(hardest)] = hardest
    return tuples


@dataclass(frozen=True)
class Batch:
    """What one step looks at.

    Attributes:
        pictures: positions, each once.
        queries: positions in ``pictures``.
        positive: what is right for each query.
        negative: what is wrong.
    """

    pictures: Int[np.ndarray, " n"]
    queries: Int[Tensor, " m"]
    positive: Tensor
    negative: Tensor


def batch_of(tuples: Int[np.ndarray, "m width"], examples: Examples, *, matches: int, whole: bool) -> Batch:
    """The pictures of some tuples, and which of them count for which query.

    Args:
        tuples: as of :func:`hard_negatives`.
        examples: what the pictures show.
        matches: how many of them each tuple has room for.
        whole: every picture of another cluster in the batch is wrong for a query, and every one that matches it is
            right; else only those of its own tuple.
    """
    pictures, place = np.unique(tuples, return_inverse=True)
    place = place.reshape(tuples.shape)
    if pictures[0] == NONE:
        pictures, place = pictures[1:], place - 1
    positive = np.zeros((len(tuples), len(pictures)), bool)
    negative = np.zeros_like(positive)
    for row, (numbers, places) in enumerate(zip(tuples, place, strict=True)):
        if whole:
            positive[row] = np.isin(pictures, examples.matches(numbers[0]))
            negative[row] = examples.clusters[pictures] != examples.clusters[numbers[0]]
        else:
            there = numbers != NONE
            positive[row, places[1 : 1 + matches][there[1 : 1 + matches]]] = True
            negative[row, places[1 + matches :][there[1 + matches :]]] = True
    return Batch(
        pictures, *(torch.from_numpy(np.ascontiguousarray(one)) for one in (place[:, 0], positive, negative))
    )
