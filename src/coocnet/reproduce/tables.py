"""The paper's tables, row by row: made where that is possible with what is here, told why not where it is not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from coocnet.backbones import locate_weights
from coocnet.data.benchmarks import OpenedBenchmark, lookup
from coocnet.describe import Describer
from coocnet.errors import CoocnetError, InputError, WeightsError
from coocnet.evaluate import Result
from coocnet.fetch import Progress as DownloadProgress
from coocnet.recipe import Recipe
from coocnet.reproduce.experiment import Laboratory, Learned, evaluated, given_whitening, learned_on
from coocnet.reproduce.published import TABLES, Row, whitened_on
from coocnet.reproduce.tuned import is_tuned, tuned
from coocnet.reproduce.world import World

SCALED_DOWN_PX = 192
NEEDS_FILTER = "needs the learned filter: give one with --filter FILE"
"""Why a row, or a part of a figure, is missing where there is no filter."""


@dataclass(frozen=True)
class Change:
    """What is used in place of what the paper used; said in every report.

    Attributes:
        backbone: in place of VGG16, with the weights and the tap of its record, by ``Recipe`` fields; empty for none.
        size_px: a smaller limit of the longer side; None for the recipe's.
        whitening: where every whitening is learned, by the name of a benchmark or a training set, or "none"; None
            for where the paper learned it.
    """

    backbone: Recipe | None = None
    size_px: int | None = None
    whitening: str | None = None

    def of(self, recipe: Recipe) -> Recipe:
        """The recipe as it is run.

        Raises:
            InputError: the fine-tuned baseline with another network.
        """
        if self.backbone is not None:
            if is_tuned(recipe):
                raise InputError(
                    f"the fine-tuned baseline is a network of its own, {self.backbone.backbone} is another"
                )
            used = self.backbone
            recipe = recipe.replace(backbone=used.backbone, weights=used.weights, tap=used.tap)
        return recipe if self.size_px is None else recipe.replace(size_px=self.size_px)

    def __str__(self) -> str:
        network = f"{self.backbone.backbone} {self.backbone.tap} in place of VGG16" if self.backbone else ""
        size = f"longest side {self.size_px} px" if self.size_px else ""
        learned = "no whitening" if self.whitening == "none" else f"whitening learned on {self.whitening}"
        return "; ".join(part for part in (network, size, learned if self.whitening else "") if part)


@dataclass(frozen=True)
class Outcome:
    """One row of a table on one benchmark.

    Attributes:
        row: of the paper's table.
        benchmark: its name.
        result: what was measured; None where that was not possible.
        missing: the reason then.
    """

    row: Row
    benchmark: str
    result: Result | None
    missing: str = ""

    def measured(self, setup: str) -> float | None:
        """Our mAP in percent, or None."""
        scores = self.result.scores if self.result else ()
        interval = next((one.interval for one in scores if (one.setup, one.measure) == (setup, "map")), None)
        return None if interval is None else 100 * interval.mean


@dataclass
class Bench:
    """What runs the rows.

    Attributes:
        world: gives benchmarks.
        laboratory: keeps rows of pictures.
        results: the folder of result files; what is there already, of the same recipe and pictures, is not made anew.
        change: what is used in place of what the paper used.
        filter: the file of the learned filter, as :func:`~coocnet.reproduce.given_filter` gives it; None for none.
        device: see :class:`~coocnet.describe.Describer`.
        loaded: called with each network loaded, to tell of weights that nobody verified.
        downloading: called during a download of weights.
    """

    world: World
    laboratory: Laboratory
    results: Path
    change: Change
    filter: Path | None = None
    device: str | None = None
    loaded: Callable[[Describer], None] | None = None
    downloading: DownloadProgress | None = None
    _describer: Describer | None = None
    _last_learned: tuple[tuple[str, str, int, str], Learned] | None = None
    _failed: dict[tuple[str, str], WeightsError] = field(default_factory=dict)

    def table(self, name: str) -> Iterator[Outcome]:
        """Every row of a table on every benchmark, as they are made.

        Raises:
            InputError: no such table.
        """
        if name not in TABLES:
            raise InputError(f"tables of mAP are {', '.join(TABLES)}, got {name!r}")
        table = TABLES[name]
        for row in table.rows:
            for benchmark in dict.fromkeys(of for of, _ in table.columns):
                figures = [
                    value for (of, _), value in zip(table.columns, row.published, strict=True) if of == benchmark
                ]
                if any(value is not None for value in figures):
                    yield self.outcome(row, benchmark)

    def outcome(self, row: Row, benchmark: str) -> Outcome:
        """One row on one benchmark; what keeps it from being made is in the outcome."""
        try:
            return Outcome(row, benchmark, self._result(row, benchmark))
        except CoocnetError as error:
            return Outcome(row, benchmark, None, str(error).splitlines()[0])

    def with_filter(self, preset: Recipe) -> Recipe:
        """The preset as it is run, with the learned filter.

        Raises:
            RecipeError: the file is gone.
            InputError: there is none, or as :meth:`Change.of`.
        """
        if self.filter is None:
            raise InputError(NEEDS_FILTER)
        return self.change.of(preset).with_filter(self.filter).replace(name=f"{preset.name}-learned")

    def _result(self, row: Row, name: str) -> Result:
        recipe, own = self.with_filter(row.recipe) if row.learned else self.change.of(row.recipe), None
        benchmark = self.world.benchmark(name)
        if is_tuned(recipe):
            recipe, own = tuned(recipe, progress=self.downloading)
            own = own if self.change.whitening is None else None
        changed = [
            self.change.backbone.backbone if self.change.backbone else "",
            self.change.whitening or "",
            recipe.cooccurrence.filter_sha256[:12],
        ]
        target = self.results / f"{'--'.join(filter(None, (recipe.name, name, *changed)))}.json"
        source = "" if own is not None else self.change.whitening or whitened_on(row.recipe, name)
        held = self._held(target, recipe, benchmark, source)
        if held is not None:
            return held
        describer = self.describer(recipe)
        learned = given_whitening(describer, own) if own is not None else self._learned(describer, source)
        result = evaluated(benchmark, describer, self.laboratory, learned=learned)
        self.results.mkdir(parents=True, exist_ok=True)
        result.save(target)
        return result

    def _held(self, target: Path, recipe: Recipe, benchmark: OpenedBenchmark, source: str) -> Result | None:
        """What an earlier run made of the same recipe, weights, pictures, and pictures to whiten by."""
        if not target.is_file():
            return None
        try:
            result = Result.load(target)
        except InputError:
            return None
        place = locate_weights(recipe.backbone, recipe.weights)
        rows, whitening = result.manifest.get("rows", {}), result.manifest.get("whitening", {})
        same = (
            rows.get("fingerprint") == recipe.fingerprint()
            and (place is None or rows.get("weights_sha256") == place.sha256)
            and result.benchmark.sha256 == benchmark.ground_truth.digest()
            and result.manifest.get("pictures") == self.laboratory.pictures(benchmark)
            and self._same_whitening(whitening, source)
        )
        return result if same else None

    def _same_whitening(self, said: object, source: str) -> bool:
        """Whether a manifest's whitening was learned on what is here now; what is gone since is taken at its word."""
        if source in ("", "none") or not isinstance(said, dict):
            return source != "none" or said == "none"
        if lookup(source).kind == "training":
            return said.get("fitted_on") == source
        try:
            here = self.laboratory.pictures(self.world.benchmark(source))
        except CoocnetError:
            here = said.get("picture_set", {})
        return said.get("fitted_on") == source and said.get("picture_set") == here

    def _learned(self, describer: Describer, source: str) -> Learned | None:
        if source == "none":
            return None
        key = describer.recipe.row_fingerprint(), describer.weights_sha256, describer.recipe.dim, source
        if self._last_learned is None or self._last_learned[0] != key:
            self._last_learned = key, learned_on(describer, source, self.world, self.laboratory)
        return self._last_learned[1]

    def describer(self, recipe: Recipe) -> Describer:
        """A describer of the recipe; the last one is kept, and what could not be loaded is not tried again.

        Raises:
            WeightsError: the weights are missing or damaged.
            FilterError: the recipe's learned filter cannot be used.
        """
        key = recipe.backbone, recipe.weights
        if key in self._failed:
            raise self._failed[key]
        if self._describer is None or self._describer.recipe != recipe:
            try:
                self._describer = Describer(recipe, device=self.device, engine="float32", progress=self.downloading)
            except WeightsError as error:
                self._failed[key] = error
                raise
            if self.loaded:
                self.loaded(self._describer)
        return self._describer
