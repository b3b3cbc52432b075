"""What the tests of the index share."""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path

import numpy as np
import pytest

from coocnet.data.walk import FileStamp
from coocnet.describe import Describer
from coocnet.index import Index, SyncReport, open_index
from coocnet.index.records import Described
from coocnet.recipe import Recipe


def counts(report: SyncReport) -> dict[str, int]:
    named = {name: getattr(report, name) for name in ("added", "updated", "recognised", "unchanged", "dropped")}
    return {name: count for name, count in {**named, "skipped": len(report.skipped)}.items() if count}


def contents(place: Path) -> list[tuple[str, bytes, bytes]]:
    """Everything the index knows about pictures, for comparison."""
    with open_index(place) as index:
        return held(index)


def held(index: Index) -> list[tuple[str, bytes, bytes]]:
    """Every picture with its content and row."""
    paths, digests, rows = index._store.matrix()
    return [(path, digest, row.tobytes()) for path, digest, row in zip(paths, digests, rows, strict=True)]


def sync(place: Path, photos: Path, recipe: Recipe, describer: Describer | None = None, **options) -> SyncReport:
    with open_index(place, recipe) as index:
        return index.sync(photos, describer=describer or Describer(recipe), **options)


class Unused(Describer):
    """Stands for a describer that must not be needed."""

    def __init__(self) -> None:
        pytest.fail("a describer was made though nothing needs describing")


def synthetic_rows(count: int, *, seed: int = 0, dim: int = 24) -> np.ndarray:
    """Unit rows of some clusters, of a row's length in :func:`synthetic_index`."""
    random = np.random.default_rng(seed)
    rows = random.standard_normal((8, dim))[random.integers(0, 8, count)] + random.standard_normal((count, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def put(place: Path, rows: dict[str, np.ndarray]) -> None:
    """Stores rows under paths in an index, as a sync would; equal rows are of equal content."""
    recipe = Recipe(whitening="none")
    with open_index(place, recipe) as index:
        store = index._store
        store.bind(recipe, "0" * 64, len(next(iter(rows.values()))), "float32")
        store.put(described(rows))


def described(rows: dict[str, np.ndarray]) -> list[Described]:
    """Pictures with these rows; equal rows are of equal content."""
    return [Described(path, FileStamp(1, 1), digest_of(row), row) for path, row in rows.items()]


def digest_of(row: np.ndarray) -> bytes:
    """Of the content that such a row stands for."""
    return blake2b(row.tobytes(), digest_size=16).digest()


def named(rows: np.ndarray, prefix: str = "") -> dict[str, np.ndarray]:
    """A path for each row, not in their order."""
    order = np.random.default_rng(len(rows)).permutation(len(rows))
    return {f"/photos/{prefix}{place:06}é.jpg": row for place, row in zip(order, rows, strict=True)}
