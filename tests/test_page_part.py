"""A part of the picture that is searched with: drawn, moved with the keys, or given in numbers."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from service import picture_id
from visiting import choose, expect_same, hits

NAME = "instance003_view00.jpg"


@pytest.fixture
def opened(page, serving, collection) -> Page:
    """The results of one picture of the collection, 320 pixels wide."""
    page.goto(f"{serving.url}?picture={collection.id_of(NAME)}")
    expect(hits(page).first).to_be_visible()
    return page


def part(page: Page) -> list[int]:
    """The part that is selected, as the page says it: x1, y1, x2, y2, in pixels of the picture."""
    label = page.get_by_role("application").get_attribute("aria-label")
    said = re.match(r"Part from (\d+), (\d+) to (\d+), (\d+) of \d+ × \d+ pixels", label)
    return [int(number) for number in said.groups()]


def drag(page: Page, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Drags between two points of the picture, given as shares of its sides."""
    frame = page.get_by_role("img", name="Searched with").bounding_box()
    for (x, y), act in ((start, page.mouse.down), (end, page.mouse.up)):
        page.mouse.move(frame["x"] + x * frame["width"], frame["y"] + y * frame["height"], steps=4)
        act()


def text(box: list[int]) -> str:
    return ",".join(map(str, box))


def test_a_part_drawn_with_the_mouse_finds_what_the_service_finds(opened, serving, collection) -> None:
    drag(opened, (0.2, 0.25), (0.7, 0.8))
    box = part(opened)
    size = opened.get_by_role("img", name="Searched with").evaluate("image => [image.width, image.height]")
    natural = [int(n) for n in re.search(r"of (\d+) × (\d+)", _label(opened)).groups()]
    assert size[0] / size[1] == pytest.approx(natural[0] / natural[1], rel=0.02)
    wanted = [0.2 * natural[0], 0.25 * natural[1], 0.7 * natural[0], 0.8 * natural[1]]
    assert box == pytest.approx(wanted, abs=2)
    opened.get_by_role("button", name="Search this part").click()
    expect(opened.get_by_role("heading", name="Like this part")).to_be_visible()
    expect_same(opened, serving, picture=collection.id_of(NAME), box=text(box))
    assert f"box={text(box)}" in opened.url
    assert part(opened) == box


def _label(page: Page) -> str:
    return page.get_by_role("application").get_attribute("aria-label")


def test_a_part_of_an_upload_finds_what_the_service_finds(page, serving, collection) -> None:
    page.goto(serving.url)
    choose(page, collection.queries[1])
    expect(hits(page).first).to_be_visible()
    drag(page, (0.9, 0.9), (0.3, 0.1))
    box = part(page)
    page.get_by_role("button", name="Search this part").click()
    expect_same(page, serving, upload=picture_id(collection.queries[1]), box=text(box))


def test_a_part_of_a_picture_stored_lying_is_in_pixels_of_the_upright_one(page, serving, collection) -> None:
    page.goto(f"{serving.url}?picture={collection.id_of(collection.turned)}")
    expect(hits(page).first).to_be_visible()
    drag(page, (0.1, 0.5), (0.9, 0.99))
    assert part(page) == pytest.approx([21, 160, 193, 317], abs=2)
    page.get_by_role("button", name="Search this part").click()
    expect_same(page, serving, picture=collection.id_of(collection.turned), box=text(part(page)))


def test_a_part_is_selected_moved_and_searched_with_by_the_keyboard_alone(opened, serving, collection) -> None:
    select = opened.get_by_role("button", name="Select a part")
    while not select.evaluate("button => button === document.activeElement"):
        opened.keyboard.press("Tab")
    opened.keyboard.press("Enter")
    expect(opened.get_by_role("application")).to_be_focused()
    x1, y1, x2, y2 = part(opened)
    for key in ("ArrowRight", "ArrowRight", "ArrowUp", "Shift+ArrowDown", "Shift+ArrowLeft"):
        opened.keyboard.press(key)
    moved = part(opened)
    assert moved[0] > x1
    assert moved[1] < y1
    assert moved[2] - moved[0] < x2 - x1
    assert moved[3] - moved[1] > y2 - y1
    opened.keyboard.press("Enter")
    expect_same(opened, serving, picture=collection.id_of(NAME), box=text(moved))


def test_keys_keep_a_part_within_the_picture(opened) -> None:
    opened.get_by_role("button", name="Select a part").press("Enter")
    size = [a + b for a, b in zip(part(opened)[:2], part(opened)[2:], strict=True)]
    for key in ("ArrowLeft", "ArrowUp"):
        for _ in range(15):
            opened.keyboard.press(key)
    x1, y1, x2, y2 = part(opened)
    assert (x1, y1) == (0, 0)
    assert [2 * x2, 2 * y2] == pytest.approx(size, abs=2)


def test_a_corner_is_dragged_and_the_part_itself_too(opened) -> None:
    drag(opened, (0.2, 0.2), (0.6, 0.6))
    before = part(opened)
    drag(opened, (0.4, 0.4), (0.5, 0.3))
    moved = part(opened)
    width, height = before[2] - before[0], before[3] - before[1]
    assert [moved[2] - moved[0], moved[3] - moved[1]] == [width, height]
    assert moved[0] - before[0] == pytest.approx(width / 4, abs=2)
    assert before[1] - moved[1] == pytest.approx(height / 4, abs=2)
    drag(opened, (0.7, 0.5), (0.9, 0.9))
    grown = part(opened)
    assert grown[:2] == moved[:2]
    assert grown[2] > moved[2]
    assert grown[3] > moved[3]


def test_a_part_given_in_numbers_is_drawn_and_searched_with(opened, serving, collection) -> None:
    opened.get_by_text("The part in pixels").click()
    for side, value in (("Left", 10), ("Top", 20), ("Right", 150), ("Bottom", 120)):
        opened.get_by_role("spinbutton", name=f"{side}, in pixels").fill(str(value))
    opened.get_by_role("spinbutton", name="Bottom, in pixels").press("Enter")
    assert part(opened) == [10, 20, 150, 120]
    opened.get_by_role("button", name="Search this part").click()
    expect_same(opened, serving, picture=collection.id_of(NAME), box="10,20,150,120")


def test_the_whole_picture_comes_back_and_escape_removes_a_part(opened, serving, collection) -> None:
    whole = expect_same(opened, serving, picture=collection.id_of(NAME))
    drag(opened, (0.3, 0.3), (0.6, 0.9))
    opened.keyboard.press("Escape")
    expect(opened.get_by_role("application")).to_have_count(0)
    drag(opened, (0.3, 0.3), (0.6, 0.9))
    opened.keyboard.press("Enter")
    expect(opened.get_by_role("heading", name="Like this part")).to_be_visible()
    opened.get_by_role("button", name="Whole picture").click()
    expect(opened.get_by_role("heading", name="Like this picture")).to_be_visible()
    assert expect_same(opened, serving, picture=collection.id_of(NAME)) == whole
    expect(opened.get_by_role("button", name="Select a part")).to_be_focused()


def test_a_click_on_the_picture_selects_nothing(opened) -> None:
    opened.get_by_role("img", name="Searched with").click()
    expect(opened.get_by_role("application")).to_have_count(0)
    expect(opened.get_by_role("button", name="Search this part")).to_have_count(0)
