"""What a collection of some size takes, on paper: machines, hours and bytes, from what was measured on small ones.

Every number is one of :data:`FIGURES`, which says where it comes from, or arithmetic on them that a docstring here
shows. Nothing is measured when a plan is made. A collection of more than a million pictures was never made.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

from coocnet.backbones import BACKBONES
from coocnet.errors import InputError
from coocnet.index.approximate import BUILD_FROM
from coocnet.poolings import row_dim
from coocnet.recipe import Recipe

GIB = 1 << 30


@dataclass(frozen=True)
class Figure:
    """A number that is not computed here.

    Attributes:
        value: the number.
        unit: of the number.
        source: a result file of this project, an address of Milvus's documentation, or "chosen" for an assumption.
        path: where it stands in the result file.
    """

    value: float
    unit: str
    source: str
    path: tuple[str | int, ...] = ()


def _indexing(side: str, value: float) -> Figure:
    path = ("pictures_per_s", side, "median")
    return Figure(value, "pictures a second on two cores", "results/indexing.json", path)


def _million(value: float, unit: str, *path: str | int) -> Figure:
    return Figure(value, unit, "results/search.json", path)


def _footprint(value: float, *path: str | int) -> Figure:
    return Figure(value, "bytes for each picture", "results/footprint.json", path)


def _milvus(value: float, unit: str, page: str = "v2.6.x/limitations") -> Figure:
    return Figure(value, unit, f"https://milvus.io/docs/{page}.md")


_NETWORKS = {"mini": "mini", "squeezenet1_1": "squeezenet", "mobilenetv2": "mobile", "resnet101v2": "resnet101v2"}
_NETWORKS |= {"vgg16": "vgg16"}
_NETWORK_MS = {
    "mini": {"float32": (47.56, 197.97), "bfloat16": (24.57, 96.81), "int8": (14.5, 55.77)},
    "squeezenet": {"float32": (38.78, 258.11), "bfloat16": (21.69, 88.54)},
    "mobile": {"float32": (77.5, 368.57), "bfloat16": (28.74, 149.18)},
    "resnet101v2": {"float32": (621.12, 2809.49), "bfloat16": (309.04, 1251.17)},
    "vgg16": {"float32": (1192.57, 5080.36), "bfloat16": (584.55, 2523.64), "int8": (301.59, 1366.62)},
}
"""At 512×384 and at 1024×768 pixels, one picture on one core."""
_SIZES = ("512x384", "1024x768")

FIGURES: dict[str, Figure] = {
    "described": _indexing("index", 51.599804532205944),
    "computed": _indexing("engine", 64.20386555842407),
    **{
        f"{network} {engine} {size}": Figure(
            ms, "ms on one core", "results/engines.json", ("speed, 1 threads", network, size, engine, "ms", "median")
        )
        for network, engines in _NETWORK_MS.items()
        for engine, times in engines.items()
        for size, ms in zip(_SIZES, times, strict=True)
    },
    "exact search": _million(68.95, "ms, 1,000,000 × 512, two cores", "exact", 1, "one_query_ms", "ours", "median"),
    "exact search of 64": _million(603.24, "ms, 1,000,000 × 512, two cores", "exact", 1, "64_queries_ms", "median"),
    "approximate search": _million(1.837, "ms, 1,000,000 × 512, one core", "approximate", 3, "outside", "ms"),
    "recall@10": _million(0.971, "of the ten most similar", "approximate", 3, "outside", "recall"),
    "lists": _million(4000, "lists of 1,000,000 rows", "approximate", 3, "lists"),
    "probes": _million(51, "lists that a query looks through", "approximate", 3, "probes"),
    "approximate search built": _million(275.4, "s, 1,000,000 × 512", "approximate", 3, "built_s"),
    "ready after a change": Figure(
        23.5439, "s, 1,000,000 × 512", "results/opening.json", ("indexes", 1, "change_process_s", "median")
    ),
    "photograph": _footprint(111_326, "photographs", "mean_bytes"),
    "thumbnail": _footprint(12_273, "rendered", "thumbnail_bytes"),
    "database, paths of 40": _footprint(445.6, "indexes", 6, "bytes_for_each", "database"),
    "database, paths of 160": _footprint(722.3, "indexes", 7, "bytes_for_each", "database"),
    "dimensions": _milvus(32_768, "numbers of a vector, at most"),
    "hits": _milvus(16_384, "hits of one search, at most"),
    "text": _milvus(65_535, "letters of a VARCHAR, at most"),
    "request": _milvus(64, "MB in one request, at most"),
    "shards": _milvus(16, "shards of a collection, at most"),
    "collections": _milvus(65_536, "collections of a server, at most"),
    "loaded": _milvus(0.9, "of the memory of all query nodes, at most"),
    "segment": _milvus(1024, "MB of a segment, at most", "v2.4.x/configure_datacoord"),
    "DISKANN codes": _milvus(0.125, "of the rows, in memory", "v2.5.x/configure_knowhere"),
    "DISKANN cache": _milvus(0.1, "of the rows, in memory", "v2.5.x/configure_knowhere"),
    "DISKANN degree": _milvus(56, "neighbours of a row", "v2.5.x/configure_knowhere"),
    "path": Figure(80, "bytes", "chosen"),
    "cores of a machine": Figure(16, "cores", "chosen"),
    "memory of a machine": Figure(64, "GiB", "chosen"),
    "memory for rows": Figure(0.9, "of a machine's memory, at most", "chosen"),
    "wait after a change": Figure(300, "s, at most", "chosen"),
}
"""All numbers that are not computed here, each with its source; a test compares them with the result files."""

LIMITS = ("dimensions", "hits", "text", "request", "shards", "collections", "loaded", "segment")
"""Those of Milvus."""
_ROWS, _DIM = 1_000_000, 512
_PAGE, _KEY, _STAMP, _PLACE_HOLDER = 4096, 32, 16, 8
_DIGEST, _NUMBER = 16, 8
_LEAST_APPROXIMATE = 1000
_MOST_PICTURES = 10**12
_COUNT = re.compile(r"\s*([0-9][0-9_,]*(?:\.[0-9]+)?(?:e\+?[0-9]{1,2})?)\s*([kmb]?)\s*$", re.IGNORECASE)
_SUFFIXES = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9}


def _value(name: str) -> float:
    return FIGURES[name].value


@dataclass(frozen=True)
class Describing:
    """Describing every picture once.

    Attributes:
        unit: what does it, "core" or "GPU".
        rate: pictures a second of one of them.
        rate_source: where that comes from.
        unit_hours: of one of them, for all pictures.
        units: how many there are, or are needed.
        machines: with so many cores; None for GPUs, of which nobody knows how many are in one.
        hours: with so many units.
        read_bytes: of all pictures.
        read_bytes_per_s: that have to arrive meanwhile.
    """

    unit: str
    rate: float
    rate_source: str
    unit_hours: float
    units: int
    machines: int | None
    hours: float
    read_bytes: float
    read_bytes_per_s: float


@dataclass(frozen=True)
class Folder:
    """An index in a folder, in bytes on disk; and what of it a search wants in memory.

    Attributes:
        database: SQLite, the store of record.
        kept_rows: the rows that are searched, as float32.
        kept_rows_float16: the same as float16.
        approximate: the lists of FAISS.
        exact_memory: of an exact search in float32.
        approximate_memory: of an approximate one.
    """

    database: float
    kept_rows: float
    kept_rows_float16: float
    approximate: float
    exact_memory: float
    approximate_memory: float


@dataclass(frozen=True)
class InMilvus:
    """An index in Milvus by the kind of its approximate search, payload alone: Milvus's own overhead comes on top.

    Attributes:
        kind: as Milvus names it; "FLAT" is the exact search alone.
        index: memory of the approximate index alone, in bytes.
        memory: with everything that coocnet has loaded, in bytes.
        nodes: query nodes that hold it, each with the memory of a machine.
        local_disk: of all query nodes, in bytes.
        object_storage: in bytes, at least: without the write-ahead log and what was deleted and not yet cleaned up.
    """

    kind: str
    index: float
    memory: float
    nodes: int
    local_disk: float
    object_storage: float


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
    for name, value in given.items():
        if value is not None and not 0 < value < math.inf:
            raise InputError(f"{name} is a number above 0, got {value!r}")
    recipe = recipe or Recipe()
    stored, searched = (dim, dim) if dim else _dims(recipe)
    is_whitened = recipe.whitening != "none"
    machine_cores = machine_cores or int(_value("cores of a machine"))
    machine_bytes = (machine_gib or _value("memory of a machine")) * GIB
    kinds = _kinds_in_milvus(pictures, stored, searched, is_whitened=is_whitened, machine_bytes=machine_bytes)
    folder = _folder(pictures, stored, searched)
    searching = _searching(pictures, searched, machine_bytes)
    fits = max(stored, searched) <= _value("dimensions")
    verdict, reasons = _verdict(pictures, folder, kinds if fits else (), searching, machine_bytes)
    return Plan(
        pictures=pictures,
        recipe=recipe.name,
        stored_dim=stored,
        dim=searched,
        machine_cores=machine_cores,
        machine_bytes=machine_bytes,
        describing=_describing(
            pictures,
            _worker(recipe, engine, given),
            units=_units_given(cores, gpus, hours),
            hours=hours,
            machine_cores=machine_cores,
            picture_bytes=picture_bytes or _value("photograph"),
        ),
        thumbnails=pictures * (thumbnail_bytes or _value("thumbnail")),
        folder=folder,
        milvus=kinds if fits else (),
        segments=math.ceil(pictures * (4 * searched + _KEY) / (_value("segment") * 2**20)),
        searching=searching,
        verdict=verdict,
        reasons=reasons,
    )


def _dims(recipe: Recipe) -> tuple[int, int]:
    """Numbers of a row as the recipe has it stored, and searched."""
    network = BACKBONES.get(recipe.backbone)
    if network is None or recipe.tap not in network.taps:
        raise InputError(f"no network {recipe.backbone!r} with a tap {recipe.tap!r}: coocnet weights lists them")
    stored = row_dim(recipe, network.taps[recipe.tap].channels)
    return stored, stored if recipe.whitening == "none" else min(recipe.dim or stored, stored)


def _units_given(cores: int | None, gpus: int | None, hours: float | None) -> int | None:
    given = {name: value for name, value in (("cores", cores), ("gpus", gpus), ("hours", hours)) if value is not None}
    if len(given) > 1:
        raise InputError(f"give one of cores, gpus and hours, got {' and '.join(given)}")
    return cores or gpus


def _worker(recipe: Recipe, engine: str | None, given: dict[str, float | None]) -> tuple[str, float, str]:
    """What describes, its pictures a second, and where that number comes from."""
    gpu_rate, rate = given["gpu-rate"], given["rate"]
    if given["gpus"] is not None and gpu_rate is None:
        raise InputError(
            f"no GPU was measured in this project: with gpus={given['gpus']} give --gpu-rate PICTURES_PER_S, what "
            "coocnet index --device cuda prints at its end for a sample of your pictures"
        )
    if gpu_rate is not None:
        if given["cores"] is not None or rate is not None:
            raise InputError(f"GPUs or cores describe, not both: leave out gpu-rate={gpu_rate}, or cores and rate")
        return "GPU", gpu_rate, "given"
    if rate is not None:
        return "core", rate, "given"
    return "core", *rate_per_core(recipe, engine)


def rate_per_core(recipe: Recipe, engine: str | None = None) -> tuple[float, str]:
    """Pictures a second that one of a machine's busy cores describes, and where that number comes from.

    Measured for the default recipe alone: from files to stored rows on both cores of a machine. Of its core-seconds
    the network took what it took alone on pictures in memory, on both cores too; the rest, decoding and storing, is
    taken as the same for all recipes. Of other networks and sizes the time on one core beside an idle one is known,
    and taken as many times longer on busy cores as the default's was. It grows with the pixels.

    Raises:
        InputError: a network, an engine or a size that was not measured.
    """
    _dims(recipe)
    network = BACKBONES[recipe.backbone]
    weights = network.weights.get(recipe.weights or next(iter(network.weights)))
    engine = engine or next(iter(weights.engines if weights else ()), "float32")
    measured = _NETWORK_MS.get(_NETWORKS.get(recipe.backbone, ""), {})
    if engine not in measured or not recipe.size_px:
        known = "; ".join(f"{name} in {', '.join(_NETWORK_MS[key])}" for name, key in _NETWORKS.items())
        asked = f"{recipe.backbone!r} in {engine!r} at {recipe.size_px or 'unlimited'} px"
        raise InputError(
            f"no rate was measured for {asked}; there are {known}. Give --rate PICTURES_PER_S of one core: what "
            "coocnet index prints at its end for a sample, divided by the cores"
        )
    ours = _value("mini bfloat16 512x384")
    busy_ms = 2000 / _value("computed")
    rest_ms = 2000 / _value("described") - busy_ms
    alone_ms = sum(_network_ms(_NETWORKS[recipe.backbone], engine, recipe.size_px * scale) for scale in recipe.scales)
    is_measured = math.isclose(alone_ms, ours) and (recipe.backbone, engine) == ("mini", "bfloat16")
    source = "results/indexing.json (python benchmarks/indexing.py DATA)"
    if not is_measured:
        source = f"arithmetic on results/engines.json ({recipe.backbone}, {engine}) and results/indexing.json"
    return 1000 / (alone_ms / ours * busy_ms + rest_ms), source


def _network_ms(network: str, engine: str, size_px: float) -> float:
    """In proportion to the pixels below and above what was measured, and straight between."""
    small, large = (_value(f"{network} {engine} {size}") for size in _SIZES)
    share = (size_px / 512) ** 2
    if share <= 1:
        return small * share
    return large * share / 4 if share >= 4 else small + (large - small) * (share - 1) / 3


def _describing(
    pictures: int,
    worker: tuple[str, float, str],
    *,
    units: int | None,
    hours: float | None,
    machine_cores: int,
    picture_bytes: float,
) -> Describing:
    unit, rate, source = worker
    unit_hours = pictures / rate / 3600
    if units is None:
        whole = 1 if unit == "GPU" else machine_cores
        units = whole if hours is None else math.ceil(unit_hours / hours)
    read = pictures * picture_bytes
    taken = unit_hours / units
    return Describing(
        unit=unit,
        rate=rate,
        rate_source=source,
        unit_hours=unit_hours,
        units=units,
        machines=math.ceil(units / machine_cores) if unit == "core" else None,
        hours=taken,
        read_bytes=read,
        read_bytes_per_s=read / taken / 3600,
    )


def database_row_bytes(dim: int) -> float:
    """What a row takes in SQLite's pages of 4 KiB, as https://sqlite.org/fileformat2.html lays them out.

    A page holds whole rows, so one of 512 numbers has a page for itself; of one that is larger than a page the end
    lies on pages of its own.
    """
    payload = 4 * dim + _DIGEST + 5  # the record's header
    whole, least, overflow = _PAGE - 35, (_PAGE - 12) * 32 // 255 - 23, _PAGE - 4
    if payload <= whole:
        return _PAGE / ((_PAGE - 8) // (payload + 7))
    local = least + (payload - least) % overflow
    local = local if local <= whole else least
    return _PAGE / ((_PAGE - 8) // (local + 11)) + _PAGE * math.ceil((payload - local) / overflow)


def _folder(pictures: int, stored: int, dim: int) -> Folder:
    """Bytes by the form of the files; what SQLite's own indexes take beside the rows is measured, straight in paths.

    Kept rows are 4 bytes a number, with digest, path and its end; the lists of FAISS a byte a number and a number of
    8 bytes, with digest, number of the picture and the centroids of 4√n lists.
    """
    path = _value("path")
    short, long = (_value(f"database, paths of {length}") - database_row_bytes(64) for length in (40, 160))
    beside = short + (long - short) * (path - 40) / 120
    table = _DIGEST + _NUMBER + path
    lists = _lists(pictures) * (4 * dim + _NUMBER)
    return Folder(
        database=pictures * (database_row_bytes(stored) + beside),
        kept_rows=pictures * (4 * dim + table),
        kept_rows_float16=pictures * (2 * dim + table),
        approximate=pictures * (dim + _NUMBER + _DIGEST + _NUMBER) + lists,
        exact_memory=pictures * (4 * dim + table),
        approximate_memory=pictures * (dim + _NUMBER + _DIGEST + _NUMBER + table) + lists,
    )


def _lists(pictures: int) -> int:
    return int(4 * math.sqrt(pictures))


def _diskann_on_disk(dim: int) -> float:
    """A row with its neighbours, of which whole ones stand in sectors of 4 KiB."""
    node = 4 * dim + 4 * (_value("DISKANN degree") + 1)
    return _PAGE / (_PAGE // node) if node <= _PAGE else _PAGE * math.ceil(node / _PAGE)


@dataclass(frozen=True)
class _Kind:
    """An approximate index of Milvus: bytes of a row in memory and on a query node's disk, from its numbers."""

    in_memory: Callable[[int], float]
    on_disk: Callable[[int], float] = lambda _: 0.0


