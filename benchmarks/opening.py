"""From the start of Python to the first answer of a large index whose query is described already.

    python benchmarks/opening.py [--pictures 100000] [--out results/opening.json]

The index is synthetic: unit rows in clusters of 20 around random directions, their paths and digests put straight
into the store, and a random rotation as its whitening. Each figure is of a fresh process that imports coocnet, opens
the index, and searches for one stored row; the files are in the page cache. "first" is the very first answer, which
makes what later ones find beside the index, "exact" and "approximate" are those later ones, and "change" the first
answer after one picture came and one went. PyTorch must not be loaded by any of it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from coocnet.data.walk import FileStamp
from coocnet.index import approximate, open_index
from coocnet.index.records import Described
from coocnet.recipe import Recipe
from coocnet.whitening import Whitening, unit_rows
from machine import processor

DIM = 512
AT_ONCE = 20_000
FIRST_ANSWER = """
import json, sys, time
started = time.perf_counter()
import coocnet, numpy as np
imported = time.perf_counter()
index = coocnet.open_index(sys.argv[1])
opened = time.perf_counter()
row = np.load(sys.argv[2])
hits = index.search(row, k=10, exact=True if sys.argv[3] == "exact" else None)[0]
answered = time.perf_counter()
index.search(row, k=10, exact=True if sys.argv[3] == "exact" else None)
again = time.perf_counter()
assert len(hits) == 10 and "torch" not in sys.modules
print(json.dumps({"import_s": imported - started, "open_s": opened - imported, "first_answer_s": answered - opened,
    "second_answer_s": again - answered}))
"""


def make(place: Path, pictures: int) -> np.ndarray:
    """An index of so many pictures; returns a row of it."""
    random = np.random.default_rng(0)
    recipe = Recipe(whitening="none")
    with open_index(place, recipe) as index:
        store = index._store
        store.bind(recipe, "0" * 64, DIM, "float32")
        rows: np.ndarray = np.empty((0, DIM), np.float32)
        for start in range(0, pictures, AT_ONCE):
            centres = unit_rows(random.standard_normal((AT_ONCE // 20, DIM), np.float32))
            noise = random.standard_normal((AT_ONCE, DIM), np.float32) * np.float32(0.7 / np.sqrt(DIM))
            rows = unit_rows(np.repeat(centres, 20, axis=0) + noise)[: pictures - start]
            store.put(_described(row, start + at) for at, row in enumerate(rows))
        turned = np.linalg.qr(random.standard_normal((DIM, DIM)))[0].astype(np.float32)
        facts = {"row_fingerprint": recipe.row_fingerprint(), "weights_sha256": "0" * 64}
        index.use_whitening(Whitening(np.zeros(DIM, np.float32), turned, facts))
    return rows[:1]


def change(place: Path, pictures: int) -> None:
    """One picture comes, another goes."""
    row = unit_rows(np.random.default_rng(time.monotonic_ns()).standard_normal((1, DIM), np.float32))[0]
    with open_index(place) as index:
        index._store.put([_described(row, pictures + time.monotonic_ns() % 10**6)])
        index._store.drop([_path(time.monotonic_ns() % pictures)])


def _path(number: int) -> str:
    return f"/home/somebody/Pictures/{number // 500:05}/photograph {number:07}.jpg"


def _described(row: np.ndarray, number: int) -> Described:
    return Described(_path(number), FileStamp(1, 1), hashlib.blake2b(row.tobytes(), digest_size=16).digest(), row)


def first_answers(place: Path, row: Path, runs: int, *, exact: bool = True) -> dict[str, object]:
    """Medians and extremes of fresh processes, in seconds, and of the whole process as one waits for it."""
    told: list[dict[str, float]] = []
    for _ in range(runs):
        started = time.perf_counter()
        command = [sys.executable, "-c", FIRST_ANSWER, str(place), str(row), "exact" if exact else "as it is"]
        answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        told.append({**json.loads(answer), "process_s": time.perf_counter() - started})
    return {
        key: {
            "median": round(statistics.median(values), 4),
            "from": round(min(values), 4),
            "to": round(max(values), 4),
        }
        for key, values in ((key, [one[key] for one in told]) for key in told[0])
    }


def measured(pictures: int, runs: int) -> dict[str, object]:
    """All figures of an index of so many pictures."""
    with tempfile.TemporaryDirectory() as folder:
        place, row = Path(folder) / "made.cooc", Path(folder) / "row.npy"
        np.save(row, make(place, pictures))
        result: dict[str, object] = {"pictures": pictures, "dim": DIM, "runs": runs}
        result["first"] = first_answers(place, row, 1)
        result["exact"] = first_answers(place, row, runs)
        print(json.dumps(result, indent=1), flush=True)
        changed = []
        for _ in range(runs):
            change(place, pictures)
            changed.append(first_answers(place, row, 1)["process_s"])
        medians = [one["median"] for one in changed]  # type: ignore[index]
        result["change_process_s"] = {"median": statistics.median(medians), "from": min(medians), "to": max(medians)}
        if approximate.is_installed():
            with open_index(place) as index:
                started = time.perf_counter()
                index.build_ann()
                result["ann_built_s"] = round(time.perf_counter() - started, 1)
            result["approximate"] = first_answers(place, row, runs, exact=False)
        with open_index(place) as index:
            result["size_mb"] = round(index.info().size_bytes / 1e6)
    return result


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, nargs="+", default=[100_000])
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path("results/opening.json"))
    given = parser.parse_args()
    result = {
        "command": f"python benchmarks/opening.py --pictures {' '.join(map(str, given.pictures))}",
        "indexes": [measured(pictures, given.runs) for pictures in given.pictures],
        "threads": os.environ.get("OMP_NUM_THREADS", "all"),
        "cores": os.cpu_count(),
        "processor": processor(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "sqlite": sqlite3.sqlite_version,
    }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result["indexes"], indent=1))


if __name__ == "__main__":
    main()
