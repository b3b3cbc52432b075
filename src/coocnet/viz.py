"""Pictures for people: heat maps over a photograph, and a query with what it found. Arrays in, images out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont, ImageOps

from coocnet import output

_INK = (28, 30, 36)
_FAINT = (112, 116, 126)
_PAPER = (255, 255, 255)
_ACCENT = (214, 72, 28)
_RAISES = (255, 138, 0)
_LOWERS = (20, 90, 220)
_GAP_PX = 14
_HEAT = np.array([(12, 8, 38), (86, 15, 109), (187, 55, 84), (249, 142, 9), (252, 255, 164)], np.float64)
"""Colours from nothing to much: dark violet, crimson, orange, pale yellow; lightness rises all the way."""


@dataclass(frozen=True)
class Labelled:
    """A picture with two lines of text under it."""

    pixels: UInt8[np.ndarray, "h w 3"]
    title: str
    subtitle: str = ""


def heat_over(
    pixels: UInt8[np.ndarray, "h w 3"], heat: Float[np.ndarray, "rows columns"]
) -> UInt8[np.ndarray, "h w 3"]:
    """A map as colour over a greyed photograph: least value dark, greatest pale yellow; a flat map is dark."""
    height, width = pixels.shape[:2]
    values = np.asarray(heat, np.float32) - np.min(heat)
    top = float(values.max())
    values = values / top if top > 0 else values
    smooth = np.asarray(Image.fromarray(values).resize((width, height), Image.Resampling.BICUBIC))
    smooth = np.clip(smooth, 0, 1)[..., None]
    grey = np.asarray(ImageOps.grayscale(Image.fromarray(pixels)), np.float64)[..., None]
    opacity = 0.45 + 0.3 * smooth
    mixed: np.ndarray = grey * (1 - opacity) + _heat_colours(smooth[..., 0]) * opacity
    return mixed.round().astype(np.uint8)


def heatmap(
    pixels: UInt8[np.ndarray, "h w 3"],
    activations: Float[np.ndarray, "rows columns"],
    cooccurrence: Float[np.ndarray, "rows columns"],
    *,
    caption: str,
) -> Image.Image:
    """The photograph, its activations and its direct co-occurrence side by side (the paper's figures 5 and 8)."""
    panels = [
        Labelled(pixels, "Photograph"),
        Labelled(heat_over(pixels, activations), "Activations", "sum over channels"),
        Labelled(heat_over(pixels, cooccurrence), "Direct co-occurrence", "sum over channels"),
    ]
    height, width = pixels.shape[:2]
    scale = min(1.0, 640 / max(height, width))
    tile = (max(220, round(width * scale)), max(1, round(height * scale)))
    sheet = _grid(panels, columns=3, tile=tile)
    out = Image.new("RGB", (sheet.width, sheet.height + 40), _PAPER)
    out.paste(sheet, (0, 0))
    draw = ImageDraw.Draw(out)
    ramp = _heat_colours(np.broadcast_to(np.linspace(0, 1, 160), (12, 160)))
    bar = Image.fromarray(ramp.round().astype(np.uint8))
    top = sheet.height + 6
    draw.text((_GAP_PX, top), _shortened(caption, _font(13), sheet.width - 290), fill=_FAINT, font=_font(13))
    left = sheet.width - _GAP_PX - 160 - 42
    out.paste(bar, (left, top + 2))
    draw.text((left - 38, top), "least", fill=_FAINT, font=_font(13))
    draw.text((left + 166, top), "most", fill=_FAINT, font=_font(13))
    return out


def explanation(
    query: tuple[UInt8[np.ndarray, "h w 3"], Float[np.ndarray, "rows columns"]],
    result: tuple[UInt8[np.ndarray, "h2 w2 3"], Float[np.ndarray, "rows2 columns2"]],
    joined: Sequence[tuple[tuple[int, int], tuple[int, int]]],
    *,
    titles: tuple[str, str],
    caption: Sequence[str],
) -> Image.Image:
    """Two pictures with what each place contributes to their similarity, and the cells that contribute most joined.

    Args:
        query: a picture and its contributions: orange where they raise the similarity, blue where they lower it.
        result: the other picture and its contributions.
        joined: cells, (row, column), of the query and of the result, in order of importance.
        titles: a line over each picture.
        caption: lines under both.
    """
    shown = [_tinted(*query), _tinted(*result)]
    height = 420
    panels = [image.resize((max(1, round(image.width * height / image.height)), height)) for image in shown]
    top, middle = 34, 90
    lefts = (_GAP_PX, _GAP_PX + panels[0].width + middle)
    size = (lefts[1] + panels[1].width + _GAP_PX, top + height + 12 + 20 * len(caption))
    out = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(out)
    for panel, left, title in zip(panels, lefts, titles, strict=True):
        out.paste(panel, (left, top))
        draw.text((left, 8), _shortened(title, _font(16), panel.width + middle - 20), fill=_INK, font=_font(16))
    for number, cells in enumerate(joined, start=1):
        ends = []
        for (row, column), (_, values), panel, left in zip(cells, (query, result), panels, lefts, strict=True):
            rows, columns = values.shape
            ends.append((left + (column + 0.5) / columns * panel.width, top + (row + 0.5) / rows * height))
        draw.line(ends, fill=_PAPER, width=4)
        draw.line(ends, fill=_INK, width=2)
        for x, y in ends:
            draw.ellipse((x - 10, y - 10, x + 10, y + 10), fill=_PAPER, outline=_INK, width=2)
            draw.text((x, y), str(number), fill=_INK, font=_font(13), anchor="mm")
    for number, line in enumerate(caption):
        where = (_GAP_PX, top + height + 8 + 20 * number)
        draw.text(where, _shortened(line, _font(13), size[0] - 2 * _GAP_PX), fill=_FAINT, font=_font(13))
    return out


def _tinted(pixels: np.ndarray, contributions: np.ndarray) -> Image.Image:
    height, width = pixels.shape[:2]
    most = float(np.abs(contributions).max()) or 1.0
    values = Image.fromarray((contributions / most).astype(np.float32))
    smooth = np.asarray(values.resize((width, height), Image.Resampling.BICUBIC))[..., None].clip(-1, 1)
    grey = np.asarray(ImageOps.grayscale(Image.fromarray(pixels)), np.float64)[..., None]
    tint = np.where(smooth > 0, np.array(_RAISES, np.float64), np.array(_LOWERS, np.float64))
    opacity = 0.8 * np.abs(smooth) ** 0.7
    return Image.fromarray((grey * (1 - opacity) + tint * opacity).round().astype(np.uint8))


def montage(
    query: Labelled,
    hits: Sequence[Labelled],
    *,
    box: tuple[float, float, float, float] | None = None,
    columns: int = 5,
) -> Image.Image:
    """The query, larger, with its box if it has one, and beside it what was found, in order of rank.

    Args:
        query: the query picture.
        hits: found pictures, best first.
        box: the part that was searched for, in pixels of ``query.pixels``.
        columns: found pictures in a row.
    """
    asked = Image.fromarray(query.pixels)
    if box is not None:
        line = max(2, max(asked.size) // 150)
        ImageDraw.Draw(asked).rectangle(list(box), outline=_ACCENT, width=line)
    tile = (360, max(1, round(360 * asked.height / asked.width))) if asked.width >= asked.height else (360, 400)
    left = _grid([Labelled(np.asarray(asked), query.title, query.subtitle)], columns=1, tile=tile)
    if not hits:
        return left
    right = _grid(hits, columns=min(columns, len(hits)), tile=(220, 165))
    out = Image.new("RGB", (left.width + right.width, max(left.height, right.height)), _PAPER)
    out.paste(left, (0, 0))
    out.paste(right, (left.width, 0))
    ImageDraw.Draw(out).line([(left.width, _GAP_PX), (left.width, out.height - _GAP_PX)], fill=(222, 224, 228))
    return out


def blank() -> UInt8[np.ndarray, "h w 3"]:
    """A plain tile that stands for a picture that cannot be shown."""
    return np.full((165, 220, 3), 225, np.uint8)


def checked_target(path: str | os.PathLike[str], *, sources: Sequence[str | os.PathLike[str]] = ()) -> str:
    """The absolute path of a picture to be written; see :func:`coocnet.output.checked_target`."""
    Image.init()
    endings = [ending for ending, kind in Image.EXTENSION.items() if kind in Image.SAVE]
    return output.checked_target(
        path, endings=endings, what="a picture format: end it in .png or .jpg", sources=sources
    )


def save(image: Image.Image, target: str) -> None:
    """Writes a picture, whole or not at all.

    Raises:
        InputError: it cannot be written there.
    """
    with output.written_whole(target) as unfinished:
        image.save(unfinished)


def _grid(panels: Sequence[Labelled], *, columns: int, tile: tuple[int, int]) -> Image.Image:
    width, height = tile
    rows = -(-len(panels) // columns)
    cell_height = height + 48
    sheet = Image.new(
        "RGB", (columns * (width + _GAP_PX) + _GAP_PX, rows * (cell_height + _GAP_PX) + _GAP_PX), _PAPER
    )
    draw = ImageDraw.Draw(sheet)
    for number, panel in enumerate(panels):
        x = _GAP_PX + (number % columns) * (width + _GAP_PX)
        y = _GAP_PX + (number // columns) * (cell_height + _GAP_PX)
        image = Image.fromarray(panel.pixels)
        shown = ImageOps.contain(image, tile) if image.width > width or image.height > height else image
        sheet.paste(shown, (x + (width - shown.width) // 2, y + (height - shown.height) // 2))
        draw.text((x, y + height + 6), _shortened(panel.title, _font(16), width), fill=_INK, font=_font(16))
        draw.text((x, y + height + 27), _shortened(panel.subtitle, _font(13), width), fill=_FAINT, font=_font(13))
    return sheet


def _heat_colours(values: np.ndarray) -> np.ndarray:
    stops = np.linspace(0, 1, len(_HEAT))
    return np.stack([np.interp(values, stops, _HEAT[:, channel]) for channel in range(3)], axis=-1)


def _font(size_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size_px)


def _shortened(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width_px: int) -> str:
    """The text, its middle left out where it is too wide."""
    shown, keep = text, len(text)
    while keep > 4 and font.getlength(shown) > width_px:
        keep -= 1
        shown = f"{text[: keep - keep // 2]}…{text[len(text) - keep // 2 :]}"
    return shown
