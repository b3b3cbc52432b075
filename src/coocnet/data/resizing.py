"""Lanczos resizing: by compiled loops where numba is loaded, by Pillow otherwise, to the same pixels."""

from __future__ import annotations

import sys
import threading
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from coocnet.compiler import let_go

Part = tuple[float, float, float, float]
"""x1, y1, x2, y2 in pixels; may lie between them."""

_LARGEST_PX = 1 << 25  # above, the copy of the pixels that the loops read is too much memory to save time with
_tried: list[Any] = []
_trying = threading.Lock()


def resize(image: Image.Image, size: tuple[int, int], *, box: Part | None = None) -> UInt8[np.ndarray, "h w 3"]:
    """The pixels of an RGB image, or of a part of it, filtered to another size.

    Args:
        image: its mode is RGB.
        size: (width, height) of the result.
        box: the part; None for all of it.
    """
    part = box or (0, 0, *image.size)
    if _for_loops(image, size, part) and (loops := compiled_loops()) is not None:
        try:
            return _by_loops(loops, image, size, part)
        except Exception:  # noqa: BLE001 - such as too little memory: Pillow does the same, or says what is wrong
            let_go()
    return _by_pillow(image, size, part)


def compiled_loops() -> Any:
    """The loops of :mod:`coocnet.data.lanczos`; None where they are not to be had, or not yet.

    Loading numba takes longer than a few pictures, so the loops are used from when something else has loaded it: as
    describing does, where it is installed. While one thread compiles, the others go on without.
    """
    if not _tried and sys.modules.get("numba") is not None and _trying.acquire(blocking=False):
        try:
            if not _tried:
                _tried.append(_checked_loops())
        finally:
            _trying.release()
    return _tried[0] if _tried else None


def _checked_loops() -> Any:
    """The loops, compiled, if they do on this machine just what this Pillow does."""
    try:
        import numba  # noqa: PLC0415 - an extra

        from coocnet.data import lanczos  # noqa: PLC0415 - needs the extra

        if numba.config.DISABLE_JIT:
            return None
        noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
        image, part = Image.fromarray(noise), (0.5, 0, 79.25, 60)
        same = all(
            np.array_equal(_by_loops(lanczos, image, size, part), _by_pillow(image, size, part))
            for size in ((60, 20), (10, 50))  # as much taller as they may be, and wider
        )
    except Exception:  # noqa: BLE001 - whatever ails an extra, there is the other way
        let_go()
        return None
    return lanczos if same else None


def _for_loops(image: Image.Image, size: tuple[int, int], part: Part) -> bool:
    """Whether the loops may have it; what is no size or part, Pillow refuses."""
    x1, y1, x2, y2 = part
    within = 0 <= x1 <= x2 <= image.width and 0 <= y1 <= y2 <= image.height and min(size) > 0
    narrower, shorter = image.width - size[0], image.height - size[1]
    rows_first = shorter <= max(0, 2 * narrower)  # of others, Pillow 13 filters columns first: other bits
    return image.mode == "RGB" and image.width * image.height <= _LARGEST_PX and within and rows_first


def _by_pillow(image: Image.Image, size: tuple[int, int], part: Part) -> UInt8[np.ndarray, "h w 3"]:
    return np.array(image.resize(size, Image.Resampling.LANCZOS, box=part))


def _by_loops(loops: Any, image: Image.Image, size: tuple[int, int], part: Part) -> UInt8[np.ndarray, "h w 3"]:
    x1, y1, x2, y2 = part
    out = np.empty((size[1], size[0], 3), np.uint8)
    across = _weights(loops, image.width, x1, x2, size[0])
    down = _weights(loops, image.height, y1, y2, size[1])
    loops.resize(np.asarray(image), across, down, out)
    return out


@lru_cache(maxsize=32)
def _weights(loops: Any, size: int, start: float, end: float, count: int) -> Any:
    first, last = np.float32(start), np.float32(end)  # as Pillow has them
    return loops.weights(size, float(first), float(last - first) / count, count)
