"""Commands of the field's evaluation: a recipe on a benchmark, what was made elsewhere, two results compared."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from coocnet.cli.app import DeviceOption, JsonOption, WeightsOption, app, with_weights
from coocnet.cli.reproduction import ExistingOption, OfflineOption, ToOption, published_world
from coocnet.cli.terminal import (
    download_progress,
    out,
    plain,
    print_json,
    progress_display,
    step_progress,
    tell_unverified,
)
from coocnet.errors import InputError
from coocnet.output import checked_target

if TYPE_CHECKING:
    from rich.progress import Progress

    from coocnet.evaluate import Comparison, GroundTruth, Interval, Result, Score
    from coocnet.recipe import Recipe
    from coocnet.reproduce import Published

_LENGTHS = 'one of "unit" (refuse others), "normalise" (rank by the cosine), "as-given" (by the inner product)'


@app.command(
    epilog="Examples:  coocnet evaluate --benchmark roxford5k --recipe paper-chco-sct-td -o ours.json     "
    "coocnet evaluate --ground-truth roxford5k.json --descriptors features.mat -o theirs.json"
)
def evaluate(
    benchmark: Annotated[
        str | None, typer.Option(help="A benchmark that  coocnet datasets  lists; fetched if it is not here.")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="The recipe to evaluate, a preset or a TOML file.", metavar="NAME|FILE")
    ] = None,
    whitening: Annotated[
        str,
        typer.Option(
            help="auto: learned where the paper learns it; a benchmark's name: on its pictures; a file; or none.",
            metavar="auto|NAME|FILE|none",
        ),
    ] = "auto",
    rerank: Annotated[str, typer.Option(help="Re-rank: reciprocal or diffusion.")] = "none",
    whole_queries: Annotated[
        bool, typer.Option("--whole-queries", help="Do not cut queries to their boxes.")
    ] = False,
    add_distractors: Annotated[
        bool, typer.Option("--add-distractors", help="Add the million distractors to the database.")
    ] = False,
    to: ToOption = None,
    existing: ExistingOption = None,
    offline: OfflineOption = False,
    weights: WeightsOption = "",
    device: DeviceOption = None,
    ground_truth: Annotated[
        Path | None, typer.Option(help="What is right, for what was made elsewhere.", metavar="FILE.json")
    ] = None,
    rankings: Annotated[
        Path | None,
        typer.Option(help="Positions in the database, best first, from 0 on.", metavar="FILE.npy|npz|mat|h5"),
    ] = None,
    descriptors: Annotated[
        Path | None, typer.Option(help="Rows of the database.", metavar="FILE.npy|npz|mat|h5")
    ] = None,
    query_descriptors: Annotated[
        Path | None,
        typer.Option(help="Rows of the queries; if not given, Q of the same file, or rows of the database."),
    ] = None,
    distractors: Annotated[
        int, typer.Option(help="Pictures in these files beyond those of the benchmark.", min=0)
    ] = 0,
    layout: Annotated[
        str | None, typer.Option(help='Whether pictures are "rows" or "columns"; needed where both fit.')
    ] = None,
    lengths: Annotated[str, typer.Option(help=f"What to do about the lengths of rows: {_LENGTHS}.")] = "unit",
    tuned_on: Annotated[
        list[str] | None, typer.Option(help="A set on which anything was chosen; once for each.", metavar="TEXT")
    ] = None,
    trained_on: Annotated[
        list[str] | None, typer.Option(help="A set that was learned from; once for each.", metavar="NAME")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the result, of every query.", metavar="FILE.json")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Evaluate a recipe on a benchmark, or rankings or descriptors made elsewhere; 95 % intervals over the queries.

    A benchmark is fetched, checked, described with its queries cut to their boxes, and scored; what was described is
    kept, so it may be interrupted. Missing or damaged pictures are named, and nothing is scored without them.
    """
    if (benchmark is None) == (ground_truth is None):
        raise InputError("give either --benchmark NAME or --ground-truth FILE.json")
    files = [file for file in (rankings, descriptors, query_descriptors) if file is not None]
    sources: list[Path | str] = [*files, *([ground_truth] if ground_truth else []), recipe or ""]
    target = output and checked_target(output, endings=[".json"], what="a result: .json", sources=sources)
    _refuse_mixed(
        {"--recipe": recipe, "--whole-queries": whole_queries, "--add-distractors": add_distractors,
         "--device": device, "--weights": weights, "--existing": existing, "--rerank": rerank != "none",
         "--whitening": whitening != "auto"},
        {"--distractors": distractors, "--layout": layout, "--lengths": lengths != "unit"},
        elsewhere=bool(files),
    )  # fmt: skip
    declared = _Declared(tuple(tuned_on or ()), tuple(trained_on or ()))
    if files:
        truth = _truth(benchmark, ground_truth, to, offline=offline)
        made = _Elsewhere(rankings, descriptors, query_descriptors, distractors, layout, lengths)
        result = _score_elsewhere(truth, made, declared)
    elif benchmark is None or recipe is None:
        raise InputError(
            "give --benchmark with a --recipe to evaluate it, or --rankings or --descriptors that were made elsewhere"
        )
    else:
        from coocnet.recipe import Recipe

        asked = _Asked(whitening, rerank, not whole_queries, add_distractors, device)
        with progress_display() as progress:
            world = published_world(to, existing, progress, offline=offline, allow_missing=False)
            result = _evaluate_recipe(
                world, benchmark, with_weights(Recipe.load(recipe), weights), asked, declared, progress
            )
    if target:
        result.save(target)
    if as_json:
        print_json(result.to_document())
        return
    _print_result(result)
    if target:
        out.print(f"Written: {plain(output)}")


