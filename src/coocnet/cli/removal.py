"""Commands that take single pictures out of a collection, and back."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from coocnet.cli.app import DEFAULT_INDEX, DeviceOption, IndexOption, app
from coocnet.cli.collection import print_report
from coocnet.cli.terminal import counted, download_progress, out, plain, progress_display, tell_unverified
from coocnet.errors import InputError, printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from coocnet.describe import Describer
    from coocnet.index import Index


@app.command(epilog="Example:  coocnet remove ~/Pictures/receipt.jpg --index ~/pictures.cooc")
def remove(
    pictures: Annotated[list[str], typer.Argument(help="Pictures of the collection.", metavar="PICTURE…")],
    index_place: IndexOption = DEFAULT_INDEX,
) -> None:
    """Take pictures out of the collection, with all copies of them; the files stay as they are.

    They are not found any more, and coocnet index leaves them out from now on; coocnet restore takes them back.
    """
    from coocnet.data.images import content_digest, read_bytes
    from coocnet.index import open_index

    with open_index(index_place) as opened:
        files: dict[bytes, list[str]] = {}
        for picture in pictures:
            there = os.path.expanduser(picture)
            digest = content_digest(read_bytes(there))
            files[digest] = opened.files_of(digest)
            if not files[digest]:
                raise InputError(_not_here(opened, picture, digest))
        count = opened.remove(files)
    for path in sorted(path for paths in files.values() for path in paths):
        out.print(plain(path))
    out.print(f"{count} taken out of the collection. The files are untouched; coocnet restore takes them back.")


@app.command(epilog="Examples:  coocnet restore      coocnet restore ~/Pictures/receipt.jpg --index ~/pictures.cooc")
def restore(
    pictures: Annotated[
        list[str] | None, typer.Argument(help="Pictures that were taken out; none to list them.", metavar="PICTURE…")
    ] = None,
    index_place: IndexOption = DEFAULT_INDEX,
    device: DeviceOption = None,
) -> None:
    """Take pictures back that coocnet remove took out; without a picture, list those that are out."""
    from coocnet.index import open_index

    with open_index(index_place) as opened:
        taken_out = opened.removed()
        if not pictures:
            _print_removed(taken_out)
            return
        digests = [_digest_among(taken_out, picture) for picture in pictures]
        with progress_display() as progress:

            def describer() -> Describer:
                loaded = opened.describer(device=device, progress=download_progress(progress))
                tell_unverified(loaded)
                return loaded

            report = opened.restore(digests, describer=describer)
        held = opened.info()
    print_report(report, f"{printable(held.location)} holds {counted(held.pictures, 'picture')}.")


def _print_removed(taken_out: Mapping[bytes, Sequence[str]]) -> None:
    for path in sorted(path for paths in taken_out.values() for path in paths):
        out.print(plain(path))
    if not taken_out:
        out.print("No picture is taken out of this collection.")


def _not_here(opened: Index, picture: str, digest: bytes) -> str:
    if digest in opened.removed():
        return f"{printable(picture)} was taken out of this collection already"
    return f"{printable(picture)} is not in this collection as it is now: was it changed since coocnet index?"


def _digest_among(taken_out: Mapping[bytes, Sequence[str]], picture: str) -> bytes:
    """The content that was taken out under this name, or that a file of this name has."""
    from coocnet.data.images import content_digest, read_bytes
    from coocnet.data.remote import is_url
    from coocnet.data.walk import place_of

    place = place_of(picture)
    for digest, paths in taken_out.items():
        if place in paths:
            return digest
    if is_url(place) or os.path.isfile(place):
        digest = content_digest(read_bytes(place))
        if digest in taken_out:
            return digest
    raise InputError(
        f"{printable(picture)} was not taken out of this collection; coocnet restore alone lists what was"
    )
