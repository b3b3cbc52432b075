"""Writes the tables of docs/mini.md and docs/recipes.md, and their pictures, from the results of backbones.py.

python benchmarks/backbones_page.py [--results results] [--docs docs]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import photosets
from coocnet.shipped import SHIPPED
from coocnet.viz.plots import pyplot
from pages import difference, head, interval, row, written

NETWORKS = {
    "mini": "coocnet mini",
    "squeezenet": "SqueezeNet 1.1",
    "mobile": "MobileNetV2",
    "resnet101v2": "ResNet-101 v2 (teacher)",
}
UNTRAINED = {"vgg16": "VGG16", "resnet50": "ResNet-50"}
SHORT = {
    "paris6k_subset": "Paris",
    "paris6k_web": "Paris, web",
    "paintings": "paintings",
    "dvd_covers": "covers †",
    "ukbench": "UKBench †",
    "porto": "Porto †",
}
RAW, WHITE, SHIPPED_AS = "raw", "pca 512", "as shipped"
POOLINGS = ("context", "chco-sct", "gem", "crow")
SHARED_OUT = ("paris6k_subset", "paintings")
Found = Mapping[str, np.ndarray]


def quality(found: Found) -> str:
    """Every network on every set by the default pooling."""
    lines = head(["network", "row", *SHORT.values()])
    for network, title in NETWORKS.items():
        for treatment in (RAW, WHITE, SHIPPED_AS):
            cells = [interval(found.get(f"{network}|{name}|context|{treatment}")) for name in SHORT]
            if any(cells):
                lines.append(row([title, treatment, *cells]))
    return "\n".join(lines)


def differences(found: Found) -> str:
    """The network inside the package against the others, query by query."""
    lines = head(["mini minus", "row", *(SHORT[name] for name in photosets.JUDGED)])
    for network in list(NETWORKS)[1:]:
        for treatment, theirs in ((RAW, RAW), (WHITE, WHITE), (SHIPPED_AS, WHITE)):
            cells = [
                difference(found, f"mini|{name}|context|{treatment}", f"{network}|{name}|context|{theirs}")
                for name in photosets.JUDGED
            ]
            label = treatment if treatment == theirs else f"{treatment} minus {theirs}"
            lines.append(row([NETWORKS[network], label, *cells]))
    return "\n".join(lines)


def shares(found: Found) -> str:
    """What part of the teacher's mAP the network reaches with the same pooling."""
    lines = head(["pooling", *(f"{SHORT[name]} {kind}" for name in SHARED_OUT for kind in (RAW, WHITE))])
    for pooling in POOLINGS:
        cells = []
        for name in SHARED_OUT:
            for kind in (RAW, WHITE):
                ours, theirs = (100 * found[f"{n}|{name}|{pooling}|{kind}"].mean() for n in ("mini", "resnet101v2"))
                cells.append(f"{ours:.1f} of {theirs:.1f}: {100 * ours / theirs:.0f} %")
        lines.append(row([f"`{pooling}`", *cells]))
    return "\n".join(lines)


def numbers(found: Found, document: Mapping[str, Any]) -> str:
    """For the choice of a recipe: quality of what was measured, time and size of all."""
    lines = head(["network", *(SHORT[name] for name in photosets.JUDGED), "ms a picture", "network alone, ms", "MB"])
    alone = document["speed"]["forward_512x384_ms"]
    for network, title in {**NETWORKS, **UNTRAINED}.items():
        treatment = SHIPPED_AS if network == "mini" else WHITE
        columns = [found.get(f"{network}|{name}|context|{treatment}") for name in photosets.JUDGED]
        scores = ["" if column is None else f"{100 * column.mean():.1f}" for column in columns]
        whole = document["speed"]["ms_per_picture"].get(network)
        times = ["" if one is None else f"{one['median']:.0f}" for one in (whole, alone[network])]
        lines.append(row([title, *scores, *times, f"{document['networks'][network]['file_mb']:.0f}"]))
    return "\n".join(lines)


def speeds(document: Mapping[str, Any]) -> str:
    """Time and size of each network."""
    lines = head(["network", "from file to row, ms", "network alone, 512×384, ms", "parameters", "file, MB", "map"])
    speed = document["speed"]
    for network, title in NETWORKS.items():
        facts = document["networks"][network]
        times = [
            f"{one['median']:.0f} [{one['lowest']:.0f}, {one['highest']:.0f}]"
            for one in (speed["ms_per_picture"][network], speed["forward_512x384_ms"][network])
        ]
        of_map = f"{facts['channels']:,} channels, stride {facts['stride_px']}"
        lines.append(row([title, *times, f"{facts['parameters']:,}", f"{facts['file_mb']:.1f}", of_map]))
    return "\n".join(lines)


def draw_choice(found: Found, document: Mapping[str, Any], target: Path) -> None:
    """Quality against time."""
    plt = pyplot()
    figure, axis = plt.subplots(figsize=(6.4, 3.6), constrained_layout=True)
    for network, title in NETWORKS.items():
        treatment = SHIPPED_AS if network == "mini" else WHITE
        mean = np.mean([100 * found[f"{network}|{name}|context|{treatment}"].mean() for name in photosets.JUDGED])
        time = document["speed"]["ms_per_picture"][network]["median"]
        axis.scatter(time, mean, s=8 * document["networks"][network]["file_mb"] + 30, alpha=0.8)
        axis.annotate(title, (time, mean), xytext=(9, 7), textcoords="offset points")
    axis.set(xscale="log", xlabel="ms a picture, one core", ylabel="mean mAP of the judging sets, %", xlim=(30, 3000))
    axis.margins(y=0.25)
    axis.grid(alpha=0.3)
    figure.savefig(target, dpi=120)
    plt.close(figure)


def draw_curve(target: Path) -> None:
    """The losses of the trainings that led to the shipped network."""
    training = json.loads((SHIPPED / "mini.json").read_text())["training"]
    plt = pyplot()
    figure, axis = plt.subplots(figsize=(7.2, 3.4), constrained_layout=True)
    shown = {"rows resnet101v2": "rows, ResNet-101", "rows mobilenetv2": "rows, MobileNetV2"}
    shown |= {"cells resnet101v2": "cells, ResNet-101", "hint 2": "hint at stride 16", "pairs": "pairs"}
    before, lines = 0, []
    for one in (*training["earlier"], training):
        if before:
            axis.axvline(before, color="grey", linewidth=0.8, linestyle=":")
        lines += [{**line, "step": line["step"] + before} for line in one["curve"]]
        before = lines[-1]["step"]
    for key, label in shown.items():
        axis.plot([line["step"] for line in lines], [line[key] for line in lines], label=label)
    axis.set(xlabel="step", ylabel="loss", ylim=(0, 1.1))
    axis.legend(ncols=3, frameon=False, loc="upper right")
    figure.savefig(target, dpi=120)
    plt.close(figure)


def main() -> None:
    """Reads the results, writes tables and pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    given = parser.parse_args()
    document = json.loads((given.results / "backbones.json").read_text())
    with np.load(given.results / "backbones.npz") as held:
        found = {key: held[key] for key in held}
    tables = {"quality": quality(found), "differences": differences(found), "shares": shares(found)}
    written(given.docs / "mini.md", {**tables, "speeds": speeds(document)}, by="backbones_page.py")
    written(given.docs / "recipes.md", {"numbers": numbers(found, document)}, by="backbones_page.py")
    draw_choice(found, document, given.docs / "images" / "recipes.png")
    draw_curve(given.docs / "images" / "mini-curve.png")


if __name__ == "__main__":
    main()
