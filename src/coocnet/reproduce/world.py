"""Where benchmarks come from: the published ones, or small rendered ones that go through the same steps."""

from __future__ import annotations

import itertools
import os
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from coocnet.data.benchmarks import (
    BENCHMARKS,
    OpenedBenchmark,
    Progress,
    Report,
    Training,
    TrainingPairs,
    data_folder,
    lookup,
    open_benchmark,
    open_training,
)
from coocnet.data.scenes import View, make_scenes
from coocnet.errors import BenchmarkError, CoocnetError
from coocnet.evaluate import SETUPS, GroundTruth, Query

_INSTANCES, _VIEWS, _SCENE_PX = 6, 4, 192
_SEEDS = {"oxford": 1, "paris": 2, "holidays": 3, "pairs": 4}


class World(Protocol):
    """Gives benchmarks and training sets by name; asked again, the same ones, or the same error."""

    def benchmark(self, name: str) -> OpenedBenchmark:
        """A benchmark of the table, ready to be described."""
        ...

    def training(self, name: str) -> Training:
        """The pairs of a training set that a whitening is learned from."""
        ...


@dataclass
class Published:
    """The benchmarks as published, downloaded or where the user has them; what is missing of one is left out.

    Attributes:
        place: the data folder.
        existing: folders with a benchmark's pictures, by its name.
        download: False to use only what is here.
        allow_missing: False refuses a benchmark that is not complete.
        progress: as in :func:`~coocnet.data.benchmarks.open_benchmark`.
    """

    place: str | os.PathLike[str] | None = None
    existing: Mapping[str, str] = field(default_factory=dict)
    download: bool = True
    allow_missing: bool = True
    progress: Progress | None = None
    _opened: dict[str, OpenedBenchmark | Training | CoocnetError] = field(default_factory=dict)

    def benchmark(self, name: str, *, distractors: bool = False) -> OpenedBenchmark:
        """See :class:`World`; with ``distractors`` the million of revisitop1m are added.

        Raises:
            BenchmarkError: it is not here, or nothing is left of it.
            FetchError: it cannot be downloaded.
        """
        found = self._once(name)
        assert isinstance(found, OpenedBenchmark)
        if distractors:
            found = open_benchmark(
                name,
                place=self.place,
                existing=self.existing.get(name),
                distractors=self.existing.get("revisitop1m", True),
                download=False,
                allow_missing=self.allow_missing,
                progress=self.progress,
            )
        return found

    def training(self, name: str) -> Training:
        """See :class:`World`; raises as :meth:`benchmark`."""
        found = self._once(name)
        assert isinstance(found, Training)
        return found

    def _once(self, name: str) -> OpenedBenchmark | Training:
        if name not in self._opened:
            try:
                self._opened[name] = self._open(name)
            except CoocnetError as error:
                self._opened[name] = error
        found = self._opened[name]
        if isinstance(found, CoocnetError):
            raise found
        return found

    def _open(self, name: str) -> OpenedBenchmark | Training:
        existing, place = self.existing.get(name), self.place
        if lookup(name).kind == "training":
            return open_training(
                name, split="whiten", place=place, existing=existing, download=self.download, progress=self.progress
            )
        opened = open_benchmark(
            name,
            place=place,
            existing=existing,
            download=self.download,
            allow_missing=self.allow_missing,
            progress=self.progress,
        )
        if not opened.queries or not opened.images:
            raise BenchmarkError(f"of {name} there are no queries or no pictures here")
        return opened


class Rendered:
    """Small rendered collections with the names, labels and setups of the published ones: the chain, scaled down.

    What they give says that the chain works, nothing about the paper.
    """

    def __init__(self, place: str | os.PathLike[str] | None = None) -> None:
        self._folder = data_folder(place) / "scaled-down"
        self._made: dict[str, list[View]] = {}

    def benchmark(self, name: str) -> OpenedBenchmark:
        """See :class:`World`."""
        source = BENCHMARKS[name]
        collection = next(key for key in _SEEDS if key in name)
        views = self._views(collection)
        database = [view for view in views if view.role == "database"]
        instance_of = [view.instance for view in database]
        revisited = source.kind == "revisited"
        queries = []
        for view in (view for view in views if view.role == "query"):
            right = [place for place, instance in enumerate(instance_of) if instance == view.instance]
            half = len(right) // 2
            labels = {"easy": frozenset(right[:half]), "hard": frozenset(right[half:])}
            queries.append(Query(view.path, view.box, labels if revisited else {"ok": frozenset(right)}))
        labelling = "revisited" if revisited else "plain"
        assert labelling in SETUPS
        truth = GroundTruth(name, labelling, tuple(view.path for view in database), tuple(queries), source.measures)
        folder = self._folder / collection
        return OpenedBenchmark(
            replace(source, images=len(database), queries=len(queries)),
            truth,
            [folder / view.path for view in database],
            [(folder / query.image, query.box) for query in queries],
            Report(len(views)),
            "rendered by coocnet, scaled down",
        )

    def training(self, name: str) -> Training:
        """See :class:`World`."""
        del name
        views = self._views("pairs")
        showing: dict[int, list[int]] = defaultdict(list)
        for place, view in enumerate(views):
            showing[view.instance].append(place)
        pairs = [pair for places in showing.values() for pair in itertools.combinations(places, 2)]
        queries, positives = zip(*pairs, strict=True)
        names = tuple(view.path for view in views)
        folder = self._folder / "pairs"
        return Training(
            TrainingPairs(names, tuple(view.instance for view in views), queries, positives),
            [folder / view.path for view in views],
        )

    def _views(self, collection: str) -> list[View]:
        if collection not in self._made:
            folder = self._folder / collection
            self._made[collection] = make_scenes(
                folder, instances=_INSTANCES, views=_VIEWS, seed=_SEEDS[collection], size_px=_SCENE_PX
            )
        return self._made[collection]
