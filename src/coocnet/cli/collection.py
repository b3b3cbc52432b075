"""Commands about a collection: bring it up to date, make it ready, say what it holds."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

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
    counted,
    err,
    json_path,
    out,
    plain,
    print_json,
    progress_display,
)
from coocnet.cli.workers import ClusterOption, WorkersOption, check_engine, describer_for
from coocnet.errors import IndexMissingError, InputError, printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from coocnet.cluster import ClusterDescriber
    from coocnet.describe import Describer
    from coocnet.index import Index, IndexInfo, SyncProgress, SyncReport
    from coocnet.recipe import Recipe

_SKIPPED_SHOWN = 20


@app.command(epilog="Example:  coocnet index ~/Pictures --index ~/pictures.cooc")
def index(
    folder: Annotated[
        str, typer.Argument(help="The folder with the photographs, or a URL: s3://BUCKET/FOLDER.", metavar="DIR")
    ],
    index_place: IndexOption = DEFAULT_INDEX,
    recipe: Annotated[
        str | None, typer.Option("--recipe", help="A preset or a TOML file; the index's own if it exists.")
    ] = None,
    weights: WeightsOption = "",
    whitening: Annotated[
        str | None,
        typer.Option(
            "--whitening",
            help="A whitening file; 'none' for none; 'auto' as the recipe says.",
            metavar="FILE|none|auto",
        ),
    ] = None,
    verify_content: Annotated[
        bool, typer.Option("--verify-content", help="Read every file, also where size and time agree.")
    ] = False,
    allow_empty: Annotated[
        bool, typer.Option("--allow-empty", help="Drop the folder's pictures though it holds none now, or is gone.")
    ] = False,
    storage: Annotated[
        str | None,
        typer.Option("--storage", help="Keep what is searched as float32 or float16, half the size.", metavar="TYPE"),
    ] = None,
    ann: Annotated[
        bool, typer.Option("--ann", help="Build an approximate search, of 1,000 different pictures or more.")
    ] = False,
    thumbnails: Annotated[
        str | None,
        typer.Option(
            "--thumbnails",
            help="Keep small copies of the pictures in a folder or at a URL; 'none' to keep none.",
            metavar="PLACE|none",
        ),
    ] = None,
    device: DeviceOption = None,
    engine: Annotated[
        str | None,
        typer.Option(
            "--engine",
            help="How the processor computes the network: float32, bfloat16, or int8, twice as fast and less exact; "
            "the best measured if not given.",
            metavar="ENGINE",
        ),
    ] = None,
    workers: WorkersOption = None,
    cluster: ClusterOption = None,
) -> None:
    """Bring the index up to date with a folder: new pictures in, changed ones anew, deleted ones out.

    May be interrupted at any moment; the same command goes on where it stopped.
    """
    from coocnet.data.walk import is_folder, real_folder
    from coocnet.index import open_index
    from coocnet.index.approximate import need_faiss
    from coocnet.whitening import Whitening

    is_there = is_folder(folder)
    if not is_there and not allow_empty:
        raise InputError(f"{printable(folder)} is not a folder; give the folder that holds the photographs")
    if os.path.realpath(os.path.expanduser(index_place)) == real_folder(folder):
        raise InputError("the index needs a folder of its own, not that of the photographs: give --index PLACE")
    if ann:
        need_faiss()
    check_engine(engine, workers, cluster)
    given = Whitening.load(os.path.expanduser(whitening)) if whitening not in (None, "none", "auto") else None
    # A folder that is gone can only be dropped from an index that exists.
    chosen = _recipe_for(index_place, recipe, weights) if is_there else None
    with open_index(index_place, chosen) as opened, progress_display() as progress:
        if whitening is not None:
            opened.use_whitening("auto" if whitening == "auto" else given)
            if given is not None and opened.recipe.dim not in (0, given.dim):
                err.print(
                    f"The whitening has {given.dim} dimensions, the recipe names {opened.recipe.dim}: "
                    f"{given.dim} are used."
                )
        if storage is not None:
            opened.use_storage(storage)
        if thumbnails is not None:
            opened.use_thumbnails(None if thumbnails == "none" else thumbnails, apart_from=[folder])
        task = progress.add_task("Looking at the folder", total=None)

        def show(state: SyncProgress) -> None:
            progress.update(task, description=state.what, completed=state.done, total=state.total)

        def describer() -> Describer | ClusterDescriber:
            return describer_for(opened, workers, cluster, device=device, engine=engine, progress=progress)

        try:
            report = opened.sync(
                folder, describer=describer, verify_content=verify_content, allow_empty=allow_empty, progress=show
            )
        except KeyboardInterrupt:
            progress.stop()
            err.print("Interrupted. What was described is stored; the same command goes on from there.")
            raise typer.Exit(130) from None
        refused = _build_ann(opened, report, show) if ann else None
        info = opened.info()
    print_report(report, f"{printable(info.location)} holds {counted(info.pictures, 'picture')}.")
    if refused is not None:
        raise refused


@app.command(epilog="Example:  coocnet prepare -i photos.cooc  &&  coocnet search tower.jpg --rerank reciprocal")
def prepare(
    index_place: IndexOption = DEFAULT_INDEX,
    offline: Annotated[
        bool, typer.Option("--offline", help="Also solve diffusion for every picture, 8 kB for each.")
    ] = False,
) -> None:
    """Find each picture's neighbours once and keep them, so that re-ranking a large collection starts at once.

    After the collection has changed they are left unused until this is run again.
    """
    from coocnet.index import open_index

    with open_index(index_place) as opened, progress_display() as progress:
        task = progress.add_task("Finding neighbours", total=None)
        opened.prepare_reranking(
            offline=offline, progress=lambda done, total: progress.update(task, completed=done, total=total)
        )
    out.print(f"The neighbours are kept in {plain(index_place)}.")


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
        "described in": ", ".join(held.engines),
        "dimensions": held.dim,
        "whitening": _whitening_line(held),
        "search": _search_line(held),
        "thumbnails": held.thumbnails or "none",
        "size on disk": f"{held.size_bytes / 1e6:.1f} MB",
        "made": held.made,
        **({"unfinished copy of": held.unfinished} if held.unfinished else {}),
        "skipped": len(held.skipped),
    }
    if as_json:
        folders = [
            {**json_path(one.path), "pictures": one.pictures, "synchronised": one.synchronised}
            for one in held.folders
        ]
        skipped = [{**json_path(path), "reason": reason} for path, reason in held.skipped.items()]
        above = {"size_bytes": held.size_bytes, "folders": folders, "skipped": skipped}
        print_json({**facts, **above, "toml": held.recipe.to_toml()})
        return
    for one in held.folders:
        out.print(f"{'folder':>18}  {plain(one.path)}: {one.pictures} pictures, {one.synchronised}")
    for key, value in facts.items():
        out.print(f"{key:>18}  {plain(value)}")
    for path, reason in held.skipped.items():
        out.print(f"{'':>18}  {plain(path)}: {plain(reason)}", style="dim")


def _recipe_for(index_place: str, recipe: str | None, weights: str) -> Recipe:
    """What the options ask for; the index's own recipe where there is an index and they name none."""
    from coocnet.index import open_index
    from coocnet.recipe import Recipe

    if recipe is not None:
        return with_weights(Recipe.load(recipe), weights)
    try:
        with open_index(index_place) as existing:
            return with_weights(existing.recipe, weights)
    except IndexMissingError:
        return with_weights(Recipe(), weights)


