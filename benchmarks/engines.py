"""Engines beside the plain loop: the time from pixels to the map, and how far rows and what is found agree.

    python benchmarks/engines.py DATA [--only NAME ...] [--skip speed|agreement] [--threads 1] [--out results]

The plain loop is the one of public toolboxes: float32, channels first in memory, one picture at a time, ``ToTensor``
and ``Normalize``, inference mode. It, the package's float32 and each engine take turns on the same pixels. VGG16 has
random weights: its time is theirs, its agreement is not measured. Agreement is the cosine of each row with that of
float32, over the photographs of DATA, and the mean average precision of each set. Weights are found as the command
finds them (``COOCNET_WEIGHTS``). What is measured replaces what ``engines.json`` has of the same networks.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import coocnet
import photosets
from coocnet.backbones import BACKBONES, LoadedBackbone, Trunk, WeightsPlace, load_backbone
from coocnet.data import decode, read_bytes
from coocnet.data.scenes import render
from coocnet.describe import Describer
from coocnet.engines import ENGINES, PLAIN, channels_first
from coocnet.recipe import Recipe
from coocnet.whitening import shipped_whitening
from machine import processor
from methods import Seen, interval, precisions
from photosets import Set

RECIPES = {
    "mini": Recipe(),
    "squeezenet": Recipe(name="squeezenet", backbone="squeezenet1_1", tap="features"),
    "mobile": Recipe.preset("mobile"),
    "resnet101v2": Recipe.preset("resnet101v2"),
    "vgg16": Recipe.preset("paper-chco-sct"),
}
UNTRAINED = ("vgg16",)
"""Networks whose weights are not at hand."""
SETS = {"resnet101v2": ("dvd_covers", "porto")}
"""The sets of a network that would take long over all of them."""
SIZES = ((384, 512), (768, 1024))
ROUNDS = 9


def engines_of(recipe: Recipe) -> list[str]:
    """The engines that this processor has and that know the network."""
    listed = [name for name, engine in ENGINES.items() if engine.is_native()]
    with torch.device("meta"):
        has_steps = bool(BACKBONES[recipe.backbone].build().steps(recipe.tap))
    return [name for name in listed if name != "int8" or has_steps]


def loaded(recipe: Recipe, name: str) -> LoadedBackbone:
    """The network, with random weights where it has no others."""
    if name not in UNTRAINED:
        return load_backbone(recipe.backbone, recipe.weights or None)
    record = BACKBONES[recipe.backbone]
    torch.manual_seed(0)
    trunk = record.build().eval().requires_grad_(False)
    for module in trunk.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    trunk.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    place = WeightsPlace(Path("random"), "nowhere", "")
    return LoadedBackbone(trunk, record, next(iter(record.weights.values())), place)


def plain_loop(recipe: Recipe, name: str) -> Callable[[np.ndarray], Tensor]:
    """From pixels (h, w, 3) to the map, as a public toolbox goes about it."""
    found = loaded(recipe, name)
    trunk = found.trunk.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    mean, std = (torch.tensor(one)[:, None, None] for one in (found.weights.mean, found.weights.std))

    def computed(pixels: np.ndarray) -> Tensor:
        x = torch.from_numpy(pixels).permute(2, 0, 1).contiguous().to(torch.float32).div(255)
        a: Tensor = trunk(x.sub(mean).div(std)[None], recipe.tap)
        return a

    return computed


def engine_loop(recipe: Recipe, name: str, engine: str) -> Callable[[np.ndarray], Tensor]:
    """From pixels (h, w, 3) to the map, as the package goes about it."""
    found = loaded(recipe, name)
    trunk: Trunk = ENGINES[engine].prepared(found, recipe.tap)
    mean, std = (torch.tensor(one) * 255 for one in (found.weights.mean, found.weights.std))
    tap = recipe.tap
    return lambda pixels: channels_first(trunk(normalised(pixels[None], mean, std), tap))


def speed(name: str) -> dict[str, Any]:
    """Milliseconds from pixels to the map, and how many times the plain loop."""
    recipe, measured = RECIPES[name], {}
    loops = {"plain loop": plain_loop(recipe, name)}
    loops |= {engine: engine_loop(recipe, name, engine) for engine in engines_of(recipe)}
    for height, width in SIZES:
        pixels = np.ascontiguousarray(np.array(render(0, 0, size_px=2 * width)[0])[:height, :width])
        times: dict[str, list[float]] = {engine: [] for engine in loops}
        with torch.inference_mode():
            for number in range(ROUNDS + 1):  # the first round warms up
                for engine, computed in loops.items():
                    started = time.perf_counter()
                    computed(pixels)
                    times[engine] += [1000 * (time.perf_counter() - started)] if number else []
        plain = times["plain loop"]
        measured[f"{width}x{height}"] = {
            engine: {"ms": _spread(found), "times_the_plain_loop": _spread(_ratios(plain, found))}
            for engine, found in times.items()
        }
        print(name, f"{width}x{height}", {engine: _spread(found) for engine, found in times.items()}, flush=True)
    return measured


def agreement(images: Path, name: str) -> dict[str, Any]:
    """Of each engine: cosines of rows with those of float32, and average precisions."""
    recipe = RECIPES[name]
    describers = {engine: Describer(recipe, device="cpu", engine=engine) for engine in engines_of(recipe)}
    sets = [load(images) for one, load in photosets.SETS.items() if one in SETS.get(name, photosets.SETS)]
    seen = {Seen(path, None): 0 for one in sets for path in one.database}
    seen |= {Seen(path, box): 0 for one in sets for path, box in zip(one.queries, one.boxes, strict=True)}
    place = {one: number for number, one in enumerate(seen)}
    rows = {engine: np.zeros((len(place), one.dim), np.float32) for engine, one in describers.items()}
    for one, number in place.items():
        pixels = decode(read_bytes(one.path), one.path, size_px=recipe.size_px or None, box=one.box).pixels
        for engine, describer in describers.items():
            rows[engine][number] = describer.describe_pixels(pixels[None])[0]
    whitening = shipped_whitening(recipe.row_fingerprint(), describers[PLAIN].weights_sha256)
    found: dict[str, Any] = {"photographs": len(place)}
    plain: dict[str, np.ndarray] = {}
    for engine, described in rows.items():
        cosines = (described.astype(np.float64) * rows[PLAIN]).sum(1)
        quantiles = {"lowest": 0.0, "1 %": 0.01, "median": 0.5}
        precise = {f"{one.name}, raw": judged(one, described, place) for one in sets}
        if whitening:
            white = whitening.apply(described)
            precise |= {f"{one.name}, as shipped": judged(one, white, place) for one in sets}
        plain = plain or precise
        found[engine] = {
            "cosine": {key: round(float(np.quantile(cosines, one)), 6) for key, one in quantiles.items()},
            "below_0.999": int((cosines < 0.999).sum()),
            "mean_average_precision": {key: interval(values) for key, values in precise.items()},
            "difference_to_float32": {key: interval(values - plain[key]) for key, values in precise.items()},
        }
        print(name, engine, found[engine], flush=True)
    return found


def judged(one: Set, rows: np.ndarray, place: dict[Seen, int]) -> np.ndarray:
    """Average precision of each query of a set."""
    database = rows[[place[Seen(path, None)] for path in one.database]]
    queries = rows[[place[Seen(*pair)] for pair in zip(one.queries, one.boxes, strict=True)]]
    return np.array(precisions(database, queries, one.truths))


def normalised(pixels: np.ndarray, mean: Tensor, std: Tensor) -> Tensor:
    """As :class:`Describer` feeds a network."""
    b, h, w, _ = pixels.shape
    x = torch.from_numpy(pixels).float()
    x.view(b, h, 3 * w).sub_(mean.repeat(w)).div_(std.repeat(w))
    return x.permute(0, 3, 1, 2)


def _ratios(plain: list[float], others: list[float]) -> list[float]:
    return [one / other for one, other in zip(plain, others, strict=True)]


def _spread(values: list[float]) -> dict[str, float]:
    """Median, lowest and highest."""
    found = {"median": statistics.median(values), "lowest": min(values), "highest": max(values)}
    return {name: round(value, 2) for name, value in found.items()}


def main() -> None:
    """Measures, writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--only", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--skip", choices=("speed", "agreement"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("results"))
    given = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: given.threads])
    torch.set_num_threads(given.threads)
    file = given.out / "engines.json"
    document: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    document["command"] = "python benchmarks/engines.py DATA"
    document["versions"] = {
        "coocnet": coocnet.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    document["processor"] = processor()
    document["native_engines"] = [name for name, engine in ENGINES.items() if engine.is_native()]
    for name in given.only:
        if given.skip != "speed":
            document.setdefault(f"speed, {given.threads} threads", {})[name] = speed(name)
        if given.skip != "agreement" and name not in UNTRAINED:
            document.setdefault("agreement", {})[name] = agreement((given.data / "images").resolve(), name)
        file.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
