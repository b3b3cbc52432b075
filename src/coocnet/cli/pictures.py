"""Commands about one picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from coocnet.cli.app import DeviceOption, WeightsOption, app, with_weights
from coocnet.cli.terminal import download_progress, out, plain, progress_display, tell_unverified


@app.command(epilog="Example:  coocnet heatmap tower.jpg -o heat.png")
def heatmap(
    image: Annotated[Path, typer.Argument(help="A picture.", metavar="IMAGE")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The picture to write.", metavar="OUT.png")],
    recipe: Annotated[
        str, typer.Option("--recipe", help="A preset (see coocnet recipes) or a TOML file.", metavar="NAME|FILE")
    ] = "default",
    weights: WeightsOption = "",
    device: DeviceOption = None,
) -> None:
    """Draw where the network fires and where its channels fire together, over the picture."""
    from coocnet import viz
    from coocnet.describe import Describer, map_cooccurrence
    from coocnet.recipe import Recipe

    target = viz.checked_target(output, sources=[image])
    with progress_display() as progress:
        describer = Describer(
            with_weights(Recipe.load(recipe), weights), device=device, progress=download_progress(progress)
        )
    tell_unverified(describer)
    pixels = describer.load(image).pixels
    a = describer.map_of(pixels)
    ct = map_cooccurrence(a, describer.recipe)
    used = describer.recipe
    caption = (
        f"{image.name} · {used.backbone} {used.tap}, {a.shape[3]} by {a.shape[2]} cells, {a.shape[1]} channels, "
        f"r = {used.cooccurrence.radius_cells}"
    )
    sums = [m[0].sum(0).float().cpu().numpy() for m in (a, ct)]
    viz.save(viz.heatmap(pixels, sums[0], sums[1], caption=caption), target)
    out.print(f"Written: {plain(target)}")
