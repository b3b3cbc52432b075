"""Table 6 on this machine: direct co-occurrence against Shih et al., in one process."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from coocnet import ops
from coocnet.reproduce.published import Timing

_RADIUS_CELLS = 4
_REPEATS = 20
_LONG_S = 1.0
_BUDGET_S = 120.0


@dataclass(frozen=True)
class Measured:
    """Milliseconds of one call, medians; None where a call would have taken too long.

    Attributes:
        of: the row of the paper's table.
        direct_ms: one tensor.
        shih_ms: one tensor.
        direct_five_ms: five tensors together.
        shih_five_ms: five tensors together.
    """

    of: Timing
    direct_ms: float
    shih_ms: float | None
    direct_five_ms: float
    shih_five_ms: float | None


def measure(row: Timing, *, budget_s: float = _BUDGET_S) -> Measured:
    """Times both on maps as a ReLU leaves them, half of the entries zero, with r = 4, float32, on the processor.

    Medians of 20 calls; of one where a call takes longer than a second. Shih et al.'s time grows with the square of
    the channels: what would take longer than the budget, judged by a quarter of the channels, is left out.

    Args:
        row: sizes.
        budget_s: for one call of Shih et al.
    """
    generator = torch.Generator().manual_seed(0)
    five = torch.randn((5, row.channels, row.height, row.width), generator=generator).relu_()
    one = five[:1].contiguous()
    quarter = one[:, : max(1, row.channels // 4)].contiguous()
    expected_s = 16 * _median_ms(lambda: _shih(quarter)) / 1e3
    return Measured(
        row,
        _median_ms(lambda: _direct(one)),
        _median_ms(lambda: _shih(one)) if expected_s <= budget_s else None,
        _median_ms(lambda: _direct(five)),
        _median_ms(lambda: _shih(five)) if 5 * expected_s <= budget_s else None,
    )


def _direct(a: torch.Tensor) -> torch.Tensor:
    return ops.direct_cooccurrence(a, radius_cells=_RADIUS_CELLS)


def _shih(a: torch.Tensor) -> torch.Tensor:
    return ops.shih_tensor(a, radius_cells=_RADIUS_CELLS)


def _median_ms(run: Callable[[], torch.Tensor]) -> float:
    times = [_seconds(run)]
    if times[0] < _LONG_S:
        times = [_seconds(run) for _ in range(_REPEATS)]
    return 1e3 * statistics.median(times)


def _seconds(run: Callable[[], torch.Tensor]) -> float:
    with torch.inference_mode():
        started = time.perf_counter()
        run()
        return time.perf_counter() - started
