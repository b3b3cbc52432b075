"""An index in a folder on this machine: exact search over the rows that the store of record holds."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from coocnet.data.images import content_digest, read_bytes
from coocnet.errors import InputError, WhiteningError
from coocnet.fetch import Progress
from coocnet.index.store import DATABASE_NAME, Store
from coocnet.index.sync import RowSource, SyncProgress, SyncReport, synchronise
from coocnet.recipe import Recipe
from coocnet.whitening import Whitening, fit_pca

if TYPE_CHECKING:
    from coocnet.describe import Describer

WHITEN_FROM_PICTURES = 1024
"""A collection of fewer described pictures is too small to learn a whitening on (see docs/real-photographs.md)."""
_QUERIES_AT_ONCE = 64


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
    size_bytes: int
    made: str
    skipped: dict[str, str]


@dataclass(frozen=True)
class _Gallery:
    """The rows in memory, whitened, as of one version of the store."""

    data_version: int
    paths: list[str]
    digests: list[bytes]
    rows: np.ndarray


class LocalIndex:
    """A collection's rows in a folder. Made by :func:`open_index`; usable in a ``with`` block."""

    def __init__(self, store: Store, weights: str | None = None) -> None:
        self._store = store
        self._weights = weights
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
        """The recipe of the rows."""
        return self._store.recipe

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
        learned when the recipe asks for one, and again when the collection has doubled.

        Args:
            folder: the photographs, with all folders below.
            describer: one that is loaded already, or a function that makes one when something needs it.
            verify_content: read every file, even where size and time are as before.
            allow_empty: drop the folder's pictures though it now holds none.
            progress: called after every file that needed a look.

        Raises:
            InputError: no such folder; or it is empty and the index has pictures from it.
            RecipeMismatchError: the describer has another recipe or other weights.
            IndexBusyError: another process is synchronising this index.
            IndexStorageError: the disk is full or read-only; what was stored before is intact.
        """
        report = synchronise(
            self._store,
            folder,
            lambda: self._row_source(describer),
            verify_content=verify_content,
            allow_empty=allow_empty,
            progress=progress,
        )
        self._gallery = None
        self._learn_whitening_if_due()
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
            InputError: k below 1, or rows of another dimension.
        """
        if k < 1:
            raise InputError(f"k is at least 1, got {k}")
        gallery = self._current_gallery()
        if not gallery.paths:
            return [[] for _ in rows]
        queries = self._whitened(rows)
        if queries.shape[1] != gallery.rows.shape[1]:
            raise InputError(f"rows have {gallery.rows.shape[1]} dimensions in this index, got {queries.shape[1]}")
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

        recipe = self.recipe if self._weights is None else self.recipe.replace(weights=self._weights)
        loaded = Loaded(recipe, device=device, progress=progress)
        self._store.check_weights(loaded.weights_sha256)
        if recipe != self.recipe:
            self._store.set_meta("recipe", recipe.to_toml())
        return loaded

    def row_of_file(self, path: str | os.PathLike[str]) -> Float[np.ndarray, " d"] | None:
        """The stored row of a file with this content, so that a known picture need not be described; or None.

        Raises:
            ImageError: the file cannot be read.
        """
        return self._store.row_of(content_digest(read_bytes(path)))

    def use_whitening(self, whitening: Whitening | None) -> None:
        """Puts a given whitening in force, as a new version above the stored rows; None for none.

        Raises:
            WhiteningError: it was fitted on rows of another recipe or other weights.
        """
        if whitening is not None:
            whitening.check_fits(self.recipe.row_fingerprint(), self._store.meta("weights_sha256") or "")
        self._store.put_whitening(whitening, learned_here=False)
        self._gallery = None

    def learn_whitening(self, dim: int | None = None) -> Whitening:
        """Fits a PCA-whitening on this collection and puts it in force.

        Args:
            dim: dimensions to keep; the recipe's, or fewer where the pictures determine fewer, if not given.

        Raises:
            WhiteningError: too few pictures for what is asked.
        """
        rows = self._distinct_rows()
        if dim is None:
            # At most half as many directions as pictures: the last ones of a small collection are noise.
            dim = min(self.recipe.dim or rows.shape[1], rows.shape[1], len(rows) // 2)
            if dim < 1:
                raise WhiteningError(f"{len(rows)} pictures are too few to learn a whitening on")
        fitted = fit_pca(
            rows,
            dim=dim,
            shrinkage=self.recipe.shrinkage,
            provenance={
                "row_fingerprint": self.recipe.row_fingerprint(),
                "weights_sha256": self._store.meta("weights_sha256") or "",
                "fitted_on": "this collection",
            },
        )
        self._store.put_whitening(fitted, learned_here=True)
        self._gallery = None
        return fitted

    def info(self) -> IndexInfo:
        """What the index holds, and how it was made."""
        store = self._store
        pictures, contents = (
            store.read(f"SELECT count(*) FROM {table}")[0][0]  # noqa: S608 - our own table names
            for table in ("pictures", "descriptors")
        )
        skipped = store.read("SELECT path, reason FROM skipped ORDER BY path")
        stored = store.whitening()
        files = store.location.glob(f"{DATABASE_NAME}*")
        return IndexInfo(
            location=str(store.location),
            recipe=store.recipe,
            pictures=pictures,
            contents=contents,
            dim=int(store.meta("dim") or 0),
            weights_sha256=store.meta("weights_sha256"),
            whitening=None if stored is None else {"version": str(stored.version), **stored.whitening.provenance},
            size_bytes=sum(file.stat().st_size for file in files),
            made=store.meta("made") or "",
            skipped={os.fsdecode(path): reason for path, reason in skipped},
        )

    def _row_source(self, describer: Describer | Callable[[], Describer] | None) -> RowSource:
        if describer is None:
            return self.describer()
        given = describer() if callable(describer) else describer
        self._store.check_recipe(given.recipe)
        return given

    def _learn_whitening_if_due(self) -> None:
        if self.recipe.whitening != "pca":
            return
        stored = self._store.whitening()
        if stored is not None and not stored.learned_here:
            return
        fitted_on = int(stored.whitening.provenance["pictures"]) if stored else 0
        contents = self._store.read("SELECT count(*) FROM descriptors")[0][0]
        if contents >= max(WHITEN_FROM_PICTURES, 2 * fitted_on):
            self.learn_whitening()

    def _distinct_rows(self) -> np.ndarray:
        _, digests, rows = self._store.matrix()
        first = {digest: position for position, digest in reversed(list(enumerate(digests)))}
        return rows[sorted(first.values())]

    def _current_gallery(self) -> _Gallery:
        version = self._store.data_version()
        if self._gallery is None or self._gallery.data_version != version:
            paths, digests, rows = self._store.matrix()
            self._gallery = _Gallery(version, paths, digests, self._whitened(rows))
        return self._gallery

    def _whitened(self, rows: np.ndarray) -> np.ndarray:
        stored = self._store.whitening() if self.recipe.whitening != "none" else None
        return np.asarray(rows, np.float32) if stored is None else stored.whitening.apply(rows)


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
        recipe: how pictures are described; may be left out for an index that exists. A recipe that differs
            only in its whitening changes that layer and keeps the rows; one that names the weights otherwise, or
            another place for them, is taken over once the file there proves to be the same.

    Raises:
        InputError: a location that is not a path.
        IndexFileError: no index there, or not one that can be opened; see :mod:`coocnet.errors`.
        RecipeMismatchError: the index holds rows of another recipe.
    """
    if "://" in os.fspath(location):
        raise InputError(f"an index is a folder on this machine, got {os.fspath(location)!r}")
    return LocalIndex(Store.open(location, recipe), None if recipe is None else recipe.weights)
