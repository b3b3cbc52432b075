"""A folder of one's own as a benchmark: a manifest says what each picture shows and which are queries."""

from __future__ import annotations

import csv
import io
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from coocnet.data.benchmarks.checks import Bad, box, checked_truth, number, short, told
from coocnet.data.benchmarks.pickles import text_of
from coocnet.data.images import Box
from coocnet.errors import printable
from coocnet.evaluate.ground_truth import GroundTruth, Query

MANIFEST_NAME = "manifest.csv"
ROLES = ("database", "query", "both")
_EDGES = ("x1", "y1", "x2", "y2")


def from_manifest(path: str | os.PathLike[str], *, name: str, measures: Sequence[str]) -> GroundTruth:
    """The ground truth that a manifest spells out.

    Its columns are image (a path below the manifest's folder), instance, role ("database", "query" or "both") and,
    for queries that are a part of their picture, x1, y1, x2, y2. A picture that shows several instances has a row for
    each; a database picture without an instance is right for no query. A query's own picture, where it is in the
    database, counts neither way.

    Raises:
        BenchmarkError: not there, or the line that is at fault.
    """
    with told(printable(path)):
        rows = csv.DictReader(io.StringIO(text_of(Path(path))))
        position: dict[str, int] = {}
        showing: dict[str, set[int]] = defaultdict(set)
        asked: dict[tuple[str, str, Box | None], None] = {}
        try:
            if missing := {"image", "instance", "role"} - {*(rows.fieldnames or ())}:
                raise Bad(f"its first line names the columns image, instance, role; there is no {sorted(missing)[0]}")
            for row in rows:
                with _line(rows.line_num):
                    image, instance, role, part = _parsed(row)
                    if role != "query":
                        place = position.setdefault(image, len(position))
                        if instance:
                            showing[instance].add(place)
                    if role != "database" and (image, instance, part) in asked:
                        raise Bad(f"the query {short(image)} is there twice")
                    if role != "database":
                        asked[image, instance, part] = None
        except csv.Error as error:
            raise Bad(f"line {rows.line_num}: {error}") from error
        if not asked or not position:
            raise Bad(f"it has {len(position)} database pictures and {len(asked)} queries: at least one of each")
        queries = []
        for image, instance, part in asked:
            own = frozenset({position[image]} if image in position else ())
            queries.append(Query(image, part, {"ok": frozenset(showing[instance]) - own, "junk": own}))
        return checked_truth(name, "plain", tuple(position), queries, measures)


class _line:  # noqa: N801 - reads as a phrase
    """Adds the number of a line to what is wrong in it."""

    def __init__(self, at: int) -> None:
        self.at = at

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        if isinstance(error, Bad):
            raise Bad(f"line {self.at}: {error}") from error


def _parsed(row: Mapping[str, str | None]) -> tuple[str, str, str, Box | None]:
    image, instance, role = ((row.get(key) or "").strip() for key in ("image", "instance", "role"))
    parts = image.replace("\\", "/").split("/")
    if not image or not image.isprintable() or ".." in parts or parts[0] == "" or ":" in parts[0]:
        raise Bad(f"an image is a path below the folder, got {short(image)}")
    if role not in ROLES:
        raise Bad(f"a role is one of {', '.join(ROLES)}, got {short(role)}")
    if role != "database" and not instance:
        raise Bad(f"the query {short(image)} has no instance")
    edges = [(row.get(edge) or "").strip() for edge in _EDGES]
    if role == "database" or not any(edges):
        return image, instance, role, None
    return image, instance, role, box([number(edge) for edge in edges])
