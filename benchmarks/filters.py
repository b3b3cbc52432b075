"""The learned co-occurrence filter on real photographs: what it gains on pictures it never saw, and what it costs.

    python benchmarks/filters.py DATA --cache FOLDER --recipe resnet101v2|mobile|squeezenet [--only NAME ...]

DATA holds ``images/`` (see photosets.py). Filters learn on synthetic views of unlabelled pictures, or on pictures of
things; then on the sets but the one that is judged. Each is compared with the direct filter on every development
set, raw and under a whitening that was fitted without that set; designs marked final on the judged sets too. A
network's maps lie in FOLDER, trainings go on where they stopped, and what is in the result file is not done again:
the command may be interrupted. It writes ``filters-RECIPE.json``.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import coocnet
import photosets
from coocnet import ops
from coocnet.data.pairs import pictures_by_instance
from coocnet.data.views import make_views
from coocnet.describe import Describer
from coocnet.evaluate import paired_difference
from coocnet.nn import CooccurrenceFilter, DenseFilter, FactorisedFilter
from coocnet.poolings import POOLED_WITH, POOLINGS, map_mask
from coocnet.recipe import Cooccurrence, Recipe
from coocnet.train import Examples, Maps, Settings, Trained, Trainer, hold_out, of_instances
from coocnet.whitening import fit_pca
from machine import processor
from methods import DIM, SCALES, Cache, Seen, interval, pictures_of, precisions
from photosets import Set

RECIPES = {
    "resnet101v2": Recipe.preset("resnet101v2"),
    "mobile": Recipe.preset("mobile"),
    "squeezenet": Recipe(name="squeezenet", backbone="squeezenet1_1", tap="features", size_px=320),
}
VIEWS, VIEWED = 3, {"resnet101v2": 420, "mobile": 874, "squeezenet": 420}
"""Synthetic photographs of each picture, and how many unlabelled pictures for each network: as time allows."""
PAPER: dict[str, Any] = {
    "rank": 32,
    "loss": "contrastive",
    "whitened_dim": 0,
    "negatives": 5,
    "matches": 1,
    "tuples_per_step": 5,
    "queries_per_epoch": 200,
    "epochs": 1,
}
RATES = (1e-9, 1e-3, 1e-2, 0.3)
PAPER_RATES = (1e-9, 1e-3, 1e-2)


@dataclass(frozen=True)
class Design:
    """A way to learn a filter.

    Attributes:
        pooling: of the recipe.
        learns_on: "views", "things" for the sets of things but the judged one, or "one" for all but dvd_covers.
        settings: other than the defaults.
        seeds: so many trainings.
        final: judged too on the sets that judge.
        radius_cells: r.
    """

    pooling: str = "context"
    learns_on: str = "views"
    settings: Mapping[str, Any] = field(default_factory=dict)
    seeds: int = 1
    final: bool = False
    radius_cells: int = 4


def designs(network: str) -> dict[str, Design]:
    """What is tried with a network."""
    if network == "squeezenet":  # small enough for a dense filter on a processor; half as many steps
        short = {"queries_per_epoch": 300}
        made = {"factorised, r = 1": Design(settings=short, radius_cells=1)}
        for rate in (1e-4, 1e-3, 1e-2):
            dense = short | {"kind": "dense", "learning_rate": rate}
            made[f"dense, r = 1, rate {rate:g}"] = Design(settings=dense, radius_cells=1)
        return made
    made = {
        "context": Design(seeds=3, final=True),
        "sct-gem": Design("sct-gem"),
        "chco-sct": Design("chco-sct", final=True),
        "bp-at": Design("bp-at", final=True),
    }
    if network == "resnet101v2":
        del made["bp-at"]
        return made
    made |= {
        "context, rank 4": Design(settings={"rank": 4}),
        "context, on things": Design(learns_on="things"),
        "context, smooth AP": Design(settings={"loss": "ap"}),
        "context, contrastive": Design(settings={"loss": "contrastive", "negatives": 5}),
        "context, triplet": Design(settings={"loss": "triplet", "negatives": 5, "margin": 0.1}),
        "context, not whitened": Design(settings={"whitened_dim": 0}),
        "context, without a memory": Design(settings={"memory": False}),
        "context, five hard negatives": Design(settings={"negatives": 5}),
    }
    made |= {f"context, rate {rate:g}": Design(settings={"learning_rate": rate}) for rate in RATES}
    paper = [{**PAPER, "learning_rate": rate} for rate in PAPER_RATES]
    made |= {f"paper, rate {one['learning_rate']:g}": Design("bp-act", "one", one) for one in paper}
    return made


@dataclass
class Bench:
    """What every design of one network shares."""

    images: Path
    cache: Path
    network: str

    def __post_init__(self) -> None:
        """Opens the network; computes the maps of the sets."""
        self.base = RECIPES[self.network].replace(prior="none")
        self.describer = Describer(self.base.replace(scales=SCALES), engine="float32")
        self.sets = [load(self.images) for load in photosets.SETS.values()]
        self.final_sets = [photosets.porto_test(self.images)]
        self.pictures = list(dict.fromkeys([*pictures_of(self.images, [*self.sets, *self.final_sets])]))
        self.held = Cache(self.cache / self.network)
        self.held.add_maps(self.describer, self.pictures)
        self.place = {one: number for number, one in enumerate(self.pictures)}
        self.views = self.cache / "views"
        sources = photosets.learning_pictures(self.images) + sorted((self.images / "scenes").rglob("*.jpg"))
        make_views(sources, self.views, views=VIEWS)
        self._direct: dict[tuple[str, int], np.ndarray] = {}

    def recipe(self, design: Design) -> Recipe:
        """The design's recipe."""
        window = Cooccurrence(radius_cells=design.radius_cells)
        return self.base.replace(scales=(1.0,), pooling=design.pooling, cooccurrence=window)

    def examples(self, design: Design, without: str) -> Examples:
        """What a design learns on when a set is judged."""
        if design.learns_on == "views":
            things = list(pictures_by_instance(self.views).items())
            return of_instances([dict(things[: VIEWED[self.network]])])
        left_out = "dvd_covers" if design.learns_on == "one" else without
        return of_instances([photosets.things(self.images, name) for name in photosets.CHOOSING if name != left_out])

    def rows(self, recipe: Recipe, learned: CooccurrenceFilter | None) -> np.ndarray:
        """Unit rows of every picture, from its map."""
        key = (recipe.pooling, recipe.cooccurrence.radius_cells)
        if learned is None and key in self._direct:
            return self._direct[key]
        made = []
        with torch.inference_mode():
            for one in self.pictures:
                a = self.held.maps(one)[0]
                made.append(ops.unit_rows(_pooled(a, recipe, learned))[0].numpy())
        rows = np.stack(made)
        if learned is None:
            self._direct[key] = rows
        return rows

    def judged(self, rows: np.ndarray, tested: Set) -> dict[str, list[float]]:
        """Average precision of every query of a set, raw and whitened by what was fitted without it."""
        without = tested.name if tested.name in photosets.CHOOSING else "porto" if "porto" in tested.name else ""
        fitted = rows[self._places(photosets.fit_pictures(self.images, without=without))]
        white = fit_pca(fitted, dim=DIM, at_most=True)
        database = rows[self._places(tested.database)]
        queries = rows[[self.place[Seen(*pair)] for pair in zip(tested.queries, tested.boxes, strict=True)]]
        return {
            "raw": precisions(database, queries, tested.truths),
            f"pca {DIM}": precisions(white.apply(database), white.apply(queries), tested.truths),
        }

    def _places(self, paths: Sequence[Path]) -> list[int]:
        return [self.place[Seen(path, None)] for path in paths]


