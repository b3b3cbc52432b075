"""How a picture gets into the page: dropped, pasted, chosen, or picked from the collection."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from service import ODD_NAME, picture_id
from visiting import ask, choose, drop, expect_same, found, hits, transfer


def _dropped(page, path) -> None:
    given = transfer(page, path.name, path.read_bytes())
    page.get_by_role("main").dispatch_event("dragover", {"dataTransfer": given})
    assert page.get_by_text("Drop it anywhere").is_visible()
    page.get_by_role("main").dispatch_event("drop", {"dataTransfer": given})


def _pasted(page, path) -> None:
    given = transfer(page, path.name, path.read_bytes())
    paste = "given => document.body.dispatchEvent(new ClipboardEvent('paste', {clipboardData: given, bubbles: true}))"
    given.evaluate(paste)


def _chosen(page, path) -> None:
    choose(page, path)


def _chosen_above(page, path) -> None:
    choose(page, path, "Choose a photograph")


@pytest.mark.parametrize("bring", [_dropped, _pasted, _chosen, _chosen_above])
def test_a_picture_from_outside_finds_what_the_service_finds(bring, page, serving, collection) -> None:
    query = collection.queries[2]
    page.goto(serving.url)
    bring(page, query)
    expect(page.get_by_role("heading", name="Like this picture")).to_be_visible()
    expect_same(page, serving, upload=picture_id(query))
    expect(page.get_by_role("img", name=f"Searched with: {query.name}")).to_be_visible()
    assert not page.get_by_text("Drop it anywhere").is_visible()
    assert f"upload={picture_id(query)}" in page.url


def test_a_picture_dropped_onto_results_is_searched_with_instead(page, serving, collection) -> None:
    page.goto(f"{serving.url}?picture={collection.id_of(collection.turned)}&threshold=0.2")
    expect(hits(page).first).to_be_visible()
    drop(page, "holiday.jpg", collection.queries[0].read_bytes())
    expect(page.get_by_role("img", name="Searched with: holiday.jpg")).to_be_visible()
    expect_same(page, serving, upload=picture_id(collection.queries[0]), threshold=0.2)


def test_a_file_that_is_no_picture_is_refused_in_words(page, serving, complaints) -> None:
    complaints.allow("status of 4(15|22)")
    page.goto(serving.url)
    drop(page, "notes.txt", b"words", kind="text/plain")
    expect(page.get_by_role("status", name="Messages")).to_contain_text("notes.txt is no picture")
    drop(page, "false.jpg", b"words")
    expect(page.get_by_role("status", name="Messages")).to_contain_text("no picture", ignore_case=True)
    expect(page.get_by_role("heading", name="Find the same place")).to_be_visible()


def test_a_file_that_is_too_large_is_told_before_it_is_sent(page, serving) -> None:
    sent = []
    page.on("request", lambda request: sent.append(request.url) if request.method == "POST" else None)

    def small(route) -> None:
        info = route.fetch().json()
        info["limits"]["upload_bytes"] = 1000
        route.fulfill(json=info)

    page.route("**/api/info", small)
    page.goto(serving.url)
    expect(page.get_by_role("list", name="Pictures of the collection")).to_be_visible()
    drop(page, "large.jpg", b"x" * 1001)
    expect(page.get_by_role("status", name="Messages")).to_contain_text("large.jpg has 0.0 MiB")
    assert not sent


def test_a_picture_of_the_collection_is_searched_with_by_a_click(page, serving, collection) -> None:
    name = "instance004_view01.jpg"
    page.goto(serving.url)
    page.get_by_role("list", name="Pictures of the collection").get_by_role("link", name=name).click()
    wanted = expect_same(page, serving, picture=collection.id_of(name))
    assert wanted[0]["identical"]
    expect(hits(page).first).to_contain_text("this very picture")
    assert len(wanted) == 50
    assert page.title().endswith(f"{name} · coocnet")


def test_every_picture_of_the_collection_is_shown_in_order_of_path(page, serving) -> None:
    page.goto(serving.url)
    told = ask(page, serving, "pictures", limit=60)
    shelf = page.get_by_role("list", name="Pictures of the collection")
    expect(shelf.get_by_role("link")).to_have_count(told["total"])
    names = shelf.get_by_role("img").evaluate_all("images => images.map(image => image.alt)")
    assert names == [picture["name"] for picture in told["pictures"]]
    expect(page.get_by_role("main").get_by_role("status")).to_have_text(f"{told['total']} pictures")


def test_names_are_filtered_as_they_are_typed_and_the_address_holds_it(page, serving) -> None:
    page.goto(serving.url)
    shelf = page.get_by_role("list", name="Pictures of the collection")
    page.get_by_role("searchbox", name="Filter by name").fill("VIEW02")
    told = ask(page, serving, "pictures", contains="VIEW02")
    expect(shelf.get_by_role("link")).to_have_count(told["total"])
    assert 0 < told["total"] < 20
    expect(page).to_have_url(re.compile("contains=VIEW02"))
    page.reload()
    expect(shelf.get_by_role("link")).to_have_count(told["total"])
    expect(page.get_by_role("searchbox", name="Filter by name")).to_have_value("VIEW02")
    page.get_by_role("searchbox", name="Filter by name").fill("no such name")
    expect(page.get_by_text("0 of 52 names contain “no such name”")).to_be_visible()
    expect(shelf.get_by_role("link")).to_have_count(0)


def test_odd_names_are_text_everywhere(page, serving, collection) -> None:
    page.on("dialog", lambda dialog: pytest.fail(f"the page ran a name: {dialog.message}"))
    page.goto(serving.url)
    page.get_by_role("searchbox", name="Filter by name").fill("<b> 100% #2?")
    shelf = page.get_by_role("list", name="Pictures of the collection")
    expect(shelf.get_by_role("link")).to_have_count(1)
    expect(shelf.get_by_text(ODD_NAME, exact=True)).to_be_visible()
    shelf.get_by_role("link", name=collection.odd).click()
    expect_same(page, serving, picture=collection.id_of(collection.odd))
    expect(page.get_by_role("img", name=f"Searched with: {collection.odd}")).to_be_visible()
    hits(page).first.click()
    expect(page.get_by_role("dialog").get_by_text(collection.odd, exact=True).first).to_be_visible()
    for loaded in page.get_by_role("img").all():
        until_loaded = "image => image.decode().then(() => image.naturalWidth)"
        assert loaded.evaluate(until_loaded) > 0
    assert page.locator("b, main script").count() == 0
    assert found(page)[0] == collection.id_of(collection.odd)


def test_copies_are_one_picture_that_says_so(page, serving, collection) -> None:
    page.goto(f"{serving.url}?picture={collection.id_of(collection.copies[0])}")
    expect(hits(page).first).to_contain_text("2 copies")
    assert len(found(page)) == len(set(found(page)))