def _refuse_mixed(of_a_recipe: dict[str, object], of_files: dict[str, object], *, elsewhere: bool) -> None:
    """Refuses options that would be left unused."""
    idle = [name for name, given in (of_a_recipe if elsewhere else of_files).items() if given]
    if idle:
        what = "files that were made elsewhere are scored" if elsewhere else "a recipe is evaluated"
        raise InputError(f"{idle[0]} changes nothing where {what}: give one or the other, not both")


class _Declared(NamedTuple):
    """What the user says of a result."""

    tuned_on: tuple[str, ...]
    trained_on: tuple[str, ...]


class _Elsewhere(NamedTuple):
    """Files that were made elsewhere, and how they are to be read."""

    rankings: Path | None
    descriptors: Path | None
    query_descriptors: Path | None
    distractors: int
    layout: str | None
    lengths: str


class _Asked(NamedTuple):
    """How a recipe is to be evaluated."""

    whitening: str
    reranking: str
    crop: bool
    distractors: bool
    device: str | None


def _truth(benchmark: str | None, ground_truth: Path | None, to: str | None, *, offline: bool) -> GroundTruth:
    from coocnet.data.benchmarks import published_truth
    from coocnet.evaluate import GroundTruth

    if ground_truth is not None:
        return GroundTruth.load(ground_truth)
    with progress_display() as progress:
        return published_truth(benchmark or "", place=to, download=not offline, progress=step_progress(progress))


def _score_elsewhere(truth: GroundTruth, made: _Elsewhere, declared: _Declared) -> Result:
    from coocnet.evaluate import (
        Benchmark,
        Result,
        made_elsewhere,
        manifest,
        read_descriptors,
        read_rankings,
        score,
        score_rows,
    )

    if (made.rankings is None) == (made.descriptors is None):
        raise InputError("give either --rankings or --descriptors")
    if made.rankings is not None and made.query_descriptors is not None:
        raise InputError("--query-descriptors go with --descriptors, not with --rankings")
    started, crop = time.perf_counter(), "not known"
    if made.rankings is not None:
        ranked = read_rankings(made.rankings, truth, distractors=made.distractors, layout=made.layout)
        scores = score(ranked, truth, distractors=made.distractors)
    else:
        rows = read_descriptors(
            made.descriptors or "",
            truth,
            queries=made.query_descriptors,
            distractors=made.distractors,
            layout=made.layout,
        )
        crop = "whole picture" if rows.from_database else crop
        scores = score_rows(rows.database, rows.queries, truth, lengths=made.lengths)
    files = [file for file in (made.rankings, made.descriptors, made.query_descriptors) if file is not None]
    said = manifest(
        truth,
        rows=made_elsewhere(*files),
        query_crop=crop,
        tuned_on=declared.tuned_on,
        trained_on=declared.trained_on,
        seconds=time.perf_counter() - started,
    )
    return Result(Benchmark.of(truth, distractors=made.distractors), scores, said)


