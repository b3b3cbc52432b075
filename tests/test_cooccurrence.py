"""The co-occurrence tensor: the closed form against loops and a dense filter, and what it promises at the edges."""

from __future__ import annotations

import doctest
import importlib
import json
import pkgutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import reference
from coocnet import ops
from coocnet.errors import InputError
from maps import (
    MAP,
    TOLERANCES,
    assert_near,
    batch_of,
    each_full_precision,
    each_half_precision,
    each_of_no_map,
    each_precision,
)

quick = settings(max_examples=25, deadline=None)


def dense_filter_form(a: Tensor, radius: int) -> Tensor:
    return ops.filtered_cooccurrence(a, ops.direct_filter(a.shape[1], radius_cells=radius, dtype=a.dtype))


def closed_form(a: Tensor, radius: int) -> Tensor:
    return ops.direct_cooccurrence(a, radius_cells=radius)


FORMS = {"closed form": closed_form, "dense filter": dense_filter_form}


# ------------------------------------------------------------------------------------------- equations


@pytest.mark.usefixtures("each_way")
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@given(a=reference.feature_maps(), radius=st.integers(0, 7))
@quick
def test_closed_form_and_dense_filter_equal_plain_loops(form, a, radius) -> None:
    expected = reference.direct_cooccurrence(a, radius)
    for dtype, tolerance in TOLERANCES.items():
        assert_near(form(batch_of(a, dtype=dtype), radius)[0], expected, of_max=tolerance)


@pytest.mark.usefixtures("each_way")
@each_full_precision
@pytest.mark.parametrize("shape", [(2, 1, 1), (3, 1, 9), (3, 9, 1), (16, 7, 10)], ids=str)
@pytest.mark.parametrize("radius", [0, 1, 4, 30])
def test_closed_form_equals_dense_filter_on_values_that_need_rounding(dtype, shape, radius) -> None:
    a = batch_of(reference.relu_map(*shape), reference.relu_map(*shape, seed=1), dtype=dtype)
    dense = dense_filter_form(a, radius)
    assert_near(closed_form(a, radius), dense.double().numpy(), of_max=TOLERANCES[dtype])


@given(a=reference.feature_maps(side=4), radius=st.integers(0, 2), seed=st.integers(0, 100))
@quick
def test_filtered_cooccurrence_equals_plain_loops_for_any_filter(a, radius, seed) -> None:
    side = 2 * radius + 1
    weight = np.random.default_rng(seed).normal(size=(len(a), len(a), side, side))
    expected = reference.filtered_cooccurrence(a, weight)
    assert_near(ops.filtered_cooccurrence(batch_of(a), torch.from_numpy(weight))[0], expected, of_max=1e-12)


@pytest.mark.usefixtures("each_way")
@given(a=reference.feature_maps(), radius=st.integers(0, 7))
@quick
def test_window_mean_divides_by_the_whole_window_at_the_border_too(a, radius) -> None:
    mean = ops.direct_cooccurrence(batch_of(a), radius_cells=radius, window_mean=True)
    assert_near(mean[0], reference.direct_cooccurrence(a, radius) / (2 * radius + 1) ** 2, of_max=1e-12)


@given(a=reference.feature_maps(), radius=st.integers(0, 7))
@quick
def test_window_sum_counts_each_cell_within_the_radius_once(a, radius) -> None:
    # A sum of eighths is exact, so it is equal, not near.
    expected = np.zeros(a.shape)
    for k, i, j in np.ndindex(a.shape):
        expected[k, i, j] = a[k, max(0, i - radius) : i + radius + 1, max(0, j - radius) : j + radius + 1].sum()
    np.testing.assert_array_equal(ops.window_sum(batch_of(a), radius)[0], expected)


def test_direct_filter_is_one_between_different_channels_and_zero_within_one() -> None:
    weight = ops.direct_filter(3, radius_cells=2, dtype=torch.float64)
    assert weight.dtype == torch.float64
    assert weight.shape == (3, 3, 5, 5)
    for k, w in np.ndindex(3, 3):
        assert (weight[k, w] == (k != w)).all()


