"""The address holds where the user is: reloaded, walked back and forward, and opened after the server was away."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, expect

from service import picture_id, steady_port
from visiting import choose, expect_same, found, hits, until

NAME = "instance005_view01.jpg"


def view(page: Page) -> dict:
    """What somebody sees of where they are."""
    return {
        "title": page.title(),
        "headings": page.get_by_role("heading").all_inner_texts(),
        "results": found(page),
        "modes": page.get_by_role("radio", checked=True).evaluate_all("all => all.map(one => one.value)"),
    }


def test_a_view_is_the_same_after_a_reload(page, serving, collection) -> None:
    queried = f"{serving.url}?picture={collection.id_of(NAME)}&box=20,30,220,200"
    page.goto(f"{queried}&threshold=0.3&contains=instance")
    expect_same(page, serving, picture=collection.id_of(NAME), box="20,30,220,200", threshold=0.3)
    hits(page).nth(2).click()
    page.get_by_role("radio", name="Activations").check()
    legend = page.get_by_text("How strongly the network fires")
    expect(legend).to_be_visible()
    before = view(page)
    page.reload()
    expect(legend).to_be_visible()
    until(lambda: view(page), before)


def test_back_and_forward_walk_through_what_was_seen(page, serving, collection) -> None:
    seen = []

    def note(ready) -> None:
        expect(ready).to_be_visible()
        seen.append((page.url, ready))

    page.goto(serving.url)
    shelf = page.get_by_role("list", name="Pictures of the collection")
    note(shelf.get_by_role("link", name=NAME))
    shelf.get_by_role("link", name=NAME).click()
    note(page.get_by_role("img", name=f"Searched with: {NAME}"))
    wanted = expect_same(page, serving, picture=collection.id_of(NAME))
    hits(page).nth(1).click()
    note(page.get_by_role("dialog").get_by_text(re.compile(r"^Similarity \d")))
    page.get_by_role("button", name="Find similar from here").click()
    note(page.get_by_role("img", name=f"Searched with: {wanted[1]['name']}"))
    page.get_by_role("button", name="Select a part").press("Enter")
    page.keyboard.press("Enter")
    note(page.get_by_role("heading", name="Like this part"))
    for url, ready in reversed(seen[:-1]):
        page.go_back()
        expect(ready).to_be_visible()
        assert page.url == url
    expect(page.get_by_role("dialog")).to_have_count(0)
    for url, ready in seen[1:]:
        page.go_forward()
        expect(ready).to_be_visible()
        assert page.url == url


def test_going_back_before_everything_had_come_ends_with_the_right_results(page, serving, collection) -> None:
    first, second = collection.id_of(NAME), collection.id_of("instance007_view02.jpg")
    page.goto(serving.url)
    shelf = page.get_by_role("list", name="Pictures of the collection")
    shelf.get_by_role("link", name=NAME).click()
    expect(page.get_by_text("less similar ones")).to_be_visible()  # all of it has come
    page.get_by_role("link", name="coocnet, start").click()
    page.route(lambda url: second in url and "limit=100" in url, lambda _: None)  # never answered
    shelf.get_by_role("link", name="instance007_view02.jpg").click()
    expect_same(page, serving, picture=second)
    page.go_back()
    page.go_back()
    expect_same(page, serving, picture=first)
    expect(page.get_by_text("less similar ones")).to_be_visible()


def test_closing_a_comparison_leaves_no_way_back_into_it(page, serving, collection) -> None:
    page.goto(serving.url)
    page.get_by_role("link", name=NAME).click()
    hits(page).first.click()
    page.get_by_role("button", name="Close").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(hits(page).first).to_be_focused()
    page.go_back()
    expect(page.get_by_role("heading", name="Find the same place")).to_be_visible()


def test_marks_are_still_there_after_going_back(page, serving, collection) -> None:
    page.goto(f"{serving.url}?picture={collection.id_of(NAME)}")
    tick = page.get_by_role("checkbox").nth(3)
    tick.check()
    page.get_by_role("link", name="coocnet, start").click()
    expect(page.get_by_role("heading", name="Find the same place")).to_be_visible()
    page.go_back()
    expect(tick).to_be_checked()


def test_an_upload_survives_a_reload_and_another_server(serves, page, collection, complaints) -> None:
    complaints.allow("status of 404|ERR_CONNECTION_REFUSED|ERR_EMPTY_RESPONSE|ERR_CONNECTION_RESET")
    first = serves(collection.index, "--port", steady_port())
    page.goto(first.url)
    choose(page, collection.queries[3])
    expect_same(page, first, upload=picture_id(collection.queries[3]))
    page.reload()
    wanted = expect_same(page, first, upload=picture_id(collection.queries[3]))
    first.process.terminate()
    assert first.process.wait(30) == 0
    second = serves(collection.index, "--port", urlsplit(first.url).port)
    assert second.url == first.url
    page.reload()
    until(lambda: found(page), [hit["id"] for hit in wanted])
    image = page.get_by_role("img", name=f"Searched with: {collection.queries[3].name}")
    until(lambda: image.evaluate("image => image.complete && image.naturalWidth > 0"), True)


def test_an_upload_that_nobody_keeps_is_told_with_a_way_on(page, serving, complaints) -> None:
    complaints.allow("status of 404")
    page.goto(f"{serving.url}?upload={'0' * 32}")
    expect(page.get_by_role("heading", name="That did not work")).to_be_visible()
    expect(page.get_by_role("alert")).to_contain_text("no longer kept")
    expect(page.get_by_role("main")).not_to_contain_text("0")
    page.get_by_role("link", name="To the collection").click()
    expect(page.get_by_role("list", name="Pictures of the collection")).to_be_visible()


@pytest.mark.parametrize("address", ["picture=" + "0" * 32, "picture={id}&box=900,900,950,950"])
def test_an_address_that_cannot_be_shown_says_why(address, page, serving, collection, complaints) -> None:
    complaints.allow("status of 4(04|22)")
    page.goto(f"{serving.url}?{address.format(id=collection.id_of(NAME))}")
    expect(page.get_by_role("alert")).not_to_be_empty()
    page.get_by_role("link", name="To the collection").click()
    expect(page.get_by_role("list", name="Pictures of the collection")).to_be_visible()


@pytest.mark.parametrize("address", ["picture=nonsense", "upload=../info", "picture=../info&view=../info"])
def test_an_address_that_names_no_picture_says_so_beside_the_collection(address, page, serving) -> None:
    page.goto(f"{serving.url}?{address}")
    expect(page.get_by_text("This address names no picture.")).to_be_visible()
    expect(page.get_by_role("list", name="Pictures of the collection")).to_be_visible()


@pytest.mark.parametrize(
    ("written", "meant"), [("200,180,20,30", "20,30,200,180"), (",,,", None), ("5,5,5,5", None), ("1,2,3", None)]
)
def test_a_box_counts_from_any_of_its_corners_and_not_at_all_with_nothing_in_it(
    written, meant, page, serving, collection
) -> None:
    page.goto(f"{serving.url}?picture={collection.id_of(NAME)}&box={written}")
    expect_same(page, serving, picture=collection.id_of(NAME), **({"box": meant} if meant else {}))


def test_the_theme_is_switched_and_remembered(page, serving) -> None:
    page.goto(serving.url)
    switch = page.get_by_role("button", name="Dark appearance")
    ground = "() => getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    expect(switch).to_have_attribute("aria-pressed", "false")
    switch.click()
    expect(switch).to_have_attribute("aria-pressed", "true")
    dark = page.evaluate(ground)
    assert dark != light
    page.reload()
    expect(switch).to_have_attribute("aria-pressed", "true")
    assert page.evaluate(ground) == dark
    page.emulate_media(color_scheme="dark")
    switch.click()
    assert page.evaluate(ground) == light


def test_without_a_choice_the_theme_is_the_systems(page, serving) -> None:
    page.emulate_media(color_scheme="dark")
    page.goto(serving.url)
    expect(page.get_by_role("button", name="Dark appearance")).to_have_attribute("aria-pressed", "true")
    page.emulate_media(color_scheme="light")
    expect(page.get_by_role("button", name="Dark appearance")).to_have_attribute("aria-pressed", "false")
