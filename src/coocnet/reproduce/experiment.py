"""One recipe on one benchmark: described, whitened by what was learned elsewhere, expanded, scored."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

from coocnet.data.benchmarks import OpenedBenchmark, Progress, Training, lookup
from coocnet.describe import Describer
from coocnet.errors import CoocnetError, InputError
from coocnet.evaluate import NOT_KNOWN, Benchmark, Result, made_by_recipe, manifest, picture_set, score, score_rows
from coocnet.nn import load_filter
from coocnet.ranking import EXPANSIONS, RERANKINGS
from coocnet.recipe import Recipe
from coocnet.reproduce.rows import Digests, Part, RowStore, described
from coocnet.reproduce.world import World
from coocnet.whitening import Whitening, fit_pairs, fit_pca


@dataclass
class Laboratory:
    """Where rows are kept, and what is known of picture files; shared by many experiments.

    Attributes:
        place: the data folder; see :func:`~coocnet.data.benchmarks.data_folder`.
        progress: as in :func:`~coocnet.data.benchmarks.open_benchmark`.
        digests: of the picture files seen so far.
    """

    place: str | os.PathLike[str] | None = None
    progress: Progress | None = None
    digests: Digests = field(default_factory=Digests)

    def rows(self, describer: Describer, parts: list[Part], what: str) -> Float[np.ndarray, "n dim"]:
        """Their rows, described where they are not kept yet; raises as :func:`~coocnet.reproduce.rows.described`."""
        store = RowStore.of(describer, self.place)
        return described(describer, parts, store, self.digests, what=what, progress=self.progress)

    def pictures(self, benchmark: OpenedBenchmark) -> dict[str, Any]:
        """A benchmark's pictures, for a manifest; raises as its ``picture_set``."""
        return benchmark.picture_set(digest=self.digests.of)


@dataclass(frozen=True)
class Learned:
    """A whitening learned elsewhere.

    Attributes:
        whitening: the fitted one.
        facts: for the manifest.
        trained_on: sets that it learned from.
        digests: SHA-256 of the pictures that it learned from, where they are known.
    """

    whitening: Whitening
    facts: Mapping[str, Any]
    trained_on: tuple[str, ...] = ()
    digests: frozenset[str] = frozenset()


def whitening_of(describer: Describer, other: OpenedBenchmark, laboratory: Laboratory) -> Learned:
    """A PCA-whitening fitted on the database pictures of another benchmark, to at most the recipe's dimensions.

    Source: section 4.3.3 of Forcén et al. 2020: Paris for Oxford, Oxford for Paris and Holidays.

    Raises:
        WhiteningError: too few pictures.
        BenchmarkError: pictures that cannot be described.
    """
    parts = [Part(path, None, other.source.upright) for path in other.images]
    rows = laboratory.rows(describer, parts, f"Describing {other.ground_truth.name} to whiten by")
    name = other.ground_truth.name
    fitted = fit_pca(rows, dim=describer.recipe.dim, at_most=True, provenance=_provenance(describer, name))
    facts = {**_facts(fitted, describer.recipe.dim), "picture_set": laboratory.pictures(other)}
    return Learned(fitted, facts, (name,), frozenset(map(laboratory.digests.of, other.images)))


def whitening_of_pairs(describer: Describer, name: str, training: Training, laboratory: Laboratory) -> Learned:
    """A whitening learned from pairs of a training set, to at most the recipe's dimensions.

    Source: Radenović et al. 2018, section 3.4, which section 5.2.2 of Forcén et al. 2020 follows.

    Raises:
        WhiteningError: too few pairs.
        BenchmarkError: pictures that cannot be described.
    """
    parts = [Part(path) for path in training.images]
    rows = laboratory.rows(describer, parts, f"Describing {name} to whiten by")
    fitted = fit_pairs(
        rows,
        np.array(training.pairs.queries),
        np.array(training.pairs.positives),
        dim=describer.recipe.dim,
        at_most=True,
        provenance=_provenance(describer, name),
    )
    return Learned(fitted, _facts(fitted, describer.recipe.dim), (name,))


def learned_on(describer: Describer, source: str, world: World, laboratory: Laboratory) -> Learned:
    """A whitening learned on a benchmark's pictures by PCA, or from the pairs of a training set, by its name.

    Raises:
        InputError: it cannot be learned there, with the reason.
    """
    try:
        if lookup(source).kind == "training":
            return whitening_of_pairs(describer, source, world.training(source), laboratory)
        return whitening_of(describer, world.benchmark(source), laboratory)
    except CoocnetError as error:
        raise InputError(f"its whitening is learned on {source}: {error}") from error


def given_whitening(describer: Describer, whitening: Whitening) -> Learned:
    """A whitening read from a file.

    Raises:
        WhiteningError: it was fitted on rows of another recipe or other weights.
    """
    whitening.check_fits(describer.recipe.row_fingerprint(), describer.weights_sha256, describer.dim)
    facts = _facts(whitening, whitening.dim)
    # One fitted on an index names the folders of that machine, and a manifest names none.
    names = [os.path.basename(part) for part in whitening.provenance.get("fitted_on", "").split(", ") if part]
    return Learned(whitening, {**facts, "fitted_on": ", ".join(names) or NOT_KNOWN}, tuple(names))


