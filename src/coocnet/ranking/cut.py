"""The similarity from which on a picture counts as found, learned from a collection alone."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float

from coocnet.errors import InputError
from coocnet.ranking.checks import need_between, need_count, unit_or_zero

LEAST_PICTURES = 50
"""Below this many different pictures a collection says too little about what is a chance likeness."""

RATE = 0.05
"""Of false matches, nominally."""
PICTURES = 1000
"""So many play the query."""
_LONGEST_LIST = 1024
_STRIKING = 2.0  # chosen on the development sets of benchmarks/thresholds.py, as is the root of k below
_NUMBERS_AT_ONCE = 1 << 24


def similarity_cut(
    rows: Float[np.ndarray, "n d"], *, rate: float = RATE, pictures: int = PICTURES, seed: int = 0
) -> float:
    """The similarity that a thing which is not in the collection exceeds with a probability of about ``rate``.

    Each picture plays the query: what is its best chance likeness, the most similar picture that does not show the
    same thing? Its similarities to the others, s_1 ≥ s_2 ≥ …, fall evenly where all are chance: under an exponential
    tail the spacings k (s_k − s_{k+1}) all have one mean β (Rényi 1953). Pictures of the same thing stand above that
    tail by a gap. So the list is parted where √k (s_k − s_{k+1}) is largest; if k times that gap is striking, more
    than 2β, the chance likeness is s_{k+1}, else s_1. The cut is the (1 − rate) quantile over the pictures. Ours.

    The rate is nominal: what was measured is in docs/real-photographs.md. A collection of few things with very many
    pictures each, whose gaps run through the pictures of one thing, gets too high a cut.

    Args:
        rows: the collection, whitened if its searches are; a picture's copies left out.
        rate: of false matches, between 0 and 1.
        pictures: how many play the query, drawn with ``seed`` where there are more.
        seed: of that draw.

    Returns:
        A cosine similarity.

    Raises:
        InputError: rows that are not of length 1 or 0, fewer than 50 that are not blank, or a rate that is none.

    Cost: ``pictures`` searches; memory of a few rows of n similarities.
    """
    rows = unit_or_zero("rows", rows)
    need_between("rate", rate, 1e-6, 0.999999)
    need_count("pictures", pictures)
    described = rows.any(1)
    rows = rows if described.all() else rows[described]
    list_length(len(rows))  # refuses too few
    drawn = np.random.default_rng(seed).permutation(len(rows))[:pictures]
    step = max(1, _NUMBERS_AT_ONCE // len(rows))
    chance = [chance_likeness(_best(rows, drawn[start : start + step])) for start in range(0, len(drawn), step)]
    return float(np.quantile(np.concatenate(chance), 1 - rate))


def list_length(pictures: int) -> int:
    """How many of the best similarities of a picture to the others are looked at, in a collection of so many.

    Raises:
        InputError: fewer than 50.
    """
    if pictures < LEAST_PICTURES:
        raise InputError(
            f"to learn a threshold a collection needs {LEAST_PICTURES} different pictures, this one has "
            f"{pictures}: give the threshold as a number"
        )
    return min((pictures - 1) // 2, _LONGEST_LIST)


def _best(rows: Float[np.ndarray, "n d"], drawn: np.ndarray) -> Float[np.ndarray, "b k"]:
    similarities = rows[drawn] @ rows.T
    similarities[np.arange(len(drawn)), drawn] = -np.inf
    length = list_length(len(rows))
    return -np.sort(-np.partition(similarities, -length, axis=1)[:, -length:], axis=1)


def chance_likeness(best: Float[np.ndarray, "b k"]) -> Float[np.ndarray, " b"]:
    """The best chance likeness of each picture, as :func:`similarity_cut` has it.

    Args:
        best: its best similarities to the other pictures, falling, :func:`list_length` of them.
    """
    k = np.arange(1, best.shape[1])
    gaps = best[:, :-1] - best[:, 1:]
    beta = np.median(k * gaps, axis=1) / math.log(2)
    place, each = (np.sqrt(k) * gaps).argmax(1), np.arange(len(best))
    striking = k[place] * gaps[each, place] > _STRIKING * beta
    likeness: np.ndarray = best[each, np.where(striking, place + 1, 0)]
    return likeness
