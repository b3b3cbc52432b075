"""Re-ranking by diffusion on the graph of mutual neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float, Int

from coocnet.errors import InputError
from coocnet.ranking.checks import need_between, need_count, need_whitened, unit_or_zero
from coocnet.ranking.nearest import Ranked, graph_of, nearest, nearest_others

_TOLERANCE = 1e-6
_MOST_STEPS = 200
Sparse = Any  # scipy.sparse.csr_array: scipy is an extra and carries no types


@dataclass(frozen=True, eq=False)
class Diffusion:
    """Diffusion on a collection's neighbour graph, ready to rank; made by :meth:`build`.

    With the k nearest others of each row, s^γ for a similarity s clipped at 0, and the kq nearest rows of a query:

        W_ij = (x_i · x_j)^γ where each of i ≠ j is among the k nearest of the other, else 0
        S    = D^{−1/2} W D^{−1/2},   D_ii = Σ_j W_ij
        y_i  = (q · x_i)^γ for the kq nearest rows of the query, else 0
        f    = (I − α S)^{−1} y,      by conjugate gradients;   f_i is the score of row i

    Source: Iscen et al. 2017, "Efficient Diffusion on Region Manifolds". As f is linear in y, it is also the sum of
    the solutions for each of the query's neighbours alone. Yang et al. 2019, "Efficient Image Retrieval via
    Decoupling Diffusion into Online and Offline Processing", solve for each row i with y = e_i, on the rows and
    columns of the system that belong to i's nearest rows, its truncation; this keeps what is far from i out of its
    solution. These can be stored for all rows beforehand, or be solved for as queries need them: the ranking is the
    same.

    Attributes:
        rows: the database.
        system: I − α S, (n, n) sparse.
        solutions: row i is the truncated solution for e_i, (n, n) sparse; None where they are solved for as needed.
        truncation, k_query, gamma: see :meth:`build`.
    """

    rows: Float[np.ndarray, "n d"]
    system: Sparse
    solutions: Sparse | None
    truncation: int | None
    k_query: int
    gamma: float
    ranks_all: ClassVar[bool] = True

    @classmethod
    def build(
        cls,
        rows: Float[np.ndarray, "n d"],
        *,
        k_graph: int = 50,
        k_query: int = 10,
        gamma: float = 3.0,
        alpha: float = 0.99,
        truncation: int | None = 1000,
        offline: bool = False,
        graph: Ranked | None = None,
        solved: tuple[np.ndarray, np.ndarray] | None = None,
        whitened: bool | None = None,
    ) -> Diffusion:
        """Makes the graph, and all solutions if these are wanted beforehand: once for a collection.

        Args:
            rows: the database, whitened.
            k_graph: k, neighbours in the graph; both sources take 50. Where things have far fewer pictures than
                that, similarity leaks from one thing to others.
            k_query: kq, neighbours of the query; both sources take 10 for one row per picture.
            gamma: exponent γ ≥ 0; both sources take 3.
            alpha: α, how far similarity spreads, at least 0 and below 1; both sources take 0.99.
            truncation: nearest rows on which each solution lives; None for all. Yang et al. take 1000 for some
                thousand pictures and 5000 for a hundred thousand. None of these is ever to be chosen on a test set.
            offline: solve for every row now and keep the solutions, 8 bytes for each row and each row of its
                truncation, and the neighbour lists for it while they are made. If not, a query solves for its
                ``k_query`` neighbours, some milliseconds each.
            graph: ``neighbours(rows, k=k_graph + 1)`` or longer lists, where they are known already; with
                ``offline`` they are also as long as the truncation.
            solved: the attribute ``solved`` of one that was built offline before, from the same rows.
            whitened: False, where the caller knows that the rows were never whitened, has them refused: their weights
                hardly differ, and the walk loses its way.

        Raises:
            InputError: scipy is not installed; rows that were never whitened or are not of length 1 or 0, a graph or
                solutions of other rows, or a parameter out of its range.
        """
        need_count("k_graph", k_graph)
        need_count("k_query", k_query)
        need_between("gamma", gamma, 0)
        need_between("alpha", alpha, 0, 1)
        if alpha == 1:
            raise InputError("alpha is below 1, got 1: the system would have no single solution")
        if truncation is not None:
            need_count("truncation", truncation)
        rows = unit_or_zero("rows", rows)
        if whitened is False:
            need_whitened(rows, gamma, whitened)
        _scipy_sparse()
        longest = min(truncation or len(rows), len(rows)) if offline else 1
        graph = graph_of(rows, graph, max(k_graph + 1, longest))
        system = _system(nearest_others(graph, k_graph), gamma, alpha)
        if solved is not None:
            solutions = _rows_of(*solved, len(rows))
        else:
            solutions = _solutions(system, graph.positions[:, :longest]) if offline else None
        return cls(rows, system, solutions, truncation, k_query, gamma)

    @property
    def solved(self) -> tuple[Int[np.ndarray, "n m"], Float[np.ndarray, "n m"]] | None:
        """Columns and values of the solutions made beforehand, to be kept; None where there are none."""
        if self.solutions is None:
            return None
        shape = (len(self.rows), -1)
        return self.solutions.indices.reshape(shape).astype(np.int32), self.solutions.data.reshape(shape)

    def rank(self, queries: Float[np.ndarray, "q d"], *, k: int = 100) -> Ranked:
        """The k rows that a query's similarity reaches most of.

        Args:
            queries: the query rows, whitened.
            k: how many for each query; all rows where there are fewer. Rows that nothing reaches come last, with
                scores of 0, by falling similarity.

        Returns:
            (q, min(k, n)) positions and scores f; equal scores are in order of position.

        Raises:
            InputError: queries that are not of length 1 or 0 or of other dimensions, or k below 1.
        """
        queries = unit_or_zero("queries", queries, dim=self.rows.shape[1])
        need_count("k", k)
        count = min(k, len(self.rows))
        found = nearest(self.rows, queries, max(k, self.k_query))
        positions, scores = found.positions[:, :count].copy(), np.zeros((len(queries), count), np.float32)
        weights = _affinity(found.scores[:, : self.k_query], self.gamma)
        for at, starts in enumerate(found.positions[:, : self.k_query]):
            spread = self._spread(starts, weights[at])
            reached = np.flatnonzero(spread > 0)
            best = reached[np.argsort(-spread[reached], kind="stable")[:count]]
            rest = found.positions[at][~np.isin(found.positions[at], best)]
            positions[at] = np.concatenate([best, rest])[:count]
            scores[at, : len(best)] = spread[best]
        return Ranked(positions, scores)

    def _spread(self, starts: Int[np.ndarray, " s"], weights: Float[np.ndarray, " s"]) -> Float[np.ndarray, " n"]:
        """F for a query whose nearest rows and their weights are given, float32."""
        if self.solutions is not None:
            return np.asarray(self.solutions[starts].T @ weights, np.float32)
        spread = np.zeros(len(self.rows))
        if self.truncation is None or self.truncation >= len(self.rows):
            spread[starts] = weights
            return _solve(self.system, spread).astype(np.float32)
        lists = nearest(self.rows, self.rows[starts], self.truncation).positions
        for start, its_nearest, weight in zip(starts, lists, weights, strict=True):
            own, solution = _truncated(self.system, int(start), its_nearest)
            spread[own] += weight * solution
        return spread.astype(np.float32)


def _affinity(similarities: Float[np.ndarray, "n k"], gamma: float) -> Float[np.ndarray, "n k"]:
    clipped = np.maximum(similarities, 0).astype(np.float64)
    return np.where(clipped > 0, clipped**gamma, 0)


def _system(near: Ranked, gamma: float, alpha: float) -> Sparse:
    """I − α S of the mutual neighbours, float64."""
    sparse = _scipy_sparse()
    n, width = near.positions.shape
    starts = np.arange(0, n * width + 1, width) if width else np.zeros(n + 1, np.int64)
    one_way = sparse.csr_array((_affinity(near.scores, gamma).ravel(), near.positions.ravel(), starts), shape=(n, n))
    both_ways = one_way.minimum(one_way.T).tocsr()
    degree = np.asarray(both_ways.sum(1)).ravel()
    scale = np.where(degree > 0, 1 / np.sqrt(np.where(degree > 0, degree, 1)), 0)
    spread = sparse.diags_array(scale) @ both_ways @ sparse.diags_array(scale)
    return (sparse.eye_array(n) - alpha * spread).tocsr()


def _solutions(system: Sparse, lists: Int[np.ndarray, "n m"]) -> Sparse:
    """Row i: the solution for e_i on the rows and columns of i's list, float32."""
    n, width = lists.shape
    values, columns = np.empty((n, width), np.float32), np.empty((n, width), np.int32)
    for i in range(n):
        columns[i], values[i] = _truncated(system, i, lists[i])
    return _rows_of(columns, values, n)


