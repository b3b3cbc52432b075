"""Losses on unit rows of a batch of pictures: contrastive, triplet, softmax, and average precision itself.

All take rows, and for some queries among them which rows are right and which are wrong; a row may be neither, which
leaves it out. So tuples of a query, its match and its own hard negatives, and whole batches in which everything of
another thing is wrong, are the same to them.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from coocnet.errors import InputError
from coocnet.ops.checks import need_positive, need_rows, told


def contrastive_loss(
    rows: Float[Tensor, "n dim"],
    queries: Int[Tensor, " m"],
    positive: Bool[Tensor, "m n"],
    negative: Bool[Tensor, "m n"],
    *,
    margin: float,
) -> Float[Tensor, ""]:
    """Σ d² over right pairs and Σ max(0, τ − d)² over wrong ones, d = |f − g| (Hadsell et al. 2006).

    Source: Forcén et al. 2020, eqs. 13, 14. The sum over the pairs of the batch, as in cirtorch, whose own form has
    a factor of ½ before both terms.

    Args:
        rows: f, unit length.
        queries: positions of the queries among the rows.
        positive: the rows that are right for each query.
        negative: the rows that are wrong for it.
        margin: τ > 0; wrong pairs that are farther apart than this count nothing.

    Raises:
        InputError: no rows, masks of another shape, a position outside, or a margin that is not above 0.
    """
    _need_batch(rows, queries, positive, negative)
    need_positive("margin", margin)
    distance = _distances(rows[queries], rows)
    return (distance**2)[positive].sum() + ((margin - distance[negative]).clamp(min=0) ** 2).sum()


def triplet_loss(
    rows: Float[Tensor, "n dim"],
    queries: Int[Tensor, " m"],
    positive: Bool[Tensor, "m n"],
    negative: Bool[Tensor, "m n"],
    *,
    margin: float,
) -> Float[Tensor, ""]:
    """Σ max(0, d⁺² − d⁻² + τ) over every right and wrong row of every query (Schroff et al. 2015).

    Args:
        rows: unit length.
        queries: positions of the queries among the rows.
        positive: the rows that are right for each query.
        negative: the rows that are wrong for it.
        margin: τ > 0, by which a wrong row is to be farther, in squared distance.

    Raises:
        InputError: as :func:`contrastive_loss`.
    """
    _need_batch(rows, queries, positive, negative)
    need_positive("margin", margin)
    squared = _distances(rows[queries], rows) ** 2
    excess = (squared[:, :, None] - squared[:, None, :] + margin).clamp(min=0)
    return excess[positive[:, :, None] & negative[:, None, :]].sum()


def softmax_loss(
    rows: Float[Tensor, "n dim"],
    queries: Int[Tensor, " m"],
    positive: Bool[Tensor, "m n"],
    negative: Bool[Tensor, "m n"],
    *,
    temperature: float,
) -> Float[Tensor, ""]:
    """Mean of −log( e^(s⁺/T) / (e^(s⁺/T) + Σ⁻ e^(s⁻/T)) ) over right rows and queries (van den Oord et al. 2018).

    Every right row s⁺ stands alone against all the wrong ones s⁻; the mean is taken over a query's right rows first.

    Args:
        rows: unit length.
        queries: positions of the queries among the rows.
        positive: the rows that are right for each query; a query without any counts nothing.
        negative: the rows that are wrong for it.
        temperature: T > 0, in units of similarity.

    Raises:
        InputError: as :func:`contrastive_loss`, or a temperature that is not above 0.
    """
    _need_batch(rows, queries, positive, negative)
    need_positive("temperature", temperature)
    scaled = rows[queries] @ rows.T / temperature
    lowest = torch.finfo(rows.dtype).min
    of_wrong = scaled.masked_fill(~negative, lowest).logsumexp(1, keepdim=True)
    costs = torch.logaddexp(scaled, of_wrong) - scaled
    right = positive.any(1)
    if not right.any():
        return rows.sum() * 0
    each = torch.where(positive, costs, 0)[right].sum(1) / positive[right].sum(1)
    return each.mean()


def average_precision_loss(
    rows: Float[Tensor, "n dim"],
    queries: Int[Tensor, " m"],
    positive: Bool[Tensor, "m n"],
    negative: Bool[Tensor, "m n"],
    *,
    temperature: float,
) -> Float[Tensor, ""]:
    """1 − mean average precision of the queries, with the step of each rank made smooth (Brown et al. 2020).

    With s the similarities of a query and G(x) = 1 / (1 + exp(−x / T)) for the step, the rank of the right row j is
    1 + Σ_i G(s_i − s_j) over the right and wrong rows i ≠ j, its rank among right ones alike, and AP the mean of
    their quotient. As T → 0 this is the precision averaged over the places of the right rows.

    Args:
        rows: unit length.
        queries: positions of the queries among the rows.
        positive: the rows that are right for each query; a query without any counts nothing.
        negative: the rows that are wrong for it.
        temperature: T > 0, in units of similarity.

    Raises:
        InputError: as :func:`contrastive_loss`, or a temperature that is not above 0.
    """
    _need_batch(rows, queries, positive, negative)
    need_positive("temperature", temperature)
    precisions = []
    for similarity, right, wrong in zip(rows[queries] @ rows.T, positive, negative, strict=True):
        s = similarity[right]
        if len(s) == 0:
            continue
        among_right = torch.sigmoid((s[None, :] - s[:, None]) / temperature)
        rank_right = 0.5 + among_right.sum(1)  # its own step is G(0) = ½, to count as 1
        rank = rank_right + torch.sigmoid((similarity[wrong][None, :] - s[:, None]) / temperature).sum(1)
        precisions.append((rank_right / rank).mean())
    if not precisions:
        return rows.sum() * 0
    return 1 - torch.stack(precisions).mean()


def _distances(asked: Tensor, rows: Tensor) -> Tensor:
    """Euclidean distances, without a difference for every pair in memory; the gradient at distance 0 is 0."""
    return torch.cdist(asked, rows, compute_mode="donot_use_mm_for_euclid_dist")


def _need_batch(rows: Tensor, queries: Tensor, positive: Tensor, negative: Tensor) -> None:
    need_rows(rows)
    if queries.ndim != 1 or (len(queries) and not 0 <= int(queries.min()) <= int(queries.max()) < len(rows)):
        raise InputError(f"queries are positions among the {len(rows)} rows, got {told(queries)}")
    for name, mask in (("positive", positive), ("negative", negative)):
        if mask.shape != (len(queries), len(rows)) or mask.dtype != torch.bool:
            raise InputError(
                f"{name} says of each of {len(queries)} queries and {len(rows)} rows yes or no, got {told(mask)}"
            )
