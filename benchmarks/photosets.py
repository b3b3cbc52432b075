"""The collections of real photographs that the benchmarks read: pictures, queries, ground truth, pairs."""

from __future__ import annotations

import csv
import itertools
import json
import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from coocnet.data import Box
from coocnet.evaluate import Truth

JUDGED = ("paris6k_subset", "paris6k_web", "paintings")
"""Sets that nothing is fitted on or chosen by."""
CHOOSING = ("ukbench", "dvd_covers", "porto")
"""Sets that parameters are chosen by. They serve for fitting too: each is judged by what was fitted on the others."""
FIT_ON = ("ukbench", "dvd_covers", "porto/train", "scenes")
"""Folders that whitenings are fitted on."""
LEARN_ON = "unlabelled"
"""Folder that means and principal axes of cells are learned on: every fourth picture."""

_PORTO_PAIRS = 900
Item = TypeVar("Item")


@dataclass
class Set:
    """A collection with queries and ground truth.

    Attributes:
        name: of the set.
        folder: holds exactly the database, where it is one folder.
        database: the pictures that are ranked.
        queries: the pictures that are looked for.
        truths: what is right for each query, by position in the database.
        boxes: the part of each query that is looked for; None for all of it.
    """

    name: str
    folder: Path
    database: list[Path]
    queries: list[Path]
    truths: list[Truth]
    boxes: list[Box | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Without boxes, queries are whole pictures."""
        self.boxes = self.boxes or [None] * len(self.queries)


def paris(images: Path) -> Set:
    """The 12 official queries of Paris6k on the pictures here, cropped to their boxes, junk removed."""
    folder = images / "paris6k_subset"
    content = json.loads((folder / "gnd_paris6k_subset.json").read_text())
    place = {path.stem: path for path in folder.rglob("*.jpg")}
    return Set(
        "paris6k_subset",
        folder / "paris",
        [place[name] for name in content["imlist"]],
        [place[name] for name in content["qimlist"]],
        [Truth(frozenset(truth["ok"]), frozenset(truth["junk"])) for truth in content["gnd"]],
        [tuple(truth["bbx"]) for truth in content["gnd"]],
    )


def paris_web(images: Path) -> Set:
    """26 photographs from the web against the same pictures: right are those that officially show the landmark.

    Pictures filed under the landmark that are not officially good count neither way.
    """
    folder = images / "paris6k_subset"
    entries = _manifest(folder)
    database = [entry for entry in entries if entry["role"] == "database"]
    queries = [entry for entry in entries if entry["role"] == "web_query"]
    truths = []
    for query in queries:
        landmark = query["folder_landmark"]
        filed = {place for place, entry in enumerate(database) if entry["folder_landmark"] == landmark}
        shown = {place for place in filed if database[place]["official_ok_for"] == landmark.removesuffix("_tower")}
        truths.append(Truth(frozenset(shown), frozenset(filed - shown)))
    return Set("paris6k_web", folder / "paris", _paths(folder, database), _paths(folder, queries), truths)


def paintings(images: Path) -> Set:
    """60 photographs of paintings, each with one relevant picture among 287."""
    return _one_right("paintings", images, "db")


def dvd_covers(images: Path) -> Set:
    """100 photographs of covers by poor cameras, each with one relevant reference among 100."""
    return _one_right("dvd_covers", images, "reference")


def ukbench(images: Path) -> Set:
    """600 pictures of 150 objects, four of each; every picture looks for its other three."""
    folder = images / "ukbench"
    entries = _manifest(folder)
    members = _grouped(range(len(entries)), lambda place: entries[place]["object"])
    truths = [
        Truth(frozenset(members[entry["object"]]) - {place}, frozenset([place]))
        for place, entry in enumerate(entries)
    ]
    return Set("ukbench", folder, _paths(folder, entries), _paths(folder, entries), truths)


def porto(images: Path) -> Set:
    """100 photographs of five landmarks of Porto (val) against 300 (train); the test pictures are left alone."""
    folder = images / "porto"
    entries = _manifest(folder)
    database = [entry for entry in entries if entry["split"] == "train"]
    queries = [entry for entry in entries if entry["split"] == "val"]
    members = _grouped(range(len(database)), lambda place: database[place]["label"])
    truths = [Truth(frozenset(members[query["label"]])) for query in queries]
    return Set("porto", folder / "train", _paths(folder, database), _paths(folder, queries), truths)


def porto_test(images: Path) -> Set:
    """100 other photographs of the five landmarks of Porto against the 400 of train and val: judged on only."""
    folder = images / "porto"
    entries = _manifest(folder)
    database = [entry for entry in entries if entry["split"] != "test"]
    queries = [entry for entry in entries if entry["split"] == "test"]
    members = _grouped(range(len(database)), lambda place: database[place]["label"])
    truths = [Truth(frozenset(members[query["label"]])) for query in queries]
    return Set("porto_test", folder, _paths(folder, database), _paths(folder, queries), truths)


def things(images: Path, name: str) -> dict[str, list[str]]:
    """The pictures of each thing of a set that may be learned on; of Porto the training pictures."""
    folder = images / name
    column = {"ukbench": "object", "dvd_covers": "instance", "porto": "label"}[name]
    entries = [entry for entry in _manifest(folder) if entry.get("split", "train") == "train"]
    grouped = _grouped(entries, lambda entry: entry[column])
    return {thing: [str(folder / entry["path"]) for entry in listed] for thing, listed in grouped.items()}


SETS: dict[str, Callable[[Path], Set]] = {
    "paris6k_subset": paris,
    "paris6k_web": paris_web,
    "paintings": paintings,
    "dvd_covers": dvd_covers,
    "ukbench": ukbench,
    "porto": porto,
}


def fit_pictures(images: Path, *, without: str = "") -> list[Path]:
    """The pictures that a whitening is fitted on, without those of one set."""
    folders = [folder for folder in FIT_ON if folder.partition("/")[0] != without]
    return [path for folder in folders for path in sorted((images / folder).rglob("*.jpg"))]


def learning_pictures(images: Path) -> list[Path]:
    """The pictures that means and principal axes of cells are learned on."""
    return sorted((images / LEARN_ON).rglob("*.jpg"))[::4]


def pairs(images: Path, *, without: str = "") -> list[tuple[Path, Path]]:
    """Pairs of pictures of one thing, of the sets that may be fitted on; 900 of Porto's many, drawn with a seed."""
    found: dict[str, list[tuple[Path, Path]]] = {}
    one = ukbench(images)
    members = _grouped(one.database, lambda path: str(int(path.stem.removeprefix("ukbench")) // 4))
    found["ukbench"] = [pair for group in members.values() for pair in itertools.combinations(group, 2)]
    one = dvd_covers(images)
    found["dvd_covers"] = [
        (query, one.database[next(iter(truth.positives))])
        for query, truth in zip(one.queries, one.truths, strict=True)
    ]
    members = _grouped(porto(images).database, lambda path: path.parent.name)
    every = [pair for group in members.values() for pair in itertools.combinations(group, 2)]
    found["porto"] = random.Random(0).sample(every, _PORTO_PAIRS)
    return [pair for name, listed in found.items() if name != without for pair in listed]


def _one_right(name: str, images: Path, database_folder: str) -> Set:
    folder = images / name
    entries = _manifest(folder)
    database = [entry["path"] for entry in entries if entry["role"] == "database"]
    queries = [entry for entry in entries if entry["role"] != "database"]
    truths = [Truth(frozenset([database.index(query["relevant_db"])])) for query in queries]
    paths = [folder / path for path in database]
    return Set(name, folder / database_folder, paths, _paths(folder, queries), truths)


def _manifest(folder: Path) -> list[dict[str, str]]:
    with (folder / "manifest.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def _paths(folder: Path, entries: Sequence[dict[str, str]]) -> list[Path]:
    return [folder / entry["path"] for entry in entries]


def _grouped(items: Iterable[Item], key: Callable[[Item], str]) -> dict[str, list[Item]]:
    groups: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return groups