def _pooled(a: Tensor, recipe: Recipe, learned: CooccurrenceFilter | None) -> Tensor:
    if learned is None:
        return POOLINGS[recipe.pooling](a, recipe)
    return POOLED_WITH[recipe.pooling](a, learned(a, map_mask(a, recipe)), recipe)


def trained(bench: Bench, name: str, design: Design, seed: int, without: str) -> tuple[Trained, dict[str, Any]]:
    """A filter, and how it was learned."""
    settings = Settings(**{**design.settings, "seed": seed})
    examples = bench.examples(design, without)
    learning, held = hold_out(examples, settings.held_out, seed, at_least=4)
    choosing, judging = hold_out(held, 0.5, seed)
    describer = Describer(bench.recipe(design), engine="float32")
    folder = bench.cache / "trainings" / f"{bench.network} {name} {seed} {without}".strip().replace(" ", "_")
    folder.mkdir(parents=True, exist_ok=True)
    maps = Maps(describer, bench.cache / "maps", budget_bytes=100 * 10**9)
    parts = (learning, choosing, judging)
    maps.prepare([path for part in parts for path in part.paths], _progress())
    began = time.monotonic()
    made = Trainer(describer, parts, settings, folder=folder, maps=maps).run()
    facts = {
        "seed": seed,
        "without": without,
        "pictures": [len(part) for part in parts],
        "things": [part.things for part in parts],
        "time_s": round(sum(record["time_s"] for record in made.history), 1),
        "time_with_gate_s": round(time.monotonic() - began, 1),
        "parameters": made.parameters,
        "kept_epoch": made.best_epoch,
        "gate": f"{made.verdict}, {made.gate}",
        "history": made.history,
    }
    return made, facts


