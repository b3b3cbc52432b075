"""Bringing an index up to date with a folder.

What is done is stored as it is done, in transactions of about half a second, so an interruption at any moment
costs at most that much; the next run finds by stamp and by content what is already there.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Collection, Container, Iterator
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import numpy as np

from coocnet.data.images import Picture, content_digest, decode, read_bytes
from coocnet.data.thumbnails import ThumbnailStore, large_enough
from coocnet.data.walk import FileStamp, FoundFile, Walk, is_gone, real_folder, walk
from coocnet.errors import ImageError, InputError, printable
from coocnet.index.layer import take_shipped
from coocnet.index.records import Described, Records, Removal
from coocnet.index.removals import CHANGED, TAKEN_OUT
from coocnet.index.thumbnails import drop_unused, make_missing, thumbnails_of
from coocnet.recipe import Recipe

_STORE_EVERY_S = 0.5
_KEPT = (
    "The index has {} pictures from there. Is a disk not mounted? "
    "Nothing was dropped; to drop them, allow an empty folder (--allow-empty)."
)


class RowSource(Protocol):
    """What a sync needs: a :class:`~coocnet.describe.Describer`, or one whose work is done elsewhere."""

    @property
    def recipe(self) -> Recipe: ...  # noqa: D102
    @property
    def dim(self) -> int: ...  # noqa: D102
    @property
    def weights_sha256(self) -> str: ...  # noqa: D102
    @property
    def engines(self) -> Collection[str]: ...  # noqa: D102
    def stream(  # noqa: D102
        self, items: Iterator[Job], load: Callable[[Job], Picture | None]
    ) -> Iterator[tuple[Job, np.ndarray | ImageError | None]]: ...


@dataclass
class SyncProgress:
    """Where a sync stands.

    Attributes:
        done: files that needed a look so far; or pictures, of what it does afterwards.
        total: the same in all.
        what: the step of the work, in words.
    """

    done: int
    total: int
    what: str = "Describing"


@dataclass
class SyncReport:
    """What a sync did.

    Attributes:
        added: new pictures described.
        updated: pictures whose content changed.
        recognised: files renamed, copied or touched whose content is known, not described again.
        unchanged: pictures left as they were.
        dropped: pictures whose files are gone.
        skipped: files left out, each with its reason.
        described: rows computed.
        others: files without the name of a picture, or hidden; not looked at.
        linked_folders: links to folders; not followed.
        thumbnails: small copies made of pictures that were here without one.
        whitening: what became of the whitening, in words; empty where nothing did.
        approximate: what became of the approximate search, in words; empty where nothing did.
        time_s: how long it took.
    """

    added: int = 0
    updated: int = 0
    recognised: int = 0
    unchanged: int = 0
    dropped: int = 0
    described: int = 0
    others: int = 0
    linked_folders: int = 0
    thumbnails: int = 0
    skipped: list[ImageError] = field(default_factory=list)
    whitening: str = ""
    approximate: str = ""
    time_s: float = 0.0


@dataclass
class Job:
    """A file on its way into the index; with ``expected`` only if that is its content."""

    file: FoundFile
    is_new: bool
    expected: bytes = b""
    digest: bytes = b""

    @property
    def path(self) -> str:
        """The file's."""
        return self.file.path


Outcome: TypeAlias = "np.ndarray | ImageError | None"


