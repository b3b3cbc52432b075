"""Pictures for people show what they claim to show."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from coocnet.viz import Labelled, decimals, heat_over, heatmap, montage

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


@pytest.mark.parametrize("value", [0.0, 3.0])
def test_a_flat_map_is_evenly_dark(value: float) -> None:
    shown = heat_over(GREY, np.full((4, 4), value, np.float32))
    assert len(np.unique(shown.reshape(-1, 3), axis=0)) == 1
    assert shown.mean() < 100


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (2000, 3), (480, 640), (40, 4000), (4000, 40)])
def test_pictures_of_any_shape_can_be_shown(size: tuple[int, int]) -> None:
    pixels = np.zeros((*size, 3), np.uint8)
    sheet = heatmap(pixels, np.ones((2, 3)), np.ones((2, 3)), caption="a very long caption " * 30)
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