def _evaluate_recipe(
    world: Published,
    name: str,
    recipe: Recipe,
    asked: _Asked,
    declared: _Declared,
    progress: Progress,
) -> Result:
    from coocnet.describe import Describer
    from coocnet.reproduce import Laboratory, evaluated, given_whitening, is_tuned, learned_on, tuned, whitened_on
    from coocnet.whitening import Whitening

    _check_asked(asked, recipe, name)
    opened = world.benchmark(name, distractors=asked.distractors)
    downloading = download_progress(progress)
    own = None
    if is_tuned(recipe):
        recipe, own = tuned(recipe, progress=downloading)
    describer = Describer(recipe, device=asked.device, engine="float32", progress=downloading)
    tell_unverified(describer)
    laboratory = Laboratory(world.place, step_progress(progress))
    source = whitened_on(recipe, name) if asked.whitening == "auto" else asked.whitening
    if own is not None and asked.whitening == "auto":
        learned = given_whitening(describer, own)
    elif source in ("", "none"):
        learned = None
    elif Path(source).expanduser().is_file():
        learned = given_whitening(describer, Whitening.load(Path(source).expanduser()))
    else:
        learned = learned_on(describer, source, world, laboratory)
    return evaluated(
        opened,
        describer,
        laboratory,
        learned=learned,
        crop=asked.crop,
        reranking=asked.reranking,
        tuned_on=declared.tuned_on,
        trained_on=declared.trained_on,
    )


@app.command(epilog="Example:  coocnet compare ours.json theirs.json")
def compare(
    result: Annotated[Path, typer.Argument(help="A result.", metavar="A.json")],
    other: Annotated[Path, typer.Argument(help="Another on the same queries.", metavar="B.json")],
    as_json: JsonOption = False,
) -> None:
    """Compare two results query by query: A minus B, with 95 % intervals, and what else sets them apart."""
    from dataclasses import asdict

    from coocnet.evaluate import Result
    from coocnet.evaluate import compare as compared

    comparison = compared(Result.load(result), Result.load(other))
    if as_json:
        manifests = [{"field": name, "values": values} for name, *values in comparison.manifests]
        print_json({"scores": [asdict(one) for one in comparison.scores], "manifests": manifests})
    else:
        _print_comparison(comparison)


def _check_asked(asked: _Asked, recipe: Recipe, benchmark: str) -> None:
    """Refuses before any long work what cannot be."""
    from coocnet.data.benchmarks import BENCHMARKS, lookup
    from coocnet.ranking import RERANKINGS

    lookup(benchmark)
    if asked.reranking != "none" and asked.reranking not in RERANKINGS:
        raise InputError(f"a re-ranking is one of none, {', '.join(RERANKINGS)}; got {asked.reranking!r}")
    known = asked.whitening in ("auto", "none", *BENCHMARKS) or Path(asked.whitening).expanduser().is_file()
    if not known:
        raise InputError(
            f"--whitening is auto, none, a file or a benchmark, and {asked.whitening!r} is none of these: "
            f"there are {', '.join(BENCHMARKS)}"
        )
    if asked.whitening == "none" and recipe.expansion == "alpha-qe" and recipe.pooling != "centred":
        raise InputError(
            f"{recipe.name} expands queries by similarities, which needs a whitening: not --whitening none"
        )


