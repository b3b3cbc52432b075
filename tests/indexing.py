"""What the tests of the index share."""

from __future__ import annotations

from pathlib import Path

import pytest

from coocnet.describe import Describer
from coocnet.index import SyncReport, open_index
from coocnet.recipe import Recipe


def counts(report: SyncReport) -> dict[str, int]:
    named = {name: getattr(report, name) for name in ("added", "updated", "recognised", "unchanged", "dropped")}
    return {name: count for name, count in {**named, "skipped": len(report.skipped)}.items() if count}


def contents(place: Path) -> list[tuple[str, bytes, bytes]]:
    """Everything the index knows about pictures, for comparison."""
    with open_index(place) as index:
        paths, digests, rows = index._store.matrix()
    return [(path, digest, row.tobytes()) for path, digest, row in zip(paths, digests, rows, strict=True)]


def sync(place: Path, photos: Path, recipe: Recipe, describer: Describer | None = None, **options) -> SyncReport:
    with open_index(place, recipe) as index:
        return index.sync(photos, describer=describer or Describer(recipe), **options)


class Unused(Describer):
    """Stands for a describer that must not be needed."""

    def __init__(self) -> None:
        pytest.fail("a describer was made though nothing needs describing")
