"""Other people's ground truth, turned into ours.

Each reader takes what is written and gives a :class:`~coocnet.evaluate.GroundTruth`, or a
:class:`~coocnet.errors.BenchmarkError` that quotes what is wrong. Nothing here touches a picture.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from coocnet.data.benchmarks.checks import Bad, Budget, box, checked_truth, integers, names, number, short, told
from coocnet.data.benchmarks.pickles import read_pickle, small_file, text_of
from coocnet.errors import BenchmarkError, printable
from coocnet.evaluate.ground_truth import GroundTruth, Query

_VGG_PREFIX = "oxc1_"
_LABELS = {"plain": ("ok", "junk"), "revisited": ("easy", "hard", "junk")}
_VIEWS_PER_OBJECT = 4
_FIRST_GROUP = 1000
_PICTURES_IN_GROUP = (
    "3223242223222255232222343222323355242323724233223335222222323232427524224222232327422222332222322232"
    "2223222332322222242242239232232222532222322235242422222233233222322442232342223242343222422242226522"
    "222222242222225222223343353a224262523222423332223223422224323332332693223244323232222322224232223232"
    "2324222232232234426223243c2223423222343242224564524523342433b4424628648423254632d64a2869466664574222"
    "2222242243223522254252232322222222222345252332255443423322434384633222243533433252422242233323225223"
)
"""How many pictures each of the 500 groups of Holidays has, in base 14; from the names in its archives."""

Labelling = Literal["plain", "revisited"]


def read_table(path: str | os.PathLike[str]) -> object:
    """The plain value in a file of ground truth, ``.pkl`` or ``.json``.

    Raises:
        BenchmarkError: not readable, damaged, too large, or with more in it than plain values.
    """
    if Path(path).suffix != ".json":
        return read_pickle(path)
    try:
        return json.loads(small_file(path))
    except (ValueError, RecursionError) as error:
        raise BenchmarkError(f"{printable(path)} is not JSON, or damaged ({error}): fetch it again") from error


def from_table(
    table: object, *, name: str, labelling: Labelling, measures: Sequence[str], where: str = "this ground truth"
) -> GroundTruth:
    """The form of cirtorch and revisitop: ``{"imlist", "qimlist", "gnd"}``.

    ``imlist`` and ``qimlist`` are names of pictures without ending; ``gnd`` has, for each query, ``bbx`` (x1, y1,
    x2, y2 in pixels) and positions in ``imlist``: ``ok`` and ``junk``, or ``easy``, ``hard`` and ``junk``. In the
    classic form ``ok`` is the official good and ok, and holds the query itself.

    Raises:
        BenchmarkError: another form, another labelling, or a position outside the list.
    """
    with told(f"{where} cannot be used for {name}"):
        if not isinstance(table, Mapping):
            raise Bad(f"it is a {type(table).__name__}, not a table")
        images, queries = names(table, "imlist"), names(table, "qimlist")
        entries = table.get("gnd")
        if not isinstance(entries, list) or len(entries) != len(queries):
            raise Bad(f"'gnd' is not a list of {len(queries)} entries, one for each query")
        budget = Budget()
        found = [
            _query(query, entry, _LABELS[labelling], budget) for query, entry in zip(queries, entries, strict=True)
        ]
        return checked_truth(name, labelling, images, found, measures)


def from_vgg_text(folder: str | os.PathLike[str], *, name: str, images: Sequence[str]) -> GroundTruth:
    """The text files of the Oxford and Paris buildings: ``<query>_query.txt``, ``_good``, ``_ok`` and ``_junk``.

    A query file has the picture's name, in Oxford behind the prefix ``oxc1_``, and its box in pixels. Good and ok
    are both right; the order of the queries is that of the file names, which is that of the official list.

    Args:
        folder: where the text files are.
        name: of the benchmark.
        images: the database in the order to be used; the text files do not list it.

    Raises:
        BenchmarkError: no such files, one that does not parse, or a name that is not in ``images``.
    """
    position = {image: place for place, image in enumerate(images)}
    found = []
    with told(printable(folder)):
        for path in sorted(Path(folder).glob("*_query.txt")):
            words = text_of(path).split()
            if len(words) != 5:
                raise Bad(f"{path.name} does not hold a name and four numbers")
            labels: dict[str, frozenset[int]] = {"ok": frozenset(), "junk": frozenset()}
            for ending, label in (("good", "ok"), ("ok", "ok"), ("junk", "junk")):
                beside = path.with_name(path.name.removesuffix("query.txt") + ending + ".txt")
                listed = text_of(beside).split()
                if unknown := [image for image in listed if image not in position]:
                    raise Bad(f"{beside.name} names {printable(unknown[0])!r}, which is not in the database")
                labels[label] |= {position[image] for image in listed}
            found.append(Query(words[0].removeprefix(_VGG_PREFIX), box([number(edge) for edge in words[1:]]), labels))
        if not found:
            raise Bad("there is no file *_query.txt")
        return checked_truth(name, "plain", images, found, ("map",))


def holidays(name: str) -> GroundTruth:
    """INRIA Holidays: six digits name a picture, the first four its group; the query is the one that ends in 00.

    The query's own picture is in the database and is junk; the others of its group are right.
    """
    images: list[str] = []
    queries = []
    for group, digit in enumerate(_PICTURES_IN_GROUP, _FIRST_GROUP):
        own, count = len(images), int(digit, 14)
        images += [f"{group}{place:02d}" for place in range(count)]
        others = frozenset(range(own + 1, own + count))
        queries.append(Query(images[own], None, {"ok": others, "junk": frozenset({own})}))
    return GroundTruth(name, "plain", tuple(images), tuple(queries))


def ukbench(name: str, images: int) -> GroundTruth:
    """UKBench: picture i shows object i // 4; every one is a query and counts as found itself (N-S, at most 4)."""
    listed = tuple(f"ukbench{number:05d}" for number in range(images))
    queries = []
    for place, image in enumerate(listed):
        first = place - place % _VIEWS_PER_OBJECT
        queries.append(Query(image, None, {"ok": frozenset(range(first, min(first + _VIEWS_PER_OBJECT, images)))}))
    return GroundTruth(name, "plain", listed, tuple(queries), ("ns",))


def _query(image: str, entry: object, labels: Sequence[str], budget: Budget) -> Query:
    if not isinstance(entry, Mapping):
        raise Bad(f"the entry of query {image} is no table")
    if missing := [label for label in labels if label not in entry]:
        raise Bad(
            f"query {image} has no {missing[0]!r}; it has {', '.join(map(short, list(entry)[:6]))}: "
            "is it the ground truth of another protocol?"
        )
    places = {label: frozenset(integers(entry[label], label, budget)) for label in labels}
    return Query(image, box(entry.get("bbx")), places)
