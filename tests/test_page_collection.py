"""What the index holds, and how it changes from the page: updates, pictures added, pictures taken out."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from coocnet.describe import Describer
from coocnet.index import open_index
from visiting import ask, choose, expect_same, found, hits, until

MANY = 1500


@pytest.fixture
def own(collection, tmp_path: Path) -> Path:
    """A copy of the index that is free to be changed; the pictures are the collection's."""
    return Path(shutil.copytree(collection.index, tmp_path / "photos.cooc"))


def shelve(folder: Path, place: Path, recipe) -> None:
    with open_index(place, recipe) as index:
        index.sync(folder, describer=Describer(recipe))


def paint(folder: Path, count: int, *, size_px: int = 64) -> list[Path]:
    """Small pictures of one colour each."""
    folder.mkdir(exist_ok=True)
    made = []
    for i in range(count):
        colour = (40 + i % 200, 200 - i % 150, (i * 37) % 255)
        Image.new("RGB", (size_px, size_px), colour).save(folder / f"painted{i:03d}.png")
        made.append(folder / f"painted{i:03d}.png")
    return made


def panel(page: Page):
    """What the index holds, opened."""
    page.get_by_role("button", name="This collection").click()
    return page.get_by_role("dialog", name="This collection")


def fact(dialog, label: str) -> str:
    return dialog.get_by_role("term").filter(has_text=re.compile(f"^{label}$")).locator("+ dd").inner_text()


def test_the_panel_tells_what_the_index_holds(page, serving, collection) -> None:
    page.goto(serving.url)
    dialog = panel(page)
    expect(dialog.get_by_role("term").first).to_be_visible()
    info = ask(page, serving, "info")
    assert fact(dialog, "Pictures") == f"{info['pictures']} ({info['contents']} different)"
    assert fact(dialog, "Fingerprint") == info["recipe"]["fingerprint"]
    assert fact(dialog, "Learned limit") == f"{info['auto_threshold']:.2f}"
    assert fact(dialog, "coocnet") == info["version"]
    row = dialog.get_by_role("row").nth(1)
    expect(row.get_by_role("rowheader")).to_have_text(info["folders"][0]["name"])
    expect(row.get_by_role("cell").first).to_have_text(str(info["folders"][0]["pictures"]))
    expect(dialog.get_by_role("heading", name="Skipped: 1 file")).to_be_visible()
    expect(dialog.get_by_role("listitem").filter(has_text=collection.broken)).to_contain_text("truncated")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.get_by_role("button", name="This collection")).to_be_focused()


def test_an_update_is_seen_stopped_and_what_it_did_is_kept(serves, page, quick, tmp_path) -> None:
    folder = tmp_path / "many"
    paint(folder, 1)
    shelve(folder, tmp_path / "many.cooc", quick)
    service = serves(tmp_path / "many.cooc")
    paint(folder, MANY)
    page.goto(service.url)
    expect(page.get_by_text("1 picture", exact=True)).to_be_visible()
    panel(page).get_by_role("button", name="Update").click()
    bar = page.get_by_role("progressbar", name="Update of the collection")
    expect(page.get_by_text(re.compile(rf"^([4-9]\d|\d\d\d+) of {MANY}"))).to_be_visible()
    assert bar.evaluate("bar => [bar.max, bar.value > 0]") == [MANY, True]
    page.reload()  # who comes later sees it too
    expect(bar).to_be_visible()
    page.get_by_role("button", name="Stop the update").click()
    messages = page.get_by_role("status", name="Messages")
    expect(messages).to_contain_text("The update was stopped; what was described is stored.")
    expect(bar).to_have_count(0)
    kept = ask(page, service, "info")["pictures"]
    assert 1 < kept < MANY
    expect(page.get_by_text(re.compile(rf"^{kept} pictures"))).to_be_visible()


def test_an_update_takes_in_what_is_new_and_the_page_shows_it(serves, page, quick, tmp_path) -> None:
    folder = tmp_path / "few"
    first, *_ = paint(folder, 3)
    shelve(folder, tmp_path / "few.cooc", quick)
    service = serves(tmp_path / "few.cooc")
    page.goto(service.url)
    shelf = page.get_by_role("list", name="Pictures of the collection")
    expect(shelf.get_by_role("link")).to_have_count(3)
    page.wait_for_function("[...document.images].every(image => image.complete)")  # the file is gone from here on
    first.unlink()
    paint(tmp_path / "more", 6, size_px=80)[5].rename(folder / "new.png")
    (folder / "broken.jpg").write_bytes(b"nothing")
    panel(page).get_by_role("button", name="Update").click()
    said = "The collection is up to date. 1 new, 1 gone, 1 skipped."
    expect(page.get_by_role("status", name="Messages")).to_contain_text(said)
    expect(shelf.get_by_role("link", name="new.png")).to_be_visible()
    expect(shelf.get_by_role("link", name=first.name)).to_have_count(0)
    expect(panel(page).get_by_role("listitem").filter(has_text="broken.jpg")).to_be_visible()