@given(a=reference.feature_maps(), radius=st.integers(0, 3), seed=st.integers(0, 100))
@quick
def test_a_given_mask_is_used_as_numbers_or_as_truth_values(a, radius, seed) -> None:
    rho = np.random.default_rng(seed).integers(0, 2, a.shape).astype(float)
    expected = reference.direct_cooccurrence(a, radius, rho=rho)
    weight = ops.direct_filter(len(a), radius_cells=radius, dtype=torch.float64)
    for mask in (batch_of(rho), batch_of(rho, dtype=torch.bool)):
        assert_near(ops.direct_cooccurrence(batch_of(a), radius_cells=radius, mask=mask)[0], expected, of_max=1e-12)
        assert_near(ops.filtered_cooccurrence(batch_of(a), weight, mask=mask)[0], expected, of_max=1e-12)


# ------------------------------------------------------------------------------------ the own channel


@pytest.mark.usefixtures("each_way")
@each_full_precision
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("radius", [0, 1, 9])
def test_one_active_channel_cooccurs_with_nothing_exactly(form, dtype, radius) -> None:
    a = np.zeros((5, 6, 7))
    a[3] = 1 + reference.relu_map(6, 7) / 3
    assert not form(batch_of(a, dtype=dtype), radius).any()


@each_full_precision
def test_however_bright_the_own_channel_is_it_does_not_blur_the_others(dtype) -> None:
    a = torch.zeros(1, 2, 5, 5, dtype=dtype)
    a[:, 1] = 1
    a[:, :, 2, 2] = torch.tensor([1e20, 0])
    ct = ops.direct_cooccurrence(a, radius_cells=1, mask=a > 0)
    assert ct[0, 0, 2, 2] == 8


@pytest.mark.usefixtures("each_way")
@pytest.mark.parametrize("radius", [0, 1, 4, 30])
def test_closed_form_is_never_negative_and_is_zero_where_inactive(radius) -> None:
    # A bright channel beside a faint one: rounding the one could take more away than the other adds.
    faint = reference.relu_map(1, 24, 32, seed=1) * 1e-7
    images = batch_of(np.concatenate([reference.relu_map(1, 24, 32), faint]), dtype=torch.float32)
    ct = ops.direct_cooccurrence(images, radius_cells=radius, threshold=0)
    assert (ct >= 0).all()
    assert ct.any()
    assert not ct[images <= 0].any()


# --------------------------------------------------------------------------------------- the threshold

NEAR_TIES = st.sampled_from([0, 2**24 - 8]).flatmap(
    lambda base: st.lists(st.integers(base, base + 7), min_size=2, max_size=30)
)
"""Whole numbers that float32 just holds: entries at the mean, or closer to it than float32 can round it."""


@each_full_precision
@given(values=NEAR_TIES)
@quick
def test_an_entry_is_active_where_it_exceeds_the_exact_mean(dtype, values) -> None:
    a = np.array(values, np.float64).reshape(1, 1, -1)
    np.testing.assert_array_equal(ops.activation_mask(batch_of(a, dtype=dtype))[0], reference.activation_mask(a))


@each_precision
@pytest.mark.parametrize("value", [0.0, 0.1, 0.3, 0.7, 1 / 3, 1e-7, 12345.678])
def test_a_constant_map_has_no_active_entry(dtype, value) -> None:
    for d, h, w in np.ndindex(4, 8, 8):
        assert not ops.activation_mask(torch.full((1, d + 1, h + 1, w + 1), value, dtype=dtype)).any()
    assert not ops.activation_mask(torch.full((2, 512, 24, 32), value, dtype=dtype)).any()


@each_full_precision
def test_an_entry_equal_to_the_mean_is_not_active(dtype) -> None:
    a = torch.tensor([[[[1.0, 2.0]], [[3.0, 2.0]]]], dtype=dtype)
    assert ops.activation_mask(a).tolist() == [[[[0, 0]], [[1, 0]]]]


