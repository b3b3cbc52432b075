"""Re-ranking of a short list by k-reciprocal encoding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float, Int

from coocnet.ranking.checks import need_between, need_count, unit_or_zero
from coocnet.ranking.nearest import Ranked, graph_of, nearest, nearest_others, similarities_of_pairs

_NODES_AT_ONCE = 256


@dataclass(frozen=True, eq=False)
class Reciprocal:
    """k-reciprocal encoding of a collection, ready to re-rank; made by :meth:`build`.

    With N(x, k) the row x and its k nearest others, in the database to which the query is added:

        R(x, k)  = { y ∈ N(x, k) : x ∈ N(y, k) }
        R*(x)    = R(x, k1) ∪ ⋃ { R(y, k1/2) : y ∈ R(x, k1), |R(x, k1) ∩ R(y, k1/2)| ≥ ⅔ |R(y, k1/2)| }
        V_x(y)   = exp(−d(x, y)) for y ∈ R*(x), else 0;    d(x, y) = 1 − x · y
        V'_x     = mean of V_y over the first k2 of N(x, ·), x itself counted
        J(q, x)  = Σ_y min(V'_q(y), V'_x(y)) / Σ_y max(V'_q(y), V'_x(y))
        score    = (1 − λ) J(q, x) + λ q · x

    which is 1 minus the source's distance. Source: Zhong et al. 2017, "Re-ranking Person Re-identification with
    k-reciprocal Encoding", section 3. What differs: d is half the squared Euclidean distance of unit rows, since the
    source's Mahalanobis distance needs labels; k2 counts x itself, as in the published code, which for its part
    divides each V by its sum and each distance by the largest; and a query sees the database, not other queries.

    Attributes:
        rows: the database.
        near: the k1 nearest others of each row.
        k1, k2, lam: see :meth:`build`.
    """

    rows: Float[np.ndarray, "n d"]
    near: Ranked
    k1: int
    k2: int
    lam: float
    ranks_all: ClassVar[bool] = False

    @classmethod
    def build(
        cls,
        rows: Float[np.ndarray, "n d"],
        *,
        k1: int = 20,
        k2: int = 6,
        lam: float = 0.3,
        graph: Ranked | None = None,
    ) -> Reciprocal:
        """Finds the neighbours of every row, once for a collection.

        Args:
            rows: the database, whitened.
            k1: length of the lists that must name each other; the source takes 20, for persons of whom a gallery
                holds about as many pictures.
            k2: encodings that are averaged; the source takes 6. At most k1; 1 averages none.
            lam: weight λ of the similarity, 0 to 1; the source takes 0.3. None of the three is ever to be chosen on
                a test set.
            graph: ``neighbours(rows, k=k1 + 1)`` or longer lists, where they are known already.

        Raises:
            InputError: rows that are not of length 1 or 0, a graph of other rows, or a parameter out of its range.
        """
        need_count("k1", k1)
        need_count("k2", k2, most=k1)
        need_between("lam", lam, 0, 1)
        rows = unit_or_zero("rows", rows)
        return cls(rows, nearest_others(graph_of(rows, graph, k1 + 1), k1), k1, k2, lam)

    def rank(self, queries: Float[np.ndarray, "q d"], *, k: int = 100) -> Ranked:
        """The k most similar rows of each query, in the order of their scores.

        Args:
            queries: the query rows, whitened.
            k: length of the short list; what is not on it cannot come back. All rows where there are fewer.

        Returns:
            (q, min(k, n)) positions and scores; equal scores keep the order of similarity. A blank query keeps its
            order, with scores of 0.

        Raises:
            InputError: queries that are not of length 1 or 0 or of other dimensions, or k below 1.

        Cost: grows with k · k1², not with n, but for the similarities of the query to all rows.
        """
        queries = unit_or_zero("queries", queries, dim=self.rows.shape[1])
        need_count("k", k)
        n, count = len(self.rows), min(k, len(self.rows))
        found = nearest(self.rows, queries, max(k, self.k1))
        positions, scores = found.positions[:, :count].copy(), found.scores[:, :count].copy()
        lists = np.zeros((n + 1, 1 + min(self.k1, n)), np.int32)
        lists[:, 0] = np.arange(n + 1)
        known = self.near.positions.shape[1]
        lists[:n, 1 : known + 1] = self.near.positions
        for at, query in enumerate(queries):
            if not (query.any() and n):
                continue
            similarities = np.append(np.einsum("nd,d->n", self.rows, query), np.float32(1))
            seen_by = self._insert(lists, similarities)
            lists[n, 1:] = found.positions[at, : lists.shape[1] - 1]
            overlap = self._overlap(lists, similarities, positions[at])
            lists[seen_by, 1 : known + 1] = self.near.positions[seen_by]
            score = (1 - self.lam) * overlap + self.lam * scores[at]
            order = np.argsort(-score, kind="stable")
            positions[at], scores[at] = positions[at][order], score[order]
        return Ranked(positions, scores)

    def _insert(self, lists: Int[np.ndarray, "m a"], similarities: Float[np.ndarray, " m"]) -> Int[np.ndarray, " c"]:
        """Puts the query, number n, into the lists of the rows that have it among their k1 nearest; says which."""
        n, known = self.near.positions.shape
        full = known == self.k1
        seen_by = np.flatnonzero(similarities[:n] > self.near.scores[:, -1]) if full else np.arange(n)
        positions = np.pad(self.near.positions[seen_by], ((0, 0), (0, 1)), constant_values=n)
        scores = np.concatenate([self.near.scores[seen_by], similarities[seen_by, None]], axis=1)
        order = np.argsort(-scores, axis=1, kind="stable")[:, : lists.shape[1] - 1]
        lists[seen_by, 1:] = np.take_along_axis(positions, order, 1)
        return seen_by

    def _overlap(
        self, lists: Int[np.ndarray, "m a"], similarities: Float[np.ndarray, " m"], shortlist: Int[np.ndarray, " k"]
    ) -> Float[np.ndarray, " k"]:
        """J of the query, whose list is the last, and each row of the short list."""
        members = lists[np.append(shortlist, len(lists) - 1), : self.k2]
        nodes, members = np.unique(members, return_inverse=True)
        members = members.reshape(len(shortlist) + 1, -1)
        owners, others = _encoded(lists, nodes, self.k1 // 2 + 1)
        values = np.exp(self._similarities(similarities, nodes[owners], others) - 1)
        sums = np.bincount(owners, values, len(nodes))[members].mean(1)
        of_query = np.isin(owners, members[-1])
        columns = np.unique(others[of_query])
        shared = np.isin(others, columns)
        table = np.zeros((len(nodes), len(columns)))
        table[owners[shared], np.searchsorted(columns, others[shared])] = values[shared]
        expanded = np.zeros((len(members), len(columns)))
        for nth in members.T:
            expanded += table[nth] / members.shape[1]
        common = np.minimum(expanded[-1], expanded[:-1]).sum(1)
        overlap: np.ndarray = common / (sums[-1] + sums[:-1] - common)
        return overlap

    def _similarities(
        self, similarities: Float[np.ndarray, " m"], left: Int[np.ndarray, " p"], right: Int[np.ndarray, " p"]
    ) -> Float[np.ndarray, " p"]:
        """Of pairs of rows, the last of which is the query."""
        n = len(self.rows)
        out = similarities_of_pairs(self.rows, self.rows, np.minimum(left, n - 1), np.minimum(right, n - 1))
        out = np.where(left == n, similarities[right], out)
        return np.where(right == n, similarities[left], out)


def reciprocal_rerank(
    rows: Float[np.ndarray, "n d"],
    queries: Float[np.ndarray, "q d"],
    *,
    k: int = 100,
    k1: int = 20,
    k2: int = 6,
    lam: float = 0.3,
    graph: Ranked | None = None,
) -> Ranked:
    """Re-ranks short lists by k-reciprocal encoding (Zhong et al. 2017): :class:`Reciprocal` built and asked at once.

    Args:
        rows: the database, whitened.
        queries: the query rows, whitened.
        k: length of the short list; all rows where there are fewer.
        k1: length of the lists that must name each other, ≥ 1.
        k2: encodings that are averaged, 1 to k1.
        lam: weight λ of the similarity, 0 to 1.
        graph: ``neighbours(rows, k=k1 + 1)`` or longer lists, where they are known already.

    Returns:
        As :meth:`Reciprocal.rank`.

    Raises:
        InputError: as of :meth:`Reciprocal.build` and :meth:`Reciprocal.rank`.
    """
    return Reciprocal.build(rows, k1=k1, k2=k2, lam=lam, graph=graph).rank(queries, k=k)


def _encoded(
    lists: Int[np.ndarray, "m a"], nodes: Int[np.ndarray, " x"], half: int
) -> tuple[Int[np.ndarray, " p"], Int[np.ndarray, " p"]]:
    """R* of each node, as pairs: number of the node in ``nodes``, member; sorted, each once."""
    keys = []
    for start in range(0, len(nodes), _NODES_AT_ONCE):
        some = nodes[start : start + _NODES_AT_ONCE]
        near, mutual = _mutual(lists, some)
        owners, at = np.nonzero(mutual)
        centres, which = np.unique(near[owners, at], return_inverse=True)
        around, close = (part[which] for part in _mutual(lists[:, :half], centres))
        known = np.where(mutual, near, -1)[owners]
        inside = (around[:, :, None] == known[:, None, :]).any(2) & close
        taken = close & (3 * inside.sum(1) >= 2 * close.sum(1))[:, None]
        key = (start + owners.astype(np.int64)) * len(lists)
        keys += [key + near[owners, at], (key[:, None] + around)[taken]]
    flat = np.unique(np.concatenate(keys))
    return flat // len(lists), flat % len(lists)


def _mutual(lists: Int[np.ndarray, "m a"], nodes: Int[np.ndarray, " x"]) -> tuple[Int[np.ndarray, "x a"], np.ndarray]:
    """The lists of the nodes, and which of their members have the node on their own list."""
    near = lists[nodes]
    return near, (lists[near] == nodes[:, None, None]).any(2)
