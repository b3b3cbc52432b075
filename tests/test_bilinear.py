"""Bilinear pooling and its sketch: against loops, one form against the other, and what a sketch promises."""

from __future__ import annotations

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
    TOLERANCES,
    assert_near,
    batch_of,
    each_full_precision,
    each_half_precision,
    each_of_no_map,
    each_precision,
)

quick = settings(max_examples=15, deadline=None)
SKETCH = ops.Sketch(channels=3, dim=7, seed=5)


def second(a: np.ndarray, seed: int) -> np.ndarray:
    """Another map of the shape, of both signs, in eighths."""
    return np.random.default_rng(seed).integers(-20, 20, a.shape) / 8


def sketch_by_fft_in_parts(*args, **kwargs) -> Tensor:
    return ops.compact_bilinear_by_fft(*args, **kwargs, cells_at_once=3)


def sketch_by_fft_per_cell(*args, **kwargs) -> Tensor:
    return ops.compact_bilinear_by_fft(*args, **kwargs, inverse_per_cell=True)


FORMS = {
    "exact": ops.compact_bilinear,
    "fft": ops.compact_bilinear_by_fft,
    "fft in parts": sketch_by_fft_in_parts,
    "fft, inverse per cell": sketch_by_fft_per_cell,
}
each_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)

# ------------------------------------------------------------------------------------------- equations


@given(a=reference.feature_maps(), seed=st.integers(0, 100), weighted=st.booleans())
@quick
def test_bilinear_pooling_equals_plain_loops(a, seed, weighted) -> None:
    b, weights = second(a, seed), second(a[0], seed + 1) if weighted else None
    for dtype, tolerance in TOLERANCES.items():
        images, given_weights = batch_of(a, dtype=dtype), None if weights is None else batch_of(weights, dtype=dtype)
        row = ops.bilinear(images, batch_of(b, dtype=dtype), weights=given_weights)[0]
        assert_near(row, oracle.bilinear(a, b, weights), of_max=tolerance)
        assert_near(ops.bilinear(images, weights=given_weights)[0], oracle.bilinear(a, a, weights), of_max=tolerance)


@each_form
@given(
    a=reference.feature_maps(side=4),
    dim=st.sampled_from([1, 2, 8, 11]),
    seed=st.integers(0, 100),
    weighted=st.booleans(),
)
@quick
def test_the_sketch_equals_circular_convolutions_of_each_cell(form, a, dim, seed, weighted) -> None:
    sketch = ops.Sketch(len(a), dim, seed)
    functions = [values.numpy() for values in sketch.functions()]
    b, weights = second(a, seed), second(a[0], seed + 1) if weighted else None
    for other in (None, b):
        expected = oracle.tensor_sketch(a, a if other is None else b, functions, dim, weights)
        size = np.abs(oracle.bilinear(a, a if other is None else b, weights)).sum()  # entries may cancel in a place
        for dtype, tolerance in TOLERANCES.items():
            row = form(
                batch_of(a, dtype=dtype),
                None if other is None else batch_of(other, dtype=dtype),
                sketch=sketch,
                weights=None if weights is None else batch_of(weights, dtype=dtype),
            )[0]
            np.testing.assert_allclose(row.double(), expected, rtol=0, atol=tolerance * size)


@pytest.mark.parametrize(("channels", "dim", "side"), [(512, 8192, 6), (64, 101, 9), (2048, 8192, 2)], ids=str)
def test_the_exact_form_equals_the_form_by_fourier_transform(channels, dim, side) -> None:
    sketch = ops.Sketch(channels, dim)
    a = batch_of(reference.relu_map(channels, side, side), reference.relu_map(channels, side, side, seed=1)).float()
    exact = ops.compact_bilinear(a, a.flip(1), sketch=sketch)
    assert_near(ops.compact_bilinear_by_fft(a, a.flip(1), sketch=sketch), exact.numpy(), of_max=3e-6)


@given(row=st.lists(st.floats(-1e6, 1e6, allow_subnormal=False), min_size=1, max_size=6))
@quick
def test_a_signed_root_has_the_sign_of_the_entry_and_its_magnitude_squared_is_the_entrys(row) -> None:
    root = ops.signed_root(torch.tensor([row], dtype=torch.float64))[0]
    np.testing.assert_allclose(root, oracle.signed_root(np.array(row)), rtol=1e-12)


# ---------------------------------------------------------------------------------------- the sketch


def test_a_seed_names_the_same_sketch_forever() -> None:
    h1, s1, h2, s2 = ops.Sketch(channels=6).functions()
    assert h1.tolist() == [2732, 2607, 1653, 3264, 4931, 4859]
    assert s1.tolist() == [1, 1, 1, 1, 1, -1]
    assert h2.tolist() == [5924, 6743, 7238, 7640, 6744, 3468]
    assert s2.tolist() == [-1, 1, -1, 1, 1, -1]


def test_the_sketch_of_a_map_is_pinned() -> None:
    a = torch.arange(12, dtype=torch.float64).view(1, 3, 2, 2)
    assert ops.compact_bilinear(a, sketch=SKETCH).tolist() == PINNED


