"""An index in a folder on this machine: exact search over the rows that the store of record holds."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float
from typing_extensions import override

from coocnet.errors import InputError
from coocnet.index import editing, kept
from coocnet.index.approximate import ApproximateInfo
from coocnet.index.collection import Index
from coocnet.index.gallery import Hit, check_count, check_names, check_threshold, checked_rows
from coocnet.index.info import IndexInfo, info_of
from coocnet.index.prepared import Prepared
from coocnet.index.searchable import Searchable
from coocnet.index.store import Store
from coocnet.recipe import Recipe


class LocalIndex(Index):
    """An index in a folder on this machine, searched exactly, or by FAISS where that was built.

    Args:
        store: the folder's database, opened.
        recipe: what the caller asks for; None for the recipe that is stored.
    """

    _store: Store

    def __init__(self, store: Store, recipe: Recipe | None = None) -> None:
        super().__init__(store, recipe)
        self._searchable = Searchable(store, lambda: self.recipe)

    @property
    @override
    def location(self) -> str:
        return os.fspath(self._store.location)

    @override
    def state(self) -> str:
        return kept.state_of(self._store, self.recipe)

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
        chosen = self.recipe.expansion if expansion is None else expansion
        check_names(chosen, reranking)
        gallery = self._searchable.gallery(dim)
        queries = checked_rows(rows, self._store.dim)
        given = None if relevant is None else editing.rows_given(self._store, relevant, len(queries))
        if not gallery.paths:
            return [[] for _ in queries]
        found = gallery.find(
            queries,
            self.recipe,
            k=k,
            threshold=threshold,
            expansion=chosen,
            augmentation=augmentation,
            reranking=reranking,
            exact=exact,
            relevant=given,
            cut=cut,
        )
        return list(found)

    @override
    def approximates(self, *, k: int, expansion: str | None = None, reranking: str = "none") -> bool:
        chosen = self.recipe.expansion if expansion is None else expansion
        gallery = self._searchable.gallery()
        return bool(gallery.paths) and gallery.approximates(k, plainly=chosen == "none" and reranking == "none")

    @override
    def let_rows_stand(self, share: float) -> None:
        given: object = share
        if isinstance(given, bool) or not isinstance(given, int | float) or not 0 < given <= 1:
            raise InputError(f"a share of the time is above 0 and at most 1, got {share!r}")
        self._searchable.share = float(share)

    @override
    def look_anew(self) -> None:
        self._searchable.look_anew()

    @override
    def build_ann(self, *, progress: Callable[[int, int], None] | None = None) -> ApproximateInfo:
        return self._searchable.build_ann(progress)

    @override
    def prepare_reranking(self, *, offline: bool = False, progress: Callable[[int, int], None] | None = None) -> None:
        gallery = self._searchable.gallery()
        prepared = Prepared.of(
            gallery.wide_rows, offline=offline, whitened=gallery.is_whitened(self.recipe), progress=progress
        )
        prepared.save(self._store.location, gallery.state)
        self._searchable.forget()

    @override
    def auto_threshold(self, *, dim: int | None = None) -> float:
        return self._searchable.gallery(dim).cut

    @override
    def use_storage(self, storage: str) -> None:
        if storage not in kept.STORAGES:
            raise InputError(f"rows are kept as {' or '.join(kept.STORAGES)}, got {storage!r}")
        with self._store.sole_writer():
            if kept.storage_of(self._store) != storage:
                self._store.put_storage(storage)
        self._searchable.forget()

    @override
    def info(self) -> IndexInfo:
        return info_of(self._store, self.recipe)

    @override
    def _changed(self) -> None:
        self._searchable.forget()

    @override
    def _made_ready(self, progress: Callable[[int, int], None] | None) -> str:
        return self._searchable.make_ready(progress)