def test_a_number_is_a_strict_threshold() -> None:
    a = torch.tensor([[[[1.0, 2.0]], [[3.0, 2.5]]]])
    assert ops.activation_mask(a, 2).tolist() == [[[[0, 0]], [[1, 1]]]]
    assert ops.activation_mask(a, 2.75).tolist() == [[[[0, 0]], [[1, 0]]]]


@given(a=reference.feature_maps(), q=st.sampled_from([0.0, 0.1, 0.5, 0.62, 0.9, 1.0]))
@quick
def test_a_quantile_is_an_entry_of_the_image_by_its_rank(a, q) -> None:
    images = batch_of(a, np.flip(a) * 3)
    mask = ops.activation_mask(images, ops.Quantile(q))
    for image, rho in zip(images.numpy(), mask, strict=True):
        np.testing.assert_array_equal(rho, reference.activation_mask(image, reference.quantile_threshold(image, q)))


def test_the_mask_carries_no_gradient() -> None:
    assert not ops.activation_mask(torch.rand(1, 2, 3, 3, requires_grad=True)).requires_grad


OPERATORS = {
    "mask by mean": ops.activation_mask,
    "mask by quantile": lambda a: ops.activation_mask(a, ops.Quantile(0.9)),
    "window sum": lambda a: ops.window_sum(a, 4),
    "direct": lambda a: ops.direct_cooccurrence(a, radius_cells=4),
    "filtered": lambda a: dense_filter_form(a, 1),
}


@pytest.mark.usefixtures("each_way")
@each_full_precision
@pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS)
def test_an_image_has_the_same_result_alone_and_beside_others(operator, dtype) -> None:
    dim = reference.relu_map(4, 6, 5)
    images = batch_of(dim, 100 * reference.relu_map(4, 6, 5, seed=1), 0 * dim, 1e-25 * dim, dtype=dtype)
    together = operator(images)
    for n in range(len(images)):
        alone = operator(images[n : n + 1])
        torch.testing.assert_close(together[n : n + 1], alone, rtol=TOLERANCES[dtype], atol=0)


@pytest.mark.usefixtures("each_way")
@each_half_precision
@pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS)
def test_a_half_precision_map_is_computed_in_float32_and_returned_in_its_own_dtype(operator, dtype) -> None:
    half = batch_of(reference.relu_map(16, 24, 32) / 3, dtype=dtype)
    result = operator(half)
    assert result.dtype == dtype
    torch.testing.assert_close(result.float(), operator(half.float()), rtol=torch.finfo(dtype).eps, atol=0)


# ------------------------------------------------------------------------------------------- gradients


def test_gradients_are_those_of_finite_differences() -> None:
    a = batch_of(reference.relu_map(2, 3, 3), 5 * reference.relu_map(2, 3, 3, seed=1)).requires_grad_()
    weight = torch.randn(2, 2, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: ops.direct_cooccurrence(x, radius_cells=1), (a,))
    assert torch.autograd.gradcheck(lambda x: ops.direct_cooccurrence(x, radius_cells=2, window_mean=True), (a,))
    assert torch.autograd.gradcheck(lambda x: ops.window_sum(x, 1), (a,))
    assert torch.autograd.gradcheck(ops.filtered_cooccurrence, (a, weight))


# ------------------------------------------------------------------------------------------- refusals

