"""From a file's bytes to an upright 8-bit RGB picture of bounded size, or an :class:`ImageError` that says why not.

What is decided here, once, for every picture: the EXIF orientation is applied; of an animation the first frame
counts; transparency lies on white; greyscale, palette, CMYK and 16-bit become 8-bit RGB; colour profiles are
not applied. A longer side above the limit is reduced with a Lanczos filter; nothing is ever enlarged. A JPEG whose
longer side is three times the limit or more is decoded at a half, a quarter or an eighth of its sides first, which is
several times faster and the same within a stated bound; where a box cuts out a part, it is decoded in full.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import stat
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from numbers import Real
from typing import BinaryIO

import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from coocnet.data import remote
from coocnet.data.resizing import resize
from coocnet.errors import ImageError, InputError

Box = tuple[float, float, float, float]
"""x1, y1, x2, y2 in pixels of the picture, upright unless taken as stored, at its own size; right and lower edges
excluded."""

MAX_FILE_BYTES = 1 << 29
_PIECE_BYTES = 1 << 20
_SCAN = b"\xff\xda"
_MOST_SCANS = 100
_ROWS_AT_ONCE = 256
_QUOTED = 100
_SPARE = 1.5
"""How many times the limit the longer side is at least of a JPEG decoded at a part of its size."""
_FORMATS = ["JPEG", "MPO", "PNG", "WEBP", "TIFF", "GIF", "BMP", "AVIF"]
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


def parse_box(text: str) -> Box:
    """A box from four numbers with commas between them.

    Raises:
        InputError: something else, or a box with nothing within.
    """
    try:
        x1, y1, x2, y2 = (float(edge) for edge in text.split(","))
    except ValueError:
        raise InputError(f"a box is four numbers X1,Y1,X2,Y2 in pixels, got {text[:_QUOTED]!r}") from None
    if not all(map(math.isfinite, (x1, y1, x2, y2))):
        raise InputError(f"a box is four finite numbers X1,Y1,X2,Y2 in pixels, got {text[:_QUOTED]!r}")
    if not (x1 < x2 and y1 < y2):
        raise InputError(f"in a box X1 is left of X2 and Y1 above Y2, got {text[:_QUOTED]!r}")
    return x1, y1, x2, y2


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


@dataclass(frozen=True)
class Measured:
    """What a picture's header says.

    Attributes:
        width: of the whole upright picture, in pixels.
        height: as ``width``.
        format: as Pillow calls it: JPEG, MPO (a JPEG with others behind it), PNG, WEBP, TIFF, GIF, BMP, AVIF, HEIF.
    """

    width: int
    height: int
    format: str


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a regular file, or of one at a URL that fsspec knows; see :func:`open_file`.

    Raises:
        ImageError: as there, or larger than the memory left.
        InputError: a URL that cannot be used; see :func:`coocnet.data.remote.canonical`.
    """
    if remote.is_url(path):
        return _bytes_at(path)
    with open_file(path) as stream:
        try:
            return stream.read()
        except OSError as error:
            raise ImageError(path, unreadable(error), unread=True) from error
        except MemoryError as error:
            raise ImageError(path, "does not fit into memory", unread=True) from error


def open_file(path: str | os.PathLike[str]) -> BinaryIO:
    """A regular file, to be read and closed; one at a URL is read here, wholly.

    Never waits on a FIFO or a device, whatever its name says.

    Raises:
        ImageError: not there, not readable, not a regular file, empty, or above 512 MiB.
        InputError: as :func:`read_bytes`.
    """
    if remote.is_url(path):
        return io.BytesIO(_bytes_at(path))
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError as error:
        raise ImageError(path, "no such file", unread=True) from error
    except OSError as error:
        raise ImageError(path, unreadable(error), unread=True) from error
    except ValueError as error:
        raise ImageError(path, "no name that a file can have") from error
    try:
        refused = _refused(os.fstat(descriptor))
    except BaseException:
        os.close(descriptor)
        raise
    if refused is not None:
        os.close(descriptor)
        raise ImageError(path, refused)
    try:
        return os.fdopen(descriptor, "rb")
    except (MemoryError, RuntimeError) as error:  # the descriptor may be closed, and that of another file by now
        raise ImageError(path, "does not fit into memory", unread=True) from error


def _bytes_at(url: str) -> bytes:
    try:
        there = remote.status(url)
        if there.kind != "file":
            raise ImageError(url, "a folder" if there.kind == "directory" else there.kind)
        content = remote.content(url) if there.size_bytes <= MAX_FILE_BYTES else b""
    except FileNotFoundError as error:
        raise ImageError(url, "no such file", unread=True) from error
    except OSError as error:
        raise ImageError(url, unreadable(error), unread=True) from error
    except MemoryError as error:
        raise ImageError(url, "does not fit into memory", unread=True) from error
    refused = _refused_size(len(content) or there.size_bytes)
    if refused:
        raise ImageError(url, refused)
    return content


