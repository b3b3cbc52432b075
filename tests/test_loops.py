"""The compiled loops: equal to PyTorch on what they take, and out of the way of all the rest."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import reference
from coocnet import ops
from coocnet.ops import quick
from coocnet.poolings import POOLED_WITH, POOLED_WITH_SUMS, POOLINGS, map_cooccurrence
from coocnet.recipe import Recipe

pytest.importorskip("numba", reason="the compiled loops need: pip install 'coocnet[fast]'")

OPERATORS = {
    "cooccurrence": ops.direct_cooccurrence,
    "sums over channels": lambda a, **how: ops.direct_cooccurrence_sums(a, **how).cells,
    "sums over cells": lambda a, **how: ops.direct_cooccurrence_sums(a, **how).channels,
    "context": ops.context,
}
each_operator = pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS)
SHAPES = [(2, 1, 1), (3, 1, 9), (3, 9, 1), (5, 7, 10), (4, 24, 32), (3, 2, 33)]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the compiled loops that were called, in order."""
    called: list[str] = []
    loops = quick.compiled_loops()
    for name in ("total", "cooccurrence", "sums", "context"):

        def noted(*args: object, name: str = name, loop: object = getattr(loops, name)) -> object:
            called.append(name)
            return loop(*args)  # type: ignore[operator]

        monkeypatch.setattr(loops, name, noted)
    return called


def by_torch(operator, a: Tensor, **how: object) -> Tensor:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quick, "compiled_loops", lambda: None)
        return operator(a, **how)


def a_batch(shape: tuple[int, int, int], dtype: torch.dtype = torch.float32) -> Tensor:
    """Images of different brightness."""
    images = [reference.relu_map(*shape), 50 * reference.relu_map(*shape, seed=1) / 7, 0 * reference.relu_map(*shape)]
    return torch.from_numpy(np.stack(images)).to(dtype)


@each_operator
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("radius", [0, 1, 2, 3, 4, 5, 8, 13, 15])
def test_the_loops_give_what_pytorch_gives(operator, dtype, shape, radius, calls) -> None:
    a = a_batch(shape, dtype)
    found, expected = operator(a, radius_cells=radius), by_torch(operator, a, radius_cells=radius)
    assert len(calls) == 6  # for each of three images its mean, and the loop
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    off = 1e-5 if dtype == torch.float32 else 2 * torch.finfo(dtype).eps
    torch.testing.assert_close(found, expected, rtol=off, atol=1e-6 * float(expected.float().abs().max()))


@each_operator
@pytest.mark.parametrize("threshold", ["mean", 0.0, 1.5, ops.Quantile(0.8)], ids=str)
def test_the_loops_use_the_same_threshold(operator, threshold, calls) -> None:
    a = a_batch((5, 7, 10))
    how = {"radius_cells": 2, "threshold": threshold}
    torch.testing.assert_close(operator(a, **how), by_torch(operator, a, **how), rtol=1e-5, atol=1e-5)
    assert calls


@each_operator
def test_a_map_laid_out_in_another_way_is_taken_and_left_as_it_was(operator, calls) -> None:
    a = a_batch((5, 7, 10))
    views = [a.to(memory_format=torch.channels_last), a[:, ::2], a.transpose(2, 3), a[1:].expand(2, 5, 7, 10)]
    for view in [*views, torch._neg_view(a)]:
        before = view.clone()
        torch.testing.assert_close(operator(view, radius_cells=2), operator(before.contiguous(), radius_cells=2))
        assert torch.equal(view, before)
    assert len(calls) == 2 * 2 * (4 * 3 + 2)


