"""The pictures of a collection as files: their bytes, their sizes, small copies of them; none but these."""

from __future__ import annotations

import io
import os
import stat
from dataclasses import dataclass

import numpy as np
from PIL import Image

from coocnet.data.images import Measured, content_digest, decode, measured, read_bytes
from coocnet.errors import ImageError
from coocnet.index import LocalIndex
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
_SIZES_KEPT = 1_000_000
_JPEG_QUALITY = 85


@dataclass(frozen=True)
class Content:
    """A file's bytes, of which its digest is known."""

    digest: bytes
    content: bytes
    name: str


class PictureFiles:
    """Reads what the index names, and gives nothing else: every byte is checked against the digest it is asked by."""

    def __init__(self, settings: Settings) -> None:
        self._most_px = settings.upload_px
        self._thumbnails: Kept[bytes] = Kept(settings.kept_thumbnail_bytes, len)
        self._sizes: Kept[Measured] = Kept(_SIZES_KEPT)

    def content(self, index: LocalIndex, digest: bytes) -> Content:
        """The bytes of a picture of the collection.

        Raises:
            Problem: 404 where the index has none of this digest; 410 where no file has this content any more.
        """
        paths = index.files_of(digest)
        if not paths:
            raise Problem(404, "unknown-picture", f"no picture of this collection has the id {digest.hex()}")
        for path in paths:
            try:
                content = read_bytes(path)
            except ImageError:
                continue
            if content_digest(content) == digest:
                return Content(digest, content, index.name_of(path))
        raise Problem(
            410, "gone", "the picture's file is gone or has changed; bring the index up to date with its folder"
        )

    def thumbnail(self, index: LocalIndex, digest: bytes, size_px: int) -> bytes:
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
                kept = _measured_head(path)
            except ImageError:
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


def _measured_head(path: str) -> Measured:
    """The size of a picture from the beginning of its file, or from all of it where that does not say."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with os.fdopen(descriptor, "rb") as stream:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ImageError(path, "not a regular file")
            head = stream.read(_HEAD_BYTES)
    except OSError as error:
        raise ImageError(path, "cannot be read", unread=True) from error
    try:
        return measured(head, path)
    except ImageError:
        return measured(read_bytes(path), path)
