#!/usr/bin/env python
"""Takes the pictures of the page for the documentation: what was found, and why, on rendered scenes.

    python docs/tools/page_pictures.py    # writes docs/images/page.png and matched.png; needs coocnet[dev], Chromium

Chromium is looked for as by the tests of the page; see CONTRIBUTING.md. The pictures in the documentation were taken
where the font Inter is installed, which the page asks for first.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image
from playwright.sync_api import sync_playwright

from coocnet.data.scenes import View, make_scenes
from coocnet.index import open_index
from coocnet.recipe import Recipe

if TYPE_CHECKING:
    from playwright.sync_api import Page

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
WIDTH_PX, DENSITY = 1280, 1.25
KINDS = ("facade", "tower", "object")
SERVED = re.compile(r"coocnet serves .+ at (\S+)")


@contextmanager
def served(place: Path) -> Iterator[str]:
    """The address at which the command serves an index."""
    command = [sys.executable, "-m", "coocnet", "serve", "--index", str(place), "--port", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "COLUMNS": "500"}
    ) as process:
        assert process.stdout is not None
        try:
            said = SERVED.search(process.stdout.readline())
            if said is None:
                sys.exit("the command serves nothing; it says why above")
            yield said[1]
        finally:
            process.send_signal(signal.SIGTERM)


def rendered(town: Path) -> tuple[Path, Path, View]:
    """Renders a town; gives the folder with its pictures, a picture to search with, and what is known of that."""
    views = make_scenes(town, instances=9, views=5, size_px=768)
    photos = town / "A small town"
    photos.mkdir()
    for view in views:
        if view.role == "database":
            letter = "abcde"[int(view.path.split("view")[1][:2])]
            name = f"{KINDS[view.instance % len(KINDS)]} {view.instance // len(KINDS) + 1} {letter}.jpg"
            (town / view.path).rename(photos / name)
    asked = next(view for view in views if view.role == "query" and view.instance == 1)
    return photos, (town / asked.path).rename(town / "clock tower.jpg"), asked


def take(page: Page, path: Path, height_px: int) -> None:
    """Keeps what a page looks like in a window of this height."""
    page.set_viewport_size({"width": WIDTH_PX, "height": height_px})
    page.mouse.move(0, 0)
    page.evaluate("document.activeElement?.blur()")
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(500)  # what fades in has done so
    page.screenshot(path=path)
    with Image.open(path) as taken:
        taken.convert("RGB").save(path, optimize=True)


def pictures(page: Page, url: str, query: Path, asked: View, images: Path) -> None:
    """Searches for the part of a query, and looks at why the first was found."""
    page.goto(url)
    page.locator("#file").set_input_files(query)
    page.wait_for_url(re.compile("upload="))
    box = ",".join(f"{edge:.0f}" for edge in asked.box)
    page.goto(f"{page.url}&box={box}")
    first = page.locator("[data-hit]").first
    first.wait_for()
    take(page, images / "page.png", 785)
    first.click()
    page.get_by_role("list", name="Best matches").get_by_role("button").first.wait_for()
    take(page, images / "matched.png", 720)


def main() -> None:
    """Renders, indexes, serves and takes the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, default=IMAGES, help="a folder for the pictures")
    given = parser.parse_args()
    names = (os.environ.get("COOCNET_CHROMIUM"), "chromium", "chromium-browser", "google-chrome")
    chromium = next((found for name in names if name and (found := shutil.which(name))), None)
    if chromium is None:
        sys.exit("no Chromium on this machine: put it on the PATH, or name it in COOCNET_CHROMIUM")
    with tempfile.TemporaryDirectory() as kept:
        photos, query, asked = rendered(Path(kept) / "town")
        with open_index(Path(kept) / "A small town.cooc", Recipe()) as index:
            index.sync(photos)
            place = Path(index.location)
        with served(place) as url, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
            page = browser.new_page(device_scale_factor=DENSITY, color_scheme="light", locale="en-GB")
            page.set_viewport_size({"width": WIDTH_PX, "height": 800})
            pictures(page, url, query, asked, given.images)
            browser.close()


if __name__ == "__main__":
    main()
