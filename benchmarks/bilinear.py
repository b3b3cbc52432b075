"""The sketch of bilinear pooling by one product against Fourier forms; and Shih et al. against the closed form.

    python benchmarks/bilinear.py [--channels 512 2048] [--repeats 30] [--threads 1] [--out results/bilinear.json]

Medians and quartiles of single calls, after a warm-up, float32, a ReLU map of 24 by 32 cells pooled with its direct
co-occurrence tensor to 8192 numbers. The forms are timed in turn, a call of each per round, so that whatever else the
machine does meets all alike. The Fourier forms are the sketch of every cell, transformed, multiplied and

- summed over the cells before one inverse transform (the usual form at its cheapest);
- each transformed back before the sum, as much published code has it;
- summed as in the first, but 64 cells at a time, so that they stay in the cache.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cooccurrence import processor
from coocnet import ops

Timing = dict[str, float]


def measure_in_turn_ms(runs: dict[str, Callable[[], Tensor]], repeats: int) -> dict[str, Timing]:
    """Quartiles of the time of one call of each."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for round_ in range(repeats + 1):
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            if round_:  # the first warms up
                times[name].append(1e3 * (time.perf_counter() - started))
    return {name: _quartiles(values) for name, values in times.items()}


def _quartiles(times: list[float]) -> Timing:
    low, median, high = np.percentile(times, [25, 50, 75])
    return {"median": round(float(median), 3), "q25": round(float(low), 3), "q75": round(float(high), 3)}


def sketches(channels: int, repeats: int) -> dict[str, Any]:
    """All forms of the sketch of one map."""
    a = relu_map(channels)
    ct = ops.direct_cooccurrence(a, radius_cells=4)
    sketch = ops.Sketch(channels)
    runs: dict[str, Callable[[], Tensor]] = {
        "exact_ms": lambda: ops.compact_bilinear(a, ct, sketch=sketch),
        "fft_ms": lambda: ops.compact_bilinear_by_fft(a, ct, sketch=sketch),
        "fft_inverse_per_cell_ms": lambda: ops.compact_bilinear_by_fft(a, ct, sketch=sketch, inverse_per_cell=True),
        "fft_64_cells_at_once_ms": lambda: ops.compact_bilinear_by_fft(a, ct, sketch=sketch, cells_at_once=64),
    }
    rows = {name: run() for name, run in runs.items()}
    exact = rows.pop("exact_ms")
    measured = measure_in_turn_ms(runs, repeats)
    ratios = {name: round(measured[name]["median"] / measured["exact_ms"]["median"], 1) for name in rows}
    differences = {name: float((row - exact).abs().max() / exact.abs().max()) for name, row in rows.items()}
    return {
        **measured,
        "ratio_of_medians_to_exact": {name.removesuffix("_ms"): ratio for name, ratio in ratios.items()},
        "largest_difference_relative_to_maximum": max(differences.values()),
    }


def shih(channels: int, radius_cells: int, repeats: int) -> dict[str, Any]:
    """The tensor after Shih et al. against the direct co-occurrence tensor."""
    a = relu_map(channels)
    measured = measure_in_turn_ms(
        {
            "shih_tensor_ms": lambda: ops.shih_tensor(a, radius_cells=radius_cells),
            "shih_vector_ms": lambda: ops.shih_vector(a, radius_cells=radius_cells),
        },
        repeats,
    )
    direct = {"direct_cooccurrence_ms": lambda: ops.direct_cooccurrence(a, radius_cells=radius_cells)}
    measured |= measure_in_turn_ms(direct, 20 * repeats)
    ratio = measured["shih_tensor_ms"]["median"] / measured["direct_cooccurrence_ms"]["median"]
    return {**measured, "channels": channels, "radius_cells": radius_cells, "ratio_of_medians": round(ratio, 1)}


def relu_map(channels: int) -> Tensor:
    """One map of 24 by 32 cells, about a third of it active."""
    torch.manual_seed(0)
    return torch.relu(torch.randn(1, channels, 24, 32) - 0.5)


def main() -> None:
    """Measures, compares the results, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--channels", type=int, nargs="+", default=[512, 2048])
    parser.add_argument("--radius-cells", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("results/bilinear.json"))
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    with torch.inference_mode():
        result = {
            "command": f"python benchmarks/bilinear.py --repeats {given.repeats} --threads {given.threads}",
            "cells": [24, 32],
            "dim": ops.Sketch(1).dim,
            "threads": given.threads,
            "sketch_by_channels": {str(channels): sketches(channels, given.repeats) for channels in given.channels},
            "shih": shih(given.channels[0], given.radius_cells, max(1, given.repeats // 6)),
            "processor": processor(),
            "torch": torch.__version__,
        }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
