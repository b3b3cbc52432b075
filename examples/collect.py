"""For people with photographs: copies every picture that shows what one picture shows into a folder of its own.

    python examples/collect.py tower.jpg ~/Pictures towers

The cut between "shows it" and "does not" is learned from the collection, which takes 50 pictures or more.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import coocnet as cn


def collect(query: Path, photographs: Path, target: Path, index_folder: Path) -> list[Path]:
    """The copies of what was found, named so that the most similar comes first."""
    describer = cn.Describer()
    with cn.open_index(index_folder, describer.recipe) as index:
        index.sync(photographs, describer=describer)
        found = index.search(describer.describe([query]), k=500, threshold="auto")[0]
    hits = [hit for hit in found if Path(hit.path).is_relative_to(photographs.resolve())]
    if hits:
        target.mkdir(parents=True)
    return [
        Path(shutil.copy2(hit.path, target / f"{hit.rank:03d} {hit.similarity:.2f} {Path(hit.path).name}"))
        for hit in hits
    ]


def main() -> None:
    """Reads the command line and says what was copied."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("query", type=Path, help="a picture of the thing")
    parser.add_argument("photographs", type=Path, help="the folder to look through; it is only read")
    parser.add_argument("target", type=Path, help="a new folder for the copies")
    parser.add_argument("--index", type=Path, default=Path("photos.cooc"), help="where the index is kept")
    given = parser.parse_args()
    if given.target.exists():
        parser.error(f"{given.target} is there already: name a new folder")
    try:
        copies = collect(given.query, given.photographs.expanduser(), given.target, given.index)
    except cn.CoocnetError as error:
        parser.exit(1, f"{error}\n")
    for copy in copies:
        print(copy.name)
    print(f"{len(copies)} pictures copied to {given.target}" if copies else "nothing like it was found")


if __name__ == "__main__":
    main()
