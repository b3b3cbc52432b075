"""The comparison of a query with a result: what the service says of it, drawn and in numbers."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from service import picture_id
from visiting import ask, choose, expect_same, hits, until

NAME = "instance005_view01.jpg"
SHOWN = """frames => frames.map(frame => {
    const canvas = frame.querySelector('canvas');
    return canvas.toDataURL() + canvas.width;
})"""


@pytest.fixture
def compared(page, serving, collection) -> dict:
    """The comparison with the second result, opened by a click; what the service said of the pair."""
    page.goto(f"{serving.url}?picture={collection.id_of(NAME)}")
    expect(hits(page).nth(1)).to_be_visible()
    with page.expect_response("**/api/explanation?*") as answered:
        hits(page).nth(1).click()
    expect(page.get_by_role("list", name="Best matches").get_by_role("button").first).to_be_visible()
    return answered.value.json()


def painted(page: Page) -> list[str]:
    """What is painted over both pictures."""
    return page.get_by_role("dialog").get_by_role("figure").evaluate_all(SHOWN)


def number(text: str) -> float:
    return float(text.replace("−", "-"))


def test_the_contributions_drawn_are_the_services_and_sum_to_the_similarity(page, serving, collection, compared):
    wanted = expect_same(page, serving, picture=collection.id_of(NAME))[1]
    dialog = page.get_by_role("dialog")
    said = dialog.get_by_text(re.compile(r"^Similarity \d"))
    shown = [float(n) for n in re.findall(r"-?\d\.\d{3}", said.text_content())]
    assert shown[0] == pytest.approx(wanted["similarity"], abs=5e-4)
    assert compared["similarity"] == pytest.approx(wanted["similarity"], abs=1e-4)
    for side in ("query", "result"):
        total = sum(compared[side]["values"])
        assert total + compared["constant"] == pytest.approx(compared["similarity"], abs=1e-4)
        if compared["constant"]:
            assert shown[1:] == pytest.approx([compared["constant"], total], abs=1e-3)
    expect(dialog.get_by_role("heading")).to_have_text(f"Number 2, similarity {wanted['similarity']:.2f}")


def test_each_cell_under_the_pointer_says_its_contribution(page, compared) -> None:
    for at, side in enumerate(("query", "result")):
        cells = compared[side]
        frame = page.get_by_role("dialog").get_by_role("figure").nth(at).get_by_role("img").bounding_box()
        row, column = cells["rows"] // 2, cells["columns"] // 3
        page.mouse.move(
            frame["x"] + (column + 0.5) / cells["columns"] * frame["width"],
            frame["y"] + (row + 0.5) / cells["rows"] * frame["height"],
        )
        told = page.get_by_text(f"Row {row + 1}, column {column + 1}:")
        expect(told).to_be_visible()
        value = number(re.search(r"[+−]?[\d.]+$", told.text_content())[0])
        assert value == pytest.approx(cells["values"][row * cells["columns"] + column], rel=0.01, abs=1e-9)


def test_the_largest_contribution_is_painted_strongest(page, compared) -> None:
    cells = compared["query"]
    strongest = max(range(len(cells["values"])), key=lambda i: cells["values"][i])
    faintest = min(range(len(cells["values"])), key=lambda i: abs(cells["values"][i]))
    read = """(frame, [x, y]) => {
        const canvas = frame.querySelector('canvas');
        const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext('2d', {willReadFrequently: true});
        copy.drawImage(canvas, 0, 0);
        const at = [Math.floor(x * canvas.width), Math.floor(y * canvas.height), 1, 1];
        return [...copy.getImageData(...at).data];
    }"""
    pixels = []
    for cell in (strongest, faintest):
        row, column = divmod(cell, cells["columns"])
        at = [(column + 0.5) / cells["columns"], (row + 0.5) / cells["rows"]]
        pixels.append(page.get_by_role("dialog").get_by_role("figure").first.evaluate(read, at))
    red, _, blue, alpha = pixels[0]
    assert red > blue
    assert alpha > pixels[1][3]


def test_the_best_matches_are_listed_and_one_is_brought_forward(page, compared) -> None:
    matches = page.get_by_role("list", name="Best matches").get_by_role("button")
    expect(matches).to_have_count(len(compared["matches"]))
    for match, button in zip(compared["matches"], matches.all(), strict=True):
        amount = float(re.search(r"(\d[\d.]*) ·", button.inner_text())[1])
        assert amount == pytest.approx(match["contribution"], rel=0.06)
    matches.nth(1).click()
    expect(matches.nth(1)).to_have_attribute("aria-pressed", "true")
    matches.nth(1).click()
    expect(matches.nth(1)).to_have_attribute("aria-pressed", "false")


def test_what_is_shown_over_the_pictures_is_switched_and_really_changes(page, compared) -> None:
    dialog = page.get_by_role("dialog")
    seen = {"What matched": painted(page)}
    for mode, words, kind in (
        ("Activations", "How strongly the network fires", "activation"),
        ("Co-occurrence", "How strongly other channels fire", "cooccurrence"),
    ):
        with page.expect_response(f"**/api/heatmap?*{kind}*"):
            dialog.get_by_role("radio", name=mode).check()
        expect(dialog.get_by_text(words)).to_be_visible()
        expect(dialog.get_by_role("list", name="Best matches").get_by_role("button")).to_have_count(0)
        seen[mode] = painted(page)
        assert f"mode={kind}" in page.url
    dialog.get_by_role("radio", name="Photographs").check()
    until(lambda: painted(page) not in seen.values(), True)
    seen["Photographs"] = painted(page)
    for side in (0, 1):
        assert len({both[side] for both in seen.values()}) == 4
    dialog.get_by_role("radio", name="What matched").check()
    until(lambda: painted(page), seen["What matched"])


def test_the_colours_are_made_fainter(page, compared) -> None:
    slider = page.get_by_role("slider", name="Opacity of the colours")
    canvas = page.get_by_role("dialog").locator("figure canvas").first
    before = canvas.screenshot()
    slider.fill("0.2")
    expect(canvas).to_have_css("opacity", "0.2")
    assert canvas.screenshot() != before
    slider.press("ArrowLeft")
    expect(canvas).to_have_css("opacity", "0.15")
    page.get_by_role("button", name="Next result").click()
    expect(page.get_by_role("dialog").get_by_role("heading")).to_contain_text("Number 3")
    expect(canvas).to_have_css("opacity", "0.15")


def test_a_part_is_compared_as_a_part(page, serving, collection) -> None:
    page.goto(f"{serving.url}?picture={collection.id_of(NAME)}&box=40,30,200,180")
    with page.expect_response("**/api/explanation?*") as answered:
        hits(page).nth(1).click()
    told = answered.value.json()
    assert told["query"]["box"] == [40, 30, 200, 180]
    shown = page.get_by_role("dialog").get_by_text(re.compile(r"^Similarity \d"))
    expect(shown).to_contain_text(f"{told['similarity']:.3f}")
    wanted = expect_same(page, serving, picture=collection.id_of(NAME), box="40,30,200,180")[1]
    assert told["similarity"] == pytest.approx(wanted["similarity"], abs=1e-4)


def test_an_upload_is_compared(page, serving, collection) -> None:
    page.goto(serving.url)
    choose(page, collection.queries[5])
    with page.expect_response("**/api/explanation?*") as answered:
        hits(page).first.click()
    told = answered.value.json()
    wanted = expect_same(page, serving, upload=picture_id(collection.queries[5]))[0]
    assert sum(told["result"]["values"]) + told["constant"] == pytest.approx(wanted["similarity"], abs=1e-4)
    expect(page.get_by_role("list", name="Best matches").get_by_role("button").first).to_be_visible()


def test_the_original_opens_in_a_new_tab_with_the_same_bytes(page, serving, collection, compared) -> None:
    wanted = expect_same(page, serving, picture=collection.id_of(NAME))[1]
    with page.context.expect_page() as opened:
        page.get_by_role("dialog").get_by_role("link", name="Open the original").click()
    opened.value.wait_for_load_state()
    assert opened.value.url.endswith(f"/api/pictures/{wanted['id']}/original")
    assert page.request.get(opened.value.url).body() == (collection.photos / wanted["name"]).read_bytes()
    assert opened.value.get_by_role("img").evaluate("image => image.naturalWidth") == wanted["width"]


def test_similar_pictures_are_found_from_a_result(page, serving, collection, compared) -> None:
    wanted = expect_same(page, serving, picture=collection.id_of(NAME))[1]
    page.get_by_role("button", name="Find similar from here").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.get_by_role("img", name=f"Searched with: {wanted['name']}")).to_be_visible()
    expect_same(page, serving, picture=wanted["id"])


def test_results_are_stepped_through_with_buttons_and_arrows(page, serving, collection, compared) -> None:
    wanted = expect_same(page, serving, picture=collection.id_of(NAME))
    heading = page.get_by_role("dialog").get_by_role("heading")
    for act, place in (
        (lambda: page.get_by_role("button", name="Next result").click(), 2),
        (lambda: page.keyboard.press("ArrowRight"), 3),
        (lambda: page.keyboard.press("ArrowLeft"), 2),
        (lambda: page.get_by_role("button", name="Previous result").click(), 1),
        (lambda: page.keyboard.press("ArrowLeft"), 0),
    ):
        act()
        expect(heading).to_contain_text(f"Number {place + 1}, similarity {wanted[place]['similarity']:.2f}")
        expect(page.get_by_role("img", name=f"Result: {wanted[place]['name']}")).to_be_visible()
        assert f"view={wanted[place]['id']}" in page.url
    page.keyboard.press("ArrowLeft")
    expect(page.get_by_role("status", name="Changes")).to_have_text("That was the first result.")
    page.go_back()
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_stepping_beyond_what_is_shown_loads_more(page, serving, collection) -> None:
    every = ask(page, serving, "search", picture=collection.id_of(NAME), threshold="none", limit=51)["hits"]
    page.goto(f"{serving.url}?picture={collection.id_of(NAME)}&view={every[49]['id']}&mode=photographs")
    page.get_by_role("button", name="Next result").click()
    expect(page.get_by_role("img", name=f"Result: {every[50]['name']}")).to_be_visible()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("status", name="Changes")).to_have_text("That was the last result.")


def test_a_result_is_marked_in_the_comparison(page, serving, collection, compared) -> None:
    wanted = expect_same(page, serving, picture=collection.id_of(NAME))[1]
    page.get_by_role("dialog").get_by_role("checkbox", name="Mark as right").check()
    page.keyboard.press("Escape")
    expect(page.get_by_role("checkbox", name=f"Mark {wanted['name']} as right", exact=True)).to_be_checked()
    page.get_by_role("button", name="Search again with these").click()
    expect_same(page, serving, picture=collection.id_of(NAME), relevant=wanted["id"])