MILVUS_KINDS: dict[str, _Kind] = {
    "FLAT": _Kind(lambda _: 0.0),
    "IVF_FLAT": _Kind(lambda dim: 4.0 * dim),
    "IVF_SQ8": _Kind(lambda dim: 1.0 * dim),
    "IVF_PQ": _Kind(lambda dim: dim / 8),
    "DISKANN": _Kind(
        lambda dim: 4 * dim * (_value("DISKANN codes") + _value("DISKANN cache")),
        _diskann_on_disk,
    ),
}
"""What may stand beside the exact rows; IVF_PQ with a byte for eight numbers."""
KIND = "IVF_SQ8"
"""The kind that a verdict counts with."""


def _kinds_in_milvus(
    pictures: int, stored: int, dim: int, *, is_whitened: bool, machine_bytes: float
) -> tuple[InMilvus, ...]:
    """The collections of an index: rows, the same whitened, files, and rows in an approximate index; all are loaded.

    A key is the digest in 32 digits; that of a file its path in two digits a byte, with digest, stamp and the vector
    that Milvus wants of every collection.
    """
    exact = 4 * stored + _KEY + (4 * dim + _KEY if is_whitened else 0)
    files = 2 * _value("path") + _KEY + _STAMP + _PLACE_HOLDER
    found = []
    for name, kind in MILVUS_KINDS.items():
        beside = kind.in_memory(dim)
        memory = pictures * (exact + files + (beside + _KEY if beside else 0))
        found.append(
            InMilvus(
                kind=name,
                index=pictures * beside,
                memory=memory,
                nodes=math.ceil(memory / (_value("loaded") * machine_bytes)),
                local_disk=pictures * kind.on_disk(dim),
                object_storage=pictures * (exact + files + (4 * dim + _KEY + beside if beside else 0)),
            )
        )
    return tuple(found)