REFUSED = {
    "a quantile above 1": (lambda: ops.activation_mask(MAP, ops.Quantile(1.5)), r"1\.5"),
    "a quantile below 0": (lambda: ops.activation_mask(MAP, ops.Quantile(-0.25)), r"-0\.25"),
    "a quantile that is no number": (lambda: ops.activation_mask(MAP, ops.Quantile(float("nan"))), "nan"),
    "a threshold that is no number": (lambda: ops.activation_mask(MAP, float("nan")), "nan"),
    "an unknown threshold": (lambda: ops.activation_mask(MAP, "median"), "'median'"),
    "a threshold of nothing": (lambda: ops.activation_mask(MAP, None), "None"),
    "a negative radius": (lambda: ops.direct_cooccurrence(MAP, radius_cells=-1), "-1"),
    "a negative radius of a window": (lambda: ops.window_sum(MAP, -2), "-2"),
    "a negative radius of a filter": (lambda: ops.direct_filter(4, radius_cells=-3), "-3"),
    "a filter for one channel": (lambda: ops.direct_filter(1, radius_cells=1), "got 1"),
    "one channel": (lambda: ops.direct_cooccurrence(MAP[:, :1], radius_cells=1), r"\(1, 1, 4, 4\)"),
    "one channel to filter": (
        lambda: ops.filtered_cooccurrence(MAP[:, :1], torch.ones(1, 1, 3, 3)),
        r"\(1, 1, 4, 4\)",
    ),
    "an even filter": (lambda: ops.filtered_cooccurrence(MAP, torch.ones(3, 3, 2, 2)), r"\(3, 3, 2, 2\)"),
    "a filter for other channels": (
        lambda: ops.filtered_cooccurrence(MAP, torch.ones(5, 5, 3, 3)),
        r"3 channels .*\(5, 5, 3, 3\)",
    ),
    "a grouped filter": (lambda: ops.filtered_cooccurrence(MAP, torch.ones(3, 1, 3, 3)), r"\(3, 1, 3, 3\)"),
    "an oblong filter": (lambda: ops.filtered_cooccurrence(MAP, torch.ones(3, 3, 1, 3)), r"\(3, 3, 1, 3\)"),
    "a filter without a side": (lambda: ops.filtered_cooccurrence(MAP, torch.ones(3, 3)), r"\(3, 3\)"),
    "a filter of another type": (lambda: ops.filtered_cooccurrence(MAP, torch.ones(3, 3, 3, 3).double()), "float64"),
    "a filter that is no tensor": (lambda: ops.filtered_cooccurrence(MAP, 3), "got 3"),
    "a quantile in words": (lambda: ops.activation_mask(MAP, ops.Quantile("high")), "'high'"),
    "a threshold of truth": (lambda: ops.activation_mask(MAP, True), "True"),
    "a radius between cells": (lambda: ops.direct_cooccurrence(MAP, radius_cells=1.5), r"1\.5"),
    "a radius of truth": (lambda: ops.window_sum(MAP, True), "True"),
    "a radius in words": (lambda: ops.direct_filter(4, radius_cells="4"), "'4'"),
    "channels between numbers": (lambda: ops.direct_filter(4.5, radius_cells=1), r"4\.5"),
    "a mask of another shape": (
        lambda: ops.direct_cooccurrence(MAP, radius_cells=1, mask=MAP[:, :1]),
        r"mask .*\(1, 3, 4, 4\).*\(1, 1, 4, 4\)",
    ),
    "a mask on another device": (
        lambda: ops.direct_cooccurrence(MAP, radius_cells=1, mask=MAP.to("meta")),
        "mask .*cpu.*meta",
    ),
    "a mask that is no tensor": (
        lambda: ops.filtered_cooccurrence(MAP, torch.ones(3, 3, 3, 3), mask=MAP.numpy() > 0),
        "mask .*array",
    ),
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("call", "quoted"), REFUSED.values(), ids=REFUSED)
def test_input_that_cannot_be_used_is_refused_and_quoted(call, quoted) -> None:
    with pytest.raises(InputError, match=quoted):
        call()


ON_ANYTHING = {**OPERATORS, "filtered": lambda a: ops.filtered_cooccurrence(a, torch.ones(3, 3, 3, 3))}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("operator", ON_ANYTHING.values(), ids=ON_ANYTHING)
@each_of_no_map
def test_what_is_no_map_is_refused(operator, given, quoted) -> None:
    with pytest.raises(InputError, match=f"a map is .*{quoted}"):
        operator(given)


