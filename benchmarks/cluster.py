"""Describing by workers of a Ray cluster against describing in one process, and what a killed worker costs.

    python benchmarks/cluster.py [--pictures 600] [--rounds 3] [--out results/cluster.json]

Rendered pictures, the default recipe, new indexes. The sides take turns: ``here`` is a sync in one process, which
uses all cores; ``1 worker`` and ``2 workers`` are processes of one core each, on a cluster of two nodes on this
machine. The rate counts what came after the pictures that arrived together first, so without the start of the
workers, which is told beside it. In ``2 workers, one killed`` one of them is killed when a third of the pictures are
there. After each, the index must hold the rows of the first one.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from coocnet.cluster import ClusterDescriber
from coocnet.data.scenes import render
from coocnet.describe import Describer
from coocnet.index import SyncProgress, open_index
from coocnet.recipe import Recipe
from machine import recorded

SIZE_PX = 1024
RECIPE = Recipe()
SIDES = {"here": 0, "1 worker": 1, "2 workers": 2, "2 workers, one killed": 2}
TOLERANCE = 1e-4
TOGETHER_S = 0.05


class Watch:
    """When the pictures of a sync came, and what happens at a third of them."""

    def __init__(self, at_a_third: Callable[[], None] | None = None) -> None:
        self.began = time.monotonic()
        self.came_s: list[float] = []
        self.at_a_third = at_a_third

    def __call__(self, progress: SyncProgress) -> None:
        """To be called after every picture."""
        self.came_s.append(time.monotonic() - self.began)
        if self.at_a_third and 3 * progress.done >= progress.total:
            self.at_a_third()
            self.at_a_third = None

    def pictures_per_s(self) -> float:
        """After those that came first."""
        together = sum(came_s < self.came_s[0] + TOGETHER_S for came_s in self.came_s)
        return (len(self.came_s) - together) / (self.came_s[-1] - self.came_s[0])


@contextmanager
def cluster() -> Iterator[str]:
    """A cluster of two nodes of one core each, on the loopback interface; its address."""
    os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    os.environ["PYTHONPATH"] = str(Path(__file__).parents[1] / "src")
    from ray import cluster_utils

    place: dict[str, Any] = {"node_ip_address": "127.0.0.1", "object_store_memory": 80 << 20}
    cluster_of: Any = cluster_utils.Cluster
    made = cluster_of(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False, **place})
    made.add_node(num_cpus=1, **place)
    yield made.address
    made.shutdown()


def kill_one() -> None:
    """Ends a worker without warning."""
    for place in Path("/proc").glob("[0-9]*"):
        if (place / "cmdline").read_bytes().startswith(b"ray::_Worker"):
            os.kill(int(place.name), signal.SIGKILL)
            return


def rows_of(index: Path) -> dict[str, np.ndarray]:
    """What an index holds."""
    with open_index(index) as opened:
        paths, _, rows = opened._store.matrix()
    return dict(zip(paths, rows, strict=True))


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("results/cluster.json"))
    given = parser.parse_args()
    rates: dict[str, list[float]] = {side: [] for side in SIDES}
    starts: dict[str, list[float]] = {side: [] for side in SIDES}
    with tempfile.TemporaryDirectory() as place, cluster() as address:
        folder = Path(place) / "photographs"
        folder.mkdir()
        for number in range(given.pictures):
            render(number // 4, number % 4, size_px=SIZE_PX)[0].save(folder / f"{number:05d}.jpg")
        describer = Describer(RECIPE)
        right = None
        for turn in range(given.rounds):
            for side, workers in SIDES.items():
                source = ClusterDescriber(RECIPE, workers=workers, address=address) if workers else describer
                watch = Watch(kill_one if "killed" in side else None)
                index = Path(place) / f"{turn} {side}.cooc"
                with open_index(index, RECIPE) as opened:
                    opened.sync(folder, describer=source, progress=watch)
                found = rows_of(index)
                right = right or found
                assert found.keys() == right.keys()
                assert max(np.abs(found[path] - right[path]).max() for path in right) < TOLERANCE
                rates[side].append(watch.pictures_per_s())
                starts[side].append(watch.came_s[0])
                print(f"{side}: {rates[side][-1]:.1f} pictures per second, the first after {starts[side][-1]:.1f} s")
    document = recorded(
        f"python benchmarks/cluster.py --pictures {given.pictures} --rounds {given.rounds}",
        packages=("torch", "numba", "ray"),
    )
    document |= {"pictures": given.pictures, "size_px": SIZE_PX}
    document["pictures_per_s"] = {side: spread(found) for side, found in rates.items()}
    document["first_picture_after_s"] = {side: spread(found) for side, found in starts.items()}
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps(document, indent=1))


def spread(found: list[float]) -> dict[str, float]:
    """Median, lowest and highest."""
    return {"median": statistics.median(found), "lowest": min(found), "highest": max(found)}


if __name__ == "__main__":
    main()
