"""From bytes to an upright RGB picture: every kind of file, every orientation, every way to be broken."""

from __future__ import annotations

import io
import os
import signal
import socket
import struct
import subprocess
import sys
import warnings
import zlib
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageFile, features

from coocnet.data import images
from coocnet.data.images import Measured, Picture, content_digest, decode, measured, read_bytes
from coocnet.errors import ImageError, InputError

ROWS, COLUMNS = np.mgrid[0:12, 0:16]
SMOOTH = np.stack([COLUMNS * 16, ROWS * 21, (ROWS + COLUMNS) * 9], -1).astype(np.uint8)
"""(12, 16, 3): smooth, so that lossy formats keep it; 192 colours, so that a palette holds it; no symmetry."""

MADE_WITH_AVIF = pytest.mark.skipif(not features.check("avif"), reason="this Pillow was built without AVIF")
NEEDS_FIFO = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no FIFOs")


def encoded(picture: np.ndarray | Image.Image, kind: str = "PNG", **options: object) -> bytes:
    image = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def decoded(content: bytes, *, size_px: int | None = None, box: images.Box | None = None) -> Picture:
    return decode(content, "holiday.jpg", size_px=size_px, box=box)


def assert_near(got: np.ndarray, wanted: np.ndarray, *, most: float, on_average: float | None = None) -> None:
    assert got.shape == wanted.shape
    off = np.abs(got.astype(float) - wanted)
    assert off.max() <= most
    assert off.mean() <= (most if on_average is None else on_average)


def grey_rgb(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[..., None], 3, axis=2)


# ---- formats and modes ----


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("BMP", {}),
        ("GIF", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("WEBP", {"lossless": True}),
    ],
)
def test_lossless_formats_give_the_exact_pixels(kind: str, options: dict[str, object]) -> None:
    picture = decoded(encoded(SMOOTH, kind, **options))
    np.testing.assert_array_equal(picture.pixels, SMOOTH)
    assert picture.pixels.dtype == np.uint8
    assert picture.full_size_px == (16, 12)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {"subsampling": 0}),
        ("JPEG", {"subsampling": 0, "progressive": True}),
        ("WEBP", {}),
        pytest.param("AVIF", {}, marks=MADE_WITH_AVIF),
    ],
)
def test_lossy_formats_give_nearly_the_pixels(kind: str, options: dict[str, object]) -> None:
    assert_near(decoded(encoded(SMOOTH, kind, quality=95, **options)).pixels, SMOOTH, most=20, on_average=3)


def test_the_bytes_decide_and_not_the_name() -> None:
    np.testing.assert_array_equal(decode(encoded(SMOOTH, "PNG"), "really.jpg", size_px=None).pixels, SMOOTH)


def test_a_cmyk_jpeg_becomes_rgb() -> None:
    content = encoded(Image.fromarray(SMOOTH).convert("CMYK"), "JPEG", quality=100, subsampling=0)
    assert_near(decoded(content).pixels, SMOOTH, most=8)


RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(encoded(RAMP.astype(np.uint16) * 257, "PNG"), id="16-bit PNG"),
        pytest.param(encoded(RAMP.astype(np.uint16) * 257, "TIFF"), id="16-bit TIFF"),
        pytest.param(
            encoded(Image.frombytes("I;16B", (16, 16), (RAMP.astype(">u2") * 257).tobytes()), "TIFF"),
            id="16-bit big-endian TIFF",
        ),
        pytest.param(encoded(RAMP.astype(np.int32) * 257, "TIFF"), id="32-bit TIFF with a 16-bit range"),
        pytest.param(encoded(RAMP.astype(np.int32), "TIFF"), id="32-bit TIFF with an 8-bit range"),
        pytest.param(encoded(RAMP.astype(np.float32) / 255, "TIFF"), id="float TIFF from 0 to 1"),
        pytest.param(encoded(RAMP.astype(np.float32), "TIFF"), id="float TIFF from 0 to 255"),
        pytest.param(encoded(RAMP.astype(np.float32) * 257, "TIFF"), id="float TIFF from 0 to 65535"),
    ],
)
def test_deep_greyscale_is_scaled_and_not_clipped(content: bytes) -> None:
    np.testing.assert_array_equal(decoded(content).pixels, grey_rgb(RAMP))


