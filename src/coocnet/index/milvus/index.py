"""An index in Milvus, searched there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import wraps
from typing import Concatenate, Literal, ParamSpec, TypeVar

import numpy as np
from jaxtyping import Float
from typing_extensions import override

from coocnet.errors import ForeignIndexError, IndexBusyError, IndexStorageError, InputError, printable
from coocnet.index import editing, layer
from coocnet.index.approximate import (
    ANOTHER_WHITENING,
    BUILD_FROM,
    LONGEST,
    SAMPLE,
    ApproximateInfo,
    TooLittleAlikeError,
    need_contents,
    queries_like,
    tuned,
)
from coocnet.index.collection import Index
from coocnet.index.facts import StoredWhitening
from coocnet.index.gallery import Hit, check_count, check_names, check_threshold, checked_rows
from coocnet.index.info import IndexInfo
from coocnet.index.milvus.records import MilvusRecords
from coocnet.index.milvus.server import MOST_HITS
from coocnet.index.milvus.vectors import Found
from coocnet.ranking import EXPANSIONS, relevance_feedback
from coocnet.ranking.cut import PICTURES, RATE, chance_likeness, list_length
from coocnet.recipe import Recipe

_QUERIES_AT_ONCE = 64
_BYTES_OF_A_NUMBER = 4
_ALL_UP_TO = 4096

_Asked = ParamSpec("_Asked")
_Answer = TypeVar("_Answer")


def _of_one_moment(
    method: Callable[Concatenate[MilvusIndex, _Asked], _Answer],
) -> Callable[Concatenate[MilvusIndex, _Asked], _Answer]:
    """Reads with the facts of one moment; once more where a writer has dropped what they name meanwhile."""

    @wraps(method)
    def read(self: MilvusIndex, /, *args: _Asked.args, **kwargs: _Asked.kwargs) -> _Answer:
        state = ""
        try:
            with self._store.snapshot():
                state = self.state()
                return method(self, *args, **kwargs)
        except (IndexStorageError, ForeignIndexError):
            if self.state() == state:
                raise
        with self._store.snapshot():
            return method(self, *args, **kwargs)

    return read


class MilvusIndex(Index):
    """An index on a Milvus server. Made by :func:`coocnet.index.open_index`.

    As :class:`~coocnet.index.LocalIndex`, but for what needs all rows in one memory: augmentation, re-ranking and
    searches in the first dimensions of a whitening.
    """

    _store: MilvusRecords

    def __init__(self, store: MilvusRecords, recipe: Recipe | None = None) -> None:
        super().__init__(store, recipe)
        self._cut: tuple[str, float] | None = None

    @property
    @override
    def location(self) -> str:
        return self._store.place

    @override
    def state(self) -> str:
        return f"{self._store.state()} {self.recipe.whitening}"

    @override
    @_of_one_moment
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
        store, recipe = self._store, self.recipe
        chosen = recipe.expansion if expansion is None else expansion
        check_names(chosen, reranking)
        _check_can(k=k, dim=dim, augmentation=augmentation, reranking=reranking)
        store.check_recipe(recipe)
        queries = checked_rows(rows, self.dim)
        given = None if relevant is None else editing.rows_given(store, relevant, len(queries))
        probes = self._probes(exact, k=k, plainly=chosen == "none")
        if not store.vectors.has_rows():
            return [[] for _ in queries]
        stored = layer.in_force(store, recipe)
        queries = plain = _whitened(queries, stored)
        liked = None if given is None else [_whitened(some, stored) for some in given]
        if liked is not None:
            queries = relevance_feedback(plain, liked)
        if chosen != "none":
            queries = self._expanded(stored, queries, chosen, recipe)
        least = threshold
        if least == "auto":
            least = self.auto_threshold() if cut is None else cut
        changed = chosen != "none" or liked is not None
        found = []
        for start in range(0, len(queries), _QUERIES_AT_ONCE):
            some = queries[start : start + _QUERIES_AT_ONCE]
            for at, hits in enumerate(self._nearest(stored, some, k, probes), start):
                decisive = {hit.digest: hit.similarity for hit in hits}
                if threshold == "auto" and changed:
                    asked = plain[at : at + 1] if liked is None else np.vstack([plain[at], liked[at]])
                    decisive = self._plain_similarities(stored, hits, asked)
                kept = [hit for hit in hits if least is None or decisive.get(hit.digest, -np.inf) >= least]
                found.append([replace(hit, rank=rank) for rank, hit in enumerate(kept, 1)])
        return found

    def _probes(self, exact: bool | None, *, k: int, plainly: bool) -> int | None:
        """How many lists a search looks through; None for an exact one.

        Raises:
            InputError: an approximate search is asked for that there is not, or that cannot answer this.
        """
        held = self._approximate()
        if exact is False:
            if held is None:
                raise InputError(
                    "this index has no approximate search in force: build one with "
                    f"coocnet index DIR --index {printable(self.location)} --ann"
                )
            if k > LONGEST or not plainly:
                raise InputError(f"an approximate search answers up to {LONGEST} hits, without expansion")
        if held is None or exact or not plainly or (exact is None and k > held.up_to):
            return None
        return held.probes

    def _approximate(self) -> ApproximateInfo | None:
        """The approximate search in the rows that are searched, or None."""
        held, stored = self._store.approximate(), layer.in_force(self._store, self.recipe)
        version = None if stored is None else stored.version
        return held[1] if held is not None and held[0] == version else None

    @override
    def approximates(self, *, k: int, expansion: str | None = None, reranking: str = "none") -> bool:
        chosen = self.recipe.expansion if expansion is None else expansion
        with self._store.snapshot():
            return self._probes(None, k=k, plainly=chosen == "none" and reranking == "none") is not None

    @override
    def build_ann(self, *, progress: Callable[[int, int], None] | None = None) -> ApproximateInfo:
        store = self._store
        if not store.vectors.lists:
            raise InputError("Milvus Lite is searched exactly; an approximate search needs a server")
        with store.sole_writer():
            contents = store.count_contents()
            need_contents(contents)
            stored = layer.in_force(store, self.recipe)
            if self._approximate() is None:
                store.vectors.add_lists(stored, progress)
            try:
                info = self._tuned(stored, contents)
            except TooLittleAlikeError as error:
                store.refuse_approximate(contents, str(error))
                raise
            store.put_approximate(None if stored is None else stored.version, info)
        return info

    def _tuned(self, stored: StoredWhitening | None, contents: int) -> ApproximateInfo:
        vectors = self._store.vectors
        digests, rows = vectors.sample(stored, SAMPLE)
        queries = queries_like(rows, np.random.default_rng(0))
        parts = [queries[start : start + _QUERIES_AT_ONCE] for start in range(0, len(queries), _QUERIES_AT_ONCE)]
        exactly = [dict(hits) for part in parts for hits in vectors.nearest(stored, part, LONGEST + 1)]
        for digest, known in zip(digests, exactly, strict=False):
            known.pop(digest, None)  # itself
        others = np.array([sorted(known.values(), reverse=True)[:LONGEST] for known in exactly])

        def found(k: int, probes: int) -> Iterator[Float[np.ndarray, " _"]]:
            hits = (one for part in parts for one in vectors.candidates(stored, part, k, probes=probes))
            for known, some in zip(exactly, hits, strict=True):
                yield np.array([known.get(digest, -np.inf) for digest, _ in some])

        return tuned(others, found, contents=contents, lists=vectors.lists)

    @override
    def _made_ready(self, progress: Callable[[int, int], None] | None) -> str:
        store = self._store
        held = self._approximate()
        contents = store.count_contents()
        known = int(store.meta("refused") or 0) if held is None else held.contents
        is_due = contents >= max(BUILD_FROM, 2 * known) or store.meta("out_of_force") == ANOTHER_WHITENING
        if not store.vectors.lists or not is_due:
            return ""
        try:
            info = self.build_ann(progress=progress)
        except (InputError, IndexStorageError, IndexBusyError) as error:
            return f"no approximate search built: {error}"
        return f"approximate search of {info.contents} pictures built, recall@10 {info.recall:.3f}"

    @override
    def let_rows_stand(self, share: float) -> None:
        pass  # rows are nowhere but on the server

    @override
    def look_anew(self) -> None:
        pass

    @override
    def prepare_reranking(self, *, offline: bool = False, progress: Callable[[int, int], None] | None = None) -> None:
        raise InputError("a re-ranking needs all rows in one memory; an index in Milvus is searched without")

    @override
    def use_storage(self, storage: str) -> None:
        raise InputError("how rows are kept is for an index in a folder to choose; Milvus keeps them as float32")

    @override
    @_of_one_moment
    def auto_threshold(self, *, dim: int | None = None) -> float:
        _check_can(k=1, dim=dim, augmentation=False, reranking="none")
        store, state = self._store, self.state()
        if self._cut is None or self._cut[0] != state:
            self._cut = state, self._learned_cut(layer.in_force(store, self.recipe), store.count_contents())
        return self._cut[1]

    def _learned_cut(self, stored: StoredWhitening | None, contents: int) -> float:
        """As :func:`~coocnet.ranking.similarity_cut`, of the 1,000 pictures whose digests come first."""
        wanted = min(contents, _ALL_UP_TO if contents <= _ALL_UP_TO else list_length(contents) + 1)
        digests, rows = self._store.vectors.sample(stored, PICTURES)
        lists = []
        for start in range(0, len(rows), _QUERIES_AT_ONCE):
            some = slice(start, start + _QUERIES_AT_ONCE)
            for own, row, hits in zip(
                digests[some], rows[some], self._contents(stored, rows[some], wanted, None), strict=True
            ):
                if row.any():
                    # A similarity of exactly 0 is to a blank picture, which counts for nothing.
                    lists.append([one for digest, one in hits if digest != own and one != 0])
        described = max(map(len, lists), default=0) + 1 if wanted == contents else contents
        length = min(list_length(described), min(map(len, lists), default=0))
        best = np.array([one[:length] for one in lists], np.float32)
        return float(np.quantile(chance_likeness(best), 1 - RATE))

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
            approximate=self._approximate(),
            out_of_force=store.meta("out_of_force") or self._why_exact(),
            made=store.meta("made") or "",
            skipped=store.skipped(),
            thumbnails=store.meta("thumbnails") or "",
            unfinished=store.copied_from,
        )

    @override
    def _changed(self) -> None:
        pass  # every search asks the server

    def _why_exact(self) -> str:
        return ANOTHER_WHITENING if self._store.approximate() and self._approximate() is None else ""

    def _expanded(
        self, stored: StoredWhitening | None, queries: Float[np.ndarray, "q d"], name: str, recipe: Recipe
    ) -> Float[np.ndarray, "q d"]:
        """Each query moved towards its nearest rows, for which no more than these are needed."""
        n, alpha = recipe.expansion_neighbours, recipe.expansion_alpha
        whitened = stored is not None or recipe.pooling == "centred"
        expanded = []
        for query, hits in zip(queries, self._nearest(stored, queries, n, None), strict=True):  # copies count each
            known = self._store.vectors.searched_rows(stored, list({hit.digest for hit in hits}))
            there = [known[hit.digest] for hit in hits if hit.digest in known]
            rows = np.array(there, np.float32).reshape(-1, len(query))
            expanded.append(EXPANSIONS[name](rows, query[None], n=n, alpha=alpha, whitened=whitened)[0])
        return np.array(expanded)

    def _plain_similarities(
        self, stored: StoredWhitening | None, hits: Sequence[Hit], asked: Float[np.ndarray, "m d"]
    ) -> dict[bytes, float]:
        """Of what was found to the query, or to that of its relevant pictures which is the most similar."""
        rows = self._store.vectors.searched_rows(stored, list({hit.digest for hit in hits}))
        return {digest: float((asked @ row).max()) for digest, row in rows.items()}

    def _contents(
        self, stored: StoredWhitening | None, queries: Float[np.ndarray, "q d"], k: int, probes: int | None
    ) -> Found:
        """The k most similar contents of each query."""
        vectors = self._store.vectors
        if probes is None:
            return vectors.nearest(stored, queries, k)
        found = vectors.nearest_in_lists(stored, queries, k, probes=probes)
        short = [at for at, hits in enumerate(found) if len(hits) < k or not queries[at].any()]
        exactly = vectors.nearest(stored, queries[short], k) if short else []
        for at, hits in zip(short, exactly, strict=True):
            found[at] = hits
        return found

    def _nearest(
        self, stored: StoredWhitening | None, queries: Float[np.ndarray, "q d"], k: int, probes: int | None
    ) -> list[list[Hit]]:
        """The files of the most similar contents, k for each query, equal similarities in order of path."""
        found = self._contents(stored, queries, k, probes)
        files = self._store.files_of_each(list({digest for hits in found for digest, _ in hits}))
        if k < MOST_HITS and any(
            len(hits) == k and any(digest not in files for digest, _ in hits) for hits in found
        ):  # contents on their way in or out have rows but no files
            return [hits[:k] for hits in self._nearest(stored, queries, min(2 * k, MOST_HITS), probes)]
        return [_hits(hits, files, k) for hits in found]


def _hits(found: Sequence[tuple[bytes, float]], files: Mapping[bytes, Sequence[str]], k: int) -> list[Hit]:
    each = sorted((-similarity, path, digest) for digest, similarity in found for path in files.get(digest, ()))
    return [Hit(rank, path, -negative, digest) for rank, (negative, path, digest) in enumerate(each[:k], 1)]


def _check_can(*, k: int, dim: int | None, augmentation: bool, reranking: str) -> None:
    if k > MOST_HITS:
        raise InputError(f"Milvus gives up to {MOST_HITS} hits, got k={k}")
    for name, is_asked in (
        (f"dim={dim}", dim is not None),
        ("augmentation", augmentation),
        (f"reranking={reranking!r}", reranking != "none"),
    ):
        if is_asked:
            raise InputError(f"{name} needs all rows in one memory; an index in Milvus is searched without")


def _whitened(rows: Float[np.ndarray, "m d"], stored: StoredWhitening | None) -> Float[np.ndarray, "m e"]:
    return rows if stored is None else stored.whitening.apply(rows)
