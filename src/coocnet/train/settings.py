"""How a filter is trained: the only home of these defaults."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass
from typing import Any

from coocnet.errors import InputError
from coocnet.nn import FILTERS

LOSSES = ("contrastive", "triplet", "softmax", "ap")
"""The losses by name; see :attr:`Settings.loss`."""
WHOLE_BATCH = ("softmax", "ap")
"""The losses that look at all pictures of a step at once."""
PRECISIONS = ("float32", "bfloat16")

_WHOLE: dict[str, tuple[int, int]] = {
    "rank": (1, 4096),
    "epochs": (0, 10**6),
    "patience": (0, 10**6),
    "queries_per_epoch": (1, 10**9),
    "pool_size": (2, 10**9),
    "matches": (1, 10**4),
    "tuples_per_step": (1, 10**5),
    "warmup_steps": (0, 10**9),
    "whitened_dim": (0, 10**6),
    "seed": (0, 2**32 - 1),
}
_NUMBERS: dict[str, tuple[float, float]] = {
    "margin": (1e-6, 4.0),
    "temperature": (1e-6, 10.0),
    "learning_rate": (0.0, 10.0),
    "pull": (0.0, 10**6),
    "clip": (1e-9, 10**9),
    "held_out": (0.0, 0.9),
}


@dataclass(frozen=True)
class Settings:
    """How a filter is trained; the defaults are what gained the most on development sets.

    Attributes:
        kind: of the filter, one of ``coocnet.nn.FILTERS``.
        rank: components of a factorised filter.
        loss: "contrastive" (the paper's), "triplet", "softmax", or "ap" for a listwise one that is average precision
            itself. The first two look at the negatives of a query's own tuple, the others at all of the step.
        margin: τ of the contrastive and the triplet loss.
        temperature: T of the losses "softmax" and "ap".
        epochs: at most; the best by the held-out mAP is kept.
        patience: epochs without a better one after which training ends; 0 to go on to the last.
        queries_per_epoch: pictures that are drawn as queries, at most.
        pool_size: pictures that are drawn to look for hard negatives in, at most.
        matches: pictures that match each query, at most.
        negatives: hard negatives of each query, no two of one cluster; None for 5 with the first two losses, which
            need some, and none with the others.
        tuples_per_step: queries with their matches and negatives that one step of the optimiser is made of.
        memory: the last two losses also see the rows of the whole pool, as they were when the epoch began, as wrong
            ones of what is of another cluster.
        learning_rate: of Adam, at its highest.
        warmup_steps: over which it rises from 0; then it falls to 0 along half a cosine.
        pull: of the weights towards the direct filter, as decoupled weight decay is towards 0.
        clip: the gradient's norm is cut to this.
        whitened_dim: the loss sees rows whitened to so many dimensions, by a PCA on the rows of the direct filter
            that stays as it is; 0 for the rows themselves.
        precision: "float32", or "bfloat16" for the filter's products.
        held_out: share of the things that is left out of training, half to choose the epoch by and half for the gate,
            where no pictures of their own are given for these.
        seed: of everything that is drawn.
    """

    kind: str = "factorised"
    rank: int = 1
    loss: str = "softmax"
    margin: float = 0.85
    temperature: float = 0.1
    epochs: int = 4
    patience: int = 0
    queries_per_epoch: int = 600
    pool_size: int = 5000
    matches: int = 2
    negatives: int | None = None
    tuples_per_step: int = 24
    memory: bool = True
    learning_rate: float = 5e-2
    warmup_steps: int = 10
    pull: float = 0.0
    clip: float = 1.0
    whitened_dim: int = 512
    precision: str = "float32"
    held_out: float = 0.3
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuses what cannot be, with the field and its value."""
        for name, choices in (("kind", FILTERS), ("loss", LOSSES), ("precision", PRECISIONS)):
            if getattr(self, name) not in choices:
                raise InputError(f"{name} is one of {', '.join(choices)}, got {getattr(self, name)!r}")
        if not isinstance(self.memory, bool):
            raise InputError(f"memory is true or false, got {self.memory!r}")
        fewest = 0 if self.loss in WHOLE_BATCH else 1
        if self.negatives is not None and not _is_whole(self.negatives, fewest, 10**4):
            raise InputError(
                f"negatives is a whole number from {fewest} to {10**4} with the loss {self.loss!r}, "
                f"got {self.negatives!r}"
            )
        for name, (least, most) in _WHOLE.items():
            value = getattr(self, name)
            if not _is_whole(value, least, most):
                raise InputError(f"{name} is a whole number from {least} to {most}, got {value!r}")
        for name, (low, high) in _NUMBERS.items():
            value = getattr(self, name)
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if not is_number or not math.isfinite(value) or not low <= value <= high:
                raise InputError(f"{name} is a number from {low:g} to {high:g}, got {value!r}")

    @property
    def mined(self) -> int:
        """How many hard negatives each query has."""
        if self.negatives is not None:
            return self.negatives
        return 0 if self.loss in WHOLE_BATCH else 5

    def learning_rate_at(self, step: int, steps: int) -> float:
        """The rate at a step: a straight rise, over half of the steps at most; then half a cosine down to 0.

        Args:
            step: its number, from 0 on.
            steps: of the whole training.
        """
        rise = min(self.warmup_steps, steps // 2)
        if step < rise:
            return self.learning_rate * (step + 1) / rise
        beyond = (step - rise) / max(1, steps - rise)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, beyond)))

    def table(self) -> dict[str, Any]:
        """All of it, by name."""
        return dataclasses.asdict(self)


def _is_whole(value: object, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def digest_of(*tables: object) -> str:
    """Names what was given, which is to be JSON: 16 hexadecimal digits."""
    return hashlib.sha256(json.dumps(tables, sort_keys=True).encode()).hexdigest()[:16]
