"""Oracles for ranking: every step again, slow and obvious, straight from the papers' equations.

Rows are float64, lists of positions are Python lists. Nothing here imports coocnet.
"""

from __future__ import annotations

import math

import numpy as np


def unit(row: np.ndarray) -> np.ndarray:
    length = math.sqrt(sum(float(x) ** 2 for x in row))
    return row / length if length else row


def nearest(rows: np.ndarray, query: np.ndarray, k: int) -> list[int]:
    """By falling similarity, equal ones by position."""
    return sorted(range(len(rows)), key=lambda i: (-float(rows[i] @ query), i))[:k]


def nearest_others(rows: np.ndarray, at: int, k: int) -> list[int]:
    return [i for i in nearest(rows, rows[at], len(rows)) if i != at][:k]


# ------------------------------------------------------------------------------------------- expansion


def power(similarity: float, alpha: float) -> float:
    """max(s, 0)^α, and 0 for α = 0 where s ≤ 0."""
    return similarity**alpha if similarity > 0 else 0.0


def average_expansion(rows: np.ndarray, query: np.ndarray, n: int) -> np.ndarray:
    """Chum et al. 2007: the mean of the query and its n nearest; a blank query has none."""
    if not query.any():
        return query
    total = query.copy()
    for i in nearest(rows, query, n):
        total = total + rows[i]
    return unit(total / (n + 1))


def alpha_expansion(rows: np.ndarray, query: np.ndarray, n: int, alpha: float) -> np.ndarray:
    """Radenović et al. 2018: the same with weights s^α, s clipped at 0."""
    total = query.copy()
    for i in nearest(rows, query, n):
        total = total + power(float(rows[i] @ query), alpha) * rows[i]
    return unit(total)


def relevance_feedback(query: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    """Rocchio 1971, the positive part with all weights 1."""
    total = query.copy()
    for row in relevant:
        total = total + row
    return unit(total / (len(relevant) + 1))


def augmented(rows: np.ndarray, at: int, n: int, alpha: float) -> np.ndarray:
    """One row of the augmented database."""
    total = rows[at].copy()
    for i in nearest_others(rows, at, n):
        total = total + power(float(rows[i] @ rows[at]), alpha) * rows[i]
    return unit(total)


# ------------------------------------------------------------------------------------------ reciprocal


def reciprocal_scores(
    rows: np.ndarray, query: np.ndarray, *, k1: int, k2: int, lam: float, shortlist: list[int]
) -> dict[int, float]:
    """Zhong et al. 2017, section 3, on the database with the query added as its last picture."""
    every = np.concatenate([rows, query[None]])
    probe = len(rows)
    near = {x: [x, *nearest_others(every, x, k1)] for x in range(len(every))}

    def distance(x: int, y: int) -> float:
        return 1 - float(every[x] @ every[y])

    def mutual(x: int, k: int) -> set[int]:
        return {y for y in near[x][: k + 1] if x in near[y][: k + 1]}

    def enlarged(x: int) -> set[int]:
        found = mutual(x, k1)
        result = set(found)
        for y in found:
            half = mutual(y, k1 // 2)
            if 3 * len(found & half) >= 2 * len(half):
                result |= half
        return result

    def encoding(x: int) -> np.ndarray:
        v = np.zeros(len(every))
        for y in enlarged(x):
            v[y] = math.exp(-distance(x, y))
        return v

    def expanded(x: int) -> np.ndarray:
        return np.mean([encoding(y) for y in near[x][:k2]], axis=0)

    scores = {}
    v = expanded(probe)
    for x in shortlist:
        w = expanded(x)
        jaccard = 1 - sum(min(a, b) for a, b in zip(v, w, strict=True)) / sum(
            max(a, b) for a, b in zip(v, w, strict=True)
        )
        scores[x] = 1 - ((1 - lam) * jaccard + lam * distance(probe, x))
    return scores


# ------------------------------------------------------------------------------------------- diffusion


def diffusion_system(rows: np.ndarray, *, k: int, gamma: float, alpha: float) -> np.ndarray:
    """Iscen et al. 2017: I − α D^(−1/2) W D^(−1/2), W from mutual neighbours, dense."""
    n = len(rows)
    near = [nearest_others(rows, i, k) for i in range(n)]
    w = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            if j in near[i] and i in near[j]:
                w[i, j] = power(float(rows[i] @ rows[j]), gamma)
    system = np.eye(n)
    for i in range(n):
        for j in range(n):
            if w[i, j]:
                system[i, j] -= alpha * w[i, j] / math.sqrt(w[i].sum() * w[j].sum())
    return system


def start(rows: np.ndarray, query: np.ndarray, *, k_query: int, gamma: float) -> np.ndarray:
    """The vector y: the query's nearest rows with weights s^γ."""
    y = np.zeros(len(rows))
    for i in nearest(rows, query, k_query):
        y[i] = power(float(rows[i] @ query), gamma)
    return y


def diffusion_scores(rows: np.ndarray, query: np.ndarray, *, k: int, k_query: int, gamma: float, alpha: float):
    """Iscen et al. 2017: the whole system, solved for one query."""
    system = diffusion_system(rows, k=k, gamma=gamma, alpha=alpha)
    return np.linalg.solve(system, start(rows, query, k_query=k_query, gamma=gamma))


def truncated_scores(
    rows: np.ndarray, query: np.ndarray, *, k: int, k_query: int, gamma: float, alpha: float, truncation: int
) -> np.ndarray:
    """Yang et al. 2019: each row's system on its nearest rows alone, solved offline, added up online."""
    system = diffusion_system(rows, k=k, gamma=gamma, alpha=alpha)
    y = start(rows, query, k_query=k_query, gamma=gamma)
    scores = np.zeros(len(rows))
    for i in range(len(rows)):
        own = [i, *nearest_others(rows, i, truncation - 1)]
        solution = np.linalg.solve(system[np.ix_(own, own)], np.eye(len(own))[0])
        for j, value in zip(own, solution, strict=True):
            scores[j] += y[i] * value
    return scores


# ----------------------------------------------------------------------------------------------- cut


def chance_likeness(rows: np.ndarray, at: int) -> float:
    """The most similar row of another thing: below the widest gap √k (s_k − s_{k+1}), where that gap is striking."""
    similarities = sorted((float(rows[at] @ rows[i]) for i in range(len(rows)) if i != at), reverse=True)
    similarities = similarities[: (len(rows) - 1) // 2]
    gaps = {k: similarities[k - 1] - similarities[k] for k in range(1, len(similarities))}
    beta = float(np.median([k * gap for k, gap in gaps.items()])) / math.log(2)
    widest = max(gaps, key=lambda k: (math.sqrt(k) * gaps[k], -k))
    return similarities[widest] if widest * gaps[widest] > 2 * beta else similarities[0]
