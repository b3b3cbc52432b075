"""The page and its server: the token, a server that goes and comes back, and nothing asked of anybody else."""

from __future__ import annotations

from urllib.parse import urlsplit

from playwright.sync_api import expect

from service import steady_port
from visiting import choose, hits

NAME = "instance005_view01.jpg"


def test_the_token_is_asked_for_and_a_wrong_one_refused(serves, page, collection, complaints) -> None:
    complaints.allow("status of 401")
    service = serves(collection.index, COOCNET_TOKEN="the right token of this test")
    page.goto(f"{service.url}?picture={collection.id_of(NAME)}")
    dialog = page.get_by_role("dialog", name="This collection is not open to everybody")
    field = dialog.get_by_label("Token")
    expect(field).to_be_focused()
    page.keyboard.press("Escape")
    expect(field).to_be_visible()
    field.fill("a wrong one")
    field.press("Enter")
    expect(dialog.get_by_role("alert")).to_have_text("This is not the token of this service.")
    expect(field).to_have_attribute("aria-invalid", "true")
    expect(hits(page)).to_have_count(0)
    field.fill("the right token of this test")
    dialog.get_by_role("button", name="Open").click()
    expect(dialog).to_have_count(0)
    expect(hits(page).first).to_be_visible()
    page.reload()
    expect(hits(page).first).to_be_visible()
    expect(dialog).to_have_count(0)
    assert page.evaluate("document.cookie") == ""  # no script can read it


def test_the_token_in_the_address_opens_the_page_and_leaves_the_address(serves, page, collection) -> None:
    service = serves(collection.index, COOCNET_TOKEN="the right token of this test")
    page.goto(f"{service.url}#token=the%20right%20token%20of%20this%20test")
    expect(page.get_by_role("list", name="Pictures of the collection")).to_be_visible()
    assert page.url == service.url
    page.get_by_role("link", name=NAME).click()
    expect(hits(page).first).to_be_visible()


def test_a_wrong_token_in_the_address_is_asked_for_again(serves, page, collection, complaints) -> None:
    complaints.allow("status of 401")
    service = serves(collection.index, COOCNET_TOKEN="the right token of this test")
    page.goto(f"{service.url}#token=wrong")
    page.get_by_label("Token").fill("the right token of this test")
    page.get_by_role("button", name="Open").click()
    expect(page.get_by_role("list", name="Pictures of the collection")).to_be_visible()


def test_a_server_that_was_away_is_waited_for_and_its_return_told(serves, page, collection, complaints) -> None:
    complaints.allow("ERR_CONNECTION_REFUSED|ERR_EMPTY_RESPONSE|ERR_CONNECTION_RESET")
    service = serves(collection.index, "--port", steady_port())
    page.goto(service.url)
    link = page.get_by_role("list", name="Pictures of the collection").get_by_role("link", name=NAME)
    expect(link).to_be_visible()
    service.process.terminate()
    assert service.process.wait(30) == 0
    link.click()
    messages = page.get_by_role("status", name="Messages")
    expect(messages).to_contain_text("The server does not answer.")
    serves(collection.index, "--port", urlsplit(service.url).port)
    expect(messages).to_contain_text("The server answers again.")
    expect(hits(page).first).to_be_visible()
    expect(messages).not_to_contain_text("does not answer")


def test_nothing_is_asked_of_any_other_server(page, serving, collection) -> None:
    asked = []
    page.context.on("request", lambda request: asked.append(request.url))
    page.goto(serving.url)
    choose(page, collection.queries[4])
    hits(page).first.click()
    for mode in ("Activations", "Co-occurrence", "Photographs", "What matched"):
        page.get_by_role("radio", name=mode).check()
    expect(page.get_by_role("list", name="Best matches").get_by_role("button").first).to_be_visible()
    page.get_by_role("button", name="Find similar from here").click()
    expect(hits(page).first).to_be_visible()
    page.get_by_role("button", name="This collection").click()
    expect(page.get_by_role("dialog").get_by_role("term").first).to_be_visible()
    elsewhere = [url for url in asked if not url.startswith((serving.url, "blob:", "data:"))]
    assert elsewhere == []
    assert len(asked) > 50