@pytest.mark.parametrize("operator", ON_ANYTHING.values(), ids=ON_ANYTHING)
def test_no_images_give_no_result(operator) -> None:
    assert operator(MAP[:0]).shape == (0, 3, 4, 4)


def test_a_radius_beyond_all_numbers_is_the_whole_map() -> None:
    assert torch.equal(ops.window_sum(MAP, 10**30), ops.window_sum(MAP, 4))


# ------------------------------------------------------------------------------- the authors' own tensor


def golden_numbers(ct: Tensor) -> dict[str, object]:
    """Of one co-occurrence tensor, what golden.json states of it under the same names."""
    values = ct.double().numpy()
    channels, cells = values.sum((1, 2)), values.sum(0)
    return {
        "ct_mean": values.mean(),
        "ct_max": values.max(),
        "ct_argmax_channel_row_col": np.unravel_index(values.argmax(), values.shape),
        "ct_sum": values.sum(),
        "ct_nonzero": np.count_nonzero(values),
        "channel_sum_first5": channels[:5],
        "channel_sum_max": channels.max(),
        "channel_sum_argmax": channels.argmax(),
        "S_max": cells.max(),
        "S_argmax_row_col": np.unravel_index(cells.argmax(), cells.shape),
        "S_second_largest": np.sort(cells.ravel())[-2],
        "S_sum": cells.sum(),
        "S_at_0_0": cells[0, 0],
        "S_at_12_16": cells[12, 16],
    }


@pytest.fixture(scope="module")
def golden(real_data: Path) -> tuple[np.ndarray, dict]:
    folder = real_data / "golden"
    stated = json.loads((folder / "golden.json").read_text(encoding="utf-8"))
    return np.load(folder / stated["file"]).astype(np.float64), stated


@pytest.mark.usefixtures("each_way")
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 1e-5)], ids=str)
@pytest.mark.parametrize("radius", [1, 2, 4])
def test_the_authors_tensor_has_the_stated_cooccurrence(golden, radius, dtype, tolerance) -> None:
    a, stated = golden[0], golden[1]["r"][str(radius)]
    images = batch_of(a, dtype=dtype)
    actual = golden_numbers(ops.direct_cooccurrence(images, radius_cells=radius)[0])
    for name, value in actual.items():
        np.testing.assert_allclose(value, stated[name], rtol=tolerance, err_msg=name)
    divided = golden_numbers(ops.direct_cooccurrence(images, radius_cells=radius, window_mean=True)[0])
    for name, value in stated["with_filter_value_1_over_window2"].items():
        np.testing.assert_allclose(divided[name], value, rtol=tolerance, err_msg=f"{name}, window mean")
    unread = {"window", "with_filter_value_1_over_window2"} | {name for name in stated if name.startswith("check_")}
    assert set(actual) == set(stated) - unread


def test_the_exact_mean_of_the_authors_tensor_is_the_stated_threshold(golden) -> None:
    a, stated = golden
    assert float(reference.mean_threshold(a)) == pytest.approx(stated["mean_threshold_t"], rel=1e-11)


@each_full_precision
def test_the_authors_tensor_has_the_stated_active_entries(golden, dtype) -> None:
    a, stated = golden
    assert list(a.shape) == stated["shape"]
    images = batch_of(a, dtype=dtype)
    rho = ops.activation_mask(images)
    per_channel = rho[0].sum(dim=(1, 2))
    assert torch.equal(rho, ops.activation_mask(images, stated["mean_threshold_t"]))
    assert rho.count_nonzero() == stated["active_entries"]
    assert per_channel[:5].tolist() == stated["active_in_first5_channels"]
    assert (per_channel == 0).sum() == stated["channels_without_active_entry"]


# -------------------------------------------------------------------------------------------- examples


def test_the_examples_in_the_docstrings_run() -> None:
    modules = [importlib.import_module(f"coocnet.ops.{found.name}") for found in pkgutil.iter_modules(ops.__path__)]
    results = [doctest.testmod(module) for module in modules]
    assert sum(result.failed for result in results) == 0
    assert sum(result.attempted for result in results) >= 3
