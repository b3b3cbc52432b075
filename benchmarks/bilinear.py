"""The sketch of bilinear pooling by one product against Fourier forms; Shih et al. against the closed form; PCA.

    python benchmarks/bilinear.py [--channels 512 2048] [--repeats 30] [--threads 1] [--out results/bilinear.json]
    OMP_NUM_THREADS=1 python benchmarks/bilinear.py --pca [--rows 1500 5000] [--dims 512 1024 2048 4096]

Medians and quartiles of single calls, after a warm-up, float32, a ReLU map of 24 by 32 cells pooled with its direct
co-occurrence tensor to 8192 numbers. The forms are timed in turn, a call of each per round, so that whatever else the
machine does meets all alike. The Fourier forms are the sketch of every cell, transformed, multiplied and

- summed over the cells before one inverse transform (the usual form at its cheapest);
- each transformed back before the sum, as much published code has it;
- summed as in the first, but 64 cells at a time, so that they stay in the cache.

With --pca, only that: fitting a whitening on random unit rows of 8192 numbers, in seconds, written beside what the
file holds. NumPy takes its threads from the environment.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from coocnet import ops
from coocnet.errors import WhiteningError
from coocnet.whitening import fit_pca, unit_rows
from machine import processor

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


def pca(counts: list[int], dims: list[int], repeats: int) -> dict[str, Any]:
    """The time of a fit by number of rows and of dimensions to keep, or the words in which it is refused."""
    of_rows: dict[str, Any] = {}
    for count in counts:
        rows = unit_rows(np.random.default_rng(0).standard_normal((count, ops.Sketch(1).dim), np.float32))
        of_rows[str(count)] = {str(dim): _fit_s(rows, dim, repeats) for dim in dims}
    return {
        "command": "python benchmarks/bilinear.py --pca",
        "repeats": repeats,
        "dim": ops.Sketch(1).dim,
        "threads": os.environ.get("OMP_NUM_THREADS", "not set"),
        "fit_s_by_rows_and_kept": of_rows,
        "processor": processor(),
        "numpy": np.__version__,
    }


def _fit_s(rows: np.ndarray, dim: int, repeats: int) -> Timing | str:
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        try:
            fit_pca(rows, dim=dim)
        except WhiteningError as error:
            return f"refused: {error}"
        times.append(time.perf_counter() - started)
    return _quartiles(times)


def relu_map(channels: int) -> Tensor:
    """One map of 24 by 32 cells, about a third of it active."""
    torch.manual_seed(0)
    return torch.relu(torch.randn(1, channels, 24, 32) - 0.5)


def poolings(channels: list[int], radius_cells: int, repeats: int, threads: int) -> dict[str, Any]:
    """The sketches and the co-occurrence after Shih et al., with the circumstances."""
    torch.set_num_threads(threads)
    with torch.inference_mode():
        return {
            "command": f"python benchmarks/bilinear.py --repeats {repeats} --threads {threads}",
            "cells": [24, 32],
            "dim": ops.Sketch(1).dim,
            "threads": threads,
            "sketch_by_channels": {str(count): sketches(count, repeats) for count in channels},
            "shih": shih(channels[0], radius_cells, max(1, repeats // 6)),
            "processor": processor(),
            "torch": torch.__version__,
        }


def main() -> None:
    """Measures, compares the results, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--channels", type=int, nargs="+", default=[512, 2048])
    parser.add_argument("--radius-cells", type=int, default=4)
    parser.add_argument("--repeats", type=int, help="30; of --pca 3")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("results/bilinear.json"))
    parser.add_argument("--pca", action="store_true", help="measure only the fit of a whitening")
    parser.add_argument("--rows", type=int, nargs="+", default=[1500, 5000])
    parser.add_argument("--dims", type=int, nargs="+", default=[512, 1024, 2048, 4096])
    given = parser.parse_args()
    before = json.loads(given.out.read_text()) if given.out.is_file() else {}
    if given.pca:
        result = {**before, "pca": pca(given.rows, given.dims, given.repeats or 3)}
    else:
        result = {**before, **poolings(given.channels, given.radius_cells, given.repeats or 30, given.threads)}
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