def test_a_dark_16_bit_picture_stays_dark() -> None:
    assert decoded(encoded(RAMP.astype(np.uint16), "PNG")).pixels.max() == 1


def test_what_is_no_number_in_a_float_picture_is_black() -> None:
    values = np.array([[np.nan, np.inf, -np.inf], [-3.0, 0.5, 1.0]], dtype=np.float32)
    np.testing.assert_array_equal(decoded(encoded(values, "TIFF")).pixels[..., 0], [[0, 0, 0], [0, 128, 255]])


def test_greyscale_gives_three_equal_channels() -> None:
    np.testing.assert_array_equal(decoded(encoded(RAMP)).pixels, grey_rgb(RAMP))


def test_one_bit_gives_black_and_white() -> None:
    bits = RAMP % 3 == 0
    np.testing.assert_array_equal(decoded(encoded(bits)).pixels, grey_rgb(bits * np.uint8(255)))


def palette_picture() -> Image.Image:
    """The smooth picture with 192 palette entries, the first of which is its upper left corner."""
    image = Image.new("P", (16, 12))
    image.putpalette(SMOOTH.tobytes())
    image.putdata(range(192))
    return image


def test_a_palette_gives_its_colours() -> None:
    np.testing.assert_array_equal(decoded(encoded(palette_picture())).pixels, SMOOTH)


OPACITY = (COLUMNS * 17).astype(np.uint8)


def on_white(colours: np.ndarray, opacity: np.ndarray) -> np.ndarray:
    share = opacity[..., None] / 255
    return colours * share + 255 * (1 - share)


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        pytest.param(encoded(np.dstack([SMOOTH, OPACITY])), on_white(SMOOTH, OPACITY), id="RGBA"),
        pytest.param(
            encoded(np.dstack([SMOOTH, OPACITY]), "WEBP", lossless=True, exact=True),
            on_white(SMOOTH, OPACITY),
            id="RGBA WebP",
        ),
        pytest.param(
            encoded(np.dstack([SMOOTH[..., 0], OPACITY])),
            on_white(grey_rgb(SMOOTH[..., 0]), OPACITY),
            id="LA",
        ),
        pytest.param(
            encoded(palette_picture(), transparency=OPACITY.tobytes()), on_white(SMOOTH, OPACITY), id="palette"
        ),
        pytest.param(
            encoded(palette_picture(), "GIF", transparency=0),
            on_white(SMOOTH, np.where(ROWS + COLUMNS, 255, 0)),
            id="palette GIF",
        ),
        pytest.param(encoded(RAMP, transparency=0), on_white(grey_rgb(RAMP), np.where(RAMP, 255, 0)), id="one grey"),
        pytest.param(
            encoded(RAMP.astype(np.uint16) * 257, transparency=0),
            on_white(grey_rgb(RAMP), np.where(RAMP, 255, 0)),
            id="one 16-bit grey",
        ),
        pytest.param(
            encoded(SMOOTH, transparency=(0, 0, 0)),
            on_white(SMOOTH, np.where(ROWS + COLUMNS, 255, 0)),
            id="one colour",
        ),
    ],
)
def test_transparency_lies_on_white(content: bytes, wanted: np.ndarray) -> None:
    assert_near(decoded(content).pixels, wanted, most=1)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("GIF", {}),
        ("WEBP", {"lossless": True}),
        ("PNG", {}),
        ("TIFF", {}),
        ("MPO", {"quality": 95, "subsampling": 0}),
    ],
)
def test_of_several_frames_the_first_counts(kind: str, options: dict[str, object]) -> None:
    others = [Image.fromarray(255 - SMOOTH), Image.fromarray(SMOOTH[::-1].copy())]
    content = encoded(SMOOTH, kind, save_all=True, append_images=others, **options)
    with Image.open(io.BytesIO(content)) as image:
        assert image.n_frames == 3, "the test's picture is no animation"
    assert_near(decoded(content).pixels, SMOOTH, most=20 if kind == "MPO" else 0)


# ---- orientation ----

