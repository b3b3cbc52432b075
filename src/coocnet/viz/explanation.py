"""Two pictures with what each place contributes to their similarity."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageOps

from coocnet.viz.drawing import FAINT, GAP_PX, INK, PAPER, decimals, font, shortened, size_within, stretched, wrapped

Cell = tuple[int, int]

_RAISES = (255, 138, 0)
_LOWERS = (20, 90, 220)
_BESIDE_PX = (560, 420)
_BELOW_PX = (1120, 320)
_BETWEEN_PX = 64
_COLUMN_PX = 300
_TITLE_PX = 30
_BAR_PX = (220, 14)
_SMOOTH = 3
"""Lines and circles are drawn at so many times their size and then reduced."""


def explanation(
    query: tuple[UInt8[np.ndarray, "h w 3"], Float[np.ndarray, "rows columns"]],
    result: tuple[UInt8[np.ndarray, "h2 w2 3"], Float[np.ndarray, "rows2 columns2"]],
    joined: Sequence[tuple[Cell, Cell]],
    *,
    titles: tuple[str, str],
    caption: Sequence[str],
) -> Image.Image:
    """Two pictures with what each place contributes to their similarity, and pairs of cells joined.

    The colours of both have one scale, told by a bar: a full colour is the greatest contribution of a cell in either
    picture, but no less than twice a cell's even share of a similarity of 1, so that little looks like little. The
    pictures are side by side, or one above the other where they are larger so.

    Args:
        query: a picture and its contributions: orange where they raise the similarity, blue where they lower it.
        result: the other picture and its contributions.
        joined: cells, (row, column), of the query and of the result, in order of importance.
        titles: a line over each picture.
        caption: what is to be read under both, the most important line first.
    """
    both = (query, result)
    full = _full_colour(query[1], result[1])
    sizes, upright = _arranged([(pixels.shape[1], pixels.shape[0]) for pixels, _ in both])
    panels = [_tinted(*one, full, size) for one, (size, _) in zip(both, sizes, strict=True)]
    columns = [max(panel.width, _COLUMN_PX) for panel in panels]
    width = max(max(columns) if upright else sum(columns) + _BETWEEN_PX, 2 * _COLUMN_PX) + 2 * GAP_PX
    if upright:
        corners = [(GAP_PX, _TITLE_PX), (GAP_PX, 2 * _TITLE_PX + GAP_PX + panels[0].height)]
        columns = [width - 2 * GAP_PX] * 2
    else:
        corners = [(GAP_PX, _TITLE_PX), (GAP_PX + columns[0] + _BETWEEN_PX, _TITLE_PX)]
        columns[1] = width - GAP_PX - corners[1][0]
    below = max(top + panel.height for (_, top), panel in zip(corners, panels, strict=True)) + GAP_PX
    lines = [
        (line, 15 if number == 0 else 13)
        for number, text in enumerate(caption)
        for line in wrapped(text, 15 if number == 0 else 13, width - 2 * GAP_PX)
    ]
    out = Image.new("RGB", (width, below + 34 + 21 * len(lines) + GAP_PX // 2), PAPER)
    draw = ImageDraw.Draw(out)
    for panel, corner in zip(panels, corners, strict=True):
        out.paste(panel, corner)
    places = [
        [
            _place(cell, values.shape, corner, panel.size)
            for cell, (_, values), corner, panel in zip(cells, both, corners, panels, strict=True)
        ]
        for cells in joined
    ]
    _join(out, places)
    for (left, top), column, title, (_, changed) in zip(corners, columns, titles, sizes, strict=True):
        shown = shortened(stretched(title) if changed else title, 16, column)
        draw.text((left, top - 8), shown, fill=INK, font=font(16), anchor="ls", stroke_width=2, stroke_fill=PAPER)
    _draw_legend(out, (GAP_PX, below), full)
    for number, (line, size_px) in enumerate(lines):
        colour = INK if size_px == 15 else FAINT
        draw.text((GAP_PX, below + 34 + 21 * number), line, fill=colour, font=font(size_px))
    return out


def _full_colour(*contributions: np.ndarray) -> float:
    greatest = max(float(np.abs(values).max()) for values in contributions)
    return max(greatest, 2 / max(values.size for values in contributions))


def _arranged(sizes: Sequence[tuple[int, int]]) -> tuple[list[tuple[tuple[int, int], bool]], bool]:
    """The size of each picture with whether it is stretched, and whether they are one above the other."""
    beside, below = ([size_within(size, box, enlarge=True) for size in sizes] for box in (_BESIDE_PX, _BELOW_PX))
    areas = [sum(width * height for (width, height), _ in shown) for shown in (beside, below)]
    upright = areas[1] > 1.3 * areas[0]
    return (below if upright else beside), upright


def _tinted(pixels: np.ndarray, contributions: np.ndarray, full: float, size: tuple[int, int]) -> Image.Image:
    grey = ImageOps.grayscale(Image.fromarray(pixels)).resize(size, Image.Resampling.LANCZOS)
    # Bilinear, for a smoother curve overshoots: it would draw blue around orange that nothing lowers.
    values = Image.fromarray((contributions / full).astype(np.float32)).resize(size, Image.Resampling.BILINEAR)
    return Image.fromarray(_coloured(np.asarray(grey), np.asarray(values)))


def _coloured(grey: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Grey with the colour of values from -1 to 1; the picture stays visible under the fullest colour."""
    shade = 60 + np.asarray(grey, np.float64)[..., None] * (195 / 255)
    signed = np.clip(values, -1, 1)[..., None]
    tint = np.where(signed > 0, np.array(_RAISES, np.float64), np.array(_LOWERS, np.float64))
    opacity = 0.9 * np.abs(signed) ** 0.6
    lit = tint * (0.45 + 0.55 * shade / 255)
    mixed: np.ndarray = shade * (1 - opacity) + lit * opacity
    return mixed.round().astype(np.uint8)