def _rows_of(columns: np.ndarray, values: np.ndarray, n: int) -> Sparse:
    """The sparse matrix (n, n) of lists of one length."""
    if columns.shape != values.shape or columns.ndim != 2 or len(columns) != n or (columns >= n).any():
        raise InputError(
            f"solutions for {n} rows are as many lists of columns and values, got {columns.shape} and {values.shape}"
        )
    starts = np.arange(0, columns.size + 1, max(1, columns.shape[1]))[: n + 1]
    return _scipy_sparse().csr_array((values.ravel(), columns.ravel(), starts), shape=(n, n))


def _truncated(
    system: Sparse, i: int, nearest_to_it: Int[np.ndarray, " m"]
) -> tuple[Int[np.ndarray, " m"], Float[np.ndarray, " m"]]:
    """The rows near i, i among them, and the solution for e_i on these alone."""
    own = nearest_to_it.copy()
    if i not in own:
        own[-1] = i  # more rows equal to this one than the list is long
    return own, _solve(system[own][:, own], (own == i).astype(np.float64))


def _solve(matrix: Sparse, y: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Conjugate gradients for a positive definite matrix (Hestenes and Stiefel 1952), to 10⁻⁶ of the length of y."""
    x = np.zeros_like(y)
    residual, direction = y.copy(), y.copy()
    left = start = float(residual @ residual)
    for _ in range(_MOST_STEPS):
        if left <= _TOLERANCE**2 * start:
            break
        image = matrix @ direction
        step = left / float(direction @ image)
        x += step * direction
        residual -= step * image
        before, left = left, float(residual @ residual)
        direction = residual + (left / before) * direction
    return x


def _scipy_sparse() -> Any:
    try:
        from scipy import sparse  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise InputError("diffusion needs an extra: pip install 'coocnet[rerank]'") from error
    return sparse
