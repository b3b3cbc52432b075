"""The command that serves an index."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from coocnet.cli.app import DEFAULT_INDEX, DeviceOption, IndexOption, WeightsOption, app, with_weights
from coocnet.cli.terminal import err, out, plain
from coocnet.errors import IndexMissingError, InputError, printable


@app.command(epilog="Example:  coocnet serve ~/Pictures     then open the address that it prints")
def serve(
    folder: Annotated[
        str | None,
        typer.Argument(
            help="A folder or its URL, to bring the index up to date with, while it is served.", metavar="[DIR]"
        ),
    ] = None,
    index_place: IndexOption = DEFAULT_INDEX,
    host: Annotated[str, typer.Option(help="The address to listen at; beyond this machine a token is needed.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(help="0 for any that is free.", min=0, max=65535)] = 8000,
    token: Annotated[
        str,
        typer.Option(
            envvar="COOCNET_TOKEN",
            help="What clients have to show; made and printed if needed and not given. Better in the environment.",
            show_default=False,
        ),
    ] = "",
    name: Annotated[
        list[str] | None, typer.Option(help="A name by which the service is addressed, as behind a proxy.")
    ] = None,
    proxy: Annotated[
        list[str] | None,
        typer.Option(help="The address of a proxy that is to be believed whom it speaks for.", metavar="ADDRESS"),
    ] = None,
    add_to: Annotated[
        str, typer.Option("--add-to", help="A folder for pictures that clients add; none are taken without it.")
    ] = "",
    read_only: Annotated[bool, typer.Option("--read-only", help="Let nobody change the index.")] = False,
    certificate: Annotated[str | None, typer.Option(help="A certificate, to speak TLS.", metavar="FILE.pem")] = None,
    key: Annotated[str | None, typer.Option(help="The certificate's key.", metavar="FILE.pem")] = None,
    at_once: Annotated[int, typer.Option("--at-once", help="Requests in work or waiting, at most.", min=1)] = 64,
    log_requests: Annotated[bool, typer.Option("--log-requests", help="Print a line for each request.")] = False,
    weights: WeightsOption = "",
    device: DeviceOption = None,
    engine: Annotated[str | None, typer.Option("--engine", help="As for coocnet index.", metavar="ENGINE")] = None,
) -> None:
    """Open a page to search with, and an HTTP service; both on this machine alone unless told otherwise.

    Interrupt it to end it: what it answers is finished first.
    """
    try:
        from coocnet import serve as service
    except ModuleNotFoundError as error:
        raise InputError(f"serving needs an extra: pip install 'coocnet[serve]' ({error})") from error
    from coocnet.data.walk import is_folder
    from coocnet.index import open_index
    from coocnet.recipe import Recipe

    there = None if folder is None else os.path.expanduser(folder)
    if there is not None:
        if not is_folder(there):
            raise InputError(f"{printable(there)} is not a folder; give the folder that holds the photographs")
        if read_only:
            raise InputError("a folder is to be looked through, but --read-only is given: leave out one of them")
    try:
        with open_index(index_place) as existing:
            recipe = existing.recipe
    except IndexMissingError:
        if there is None:
            raise
        recipe = Recipe()
    if there is not None or weights:
        open_index(index_place, with_weights(recipe, weights)).close()
    settings = service.Settings(
        place=index_place,
        token=token,
        hosts=tuple(name or ()),
        add_to=os.path.abspath(os.path.expanduser(add_to)) if add_to else "",
        read_only=read_only,
        device=device,
        engine=engine,
        recipe=with_weights(recipe, weights) if weights else None,
        at_once=at_once,
        per_client=max(1, at_once * 3 // 4),
    )

    def ready(title: str, url: str, in_force: str) -> None:
        out.print(f"coocnet serves {plain(title)} at {url}{f'#token={in_force}' if in_force else ''}")
        if in_force and not certificate:
            err.print(
                "The token travels unencrypted: give --certificate and --key, or put a proxy with TLS before it."
            )

    service.serve(
        settings,
        host=host,
        port=port,
        certificate=certificate,
        key=key,
        proxies=proxy or (),
        sync=there,
        log_requests=log_requests,
        ready=ready,
    )
