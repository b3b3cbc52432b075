"""What every kind of fault shares: chance, a folder, and how a finding ends the campaign."""

from __future__ import annotations

import random
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from faults.town import Town


class FindingError(Exception):
    """Something that must not happen has happened."""


def must(holds: object, what: str) -> None:
    """Ends the campaign unless something holds."""
    if not holds:
        raise FindingError(what)


@dataclass
class Ground:
    """Where a kind of fault is tried.

    Attributes:
        folder: for its files; stays where something was found.
        chance: the choices, which follow from the seed and the kind alone.
        recipe: a file with a quick recipe without whitening.
        whitened: the same recipe, with a whitening learned from the collection.
        kills: how many of them are wanted of this kind.
        tally: what happened, counted.
    """

    folder: Path
    chance: random.Random
    recipe: Path
    whitened: Path
    kills: int
    tally: Counter[str] = field(default_factory=Counter)

    def town(self, name: str = "photos") -> Town:
        """A new folder of pictures."""
        return Town(self.folder / name, self.chance)

    def count(self, **what: bool) -> None:
        """Adds to the tally; what did not happen is there with a 0."""
        for name, happened in what.items():
            self.tally[name] += happened

    @contextmanager
    def round(self) -> Iterator[Path]:
        """A folder for one try, which is taken away if all went well."""
        self.tally["rounds"] += 1
        place = self.folder / f"round{self.tally['rounds']}"
        place.mkdir()
        yield place
        shutil.rmtree(place)

    def say(self, what: str) -> None:
        """How far it is, on one line."""
        print(f"  {time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)
