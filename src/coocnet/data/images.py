"""From a file's bytes to an upright 8-bit RGB picture of bounded size, or an :class:`ImageError` that says why not.

What is decided here, once, for every picture: the EXIF orientation is applied; of an animation the first frame
counts; transparency lies on white; greyscale, palette, CMYK and 16-bit become 8-bit RGB; colour profiles are
not applied. A longer side above the limit is reduced with a Lanczos filter; nothing is ever enlarged.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import stat
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from numbers import Real

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from coocnet.errors import ImageError, InputError

Box = tuple[float, float, float, float]
"""x1, y1, x2, y2 in pixels of the picture, upright unless taken as stored, at its own size; right and lower edges
excluded."""

MAX_FILE_BYTES = 1 << 29
_FORMATS = ["JPEG", "MPO", "PNG", "WEBP", "TIFF", "GIF", "BMP", "AVIF"]
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


@dataclass(frozen=True)
class Picture:
    """A decoded picture, ready for the network.

    Attributes:
        pixels: (height, width, 3) uint8, RGB, after any box and size limit.
        full_size_px: (width, height) of the whole upright picture before any box or limit.
        path: its file, for messages.
    """

    pixels: UInt8[np.ndarray, "h w 3"]
    full_size_px: tuple[int, int]
    path: str


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """A regular file's bytes.

    Never waits on a FIFO or a device, whatever its name says.

    Raises:
        ImageError: not there, not readable, not a regular file, empty, above 512 MiB, or larger than the memory left.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError as error:
        raise ImageError(path, "no such file", unread=True) from error
    except OSError as error:
        raise ImageError(path, unreadable(error), unread=True) from error
    except ValueError as error:
        raise ImageError(path, "no name that a file can have") from error
    try:
        if refused := _refused(os.fstat(descriptor)):
            raise ImageError(path, refused)
        with os.fdopen(descriptor, "rb", closefd=False) as stream:
            return stream.read()
    except OSError as error:
        raise ImageError(path, unreadable(error), unread=True) from error
    except MemoryError as error:
        raise ImageError(path, "does not fit into memory", unread=True) from error
    finally:
        os.close(descriptor)


def _refused(status: os.stat_result) -> str | None:
    """Why a file with this status is not read, or None."""
    if stat.S_ISDIR(status.st_mode):
        return "a folder"
    if not stat.S_ISREG(status.st_mode):
        return "not a regular file"
    if status.st_size == 0:
        return "empty file"
    if status.st_size > MAX_FILE_BYTES:
        return f"larger than {MAX_FILE_BYTES >> 20} MiB"
    return None


def unreadable(error: OSError) -> str:
    """The reason why a file could not be read, in words."""
    return f"cannot be read: {(error.strerror or str(error)).lower()}"


def content_digest(content: bytes) -> bytes:
    """What identifies a picture by content: 16 bytes of BLAKE2b over the file's bytes."""
    return hashlib.blake2b(content, digest_size=16).digest()


def decode(
    content: bytes,
    path: str | os.PathLike[str],
    *,
    size_px: int | None,
    box: Box | None = None,
    upright: bool = True,
) -> Picture:
    """The picture in ``content``, upright, 8-bit RGB, within the size limit.

    Args:
        content: the file's bytes.
        path: for messages.
        size_px: limit of the longer side; None for none. A part cut out by ``box`` is reduced by the same
            factor as the whole picture would be, so that a query and its database picture have one scale.
        box: the part to keep.
        upright: False leaves the EXIF orientation unread: pixels and box are as stored, as most benchmarks mean them.
            (Pillow turns TIFF by itself.)

    Raises:
        ImageError: not a picture, damaged, truncated, too many pixels, or a box outside the picture.
        InputError: a limit below 1 pixel, or a box that is not four finite numbers.
    """
    if size_px is not None and size_px < 1:
        raise InputError(f"size_px is at least 1, got {size_px}")
    if box is not None:
        _need_box(box)
    _silence_pillow()
    try:
        with _opened(content, path) as file:
            image = _rgb(file, upright=upright)
        full = image.size
        if box is not None:
            image = image.crop(_whole_pixels(box, full, path))
        return Picture(fit(image, size_px, longest_full_px=max(full)), full, os.fspath(path))
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError(path, "not a picture") from error
    except Image.DecompressionBombError as error:
        raise ImageError(path, f"more than {2 * (Image.MAX_IMAGE_PIXELS or 0) // 10**6} megapixels") from error
    except MemoryError as error:
        raise ImageError(path, "does not fit into memory") from error
    except Warning as error:  # the program has made warnings errors
        raise ImageError(path, f"Pillow warns: {error}") from error
    except Exception as error:
        reason = "truncated" if "truncated" in str(error).lower() else f"damaged ({error})"
        raise ImageError(path, reason) from error


