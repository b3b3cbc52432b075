"""Whitening: what it makes of rows, how it is kept, and what it refuses."""

from __future__ import annotations

import hashlib
import tracemalloc

import numpy as np
import pytest
from safetensors.numpy import save

from coocnet.errors import WhiteningError
from coocnet.whitening import Whitening, fit_pairs, fit_pca, unit_rows

PROVENANCE = {"row_fingerprint": "abc", "weights_sha256": "def"}


def _rows(n: int, d: int, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return unit_rows(np.abs(random.normal(size=(n, d))) * random.uniform(0.1, 3, d))


def test_whitened_rows_of_the_fitting_set_have_unit_covariance_before_their_norm() -> None:
    rows = _rows(400, 12)
    fitted = fit_pca(rows)
    projected = (rows - fitted.mean) @ fitted.projection.T
    np.testing.assert_allclose(projected.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(projected.T @ projected / len(rows), np.eye(fitted.dim), atol=1e-3)


@pytest.mark.parametrize(("n", "d"), [(300, 20), (15, 40)])
def test_the_fit_agrees_with_a_singular_value_decomposition(n: int, d: int) -> None:
    rows = _rows(n, d).astype(np.float64)
    dim = min(n - 1, d) // 2
    fitted = fit_pca(rows.astype(np.float32), dim=dim)
    _, values, right = np.linalg.svd(rows - rows.mean(0), full_matrices=False)
    expected = right[:dim] / (values[:dim, None] / np.sqrt(n))
    signs = np.sign((expected * fitted.projection).sum(1, keepdims=True))
    np.testing.assert_allclose(fitted.projection, expected * signs, rtol=1e-3, atol=1e-3)


def test_whitened_rows_have_unit_length_and_a_zero_row_stays_zero() -> None:
    rows = np.concatenate([_rows(50, 8), np.zeros((1, 8), np.float32)])
    whitened = fit_pca(rows, dim=4).apply(rows)
    assert whitened.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(whitened[:-1], axis=1), 1, rtol=1e-5)
    assert not whitened[-1].any()


def test_shrinkage_leads_from_whitening_to_mere_rotation() -> None:
    rows = _rows(200, 10)
    spreads = []
    for shrinkage in (0.0, 1.0, 1e6):
        fitted = fit_pca(rows, shrinkage=shrinkage)
        deviations = ((rows - fitted.mean) @ fitted.projection.T).std(0)
        spreads.append(deviations.max() / deviations.min())
    centred = rows - rows.mean(0)
    rotated = np.sqrt(np.linalg.eigvalsh(centred.T @ centred / len(rows)))
    assert spreads[0] == pytest.approx(1, abs=1e-3)
    assert spreads[0] < spreads[1] < spreads[2]
    assert spreads[2] == pytest.approx(rotated.max() / rotated.min(), rel=1e-2)
    with pytest.raises(WhiteningError, match="-1"):
        fit_pca(rows, shrinkage=-1)


def test_rows_are_whitened_the_same_in_any_block() -> None:
    rows = _rows(9000, 6)
    fitted = fit_pca(rows)
    np.testing.assert_allclose(fitted.apply(rows)[8191:8194], fitted.apply(rows[8191:8194]), atol=1e-5)


def test_fewer_pictures_than_dimensions_are_stated_not_filled_with_noise() -> None:
    rows = _rows(10, 64)
    assert fit_pca(rows).dim == 9
    with pytest.raises(WhiteningError, match="determine 9 dimensions, 32 were asked for"):
        fit_pca(rows, dim=32)


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (np.zeros((0, 4), np.float32), "at least 2"),
        (_rows(1, 4), "at least 2"),
        (np.zeros((5, 4), np.float32), "at least 2"),
        (np.repeat(_rows(1, 4), 5, axis=0), "all equal"),
        (np.full((5, 4), np.nan, np.float32), "finite"),
    ],
)
def test_rows_without_directions_are_refused(rows: np.ndarray, says: str) -> None:
    with pytest.raises(WhiteningError, match=says):
        fit_pca(rows)


def test_a_saved_whitening_is_the_same_when_read(tmp_path) -> None:
    fitted = fit_pca(_rows(60, 8), dim=5, provenance=PROVENANCE)
    fitted.save(tmp_path / "w.safetensors")
    read = Whitening.load(tmp_path / "w.safetensors")
    np.testing.assert_array_equal(read.projection, fitted.projection)
    np.testing.assert_array_equal(read.mean, fitted.mean)
    assert read.provenance == fitted.provenance
    assert read.provenance["pictures"] == "60"
    assert [file.name for file in tmp_path.iterdir()] == ["w.safetensors"]


def test_a_whitening_of_another_recipe_is_refused() -> None:
    fitted = fit_pca(_rows(60, 8), provenance=PROVENANCE)
    fitted.check_fits("abc", "def")
    with pytest.raises(WhiteningError, match="recipe abc"):
        fitted.check_fits("other", "def")
    with pytest.raises(WhiteningError, match="weights"):
        fitted.check_fits("abc", "other")
    with pytest.raises(WhiteningError, match="8 dimensions, got 9"):
        fitted.apply(_rows(3, 9))


