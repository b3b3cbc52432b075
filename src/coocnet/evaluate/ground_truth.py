"""Which pictures of a benchmark are right for which query, and its setups; kept as JSON."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coocnet.errors import InputError, printable, quoted
from coocnet.evaluate.measures import Truth, measure_named

_KIND = "coocnet-ground-truth-1"

SETUPS: dict[str, dict[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "plain": {"": (("ok",), ("junk",))},
    "revisited": {
        "easy": (("easy",), ("junk", "hard")),
        "medium": (("easy", "hard"), ("junk",)),
        "hard": (("hard",), ("junk", "easy")),
    },
}
"""For each labelling, its setups: the labels that count as positive, and those that count neither way.

The revisited ones are those of Radenović et al. 2018, "Revisiting Oxford and Paris".
"""


@dataclass(frozen=True)
class Query:
    """One query of a benchmark.

    Attributes:
        image: name of its picture, in the database or beside it.
        box: x1, y1, x2, y2 in pixels of the picture: the part that is looked for; None for all of it.
        labels: positions of database pictures by label; the labelling says which there are.
    """

    image: str
    box: tuple[float, float, float, float] | None
    labels: Mapping[str, frozenset[int]]


@dataclass(frozen=True)
class GroundTruth:
    """A benchmark's list of pictures, its queries, and what is right for each.

    Attributes:
        name: of the benchmark.
        labelling: a key of :data:`SETUPS`.
        images: names of the database pictures, without folder and ending where the benchmark writes them so.
        queries: in the benchmark's order.
        measures: what is reported: "map", "mp@k" for a k, "ns" (mean number of right ones among the first four).

    A query whose own picture is in the database and must not count has itself as junk; where it counts as found, as
    in Oxford5k and Paris6k, it has itself as ok. A picture under two labels is positive where one of them is.
    """

    name: str
    labelling: str
    images: tuple[str, ...]
    queries: tuple[Query, ...]
    measures: tuple[str, ...] = ("map",)

    def __post_init__(self) -> None:
        """Refuses labels that are not of the labelling, positions outside the database, and unknown measures.

        Raises:
            InputError: with the query or the measure that is at fault.
        """
        if not self.measures:
            raise InputError(f"{self.name} names no measure")
        for measure in self.measures:
            measure_named(measure)
        if self.labelling not in SETUPS:
            raise InputError(f"a labelling is one of {', '.join(SETUPS)}, got {self.labelling!r}")
        known = {label for setup in SETUPS[self.labelling].values() for labels in setup for label in labels}
        for query in self.queries:
            if wrong := set(query.labels) - known:
                raise InputError(
                    f"{self.name}, query {query.image!r}: labels are {sorted(known)}, got {sorted(wrong)}"
                )
            outside = [p for places in query.labels.values() for p in places if not 0 <= p < len(self.images)]
            if outside:
                raise InputError(
                    f"{self.name}, query {query.image!r}: position {outside[0]} lies outside the "
                    f"{len(self.images)} pictures"
                )

    @property
    def setups(self) -> tuple[str, ...]:
        """Names of the setups; the only one of a plain labelling is called ""."""
        return tuple(SETUPS[self.labelling])

    def truths(self, setup: str = "") -> list[Truth | None]:
        """What is right for each query; None where a query has no positive: it is left out of every mean.

        Raises:
            InputError: no such setup.
        """
        if setup not in self.setups:
            raise InputError(f"{self.name} has the setups {', '.join(map(repr, self.setups))}, got {setup!r}")
        positive, neither = SETUPS[self.labelling][setup]
        found: list[Truth | None] = []
        for query in self.queries:
            positives = frozenset[int]().union(*(query.labels.get(label, ()) for label in positive))
            junk = frozenset[int]().union(*(query.labels.get(label, ()) for label in neither))
            found.append(Truth(positives, junk - positives) if positives else None)
        return found

    def labelled(self) -> list[list[int]]:
        """For each query the positions of the pictures under any label, rising: all that a score depends on."""
        return [sorted(frozenset[int]().union(*query.labels.values())) for query in self.queries]

    def queries_in_database(self) -> dict[str, int]:
        """How many queries have their own picture in the database, by its label; "outside" counts the others.

        A query's own picture without a label, "unlabelled", counts as wrong wherever it is ranked.
        """
        position = {name: place for place, name in enumerate(self.images)}

        def where(query: Query) -> str:
            if query.image not in position:
                return "outside"
            own = position[query.image]
            return next((label for label, among in query.labels.items() if own in among), "unlabelled")

        return dict(sorted(Counter(map(where, self.queries)).items()))

    def digest(self) -> str:
        """SHA-256 of what decides a score: labelling, pictures, queries and labels, but not name and measures."""
        document = json.loads(self.to_json())
        decisive = {key: document[key] for key in ("labelling", "images", "queries")}
        for query in decisive["queries"]:
            query["box"] = query["box"] and [float(edge) for edge in query["box"]]
            query["labels"] = {label: among for label, among in query["labels"].items() if among}
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()

    def to_json(self) -> str:
        """The whole ground truth as JSON; :meth:`from_json` gives an equal one back."""
        queries = [
            {
                "image": query.image,
                "box": query.box,
                "labels": {label: sorted(places) for label, places in query.labels.items()},
            }
            for query in self.queries
        ]
        document: dict[str, object] = {"kind": _KIND, "name": self.name, "labelling": self.labelling}
        return json.dumps({**document, "measures": self.measures, "images": self.images, "queries": queries})

    @classmethod
    def from_json(cls, text: str | bytes) -> GroundTruth:
        """Reads what :meth:`to_json` wrote.

        Raises:
            InputError: something else.
        """
        try:
            table = json.loads(text)
            kind = table["kind"]
            queries = tuple(_query(entry) for entry in table["queries"])
            images, measures = tuple(map(str, table["images"])), tuple(map(str, table["measures"]))
            name, labelling = str(table["name"]), str(table["labelling"])
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise InputError(f"this is not a ground truth as JSON: {quoted(error)}") from error
        if kind != _KIND:
            raise InputError(f"a ground truth of kind {quoted(kind)} cannot be read")
        return cls(name, labelling, images, queries, measures)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> GroundTruth:
        """Reads a file.

        Raises:
            InputError: not there, or not a ground truth.
        """
        try:
            return cls.from_json(Path(path).read_bytes())
        except (OSError, InputError) as error:
            raise InputError(f"{printable(path)}: {getattr(error, 'strerror', None) or error}") from error


def _query(entry: dict[str, Any]) -> Query:
    box = entry["box"]
    if box is not None:
        x1, y1, x2, y2 = map(float, box)
        box = (x1, y1, x2, y2)
    labels = {str(label): frozenset(map(int, places)) for label, places in entry["labels"].items()}
    return Query(str(entry["image"]), box, labels)
