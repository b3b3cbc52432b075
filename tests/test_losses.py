"""The losses against loops, their limits, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import reference_learning as reference
from coocnet import ops
from coocnet.errors import InputError
from coocnet.evaluate import average_precision

LOSSES = {
    "contrastive": (lambda *batch: ops.contrastive_loss(*batch, margin=0.9), reference.contrastive, 0.9),
    "triplet": (lambda *batch: ops.triplet_loss(*batch, margin=0.3), reference.triplet, 0.3),
    "softmax": (lambda *batch: ops.softmax_loss(*batch, temperature=0.2), reference.softmax, 0.2),
    "ap": (
        lambda *batch: ops.average_precision_loss(*batch, temperature=0.1),
        reference.smooth_average_precision,
        0.1,
    ),
}
each_loss = pytest.mark.parametrize("name", LOSSES)


def batch(seed: int, rows: int = 7, queries: int = 3):
    random = np.random.default_rng(seed)
    f = random.normal(size=(rows, 4))
    f /= np.linalg.norm(f, axis=1, keepdims=True)
    kinds = random.integers(0, 3, (queries, rows))  # right, wrong, neither
    asked = random.permutation(rows)[:queries]
    kinds[np.arange(queries), asked] = 2
    return torch.from_numpy(f), torch.from_numpy(asked), torch.from_numpy(kinds == 0), torch.from_numpy(kinds == 1)


@each_loss
@given(seed=st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_a_loss_equals_plain_loops(name: str, seed: int) -> None:
    loss, expected, number = LOSSES[name]
    made = batch(seed)
    assert float(loss(*made)) == pytest.approx(expected(*(one.numpy() for one in made), number), rel=1e-9, abs=1e-12)


@each_loss
def test_a_loss_has_the_gradient_of_its_value(name: str) -> None:
    rows, *masks = batch(3)
    rows.requires_grad_()
    assert torch.autograd.gradcheck(lambda f: LOSSES[name][0](f, *masks), (rows,))


@each_loss
def test_equal_rows_give_a_gradient_without_nan(name: str) -> None:
    rows = torch.ones(3, 4).div(2).requires_grad_()
    right = torch.tensor([[False, True, False]])
    loss = LOSSES[name][0](rows, torch.tensor([0]), right, ~right & torch.tensor([[False, True, True]]))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(rows.grad).all()


def test_at_a_low_temperature_the_listwise_loss_is_one_less_precision_at_the_right_rows() -> None:
    rows, asked, right, wrong = batch(8, rows=12, queries=4)
    precisions = []
    for at, query in enumerate(asked.tolist()):
        counted = torch.nonzero(right[at] | wrong[at]).flatten().tolist()
        order = sorted(counted, key=lambda other: -float(rows[query] @ rows[other]))
        hits = [bool(right[at, other]) for other in order]
        precisions.append(np.mean([sum(hits[: k + 1]) / (k + 1) for k in range(len(hits)) if hits[k]]))
    loss = ops.average_precision_loss(rows, asked, right, wrong, temperature=1e-6)
    assert float(loss) == pytest.approx(1 - np.mean(precisions), abs=1e-9)


def test_a_perfect_ranking_costs_nothing_by_the_listwise_loss_and_is_average_precision_one() -> None:
    rows = torch.tensor([[1.0, 0], [0.8, 0.6], [0, 1.0], [-0.6, 0.8]])
    right = torch.tensor([[False, True, False, False]])
    wrong = torch.tensor([[False, False, True, True]])
    assert float(ops.average_precision_loss(rows, torch.tensor([0]), right, wrong, temperature=1e-3)) < 1e-6
    from coocnet.evaluate import Truth

    assert average_precision([0, 1, 2, 3], Truth(frozenset([1]), frozenset([0]))) == 1


def test_wrong_rows_beyond_the_margin_count_nothing() -> None:
    rows = torch.tensor([[1.0, 0], [-1.0, 0]])
    none, wrong = torch.tensor([[False, False]]), torch.tensor([[False, True]])
    assert float(ops.contrastive_loss(rows, torch.tensor([0]), none, wrong, margin=1.9)) == 0
    assert float(ops.contrastive_loss(rows, torch.tensor([0]), none, wrong, margin=2.1)) > 0


@each_loss
def test_a_batch_without_right_rows_has_a_loss_with_a_gradient(name: str) -> None:
    rows, asked, right, wrong = batch(1)
    rows.requires_grad_()
    LOSSES[name][0](rows, asked, torch.zeros_like(right), wrong).backward()
    assert torch.isfinite(rows.grad).all()


@each_loss
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda f, q, r, w: (f[0], q, r, w), r"\(4,\)"),
        (lambda f, q, r, w: (f, q + 10, r, w), "among the 7 rows"),
        (lambda f, q, r, w: (f, q, r[:, :2], w), r"positive .* \(3, 2\)"),
        (lambda f, q, r, w: (f, q, r, w.int()), r"negative .*int32"),
    ],
    ids=["one row", "a position outside", "a mask of another shape", "a mask of numbers"],
)
def test_a_batch_that_does_not_fit_is_refused(name: str, change, says: str, unchecked) -> None:
    with pytest.raises(InputError, match=says):
        LOSSES[name][0](*change(*batch(0)))


@pytest.mark.parametrize("number", [0, -1.0, float("nan"), "wide"])
def test_a_margin_or_temperature_that_is_not_above_zero_is_refused(number, unchecked) -> None:
    for call in (ops.contrastive_loss, ops.triplet_loss):
        with pytest.raises(InputError, match="margin"):
            call(*batch(0), margin=number)
    for call in (ops.softmax_loss, ops.average_precision_loss):
        with pytest.raises(InputError, match="temperature"):
            call(*batch(0), temperature=number)
