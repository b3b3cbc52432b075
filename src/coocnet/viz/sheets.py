"""Sheets: heat maps over a photograph, and a query with what it found."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageOps

from coocnet.viz.drawing import (
    ACCENT,
    FAINT,
    GAP_PX,
    PAPER,
    Labelled,
    font,
    grid,
    size_within,
    stretched,
    wrapped,
)

_HEAT = np.array([(12, 8, 38), (86, 15, 109), (187, 55, 84), (249, 142, 9), (252, 255, 164)], np.float64)
"""Colours from nothing to much: dark violet, crimson, orange, pale yellow; lightness rises all the way."""
BELOW_ZERO = "Learned sums below 0 are drawn as 0."
"""What is to be said where :func:`heat_over` cuts a map off."""


def heat_over(
    pixels: UInt8[np.ndarray, "h w 3"], heat: Float[np.ndarray, "rows columns"]
) -> UInt8[np.ndarray, "h w 3"]:
    """A map as colour over a greyed photograph: least value dark, greatest pale yellow; a flat map is dark.

    Args:
        pixels: the photograph.
        heat: the map, of any size; values below 0, which the sums of a learned filter may have, are drawn as 0.
    """
    height, width = pixels.shape[:2]
    values = np.maximum(np.asarray(heat, np.float32), 0)
    values -= values.min()
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
    learned: Float[np.ndarray, "rows columns"] | None = None,
    *,
    caption: str,
) -> Image.Image:
    """The photograph, its activations and its direct co-occurrence (the paper's figures 5 and 8).

    Side by side, or one under the other where the photograph is more than twice as wide as it is high.

    Args:
        pixels: the photograph.
        activations: their sum over channels.
        cooccurrence: that of the direct tensor.
        learned: that of a learned filter's tensor, drawn beside it; the caption says so where parts are below 0.
        caption: what is to be read under them.
    """
    photograph = Image.fromarray(pixels)
    size, changed = size_within(photograph.size, (640, 640) if learned is None else (480, 640))
    shown = np.asarray(photograph.resize(size, Image.Resampling.LANCZOS))
    panels = [
        Labelled(shown, stretched("Photograph") if changed else "Photograph"),
        Labelled(heat_over(shown, activations), "Activations", "sum over channels"),
        Labelled(heat_over(shown, cooccurrence), "Direct co-occurrence", "sum over channels"),
    ]
    if learned is not None:
        panels.append(Labelled(heat_over(shown, learned), "Learned co-occurrence", "sum over channels"))
        if np.min(learned) < 0:
            caption += f". {BELOW_ZERO}"
    columns = 1 if photograph.width > 2 * photograph.height else len(panels)
    sheet = grid(panels, columns=columns, tile=(max(220, size[0]), size[1]))
    legend_px = 262
    beside = sheet.width - legend_px - 2 * GAP_PX >= 320
    lines = wrapped(caption, 13, sheet.width - 2 * GAP_PX - (legend_px if beside else 0))
    height = max(1, len(lines)) if beside else len(lines) + 1
    out = Image.new("RGB", (sheet.width, sheet.height + 20 + 20 * height), PAPER)
    out.paste(sheet, (0, 0))
    draw = ImageDraw.Draw(out)
    top = sheet.height + 6
    left = sheet.width - GAP_PX - 160 - 42 if beside else GAP_PX + 38
    ramp = _heat_colours(np.broadcast_to(np.linspace(0, 1, 160), (12, 160)))
    out.paste(Image.fromarray(ramp.round().astype(np.uint8)), (left, top + 2))
    draw.text((left - 38, top), "least", fill=FAINT, font=font(13))
    draw.text((left + 166, top), "most", fill=FAINT, font=font(13))
    for number, line in enumerate(lines, start=0 if beside else 1):
        draw.text((GAP_PX, top + 20 * number), line, fill=FAINT, font=font(13))
    return out


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
    photograph = Image.fromarray(query.pixels)
    size, changed = size_within(photograph.size, (360, 400))
    asked = photograph.resize(size, Image.Resampling.LANCZOS)
    if box is not None:
        limits = (*size, *size)
        scaled = [edge * limit / full for edge, limit, full in zip(box, limits, photograph.size * 2, strict=True)]
        edges = [min(max(edge, 0), limit - 1) for edge, limit in zip(scaled, limits, strict=True)]
        ImageDraw.Draw(asked).rectangle(edges, outline=ACCENT, width=2)
    title = stretched(query.title) if changed else query.title
    left = grid([Labelled(np.asarray(asked), title, query.subtitle)], columns=1, tile=(360, size[1]))
    if not hits:
        return left
    right = grid(hits, columns=min(columns, len(hits)), tile=(220, 165))
    out = Image.new("RGB", (left.width + right.width, max(left.height, right.height)), PAPER)
    out.paste(left, (0, 0))
    out.paste(right, (left.width, 0))
    ImageDraw.Draw(out).line([(left.width, GAP_PX), (left.width, out.height - GAP_PX)], fill=(222, 224, 228))
    return out


def blank() -> UInt8[np.ndarray, "h w 3"]:
    """A plain tile that stands for a picture that cannot be shown."""
    return np.full((165, 220, 3), 225, np.uint8)


def _heat_colours(values: np.ndarray) -> np.ndarray:
    stops = np.linspace(0, 1, len(_HEAT))
    return np.stack([np.interp(values, stops, _HEAT[:, channel]) for channel in range(3)], axis=-1)
