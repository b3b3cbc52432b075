"""The tables of docs/speed.md, from the results of the benchmarks.

python benchmarks/speed_page.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pages
from machine import told

RESULTS = Path(__file__).parents[1] / "results"
PAGE = Path(__file__).parents[1] / "docs" / "speed.md"
SIDES = (
    "copy of the map",
    "compiled",
    "compiled, bfloat16",
    "compiled, sums only",
    "PyTorch",
    "factorised filter",
    "dense convolution",
    "dense convolution, bfloat16",
    "Shih et al.",
)


def cooccurrence() -> str:
    """Times by size of map, and how many times the slow ones the compiled loops are."""
    document = _read("cooccurrence")
    cases = document["cases"]
    title = [f"{case['channels']} channels, {_maps(case['batch'])}" for case in cases]
    lines = pages.head(["ms", *title])
    for side in SIDES:
        lines.append(pages.row([side, *(told(case["ms"][side]) for case in cases)]))
    for side in ("dense convolution", "Shih et al."):
        ratios = (case["ms"][side]["median"] / case["ms"]["compiled"]["median"] for case in cases)
        lines.append(pages.row([f"{side} / compiled", *(f"{ratio:,.0f} times" for ratio in ratios)]))
    copies = document["copies_of_the_map"]
    held = ", ".join(f"{side} {copies[side]:.1f}" for side in ("compiled", "sums", "PyTorch"))
    return "\n".join(
        [
            *lines,
            "",
            f"Maps of 24×32 cells, r = 4. {_made(document)}. Memory that one call adds, in copies of the map, the"
            f" result included ({copies['channels']} channels, {_maps(copies['batch'])}): {held}.",
        ]
    )


def engines() -> str:
    """Times of the network by engine, and what it costs in agreement."""
    document = _read("engines")
    speeds = document["speed, 1 threads"]
    sizes = list(next(iter(speeds.values())))
    lines = pages.head(
        ["network, engine", *(f"{size}, ms" for size in sizes), *(f"{size}, times the plain loop" for size in sizes)]
    )
    for network, by_size in speeds.items():
        for engine in by_size[sizes[0]]:
            found = [by_size[size][engine] for size in sizes]
            cells = [told(one["ms"]) for one in found] + [told(one["times_the_plain_loop"], 2) for one in found]
            lines.append(pages.row([f"{network}, {engine}", *cells]))
    lines += [
        "",
        *pages.head(["network, engine", "photographs", "cosine: lowest", "1 %", "median", "mAP, largest loss"]),
    ]
    for network, agreed in document["agreement"].items():
        for engine in [name for name in agreed if name not in {"photographs", "float32"}]:
            found = agreed[engine]
            set_, (mean, low, high) = min(found["difference_to_float32"].items(), key=lambda one: one[1][0])
            cells = [f"{found['cosine'][key]:.5f}" for key in ("lowest", "1 %", "median")]
            loss = f"{mean:+.2f} [{low:.2f}, {high:.2f}] ({set_})"
            lines.append(pages.row([f"{network}, {engine}", str(agreed["photographs"]), *cells, loss]))
    return "\n".join([*lines, "", f"{_made({**document, 'threads': 1})}."])


def decoding() -> str:
    """What reduced decoding saves, and what it changes."""
    document = _read("decoding")
    lines = pages.head(
        [
            "pictures",
            "limit, px",
            "full, ms",
            "reduced, ms",
            "lowest cosine",
            "median",
            "largest mean pixel difference",
        ]
    )
    for kind, cases in document["full_against_reduced"].items():
        lines.extend(
            pages.row(
                [
                    f"{case['pictures']}, {kind}",
                    str(case["limit_px"]),
                    str(case["full_ms"]),
                    str(case["reduced_ms"]),
                    f"{case['cosine']['lowest']:.5f}",
                    f"{case['cosine']['median']:.5f}",
                    str(case["mean_pixel_difference"]["largest"]),
                ]
            )
            for case in cases
        )
    return "\n".join([*lines, "", f"Cosines of rows of the default recipe before its whitening. {_made(document)}."])


def indexing() -> str:
    """Pictures per second of every side."""
    document = _read("indexing")
    rates = document["pictures_per_s"]
    lines = pages.head(["side", "pictures per second", "times the plain loop"])
    plain = rates["plain loop"]["median"]
    for side, rate in rates.items():
        lines.append(pages.row([side, told(rate), f"{rate['median'] / plain:.1f}"]))
    share = document["index_of_engine"]
    one_thread = _read("indexing-one-thread")["index_of_engine"]
    bounded = _read("bounded")
    first, last = bounded["mb"][0], bounded["mb"][-1]
    return "\n".join(
        [
            *lines,
            "",
            f"{document['pictures']} photographs of about 1024×768 pixels at 512, {document['threads']} threads. Of"
            f" the engine's own rate the whole path reaches {percent(share)}, as decoding takes its part of both"
            " cores; with one thread for the engine, so that decoding has the other core (`--threads 1`),"
            f" {percent(one_thread)}. {_made(document)}.",
            "",
            f"Memory: in indexing {bounded['pictures']:,} files the process holds {first['own']:.0f} MB of its own"
            f" after {first['pictures']:,} and {last['own']:.0f} MB after all, {last['peak']:.0f} MB at most with"
            f" what is mapped (`{bounded['command']}`). A recipe that has no whitening in the package then learns one"
            f" on all rows, with {bounded['at_the_end_mb']['peak']:,.0f} MB at most.",
        ]
    )


def serving() -> str:
    """What clients of the service waited for, without and with a sync beside, and what it held meanwhile."""
    document = _read("serving")
    stretches = [document["alone"], document["with_sync"]]
    columns = ("answers per second", "p50, ms", "p95, ms", "p99, ms")
    lines = pages.head(["request", *columns, *(f"{column}, with a sync" for column in columns)])
    kinds = [("all", "all requests"), ("searches", "all searches")]
    kinds += [(kind, kind) for kind in stretches[0]["kinds"]]
    for key, name in kinds:
        found = [one.get(key) or one["kinds"][key] for one in stretches]
        cells = [
            [f"{one['per_s']:.1f}", *(f"{one[p]:,.0f}" for p in ("p50_ms", "p95_ms", "p99_ms"))] for one in found
        ]
        lines.append(pages.row([name, *cells[0], *cells[1]]))
    sync, memory = stretches[1]["sync"], stretches[1]["own_mb"]
    minutes = ", ".join(f"{mb:,}" for mb in memory["each_minute"])
    answers = sum(one["all"]["count"] for one in stretches)
    errors = sum(one["errors"] for one in stretches)
    refused = sum(sum(one["refused"].values()) for one in stretches)
    return "\n".join(
        [
            *lines,
            "",
            f"{document['clients']} clients without a pause, {document['pictures']:,} pictures, which the sync makes"
            f" more: {sync['per_s']:.1f} a second. {answers:,} answers, {errors} errors, {refused} refused. Memory of"
            f" the service's own with the sync beside, MB at each minute: {minutes}; at the end {memory['end']:,}, at"
            f" most {memory['most']:,}; slope {memory['slope_per_minute']:.1f} MB a minute."
            f" {_made({**document, 'threads': 2})}.",
        ]
    )


def percent(share: dict[str, float]) -> str:
    """A share with its spread."""
    low, median, high = (f"{100 * share[key]:.0f}" for key in ("lowest", "median", "highest"))
    return f"{median} % [{low}, {high}]"


def _maps(batch: int) -> str:
    return "1 map" if batch == 1 else f"{batch} maps"


def _made(document: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in document["versions"].items() if name != "coocnet")
    threads = (
        f", {document['threads']} thread{'s' if document['threads'] > 1 else ''}" if "threads" in document else ""
    )
    return f"`{document['command']}`; {document['processor']}{threads}; {versions}"


def _read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return content


def main() -> None:
    """Writes the tables into the page."""
    made = (cooccurrence, engines, decoding, indexing, serving)
    tables = {one.__name__: one() for one in made}
    pages.written(PAGE, tables, by="speed_page.py")


if __name__ == "__main__":
    main()
