"""Retrieval on real photographs: mAP of the poolings, with and without a whitening learned elsewhere.

    python benchmarks/real_photographs.py DATA [--out results/real-photographs.json]

DATA holds ``images/paris6k_subset``, ``images/paintings`` (both only judged on) and the pictures the whitening is
fitted on. For the table, each picture goes through the network once and every pooling takes the same map, which is
that of the recipe's only scale; the table goes into ``docs/real-photographs.md``. For the recipe's own pooling, each
collection is also indexed and searched as users do it: this is timed, and must give the same average precision for
every query. Weights are found as the command finds them (``COOCNET_WEIGHTS``).
"""

from __future__ import annotations

import argparse
import csv
import json
import platform
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

import coocnet
from coocnet import ops
from coocnet.data import Box
from coocnet.describe import Describer
from coocnet.evaluate import Interval, Truth, average_precision, mean_with_interval, rank
from coocnet.index import open_index
from coocnet.poolings import POOLINGS
from coocnet.recipe import Recipe
from coocnet.whitening import fit_pca

COMPARED = ("ucrow", "crow", "spoc", "gem", "chco-sct")
FIT_ON = ("ukbench", "dvd_covers", "scenes", "porto/train")
WHITENED_DIM = 512
TOLERANCE = 1e-3
PAGE = Path(__file__).resolve().parents[1] / "docs" / "real-photographs.md"
MARKS = ("<!-- table: written by benchmarks/real_photographs.py -->", "<!-- end of table -->")
Rows = dict[str, np.ndarray]


@dataclass
class Set:
    """A collection with queries and ground truth."""

    name: str
    folder: Path
    database: list[Path]
    queries: list[Path]
    boxes: list[Box | None]
    truths: list[Truth]


def paris(folder: Path) -> Set:
    """The 12 official queries of Paris6k on the pictures here, cropped to their boxes, junk removed."""
    content = json.loads((folder / "gnd_paris6k_subset.json").read_text())
    place = {path.stem: path for path in folder.rglob("*.jpg")}
    return Set(
        "paris6k_subset",
        folder / "paris",
        [place[name] for name in content["imlist"]],
        [place[name] for name in content["qimlist"]],
        [tuple(truth["bbx"]) for truth in content["gnd"]],
        [Truth(frozenset(truth["ok"]), frozenset(truth["junk"])) for truth in content["gnd"]],
    )


def paintings(folder: Path) -> Set:
    """60 queries, each with one relevant picture among 287."""
    with (folder / "manifest.csv").open(newline="") as stream:
        entries = list(csv.DictReader(stream))
    database = [entry["path"] for entry in entries if entry["role"] == "database"]
    queries = [entry for entry in entries if entry["role"] != "database"]
    return Set(
        "paintings",
        folder / "db",
        [folder / path for path in database],
        [folder / entry["path"] for entry in queries],
        [None] * len(queries),
        [Truth(frozenset([database.index(entry["relevant_db"])])) for entry in queries],
    )


def describe(
    describer: Describer, poolings: Sequence[str], paths: Sequence[Path], boxes: Sequence[Box | None] | None = None
) -> Rows:
    """Unit rows of every pooling, the network run once for each picture."""
    rows: dict[str, list[np.ndarray]] = {name: [] for name in poolings}
    for path, box in zip(paths, boxes or [None] * len(paths), strict=True):
        a = describer.map_of(describer.load(path, box=box).pixels)
        with torch.inference_mode():
            for name in poolings:
                rows[name].append(ops.unit_rows(POOLINGS[name](a, describer.recipe)).cpu().numpy()[0])
    return {name: np.stack(found) for name, found in rows.items()}


def judge(database: np.ndarray, queries: np.ndarray, truths: Sequence[Truth]) -> list[float]:
    """Average precision of each query."""
    return [
        average_precision(rank(similarities).tolist(), truth)
        for similarities, truth in zip(queries @ database.T, truths, strict=True)
    ]


