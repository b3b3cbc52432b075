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
    """An index in a folder on this machine, searched exactly, or by FAISS where that was built."""

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
        queries = checked_rows(rows, int(self._store.meta("dim") or 0))
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

    def let_rows_stand(self, share: float) -> None:
        """Has searches answer from the rows of some moments ago, where these take long to make anew.

        While a sync goes on, the rows of a large collection would be made anew for nearly every search. Now they are
        so often at most that it takes this share of the time, and once a minute at least; those that are made within
        50 ms are so at every change, as before.

        Args:
            share: above 0, at most 1, which is the beginning.

        Raises:
            InputError: something else.
        """
        given: object = share
        if isinstance(given, bool) or not isinstance(given, int | float) or not 0 < given <= 1:
            raise InputError(f"a share of the time is above 0 and at most 1, got {share!r}")
        self._searchable.share = float(share)

    def look_anew(self) -> None:
        """Has the next search see what is stored now, whatever :meth:`let_rows_stand` says.

        But where rows took a second or more to make the last time, that holds on: single changes would else keep a
        large collection from being searched.
        """
        self._searchable.look_anew()

    def build_ann(self, *, progress: Callable[[int, int], None] | None = None) -> ApproximateInfo:
        """Builds an approximate search through FAISS and keeps it beside the index; a sync builds it anew when due.

        Pictures that come or go are seen at once, without building. It suits the whitening in force; with another
        one, searches are exact until it is built again, which the next sync does. From 500,000 pictures on a sync
        builds one unasked.

        Args:
            progress: called with pictures done, and pictures in all.

        Returns:
            What :meth:`info` has of it from now on.

        Raises:
            InputError: FAISS is not installed, fewer than 1,000 different pictures, pictures that are so little alike
                that it would not be faster, or it cannot be written.
        """
        return self._searchable.build_ann(progress)

    def prepare_reranking(self, *, offline: bool = False, progress: Callable[[int, int], None] | None = None) -> None:
        """Finds each picture's neighbours once and keeps them beside the index, for every re-ranking to come.

        They are left unused once the collection or its whitening changes, until this is called again.

        Args:
            offline: also solve diffusion for every picture: 8 kB for each, and then a query is a few lookups.
            progress: called with pictures whose neighbours are found, and pictures in all.

        Raises:
            InputError: weights by similarity of rows that were never whitened or centred; scipy is not installed; or
                the file cannot be written.
        """
        gallery = self._searchable.gallery()
        prepared = Prepared.of(
            gallery.wide_rows, offline=offline, whitened=gallery.is_whitened(self.recipe), progress=progress
        )
        prepared.save(self._store.location, gallery.state)
        self._searchable.forget()

    @override
    def auto_threshold(self, *, dim: int | None = None) -> float:
        return self._searchable.gallery(dim).cut

    def use_storage(self, storage: str) -> None:
        """Says how the rows of 5,000 pictures or more are kept for searching.

        Args:
            storage: "float32"; or "float16", half the memory and disk beside the index, whose own rows stay float32.
                Then the similarities are those of the rounded rows: on unit rows off by less than 0.0005, in practice
                by about 0.00001, so that only pictures as alike as that may change their order.

        Raises:
            InputError: something else.
            IndexBusyError: another process is synchronising this index.
        """
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
    def _made_ready(self) -> str:
        return self._searchable.make_ready()


def open_index(location: str | os.PathLike[str], recipe: Recipe | None = None) -> LocalIndex:
    """Opens the index at ``location``, a folder; makes it if a recipe is given and there is none.

    Args:
        location: the index's own folder, not that of the photographs.
        recipe: how pictures are described; may be left out for an index that exists. One that differs only above
            the rows (whitening, name of the weights) is used in place of the stored one, and stored by the next
            sync.

    Raises:
        InputError: a location that is not a path, or a recipe that is none.
        IndexMissingError: no index there, and no recipe to make one with.
        IndexFileError: not one that can be opened; see :mod:`coocnet.errors`.
        RecipeMismatchError: the index holds rows of another recipe.
    """
    place: object = location
    if not isinstance(place, str | os.PathLike) or "://" in os.fspath(place) or "\0" in os.fspath(place):
        raise InputError(f"an index is a folder on this machine, got {place!r}")
    if recipe is not None and not isinstance(recipe, Recipe):
        raise InputError(f"a recipe is a Recipe, got {recipe!r}; load one with Recipe.load({str(recipe)!r})")
    return LocalIndex(Store.open(location, recipe), recipe)
