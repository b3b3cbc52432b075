"""The command that says what a collection of some size would take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from coocnet.cli.app import JsonOption, app
from coocnet.cli.terminal import counted, out, plain, print_json

if TYPE_CHECKING:
    from collections.abc import Iterable

    from coocnet.planning import Plan

_TB = 1e12


@app.command(
    epilog="Examples:  coocnet plan --images 100e6 --hours 48      coocnet plan --images 1B --rate 12 --json"
)
def plan(
    images: Annotated[str, typer.Option(help="How many different pictures: 250k, 1e6, 100M, 1B.", metavar="NUMBER")],
    recipe: Annotated[str | None, typer.Option(help="A preset or a TOML file; mini if not given.")] = None,
    dim: Annotated[int | None, typer.Option(help="Numbers of a row; the recipe's if not given.", min=1)] = None,
    engine: Annotated[str | None, typer.Option("--engine", help="As for coocnet index.", metavar="ENGINE")] = None,
    cores: Annotated[int | None, typer.Option(help="Cores that describe; one machine's if not given.", min=1)] = None,
    gpus: Annotated[int | None, typer.Option(help="GPUs that describe; needs --gpu-rate.", min=1)] = None,
    hours: Annotated[float | None, typer.Option(help="The time there is: says how many that takes.")] = None,
    rate: Annotated[
        float | None,
        typer.Option(
            help="Pictures a second of one core: what coocnet index prints at its end for a sample, divided by the "
            "cores; measured on one machine if not given.",
        ),
    ] = None,
    gpu_rate: Annotated[
        float | None, typer.Option("--gpu-rate", help="Pictures a second of one GPU; none was measured here.")
    ] = None,
    picture_bytes: Annotated[
        float | None, typer.Option("--picture-bytes", help="Mean size of a file; that of the photographs measured.")
    ] = None,
    thumbnail_bytes: Annotated[
        float | None,
        typer.Option("--thumbnail-bytes", help="Mean size of a thumbnail; of the photographs measured."),
    ] = None,
    machine_cores: Annotated[
        int | None, typer.Option("--machine-cores", help="Cores of one machine; 16 if not given.", min=1)
    ] = None,
    machine_gib: Annotated[
        float | None, typer.Option("--machine-gib", help="Memory of one machine in GiB; 64 if not given.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say what a collection of some size would take: machines, hours, bytes, and what would hold it.

    Nothing is measured now: it is arithmetic on what was measured on small collections, with its sources.
    """
    from dataclasses import asdict

    from coocnet.planning import FIGURES, count_of
    from coocnet.planning import plan as planned
    from coocnet.recipe import Recipe

    made = planned(
        count_of(images),
        recipe=None if recipe is None else Recipe.load(recipe),
        dim=dim,
        engine=engine,
        cores=cores,
        gpus=gpus,
        hours=hours,
        rate=rate,
        gpu_rate=gpu_rate,
        picture_bytes=picture_bytes,
        thumbnail_bytes=thumbnail_bytes,
        machine_cores=machine_cores,
        machine_gib=machine_gib,
    )
    if as_json:
        print_json({**asdict(made), "figures": {name: asdict(figure) for name, figure in FIGURES.items()}})
        return
    _print(made)


def _print(made: Plan) -> None:
    out.print(
        f"{made.pictures:,} different pictures, recipe {plain(made.recipe)}, rows of {made.stored_dim} numbers, "
        f"searched in {made.dim}; machines of {made.machine_cores} cores and {gib(made.machine_bytes)}."
    )
    _print_rows("Describing", _describing(made))
    out.print(f"  The rate: {plain(made.describing.rate_source)}.", style="dim")
    _print_rows("An index in a folder", _stored(made))
    _print_rows("One query on one machine", _searching(made))
    if made.milvus:
        _print_rows("An index in Milvus, payload alone", _in_milvus(made))
    _print_rows("Limits of Milvus", _limits(made))
    out.print(f"\n[bold]{made.verdict}[/]")
    for reason in made.reasons:
        out.print(f"  {reason}")
    out.print(
        "Arithmetic on what was measured: nobody made a collection of more than a million pictures. "
        "docs/scale.md and --json have every number's source.",
        style="dim",
    )


