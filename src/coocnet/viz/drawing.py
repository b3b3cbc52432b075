"""What all drawings share: colours, fonts, text that fits, pictures that fit a box, and files of pictures."""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from coocnet import output

INK = (28, 30, 36)
FAINT = (100, 104, 114)
PAPER = (255, 255, 255)
ACCENT = (214, 72, 28)
GAP_PX = 14
_THINNEST = 1 / 8


@dataclass(frozen=True)
class Labelled:
    """A picture with two lines of text under it.

    Attributes:
        pixels: the picture.
        title: the first line.
        subtitle: the second line, smaller; empty for none.
    """

    pixels: UInt8[np.ndarray, "h w 3"]
    title: str
    subtitle: str = ""


def size_within(
    size: tuple[int, int], box: tuple[int, int], *, enlarge: bool = False
) -> tuple[tuple[int, int], bool]:
    """The size, (width, height), at which a picture is shown in a box, and whether it is stretched for that.

    The proportions are kept, but a picture that is more than 8 times as long as it is wide is shown wider than it is:
    a strip of a few pixels shows nothing.
    """
    scale = min(box[0] / size[0], box[1] / size[1])
    if not enlarge:
        scale = min(scale, 1.0)
    fitted = (size[0] * scale, size[1] * scale)
    least = max(1.0, max(fitted) * _THINNEST)
    width, height = (min(limit, round(max(side, least))) for side, limit in zip(fitted, box, strict=True))
    return (width, height), min(fitted) < least - 1


def stretched(title: str) -> str:
    """The title of a picture that is shown stretched."""
    return f"{title} (stretched)" if title else "(stretched)"


def decimals(value: float) -> str:
    """A number with two digits that say something, never with an exponent."""
    return np.format_float_positional(value, precision=2, fractional=False, trim="-")


def font(size_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The font of all text."""
    return ImageFont.load_default(size_px)


def shortened(text: str, size_px: int, width_px: float) -> str:
    """The text, its middle left out where it is too wide."""
    face = font(size_px)
    if len(text) <= 4 or face.getlength(text) <= width_px:
        return text

    def kept(letters: int) -> str:
        return f"{text[: letters - letters // 2]}…{text[len(text) - letters // 2 :]}"

    fewer = range(len(text) - 1, 4, -1)
    at = bisect_left(fewer, True, key=lambda letters: face.getlength(kept(letters)) <= width_px)
    return kept(len(text) - 1 - at)


def wrapped(text: str, size_px: int, width_px: float) -> list[str]:
    """The text on as many lines as it needs; a word that is wider than a line is shortened."""
    face, lines = font(size_px), [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if face.getlength(longer) <= width_px:
            lines[-1] = longer
        else:
            lines.append(shortened(word, size_px, width_px))
    return [line for line in lines if line]


def grid(panels: Sequence[Labelled], *, columns: int, tile: tuple[int, int]) -> Image.Image:
    """Pictures with their text in rows and columns, none larger than a tile, (width, height)."""
    width, height = tile
    rows = -(-len(panels) // columns)
    cell_height = height + 48
    sheet = Image.new("RGB", (columns * (width + GAP_PX) + GAP_PX, rows * (cell_height + GAP_PX) + GAP_PX), PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, panel in enumerate(panels):
        x = GAP_PX + (number % columns) * (width + GAP_PX)
        y = GAP_PX + (number // columns) * (cell_height + GAP_PX)
        image = Image.fromarray(panel.pixels)
        size, changed = size_within(image.size, tile)
        shown = image if image.size == size else image.resize(size, Image.Resampling.LANCZOS)
        sheet.paste(shown, (x + (width - shown.width) // 2, y + (height - shown.height) // 2))
        title = stretched(panel.title) if changed else panel.title
        draw.text((x, y + height + 6), shortened(title, 16, width), fill=INK, font=font(16))
        draw.text((x, y + height + 27), shortened(panel.subtitle, 13, width), fill=FAINT, font=font(13))
    return sheet


def checked_target(path: str | os.PathLike[str], *, sources: Sequence[str | os.PathLike[str]] = ()) -> str:
    """The absolute path of a picture to be written; see :func:`coocnet.output.checked_target`.

    Args:
        path: where it is to be written; its ending names the format.
        sources: files that are to be read, and so not to be written over.

    Raises:
        InputError: it cannot be a picture's, or is to be read.
    """
    Image.init()
    endings = [ending for ending, kind in Image.EXTENSION.items() if kind in Image.SAVE]
    return output.checked_target(
        path, endings=endings, what="a picture format: end it in .png or .jpg", sources=sources
    )


def save(image: Image.Image, target: str) -> None:
    """Writes a picture, whole or not at all.

    Args:
        image: the picture.
        target: its path, as :func:`checked_target` gives it.

    Raises:
        InputError: it cannot be written there.
    """
    with output.written_whole(target) as unfinished:
        image.save(unfinished)