def test_a_picture_is_added_found_and_taken_out_again(serves, page, own, collection, tmp_path) -> None:
    (tmp_path / "added").mkdir()
    service = serves(own, "--add-to", tmp_path / "added")
    query = collection.queries[8]
    page.goto(service.url)
    choose(page, query)
    expect(hits(page).first).to_be_visible()
    page.get_by_role("button", name="Add this picture to the collection").click()
    expect(page.get_by_role("status", name="Messages")).to_contain_text("Added to the collection as")
    kept = [path for path in (tmp_path / "added").rglob("*") if path.is_file()]
    assert [path.read_bytes() for path in kept] == [query.read_bytes()]
    expect(page.get_by_role("button", name="Add this picture to the collection")).to_have_count(0)
    page.get_by_role("link", name="coocnet, start").click()
    expect(page.get_by_text("53 pictures", exact=True)).to_be_visible()
    page.get_by_role("searchbox", name="Filter by name").fill(kept[0].name)
    expect(page.get_by_text(f"1 of 53 names contain “{kept[0].name}”")).to_be_visible()
    page.get_by_role("list", name="Pictures of the collection").get_by_role("link").click()
    expect(hits(page).first).to_contain_text("this very picture")
    hits(page).first.click()
    page.get_by_role("button", name="Take out of the collection").click()
    page.get_by_role("button", name="Take it out").click()
    expect(page.get_by_role("status", name="Messages")).to_contain_text("is out of the collection")
    expect(page.get_by_role("heading", name="Find the same place")).to_be_visible()  # like what is gone is nothing
    expect(page.get_by_text("52 pictures", exact=True)).to_be_visible()
    assert kept[0].exists()
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_text("53 pictures", exact=True)).to_be_visible()


def test_a_picture_is_taken_out_and_put_back_by_undo_and_from_the_panel(serves, page, own, collection) -> None:
    service = serves(own)
    name = "instance006_view01.jpg"
    page.goto(f"{service.url}?picture={collection.id_of(name)}")
    before = expect_same(page, service, picture=collection.id_of(name))
    gone = before[1]

    def take_out() -> None:
        hits(page).nth(1).click()
        page.get_by_role("button", name="Take out of the collection").click()
        page.get_by_role("button", name="Keep it").click()
        expect(page.get_by_role("button", name="Take out of the collection")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.get_by_role("button", name="Take it out")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.get_by_role("dialog")).to_have_count(0)
        until(lambda: gone["id"] in found(page), False)

    take_out()
    messages = page.get_by_role("status", name="Messages")
    expect(messages).to_contain_text(f"{gone['name']} is out of the collection.")
    assert page.request.get(f"{service.url}api/pictures/{gone['id']}").status == 404
    messages.get_by_role("button", name="Undo").click()
    expect(messages).to_contain_text("is back in the collection")
    again = expect_same(page, service, picture=collection.id_of(name))
    assert [hit["id"] for hit in again] == [hit["id"] for hit in before]
    take_out()
    dialog = panel(page)
    dialog.get_by_role("button", name=f"Put back {gone['name']}").click()
    expect(dialog.get_by_role("heading", name="Taken out")).to_have_count(0)
    page.keyboard.press("Escape")
    until(lambda: found(page), [hit["id"] for hit in before])


def test_who_may_only_read_is_offered_no_change(serves, page, own, collection) -> None:
    service = serves(own, "--read-only")
    page.goto(f"{service.url}?picture={collection.id_of('turned.jpg')}")
    hits(page).nth(1).click()
    expect(page.get_by_role("button", name="Find similar from here")).to_be_visible()
    expect(page.get_by_role("button", name="Take out of the collection")).to_have_count(0)
    page.keyboard.press("Escape")
    dialog = panel(page)
    expect(dialog.get_by_role("term").first).to_be_visible()
    expect(dialog.get_by_role("button", name="Update")).to_have_count(0)