def test_the_sums_are_those_of_the_tensor() -> None:
    a = a_batch((5, 7, 10))
    ct = ops.direct_cooccurrence(a, radius_cells=2)
    sums = ops.direct_cooccurrence_sums(a, radius_cells=2)
    torch.testing.assert_close(sums.cells, ct.sum(1), rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(sums.channels, ct.sum(dim=(2, 3)), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("pooling", POOLED_WITH_SUMS)
def test_a_pooling_from_the_sums_is_that_from_the_tensor(pooling) -> None:
    recipe, a = Recipe(pooling=pooling), a_batch((5, 7, 10))
    expected = POOLED_WITH[pooling](a, map_cooccurrence(a, recipe), recipe)
    torch.testing.assert_close(POOLINGS[pooling](a, recipe), expected, rtol=1e-4, atol=1e-6)


# ---------------------------------------------------------------------------------- what PyTorch keeps


@each_operator
def test_double_precision_stays_with_pytorch(operator, calls) -> None:
    assert operator(a_batch((3, 4, 5), torch.float64), radius_cells=1).dtype == torch.float64
    assert not calls


@each_operator
def test_a_map_that_needs_a_gradient_has_one(operator) -> None:
    a = a_batch((3, 4, 5)).requires_grad_()
    (gradient,) = torch.autograd.grad(operator(a, radius_cells=1).sum(), a)
    assert gradient.any()


@each_operator
def test_without_gradients_a_parameter_is_as_any_map(operator) -> None:
    a = torch.nn.Parameter(a_batch((3, 4, 5)))
    with torch.no_grad():
        assert torch.equal(operator(a, radius_cells=1), by_torch(operator, a, radius_cells=1))


@each_operator
@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_a_forward_derivative_is_that_of_a_finite_difference(operator) -> None:
    a, step = a_batch((3, 4, 5)), torch.ones(3, 3, 4, 5)
    moved = lambda h: operator(a + h * step, radius_cells=1)  # noqa: E731
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(a, step)
        tangent = torch.autograd.forward_ad.unpack_dual(operator(dual, radius_cells=1)).tangent
    torch.testing.assert_close(tangent, (moved(0.5) - moved(-0.5)), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(torch.func.jvp(lambda x: operator(x, radius_cells=1), (a,), (step,))[1], tangent)


@each_operator
@pytest.mark.usefixtures("unchecked")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_a_trace_computes_anew_on_another_map(operator) -> None:
    first, second = a_batch((3, 4, 5)), a_batch((3, 4, 5)).flip(1) * 2
    traced = torch.jit.trace(lambda a: operator(a, radius_cells=1), (first,), check_trace=False)
    torch.testing.assert_close(traced(second), operator(second, radius_cells=1))


@each_operator
@pytest.mark.usefixtures("unchecked")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_it_can_be_compiled_without_a_break(operator) -> None:
    compiled = torch.compile(lambda a: operator(a, radius_cells=1), backend="eager", fullgraph=True)
    a = a_batch((3, 4, 5))
    torch.testing.assert_close(compiled(a), operator(a, radius_cells=1))


@each_operator
def test_where_tensors_are_made_on_another_device_the_map_stays_on_its_own(operator) -> None:
    a = a_batch((3, 4, 5))
    with torch.device("meta"):
        elsewhere = operator(a, radius_cells=1)
    torch.testing.assert_close(elsewhere, operator(a, radius_cells=1))


@each_operator
def test_a_mode_of_pytorch_sees_the_operations(operator, calls) -> None:
    with FlopCounterMode(display=False) as counted:
        operator(a_batch((3, 4, 5)), radius_cells=1)
    assert counted.get_total_flops() > 0
    assert not calls


@each_operator
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_map_that_is_not_finite_is_treated_as_pytorch_does(operator, value) -> None:
    a = a_batch((3, 4, 5))
    a[0, 1, 2, 3] = value
    found, expected = operator(a, radius_cells=1), by_torch(operator, a, radius_cells=1)
    torch.testing.assert_close(found, expected, equal_nan=True, rtol=0, atol=0)


@each_operator
def test_a_radius_beyond_that_of_the_loops_stays_with_pytorch(operator, calls) -> None:
    operator(a_batch((3, 4, 5)), radius_cells=16)
    assert not calls


@each_operator
def test_where_the_compiler_fails_pytorch_computes_and_it_is_said_once(operator, monkeypatch) -> None:
    a = a_batch((3, 4, 5))
    expected = operator(a, radius_cells=1)
    tried = []

    def fails(*_: object) -> None:
        tried.append(1)
        raise EOFError("ran out of input")

    monkeypatch.setattr(quick, "_gave_up", threading.Event())
    monkeypatch.setattr(quick.compiled_loops(), "total", fails)
    with pytest.warns(RuntimeWarning, match=r"ran out of input.*NUMBA_CACHE_DIR"):
        torch.testing.assert_close(operator(a, radius_cells=1), expected)
    torch.testing.assert_close(operator(a, radius_cells=1), expected)
    assert len(tried) == 1


def test_a_compiler_whose_lock_a_failure_left_taken_is_free_for_other_threads(monkeypatch) -> None:
    from numba.core.compiler_lock import global_compiler_lock

    def fails(*_: object) -> None:
        global_compiler_lock.acquire()
        raise MemoryError

    monkeypatch.setattr(quick, "_gave_up", threading.Event())
    monkeypatch.setattr(quick.compiled_loops(), "total", fails)
    with ThreadPoolExecutor(1) as thread:
        with pytest.warns(RuntimeWarning, match="cannot be used"):
            thread.submit(ops.direct_cooccurrence, a_batch((3, 4, 5)), radius_cells=1).result()
        assert global_compiler_lock._lock.acquire(timeout=5)
    global_compiler_lock._lock.release()


@each_operator
def test_a_map_that_is_made_functional_has_its_result(operator) -> None:
    a = a_batch((3, 4, 5))
    functional = torch.func.functionalize(lambda x: operator(x, radius_cells=1, threshold=0.5))
    torch.testing.assert_close(functional(a), operator(a, radius_cells=1, threshold=0.5))


@each_operator
def test_a_threshold_beyond_all_floats_leaves_nothing_active(operator) -> None:
    a = a_batch((3, 4, 5))
    assert not operator(a, radius_cells=1, threshold=1e39).any()
    assert not operator(a.bfloat16(), radius_cells=1, threshold=1e39).any()


@pytest.mark.slow
@pytest.mark.parametrize(
    "start",
    ["import sys; sys.modules['numba'] = None", "import os; os.environ['NUMBA_DISABLE_JIT'] = '1'"],
    ids=["no numba", "numba told not to compile"],
)
def test_without_the_compiler_everything_is_there(start) -> None:
    asked = (
        f"{start}\nimport torch\nfrom coocnet import ops\nfrom coocnet.ops import quick\n"
        "assert quick.compiled_loops() is None\n"
        "print(ops.direct_cooccurrence(torch.ones(1, 2, 3, 3), radius_cells=1, threshold=0)[0, 0].sum().item())"
    )
    ran = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=False)
    assert (ran.stdout.strip(), ran.returncode) == ("49.0", 0), ran.stderr