def synchronise(
    store: Records,
    recipe: Recipe,
    folder: str | os.PathLike[str],
    describer: Callable[[], RowSource],
    *,
    verify_content: bool,
    allow_empty: bool,
    progress: Callable[[SyncProgress], None] | None,
) -> SyncReport:
    """See :meth:`coocnet.index.LocalIndex.sync`; to be called by the sole writer."""
    started = time.monotonic()
    store.check_soundness()
    store.check_recipe(recipe)
    root = real_folder(folder)
    thumbnails = thumbnails_of(store, apart_from=root)
    contents = [] if thumbnails is None else list(store.contents_below(root))
    found, stored = _look_through(folder, store, allow_empty)
    removals = store.taken_out()
    run = Run(store, recipe, set(stored), progress, removed={removal.digest for removal in removals})
    known_as_removed = set() if verify_content else {(removal.path, removal.stamp) for removal in removals}
    left_out = [
        file.path for file in found.files if file.path not in stored and (file.path, file.stamp) in known_as_removed
    ]
    out = set(left_out)
    todo = [
        Job(file, is_new=file.path not in stored)
        for file in found.files
        if file.path not in out and (verify_content or stored.get(file.path) != file.stamp)
    ]
    run.report.unchanged = len(found.files) - len(left_out) - len(todo)
    run.report.others, run.report.linked_folders = found.others, found.linked_folders
    run.report.skipped += [*found.skipped, *found.unread_folders, *(ImageError(path, TAKEN_OUT) for path in left_out)]
    if todo:
        run.describe(todo, describer)
    run.drop_gone(found)
    if not is_gone(found.root):
        store.note_sync(found.root, {error.path: error.reason for error in run.report.skipped})
    else:
        store.forget_folder(found.root)
    run.report.dropped += _drop_former_name(store, folder, found.root)
    if thumbnails is not None:
        show = (
            None if progress is None else lambda done, total: progress(SyncProgress(done, total, "Making thumbnails"))
        )
        run.report.thumbnails = make_missing(store, thumbnails, root, show)
        drop_unused(store, contents)
    run.report.time_s = time.monotonic() - started
    return run.report


class Loader:
    """Reads a file once for both its digest and its pixels; None where the content needs no description.

    Called in several threads. A copy that is sent to another process has the known contents of its beginning, where
    these are held in memory, and tells copies only among the files that it was given itself.

    Args:
        known: contents that have rows.
        removed: contents that are left out.
        size_px: limit of the longer side; None for none.
        thumbnails: where small copies are kept, if they are.
    """

    def __init__(
        self,
        known: Container[bytes],
        removed: Container[bytes],
        size_px: int | None,
        thumbnails: ThumbnailStore | None = None,
    ) -> None:
        self._known = known
        self._removed = removed
        self._size_px = size_px
        self._thumbnails = thumbnails
        self._in_flight: set[bytes] = set()
        self._guard = threading.Lock()

    def __reduce__(self) -> tuple[object, ...]:
        known = Sorted(self._known if isinstance(self._known, set) else ())
        return Loader, (known, self._removed, self._size_px, self._thumbnails)

    def __call__(self, job: Job) -> Picture | None:
        """The picture, and its digest noted in the job.

        Raises:
            ImageError: it cannot be read or decoded, or is not what it should be.
            IndexStorageError: its small copy cannot be written.
        """
        content = read_bytes(job.path)
        job.digest = content_digest(content)
        if job.digest in self._removed:
            raise ImageError(job.path, TAKEN_OUT)
        if job.expected not in (b"", job.digest):
            raise ImageError(job.path, CHANGED)
        with self._guard:
            if job.digest in self._known or job.digest in self._in_flight:
                return None
            self._in_flight.add(job.digest)
        picture = decode(content, job.path, size_px=self._size_px)
        if self._thumbnails is not None:
            self._thumbnails.put(job.digest, large_enough(picture, content))
        return picture


class Sorted:
    """Digests as one array, which processes of one machine can share: 16 bytes each."""

    def __init__(self, digests: Collection[bytes]) -> None:
        self._digests = np.sort(np.array(list(digests), "S16"))

    def __contains__(self, digest: object) -> bool:
        place = np.searchsorted(self._digests, np.array(digest, "S16"))
        return bool((self._digests[place : place + 1] == digest).any())


