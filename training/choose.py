"""How well a recipe finds the things that the network is chosen by, and that it was never trained on.

    python training/choose.py DATA [--recipe mini] [--weights FILE] [--shrinkage 0 1]

These are the last objects of UKBench, the last covers, and Porto's validation pictures; whitened by what was fitted
on the other sets, as in ``benchmarks/methods.py``. The sets that judge are never read here.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

import photosets
from coocnet.describe import Describer
from coocnet.evaluate import average_precision, rank
from coocnet.recipe import Recipe
from coocnet.whitening import fit_pca
from pictures import is_development

DIM = 512


def development_queries(name: str, queries: list[Path]) -> list[int]:
    """The positions of the queries that the network was not trained on."""
    if name == "ukbench":
        return [at for at, p in enumerate(queries) if is_development(name, str(int(p.stem[-5:]) // 4))]
    if name == "dvd_covers":
        return [at for at, p in enumerate(queries) if is_development(name, p.stem.rpartition("_")[2])]
    return list(range(len(queries)))


def main() -> None:
    """Describes, whitens, ranks, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--recipe", default="mini")
    parser.add_argument("--weights", default="")
    parser.add_argument("--shrinkage", type=float, nargs="*", default=[0.0, 0.1, 0.3, 1.0, 3.0])
    given = parser.parse_args()
    recipe = Recipe.load(given.recipe)
    describer = Describer(recipe.replace(weights=given.weights or recipe.weights), engine="float32")
    images = given.data / "images"
    sets = [photosets.SETS[name](images) for name in photosets.CHOOSING]
    fitted_on = photosets.fit_pictures(images)
    paths = sorted({*fitted_on, *(path for one in sets for path in (*one.database, *one.queries))})
    row = dict(zip(paths, describer.describe(paths), strict=True))
    for one in sets:
        asked = development_queries(one.name, one.queries)
        database, queries = (
            np.stack([row[path] for path in listed]) for listed in (one.database, [one.queries[at] for at in asked])
        )
        fit_rows = np.stack([row[path] for path in photosets.fit_pictures(images, without=one.name)])
        scores = {}
        for shrinkage in (None, *given.shrinkage):
            data, looked = database, queries
            if shrinkage is not None:
                whitening = fit_pca(fit_rows, dim=DIM, at_most=True, shrinkage=shrinkage)
                data, looked = whitening.apply(database), whitening.apply(queries)
            found = [
                average_precision(rank(line), one.truths[at]) for line, at in zip(looked @ data.T, asked, strict=True)
            ]
            scores["raw" if shrinkage is None else f"shrinkage {shrinkage:g}"] = 100 * float(np.mean(found))
        listed = ", ".join(f"{name} {score:.1f}" for name, score in scores.items())
        print(f"{one.name:12} {len(asked):4} queries: {listed}", flush=True)


if __name__ == "__main__":
    main()