PINNED = [[-100.0, 0.0, -366.0, -176.0, -14.0, 214.0, 64.0]]


def test_sketches_of_the_same_numbers_are_equal_and_share_their_tables() -> None:
    again = ops.Sketch(3, 7, 5)
    assert again == SKETCH
    assert again.places() is SKETCH.places()


@pytest.mark.parametrize("fields", [(4, 7, 5), (3, 8, 5), (3, 7, 6)], ids=str)
def test_each_number_of_a_sketch_counts(fields) -> None:
    assert ops.Sketch(*fields) != SKETCH
    functions = torch.cat(ops.Sketch(*fields).functions())
    assert functions.tolist() != torch.cat(SKETCH.functions()).tolist()


def test_places_and_signs_are_spread_evenly() -> None:
    h1, s1, h2, s2 = ops.Sketch(channels=4096, dim=16).functions()
    for places, signs in ((h1, s1), (h2, s2)):
        assert places.bincount(minlength=16).float().sub(256).abs().max() < 5 * 256**0.5
        assert signs.abs().eq(1).all()
        assert abs(int(signs.sum())) < 5 * 64
    assert (h1 != h2).any()
    assert (s1 != s2).any()


@pytest.mark.slow
def test_a_sketch_keeps_inner_products_on_average() -> None:
    x, y = batch_of(reference.relu_map(4, 2, 3)), batch_of(reference.relu_map(4, 2, 3, seed=1))
    exact = float((ops.bilinear(x) * ops.bilinear(y)).sum())
    both = torch.cat([x, y])
    products = []
    for seed in range(800):
        rows = ops.compact_bilinear(both, sketch=ops.Sketch(channels=4, dim=8, seed=seed))
        products.append(float(rows[0] @ rows[1]))
    error = np.std(products) / len(products) ** 0.5
    assert error < 0.08 * exact
    assert abs(np.mean(products) - exact) < 3 * error


@pytest.mark.slow
def test_a_longer_sketch_keeps_inner_products_better() -> None:
    x, y = batch_of(reference.relu_map(6, 2, 3)), batch_of(reference.relu_map(6, 2, 3, seed=1))
    spread = []
    for dim in (8, 128):
        sketches = [ops.Sketch(channels=6, dim=dim, seed=seed) for seed in range(150)]
        products = [ops.compact_bilinear(x, sketch=s) @ ops.compact_bilinear(y, sketch=s).mT for s in sketches]
        spread.append(float(torch.stack(products).std()))
    assert spread[1] < spread[0] / 2.5  # a quarter on average


def test_a_sketch_first_used_without_gradients_serves_training_later() -> None:
    sketch = ops.Sketch(channels=3, dim=7, seed=123456)
    a = batch_of(reference.relu_map(3, 2, 2))
    with torch.inference_mode():
        for form in FORMS.values():
            form(a, sketch=sketch)
    for form in FORMS.values():
        (gradient,) = torch.autograd.grad(form(a.requires_grad_(), sketch=sketch).sum(), a)
        assert gradient.isfinite().all()


# -------------------------------------------------------------------------------- batches, types, edges

OPERATORS = {
    "bilinear": ops.bilinear,
    "bilinear of two": lambda a: ops.bilinear(a, a.flip(1)),
    "bilinear, weighted": lambda a: ops.bilinear(a, weights=a[:, 0]),
    "rooted": lambda a: ops.signed_root(ops.bilinear(a)),
    **{name: lambda a, form=form: form(a, sketch=ops.Sketch(a.shape[1], 32)) for name, form in FORMS.items()},
    "weighted sketch": lambda a: ops.compact_bilinear(a, a.flip(1), sketch=SKETCH_4, weights=a[:, 0]),
}
SKETCH_4 = ops.Sketch(4, 32)
each_operator = pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS)


@each_operator
@each_full_precision
def test_an_image_has_the_same_row_alone_and_beside_others(operator, dtype) -> None:
    dim = reference.relu_map(4, 6, 5)
    images = batch_of(dim, 100 * reference.relu_map(4, 6, 5, seed=1), 0 * dim, 1e-12 * dim, dtype=dtype)
    together = operator(images)
    for n in range(len(images)):
        assert_near(together[n : n + 1], operator(images[n : n + 1]).double().numpy(), of_max=TOLERANCES[dtype])


@each_operator
@each_half_precision
def test_a_half_precision_map_is_pooled_in_float32_and_returned_in_its_own_dtype(operator, dtype) -> None:
    half = batch_of(reference.relu_map(4, 24, 32), dtype=dtype)
    row = operator(half)
    assert row.dtype == dtype
    expected = operator(half.float())
    assert_near(row.float(), expected.numpy(), of_max=torch.finfo(dtype).eps)


