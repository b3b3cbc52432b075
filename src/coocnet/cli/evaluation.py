"""Commands of the field's evaluation: score rankings or descriptors, whoever made them, and compare two results."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coocnet.cli.app import JsonOption, app
from coocnet.cli.terminal import out, plain, print_json
from coocnet.errors import InputError
from coocnet.output import checked_target

if TYPE_CHECKING:
    from coocnet.evaluate import Comparison, GroundTruth, Interval, Result, Score

_LENGTHS = 'one of "unit" (refuse others), "normalise" (rank by the cosine), "as-given" (by the inner product)'


@app.command(
    epilog="Example:  coocnet evaluate --ground-truth roxford5k.json --descriptors features.mat -o theirs.json"
)
def evaluate(
    ground_truth: Annotated[Path, typer.Option(help="The benchmark: what is right.", metavar="FILE.json")],
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
    distractors: Annotated[int, typer.Option(help="Pictures beyond those of the benchmark.", min=0)] = 0,
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
    """Score rankings or descriptors on a benchmark, with 95 % intervals over its queries."""
    from coocnet.evaluate import (
        Benchmark,
        GroundTruth,
        Result,
        made_elsewhere,
        manifest,
        read_descriptors,
        read_rankings,
        score,
        score_rows,
    )

    if (rankings is None) == (descriptors is None):
        raise InputError("give either --rankings or --descriptors")
    if rankings is not None and query_descriptors is not None:
        raise InputError("--query-descriptors go with --descriptors, not with --rankings")
    files = [file for file in (rankings, descriptors, query_descriptors) if file is not None]
    target = output and checked_target(
        output, endings=[".json"], what="a result: .json", sources=[ground_truth, *files]
    )
    truth, started = GroundTruth.load(ground_truth), time.perf_counter()
    crop = "not known"
    if rankings is not None:
        ranked = read_rankings(rankings, truth, distractors=distractors, layout=layout)
        scores = score(ranked, truth, distractors=distractors)
    else:
        rows = read_descriptors(
            descriptors or "", truth, queries=query_descriptors, distractors=distractors, layout=layout
        )
        crop = "whole picture" if rows.from_database else crop
        scores = score_rows(rows.database, rows.queries, truth, lengths=lengths)
    said = manifest(
        truth,
        rows=made_elsewhere(*files),
        query_crop=crop,
        tuned_on=tuned_on or (),
        trained_on=trained_on or (),
        seconds=time.perf_counter() - started,
    )
    result = Result(Benchmark.of(truth, distractors=distractors), scores, said)
    if target:
        result.save(target)
    if as_json:
        print_json(result.to_document())
    else:
        _print_result(result, truth)
        if target:
            out.print(f"Written: {plain(output)}")


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


def _print_result(result: Result, truth: GroundTruth) -> None:
    about = result.benchmark
    beyond = f" and {about.distractors} distractors" if about.distractors else ""
    out.print(f"[bold]{plain(about.name)}[/]  {about.pictures} pictures{beyond}, {about.queries} queries")
    for score in result.scores:
        out.print(f"{_label(score.setup, score.measure)} {_numbers(score)}")
    said = result.manifest
    out.print(
        f"Queries in the database: {', '.join(f'{n} {k}' for k, n in truth.queries_in_database().items())}. "
        f"Tuned on: {_listed(said['tuned_on'])}. Trained on: {_listed(said['trained_on'])}.",
        style="dim",
    )
    for note in said["overlap"] if isinstance(said["overlap"], list) else ():
        out.print(f"Overlap: {plain(note['training_set'])} {plain(note['note'])}.", style="dim")


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
