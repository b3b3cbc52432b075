"""Context pooling and centred co-occurrence: against loops, and the identities they are derived from."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import reference
import reference_second_order as oracle
from coocnet import ops
from coocnet.errors import InputError
from maps import (
    MAP,
    SPARSE_MAPS,
    TOLERANCES,
    assert_near,
    batch_of,
    each_full_precision,
    each_half_precision,
    each_of_no_map,
    each_precision,
)

quick = settings(max_examples=20, deadline=None)
POWERS = st.sampled_from([(2.0, 1.5), (1, 2), (0.5, 1), (1.0, 0.5), (3.0, 4.0)])


def shares(a: Tensor, radius: int = 1) -> Tensor:
    """S / ΣS, the weights that centred co-occurrence is meant for."""
    return ops.sct_weights(ops.direct_cooccurrence(a, radius_cells=radius), a_norm=1, b_root=1)


OPERATORS = {
    "context": lambda a: ops.context(a, radius_cells=1),
    "context pooling": lambda a: ops.context_pooling(a, radius_cells=1),
    "context pooling by a square": lambda a: ops.context_pooling(a, radius_cells=1, context_power=1, power=2),
    "contextual bilinear": lambda a: ops.bilinear(a, weights=ops.context(a, radius_cells=1)),
    "centred map": lambda a: ops.centred_cooccurrence_pair(a)[0],
    "centred window": lambda a: ops.centred_cooccurrence_pair(a)[1],
    "centred bilinear": lambda a: ops.bilinear(*ops.centred_cooccurrence_pair(a), weights=shares(a)),
    "centred by a given mean": lambda a: ops.bilinear(
        *ops.centred_cooccurrence_pair(a, mean=torch.linspace(0, 1, a.shape[1], dtype=a.dtype)), weights=shares(a)
    ),
}
each_operator = pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS)

# ------------------------------------------------------------------------------------------- equations


@pytest.mark.usefixtures("each_way")
@given(a=reference.feature_maps(), radius=st.integers(0, 6), masked=st.booleans(), powers=POWERS)
@quick
def test_context_and_context_pooling_equal_plain_loops(a, radius, masked, powers) -> None:
    rho = np.random.default_rng(radius).integers(0, 2, a.shape).astype(float) if masked else None
    g, q = powers
    t, row = oracle.context(a, radius, rho), oracle.context_pooling(a, radius, g, q, rho)
    for dtype, tolerance in TOLERANCES.items():
        images, mask = batch_of(a, dtype=dtype), None if rho is None else batch_of(rho, dtype=torch.bool)
        assert_near(ops.context(images, radius_cells=radius, mask=mask)[0], t, of_max=tolerance)
        pooled = ops.context_pooling(images, radius_cells=radius, mask=mask, context_power=g, power=q)[0]
        assert_near(pooled, row, of_max=tolerance)


@given(a=reference.feature_maps(), radius=st.integers(0, 3))
@quick
def test_the_context_of_a_tensor_is_its_mean_over_the_active_channels(a, radius) -> None:
    rho, ct = reference.activation_mask(a), reference.direct_cooccurrence(a, radius)
    expected = np.zeros(a.shape[1:])
    for p in np.ndindex(expected.shape):
        active = [k for k in range(len(a)) if rho[k][p]]
        if active:
            expected[p] = (len(a) - 1) * sum(ct[k][p] for k in active) / len(active)
    found = ops.tensor_context(batch_of(ct), batch_of(rho))[0]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * max(1, np.abs(expected).max()))


def test_the_context_of_the_direct_tensor_is_the_context_less_the_own_part() -> None:
    a = batch_of(reference.relu_map(6, 4, 5))
    mask = ops.activation_mask(a)
    own = (ops.window_sum(a * mask, 1) * mask).sum(1) / mask.sum(1).clamp(min=1)
    expected = torch.where(mask.any(1), ops.context(a, radius_cells=1) - own, 0)
    torch.testing.assert_close(ops.tensor_context(ops.direct_cooccurrence(a, radius_cells=1), mask), expected)


@given(a=reference.feature_maps(), seed=st.integers(0, 10**6), powers=POWERS)
@quick
def test_power_pooling_equals_plain_loops_under_weights_of_any_sign(a, seed, powers) -> None:
    weights = np.random.default_rng(seed).normal(size=a.shape[1:])
    g, q = powers
    for dtype, tolerance in TOLERANCES.items():
        one = torch.from_numpy(weights)[None].to(dtype)
        pooled = ops.power_pooling(batch_of(a, dtype=dtype), one, weight_power=g, power=q)[0]
        assert_near(pooled, oracle.power_pooling(a, weights, g, q), of_max=tolerance)


@given(a=reference.feature_maps(), radius=st.integers(0, 6), given_mean=st.booleans())
@quick
def test_the_centred_pair_equals_plain_loops(a, radius, given_mean) -> None:
    mean = np.arange(len(a)) / 8 if given_mean else None
    expected = oracle.centred_pair(a, radius, mean)
    for dtype, tolerance in TOLERANCES.items():
        torch_mean = None if mean is None else torch.from_numpy(mean).to(dtype)
        pair = ops.centred_cooccurrence_pair(batch_of(a, dtype=dtype), radius_cells=radius, mean=torch_mean)
        for factor, loops in zip(pair, expected, strict=True):
            np.testing.assert_allclose(factor[0].double(), loops, rtol=0, atol=tolerance * np.abs(a).max() * 25)


def test_the_default_powers_are_two_and_three_halves() -> None:
    a = batch_of(reference.relu_map(3, 4, 5))
    stated = ops.context_pooling(a, radius_cells=1, context_power=2.0, power=1.5)
    assert torch.equal(ops.context_pooling(a, radius_cells=1), stated)


def test_the_default_radius_of_the_centred_pair_is_one_cell() -> None:
    a = batch_of(reference.relu_map(3, 4, 5))
    for default, stated in zip(
        ops.centred_cooccurrence_pair(a), ops.centred_cooccurrence_pair(a, radius_cells=1), strict=True
    ):
        assert torch.equal(default, stated)


@given(a=reference.feature_maps(), radius=st.integers(0, 3))
@quick
def test_the_context_is_the_direct_cooccurrence_and_the_own_channels_window(a, radius) -> None:
    images = batch_of(a)
    rho = ops.activation_mask(images)
    own = ops.window_sum(images * rho, radius)
    ct = ops.direct_cooccurrence(images, radius_cells=radius)
    t = ops.context(images, radius_cells=radius)
    torch.testing.assert_close(rho * (t[:, None] - own) / (len(a) - 1), ct, rtol=1e-12, atol=1e-12)


@given(a=reference.feature_maps(), radius=st.integers(0, 3))
@quick
def test_context_as_weights_is_bilinear_pooling_with_the_map_times_its_context(a, radius) -> None:
    images = batch_of(a)
    t = ops.context(images, radius_cells=radius)
    weighted = ops.bilinear(images, weights=t)
    torch.testing.assert_close(weighted, ops.bilinear(images, images * t[:, None]), rtol=1e-12, atol=1e-12)
    sketch = ops.Sketch(len(a), 16)
    weighted = ops.compact_bilinear(images, sketch=sketch, weights=t)
    expected = ops.compact_bilinear(images, images * t[:, None], sketch=sketch)
    torch.testing.assert_close(weighted, expected, rtol=1e-12, atol=1e-12 * float(images.sum() + 1) ** 3)


def test_without_a_window_and_alike_weights_centred_cooccurrence_is_the_covariance_of_the_channels() -> None:
    a = reference.relu_map(3, 4, 5)
    pair = ops.centred_cooccurrence_pair(batch_of(a), radius_cells=0)
    weights = torch.full((1, 4, 5), 1 / 20, dtype=torch.float64)
    row = ops.bilinear(*pair, weights=weights)[0].view(3, 3)
    np.testing.assert_allclose(row, np.cov(a.reshape(3, -1), bias=True), rtol=1e-12)


def test_the_stated_weights_of_centred_cooccurrence_sum_to_one() -> None:
    a = batch_of(reference.relu_map(3, 4, 5))
    ct = reference.direct_cooccurrence(reference.relu_map(3, 4, 5), 1)
    np.testing.assert_allclose(shares(a)[0], ct.sum(0) / ct.sum(), rtol=1e-12)


def test_context_pooling_goes_to_the_maximum_as_its_power_grows() -> None:
    a = batch_of(reference.relu_map(3, 4, 5) + 0.1)
    row = ops.context_pooling(a, radius_cells=9, power=1000.0)  # the context of such a window is the same everywhere
    torch.testing.assert_close(row, ops.mac(a), rtol=1e-2, atol=0)


@pytest.mark.parametrize("size", [1e-38, 1e-20, 1e20, 1e37])
@pytest.mark.parametrize("powers", [(2.0, 1.5), (1, 2), (50.0, 1.0), (1.0, 50.0)], ids=str)
def test_context_pooling_of_huge_and_tiny_values_stays_within_float32(size, powers) -> None:
    a = reference.relu_map(3, 4, 5) / 30
    g, q = powers
    row = ops.context_pooling(batch_of(a * size).float(), radius_cells=1, context_power=g, power=q)[0].double()
    assert_near(row / size, oracle.context_pooling(a, 1, g, q), of_max=1e-5)


def test_activations_and_contexts_below_zero_count_as_zero() -> None:
    a = torch.tensor([[[[2.0, -5.0, 1.0]], [[3.0, 4.0, -9.0]]]])
    mask = torch.tensor([[[[1.0, 0.0, 0.0]], [[0.0, 0.0, 1.0]]]])  # so that the context is 2, 0, -9
    assert ops.context(a, radius_cells=0, mask=mask).tolist() == [[[2, 0, -9]]]
    torch.testing.assert_close(ops.context_pooling(a, radius_cells=0, mask=mask), torch.tensor([[2.0, 3.0]]))
    everywhere = ops.context_pooling(a, radius_cells=2, mask=(a > 0).float(), power=1)
    torch.testing.assert_close(everywhere, torch.tensor([[3.0, 7.0]]))


@pytest.mark.parametrize("value", [0.1, 1 / 3, 12345.678])
@each_precision
def test_a_constant_channel_is_exactly_zero_when_centred_by_its_own_mean(dtype, value) -> None:
    a = batch_of(reference.relu_map(2, 7, 9)).to(dtype)
    a[:, 1] = value
    for factor in ops.centred_cooccurrence_pair(a):
        assert not factor[:, 1].any()
        assert factor[:, 0].any()


# -------------------------------------------------------------------------------- batches, types, edges


@pytest.mark.usefixtures("each_way")
@each_operator
@each_full_precision
def test_an_image_has_the_same_result_alone_and_beside_others(operator, dtype) -> None:
    dim = reference.relu_map(4, 6, 5)
    images = batch_of(dim, 100 * reference.relu_map(4, 6, 5, seed=1), 0 * dim, 1e-10 * dim, dtype=dtype)
    together = operator(images)
    for n in range(len(images)):
        assert_near(together[n : n + 1], operator(images[n : n + 1]).double().numpy(), of_max=TOLERANCES[dtype])


@pytest.mark.usefixtures("each_way")
@each_operator
@each_half_precision
def test_a_half_precision_map_is_computed_in_float32_and_returned_in_its_own_dtype(operator, dtype) -> None:
    half = batch_of(reference.relu_map(6, 9, 8) / 3, dtype=dtype)
    result = operator(half)
    assert result.dtype == dtype
    # What passes between two operators is rounded to half precision.
    assert_near(result.float(), operator(half.float()).numpy(), of_max=2 * torch.finfo(dtype).eps)


@each_half_precision
@pytest.mark.parametrize("name", ["context", "context pooling", "centred map", "centred window"])
def test_the_result_for_a_half_precision_map_is_rounded_once(name, dtype) -> None:
    half = batch_of(reference.relu_map(50, 9, 8) / 3, dtype=dtype)
    assert torch.equal(OPERATORS[name](half), OPERATORS[name](half.float()).to(dtype))


def test_a_half_precision_map_may_be_centred_by_a_mean_in_float32() -> None:
    half, mean = batch_of(reference.relu_map(3, 4, 5), dtype=torch.float16), torch.rand(3)
    centred, window = ops.centred_cooccurrence_pair(half, mean=mean)
    assert (centred.dtype, window.dtype) == (torch.float16, torch.float16)
    torch.testing.assert_close(centred.float(), half.float() - mean[:, None, None], rtol=1e-3, atol=1e-3)


MAPS = {**SPARSE_MAPS, "below zero": -torch.arange(60.0).view(1, 3, 4, 5)}


@each_operator
@pytest.mark.parametrize("a", MAPS.values(), ids=MAPS)
def test_result_and_gradient_are_finite_for_maps_with_little_in_them(operator, a) -> None:
    a = a.clone().requires_grad_()
    result = operator(a)
    (gradient,) = torch.autograd.grad((result * torch.arange(1.0, result.numel() + 1).view(result.shape)).sum(), a)
    assert result.isfinite().all()
    assert gradient.isfinite().all()


@pytest.mark.usefixtures("each_way")
@each_operator
@pytest.mark.parametrize("kind", ["all zero", "constant"])
def test_where_nothing_is_active_the_result_is_zero(operator, kind) -> None:
    assert not operator(SPARSE_MAPS[kind]).any()


@each_operator
def test_gradients_are_those_of_finite_differences(operator) -> None:
    a = np.random.default_rng(3).permutation(np.linspace(0.2, 2, 24)).reshape(2, 3, 4)
    assert torch.autograd.gradcheck(operator, (batch_of(a).requires_grad_(),))


@each_operator
def test_no_images_give_no_result(operator) -> None:
    assert operator(torch.rand(0, 3, 4, 4)).shape == (0, *operator(torch.rand(1, 3, 4, 4)).shape[1:])


def test_one_channel_has_a_context_of_its_own() -> None:
    a = torch.tensor([[[[4.0, 0.0, 0.0, 0.0]]]])
    assert ops.context(a, radius_cells=1).tolist() == [[[4, 4, 0, 0]]]
    assert ops.context_pooling(a, radius_cells=1).tolist() == [[4]]


# ------------------------------------------------------------------------------------------- refusals

REFUSED = {
    "a negative radius": (lambda: ops.context(MAP, radius_cells=-1), "radius_cells .*-1"),
    "weights of another shape": (
        lambda: ops.power_pooling(MAP, MAP[:, 0, :2], weight_power=1.0, power=1.0),
        r"weights is a tensor \(1, 4, 4\)",
    ),
    "a radius between cells": (lambda: ops.context_pooling(MAP, radius_cells=1.5), r"radius_cells .*1\.5"),
    "a radius in words": (lambda: ops.centred_cooccurrence_pair(MAP, radius_cells="1"), "radius_cells .*'1'"),
    "a mask of another shape": (
        lambda: ops.context(MAP, radius_cells=1, mask=MAP[:, :1]),
        r"mask .*\(1, 3, 4, 4\).*\(1, 1, 4, 4\)",
    ),
    "a mask on another device": (
        lambda: ops.context_pooling(MAP, radius_cells=1, mask=MAP.to("meta")),
        "mask .*cpu.*meta",
    ),
    "no power": (lambda: ops.context_pooling(MAP, radius_cells=1, power=0), "power .*got 0"),
    "no context power": (lambda: ops.context_pooling(MAP, radius_cells=1, context_power=0), "context_power .*got 0"),
    "an endless power": (lambda: ops.context_pooling(MAP, radius_cells=1, power=math.inf), "power .*inf"),
    "a mean per image": (
        lambda: ops.centred_cooccurrence_pair(MAP, mean=torch.zeros(1, 3)),
        r"mean .*\(3\).*\(1, 3\)",
    ),
    "a mean of other channels": (lambda: ops.centred_cooccurrence_pair(MAP, mean=torch.zeros(4)), r"mean .*\(4,\)"),
    "a mean of another type": (lambda: ops.centred_cooccurrence_pair(MAP, mean=torch.zeros(3).double()), "float64"),
    "a mean that is a number": (lambda: ops.centred_cooccurrence_pair(MAP, mean=0.5), r"mean .*0\.5"),
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("call", "quoted"), REFUSED.values(), ids=REFUSED)
def test_input_that_cannot_be_used_is_refused_and_quoted(call, quoted) -> None:
    with pytest.raises(InputError, match=quoted):
        call()


ON_ANYTHING = {
    "context": OPERATORS["context"],
    "context pooling": OPERATORS["context pooling"],
    "centred": ops.centred_cooccurrence_pair,
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("operator", ON_ANYTHING.values(), ids=ON_ANYTHING)
@each_of_no_map
def test_what_is_no_map_is_refused(operator, given, quoted) -> None:
    with pytest.raises(InputError, match=f"a map is .*{quoted}"):
        operator(given)
