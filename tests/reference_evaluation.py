"""Oracles for evaluation: every measure again, by walking a list, straight from its definition.

Rankings are Python lists of positions, best first. Nothing here imports coocnet.
"""

from __future__ import annotations


def without(ranking: list[int], junk: set[int]) -> list[int]:
    return [picture for picture in ranking if picture not in junk]


def average_precision(ranking: list[int], positives: set[int], junk: set[int]) -> float:
    """Philbin et al. 2007: walk the list, add a trapezoid between two precisions at every right one."""
    area, recall, precision, right = 0.0, 0.0, 1.0, 0
    for seen, picture in enumerate(without(ranking, junk), start=1):
        right += picture in positives
        new_recall, new_precision = right / len(positives), right / seen
        area += (new_recall - recall) * (precision + new_precision) / 2
        recall, precision = new_recall, new_precision
    return area


def precision_at(ranking: list[int], positives: set[int], junk: set[int], k: int) -> float:
    """Radenović et al. 2018: the first k, or the list up to its last positive where that is shorter."""
    kept, reach = without(ranking, junk), k
    if all(picture in kept for picture in positives):
        last = max(kept.index(picture) + 1 for picture in positives)
        reach = min(last, k)
    return sum(picture in positives for picture in kept[:reach]) / reach


def right_among_four(ranking: list[int], positives: set[int], junk: set[int]) -> float:
    """Nistér and Stewénius 2006."""
    return float(sum(picture in positives for picture in without(ranking, junk)[:4]))


def holidays_average_precision(ranking: list[int], query: int, positives: set[int]) -> float:
    """Jégou et al. 2008: ranks of the right ones, one less where the query itself comes before; then trapezoids."""
    own = ranking.index(query)
    ranks = sorted(
        place - (place > own)
        for picture in positives
        if (place := ranking.index(picture) if picture in ranking else -1) >= 0
    )
    total = 0.0
    for before, place in enumerate(ranks):
        old = 1.0 if place == 0 else before / place
        total += (old + (before + 1) / (place + 1)) / 2
    return total / len(positives)


def ranked(database: list[list[float]], query: list[float]) -> list[int]:
    """By falling inner product, equal ones in order."""
    products = [sum(a * b for a, b in zip(row, query, strict=True)) for row in database]
    return sorted(range(len(database)), key=lambda at: (-products[at], at))
