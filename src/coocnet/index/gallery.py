"""The rows of an index in memory, and what is found among them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from numbers import Real
from typing import Literal

import numpy as np
from jaxtyping import Float

from coocnet.errors import InputError
from coocnet.ranking import EXPANSIONS, RERANKINGS, Reranking, similarity_cut
from coocnet.recipe import Recipe
from coocnet.whitening import Whitening

_QUERIES_AT_ONCE = 64
_SHORT_LIST = 100
_UNIT_WITHIN = 1e-3


@dataclass(frozen=True)
class Hit:
    """A picture found.

    Attributes:
        rank: 1 for the best.
        path: absolute path of the file.
        similarity: cosine of the whitened rows, at most 1; larger is nearer. After a query expansion, to the expanded
            query. Falls with the rank, but where the hits were re-ranked.
        digest: of the file's content; copies share it.
    """

    rank: int
    path: str
    similarity: float
    digest: bytes


@dataclass(frozen=True)
class Gallery:
    """The rows as of one generation of the store, and the whitening that is on them, to ``dim`` dimensions if any."""

    generation: int
    dim: int | None
    whitening: Whitening | None
    paths: list[str]
    digests: list[bytes]
    rows: Float[np.ndarray, "n d"]
    _prepared: dict[str, Reranking] = field(default_factory=dict)

    @cached_property
    def cut(self) -> float:
        """The threshold "auto"; see :func:`~coocnet.ranking.similarity_cut`."""
        _, first = np.unique(np.array(self.digests, dtype=object), return_index=True)
        return similarity_cut(self.rows[np.sort(first)])

    def find(
        self,
        queries: Float[np.ndarray, "q d"],
        recipe: Recipe,
        *,
        k: int,
        threshold: float | Literal["auto"] | None,
        expansion: str,
        reranking: str,
    ) -> Iterator[list[Hit]]:
        """The hits of each query; arguments as :meth:`coocnet.index.LocalIndex.search`."""
        plain = queries if self.whitening is None else self.whitening.apply(queries)
        queries = plain if expansion == "none" else self._expanded(plain, recipe, expansion)
        least = self.cut if threshold == "auto" else threshold
        for start in range(0, len(queries), _QUERIES_AT_ONCE):
            some = queries[start : start + _QUERIES_AT_ONCE]
            similarities = some @ self.rows.T
            # An expanded query resembles what it was expanded by, whatever that is.
            decisive = similarities if threshold != "auto" else plain[start : start + len(some)] @ self.rows.T
            orders = (
                self._reranked(some, k, reranking) if reranking != "none" else [_best(one, k) for one in similarities]
            )
            for order, one, tested in zip(orders, similarities, decisive, strict=True):
                kept = order if least is None else order[tested[order] >= least]
                yield [
                    Hit(rank, self.paths[at], float(one[at]), self.digests[at])
                    for rank, at in enumerate(kept, start=1)
                ]

    def _expanded(self, queries: np.ndarray, recipe: Recipe, expansion: str) -> np.ndarray:
        if expansion not in EXPANSIONS:
            raise InputError(f"a query expansion is one of none, {', '.join(EXPANSIONS)}; got {expansion!r}")
        options = {"alpha": recipe.expansion_alpha} if expansion == "alpha-qe" else {}
        whitened = True if self.whitening is not None else None
        return EXPANSIONS[expansion](
            self.rows,
            queries,
            n=recipe.expansion_neighbours,
            whitened=whitened,
            **options,
        )

    def _reranked(self, queries: np.ndarray, k: int, reranking: str) -> np.ndarray:
        if reranking not in RERANKINGS:
            raise InputError(f"a re-ranking is one of none, {', '.join(RERANKINGS)}; got {reranking!r}")
        if reranking not in self._prepared:
            self._prepared[reranking] = RERANKINGS[reranking](self.rows)
        ranked = self._prepared[reranking].rank(queries, k=max(k, _SHORT_LIST))
        best: np.ndarray = ranked.positions[:, :k]
        return best


def check_count(k: object) -> None:
    """Refuses a number of hits that is none."""
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise InputError(f"k is a whole number of at least 1, got {k!r}")


def check_threshold(threshold: object) -> None:
    """Refuses a threshold that is none."""
    if threshold in (None, "auto"):
        return
    if not (isinstance(threshold, Real) and math.isfinite(threshold)):
        raise InputError(f"a threshold is a number or 'auto', got {threshold!r}")


def checked_rows(rows: np.ndarray, dim: int) -> Float[np.ndarray, "q d"]:
    """Query rows as a describer gives them, of ``dim`` numbers where that is known."""
    given = np.asarray(rows)
    if given.ndim != 2 or not np.issubdtype(given.dtype, np.floating):
        raise InputError(f"rows are an array (q, d) of floats, got {given.dtype} of shape {given.shape}")
    if dim and given.shape[1] != dim:
        raise InputError(f"rows have {dim} dimensions in this index, got {given.shape[1]}")
    lengths = np.linalg.norm(given.astype(np.float64), axis=1)
    if not ((np.abs(lengths - 1) < _UNIT_WITHIN) | (lengths == 0)).all():
        raise InputError(
            "rows have length 1 as a describer gives them (0 where a picture is blank), "
            f"got lengths from {lengths.min():g} to {lengths.max():g}"
        )
    return given.astype(np.float32)


def _best(similarities: np.ndarray, k: int) -> np.ndarray:
    """The k largest, falling; equal ones in order of position."""
    count = min(k, len(similarities))
    least = np.partition(similarities, -count)[-count]
    candidates = np.flatnonzero(similarities >= least)
    return candidates[np.argsort(-similarities[candidates], kind="stable")][:count]
