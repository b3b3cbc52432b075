"""Pictures for people show what they claim to show."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from coocnet.viz import BELOW_ZERO, Labelled, decimals, heat_over, heatmap, montage, sheets
from coocnet.viz.drawing import font, shortened

GREY = np.full((60, 80, 3), 128, np.uint8)


def test_heat_is_brightest_where_the_map_is_greatest_and_in_its_place() -> None:
    heat = np.zeros((6, 8), np.float32)
    heat[1, 6] = 5
    shown = heat_over(GREY, heat).astype(int).sum(2)
    row, column = np.unravel_index(shown.argmax(), shown.shape)
    assert (row // 10, column // 10) == (1, 6)


def test_heat_does_not_depend_on_the_scale_or_offset_of_the_map() -> None:
    heat = np.random.default_rng(0).random((6, 8)).astype(np.float32)
    np.testing.assert_allclose(heat_over(GREY, heat).astype(int), heat_over(GREY, 7 * heat + 3).astype(int), atol=1)


def test_what_is_below_zero_is_drawn_as_zero() -> None:
    heat = np.random.default_rng(0).normal(size=(6, 8)).astype(np.float32)
    np.testing.assert_array_equal(heat_over(GREY, heat), heat_over(GREY, np.maximum(heat, 0)))
    assert len(np.unique(heat_over(GREY, -np.abs(heat)).reshape(-1, 3), axis=0)) == 1


@pytest.mark.slow
@pytest.mark.parametrize("size", [(60, 80), (60, 180)])
def test_a_learned_map_stands_beside_the_direct_one(size: tuple[int, int]) -> None:
    pixels = np.full((*size, 3), 128, np.uint8)
    random = np.random.default_rng(0)
    activations, direct, learned = (random.random((4, 5)).astype(np.float32) for _ in range(3))
    shown = np.asarray(heatmap(pixels, activations, direct, learned, caption="c"))
    positions = []
    for heat in (activations, direct, learned):
        panel = heat_over(pixels, heat)
        rows, columns = (shown.shape[axis] - size[axis] + 1 for axis in (0, 1))
        found = [
            (row, column)
            for row, column in np.ndindex(rows, columns)
            if (shown[row, column] == panel[0, 0]).all()
            and np.array_equal(shown[row : row + size[0], column : column + size[1]], panel)
        ]
        assert len(found) == 1
        positions += found
    along = 1 if size[1] <= 2 * size[0] else 0
    assert positions == sorted(set(positions))
    assert [len(set(ends)) for ends in zip(*positions, strict=True)] == ([1, 3] if along else [3, 1])


@pytest.mark.parametrize(("least", "said"), [(-0.1, True), (0.0, False)])
def test_the_caption_says_where_learned_sums_are_below_zero(monkeypatch, least: float, said: bool) -> None:
    captions = []
    monkeypatch.setattr(sheets, "wrapped", lambda text, *_: captions.append(text) or [text])
    learned = np.array([[least, 1.0]])
    heatmap(GREY, np.ones((1, 2)), np.ones((1, 2)), learned, caption="c")
    assert (BELOW_ZERO in captions[0]) == said


@pytest.mark.parametrize("value", [0.0, 3.0])
def test_a_flat_map_is_evenly_dark(value: float) -> None:
    shown = heat_over(GREY, np.full((4, 4), value, np.float32))
    assert len(np.unique(shown.reshape(-1, 3), axis=0)) == 1
    assert shown.mean() < 100


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (2000, 3), (480, 640), (40, 4000), (4000, 40)])
def test_pictures_of_any_shape_can_be_shown(size: tuple[int, int]) -> None:
    pixels = np.zeros((*size, 3), np.uint8)
    for learned in (None, np.ones((2, 3))):
        sheet = heatmap(pixels, np.ones((2, 3)), np.ones((2, 3)), learned, caption="a very long caption " * 30)
        assert sheet.width < 2200
    found = montage(Labelled(pixels, "q"), [Labelled(pixels, "1", "x" * 400)] * 12, box=(0, 0, 1, 1))
    assert isinstance(found, Image.Image)
    assert found.width < 2200


@pytest.mark.parametrize("size", [(40, 4000), (4000, 40)])
def test_a_long_strip_is_shown_wide_enough_to_be_seen(size: tuple[int, int]) -> None:
    green = np.zeros((*size, 3), np.uint8)
    green[...] = (10, 200, 10)
    shown = {
        "heatmap": heatmap(green, np.ones((2, 3)), np.ones((2, 3)), caption="c"),
        "query": montage(Labelled(green, "q"), []),
        "hit": montage(Labelled(GREY, "q"), [Labelled(green, "1")]),
    }
    for sheet in shown.values():
        where = np.argwhere((np.asarray(sheet) == (10, 200, 10)).all(2))
        sides = where.max(0) - where.min(0) + 1
        assert min(sides) >= 20
        assert max(sides) == pytest.approx(8 * min(sides), rel=0.1)


def test_the_box_of_a_montage_is_drawn_whole_and_thin_whatever_the_shape() -> None:
    strip = np.full((40, 4000, 3), 128, np.uint8)
    shown = np.asarray(montage(Labelled(strip, "q"), [], box=(2000, 0, 4000, 40)))
    accent = (shown == (214, 72, 28)).all(2)
    where = np.argwhere(accent)
    (top, left), (bottom, right) = where.min(0), where.max(0)
    assert right - left == pytest.approx(180, abs=2)
    assert accent[top : bottom + 1, right - 1 : right + 1].all()
    assert accent[bottom - 1 : bottom + 1, left : right + 1].all()
    assert (shown[top + 3 : bottom - 3, left + 3 : right - 3] == 128).all()


@pytest.mark.parametrize(("value", "text"), [(0.0123, "0.012"), (0.000079, "0.000079"), (1.0, "1"), (0.5, "0.5")])
def test_numbers_are_told_without_exponents(value: float, text: str) -> None:
    assert decimals(value) == text


def test_the_montage_shows_the_query_its_box_and_the_hits_in_order() -> None:
    colours = [(200, 30, 30), (30, 200, 30), (30, 30, 200)]
    tiles = [np.full((165, 220, 3), colour, np.uint8) for colour in colours]
    query = np.full((270, 360, 3), 250, np.uint8)
    shown = np.asarray(montage(Labelled(query, "q"), [Labelled(t, "t") for t in tiles], box=(50, 50, 200, 200)))
    columns = []
    for colour in colours:
        where = np.argwhere((shown == colour).all(2))
        assert len(where) == 165 * 220
        columns.append(where[:, 1].min())
    assert columns == sorted(columns)
    accent = np.argwhere((shown == (214, 72, 28)).all(2))
    height, width = accent.max(0) - accent.min(0)
    assert abs(int(height) - 150) <= 2
    assert abs(int(width) - 150) <= 2


def test_nothing_found_still_shows_the_query() -> None:
    assert montage(Labelled(GREY, "q"), []).width > 300


def letter_by_letter(text: str, width_px: float) -> str:
    shown, keep = text, len(text)
    while keep > 4 and font(13).getlength(shown) > width_px:
        keep -= 1
        shown = f"{text[: keep - keep // 2]}…{text[len(text) - keep // 2 :]}"
    return shown


@pytest.mark.parametrize("width_px", [0, 20, 60, 150, 400])
@pytest.mark.parametrize("text", ["", "abcd", "abcde", "Größe 'i' iiiiii.jpg", "WWWWiiiiWWWW" * 6])
def test_a_text_that_is_too_wide_keeps_as_much_of_both_its_ends_as_fits(text, width_px) -> None:
    assert shortened(text, 13, width_px) == letter_by_letter(text, width_px)
