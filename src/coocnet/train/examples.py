"""What a filter learns from: pictures in clusters, each cluster one thing, and which of them match."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Int

from coocnet.data.benchmarks.training import Training
from coocnet.data.images import unreadable
from coocnet.errors import TrainingError, printable
from coocnet.evaluate import Truth

_NAMED = 10
_FEWEST_CLUSTERS = 2


@dataclass(frozen=True)
class Examples:
    """Pictures with what they show.

    Attributes:
        paths: files.
        clusters: for each picture a number of the thing it shows.
        pairs: positions of matching pictures (m, 2); None where any two of a cluster match. With pairs given, other
            pictures of a cluster may show another side of it: they count neither way.
    """

    paths: tuple[str, ...]
    clusters: Int[np.ndarray, " n"]
    pairs: Int[np.ndarray, "m 2"] | None = None

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def queries(self) -> Int[np.ndarray, " q"]:
        """The pictures that have a match, by position."""
        if self.pairs is not None:
            asked: np.ndarray = np.unique(self.pairs[:, 0])
            return asked
        _, number, count = np.unique(self.clusters, return_inverse=True, return_counts=True)
        return np.flatnonzero(count[number] > 1)

    @property
    def things(self) -> int:
        """How many clusters there are."""
        return len(np.unique(self.clusters))

    @property
    def lonely(self) -> int:
        """Clusters of a single picture: they can only be what something else is not."""
        return int((np.unique(self.clusters, return_counts=True)[1] == 1).sum())

    def matches(self, picture: int) -> Int[np.ndarray, " p"]:
        """The pictures that match one, by position."""
        if self.pairs is not None:
            given: np.ndarray = self.pairs[self.pairs[:, 0] == picture, 1]
            return given
        same = self._members[int(self.clusters[picture])]
        others: np.ndarray = same[same != picture]
        return others

    def truths(self) -> Iterator[tuple[int, Truth]]:
        """Each query, and what it should find among all these pictures; itself is junk, and so is what may match."""
        for query in self.queries.tolist():
            right = frozenset(self.matches(query).tolist())
            same = self._members[int(self.clusters[query])].tolist() if self.pairs is not None else [query]
            yield query, Truth(right, frozenset(same) - right)

    def all_pairs(self, most: int, seed: int) -> Int[np.ndarray, "m 2"]:
        """Matching pairs by position, each once.

        Args:
            most: where there are more, about so many are drawn.
            seed: of the drawing.
        """
        random = np.random.default_rng(seed)
        if self.pairs is not None:
            some = np.sort(random.permutation(len(self.pairs))[:most])
            return self.pairs[some]
        groups = [group for group in self._members.values() if len(group) > 1]
        counts = np.array([len(group) * (len(group) - 1) // 2 for group in groups])
        if counts.sum() <= most:
            listed = [pair for group in groups for pair in itertools.combinations(group.tolist(), 2)]
        else:
            chosen = random.choice(len(groups), most, p=counts / counts.sum())
            drawn = (tuple(sorted(random.choice(groups[at], 2, replace=False).tolist())) for at in chosen)
            listed = sorted({*drawn})
        return np.array(sorted(listed), np.int64).reshape(-1, 2)

    @cached_property
    def _members(self) -> dict[int, Int[np.ndarray, " p"]]:
        order = np.argsort(self.clusters, kind="stable")
        numbers, first = np.unique(self.clusters[order], return_index=True)
        return dict(zip(numbers.tolist(), np.split(order, first[1:]), strict=True))

    def stamps(self) -> list[tuple[int, int]]:
        """Size and time of modification of every file."""
        found = [os.stat(path) for path in self.paths]
        return [(one.st_size, one.st_mtime_ns) for one in found]

    def part(self, kept: Int[np.ndarray, " k"]) -> Examples:
        """Some of the pictures, with the pairs among them."""
        place = np.full(len(self), -1)
        place[kept] = np.arange(len(kept))
        pairs = None
        if self.pairs is not None:
            pairs = place[self.pairs]
            pairs = pairs[(pairs >= 0).all(1)]
        return Examples(tuple(self.paths[at] for at in kept), self.clusters[kept], pairs)

    def need_learnable(self, what: str) -> None:
        """Refuses pictures that nothing can be learned from.

        Raises:
            TrainingError: files that are missing, or fewer than two things with two pictures each.
        """
        missing = [(path, reason) for path in self.paths if (reason := _not_readable(path))]
        if missing:
            named = "; ".join(f"{printable(path)}: {reason}" for path, reason in missing[:_NAMED])
            more = f"; and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
            raise TrainingError(f"{len(missing)} of {len(self)} pictures of {what} cannot be read: {named}{more}")
        useful = len(np.unique(self.clusters[self.queries]))
        if useful < _FEWEST_CLUSTERS or len(np.unique(self.clusters)) < _FEWEST_CLUSTERS:
            raise TrainingError(
                f"{what}: {useful} things with two pictures or more, {self.lonely} with a single one. To learn what "
                f"tells things apart takes at least {_FEWEST_CLUSTERS} things, with two pictures or more of each"
            )


def of_instances(listed: Sequence[Mapping[str, Sequence[str]]]) -> Examples:
    """The pictures of one or more collections by instance; the same name in two collections means two things.

    Args:
        listed: for each collection, the files of each instance by its name.

    Raises:
        TrainingError: a file that is listed twice.
    """
    paths: list[str] = []
    clusters: list[int] = []
    number = 0
    for collection in listed:
        for pictures in collection.values():
            paths += pictures
            clusters += [number] * len(pictures)
            number += 1
    if len({*paths}) < len(paths):
        twice = Counter(paths).most_common(1)[0][0]
        raise TrainingError(f"{printable(twice)} is listed twice, in two collections; a picture shows one thing")
    return Examples(tuple(paths), np.array(clusters, np.int64))


def of_training(training: Training) -> Examples:
    """A published training set.

    Raises:
        TrainingError: its list says no clusters.
    """
    pairs = training.pairs
    if not pairs.clusters:
        raise TrainingError("this training set does not say which pictures are of the same cluster")
    both = np.stack([np.array(pairs.queries, np.int64), np.array(pairs.positives, np.int64)], 1)
    return Examples(tuple(map(str, training.images)), np.array(pairs.clusters, np.int64), both)


def hold_out(
    examples: Examples, share: float, seed: int, *, at_least: int = _FEWEST_CLUSTERS
) -> tuple[Examples, Examples]:
    """Two parts without a thing in common: what is left, and what is held out.

    Args:
        examples: all.
        share: of the things with two pictures or more, to be held out; things of one picture are left.
        seed: of the drawing.
        at_least: things that are held out, whatever the share.

    Raises:
        TrainingError: too few things for two parts.
    """
    things = np.unique(examples.clusters[examples.queries])
    count = max(at_least, round(len(things) * share))
    if len(things) - count < _FEWEST_CLUSTERS:
        raise TrainingError(
            f"{len(things)} things with two pictures or more are too few: {count} are to be held out, and at least "
            f"{_FEWEST_CLUSTERS} to be left. Give more, or pictures of their own to choose by and for the gate "
            "(--validation, --gate)"
        )
    drawn = np.random.default_rng([seed, 0]).permutation(things)[:count]
    out = np.isin(examples.clusters, drawn)
    return examples.part(np.flatnonzero(~out)), examples.part(np.flatnonzero(out))


def _not_readable(path: str) -> str:
    try:
        os.stat(path)
    except OSError as error:
        return unreadable(error)
    return ""
