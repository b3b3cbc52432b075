"""Writes docs/learning-tables.md and its picture from the results of filters.py.

python benchmarks/filters_page.py
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from coocnet.viz.plots import pyplot

ROOT = Path(__file__).resolve().parent.parent
NETWORKS = {"resnet101v2": "ResNet-101 v2, block 3", "mobile": "MobileNetV2", "squeezenet": "SqueezeNet 1.1, 320 px"}
SETS = ("dvd_covers", "porto", "ukbench", "paris6k_subset", "paris6k_web", "paintings", "porto_test")
TREATMENTS = ("pca 512", "raw")


def main() -> None:
    """The page and the curves."""
    found = {
        name: json.loads(path.read_text())
        for name in NETWORKS
        if (path := ROOT / "results" / f"filters-{name}.json").is_file()
    }
    lines = [
        "# Learned filters: all that was measured",
        "",
        "mAP in percent of the learned filter, and learned minus direct filter under the same pooling with the 95 %",
        "interval of the paired difference over queries; where there were three seeds, of their mean, and the three",
        "differences. `pca 512`: whitened by what was fitted without the set. How: [learning.md](learning.md).",
        "",
    ]
    for network, document in found.items():
        lines += [*_network(NETWORKS[network], document), ""]
    (ROOT / "docs" / "learning-tables.md").write_text("\n".join(lines).rstrip() + "\n")
    draw(found, ROOT / "docs" / "images" / "learning.png")


def _network(title: str, document: Mapping[str, Any]) -> Iterator[str]:
    about = document["versions"]
    yield f"## {title}"
    yield ""
    yield (
        f"`{document['command']}`, {document['views']['pictures']} unlabelled pictures with "
        f"{document['views']['each']} views each; coocnet {about['coocnet']}, PyTorch {about['torch']}, "
        f"{document['processor']}, one thread."
    )
    for treatment in TREATMENTS:
        yield ""
        rows = [_gains(name, one, treatment) for name, one in document["designs"].items()]
        shown = [name for name in SETS if any(name in row for row in rows)]
        yield _line((f"design, {treatment}", *shown))
        yield _line(["---"] * (1 + len(shown)))
        for row in rows:
            yield _line((row["design"], *(row.get(name, "") for name in shown)))
    yield ""
    yield _line(("design", "learned on", "pictures", "numbers learned", "seconds", "gate"))
    yield _line(["---"] * 6)
    for name, one in document["designs"].items():
        for how in one["runs"]:
            label = f"{name}, seed {how['seed']}" + (f", without {how['without']}" if how["without"] else "")
            pictures, seconds = f"{how['pictures'][0]:,}", f"{how['time_s']:.0f}"
            yield _line((label, one["learns_on"], pictures, f"{how['parameters']:,}", seconds, how["gate"]))
    if "costs" in document:
        yield ""
        yield f"One map of {document['costs']['map']}, one thread, milliseconds: median [quartiles]."
        yield ""
        yield _line(("filter", "parameters", "ms"))
        yield _line(["---"] * 3)
        for name, one in document["costs"]["filters"].items():
            low, median, high = one["ms_quartiles"]
            yield _line((name, f"{one['parameters']:,}", f"{median:g} [{low:g}, {high:g}]"))


def _gains(name: str, one: Mapping[str, Any], treatment: str) -> dict[str, str]:
    cells = {"design": f"{name} ({one['pooling']})" if one["pooling"] not in name else name}
    for key, gain in one["sets"].items():
        set_name, _, treated = key.partition("|")
        if treated == treatment:
            mean, low, high = gain["difference"]
            seeds = gain["difference_of_each_seed"]
            each = f" ({' '.join(f'{value:+.1f}' for value in seeds)})" if len(seeds) > 1 else ""
            cells[set_name] = f"{gain['learned'][0]:.1f}, {mean:+.1f} [{low:.1f}, {high:.1f}]{each}"
    return cells


def draw(found: Mapping[str, Mapping[str, Any]], target: Path) -> None:
    """Held-out mAP by epoch, on things that nothing was learned on, for each seed of the default design."""
    plt = pyplot()
    figure, axes = plt.subplots(1, 2, figsize=(8.4, 3.2), constrained_layout=True)
    for axis, network in zip(axes, ("resnet101v2", "mobile"), strict=True):
        runs = found.get(network, {}).get("designs", {}).get("context", {}).get("runs", [])
        for run in runs:
            epochs = [record["epoch"] for record in run["history"]]
            axis.plot(epochs, [100 * record["map"] for record in run["history"]], marker="o", markersize=3)
        axis.set(title=NETWORKS[network], xlabel="epoch (0: the direct filter)", ylabel="held-out mAP, whitened, %")
        axis.xaxis.get_major_locator().set_params(integer=True)
    figure.savefig(target, dpi=120)
    plt.close(figure)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
