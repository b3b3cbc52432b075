"""The tables of Forcén et al. 2020 as data: for each row the recipe that makes it, and what the paper reports.

All figures are mAP in percent, copied from the paper's tables 1 to 5 and 7, and milliseconds from its table 6. Where
the same method stands in several tables it has the same recipe. Rows that the paper takes from elsewhere say so.
"""

from __future__ import annotations

from dataclasses import dataclass

from coocnet.recipe import PRESETS, Recipe

Column = tuple[str, str]
"""A benchmark and one of its setups."""

WHITENED_ON = {
    "oxford5k": "paris6k",
    "roxford5k": "paris6k",
    "paris6k": "oxford5k",
    "rparis6k": "oxford5k",
    "holidays": "oxford5k",
    "holidays-upright": "oxford5k",
}
"""The benchmark whose pictures the whitening of another is fitted on: section 4.3.3 of the paper."""
PAIRS = "retrieval-sfm-120k"
"""The training set whose pairs the whitening of the multi-scale rows is learned from: section 5.2.2."""


def whitened_on(recipe: Recipe, benchmark: str) -> str:
    """What the paper fits the whitening of a recipe on, for a benchmark; "" for a benchmark that it has not.

    Its multi-scale rows are whitened by pairs, all others, and recipes that are not the paper's, by PCA.
    """
    if benchmark not in WHITENED_ON:
        return ""
    of_the_paper = recipe.name in PRESETS and recipe.name.startswith("paper-")
    return PAIRS if of_the_paper and len(recipe.scales) > 1 else WHITENED_ON[benchmark]


