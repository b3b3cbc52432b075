"""An index, whatever holds its records and searches them: what it holds, and how it is kept up to date."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Float
from typing_extensions import Self

from coocnet.data.images import content_digest, read_bytes
from coocnet.data.remote import canonical, is_url
from coocnet.data.thumbnails import ThumbnailStore
from coocnet.data.walk import real_folder
from coocnet.errors import InputError, printable
from coocnet.fetch import Progress
from coocnet.index import editing, layer, names
from coocnet.index.approximate import ApproximateInfo
from coocnet.index.facts import mismatch
from coocnet.index.gallery import Hit
from coocnet.index.info import IndexInfo
from coocnet.index.records import Records
from coocnet.index.sync import RowSource, SyncProgress, SyncReport, synchronise
from coocnet.index.thumbnails import check_apart, thumbnails_of
from coocnet.recipe import Recipe
from coocnet.whitening import Whitening

if TYPE_CHECKING:
    from coocnet.describe import Describer

_MEAN_FROM_PICTURES = 10
BUILDING = "Building an approximate search"
"""What a sync does then, as its progress says it."""


class Index(ABC):
    """A collection's rows, wherever they are. Made by :func:`open_index`; usable in a ``with`` block.

    Args:
        store: the records, opened.
        recipe: what the caller asks for; None for the recipe that is stored.
    """

    def __init__(self, store: Records, recipe: Recipe | None = None) -> None:
        self._store = store
        self._asked = recipe
        self._names = names.Names(())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Releases the file or the connection; everything is stored already."""
        self._store.close()

    @property
    def recipe(self) -> Recipe:
        """The recipe this index was opened with, else the one that it stores."""
        return self._asked or self._store.recipe

    @property
    @abstractmethod
    def location(self) -> str:
        """The index's own folder, or its address without a password."""

    @property
    def dim(self) -> int:
        """Dimensions of a stored row; 0 before the first sync."""
        return self._store.dim

    @property
    def pictures(self) -> int:
        """Number of files."""
        return self._store.count_pictures()

    @property
    def contents(self) -> int:
        """Number of different contents, each with one row."""
        return self._store.count_contents()

    @property
    def folders(self) -> list[str]:
        """The folders it was synchronised with, in order of their paths."""
        return [os.fsdecode(path) for path in self._store.folder_paths()]

    @abstractmethod
    def state(self) -> str:
        """What a search reads now, told from every other state: it changes with the pictures and the whitening."""

    def check_in_place(self) -> None:
        """Refuses to go on where the index is no longer where it was opened.

        Raises:
            IndexStorageError: it was moved, deleted or replaced.
        """
        self._store.check_in_place()

    def sync(
        self,
        folder: str | os.PathLike[str],
        *,
        describer: RowSource | Callable[[], RowSource] | None = None,
        verify_content: bool = False,
        allow_empty: bool = False,
        progress: Callable[[SyncProgress], None] | None = None,
    ) -> SyncReport:
        """Brings the index up to date with a folder: new pictures in, changed ones anew, deleted ones out.

        Unchanged files are told by size and time of modification, renamed and copied ones by content. Files
        that cannot be described are skipped and reported. It may be interrupted at any moment; the next call
        goes on. Other folders in the same index are left alone. Where the recipe asks for a whitening, that
        of the package is in force from the first picture on if it fits the rows; else a PCA-whitening is learned
        with enough pictures, and again when the collection has doubled or the recipe asks for another. The
        recipe that this index was opened with is stored.

        Args:
            folder: the photographs, with all folders below; a path, or a URL such as ``s3://bucket/photos``.
            describer: one that is loaded already, or a function that makes one when something needs it; or a
                :class:`~coocnet.cluster.ClusterDescriber`.
            verify_content: read every file, even where size and time are as before.
            allow_empty: drop the folder's pictures though it now holds none, or is itself gone.
            progress: called after every file that needed a look, and while an approximate search is built.

        Raises:
            InputError: no such folder, or a URL that cannot be used or reached; or it is empty and the index has
                pictures from it.
            RecipeMismatchError: the describer has another recipe or other weights.
            ClusterError: the describer's cluster cannot be reached or fails; what was described is stored.
            IndexBusyError: another process is synchronising this index.
            IndexStorageError: the disk, or where thumbnails are kept, is full or read-only; what was stored before is
                intact.
        """
        report = self._edited(
            describer,
            lambda source: synchronise(
                self._store,
                self.recipe,
                folder,
                source,
                verify_content=verify_content,
                allow_empty=allow_empty,
                progress=progress,
            ),
        )
        show = None if progress is None else lambda done, total: progress(SyncProgress(done, total, BUILDING))
        report.approximate = self._made_ready(show)
        return report

    def add(
        self,
        paths: Iterable[str | os.PathLike[str]],
        *,
        describer: Describer | Callable[[], Describer] | None = None,
        progress: Callable[[SyncProgress], None] | None = None,
    ) -> SyncReport:
        """Takes picture files in, or anew where they have changed, without a look at any others.

        As a sync does it: known content is recognised, what cannot be described is skipped and reported, and so is a
        file that the next sync of its folder would leave out, being hidden or not named as a picture. A content that
        was taken out is taken back. A file below none of the index's folders stays until :meth:`remove` takes it out.
        An approximate search is built anew by the next sync at the earliest.

        Args:
            paths: the files, by paths or URLs.
            describer: as for :meth:`sync`.
            progress: as for :meth:`sync`.

        Raises:
            InputError: no list of paths.
            RecipeMismatchError: as for :meth:`sync`, and so the others.
            IndexBusyError: another process is synchronising this index.
            IndexStorageError: the disk is full or read-only.
        """
        return self._edited(describer, lambda source: editing.add(self._store, self.recipe, paths, source, progress))

    def remove(self, digests: Iterable[bytes]) -> int:
        """Takes contents out of the collection, with all files that have them; the files themselves stay.

        Searches leave them out at once. Later syncs skip such files, whatever their names, with the reason "taken out
        of the collection", until :meth:`restore` or :meth:`add` takes the content back.

        Args:
            digests: of the contents, as :class:`Hit` has them.

        Returns:
            How many files were taken out.

        Raises:
            InputError: a content that is not in the collection; then nothing is taken out.
            IndexBusyError: another process is synchronising this index.
        """
        with self._store.sole_writer():
            count = editing.remove(self._store, digests)
        self._changed()
        return count

    def removed(self) -> dict[bytes, list[str]]:
        """The contents that were taken out, by digest, each with the files that had it."""
        return editing.removed(self._store)

    def restore(
        self, digests: Iterable[bytes], *, describer: Describer | Callable[[], Describer] | None = None
    ) -> SyncReport:
        """Takes contents back that :meth:`remove` took out: their files are described, and no longer left out.

        Files that are gone, or have another content by now, are skipped and reported. If it is interrupted, what was
        not described yet is still taken out.

        Args:
            digests: of the contents, as :meth:`removed` has them.
            describer: as for :meth:`sync`.

        Raises:
            InputError: a content that was not taken out; then nothing is done.
            RecipeMismatchError: as for :meth:`sync`, and so the others.
            IndexBusyError: another process is synchronising this index.
        """
        return self._edited(describer, lambda source: editing.restore(self._store, self.recipe, digests, source))

    @abstractmethod
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
        """The most similar pictures for each query row, best first: exactly, unless the collection is very large.

        Args:
            rows: as :meth:`Describer.describe` gives them, before whitening.
            k: at most so many for each query.
            threshold: leave out what is less similar; "auto" for :meth:`auto_threshold`, which the similarity to the
                query itself has to reach, not that to an expanded one.
            dim: use only so many dimensions of the whitening, the first ones; all if not given.
            expansion: a name in ``coocnet.ranking.EXPANSIONS``, or "none"; the recipe's if not given.
            augmentation: search in rows that are each moved towards their nearest, by as many and with the same
                exponent as an expansion; see :func:`~coocnet.ranking.augment_database`.
            reranking: a name in ``coocnet.ranking.RERANKINGS``: "reciprocal" puts the 100 most similar in another
                order, or k if that is more; "diffusion" all of them. Either is prepared at the first such search,
                which for a large collection takes minutes, unless :meth:`prepare_reranking` has done it.
            exact: True for an exact search; False for the approximate one of :meth:`build_ann`. If not given, that
                one answers where there is one and it can: up to 100 hits or fewer
                (:attr:`ApproximateInfo.up_to`), of all dimensions, without expansion, augmentation or re-ranking;
                :meth:`info` has its recall. Similarities are exact in both.
            relevant: for each row the digests of contents that the user says are right, none for none: the search
                goes on from the mean of the row and theirs, see :func:`~coocnet.ranking.relevance_feedback`, before
                any expansion. "auto" has to be reached by the similarity to the row or to one of them; a number by
                that to the mean.
            cut: what "auto" is, where the caller has it of :meth:`auto_threshold` already, which takes seconds for a
                large collection after every change.

        Returns:
            One list for each row; equal similarities are in order of path.

        Raises:
            InputError: k below 1, a threshold that is no number, rows that no describer gives, an unknown name, an
                approximate search that there is not or that cannot answer this, FAISS is needed and not installed,
                relevant contents that are not in the collection or are not given for each row, weights by similarity
                of rows that were never whitened or centred, or too few pictures for "auto".
            WhiteningError: more dimensions than the whitening has, or there is no whitening.
        """

    @abstractmethod
    def approximates(self, *, k: int, expansion: str | None = None, reranking: str = "none") -> bool:
        """Whether :meth:`search` would answer approximately where nobody asks for either.

        Args:
            k: as for :meth:`search`, and so are the others.
            expansion: the recipe's if not given.
            reranking: "none", or a name in ``coocnet.ranking.RERANKINGS``.
        """

    @abstractmethod
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

    @abstractmethod
    def look_anew(self) -> None:
        """Has the next search see what is stored now, whatever :meth:`let_rows_stand` says.

        But where rows took a second or more to make the last time, that holds on: single changes would else keep a
        large collection from being searched.
        """

    @abstractmethod
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

    @abstractmethod
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

    @abstractmethod
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

    def use_thumbnails(
        self, place: str | os.PathLike[str] | None, *, apart_from: Iterable[str | os.PathLike[str]] = ()
    ) -> None:
        """Says where small copies of the pictures are kept, for whoever cannot read the pictures themselves.

        A sync makes one for every content that it describes, and those that are missing of its folder's other
        pictures. Copies are deleted with their contents; an interruption may leave some, which no later sync looks
        for. A place is for one index alone. What was kept at another place before stays there.

        Args:
            place: a folder, or a URL such as ``s3://bucket/thumbnails``; None to keep none from now on.
            apart_from: folders that are to be synchronised, besides those that are.

        Raises:
            InputError: no path, a URL that cannot be used, or a place among the pictures of a folder.
            IndexBusyError: another process is synchronising this index.
        """
        wanted = None if place is None else ThumbnailStore(place)
        chosen = "" if wanted is None else wanted.place
        with self._store.sole_writer():
            if wanted is not None:
                for folder in (*self.folders, *map(real_folder, apart_from)):
                    check_apart(wanted, folder)
            if chosen != self.thumbnails_place:
                self._store.put_thumbnails(chosen)
        self._changed()

    @property
    def thumbnails_place(self) -> str:
        """The folder or URL where small copies of the pictures are kept; empty where none are."""
        return self._store.meta("thumbnails") or ""

    def thumbnail(self, digest: bytes) -> bytes | None:
        """The small copy of a content as a JPEG, of at most 440 pixels; None where none is kept.

        Raises:
            InputError: the place of the copies is a URL that cannot be used here.
            IndexStorageError: the copies cannot be read.
        """
        thumbnails = thumbnails_of(self._store)
        return None if thumbnails is None else thumbnails.get(digest)

    @abstractmethod
    def auto_threshold(self, *, dim: int | None = None) -> float:
        """The similarity that a thing which is not in the collection seldom reaches, learned from the pictures here.

        See :func:`~coocnet.ranking.similarity_cut`.

        Args:
            dim: as for :meth:`search`.

        Raises:
            InputError: fewer than 50 different pictures.
            WhiteningError: as for :meth:`search`.
        """

    def describer(
        self,
        *,
        device: str | None = None,
        engine: str | None = None,
        scales: tuple[float, ...] | None = None,
        progress: Progress | None = None,
    ) -> Describer:
        """A describer whose rows belong in this index.

        Args:
            device: see :class:`~coocnet.describe.Describer`.
            engine: as ``device``.
            scales: describe queries at these instead of the recipe's; such rows are to be searched, not stored.
            progress: called during a download.

        Raises:
            InputError: a device or an engine that cannot be had.
            RecipeError: scales that cannot be.
            WeightsError: the weights are missing or damaged.
            RecipeMismatchError: the weights found are not those the index was made with.
        """
        from coocnet.describe import Describer as Loaded  # noqa: PLC0415 - loads torch, only where needed

        recipe = self.recipe
        described = recipe if scales is None else recipe.replace(scales=scales)
        loaded = Loaded(described, device=device, engine=engine, progress=progress)
        self._store.check_recipe(recipe)
        self._store.check_weights(loaded.weights_sha256)
        return loaded

    def row_of_file(self, path: str | os.PathLike[str]) -> Float[np.ndarray, " d"] | None:
        """The stored row of a file with this content, so that a known picture need not be described; or None.

        Raises:
            ImageError: the file cannot be read.
        """
        return self._store.row_of(content_digest(read_bytes(path)))

    def row_of(self, digest: bytes) -> Float[np.ndarray, " d"] | None:
        """The stored row of a content, before whitening, or None where it is not in the collection."""
        return self._store.row_of(digest)

    def files_of(self, digest: bytes) -> list[str]:
        """The files with a content, in order of path; none where it is not in the collection."""
        return self._store.files_of(digest)

    def files_of_each(self, digests: Sequence[bytes]) -> dict[bytes, list[str]]:
        """As :meth:`files_of`, for several contents in one look; unknown contents are left out."""
        return self._store.files_of_each(digests)

    def listing(self, *, offset: int, limit: int, contains: str = "") -> tuple[int, list[tuple[str, bytes]]]:
        """A page of the collection, in order of path.

        Args:
            offset: how many pictures to pass over.
            limit: at most so many.
            contains: only those whose path has this text, whether its ASCII letters are small or capital. What lies
                above the synchronised folder is no part of it, nor above a file that is below none.

        Returns:
            How many pictures there are in all, and the path of each on the page with its content's digest.

        Raises:
            InputError: numbers below 0, or text that no path can hold.
        """
        return names.listing(self._store, self._current_names(), offset=offset, limit=limit, contains=contains)

    def name_of(self, path: str) -> str:
        """What a picture is called to others than the owner of this machine, with nothing above its folder.

        Its path from the folder on that was synchronised, the innermost of several, with "/" on every system. Where
        the index has several, that folder's own name and "/" come first: "photos", the next of the same name
        "photos (2)". A file that is below none goes by its name alone. Characters that cannot be shown are escaped.
        """
        return self._current_names().of(path)

    def names_of(self, paths: Iterable[str]) -> list[str]:
        """As :meth:`name_of`, of several pictures, in one look."""
        known = self._current_names()
        return [known.of(path) for path in paths]

    def mean_row(self) -> Float[np.ndarray, " d"] | None:
        """The mean of the stored rows, before any whitening, each different picture counted once, in float64.

        What the pictures have in common, to be taken away before two of them are compared; see
        :func:`coocnet.explain.explain`. None for fewer than 10 different pictures, whose mean would mostly be the two
        that are compared.
        """
        return self._store.mean_row() if self._store.count_contents() >= _MEAN_FROM_PICTURES else None

    def holds(self, path: str | os.PathLike[str]) -> bool:
        """Whether this file is one of the collection's."""
        if is_url(name := os.fspath(path)):
            return self._store.holds(canonical(name))
        folder, name = os.path.split(os.path.abspath(path))
        names = (os.path.realpath(path), os.path.join(folder, name), os.path.join(os.path.realpath(folder), name))
        return any(self._store.holds(one) for one in names)

    def whitening(self) -> Whitening | None:
        """The whitening that a search uses, or None."""
        stored = layer.in_force(self._store, self.recipe)
        return None if stored is None else stored.whitening

    def use_whitening(self, whitening: Whitening | Literal["auto"] | None) -> None:
        """Puts a given whitening in force, as a new version above the stored rows.

        Args:
            whitening: a fitted one, which then counts whatever the recipe says; None for none, and none is to be
                learned from now on; "auto" to leave it to the recipe again.

        Raises:
            InputError: something else.
            WhiteningError: it was fitted on rows of another recipe or other weights.
            IndexBusyError: another process is synchronising this index.
        """
        wanted: object = whitening
        if not (wanted is None or isinstance(wanted, Whitening) or (isinstance(wanted, str) and wanted == "auto")):
            raise InputError(
                f"a whitening is a Whitening, None or 'auto', got {wanted!r}; read a file by Whitening.load"
            )
        with self._store.sole_writer():
            self._store.adopt(self._recipe_with_known_weights())
            if isinstance(whitening, Whitening):
                self._put_given(whitening)
            elif whitening is None:
                self._store.put_whitening(None, learned_here=False)
            else:
                self._store.forget_whitening()
        self._changed()

    def fit_whitening(
        self,
        *,
        dim: int | None = None,
        shrinkage: float | None = None,
        pairs: Sequence[tuple[str, str]] | None = None,
    ) -> Whitening:
        """Fits a whitening on the pictures here, without putting it in force: to be saved for other collections.

        Args:
            dim: dimensions to keep. If not given the recipe's, or fewer: by PCA at most half as many as there are
                pictures, as the last ones of a small collection are noise.
            shrinkage: see :func:`~coocnet.whitening.fit_pca`; the recipe's if not given. Of pairs, see
                :func:`~coocnet.whitening.fit_pairs`.
            pairs: files of pictures that show the same thing, to learn from them instead of by PCA.

        Raises:
            WhiteningError: too few pictures or pairs for what is asked, or a file that is not in the index.
        """
        return layer.fit(self._store, self.recipe, dim=dim, shrinkage=shrinkage, pairs=pairs)

    def learn_whitening(self, *, dim: int | None = None, shrinkage: float | None = None) -> Whitening:
        """Fits a PCA-whitening on the pictures here and puts it in force, as if given.

        Args:
            dim: as for :meth:`fit_whitening`.
            shrinkage: as for :meth:`fit_whitening`.

        Raises:
            WhiteningError: too few pictures for what is asked.
            IndexBusyError: another process is synchronising this index.
        """
        with self._store.sole_writer():
            fitted = self.fit_whitening(dim=dim, shrinkage=shrinkage)
            self._store.put_whitening(fitted, learned_here=False)
        self._changed()
        return fitted

    @abstractmethod
    def info(self) -> IndexInfo:
        """What the index holds, and how it was made."""

    @abstractmethod
    def _changed(self) -> None:
        """Has the next search look anew at what is stored."""

    @abstractmethod
    def _made_ready(self, progress: Callable[[int, int], None] | None) -> str:
        """Makes ready, after a sync, what a search needs; says what became of the approximate search."""

    def _edited(
        self,
        describer: RowSource | Callable[[], RowSource] | None,
        edit: Callable[[Callable[[], RowSource]], SyncReport],
    ) -> SyncReport:
        """Changes the collection as the sole writer, then learns a whitening where one is due."""
        with self._store.sole_writer():
            if self._store.copied_from:
                raise InputError(
                    f"{printable(self._store.place)} is an unfinished copy: finish it first with "
                    f"coocnet migrate {printable(self._store.copied_from)} {printable(self._store.place)}"
                )
            self._store.adopt(self._recipe_with_known_weights())
            try:
                report = edit(lambda: self._row_source(describer))
            finally:
                self._changed()
            report.whitening = layer.learn_if_due(self._store, self.recipe)
        return report

    def _current_names(self) -> names.Names:
        folders = tuple(self._store.folder_paths())
        if folders != self._names.folders:
            self._names = names.Names(folders)
        return self._names

    def _put_given(self, whitening: Whitening) -> None:
        store = self._store
        weights = store.weights_sha256 or whitening.provenance.get("weights_sha256", "")
        whitening.check_fits(self.recipe.row_fingerprint(), weights, store.dim)
        held = store.whitening()
        if held is None or held.learned_here or not held.whitening.equals(whitening):
            store.put_whitening(whitening, learned_here=False)

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

    def _row_source(self, describer: RowSource | Callable[[], RowSource] | None) -> RowSource:
        if describer is None:
            return self.describer()
        given = describer() if callable(describer) else describer
        if not hasattr(given, "stream"):
            raise InputError(f"a describer is a Describer, or a function that makes one, got {given!r}")
        if given.recipe.row_fingerprint() != self.recipe.row_fingerprint():
            raise mismatch(self._store.place, self.recipe, given.recipe)
        return given
