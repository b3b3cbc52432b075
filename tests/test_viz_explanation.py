"""The picture of an explanation: the right colours in the right places, as strong as the numbers, and legible."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from PIL import Image, ImageDraw

from coocnet.viz import explanation

PLAIN = 158
"""What a mid-grey photograph looks like where nothing raises or lowers."""


def grey(height: int = 420, width: int = 560) -> np.ndarray:
    return np.full((height, width, 3), 128, np.uint8)


def drawn(query: np.ndarray, result: np.ndarray, joined=(), *, pixels=None, titles=("q", "r"), caption=("c",)):
    asked, other = pixels or (grey(), grey())
    return explanation((asked, query), (other, result), joined, titles=titles, caption=caption)


def panels(sheet: Image.Image) -> list[tuple[int, int, int, int]]:
    """Both pictures, (left, top, right, bottom), found by the first map's zeros: the query's, then the result's."""
    plain = (np.asarray(sheet) == PLAIN).all(2)
    columns, rows = np.flatnonzero(plain.sum(0) > 8), np.flatnonzero(plain.sum(1) > 8)
    found = []
    beside = _runs(columns)
    for left, right in beside:
        for top, bottom in _runs(rows) if len(beside) == 1 else [(rows.min(), rows.max() + 1)]:
            inside = np.argwhere(plain[top:bottom, left:right])
            (y, x), (y2, x2) = inside.min(0), inside.max(0)
            found.append((int(left + x), int(top + y), int(left + x2 + 1), int(top + y2 + 1)))
    return found


def _runs(at: np.ndarray) -> list[tuple[int, int]]:
    breaks = np.flatnonzero(np.diff(at) > 20)
    return [(int(run[0]), int(run[-1]) + 1) for run in np.split(at, breaks + 1)]


def at_cell(sheet: Image.Image, panel, grid: tuple[int, int], cell: tuple[int, int], dx: int = 0, dy: int = 0):
    left, top, right, bottom = panel
    x = left + (cell[1] + 0.5) / grid[1] * (right - left) + dx
    y = top + (cell[0] + 0.5) / grid[0] * (bottom - top) + dy
    return np.asarray(sheet)[int(y), int(x)].astype(int)


def a_peak(grid: tuple[int, int], cell: tuple[int, int], value: float) -> np.ndarray:
    heat = np.zeros(grid)
    heat[cell] = value
    return heat


@pytest.mark.slow
def test_orange_raises_and_blue_lowers_each_in_its_place_in_its_picture() -> None:
    for value, in_query in product((1.0, -1.0), (True, False)):
        peak, none = a_peak((5, 7), (1, 5), value), np.zeros((5, 7))
        sheet = drawn(*((peak, none) if in_query else (none, peak)))
        both = panels(sheet)
        assert len(both) == 2
        for panel, here in zip(both, (in_query, not in_query), strict=True):
            red, _, blue = at_cell(sheet, panel, (5, 7), (1, 5))
            assert np.sign(red - blue) == (value if here else 0)
            for elsewhere in ((3, 5), (1, 1), (3, 1), (5 - 1, 7 - 1)):
                assert (at_cell(sheet, panel, (5, 7), elsewhere) == PLAIN).all()


def test_nothing_is_blue_around_what_raises() -> None:
    sheet = np.asarray(drawn(a_peak((6, 8), (2, 3), 1.0), np.zeros((6, 8)))).astype(int)[30:440]
    assert (sheet[..., 0] >= sheet[..., 2]).all()


@pytest.mark.slow
def test_both_pictures_have_one_scale_and_little_looks_like_little() -> None:
    def strength(sheet: Image.Image, panel) -> int:
        red, _, blue = at_cell(sheet, panel, (6, 8), (2, 3))
        return int(red - blue)

    strong, weak = a_peak((6, 8), (2, 3), 0.5), a_peak((6, 8), (2, 3), 0.1)
    sheet, exchanged = drawn(strong, weak), drawn(weak, strong)
    of_query, of_result = (strength(sheet, panel) for panel in panels(sheet))
    assert 0 < of_result < 0.6 * of_query
    assert [strength(exchanged, panel) for panel in panels(exchanged)] == [of_result, of_query]
    faint = drawn(a_peak((6, 8), (2, 3), 0.001), weak * 0)
    assert 0 < strength(faint, panels(faint)[0]) < 0.3 * of_query


def test_the_legend_tells_the_number_of_a_full_colour_in_the_colours_of_the_pictures(monkeypatch) -> None:
    texts = _texts_of(monkeypatch)
    sheet = np.asarray(drawn(a_peak((6, 8), (2, 3), 0.25), a_peak((6, 8), (1, 1), -0.125)))
    assert {"lowers it by 0.25", "raises it by 0.25, in one cell of the network's map"} <= set(texts)
    (x, y), (x2, _) = (
        next(box for text, box in texts.items() if text.startswith(side))[:2] for side in ("low", "rai")
    )
    bar = sheet[int(y) + 6, int(x) + 80 : int(x2)].astype(int)
    bar = bar[(bar.max(1) - bar.min(1)) > 60]
    assert bar[0, 2] > bar[0, 0] + 60
    assert bar[-1, 0] > bar[-1, 2] + 60
    drawn(a_peak((6, 8), (2, 3), 0.001), np.zeros((5, 5)))
    assert "lowers it by 0.042" in texts


