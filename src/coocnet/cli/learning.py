"""Commands that learn on one collection what serves others: a whitening, a centre; and views to learn on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from coocnet.cli.app import DEFAULT_INDEX, DeviceOption, IndexOption, WeightsOption, app, with_weights
from coocnet.cli.terminal import counted, download_progress, err, out, plain, progress_display, tell_unverified
from coocnet.errors import InputError, printable
from coocnet.output import checked_target, written_whole


@app.command(
    epilog="Example:  coocnet index ~/other-pictures --index other.cooc  &&  coocnet whitening -i other.cooc "
    "-o white.safetensors  &&  coocnet index ~/Pictures --whitening white.safetensors"
)
def whitening(
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write.", metavar="FILE.safetensors")],
    index_place: IndexOption = DEFAULT_INDEX,
    dim: Annotated[int | None, typer.Option(help="Dimensions to keep; the recipe's if not given.", min=1)] = None,
    shrinkage: Annotated[
        float | None,
        typer.Option(help="Added to each eigenvalue, in units of their mean; 0, or 0.1 of few pairs.", min=0),
    ] = None,
    pairs: Annotated[
        Path | None,
        typer.Option(help="Learn from pictures of the same thing: columns image, instance.", metavar="LIST.csv"),
    ] = None,
) -> None:
    """Fit a whitening on the index's pictures and write it to a file, for other collections of the same recipe.

    By PCA, or with a list of what each picture shows, from pairs. It serves best when it was fitted on pictures
    unrelated to those that are searched.
    """
    from coocnet.data.pairs import pairs_of_list
    from coocnet.index import open_index

    listed = None if pairs is None else pairs_of_list(pairs)
    with open_index(index_place) as opened:
        sources: list[str | Path] = [opened.recipe.weights, *([] if pairs is None else [pairs])]
        target = checked_target(
            output, endings=[".safetensors"], what="a whitening file: .safetensors", sources=sources
        )
        fallback = 0.0 if listed is None else None
        fitted = opened.fit_whitening(dim=dim, shrinkage=fallback if shrinkage is None else shrinkage, pairs=listed)
        wanted = dim or opened.recipe.dim
    fitted.save(target)
    facts = fitted.provenance
    learned = f"{facts['pairs']} pairs of {facts['pictures']}" if listed else facts["pictures"]
    out.print(f"Written: {plain(output)}, {fitted.dim} dimensions, fitted on {learned} pictures")
    if fitted.dim < wanted:
        out.print(
            f"The recipe asks for {wanted} dimensions. Without --dim a PCA keeps at most half as many as there are "
            f"pictures, the others being noise; these pictures determine {facts['rank']}.",
            style="dim",
        )


@app.command(
    epilog="Example:  coocnet centre ~/other-pictures -o centred.toml  &&  "
    "coocnet index ~/Pictures --recipe centred.toml"
)
def centre(
    folder: Annotated[str, typer.Argument(help="The folder with the pictures to learn on.", metavar="DIR")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The recipe to write.", metavar="FILE.toml")],
    recipe: Annotated[
        str, typer.Option("--recipe", help="The recipe to learn it for, a preset or a file.", metavar="NAME|FILE")
    ] = "centred",
    at_most: Annotated[
        int | None, typer.Option("--at-most", help="Learn on so many pictures, spread evenly over the folder.", min=1)
    ] = None,
    weights: WeightsOption = "",
    device: DeviceOption = None,
) -> None:
    """Learn the mean of each channel of the network on a folder's pictures and write a recipe that centres by it.

    It serves best when it was learned on pictures unrelated to those that are searched.
    """
    from coocnet.data import walk
    from coocnet.describe import Describer
    from coocnet.recipe import POOLINGS, Recipe

    chosen = with_weights(Recipe.load(recipe), weights)
    target = checked_target(output, endings=[".toml"], what="a recipe: .toml", sources=[recipe, chosen.weights])
    if "centre" not in POOLINGS[chosen.pooling]:
        others = ", ".join(name for name, fields in POOLINGS.items() if "centre" in fields)
        raise InputError(
            f"the recipe's pooling {chosen.pooling!r} reads no centre; give a recipe with one of: {others}"
        )
    found = walk(folder)
    paths = [file.path for file in found.files]
    if not paths:
        raise InputError(f"{printable(folder)} holds no pictures; give a folder that does")
    spread = spread_evenly(paths, at_most)
    with progress_display() as progress:
        # A centre learned before may be of another network.
        uncentred, downloading = chosen.replace(centre=()), download_progress(progress)
        describer = Describer(uncentred, device=device, engine="float32", progress=downloading)
        tell_unverified(describer)
        task = progress.add_task("Learning", total=len(spread))
        learned = describer.channel_mean(spread, progress=lambda done, _: progress.update(task, completed=done))
    for error in (*found.skipped, *found.unread_folders, *learned.skipped):
        err.print(f"Skipped: {plain(error)}")
    origin = f"# The centre was learned on {learned.pictures} pictures with weights {describer.weights_sha256}.\n"
    with written_whole(target) as unfinished:
        Path(unfinished).write_text(origin + chosen.replace(centre=learned.values).to_toml(), encoding="utf-8")
    out.print(f"Written: {plain(output)}, {len(learned.values)} channels, learned on {learned.pictures} pictures")


@app.command(epilog="Example:  coocnet views ~/Pictures -o things   &&   coocnet train things -o filter.safetensors")
def views(
    folder: Annotated[str, typer.Argument(help="The folder with pictures of anything.", metavar="DIR")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write to.", metavar="DIR")],
    count: Annotated[int, typer.Option("--views", help="Synthetic photographs of each picture.", min=1)] = 3,
    at_most: Annotated[
        int | None, typer.Option("--at-most", help="Of so many pictures, spread evenly over the folder.", min=1)
    ] = None,
    size_px: Annotated[int, typer.Option("--size", help="Longer side, in pixels.", min=64)] = 512,
    seed: Annotated[int, typer.Option(help="Another seed, other photographs.", min=0)] = 0,
) -> None:
    """Make pictures to train on out of any: each photographed anew, from a side, before other things, in other light.

    Writes a folder for every picture, with the picture and its views. May be interrupted; it goes on.
    """
    from coocnet.data import walk
    from coocnet.data.views import make_views

    found = walk(folder)
    target = Path(output).expanduser().absolute()
    place = target.resolve()
    if place.is_relative_to(found.root) or Path(found.root).is_relative_to(place):
        raise InputError(
            f"{printable(output)} and {printable(folder)}, whose pictures are read, lie one in the other"
        )
    paths = [file.path for file in found.files]
    if not paths:
        raise InputError(f"{printable(folder)} holds no pictures; give a folder that does")
    chosen = spread_evenly(paths, at_most)
    with progress_display() as progress:
        task = progress.add_task("Photographing", total=len(chosen))
        skipped = make_views(
            chosen,
            target,
            views=count,
            size_px=size_px,
            seed=seed,
            progress=lambda done, _: progress.update(task, completed=done),
        )
    for error in (*found.skipped, *found.unread_folders, *skipped):
        err.print(f"Skipped: {plain(error)}")
    out.print(f"{plain(output)} holds {counted(len(chosen) - len(skipped), 'picture')} with {count} views of each")


def spread_evenly(paths: list[str], at_most: int | None) -> list[str]:
    """So many of the paths, spread evenly; all of them where there are no more."""
    count = min(at_most or len(paths), len(paths))
    return [paths[(2 * i + 1) * len(paths) // (2 * count)] for i in range(count)]