def _refused(status: os.stat_result) -> str | None:
    """Why a file with this status is not read, or None."""
    if stat.S_ISDIR(status.st_mode):
        return "a folder"
    if not stat.S_ISREG(status.st_mode):
        return "not a regular file"
    return _refused_size(status.st_size)


def _refused_size(size_bytes: int) -> str | None:
    if size_bytes == 0:
        return "empty file"
    if size_bytes > MAX_FILE_BYTES:
        return f"larger than {MAX_FILE_BYTES >> 20} MiB"
    return None


def unreadable(error: OSError) -> str:
    """The reason why a file could not be read, in words."""
    return f"cannot be read: {(error.strerror or str(error)).lower()}"


def content_digest(content: bytes) -> bytes:
    """What identifies a picture by content: 16 bytes of BLAKE2b over the file's bytes."""
    return hashlib.blake2b(content, digest_size=16).digest()


def stream_digest(stream: BinaryIO) -> bytes:
    """As :func:`content_digest`, of what is read from a stream to its end, little of it in memory at a time."""
    digest = hashlib.blake2b(digest_size=16)
    while piece := stream.read(_PIECE_BYTES):
        digest.update(piece)
    return digest.digest()


def decode(
    content: bytes,
    path: str | os.PathLike[str],
    *,
    size_px: int | None,
    box: Box | None = None,
    upright: bool = True,
    most_px: int | None = None,
) -> Picture:
    """The picture in ``content``, upright, 8-bit RGB, within the size limit.

    Without a box, a JPEG whose longer side is at least three times the limit is decoded at a part of its size. Its
    shape is that of decoding in full, its pixels and rows are nearly (``benchmarks/decoding.py``; the default recipe
    before its whitening): 32 pictures of 12 megapixels at 512 pixels differ by at most 1 of 255 in the mean over a
    picture and agree to a cosine of 0.9999; 265 photographs of 800 pixels at 266, the closest case, by at most 3.1,
    to 0.9987. Small limits suffer more: at 64, 4.9 and 0.99. A single pixel at a hard edge may be off by 60.

    Args:
        content: the file's bytes.
        path: for messages.
        size_px: limit of the longer side; None for none. A part cut out by ``box`` is reduced by the same
            factor as the whole picture would be, so that a query and its database picture have one scale.
        box: the part to keep.
        upright: False leaves the EXIF orientation unread: pixels and box are as stored, as most benchmarks mean them.
            (Pillow turns TIFF by itself.)
        most_px: refuse a picture whose header says that it has more pixels, before any is decoded; None for Pillow's
            own limit alone.

    Raises:
        ImageError: not a picture, damaged, truncated, too many pixels, or a box outside the picture.
        InputError: a limit that is no whole number of pixels, or a box that is not four finite numbers.
    """
    _need_size("size_px", size_px)
    _need_size("most_px", most_px)
    if box is not None:
        _need_box(box)
    with _as_image_errors(path), _opened(content, path) as file:
        file.seek(0)
        if file.format in ("JPEG", "MPO") and content.count(_SCAN) > _MOST_SCANS:
            raise ImageError(path, f"a JPEG of more than {_MOST_SCANS} scans, each of which costs a whole decoding")
        if most_px is not None and file.width * file.height > most_px:
            raise ImageError(path, f"more than {most_px / 10**6:g} megapixels")
        if box is None and size_px is not None and (reduced := _reduced(file, size_px, upright=upright)):
            image, full = reduced
            return Picture(np.array(image), full, os.fspath(path))
        image = _rgb(file, upright=upright)
        full = image.size
        if box is not None:
            image = image.crop(_whole_pixels(box, full, path))
        return Picture(fit(image, size_px, longest_full_px=max(full)), full, os.fspath(path))


def measured(content: bytes, path: str | os.PathLike[str]) -> Measured:
    """The size of the picture in ``content`` and its format, from its header alone: nothing is decoded.

    So a picture that is cut off or damaged further on has a size too, though :func:`decode` refuses it.

    Args:
        content: the file's bytes.
        path: for messages.

    Raises:
        ImageError: not a picture, a damaged header, or too many pixels.
    """
    with _as_image_errors(path), _opened(content, path) as file:
        file.seek(0)
        width, height = file.size
        if _is_turned(file, content):
            width, height = height, width
        return Measured(width, height, file.format or "")


def _is_turned(file: Image.Image, content: bytes) -> bool:
    """Whether a picture that was opened and not decoded will lie on its side."""
    if file.format == "TIFF":  # its size is that of the upright picture already
        return False
    if file.format == "PNG" and "exif" not in file.info and (late := _late_exif(content)):
        file.info["exif"] = b"Exif\0\0" + late
    try:
        # Not the method of PNG, which decodes the picture where it finds none.
        return Image.Image.getexif(file).get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
    except Exception:  # noqa: BLE001 - a picture with broken metadata is still a picture
        return False


