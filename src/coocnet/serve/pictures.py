"""The pictures of a collection as files: their bytes, their sizes, small copies of them; none but these."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import BinaryIO

from coocnet.data.images import Measured, content_digest, decode, measured, open_file, read_bytes, stream_digest
from coocnet.data.remote import is_url
from coocnet.data.thumbnails import THUMBNAIL_PX, jpeg
from coocnet.errors import ImageError, IndexStorageError, InputError
from coocnet.index import Index
from coocnet.serve.kept import Kept
from coocnet.serve.problems import Problem, log
from coocnet.serve.settings import Settings

MEDIA_TYPES = {
    "JPEG": "image/jpeg",
    "MPO": "image/jpeg",
    "PNG": "image/png",
    "WEBP": "image/webp",
    "TIFF": "image/tiff",
    "GIF": "image/gif",
    "BMP": "image/bmp",
    "AVIF": "image/avif",
    "HEIF": "image/heif",
}
_HEAD_BYTES = 1 << 17
_PIECE_BYTES = 1 << 18
_SIZES_KEPT = 1_000_000


@dataclass(frozen=True)
class Content:
    """A file's bytes, of which its digest is known."""

    digest: bytes
    content: bytes
    name: str


@dataclass(frozen=True)
class Original:
    """A picture's file, open and checked.

    Attributes:
        stream: at its beginning; whoever takes it closes it.
        size_bytes: of the file.
        name: within the collection.
        media_type: of its content.
    """

    stream: BinaryIO
    size_bytes: int
    name: str
    media_type: str

    def pieces(self) -> Iterator[bytes]:
        """The bytes, which are then closed."""
        with self.stream:
            while piece := self.stream.read(_PIECE_BYTES):
                yield piece


class PictureFiles:
    """Reads what the index names, and gives nothing else: every byte is checked against the digest it is asked by.

    Where files cannot be read, or are at URLs, the small copies that the index keeps are taken as they are named.
    """

    def __init__(self, settings: Settings) -> None:
        self._thumbnails: Kept[bytes] = Kept(settings.kept_thumbnail_bytes, len)
        self._sizes: Kept[Measured] = Kept(_SIZES_KEPT)

    def content(self, index: Index, digest: bytes) -> Content:
        """The bytes of a picture of the collection.

        Raises:
            Problem: 404 where the index has none of this digest; 410 where no file has this content any more.
        """
        for path in _paths(index, digest):
            try:
                content = read_bytes(path)
            except (ImageError, InputError):
                continue
            if content_digest(content) == digest:
                return Content(digest, content, index.name_of(path))
        raise _gone()

    def original(self, index: Index, digest: bytes) -> Original:
        """A picture's file, found to be what the index has described, without all of it in memory.

        Raises:
            Problem: see :meth:`content`.
        """
        for path in _paths(index, digest):
            with suppress(ImageError, InputError, OSError), ExitStack() as unless_it_is_given:
                stream = unless_it_is_given.enter_context(open_file(path))
                size_bytes = stream.seek(0, os.SEEK_END)
                stream.seek(0)
                if stream_digest(stream) == digest:
                    kind = MEDIA_TYPES.get(_measured(stream, path).format, "application/octet-stream")
                    stream.seek(0)
                    unless_it_is_given.pop_all()
                    return Original(stream, size_bytes, index.name_of(path), kind)
        raise _gone()

    def thumbnail(self, index: Index, digest: bytes, size_px: int) -> bytes:
        """A JPEG of a picture of the collection, upright, its longer side at most ``size_px``.

        Of the small copy that the index keeps, where that is large enough and the files are at URLs or unreadable.

        Raises:
            Problem: see :meth:`content`.
            ImageError: it cannot be decoded.
        """
        made = self._thumbnails.get((digest, size_px))
        if made is None:
            is_far = all(map(is_url, _paths(index, digest)))
            copy = _copy(index, digest, size_px) if is_far else None
            if copy is None:
                try:
                    copy = self.content(index, digest).content
                except Problem:
                    copy = None if is_far else _copy(index, digest, size_px)
                    if copy is None:
                        raise
            made = reduced(copy, size_px)
            self._thumbnails.put((digest, size_px), made)
        return made

    def measured(self, digest: bytes, path: str, *, wherever: bool = False) -> Measured | None:
        """The size of a picture, from the head of a file; None where it cannot be told.

        Args:
            digest: of its content.
            path: of the file.
            wherever: also where all of the file would have to be fetched for it, from a URL.
        """
        kept = self._sizes.get(digest)
        if kept is None and (wherever or not is_url(path)):
            try:
                with open_file(path) as stream:
                    kept = _measured(stream, path)
            except (ImageError, InputError, OSError):
                return None
            self._sizes.put(digest, kept)
        return kept


def reduced(content: bytes, size_px: int) -> bytes:
    """A JPEG of a picture, upright, its longer side at most ``size_px``.

    Raises:
        ImageError: it cannot be decoded.
    """
    return jpeg(decode(content, "the picture", size_px=size_px).pixels)


def _copy(index: Index, digest: bytes, size_px: int) -> bytes | None:
    """The small copy that the index keeps of a picture, if it is large enough for this size."""
    try:
        return index.thumbnail(digest) if size_px <= THUMBNAIL_PX else None
    except (IndexStorageError, InputError) as error:
        log.warning("%s", error)
        return None


def _measured(stream: BinaryIO, path: str) -> Measured:
    """The size of a picture from the beginning of its file, or from all of it where that does not say."""
    stream.seek(0)
    head = stream.read(_HEAD_BYTES)
    # A PNG may say at its end that it is to be turned.
    if not head.startswith(b"\x89PNG"):
        with suppress(ImageError):
            return measured(head, path)
    return measured(head + stream.read(), path)


def _paths(index: Index, digest: bytes) -> list[str]:
    paths = index.files_of(digest)
    if not paths:
        raise Problem(404, "unknown-picture", f"no picture of this collection has the id {digest.hex()}")
    return paths


def _gone() -> Problem:
    detail = "the picture's file is gone or has changed; bring the index up to date with its folder"
    return Problem(410, "gone", detail)
