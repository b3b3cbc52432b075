"""The command that moves an index elsewhere."""

from __future__ import annotations

from typing import Annotated

import typer

from coocnet.cli.app import app
from coocnet.cli.terminal import counted, err, out, plain, progress_display
from coocnet.errors import printable


@app.command(epilog="Example:  coocnet migrate ~/pictures.cooc milvus://server:19530/pictures")
def migrate(
    source: Annotated[str, typer.Argument(help="The index, a folder or an address.", metavar="SRC")],
    destination: Annotated[str, typer.Argument(help="Where to; nothing may be there yet.", metavar="DST")],
) -> None:
    """Copy an index elsewhere, from a folder to a Milvus server or back, and compare the copy row by row.

    Nothing is described again, and the index itself stays as it is. May be interrupted at any moment; the same
    command goes on where it stopped.
    """
    from coocnet.index import open_index
    from coocnet.index.migration import migrate as copy

    with open_index(source) as there, open_index(destination, there.recipe) as here, progress_display() as progress:
        task = progress.add_task("Copying", total=None)

        def show(what: str, done: int, total: int) -> None:
            progress.update(task, description=what, completed=done, total=total)

        try:
            report = copy(there, here, progress=show)
        except KeyboardInterrupt:
            progress.stop()
            err.print("Interrupted. What was copied is stored; the same command goes on from there.")
            raise typer.Exit(130) from None
        had_ann = there.info().approximate is not None
        place = printable(here.location)
    out.print(
        f"{place} holds {counted(report.pictures, 'picture')} ({report.copied} copied now), "
        "each compared with the original.",
        soft_wrap=True,
    )
    if had_ann:
        out.print(
            f"The approximate search is to be built there: coocnet index DIR --index {plain(destination)} --ann.",
            soft_wrap=True,
        )
