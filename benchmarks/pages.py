"""Tables for the pages that benchmarks write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from coocnet.evaluate import mean_with_interval


def interval(values: np.ndarray | None, sign: str = "") -> str:
    """The mean in percent with its 95 % bootstrap interval; empty where there are no values."""
    if values is None:
        return ""
    mean = mean_with_interval(values.tolist())
    return f"{100 * mean.mean:{sign}.1f} [{100 * mean.low:.1f}, {100 * mean.high:.1f}]"


def difference(found: Mapping[str, np.ndarray], one: str, other: str) -> str:
    """The paired difference of two columns; empty where one is missing."""
    if one not in found or other not in found:
        return ""
    return interval(found[one].astype(np.float64) - found[other], "+")


def head(cells: Sequence[str]) -> list[str]:
    """The first two lines of a table."""
    return [row(cells), "|" + "---|" * len(cells)]


def row(cells: Sequence[str]) -> str:
    """A line of a table."""
    return "| " + " | ".join(cells) + " |"


def written(page: Path, tables: Mapping[str, str], *, by: str) -> None:
    """Puts each table between its marks.

    Raises:
        SystemExit: the page has no place for one.
    """
    text = page.read_text()
    for name, table in tables.items():
        begin, end = f"<!-- {name}: written by benchmarks/{by} -->", f"<!-- end of {name} -->"
        before, found, rest = text.partition(begin)
        if not found:
            raise SystemExit(f"{page} has no place for {name}: {begin}")
        text = f"{before}{begin}\n\n{table}\n\n{end}{rest.partition(end)[2]}"
    page.write_text(text)