STORED: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.transpose(1, 0, 2),
    6: lambda upright: upright.transpose(1, 0, 2)[::-1],
    7: lambda upright: upright.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda upright: upright.transpose(1, 0, 2)[:, ::-1],
}
"""EXIF orientation -> how a camera that writes it has stored the upright picture (EXIF 2.32, tag 0x0112)."""


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def stored_sideways(orientation: int, kind: str = "PNG", **options: object) -> bytes:
    stored = np.ascontiguousarray(STORED[orientation](SMOOTH))
    return encoded(stored, kind, exif=exif(orientation), **options)


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize(
    ("kind", "options", "tolerance"),
    [
        ("JPEG", {"quality": 95, "subsampling": 0}, 8),
        ("PNG", {}, 0),
        ("TIFF", {}, 0),
        ("WEBP", {"lossless": True}, 0),
    ],
)
def test_exif_orientation_is_applied(kind: str, options: dict[str, object], tolerance: int, orientation: int) -> None:
    picture = decoded(stored_sideways(orientation, kind, **options))
    assert_near(picture.pixels, SMOOTH, most=tolerance)
    assert picture.full_size_px == (16, 12)


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize(
    ("kind", "options", "tolerance"), [("JPEG", {"quality": 95, "subsampling": 0}, 8), ("PNG", {}, 0)]
)
def test_exif_orientation_is_left_where_pixels_are_wanted_as_stored(
    kind: str, options: dict[str, object], tolerance: int, orientation: int
) -> None:
    stored = STORED[orientation](SMOOTH)
    content = stored_sideways(orientation, kind, **options)
    assert_near(decode(content, "p", size_px=None, upright=False).pixels, stored, most=tolerance)
    part = decode(content, "p", size_px=None, upright=False, box=(3, 2, 11, 6))
    assert_near(part.pixels, stored[2:6, 3:11], most=tolerance)


def test_exif_orientation_is_applied_to_16_bit_pictures() -> None:
    stored = np.ascontiguousarray(STORED[6](grey_rgb(RAMP))[..., 0])
    for kind in ("PNG", "TIFF"):
        content = encoded(stored.astype(np.uint16) * 257, kind, exif=exif(6))
        np.testing.assert_array_equal(decoded(content).pixels, grey_rgb(RAMP))


BROKEN_EXIF = [
    pytest.param(b"Exif\0\0", id="nothing"),
    pytest.param(b"Exif\0\0garbage", id="garbage"),
    pytest.param(b"Exif\0\0II*\0\xff\xff\xff\xff", id="table beyond the end"),
    pytest.param(exif(6).tobytes()[:20], id="truncated"),
    pytest.param(b"Exif\0\0" + b"\xff" * 40, id="only ones"),
]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("metadata", BROKEN_EXIF)
def test_a_picture_with_broken_exif_is_still_a_picture(kind: str, metadata: bytes) -> None:
    content = encoded(SMOOTH, kind, exif=metadata, quality=95, subsampling=0)
    assert_near(decoded(content).pixels, SMOOTH, most=20, on_average=3)


# ---- size ----


@pytest.mark.parametrize(
    ("width", "height", "size_px", "wanted"),
    [
        (400, 200, 100, (100, 50)),
        (200, 400, 100, (50, 100)),
        (300, 200, 100, (100, 67)),
        (101, 50, 100, (100, 50)),
        (100, 50, 100, (100, 50)),
        (99, 50, 100, (99, 50)),
        (3, 2, 1024, (3, 2)),
        (400, 200, None, (400, 200)),
        (400, 1, 100, (100, 1)),
        (1, 400, 100, (1, 100)),
        (7, 5, 1, (1, 1)),
    ],
)
def test_the_longer_side_is_limited_and_never_enlarged(
    width: int, height: int, size_px: int | None, wanted: tuple[int, int]
) -> None:
    picture = decoded(encoded(Image.new("RGB", (width, height), (10, 120, 250))), size_px=size_px)
    assert picture.pixels.shape == (wanted[1], wanted[0], 3)
    assert picture.full_size_px == (width, height)
    assert (picture.pixels == (10, 120, 250)).all()


