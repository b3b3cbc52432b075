"""The small copies of an index's pictures: made by its syncs, deleted when their contents have left it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from coocnet.data.images import content_digest, decode, read_bytes
from coocnet.data.thumbnails import THUMBNAIL_PX, ThumbnailStore
from coocnet.errors import ImageError, InputError, printable
from coocnet.index.records import Records

_THREADS = 8
_AT_ONCE = 64


def thumbnails_of(store: Records, *, apart_from: str = "") -> ThumbnailStore | None:
    """Where an index keeps small copies, or None where it keeps none.

    Args:
        store: the records of the index.
        apart_from: a folder of pictures, among which the copies must not be.

    Raises:
        InputError: they are; or their place is a URL that cannot be used here.
    """
    place = store.meta("thumbnails")
    thumbnails = ThumbnailStore(place) if place else None
    if thumbnails is not None and apart_from:
        check_apart(thumbnails, apart_from)
    return thumbnails


def check_apart(thumbnails: ThumbnailStore, folder: str) -> None:
    """Refuses small copies among the pictures of a folder.

    Raises:
        InputError: a sync would take them for pictures.
    """
    if thumbnails.is_below(folder):
        raise InputError(
            f"thumbnails are to be in {printable(thumbnails.place)}, where a sync of {printable(folder)} would take "
            "them for pictures: keep them elsewhere (--thumbnails PLACE), or keep none (--thumbnails none)"
        )


def make_missing(
    store: Records, thumbnails: ThumbnailStore, root: str, progress: Callable[[int, int], None] | None
) -> int:
    """Makes those that are missing of the pictures below a folder, from their files; says how many.

    Files that cannot be read now, or have another content by now, are left for another time.

    Raises:
        IndexStorageError: one cannot be written.
    """
    there = thumbnails.digests()
    missing = [(digest, path) for digest, path in store.contents_below(root).items() if digest not in there]

    def make(one: tuple[bytes, str]) -> bool:
        digest, path = one
        try:
            content = read_bytes(path)
            if content_digest(content) != digest:
                return False
            thumbnails.put(digest, decode(content, path, size_px=THUMBNAIL_PX).pixels)
        except ImageError:
            return False
        return True

    made = 0
    with ThreadPoolExecutor(_THREADS) as pool:
        for start in range(0, len(missing), _AT_ONCE):
            some = missing[start : start + _AT_ONCE]
            made += sum(pool.map(make, some))
            if progress:
                progress(start + len(some), len(missing))
    return made


def drop_unused(store: Records, digests: Iterable[bytes]) -> None:
    """Deletes the copies of those of these contents that are no longer in the index.

    Raises:
        IndexStorageError: one cannot be deleted.
    """
    thumbnails, listed = thumbnails_of(store), list(digests)
    if thumbnails is not None and listed:
        used = store.files_of_each(listed)
        thumbnails.delete(digest for digest in listed if digest not in used)
