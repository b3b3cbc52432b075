"""Pictures and boxes."""

from __future__ import annotations

import io
import zlib
from functools import cache
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from PIL import Image

from coocnet.data.images import decode, measured, parse_box
from coocnet.data.scenes import render
from fuzz.mutations import mutated
from fuzz.target import Reads, Target

_SIDES_PX = (48, 36)
_LIMIT_PX = 24
_MOST_PX = 50_000_000
_PNG = b"\x89PNG\r\n\x1a\n"
_WAYS: tuple[dict[str, Any], ...] = (
    {"size_px": _LIMIT_PX},
    {"size_px": None},
    {"size_px": _LIMIT_PX, "box": (3.0, 2.0, 30.0, 20.0)},
    {"size_px": 7, "upright": False},
)


@cache
def seeds() -> list[bytes]:
    """A rendered scene in every format that is read here, and in the forms that are decoded in ways of their own."""
    scene = render(1, 0, size_px=64)[0].resize(_SIDES_PX)
    alpha = scene.copy()
    alpha.putalpha(Image.linear_gradient("L").resize(_SIDES_PX))
    grey, palette = scene.convert("L"), scene.convert("P")
    exif = Image.Exif()
    exif[0x0112] = 6
    forms: list[tuple[Image.Image, dict[str, object]]] = [
        (scene, {"format": "JPEG", "exif": exif}),
        (scene, {"format": "JPEG", "progressive": True, "subsampling": 2}),
        (grey, {"format": "JPEG", "optimize": True}),
        (scene.convert("CMYK"), {"format": "JPEG", "quality": 30}),
        (scene.resize((96, 64)), {"format": "JPEG", "quality": 20, "restart_marker_blocks": 4}),
        (scene, {"format": "MPO", "save_all": True, "append_images": [grey.convert("RGB")]}),
        (alpha, {"format": "PNG", "exif": exif}),
        (palette, {"format": "PNG", "transparency": 3}),
        (grey.convert("I;16"), {"format": "PNG"}),
        (scene.convert("1"), {"format": "PNG"}),
        (palette, {"format": "GIF", "save_all": True, "append_images": [palette.rotate(180)], "transparency": 1}),
        (scene, {"format": "WEBP", "quality": 40, "exif": exif}),
        (alpha, {"format": "WEBP", "lossless": True}),
        (scene, {"format": "WEBP", "save_all": True, "append_images": [scene.rotate(180)]}),
        (scene.resize((12, 9)), {"format": "TIFF", "exif": exif}),
        (alpha, {"format": "TIFF", "compression": "tiff_lzw"}),
        (scene, {"format": "TIFF", "compression": "jpeg"}),
        (scene.convert("1"), {"format": "TIFF", "compression": "group4"}),
        (grey.convert("F"), {"format": "TIFF", "compression": "tiff_adobe_deflate"}),
        (scene.resize((12, 9)), {"format": "BMP"}),
        (palette, {"format": "BMP"}),
        (scene, {"format": "AVIF", "quality": 30}),
        (scene, {"format": "HEIF", "quality": 30}),
    ]
    Image.init()
    try:
        from pillow_heif import register_heif_opener

        register_heif_opener()
    except ImportError:
        pass
    return [_bytes(image, **how) for image, how in forms if how["format"] in Image.SAVE]


def _bytes(image: Image.Image, **how: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, **how)  # type: ignore[arg-type]
    return stream.getvalue()


def sealed_png(data: bytes) -> bytes:
    """A PNG whose checksums fit, so that what is in its blocks is looked at."""
    at, parts = len(_PNG), [data[: len(_PNG)]]
    while at + 12 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        body = data[at + 4 : at + 8 + size]
        if len(body) < 4 + size:
            break
        parts += [data[at : at + 4], body, zlib.crc32(body).to_bytes(4, "big")]
        at += 12 + size
    return b"".join([*parts, data[at:]])


def _prepared(folder: Path) -> Reads:
    del folder

    def reads(data: bytes) -> None:
        way = zlib.crc32(data)
        if way & 4 and data.startswith(_PNG):
            data = sealed_png(data)
        size = measured(data, "picture")
        picture = decode(data, "picture", most_px=_MOST_PX, **_WAYS[way % 4])
        height, width, channels = picture.pixels.shape
        assert channels == 3
        assert height >= 1
        assert width >= 1
        full = {*picture.full_size_px}
        assert full == {size.width, size.height}, (full, size)
        if way % 4 == 0:
            assert max(width, height) <= _LIMIT_PX

    return reads


IMAGES = Target(
    "pictures of every format",
    _prepared,
    seeds,
    st.deferred(lambda: mutated(seeds()).map(sealed_png)),
    time_s=5,
    memory_mb=1024,
)


@cache
def _boxes() -> list[bytes]:
    return [b"1,2,30,20", b"-5.5,0,48.0,1e3", b" 0 , 0,1e9,1e9", b"0.4,0.4,0.6,0.6"]


def _boxes_prepared(folder: Path) -> Reads:
    del folder
    picture = _bytes(render(1, 0, size_px=64)[0].resize((12, 9)), format="BMP")

    def reads(data: bytes) -> None:
        box = parse_box(data.decode("utf-8", "replace"))
        pixels = decode(picture, "picture", size_px=None, box=box).pixels
        assert 1 <= pixels.shape[0] <= 9
        assert 1 <= pixels.shape[1] <= 12

    return reads


_edge = st.one_of(
    st.floats().map(repr),
    st.integers(-5, 20).map(str),
    st.integers().map(str),
    st.text(max_size=6),
    st.sampled_from(["inf", "-inf", "nan", "1e400", "٣", "1_0", "", "0x1", "9" * 400]),
)
BOXES = Target(
    "boxes as text, and what they cut out",
    _boxes_prepared,
    _boxes,
    st.lists(_edge, min_size=3, max_size=5).map(lambda edges: ",".join(edges).encode("utf-8", "surrogatepass")),
    longest_bytes=1 << 12,
)
