"""The main job from end to end: index a folder, search it with one picture, look at the answer.

    python examples/demo.py                     on pictures it renders itself, with known answers
    python examples/demo.py --photos ~/Pictures on your own

Weights are taken from the folder COOCNET_WEIGHTS, else the cache, else ../shared/data/weights if it is there; else
those that can be are downloaded.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from coocnet.backbones import BACKBONES, find_weights
from coocnet.data import walk
from coocnet.data.scenes import View, make_scenes
from coocnet.describe import Describer
from coocnet.errors import CoocnetError
from coocnet.evaluate import Truth, average_precision
from coocnet.index import open_index
from coocnet.recipe import PRESETS, Recipe

CHECKOUT = Path(__file__).resolve().parents[1]
WEIGHTS_BESIDE = CHECKOUT.parent / "shared" / "data" / "weights"
IN_ORDER = ("default", "mobile", "resnet50")


def choose_recipe() -> Recipe:
    """The first recipe whose weights are on this machine; else the last, whose weights can be downloaded."""
    if "COOCNET_WEIGHTS" not in os.environ and WEIGHTS_BESIDE.is_dir():
        os.environ["COOCNET_WEIGHTS"] = str(WEIGHTS_BESIDE)
    for name in IN_ORDER:
        recipe = PRESETS[name]
        if find_weights(next(iter(BACKBONES[recipe.backbone].weights.values()))):
            return recipe
    print("No weights are on this machine yet: trying to download those of ResNet-50 (98 MB).")
    return PRESETS[IN_ORDER[-1]]


def command(*arguments: str | Path) -> None:
    """Runs the coocnet command, showing it first."""
    words = [str(argument) for argument in arguments]
    print("\n$ coocnet " + " ".join(words), flush=True)
    subprocess.run([sys.executable, "-m", "coocnet", *words], check=True)


def judge(output: Path, recipe: Recipe, views: list[View]) -> None:
    """Searches with every rendered query, cut to its box, and compares with what is known to be right."""
    names = [str(output / "scenes" / view.path) for view in views if view.role == "database"]
    instances = [view.instance for view in views if view.role == "database"]
    queries = [view for view in views if view.role == "query"]
    with open_index(output / "scenes.cooc") as index:
        paths = [output / "scenes" / query.path for query in queries]
        found = index.search(Describer(recipe).describe(paths, boxes=[query.box for query in queries]), k=len(names))
    first, precisions = 0, []
    for query, hits in zip(queries, found, strict=True):
        ranking = [names.index(hit.path) for hit in hits]
        first += instances[ranking[0]] == query.instance
        right = frozenset(i for i, instance in enumerate(instances) if instance == query.instance)
        precisions.append(average_precision(ranking, Truth(right)))
    print(
        f"\nOf {len(queries)} such queries, each a view that is not in the index, {first} have the right building or "
        f"object in first place; mean average precision {sum(precisions) / len(precisions):.2f}."
    )


def main() -> int:
    """Runs the demo; exit status 0 when it went well."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="a folder of your own")
    parser.add_argument("--output", type=Path, default=CHECKOUT / "demo-output")
    given = parser.parse_args()
    output: Path = given.output
    try:
        recipe = choose_recipe()
        views: list[View] = []
        box: tuple[str, ...]
        if given.photos:
            photos, place = given.photos.expanduser(), output / "photos.cooc"
            files = walk(photos).files
            if not files:
                print(f"{photos} holds no pictures.", file=sys.stderr)
                return 1
            query, box = Path(files[0].path), ()
        else:
            print("Rendering a small town: 12 buildings and objects, 5 pictures of each, and one query of each.")
            views = make_scenes(output / "scenes", instances=12, views=5)
            photos, place = output / "scenes" / "database", output / "scenes.cooc"
            asked = next(view for view in views if view.role == "query" and view.instance == 1)
            query, box = output / "scenes" / asked.path, ("--box", ",".join(f"{edge:g}" for edge in asked.box))
        command("index", photos, "--index", place, "--recipe", recipe.name)
        command("search", query, *box, "--index", place, "-k", "10", "--montage", output / "found.png")
        command("heatmap", query, "--recipe", recipe.name, "-o", output / "heatmap.png")
        if views:
            judge(output, recipe, views)
    except CoocnetError as error:
        print(f"\nThe demo cannot run: {error}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        print(f"\nThe demo stopped: the command above ended with status {error.returncode}.", file=sys.stderr)
        return 1
    print(f"\nLook at what was found:          {output / 'found.png'}")
    print(f"Look at where the network looks: {output / 'heatmap.png'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