def test_numbered_circles_are_at_their_cells_row_by_row_and_column_by_column() -> None:
    none, grid = np.zeros((5, 7)), (5, 7)
    sheet = drawn(none, none, [((0, 5), (3, 1)), ((4, 2), (1, 6))])
    query, result = panels(sheet)
    circles = {((0, 5), 0), ((4, 2), 0), ((3, 1), 1), ((1, 6), 1)}
    for cell, number in product(product(range(5), range(7)), (0, 1)):
        disc = [
            at_cell(sheet, (query, result)[number], grid, cell, *off) for off in ((-7, 0), (0, -8), (6, 5), (7, 0))
        ]
        assert all((pixel > 240).all() for pixel in disc) == ((cell, number) in circles), (cell, number)


@pytest.mark.slow
def test_no_line_crosses_a_number_and_no_line_a_title(monkeypatch) -> None:
    none = np.zeros((5, 9))
    row = [((2, column), (2, column)) for column in (1, 4, 7)]
    sheet = drawn(none, none, row)
    for panel, column in product(panels(sheet), (1, 4, 7)):
        for side in (-7, 7):
            assert (at_cell(sheet, panel, (5, 9), (2, column), side) > 240).all()
    texts = _texts_of(monkeypatch)
    title = "the second title, a long one"
    wide = (grey(80, 400), grey(80, 400))
    lines, without = (np.asarray(drawn(none, none, pairs, pixels=wide, titles=("q", title))) for pairs in (row, []))
    left, top, right, bottom = (round(edge) for edge in texts[title])
    ink = (without[top:bottom, left:right] < 60).all(2)
    assert ink.any()
    assert (lines[top:bottom, left:right][ink] < 60).all()


PHOTO, WIDE, TALL = (420, 560), (40, 4000), (4000, 40)
SHAPES = [
    *product((PHOTO, WIDE, TALL), repeat=2),
    *((shape, PHOTO) for shape in ((1, 1), (1, 300), (900, 160), (160, 900))),
]


@pytest.mark.slow
@pytest.mark.parametrize("shapes", SHAPES, ids=str)
def test_pictures_of_any_shapes_are_shown_on_a_sheet_of_a_readable_size(monkeypatch, shapes) -> None:
    texts = _texts_of(monkeypatch)
    titles = ("the name of a picture " * 12, "another long name of a picture " * 12)
    caption = ["Similarity 0.5. " * 20, "a note that is somewhat longer than a line of the sheet is wide " * 4]
    grids = (np.zeros((4, 6)), np.zeros((3, 5)))
    pixels = tuple(grey(*shape) for shape in shapes)
    sheet = drawn(*grids, [((0, 0), (2, 4))], pixels=pixels, titles=titles, caption=caption)
    assert 600 <= sheet.width <= 1260
    assert sheet.height <= 1000
    both = panels(sheet)
    assert len(both) == 2
    assert all(min(right - left, bottom - top) >= 40 for left, top, right, bottom in both)
    assert all(min(x, y) >= 0 and x2 <= sheet.width and y2 <= sheet.height for x, y, x2, y2 in texts.values())
    shown = " ".join(texts)
    assert all(
        words in shown for words in ("the name of", "another long name of", "Similarity 0.5.", "a note that is")
    )
    boxes = list(texts.items())
    for number, (text, (x, y, x2, y2)) in enumerate(boxes):
        for other, (u, v, u2, v2) in boxes[:number]:
            assert x2 <= u or u2 <= x or y2 <= v or v2 <= y or {text, other} & {"1"}, (text, other)


def test_wide_pictures_are_one_above_the_other_and_others_side_by_side() -> None:
    none = np.zeros((4, 6))
    above, below = panels(drawn(none, none, pixels=(grey(100, 500), grey(90, 500))))
    assert above[3] <= below[1]
    left, right = panels(drawn(none, none, pixels=(grey(300, 400), grey(400, 300))))
    assert left[2] <= right[0]


def test_a_stretched_picture_says_so(monkeypatch) -> None:
    texts = _texts_of(monkeypatch)
    none = np.zeros((4, 6))
    drawn(none, none, pixels=(grey(10, 500), grey()), titles=("strip", "photo"))
    assert {"strip (stretched)", "photo"} <= set(texts)


def _texts_of(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[float, float, float, float]]:
    """What is written on a sheet, with its box; numbers in circles, which are drawn larger, without one."""
    texts: dict[str, tuple[float, float, float, float]] = {}
    write = ImageDraw.ImageDraw.text

    def noted(self, xy, text, **options):
        box = {key: options[key] for key in ("font", "anchor") if key in options}
        texts[text] = (0, 0, 0, 0) if text.isdigit() else self.textbbox(xy, text, **box)
        return write(self, xy, text, **options)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", noted)
    return texts