def _place(cell: Cell, grid: tuple[int, ...], corner: tuple[int, int], size: tuple[int, int]) -> tuple[float, float]:
    """The middle of a cell, (x, y), on the sheet."""
    row, column = cell
    return corner[0] + (column + 0.5) / grid[1] * size[0], corner[1] + (row + 0.5) / grid[0] * size[1]


def _join(out: Image.Image, places: Sequence[Sequence[tuple[float, float]]]) -> None:
    """Numbered circles at the ends of lines; all lines first, so that no number is crossed."""
    layer = Image.new("RGBA", (out.width * _SMOOTH, out.height * _SMOOTH), (*INK, 0))
    draw = ImageDraw.Draw(layer)
    large = [[(x * _SMOOTH, y * _SMOOTH) for x, y in ends] for ends in places]
    for ends in large:
        draw.line(ends, fill=(*PAPER, 255), width=4 * _SMOOTH)
        draw.line(ends, fill=(*INK, 255), width=round(1.5 * _SMOOTH))
    radius = 11 * _SMOOTH
    # The most important circle last: where two overlap, it is the whole one.
    for number, ends in reversed(list(enumerate(large, start=1))):
        for x, y in ends:
            circle = (x - radius, y - radius, x + radius, y + radius)
            draw.ellipse(circle, fill=(*PAPER, 255), outline=(*INK, 255), width=2 * _SMOOTH)
            draw.text((x, y), str(number), fill=(*INK, 255), font=font(13 * _SMOOTH), anchor="mm")
    small = layer.resize(out.size, Image.Resampling.LANCZOS)
    out.paste(small, (0, 0), small)


def _draw_legend(out: Image.Image, corner: tuple[int, int], full: float) -> None:
    width, height = _BAR_PX
    x, y = corner
    draw = ImageDraw.Draw(out)
    number = decimals(full)

    def text(left: float, words: str) -> float:
        draw.text((left, y + height / 2), words, fill=FAINT, font=font(13), anchor="lm")
        return left + font(13).getlength(words)

    left = round(text(x, f"lowers it by {number}")) + 8
    values = np.broadcast_to(np.linspace(-1, 1, width), (height, width))
    out.paste(Image.fromarray(_coloured(np.full((height, width), 150, np.uint8), values)), (left, y))
    text(left + width + 8, f"raises it by {number}, in one cell of the network's map")
