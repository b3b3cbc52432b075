"""Everybody can use each view: in both themes, on a wide screen and on a phone, at rest, and without a mouse."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from browsing import axe
from visiting import hits

NAME = "instance005_view01.jpg"
SMALL = """() => [...document.querySelectorAll('a[href], button, input, select, summary, [role=application]')]
    .filter((one) => one.checkVisibility({visibilityProperty: true}))
    .map((one) => [one, (one.closest('label') ?? one).getBoundingClientRect()])
    .filter(([, {width, height}]) => width > 1 && (width < 24 || height < 24))
    .map(([one, {width, height}]) => `${one.outerHTML.slice(0, 120)}: ${width} x ${height}`)"""
SIDEWAYS = """() => [document.scrollingElement, ...document.querySelectorAll('dialog[open]')]
    .map((one) => one.scrollWidth - one.clientWidth)"""


def start(page: Page) -> None:
    expect(page.get_by_role("list", name="Pictures of the collection").get_by_role("link").first).to_be_visible()


def results(page: Page) -> None:
    page.get_by_role("link", name=NAME).click()
    expect(page.get_by_text("less similar ones")).to_be_visible()


def part(page: Page) -> None:
    results(page)
    page.get_by_role("button", name="Select a part").click()
    expect(page.get_by_role("application")).to_be_focused()


def comparison(page: Page) -> None:
    results(page)
    hits(page).nth(1).click()
    expect(page.get_by_role("list", name="Best matches").get_by_role("button").first).to_be_visible()


def panel(page: Page) -> None:
    page.get_by_role("button", name="This collection").click()
    expect(page.get_by_role("dialog").get_by_role("term").first).to_be_visible()


@pytest.mark.parametrize("width", [1440, 360])
@pytest.mark.parametrize("view", [start, results, part, comparison, panel], ids=lambda view: view.__name__)
def test_a_view_lacks_nothing_that_somebody_needs(page, serving, view: Callable[[Page], None], width: int) -> None:
    page.emulate_media(color_scheme="light", reduced_motion="reduce")
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(serving.url)
    view(page)
    assert axe(page) == ""
    page.emulate_media(color_scheme="dark", reduced_motion="reduce")
    assert axe(page) == ""
    assert max(page.evaluate(SIDEWAYS)) <= 0
    assert page.evaluate(SMALL) == []


def test_nothing_moves_for_who_wants_it_still(page, serving) -> None:
    page.emulate_media(reduced_motion="reduce")
    page.goto(serving.url)
    comparison(page)
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    hits(page).nth(2).hover()
    moving = "() => document.getAnimations().filter((one) => one.effect.getComputedTiming().duration > 1).length"
    assert page.evaluate(moving) == 0


def test_the_first_stop_leads_past_the_bar(page, serving) -> None:
    page.goto(serving.url)
    start(page)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the pictures")).to_be_focused()
    expect(page.get_by_role("link", name="Skip to the pictures")).to_be_in_viewport()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Choose a file")).to_be_focused()
    outline = "() => getComputedStyle(document.activeElement).outlineStyle"
    assert page.evaluate(outline) != "none"