def published(recipe: Recipe, benchmark: str) -> dict[str, tuple[float, str]]:
    """What the paper reports for a preset on a benchmark: mAP in percent by setup, and the first table with it."""
    found: dict[str, tuple[float, str]] = {}
    for name, table in TABLES.items():
        for row in table.rows:
            if row.preset == recipe.name and not row.learned:
                for (of, setup), value in zip(table.columns, row.published, strict=True):
                    if of == benchmark and value is not None:
                        found.setdefault(setup, (value, name))
    return found


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        label: as the paper names it, with the size of its rows where the table gives it.
        preset: the recipe that makes it.
        published: what the paper reports in each column, percent; None where it reports nothing.
        note: what a reader should know before comparing.
        learned: it is made with a learned filter in place of the preset's direct one.
    """

    label: str
    preset: str
    published: tuple[float | None, ...]
    note: str = ""
    learned: bool = False

    @property
    def recipe(self) -> Recipe:
        """The preset."""
        return PRESETS[self.preset]


@dataclass(frozen=True)
class Table:
    """One table of the paper.

    Attributes:
        title: what it compares.
        columns: benchmark and setup of each figure.
        rows: its rows.
        doubts: what is known against its figures.
    """

    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    doubts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Timing:
    """One row of table 6: milliseconds of the paper's direct co-occurrence and of Shih et al., one tensor and five.

    The paper does not say whether those of five are for all or for each.
    """

    height: int
    width: int
    channels: int
    direct_ms: float
    shih_ms: float
    direct_five_ms: float
    shih_five_ms: float | None


_REVISITED = tuple((name, setup) for name in ("roxford5k", "rparis6k") for setup in ("easy", "medium", "hard"))
_ALL: tuple[Column, ...] = (("oxford5k", ""), *_REVISITED[:3], ("paris6k", ""), *_REVISITED[3:], ("holidays", ""))
_CROW_BOX = (
    "CroW's published code reads a query box x1 y1 x2 y2 as x y width height; the paper's figures may inherit that."
)
_HOLIDAYS = "The paper does not say whether its Holidays are as published or turned upright."


def _ap(*figures: float | None) -> tuple[float | None, ...]:
    return figures


TABLES: dict[str, Table] = {
    "table1": Table(
        "Linear pooling",
        _ALL,
        (
            Row("uCroW", "paper-ucrow", _ap(66.0, 60.53, 41.15, 11.98, 75.8, 74.75, 57.69, 30.20, 81.1)),
            Row("CroW", "paper-crow", _ap(67.2, 61.92, 44.66, 17.94, 78.7, 76.13, 60.17, 33.38, 82.5)),
            Row("ChCO-SCT", "paper-chco-sct", _ap(67.05, 61.31, 44.52, 18.71, 79.17, 77.16, 60.69, 33.89, 83.22)),
            Row(
                "ChCO-SCT + SpTD",
                "paper-chco-sct-td",
                _ap(71.68, 63.37, 47.63, 21.96, 80.89, 78.79, 62.59, 36.84, 83.04),
            ),
            Row(
                "ChCO-SCT + SpCt",
                "paper-chco-sct-ct",
                _ap(66.82, 61.67, 43.05, 14.91, 80.18, 77.32, 61.05, 33.79, 83.96),
            ),
            Row("uCroW + AQE", "paper-ucrow-aqe", _ap(70.5, 55.32, 39.94, 13.08, 82.7, 81.32, 65.29, 38.72, None)),
            Row("CroW + AQE", "paper-crow-aqe", _ap(71.5, 55.75, 42.11, 17.89, 85.5, 81.82, 67.93, 43.16, None)),
            Row(
                "ChCO-SCT + AQE",
                "paper-chco-sct-aqe",
                _ap(71.30, 56.41, 42.46, 18.93, 85.31, 83.59, 69.03, 44.12, None),
            ),
            Row(
                "ChCO-SCT + SpTD + AQE",
                "paper-chco-sct-td-aqe",
                _ap(77.48, 60.27, 46.58, 21.19, 87.13, 85.19, 71.01, 46.43, None),
            ),
            Row(
                "ChCO-SCT + SpCt + AQE",
                "paper-chco-sct-ct-aqe",
                _ap(72.99, 61.83, 44.57, 16.79, 86.08, 86.04, 70.93, 44.93, None),
            ),
        ),
        (_CROW_BOX, _HOLIDAYS),
    ),
    "table2": Table(
        "Bilinear pooling, 512 dimensions",
        _ALL,
        (
            Row("BP(AA)", "paper-bp-aa", _ap(65.94, 60.41, 45.99, 21.66, 75.88, 73.66, 57.80, 30.67, 80.42)),
            Row("BP(ACT)", "paper-bp-act", _ap(64.23, 59.76, 44.12, 19.75, 77.77, 77.18, 60.09, 33.08, 82.62)),
            Row(
                "BP(ACT) + SpTD",
                "paper-bp-act-td",
                _ap(71.00, 63.48, 47.62, 22.83, 79.56, 77.72, 62.14, 37.09, 79.51),
            ),
            Row("BP(AA) + AQE", "paper-bp-aa-aqe", _ap(67.66, 48.67, 37.76, 15.76, 81.00, 77.71, 63.76, 37.87, None)),
            Row(
                "BP(ACT) + AQE", "paper-bp-act-aqe", _ap(66.08, 51.24, 38.22, 15.9, 82.97, 83.03, 67.06, 40.85, None)
            ),
            Row(
                "BP(ACT) + SpTD + AQE",
                "paper-bp-act-td-aqe",
                _ap(77.25, 56.01, 43.69, 19.33, 84.84, 83.17, 68.88, 44.38, None),
            ),
        ),
        (_HOLIDAYS,),
    ),
    "table3": Table(
        "Bilinear pooling, longer rows",
        _ALL,
        (
            Row(
                "BP(ACT) + SpTD, 512",
                "paper-bp-act-td",
                _ap(71.00, 63.48, 47.62, 22.83, 79.56, 77.72, 62.14, 37.09, 79.51),
            ),
            Row(
                "BP(ACT) + SpTD, 1024",
                "paper-bp-act-td-1024",
                _ap(72.74, 65.22, 48.83, 23.93, 82.19, 79.88, 64.15, 39.34, None),
            ),
            Row(
                "BP(ACT) + SpTD, 2048",
                "paper-bp-act-td-2048",
                _ap(73.76, 65.98, 50.14, 26.14, 83.08, 81.46, 65.49, 40.76, 81.10),
            ),
            Row(
                "BP(ACT) + SpTD, 4096",
                "paper-bp-act-td-4096",
                _ap(76.56, 67.86, 51.92, 27.15, 83.68, 81.93, 64.95, 39.92, 81.75),
            ),
            Row(
                "BP(ACT) + SpTD + AQE, 512",
                "paper-bp-act-td-aqe",
                _ap(77.25, 56.01, 43.69, 19.33, 84.84, 83.17, 68.88, 44.38, None),
            ),
            Row(
                "BP(ACT) + SpTD + AQE, 1024",
                "paper-bp-act-td-1024-aqe",
                _ap(77.49, 58.67, 46.21, 21.99, 87.45, 85.40, 71.28, 47.24, None),
            ),
            Row(
                "BP(ACT) + SpTD + AQE, 2048",
                "paper-bp-act-td-2048-aqe",
                _ap(79.03, 59.38, 46.68, 22.19, 88.65, 86.94, 72.99, 49.75, None),
            ),
            Row(
                "BP(ACT) + SpTD + AQE, 4096",
                "paper-bp-act-td-4096-aqe",
                _ap(81.71, 64.33, 51.28, 26.64, 89.16, 88.11, 73.74, 50.23, None),
            ),
        ),
        ("Oxford5k has 5,063 pictures: the last components of a whitening to 4,096 fitted on it are noise.",),
    ),
    "table4": Table(
        "Bilinear pooling, 8,192 dimensions, three scales, whitening learned from pairs",
        _ALL[:8],
        (
            Row("BP(AA) + ms", "paper-bp-aa-ms", _ap(76.67, 72.97, 55.67, 31.24, 90.31, 89.69, 72.22, 48.0)),
            Row("BP(ACT) + ms", "paper-bp-act-ms", _ap(76.79, 72.53, 56.34, 32.93, 89.55, 90.13, 71.86, 48.22)),
            Row(
                "BP(ACT)learn + ms",
                "paper-bp-act-ms",
                _ap(80.75, 74.65, 57.94, 33.68, 91.02, 90.18, 72.44, 48.37),
                learned=True,
            ),
            Row(
                "BP(AA) + αQE + ms",
                "paper-bp-aa-ms-alpha-qe",
                _ap(80.11, 76.08, 59.65, 33.95, 93.42, 93.80, 80.17, 59.36),
            ),
            Row(
                "BP(ACT) + αQE + ms",
                "paper-bp-act-ms-alpha-qe",
                _ap(81.13, 74.53, 60.86, 38.50, 93.23, 93.93, 80.35, 60.44),
            ),
            Row(
                "BP(ACT)learn + αQE + ms",
                "paper-bp-act-ms-alpha-qe",
                _ap(85.76, 82.25, 67.04, 42.23, 94.84, 94.21, 80.97, 61.42),
                learned=True,
            ),
        ),
        ("BP(AA) + ms uses no co-occurrence and has already most of the gain over the other tables.",),
    ),
    "table5": Table(
        "Against Shih et al.",
        _REVISITED,
        (
            Row(
                "Shih ChCO-SCT + SpTD, 512",
                "paper-shih-chco-sct-td",
                _ap(64.3, 47.64, 20.86, 79.45, 62.92, 37.15),
            ),
            Row(
                "ChCO-SCT + SpTD, 512",
                "paper-chco-sct-td",
                _ap(64.28, 47.02, 20.30, 79.01, 62.18, 35.79),
                "table 1 reports other figures for the same method",
            ),
            Row("ChCO-SCT + SpCt, 512", "paper-chco-sct-ct", _ap(62.06, 42.81, 14.52, 77.52, 61.06, 33.39)),
            Row("Shih BP(ACT) + SpTD, 512", "paper-shih-bp-td", _ap(56.27, 44.51, 21.94, 73.15, 61.25, 37.95)),
            Row("BP(ACT) + SpTD, 512", "paper-bp-act-td", _ap(63.48, 47.62, 22.83, 77.72, 62.14, 37.09)),
            Row("Shih BP(ACT) + SpTD, 4096", "paper-shih-bp-td-4096", _ap(63.15, 48.61, 24.5, 76.1, 62.84, 39.78)),
            Row("BP(ACT) + SpTD, 4096", "paper-bp-act-td-4096", _ap(67.86, 51.92, 27.15, 81.93, 64.95, 39.92)),
            Row(
                "Shih ChCO-SCT + SpTD + AQE, 512",
                "paper-shih-chco-sct-td-aqe",
                _ap(56.7, 44.29, 18.2, 85.04, 71.56, 47.55),
            ),
            Row(
                "ChCO-SCT + SpTD + AQE, 512",
                "paper-chco-sct-td-aqe",
                _ap(57.98, 44.32, 16.56, 84.57, 70.37, 45.45),
                "table 1 reports other figures for the same method",
            ),
            Row("ChCO-SCT + SpCt + AQE, 512", "paper-chco-sct-ct-aqe", _ap(61.23, 44.34, 17.44, 86.7, 71.24, 44.91)),
            Row(
                "Shih BP(ACT) + SpTD + AQE, 512",
                "paper-shih-bp-td-aqe",
                _ap(53.1, 43.66, 19.31, 79.49, 68.04, 45.55),
            ),
            Row("BP(ACT) + SpTD + AQE, 512", "paper-bp-act-td-aqe", _ap(56.01, 43.69, 19.33, 83.17, 68.88, 44.38)),
            Row(
                "Shih BP(ACT) + SpTD + AQE, 4096",
                "paper-shih-bp-td-4096-aqe",
                _ap(59.82, 49.33, 25.34, 85.36, 74.45, 52.37),
            ),
            Row(
                "BP(ACT) + SpTD + AQE, 4096",
                "paper-bp-act-td-4096-aqe",
                _ap(64.33, 51.28, 26.64, 88.11, 73.74, 50.23),
            ),
        ),
    ),
    "table7": Table(
        "State of the art with VGG16",
        _REVISITED,
        (
            Row("uCroW, 512", "paper-ucrow", _ap(60.53, 41.15, 11.98, 74.75, 57.69, 30.20)),
            Row("uCroW + AQE, 512", "paper-ucrow-aqe", _ap(55.32, 39.94, 13.08, 81.32, 65.29, 38.72)),
            Row("CroW, 512", "paper-crow", _ap(61.92, 44.66, 17.94, 76.13, 60.17, 33.38)),
            Row("CroW + AQE, 512", "paper-crow-aqe", _ap(55.75, 42.11, 17.89, 81.82, 67.93, 43.16)),
            Row("SPoC, 512", "paper-spoc", _ap(None, 38.0, 11.4, None, 59.8, 32.4), "from Radenović et al. 2018"),
            Row("MAC, 512", "paper-mac", _ap(None, 37.8, 14.6, None, 59.2, 35.9), "from Radenović et al. 2018"),
            Row("R-MAC, 512", "paper-rmac", _ap(None, 42.5, 12.0, None, 66.2, 40.9), "from Radenović et al. 2018"),
            Row("GeM, 512", "paper-gem", _ap(None, 40.5, 15.7, None, 63.2, 38.8), "from Radenović et al. 2018"),
            Row("ChCO-SCT + SpTD, 512", "paper-chco-sct-td", _ap(63.37, 47.63, 21.96, 78.79, 62.59, 36.84)),
            Row("ChCO-SCT + SpTD + AQE, 512", "paper-chco-sct-td-aqe", _ap(60.27, 46.58, 21.19, 85.19, 71.01, 46.43)),
            Row("BP(ACT) + ms, 8192", "paper-bp-act-ms", _ap(72.53, 56.34, 32.93, 90.13, 71.86, 48.22)),
            Row(
                "BP(ACT) + αQE + ms, 8192", "paper-bp-act-ms-alpha-qe", _ap(74.53, 60.86, 38.50, 93.93, 80.35, 60.44)
            ),
            Row("VGG16-GeM fine-tuned + ms, 512", "paper-gem-tuned-ms", _ap(None, 61.9, 33.7, None, 69.3, 44.3)),
            Row(
                "VGG16-GeM fine-tuned + αQE + ms, 512",
                "paper-gem-tuned-ms-alpha-qe",
                _ap(None, 66.6, 38.9, None, 74.0, 51.0),
            ),
            Row(
                "BP(ACT)learn + ms, 8192",
                "paper-bp-act-ms",
                _ap(74.65, 57.94, 33.68, 90.18, 72.44, 48.37),
                learned=True,
            ),
            Row(
                "BP(ACT)learn + αQE + ms, 8192",
                "paper-bp-act-ms-alpha-qe",
                _ap(82.25, 67.04, 42.23, 94.21, 80.97, 61.42),
                learned=True,
            ),
        ),
        (
            "Rows of 512 dimensions under a PCA-whitening stand beside rows of 8,192 under one learned from pairs.",
            _CROW_BOX,
        ),
    ),
}
"""Tables of mAP by name."""

TIMINGS = (
    Timing(24, 32, 512, 0.977, 464.699, 0.695, 495.66),
    Timing(24, 32, 2048, 16.678, 2417.895, 5.578, None),
    Timing(24, 32, 32, 0.258, 29.321, 0.318, 35.227),
)
"""Table 6, on a GTX 1080 Ti. The first figure exceeds what that card can compute densely for a radius of 4: the
radius was 1, or the clock was read before the work had ended."""