def run(bench: Bench, name: str, design: Design) -> dict[str, Any]:
    """Every training of a design, and what it gains on each set."""
    recipe = bench.recipe(design)
    direct = bench.rows(recipe, None)
    tested = [one for one in bench.sets if one.name not in photosets.JUDGED]
    if design.learns_on == "one":
        tested = [one for one in tested if one.name == "dvd_covers"]
    if design.final:
        tested = [*bench.sets, *bench.final_sets]
    found: dict[str, list[list[float]]] = {}
    facts = []
    for seed in range(design.seeds):
        rows: dict[str, np.ndarray] = {}
        for one in tested:
            without = one.name if design.learns_on == "things" else ""
            if without not in rows:
                made, how = trained(bench, name, design, seed, without)
                facts.append(how)
                rows[without] = bench.rows(recipe, made.learned)
            for treatment, values in bench.judged(rows[without], one).items():
                found.setdefault(f"{one.name}|{treatment}", []).append(values)
    gains = {}
    for key, of_seeds in found.items():
        set_name, _, treatment = key.partition("|")
        one = next(other for other in tested if other.name == set_name)
        before = bench.judged(direct, one)[treatment]
        difference = paired_difference(np.mean(of_seeds, axis=0).tolist(), before).interval
        gains[key] = {
            "direct": interval(np.array(before)),
            "learned": interval(np.mean(of_seeds, axis=0)),
            "difference": [round(100 * value, 2) for value in (difference.mean, difference.low, difference.high)],
            "difference_of_each_seed": [round(100 * float(np.mean(v) - np.mean(before)), 2) for v in of_seeds],
        }
    settings = Settings(**design.settings).table()
    return {
        "pooling": design.pooling,
        "learns_on": design.learns_on,
        "settings": settings,
        "runs": facts,
        "sets": gains,
    }


def costs(bench: Bench) -> dict[str, Any]:
    """Parameters and milliseconds for one map, one thread: direct, factorised, dense."""
    torch.set_num_threads(1)
    a = bench.held.maps(bench.pictures[0])[0]
    d = a.shape[1]
    made: dict[str, tuple[Callable[[], Tensor], int]] = {
        "direct": (lambda: ops.direct_cooccurrence(a, radius_cells=4), 0)
    }
    filters: list[tuple[str, CooccurrenceFilter]] = [
        (f"factorised, rank {rank}", FactorisedFilter(d, radius_cells=4, rank=rank)) for rank in (1, 32)
    ]
    filters += [(f"dense, r = {r}", DenseFilter(d, radius_cells=r)) for r in (1, 4)]
    for name, one in filters:
        made[name] = (partial(one, a), sum(p.numel() for p in one.parameters()))
    table = {}
    with torch.inference_mode():
        for name, (call, parameters) in made.items():
            call()
            times = list(_times(call))
            quartiles = np.percentile(times, [25, 50, 75])
            table[name] = {"parameters": parameters, "ms_quartiles": [round(float(q), 2) for q in quartiles]}
    return {"map": list(a.shape), "threads": 1, "filters": table}


def _times(call: Callable[[], Tensor]) -> Iterator[float]:
    ended = time.monotonic() + 4
    for _ in range(50):
        began = time.perf_counter()
        call()
        yield 1000 * (time.perf_counter() - began)
        if time.monotonic() > ended:
            return


def _progress() -> Callable[[str, int, int], None]:
    def tell(what: str, done: int, total: int) -> None:
        if done % 100 == 0 or done == total:
            print(f"{what}: {done} of {total}", flush=True)

    return tell


def main() -> None:
    """Every design that the result file lacks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--recipe", choices=RECIPES, default="resnet101v2")
    parser.add_argument("--only", nargs="*", help="Designs by name; all if not given.")
    parser.add_argument("--out", type=Path, default=Path("results"))
    given = parser.parse_args()
    torch.set_flush_denormal(True)
    target = given.out / f"filters-{given.recipe}.json"
    document: dict[str, Any] = json.loads(target.read_text()) if target.is_file() else {"designs": {}}
    bench = Bench((given.data / "images").resolve(), given.cache, given.recipe)
    wanted = {name: one for name, one in designs(given.recipe).items() if not given.only or name in given.only}
    for name, design in wanted.items():
        if name in document["designs"]:
            continue
        document["designs"][name] = run(bench, name, design)
        gains = document["designs"][name]["sets"]
        print(name, {key: value["difference"] for key, value in gains.items()}, flush=True)
        document |= {
            "command": f"python benchmarks/filters.py DATA --cache FOLDER --recipe {given.recipe}",
            "weights_sha256": bench.describer.weights_sha256,
            "views": {"of": photosets.LEARN_ON + ", scenes", "pictures": VIEWED[given.recipe], "each": VIEWS},
            "versions": {
                "coocnet": coocnet.__version__,
                "torch": torch.__version__,
                "python": platform.python_version(),
            },
            "processor": processor(),
            "finished": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        }
        target.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    if "costs" not in document:
        document["costs"] = costs(bench)
        target.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
