"""A JPEG decoded at a part of its size: the pixels of decoding in full within a bound, and all else the same.

The oracle decodes in full and reduces with the same filter.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, JpegImagePlugin

from coocnet.data.images import Box, decode, fit, read_bytes
from coocnet.describe import Describer
from coocnet.errors import ImageError

WIDTH, HEIGHT = 601, 441
"""Of both sides the last pixel lies in a block of 8 of its own."""
LIMITS_PX = {8: 50, 4: 100, 2: 200}
"""8 for an eighth of the sides -> the limit at which the picture is decoded at it, as tightly as it ever is."""


def sharp(width: int = WIDTH, height: int = HEIGHT) -> Image.Image:
    """Squares of 48 pixels in full, random colours: every edge as hard as it can be, and nothing symmetric."""
    colours = np.random.default_rng(0).integers(0, 2, (height // 48 + 1, width // 48 + 1, 3), dtype=np.uint8) * 255
    return Image.fromarray(colours.repeat(48, 0).repeat(48, 1)[:height, :width])


def jpeg(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **{"quality": 95, "subsampling": 0, **options})
    return stream.getvalue()


def turned(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def in_full(content: bytes, size_px: int, *, upright: bool = True) -> np.ndarray:
    whole = decode(content, "p", size_px=None, upright=upright)
    return fit(Image.fromarray(whole.pixels), size_px, longest_full_px=max(whole.full_size_px))


def assert_as_in_full(content: bytes, size_px: int, *, upright: bool = True, most: int = 40) -> None:
    """Within what edges as hard as these allow; a shift by a quarter of a pixel would give 68 and more."""
    reduced = decode(content, "p", size_px=size_px, upright=upright)
    full = in_full(content, size_px, upright=upright)
    assert reduced.pixels.shape == full.shape
    assert reduced.full_size_px == decode(content, "p", size_px=None, upright=upright).full_size_px
    off = np.abs(reduced.pixels.astype(int) - full)
    assert off.mean() <= 4
    assert off.max() <= most


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """At which part of its size each JPEG since the beginning of the test was decoded."""
    found: list[int] = []
    prepare = JpegImagePlugin.JpegImageFile.load_prepare

    def noted(file: JpegImagePlugin.JpegImageFile) -> None:
        found.append(file.decoderconfig[0] if file.decoderconfig else 1)
        prepare(file)

    monkeypatch.setattr(JpegImagePlugin.JpegImageFile, "load_prepare", noted)
    return found


# ---- the bound ----


@pytest.mark.parametrize(("part", "size_px"), LIMITS_PX.items())
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(WIDTH, HEIGHT), (WIDTH, WIDTH)], ids=["oblong", "square"])
def test_a_reduced_jpeg_has_the_pixels_of_the_full_one_within_a_bound_however_it_is_turned(
    size: tuple[int, int], orientation: int, part: int, size_px: int, parts: list[int]
) -> None:
    content = jpeg(sharp(*size), exif=turned(orientation))
    assert_as_in_full(content, size_px)
    assert parts[0] == part


@pytest.mark.parametrize(("part", "size_px"), LIMITS_PX.items())
def test_a_reduced_jpeg_is_left_as_stored_where_that_is_wanted(part: int, size_px: int, parts: list[int]) -> None:
    content = jpeg(sharp(), exif=turned(6))
    assert_as_in_full(content, size_px, upright=False)
    assert decode(content, "p", size_px=size_px, upright=False).full_size_px == (WIDTH, HEIGHT)
    assert parts[0] == part


def ycck(image: Image.Image) -> bytes:
    """A JPEG of four channels whose Adobe marker says that the first three are luma and chroma."""
    content = jpeg(Image.merge("CMYK", [*image.convert("YCbCr").split(), image.convert("L").point(lambda v: v // 4)]))
    marker = content.index(b"Adobe") + 11
    return content[:marker] + b"\x02" + content[marker + 1 :]


KINDS: dict[str, Callable[[Image.Image], bytes]] = {
    "progressive": lambda image: jpeg(image, progressive=True),
    "chroma at half the size": lambda image: jpeg(image, subsampling=2),
    "chroma at half the width": lambda image: jpeg(image, subsampling=1),
    "greyscale": lambda image: jpeg(image.convert("L")),
    "CMYK": lambda image: jpeg(image.convert("CMYK")),
    "YCCK": ycck,
    "two pictures in one file": lambda image: jpeg(
        image, "MPO", save_all=True, append_images=[Image.new("RGB", image.size)], exif=turned(6)
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_jpeg_keeps_its_colours(kind: str, parts: list[int]) -> None:
    content = KINDS[kind](sharp())
    for part, size_px in LIMITS_PX.items():
        parts.clear()
        assert_as_in_full(content, size_px, most=60 if "chroma" in kind else 40)
        assert parts[0] == part
    assert np.ptp(in_full(content, 50)) > 150


def test_photographs_have_the_same_rows_in_full_and_reduced(real_data: Path, parts: list[int]) -> None:
    describer = Describer(device="cpu")
    for path in sorted((real_data / "images" / "paris6k_subset").rglob("*.jpg"))[::40]:
        content = read_bytes(path)
        pixels = [decode(content, path, size_px=200).pixels, in_full(content, 200)]
        one, other = describer.describe_pixels(np.stack(pixels))
        assert one @ other > 0.999
    assert set(parts[::2]) == {2}


# ---- which pictures, and how large they become ----


@pytest.mark.parametrize(
    ("longest", "size_px", "part"),
    [
        (600, 200, 2),
        (599, 200, 1),
        (600, 100, 4),
        (599, 100, 2),
        (600, 50, 8),
        (599, 50, 4),
        (600, 10, 8),
        (600, 700, 1),
        (607, 50, 8),
        (605, 100, 4),
    ],
)
def test_half_the_limit_is_always_left_to_the_filter(longest: int, size_px: int, part: int, parts: list[int]) -> None:
    for size in ((longest, 303), (303, longest)):
        parts.clear()
        decode(jpeg(Image.new("RGB", size)), "p", size_px=size_px)
        assert parts == [part]


def test_without_a_limit_a_jpeg_is_decoded_in_full(parts: list[int]) -> None:
    assert decode(jpeg(sharp()), "p", size_px=None).pixels.shape == (HEIGHT, WIDTH, 3)
    assert parts == [1]


@pytest.mark.parametrize("box", [(0, 0, WIDTH, HEIGHT), (97, 45, 352, 401)])
def test_a_box_is_cut_from_the_full_picture(box: Box, parts: list[int]) -> None:
    content = jpeg(sharp())
    part = decode(content, "p", size_px=50, box=box)
    assert parts == [1]
    cut = Image.fromarray(decode(content, "p", size_px=None, box=box).pixels)
    np.testing.assert_array_equal(part.pixels, fit(cut, 50, longest_full_px=WIDTH))
    assert part.full_size_px == (WIDTH, HEIGHT)


@settings(max_examples=200, deadline=None)
@given(
    width=st.integers(1, 200), height=st.integers(1, 200), size_px=st.integers(1, 70), orientation=st.integers(1, 8)
)
def test_shapes_do_not_depend_on_the_part(width: int, height: int, size_px: int, orientation: int) -> None:
    content = jpeg(Image.new("RGB", (width, height), (200, 100, 50)), exif=turned(orientation))
    picture = decode(content, "p", size_px=size_px)
    assert picture.pixels.shape == in_full(content, size_px).shape
    assert picture.full_size_px == ((height, width) if orientation >= 5 else (width, height))
    assert np.abs(picture.pixels.astype(int) - (200, 100, 50)).max() <= 3


@pytest.mark.parametrize("size_px", range(1, 9))
def test_the_smallest_limits_are_kept(size_px: int, parts: list[int]) -> None:
    assert decode(jpeg(sharp()), "p", size_px=size_px).pixels.shape[1] == size_px
    assert parts == [8]


@pytest.mark.parametrize("size", [(WIDTH, 1), (2, WIDTH), (WIDTH, 5), (7, WIDTH)])
@pytest.mark.parametrize("size_px", [1, 8, 50])
def test_a_picture_thinner_than_the_part_is_still_a_picture(size: tuple[int, int], size_px: int) -> None:
    content = jpeg(Image.new("RGB", size, (200, 100, 50)))
    picture = decode(content, "p", size_px=size_px)
    assert picture.pixels.shape == in_full(content, size_px).shape
    assert picture.full_size_px == size


# ---- what is broken ----

LEGIBLE_IN_PART = turned(6)
LEGIBLE_IN_PART[0x011A] = 72.0


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    "metadata",
    [
        pytest.param(b"Exif\0\0garbage", id="garbage"),
        pytest.param(b"Exif\0\0II*\0\xff\xff\xff\xff", id="table beyond the end"),
        pytest.param(turned(6).tobytes()[:20], id="truncated"),
        pytest.param(LEGIBLE_IN_PART.tobytes().replace(b"\x01\x1a\0\5", b"\x01\x1a\0\1"), id="legible in part"),
        pytest.param(turned(9).tobytes(), id="no such orientation"),
    ],
)
def test_broken_exif_counts_alike_in_full_and_reduced(metadata: bytes, parts: list[int]) -> None:
    assert_as_in_full(jpeg(sharp(), exif=metadata), 100)
    assert parts[0] == 4


def refusal(content: bytes, size_px: int | None) -> str:
    with pytest.raises(ImageError) as caught:
        decode(content, "p", size_px=size_px)
    assert not caught.value.unread
    return caught.value.reason


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 2}])
def test_a_jpeg_cut_anywhere_is_refused_for_the_same_reason(options: dict[str, object]) -> None:
    content = jpeg(sharp(97, 73), **options)
    for length in range(len(content)):
        assert refusal(content[:length], 8) == refusal(content[:length], None)


def test_a_jpeg_that_ends_within_its_pixels_is_called_truncated(parts: list[int]) -> None:
    content = jpeg(Image.effect_noise((256, 256), 90))
    for share in (0.5, 0.7, 0.9):
        assert refusal(content[: int(len(content) * share)], 20) == "truncated"
    assert parts == [8, 8, 8]


def test_a_jpeg_above_the_limit_of_pixels_is_refused_however_small_it_would_become(
    parts: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", WIDTH * HEIGHT // 2 - 1)
    for content in (jpeg(sharp()), KINDS["two pictures in one file"](sharp())):
        assert refusal(content, 50) == refusal(content, None) == "more than 0 megapixels"
    assert parts == []
