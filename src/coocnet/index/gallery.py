"""The rows of an index in memory, and what is found among them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from coocnet.errors import InputError
from coocnet.ranking import EXPANSIONS, RERANKINGS, Reranking
from coocnet.recipe import Recipe
from coocnet.whitening import Whitening

_QUERIES_AT_ONCE = 64
_SHORT_LIST = 100


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
    """The rows as of one generation of the store, and the whitening that is on them."""

    generation: int
    whitening: Whitening | None
    paths: list[str]
    digests: list[bytes]
    rows: Float[np.ndarray, "n d"]
    _prepared: dict[str, Reranking] = field(default_factory=dict)

    def find(
        self,
        queries: Float[np.ndarray, "q d"],
        recipe: Recipe,
        *,
        k: int,
        threshold: float | None,
        expansion: str,
        reranking: str,
    ) -> Iterator[list[Hit]]:
        """The hits of each query; arguments as :meth:`coocnet.index.LocalIndex.search`."""
        if self.whitening is not None:
            queries = self.whitening.apply(queries)
        if expansion != "none":
            queries = self._expanded(queries, recipe, expansion)
        for start in range(0, len(queries), _QUERIES_AT_ONCE):
            some = queries[start : start + _QUERIES_AT_ONCE]
            similarities = some @ self.rows.T
            orders = (
                self._reranked(some, k, reranking) if reranking != "none" else [_best(one, k) for one in similarities]
            )
            for order, one in zip(orders, similarities, strict=True):
                kept = order if threshold is None else order[one[order] >= threshold]
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


def _best(similarities: np.ndarray, k: int) -> np.ndarray:
    """The k largest, falling; equal ones in order of position."""
    count = min(k, len(similarities))
    least = np.partition(similarities, -count)[-count]
    candidates = np.flatnonzero(similarities >= least)
    return candidates[np.argsort(-similarities[candidates], kind="stable")][:count]
