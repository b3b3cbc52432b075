"""Makes the pictures of the tutorial, by its own commands, on the scenes that it renders.

    python docs/tools/tutorial_pictures.py    # writes docs/images/tutorial-*.jpg

Needs nothing but the package.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from coocnet.data.scenes import View, make_scenes

IMAGES = Path(__file__).resolve().parents[1] / "images"
WIDTH_PX = 1400
TILE_PX, GAP_PX = 224, 8
SHOWN = (0, 1, 2)
"""The things that the picture of the town shows: a facade, a tower, an object."""


def town_of(folder: Path, views: list[View]) -> Image.Image:
    """A row for each of some things, a column for each view, the query last."""
    rows = [[view for view in views if view.instance == instance] for instance in SHOWN]
    width = len(rows[0]) * (TILE_PX + GAP_PX) - GAP_PX
    sheet = Image.new("RGB", (width, len(rows) * (TILE_PX + GAP_PX) - GAP_PX), "white")
    for top, row in enumerate(rows):
        for left, view in enumerate(row):
            with Image.open(folder / view.path) as picture:
                side = min(picture.size)
                x, y = (picture.width - side) // 2, (picture.height - side) // 2
                tile = picture.crop((x, y, x + side, y + side)).resize((TILE_PX, TILE_PX))
            sheet.paste(tile, (left * (TILE_PX + GAP_PX), top * (TILE_PX + GAP_PX)))
    return sheet


def command(folder: Path, *words: str) -> None:
    """Runs a command of the tutorial."""
    subprocess.run([sys.executable, "-m", "coocnet", *words], cwd=folder, check=True)


def keep(picture: Image.Image, name: str) -> None:
    """Writes a picture, no wider than a page."""
    flat = picture.convert("RGB")
    flat.thumbnail((WIDTH_PX, 4 * WIDTH_PX))
    flat.save(IMAGES / name, quality=88, optimize=True)


def main() -> None:
    """Renders, indexes, searches, explains."""
    with tempfile.TemporaryDirectory() as kept:
        here = Path(kept)
        views = make_scenes(here / "town", instances=12, views=5)
        house, small = "town/queries/instance006_view05.jpg", "town/queries/instance008_view05.jpg"
        command(here, "index", "town/database")
        command(here, "search", small, "--box", "124,89,337,305", "-k", "6", "--montage", "found.png")
        command(here, "explain", house, "town/database/instance006_view01.jpg", "-o", "why.png")
        command(here, "heatmap", house, "-o", "heat.png")
        keep(town_of(here / "town", views), "tutorial-town.jpg")
        for name in ("found", "why", "heat"):
            with Image.open(here / f"{name}.png") as picture:
                keep(picture, f"tutorial-{name}.jpg")


if __name__ == "__main__":
    main()