@pytest.mark.parametrize("content", [b"", b"not a file of tensors", b"\x08\0\0\0\0\0\0\0{}      "])
def test_other_bytes_are_not_a_whitening(content: bytes, tmp_path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(WhiteningError, match=r"x\.safetensors"):
        Whitening.load(path)


def test_a_missing_file_is_named() -> None:
    with pytest.raises(WhiteningError, match=r"nowhere\.safetensors"):
        Whitening.load("nowhere.safetensors")


def test_at_most_so_many_dimensions_are_as_many_as_the_rows_determine() -> None:
    rows = _rows(9, 30)
    assert fit_pca(rows, dim=20, at_most=True).dim == 8
    assert fit_pca(rows, dim=3, at_most=True).dim == 3


def test_twice_as_many_dimensions_as_pictures_are_refused_and_never_made_up() -> None:
    rows = _rows(40, 200)
    with pytest.raises(WhiteningError, match="40 pictures determine 39 dimensions, 128 were asked for"):
        fit_pca(rows, dim=128)
    whitened = fit_pca(rows).apply(rows)
    assert whitened.shape == (40, 39)
    assert np.isfinite(whitened).all()


# Learned from pairs


def _pairs(n: int, d: int, noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of n things seen twice; the second view differs, and mostly along a few directions."""
    random = np.random.default_rng(seed)
    things = random.normal(size=(n, d))
    nuisance = random.normal(size=(n, d)) * noise * np.where(np.arange(d) < d // 4, 5, 0.2)
    rows = unit_rows(np.concatenate([things, things + nuisance]))
    return rows, np.arange(n), np.arange(n, 2 * n)


def test_the_differences_within_pairs_become_alike_in_every_direction() -> None:
    rows, queries, positives = _pairs(300, 12, 0.3)
    fitted = fit_pairs(rows, queries, positives)
    within = (rows[queries] - rows[positives]).astype(np.float64) @ fitted.projection.T
    np.testing.assert_allclose(within.T @ within / len(within), np.eye(12), atol=1e-3)
    projected = (rows - rows[queries].mean(0)) @ fitted.projection.T
    spread = projected.T @ projected / len(rows)
    np.testing.assert_allclose(spread, np.diag(np.diag(spread)), atol=1e-2 * spread.max())
    assert (np.diff(np.diag(spread)) <= 0).all()
    assert fitted.provenance["pairs"] == "300"


def test_the_fit_agrees_with_the_published_form_by_a_cholesky_factor() -> None:
    rows, queries, positives = _pairs(200, 10, 0.3)
    rows[queries] = unit_rows(rows[queries] + 0.1)
    x = rows.astype(np.float64)
    difference = x[queries] - x[positives]
    first = np.linalg.inv(np.linalg.cholesky(difference.T @ difference / len(queries)))
    mean = x[queries].mean(0)
    _, vectors = np.linalg.eigh(first @ (x - mean).T @ (x - mean) @ first.T)
    expected = vectors[:, ::-1][:, :6].T @ first
    fitted = fit_pairs(rows, queries, positives, dim=6)
    np.testing.assert_allclose(fitted.mean, mean, atol=1e-6)
    signs = np.sign((expected * fitted.projection).sum(1, keepdims=True))
    np.testing.assert_allclose(fitted.projection, expected * signs, rtol=1e-3, atol=1e-3 * abs(expected).max())


def test_a_learned_whitening_finds_pairs_that_plain_similarity_misses() -> None:
    rows, queries, positives = _pairs(400, 24, 0.5)
    fitted = fit_pairs(rows, queries[:200], positives[:200])

    def found(x: np.ndarray) -> float:
        similarity = x[queries[200:]] @ x[positives[200:]].T
        return float((similarity.argmax(1) == np.arange(200)).mean())

    assert found(fitted.apply(rows)) > found(rows) + 0.1


def test_too_few_pairs_are_refused_unless_there_is_a_shrinkage() -> None:
    rows, queries, positives = _pairs(30, 20, 0.3)
    with pytest.raises(WhiteningError, match="8 pairs determine 8 of 20 directions"):
        fit_pairs(rows, queries[:8], positives[:8], shrinkage=0)
    fitted = fit_pairs(rows, queries[:8], positives[:8], shrinkage=0.1, dim=10)
    assert np.isfinite(fitted.apply(rows)).all()
    unasked = fit_pairs(rows, queries[:8], positives[:8], dim=10)
    assert unasked.provenance["shrinkage"] == "0.1"
    np.testing.assert_array_equal(unasked.projection, fitted.projection)


def test_blank_pictures_take_no_part_in_pairs() -> None:
    rows, queries, positives = _pairs(60, 8, 0.3)
    blank = np.concatenate([rows, np.zeros((5, 8), np.float32)])
    with_blank = fit_pairs(blank, np.append(queries, 0), np.append(positives, len(rows) + 1), dim=4)
    fitted = fit_pairs(rows, queries, positives, dim=4)
    np.testing.assert_allclose(with_blank.projection, fitted.projection, rtol=1e-5)
    assert (with_blank.provenance["pictures"], with_blank.provenance["pairs"]) == (str(len(blank)), str(len(queries)))


def test_at_most_so_many_dimensions_of_pairs_are_as_many_as_there_are() -> None:
    rows, queries, positives = _pairs(60, 8, 0.3)
    assert fit_pairs(rows, queries, positives, dim=500, at_most=True).dim == 8
    with pytest.raises(WhiteningError, match="determine 8 dimensions, 500 were asked for"):
        fit_pairs(rows, queries, positives, dim=500)


@pytest.mark.parametrize(
    ("queries", "positives", "says"),
    [
        ([0, 1], [60, 2], "got 2 to 60"),
        ([-1], [0], "got -1 to -1"),
        ([0, 1], [2], "2 queries and 1 positives"),
        ([], [], "0 queries"),
        ([0.5], [1.0], "float64"),
    ],
)
def test_pairs_that_cannot_be_are_refused(queries: list[float], positives: list[float], says: str) -> None:
    rows, _, _ = _pairs(30, 5, 0.3)
    with pytest.raises(WhiteningError, match=says):
        fit_pairs(rows, np.array(queries), np.array(positives), shrinkage=0.1)


def test_no_damaged_byte_of_a_saved_whitening_goes_unnoticed() -> None:
    content = fit_pca(_rows(12, 3), dim=2, provenance={"row_fingerprint": "0123"}).to_bytes()
    for at in range(len(content)):
        damaged = bytearray(content)
        damaged[at] ^= 1
        try:
            read = Whitening.from_bytes(bytes(damaged))
        except WhiteningError:
            continue
        assert read.equals(Whitening.from_bytes(content))  # the names of fields that nobody reads


def test_a_deeply_nested_provenance_is_refused() -> None:
    tensors = {"mean": np.zeros(2, np.float32), "projection": np.eye(2, dtype=np.float32)}
    nested = "[" * 100_000
    digest = hashlib.sha256(tensors["mean"].tobytes() + tensors["projection"].tobytes() + nested.encode()).hexdigest()
    made = save(tensors, metadata={"kind": "coocnet-whitening-1", "provenance": nested, "sha256": digest})
    with pytest.raises(WhiteningError, match="not a whitening"):
        Whitening.from_bytes(made)


@pytest.mark.parametrize("rows", [np.zeros(3, np.float32), [[0.0, 1.0, 0.0]], np.array([["a", "b", "c"]])], ids=repr)
def test_what_is_no_array_of_rows_is_refused(rows) -> None:
    with pytest.raises(WhiteningError, match=r"an array \(n, d\) of numbers"):
        fit_pca(_rows(12, 3)).apply(rows)


def test_texts_are_no_rows_to_fit_on() -> None:
    with pytest.raises(WhiteningError, match="rows of numbers"):
        fit_pca(np.array([["a", "b"], ["c", "d"]]))


def test_whitening_far_from_the_mean_loses_no_digits() -> None:
    data = np.random.default_rng(3).normal(size=(300, 20)) * np.geomspace(1, 1e-4, 20)
    rows = unit_rows(data + 10)
    fitted = fit_pca(rows)
    exact = (rows.astype(np.float64) - fitted.mean) @ fitted.projection.astype(np.float64).T
    exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    np.testing.assert_allclose(fitted.apply(rows), exact, atol=2e-5)


@pytest.mark.parametrize("count", [5, 12, 13, 400])
@pytest.mark.parametrize("at_once", [1, 7, 64])
def test_rows_in_parts_give_the_whitening_of_all_together(count: int, at_once: int) -> None:
    rows = _rows(count, 12).astype(np.float32)
    rows[count // 2] = 0
    parts = (rows[start : start + at_once] for start in range(0, count, at_once))
    together, in_parts = fit_pca(rows), fit_pca(parts)
    assert in_parts.provenance.items() - {("made", in_parts.provenance["made"])} <= together.provenance.items()
    ours, theirs = in_parts.apply(rows), together.apply(rows)
    np.testing.assert_allclose(ours @ ours.T, theirs @ theirs.T, atol=1e-5)


def test_rows_in_parts_are_not_held_together() -> None:
    def parts():
        random = np.random.default_rng(0)
        for _ in range(50):
            yield unit_rows(random.standard_normal((2000, 32)))

    tracemalloc.start()
    assert fit_pca(parts()).provenance["pictures"] == "100000"
    held_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert held_bytes < 100_000 * 32 * 4 / 3


def test_parts_with_rows_of_different_lengths_are_refused() -> None:
    with pytest.raises(WhiteningError, match="of one length, got 8 and 9"):
        fit_pca(iter([_rows(20, 8), _rows(20, 9)]))
