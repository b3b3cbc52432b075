"""Time and memory of everything after the descriptor, on a synthetic collection of unit rows.

    python benchmarks/ranking.py [--rows 100000] [--dim 512] [--out results/ranking.json]

Each step runs in a fresh process that first loads the rows and the neighbour lists from files, so that the growth of
its peak resident memory from there on is its own; the lists are made once, by the first step. The process that starts
them holds no rows, since a new process begins with the peak of the one that started it. Times of steps over the whole
collection are of one run, those for each query are medians and quartiles over single queries. The rows are clusters
of 20 around random directions; the queries are further members of them. That says nothing about real photographs.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from coocnet.ranking import (
    Diffusion,
    Ranked,
    Reciprocal,
    Reranking,
    alpha_expansion,
    augment_database,
    average_expansion,
    neighbours,
)
from coocnet.whitening import unit_rows
from machine import processor

EXPANDED_BY, ALPHA = 10, 3.0
LIST = 51
PER_THING = 20
SPREAD = 0.7
QUERIES = 30
STEPS = (
    "neighbours",
    "neighbours of one query",
    "average expansion",
    "alpha expansion",
    "augmentation",
    "reciprocal",
    "diffusion",
    "diffusion, whole graph",
    "diffusion, offline",
)


def collection(rows: int, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """The database and the queries."""
    random = np.random.default_rng(0)
    centres = unit_rows(random.standard_normal((-(-rows // PER_THING), dim), np.float32))

    def members(of: np.ndarray) -> np.ndarray:
        noise = random.standard_normal((len(of), dim), np.float32) * np.float32(SPREAD / np.sqrt(dim))
        return unit_rows(centres[of] + noise)

    out = np.empty((rows, dim), np.float32)
    for start in range(0, rows, 10_000):
        out[start : start + 10_000] = members(np.arange(start, min(start + 10_000, rows)) // PER_THING)
    return out, members(random.integers(0, len(centres), QUERIES))


def peak_mb() -> float:
    """Largest resident memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3) * (1 if sys.platform == "darwin" else 1.024)


def each_query(queries: np.ndarray, run: Callable[[np.ndarray], object]) -> dict[str, float]:
    """Quartiles of the milliseconds for one query."""
    run(queries[:1])
    times = []
    for at in range(len(queries)):
        started = time.perf_counter()
        run(queries[at : at + 1])
        times.append(1e3 * (time.perf_counter() - started))
    low, median, high = np.percentile(times, [25, 50, 75])
    return {"median": round(float(median), 2), "q25": round(float(low), 2), "q75": round(float(high), 2)}


def ranked(queries: np.ndarray, build: Callable[[], Reranking]) -> dict[str, object]:
    """Seconds to prepare, and milliseconds for each query."""
    started = time.perf_counter()
    prepared = build()
    return {
        "prepare_s": round(time.perf_counter() - started, 2),
        "query_ms": each_query(queries, lambda one: prepared.rank(one, k=100)),
    }


def search_all(rows: np.ndarray, folder: Path) -> dict[str, object]:
    """The neighbour lists of all rows, kept for the other steps."""
    started = last = time.perf_counter()

    def progress(done: int, of: int) -> None:
        nonlocal last
        if (now := time.perf_counter()) > last + 10:
            last = now
            print(f"  {done} of {of} rows, {now - started:.0f} s", flush=True)

    found = neighbours(rows, k=LIST, progress=progress)
    seconds = time.perf_counter() - started
    own = float((found.positions == np.arange(len(rows))[:, None]).any(1).mean())
    np.save(folder / "positions.npy", found.positions)
    np.save(folder / "scores.npy", found.scores)
    return {"all_s": round(seconds, 1), "rows_that_find_themselves": own}


def augment(rows: np.ndarray, graph: Ranked) -> dict[str, object]:
    """Database augmentation, once."""
    started = time.perf_counter()
    augment_database(rows, n=EXPANDED_BY, alpha=ALPHA, graph=graph)
    return {"all_s": round(time.perf_counter() - started, 2)}


def step(name: str, folder: Path, size: tuple[int, int], truncation: int) -> dict[str, object]:
    """One step in this process."""
    if name == "collection":
        for file, array in zip(("rows", "queries"), collection(*size), strict=True):
            np.save(folder / f"{file}.npy", array)
        return {}
    rows, queries = np.load(folder / "rows.npy"), np.load(folder / "queries.npy")
    graph = None
    if name != "neighbours":
        graph = Ranked(np.load(folder / "positions.npy"), np.load(folder / "scores.npy"))
    if name.startswith("diffusion"):
        import scipy.sparse  # noqa: F401
    before = peak_mb()
    todo: dict[str, Callable[[], dict[str, object]]] = {
        "neighbours": lambda: search_all(rows, folder),
        "neighbours of one query": lambda: {"query_ms": each_query(queries, lambda q: neighbours(rows, q, k=100))},
        "average expansion": lambda: {
            "query_ms": each_query(queries, lambda q: average_expansion(rows, q, n=EXPANDED_BY))
        },
        "alpha expansion": lambda: {
            "query_ms": each_query(queries, lambda q: alpha_expansion(rows, q, n=EXPANDED_BY, alpha=ALPHA))
        },
        "augmentation": lambda: augment(rows, graph or neighbours(rows, k=LIST)),
        "reciprocal": lambda: ranked(queries, lambda: Reciprocal.build(rows, graph=graph)),
        "diffusion": lambda: ranked(queries, lambda: Diffusion.build(rows, graph=graph)),
        "diffusion, whole graph": lambda: ranked(
            queries, lambda: Diffusion.build(rows, graph=graph, truncation=None)
        ),
        "diffusion, offline": lambda: {
            "truncation": truncation,
            **ranked(queries, lambda: Diffusion.build(rows, truncation=truncation, offline=True)),
        },
    }
    result = todo[name]()
    return {"step": name, **result, "peak_growth_mb": round(peak_mb() - before), "peak_mb": round(peak_mb())}


def in_own_process(name: str, folder: str, options: list[str]) -> dict[str, object]:
    """One step in a fresh process, whose last line is the result."""
    print(f"{name} ...", flush=True)
    command = [sys.executable, __file__, "--step", name, folder, *options]
    last = ""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        for last in child.stdout or ():
            print(last, end="", flush=True)
    if child.returncode:
        raise SystemExit(child.returncode)
    result: dict[str, object] = json.loads(last)
    return result


def main() -> None:
    """Runs every step in a process of its own, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--truncation", type=int, default=200, help="of the stored solutions")
    parser.add_argument("--out", type=Path, default=Path("results/ranking.json"))
    parser.add_argument("--step", nargs=2, metavar=("NAME", "FOLDER"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.step:
        print(json.dumps(step(given.step[0], Path(given.step[1]), (given.rows, given.dim), given.truncation)))
        return
    with tempfile.TemporaryDirectory() as folder:
        options = [f"--{name}={getattr(given, name)}" for name in ("rows", "dim", "truncation")]
        _, *results = [in_own_process(name, folder, options) for name in ("collection", *STEPS)]
    result = {
        "command": f"python benchmarks/ranking.py --rows {given.rows} --dim {given.dim}",
        "rows": given.rows,
        "dim": given.dim,
        "rows_mb": round(given.rows * given.dim * 4e-6),
        "list_length": LIST,
        "list_mb": round(given.rows * LIST * 8e-6),
        "queries": QUERIES,
        "steps": results,
        "cores": os.cpu_count(),
        "processor": processor(),
        "numpy": np.__version__,
    }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(result, indent=1) + "\n")
    print(f"written to {given.out}")


if __name__ == "__main__":
    main()