def test_reducing_averages_what_it_drops() -> None:
    stripes = np.zeros((80, 80, 3), np.uint8)
    stripes[:, ::2] = 255
    reduced = decoded(encoded(stripes), size_px=20).pixels
    assert_near(reduced, np.full((20, 20, 3), 127.5), most=12)


@pytest.mark.parametrize("size_px", [0, -5, 1.5, float("nan"), "3", True])
def test_a_limit_that_is_no_number_of_pixels_is_refused(size_px: object) -> None:
    with pytest.raises(InputError, match=f"of at least 1, or None; got {size_px!r}"):
        decoded(encoded(SMOOTH), size_px=size_px)


# ---- boxes ----


@pytest.mark.parametrize("orientation", [1, 6, 7])
def test_a_box_is_in_pixels_of_the_upright_picture(orientation: int) -> None:
    picture = decoded(stored_sideways(orientation), box=(3, 2, 11, 6))
    np.testing.assert_array_equal(picture.pixels, SMOOTH[2:6, 3:11])
    assert picture.full_size_px == (16, 12)


@pytest.mark.parametrize(
    ("box", "wanted"),
    [
        ((-9, -9, 4, 4), SMOOTH[:4, :4]),
        ((10, 8, 99, 99), SMOOTH[8:, 10:]),
        ((-1, -1, 1e9, 1e9), SMOOTH),
        ((2.6, 1.4, 6.4, 3.6), SMOOTH[1:4, 3:6]),
        ((15, 11, 16, 12), SMOOTH[11:, 15:]),
    ],
)
def test_a_box_is_rounded_and_clipped_to_the_picture(box: images.Box, wanted: np.ndarray) -> None:
    np.testing.assert_array_equal(decoded(encoded(SMOOTH), box=box).pixels, wanted)


@pytest.mark.parametrize(
    ("box", "quoted"),
    [
        ((4, 4, 4, 9), "4,4,4,9"),
        ((9, 2, 3, 8), "9,2,3,8"),
        ((16, 0, 20, 12), "16,0,20,12"),
        ((-8, -8, 0, 0), "-8,-8,0,0"),
        ((2.1, 2.1, 2.4, 2.4), "2.1,2.1,2.4,2.4"),
    ],
)
def test_a_box_that_leaves_nothing_is_refused_with_its_numbers(box: images.Box, quoted: str) -> None:
    with pytest.raises(ImageError) as caught:
        decoded(encoded(SMOOTH), box=box)
    assert caught.value.reason == f"the box {quoted} leaves nothing of a picture of 16x12 pixels"
    assert not caught.value.unread


@pytest.mark.parametrize("edge", [float("nan"), float("inf"), "9", None, True])
def test_a_box_that_is_not_of_numbers_is_refused(edge: Any) -> None:
    with pytest.raises(InputError, match=f"four numbers .*{edge}"):
        decoded(encoded(SMOOTH), box=(0, 0, edge, 5))


@pytest.mark.parametrize(
    ("box", "wanted"), [((100, 48, 300, 152), (26, 50)), ((0, 0, 40, 40), (10, 10)), ((8, 8, 9, 9), (1, 1))]
)
def test_a_box_has_the_scale_of_the_whole_picture(box: images.Box, wanted: tuple[int, int]) -> None:
    content = encoded(Image.fromarray(SMOOTH).resize((400, 200), Image.Resampling.BICUBIC))
    whole = decoded(content, size_px=100).pixels
    part = decoded(content, size_px=100, box=box).pixels
    assert part.shape == (*wanted, 3)
    left, top = int(box[0]) // 4, int(box[1]) // 4
    assert_near(part, whole[top : top + wanted[0], left : left + wanted[1]].astype(float), most=6)


# ---- reading files ----


@pytest.fixture
def alarm() -> Iterator[None]:
    """Ends a test that waits for ever, so that it fails instead."""

    def give_up(*_: object) -> None:
        raise AssertionError("it waits for ever")

    previous = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, previous)


def refusal(path: str | Path) -> ImageError:
    with pytest.raises(ImageError) as caught:
        read_bytes(path)
    assert caught.value.path == str(path)
    assert str(caught.value) == f"{path}: {caught.value.reason}"
    return caught.value


