"""The pictures of a collection as files: their bytes, their sizes, small copies of them; none but these."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from PIL import Image

from coocnet.data.images import Measured, content_digest, decode, measured, open_file, read_bytes, stream_digest
from coocnet.errors import ImageError
from coocnet.index import Index
from coocnet.serve.kept import Kept
from coocnet.serve.problems import Problem
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
_JPEG_QUALITY = 85


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
    """Reads what the index names, and gives nothing else: every byte is checked against the digest it is asked by."""

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
            except ImageError:
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
            with suppress(ImageError, OSError), ExitStack() as unless_it_is_given:
                stream = unless_it_is_given.enter_context(open_file(path))
                size_bytes = os.fstat(stream.fileno()).st_size
                if stream_digest(stream) == digest:
                    kind = MEDIA_TYPES.get(_measured(stream, path).format, "application/octet-stream")
                    stream.seek(0)
                    unless_it_is_given.pop_all()
                    return Original(stream, size_bytes, index.name_of(path), kind)
        raise _gone()

    def thumbnail(self, index: Index, digest: bytes, size_px: int) -> bytes:
        """A JPEG of a picture of the collection, upright, its longer side at most ``size_px``.

        Raises:
            Problem: see :meth:`content`.
            ImageError: it cannot be decoded.
        """
        kept = self._thumbnails.get((digest, size_px))
        if kept is None:
            found = self.content(index, digest)
            kept = reduced(found.content, size_px)
            self._thumbnails.put((digest, size_px), kept)
        return kept

    def measured(self, digest: bytes, path: str) -> Measured | None:
        """The size of a picture, from the head of a file; None where it cannot be told."""
        kept = self._sizes.get(digest)
        if kept is None:
            try:
                with open_file(path) as stream:
                    kept = _measured(stream, path)
            except (ImageError, OSError):
                return None
            self._sizes.put(digest, kept)
        return kept


def reduced(content: bytes, size_px: int) -> bytes:
    """A JPEG of a picture, upright, its longer side at most ``size_px``.

    Raises:
        ImageError: it cannot be decoded.
    """
    return jpeg(decode(content, "the picture", size_px=size_px).pixels)


def jpeg(pixels: np.ndarray) -> bytes:
    """Pixels (h, w, 3) uint8 as a JPEG."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=_JPEG_QUALITY)
    return out.getvalue()


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