@each_operator
@pytest.mark.parametrize("shape", [(2, 4, 1, 1), (1, 4, 1, 7), (2, 4, 6, 3)], ids=str)
def test_a_zero_map_gives_a_zero_row_and_a_finite_gradient(operator, shape) -> None:
    a = torch.zeros(shape, requires_grad=True)
    row = operator(a)
    (gradient,) = torch.autograd.grad(row.sum(), a)
    assert row.abs().max() < 1e-30
    assert gradient.isfinite().all()


@each_operator
def test_gradients_are_those_of_finite_differences(operator) -> None:
    a = np.random.default_rng(3).permutation(np.linspace(0.2, 2, 24)).reshape(4, 3, 2)
    assert torch.autograd.gradcheck(operator, (batch_of(a).requires_grad_(),))


def test_the_weights_have_the_gradient_of_finite_differences() -> None:
    a, weights = batch_of(reference.relu_map(3, 2, 2)), batch_of(reference.relu_map(2, 2, seed=1)).requires_grad_()
    assert torch.autograd.gradcheck(lambda w: ops.bilinear(a, weights=w), (weights,))
    assert torch.autograd.gradcheck(lambda w: ops.compact_bilinear(a, sketch=SKETCH, weights=w), (weights,))


@each_precision
def test_the_gradient_of_a_signed_root_is_zero_at_zero_and_finite_beside_it(dtype) -> None:
    rows = torch.tensor([[0.0, -0.0, 1e-7, -1e-7, 4.0]], dtype=dtype, requires_grad=True)
    (gradient,) = torch.autograd.grad(ops.signed_root(rows).sum(), rows)
    assert not gradient[0, :2].any()
    assert gradient.isfinite().all()
    assert gradient[0, 4] == 0.25


@each_operator
def test_no_images_give_no_rows(operator) -> None:
    row = operator(torch.rand(0, 4, 3, 3))
    assert row.shape == (0, operator(torch.rand(1, 4, 3, 3)).shape[1])


# ------------------------------------------------------------------------------------------- refusals

REFUSED = {
    "another map of another shape": (lambda: ops.bilinear(MAP, MAP[:, :2]), r"b .*\(1, 3, 4, 4\).*\(1, 2, 4, 4\)"),
    "another map of another type": (lambda: ops.compact_bilinear(MAP, MAP.double(), sketch=SKETCH), "b .*float64"),
    "another map that is an array": (lambda: ops.bilinear(MAP, MAP.numpy()), "b .*array"),
    "weights per channel": (lambda: ops.bilinear(MAP, weights=MAP), r"weights .*\(1, 4, 4\).*\(1, 3, 4, 4\)"),
    "weights of another type": (lambda: ops.bilinear(MAP, weights=MAP[:, 0].double()), "weights .*float64"),
    "weights elsewhere": (
        lambda: ops.compact_bilinear(MAP, sketch=SKETCH, weights=MAP[:, 0].to("meta")),
        "weights .*cpu.*meta",
    ),
    "weights of another size": (
        lambda: ops.compact_bilinear_by_fft(MAP, sketch=SKETCH, weights=MAP[:, 0, :2]),
        r"weights .*\(1, 2, 4\)",
    ),
    "a sketch for other channels": (
        lambda: ops.compact_bilinear(MAP, sketch=ops.Sketch(4)),
        r"channels=3.*Sketch\(channels=4",
    ),
    "no sketch": (lambda: ops.compact_bilinear_by_fft(MAP, sketch=8192), "got 8192"),
    "no cells at once": (
        lambda: ops.compact_bilinear_by_fft(MAP, sketch=SKETCH, cells_at_once=0),
        "cells_at_once .*got 0",
    ),
    "a sketch of no channels": (lambda: ops.Sketch(0), "channels .*got 0"),
    "a sketch of half a channel": (lambda: ops.Sketch(1.5), r"channels .*1\.5"),
    "a sketch of no length": (lambda: ops.Sketch(3, 0), "dim .*got 0"),
    "a length in words": (lambda: ops.Sketch(3, "8192"), "dim .*'8192'"),
    "a negative seed": (lambda: ops.Sketch(3, seed=-1), "seed .*-1"),
    "a seed of truth": (lambda: ops.Sketch(3, seed=True), "seed .*True"),
    "a seed beyond the generator's": (lambda: ops.Sketch(3, seed=2**32), "seed .*4294967296"),
    "rows that are a map": (lambda: ops.signed_root(MAP), r"rows .*\(1, 3, 4, 4\)"),
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("call", "quoted"), REFUSED.values(), ids=REFUSED)
def test_input_that_cannot_be_used_is_refused_and_quoted(call, quoted) -> None:
    with pytest.raises(InputError, match=quoted):
        call()


ON_ANYTHING = {"bilinear": ops.bilinear, **{n: lambda a, f=f: f(a, sketch=SKETCH) for n, f in FORMS.items()}}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("operator", ON_ANYTHING.values(), ids=ON_ANYTHING)
@each_of_no_map
def test_what_is_no_map_is_refused(operator, given, quoted) -> None:
    with pytest.raises(InputError, match=f"a map is .*{quoted}"):
        operator(given)
