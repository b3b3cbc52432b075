"""Large JPEGs decoded at a part of their size against decoding in full: rows, pixels and time, in one run.

    python benchmarks/decoding.py DATA [--threads 1] [--out results/decoding.json]

Three kinds of pictures: the photographs under ``DATA/images`` as they are; some enlarged by Lanczos to a longer side
of 4000 pixels, as large as a camera's but soft; sheets of 4000 by 3000 pixels filled with photographs at their own
size, as large as a camera's and sharp. Those large ones are saved at quality 92. Only what is long enough at a limit
counts. A box of the whole picture stands for decoding in full, which it always asks for at the price of one copy
of the pixels. The two ways take turns; times are of the processor, which waits for nobody, from a file's bytes to its
pixels. Cosines are between rows of the default recipe, before its whitening and after.
"""

from __future__ import annotations

import argparse
import io
import json
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
from PIL import Image, features

import coocnet
from coocnet.data import Box, Picture, decode, read_bytes
from coocnet.describe import Describer
from coocnet.recipe import Recipe
from coocnet.whitening import Whitening, shipped_whitening
from machine import processor
from pages import head, row

LIMITS_PX = {
    "as they are": (64, 128, 200, 250, 266),
    "enlarged": (320, 512, 666, 1024),
    "sheets": (320, 512, 666, 1024),
}
"""At 266 the pictures of 800 pixels, at 666 those of 4000, are reduced as far as they ever are before the filter."""
CAMERA_PX, QUALITY = (4000, 3000), 92
ENLARGED, SHEETS = 24, 8
LARGE_SET = "paris6k_subset"
"""The folder with the largest photographs."""
THRICE = 3
"""The shortest longer side that is decoded at a part of its size, in limits."""


def enlarged(paths: Iterable[Path]) -> Iterator[bytes]:
    """Each photograph with a longer side of 4000 pixels."""
    for path in paths:
        image = _photograph(path)
        scale = max(CAMERA_PX) / max(image.size)
        width, height = (round(side * scale) for side in image.size)
        yield _saved(image.resize((width, height), Image.Resampling.LANCZOS))


def sheets(paths: Iterable[Path]) -> Iterator[bytes]:
    """Sheets filled row by row with photographs at their own size, cut at the right and at the bottom."""
    unused = iter(paths)
    for _ in range(SHEETS):
        sheet, x, y, tallest = Image.new("RGB", CAMERA_PX), 0, 0, 0
        while y < CAMERA_PX[1]:
            image = _photograph(next(unused))
            sheet.paste(image, (x, y))
            x, tallest = x + image.width, max(tallest, image.height)
            if x >= CAMERA_PX[0]:
                x, y, tallest = 0, y + tallest, 0
        yield _saved(sheet)


def _photograph(path: Path) -> Image.Image:
    return Image.fromarray(decode(read_bytes(path), path, size_px=None).pixels)


def _saved(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=QUALITY)
    return stream.getvalue()


def compared(
    contents: Iterable[bytes], size_px: int, describer: Describer, whitening: Whitening
) -> dict[str, Any] | None:
    """Both ways on every picture that is long enough; None where there is none.

    Raises:
        RuntimeError: the two give pictures of different shapes.
    """
    rows, pixels, times = [], [], []
    for content in contents:
        with Image.open(io.BytesIO(content)) as file:
            whole = (0, 0, *file.size)
        if max(whole) < THRICE * size_px:
            continue
        full, full_ms = _timed(content, size_px, whole)
        reduced, reduced_ms = _timed(content, size_px, None)
        if full.pixels.shape != reduced.pixels.shape or full.full_size_px != reduced.full_size_px:
            raise RuntimeError(f"two shapes of one picture: {full.pixels.shape}, {reduced.pixels.shape}")
        times.append((full_ms, reduced_ms))
        off = np.abs(full.pixels.astype(np.int16) - reduced.pixels)
        pixels.append((off.mean(), off.max()))
        rows.append(describer.describe_pixels(np.stack([full.pixels, reduced.pixels])))
    if not rows:
        return None
    full_rows, reduced_rows = np.stack(rows, axis=1)
    means, largest = np.array(pixels).T
    full_ms, reduced_ms = map(statistics.median, zip(*times, strict=True))
    return {
        "limit_px": size_px,
        "pictures": len(rows),
        "cosine": _cosines(full_rows, reduced_rows),
        "cosine_whitened": _cosines(whitening.apply(full_rows), whitening.apply(reduced_rows)),
        "mean_pixel_difference": {
            "median": round(float(np.median(means)), 2),
            "largest": round(float(means.max()), 2),
        },
        "largest_pixel_difference": int(largest.max()),
        "full_ms": round(full_ms, 1),
        "reduced_ms": round(reduced_ms, 1),
        "times_as_fast": round(full_ms / reduced_ms, 1),
    }


