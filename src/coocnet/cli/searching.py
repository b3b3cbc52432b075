"""The command that searches a collection."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from coocnet.cli.app import (
    DEFAULT_INDEX,
    DeviceOption,
    IndexOption,
    JsonOption,
    WeightsOption,
    app,
    with_weights,
)
from coocnet.cli.terminal import (
    download_progress,
    json_path,
    out,
    plain,
    print_json,
    progress_display,
    tell_unverified,
)
from coocnet.errors import ImageError, InputError, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    from PIL import Image

    from coocnet.data import Box
    from coocnet.index import Hit, Index


@app.command(
    epilog="Examples:  coocnet search tower.jpg -k 5 --montage found.png     "
    "coocnet search street.jpg --box 120,40,380,600 --json"
)
def search(
    image: Annotated[str, typer.Argument(help="The picture to look for, a file or a URL.", metavar="IMAGE")],
    index_place: IndexOption = DEFAULT_INDEX,
    box: Annotated[
        str | None, typer.Option(help="Only this part, in pixels of the upright picture.", metavar="X1,Y1,X2,Y2")
    ] = None,
    k: Annotated[int, typer.Option("-k", help="How many pictures to show.", min=1)] = 10,
    threshold: Annotated[
        str | None,
        typer.Option(
            help="Leave out what is less similar; auto learns where from the collection.", metavar="NUMBER|auto"
        ),
    ] = None,
    dim: Annotated[
        int | None, typer.Option(help="Use only the first dimensions of the whitening, so many.", min=1)
    ] = None,
    qe: Annotated[
        str | None, typer.Option("--qe", help="Query expansion: aqe, alpha-qe or none; the recipe's if not given.")
    ] = None,
    dba: Annotated[
        bool, typer.Option("--dba", help="Search in rows that are each averaged with their nearest.")
    ] = False,
    rerank: Annotated[
        str, typer.Option(help="Re-rank: reciprocal, the best 100; diffusion, all. See coocnet prepare.")
    ] = "none",
    exact: Annotated[
        bool, typer.Option("--exact", help="Search exactly even where an approximate search was built.")
    ] = False,
    scales: Annotated[
        str | None, typer.Option(help="Describe the picture at these scales, as 1,0.7,0.5.", metavar="S1,S2,…")
    ] = None,
    as_json: JsonOption = False,
    montage: Annotated[
        Path | None, typer.Option(help="Write a picture of what was found.", metavar="OUT.png")
    ] = None,
    weights: WeightsOption = "",
    device: DeviceOption = None,
) -> None:
    """Find the pictures of the index that show the same building, object or scene, most similar first."""
    from coocnet import viz
    from coocnet.data.images import content_digest, parse_box, read_bytes
    from coocnet.index import open_index

    part = None if box is None else parse_box(box)
    least = _threshold(threshold)
    target = None if montage is None else viz.checked_target(montage, sources=[image, weights])
    with open_index(index_place) as opened:
        stored = opened.recipe
    with open_index(index_place, with_weights(stored, weights) if weights else None) as opened:
        if target is not None and opened.holds(target):
            raise InputError(f"{printable(target)} is a picture of the collection: write to another place")
        row = _query_row(opened, image, part, device, None if scales is None else _numbers("scales", scales))
        hits = opened.search(
            row,
            k=k,
            threshold=least,
            dim=dim,
            expansion=qe,
            augmentation=dba,
            reranking=rerank,
            exact=exact or None,
        )[0]
        learned = opened.auto_threshold(dim=dim) if least == "auto" and opened.info().pictures else None
        same = content_digest(read_bytes(image))
        if as_json:
            asked = {"query": json_path(image)["path"], "box": part, "threshold": learned or least}
            _print_hits_as_json(hits, same, asked, recipe=opened.recipe.fingerprint())
        else:
            _print_hits(hits, same)
            if learned is not None:
                _print_cut(learned, hits, lambda: opened.search(row, k=1, dim=dim, expansion="none")[0])
        if target is not None:
            viz.save(_montage(image, part, hits, opened), target)
            if not as_json:
                out.print(f"The picture of it: {plain(target)}")


def _query_row(
    opened: Index, image: str, box: Box | None, device: str | None, scales: tuple[float, ...] | None
) -> np.ndarray:
    """The stored row where the picture is known and whole, else a fresh one."""
    known = None if box or scales else opened.row_of_file(image)
    if known is not None:
        return known[None]
    with progress_display() as progress:
        describer = opened.describer(device=device, scales=scales, progress=download_progress(progress))
    tell_unverified(describer)
    return describer.describe([image], boxes=[box])


def _numbers(what: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(number) for number in text.split(","))
    except ValueError:
        raise InputError(f"{what} are numbers with commas between them, got {text!r}") from None


def _threshold(text: str | None) -> float | Literal["auto"] | None:
    if text is None or text == "auto":
        return "auto" if text else None
    try:
        return float(text)
    except ValueError:
        raise InputError(f"a threshold is a number or auto, got {text!r}") from None


def _print_hits_as_json(hits: Sequence[Hit], same: bytes, asked: Mapping[str, object], *, recipe: str) -> None:
    found = [
        {
            "rank": hit.rank,
            **json_path(hit.path),
            "similarity": round(hit.similarity, 6),
            "identical": hit.digest == same,
        }
        for hit in hits
    ]
    print_json({**asked, "recipe": recipe, "hits": found})


def _print_hits(hits: Sequence[Hit], same: bytes) -> None:
    if not hits:
        out.print("Nothing found.")
    for hit in hits:
        note = "  [dim](this very picture)[/]" if hit.digest == same else ""
        out.print(f"{hit.rank:>4}  {hit.similarity:.3f}  {plain(hit.path)}{note}")


def _print_cut(cut: float, hits: Sequence[Hit], nearest: Callable[[], Sequence[Hit]]) -> None:
    """What the threshold "auto" means; and where it left nothing, what came closest."""
    closest = (
        ""
        if hits
        else "".join(f" The most similar has {hit.similarity:.3f}: {plain(hit.path)}." for hit in nearest())
    )
    out.print(
        f"Threshold {cut:.3f}, learned from the collection: few things that are not in it come so close.{closest}",
        style="dim",
    )


def _montage(image: str, box: Box | None, hits: Sequence[Hit], opened: Index) -> Image.Image:
    from coocnet import viz
    from coocnet.data.images import decode, read_bytes

    asked = decode(read_bytes(image), image, size_px=opened.recipe.size_px or None)
    scale = max(asked.pixels.shape) / max(asked.full_size_px)
    drawn = None if box is None else (box[0] * scale, box[1] * scale, box[2] * scale, box[3] * scale)
    query = viz.Labelled(asked.pixels, "Searched for", printable(os.path.basename(image)))
    found = []
    for hit in hits:
        pixels, name = _shown(opened, hit)
        found.append(viz.Labelled(pixels, f"{hit.rank}   {hit.similarity:.3f}", name))
    return viz.montage(query, found, box=drawn)


def _shown(opened: Index, hit: Hit) -> tuple[np.ndarray, str]:
    """A hit as it is drawn, and its name: the picture, else the small copy that the index keeps, else why neither."""
    from coocnet import viz
    from coocnet.data.images import decode, read_bytes
    from coocnet.data.thumbnails import THUMBNAIL_PX

    name = printable(os.path.basename(hit.path))
    try:
        return decode(read_bytes(hit.path), hit.path, size_px=THUMBNAIL_PX).pixels, name
    except (ImageError, InputError) as error:
        copy = opened.thumbnail(hit.digest)
        if copy is not None:
            return decode(copy, hit.path, size_px=THUMBNAIL_PX).pixels, name
        return viz.blank(), error.reason if isinstance(error, ImageError) else str(error)