def evaluated(
    benchmark: OpenedBenchmark,
    describer: Describer,
    laboratory: Laboratory,
    *,
    learned: Learned | None = None,
    crop: bool = True,
    reranking: str = "none",
    tuned_on: tuple[str, ...] = (),
    trained_on: tuple[str, ...] = (),
) -> Result:
    """What a recipe is worth on a benchmark.

    Queries are cut to their boxes, then reduced by the factor of the whole picture; database pictures are whole.

    Args:
        benchmark: opened.
        describer: of the recipe; its ``expansion`` is applied, its ``whitening`` is not looked at.
        laboratory: keeps the rows.
        learned: the whitening; None for none.
        crop: False takes queries whole.
        reranking: a name in ``coocnet.ranking.RERANKINGS``, or "none".
        tuned_on: for the manifest.
        trained_on: for the manifest; sets that the whitening and a filter learned from are added.

    Raises:
        BenchmarkError: pictures that cannot be described.
        InputError: an unknown re-ranking, or an expansion by similarities of rows that were never whitened.
    """
    started, recipe, truth = time.perf_counter(), describer.recipe, benchmark.ground_truth
    if reranking != "none" and reranking not in RERANKINGS:
        raise InputError(f"a re-ranking is one of none, {', '.join(RERANKINGS)}; got {reranking!r}")
    whitened = learned is not None or recipe.pooling == "centred"
    if not whitened and (recipe.expansion == "alpha-qe" or reranking == "diffusion"):
        raise InputError(
            f"{recipe.expansion} and {reranking} (expansion, re-ranking) weigh by similarity, which says little of "
            "rows that are not whitened: give a whitening"
        )
    upright = benchmark.source.upright
    database_parts = [Part(path, None, upright) for path in [*benchmark.images, *benchmark.distractors]]
    query_parts = [Part(path, box if crop else None, upright) for path, box in benchmark.queries]
    database = laboratory.rows(describer, database_parts, f"Describing {truth.name}")
    queries = laboratory.rows(describer, query_parts, f"Describing the queries of {truth.name}")
    if learned is not None:
        database, queries = learned.whitening.apply(database), learned.whitening.apply(queries)
    expansion: dict[str, Any] | str = "none"
    if recipe.expansion != "none":
        n, alpha = recipe.expansion_neighbours, recipe.expansion_alpha
        expansion = {"name": recipe.expansion, "n": n, "alpha": alpha if recipe.expansion == "alpha-qe" else 0.0}
        queries = EXPANSIONS[recipe.expansion](database, queries, n=n, alpha=alpha, whitened=whitened)
    if reranking == "none":
        scores = score_rows(database, queries, truth)
    else:
        ranked = RERANKINGS[reranking](database).rank(queries, k=len(database))
        scores = score(ranked.positions, truth, distractors=len(benchmark.distractors))
    of_filter = _filter_said(recipe)
    learned_from = [name for name in of_filter.get("learned_from", "").split(", ") if name]
    said = manifest(
        truth,
        rows=made_by_recipe(recipe.to_toml(), recipe.fingerprint(), describer.weights_sha256),
        pictures=laboratory.pictures(benchmark),
        query_crop="box" if crop and any(box for _, box in benchmark.queries) else "whole picture",
        whitening=_whitening_said(learned, benchmark, laboratory),
        expansion=expansion,
        reranking=reranking,
        tuned_on=tuned_on,
        trained_on=(*trained_on, *(learned.trained_on if learned else ()), *learned_from),
        seconds=time.perf_counter() - started,
    )
    said["orientation"] = "upright" if upright else "as stored"
    said["device"] = str(describer.device)
    if of_filter:
        said["filter"] = of_filter
    said["distractors"] = (
        picture_set((path.stem, laboratory.digests.of(path)) for path in benchmark.distractors)
        if benchmark.distractors
        else "none"
    )
    said["ground_truth"] = os.path.basename(benchmark.truth_origin)  # a manifest names no folder
    said["incomplete"] = benchmark.report.summary() or "no"
    said["checksums"] = list(benchmark.report.checksums) or NOT_KNOWN
    return Result(Benchmark.of(truth, distractors=len(benchmark.distractors)), scores, said)


def _whitening_said(
    learned: Learned | None, benchmark: OpenedBenchmark, laboratory: Laboratory
) -> dict[str, Any] | str:
    """The whitening for a manifest, with how many of the pictures that it learned from it is scored on too."""
    if learned is None:
        return "none"
    scored = frozenset(map(laboratory.digests.of, benchmark.images))
    return {**learned.facts, "pictures_scored_too": len(learned.digests & scored) if learned.digests else NOT_KNOWN}


def _filter_said(recipe: Recipe) -> dict[str, str]:
    """Where the recipe's learned filter comes from, without what names folders; nothing where it has none."""
    if not recipe.cooccurrence.filter:
        return {}
    _, provenance = load_filter(recipe.cooccurrence.filter)
    return {key: value for key, value in provenance.items() if key not in ("recipe", "settings")}


def _provenance(describer: Describer, fitted_on: str) -> dict[str, str]:
    return {
        "row_fingerprint": describer.recipe.row_fingerprint(),
        "weights_sha256": describer.weights_sha256,
        "fitted_on": fitted_on,
    }


def _facts(whitening: Whitening, asked: int) -> dict[str, Any]:
    about = {key: value for key, value in whitening.provenance.items() if key not in ("made", "row_fingerprint")}
    fewer = {"dim_asked_for": asked} if asked > whitening.dim else {}
    return {**about, "dim": whitening.dim, **fewer}
