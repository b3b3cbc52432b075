"""The command as a whole: its name, the options that several commands share, and how it ends."""

from __future__ import annotations

import _thread
import errno
import io
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup
from typing_extensions import override

from coocnet import __version__
from coocnet.cli.terminal import err, out, plain
from coocnet.errors import CoocnetError

if TYPE_CHECKING:
    from coocnet.recipe import Recipe

PANELS = {
    "Your photographs": ("index", "search", "serve", "explain", "heatmap", "info", "remove", "restore", "repair"),
    "Recipes, and learning for them": ("recipes", "weights", "whitening", "centre", "views", "train"),
    "Research": ("evaluate", "compare", "datasets", "reproduce"),
    "Large collections": ("plan", "prepare", "migrate"),
}
"""All commands, in the order in which help shows them."""


class _InPanels(TyperGroup):
    @override
    def list_commands(self, ctx: Any) -> list[str]:
        return [name for names in PANELS.values() for name in names if name in self.commands]

    @override
    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        found: Any = super().get_command(ctx, cmd_name)
        if found is not None:
            found.rich_help_panel = next(panel for panel, names in PANELS.items() if cmd_name in names)
        return found


app = typer.Typer(
    cls=_InPanels,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Finds the same building, object or scene in a collection of photographs.",
    epilog="Start with:  coocnet index ~/Pictures   then   coocnet search photo.jpg --montage found.png",
)

DEFAULT_INDEX = "photos.cooc"
IndexOption = Annotated[
    str,
    typer.Option(
        "--index",
        "-i",
        envvar="COOCNET_INDEX",
        help="The index's own folder, or milvus://HOST:PORT/NAME.",
        metavar="PLACE",
    ),
]
WeightsOption = Annotated[
    str, typer.Option("--weights", help="Weights by name, or a file that fits the network.", metavar="NAME|FILE")
]
DeviceOption = Annotated[str | None, typer.Option("--device", help="cpu, cuda, …; the best there is if not given.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for other programs.")]


def _version(asked: bool) -> None:
    if asked:
        out.print(f"coocnet {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    del version


_OUT_OF_MEMORY = (
    "coocnet: out of memory. What was stored is intact, and the same command goes on from there: give it more "
    "memory, or have it hold less (OMP_NUM_THREADS=1, a smaller size_px)."
)


_COMES_AGAIN_S = 0.1


@contextmanager
def _interruptions_count() -> Iterator[None]:
    """One that meets a callback from C, as while loops are compiled, is dropped by Python: it comes again."""
    report, again = sys.unraisablehook, list[threading.Timer]()

    def hear(dropped: sys.UnraisableHookArgs) -> None:
        if not issubclass(dropped.exc_type, KeyboardInterrupt):
            report(dropped)
            return
        timer = threading.Timer(_COMES_AGAIN_S, _thread.interrupt_main)
        timer.daemon = True
        timer.start()
        again.append(timer)

    sys.unraisablehook = hear
    try:
        yield
    finally:
        sys.unraisablehook = report
        for timer in again:
            timer.cancel()


def main() -> None:
    """Runs the command; errors of ours become one message and exit status 1."""
    # Threads that wait asleep, not spinning, leave the processor to others: measured 2 to 5 times faster beside them.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            with _interruptions_count():
                app()
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except CoocnetError as error:
        err.print("[bold red]coocnet:[/] " + "\n".join(map(plain, str(error).splitlines())))
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except MemoryError as error:
        # Their frames hold what there is no memory for.
        error.__traceback__ = error.__context__ = error.__cause__ = None
        print(_OUT_OF_MEMORY, file=sys.stderr)  # plainly: to colour it, modules would be loaded
        sys.exit(1)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EPIPE, errno.EIO):
            raise
        err.print(f"[bold red]coocnet:[/] the output could not be written: {error.strerror}")
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python would try once more
        sys.exit(1)


def with_weights(recipe: Recipe, weights: str) -> Recipe:
    """The recipe with the weights that an option names, a file by its absolute path."""
    if not weights:
        return recipe
    as_file = os.path.expanduser(weights)
    return recipe.replace(weights=os.path.abspath(as_file) if os.path.isfile(as_file) else weights)
