"""Oracles: every operator again, slow and obvious, as plain loops straight from its equation.

One image at a time: a map is a float64 array (d, h, w), a row is (d,). Nothing here imports coocnet.
Equation numbers are those of Forcén et al. 2020 unless another source is named. At the end, the maps that
the tests try the operators on.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

# ---------------------------------------------------------------------------------------- co-occurrence


def mean_threshold(a: np.ndarray) -> Fraction:
    """Eq. 7: t, the mean of all entries of the image, in exact arithmetic."""
    return sum(map(Fraction, a[a != 0].tolist()), Fraction(0)) / a.size


def quantile_threshold(a: np.ndarray, q: float) -> float:
    """The entry whose rank, counted from 0, is q·(n − 1) rounded."""
    return sorted(a.ravel().tolist())[round(q * (a.size - 1))]


def activation_mask(a: np.ndarray, threshold: Fraction | float | None = None) -> np.ndarray:
    """Eq. 7: ρ_k(i, j) = 1 where A_k(i, j) > t, strictly, else 0; t is the mean where none is given."""
    t = mean_threshold(a) if threshold is None else threshold
    rho = np.zeros(a.shape)
    for cell in np.ndindex(a.shape):
        rho[cell] = 1 if Fraction(float(a[cell])) > t else 0
    return rho


def direct_cooccurrence(a: np.ndarray, radius: int, *, rho: np.ndarray | None = None) -> np.ndarray:
    """Eqs. 2, 3, 5-7: CT_k(i, j) = ρ_k(i, j) / (D − 1) · Σ_{|u−i|≤r, |v−j|≤r} Σ_{w≠k} ρ_w(u, v) A_w(u, v)."""
    rho = activation_mask(a) if rho is None else rho
    channels, rows, columns = a.shape
    ct = np.zeros(a.shape)
    for k in range(channels):
        for i in range(rows):
            for j in range(columns):
                total = 0.0
                for u in range(max(0, i - radius), min(rows, i + radius + 1)):
                    for v in range(max(0, j - radius), min(columns, j + radius + 1)):
                        for w in range(channels):
                            if w != k:
                                total += rho[w, u, v] * a[w, u, v]
                ct[k, i, j] = rho[k, i, j] * total / (channels - 1)
    return ct


def filtered_cooccurrence(a: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Eq. 6: CT_k(i, j) = ρ_k(i, j) / (D − 1) · Σ_{p,q} Σ_w F[k, w, r+p, r+q] X_w(i+p, j+q), X = ρ·A."""
    rho = activation_mask(a)
    channels, rows, columns = a.shape
    radius = weight.shape[-1] // 2
    ct = np.zeros(a.shape)
    for k, i, j in np.ndindex(a.shape):
        for p in range(-radius, radius + 1):
            for q in range(-radius, radius + 1):
                u, v = i + p, j + q
                if 0 <= u < rows and 0 <= v < columns:
                    for w in range(channels):
                        ct[k, i, j] += weight[k, w, radius + p, radius + q] * rho[w, u, v] * a[w, u, v]
        ct[k, i, j] *= rho[k, i, j] / (channels - 1)
    return ct


# --------------------------------------------------------------------------------------------- poolings


def unit(row: np.ndarray) -> np.ndarray:
    """row / |row|; a zero row stays zero."""
    norm = math.hypot(*row.tolist())
    return row / norm if norm > 0 else np.zeros_like(row)


