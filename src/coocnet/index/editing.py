"""Single pictures into an index and out of it, beside the syncs of whole folders."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from coocnet.data.walk import FoundFile, find_file, has_picture_name, place_of
from coocnet.errors import ImageError, InputError
from coocnet.index.records import Records
from coocnet.index.sync import Job, RowSource, Run, SyncProgress, SyncReport
from coocnet.index.thumbnails import drop_unused
from coocnet.recipe import Recipe

_NAMED = 3


def add(
    store: Records,
    recipe: Recipe,
    paths: Iterable[str | os.PathLike[str]],
    describer: Callable[[], RowSource],
    progress: Callable[[SyncProgress], None] | None,
) -> SyncReport:
    """See :meth:`coocnet.index.LocalIndex.add`; to be called by the sole writer."""
    started = time.monotonic()
    store.check_recipe(recipe)
    places = dict.fromkeys(map(place_of, _listed(paths)))
    stored = {path: stamp for path in places if (stamp := store.stamp_of(path)) is not None}
    run = Run(store, recipe, set(stored), progress, removed=set())
    folders = [os.fsdecode(folder) for folder in store.folder_paths()]
    todo = []
    for path in places:
        file = _hidden(path, folders) or _found(path)
        if isinstance(file, ImageError):
            run.report.skipped.append(file)
        elif stored.get(path) == file.stamp:
            run.report.unchanged += 1
        else:
            todo.append(Job(file, is_new=path not in stored))
    former = [] if run.thumbnails is None else [store.digest_of(os.fsencode(path)) for path in stored]
    _describe(run, todo, describer)
    drop_unused(store, former)
    run.report.time_s = time.monotonic() - started
    return run.report


def remove(store: Records, digests: Iterable[bytes]) -> int:
    """See :meth:`coocnet.index.LocalIndex.remove`; to be called by the sole writer."""
    chosen = checked_digests(digests)
    unknown = [digest for digest in chosen if not store.files_of(digest)]
    if unknown:
        raise InputError(f"no picture of this collection has the content {in_hex(unknown)}")
    count = store.take_out(chosen) if chosen else 0
    drop_unused(store, chosen)
    return count


def removed(store: Records) -> dict[bytes, list[str]]:
    """See :meth:`coocnet.index.LocalIndex.removed`."""
    found: dict[bytes, list[str]] = {}
    for removal in store.taken_out():
        found.setdefault(removal.digest, []).append(removal.path)
    return found


def restore(
    store: Records, recipe: Recipe, digests: Iterable[bytes], describer: Callable[[], RowSource]
) -> SyncReport:
    """See :meth:`coocnet.index.LocalIndex.restore`; to be called by the sole writer."""
    started = time.monotonic()
    store.check_recipe(recipe)
    chosen = checked_digests(digests)
    remembered = removed(store)
    unknown = [digest for digest in chosen if digest not in remembered]
    if unknown:
        raise InputError(f"no content {in_hex(unknown)} was taken out of this collection")
    run = Run(store, recipe, set(), None, removed=set(remembered) - set(chosen))
    todo, away = [], set()
    for digest in chosen:
        for path in remembered[digest]:
            file = _found(path)
            if isinstance(file, ImageError):
                run.report.skipped.append(file)
                if file.unread:
                    away.add(digest)
            else:
                todo.append(Job(file, is_new=not store.holds(path), expected=digest))
    _describe(run, todo, describer)
    # What cannot be read now stays among what was taken out, to be restored another time.
    store.forget_removals([digest for digest in chosen if digest not in away or store.files_of(digest)])
    run.report.time_s = time.monotonic() - started
    return run.report


def rows_given(store: Records, relevant: Sequence[Sequence[bytes]], queries: int) -> list[np.ndarray]:
    """The stored rows, (m, d) float32, of the contents that are given for each query.

    Raises:
        InputError: not one list for each query, or a content that is not in the collection.
    """
    given: object = relevant
    if not isinstance(given, Sequence) or len(given) != queries:
        raise InputError(f"relevant contents are given as one list for each of {queries} rows, got {given!r}")
    chosen = [checked_digests(digests) for digests in relevant]
    rows = {digest: store.row_of(digest) for digests in chosen for digest in digests}
    unknown = [digest for digest, row in rows.items() if row is None]
    if unknown:
        raise InputError(f"no picture of this collection has the content {in_hex(unknown)}")
    dim = store.dim
    return [np.array([rows[digest] for digest in digests], np.float32).reshape(-1, dim) for digests in chosen]


def checked_digests(digests: Iterable[bytes]) -> list[bytes]:
    """Digests of contents, each once.

    Raises:
        InputError: something else.
    """
    given: object = digests
    listed = list(digests) if isinstance(given, Iterable) and not isinstance(given, bytes | str) else None
    if listed is None or not all(isinstance(one, bytes) for one in listed):
        raise InputError(f"contents are named by a list of their digests, 16 bytes each, got {given!r}")
    return list(dict.fromkeys(listed))


def in_hex(digests: list[bytes]) -> str:
    """Digests for a message, the first ones of many."""
    named = ", ".join(digest.hex() for digest in digests[:_NAMED])
    return named + (f" and {len(digests) - _NAMED} more" if len(digests) > _NAMED else "")


def _listed(paths: Iterable[str | os.PathLike[str]]) -> list[str]:
    given: object = paths
    if isinstance(given, str | bytes | os.PathLike) or not isinstance(given, Iterable):
        raise InputError(f"give a list of picture files, got {given!r}")
    return [_checked_path(path) for path in paths]


def _checked_path(path: object) -> str:
    if not isinstance(path, str | os.PathLike) or "\0" in str(path):
        raise InputError(f"a picture file is a path, got {path!r}")
    return os.fspath(path)


def _describe(run: Run, todo: list[Job], describer: Callable[[], RowSource]) -> None:
    if todo:
        run.describe(todo, describer)
    if any(not job.is_new for job in todo):
        run.store.drop(run.unusable)  # and the rows of what changed
        run.report.dropped = len(run.unusable)


def _found(path: str) -> FoundFile | ImageError:
    try:
        return find_file(path) or ImageError(path, "no such file", unread=True)
    except ImageError as error:
        return error


def _hidden(path: str, folders: list[str]) -> ImageError | None:
    """Why the next sync would not look at a file, and so drop it, if it would not."""
    if not has_picture_name(os.path.basename(path)):
        return ImageError(path, "hidden, or not named as a picture (.jpg, .png, …)")
    for folder in folders:
        below = os.path.join(folder, "")
        if path.startswith(below) and any(part.startswith(".") for part in path[len(below) :].split(os.sep)):
            return ImageError(path, "in a hidden folder of the collection")
    return None
