"""The command that looks an index over, and mends it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from coocnet.cli.app import JsonOption, app
from coocnet.cli.terminal import err, out, plain, print_json


@app.command(epilog="Example:  coocnet repair ~/pictures.cooc")
def repair(
    index_place: Annotated[str, typer.Argument(help="The index's own folder.", metavar="INDEX")],
    check: Annotated[bool, typer.Option("--check", help="Only look; exit status 1 if it is damaged.")] = False,
    recipe: Annotated[
        str | None,
        typer.Option("--recipe", help="What the index was made with, a preset or a TOML file, where that is lost."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Look an index over, and save of a damaged one what can still be read; coocnet index then adds what is missing.

    The damaged file is kept under another name. May be interrupted at any moment and run again.
    """
    from coocnet.index.repair import repair as mend
    from coocnet.recipe import Recipe

    report = mend(index_place, check=check, recipe=None if recipe is None else Recipe.load(recipe))
    if as_json:
        print_json(asdict(report))
    else:
        for what in report.damage:
            err.print(plain(what))
        place = plain(report.location)
        if not report.damage:
            out.print(f"{place} is sound.")
        elif check:
            out.print(f"{place} is damaged. Save what can be read: coocnet repair {place}")
        elif report.kept_as:
            out.print(
                f"{place} is mended: {report.pictures} pictures and {report.rows} rows were carried into a new "
                f"database. The damaged one is kept as {plain(report.kept_as)}."
            )
            out.print(
                f"Bring it up to date with each of its folders: coocnet index DIR --index {place}. That reads every "
                "file, and describes what is missing."
            )
        else:
            out.print(
                f"{place} is mended: what was damaged is made anew by the next search or coocnet index; "
                "prepared neighbours by coocnet prepare."
            )
        for what in report.to_do:
            out.print(plain(what))
    if check and report.damage:
        raise typer.Exit(1)
