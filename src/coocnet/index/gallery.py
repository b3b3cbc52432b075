"""The rows of an index in memory, and what is found among them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from numbers import Real
from typing import Literal

import numpy as np
from jaxtyping import Float, Int, UInt8

from coocnet.errors import InputError
from coocnet.index.approximate import LONGEST, ApproximateSearch
from coocnet.index.kept import firsts
from coocnet.index.prepared import Prepared
from coocnet.ranking import (
    EXPANSIONS,
    RERANKINGS,
    Reranking,
    augment_database,
    relevance_feedback,
    similarity_cut,
)
from coocnet.ranking.nearest import nearest, similarities_at
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
            query; with relevant pictures, to the mean. Falls with the rank, but where the hits were re-ranked.
        digest: of the file's content; copies share it.
    """

    rank: int
    path: str
    similarity: float
    digest: bytes


@dataclass(frozen=True)
class Gallery:
    """The rows as of one state of the store, and the whitening that is on them, to ``dim`` dimensions if any.

    Rows are float32, or float16 where the index is to be small. ``why_exact`` says why no approximate search that was
    built is there.
    """

    state: str
    dim: int | None
    whitening: Whitening | None
    paths: Sequence[str]
    digests: UInt8[np.ndarray, "n 16"]
    rows: Float[np.ndarray, "n d"]
    prepared: Prepared | None = None
    approximate: ApproximateSearch | None = None
    why_exact: str = ""
    _ranked_by: dict[tuple[str, bool], Reranking] = field(default_factory=dict)
    _augmented_by: dict[tuple[int, float], np.ndarray] = field(default_factory=dict)

    @cached_property
    def cut(self) -> float:
        """The threshold "auto"; see :func:`~coocnet.ranking.similarity_cut`."""
        first = firsts(self.digests)
        return similarity_cut(self.rows if len(first) == len(self.rows) else self.rows[first])

    @cached_property
    def wide_rows(self) -> Float[np.ndarray, "n d"]:
        """The rows as float32, for what computes with all of them."""
        return self.rows.astype(np.float32, copy=False)

    def is_whitened(self, recipe: Recipe) -> bool:
        """Whether similarities of different things lie around 0, so that powers of them weigh."""
        return self.whitening is not None or recipe.pooling == "centred"

    def find(
        self,
        queries: Float[np.ndarray, "q d"],
        recipe: Recipe,
        *,
        k: int,
        threshold: float | Literal["auto"] | None,
        expansion: str,
        augmentation: bool,
        reranking: str,
        exact: bool | None = None,
        relevant: Sequence[Float[np.ndarray, "_ d"]] | None = None,
        cut: float | None = None,
    ) -> Iterator[list[Hit]]:
        """The hits of each query; arguments as :meth:`coocnet.index.LocalIndex.search`."""
        least = threshold
        if least == "auto":
            least = self.cut if cut is None else cut
        whitened = self.is_whitened(recipe)
        plainly = expansion == "none" and reranking == "none"
        approximate = self._approximate_for(exact, k=k, plainly=plainly and not augmentation)
        rows = self.rows if plainly else self.wide_rows
        if augmentation:
            rows = self._augmented(recipe, whitened=whitened)
        queries = plain = self._whitened(queries)
        liked = None if relevant is None else [self._whitened(some) for some in relevant]
        if liked is not None:
            queries = relevance_feedback(plain, liked)
        if expansion != "none":
            n, alpha = recipe.expansion_neighbours, recipe.expansion_alpha
            queries = EXPANSIONS[expansion](rows, queries, n=n, alpha=alpha, whitened=whitened)
        ranker = None if reranking == "none" else self._ranker(reranking, rows, whitened=whitened)
        for start in range(0, len(queries), _QUERIES_AT_ONCE):
            some = slice(start, start + _QUERIES_AT_ONCE)
            positions: Iterable[np.ndarray]
            similarities: Iterable[np.ndarray]
            if approximate is not None:
                positions, similarities = zip(*approximate.nearest(queries[some], k), strict=True)
            elif ranker is None:
                positions, similarities = nearest(rows, queries[some], k)
            else:
                longest = len(rows) if ranker.ranks_all and least is not None else max(k, _SHORT_LIST)
                positions = ranked = ranker.rank(queries[some], k=longest).positions
                similarities = similarities_at(rows, queries[some], ranked)
            # An expanded query resembles what it was expanded by, and an augmented row its neighbours.
            changed = expansion != "none" or augmentation or liked is not None
            decisive = similarities
            if threshold == "auto" and changed:
                decisive = self._plain_similarities(np.asarray(positions), plain[some], liked and liked[some])
            for order, one, tested in zip(positions, similarities, decisive, strict=True):
                kept = slice(None) if least is None else tested >= least
                yield self._hits(order[kept][:k], one[kept][:k])

    def _whitened(self, rows: Float[np.ndarray, "m d"]) -> Float[np.ndarray, "m e"]:
        return rows if self.whitening is None else self.whitening.apply(rows)

    def _plain_similarities(
        self,
        positions: Int[np.ndarray, "q k"],
        queries: Float[np.ndarray, "q d"],
        liked: Sequence[Float[np.ndarray, "_ d"]] | None,
    ) -> Float[np.ndarray, "q k"]:
        """Of what was found to each query, or to that of its relevant pictures which is the most similar."""
        similarities = similarities_at(self.rows, queries, positions)
        for at, some in enumerate(liked or ()):
            if len(some):
                to_these = similarities_at(self.rows, some, np.tile(positions[at], (len(some), 1)))
                similarities[at] = np.maximum(similarities[at], to_these.max(0))
        return similarities

    def approximates(self, k: int, *, plainly: bool) -> bool:
        """Whether a search for so many hits, with nothing but similarities if ``plainly``, would be approximate."""
        return self._approximate_for(None, k=k, plainly=plainly) is not None

    def _approximate_for(self, exact: bool | None, *, k: int, plainly: bool) -> ApproximateSearch | None:
        """The approximate search where it is asked for, or nobody cares, and it can answer."""
        if exact:
            return None
        built = self.approximate
        most = LONGEST if built is None or exact is False else built.up_to
        fits = plainly and self.dim is None and k <= most
        if built is not None and fits and built.serves():
            return built
        if exact is None:
            return None
        if fits:
            reason = (self.why_exact if built is None else built.reason) or "make one with coocnet index DIR --ann"
            raise InputError(f"this index has no approximate search in force: {reason}")
        raise InputError(
            f"an approximate search gives up to {LONGEST} hits, of all dimensions, without expansion, augmentation "
            f"or re-ranking; got k={k}, dim={self.dim}"
        )

    def _hits(self, positions: Int[np.ndarray, " k"], similarities: Float[np.ndarray, " k"]) -> list[Hit]:
        return [
            Hit(rank, self.paths[at], float(similarity), self.digests[at].tobytes())
            for rank, (at, similarity) in enumerate(zip(positions, similarities, strict=True), start=1)
        ]

    def _augmented(self, recipe: Recipe, *, whitened: bool) -> Float[np.ndarray, "n d"]:
        key = (recipe.expansion_neighbours, recipe.expansion_alpha)
        if key not in self._augmented_by:
            graph = None if self.prepared is None else self.prepared.graph
            if graph is not None and graph.positions.shape[1] <= recipe.expansion_neighbours:
                graph = None
            self._augmented_by[key] = augment_database(
                self.wide_rows, n=key[0], alpha=key[1], whitened=whitened, graph=graph
            )
        return self._augmented_by[key]

    def _ranker(self, name: str, rows: Float[np.ndarray, "n d"], *, whitened: bool) -> Reranking:
        key = name, rows is not self.wide_rows
        if key not in self._ranked_by:
            kept = self.prepared if rows is self.wide_rows else None
            options = {"whitened": whitened} if name == "diffusion" else {}
            self._ranked_by[key] = RERANKINGS[name](rows, **(kept.known_by(name) if kept else {}), **options)
        return self._ranked_by[key]


def check_names(expansion: str, reranking: str) -> None:
    """Refuses the name of an expansion or a re-ranking that there is not."""
    if expansion != "none" and expansion not in EXPANSIONS:
        raise InputError(f"a query expansion is one of none, {', '.join(EXPANSIONS)}; got {expansion!r}")
    if reranking != "none" and reranking not in RERANKINGS:
        raise InputError(f"a re-ranking is one of none, {', '.join(RERANKINGS)}; got {reranking!r}")


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