class Run:
    """Files on their way into the index.

    Args:
        store: the store of record.
        recipe: of the rows.
        stored_paths: those of the files that are in the index already.
        progress: called after every file.
        removed: contents that are left out.
    """

    def __init__(
        self,
        store: Records,
        recipe: Recipe,
        stored_paths: set[str],
        progress: Callable[[SyncProgress], None] | None,
        *,
        removed: set[bytes],
    ) -> None:
        self.store = store
        self.recipe = recipe
        self.stored_paths = stored_paths
        self.known = store.digests()
        self.progress = progress
        self.removed = removed
        self.thumbnails = thumbnails_of(store)
        self.report = SyncReport()
        self.unusable: set[str] = set()
        self._finished: list[Described] = []
        self._copies: list[Job] = []
        self._bound: set[str] | None = None
        self._met_removed: list[Removal] = []
        self._stored_at = time.monotonic()

    def describe(self, todo: list[Job], describer: Callable[[], RowSource]) -> None:
        """Stores every file of ``todo`` that can be described, the new content described."""
        source = describer()
        self._bind(source)
        take_shipped(self.store, self.recipe)
        load = Loader(self.known, self.removed, self.recipe.size_px or None, self.thumbnails)
        done = 0
        try:
            for job, outcome in source.stream(iter(todo), load):
                self._bind(source)
                self._take(job, outcome)
                done += 1
                if self.progress:
                    self.progress(SyncProgress(done, len(todo)))
                if time.monotonic() - self._stored_at >= _STORE_EVERY_S:
                    self._flush()
        finally:
            self._flush()
        for job in self._copies:
            self._take_copy(job)
        self._flush()
        self.store.note_removals(self._met_removed)

    def drop_gone(self, found: Walk) -> None:
        """Forgets pictures whose files are gone or no longer pictures; keeps what merely could not be looked at."""
        present = {file.path for file in found.files} | {error.path for error in found.skipped if error.unread}
        unknown = tuple(os.path.join(error.path, "") for error in found.unread_folders)
        gone = [path for path in self.stored_paths - present if not (unknown and path.startswith(unknown))]
        self.store.drop([*gone, *self.unusable])
        self.report.dropped += len(gone) + len(self.unusable)

    def _bind(self, source: RowSource) -> None:
        """Notes what rows are made with, before the first one of each engine."""
        engines = {*source.engines}
        if self._bound is None or not engines <= self._bound:
            recipe = self.recipe.replace(weights=source.recipe.weights)
            self.store.bind(recipe, source.weights_sha256, source.dim, *engines)
            self._bound = engines

    def _take(self, job: Job, outcome: Outcome) -> None:
        is_failure = isinstance(outcome, ImageError) and outcome.reason not in {TAKEN_OUT, CHANGED}
        if is_failure and job.digest in self.known:
            outcome = None  # of a worker that was not told what is known, and could not describe it
        if isinstance(outcome, ImageError):
            if job.digest in self.removed:
                self._met_removed.append(Removal(job.digest, job.path, job.file.stamp))
            self._skip(job, outcome)
        elif outcome is None and job.digest not in self.known:
            self._copies.append(job)  # its first copy is still on the way, or will turn out damaged
        else:
            self._finish(job, None if job.digest in self.known else outcome)

    def _take_copy(self, job: Job) -> None:
        if job.digest in self.known:
            self._finish(job, None)
        else:
            self._skip(job, ImageError(job.path, "same content as another file that was skipped"))

    def _finish(self, job: Job, row: np.ndarray | None) -> None:
        if row is not None:
            self.known.add(job.digest)
            self.report.described += 1
        if row is None:
            self.report.recognised += 1
        elif job.is_new:
            self.report.added += 1
        else:
            self.report.updated += 1
        self._finished.append(Described(job.path, job.file.stamp, job.digest, row))

    def _skip(self, job: Job, error: ImageError) -> None:
        self.report.skipped.append(error)
        if job.path in self.stored_paths and not error.unread:
            self.unusable.add(job.path)

    def _flush(self) -> None:
        if self._finished:
            finished, self._finished = self._finished, []
            self.store.put(finished)
        self._stored_at = time.monotonic()


def _look_through(
    folder: str | os.PathLike[str], store: Records, allow_empty: bool
) -> tuple[Walk, dict[str, FileStamp]]:
    """What the folder holds now, and what is stored of it."""
    root = real_folder(folder)
    stored = store.pictures_below(root)
    known = bool(stored) or os.fsencode(root) in store.folder_paths()
    try:
        found = Walk(root) if known and allow_empty and is_gone(root) else walk(root)
    except InputError as error:
        if not stored:
            raise
        raise InputError(f"{error}. {_KEPT.format(len(stored))}") from None
    if stored and not found.files and not allow_empty:
        raise InputError(f"{printable(root)} holds no pictures now. {_KEPT.format(len(stored))}")
    return found, stored


def _drop_former_name(store: Records, folder: str | os.PathLike[str], root: str) -> int:
    """Where a folder of the collection was replaced by a link to another, its pictures go by their real names now."""
    literal = os.path.abspath(os.path.expanduser(folder))
    if literal == root or os.fsencode(literal) not in store.folder_paths():
        return 0
    former = store.pictures_below(literal)
    store.drop(former)
    store.forget_folder(literal)
    return len(former)
