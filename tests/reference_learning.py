"""Losses and mining as plain loops, straight from their definitions."""

from __future__ import annotations

import math

import numpy as np


def contrastive(rows, queries, positive, negative, margin: float) -> float:
    """Eq. 14 of Forcén et al. 2020, summed over the pairs."""
    total = 0.0
    for at, query in enumerate(queries):
        for other in range(len(rows)):
            d = math.sqrt(sum((x - y) ** 2 for x, y in zip(rows[query], rows[other], strict=True)))
            if positive[at][other]:
                total += d**2
            if negative[at][other]:
                total += max(0.0, margin - d) ** 2
    return total


def triplet(rows, queries, positive, negative, margin: float) -> float:
    """Schroff et al. 2015, eq. 2, over every triplet there is."""
    total = 0.0
    for at, query in enumerate(queries):
        for right in range(len(rows)):
            for wrong in range(len(rows)):
                if positive[at][right] and negative[at][wrong]:
                    near = sum((x - y) ** 2 for x, y in zip(rows[query], rows[right], strict=True))
                    far = sum((x - y) ** 2 for x, y in zip(rows[query], rows[wrong], strict=True))
                    total += max(0.0, near - far + margin)
    return total


def smooth_average_precision(rows, queries, positive, negative, temperature: float) -> float:
    """One less the mean over the queries of eq. 6 of Brown et al. 2020."""
    precisions = []
    for at, query in enumerate(queries):
        right = [other for other in range(len(rows)) if positive[at][other]]
        wrong = [other for other in range(len(rows)) if negative[at][other]]
        s = [float(np.dot(rows[query], row)) for row in rows]
        precision = 0.0
        for j in right:
            before_right = sum(1 / (1 + math.exp(-(s[i] - s[j]) / temperature)) for i in right if i != j)
            before_wrong = sum(1 / (1 + math.exp(-(s[i] - s[j]) / temperature)) for i in wrong)
            precision += (1 + before_right) / (1 + before_right + before_wrong)
        if right:
            precisions.append(precision / len(right))
    return 1 - sum(precisions) / len(precisions) if precisions else 0.0


def softmax(rows, queries, positive, negative, temperature: float) -> float:
    """Mean over the queries of the mean over their right rows of −log softmax, each right row alone (InfoNCE)."""
    means = []
    for at, query in enumerate(queries):
        s = [float(np.dot(rows[query], row)) / temperature for row in rows]
        wrong = sum(math.exp(s[i]) for i in range(len(rows)) if negative[at][i])
        costs = [-math.log(math.exp(s[j]) / (math.exp(s[j]) + wrong)) for j in range(len(rows)) if positive[at][j]]
        if costs:
            means.append(sum(costs) / len(costs))
    return sum(means) / len(means) if means else 0.0


def hard_negatives(rows, clusters, queries, matches, pool, count: int) -> list[list[int]]:
    """Section 4 of Radenović et al. 2018: the nearest of other clusters, at most one of each."""
    tuples = []
    for query, right in zip(queries, matches, strict=True):
        nearest = sorted(pool, key=lambda at: -float(np.dot(rows[at], rows[query])))
        seen = {clusters[query]}
        chosen = []
        for at in nearest:
            if clusters[at] not in seen and len(chosen) < count:
                chosen.append(at)
                seen.add(clusters[at])
        tuples.append([query, *right, *chosen, *[-1] * (count - len(chosen))])
    return tuples