def _late_exif(png: bytes) -> bytes:
    """The EXIF block of a PNG, which may stand behind the pixels."""
    at = len(b"\x89PNG\r\n\x1a\n")
    while at + 8 <= len(png):
        length = int.from_bytes(png[at : at + 4], "big")
        if png[at + 4 : at + 8] == b"eXIf":
            return png[at + 8 : at + 8 + length]
        at += length + 12
    return b""


@contextmanager
def _as_image_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    """What Pillow raises of a file, as an error that says why it cannot be used."""
    _silence_pillow()
    try:
        yield
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


def _need_size(name: str, value: object) -> None:
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        raise InputError(f"{name} is a whole number of at least 1, or None; got {value!r}")


def _need_box(box: object) -> None:
    edges = list(box) if isinstance(box, Iterable) else []
    if len(edges) != 4 or not all(
        not isinstance(edge, bool) and isinstance(edge, Real) and math.isfinite(edge) for edge in edges
    ):
        raise InputError(f"a box is four numbers of pixels, x1, y1, x2, y2; got {box!r}")


def fit(image: Image.Image, size_px: int | None, *, longest_full_px: int) -> UInt8[np.ndarray, "h w 3"]:
    """An RGB image reduced by the factor that brings ``longest_full_px`` to ``size_px``; never enlarged.

    Args:
        image: the picture, or a part of it.
        size_px: limit of the longer side of the whole picture; None for none.
        longest_full_px: that side now.
    """
    if size_px is not None and longest_full_px > size_px:
        return resize(image, _scaled(image.size, size_px / longest_full_px))
    return np.array(image)


def _scaled(size: tuple[int, int], scale: float) -> tuple[int, int]:
    width, height = (max(1, round(side * scale)) for side in size)
    return width, height


def _reduced(file: Image.Image, size_px: int, *, upright: bool) -> tuple[Image.Image, tuple[int, int]] | None:
    """A JPEG decoded at a part of its size and fitted into ``size_px``, as large as if it had been decoded in full.

    Decoded at the smallest of a half, a quarter and an eighth of its sides that leaves the longer one at least 1.5
    times ``size_px`` (at a larger one where the shorter side has too few pixels): libjpeg then computes a block of 8
    by 8 from its lowest frequencies alone, and the Lanczos filter does the rest.

    Returns:
        The image, and (width, height) of the whole upright picture; None for a picture to be decoded in full: not a
        JPEG, or less than three times as long as ``size_px``.
    """
    if file.format not in ("JPEG", "MPO"):
        return None
    stored = file.size
    factor = max((factor for factor in (2, 4, 8) if max(stored) >= factor * _SPARE * size_px), default=1)
    # Pillow takes the largest factor that leaves no side shorter than asked for: rounded up, a side would forbid it.
    least = (max(1, stored[0] // factor), max(1, stored[1] // factor))
    drafted = file.draft(None, least) if factor > 1 else None
    if drafted is None:
        return None
    # Before it is turned: the last column and row are the picture's only in part, which the box says, and would move.
    whole = _rgb(file, upright=False)
    image = Image.fromarray(resize(whole, _scaled(stored, size_px / max(stored)), box=drafted[1]))
    image.info = whole.info  # which say how it is turned
    return _upright(image, stored) if upright else (image, stored)


def _upright(image: Image.Image, full: tuple[int, int]) -> tuple[Image.Image, tuple[int, int]]:
    """An image turned as its EXIF orientation says, and the size of the whole picture turned alike."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
        turned = image if orientation == 1 else ImageOps.exif_transpose(image)
    except Exception:  # noqa: BLE001 - a picture with broken metadata is still a picture
        return image, full
    return turned, full[::-1] if orientation in (5, 6, 7, 8) else full


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
    stated = file.size
    file.load()
    if file.size != stated:  # a HEIF may have pixels of another size
        raise ValueError(f"its header says {stated[0]}x{stated[1]} pixels, and it has {file.size[0]}x{file.size[1]}")
    image = _upright(file, file.size)[0] if upright else file
    if image.mode.startswith("I") or image.mode == "F":
        image = _eight_bits(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit, 32-bit and floating-point greyscale to 8 bits; Pillow's own conversion would cut at 255."""
    values = np.asarray(image)
    parts = [slice(start, start + _ROWS_AT_ONCE) for start in range(0, len(values), _ROWS_AT_ONCE)]
    largest = max((float(_finite(values[rows]).max()) for rows in parts), default=0.0)
    if image.mode == "F":
        top = 1.0 if largest <= 1 else 255.0 if largest <= 255 else 65535.0
    else:
        top = 255.0 if largest <= 255 and image.mode == "I" else 65535.0
    out = np.empty(values.shape, np.uint8)
    for rows in parts:
        out[rows] = np.clip(_finite(values[rows]) / top * 255, 0, 255).round()
    grey = Image.fromarray(out)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    return grey


def _finite(values: np.ndarray) -> np.ndarray:
    """Values as float64, 0 where they are none."""
    whole = np.asarray(values, np.float64)
    return np.where(np.isfinite(whole), whole, 0)