def _timed(content: bytes, size_px: int, box: Box | None) -> tuple[Picture, float]:
    started = time.thread_time()
    picture = decode(content, "picture", size_px=size_px, box=box)
    return picture, 1e3 * (time.thread_time() - started)


def _cosines(one: np.ndarray, other: np.ndarray) -> dict[str, float]:
    low, percent, median = np.percentile(np.einsum("nd,nd->n", one, other, dtype=np.float64), [0, 1, 50])
    return {"lowest": round(low, 6), "one_percent": round(percent, 6), "median": round(median, 6)}


def table(found: dict[str, list[dict[str, Any]]]) -> str:
    """The figures as a table."""
    cells = (
        "pictures",
        "limit",
        "cosine: lowest, 1 %, median",
        "whitened",
        "pixels: mean, worst mean",
        "ms",
        "faster",
    )
    lines = head(cells)
    for kind, settings in found.items():
        for one in settings:
            cosines = (
                ", ".join(f"{value:.5f}" for value in one[key].values()) for key in ("cosine", "cosine_whitened")
            )
            off = ", ".join(map(str, one["mean_pixel_difference"].values()))
            ms = f"{one['full_ms']} → {one['reduced_ms']}"
            lines.append(
                row(
                    [f"{one['pictures']} {kind}", str(one["limit_px"]), *cosines, off, ms, f"{one['times_as_fast']}×"]
                )
            )
    return "\n".join(lines)


def main() -> None:
    """Measures, prints, writes.

    Raises:
        SystemExit: the default recipe has no whitening in the package.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("results/decoding.json"))
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    recipe = Recipe()
    describer = Describer(recipe, device="cpu")
    whitening = shipped_whitening(recipe.row_fingerprint(), describer.weights_sha256)
    if whitening is None:
        raise SystemExit("the package has no whitening for the default recipe")
    images = (given.data / "images").resolve()
    photographs, large = sorted(images.rglob("*.jpg")), sorted((images / LARGE_SET).rglob("*.jpg"))
    sources: dict[str, Callable[[], Iterable[bytes]]] = {
        "as they are": partial(map, read_bytes, photographs),
        "enlarged": partial(enlarged, large[:: len(large) // ENLARGED][:ENLARGED]),
        "sheets": partial(sheets, large),
    }
    found: dict[str, list[dict[str, Any]]] = {}
    for kind, contents in sources.items():
        settings = (compared(contents(), size_px, describer, whitening) for size_px in LIMITS_PX[kind])
        found[kind] = [one for one in settings if one]
        print(f"measured: {kind}", flush=True)
    document = {
        "command": f"python benchmarks/decoding.py DATA --threads {given.threads}",
        "recipe": recipe.name,
        "row_fingerprint": recipe.row_fingerprint(),
        "weights_sha256": describer.weights_sha256,
        "versions": {
            "coocnet": coocnet.__version__,
            "pillow": PIL.__version__,
            "libjpeg_turbo": features.version("libjpeg_turbo"),
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "processor": processor(),
        "threads": given.threads,
        "full_against_reduced": found,
    }
    given.out.write_text(json.dumps(document, indent=1) + "\n")
    print(table(found))


if __name__ == "__main__":
    main()