def test_a_file_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(bytes(range(256)) * 1000)
    assert read_bytes(path) == read_bytes(str(path)) == bytes(range(256)) * 1000


def test_a_missing_file_is_unread(tmp_path: Path) -> None:
    error = refusal(tmp_path / "gone.jpg")
    assert (error.reason, error.unread) == ("no such file", True)


def test_a_link_to_itself_is_unread(tmp_path: Path) -> None:
    (tmp_path / "self.jpg").symlink_to("self.jpg")
    error = refusal(tmp_path / "self.jpg")
    assert error.reason.startswith("cannot be read: ")
    assert error.unread


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read every file")
def test_a_file_without_permission_is_unread(tmp_path: Path) -> None:
    path = tmp_path / "secret.jpg"
    path.write_bytes(encoded(SMOOTH))
    path.chmod(0)
    error = refusal(path)
    assert (error.reason, error.unread) == ("cannot be read: permission denied", True)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    error = refusal(tmp_path / "empty.jpg")
    assert (error.reason, error.unread) == ("empty file", False)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    error = refusal(tmp_path)
    assert (error.reason, error.unread) == ("a folder", False)


@NEEDS_FIFO
@pytest.mark.usefixtures("alarm")
@pytest.mark.parametrize("name", ["pipe", "photo.jpg"])
def test_a_fifo_is_refused_without_waiting(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    error = refusal(tmp_path / name)
    assert (error.reason, error.unread) == ("not a regular file", False)


@pytest.mark.usefixtures("alarm")
@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="this system has no sockets in files")
def test_a_socket_is_refused_without_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the whole path may be longer than a socket's name may be
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("photo.jpg")
        assert refusal("photo.jpg").unread


def test_a_file_above_the_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_FILE_BYTES", 1 << 20)
    path = tmp_path / "large.jpg"
    path.write_bytes(bytes(1 << 20))
    assert len(read_bytes(path)) == 1 << 20
    path.write_bytes(bytes((1 << 20) + 1))
    error = refusal(path)
    assert (error.reason, error.unread) == ("larger than 1 MiB", False)


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("can't allocate read lock")])
def test_a_file_that_cannot_be_opened_for_want_of_memory_is_closed_once(tmp_path, monkeypatch, error) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"something")

    def closing(descriptor: int, *_: object) -> None:
        os.close(descriptor)  # as Python does where no buffer can be had
        raise error

    monkeypatch.setattr(os, "fdopen", closing)
    with pytest.raises(ImageError, match="does not fit into memory") as told:
        read_bytes(path)
    assert told.value.unread


def test_a_file_that_does_not_fit_into_memory_is_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.BytesIO):
        def read(self, *_: object) -> bytes:
            raise MemoryError

    path = tmp_path / "large.jpg"
    path.write_bytes(b"many")
    monkeypatch.setattr(os, "fdopen", lambda *_, **__: Full())
    error = refusal(path)
    assert (error.reason, error.unread) == ("does not fit into memory", True)


def test_a_digest_tells_contents_apart() -> None:
    assert content_digest(b"one") == content_digest(bytearray(b"one"))
    assert len({content_digest(content) for content in (b"", b"one", b"One", b"one\0")}) == 4
    assert len(content_digest(b"one")) == 16


# ---- broken pictures ----


def reason_of(content: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        decoded(content)
    assert caught.value.path == "holiday.jpg"
    assert not caught.value.unread
    return caught.value.reason


@pytest.mark.parametrize("content", [b"", b"Dear diary,\ntoday", bytes(1000), bytes(range(256)) * 4, b"<svg></svg>"])
def test_other_bytes_are_not_a_picture(content: bytes) -> None:
    assert reason_of(content) == "not a picture"


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    "kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", pytest.param("AVIF", marks=MADE_WITH_AVIF)]
)
def test_a_file_cut_anywhere_is_refused(kind: str) -> None:
    content = encoded(SMOOTH, kind)
    after_the_pixels = {"PNG": 12 + 8, "GIF": 2}.get(kind, 0)  # IEND and a checksum; an end mark
    for length in range(len(content) - after_the_pixels):
        reason_of(content[:length])


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "TIFF", "BMP"])
def test_a_file_that_ends_within_its_pixels_is_called_truncated(kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    content = encoded(noise, kind)
    for share in (0.5, 0.7, 0.9):
        assert reason_of(content[: int(len(content) * share)]) == "truncated"


def png_chunk(kind: bytes, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))


