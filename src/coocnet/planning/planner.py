"""A plan: what a collection takes, and what holds it."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from coocnet.errors import InputError
from coocnet.index.approximate import BUILD_FROM
from coocnet.planning.describing import Describing, describing, dims, units_given, worker
from coocnet.planning.figures import GIB, value
from coocnet.planning.storage import KEY, KIND, Folder, InMilvus, folder_of, kinds_in_milvus, lists_of
from coocnet.recipe import Recipe

_ROWS, _DIM = 1_000_000, 512
_LEAST_APPROXIMATE = 1000
_MOST_PICTURES = 10**12
_COUNT = re.compile(r"\s*([0-9][0-9_,]*(?:\.[0-9]+)?(?:e\+?[0-9]{1,2})?)\s*([kmb]?)\s*$", re.IGNORECASE)
_SUFFIXES = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9}


@dataclass(frozen=True)
class Searching:
    """One query on one machine.

    Attributes:
        exact_ms: with two cores, bound by the memory that is read.
        exact_per_s: answers a second where 64 queries are answered by one pass.
        approximate_ms: with one core; None where there are too few pictures. Measured up to a million.
        recall: of the ten most similar, measured with a million.
        built_s: of the approximate search, from and to: in proportion to pictures, and to their power of 3/2.
        ready_s: until a search sees a change.
        exact_holds: pictures whose rows one machine's memory holds.
        approximate_holds: the same for an approximate search.
    """

    exact_ms: float
    exact_per_s: float
    approximate_ms: float | None
    recall: float
    built_s: tuple[float, float] | None
    ready_s: float
    exact_holds: int
    approximate_holds: int


@dataclass(frozen=True)
class Plan:
    """What a collection takes.

    Attributes:
        pictures: how many, all different.
        recipe: its name.
        stored_dim: numbers of a row as it is stored, before whitening.
        dim: numbers of a row as it is searched.
        machine_cores: of one machine.
        machine_bytes: memory of one machine.
        describing: see :class:`Describing`.
        thumbnails: bytes of all of them.
        folder: see :class:`Folder`.
        milvus: by kind of its approximate search; empty where Milvus has no such rows.
        segments: of the rows that Milvus searches, at least.
        searching: see :class:`Searching`.
        verdict: what holds it, in words.
        reasons: why, in sentences.
    """

    pictures: int
    recipe: str
    stored_dim: int
    dim: int
    machine_cores: int
    machine_bytes: float
    describing: Describing
    thumbnails: float
    folder: Folder
    milvus: tuple[InMilvus, ...]
    segments: int
    searching: Searching
    verdict: str
    reasons: tuple[str, ...]


def count_of(text: str) -> int:
    """A number of pictures as people write it: 1e6, 100e6, 1M, 2.5M, 1B, 250k, 1,000,000.

    Raises:
        InputError: something else, no whole number, or more than 10¹².
    """
    found = _COUNT.match(text)
    count = float(found[1].replace(",", "").replace("_", "")) * _SUFFIXES[found[2].lower()] if found else 0.0
    if not 1 <= count <= _MOST_PICTURES or abs(count - round(count)) > 1e-6:
        raise InputError(f"a number of pictures is written as 250k, 1e6, 100M or 1B, up to 10^12, got {text!r}")
    return round(count)


def plan(
    pictures: int,
    *,
    recipe: Recipe | None = None,
    dim: int | None = None,
    engine: str | None = None,
    cores: int | None = None,
    gpus: int | None = None,
    hours: float | None = None,
    rate: float | None = None,
    gpu_rate: float | None = None,
    picture_bytes: float | None = None,
    thumbnail_bytes: float | None = None,
    machine_cores: int | None = None,
    machine_gib: float | None = None,
) -> Plan:
    """What a collection of so many different pictures takes.

    Args:
        pictures: how many.
        recipe: how they are described; the default one if not given.
        dim: numbers of a row, stored and searched; the recipe's if not given.
        engine: how a processor computes the network; the one that is chosen unasked if not given.
        cores: that describe; those of one machine if neither these nor ``gpus`` nor ``hours`` are given.
        gpus: that describe, instead of cores.
        hours: the time there is, to be told how many cores or, with ``gpu_rate``, GPUs that takes.
        rate: pictures a second of one core, in place of what was measured.
        gpu_rate: pictures a second of one GPU; none was measured here.
        picture_bytes: mean size of a picture's file.
        thumbnail_bytes: mean size of a thumbnail.
        machine_cores: of one machine.
        machine_gib: memory of one machine.

    Raises:
        InputError: a number that is none or not above 0, two of cores, gpus and hours, GPUs without their rate, or a
            network, an engine or a size whose rate was not measured, where none is given.
    """
    given: dict[str, float | None] = {
        "cores": cores,
        "gpus": gpus,
        "hours": hours,
        "rate": rate,
        "gpu-rate": gpu_rate,
    }
    given |= {"dim": dim, "picture-bytes": picture_bytes, "thumbnail-bytes": thumbnail_bytes}
    given |= {"pictures": pictures, "machine-cores": machine_cores, "machine-gib": machine_gib}
    for name, number in given.items():
        if number is not None and not 0 < number < math.inf:
            raise InputError(f"{name} is a number above 0, got {number!r}")
    recipe = recipe or Recipe()
    stored, searched = (dim, dim) if dim else dims(recipe)
    is_whitened = recipe.whitening != "none"
    machine_cores = machine_cores or int(value("cores of a machine"))
    machine_bytes = (machine_gib or value("memory of a machine")) * GIB
    kinds = kinds_in_milvus(pictures, stored, searched, is_whitened=is_whitened, machine_bytes=machine_bytes)
    folder = folder_of(pictures, stored, searched)
    searching = _searching(pictures, searched, machine_bytes)
    fits = max(stored, searched) <= value("dimensions")
    verdict, reasons = _verdict(pictures, folder, kinds if fits else (), searching, machine_bytes)
    return Plan(
        pictures=pictures,
        recipe=recipe.name,
        stored_dim=stored,
        dim=searched,
        machine_cores=machine_cores,
        machine_bytes=machine_bytes,
        describing=describing(
            pictures,
            worker(recipe, engine, given),
            units=units_given(cores, gpus, hours),
            hours=hours,
            machine_cores=machine_cores,
            picture_bytes=picture_bytes or value("photograph"),
        ),
        thumbnails=pictures * (thumbnail_bytes or value("thumbnail")),
        folder=folder,
        milvus=kinds if fits else (),
        segments=math.ceil(pictures * (4 * searched + KEY) / (value("segment") * 2**20)),
        searching=searching,
        verdict=verdict,
        reasons=reasons,
    )


def _searching(pictures: int, dim: int, machine_bytes: float) -> Searching:
    """Times in proportion to the numbers read.

    An exact search reads all. An approximate one reads the centroids of 4√n lists and the rows of some; how many is
    tuned when it is built, and taken as with a million.
    """
    share = pictures / _ROWS * dim / _DIM

    def looked_at(rows: int, lists: float) -> float:
        return lists + min(value("probes"), lists) * rows / lists

    enough = pictures >= _LEAST_APPROXIMATE
    looked = looked_at(pictures, lists_of(pictures)) / looked_at(_ROWS, value("lists"))
    built = [value("approximate search built") * dim / _DIM * (pictures / _ROWS) ** power for power in (1, 1.5)]
    held = machine_bytes * value("memory for rows")
    one = folder_of(_ROWS, dim, dim)
    return Searching(
        exact_ms=value("exact search") * share,
        exact_per_s=64_000 / (value("exact search of 64") * share),
        approximate_ms=value("approximate search") * looked * dim / _DIM if enough else None,
        recall=value("recall@10"),
        built_s=(min(built), max(built)) if enough else None,
        ready_s=value("ready after a change") * share,
        exact_holds=int(held / one.exact_memory * _ROWS),
        approximate_holds=int(held / one.approximate_memory * _ROWS),
    )


FOLDER, FOLDER_APPROXIMATE = "one machine, a folder", "one machine, a folder with an approximate search"
STANDALONE, CLUSTER = "Milvus on one machine (standalone)", "Milvus on several machines (a cluster)"
NOTHING = "nothing here holds it"


def _verdict(
    pictures: int, folder: Folder, kinds: tuple[InMilvus, ...], searching: Searching, machine_bytes: float
) -> tuple[str, tuple[str, ...]]:
    """The first that holds it: a folder, a folder with an approximate search, Milvus on one machine, on several."""
    held = machine_bytes * value("memory for rows")
    wait = value("wait after a change")
    gib = f"of the {held / GIB:,.0f} GiB that one machine has for it"
    if pictures < BUILD_FROM and folder.exact_memory <= held:
        return FOLDER, (
            f"Its rows take {folder.exact_memory / GIB:,.2f} GiB {gib}.",
            f"An exact search takes {searching.exact_ms:,.0f} ms; below {BUILD_FROM:,} pictures none other is built.",
        )
    if folder.approximate_memory <= held and searching.ready_s <= wait:
        return FOLDER_APPROXIMATE, (
            f"Its lists take {folder.approximate_memory / GIB:,.1f} GiB {gib}.",
            f"After a change a search is ready again in {searching.ready_s:,.0f} s, less than {wait:,.0f} s.",
        )
    too_much = (
        f"a folder's lists would take {folder.approximate_memory / GIB:,.0f} GiB {gib}"
        if folder.approximate_memory > held
        else f"a folder would need {searching.ready_s / 60:,.0f} minutes after each change until a search is ready"
    )
    first = f"{too_much[0].upper()}{too_much[1:]}."
    if not kinds:
        most = value("dimensions")
        return NOTHING, (first, f"Milvus has vectors of up to {most:,.0f} numbers: whiten to fewer with a recipe.")
    chosen = next(kind for kind in kinds if kind.kind == KIND)
    takes = f"Milvus loads {chosen.memory / GIB:,.0f} GiB with {KIND} beside the exact rows"
    share = f"{value('loaded'):.0%} of the memory of the query nodes may be loaded"
    if chosen.nodes == 1:
        return STANDALONE, (first, f"{takes}; {share}, so one machine of {machine_bytes / GIB:,.0f} GiB does.")
    return CLUSTER, (first, f"{takes}; {share}, so {chosen.nodes:,} nodes of {machine_bytes / GIB:,.0f} GiB hold it.")
