"""The rows of an index as they are searched now, and what is kept beside it for searching them."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from coocnet.errors import InputError, WhiteningError
from coocnet.index import kept, layer
from coocnet.index.approximate import Approximate, ApproximateInfo, ApproximateSearch, Standing, is_installed
from coocnet.index.gallery import Gallery
from coocnet.index.prepared import Prepared
from coocnet.index.store import Store
from coocnet.recipe import Recipe
from coocnet.whitening import Whitening, unit_rows

_QUICK_S = 0.05
_STANDS_S = 60.0
_AT_ONCE_S = 1.0


class Searchable:
    """What a search uses: held from one to the next, and made anew when the index has changed.

    Args:
        store: the store of record.
        recipe: gives the recipe in use.

    Attributes:
        share: of the time, at most, that the rows may be made anew in; see
            :meth:`coocnet.index.LocalIndex.let_rows_stand`.
    """

    def __init__(self, store: Store, recipe: Callable[[], Recipe]) -> None:
        self._store = store
        self._recipe = recipe
        self._held: Gallery | None = None
        self._stands_until = 0.0
        self._took_s = 0.0
        self.share = 1.0

    def gallery(self, dim: int | None = None) -> Gallery:
        """The rows of this moment, of ``dim`` dimensions if given.

        Raises:
            RecipeMismatchError: the index holds rows of another recipe.
            WhiteningError: more dimensions than the whitening has, or there is no whitening.
        """
        held = self._held
        if held is not None and held.dim == dim and time.monotonic() < self._stands_until:
            return held
        started = time.monotonic()
        store, recipe = self._store, self._recipe()
        if held is not None and (held.state, held.dim) == (kept.state_of(store, recipe), dim):
            return held
        with store.snapshot():
            state = kept.state_of(store, recipe)
            store.check_recipe(recipe)
            stored = layer.in_force(store, recipe)
            whitening = None if stored is None else stored.whitening
            pictures = kept.pictures_of(store, whitening)
        rows = pictures.rows
        prepared, approximate, why_exact = None, None, ""
        if dim is None:
            prepared = Prepared.load(store.location, state)
            standing = self._standing(whitening)
            why_exact = standing.why_not(state, lambda: pictures.digests)
            if standing.built is not None and is_installed():
                approximate = ApproximateSearch(standing.built, state, pictures)
        elif whitening is None:
            raise WhiteningError(
                f"only whitened rows have first dimensions, so {dim} of them cannot be used: this index has "
                "no whitening; give it one with use_whitening, or coocnet index --whitening FILE"
            )
        else:
            whitening = whitening.first(dim)
            rows = unit_rows(rows[:, :dim].astype(np.float32))
        self._held = Gallery(
            state, dim, whitening, pictures.paths, pictures.digests, rows, prepared, approximate, why_exact
        )
        took_s = self._took_s = time.monotonic() - started
        stand_s = took_s * (1 / self.share - 1) if took_s > _QUICK_S else 0.0
        self._stands_until = time.monotonic() + min(stand_s, _STANDS_S)
        return self._held

    def forget(self) -> None:
        """Has the next search look anew at what is kept."""
        self._held = None
        self._stands_until = 0.0

    def look_anew(self) -> None:
        """Has the next search see whether something has changed; see :meth:`coocnet.index.LocalIndex.look_anew`."""
        if self._took_s < _AT_ONCE_S:
            self._stands_until = 0.0

    def build_ann(self, progress: Callable[[int, int], None] | None = None) -> ApproximateInfo:
        """See :meth:`coocnet.index.LocalIndex.build_ann`."""
        gallery = self.gallery()
        pictures = kept.Pictures(gallery.paths, gallery.digests, gallery.rows)
        kind = kept.kind_of(self._store, gallery.whitening)
        built = Approximate.build(self._store.location, kind, gallery.state, pictures, progress)
        self.forget()
        return built.info

    def make_ready(self, progress: Callable[[int, int], None] | None) -> str:
        """Makes ready, after a sync, what a search needs; says what became of the approximate search."""
        if self._store.count_pictures() < kept.KEEP_FROM and not Standing.is_kept(self._store.location):
            return ""
        gallery = self.gallery()
        if not is_installed() or not self._standing(gallery.whitening, wholly=True).is_due(gallery.digests):
            return ""
        try:
            info = self.build_ann(progress)
        except InputError as error:
            return f"no approximate search built: {error}"
        return f"approximate search of {info.contents} pictures built, recall@10 {info.recall:.3f}"

    def _standing(self, whitening: Whitening | None, *, wholly: bool = False) -> Standing:
        return Standing.of(self._store.location, kept.kind_of(self._store, whitening), wholly=wholly)