def weighted_sum(a: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """f_k = Σ_ij α_ij A_k(i, j)."""
    row = np.zeros(len(a))
    for k, i, j in np.ndindex(a.shape):
        row[k] += alpha[i, j] * a[k, i, j]
    return row


def ucrow(a: np.ndarray) -> np.ndarray:
    """Kalantidis et al. 2016, no weights: f_k = Σ_ij A_k(i, j) / (H W)."""
    return weighted_sum(a, np.ones(a.shape[1:])) / (a.shape[1] * a.shape[2])


def spoc(a: np.ndarray) -> np.ndarray:
    """Babenko and Lempitsky 2015: f_k = Σ_ij w(i, j) A_k(i, j), w the centre prior."""
    return weighted_sum(a, centre_prior(*a.shape[1:]))


def mac(a: np.ndarray) -> np.ndarray:
    """Tolias et al. 2016: f_k = max_ij A_k(i, j)."""
    return np.array([max(channel.ravel().tolist()) for channel in a])


def gem(a: np.ndarray, power: float) -> np.ndarray:
    """Radenović et al. 2018: f_k = (Σ_ij max(A_k(i, j), 0)^p / (H W))^(1/p)."""
    return np.array([(sum(max(x, 0) ** power for x in c.ravel().tolist()) / c.size) ** (1 / power) for c in a])


def rmac(a: np.ndarray, levels: int = 3) -> np.ndarray:
    """Tolias et al. 2016: f = Σ over regions of max over the region, scaled to unit length."""
    row = np.zeros(len(a))
    for top, left, side in rmac_regions(*a.shape[1:], levels):
        row += unit(mac(a[:, top : top + side, left : left + side]))
    return row


def rmac_regions(height: int, width: int, levels: int) -> list[tuple[int, int, int]]:
    """The regions (top, left, side) as R-MAC's released code makes them, in exact arithmetic.

    Along the longer side, m + 1 squares of side w = min(H, W) stand b = (max(H, W) − w) / m apart; of
    m = 1..6 the first whose overlap (w² − w b) / w² is closest to 0.4 tells how many squares the longer
    side has more than the shorter. Level l has squares of side 2 w / (l + 1), rounded down, at least one cell.
    """
    short, difference = min(height, width), abs(height - width)
    distance = {
        m: abs(Fraction(short**2 - short * Fraction(difference, m), short**2) - Fraction(2, 5)) for m in range(1, 7)
    }
    more = min(distance, key=distance.get) if difference else 0
    regions = []
    for level in range(1, levels + 1):
        side = max(1, math.floor(Fraction(2 * short, level + 1)))
        tops, lefts = (
            [math.floor(Fraction(length - side, max(count - 1, 1)) * i) for i in range(count)]
            for length, count in (
                (height, level + (more if height > width else 0)),
                (width, level + (more if width > height else 0)),
            )
        )
        regions += [(top, left, side) for top in tops for left in lefts]
    return regions


def power_normalised(s: np.ndarray) -> np.ndarray:
    """Eqs. 9, 10 with a = b = 2: α_ij = (S_ij / (Σ S²)^(1/2))^(1/2); zero where nothing is."""
    norm = math.sqrt(sum(x * x for x in s.ravel().tolist()))
    return np.sqrt(s / norm) if norm > 0 else np.zeros_like(s)


def crow(a: np.ndarray) -> np.ndarray:
    """Kalantidis et al. 2016: f_k = log(Σ_l Q_l / Q_k) Σ_ij α_ij A_k(i, j), Q_k the share of cells above 0."""
    alpha = power_normalised(np.maximum(a, 0).sum(0))
    share = [sum(x > 0 for x in channel.ravel().tolist()) / channel.size for channel in a]
    beta = [math.log(sum(share) / q) if q > 0 else 0.0 for q in share]
    return np.array(beta) * weighted_sum(a, alpha)


def sct_weights(ct: np.ndarray) -> np.ndarray:
    """Eqs. 9, 10: α from S_ij = Σ_k CT_k(i, j)."""
    return power_normalised(ct.sum(0))


def chco_weights(ct: np.ndarray, epsilon: float) -> np.ndarray:
    """Eqs. 4, 11: β_k = log(Σ_l V_l / (ε Σ_l V_l + V_k)), V_k = Σ_ij CT_k(i, j); zero where nothing co-occurs."""
    v = [sum(channel.ravel().tolist()) for channel in ct]
    total = sum(v)
    return np.array([math.log(total / (epsilon * total + x)) if total > 0 else 0.0 for x in v])


def sct(a: np.ndarray, ct: np.ndarray) -> np.ndarray:
    """Eq. 8 without β: f_k = Σ_ij α_ij A_k(i, j)."""
    return weighted_sum(a, sct_weights(ct))


def chco(a: np.ndarray, ct: np.ndarray, epsilon: float) -> np.ndarray:
    """Eq. 8 without α: f_k = β_k Σ_ij A_k(i, j)."""
    return chco_weights(ct, epsilon) * weighted_sum(a, np.ones(a.shape[1:]))


def chco_sct(a: np.ndarray, ct: np.ndarray, epsilon: float) -> np.ndarray:
    """Eq. 8: f_k = β_k Σ_ij α_ij A_k(i, j)."""
    return chco_weights(ct, epsilon) * sct(a, ct)


# ----------------------------------------------------------------------------------------------- priors


def centre_prior(height: int, width: int) -> np.ndarray:
    """Section 4.3.1: exp(−((i − H/2)² + (j − W/2)²) / (2 s²)), i and j at the middle of their cells.

    s is one third of the distance from the centre to the nearest edge.
    """
    s = min(height / 2, width / 2) / 3
    prior = np.zeros((height, width))
    for i, j in np.ndindex(height, width):
        prior[i, j] = math.exp(-((i + 0.5 - height / 2) ** 2 + (j + 0.5 - width / 2) ** 2) / (2 * s**2))
    return prior


def top_down_prior(height: int, width: int, floor: float) -> np.ndarray:
    """Section 4.3.1, the formula ours: row i of H has the weight 1 + (floor − 1) i / (H − 1), a single row 1."""
    return np.array([[1 + (floor - 1) * i / max(height - 1, 1)] * width for i in range(height)])


# ------------------------------------------------------------------------------------------------- maps


def feature_maps(*, channels: int = 4, side: int = 5) -> st.SearchStrategy[np.ndarray]:
    """Maps after a ReLU, about half of them zeros, of all shapes down to 1×1.

    The values are eighths, so that float32 and float64 hold them, and their sums, exactly.
    """
    shapes = st.tuples(st.integers(2, channels), st.integers(1, side), st.integers(1, side))
    return arrays.arrays(np.float64, shapes, elements=st.integers(-20, 20).map(lambda n: max(0, n) / 8))


def relu_map(*shape: int, seed: int = 0) -> np.ndarray:
    """A map with a seed where a drawn one would be too small or too much of a corner case."""
    return np.maximum(np.random.default_rng(seed).normal(size=shape), 0)
