"""The main job on real photographs: indexed and searched as users do it, timed, held against the table of methods.

    python benchmarks/real_photographs.py DATA [--out results/real-photographs.json]

DATA holds ``images/paris6k_subset`` and ``images/paintings``. The average precision of every query through the index,
raw rows only, must be that which ``benchmarks/methods.py`` found for the recipe's pooling without any index. Weights
are found as the command finds them (``COOCNET_WEIGHTS``).
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

import coocnet
from coocnet.describe import Describer
from coocnet.evaluate import average_precision
from coocnet.index import open_index
from coocnet.recipe import Recipe
from photosets import Set, paintings, paris

TOLERANCE = 5e-3
"""Of an average precision: the other side's maps were held in float16, which may exchange two neighbours."""


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
    """Indexes, searches, compares, writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--recipe", default="mini")
    parser.add_argument("--out", type=Path, default=Path("results/real-photographs.json"))
    given = parser.parse_args()
    describer = Describer(Recipe.load(given.recipe), engine="float32")
    images = (given.data / "images").resolve()
    with np.load(given.out.parent / f"methods-{given.recipe}.npz") as table:
        indexed = [
            through_index(describer, one, table[f"{one.name}|{describer.recipe.pooling}|raw"].tolist())
            for one in (paris(images), paintings(images))
        ]
    document = {
        "command": f"python benchmarks/real_photographs.py DATA --recipe {given.recipe}",
        "recipe": describer.recipe.to_toml(),
        "row_fingerprint": describer.recipe.row_fingerprint(),
        "weights_sha256": describer.weights_sha256,
        "versions": {"coocnet": coocnet.__version__, "torch": torch.__version__, "python": platform.python_version()},
        "through_the_index": indexed,
    }
    given.out.write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps(indexed, indent=1))


if __name__ == "__main__":
    main()
