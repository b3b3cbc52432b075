"""How often the threshold "auto" lets something pass that is not in a collection, and how often it hides what is.

    python benchmarks/thresholds.py DATA --cache FOLDER [--recipe mini] [--out results]

Works on the rows that methods.py left in FOLDER. For each query its right pictures are taken out of the collection
and the threshold is learned on the rest: what still passes is a false match of the hardest kind, like those of
the collection. Queries of the other sets are things of another kind. With the right pictures left in, a query none of
whose right pictures passes is missed. It writes ``thresholds-RECIPE.json`` and prints the table.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import photosets
from coocnet.evaluate import mean_with_interval
from coocnet.ranking import similarity_cut
from coocnet.recipe import Recipe
from coocnet.whitening import fit_pca
from methods import DIM, Cache, Rows, Seen, pictures_of
from photosets import Set
from variants import Variant

POOLING = "context"
ITSELF = 0.9999


@dataclass(frozen=True)
class Rates:
    """What was counted on one collection: a truth value for each query."""

    cut: float
    same_kind: list[bool]
    other_kind: list[bool]
    missed: list[bool]


def rates(database: Rows, queries: Rows, strangers: Rows, tested: Set) -> Rates:
    """Each query against the collection with and without its right pictures, strangers against all of it."""
    cut = similarity_cut(database)
    same_kind, missed = [], []
    cut_without: dict[frozenset[int], float] = {}
    for similarities, truth in zip(queries @ database.T, tested.truths, strict=True):
        gone = truth.positives | truth.junk
        left = np.ones(len(database), bool)
        left[list(gone)] = False
        if gone not in cut_without:
            cut_without[gone] = similarity_cut(database[left])
        same_kind.append(bool(similarities[left].max() >= cut_without[gone]))
        right = similarities[list(truth.positives)]
        missed.append(bool(right[right < ITSELF].max(initial=-1) < cut))
    return Rates(cut, same_kind, [bool(best >= cut) for best in (strangers @ database.T).max(1)], missed)


def measured(cache: Cache, images: Path, one: Variant) -> dict[str, dict[str, Rates]]:
    """Every set, raw and whitened by what was learned on other sets."""
    sets = [load(images) for load in photosets.SETS.values()]
    pictures = pictures_of(images, sets)
    place = {seen: number for number, seen in enumerate(pictures)}
    rows = cache.rows(one, len(pictures), multiscale=False)

    def of(paths: Sequence[Path]) -> list[int]:
        return [place[Seen(path, None)] for path in paths]

    found: dict[str, dict[str, Rates]] = {}
    for tested in sets:
        without = "" if tested.name in photosets.JUDGED else tested.name
        whitening = fit_pca(rows[of(photosets.fit_pictures(images, without=without))], dim=DIM)
        others = [path for other in sets if other.folder != tested.folder for path in other.queries]
        boxed = [place[Seen(*pair)] for pair in zip(tested.queries, tested.boxes, strict=True)]
        for treatment, treated in (("raw", rows), (f"whitened {DIM}", whitening.apply(rows))):
            found.setdefault(tested.name, {})[treatment] = rates(
                treated[of(tested.database)], treated[boxed], treated[of(others)], tested
            )
    return found


def main() -> None:
    """Measures, prints, writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--recipe", default="mini")
    parser.add_argument("--out", type=Path, default=Path("results"))
    given = parser.parse_args()
    base = Recipe.load(given.recipe).replace(prior="none", scales=(1.0,), pooling=POOLING)
    found = measured(Cache(given.cache / given.recipe), (given.data / "images").resolve(), Variant(POOLING, "", base))
    document = {
        "command": f"python benchmarks/thresholds.py DATA --cache FOLDER --recipe {given.recipe}",
        "recipe": base.to_toml(),
        "parameters_chosen_by": list(photosets.CHOOSING),
        "percent_with_interval": {
            name: {
                treatment: {
                    "threshold": round(one.cut, 3),
                    **{kind: percent(getattr(one, kind)) for kind in ("same_kind", "other_kind", "missed")},
                }
                for treatment, one in treatments.items()
            }
            for name, treatments in found.items()
        },
    }
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / f"thresholds-{given.recipe}.json").write_text(json.dumps(document, indent=1) + "\n")
    for name, treatments in found.items():
        for treatment, one in treatments.items():
            cells = [
                "{:.0f} [{:.0f}, {:.0f}]".format(*percent(values))
                for values in (one.same_kind, one.other_kind, one.missed)
            ]
            print("| " + " | ".join([name, treatment, f"{one.cut:.2f}", *cells]) + " |")


def percent(values: Sequence[bool]) -> list[float]:
    """Share and interval."""
    share = mean_with_interval([float(value) for value in values])
    return [round(100 * number, 1) for number in (share.mean, share.low, share.high)]


if __name__ == "__main__":
    main()
