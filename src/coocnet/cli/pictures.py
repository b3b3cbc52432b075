"""Commands about one picture."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coocnet.cli.app import DEFAULT_INDEX, DeviceOption, IndexOption, WeightsOption, app, with_weights
from coocnet.cli.terminal import download_progress, out, plain, progress_display, tell_unverified
from coocnet.errors import FilterError, InputError, printable

if TYPE_CHECKING:
    from coocnet.describe import Describer
    from coocnet.explain import Explanation
    from coocnet.nn import CooccurrenceFilter


@app.command(
    epilog="Example:  coocnet heatmap tower.jpg -o heat.png     "
    "coocnet heatmap tower.jpg -o heat.png --recipe chco-sct --filter learned.safetensors"
)
def heatmap(
    image: Annotated[str, typer.Argument(help="A picture, a file or a URL.", metavar="IMAGE")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The picture to write.", metavar="OUT.png")],
    recipe: Annotated[
        str, typer.Option("--recipe", help="A preset (see coocnet recipes) or a TOML file.", metavar="NAME|FILE")
    ] = "mini",
    learned_filter: Annotated[
        Path | None,
        typer.Option(
            "--filter",
            help="A learned filter to lay beside the direct one; the recipe's if not given.",
            metavar="FILE.safetensors|npy",
        ),
    ] = None,
    weights: WeightsOption = "",
    device: DeviceOption = None,
) -> None:
    """Draw where the network fires and where its channels fire together, over the picture.

    With a learned filter, of the recipe or given, its co-occurrence stands beside the direct one; a given one only
    has to have as many channels as the map, and may be one that its gate refused.
    """
    from coocnet import viz
    from coocnet.describe import Describer
    from coocnet.nn import read_filter
    from coocnet.poolings import direct_cooccurrence, learned_cooccurrence
    from coocnet.recipe import Recipe

    target = viz.checked_target(output, sources=[image, recipe, weights, learned_filter or ""])
    used = with_weights(Recipe.load(recipe), weights)
    of_filter = str(learned_filter or used.cooccurrence.filter)
    given = read_filter(of_filter) if of_filter else None
    with progress_display() as progress:
        describer = Describer(used, device=device, progress=download_progress(progress))
    tell_unverified(describer)
    pixels = describer.load(image).pixels
    a = describer.map_of(pixels)
    maps = [a, direct_cooccurrence(a, used)]
    caption = (
        f"{os.path.basename(image)} · {used.backbone} {used.tap}, {a.shape[3]} by {a.shape[2]} cells, "
        f"{a.shape[1]} channels, r = {used.cooccurrence.radius_cells}"
    )
    if given:
        learned, about = _fitting(describer, given, of_filter)
        maps.append(learned_cooccurrence(a, used, learned))
        caption += f" · {about}"
    sums = [m[0].sum(0).float().cpu().numpy() for m in maps]
    viz.save(viz.heatmap(pixels, *sums, caption=caption), target)
    out.print(f"Written: {plain(target)}")


def _fitting(
    describer: Describer, given: tuple[CooccurrenceFilter, dict[str, str]], path: str
) -> tuple[CooccurrenceFilter, str]:
    """A filter for the describer's maps, and what is to be said of it."""
    (learned, said), used = given, describer.recipe
    if learned.channels != describer.tap.channels:
        raise FilterError(
            f"{printable(path)} is a filter of {learned.channels} channels, but {used.backbone} {used.tap} has "
            f"{describer.tap.channels}: give --recipe one of the network that it was learned on"
        )
    network = " ".join(said[key] for key in ("backbone", "tap") if key in said)
    notes = [
        f"learned filter {printable(Path(path).name)}, r = {learned.radius_cells}",
        "" if network in ("", f"{used.backbone} {used.tap}") else f"learned on another network, {network}",
        "" if said.get("gate", "passed") == "passed" else "refused by its gate",
    ]
    return learned.to(describer.device), ", ".join(filter(None, notes))


@app.command(epilog="Example:  coocnet explain tower.jpg found.jpg -o why.png     (both as the index describes them)")
def explain(
    query: Annotated[str, typer.Argument(help="The picture that was searched for.", metavar="QUERY")],
    result: Annotated[str, typer.Argument(help="A picture that was found.", metavar="RESULT")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The picture to write.", metavar="OUT.png")],
    index_place: IndexOption = DEFAULT_INDEX,
    box: Annotated[str | None, typer.Option(help="The part that was searched for.", metavar="X1,Y1,X2,Y2")] = None,
    weights: WeightsOption = "",
    device: DeviceOption = None,
) -> None:
    """Draw which parts of two pictures make them similar, and join the parts that match best.

    The similarity is that of a plain search: without query expansion and re-ranking. Without a whitening in force,
    what the pictures of the collection have in common is left out of the colours.
    """
    from coocnet import viz
    from coocnet.data.images import parse_box
    from coocnet.explain import explain as explained
    from coocnet.index import open_index

    part = None if box is None else parse_box(box)
    target = viz.checked_target(output, sources=[query, result, weights])
    with open_index(index_place) as opened:
        stored = opened.recipe
    with open_index(index_place, with_weights(stored, weights) if weights else None) as opened:
        if opened.holds(target):
            raise InputError(f"{printable(target)} is a picture of the collection: write to another place")
        whitening = opened.whitening()
        centre = opened.mean_row() if whitening is None else None
        with progress_display() as progress:
            describer = opened.describer(device=device, progress=download_progress(progress))
        tell_unverified(describer)
    pixels = [describer.load(query, box=part).pixels, describer.load(result).pixels]
    asked, other = (describer.maps_of(one) for one in pixels)
    found = explained(asked, other, describer.recipe, whitening=whitening, centre=centre)
    names = [printable(os.path.basename(one)) for one in (query, result)]
    sheet = viz.explanation(
        (pixels[0], found.query),
        (pixels[1], found.result),
        [(match.query_cell, match.result_cell) for match in found.matches],
        titles=(f"Searched for: {names[0]}", f"Found: {names[1]}"),
        caption=_caption(found, centred=centre is not None),
    )
    viz.save(sheet, target)
    notes = "".join(f" {_sentence(note)}" for note in found.notes)
    out.print(f"{_similarity(found, centred=centre is not None)}{plain(notes)} Written: {plain(target)}")


def _similarity(found: Explanation, *, centred: bool) -> str:
    if not centred:
        return f"Similarity {found.similarity:.3f}."
    return (
        f"Similarity {found.similarity:.3f}. Of it, {found.constant:.3f} comes from what all pictures of the "
        f"collection have in common, and {found.similarity - found.constant:+.3f} from what the colours show."
    )


def _caption(found: Explanation, *, centred: bool) -> list[str]:
    """What is to be read under an explanation, the most important line first."""
    from coocnet.viz import decimals

    legend = "Orange raises the similarity, blue lowers it."
    if found.matches:
        most = decimals(found.matches[0].contribution)
        legend += f" Numbered are the pairs of cells that raise it most together, the first of them by {most}."
    return [_similarity(found, centred=centred), legend, *map(_sentence, found.notes)]


def _sentence(note: str) -> str:
    return f"{note[0].upper()}{note[1:]}."
