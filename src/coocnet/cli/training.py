"""The command that learns a co-occurrence filter."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coocnet.cli.app import DeviceOption, WeightsOption, app, with_weights
from coocnet.cli.terminal import (
    download_progress,
    err,
    out,
    plain,
    progress_display,
    step_progress,
    tell_unverified,
)
from coocnet.errors import InputError, printable
from coocnet.output import checked_target

if TYPE_CHECKING:
    from coocnet.train import Examples, Progress, Settings, Trained
    from coocnet.train.loop import Watch

    StepProgress = Callable[[str, int, int | None, str], None]

_EPOCHS_SHOWN = 8
_PUBLISHED = "retrieval-sfm-120k"


@app.command(
    epilog="Example:  coocnet train ~/things -o filter.safetensors     (one folder for every thing)   then   "
    "coocnet index ~/Pictures --recipe filter.toml"
)
def train(
    data: Annotated[
        list[str],
        typer.Argument(
            help="Pictures of things: a folder with one folder for each, a list (columns image, instance), or "
            "retrieval-sfm-120k.",
            metavar="DATA...",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The filter to write.", metavar="FILE.safetensors")],
    recipe: Annotated[
        str, typer.Option("--recipe", help="The recipe to learn it for, a preset or a file.", metavar="NAME|FILE")
    ] = "mini",
    kind: Annotated[str, typer.Option("--filter", help="dense or factorised.")] = "factorised",
    rank: Annotated[int | None, typer.Option(help="Components of a factorised filter.")] = None,
    loss: Annotated[str | None, typer.Option(help="contrastive, triplet, softmax or ap.")] = None,
    margin: Annotated[float | None, typer.Option(help="Of the contrastive and the triplet loss.")] = None,
    temperature: Annotated[float | None, typer.Option(help="Of the losses softmax and ap.")] = None,
    learning_rate: Annotated[float | None, typer.Option("--lr", help="Of Adam, at its highest.")] = None,
    warmup_steps: Annotated[int | None, typer.Option("--warmup", help="Steps over which the rate rises.")] = None,
    pull: Annotated[float | None, typer.Option(help="Of the weights, towards the direct filter.")] = None,
    whitened_dim: Annotated[
        int | None, typer.Option("--whitened", help="The loss sees rows whitened to so many dimensions; 0 for raw.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="At most; the best is kept.")] = None,
    patience: Annotated[int | None, typer.Option(help="End after so many epochs without a better one.")] = None,
    queries: Annotated[int | None, typer.Option(help="Queries of an epoch, at most.")] = None,
    pool: Annotated[int | None, typer.Option(help="Pictures that negatives are mined from, at most.")] = None,
    matches: Annotated[int | None, typer.Option(help="Pictures that match each query, at most.")] = None,
    negatives: Annotated[int | None, typer.Option(help="Hard negatives of each query.")] = None,
    memory: Annotated[
        bool | None, typer.Option(help="The losses softmax and ap see the rows of the whole pool too.")
    ] = None,
    batch: Annotated[int | None, typer.Option(help="Queries, with match and negatives, of a step.")] = None,
    precision: Annotated[str | None, typer.Option(help="float32, or bfloat16 for the filter's products.")] = None,
    clip: Annotated[float | None, typer.Option(help="The gradient's norm is cut to this.")] = None,
    held_out: Annotated[
        float | None, typer.Option("--held-out", help="Share of the things that is held out of DATA.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of everything that is drawn.")] = None,
    validation: Annotated[
        list[str] | None,
        typer.Option(help="Pictures to choose the epoch by, as DATA; else held out.", metavar="DATA"),
    ] = None,
    gate: Annotated[
        list[str] | None,
        typer.Option(help="Pictures that the filter must not be worse on, as DATA; else held out.", metavar="DATA"),
    ] = None,
    whitening: Annotated[
        Path | None,
        typer.Option(help="Also learn a whitening from the same pairs.", metavar="FILE.safetensors"),
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="The folder of feature maps; the user's cache if not given.", metavar="DIR")
    ] = None,
    cache_gb: Annotated[
        float, typer.Option("--cache-gb", help="What feature maps may take of the disk.", min=0, max=10**6)
    ] = 20,
    existing: Annotated[
        str | None, typer.Option(help="A folder that has the pictures of retrieval-sfm-120k.", metavar="DIR")
    ] = None,
    weights: WeightsOption = "",
    device: DeviceOption = None,
    restart: Annotated[bool, typer.Option("--restart", help="Begin anew, whatever was begun before.")] = False,
) -> None:
    """Learn a co-occurrence filter on pictures of things, over a network that stays as it is.

    May be interrupted; the same command goes on to the same result. Settings that are not given are those that gained
    the most on development sets; the report lists all. The same name in two DATA means two things.

    The filter starts as the direct one; the epoch with the best mAP on held-out things is kept. On other held-out
    things it must then be no worse than the direct filter: only so it gets the name asked for, and a recipe beside
    it. Exit status 1: there is none to be used.
    """
    from coocnet.describe import Describer
    from coocnet.recipe import Recipe
    from coocnet.train import Maps, Trainer, facts_of, need_learnable, write_filter, write_report

    chosen = with_weights(Recipe.load(recipe), weights)
    settings = _settings(
        kind=kind, rank=rank, loss=loss, margin=margin, temperature=temperature, learning_rate=learning_rate,
        warmup_steps=warmup_steps, pull=pull, whitened_dim=whitened_dim, epochs=epochs, patience=patience,
        queries_per_epoch=queries, pool_size=pool, matches=matches, negatives=negatives, memory=memory,
        tuples_per_step=batch, precision=precision, seed=seed,
        clip=clip, held_out=held_out,
    )  # fmt: skip
    need_learnable(chosen)
    read: list[str | Path] = [recipe, weights, *data, *(validation or ()), *(gate or ())]
    target = Path(checked_target(output, endings=[".safetensors"], what="a filter: .safetensors", sources=read))
    checked_target(target.with_suffix(".toml"), endings=[".toml"], what="a recipe: .toml", sources=read)
    white = whitening and checked_target(
        whitening, endings=[".safetensors"], what="a whitening file: .safetensors", sources=[*read, target]
    )
    with progress_display() as progress:
        parts = _parts(data, validation, gate, settings, _Sources(existing, step_progress(progress)))
    folder = target.with_suffix(".training")
    _make_folder(folder)
    with progress_display() as progress:
        downloading = download_progress(progress)
        describer = Describer(chosen, device=device, engine="float32", progress=downloading)
    tell_unverified(describer)
    maps = Maps(describer, cache or _cache_folder(), budget_bytes=int(cache_gb * 1e9))
    out.print(_about(parts))
    with _sole_writer(folder, restart=restart), _live() as watch:
        trainer = Trainer(describer, parts, settings, folder=folder, maps=maps, watch=watch)
        try:
            trained = trainer.run()
        except KeyboardInterrupt:
            err.print(f"Interrupted. The same command goes on from {plain(folder)}.")
            raise
        facts = facts_of(trained, chosen, describer.weights_sha256, data, _about(parts))
        written = write_filter(trained, settings, facts, chosen, target)
        write_report(trained, settings, facts, folder)
        if white and trained.verdict == "passed":
            learned = chosen.with_filter(target)
            of_rows = {"row_fingerprint": learned.row_fingerprint(), "weights_sha256": describer.weights_sha256}
            trainer.whitening_of_pairs(trained.learned, of_rows | {"recipe": learned.name}).save(white)
    if trainer.uncached:
        err.print(
            f"{trainer.uncached:,} feature maps found no room in {cache_gb:g} GB (--cache-gb) and were computed "
            "whenever they were needed."
        )
    _tell(trained, written, folder, white or "")
    if trained.verdict != "passed":
        raise typer.Exit(1)


_OPTIONS = {
    "kind": "--filter",
    "learning_rate": "--lr",
    "warmup_steps": "--warmup",
    "whitened_dim": "--whitened",
    "queries_per_epoch": "--queries",
    "pool_size": "--pool",
    "tuples_per_step": "--batch",
    "held_out": "--held-out",
}
"""The options whose names are not those of the settings."""


def _settings(**values: Any) -> Settings:
    """Settings of what was given; an error names the option."""
    from coocnet.train import Settings

    try:
        return Settings(**{name: value for name, value in values.items() if value is not None})
    except InputError as error:
        name, _, rest = str(error).partition(" ")
        raise InputError(f"{_OPTIONS.get(name, f'--{name}')} {rest}") from error


def _parts(
    data: list[str], validation: list[str] | None, gate: list[str] | None, settings: Settings, sources: _Sources
) -> tuple[Examples, Examples, Examples]:
    """To learn from, to choose the epoch by, for the gate: what is not given is held out of what is."""
    from coocnet.train import hold_out

    if validation is None and gate is None and data == [_PUBLISHED]:
        validation = data
    learning = sources.examples(data, "train")
    choosing = sources.examples(validation, "val") if validation else None
    judging = sources.examples(gate, "val") if gate else None
    if choosing is None:
        parts = 1 if judging is not None else 2
        learning, choosing = hold_out(learning, settings.held_out * parts / 2, settings.seed, at_least=2 * parts)
    if judging is None:
        choosing, judging = hold_out(choosing, 0.5, settings.seed)
    for one, other in itertools.combinations((learning, choosing, judging), 2):
        if shared := {*one.paths} & {*other.paths}:
            raise InputError(
                f"{printable(min(shared))} is in two of: the pictures to learn from, to choose by, of the gate"
            )
    return learning, choosing, judging


@dataclass(frozen=True)
class _Sources:
    existing: str | None
    progress: StepProgress

    def examples(self, places: list[str], part: str) -> Examples:
        from coocnet.data.benchmarks import open_training
        from coocnet.data.pairs import pictures_by_instance
        from coocnet.train import of_instances, of_training

        if _PUBLISHED in places:
            if len(places) > 1:
                raise InputError(f"{_PUBLISHED} is trained on by itself; give it alone")
            opened = open_training(_PUBLISHED, split=part, existing=self.existing, progress=self.progress)
            return of_training(opened)
        return of_instances([pictures_by_instance(place) for place in places])


@contextmanager
def _sole_writer(folder: Path, *, restart: bool) -> Iterator[None]:
    """One training at a time in a folder; the system lets go of it however the process ends."""
    from filelock import FileLock, Timeout

    from coocnet.train import CHECKPOINT

    try:
        with FileLock(folder / "lock", timeout=0):
            if restart:
                (folder / CHECKPOINT).unlink(missing_ok=True)
            yield
    except Timeout as error:
        raise InputError(
            f"another training is at work in {printable(folder)}: wait for it, or write elsewhere"
        ) from error


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise InputError(f"{printable(folder)} cannot be made or written to: {error.strerror}") from error


def _cache_folder() -> Path:
    import platformdirs

    return Path(platformdirs.user_cache_dir("coocnet")) / "maps"


def _about(parts: Sequence[Examples]) -> str:
    said = []
    for examples, purpose in zip(parts, ("to learn from", "to choose the epoch by", "for the gate"), strict=True):
        lonely = f" ({examples.lonely} of a single one: never a match)" if examples.lonely else ""
        said.append(f"{len(examples):,} pictures of {examples.things:,} things{lonely} {purpose}")
    return "; ".join(said)


def _tell(trained: Trained, written: Path | None, folder: Path, white: str) -> None:
    out.print(f"Report: {plain(folder / 'report.html')}")
    if white and trained.verdict != "passed":
        err.print("No whitening was written: it goes with a filter that may be used.")
    if written is None:
        err.print(
            "No epoch was better than the direct filter on the pictures to choose by, so no filter was written: use "
            "the recipe as it is, or train on more or other pictures."
        )
        return
    said = f"{plain(written)}, epoch {trained.best_epoch} of {len(trained.history) - 1}"
    out.print(f"The gate: {trained.verdict}, {trained.gate}")
    if trained.verdict == "refused":
        err.print(
            "The filter is worse than the direct one on the pictures of the gate. Written to look at, not to use: "
            f"{said}"
        )
        return
    out.print(f"Written: {said}, {trained.parameters:,} parameters")
    with_white = f" --whitening {plain(white)}" if white else ""
    out.print(f"Use it:  coocnet index DIR --recipe {plain(written.with_suffix('.toml'))}{with_white}")


@contextmanager
def _live() -> Iterator[Watch]:
    """The training as it goes on: the last epochs, and a bar for what is being done."""
    from rich.console import Group
    from rich.live import Live
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars
    from rich.table import Table

    bars = Bars(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    task = bars.add_task("")
    shown: list[str] = []

    def table(now: Progress) -> Table:
        made = Table(box=None, padding=(0, 2, 0, 0))
        for name in ("epoch", "loss", "held-out mAP", "raw"):
            made.add_column(name, justify="right")
        for record in now.history[-_EPOCHS_SHOWN:]:
            made.add_row(*_cells(record))
        if now.loss is not None and len(now.history) <= now.epoch:
            made.add_row(str(now.epoch), f"{now.loss:.4f}", "…", "")
        return made

    with Live(bars, console=err, transient=True, refresh_per_second=4) as live:

        def watch(now: Progress) -> None:
            if [now.what] != shown:
                shown[:] = [now.what]
                bars.reset(task)
            bars.update(task, description=now.what, completed=now.done, total=now.total)
            live.update(Group(table(now), bars))
            if now.what == "Epoch" and not err.is_terminal:
                epoch, loss, used, raw = _cells(now.history[-1])
                err.print(f"Epoch {epoch}: loss {loss or '-'}, held-out mAP {used}, raw {raw}")

        yield watch


def _cells(record: Mapping[str, float]) -> tuple[str, str, str, str]:
    loss = f"{record['loss']:.4f}" if record["epoch"] else ""
    return f"{record['epoch']:.0f}", loss, f"{100 * record['map']:.2f}", f"{100 * record['map_raw']:.2f}"
