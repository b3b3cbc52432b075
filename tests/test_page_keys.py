"""The page by keys alone: from the start to a comparison and back, with the focus in sight at every stop."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("playwright", reason="tests of the page need playwright")

from playwright.sync_api import Page, Route, expect

from service import Collection, Service

NAME = "instance005_view01.jpg"
MOST_STOPS = 80
AT = """() => {
  const one = document.activeElement;
  const frame = one.getBoundingClientRect();
  const label = one.getAttribute("aria-label") ?? one.labels?.[0]?.textContent ?? "";
  const words = label || one.querySelector("img")?.alt || one.textContent || one.alt || "";
  const marked = [one, one.nextElementSibling].filter(Boolean).some((shown) => {
    const style = getComputedStyle(shown);
    return style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2;
  });
  const inSight = frame.width > 0 && frame.bottom > 0 && frame.top < innerHeight && frame.right > 0;
  return { tag: one.tagName, words: words.trim().replace(/\\s+/g, " "), inSight, marked };
}"""


def tab_to(page: Page, words: str, *, key: str = "Tab") -> list[str]:
    """Presses Tab until the focus is on what these words name; says where it was on the way."""
    passed: list[str] = []
    while len(passed) < MOST_STOPS:
        page.keyboard.press(key)
        at = page.evaluate(AT)
        passed.append(at["words"])
        if at["tag"] != "BODY":
            assert at["marked"], f"no focus is to be seen on {at}"
            assert at["inSight"], f"the focus is out of sight on {at}"
        if re.search(words, at["words"]):
            return passed
    raise AssertionError(f"{words!r} was not reached: {passed}")


def test_from_the_start_to_a_comparison_and_back(page: Page, serving: Service, collection: Collection) -> None:
    page.goto(serving.url)
    shelf = page.get_by_role("list", name="Pictures of the collection")
    expect(shelf.get_by_role("link").first).to_be_visible()
    passed = tab_to(page, "^Part of a name$|^Filter by name$")
    assert passed[0] == "Skip to the pictures"
    assert "Choose a file" in passed
    page.keyboard.type(NAME)
    expect(shelf.get_by_role("link")).to_have_count(1)
    tab_to(page, f"^{NAME}")
    page.keyboard.press("Enter")
    found = page.get_by_role("list", name="Results").get_by_role("link")
    expect(found.nth(1)).to_be_visible()
    expect(page.get_by_role("heading", name="Like this picture")).to_be_focused()
    tab_to(page, "No limit")
    result = found.nth(1).get_by_role("img").get_attribute("alt")
    tab_to(page, f"^{re.escape(result)}$")
    expect(found.nth(1)).to_be_focused()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("heading", name=re.compile("^Number 2"))).to_be_focused()
    expect(dialog.get_by_role("list", name="Best matches").get_by_role("button").first).to_be_visible()
    tab_to(page, "^What matched$")
    page.keyboard.press("ArrowRight")
    expect(dialog.get_by_role("radio", name="Activations")).to_be_checked()
    expect(dialog.get_by_role("heading")).to_have_text(re.compile("^Number 2"))  # the arrows were the radio's
    passed = tab_to(page, "^Take out of the collection$")
    for words in ("Opacity of the colours", "Mark as right", "Find similar from here"):
        assert words in passed
    tab_to(page, "^Next result$")
    page.keyboard.press("Enter")
    expect(dialog.get_by_role("heading", name=re.compile("^Number 3"))).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(dialog.get_by_role("heading", name=re.compile("^Number 4"))).to_be_focused()
    page.keyboard.press("ArrowLeft")
    expect(dialog.get_by_role("heading", name=re.compile("^Number 3"))).to_be_focused()
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    expect(found.nth(2)).to_be_focused()  # where the comparison was left, not where it was opened
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    expect(page.get_by_role("region", name="Marked as right")).to_contain_text("1 marked as right")
    tab_to(page, "^coocnet, start$", key="Shift+Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Find the same place")).to_be_focused()


def test_what_has_the_focus_is_never_hidden_behind_the_bars(
    page: Page, serving: Service, collection: Collection
) -> None:
    page.set_viewport_size({"width": 800, "height": 500})
    page.goto(f"{serving.url}?picture={collection.id_of(NAME)}")
    boxes = page.get_by_role("list", name="Results").get_by_role("checkbox")
    expect(boxes.first).to_be_visible()
    boxes.nth(1).check()  # its bar stays at the lower edge
    hidden = """() => {
      const one = document.activeElement;
      const { left, top, width, height } = one.getBoundingClientRect();
      const over = new Set();
      for (let i = 1; i < 10; i++)
        for (let j = 1; j < 10; j++)
          over.add(document.elementFromPoint(left + (i * width) / 10, top + (j * height) / 10));
      const seen = [...over].some((other) => one.contains(other) || other?.control === one);
      return seen ? "" : `${one.outerHTML.slice(0, 90)} lies below ${[...over].map((other) => other?.className)}`;
    }"""
    for key in ("Tab", "Shift+Tab"):
        for _ in range(24):
            page.keyboard.press(key)
            assert page.evaluate(hidden) == ""


def test_results_that_come_late_take_the_focus_from_nobody(
    page: Page, serving: Service, collection: Collection
) -> None:
    held: list[Route] = []
    are_late = True

    def hold(route: Route) -> None:
        if are_late:
            held.append(route)
        else:
            route.continue_()

    page.goto(serving.url)
    page.route("**/api/search?*", hold)
    page.get_by_role("list", name="Pictures of the collection").get_by_role("link", name=NAME).click()
    page.get_by_role("button", name="Select a part").press("Enter")
    part = page.get_by_role("application")
    expect(part).to_be_focused()
    are_late = False
    for route in held:
        route.continue_()
    expect(page.get_by_role("list", name="Results").get_by_role("link").first).to_be_visible()
    expect(page.get_by_text("less similar ones")).to_be_visible()
    expect(part).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Like this part")).to_be_visible()
