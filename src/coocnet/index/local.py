"""An index in a folder on this machine: exact search over the rows that the store of record holds."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Float

from coocnet.data.images import content_digest, read_bytes
from coocnet.errors import InputError
from coocnet.fetch import Progress
from coocnet.index import layer
from coocnet.index.database import DATABASE_NAME
from coocnet.index.store import Store, SyncedFolder, mismatch
from coocnet.index.sync import RowSource, SyncProgress, SyncReport, sole_writer, synchronise
from coocnet.recipe import Recipe
from coocnet.whitening import Whitening

if TYPE_CHECKING:
    from coocnet.describe import Describer

_QUERIES_AT_ONCE = 64
_UNIT_WITHIN = 1e-3


@dataclass(frozen=True)
class Hit:
    """A picture found.

    Attributes:
        rank: 1 for the most similar.
        path: absolute path of the file.
        similarity: cosine of the whitened rows, at most 1; larger is nearer.
        digest: of the file's content; copies share it.
    """

    rank: int
    path: str
    similarity: float
    digest: bytes


@dataclass(frozen=True)
class IndexInfo:
    """What an index holds.

    Attributes:
        location: its folder.
        recipe: how its rows were made.
        pictures: number of files.
        contents: number of different contents, each with one row.
        dim: dimensions of a stored row; 0 before the first sync.
        weights_sha256: weights in use; None before the first sync.
        whitening: provenance of the whitening in force, or None.
        whitening_declined: the user asked for none.
        folders: the folders it was synchronised with.
        size_bytes: of the index on disk.
        made: when, UTC.
        skipped: files left out at the last sync, with their reasons.
    """

    location: str
    recipe: Recipe
    pictures: int
    contents: int
    dim: int
    weights_sha256: str | None
    whitening: dict[str, str] | None
    whitening_declined: bool
    folders: list[SyncedFolder]
    size_bytes: int
    made: str
    skipped: dict[str, str]


@dataclass(frozen=True)
class _Gallery:
    """The rows in memory as of one generation of the store, and the whitening that is on them."""

    generation: int
    whitening: Whitening | None
    paths: list[str]
    digests: list[bytes]
    rows: np.ndarray


class LocalIndex:
    """A collection's rows in a folder. Made by :func:`open_index`; usable in a ``with`` block."""

    def __init__(self, store: Store, recipe: Recipe | None = None) -> None:
        self._store = store
        self._asked = recipe
        self._gallery: _Gallery | None = None

    def __enter__(self) -> LocalIndex:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Releases the file; everything is stored already."""
        self._store.close()

    @property
    def recipe(self) -> Recipe:
        """The recipe this index was opened with, else the one that it stores."""
        return self._asked or self._store.recipe

    def sync(
        self,
        folder: str | os.PathLike[str],
        *,
        describer: Describer | Callable[[], Describer] | None = None,
        verify_content: bool = False,
        allow_empty: bool = False,
        progress: Callable[[SyncProgress], None] | None = None,
    ) -> SyncReport:
        """Brings the index up to date with a folder: new pictures in, changed ones anew, deleted ones out.

        Unchanged files are told by size and time of modification, renamed and copied ones by content. Files
        that cannot be described are skipped and reported. It may be interrupted at any moment; the next call
        goes on. Other folders in the same index are left alone. With enough pictures a PCA-whitening is
        learned when the recipe asks for one, and again when the collection has doubled or the recipe asks for
        another. The recipe that this index was opened with is stored.

        Args:
            folder: the photographs, with all folders below.
            describer: one that is loaded already, or a function that makes one when something needs it.
            verify_content: read every file, even where size and time are as before.
            allow_empty: drop the folder's pictures though it now holds none, or is itself gone.
            progress: called after every file that needed a look.

        Raises:
            InputError: no such folder; or it is empty and the index has pictures from it.
            RecipeMismatchError: the describer has another recipe or other weights.
            IndexBusyError: another process is synchronising this index.
            IndexStorageError: the disk is full or read-only; what was stored before is intact.
        """
        with sole_writer(self._store):
            self._store.adopt(self._recipe_with_known_weights())
            report = synchronise(
                self._store,
                self.recipe,
                folder,
                lambda: self._row_source(describer),
                verify_content=verify_content,
                allow_empty=allow_empty,
                progress=progress,
            )
            self._gallery = None
            report.whitening = layer.learn_if_due(self._store, self.recipe)
        return report

    def search(self, rows: Float[np.ndarray, "q d"], *, k: int, threshold: float | None = None) -> list[list[Hit]]:
        """The most similar pictures for each query row, exactly, by falling similarity.

        Args:
            rows: as :meth:`Describer.describe` gives them, before whitening.
            k: at most so many for each query.
            threshold: leave out what is less similar.

        Returns:
            One list for each row; equal similarities are in order of path.

        Raises:
            InputError: k below 1, a threshold that is no number, or rows that no describer gives.
        """
        _check_count(k)
        if threshold is not None and not math.isfinite(threshold):
            raise InputError(f"a threshold is a number, got {threshold}")
        gallery = self._current_gallery()
        queries = _checked_rows(rows, int(self._store.meta("dim") or 0))
        if not gallery.paths:
            return [[] for _ in queries]
        if gallery.whitening is not None:
            queries = gallery.whitening.apply(queries)
        found = []
        for start in range(0, len(queries), _QUERIES_AT_ONCE):
            similarities = queries[start : start + _QUERIES_AT_ONCE] @ gallery.rows.T
            found += [_best(gallery, one, k, threshold) for one in similarities]
        return found

    def describer(self, *, device: str | None = None, progress: Progress | None = None) -> Describer:
        """A describer whose rows belong in this index.

        Raises:
            WeightsError: the weights are missing or damaged.
            RecipeMismatchError: the weights found are not those the index was made with.
        """
        from coocnet.describe import Describer as Loaded  # noqa: PLC0415 - loads torch, only where needed

        recipe = self.recipe
        loaded = Loaded(recipe, device=device, progress=progress)
        self._store.check_recipe(recipe)
        self._store.check_weights(loaded.weights_sha256)
        return loaded

    def row_of_file(self, path: str | os.PathLike[str]) -> Float[np.ndarray, " d"] | None:
        """The stored row of a file with this content, so that a known picture need not be described; or None.

        Raises:
            ImageError: the file cannot be read.
        """
        return self._store.row_of(content_digest(read_bytes(path)))

    def holds(self, path: str | os.PathLike[str]) -> bool:
        """Whether this file is one of the collection's."""
        return self._store.holds(os.path.realpath(path)) or self._store.holds(os.path.abspath(path))

    def use_whitening(self, whitening: Whitening | Literal["auto"] | None) -> None:
        """Puts a given whitening in force, as a new version above the stored rows.

        Args:
            whitening: a fitted one, which then counts whatever the recipe says; None for none, and none is to be
                learned from now on; "auto" to leave it to the recipe again.

        Raises:
            WhiteningError: it was fitted on rows of another recipe or other weights.
            IndexBusyError: another process is synchronising this index.
        """
        if isinstance(whitening, Whitening):
            weights = self._store.weights_sha256 or whitening.provenance.get("weights_sha256", "")
            whitening.check_fits(self.recipe.row_fingerprint(), weights)
        with sole_writer(self._store):
            if isinstance(whitening, str):
                self._store.forget_whitening()
            else:
                self._store.put_whitening(whitening, learned_here=False)
        self._gallery = None

    def fit_whitening(self, *, dim: int | None = None, shrinkage: float | None = None) -> Whitening:
        """Fits a PCA-whitening on the pictures here, without putting it in force: to be saved for other collections.

        Args:
            dim: dimensions to keep; the recipe's, or fewer where the pictures determine fewer, if not given.
            shrinkage: see :func:`~coocnet.whitening.fit_pca`; the recipe's if not given.

        Raises:
            WhiteningError: too few pictures for what is asked.
        """
        return layer.fit(self._store, self.recipe, dim=dim, shrinkage=shrinkage)

    def learn_whitening(self, *, dim: int | None = None, shrinkage: float | None = None) -> Whitening:
        """Fits a PCA-whitening on the pictures here and puts it in force; arguments as :meth:`fit_whitening`.

        Raises:
            WhiteningError: too few pictures for what is asked.
            IndexBusyError: another process is synchronising this index.
        """
        with sole_writer(self._store):
            fitted = self.fit_whitening(dim=dim, shrinkage=shrinkage)
            self._store.put_whitening(fitted, learned_here=True)
        self._gallery = None
        return fitted

    def info(self) -> IndexInfo:
        """What the index holds, and how it was made."""
        store = self._store
        with store.snapshot():
            stored = store.whitening()
            files = store.location.glob(f"{DATABASE_NAME}*")
            return IndexInfo(
                location=str(store.location),
                recipe=store.recipe,
                pictures=store.count_pictures(),
                contents=store.count_contents(),
                dim=int(store.meta("dim") or 0),
                weights_sha256=store.weights_sha256,
                whitening=None if stored is None else {"version": str(stored.version), **stored.whitening.provenance},
                whitening_declined=store.whitening_declined(),
                folders=store.folders(),
                size_bytes=sum(file.stat().st_size for file in files),
                made=store.meta("made") or "",
                skipped=store.skipped(),
            )

    def _recipe_with_known_weights(self) -> Recipe:
        """The recipe to store: it names the weights anew only where the file there is known to be the same."""
        recipe, stored = self.recipe, self._store.recipe
        if self._store.weights_sha256 is None or recipe.weights == stored.weights:
            return recipe
        from coocnet.backbones import locate_weights  # noqa: PLC0415 - loads torch, only where needed

        place = locate_weights(recipe.backbone, recipe.weights)
        if place is None:
            return recipe.replace(weights=stored.weights)
        self._store.check_weights(place.sha256)
        return recipe

    def _row_source(self, describer: Describer | Callable[[], Describer] | None) -> RowSource:
        if describer is None:
            return self.describer()
        given = describer() if callable(describer) else describer
        if given.recipe.row_fingerprint() != self.recipe.row_fingerprint():
            raise mismatch(self._store.location, self.recipe, given.recipe)
        return given

    def _current_gallery(self) -> _Gallery:
        if self._gallery is None or self._gallery.generation != self._store.generation():
            with self._store.snapshot():
                generation = self._store.generation()
                self._store.check_recipe(self.recipe)
                paths, digests, rows = self._store.matrix()
                whitening = layer.in_force(self._store, self.recipe)
            if whitening is not None:
                rows = whitening.apply(rows)
            self._gallery = _Gallery(generation, whitening, paths, digests, rows)
        return self._gallery


def _check_count(k: object) -> None:
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise InputError(f"k is a whole number of at least 1, got {k!r}")


def _checked_rows(rows: np.ndarray, dim: int) -> np.ndarray:
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


def _best(gallery: _Gallery, similarities: np.ndarray, k: int, threshold: float | None) -> list[Hit]:
    count = min(k, len(similarities))
    least = np.partition(similarities, -count)[-count]
    if threshold is not None:
        least = max(least, threshold)
    candidates = np.flatnonzero(similarities >= least)
    order = candidates[np.argsort(-similarities[candidates], kind="stable")][:count]
    return [
        Hit(rank, gallery.paths[at], float(similarities[at]), gallery.digests[at])
        for rank, at in enumerate(order, start=1)
    ]


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
    if "://" in os.fspath(location):
        raise InputError(f"an index is a folder on this machine, got {os.fspath(location)!r}")
    if recipe is not None and not isinstance(recipe, Recipe):
        raise InputError(f"a recipe is a Recipe, got {recipe!r}; load one with Recipe.load({str(recipe)!r})")
    return LocalIndex(Store.open(location, recipe), recipe)
