"""Commands about the field's benchmarks: list them, fetch one, check what is here of it."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from coocnet.cli.app import JsonOption, app
from coocnet.cli.terminal import json_path, out, plain, print_json, progress_display, step_progress
from coocnet.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from coocnet.data.benchmarks import BenchmarkSource, Report

datasets = typer.Typer(help="List, fetch and check the field's benchmarks.", invoke_without_command=True)
app.add_typer(datasets, name="datasets")

_SHOWN = 20
_NameArgument = Annotated[str, typer.Argument(help="One of those that  coocnet datasets  lists.", metavar="NAME")]
_ToOption = Annotated[
    str | None,
    typer.Option("--to", help="The folder of all benchmarks; COOCNET_DATA if not given.", metavar="DIR"),
]


@datasets.callback(epilog="Example:  coocnet datasets fetch roxford5k --to ~/benchmarks")
def listed(context: typer.Context, to: _ToOption = None, as_json: JsonOption = False) -> None:
    """List the benchmarks: what each is, and what is here of it."""
    if context.invoked_subcommand is not None:
        if to is not None or as_json:
            raise InputError(
                f"give options after the command: coocnet datasets {context.invoked_subcommand} NAME ..."
            )
        return
    from coocnet.data.benchmarks import BENCHMARKS, data_folder

    root = data_folder(to)
    if as_json:
        table = [_described(source, root) for source in BENCHMARKS.values()]
        print_json({"folder": json_path(str(root)), "benchmarks": table})
        return
    for source in BENCHMARKS.values():
        counts = [f"{n:,} {what}" for n, what in ((source.images, "pictures"), (source.queries, "queries")) if n]
        out.print(f"[bold]{source.name:<18}[/] {plain(', '.join([source.title, *counts]))}: {_state(source, root)}")
        if source.note:
            out.print(f"{'':<18} {plain(source.note)}", style="dim")
    out.print(f"Looked in {plain(root)}; name another folder with --to or COOCNET_DATA.")
    out.print("Where no checksum is published, what arrives first is recorded, and later copies are held against it.")


@datasets.command(epilog="Example:  coocnet datasets fetch rparis6k --to ~/benchmarks")
def fetch(
    name: _NameArgument,
    to: _ToOption = None,
    keep_archives: Annotated[
        bool, typer.Option("--keep-archives", help="Leave the archives beside what they held.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Download a benchmark and check it; the same command goes on where an interruption left it."""
    from coocnet.data.benchmarks import check_benchmark, fetch_benchmark

    with progress_display() as progress:
        steps = step_progress(progress)
        place = fetch_benchmark(name, place=to, keep_archives=keep_archives, progress=steps)
        report = check_benchmark(name, place=to, progress=steps)
    _tell(name, report, place=place, as_json=as_json)


@datasets.command(epilog="Example:  coocnet datasets check oxford5k --existing ~/oxbuildings")
def check(
    name: _NameArgument,
    existing: Annotated[
        str | None,
        typer.Option("--existing", help="A folder where the pictures are already; only read.", metavar="DIR"),
    ] = None,
    to: _ToOption = None,
    full: Annotated[bool, typer.Option("--full", help="Decode every picture, not only look at its ends.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Say by name what is missing, damaged or unverified of a benchmark; exit status 1 if it is not complete."""
    from coocnet.data.benchmarks import check_benchmark

    with progress_display() as progress:
        report = check_benchmark(name, place=to, existing=existing, full=full, progress=step_progress(progress))
    _tell(name, report, place=None, as_json=as_json)


def _tell(name: str, report: Report, *, place: Path | None, as_json: bool) -> None:
    if as_json:
        where = {"folder": json_path(str(place))} if place else {}
        print_json({"name": name, "complete": report.complete, **where, **asdict(report)})
    else:
        _print_report(name, report, place)
    if not report.complete:
        sys.exit(1)


def _print_report(name: str, report: Report, place: Path | None) -> None:
    at = f" at {plain(place)}" if place else ""
    verdict = "[green]complete[/]" if report.complete else "[red]not complete[/]"
    out.print(f"[bold]{plain(name)}[/]{at}: {report.expected:,} pictures expected, {verdict}")
    for difference in report.differences:
        out.print(f"Differs: {plain(difference)}")
    _print_names("missing", report.missing)
    _print_names("damaged", [f"{image} ({reason})" for image, reason in report.damaged])
    _print_names("not named by the ground truth", report.unexpected)
    _print_names("damaged as published, not used", report.known_damaged)
    for line in report.checksums[:_SHOWN]:
        out.print(plain(line), style="dim")
    if len(report.checksums) > _SHOWN:
        out.print(f"and {len(report.checksums) - _SHOWN} more files; all with --json", style="dim")


def _print_names(what: str, names: Sequence[str]) -> None:
    if names:
        out.print(f"{len(names):,} {what}:")
        for name in names[:_SHOWN]:
            out.print(f"  {plain(name)}")
        if len(names) > _SHOWN:
            out.print(f"  and {len(names) - _SHOWN:,} more; all with --json")


def _here(source: BenchmarkSource, root: Path) -> tuple[int, int]:
    from coocnet.data.benchmarks import is_unpacked

    unpacked = is_unpacked(source.pictures, root) if source.pictures else []
    truths = [(root / source.name / archive.file).is_file() for archive in source.truth]
    return sum(unpacked) + sum(truths), len(unpacked) + len(truths)


def _state(source: BenchmarkSource, root: Path) -> str:
    if source.pictures is None:
        return "named with --existing"
    here, parts = _here(source, root)
    if here == parts:
        return "[green]here[/]"
    if here:
        return f"{here} of {parts} files here"
    by_hand = not all(archive.urls for archive in source.pictures.archives)
    return "not here, and not to be had over http: fetch says how" if by_hand else "not here"


def _described(source: BenchmarkSource, root: Path) -> dict[str, object]:
    here, parts = _here(source, root)
    archives = (*(source.pictures.archives if source.pictures else ()), *source.truth)
    return {
        "name": source.name,
        "title": source.title,
        "pictures": source.images,
        "queries": source.queries,
        "files": parts,
        "files_here": here,
        "note": source.note,
        "sources": [{"file": one.file, "urls": one.urls, "sha256": one.sha256} for one in archives],
    }
