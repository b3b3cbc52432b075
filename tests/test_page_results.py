"""What was found: rows of pictures in order, their scores, where the line is drawn, and more of them."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from service import picture_id
from visiting import ask, choose, expect_same, found, hits, noise, until

NAME = "instance005_view01.jpg"
MEASURE = """items => items.map(item => {
    const photo = item.querySelector('a').getBoundingClientRect();
    const image = item.querySelector('img');
    return {left: photo.left, right: photo.right, top: photo.top, width: photo.width, height: photo.height,
        wanted: image.getAttribute('width') / image.getAttribute('height')};
})"""


@pytest.fixture
def address(serving, collection) -> str:
    """Where the results of one picture of the collection are."""
    return f"{serving.url}?picture={collection.id_of(NAME)}"


def rows(tiles: list[dict[str, float]]) -> list[list[dict[str, float]]]:
    """Tiles by the row that they lie in."""
    made = [[tiles[0]]]
    for tile in tiles[1:]:
        if abs(tile["top"] - made[-1][0]["top"]) < 1:
            made[-1].append(tile)
        else:
            made.append([tile])
    return made


@pytest.mark.parametrize("width", [1440, 820, 360])
def test_rows_fill_the_width_in_order_and_no_picture_is_squeezed(page, serving, collection, width) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(f"{serving.url}?picture={collection.id_of(NAME)}&threshold=0")
    expect(hits(page)).to_have_count(50)
    grid = page.get_by_role("list", name="Results")
    frame = grid.bounding_box()
    laid = rows(grid.get_by_role("listitem").evaluate_all(MEASURE))
    assert len(laid) > 3
    for row in laid:
        assert row[0]["left"] == pytest.approx(frame["x"], abs=2)
        lefts = [tile["left"] for tile in row]
        assert lefts == sorted(lefts)
        for tile in row:
            assert tile["width"] / tile["height"] == pytest.approx(tile["wanted"], rel=0.02)
            assert tile["height"] == pytest.approx(row[0]["height"], abs=2)
    for row in laid[:-1]:
        assert row[-1]["right"] == pytest.approx(frame["x"] + frame["width"], abs=2)
    tops = [row[0]["top"] for row in laid]
    assert tops == sorted(tops)


def test_each_result_says_its_rank_and_similarity(page, serving, collection, address) -> None:
    page.goto(address)
    wanted = expect_same(page, serving, picture=collection.id_of(NAME))
    assert [hit["rank"] for hit in wanted] == list(range(1, 51))
    for hit, link in zip(wanted[:12], hits(page).all(), strict=False):
        said = f", similarity {hit['similarity']:.2f}, number {hit['rank']}"
        expect(link).to_have_accessible_name(re.compile(f"^{re.escape(hit['name'])} ?{said}"))
    shown = page.get_by_role("list", name="Results").get_by_role("listitem").all_inner_texts()
    scores = [re.search(r"^\d\.\d\d$", text, re.M) for text in shown]
    assert [score[0] for score in scores if score] == [f"{hit['similarity']:.2f}" for hit in wanted]


def test_the_learned_limit_is_shown_and_cuts_when_asked(page, serving, collection, address) -> None:
    limit = ask(page, serving, "info")["auto_threshold"]
    page.goto(address)
    every = expect_same(page, serving, picture=collection.id_of(NAME))
    above = sum(hit["similarity"] >= limit for hit in every)
    expect(page.get_by_role("radio", name="No limit")).to_be_checked()
    expect(page.get_by_role("list", name="Results")).to_contain_text(f"From here on below {limit:.2f}")
    page.get_by_role("radio", name=f"Automatic ({limit:.2f})").check()
    wanted = expect_same(page, serving, picture=collection.id_of(NAME), threshold="auto")
    assert len(wanted) == above < len(every)
    expect(page.get_by_role("main").get_by_role("status").first).to_contain_text(
        re.compile(rf"^{above} pictures? above {limit:.2f}$")
    )
    assert "threshold=auto" in page.url
    page.get_by_role("radio", name="No limit").check()
    again = expect_same(page, serving, picture=collection.id_of(NAME))
    assert [hit["id"] for hit in again] == [hit["id"] for hit in every]


def test_the_slider_draws_the_line_anywhere(page, serving, collection, address) -> None:
    page.goto(address)
    every = expect_same(page, serving, picture=collection.id_of(NAME))
    cut = round((every[6]["similarity"] + every[7]["similarity"]) / 2, 2)
    slider = page.get_by_role("slider", name="Least similarity")
    slider.fill(str(cut))
    wanted = expect_same(page, serving, picture=collection.id_of(NAME), threshold=cut)
    assert len(wanted) == sum(hit["similarity"] >= cut for hit in every)
    expect(page.get_by_role("radio", name="From …")).to_be_checked()
    slider.press("ArrowRight")
    expect(page).to_have_url(re.compile(f"threshold={cut + 0.01:.2f}"))
    expect_same(page, serving, picture=collection.id_of(NAME), threshold=round(cut + 0.01, 2))


def test_nothing_found_tells_the_nearest_and_shows_it_when_asked(page, serving, tmp_path) -> None:
    path = noise(tmp_path / "noise.jpg")
    page.goto(f"{serving.url}?threshold=auto")
    choose(page, path)
    told = page.get_by_text("Nothing in this collection reaches")
    expect(told).to_be_visible()
    answer = ask(page, serving, "search", upload=picture_id(path), threshold="auto")
    assert answer["hits"] == []
    words = f"reaches {answer['threshold']:.2f}; the nearest has {answer['nearest']:.2f}."
    expect(told).to_have_text(f"Nothing in this collection {words}")
    expect(hits(page)).to_have_count(0)
    page.get_by_role("button", name="Show the nearest anyway").click()
    wanted = expect_same(page, serving, upload=picture_id(path))
    assert wanted[0]["similarity"] == pytest.approx(answer["nearest"], abs=1e-5)
    expect(page.get_by_text("No picture above")).to_be_visible()


def test_more_comes_as_the_user_gets_near_the_end(page, serving, collection, address) -> None:
    page.goto(address)
    every = ask(page, serving, "search", picture=collection.id_of(NAME), threshold="none", limit=200)["hits"]
    assert len(every) == 51
    expect(hits(page)).to_have_count(50)
    hits(page).last.scroll_into_view_if_needed()
    page.mouse.wheel(0, 2000)
    until(lambda: found(page), [hit["id"] for hit in every])
    expect(page.get_by_role("button", name="Load more")).to_have_count(0)


def test_more_comes_by_the_button_and_the_focus_goes_to_it(page, serving, collection, address) -> None:
    page.goto(address)
    expect(hits(page)).to_have_count(50)
    page.get_by_role("button", name="Load more").dispatch_event("click")
    expect(hits(page)).to_have_count(51)
    expect(hits(page).last).to_be_focused()


def _mark(page: Page, *hit: dict) -> None:
    for one in hit:
        page.get_by_role("checkbox", name=f"Mark {one['name']} as right", exact=True).check()


def test_results_marked_as_right_are_searched_with_as_well(page, serving, collection, address) -> None:
    page.goto(address)
    plain = expect_same(page, serving, picture=collection.id_of(NAME))
    _mark(page, plain[2], plain[5])
    bar = page.get_by_role("region", name="Marked as right")
    expect(bar).to_contain_text("2 marked as right")
    bar.get_by_role("button", name="Search again with these").click()
    expect(page.get_by_role("heading", name="Like this picture")).to_be_focused()
    expect(page.get_by_text("Searched with 2 pictures marked as right as well.")).to_be_visible()
    relevant = f"{plain[2]['id']},{plain[5]['id']}"
    again = expect_same(page, serving, picture=collection.id_of(NAME), relevant=relevant)
    assert [hit["similarity"] for hit in again] != [hit["similarity"] for hit in plain]
    for one in (plain[2], plain[5]):
        expect(page.get_by_role("checkbox", name=f"Mark {one['name']} as right", exact=True)).to_be_checked()
    expect(bar.get_by_role("button", name="Search again with these")).to_be_disabled()
    page.get_by_role("button", name="Without them").click()
    without = expect_same(page, serving, picture=collection.id_of(NAME))
    assert [hit["id"] for hit in without] == [hit["id"] for hit in plain]


def test_marks_that_are_gone_are_left_out_and_told(page, serving, collection, address) -> None:
    page.goto(address)
    right = expect_same(page, serving, picture=collection.id_of(NAME))[3]["id"]
    page.goto(f"{address}&relevant={right},{'0' * 32}")
    expect(page.get_by_text("Of those marked as right, 1 left the collection.")).to_be_visible()
    expect_same(page, serving, picture=collection.id_of(NAME), relevant=right)


def test_marks_are_cleared_at_once(page, serving, collection, address) -> None:
    page.goto(address)
    plain = expect_same(page, serving, picture=collection.id_of(NAME))
    _mark(page, plain[1], plain[3])
    page.get_by_role("button", name="Clear").click()
    expect(page.get_by_role("region", name="Marked as right")).to_have_count(0)
    expect(page.get_by_role("checkbox", name=f"Mark {plain[1]['name']} as right", exact=True)).not_to_be_checked()


@pytest.mark.parametrize(
    ("label", "key", "value"),
    [("Expand the query", "expansion", "alpha-qe"), ("Rank anew", "reranking", "diffusion")],
)
def test_another_ranking_is_the_one_of_the_service(page, serving, collection, address, label, key, value) -> None:
    page.goto(address)
    expect(hits(page).first).to_be_visible()
    page.get_by_text("Ranking", exact=True).click()
    page.get_by_role("combobox", name=label).select_option(value)
    expect(page).to_have_url(re.compile(f"{key}={value}"))
    expect_same(page, serving, picture=collection.id_of(NAME), **{key: value})
