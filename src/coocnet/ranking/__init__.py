"""Everything after the descriptor, on numpy arrays of unit rows: nearest rows, expansion, re-ranking, where to cut.

Rows are float32, (n, d), of length 1, or 0 where a picture is blank; what is expanded or re-ranked should be
whitened. Nothing here holds an n × n matrix: 100,000 rows of 512 numbers take a few hundred megabytes beside
themselves. The numbers of neighbours and the exponents are those of the papers named, or ours where a paper is
silent; they are never to be chosen on the pictures that a method is judged on. All of these lift what has many
pictures in the collection; a thing with a single one is often pushed down, most by average expansion and the two
re-rankings, least by augmentation and weighted expansion.

::

    queries = EXPANSIONS["alpha-qe"](rows, queries, n=10, alpha=3.0)
    found = neighbours(rows, queries, k=10)

    prepared = RERANKINGS["reciprocal"](rows)         # once for a collection
    found = prepared.rank(queries, k=10)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Protocol

import numpy as np
from jaxtyping import Float

from coocnet.ranking.checks import mean_similarity
from coocnet.ranking.cut import similarity_cut
from coocnet.ranking.diffusion import Diffusion
from coocnet.ranking.expansion import alpha_expansion, augment_database, average_expansion, relevance_feedback
from coocnet.ranking.nearest import Ranked, neighbours
from coocnet.ranking.reciprocal import Reciprocal, reciprocal_rerank


class Expansion(Protocol):
    """New query rows from the database rows and the query rows."""

    def __call__(
        self,
        rows: Float[np.ndarray, "n d"],
        queries: Float[np.ndarray, "q d"],
        *,
        n: int,
        alpha: float,
        whitened: bool | None = ...,
    ) -> Float[np.ndarray, "q d"]:
        """The queries, each moved towards its n nearest rows, weighted by similarity^alpha where it weighs at all.

        Args:
            rows: the database.
            queries: the query rows.
            n: nearest rows of each query.
            alpha: exponent of their similarities.
            whitened: what the caller knows of the rows; None for nothing.
        """
        ...


class Reranking(Protocol):
    """What is prepared once from a collection's rows and then ranks them for any query.

    Attributes:
        ranks_all: every row has a place in its order; if not, only the most similar ones are put in another order.
    """

    ranks_all: ClassVar[bool]

    def rank(self, queries: Float[np.ndarray, "q d"], *, k: int = ...) -> Ranked:
        """The k best rows for each query, best first; a larger score is better.

        Args:
            queries: the query rows.
            k: how many; all rows where there are fewer.
        """
        ...


EXPANSIONS: dict[str, Expansion] = {"aqe": average_expansion, "alpha-qe": alpha_expansion}
"""The query expansions by name."""
RERANKINGS: dict[str, Callable[..., Reranking]] = {"reciprocal": Reciprocal.build, "diffusion": Diffusion.build}
"""The re-rankings by name: what prepares each from a collection's rows."""

__all__ = [
    "EXPANSIONS",
    "RERANKINGS",
    "Diffusion",
    "Expansion",
    "Ranked",
    "Reciprocal",
    "Reranking",
    "alpha_expansion",
    "augment_database",
    "average_expansion",
    "mean_similarity",
    "neighbours",
    "reciprocal_rerank",
    "relevance_feedback",
    "similarity_cut",
]
