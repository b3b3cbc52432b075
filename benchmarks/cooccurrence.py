"""Direct co-occurrence against the dense convolution it equals, and against Shih et al. (Table 6 of the paper).

    python benchmarks/cooccurrence.py [--out results/cooccurrence.json] [--threads 1] [--rounds 5]
    python benchmarks/cooccurrence.py --memory compiled --channels 2048 --batch 5

Maps of 24 by 32 cells as a ReLU leaves them, r = 4. Every side starts from the map and ends with the tensor:
threshold, mask and division count on all. The second form prints by how many copies of the map one call of a side
lets this process grow, its result included; the first one asks for it in processes of their own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor

from coocnet import ops
from coocnet.ops import quick
from machine import in_turn, recorded

RADIUS_CELLS = 4
RANK = 32
SLOW = ("dense convolution", "dense convolution, bfloat16", "Shih et al.")
CASES = [(512, 1), (512, 5), (2048, 1), (2048, 5)]


def sides(a: Tensor) -> dict[str, Callable[[], object]]:
    """What is timed on one map in float32."""
    d = a.shape[1]
    half = a.bfloat16()
    weight = ops.direct_filter(d, radius_cells=RADIUS_CELLS)
    half_weight = weight.bfloat16().contiguous(memory_format=torch.channels_last)
    lying = half.contiguous(memory_format=torch.channels_last)
    factors = {
        "out_factors": torch.randn(d, RANK),
        "in_factors": torch.randn(d, RANK),
        "windows": torch.randn(RANK, 2 * RADIUS_CELLS + 1, 2 * RADIUS_CELLS + 1),
        "own_factors": torch.ones(d),
    }
    return {
        "copy of the map": a.clone,
        "compiled": lambda: ops.direct_cooccurrence(a, radius_cells=RADIUS_CELLS),
        "compiled, bfloat16": lambda: ops.direct_cooccurrence(half, radius_cells=RADIUS_CELLS),
        "compiled, sums only": lambda: ops.direct_cooccurrence_sums(a, radius_cells=RADIUS_CELLS),
        "PyTorch": by_pytorch(lambda: ops.direct_cooccurrence(a, radius_cells=RADIUS_CELLS)),
        "factorised filter": lambda: ops.factorised_cooccurrence(a, **factors),
        "dense convolution": lambda: ops.filtered_cooccurrence(a, weight),
        "dense convolution, bfloat16": lambda: torch.nn.functional.conv2d(lying, half_weight, padding=RADIUS_CELLS),
        "Shih et al.": lambda: ops.shih_tensor(a, radius_cells=RADIUS_CELLS),
    }


def by_pytorch(run: Callable[[], object]) -> Callable[[], object]:
    """The same without the compiled loops."""

    def called() -> object:
        with without_loops():
            return run()

    return called


def without_loops() -> AbstractContextManager[object]:
    """Within it the operators compute as where numba is not installed."""
    return mock.patch.object(quick, "compiled_loops", return_value=None)


def measured(channels: int, batch: int, rounds: int) -> dict[str, object]:
    """Times of all sides on one size of map, and how far the compiled result is from the convolution's."""
    a = torch.relu(torch.randn(batch, channels, 24, 32) - 0.5)
    timed = sides(a)
    results = {name: run() for name, run in timed.items() if name in {"compiled", "dense convolution"}}
    ours, dense = results["compiled"], results["dense convolution"]
    assert isinstance(ours, Tensor)
    assert isinstance(dense, Tensor)
    for name in timed.keys() - {*SLOW, *results}:
        timed[name]()
    quick_sides = {name: run for name, run in timed.items() if name not in SLOW}
    # The slow ones are timed between two halves of the turns of the others.
    times = in_turn(quick_sides, rounds=rounds)
    slow = in_turn({name: timed[name] for name in SLOW}, rounds=1 if channels * batch > 2048 else min(rounds, 3))
    again = in_turn(quick_sides, rounds=rounds)
    for name, first in times.items():
        second = again[name]
        times[name] = {
            "median": (first["median"] + second["median"]) / 2,
            "lowest": min(first["lowest"], second["lowest"]),
            "highest": max(first["highest"], second["highest"]),
        }
    return {
        "channels": channels,
        "batch": batch,
        "ms": {**times, **slow},
        "largest_difference_to_the_convolution_of_its_maximum": float((ours - dense).abs().max() / dense.max()),
    }


def copies_in_own_process(side: str, channels: int, batch: int) -> float:
    """See the second form in the module's docstring."""
    size = ("--memory", side, "--channels", str(channels), "--batch", str(batch))
    ran = subprocess.run([sys.executable, __file__, *size], check=True, capture_output=True, text=True)
    return float(ran.stdout)


def copies(side: str, channels: int, batch: int) -> float:
    """By how many copies of its map the peak memory of this process grows in one call."""
    small, a = torch.rand(1, 8, 24, 32), torch.rand(batch, channels, 24, 32)
    run = ops.direct_cooccurrence_sums if side == "sums" else ops.direct_cooccurrence
    with without_loops() if side == "PyTorch" else nullcontext():
        run(small, radius_cells=RADIUS_CELLS)
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
        before = peak_bytes()
        run(a, radius_cells=RADIUS_CELLS)
    return (peak_bytes() - before) / a.nbytes


def peak_bytes() -> int:
    """The most memory that this process has held, as Linux counts it."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/cooccurrence.json"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--memory", choices=["compiled", "sums", "PyTorch"])
    parser.add_argument("--channels", type=int, help="of the map whose memory is asked for; else only these sizes")
    parser.add_argument("--batch", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    with torch.inference_mode():
        if given.memory:
            print(copies(given.memory, given.channels or 512, given.batch))
            return
        if quick.compiled_loops() is None:
            raise SystemExit("the compiled loops are not here: pip install 'coocnet[fast]'")
        document = recorded("python benchmarks/cooccurrence.py", threads=given.threads, packages=("torch", "numba"))
        document["cases"] = []
        for channels, batch in CASES:
            if given.channels in {None, channels}:
                case = measured(channels, batch, given.rounds)
                print(json.dumps(case, indent=1))
                document["cases"].append(case)
        channels, batch = CASES[-1]
        document["copies_of_the_map"] = {
            "channels": channels,
            "batch": batch,
            **{side: copies_in_own_process(side, channels, batch) for side in ("compiled", "sums", "PyTorch")},
        }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
