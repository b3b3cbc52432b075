"""For researchers: two poolings on the same pictures, with the interval of their difference.

    python examples/compare_poolings.py context gem               # on rendered scenes, hard ones
    python examples/compare_poolings.py context gem --on FOLDER   # on your own, with a manifest.csv

The pictures come with a ground truth; docs/evaluation.md says how a manifest is written.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from coocnet import Describer, Recipe
from coocnet.data.benchmarks import OpenedBenchmark, open_benchmark
from coocnet.data.scenes import make_scenes
from coocnet.evaluate import mean_with_interval, paired_difference, score_rows


def values(pooling: str, benchmark: OpenedBenchmark) -> list[float]:
    """The average precision of every query under a pooling, unwhitened, in float32."""
    describer = Describer(Recipe(pooling=pooling, size_px=256), engine="float32")
    paths, boxes = zip(*benchmark.queries, strict=True)
    upright = benchmark.source.upright
    rows = describer.describe(benchmark.images, upright=upright)
    queries = describer.describe(paths, boxes=boxes, upright=upright)
    return score_rows(rows, queries, benchmark.ground_truth)[0].counted


def main() -> None:
    """Scores both, and compares them query by query."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("poolings", nargs=2, metavar="POOLING", help="two of coocnet.POOLINGS")
    parser.add_argument("--on", type=Path, help="a folder with a manifest.csv")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as kept:
        if given.on is None:
            make_scenes(kept, instances=30, views=2, size_px=256)
        benchmark = open_benchmark("folder", existing=given.on or kept)
        one, other = (values(pooling, benchmark) for pooling in given.poolings)
    for pooling, found in zip(given.poolings, (one, other), strict=True):
        print(f"{pooling:>12}  mAP {100 * mean_with_interval(found).mean:.1f}")
    difference = paired_difference(one, other)
    low, high = 100 * difference.interval.low, 100 * difference.interval.high
    print(f"  difference  {100 * difference.interval.mean:+.1f} [{low:.1f}, {high:.1f}], 95 %")
    print(f"     queries  {difference.wins} better, {difference.losses} worse, {difference.ties} level")


if __name__ == "__main__":
    main()
