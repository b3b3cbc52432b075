"""Result files: scores with the value of every query, and what stands behind them; two of them compared."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coocnet.errors import InputError, printable
from coocnet.evaluate.ground_truth import GroundTruth
from coocnet.evaluate.measures import Difference, paired_difference
from coocnet.evaluate.scoring import Score
from coocnet.output import written_whole

_KIND = "coocnet-result-1"
_MEAN_WITHIN = 1e-9
_ALWAYS_DIFFERENT = ("date", "seconds")


@dataclass(frozen=True)
class Benchmark:
    """What a result is about.

    Attributes:
        name: of the benchmark.
        sha256: digest of its labelling, pictures, queries and labels.
        pictures, queries: how many there are.
        distractors: pictures ranked beyond its own.
    """

    name: str
    sha256: str
    pictures: int
    queries: int
    distractors: int = 0

    @classmethod
    def of(cls, ground_truth: GroundTruth, *, distractors: int = 0) -> Benchmark:
        """The benchmark of a ground truth.

        Args:
            ground_truth: its own pictures and queries.
            distractors: pictures ranked beyond its own.
        """
        images, queries = len(ground_truth.images), len(ground_truth.queries)
        return cls(ground_truth.name, ground_truth.digest(), images, queries, distractors)


@dataclass(frozen=True)
class Result:
    """Scores on a benchmark and what stands behind them.

    Attributes:
        benchmark: what they are about.
        scores: one for each setup and measure.
        manifest: a table for JSON; :func:`coocnet.evaluate.manifest` makes it.
    """

    benchmark: Benchmark
    scores: tuple[Score, ...]
    manifest: Mapping[str, Any]

    def __post_init__(self) -> None:
        """Refuses values that are not one for each query.

        Raises:
            InputError: there are more or fewer.
        """
        for score in self.scores:
            if len(score.values) != self.benchmark.queries:
                raise InputError(
                    f"{self.benchmark.name} has {self.benchmark.queries} queries, but {score.measure} has "
                    f"{len(score.values)} values"
                )

    def to_document(self) -> dict[str, Any]:
        """The result as a table for JSON, of kind coocnet-result-1."""
        scores = [{**_summary(score), "values": list(score.values)} for score in self.scores]
        return {
            "kind": _KIND,
            "benchmark": dict(vars(self.benchmark)),
            "scores": scores,
            "manifest": dict(self.manifest),
        }

    @classmethod
    def from_document(cls, document: Any) -> Result:
        """Takes what :meth:`to_document` gave.

        Raises:
            InputError: something else, another kind, or means that are not those of the values.
        """
        try:
            if (kind := document["kind"]) != _KIND:
                raise InputError(f"a result of kind {kind!r} cannot be read; this coocnet knows {_KIND}")
            said = document["benchmark"]
            counts = [int(said[key]) for key in ("pictures", "queries", "distractors")]
            benchmark = Benchmark(str(said["name"]), str(said["sha256"]), *counts)
            scores = tuple(map(_score, document["scores"]))
            manifest = dict(document["manifest"])
        except (KeyError, TypeError, AttributeError, OverflowError) as error:
            raise InputError(f"this is not a result as JSON: {error!r}") from error
        return cls(benchmark, scores, manifest)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes a JSON file, whole or not at all.

        Raises:
            InputError: it cannot be written there, or the manifest is no table for JSON.
        """
        try:
            text = json.dumps(self.to_document(), indent=1, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise InputError(f"a manifest holds what JSON can hold: {error}") from error
        with written_whole(path) as unfinished:
            Path(unfinished).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Result:
        """Reads a file.

        Raises:
            InputError: not there, not a result, or one whose means are not those of its values.
        """
        try:
            return cls.from_document(json.loads(Path(path).read_bytes()))
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(f"{printable(path)}: {getattr(error, 'strerror', None) or error}") from error


@dataclass(frozen=True)
class Compared:
    """One measure of two results, on the queries that count.

    Attributes:
        setup: its name, as the ground truth has it.
        measure: its name, as :func:`~coocnet.evaluate.measure_named` takes it.
        difference: the first result minus the second.
    """

    setup: str
    measure: str
    difference: Difference


@dataclass(frozen=True)
class Comparison:
    """Two results on the same queries.

    Attributes:
        scores: of every setup and measure that both have.
        manifests: where what stands behind them differs: dotted name, and the value of each ("absent" for none).
    """

    scores: tuple[Compared, ...]
    manifests: tuple[tuple[str, Any, Any], ...]


def compare(result: Result, other: Result) -> Comparison:
    """The one result minus the other, query by query, and what else sets them apart.

    Args:
        result: the one.
        other: of the same benchmark.

    Raises:
        InputError: they are of different benchmarks, of other pictures, queries, labels or distractors, or have no
            measure in common.
    """
    pair = (result.benchmark, other.benchmark)
    if (pair[0].sha256, pair[0].distractors) != (pair[1].sha256, pair[1].distractors):
        first, second = (
            f"{one.name} ({one.queries} queries, {one.pictures} pictures, {one.distractors} distractors, "
            f"ground truth {one.sha256[:12]})"
            for one in pair
        )
        raise InputError(f"results are compared on the same queries and pictures, got {first} and {second}")
    for field in ("pictures", "distractors"):
        sets = [one.manifest.get(field) for one in (result, other)]
        digests = [one["sha256"] for one in sets if isinstance(one, dict) and "sha256" in one]
        if len(set(digests)) > 1:
            raise InputError(
                f"results are compared on the same {field}, but theirs differ in content "
                f"({digests[0][:12]} and {digests[1][:12]})"
            )
    theirs = {(score.setup, score.measure): score for score in other.scores}
    both = [
        (score, theirs[score.setup, score.measure])
        for score in result.scores
        if (score.setup, score.measure) in theirs and score.counted
    ]
    if not both:
        raise InputError("these results have no measure in common")
    scores = []
    for one, two in both:
        if [value is None for value in one.values] != [value is None for value in two.values]:
            raise InputError(f"the results leave out different queries in {one.setup} {one.measure}")
        scores.append(Compared(one.setup, one.measure, paired_difference(one.counted, two.counted)))
    return Comparison(tuple(scores), tuple(_differences(result.manifest, other.manifest)))


def _differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    leaves, others = dict(_leaves(one)), dict(_leaves(other))
    for name in dict.fromkeys([*leaves, *others]):
        values = leaves.get(name, "absent"), others.get(name, "absent")
        if values[0] != values[1] and name not in _ALWAYS_DIFFERENT:
            yield name, *values


def _leaves(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _summary(score: Score) -> dict[str, Any]:
    interval = score.interval
    numbers = (interval.mean, interval.low, interval.high) if interval else (None, None, None)
    return {
        "setup": score.setup,
        "measure": score.measure,
        **dict(zip(("mean", "low", "high"), numbers, strict=True)),
        "queries": len(score.counted),
        "left_out": score.left_out,
    }


def _score(entry: Mapping[str, Any]) -> Score:
    values = tuple(None if value is None else float(value) for value in entry["values"])
    score = Score(str(entry["setup"]), str(entry["measure"]), values)
    counted = score.counted
    if not all(map(math.isfinite, counted)):
        raise InputError(f"the values of {score.measure} are not all finite")
    mean = sum(counted) / len(counted) if counted else None
    said = entry["mean"]
    if (mean is None) != (said is None) or (mean is not None and abs(mean - said) > _MEAN_WITHIN):
        raise InputError(
            f"{score.setup} {score.measure}: the mean is said to be {said}, that of the values is {mean}"
        )
    return score
