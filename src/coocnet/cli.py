"""The command: parses, calls, prints. Everything it does, the library does."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from coocnet import __version__
from coocnet.errors import CoocnetError, ImageError, InputError, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from rich.progress import Progress, TaskID

    from coocnet.backbones import Weights
    from coocnet.index import Hit, LocalIndex, SyncReport
    from coocnet.recipe import Recipe

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Finds the same building, object or scene in a collection of photographs.",
    epilog="Start with:  coocnet index ~/Pictures   then   coocnet search photo.jpg --montage found.png",
)
out = Console(soft_wrap=True, highlight=False)
err = Console(stderr=True, soft_wrap=True, highlight=False)

_SKIPPED_SHOWN = 20
_THUMBNAIL_PX = 440

IndexOption = Annotated[
    Path, typer.Option("--index", "-i", envvar="COOCNET_INDEX", help="The index's own folder.", metavar="PLACE")
]
RecipeOption = Annotated[
    str, typer.Option("--recipe", help="A preset (see coocnet recipes) or a TOML file.", metavar="NAME|FILE")
]
WeightsOption = Annotated[
    str, typer.Option("--weights", help="Weights by name, or a file that fits the network.", metavar="NAME|FILE")
]
DeviceOption = Annotated[str | None, typer.Option("--device", help="cpu, cuda, …; the best there is if not given.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for other programs.")]
DEFAULT_INDEX = Path("photos.cooc")


def _version(asked: bool) -> None:
    if asked:
        out.print(f"coocnet {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    del version


@app.command(epilog="Example:  coocnet index ~/Pictures --index ~/pictures.cooc")
def index(
    folder: Annotated[Path, typer.Argument(help="The folder with the photographs.", metavar="DIR")],
    index_place: IndexOption = DEFAULT_INDEX,
    recipe: Annotated[
        str | None, typer.Option("--recipe", help="A preset or a TOML file; the index's own if it exists.")
    ] = None,
    weights: WeightsOption = "",
    whitening: Annotated[
        str | None, typer.Option("--whitening", help="A whitening file, or 'none'.", metavar="FILE|none")
    ] = None,
    verify_content: Annotated[
        bool, typer.Option("--verify-content", help="Read every file, also where size and time agree.")
    ] = False,
    allow_empty: Annotated[
        bool, typer.Option("--allow-empty", help="Drop the folder's pictures though it holds none now.")
    ] = False,
    device: DeviceOption = None,
) -> None:
    """Bring the index up to date with a folder: new pictures in, changed ones anew, deleted ones out.

    May be interrupted at any moment; the same command goes on where it stopped.
    """
    from coocnet.errors import IndexFileError
    from coocnet.index import SyncProgress, open_index
    from coocnet.index.store import DATABASE_NAME
    from coocnet.recipe import Recipe
    from coocnet.whitening import Whitening

    if recipe is None and (index_place.expanduser() / DATABASE_NAME).is_file():
        with open_index(index_place) as existing:
            chosen = _with_weights(existing.recipe, weights)
    else:
        chosen = _with_weights(Recipe.load(recipe or "default"), weights)
    given = None if whitening in (None, "none") else Whitening.load(str(whitening))
    if not folder.expanduser().is_dir():
        raise InputError(f"{printable(folder)} is not a folder; give the folder that holds the photographs")
    if index_place.expanduser().resolve() == folder.expanduser().resolve():
        raise IndexFileError("the index needs a folder of its own, not that of the photographs: give --index PLACE")
    with open_index(index_place, chosen) as opened, _progress() as progress:
        task = progress.add_task("Looking at the folder", total=None)

        def show(state: SyncProgress) -> None:
            progress.update(task, description="Describing", completed=state.done, total=state.total)

        try:
            report = opened.sync(
                folder,
                describer=lambda: opened.describer(device=device, progress=_download(progress)),
                verify_content=verify_content,
                allow_empty=allow_empty,
                progress=show,
            )
        except KeyboardInterrupt:
            progress.stop()
            err.print("Interrupted. What was described is stored; the same command goes on from there.")
            raise typer.Exit(130) from None
        if whitening is not None:
            opened.use_whitening(given)
        info = opened.info()
    _print_report(report, f"{printable(info.location)} holds {info.pictures} pictures.")


@app.command(
    epilog="Examples:  coocnet search tower.jpg -k 5 --montage found.png     "
    "coocnet search street.jpg --box 120,40,380,600 --json"
)
def search(
    image: Annotated[Path, typer.Argument(help="The picture to look for.", metavar="IMAGE")],
    index_place: IndexOption = DEFAULT_INDEX,
    box: Annotated[
        str | None, typer.Option(help="Only this part, in pixels of the upright picture.", metavar="X1,Y1,X2,Y2")
    ] = None,
    k: Annotated[int, typer.Option("-k", help="How many pictures to show.", min=1)] = 10,
    threshold: Annotated[float | None, typer.Option(help="Leave out what is less similar than this.")] = None,
    as_json: JsonOption = False,
    montage: Annotated[
        Path | None, typer.Option(help="Write a picture of what was found.", metavar="OUT.png")
    ] = None,
    device: DeviceOption = None,
) -> None:
    """Find the pictures of the index that show the same building, object or scene, most similar first."""
    from coocnet.data.images import content_digest, read_bytes
    from coocnet.index import open_index

    part = None if box is None else _box(box)
    with open_index(index_place) as opened:
        row = _query_row(opened, image, part, device)
        hits = opened.search(row, k=k, threshold=threshold)[0]
        same = content_digest(read_bytes(image))
        if montage is not None:
            _write_montage(montage, image, part, hits, opened.recipe)
        if as_json:
            found = [
                {"rank": h.rank, "path": h.path, "similarity": round(h.similarity, 6), "identical": h.digest == same}
                for h in hits
            ]
            recipe = opened.recipe
            print(json.dumps({"query": str(image), "box": part, "recipe": recipe.fingerprint(), "hits": found}))
        else:
            _print_hits(hits, same)
    if montage is not None and not as_json:
        out.print(f"The picture of it: {escape(printable(montage))}")


@app.command(epilog="Example:  coocnet heatmap tower.jpg -o heat.png")
def heatmap(
    image: Annotated[Path, typer.Argument(help="A picture.", metavar="IMAGE")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The picture to write.", metavar="OUT.png")],
    recipe: RecipeOption = "default",
    weights: WeightsOption = "",
    device: DeviceOption = None,
) -> None:
    """Draw where the network fires and where its channels fire together, over the picture."""
    from coocnet import viz
    from coocnet.describe import Describer, map_cooccurrence
    from coocnet.recipe import Recipe

    with _progress() as progress:
        describer = Describer(
            _with_weights(Recipe.load(recipe), weights), device=device, progress=_download(progress)
        )
    pixels = describer.load(image).pixels
    a = describer.map_of(pixels)
    ct = map_cooccurrence(a, describer.recipe)
    used = describer.recipe
    caption = (
        f"{image.name} · {used.backbone} {used.tap}, {a.shape[3]} by {a.shape[2]} cells, {a.shape[1]} channels, "
        f"r = {used.cooccurrence.radius_cells}"
    )
    sums = [m[0].sum(0).float().cpu().numpy() for m in (a, ct)]
    _write(viz.heatmap(pixels, sums[0], sums[1], caption=caption), output)
    out.print(f"Written: {escape(printable(output))}")


@app.command()
def weights() -> None:
    """List the networks and their weights, and say which are on this machine and where the others come from."""
    from coocnet.backbones import BACKBONES, weights_cache

    for name, record in BACKBONES.items():
        taps = ", ".join(f"{tap} ({t.channels} channels, stride {t.stride_px})" for tap, t in record.taps.items())
        out.print(f"[bold]{name}[/]  {record.title}; taps {taps}")
        for weights_name, one in record.weights.items():
            out.print(f"  {weights_name:<15} {one.file}: {_where(one)}")
            out.print(f"  {'':<15} {escape(one.source)}. Licence: {escape(one.licence)}.", style="dim")
    out.print(f"Looked in the folder COOCNET_WEIGHTS and in {escape(printable(weights_cache()))}.")


def _where(one: Weights) -> str:
    from coocnet.backbones import find_weights
    from coocnet.errors import WeightsMismatchError

    try:
        place = find_weights(one)
    except WeightsMismatchError:
        return "[red]a file of this name is here, but damaged[/]"
    if place is not None:
        return f"[green]here[/] ({place.found_in}{'' if one.sha256 else ', no checksum is known'})"
    return (
        "not here, downloaded when needed" if one.urls else "not here, and not to be downloaded: put the file there"
    )


@app.command()
def info(index_place: IndexOption = DEFAULT_INDEX, as_json: JsonOption = False) -> None:
    """Say what the index holds, and with which recipe it was made."""
    from coocnet.index import open_index

    with open_index(index_place) as opened:
        held = opened.info()
    facts: dict[str, object] = {
        "index": held.location,
        "pictures": held.pictures,
        "different contents": held.contents,
        "recipe": f"{held.recipe.name} ({held.recipe.fingerprint()})",
        "backbone": f"{held.recipe.backbone} {held.recipe.tap}, {held.recipe.size_px} px, {held.recipe.pooling}",
        "weights SHA-256": held.weights_sha256,
        "dimensions": held.dim,
        "whitening": _whitening_line(held.whitening),
        "size on disk": f"{held.size_bytes / 1e6:.1f} MB",
        "made": held.made,
        "skipped": len(held.skipped),
    }
    if as_json:
        print(
            json.dumps(
                {**facts, "size_bytes": held.size_bytes, "skipped": held.skipped, "toml": held.recipe.to_toml()}
            )
        )
        return
    for key, value in facts.items():
        out.print(f"{key:>18}  {escape(printable(str(value)))}")
    for path, reason in held.skipped.items():
        out.print(f"{'':>18}  {escape(printable(path))}: {escape(reason)}", style="dim")


@app.command()
def recipes(
    name: Annotated[str | None, typer.Argument(help="Print this one as TOML.", metavar="[NAME|FILE]")] = None,
) -> None:
    """List the recipes, or print one as TOML to start your own from."""
    from coocnet.recipe import PRESETS, Recipe

    if name is not None:
        print(Recipe.load(name).to_toml(), end="")
        return
    for preset in PRESETS.values():
        prior = "" if preset.prior == "none" else f", {preset.prior} prior"
        whitened = f", whitened to {preset.dim}" if preset.whitening != "none" else ""
        network = f"{preset.backbone} {preset.tap} at {preset.size_px} px"
        out.print(f"{preset.name:<18} {network}, {preset.pooling}{prior}{whitened}")


def main() -> None:
    """Runs the command; errors of ours become one message and exit status 1."""
    # Threads that wait asleep, not spinning, leave the processor to others: measured 2 to 5 times faster beside them.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        app()
    except CoocnetError as error:
        err.print(f"[bold red]coocnet:[/] {escape(str(error))}")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def _with_weights(recipe: Recipe, weights: str) -> Recipe:
    if not weights:
        return recipe
    as_file = Path(weights).expanduser()
    return recipe.replace(weights=str(as_file.resolve()) if as_file.is_file() else weights)


def _box(text: str) -> tuple[float, float, float, float]:
    try:
        x1, y1, x2, y2 = (float(edge) for edge in text.split(","))
    except ValueError:
        raise InputError(f"a box is four numbers X1,Y1,X2,Y2 in pixels, got {text!r}") from None
    if not (x1 < x2 and y1 < y2):
        raise InputError(f"in a box X1 is left of X2 and Y1 above Y2, got {text!r}")
    return x1, y1, x2, y2


def _query_row(
    opened: LocalIndex, image: Path, box: tuple[float, float, float, float] | None, device: str | None
) -> np.ndarray:
    """The stored row where the picture is known and whole, else a fresh one."""
    known = None if box else opened.row_of_file(image)
    if known is not None:
        return known[None]
    with _progress() as progress:
        describer = opened.describer(device=device, progress=_download(progress))
    return describer.describe([image], boxes=[box])


def _print_hits(hits: Sequence[Hit], same: bytes) -> None:
    if not hits:
        out.print("Nothing found.")
    for hit in hits:
        note = "  [dim](this very picture)[/]" if hit.digest == same else ""
        out.print(f"{hit.rank:>4}  {hit.similarity:.3f}  {escape(printable(hit.path))}{note}")


def _print_report(report: SyncReport, closing: str) -> None:
    if report.skipped:
        err.print(f"Skipped {len(report.skipped)}:")
        for error in report.skipped[:_SKIPPED_SHOWN]:
            err.print(f"  {escape(str(error))}")
        if len(report.skipped) > _SKIPPED_SHOWN:
            err.print(f"  and {len(report.skipped) - _SKIPPED_SHOWN} more: coocnet info lists them all")
    counts = (
        (report.added, "added"),
        (report.updated, "updated"),
        (report.recognised, "recognised by content"),
        (report.unchanged, "unchanged"),
        (report.dropped, "dropped"),
    )
    done = ", ".join(f"{count} {what}" for count, what in counts if count) or "nothing to do"
    rate = f" ({report.described / report.time_s:.1f} pictures a second)" if report.described else ""
    out.print(f"{done} in {report.time_s:.1f} s{rate}. {escape(closing)}")


def _whitening_line(provenance: dict[str, str] | None) -> str:
    if provenance is None:
        return "none yet: too few pictures, or none asked for"
    return (
        f"version {provenance['version']}, {provenance.get('kind')}, fitted on {provenance.get('pictures')} pictures "
        f"({provenance.get('fitted_on', 'elsewhere')})"
    )


def _write_montage(
    target: Path, image: Path, box: tuple[float, float, float, float] | None, hits: Sequence[Hit], recipe: Recipe
) -> None:
    from coocnet import viz
    from coocnet.data.images import decode, read_bytes

    asked = decode(read_bytes(image), image, size_px=recipe.size_px or None)
    scale = max(asked.pixels.shape) / max(asked.full_size_px)
    drawn = None if box is None else (box[0] * scale, box[1] * scale, box[2] * scale, box[3] * scale)
    query = viz.Labelled(asked.pixels, "Searched for", printable(image.name))
    found = []
    for hit in hits:
        try:
            pixels = decode(read_bytes(hit.path), hit.path, size_px=_THUMBNAIL_PX).pixels
            name = printable(Path(hit.path).name)
        except ImageError as error:
            pixels, name = viz.blank(), error.reason
        found.append(viz.Labelled(pixels, f"{hit.rank}   {hit.similarity:.3f}", name))
    _write(viz.montage(query, found, box=drawn), target)


def _write(image: object, target: Path) -> None:
    from PIL import Image

    assert isinstance(image, Image.Image)
    try:
        target.expanduser().parent.mkdir(parents=True, exist_ok=True)
        image.save(target.expanduser())
    except (OSError, ValueError) as error:
        raise InputError(f"{printable(target)} cannot be written: {error}") from error


@contextmanager
def _progress() -> Iterator[Progress]:
    """A progress display on the terminal; silent where there is none."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text(f"{speed:.1f}/s" if speed else "")

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as shown:
        yield shown


def _download(progress: Progress) -> Callable[[int, int | None], None]:
    """Shows a download, in megabytes, once it begins."""
    tasks: list[TaskID] = []

    def show(done_bytes: int, total_bytes: int | None) -> None:
        total = None if total_bytes is None else total_bytes // 10**6
        if not tasks:
            tasks.append(progress.add_task("Downloading weights (MB)", total=total))
        progress.update(tasks[0], completed=done_bytes // 10**6, total=total)

    return show