def _print_result(result: Result) -> None:
    about, said = result.benchmark, result.manifest
    beyond = f" and {about.distractors} distractors" if about.distractors else ""
    out.print(f"[bold]{plain(about.name)}[/]  {about.pictures} pictures{beyond}, {about.queries} queries")
    beside, amiss = _published(result)
    for score in result.scores:
        theirs = beside.get(score.setup) if score.measure == "map" else None
        paper = f"  paper {theirs[0]:.2f} ({theirs[1]}{amiss})" if theirs else ""
        out.print(f"{_label(score.setup, score.measure)} {_numbers(score)}{paper}")
    whitening, counts = said["whitening"], said["queries_in_database"]
    if isinstance(whitening, dict):
        whitening = f"{whitening.get('kind')} to {whitening.get('dim')}, fitted on {whitening.get('fitted_on')}"
    out.print(
        f"Whitening: {plain(whitening)}. Queries: {plain(said['query_crop'])}; in the database: "
        f"{', '.join(f'{n} {k}' for k, n in counts.items())}. "
        f"Tuned on: {_listed(said['tuned_on'])}. Trained on: {_listed(said['trained_on'])}.",
        style="dim",
    )
    for note in said["overlap"] if isinstance(said["overlap"], list) else ():
        out.print(f"Overlap: {plain(note['training_set'])} {plain(note['note'])}.", style="dim")


def _published(result: Result) -> tuple[dict[str, tuple[float, str]], str]:
    """What the paper reports for the preset of this name, by setup; and what was done otherwise here."""
    from coocnet.recipe import PRESETS, Recipe
    from coocnet.reproduce import published, whitened_on

    said = result.manifest
    toml = said["rows"].get("recipe")
    if toml is None:
        return {}, ""
    recipe, name = Recipe.from_toml(toml), result.benchmark.name
    whitening = said["whitening"].get("fitted_on") if isinstance(said["whitening"], dict) else "none"
    preset = PRESETS.get(recipe.name)
    otherwise = {
        "another recipe": preset is None or recipe.row_fingerprint() != preset.row_fingerprint(),
        "another whitening": whitening != whitened_on(recipe, name),
        "whole queries": said["query_crop"] != "box" and name not in ("holidays", "holidays-upright"),
        "re-ranked": said["reranking"] != "none",
        "distractors": result.benchmark.distractors > 0,
        "incomplete": said.get("incomplete", "no") != "no",
    }
    amiss = ", ".join(what for what, is_so in otherwise.items() if is_so)
    return published(recipe, name), f"; here: {amiss}" if amiss else ""


def _print_comparison(comparison: Comparison) -> None:
    for one in comparison.scores:
        found = one.difference
        counts = f"better {found.wins}, worse {found.losses}, level {found.ties}"
        out.print(
            f"{_label(one.setup, one.measure)} {_interval(found.interval, one.measure, sign='+')}  queries: {counts}"
        )
    for name, one_value, other_value in comparison.manifests:
        out.print(f"{plain(name)}: {plain(one_value)} | {plain(other_value)}", style="dim")
    if not comparison.manifests:
        out.print("What stands behind them does not differ.", style="dim")


def _numbers(score: Score) -> str:
    if score.interval is None:
        return "no query has a positive"
    left = f", {score.left_out} left out for having no positive" if score.left_out else ""
    return f"{_interval(score.interval, score.measure)}  {len(score.counted)} queries{left}"


def _interval(interval: Interval, measure: str, *, sign: str = "") -> str:
    scale = 1 if measure == "ns" else 100  # the one counts pictures, the others are shares
    mean, low, high = (scale * value for value in (interval.mean, interval.low, interval.high))
    return f"[bold]{mean:{sign}6.2f}[/]  \\[{low:{sign}.2f}, {high:{sign}.2f}]"


def _label(setup: str, measure: str) -> str:
    known = {"map": "mAP", "ns": "N-S"}
    return f"{plain(setup):<8}{plain(known.get(measure, measure.replace('mp@', 'mP@'))):<6}"


def _listed(value: object) -> str:
    return plain(", ".join(map(str, value)) if isinstance(value, list) else value)