@cache
def _silence_pillow() -> None:
    """Hides Pillow's warnings, of broken metadata and of more than 89 megapixels, in a program that does not ask.

    The filter is the last one, so the program's own decide before it; set once, because every change of the
    filters makes Python repeat old warnings; for all threads, because only Python 3.14 can give one thread its own.
    """
    warnings.filterwarnings("ignore", module=r"PIL\.", append=True)


def _need_box(box: object) -> None:
    edges = list(box) if isinstance(box, Iterable) else []
    if len(edges) != 4 or not all(
        not isinstance(edge, bool) and isinstance(edge, Real) and math.isfinite(edge) for edge in edges
    ):
        raise InputError(f"a box is four numbers of pixels, x1, y1, x2, y2; got {box!r}")


def fit(image: Image.Image, size_px: int | None, *, longest_full_px: int) -> UInt8[np.ndarray, "h w 3"]:
    """An RGB image reduced by the factor that brings ``longest_full_px`` to ``size_px``; never enlarged."""
    if size_px is not None and longest_full_px > size_px:
        scale = size_px / longest_full_px
        width, height = (max(1, round(side * scale)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    return np.array(image)


def _whole_pixels(box: Box, full: tuple[int, int], path: str | os.PathLike[str]) -> tuple[int, int, int, int]:
    width, height = full
    x1, y1, x2, y2 = (round(edge) for edge in box)
    x1, y1, x2, y2 = max(x1, 0), max(y1, 0), min(x2, width), min(y2, height)
    if x1 >= x2 or y1 >= y2:
        numbers = ",".join(f"{edge:g}" for edge in box)
        raise ImageError(path, f"the box {numbers} leaves nothing of a picture of {width}x{height} pixels")
    return x1, y1, x2, y2


def _opened(content: bytes, path: str | os.PathLike[str]) -> Image.Image:
    Image.init()
    try:
        return Image.open(io.BytesIO(content), formats=[name for name in _FORMATS if name in Image.OPEN])
    except UnidentifiedImageError:
        if content[4:8] != b"ftyp" or content[8:12] not in _HEIF_BRANDS:
            raise
    try:
        from pillow_heif import register_heif_opener  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise ImageError(path, "HEIC needs an extra: pip install 'coocnet[heic]'") from error
    register_heif_opener()
    return Image.open(io.BytesIO(content), formats=["HEIF"])


def _rgb(file: Image.Image, *, upright: bool) -> Image.Image:
    file.seek(0)
    file.load()
    try:
        image: Image.Image = ImageOps.exif_transpose(file) if upright else file.copy()
    except Exception:  # noqa: BLE001 - a picture with broken metadata is still a picture
        image = file.copy()
    if image.mode.startswith("I") or image.mode == "F":
        image = _eight_bits(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit, 32-bit and floating-point greyscale to 8 bits; Pillow's own conversion would cut at 255."""
    values = np.asarray(image, dtype=np.float64)
    values = np.where(np.isfinite(values), values, 0)
    if image.mode == "F":
        top = 1.0 if values.max() <= 1 else 255.0 if values.max() <= 255 else 65535.0
    else:
        top = 255.0 if values.max() <= 255 and image.mode == "I" else 65535.0
    grey = Image.fromarray(np.clip(values / top * 255, 0, 255).round().astype(np.uint8))
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    return grey
