"""The numbers that a plan counts with, each with its source."""

from __future__ import annotations

from dataclasses import dataclass

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


NETWORKS = {"mini": "mini", "squeezenet1_1": "squeezenet", "mobilenetv2": "mobile", "resnet101v2": "resnet101v2"}
NETWORKS |= {"vgg16": "vgg16"}
NETWORK_MS = {
    "mini": {"float32": (47.56, 197.97), "bfloat16": (24.57, 96.81), "int8": (14.5, 55.77)},
    "squeezenet": {"float32": (38.78, 258.11), "bfloat16": (21.69, 88.54)},
    "mobile": {"float32": (77.5, 368.57), "bfloat16": (28.74, 149.18)},
    "resnet101v2": {"float32": (621.12, 2809.49), "bfloat16": (309.04, 1251.17)},
    "vgg16": {"float32": (1192.57, 5080.36), "bfloat16": (584.55, 2523.64), "int8": (301.59, 1366.62)},
}
"""At 512×384 and at 1024×768 pixels, one picture on one core."""
SIZES = ("512x384", "1024x768")

FIGURES: dict[str, Figure] = {
    "described": _indexing("index", 51.599804532205944),
    "computed": _indexing("engine", 64.20386555842407),
    **{
        f"{network} {engine} {size}": Figure(
            ms, "ms on one core", "results/engines.json", ("speed, 1 threads", network, size, engine, "ms", "median")
        )
        for network, engines in NETWORK_MS.items()
        for engine, times in engines.items()
        for size, ms in zip(SIZES, times, strict=True)
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
    "photograph": _footprint(112_990, "photographs", "mean_bytes"),
    "thumbnail": _footprint(29_615, "photographs", "thumbnail_bytes"),
    "database, paths of 40": _footprint(476.2, "indexes", 6, "bytes_for_each", "database"),
    "database, paths of 160": _footprint(752.8, "indexes", 7, "bytes_for_each", "database"),
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


def value(name: str) -> float:
    """Of a figure."""
    return FIGURES[name].value
