"""States between the views of the page: everybody can use them, in both themes and on a phone; all stays at home."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("playwright", reason="tests of the page need playwright")

from playwright.sync_api import Page, expect

from browsing import axe
from coocnet.describe import Describer
from coocnet.index import open_index
from coocnet.recipe import Recipe
from service import Collection, Service

MANY = 1500
TOKEN = "twelve-brown-bears-by-the-river"
SIDEWAYS = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
CUT_OFF = """() => [...document.querySelectorAll("dialog[open], dialog[open] *")]
  .filter((one) => one.clientWidth > 1 && getComputedStyle(one).overflowX === "auto")
  .filter((one) => one.scrollWidth > one.clientWidth && one.tabIndex < 0)
  .map((one) => `${one.tagName} ${one.className} ${one.scrollWidth} in ${one.clientWidth}`)"""
SMALL = """() => [...document.querySelectorAll("a[href], button, input, select, summary, [role=application]")]
  .filter((one) => one.checkVisibility({ opacityProperty: false, visibilityProperty: true }))
  .map((one) => [one, (one.closest("label") ?? one).getBoundingClientRect()])
  .filter(([, { width, height }]) => width > 1 && (width < 24 || height < 24))
  .map(([one, { width, height }]) => `${one.outerHTML.slice(0, 120)}: ${width} x ${height}`)"""
MOVING = "document.getAnimations().filter((one) => one.playState === 'running').length"
GROUND = "getComputedStyle(document.body).backgroundColor"


@pytest.fixture
def requests(page: Page) -> Iterator[list[str]]:
    """The addresses that the page asked for."""
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.emulate_media(color_scheme="light", reduced_motion="reduce")
    page.set_viewport_size({"width": 1280, "height": 850})
    return asked


def results(page: Page) -> None:
    expect(page.get_by_role("list", name="Results").get_by_role("link").first).to_be_visible()


def open_result(page: Page, mode: str) -> None:
    results(page)
    page.get_by_role("list", name="Results").get_by_role("link").nth(1).click()
    page.get_by_role("dialog").get_by_role("radio", name=mode).check()
    expect(page.get_by_role("dialog").locator("[aria-busy]")).to_have_count(0)


def no_name(page: Page, folder: Path) -> None:
    page.get_by_role("link", name="coocnet, start").click()
    page.get_by_role("searchbox", name="Filter by name").fill("no such name")
    expect(page.get_by_text("names contain “no such name”")).to_be_visible()


def nothing_found(page: Page, folder: Path) -> None:
    results(page)
    page.get_by_role("radio", name=re.compile("Automatic")).check()
    noise = np.random.default_rng(1).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "noise.png")
    with page.expect_file_chooser() as chosen:
        page.get_by_role("button", name="Choose a photograph").click()
    chosen.value.set_files(folder / "noise.png")
    expect(page.get_by_role("button", name="Show the nearest anyway")).to_be_visible()


def marked(page: Page, folder: Path) -> None:
    results(page)
    for at in (1, 2):
        page.get_by_role("list", name="Results").get_by_role("checkbox").nth(at).check()
    page.get_by_role("button", name="Search again with these").click()
    expect(page.get_by_text("Searched with 2 pictures marked as right as well.")).to_be_visible()
    results(page)
    page.get_by_role("list", name="Results").get_by_role("checkbox").nth(4).check()
    expect(page.get_by_role("region", name="Marked as right")).to_contain_text("3 marked")


def part_drawn(page: Page, folder: Path) -> None:
    results(page)
    page.get_by_role("button", name="Select a part").click()
    page.get_by_text("The part in pixels").click()
    page.get_by_text("Ranking", exact=True).click()
    expect(page.get_by_role("spinbutton", name="Left, in pixels")).to_be_visible()
    expect(page.get_by_role("combobox", name="Rank anew")).to_be_visible()


def limit_drawn(page: Page, folder: Path) -> None:
    results(page)
    page.get_by_role("slider", name="Least similarity").fill("0.4")
    expect(page).to_have_url(re.compile("threshold=0.40"))
    results(page)


def matched(page: Page, folder: Path) -> None:
    open_result(page, "What matched")
    pressed = page.get_by_role("list", name="Best matches").get_by_role("button").first
    pressed.click()
    expect(pressed).to_have_attribute("aria-pressed", "true")


def fired(page: Page, folder: Path) -> None:
    open_result(page, "Co-occurrence")


def photographed(page: Page, folder: Path) -> None:
    open_result(page, "Photographs")


def asked_twice(page: Page, folder: Path) -> None:
    open_result(page, "Photographs")
    page.get_by_role("button", name="Take out of the collection").click()
    expect(page.get_by_role("group", name="Take this picture out?")).to_be_visible()


def told(page: Page, folder: Path) -> None:
    results(page)
    (folder / "notes.txt").write_text("words")
    with page.expect_file_chooser() as chosen:
        page.get_by_role("button", name="Choose a photograph").click()
    chosen.value.set_files(folder / "notes.txt")
    expect(page.get_by_role("status", name="Messages")).to_contain_text("notes.txt is no picture")


def hovering(page: Page, folder: Path) -> None:
    results(page)
    held = page.evaluate_handle("""() => {
        const held = new DataTransfer();
        held.items.add(new File(["x"], "x.jpg", { type: "image/jpeg" }));
        return held;
    }""")
    page.get_by_role("main").dispatch_event("dragenter", {"dataTransfer": held})
    page.get_by_role("main").dispatch_event("dragover", {"dataTransfer": held})
    expect(page.get_by_text("Drop it anywhere")).to_be_visible()


def unknown(page: Page, folder: Path) -> None:
    page.goto(page.url.split("?")[0] + f"?picture={'0' * 32}")
    expect(page.get_by_role("heading", name="That did not work")).to_be_visible()


def good_for_all(page: Page) -> None:
    """Looks at a state on a wide light screen, and on a narrow dark one; the theme is put back."""
    page.set_viewport_size({"width": 1280, "height": 850})
    assert axe(page) == ""
    light = page.evaluate(GROUND)
    page.set_viewport_size({"width": 360, "height": 740})
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    assert page.evaluate(GROUND) != light
    assert page.evaluate(MOVING) == 0
    assert axe(page) == ""
    assert page.evaluate(SIDEWAYS) <= 0
    assert page.evaluate(CUT_OFF) == []
    assert page.evaluate(SMALL) == []
    page.evaluate("delete document.documentElement.dataset.theme")
    page.set_viewport_size({"width": 1280, "height": 850})


@pytest.mark.parametrize(
    "state",
    [
        no_name,
        nothing_found,
        limit_drawn,
        marked,
        part_drawn,
        matched,
        fired,
        photographed,
        asked_twice,
        told,
        hovering,
        unknown,
    ],
    ids=lambda state: state.__name__,
)
def test_everybody_can_use_every_state_and_nothing_is_asked_of_elsewhere(
    page: Page,
    serving: Service,
    collection: Collection,
    requests: list[str],
    complaints,
    tmp_path: Path,
    state: Callable[[Page, Path], None],
) -> None:
    complaints.allow("status of 404")
    page.goto(f"{serving.url}?picture={collection.id_of('turned.jpg')}")
    state(page, tmp_path)
    good_for_all(page)
    assert len(requests) > 10
    elsewhere = [url for url in requests if not url.startswith((serving.url, "blob:", "data:"))]
    assert not elsewhere


def test_no_label_is_broken_within_a_word_on_a_phone(
    page: Page, serving: Service, collection: Collection, tmp_path: Path
) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    page.goto(f"{serving.url}?picture={collection.id_of('turned.jpg')}")  # upright, so little is left beside it
    part_drawn(page, tmp_path)
    heights = [page.get_by_text(edge, exact=True).bounding_box()["height"] for edge in ("Left", "Bottom")]
    assert heights[0] == heights[1]


def test_everybody_can_use_the_page_while_the_collection_changes_and_when_the_service_is_gone(
    page: Page, serves, quick: Recipe, requests: list[str], complaints, tmp_path: Path
) -> None:
    complaints.allow("status of 401")
    complaints.allow("ERR_CONNECTION_REFUSED|ERR_EMPTY_RESPONSE|ERR_INCOMPLETE_CHUNKED|ERR_CONNECTION_RESET")
    (tmp_path / "photos").mkdir()
    paint(tmp_path / "photos", 3)
    with open_index(tmp_path / "photos.cooc", quick) as index:
        index.sync(tmp_path / "photos", describer=Describer(quick))
    service = serves(tmp_path / "photos.cooc", COOCNET_TOKEN=TOKEN)
    page.goto(service.url)
    page.get_by_label("Token").fill("a wrong one")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("token")
    good_for_all(page)
    page.get_by_label("Token").fill(TOKEN)
    page.keyboard.press("Enter")
    expect(page.get_by_role("list", name="Pictures of the collection").get_by_role("link")).to_have_count(3)
    first = page.request.get(f"{service.url}api/pictures").json()["pictures"][0]
    assert page.request.delete(f"{service.url}api/pictures/{first['id']}").status == 204
    paint(tmp_path / "photos", MANY)
    page.get_by_role("button", name="This collection").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("button", name="Put back")).to_be_visible()
    good_for_all(page)
    dialog.get_by_role("button", name="Update").click()
    expect(page.get_by_text(re.compile(rf"^\d+ of {MANY}"))).to_be_visible()
    good_for_all(page)
    expect(page.get_by_role("progressbar", name="Update of the collection")).to_be_visible()  # still
    service.process.terminate()
    service.process.wait(30)
    page.get_by_role("searchbox", name="Filter by name").fill("painted")
    expect(page.get_by_role("status", name="Messages")).to_contain_text("The server does not answer")
    good_for_all(page)
    assert all(url.startswith((service.url, "blob:", "data:")) for url in requests)


def paint(folder: Path, count: int) -> None:
    """Small pictures, no two alike."""
    for i in range(count):
        colour = (i % 256, 255 - i // 256, i * 37 % 256)
        Image.new("RGB", (64, 48), colour).save(folder / f"painted{i:04d}.png")