def _searching(pictures: int, dim: int, machine_bytes: float) -> Searching:
    """Times in proportion to the numbers read.

    An exact search reads all. An approximate one reads the centroids of 4√n lists and the rows of some; how many is
    tuned when it is built, and taken as with a million.
    """
    share = pictures / _ROWS * dim / _DIM

    def looked_at(rows: int, lists: float) -> float:
        return lists + min(_value("probes"), lists) * rows / lists

    enough = pictures >= _LEAST_APPROXIMATE
    looked = looked_at(pictures, _lists(pictures)) / looked_at(_ROWS, _value("lists"))
    built = [_value("approximate search built") * dim / _DIM * (pictures / _ROWS) ** power for power in (1, 1.5)]
    held = machine_bytes * _value("memory for rows")
    one = _folder(_ROWS, dim, dim)
    return Searching(
        exact_ms=_value("exact search") * share,
        exact_per_s=64_000 / (_value("exact search of 64") * share),
        approximate_ms=_value("approximate search") * looked * dim / _DIM if enough else None,
        recall=_value("recall@10"),
        built_s=(min(built), max(built)) if enough else None,
        ready_s=_value("ready after a change") * share,
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
    held = machine_bytes * _value("memory for rows")
    wait = _value("wait after a change")
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
        most = _value("dimensions")
        return NOTHING, (first, f"Milvus has vectors of up to {most:,.0f} numbers: whiten to fewer with a recipe.")
    chosen = next(kind for kind in kinds if kind.kind == KIND)
    takes = f"Milvus loads {chosen.memory / GIB:,.0f} GiB with {KIND} beside the exact rows"
    share = f"{_value('loaded'):.0%} of the memory of the query nodes may be loaded"
    if chosen.nodes == 1:
        return STANDALONE, (first, f"{takes}; {share}, so one machine of {machine_bytes / GIB:,.0f} GiB does.")
    return CLUSTER, (first, f"{takes}; {share}, so {chosen.nodes:,} nodes of {machine_bytes / GIB:,.0f} GiB hold it.")
