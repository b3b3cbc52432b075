"""The command that drives the paper's tables and figures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coocnet.cli.app import DeviceOption, app
from coocnet.cli.terminal import download_progress, out, plain, progress_display, step_progress, tell_unverified
from coocnet.errors import InputError, printable

if TYPE_CHECKING:
    from rich.progress import Progress

    from coocnet.reproduce import Published, World

ToOption = Annotated[
    str | None, typer.Option("--to", help="The folder of all benchmarks; COOCNET_DATA if not given.", metavar="DIR")
]
ExistingOption = Annotated[
    list[str] | None,
    typer.Option("--existing", help="A folder that has a benchmark's pictures; once for each.", metavar="NAME=DIR"),
]
OfflineOption = Annotated[
    bool, typer.Option("--offline", help="Fetch no benchmark; missing weights are still downloaded.")
]


@app.command(
    epilog="Example:  coocnet reproduce table1 figure2 --to ~/benchmarks -o report     "
    "coocnet reproduce all --scale-down -o small     "
    "coocnet reproduce figure7 figure8 table4 --filter learned.safetensors"
)
def reproduce(
    what: Annotated[list[str], typer.Argument(help="table1 … table7, figure2, 5, 7, 8, or all.", metavar="WHAT...")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The folder of the report, made if it is not there.", metavar="DIR")
    ] = Path("reproduction"),
    to: ToOption = None,
    existing: ExistingOption = None,
    offline: OfflineOption = False,
    backbone: Annotated[
        str | None,
        typer.Option(help="In place of VGG16, the network of this recipe; the report says so.", metavar="NAME|FILE"),
    ] = None,
    whitening: Annotated[
        str | None,
        typer.Option(
            help="In place of the paper's whitening: one learned on this benchmark, or none; the report says so.",
            metavar="NAME|none",
        ),
    ] = None,
    learned_filter: Annotated[
        Path | None,
        typer.Option(
            "--filter",
            help="The learned filter of figures 7 and 8 and of the rows BP(ACT)learn of tables 4 and 7; .npy as the "
            "authors publish theirs.",
            metavar="FILE.safetensors|npy",
        ),
    ] = None,
    scale_down: Annotated[
        bool, typer.Option("--scale-down", help="The whole chain on small rendered pictures of the same names.")
    ] = False,
    device: DeviceOption = None,
) -> None:
    """Make the paper's tables and figures as far as what is here allows, and a report: published, ours, difference.

    May be interrupted; the same command goes on. What is missing is said, with the reason.
    """
    from coocnet.data.benchmarks import lookup
    from coocnet.recipe import Recipe
    from coocnet.reproduce import (
        FIGURES,
        SCALED_DOWN_PX,
        TABLES,
        TIMINGS,
        Bench,
        Change,
        Laboratory,
        Rendered,
        Report,
        given_filter,
        measure,
        write_report,
    )
    from coocnet.reproduce.figures import agreement
    from coocnet.viz.plots import pyplot

    wanted = _wanted(what, [*TABLES, "table6", *FIGURES])
    if whitening is not None and whitening != "none":
        lookup(whitening)
    pyplot()
    folder = _made_folder(output)
    change = Change(
        None if backbone is None else Recipe.load(backbone), SCALED_DOWN_PX if scale_down else None, whitening
    )
    of_filter, about_filter = given_filter(learned_filter, folder) if learned_filter else (None, "")
    report = Report(_said(change, about_filter, scale_down=scale_down))
    with progress_display() as progress:
        steps = step_progress(progress)
        world: World = (
            Rendered(to)
            if scale_down
            else published_world(to, existing, progress, offline=offline, allow_missing=True)
        )
        bench = Bench(
            world,
            Laboratory(to, steps),
            folder / ("results-scaled-down" if scale_down else "results"),
            change,
            of_filter,
            device=device,
            loaded=tell_unverified,
            downloading=download_progress(progress),
        )
        for name in wanted:
            if name in TABLES:
                outcomes = []
                for outcome in bench.table(name):
                    outcomes.append(outcome)
                    state = "made" if outcome.result else f"missing: {outcome.missing}"
                    out.print(f"{name}: {plain(outcome.row.label)}, {outcome.benchmark}: {plain(state)}")
                report.tables.append((name, TABLES[name], outcomes))
                report.figures.append(agreement(name, TABLES[name], outcomes, folder))
            elif name in FIGURES:
                drawn = FIGURES[name](bench, folder)
                report.figures += drawn
                for one in drawn:
                    out.print(f"{plain(one.title)}: {plain(one.file or 'missing')}. {plain(one.said)}")
            else:
                for row in TIMINGS if not scale_down else TIMINGS[-1:]:
                    report.timings.append(measure(row))
                    out.print(f"{name}: {row.height} × {row.width} × {row.channels}: measured")
            write_report(report, folder)  # an interrupted run leaves what it has
    out.print(f"The report: {plain(folder / 'report.html')}")


def published_world(
    to: str | None, existing: list[str] | None, progress: Progress, *, offline: bool, allow_missing: bool
) -> Published:
    """The published benchmarks as the options of a command say.

    Raises:
        InputError: an option that cannot be.
    """
    from coocnet.reproduce import Published

    return Published(
        to,
        places_of(existing),
        download=not offline,
        allow_missing=allow_missing,
        progress=step_progress(progress),
    )


def places_of(existing: list[str] | None) -> dict[str, str]:
    """The options ``--existing NAME=DIR``: folders by the name of the benchmark.

    Raises:
        InputError: one that is not so, or an unknown benchmark.
    """
    from coocnet.data.benchmarks import lookup

    found = {}
    for one in existing or ():
        name, given, folder = one.partition("=")
        if not (given and folder):
            raise InputError(f"--existing names a benchmark and its folder as NAME=DIR, got {one!r}")
        found[lookup(name).name] = folder
    return found


def _wanted(what: list[str], known: list[str]) -> list[str]:
    unknown = [name for name in what if name not in (*known, "all")]
    if unknown:
        raise InputError(f"there are {', '.join(known)} and all, got {unknown[0]!r}")
    return [name for name in known if "all" in what or name in what]


def _made_folder(output: Path) -> Path:
    folder = output.expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{printable(output)} cannot be made: {error.strerror}") from error
    return folder


def _said(change: object, about_filter: str, *, scale_down: bool) -> list[str]:
    said = []
    if scale_down:
        said.append(
            "Scaled down: rendered pictures stand for every benchmark. These numbers show that the chain works, and "
            "nothing about the paper."
        )
    if str(change):
        said.append(f"Not as in the paper: {change}.")
    if about_filter:
        said.append(about_filter)
    said.append(
        "Published figures are those of the paper. Where the paper is silent, coocnet's own choices hold: they are "
        "in docs/design.md and in each result file. The paper gives no numbers for query expansion."
    )
    return said
