"""Options that have pictures described by several processes, here or on a cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from coocnet.cli.terminal import download_progress, tell_unverified
from coocnet.errors import InputError

if TYPE_CHECKING:
    from rich.progress import Progress

    from coocnet.cluster import ClusterDescriber
    from coocnet.describe import Describer
    from coocnet.index import Index

WorkersOption = Annotated[
    int | None, typer.Option("--workers", help="Describe by so many processes of one core or GPU each.", min=1)
]
ClusterOption = Annotated[
    str | None,
    typer.Option(
        "--cluster", help="Have them on this Ray cluster; on this machine if not given.", metavar="HOST:PORT"
    ),
]


def check_engine(engine: str | None, workers: int | None, cluster: str | None) -> None:
    """Refuses, before anything is opened, an engine that this processor has not, and a cluster without workers."""
    if cluster is not None and workers is None:
        raise InputError(f"say how many workers of the cluster {cluster!r} are to describe: give --workers N")
    if engine is not None and workers is None:
        import torch

        from coocnet.engines import need_engine

        need_engine(engine, torch.device("cpu"))


def describer_for(
    opened: Index,
    workers: int | None,
    cluster: str | None,
    *,
    device: str | None,
    engine: str | None,
    progress: Progress,
) -> Describer | ClusterDescriber:
    """What describes for an index: this process, or workers."""
    shown = download_progress(progress)
    loaded: Describer | ClusterDescriber
    if workers is None:
        loaded = opened.describer(device=device, engine=engine, progress=shown)
    else:
        from coocnet.cluster import ClusterDescriber

        loaded = ClusterDescriber(
            opened.recipe, workers=workers, address=cluster, device=device, engine=engine, progress=shown
        )
    tell_unverified(loaded)
    return loaded