@pytest.mark.parametrize(("width", "height"), [(20_000, 20_000), (2**31 - 1, 2**31 - 1), (178_956_971, 1)])
def test_a_decompression_bomb_is_refused_by_its_header(width: int, height: int) -> None:
    """There are no pixels in the file: had anything been allocated or unpacked, the reason would be another."""
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", b"") + png_chunk(b"IEND", b"")
    assert Image.MAX_IMAGE_PIXELS is not None
    assert reason_of(content) == f"more than {2 * Image.MAX_IMAGE_PIXELS // 10**6} megapixels"


@pytest.mark.parametrize("step", ["_rgb", "fit"])
def test_a_picture_that_does_not_fit_into_memory_is_refused(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(images, step, full)
    assert reason_of(encoded(SMOOTH)) == "does not fit into memory"


HEIC_HEADER = b"\0\0\0\x18ftyp%b\0\0\0\0mif1heic" + bytes(64)
needs_heif = pytest.mark.skipif(find_spec("pillow_heif") is None, reason="needs the extra coocnet[heic]")


@pytest.mark.parametrize("brand", [b"heic", b"heix", b"mif1"])
def test_heic_without_its_extra_names_the_extra(brand: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    assert "pip install 'coocnet[heic]'" in reason_of(HEIC_HEADER % brand)


@needs_heif
def test_heic_is_read() -> None:
    import pillow_heif

    stream = io.BytesIO()
    pillow_heif.from_pillow(Image.fromarray(SMOOTH)).save(stream, quality=95, chroma=444)
    pixels = decode(stream.getvalue(), "a.heic", size_px=None).pixels
    assert pixels.shape == SMOOTH.shape
    assert np.abs(pixels.astype(int) - SMOOTH).mean() < 3


@needs_heif
def test_damaged_heic_is_refused() -> None:
    reason_of(HEIC_HEADER % b"heic")


WARNED_OF = {
    "broken EXIF": encoded(SMOOTH, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff"),
    "half as many pixels as are refused": encoded(SMOOTH),
}
DECODE_AND_SHOW_FILTERS = """
import sys, warnings
from concurrent.futures import ThreadPoolExecutor
from PIL import Image
from coocnet.data.images import decode
Image.MAX_IMAGE_PIXELS = 16 * 12 - 1
before, content = warnings.filters[:], sys.stdin.buffer.read()
with ThreadPoolExecutor(4) as pool:
    pictures = list(pool.map(lambda _: decode(content, "", size_px=None), range(20)))
assert all(picture.full_size_px == (16, 12) for picture in pictures)
assert warnings.filters[:len(before)] == before, "a filter of the program's own no longer comes first"
assert len(warnings.filters) == len(before) + 1, warnings.filters
"""


@pytest.mark.slow
@pytest.mark.parametrize("content", WARNED_OF.values(), ids=WARNED_OF)
def test_no_warning_of_pillows_is_shown_and_the_programs_own_filters_come_first(content: bytes) -> None:
    done = subprocess.run([sys.executable, "-c", DECODE_AND_SHOW_FILTERS], input=content, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr.decode()) == (0, b"", "")


@pytest.mark.parametrize("content", WARNED_OF.values(), ids=WARNED_OF)
def test_a_program_that_makes_warnings_errors_is_told_which(content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 16 * 12 - 1)
    warnings.simplefilter("error")
    assert reason_of(content).startswith("Pillow warns: ")


SEEDS = {kind: encoded(SMOOTH, kind) for kind in ("JPEG", "PNG", "WEBP", "GIF", "TIFF")}


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A small picture with a few bytes replaced, taken out or put in, its header rather than its body."""
    content = bytearray(draw(st.sampled_from(sorted(SEEDS.values()))))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, 63) | st.integers(0, len(content) - 1))
        removed = draw(st.sampled_from([1, 1, 0, 4]))
        content[place : place + removed] = draw(st.binary(max_size=4))
    return bytes(content)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(content=mutated(), warnings_are=st.sampled_from(["error", "ignore"]), size_px=st.sampled_from([64, 5]))
def test_a_mutated_picture_decodes_or_is_refused(content: bytes, warnings_are: str, size_px: int) -> None:
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.setattr(Image, "MAX_IMAGE_PIXELS", 100_000)  # a wild header may well ask for a gigabyte
        warnings.simplefilter(warnings_are)
        try:
            picture = decoded(content, size_px=size_px)
        except ImageError:
            return
    assert picture.pixels.dtype == np.uint8
    assert picture.pixels.ndim == picture.pixels.shape[2] == 3
    assert 1 <= max(picture.pixels.shape[:2]) <= size_px


# ---- size from the header ----


def turned(kind: str, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return encoded(SMOOTH, kind, exif=exif)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    "kind",
    ["JPEG", "MPO", "PNG", "WEBP", "TIFF", pytest.param("AVIF", marks=MADE_WITH_AVIF), "HEIF"],
)
def test_the_measured_size_is_that_of_the_upright_picture(kind: str, orientation: int) -> None:
    if kind == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    content = turned(kind, orientation)
    size = measured(content, "holiday")
    assert (size.width, size.height) == decoded(content).full_size_px
    assert size.format in {kind, "JPEG" if kind == "MPO" else kind}


@pytest.mark.parametrize("kind", ["GIF", "BMP"])
def test_formats_without_an_orientation_are_measured(kind: str) -> None:
    assert measured(encoded(SMOOTH, kind), "holiday") == Measured(16, 12, kind)


def test_the_orientation_of_a_png_is_read_behind_its_pixels_too() -> None:
    content = turned("PNG", 6)
    start = content.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(content[start : start + 4], "big")
    last = content.index(b"IEND") - 4
    late = content[:start] + content[end:last] + content[start:end] + content[last:]
    assert decoded(late).full_size_px == (12, 16)
    assert measured(late, "holiday") == Measured(12, 16, "PNG")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
def test_measuring_decodes_nothing(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    content = encoded(SMOOTH, kind)

    def load(*_: object, **__: object) -> None:
        pytest.fail("pixels were decoded")

    for one in (Image.Image, ImageFile.ImageFile):
        monkeypatch.setattr(one, "load", load)
    assert measured(content, "holiday").width == 16


@pytest.mark.parametrize("content", [b"hello", b"", b"\x89PNG\r\n\x1a\n", encoded(SMOOTH, "JPEG")[:30]], ids=len)
def test_what_is_no_picture_has_no_size(content: bytes) -> None:
    with pytest.raises(ImageError, match=r"holiday\.jpg"):
        measured(content, "holiday.jpg")


@pytest.mark.parametrize("box", [None, (0.0, 0.0, 2.0, 2.0)])
def test_a_picture_above_the_pixel_bound_is_refused_before_it_is_decoded(box: images.Box | None) -> None:
    content = encoded(SMOOTH, "PNG")
    assert decode(content, "p.png", size_px=None, box=box, most_px=192).full_size_px == (16, 12)
    with pytest.raises(ImageError, match=r"more than 0\.000191 megapixels"):
        decode(content[:60], "p.png", size_px=None, box=box, most_px=191)


@pytest.mark.parametrize("most_px", [0, -1, 1.5, True, "1"])
def test_a_pixel_bound_that_is_none_is_refused(most_px: object) -> None:
    with pytest.raises(InputError, match="most_px"):
        decode(b"", "p.png", size_px=None, most_px=most_px)


def test_a_jpeg_that_costs_a_thousand_decodings_is_refused() -> None:
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(
        out, "JPEG", progressive=True
    )
    content = out.getvalue()
    decode(content, "a.jpg", size_px=None)
    last = content.rindex(b"\xff\xda")
    scans = content[:last] + 1000 * content[last:-2] + content[-2:]
    with pytest.raises(ImageError, match="scans"):
        decode(scans, "a.jpg", size_px=None)
