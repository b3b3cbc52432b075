"""Exact and approximate search: against the time that memory takes, and on rows of real photographs.

    python benchmarks/search.py DATA [--cache rows.npz] [--threads 1 2] [--out results/search.json]

Exact: 1,000,000 × 512 random unit rows. The bound is the fastest of several runs of ``rows.sum()`` and
``rows.max()``, which read each number once; with two threads, of two halves at a time. Beside ours: ``rows @ query``
with a partial sort, and FAISS's flat index. Approximate: descriptors of the default recipe, with its whitening, of
44,000 crops of 3,724 photographs, every seventh photograph being kept out of the collection and asked with; and
larger collections made of them: a real row of the collection plus the difference of two real crops of one
photograph, divided by √2, to unit length. So these have the spread of real rows, but of no more photographs than
there are. DATA holds ``unlabelled``, ``scenes``, ``ukbench``, ``dvd_covers`` and ``porto``. Times are medians over
single queries after one another, the index in memory.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from coocnet.index.approximate import Approximate, ApproximateSearch
from coocnet.index.kept import Paths, Pictures
from coocnet.ranking.nearest import nearest
from coocnet.recipe import Recipe
from coocnet.whitening import shipped_whitening, unit_rows
from machine import processor

ROWS, DIM, K, CROPS = 1_000_000, 512, 10, 44_000
SETS = ("unlabelled", "scenes", "ukbench", "dvd_covers", "porto/train", "porto/val")


def taking_turns(runs: dict[str, Callable[[], object]], rounds: int = 21) -> dict[str, dict[str, float]]:
    """Times of several things that take turns, so that what else the machine does is the same for all."""
    each = [{name: milliseconds(run, 1, warm=not at)["least"] for name, run in runs.items()} for at in range(rounds)]
    return {name: _summary([one[name] for one in each]) for name in runs}


def milliseconds(run: Callable[[], object], runs: int = 9, *, warm: bool = True) -> dict[str, float]:
    """Least, median and largest time, after one run that does not count."""
    if warm:
        run()
    times = []
    for _ in range(runs):
        started = time.perf_counter()
        run()
        times.append(1e3 * (time.perf_counter() - started))
    return _summary(times)


def _summary(times: list[float]) -> dict[str, float]:
    return {"least": round(min(times), 2), "median": round(statistics.median(times), 2), "most": round(max(times), 2)}


def crops(data: Path, cache: Path) -> tuple[np.ndarray, np.ndarray]:
    """Whitened rows of crops, and the number of the photograph that each is of."""
    if not cache.is_file():
        from coocnet.describe import Describer

        describer, random = Describer(Recipe(), device="cpu"), np.random.default_rng(0)
        files = sorted(path for name in SETS for path in (data / name).rglob("*.jpg"))
        rows: list[np.ndarray] = []
        owners: list[int] = []
        while len(rows) < CROPS:
            for owner, file in enumerate(files):
                picture = Image.open(file).convert("RGB")
                if len(rows) >= len(files):
                    picture = _crop(picture, random)
                rows.append(describer.describe_pixels(np.asarray(picture)[None])[0])
                owners.append(owner)
        np.savez(cache, rows=np.array(rows[:CROPS]), owner=np.array(owners[:CROPS]))
    with np.load(cache) as held:
        described, photographs = held["rows"], held["owner"]
    from coocnet.backbones import locate_weights

    place = locate_weights(Recipe().backbone, Recipe().weights)
    whitening = None if place is None else shipped_whitening(Recipe().row_fingerprint(), place.sha256)
    if whitening is None:
        raise SystemExit("the package has no whitening for the default recipe")
    return whitening.apply(described), photographs


def _crop(picture: Image.Image, random: np.random.Generator) -> Image.Image:
    width, height = picture.size
    part, aspect = random.uniform(0.35, 0.9), np.exp(random.uniform(-0.3, 0.3))
    w = max(48, min(width, int(width * part * aspect)))
    h = max(48, min(height, int(height * part / aspect)))
    x, y = int(random.integers(0, width - w + 1)), int(random.integers(0, height - h + 1))
    cut = picture.crop((x, y, x + w, y + h))
    return cut.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if random.random() < 0.5 else cut


def made_of(rows: np.ndarray, owners: np.ndarray, count: int) -> np.ndarray:
    """Real rows, each moved as two crops of one photograph differ."""
    random, order = np.random.default_rng(1), np.argsort(owners, kind="stable")
    beside = np.flatnonzero(owners[order[:-1]] == owners[order[1:]])
    out = np.empty((count, rows.shape[1]), np.float32)
    for start in range(0, count, 20_000):
        some = slice(start, min(start + 20_000, count))
        at = beside[random.integers(0, len(beside), some.stop - start)]
        moved = (rows[order[at]] - rows[order[at + 1]]) / np.sqrt(2)
        out[some] = unit_rows(rows[random.integers(0, len(rows), len(at))] + moved)
    return out


def exact(threads: int) -> dict[str, Any]:
    """Exact search with so many threads, which the environment has set."""
    import faiss

    random = np.random.default_rng(0)
    rows = np.empty((ROWS, DIM), np.float32)
    for start in range(0, ROWS, 20_000):
        rows[start : start + 20_000] = unit_rows(random.standard_normal((20_000, DIM), np.float32))
    queries = unit_rows(random.standard_normal((64, DIM), np.float32))
    parts = np.array_split(rows, threads)

    def by_numpy() -> np.ndarray:
        similarities = rows @ queries[0]
        best = np.argpartition(similarities, -K)[-K:]
        return best[np.argsort(-similarities[best])]

    with ThreadPoolExecutor(threads) as pool:
        one_query = taking_turns(
            {
                "sum": lambda: list(pool.map(np.sum, parts)),
                "max": lambda: list(pool.map(np.max, parts)),
                "ours": lambda: nearest(rows, queries[:1], K),
                "numpy": by_numpy,
            }
        )
    bound = min(one_query[read]["least"] for read in ("sum", "max"))
    result: dict[str, Any] = {
        "threads": threads,
        "one_query_ms": one_query,
        "times_the_bound": round(one_query["ours"]["least"] / bound, 2),
        "64_queries_ms": milliseconds(lambda: nearest(rows, queries, K), 3),
        "64_queries_one_product_ms": milliseconds(lambda: queries @ rows.T, 3),
    }
    flat = faiss.IndexFlatIP(DIM)
    flat.add(rows)
    result["faiss_flat_ms"] = milliseconds(lambda: flat.search(queries[:1], K))
    result["faiss_flat_64_queries_ms"] = milliseconds(lambda: flat.search(queries, K), 2)
    halved = rows.astype(np.float16)
    result["float16_ms"] = milliseconds(lambda: nearest(halved, queries[:1], K), 5)
    result["float16_64_queries_ms"] = milliseconds(lambda: nearest(halved, queries, K), 2)
    return result


def approximate(rows: np.ndarray, outside: np.ndarray) -> dict[str, Any]:
    """Recall and time of the approximate search of these rows, asked with some of them and with others."""
    digests = np.random.default_rng(2).integers(0, 256, (len(rows), 16), dtype=np.uint8)
    pictures = Pictures(Paths.of([b"x"] * len(rows)), digests, rows)
    own = np.random.default_rng(3).choice(len(rows), 300, replace=False)
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        built = Approximate.build(Path(folder), {}, "", pictures)
        result: dict[str, Any] = {"rows": len(rows), "built_s": round(time.perf_counter() - started, 1)}
        result["size_mb"] = round(built.file.stat().st_size / 1e6)
        search = ApproximateSearch(built, "", pictures)
        if not search.serves():
            raise SystemExit("the approximate search was not read")
        result |= {"lists": built.info.lists, "probes": built.info.probes, "recall_said": built.info.recall}
        result["recall_of_others_said"] = built.info.recall_of_others
        for name, queries, itself in (("own", rows[own], own), ("outside", outside, None)):
            truth = nearest(rows, queries, K + 1).positions
            found, times = [], []
            list(search.nearest(queries, K))  # its file is in memory from here on
            for query in queries:
                started = time.perf_counter()
                found += list(search.nearest(query[None], K + 1))
                times.append(1e3 * (time.perf_counter() - started))
            hits = 0
            for at, (positions, _) in enumerate(found):
                left_out = {-1} if itself is None else {int(itself[at])}
                wanted = [one for one in truth[at].tolist() if one not in left_out][:K]
                hits += len(set(wanted) & set(positions.tolist()))
            result[name] = {"recall": round(hits / (K * len(queries)), 4), "ms": round(statistics.median(times), 3)}
        one = iter(range(10**9))
        result["exact_ms"] = milliseconds(lambda: nearest(rows, outside[next(one) % len(outside)][None], K))["median"]
        result["times_faster"] = {name: round(result["exact_ms"] / result[name]["ms"]) for name in ("own", "outside")}
        rounded, right = nearest(rows.astype(np.float16), outside, K), nearest(rows, outside, K)
        pairs = zip(rounded.positions.tolist(), right.positions.tolist(), strict=True)
        result["float16"] = {
            "ten_best_shared": round(statistics.mean(len(set(a) & set(b)) / K for a, b in pairs), 4),
            "largest_difference": float(np.abs(rounded.scores - right.scores).max()),
        }
    return result


def main() -> None:
    """Runs each part in a process of its own, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--cache", type=Path, default=Path("crops.npz"))
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--out", type=Path, default=Path("results/search.json"))
    parser.add_argument("--part", choices=["exact", "approximate"], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part == "exact":
        print(json.dumps(exact(given.threads[0])))
        return
    if given.part == "approximate":
        rows, owners = crops(given.data, given.cache)
        outside = owners % 7 == 0
        asked = rows[outside][:: max(1, outside.sum() // 300)][:300]
        inside, owned = rows[~outside], owners[~outside]
        sizes = (len(inside), 100_000, 300_000, ROWS)
        made = (inside if size == len(inside) else made_of(inside, owned, size) for size in sizes)
        print(json.dumps([approximate(one, asked) for one in made]))
        return

    def part(name: str, threads: int) -> Any:
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        command = [sys.executable, __file__, str(given.data), "--cache", str(given.cache), "--part", name]
        command += ["--threads", str(threads)]
        told = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
        print(name, threads, told, flush=True)
        return json.loads(told.splitlines()[-1])

    import faiss

    result = {
        "command": "python benchmarks/search.py DATA",
        "exact": [part("exact", threads) for threads in given.threads],
        "approximate": part("approximate", 1),
        "cores": os.cpu_count(),
        "processor": processor(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "faiss": faiss.__version__,
    }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
