"""An index in Milvus, searched there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float
from typing_extensions import override

from coocnet.errors import InputError
from coocnet.index import editing, layer
from coocnet.index.approximate import ApproximateInfo
from coocnet.index.collection import Index
from coocnet.index.facts import StoredWhitening
from coocnet.index.gallery import Hit, check_count, check_names, check_threshold, checked_rows
from coocnet.index.info import IndexInfo
from coocnet.index.milvus.records import MilvusRecords
from coocnet.index.milvus.server import MOST_HITS
from coocnet.ranking import EXPANSIONS, relevance_feedback
from coocnet.recipe import Recipe

_QUERIES_AT_ONCE = 64
_BYTES_OF_A_NUMBER = 4


class MilvusIndex(Index):
    """An index on a Milvus server. Made by :func:`coocnet.index.open_index`.

    As :class:`~coocnet.index.LocalIndex`, but for what needs all rows in one memory: augmentation, re-ranking,
    searches in the first dimensions of a whitening, and the threshold "auto".
    """

    _store: MilvusRecords

    @property
    @override
    def location(self) -> str:
        return self._store.place

    @override
    def state(self) -> str:
        return f"{self._store.state()} {self.recipe.whitening}"

    @override
    def search(
        self,
        rows: Float[np.ndarray, "q d"],
        *,
        k: int,
        threshold: float | Literal["auto"] | None = None,
        dim: int | None = None,
        expansion: str | None = None,
        augmentation: bool = False,
        reranking: str = "none",
        exact: bool | None = None,
        relevant: Sequence[Sequence[bytes]] | None = None,
        cut: float | None = None,
    ) -> list[list[Hit]]:
        check_count(k)
        check_threshold(threshold)
        check_threshold(cut)
        recipe = self.recipe
        chosen = recipe.expansion if expansion is None else expansion
        check_names(chosen, reranking)
        self._check_can(k=k, dim=dim, augmentation=augmentation, reranking=reranking, exact=exact)
        if threshold == "auto" and cut is None:
            cut = self.auto_threshold()
        store = self._store
        store.check_recipe(recipe)
        queries = checked_rows(rows, self.dim)
        given = None if relevant is None else editing.rows_given(store, relevant, len(queries))
        if not store.count_contents():
            return [[] for _ in queries]
        stored = layer.in_force(store, recipe)
        version = None if stored is None else stored.version
        queries = plain = _whitened(queries, stored)
        liked = None if given is None else [_whitened(some, stored) for some in given]
        if liked is not None:
            queries = relevance_feedback(plain, liked)
        if chosen != "none":
            queries = self._expanded(version, queries, chosen, recipe)
        least = cut if threshold == "auto" else threshold
        changed = chosen != "none" or liked is not None
        found = []
        for start in range(0, len(queries), _QUERIES_AT_ONCE):
            some = queries[start : start + _QUERIES_AT_ONCE]
            for at, hits in enumerate(store.nearest(version, some, k), start):
                decisive = dict(hits)
                if threshold == "auto" and changed:
                    asked = plain[at : at + 1] if liked is None else np.vstack([plain[at], liked[at]])
                    decisive = self._plain_similarities(version, hits, asked)
                kept = [hit for hit in hits if least is None or decisive[hit[0]] >= least]
                found.append(self._hits(kept, k))
        return found

    @override
    def approximates(self, *, k: int, expansion: str | None = None, reranking: str = "none") -> bool:
        return False

    @override
    def let_rows_stand(self, share: float) -> None:
        pass  # rows are nowhere but on the server

    @override
    def look_anew(self) -> None:
        pass

    @override
    def build_ann(self, *, progress: Callable[[int, int], None] | None = None) -> ApproximateInfo:
        raise InputError("an index in Milvus is searched exactly as yet; there is no approximate search to build")

    @override
    def prepare_reranking(self, *, offline: bool = False, progress: Callable[[int, int], None] | None = None) -> None:
        raise InputError("a re-ranking needs all rows in one memory; an index in Milvus is searched without")

    @override
    def use_storage(self, storage: str) -> None:
        raise InputError("how rows are kept is for an index in a folder to choose; Milvus keeps them as float32")

    @override
    def auto_threshold(self, *, dim: int | None = None) -> float:
        raise InputError('the threshold "auto" is not there yet for an index in Milvus: give it as a number')

    @override
    def info(self) -> IndexInfo:
        store = self._store
        stored = layer.in_force(store, self.recipe)
        contents = store.count_contents()
        numbers = self.dim + (0 if stored is None else stored.whitening.dim)
        return IndexInfo(
            location=store.place,
            recipe=store.recipe,
            pictures=store.count_pictures(),
            contents=contents,
            dim=self.dim,
            weights_sha256=store.weights_sha256,
            engines=store.engines(),
            whitening=None if stored is None else {"version": str(stored.version), **stored.whitening.provenance},
            whitening_declined=store.whitening_declined(),
            folders=store.folders(),
            size_bytes=contents * numbers * _BYTES_OF_A_NUMBER,
            storage="float32",
            rows_are_kept=False,
            approximate=None,
            out_of_force="",
            made=store.meta("made") or "",
            skipped=store.skipped(),
        )

    @override
    def _changed(self) -> None:
        pass  # every search asks the server

    @staticmethod
    def _check_can(*, k: int, dim: int | None, augmentation: bool, reranking: str, exact: bool | None) -> None:
        if k > MOST_HITS:
            raise InputError(f"Milvus gives up to {MOST_HITS} hits, got k={k}")
        if exact is False:
            raise InputError("this index has no approximate search in force: it is searched exactly")
        for name, is_asked in (
            (f"dim={dim}", dim is not None),
            ("augmentation", augmentation),
            (f"reranking={reranking!r}", reranking != "none"),
        ):
            if is_asked:
                raise InputError(f"{name} needs all rows in one memory; an index in Milvus is searched without")

    def _expanded(
        self, version: int | None, queries: Float[np.ndarray, "q d"], name: str, recipe: Recipe
    ) -> Float[np.ndarray, "q d"]:
        """Each query moved towards its nearest rows, for which no more than these are needed."""
        n, alpha = recipe.expansion_neighbours, recipe.expansion_alpha
        whitened = version is not None or recipe.pooling == "centred"
        expanded = []
        for query, found in zip(queries, self._store.nearest(version, queries, n), strict=True):
            hits = self._hits(found, n)  # copies count each
            known = self._store.searched_rows(version, [digest for digest, _ in found])
            rows = np.array([known[hit.digest] for hit in hits])
            expanded.append(EXPANSIONS[name](rows, query[None], n=n, alpha=alpha, whitened=whitened)[0])
        return np.array(expanded)

    def _plain_similarities(
        self, version: int | None, hits: Sequence[tuple[bytes, float]], asked: Float[np.ndarray, "m d"]
    ) -> dict[bytes, float]:
        """Of what was found to the query, or to that of its relevant pictures which is the most similar."""
        rows = self._store.searched_rows(version, [digest for digest, _ in hits])
        return {digest: float((asked @ row).max()) for digest, row in rows.items()}

    def _hits(self, found: Sequence[tuple[bytes, float]], k: int) -> list[Hit]:
        """Files of contents, equal similarities in order of path."""
        files = self._store.files_of_each([digest for digest, _ in found])
        each = [(-similarity, path, digest) for digest, similarity in found for path in files.get(digest, [])]
        return [
            Hit(rank, path, -negative, digest) for rank, (negative, path, digest) in enumerate(sorted(each)[:k], 1)
        ]


def _whitened(rows: Float[np.ndarray, "m d"], stored: StoredWhitening | None) -> Float[np.ndarray, "m e"]:
    return rows if stored is None else stored.whitening.apply(rows)
