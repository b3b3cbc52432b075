"""The poolings: each against its equation in plain loops, and what they promise for maps with little in them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import reference
from coocnet import ops
from coocnet.errors import InputError
from coocnet.ops.pooling import _rmac_regions
from maps import (
    MAP,
    SPARSE_MAPS,
    TOLERANCES,
    batch_of,
    each_full_precision,
    each_half_precision,
    each_of_no_map,
    each_precision,
)

EPSILON = 1e-3
quick = settings(max_examples=25, deadline=None)


def cooccurrence(a: Tensor) -> Tensor:
    return ops.direct_cooccurrence(a, radius_cells=1)


def plain_cooccurrence(a: np.ndarray) -> np.ndarray:
    return reference.direct_cooccurrence(a, 1)


POOLINGS = {
    "ucrow": (ops.ucrow, reference.ucrow),
    "spoc": (ops.spoc, reference.spoc),
    "mac": (ops.mac, reference.mac),
    "gem": (lambda a: ops.gem(a, power=3), lambda a: reference.gem(a, 3)),
    "gem by a root": (lambda a: ops.gem(a, power=0.5), lambda a: reference.gem(a, 0.5)),
    "rmac": (ops.rmac, reference.rmac),
    "crow": (ops.crow, reference.crow),
    "sct": (lambda a: ops.sct(a, cooccurrence(a)), lambda a: reference.sct(a, plain_cooccurrence(a))),
    "chco": (
        lambda a: ops.chco(a, cooccurrence(a), epsilon=EPSILON),
        lambda a: reference.chco(a, plain_cooccurrence(a), EPSILON),
    ),
    "chco-sct": (
        lambda a: ops.chco_sct(a, cooccurrence(a), epsilon=EPSILON),
        lambda a: reference.chco_sct(a, plain_cooccurrence(a), EPSILON),
    ),
}
each_pooling = pytest.mark.parametrize("pool", [pool for pool, _ in POOLINGS.values()], ids=POOLINGS)


# ------------------------------------------------------------------------------------------- equations


@pytest.mark.parametrize(("pool", "oracle"), POOLINGS.values(), ids=POOLINGS)
@given(a=reference.feature_maps())
@quick
def test_a_pooling_equals_its_equation(pool, oracle, a) -> None:
    expected = oracle(a)
    for dtype, tolerance in TOLERANCES.items():
        row = pool(torch.from_numpy(a)[None].to(dtype))[0].double()
        np.testing.assert_allclose(row, expected, rtol=0, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize("name", ["ucrow", "spoc", "mac", "gem", "rmac", "crow"])
def test_a_pooling_of_activations_alone_equals_its_equation_below_zero_too(name) -> None:
    pool, oracle = POOLINGS[name]
    a = np.random.default_rng(0).normal(size=(4, 6, 5))
    a[0] = -np.abs(a[0])
    np.testing.assert_allclose(pool(torch.from_numpy(a)[None])[0], oracle(a), rtol=1e-12)


@given(a=reference.feature_maps(), epsilon=st.sampled_from([1e-6, 1e-2, 1.0]))
@quick
def test_the_weights_equal_their_equations(a, epsilon) -> None:
    ct = plain_cooccurrence(a)
    tensor = torch.from_numpy(ct)[None]
    np.testing.assert_allclose(ops.sct_weights(tensor)[0], reference.sct_weights(ct), rtol=1e-12)
    beta = ops.chco_weights(tensor, epsilon=epsilon)[0]
    np.testing.assert_allclose(beta, reference.chco_weights(ct, epsilon), rtol=1e-12, atol=1e-15)


def test_a_channel_that_never_cooccurs_has_the_largest_weight_log_of_one_over_epsilon() -> None:
    ct = torch.tensor([4.0, 1.0, 0.0], dtype=torch.float64).view(1, 3, 1, 1)
    beta = ops.chco_weights(ct, epsilon=1e-4)[0]
    assert beta.argmax() == 2
    assert float(beta[2]) == pytest.approx(math.log(1e4), rel=1e-12)


@pytest.mark.parametrize("factor", [2.0**-60, 1 / 64, 3.0, 1000.0, 2.0**60])
@given(a=reference.feature_maps())
@quick
def test_a_brighter_map_has_the_same_unit_row_of_chco_sct(factor, a) -> None:
    pool = POOLINGS["chco-sct"][0]
    for dtype, tolerance in TOLERANCES.items():
        images = torch.from_numpy(a)[None].to(dtype)
        expected = ops.unit_rows(pool(images))
        torch.testing.assert_close(ops.unit_rows(pool(images * factor)), expected, rtol=0, atol=tolerance)


@each_pooling
@each_full_precision
def test_an_image_has_the_same_row_alone_and_beside_others(pool, dtype) -> None:
    dim = reference.relu_map(4, 6, 5)
    images = batch_of(dim, 100 * reference.relu_map(4, 6, 5, seed=1), 0 * dim, 1e-25 * dim, dtype=dtype)
    together = pool(images)
    for n in range(len(images)):
        alone = pool(images[n : n + 1])
        torch.testing.assert_close(together[n : n + 1], alone, rtol=TOLERANCES[dtype], atol=0)


@each_pooling
@each_half_precision
def test_a_half_precision_map_is_pooled_in_float32_and_returned_in_its_own_dtype(pool, dtype) -> None:
    half = batch_of(reference.relu_map(16, 24, 32), dtype=dtype)
    row = pool(half)
    assert row.dtype == dtype
    # The co-occurrence tensor between two operators is rounded to half precision, so a few roundings remain.
    torch.testing.assert_close(row.float(), pool(half.float()), rtol=2 * torch.finfo(dtype).eps, atol=0)


def test_a_half_precision_map_given_by_its_name_is_the_same() -> None:
    half = torch.from_numpy(reference.relu_map(16, 24, 32))[None].half()
    row = ops.gem(power=torch.tensor(3.0), a=half)
    assert row.dtype == torch.float16
    assert torch.equal(row, ops.gem(half, power=3.0))


# ----------------------------------------------------------------------------------- maps with little in them


@each_pooling
@pytest.mark.parametrize("a", SPARSE_MAPS.values(), ids=SPARSE_MAPS)
def test_row_and_gradient_are_finite_for_maps_with_little_in_them(pool, a) -> None:
    a = a.clone().requires_grad_()
    for normalised in (False, True):
        row = pool(a)
        row = ops.unit_rows(row) if normalised else row
        (gradient,) = torch.autograd.grad((row * torch.tensor([1.0, -2.0, 3.0])).sum(), a)
        assert row.isfinite().all()
        assert gradient.isfinite().all()


@each_pooling
@each_precision
@pytest.mark.parametrize("shape", [(2, 2, 1, 1), (1, 5, 1, 7), (2, 3, 6, 4)], ids=str)
def test_a_zero_map_gives_a_zero_row(pool, dtype, shape) -> None:
    row = ops.unit_rows(pool(torch.zeros(shape, dtype=dtype)))
    assert torch.equal(row, torch.zeros(shape[:2], dtype=dtype))


@pytest.mark.parametrize("name", ["sct", "chco", "chco-sct"])
@pytest.mark.parametrize("kind", ["constant", "one active channel"])
def test_where_nothing_cooccurs_the_row_is_zero(name, kind) -> None:
    assert not POOLINGS[name][0](SPARSE_MAPS[kind]).any()


@each_pooling
def test_gradients_are_those_of_finite_differences(pool) -> None:
    a = np.random.default_rng(3).permutation(np.linspace(0.2, 2, 24)).reshape(1, 2, 3, 4)
    assert np.abs(a - a.mean()).min() > 1e-2
    assert torch.autograd.gradcheck(pool, (torch.from_numpy(a).requires_grad_(),))


# ---------------------------------------------------------------------------------------- unit rows


@given(row=st.lists(st.floats(-1e6, 1e6, allow_subnormal=False), min_size=1, max_size=6))
@quick
def test_a_unit_row_is_the_row_over_its_length(row) -> None:
    expected = reference.unit(np.array(row))
    unit = ops.unit_rows(torch.tensor([row], dtype=torch.float64))[0]
    np.testing.assert_allclose(unit, expected, rtol=1e-12, atol=1e-300)


@each_full_precision
@pytest.mark.parametrize("size", [1e-38, 1e-30, 1, 1e30, 3e38])
def test_a_row_of_any_size_becomes_one_of_length_one_and_a_zero_row_stays_zero(dtype, size) -> None:
    rows = torch.tensor([[3, -4, 12], [0, 0, 0], [12, 12, 12]], dtype=dtype) / 12 * size
    unit = ops.unit_rows(rows)
    expected = [[3 / 13, -4 / 13, 12 / 13], [0, 0, 0], [3**-0.5] * 3]
    np.testing.assert_allclose(unit, expected, rtol=TOLERANCES[dtype], atol=0)


def test_the_gradient_of_unit_rows_is_that_of_finite_differences_and_finite_at_zero() -> None:
    rows = torch.tensor([[3.0, -4.0, 0.5], [1e-3, 2e-3, 3e-3]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(ops.unit_rows, (rows,), eps=1e-8)
    zero = torch.zeros(1, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad(ops.unit_rows(zero).sum(), zero)
    assert gradient.isfinite().all()


# ---------------------------------------------------------------------------------------------- GeM


@given(a=reference.feature_maps())
@quick
def test_gem_goes_from_the_mean_to_the_maximum_as_its_power_grows(a) -> None:
    images = torch.from_numpy(a)[None]
    cells = a[0].size
    torch.testing.assert_close(ops.gem(images, power=1), ops.ucrow(images))
    previous, top = ops.ucrow(images), ops.mac(images)
    for power in (2, 10, 100.0, 10_000.0):
        row = ops.gem(images, power=power)
        assert (row >= previous * (1 - 1e-12)).all()
        assert (row <= top * (1 + 1e-12)).all()
        assert (row >= top * cells ** (-1 / power) * (1 - 1e-12)).all()
        previous = row


@pytest.mark.parametrize("size", [1e-38, 1e-20, 1e20, 1e38])
@pytest.mark.parametrize("power", [1, 3, 50.0])
def test_gem_of_huge_and_tiny_values_stays_within_float32(size, power) -> None:
    a = reference.relu_map(3, 4, 5)
    row = ops.gem(torch.from_numpy(a * size)[None].float(), power=power)[0].double()
    np.testing.assert_allclose(row / size, reference.gem(a, power), rtol=1e-5)


@pytest.mark.parametrize("shape", [(), (1,)], ids=str)
def test_a_learned_power_of_gem_has_the_gradient_of_finite_differences(shape) -> None:
    power = torch.full(shape, 3.0, dtype=torch.float64, requires_grad=True)
    a = torch.from_numpy(reference.relu_map(2, 3, 4))[None]
    torch.testing.assert_close(ops.gem(a, power=power), ops.gem(a, power=3.0))
    assert torch.autograd.gradcheck(lambda p: ops.gem(a, power=p), (power,))
    (gradient,) = torch.autograd.grad(ops.gem(torch.zeros_like(a), power=power).sum(), power)
    assert gradient.isfinite().all()


# --------------------------------------------------------------------------------------------- R-MAC

SIZES = {
    "one cell": (1, 1),
    "one row": (1, 6),
    "square": (7, 7),
    "wide": (24, 32),
    "tall": (32, 24),
    "longer": (5, 13),
    "as long as six squares overlap": (4, 19),
    "two overlaps equally close to 40 %": (10, 18),
}


@pytest.mark.parametrize("levels", [1, 2, 3, 4])
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_the_regions_of_rmac_are_those_of_the_released_code(size, levels) -> None:
    assert sorted(_rmac_regions(*size, levels)) == sorted(reference.rmac_regions(*size, levels))


@pytest.mark.parametrize("levels", [1, 3])
@given(short=st.integers(1, 12), long=st.integers(1, 84), tall=st.booleans())
@quick
def test_the_regions_of_rmac_lie_inside_the_map_and_cover_it(levels, short, long, tall) -> None:
    # Beyond 7:1 the method itself leaves gaps: it has at most seven squares along the longer side.
    long = min(max(short, long), 7 * short)
    height, width = (long, short) if tall else (short, long)
    covered = np.zeros((height, width), bool)
    for top, left, side in _rmac_regions(height, width, levels):
        assert side >= 1
        assert 0 <= top <= height - side
        assert 0 <= left <= width - side
        covered[top : top + side, left : left + side] = True
    assert covered.all()


@pytest.mark.parametrize("levels", [1, 2, 4])
@given(a=reference.feature_maps(channels=3, side=8))
@quick
def test_rmac_equals_its_equation_at_any_number_of_levels(levels, a) -> None:
    row = ops.rmac(torch.from_numpy(a)[None], levels=levels)[0]
    np.testing.assert_allclose(row, reference.rmac(a, levels), rtol=1e-12)


# ------------------------------------------------------------------------------------------- refusals

REFUSED = {
    "no epsilon": (lambda: ops.chco_weights(MAP, epsilon=0), "got 0"),
    "a negative epsilon": (lambda: ops.chco_sct(MAP, MAP, epsilon=-1e-4), r"-0\.0001"),
    "a negative epsilon without alpha": (lambda: ops.chco(MAP, MAP, epsilon=-2.5), r"-2\.5"),
    "an epsilon that is no number": (lambda: ops.chco_weights(MAP, epsilon=float("nan")), "nan"),
    "no power": (lambda: ops.gem(MAP, power=0), "got 0"),
    "a negative power": (lambda: ops.gem(MAP, power=torch.tensor(-1.5)), r"-1\.5"),
    "a power that is no number": (lambda: ops.gem(MAP, power=float("nan")), "nan"),
    "no level": (lambda: ops.rmac(MAP, levels=0), "got 0"),
    "half a level": (lambda: ops.rmac(MAP, levels=1.5), r"1\.5"),
    "an epsilon in words": (lambda: ops.chco_weights(MAP, epsilon="small"), "'small'"),
    "an endless epsilon": (lambda: ops.chco_weights(MAP, epsilon=math.inf), "inf"),
    "a power in words": (lambda: ops.gem(MAP, power="3"), "'3'"),
    "a power for each channel": (lambda: ops.gem(MAP, power=torch.ones(3)), "tensor"),
    "a norm of nothing": (lambda: ops.crow(MAP, a_norm=0), "a_norm .*got 0"),
    "a root of nothing": (lambda: ops.sct_weights(MAP, b_root=0), "b_root .*got 0"),
    "a tensor of another shape": (lambda: ops.sct(MAP, MAP[:, :2]), r"ct .*\(1, 3, 4, 4\).*\(1, 2, 4, 4\)"),
    "a tensor of another type": (lambda: ops.chco_sct(MAP, MAP.double(), epsilon=1e-3), "ct .*float64"),
    "no tensor": (lambda: ops.chco(MAP, None, epsilon=1e-3), "ct .*None"),
    "rows that are a map": (lambda: ops.unit_rows(MAP), r"rows .*\(1, 3, 4, 4\)"),
    "rows of nothing": (lambda: ops.unit_rows(MAP[0, 0, :, :0]), r"rows .*\(4, 0\)"),
    "rows of whole numbers": (lambda: ops.unit_rows(MAP[0, 0].int()), "rows .*int32"),
    "rows that are an array": (lambda: ops.unit_rows(MAP[0, 0].numpy()), "rows .*array"),
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("call", "quoted"), REFUSED.values(), ids=REFUSED)
def test_input_that_cannot_be_used_is_refused_and_quoted(call, quoted) -> None:
    with pytest.raises(InputError, match=quoted):
        call()


ON_ANYTHING = {
    **{name: pool for name, (pool, _) in POOLINGS.items()},
    "sct": lambda a: ops.sct(a, a),
    "chco": lambda a: ops.chco(a, a, epsilon=EPSILON),
    "chco-sct": lambda a: ops.chco_sct(a, a, epsilon=EPSILON),
    "spatial weights": ops.sct_weights,
    "channel weights": lambda a: ops.chco_weights(a, epsilon=EPSILON),
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("operator", ON_ANYTHING.values(), ids=ON_ANYTHING)
@each_of_no_map
def test_what_is_no_map_is_refused(operator, given, quoted) -> None:
    with pytest.raises(InputError, match=f"a map is .*{quoted}"):
        operator(given)


@each_pooling
def test_no_images_give_no_rows(pool) -> None:
    assert pool(MAP[:0]).shape == (0, 3)