def through_index(describer: Describer, one: Set, expected: Sequence[float]) -> dict[str, object]:
    """Indexes and searches a collection as users do, raw rows only, and times the indexing.

    Raises:
        RuntimeError: other pictures than those of the ground truth, or another average precision than expected.
    """
    place_of = {str(path): place for place, path in enumerate(one.database)}
    with (
        tempfile.TemporaryDirectory() as name,
        open_index(Path(name) / "one.cooc", describer.recipe.replace(whitening="none")) as index,
    ):
        started = time.perf_counter()
        index.sync(one.folder, describer=describer)
        seconds = time.perf_counter() - started
        pictures = index.info().pictures
        found = index.search(describer.describe(one.queries, boxes=one.boxes), k=pictures)
    if sorted(hit.path for hit in found[0]) != sorted(place_of):
        raise RuntimeError(f"{one.folder} does not hold exactly the {len(place_of)} pictures of the ground truth")
    precisions = [
        average_precision([place_of[hit.path] for hit in hits], truth)
        for hits, truth in zip(found, one.truths, strict=True)
    ]
    furthest = max(abs(a - b) for a, b in zip(precisions, expected, strict=True))
    if furthest > TOLERANCE:
        raise RuntimeError(f"{one.name}: an average precision through the index differs by {furthest:.4f}")
    return {
        "set": one.name,
        "pooling": describer.recipe.pooling,
        "mean_average_precision": sum(precisions) / len(precisions),
        "largest_difference_to_table": furthest,
        "pictures": pictures,
        "sync_s": round(seconds, 2),
        "pictures_per_second": round(pictures / seconds, 2),
    }


def main() -> None:
    """Describes, judges, cross-checks, writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--recipe", default="default")
    parser.add_argument("--out", type=Path, default=Path("results/real-photographs.json"))
    given = parser.parse_args()
    recipe = Recipe.load(given.recipe)
    if len(recipe.scales) > 1 or recipe.pooling not in COMPARED:
        parser.error(f"the recipe must have one scale and one of the poolings {', '.join(COMPARED)}")
    describer = Describer(recipe)
    images = (given.data / "images").resolve()
    fit_paths = [path for name in FIT_ON for path in sorted((images / name).rglob("*.jpg"))]
    print(f"describing {len(fit_paths)} pictures to fit the whitening on")
    fitted = {
        name: fit_pca(rows, dim=WHITENED_DIM) for name, rows in describe(describer, COMPARED, fit_paths).items()
    }
    results: list[dict[str, object]] = []
    indexed: list[dict[str, object]] = []
    for one in (paris(images / "paris6k_subset"), paintings(images / "paintings")):
        database = describe(describer, COMPARED, one.database)
        queries = describe(describer, COMPARED, one.queries, one.boxes)
        own = recipe.pooling
        indexed.append(through_index(describer, one, judge(database[own], queries[own], one.truths)))
        print("through the index:", indexed[-1])
        for name in COMPARED:
            raw = judge(database[name], queries[name], one.truths)
            whitened = judge(fitted[name].apply(database[name]), fitted[name].apply(queries[name]), one.truths)
            for kind, values in (("raw", raw), (f"whitened {WHITENED_DIM}", whitened)):
                results.append({"set": one.name, "pooling": name, "rows": kind, "average_precision": values})
    document = {
        "command": f"python benchmarks/real_photographs.py DATA --recipe {given.recipe}",
        "recipe": recipe.to_toml(),
        "row_fingerprint": recipe.row_fingerprint(),
        "weights_sha256": describer.weights_sha256,
        "whitening": {"fitted_on": list(FIT_ON), "pictures": len(fit_paths), "dim": WHITENED_DIM},
        "protocol": "trapezoid AP; paris6k_subset: queries cropped to their boxes, query image stays in the database",
        "versions": {"coocnet": coocnet.__version__, "torch": torch.__version__, "python": platform.python_version()},
        "through_the_index": indexed,
        "results": results,
    }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(document, indent=1) + "\n")
    print(table(results))
    if given.recipe == "default" and PAGE.is_file():
        before, _, rest = PAGE.read_text().partition(MARKS[0])
        _, _, after = rest.partition(MARKS[1])
        PAGE.write_text(f"{before}{MARKS[0]}\n{table(results)}{MARKS[1]}{after}")


def table(results: Sequence[dict[str, object]]) -> str:
    """MAP with its interval, and the paired difference to uCroW, as Markdown."""
    values = {(r["set"], r["rows"], r["pooling"]): r["average_precision"] for r in results}
    lines = ["| set | rows | pooling | mAP [95 %] | minus uCroW [95 %] |", "|---|---|---|---|---|"]
    for (name, rows, pooling), precisions in values.items():
        base = values[(name, rows, "ucrow")]
        assert isinstance(precisions, list)
        assert isinstance(base, list)
        difference = mean_with_interval([a - b for a, b in zip(precisions, base, strict=True)])
        cells = [str(name), str(rows), str(pooling), _percent(mean_with_interval(precisions)), _percent(difference)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _percent(interval: Interval) -> str:
    return f"{100 * interval.mean:.1f} [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"


if __name__ == "__main__":
    main()
