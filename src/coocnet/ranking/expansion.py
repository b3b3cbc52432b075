"""Query expansion and database augmentation: a row becomes the unit weighted mean of itself and others.

These are its nearest, or those of which the user says that they are right.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from coocnet.errors import InputError
from coocnet.ranking.checks import need_between, need_count, need_whitened, unit_or_zero
from coocnet.ranking.nearest import Ranked, graph_of, nearest, nearest_others
from coocnet.whitening import unit_rows

_NUMBERS_AT_ONCE = 1 << 24


def average_expansion(
    rows: Float[np.ndarray, "n d"],
    queries: Float[np.ndarray, "q d"],
    *,
    n: int,
    alpha: float = 0.0,  # noqa: ARG001 - so that every expansion is called alike
    whitened: bool | None = None,  # noqa: ARG001
) -> Float[np.ndarray, "q d"]:
    """Average query expansion (AQE): q' = q + Σ_{i ≤ n} x_i, then unit length, over the n nearest rows x_i.

    Source: Chum et al. 2007, "Total Recall"; on global descriptors as in Kalantidis et al. 2016 (CroW). It gains
    where a query has n relevant pictures or more, and loses much where it has few: every one of the n counts
    alike. Where the query is itself in the database it counts twice.

    Args:
        rows: the database.
        queries: the query rows.
        n: how many are averaged in; all rows where there are fewer. CroW's published code takes 10; Forcén et al.
            2020 give none. Never to be chosen on a test set.
        alpha: makes no difference here, where all weights are 1.
        whitened: nor does this.

    Returns:
        Unit rows; a blank query stays zero.

    Raises:
        InputError: rows that are not of length 1 or 0, or n below 1.
    """
    need_count("n", n)
    rows = unit_or_zero("rows", rows)
    queries = unit_or_zero("queries", queries, dim=rows.shape[1])
    found = nearest(rows, queries, n)
    return _mean(rows, queries, found.positions, np.ones_like(found.scores))


def alpha_expansion(
    rows: Float[np.ndarray, "n d"],
    queries: Float[np.ndarray, "q d"],
    *,
    n: int,
    alpha: float,
    whitened: bool | None = None,
) -> Float[np.ndarray, "q d"]:
    """Weighted query expansion (α-QE): q' = q + Σ_{i ≤ n} max(s_i, 0)^α x_i, then unit length; s_i = q · x_i.

    Source: Radenović et al. 2018, "Fine-tuning CNN Image Retrieval with No Human Annotation". With
    α = 0 it is :func:`average_expansion`, but for rows that point away from the query, which it leaves out.

    On rows that were never whitened or centred every similarity is near 1 and so is every weight: all n are
    averaged in, relevant or not, and the ranking gets worse. Such rows are refused. Unless the caller knows, as an
    index does, they are told by the mean similarity of two different rows of the database
    (:func:`~coocnet.ranking.mean_similarity`), which may be 0.4 at most. Measured on collections of photographs,
    three poolings of a MobileNetV2: 0.50 to 0.84 as they come, 0.09 to 0.21 whitened on unrelated pictures. That is a
    guess: bilinear rows as they come have 0.22 to 0.28 and pass, and databases of fewer than 5 described pictures are
    not judged, since theirs says nothing.

    Args:
        rows: the database, whitened.
        queries: the query rows, whitened.
        n: how many are weighted in; all rows where there are fewer. The source takes 50, others 10, and Forcén et al.
            2020 give none. Never to be chosen on a test set.
        alpha: exponent α of the weights, 0 or more. The source takes 3; Forcén et al. 2020 give none. Never to be
            chosen on a test set.
        whitened: whether the rows are whitened or centred, where the caller knows it; told from the rows if not
            given, see above. Whitened pictures of one single building can be as alike as 0.7.

    Returns:
        Unit rows; a blank query stays zero.

    Raises:
        InputError: rows that were never whitened, rows that are not of length 1 or 0, n below 1, or a negative α.
    """
    need_count("n", n)
    need_between("alpha", alpha, 0)
    rows = unit_or_zero("rows", rows)
    queries = unit_or_zero("queries", queries, dim=rows.shape[1])
    need_whitened(rows, alpha, whitened)
    found = nearest(rows, queries, n)
    return _mean(rows, queries, found.positions, _weights(found.scores, alpha))


def relevance_feedback(
    queries: Float[np.ndarray, "q d"], relevant: Sequence[Float[np.ndarray, "_ d"]]
) -> Float[np.ndarray, "q d"]:
    """Relevance feedback: q' = q + Σ_{i ∈ R} x_i, then unit length, over the rows R that the user says are right.

    Source: Rocchio 1971, "Relevance Feedback in Information Retrieval", the positive part alone; with all weights 1,
    as Chum et al. 2007, "Total Recall", average a query with its results that were verified.

    Args:
        queries: the query rows, whitened if the database is.
        relevant: for each query the rows of its relevant pictures, (m, d), none or more.

    Returns:
        Unit rows; a query without relevant pictures is as it was, a blank one with some is their mean.

    Raises:
        InputError: rows that are not of length 1 or 0, or not one array for each query.
    """
    queries = unit_or_zero("queries", queries)
    if len(relevant) != len(queries):
        raise InputError(f"relevant rows are one array for each of {len(queries)} queries, got {len(relevant)}")
    out = queries.copy()
    for at, rows in enumerate(relevant):
        liked = unit_or_zero("relevant rows", rows, dim=queries.shape[1])
        if len(liked):
            out[at] = unit_rows(queries[at, None] + liked.sum(0, keepdims=True))[0]
    return out


def augment_database(
    rows: Float[np.ndarray, "n d"],
    *,
    n: int,
    alpha: float,
    whitened: bool | None = None,
    graph: Ranked | None = None,
) -> Float[np.ndarray, "n d"]:
    """Database augmentation (DBA): x' = x + Σ_{i ≤ n} max(s_i, 0)^α x_i, then unit length, over the nearest others.

    Sources: Turcot and Lowe 2009 (the idea); Arandjelović and Zisserman 2012, "Three things everyone should know
    to improve object retrieval"; weights by similarity as in :func:`alpha_expansion`. All means are of the rows as
    they were. Queries are searched in the new rows as they are.

    Args:
        rows: the database, whitened; it is not changed.
        n: how many others are weighted in; all of them where there are fewer. Forcén et al. 2020 use no augmentation.
            Never to be chosen on a test set.
        alpha: exponent α of the weights, 0 or more; see :func:`alpha_expansion`.
        whitened: see :func:`alpha_expansion`.
        graph: ``neighbours(rows, k=n + 1)`` or longer lists, where they are known already.

    Returns:
        A new array of unit rows; a blank row stays zero.

    Raises:
        InputError: rows that were never whitened, rows that are not of length 1 or 0, a graph of other rows, n below
            1, or a negative α.
    """
    need_count("n", n)
    need_between("alpha", alpha, 0)
    rows = unit_or_zero("rows", rows)
    need_whitened(rows, alpha, whitened)
    near = nearest_others(graph_of(rows, graph, n + 1), n)
    return _mean(rows, rows, near.positions, _weights(near.scores, alpha))


def _weights(similarities: Float[np.ndarray, "q k"], alpha: float) -> Float[np.ndarray, "q k"]:
    weights: np.ndarray = np.where(similarities > 0, similarities, 0) ** np.float32(alpha)
    return np.where(similarities > 0, weights, 0)


def _mean(
    rows: Float[np.ndarray, "n d"],
    own: Float[np.ndarray, "q d"],
    positions: Int[np.ndarray, "q k"],
    weights: Float[np.ndarray, "q k"],
) -> Float[np.ndarray, "q d"]:
    out = np.empty(own.shape, np.float32)
    step = max(1, _NUMBERS_AT_ONCE // max(1, positions.shape[1] * own.shape[1]))
    for start in range(0, len(own), step):
        some = slice(start, start + step)
        added = (weights[some, None, :] @ rows[positions[some]])[:, 0]
        out[some] = unit_rows((own[some] + added) * own[some].any(1, keepdims=True))
    return out
