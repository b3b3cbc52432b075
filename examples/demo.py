"""The main job from end to end: index a folder, search it with one picture, look at the answer.

    python examples/demo.py                     on pictures it renders itself, with known answers
    python examples/demo.py --photos ~/Pictures on your own

It needs no network and nothing but the package, whose default recipe has its weights with it.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shlex
import subprocess
import sys
from pathlib import Path

from coocnet.data import decode, read_bytes, walk
from coocnet.data.scenes import View, make_scenes
from coocnet.describe import Describer
from coocnet.errors import CoocnetError, ImageError, InputError, printable
from coocnet.evaluate import Truth, average_precision
from coocnet.index import open_index
from coocnet.recipe import Recipe

CHECKOUT = Path(__file__).resolve().parents[1]
BEST = 5


def real(path: Path) -> Path:
    """The absolute path without links, by which an index knows its pictures."""
    return Path(os.path.realpath(os.path.expanduser(path)))


def check_apart(output: Path, folder: Path) -> None:
    """Refuses to write pictures where the next run would take them for photographs.

    Raises:
        InputError: the output lies within the photographs.
    """
    if output.is_relative_to(folder):
        raise InputError(
            f"the demo writes its pictures to {printable(output)}, which lies within your photographs in "
            f"{printable(folder)}: name another folder, as in make demo PHOTOS=... OUTPUT=/tmp/demo"
        )


def index_place(output: Path, folder: Path, recipe: Recipe) -> Path:
    """A place of its own for each folder and recipe."""
    digest = hashlib.blake2b(os.fsencode(folder) + recipe.row_fingerprint().encode(), digest_size=4).hexdigest()
    return output / f"{folder.name[:40]}-{recipe.name}-{digest}.cooc"


def first_picture(folder: Path, recipe: Recipe) -> Path:
    """The first picture of a folder that can be decoded.

    Raises:
        InputError: there is none.
    """
    files = walk(folder).files
    for file in files:
        try:
            decode(read_bytes(file.path), file.path, size_px=recipe.size_px or None)
        except ImageError:
            continue
        return Path(file.path)
    raise InputError(f"{printable(folder)} holds no picture that can be read (files tried: {len(files)})")


def command(*arguments: str | Path) -> None:
    """Runs the coocnet command, showing it first."""
    words = [str(argument) for argument in arguments]
    print("\n$ coocnet " + printable(shlex.join(words)), flush=True)
    subprocess.run([sys.executable, "-m", "coocnet", *words], check=True)


def index_search_look(output: Path, folder: Path, place: Path, recipe: Recipe, query: Path, *box: str) -> None:
    """The three commands of the main job."""
    command("index", folder, "--index", place, "--recipe", recipe.name)
    command("search", query, *box, "--index", place, "-k", "10", "--montage", output / "found.png")
    command("heatmap", query, "--recipe", recipe.name, "-o", output / "heatmap.png")


def on_photographs(output: Path, recipe: Recipe, folder: Path) -> None:
    """Searches a folder with its first picture."""
    query, place = first_picture(folder, recipe), index_place(output, folder, recipe)
    index_search_look(output, folder, place, recipe, query)
    with open_index(place) as index:
        pictures = index.info().pictures
        hits = index.search(Describer(recipe).describe([query]), k=BEST + 1)[0]
    others = [hit for hit in hits if hit.path != str(query)][:BEST]
    print(f"\nPictures in the index: {pictures}. Most similar to {printable(query.name)}, itself left out:")
    for hit in others:
        print(f"  {hit.similarity:.3f}  {printable(os.path.relpath(hit.path, folder))}")
    if not others:
        print("  none: there is no other picture")


def on_scenes(output: Path, recipe: Recipe) -> None:
    """Searches rendered pictures, where what is right is known."""
    print("Rendering a small town: 12 buildings and objects, 5 pictures of each, and one query of each.")
    scenes = output / "scenes"
    views = make_scenes(scenes, instances=12, views=5)
    place = index_place(output, scenes, recipe)
    asked = next(view for view in views if view.role == "query" and view.instance == 1)
    box = ",".join(f"{edge:g}" for edge in asked.box)
    index_search_look(output, scenes / "database", place, recipe, scenes / asked.path, "--box", box)
    judge(scenes, place, recipe, views)


def judge(scenes: Path, place: Path, recipe: Recipe, views: list[View]) -> None:
    """Searches with every rendered query, cut to its box, and compares with what is known to be right."""
    names = [str(scenes / view.path) for view in views if view.role == "database"]
    instances = [view.instance for view in views if view.role == "database"]
    queries = [view for view in views if view.role == "query"]
    with open_index(place) as index:
        paths = [scenes / query.path for query in queries]
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
    output = real(given.output)
    try:
        if given.photos:
            check_apart(output, real(given.photos))
        recipe = Recipe()
        if given.photos:
            on_photographs(output, recipe, real(given.photos))
        else:
            on_scenes(output, recipe)
    except CoocnetError as error:
        print(f"\nThe demo cannot run: {error}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        print(f"\nThe demo stopped: the command above ended with status {error.returncode}.", file=sys.stderr)
        return 1
    print(f"\nLook at what was found:          {printable(output / 'found.png')}")
    print(f"Look at where the network looks: {printable(output / 'heatmap.png')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
