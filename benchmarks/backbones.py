"""The network inside the package beside others: what it finds, with the same poolings, and how fast on one core.

    python benchmarks/backbones.py DATA --cache FOLDER [--only quality|speed] [--out results]

Quality: every set of ``photosets.py``, raw and whitened by what was fitted on other sets (as ``methods.py``, whose
cache of maps it shares), and for the default recipe as it is shipped, whitening and all. Speed: pictures that it
renders itself, decoded and described one after the other with the process on one core, the networks taking turns;
and the network alone at 512×384, VGG16 and ResNet-50 too, with random weights. Weights are found as the command
finds them (``COOCNET_WEIGHTS``).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

import coocnet
import photosets
from coocnet.backbones import BACKBONES, locate_weights
from coocnet.data.scenes import make_scenes
from coocnet.describe import Describer
from coocnet.recipe import Recipe
from coocnet.whitening import shipped_whitening
from machine import processor
from methods import DIM, Cache, Judge, Seen, checked_rows, interval, pictures_of, precisions
from variants import Variant

RECIPES = {
    "mini": Recipe(),
    "squeezenet": Recipe(name="squeezenet", backbone="squeezenet1_1", tap="features"),
    "mobile": Recipe.preset("mobile"),
    "resnet101v2": Recipe.preset("resnet101v2"),
}
TEACHER = "resnet101v2"
UNTRAINED = {"vgg16": Recipe.preset("paper-chco-sct"), "resnet50": Recipe.preset("resnet50")}
"""Recipes whose weights were not at hand: a forward pass takes the same time with random ones."""
POOLINGS = ("context", "chco-sct", "gem", "crow")
PICTURES, PICTURE_PX, ROUNDS = 12, 800, 7


def quality(images: Path, cache_folder: Path) -> dict[str, list[float]]:
    """Average precision of every query, by network, set, pooling and treatment."""
    sets = [load(images) for load in photosets.SETS.values()]
    pictures = pictures_of(images, sets)
    found: dict[str, list[float]] = {}
    for name, recipe in RECIPES.items():
        cache = Cache(cache_folder / name)
        cache.add_maps(Describer(recipe.replace(scales=(1.0, 2**-0.5, 0.5)), engine="float32"), pictures)
        describer = Describer(recipe, engine="float32")
        listed = [Variant(pooling, "backbones", recipe.replace(pooling=pooling)) for pooling in POOLINGS]
        checked_rows(describer, cache, pictures, listed[0])
        judge = Judge(images, sets, pictures)
        with torch.inference_mode():
            pooled = [[one.row(a).numpy() for one in listed] for a in (cache.maps(seen)[0] for seen in pictures)]
        for one, rows in zip(listed, map(np.stack, zip(*pooled, strict=True)), strict=True):
            for set_name, treatment, values in judge.treated(one, rows):
                if treatment in ("raw", f"pca {DIM}"):
                    found["|".join((name, set_name, one.name, treatment))] = values
            shipped = shipped_whitening(one.recipe.row_fingerprint(), describer.weights_sha256)
            if shipped is not None:
                white = shipped.apply(rows)
                for tested in sets:
                    database = white[[judge.place[Seen(path, None)] for path in tested.database]]
                    asked = zip(tested.queries, tested.boxes, strict=True)
                    queries = white[[judge.place[Seen(*pair)] for pair in asked]]
                    key = "|".join((name, tested.name, one.name, "as shipped"))
                    found[key] = precisions(database, queries, tested.truths)
        print(f"judged: {name}", flush=True)
    return found


def speed() -> dict[str, Any]:
    """Pictures a second on one core, from the file to the row, and the network alone."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        views = make_scenes(folder, instances=PICTURES, views=1, size_px=PICTURE_PX)
        paths = [Path(folder) / one.path for one in views if one.role == "database"]
        describers = {name: Describer(recipe, engine="float32") for name, recipe in RECIPES.items()}
        trunks = {name: (one._loaded.trunk, one.recipe.tap) for name, one in describers.items()}
        for name, recipe in UNTRAINED.items():
            trunk = BACKBONES[recipe.backbone].build().eval()
            trunks[name] = (trunk.to(memory_format=torch.channels_last), recipe.tap)  # type: ignore[call-overload]
        x = torch.rand(1, 3, 384, 512).contiguous(memory_format=torch.channels_last)
        milliseconds: dict[str, list[float]] = {name: [] for name in describers}
        forward: dict[str, list[float]] = {name: [] for name in trunks}
        for number in range(ROUNDS + 1):  # the first round warms up
            for name, describer in describers.items():
                started = time.perf_counter()
                describer.describe(paths)
                milliseconds[name] += [1000 * (time.perf_counter() - started) / len(paths)] if number else []
            for name, (trunk, tap) in trunks.items():
                started = time.perf_counter()
                with torch.inference_mode():
                    trunk(x, tap)
                forward[name] += [1000 * (time.perf_counter() - started)] if number else []
    ratios = [t / m for t, m in zip(milliseconds[TEACHER], milliseconds["mini"], strict=True)]
    return {
        "pictures": f"{PICTURES} rendered, {PICTURE_PX} px, one at a time, one core, {ROUNDS} rounds",
        "ms_per_picture": {name: _spread(times) for name, times in milliseconds.items()},
        "forward_512x384_ms": {name: _spread(times) for name, times in forward.items()},
        "mini_times_as_fast_as_teacher": _spread(ratios),
    }


