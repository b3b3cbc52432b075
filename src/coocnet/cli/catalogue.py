"""What there is to choose from: networks with their weights, and recipes."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from coocnet.cli.app import app
from coocnet.cli.terminal import out, plain
from coocnet.errors import printable

if TYPE_CHECKING:
    from coocnet.backbones import Weights

_NAME_WIDTH = 28


@app.command()
def weights() -> None:
    """List the networks and their weights, and say which are on this machine and where the others come from."""
    from coocnet.backbones import BACKBONES, weights_cache

    for name, record in BACKBONES.items():
        taps = ", ".join(f"{tap} ({t.channels} channels, stride {t.stride_px})" for tap, t in record.taps.items())
        out.print(f"[bold]{name}[/]  {record.title}; taps {taps}")
        for weights_name, one in record.weights.items():
            out.print(f"  {weights_name:<15} {one.file}: {_where(one)}")
            out.print(f"  {'':<15} {plain(one.source)}. Licence: {plain(one.licence)}.", style="dim")
    out.print(f"Looked in the package, in the folder COOCNET_WEIGHTS and in {plain(weights_cache())}.")


@app.command()
def recipes(
    name: Annotated[str | None, typer.Argument(help="Print this one as TOML.", metavar="[NAME|FILE]")] = None,
) -> None:
    """List the recipes, or print one as TOML to start your own from."""
    from coocnet.recipe import PRESETS, Recipe

    if name is not None:
        text = Recipe.load(name).to_toml()
        print("\n".join(map(printable, text.splitlines())) if sys.stdout.isatty() else text, end="")
        return
    for preset in PRESETS.values():
        parts = [
            f"{preset.backbone} {preset.tap} at {preset.size_px} px",
            preset.pooling,
            "" if preset.prior == "none" else f"{preset.prior} prior",
            "" if len(preset.scales) == 1 else f"{len(preset.scales)} scales",
            f"to {preset.dim} by a given whitening" if preset.whitening == "none" else f"whitened to {preset.dim}",
            "" if preset.expansion == "none" else preset.expansion,
        ]
        out.print(f"{preset.name:<{_NAME_WIDTH}} {', '.join(filter(None, parts))}")


def _where(one: Weights) -> str:
    from coocnet.backbones import find_weights
    from coocnet.errors import WeightsMismatchError

    try:
        place = find_weights(one)
    except WeightsMismatchError:
        return "[red]a file of this name is here, but damaged[/]"
    if place is not None:
        return f"[green]here[/] ({place.found_in}{'' if place.verified else ', unverified: no checksum is known'})"
    return (
        "not here, downloaded when needed" if one.urls else "not here, and not to be downloaded: put the file there"
    )
