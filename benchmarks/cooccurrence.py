"""Direct co-occurrence in closed form against the dense convolution it equals, in one run.

    python benchmarks/cooccurrence.py [--channels 512] [--repeats 30] [--threads 1] [--out results/cooccurrence.json]

Medians and quartiles of single calls, after a warm-up, float32, a ReLU map of 24 by 32 cells. Both sides start from
the map and end with the co-occurrence tensor: threshold, mask and division are counted on both.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from coocnet import ops


def measure_ms(run: Callable[[], Tensor], repeats: int) -> dict[str, float]:
    """Quartiles of the time of one call."""
    run()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        run()
        times.append(1e3 * (time.perf_counter() - started))
    low, median, high = np.percentile(times, [25, 50, 75])
    return {"median": round(float(median), 3), "q25": round(float(low), 3), "q75": round(float(high), 3)}


def processor() -> str:
    """The processor's name as the system gives it."""
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def main() -> None:
    """Measures, compares the results, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--channels", type=int, default=512)
    parser.add_argument("--radius-cells", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("results/cooccurrence.json"))
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    a = torch.relu(torch.randn(1, given.channels, 24, 32) - 0.5)
    weight = ops.direct_filter(given.channels, radius_cells=given.radius_cells)

    def direct() -> Tensor:
        return ops.direct_cooccurrence(a, radius_cells=given.radius_cells)

    def dense() -> Tensor:
        return ops.filtered_cooccurrence(a, weight)

    with torch.inference_mode():
        difference = float((direct() - dense()).abs().max() / dense().max())
        closed = measure_ms(direct, given.repeats * 10)
        convolution = measure_ms(dense, given.repeats)
    result = {
        "command": f"python benchmarks/cooccurrence.py --channels {given.channels} --threads {given.threads}",
        "map": [1, given.channels, 24, 32],
        "radius_cells": given.radius_cells,
        "threads": given.threads,
        "closed_form_ms": closed,
        "dense_convolution_ms": convolution,
        "ratio_of_medians": round(convolution["median"] / closed["median"], 1),
        "largest_difference_relative_to_maximum": difference,
        "processor": processor(),
        "torch": torch.__version__,
    }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
