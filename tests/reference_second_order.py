"""Oracles of the second-order poolings, as plain loops straight from their equations; see reference.py.

One image at a time: a map is a float64 array (d, h, w). Nothing here imports coocnet.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

import reference

# --------------------------------------------------------------------------------------------- bilinear


def bilinear(a: np.ndarray, b: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Eq. 12: B_kw = Σ_ij ω(i, j) A_k(i, j) B_w(i, j), as a row in which w runs fastest."""
    weights = np.ones(a.shape[1:]) if weights is None else weights
    row = np.zeros(len(a) * len(b))
    for k, w in np.ndindex(len(a), len(b)):
        for p in np.ndindex(a.shape[1:]):
            row[k * len(b) + w] += weights[p] * a[k][p] * b[w][p]
    return row


def count_sketch(x: np.ndarray, places: np.ndarray, signs: np.ndarray, dim: int) -> np.ndarray:
    """Charikar et al. 2002: (C x)_j = Σ_{k: h(k) = j} s(k) x_k."""
    row = np.zeros(dim)
    for k in range(len(x)):
        row[places[k]] += signs[k] * x[k]
    return row


def tensor_sketch(a: np.ndarray, b: np.ndarray, functions: list[np.ndarray], dim: int, weights=None) -> np.ndarray:
    """Pham and Pagh 2013: y = Σ_p ω_p (C₁ a_p ⋆ C₂ b_p), ⋆ the circular convolution, written out."""
    h1, s1, h2, s2 = functions
    row = np.zeros(dim)
    for p in np.ndindex(a.shape[1:]):
        x, y = count_sketch(a[(slice(None), *p)], h1, s1, dim), count_sketch(b[(slice(None), *p)], h2, s2, dim)
        for i, j in np.ndindex(dim, dim):
            row[(i + j) % dim] += (1 if weights is None else weights[p]) * x[i] * y[j]
    return row


def signed_root(row: np.ndarray) -> np.ndarray:
    """sign(x)·√|x|."""
    return np.array([math.copysign(math.sqrt(abs(x)), x) if x else 0.0 for x in row.tolist()])


# ------------------------------------------------------------------------------------------- Shih et al.


def offsets(radius: int) -> Iterator[tuple[int, int]]:
    """All (down, right) with neither part beyond the radius, row by row from the top left."""
    for down in range(-radius, radius + 1):
        for right in range(-radius, radius + 1):
            yield down, right


def moved(a: np.ndarray, p: tuple[int, int], o: tuple[int, int]) -> float:
    """a_{p+o} of one channel, zero outside."""
    i, j = p[0] + o[0], p[1] + o[1]
    return float(a[i, j]) if 0 <= i < a.shape[0] and 0 <= j < a.shape[1] else 0.0


def correlation(a: np.ndarray, k: int, w: int, o: tuple[int, int]) -> float:
    """Σ_p a^k_p a^w_{p+o}."""
    return sum(float(a[k][p]) * moved(a[w], p, o) for p in np.ndindex(a.shape[1:]))


def shih_matrix(a: np.ndarray, radius: int) -> np.ndarray:
    """Shih et al. 2017: c(k, w) = max_o Σ_p a^k_p a^w_{p+o}, for all ordered pairs."""
    c = np.zeros((len(a), len(a)))
    for k, w in np.ndindex(c.shape):
        c[k, w] = max(correlation(a, k, w, o) for o in offsets(radius))
    return c


def shih_vector(a: np.ndarray, radius: int) -> np.ndarray:
    """The pairs k ≤ w of c, row by row."""
    c = shih_matrix(a, radius)
    return np.array([c[k, w] for k in range(len(a)) for w in range(k, len(a))])


def shih_tensor(a: np.ndarray, radius: int) -> np.ndarray:
    """Forcén et al. 2020, 6.1: C_k(p) = Σ_w a^k_p a^w_{p+o*}, o* the first of the best offsets of (k, w)."""
    result = np.zeros(a.shape)
    for k in range(len(a)):
        for w in range(len(a)):
            best = max(offsets(radius), key=lambda o: correlation(a, k, w, o))
            for p in np.ndindex(a.shape[1:]):
                result[k][p] += float(a[k][p]) * moved(a[w], p, best)
    return result


# ----------------------------------------------------------------------------------------------- context


def box(x: np.ndarray, radius: int) -> np.ndarray:
    """The sum over the window of one channel, zero outside."""
    result = np.zeros(x.shape)
    for p in np.ndindex(x.shape):
        for o in offsets(radius):
            result[p] += moved(x, p, o)
    return result


def context(a: np.ndarray, radius: int, rho: np.ndarray | None = None) -> np.ndarray:
    """T = Σ over the window and over all channels of ρ_k A_k."""
    rho = reference.activation_mask(a) if rho is None else rho
    total = np.zeros(a.shape[1:])
    for k in range(len(a)):
        total += box(rho[k] * a[k], radius)
    return total


def context_pooling(a: np.ndarray, radius: int, g: float, q: float, rho: np.ndarray | None = None) -> np.ndarray:
    """d_k = (Σ_p T_p^g A_kp^q)^(1/q), T over its maximum."""
    return power_pooling(a, context(a, radius, rho), g, q)


def power_pooling(a: np.ndarray, weights: np.ndarray, g: float, q: float) -> np.ndarray:
    """d_k = (Σ_p ω_p^g A_kp^q)^(1/q), ω over its maximum; below 0 it counts as 0."""
    t = np.maximum(weights, 0)
    if t.max() <= 0:
        return np.zeros(len(a))
    t = t / t.max()
    return np.array([sum(t[p] ** g * channel[p] ** q for p in np.ndindex(t.shape)) ** (1 / q) for channel in a])


def centred_pair(a: np.ndarray, radius: int, mean: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """(A − m, box(A − m)), m the mean over the cells where none is given."""
    centred, boxed = np.zeros(a.shape), np.zeros(a.shape)
    for k in range(len(a)):
        m = sum(a[k].ravel().tolist()) / a[k].size if mean is None else mean[k]
        centred[k] = a[k] - m
        boxed[k] = box(centred[k], radius)
    return centred, boxed
