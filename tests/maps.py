"""What the tests of the operators share: maps, types with their tolerances, and what is no map."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5}
HALF = [torch.float16, torch.bfloat16]
each_full_precision = pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
each_half_precision = pytest.mark.parametrize("dtype", HALF, ids=str)
each_precision = pytest.mark.parametrize("dtype", [*TOLERANCES, *HALF], ids=str)

MAP = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
NO_MAPS = {
    "three axes": (MAP[0], r"\(3, 4, 4\)"),
    "five axes": (MAP[None], r"\(1, 1, 3, 4, 4\)"),
    "whole numbers": (MAP.int(), "int32"),
    "no channel": (MAP[:, :0], r"\(1, 0, 4, 4\)"),
    "no row": (MAP[:, :, :0], r"\(1, 3, 0, 4\)"),
    "no column": (MAP[:, :, :, :0], r"\(1, 3, 4, 0\)"),
    "an array": (MAP.numpy(), "array"),
    "nothing": (None, "None"),
}
"""What every operator refuses, with the words in which the error quotes it."""
each_of_no_map = pytest.mark.parametrize(("given", "quoted"), NO_MAPS.values(), ids=NO_MAPS)


def _one_active_channel() -> Tensor:
    a = torch.zeros(1, 3, 4, 5)
    a[:, 1] = torch.arange(20.0).view(4, 5)
    return a


def _one_active_cell() -> Tensor:
    a = torch.zeros(1, 3, 4, 5)
    a[:, :, 2, 3] = torch.tensor([1.0, 2.0, 3.0])
    return a


SPARSE_MAPS = {
    "all zero": torch.zeros(1, 3, 4, 5),
    "one zero cell": torch.zeros(1, 3, 1, 1),
    "constant": torch.full((1, 3, 4, 5), 0.1),
    "one active channel": _one_active_channel(),
    "one active cell": _one_active_cell(),
    "one cell": torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1),
    "one row": torch.arange(12.0).view(1, 3, 1, 4),
    "one column, faint": torch.arange(12.0).view(1, 3, 4, 1) * 1e-20,
}


def batch_of(*maps: np.ndarray, dtype: torch.dtype = torch.float64) -> Tensor:
    """Maps (d, h, w) of one shape as (b, d, h, w)."""
    return torch.stack([torch.from_numpy(a) for a in maps]).to(dtype)


def assert_near(actual: Tensor, expected: np.ndarray, *, of_max: float) -> None:
    """Equal to a share of the largest entry."""
    np.testing.assert_allclose(actual.double().numpy(), expected, rtol=0, atol=of_max * np.abs(expected).max())