def _weights(recipe: Recipe) -> str:
    place = locate_weights(recipe.backbone, recipe.weights or None)
    if place is None:
        raise SystemExit(f"the weights of {recipe.backbone} are not here: see COOCNET_WEIGHTS")
    return place.sha256


def _spread(values: list[float]) -> dict[str, float]:
    """Median, lowest and highest."""
    found = {"median": statistics.median(values), "lowest": min(values), "highest": max(values)}
    return {name: round(value, 1) for name, value in found.items()}


def _sizes() -> Iterator[tuple[str, dict[str, float]]]:
    """Of each network; where its file is not at hand its parameters stand for it, four bytes each."""
    for name, recipe in {**RECIPES, **UNTRAINED}.items():
        record = BACKBONES[recipe.backbone]
        with torch.device("meta"):
            parameters = sum(p.numel() for p in record.build().parameters())
        place = locate_weights(recipe.backbone, recipe.weights or None)
        yield (
            name,
            {
                "parameters": parameters,
                "file_mb": round((place.path.stat().st_size if place else 4 * parameters) / 1e6, 2),
                "channels": record.taps[recipe.tap].channels,
                "stride_px": record.taps[recipe.tap].stride_px,
            },
        )


def main() -> None:
    """Measures, writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--only", choices=("quality", "speed"))
    parser.add_argument("--out", type=Path, default=Path("results"))
    given = parser.parse_args()
    file = given.out / "backbones.json"
    document: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    here = {name: _weights(recipe) for name, recipe in RECIPES.items()}
    if given.only == "speed" and document.get("weights_sha256", here) != here:
        raise SystemExit(f"{file} has the quality of other weights: measure both")
    document["command"] = "python benchmarks/backbones.py DATA --cache FOLDER"
    document["versions"] = {
        "coocnet": coocnet.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    document["processor"] = processor()
    document["networks"] = dict(_sizes())
    if given.only != "speed":
        document["weights_sha256"] = here
        found = quality((given.data / "images").resolve(), given.cache)
        precise = {key: np.array(values, np.float32) for key, values in found.items()}
        document["mean_average_precision"] = {key: interval(values) for key, values in precise.items()}
        np.savez_compressed(given.out / "backbones.npz", allow_pickle=False, **precise)
    if given.only != "quality":
        document["speed"] = speed()
    file.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
