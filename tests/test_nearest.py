"""The one exact search: whatever its blocks, threads and types, it finds what sorting every similarity finds."""

from __future__ import annotations

import numpy as np
import pytest

from coocnet.ranking import nearest as room
from coocnet.ranking.nearest import nearest, similarities_at
from coocnet.whitening import unit_rows

DIM = 8


def by_sorting(rows: np.ndarray, query: np.ndarray, k: int) -> list[int]:
    """Positions by falling similarity, equal ones rising; each similarity summed alone."""
    similarities = [float(np.einsum("d,d->", row.astype(np.float32), query)) for row in rows]
    return sorted(range(len(rows)), key=lambda at: (-similarities[at], at))[:k]


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    random = np.random.default_rng(0)
    made = unit_rows(random.standard_normal((6000, DIM)).astype(np.float32))
    made[5000:5100] = made[100]  # copies, more of them than there are spare candidates
    made[7:9] = 0
    return made


ORDERS = {
    "as drawn": lambda rows: rows,
    "best last": lambda rows: rows[np.argsort(rows @ rows[100], kind="stable")],
    "best first": lambda rows: rows[np.argsort(-(rows @ rows[100]), kind="stable")],
}


@pytest.mark.slow
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("storage", [np.float32, np.float16])
@pytest.mark.parametrize("queries", [1, 3, 9])
@pytest.mark.parametrize("products", [1 << 23, 9000])
def test_the_nearest_are_those_of_sorting(rows, order, storage, queries, products, monkeypatch) -> None:
    monkeypatch.setattr(room, "_PRODUCTS", products)
    monkeypatch.setattr(room, "_IN_CACHE", 2048 * DIM)
    monkeypatch.setattr(room, "_WORTH_THREADS", 1000)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    held = ORDERS[order](rows).astype(storage)
    asked = np.concatenate([rows[100:101], rows[:8]])[:queries]
    found = nearest(held, asked, 10)
    for query, positions, scores in zip(asked, found.positions, found.scores, strict=True):
        assert positions.tolist() == by_sorting(held, query, 10)
        np.testing.assert_allclose(scores, held[positions].astype(np.float64) @ query, atol=1e-6)


def test_every_row_is_found_when_all_are_wanted(rows) -> None:
    found = nearest(rows[:50], rows[:2], 99)
    assert [sorted(positions) for positions in found.positions.tolist()] == [list(range(50))] * 2


def test_every_float16_is_widened_exactly() -> None:
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    finite = every[np.isfinite(every)].reshape(-1, 1)
    widened = room._widened(finite, np.empty(finite.shape, np.int32)) * np.float32(2.0**112)
    np.testing.assert_array_equal(widened, finite.astype(np.float32))


@pytest.mark.parametrize("width", [3, 60])
def test_similarities_at_positions_are_those_of_the_pairs(rows, width) -> None:
    held = rows[:100]
    positions = np.random.default_rng(1).integers(0, 100, (4, width))
    expected = [[held[at] @ query for at in some] for query, some in zip(rows[:4], positions, strict=True)]
    np.testing.assert_allclose(similarities_at(held, rows[:4], positions), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"OMP_NUM_THREADS": "3"}, 3),
        ({"OMP_NUM_THREADS": "3", "OPENBLAS_NUM_THREADS": "2"}, 2),
        ({"OMP_NUM_THREADS": "2,1"}, 2),
    ],
)
def test_threads_are_those_that_the_matrix_product_would_take(monkeypatch, environment, expected) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert room._threads() == expected