def gib(count: float) -> str:
    """Bytes in GiB, as memory is sold."""
    return f"{count / 2**30:,.{0 if count >= 100 * 2**30 else 1}f} GiB"


def lasting(time_s: float) -> str:
    """A time in the unit that suits it."""
    for unit, size in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0), ("s", 1.0)):
        if time_s >= 2 * size:
            return f"{time_s / size:,.{0 if time_s >= 20 * size else 1}f} {unit}"
    return f"{1000 * time_s:,.{0 if time_s >= 0.01 else 1}f} ms"


def _print_rows(title: str, rows: Iterable[tuple[str, ...]]) -> None:
    from rich.table import Table

    out.print(f"\n[bold]{title}[/]")
    table = Table(box=None, padding=(0, 2, 0, 2), show_header=False)
    for row in rows:
        table.add_row(*row)
    out.print(table, soft_wrap=False)


def _describing(made: Plan) -> list[tuple[str, ...]]:
    work = made.describing
    machines = "" if work.machines is None else f" on {counted(work.machines, 'machine')}"
    return [
        (f"rate of one {work.unit}", f"{work.rate:,.2f} pictures a second"),
        (f"{work.unit}-hours", f"{work.unit_hours:,.0f}"),
        (f"with {counted(work.units, work.unit)}{machines}", lasting(3600 * work.hours)),
        ("to be read", f"{work.read_bytes / _TB:,.2f} TB, {work.read_bytes_per_s / 1e6:,.1f} MB a second"),
    ]


def _stored(made: Plan) -> list[tuple[str, ...]]:
    from coocnet.data.thumbnails import THUMBNAIL_PX

    held = made.folder
    return [
        ("database (SQLite)", gib(held.database), "with its own indexes"),
        ("rows kept, float32", gib(held.kept_rows), "4 bytes a number"),
        ("rows kept, float16", gib(held.kept_rows_float16), "2 bytes a number, in place of float32"),
        ("approximate search (FAISS)", gib(held.approximate), "1 byte a number, and lists"),
        (f"thumbnails of {THUMBNAIL_PX} px", gib(made.thumbnails), "beside it, if they are kept"),
    ]


def _searching(made: Plan) -> list[tuple[str, ...]]:
    found = made.searching
    fits = "" if made.pictures <= found.exact_holds else ", had it the memory"
    rows = [
        ("exact", lasting(found.exact_ms / 1000), f"two cores, bound by memory{fits}"),
        ("exact, 64 queries at once", f"{found.exact_per_s:,.2f} a second", "two cores"),
    ]
    if found.approximate_ms is not None and found.built_s is not None:
        built = " to ".join(dict.fromkeys(lasting(time_s) for time_s in found.built_s))
        recall = f"recall@10 {found.recall:.3f} with a million, not measured beyond"
        rows += [
            ("approximate", lasting(found.approximate_ms / 1000), f"one core; {recall}"),
            ("approximate, to be built", built, ""),
        ]
    return [
        *rows,
        ("ready after a change", lasting(found.ready_s), ""),
        ("a machine's memory holds", f"{found.exact_holds:,}", "pictures, exact"),
        ("", f"{found.approximate_holds:,}", "pictures, approximate"),
    ]


def _in_milvus(made: Plan) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [
        ("beside the exact rows", "loaded in all", "needs", "index alone", "nodes' disks", "stored, at least")
    ]
    rows += [
        (
            kind.kind if kind.index else "nothing (FLAT)",
            gib(kind.memory),
            counted(kind.nodes, "node"),
            gib(kind.index),
            gib(kind.local_disk) if kind.local_disk else "",
            gib(kind.object_storage),
        )
        for kind in made.milvus
    ]
    return rows


def _limits(made: Plan) -> list[tuple[str, ...]]:
    from coocnet.planning import FIGURES, LIMITS

    here = {"dimensions": f"here {max(made.stored_dim, made.dim):,}", "segment": f"here {made.segments:,} or more"}
    return [(f"{FIGURES[name].value:,g}", FIGURES[name].unit, here.get(name, "")) for name in LIMITS]
