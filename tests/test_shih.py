"""Co-occurrence after Shih et al.: against loops over offsets, and what blocks and symmetry promise."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import reference
import reference_second_order as oracle
from coocnet import ops
from coocnet.errors import InputError
from maps import MAP, TOLERANCES, assert_near, batch_of, each_full_precision, each_half_precision, each_of_no_map

quick = settings(max_examples=20, deadline=None)
SMALL = reference.feature_maps(channels=3, side=4)
SIGNED = SMALL.map(lambda a: a - 1)


FORMS = {"vector": (ops.shih_vector, oracle.shih_vector), "tensor": (ops.shih_tensor, oracle.shih_tensor)}
OPERATORS = {name: lambda a, form=form: form(a, radius_cells=2) for name, (form, _) in FORMS.items()}
each_operator = pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS)

# ------------------------------------------------------------------------------------------- equations


@pytest.mark.parametrize(("form", "loops"), FORMS.values(), ids=FORMS)
@given(a=st.one_of(SMALL, SIGNED), radius=st.integers(0, 5), block=st.sampled_from([1, 2, 128]))
@quick
def test_vector_and_tensor_equal_plain_loops(form, loops, a, radius, block) -> None:
    # Sums of products of eighths are exact, so ties between offsets are ties here too.
    expected = loops(a, radius)
    for dtype, tolerance in TOLERANCES.items():
        assert_near(form(batch_of(a, dtype=dtype), radius_cells=radius, block=block)[0], expected, of_max=tolerance)


@pytest.mark.parametrize(("form", "loops"), FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("shape", [(2, 1, 1), (3, 1, 6), (3, 6, 1), (4, 3, 5)], ids=str)
@pytest.mark.parametrize("radius", [0, 1, 4, 7])
def test_vector_and_tensor_equal_plain_loops_on_values_that_need_rounding(form, loops, shape, radius) -> None:
    a = reference.relu_map(*shape)
    assert_near(form(batch_of(a), radius_cells=radius)[0], loops(a, radius), of_max=1e-12)


@given(a=st.one_of(SMALL, SIGNED), radius=st.integers(0, 3))
@quick
def test_the_pairs_are_symmetric_so_that_the_row_holds_each_once(a, radius) -> None:
    matrix = oracle.shih_matrix(a, radius)
    np.testing.assert_array_equal(matrix, matrix.T)
    row = ops.shih_vector(batch_of(a), radius_cells=radius)[0]
    np.testing.assert_array_equal(row, matrix[np.triu_indices(len(a))])


@given(a=st.one_of(SMALL, SIGNED), radius=st.integers(0, 5))
@quick
def test_the_tensor_sums_over_the_cells_to_the_rows_of_the_matrix(a, radius) -> None:
    matrix = oracle.shih_matrix(a, radius)
    tensor = ops.shih_tensor(batch_of(a), radius_cells=radius)[0]
    np.testing.assert_array_equal(tensor.sum(dim=(1, 2)), matrix.sum(1))


def test_among_equal_offsets_the_first_from_the_top_left_is_taken() -> None:
    a = torch.zeros(1, 2, 3, 3)
    a[0, 0, 1, 1] = 1
    a[0, 1] = torch.tensor([[0.0, 2, 0], [2, 0, 2], [0, 2, 0]])
    tensor = ops.shih_tensor(a, radius_cells=1)[0]
    assert tensor[0].nonzero().tolist() == [[1, 1]]
    # (1, 0) meets the same four values at four offsets; (-1, 0), the first, has the lower cell on the middle one.
    assert tensor[1].sub(torch.tensor([[0.0, 4, 0], [4, 0, 4], [0, 4, 0]])).nonzero().tolist() == [[2, 1]]


def test_the_largest_correlation_is_found_at_the_offset_between_two_shapes() -> None:
    a = torch.zeros(1, 2, 6, 7)
    a[0, 0, 1:3, 1:4] = torch.tensor([[1.0, 2, 3], [4, 5, 6]])
    a[0, 1, 3:5, 2:5] = torch.tensor([[1.0, 2, 3], [4, 5, 6]])
    assert ops.shih_vector(a, radius_cells=2).tolist() == [[91, 91, 91]]
    assert ops.shih_vector(a, radius_cells=1)[0, 1] < 91


def test_where_only_leaving_the_map_is_better_than_a_negative_correlation_the_pair_is_zero() -> None:
    a = torch.tensor([1.0, -2.0]).view(1, 2, 1, 1)
    assert ops.shih_vector(a, radius_cells=0).tolist() == [[1, -2, 4]]
    assert ops.shih_vector(a, radius_cells=1).tolist() == [[1, 0, 4]]
    assert ops.shih_tensor(a, radius_cells=0).flatten().tolist() == [-1, 2]
    assert ops.shih_tensor(a, radius_cells=1).flatten().tolist() == [1, 4]


def test_reducing_channels_is_a_matrix_product_at_every_cell() -> None:
    a, rng = reference.relu_map(4, 3, 2), np.random.default_rng(0)
    weight, bias = rng.normal(size=(2, 4)), rng.normal(size=2)
    expected = np.zeros((2, 3, 2))
    for m, k, i, j in np.ndindex(2, 4, 3, 2):
        expected[m, i, j] += weight[m, k] * a[k, i, j]
    torch_weight, torch_bias = torch.from_numpy(weight), torch.from_numpy(bias)
    assert_near(ops.reduce_channels(batch_of(a), torch_weight)[0], expected, of_max=1e-12)
    with_bias = ops.reduce_channels(batch_of(a), torch_weight, torch_bias)[0]
    assert_near(with_bias, expected + bias[:, None, None], of_max=1e-12)


# ---------------------------------------------------------------------------------------------- memory


class Largest(TorchDispatchMode):
    """Notes how many numbers the largest tensor holds that is made within."""

    numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for made in result if isinstance(result, tuple | list) else [result]:
            if isinstance(made, Tensor):
                self.numbers = max(self.numbers, made.numel())
        return result


@each_operator
def test_no_tensor_is_made_for_all_pairs_times_cells_or_offsets(operator) -> None:
    a = torch.rand(1, 64, 9, 10)
    with Largest() as largest:
        operator(a)
    assert largest.numbers <= max(64 * 64, 64 * (9 + 6) * (10 + 2))


@pytest.mark.parametrize("form", [ops.shih_vector, ops.shih_tensor])
def test_training_does_not_remember_every_offset(form) -> None:
    saved = []
    a = torch.rand(1, 64, 5, 5, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x.numel()) or x, lambda x: x):
        row = form(a, radius_cells=2, block=16)
    assert sum(saved) < 64 * 64 * 10
    row.sum().backward()
    assert a.grad.isfinite().all()


# -------------------------------------------------------------------------------- batches, types, edges


@each_operator
@each_full_precision
def test_an_image_has_the_same_result_alone_and_beside_others(operator, dtype) -> None:
    dim = reference.relu_map(4, 6, 5)
    images = batch_of(dim, 100 * reference.relu_map(4, 6, 5, seed=1), 0 * dim, 1e-12 * dim, dtype=dtype)
    together = operator(images)
    for n in range(len(images)):
        assert_near(together[n : n + 1], operator(images[n : n + 1]).double().numpy(), of_max=TOLERANCES[dtype])


@each_operator
@each_half_precision
def test_a_half_precision_map_is_computed_in_float32_and_returned_in_its_own_dtype(operator, dtype) -> None:
    half = batch_of(reference.relu_map(6, 9, 8) / 3, dtype=dtype)
    result = operator(half)
    assert result.dtype == dtype
    torch.testing.assert_close(result.float(), operator(half.float()), rtol=torch.finfo(dtype).eps, atol=0)
    weight = torch.rand(2, 6).to(dtype)
    reduced = ops.reduce_channels(half, weight)
    assert reduced.dtype == dtype
    expected = ops.reduce_channels(half.float(), weight.float())
    torch.testing.assert_close(reduced.float(), expected, rtol=torch.finfo(dtype).eps, atol=0)


@each_operator
@pytest.mark.parametrize("shape", [(2, 3, 1, 1), (1, 1, 1, 7), (2, 3, 6, 3)], ids=str)
def test_a_zero_map_gives_zeros_and_a_finite_gradient(operator, shape) -> None:
    a = torch.zeros(shape, requires_grad=True)
    result = operator(a)
    (gradient,) = torch.autograd.grad(result.sum(), a)
    assert not result.any()
    assert gradient.isfinite().all()


@each_operator
def test_a_constant_map_has_a_finite_result_and_gradient(operator) -> None:
    a = torch.full((1, 3, 4, 5), 0.1, requires_grad=True)
    result = operator(a)
    (gradient,) = torch.autograd.grad(result.sum(), a)
    assert result.isfinite().all()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("form", [ops.shih_vector, ops.shih_tensor])
@pytest.mark.parametrize("radius", [1, 4])
def test_gradients_are_those_of_finite_differences(form, radius) -> None:
    a = np.random.default_rng(3).permutation(np.linspace(0.2, 2, 24)).reshape(3, 4, 2)
    images = batch_of(a).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: form(x, radius_cells=radius, block=2), (images,))


@each_operator
def test_no_images_give_no_result(operator) -> None:
    assert operator(torch.rand(0, 3, 4, 4)).shape == (0, *operator(torch.rand(1, 3, 4, 4)).shape[1:])


@each_operator
def test_a_radius_beyond_all_numbers_is_the_whole_map(operator) -> None:
    a = torch.rand(1, 3, 3, 4)
    for form in (ops.shih_vector, ops.shih_tensor):
        assert torch.equal(form(a, radius_cells=10**30), form(a, radius_cells=4))


# ------------------------------------------------------------------------------------------- refusals

REFUSED = {
    "a negative radius": (lambda: ops.shih_vector(MAP, radius_cells=-1), "radius_cells .*-1"),
    "a radius between cells": (lambda: ops.shih_tensor(MAP, radius_cells=1.5), r"radius_cells .*1\.5"),
    "no block": (lambda: ops.shih_vector(MAP, radius_cells=1, block=0), "block .*got 0"),
    "a block in words": (lambda: ops.shih_tensor(MAP, radius_cells=1, block="all"), "block .*'all'"),
    "a weight for other channels": (lambda: ops.reduce_channels(MAP, torch.ones(2, 4)), r"weight .*\(2, 4\)"),
    "a weight to nothing": (lambda: ops.reduce_channels(MAP, torch.ones(0, 3)), r"weight .*\(0, 3\)"),
    "a weight with four axes": (lambda: ops.reduce_channels(MAP, torch.ones(2, 3, 1, 1)), r"\(2, 3, 1, 1\)"),
    "a weight of another type": (lambda: ops.reduce_channels(MAP, torch.ones(2, 3).double()), "weight .*float64"),
    "a bias for other channels": (
        lambda: ops.reduce_channels(MAP, torch.ones(2, 3), torch.ones(3)),
        r"bias .*\(2\).*\(3,\)",
    ),
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("call", "quoted"), REFUSED.values(), ids=REFUSED)
def test_input_that_cannot_be_used_is_refused_and_quoted(call, quoted) -> None:
    with pytest.raises(InputError, match=quoted):
        call()


ON_ANYTHING = {**OPERATORS, "reduced": lambda a: ops.reduce_channels(a, torch.ones(2, 3))}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("operator", ON_ANYTHING.values(), ids=ON_ANYTHING)
@each_of_no_map
def test_what_is_no_map_is_refused(operator, given, quoted) -> None:
    with pytest.raises(InputError, match=f"a map is .*{quoted}"):
        operator(given)
