"""Small copies of pictures, kept by their contents in a folder or at a URL: for whoever cannot read the pictures."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from coocnet.data import remote
from coocnet.data.images import Picture, decode, fit
from coocnet.data.walk import real_folder
from coocnet.errors import IndexStorageError, printable

THUMBNAIL_PX = 440
"""Longer side of a kept copy, at most."""
_JPEG_QUALITY = 85
_NAME = re.compile(r".*/([0-9a-f]{32})\.jpg", re.DOTALL)


class ThumbnailStore:
    """Small copies of pictures, each a JPEG named by the digest of the picture's content: ``PLACE/ab/ab34….jpg``.

    Usable by any thread and any process that knows the place.

    Args:
        place: a folder, which is made when it is first needed; or a URL, see :mod:`coocnet.data.remote`.

    Attributes:
        place: the folder's absolute path, or the URL.

    Raises:
        InputError: no path, or a URL that cannot be used.
    """

    def __init__(self, place: str | os.PathLike[str]) -> None:
        self.place = real_folder(place)

    def put(self, digest: bytes, pixels: UInt8[np.ndarray, "h w 3"]) -> None:
        """Keeps a copy of a picture, reduced to :data:`THUMBNAIL_PX` pixels; it is there whole or not at all.

        Raises:
            IndexStorageError: it cannot be written.
        """
        image = Image.fromarray(pixels)
        with self._as_storage_errors("written"):
            remote.put(self._url(digest), jpeg(fit(image, THUMBNAIL_PX, longest_full_px=max(image.size))))

    def get(self, digest: bytes) -> bytes | None:
        """The JPEG of a picture's copy, or None where there is none.

        Raises:
            IndexStorageError: it cannot be read.
        """
        with self._as_storage_errors("read"):
            try:
                return remote.content(self._url(digest)) or None
            except FileNotFoundError:
                return None

    def digests(self) -> set[bytes]:
        """The contents of which there are copies.

        Raises:
            IndexStorageError: they cannot be listed.
        """
        root = _as_url(self.place)
        with self._as_storage_errors("listed"):
            try:
                found = remote.listed(root, deep=not remote.has_folders(root))
            except FileNotFoundError:
                return set()
            for entry in [one for one in found if one.kind == "directory"]:
                found += remote.listed(entry.url)
        named = (_NAME.fullmatch(entry.url) for entry in found if entry.size_bytes)
        return {bytes.fromhex(match[1]) for match in named if match}

    def delete(self, digests: Iterable[bytes]) -> None:
        """Deletes the copies of contents; those that are not there are no error.

        Raises:
            IndexStorageError: one cannot be deleted.
        """
        with self._as_storage_errors("deleted"):
            remote.delete([self._url(digest) for digest in digests])

    def is_below(self, root: str) -> bool:
        """Whether the copies would be met among the pictures below this folder, an absolute path or a URL."""
        return os.path.join(_as_url(self.place), "").startswith(os.path.join(_as_url(root), ""))

    def _url(self, digest: bytes) -> str:
        name = digest.hex()
        return f"{_as_url(self.place)}/{name[:2]}/{name}.jpg"

    @contextmanager
    def _as_storage_errors(self, done: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise IndexStorageError(f"thumbnails in {printable(self.place)} cannot be {done}: {error}") from error


def large_enough(picture: Picture, content: bytes) -> UInt8[np.ndarray, "h w 3"]:
    """A picture's pixels, or where they are too few for its small copy those decoded from its file's bytes.

    Raises:
        ImageError: it cannot be decoded.
    """
    if max(picture.pixels.shape) >= min(THUMBNAIL_PX, max(picture.full_size_px)):
        return picture.pixels
    return decode(content, picture.path, size_px=THUMBNAIL_PX).pixels


def jpeg(pixels: UInt8[np.ndarray, "h w 3"]) -> bytes:
    """Pixels as a JPEG."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=_JPEG_QUALITY)
    return out.getvalue()


def _as_url(place: str) -> str:
    return place if remote.is_url(place) else f"file://{place}"