def _build_ann(opened: Index, report: SyncReport, show: Callable[[SyncProgress], None]) -> InputError | None:
    """Builds an approximate search unless one is in force; the error, to be raised once the report is printed."""
    from coocnet.index import SyncProgress
    from coocnet.index.collection import BUILDING

    held = opened.info()
    if held.approximate is not None and not held.out_of_force:
        in_force = f"the approximate search is in force already, recall@10 {held.approximate.recall:.3f}"
        report.approximate = report.approximate or in_force
        return None
    if report.approximate:  # the sync has tried in vain
        why, report.approximate = report.approximate, ""
        return InputError(why)
    try:
        built = opened.build_ann(progress=lambda done, total: show(SyncProgress(done, total, BUILDING)))
    except InputError as error:
        return error
    report.approximate = f"approximate search built, recall@10 {built.recall:.3f}"
    return None


def print_report(report: SyncReport, closing: str) -> None:
    """What a sync did, in words: what was left out to the error output."""
    if report.skipped:
        err.print(f"Skipped {len(report.skipped)}:")
        for error in report.skipped[:_SKIPPED_SHOWN]:
            err.print(f"  {plain(error)}")
        if len(report.skipped) > _SKIPPED_SHOWN:
            err.print(f"  and {len(report.skipped) - _SKIPPED_SHOWN} more: coocnet info lists them all")
    if report.others or report.linked_folders:
        left = [f"{report.others} other files"] * bool(report.others)
        left += [f"{report.linked_folders} links to folders"] * bool(report.linked_folders)
        err.print(f"Not looked at: {', '.join(left)}.")
    if report.whitening:
        err.print(f"{plain(report.whitening[0].upper() + report.whitening[1:])}.")
    if report.approximate:
        err.print(f"{plain(report.approximate[0].upper() + report.approximate[1:])}.")
    counts = (
        (report.added, "added"),
        (report.updated, "updated"),
        (report.recognised, "recognised by content"),
        (report.unchanged, "unchanged"),
        (report.dropped, "dropped"),
        (report.thumbnails, "thumbnails made"),
    )
    done = ", ".join(f"{count} {what}" for count, what in counts if count) or "nothing to do"
    rate = f" ({report.described / report.time_s:.1f} pictures a second)" if report.described else ""
    out.print(f"{done} in {report.time_s:.1f} s{rate}. {plain(closing)}")


def _whitening_line(held: IndexInfo) -> str:
    facts = held.whitening
    if facts is not None:
        return (
            f"version {facts['version']}, {facts.get('kind')}, fitted on {facts.get('pictures')} pictures "
            f"({facts.get('fitted_on', 'elsewhere')})"
        )
    if held.whitening_declined:
        return "none, as asked for"
    if held.recipe.whitening == "none":
        return "none: the recipe asks for none"
    return "none yet: it is learned when there are more pictures, or given with --whitening FILE"


def _search_line(held: IndexInfo) -> str:
    built = held.approximate
    kept = f", rows kept as {held.storage}" if held.rows_are_kept and held.storage != "float32" else ""
    if held.out_of_force:
        return f"exact{kept}; approximate out of force: {held.out_of_force}"
    if built is None:
        return f"exact{kept}"
    return (
        f"approximate up to {built.up_to} hits, recall@10 {built.recall:.3f} for pictures of its own, "
        f"{built.recall_of_others:.3f} for queries like none of them, recall@100 {built.recall_at_100:.3f}; "
        f"{built.probes} of {built.lists} lists of {built.contents} contents{kept}"
    )
