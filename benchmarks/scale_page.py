"""The tables of docs/scale.md, from what ``coocnet plan`` computes.

python benchmarks/scale_page.py
"""

from __future__ import annotations

from pathlib import Path

import pages
from coocnet.cli.planning import gib, lasting
from coocnet.cli.terminal import counted
from coocnet.data.thumbnails import THUMBNAIL_PX
from coocnet.errors import InputError
from coocnet.planning import FIGURES, KIND, Plan, plan, rate_per_core
from coocnet.recipe import PRESETS, Recipe

PAGE = Path(__file__).parents[1] / "docs" / "scale.md"
SIZES = {"1 million": 10**6, "100 million": 10**8, "1 billion": 10**9}
DIMS = (64, 128, 256, 512, 1024, 2048)
HOURS = 48
NETWORKS = {
    "mini": PRESETS["mini"],
    "squeezenet1_1": Recipe(name="squeezenet", backbone="squeezenet1_1", tap="features"),
    "mobilenetv2": PRESETS["mobile"],
    "resnet101v2": PRESETS["resnet101v2"],
    "vgg16": Recipe(name="vgg16", backbone="vgg16", tap="pool5"),
}


def sizes() -> str:
    """Machines, hours and bytes of each size."""
    made = [plan(pictures) for pictures in SIZES.values()]
    in_time = [plan(pictures, hours=HOURS).describing for pictures in SIZES.values()]
    kind = [{kind.kind: kind for kind in one.milvus} for one in made]
    rows = {
        "describing, core-hours": [f"{one.describing.unit_hours:,.0f}" for one in made],
        "on one machine of 16 cores": [lasting(3600 * one.describing.hours) for one in made],
        f"within {HOURS} hours": [
            f"{counted(one.units, 'core')}, {counted(one.machines or 0, 'machine')}" for one in in_time
        ],
        "photographs to be read": [f"{one.describing.read_bytes / 1e12:,.2f} TB" for one in made],
        f"a second, within {HOURS} hours": [f"{one.read_bytes_per_s / 1e6:,.1f} MB" for one in in_time],
        "database of a folder": [gib(one.folder.database) for one in made],
        "its kept rows, float32": [gib(one.folder.kept_rows) for one in made],
        "its kept rows, float16": [gib(one.folder.kept_rows_float16) for one in made],
        "its approximate search": [gib(one.folder.approximate) for one in made],
        f"thumbnails of {THUMBNAIL_PX} px": [gib(one.thumbnails) for one in made],
        "exact search, had it the memory": [lasting(one.searching.exact_ms / 1000) for one in made],
        "approximate search, one core": [lasting((one.searching.approximate_ms or 0) / 1000) for one in made],
        "its building": [_from_to(one) for one in made],
        "a folder ready after a change": [lasting(one.searching.ready_s) for one in made],
        "Milvus, loaded, exact alone": [
            f"{gib(one['FLAT'].memory)}, {counted(one['FLAT'].nodes, 'node')}" for one in kind
        ],
        f"Milvus, loaded, with {KIND}": [
            f"{gib(one[KIND].memory)}, {counted(one[KIND].nodes, 'node')}" for one in kind
        ],
        "Milvus, object storage, at least": [gib(one[KIND].object_storage) for one in kind],
        "**what holds it**": [f"**{one.verdict}**" for one in made],
    }
    return "\n".join([*pages.head(["", *SIZES]), *(pages.row([name, *cells]) for name, cells in rows.items())])


def networks() -> str:
    """Rates of one core by network and engine, and what they make of 100 million pictures."""
    lines = pages.head(["network", "engine", "pictures a second and core", "core-hours for 100 million", ""])
    for network, recipe in NETWORKS.items():
        for engine in ("float32", "bfloat16", "int8"):
            try:
                rate, source = rate_per_core(recipe, engine)
            except InputError:
                continue
            kind = "arithmetic" if source.startswith("arithmetic") else "measured"
            lines.append(pages.row([network, engine, f"{rate:,.2f}", f"{10**8 / rate / 3600:,.0f}", kind]))
    return "\n".join(lines)


def dimensions() -> str:
    """Bytes for each picture by the numbers of a row."""
    columns = (
        "database",
        "kept, float32",
        "kept, float16",
        "approximate (FAISS)",
        "Milvus, exact",
        f"Milvus, {KIND}",
    )
    lines = pages.head(["numbers of a row", *columns])
    count = 10**6
    for dim in DIMS:
        made = plan(count, dim=dim)
        kind = {kind.kind: kind for kind in made.milvus}
        held = made.folder
        on_disk = (held.database, held.kept_rows, held.kept_rows_float16, held.approximate)
        cells = (*on_disk, kind["FLAT"].memory, kind[KIND].memory)
        lines.append(pages.row([str(dim), *(f"{cell / count:,.0f}" for cell in cells)]))
    return "\n".join(lines)


def kinds() -> str:
    """The approximate indexes of Milvus with 100 million rows."""
    made = plan(10**8)
    lines = pages.head(["beside the exact rows", "alone", "loaded in all", "", "on the nodes' disks"])
    for kind in made.milvus:
        disk = gib(kind.local_disk) if kind.local_disk else ""
        name = kind.kind if kind.index else "nothing (FLAT)"
        lines.append(pages.row([name, gib(kind.index), gib(kind.memory), counted(kind.nodes, "node"), disk]))
    return "\n".join(lines)


def figures() -> str:
    """Every number that is not computed, with its source; the networks' times are in docs/speed.md."""
    lines = pages.head(["figure", "", "", "source"])
    for name, figure in FIGURES.items():
        if figure.source == "results/engines.json":
            continue
        source = f"[Milvus]({figure.source})" if "://" in figure.source else figure.source
        lines.append(pages.row([name, f"{figure.value:,.7g}", figure.unit, source]))
    return "\n".join(lines)


def _from_to(made: Plan) -> str:
    return " to ".join(dict.fromkeys(lasting(time_s) for time_s in made.searching.built_s or ()))


TABLES = (sizes, networks, dimensions, kinds, figures)


def main() -> None:
    """Writes the tables into the page."""
    pages.written(PAGE, {one.__name__: one() for one in TABLES}, by="scale_page.py")


if __name__ == "__main__":
    main()
