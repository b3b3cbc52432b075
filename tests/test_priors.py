"""The weights per cell: their formulas, their symmetry, what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import reference
from coocnet import ops
from coocnet.errors import InputError
from maps import each_half_precision

PRIORS = {
    "centre": (ops.centre_prior, reference.centre_prior),
    "top-down": (
        lambda h, w, **like: ops.top_down_prior(h, w, floor=0.3, **like),
        lambda h, w: reference.top_down_prior(h, w, 0.3),
    ),
}
each_prior = pytest.mark.parametrize(("prior", "oracle"), PRIORS.values(), ids=PRIORS)


@each_prior
@given(height=st.integers(1, 40), width=st.integers(1, 40))
@settings(max_examples=40, deadline=None)
def test_a_prior_equals_its_formula(prior, oracle, height, width) -> None:
    weights = prior(height, width, like=torch.empty(0, dtype=torch.float64))
    np.testing.assert_allclose(weights, oracle(height, width), rtol=1e-12)


@each_prior
@each_half_precision
def test_a_half_precision_prior_is_rounded_once(prior, oracle, dtype) -> None:
    weights = prior(48, 64, like=torch.empty(0, dtype=dtype))
    assert weights.dtype == dtype
    precision = torch.finfo(dtype)
    np.testing.assert_allclose(
        weights.double(), oracle(48, 64), rtol=precision.eps, atol=precision.tiny * precision.eps
    )


@each_prior
def test_a_prior_is_float32_where_nothing_is_asked(prior, oracle) -> None:
    weights = prior(5, 8)
    assert weights.dtype == torch.float32
    np.testing.assert_allclose(weights, oracle(5, 8), rtol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (6, 9), (9, 6), (300, 400)], ids=str)
def test_the_centre_prior_is_the_same_in_a_mirror_and_largest_in_the_middle(size) -> None:
    weights = ops.centre_prior(*size)
    assert torch.equal(weights, weights.flip(0))
    assert torch.equal(weights, weights.flip(1))
    assert weights.max() == weights[size[0] // 2, size[1] // 2]


POOLED = {
    "spoc": ops.spoc,
    "chco-sct": lambda a: ops.chco_sct(a, ops.direct_cooccurrence(a, radius_cells=1), epsilon=1e-3),
}


@pytest.mark.parametrize("pool", POOLED.values(), ids=POOLED)
@pytest.mark.parametrize("size", [(6, 9), (9, 6), (7, 7)], ids=str)
def test_a_mirrored_photograph_is_pooled_the_same_under_the_centre_prior(pool, size) -> None:
    a = torch.from_numpy(reference.relu_map(5, *size))[None]
    prior = ops.centre_prior(*size, like=a)
    row = pool(a * prior)
    assert row.any()
    torch.testing.assert_close(pool(a.flip(3) * prior), row, rtol=1e-12, atol=0)


@pytest.mark.parametrize("floor", [0, 0.25, 1])
def test_the_top_down_prior_goes_from_one_to_its_floor(floor) -> None:
    weights = ops.top_down_prior(7, 3, floor=floor)
    assert (weights[0] == 1).all()
    np.testing.assert_allclose(weights[-1], floor, atol=1e-7)
    assert torch.equal(ops.top_down_prior(1, 3, floor=floor), torch.ones(1, 3))


REFUSED = {
    "no row": (lambda: ops.centre_prior(0, 5), "a side .*got 0"),
    "no column": (lambda: ops.centre_prior(5, -1), "a side .*got -1"),
    "no row from the top": (lambda: ops.top_down_prior(-2, 5, floor=0.5), "a side .*got -2"),
    "no column from the top": (lambda: ops.top_down_prior(5, 0, floor=0.5), "a side .*got 0"),
    "a floor above 1": (lambda: ops.top_down_prior(5, 5, floor=1.25), r"1\.25"),
    "a floor below 0": (lambda: ops.top_down_prior(5, 5, floor=-0.5), r"-0\.5"),
    "a floor that is no number": (lambda: ops.top_down_prior(5, 5, floor=float("nan")), "nan"),
    "a floor in words": (lambda: ops.top_down_prior(5, 5, floor="half"), "'half'"),
    "half a row": (lambda: ops.centre_prior(4.5, 5), r"a side .*4\.5"),
    "a column in words": (lambda: ops.top_down_prior(4, "5", floor=0.5), "a side .*'5'"),
    "a type without fractions": (lambda: ops.centre_prior(4, 4, like=torch.ones(3).int()), "like .*int32"),
    "a type of nothing": (lambda: ops.top_down_prior(4, 4, floor=0.5, like=3), "like .*3"),
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("call", "quoted"), REFUSED.values(), ids=REFUSED)
def test_input_that_cannot_be_used_is_refused_and_quoted(call, quoted) -> None:
    with pytest.raises(InputError, match=quoted):
        call()
