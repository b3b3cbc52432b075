"""Trains the network inside the package: it learns from its teachers' maps and rows, and to know a view again.

    python training/distil.py DATA TARGETS RUN [--steps 10000] [--after RUN]

TARGETS is what ``teacher.py`` wrote of the pictures of DATA; RUN takes the checkpoint and the curve. Interrupted at
any moment, the same command goes on from the last checkpoint, and ends as it would have undisturbed.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from camera import photograph
from coocnet import ops
from coocnet.whitening import fit_pca
from optimiser import optimisers
from pictures import TrainingPicture, training_pictures
from student import Student
from teacher import HINTS, TARGETS, TEACHERS, passes_done, pictures_digest

_HINT_UNITS_FROM = 40
CHECKPOINT = "checkpoint.pt"
Used = list[torch.optim.Optimizer]
Training = dict[str, Any]
"""The settings and the curve of one, and those before it."""
Line = dict[str, float]
"""Of the curve: the step, the mean of each loss since the line before, and the seconds that took."""


@dataclass(frozen=True)
class Settings:
    """What decides a training, beside its inputs.

    Attributes:
        steps: of the optimiser.
        passes: views of each picture that are used, of those that the teachers have seen.
        pairs: of views in a step; the batch has twice as many views.
        rate: the highest learning rate of AdamW, after ``rise`` steps; it falls to 0 by a cosine.
        trunk_rate: that of Muon.
        decay: of the weights of convolutions and heads.
        camera: the share of views that a camera does something to.
        hint_weight: of the loss of each hint, against 1 for the cells.
        row_dim: dimensions of the teachers' whitened rows that are learned.
        row_shrinkage: of that whitening; see ``fit_pca``.
        row_weight: of the loss of the rows, against 1 for the cells.
        pair_weight: of the loss by which views of one thing are told from others.
        temperature: of that loss.
        embedding_dim: dimensions of the rows it compares.
        seed: of the first weights, the order, and the camera.
    """

    steps: int = 10_000
    passes: int = 6
    pairs: int = 12
    rate: float = 2e-3
    rise: int = 200
    trunk_rate: float = 0.03
    decay: float = 0.02
    camera: float = 0.7
    hint_weight: float = 0.5
    row_dim: int = 256
    row_shrinkage: float = 0.5
    row_weight: float = 1.0
    pair_weight: float = 0.25
    temperature: float = 0.07
    embedding_dim: int = 256
    seed: int = 0


class Targets:
    """What the teachers said of every view, read where it lies.

    Attributes:
        pictures: of which they are.
        facts: as the folder's ``targets.json`` has them.

    Raises:
        SystemExit: the folder has targets of other pictures, or fewer passes than the settings ask for.
    """

    def __init__(self, folder: Path, pictures: list[TrainingPicture], settings: Settings) -> None:
        self.pictures = pictures
        self.facts: dict[str, Any] = json.loads((folder / TARGETS).read_text())
        if self.facts["pictures"] != pictures_digest(pictures):
            raise SystemExit(f"{folder} has targets of other pictures than those given")
        done = passes_done(folder, len(pictures))
        if not 2 <= settings.passes <= len(done):
            raise SystemExit(f"a training of {settings.passes} passes takes 2 or more, and {folder} has {len(done)}")
        self._passes = [
            {file.stem: np.load(file, mmap_mode="r") for file in place.glob("*.npy")}
            for place in done[: settings.passes]
        ]
        self._hint_units = []
        for hint in HINTS:
            some = torch.from_numpy(self._passes[0][hint.file][::_HINT_UNITS_FROM].astype(np.float32)).flatten(0, 2)
            self._hint_units.append((some.mean(0), some.std(0)))
        self.scales, self._rows = list[Tensor](), list[Tensor]()
        for teacher in TEACHERS:
            axes = torch.load(folder / f"{teacher.backbone}-axes.pt", weights_only=True)
            scale = axes["variances"] ** -0.25
            # In these units a cell has a squared length of 1 on average.
            self.scales.append(scale / (axes["variances"] * scale**2).sum().sqrt())
            rows = np.stack([part[f"{teacher.backbone}-rows"] for part in self._passes]).astype(np.float32)
            flat = rows.reshape(-1, teacher.channels)
            white = fit_pca(flat, dim=settings.row_dim, shrinkage=settings.row_shrinkage).apply(flat)
            self._rows.append(torch.from_numpy(white).reshape(*rows.shape[:2], -1))

    @property
    def passes(self) -> int:
        """Views of each picture."""
        return len(self._passes)

    def view(self, at: tuple[int, int]) -> np.ndarray:
        """The view of a picture in a pass."""
        picture, number = at
        return np.asarray(self._passes[number]["views"][picture])

    def cells(self, teacher: int, chosen: list[tuple[int, int]]) -> Tensor:
        """The cells of the views, (b, axes, h, w), in units in which their squared length is 1 on average."""
        name = f"{TEACHERS[teacher].backbone}-cells"
        found = np.stack([self._passes[number][name][picture] for picture, number in chosen])
        scaled: Tensor = torch.from_numpy(found).float() * self.scales[teacher]
        return scaled.permute(0, 3, 1, 2)

    def hint(self, number: int, chosen: list[tuple[int, int]]) -> Tensor:
        """A hint of the views, (b, channels, h, w), each channel of mean 0 and variance 1."""
        mean, deviation = self._hint_units[number]
        found = np.stack([self._passes[at][HINTS[number].file][picture] for picture, at in chosen])
        return ((torch.from_numpy(found).float() - mean) / deviation).permute(0, 3, 1, 2)

    def rows(self, teacher: int, chosen: list[tuple[int, int]]) -> Tensor:
        """The whitened rows of the views, (b, row_dim)."""
        return torch.stack([self._rows[teacher][number, picture] for picture, number in chosen])


@dataclass(frozen=True)
class Batch:
    """Views as a camera took them, and which picture and pass each is of."""

    pixels: Tensor
    chosen: list[tuple[int, int]]


class Order:
    """Which views a step takes, and what its camera does: decided by seed and step alone."""

    def __init__(self, targets: Targets, settings: Settings) -> None:
        self._targets, self._settings = targets, settings
        self._of_thing: dict[str, list[int]] = {}
        for at, picture in enumerate(targets.pictures):
            self._of_thing.setdefault(picture.thing or str(picture.path), []).append(at)
        names = list(self._of_thing)
        self._alike = np.array([names.index(p.thing or str(p.path)) for p in targets.pictures])
        self._untold = np.array([p.untold for p in targets.pictures])

    def batch(self, step: int) -> Batch:
        """The batch of a step."""
        s = self._settings
        count = len(self._targets.pictures)
        places = range(step * s.pairs, (step + 1) * s.pairs)
        drawn = [self._shuffled(place // count)[place % count] for place in places]
        random = np.random.default_rng([s.seed, 1, step])
        chosen = []
        for picture in map(int, drawn):
            one, two = (int(n) for n in random.permutation(self._targets.passes)[:2])
            thing = self._of_thing[self._targets.pictures[picture].thing or str(self._targets.pictures[picture].path)]
            other = int(random.choice(thing))
            chosen += [(picture, one), (other, two)]
        views = [self._targets.view(at) for at in chosen]
        pixels = np.stack([photograph(one, random) if random.random() < s.camera else one for one in views])
        return Batch(torch.from_numpy(pixels).permute(0, 3, 1, 2), chosen)

    def same_and_different(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Which views of a batch show one thing, and which show two; (b, b) each."""
        pictures = np.array([picture for picture, _ in batch.chosen])
        same = self._alike[pictures][:, None] == self._alike[pictures]
        untold = self._untold[pictures][:, None] & self._untold[pictures]
        return torch.from_numpy(same & ~np.eye(len(pictures), dtype=bool)), torch.from_numpy(~same & ~untold)

    def _shuffled(self, epoch: int) -> np.ndarray:
        return np.random.default_rng([self._settings.seed, 2, int(epoch)]).permutation(len(self._targets.pictures))


def losses(student: Student, batch: Batch, targets: Targets, order: Order, s: Settings) -> dict[str, Tensor]:
    """Every loss of a step by name; 1 for a student that knows nothing, but for that of the pairs."""
    told = student(batch.pixels.float() / 255)
    found = {}
    for number, hint in enumerate(told.hints):
        found[f"hint {number}"] = (hint - targets.hint(number, batch.chosen)).square().mean()
    for number, teacher in enumerate(TEACHERS):
        wanted = targets.cells(number, batch.chosen)
        found[f"cells {teacher.backbone}"] = (told.cells[number] - wanted).square().sum(1).mean()
        found[f"rows {teacher.backbone}"] = 1 - (told.rows[number] * targets.rows(number, batch.chosen)).sum(1).mean()
    same, different = order.same_and_different(batch)
    every = torch.arange(len(told.embedded))
    found["pairs"] = ops.softmax_loss(told.embedded, every, same, different, temperature=s.temperature)
    return found


def total(found: dict[str, Tensor], s: Settings) -> Tensor:
    """The losses of a step, weighed and added."""
    weights = {"hint": s.hint_weight, "cells": 1.0, "rows": s.row_weight, "pairs": s.pair_weight}
    return torch.stack([weights[name.split()[0]] * loss for name, loss in found.items()]).sum()


def share_at(step: int, s: Settings) -> float:
    """The learning rate of a step, as a share of the highest."""
    return min(1, (step + 1) / s.rise) * (1 + math.cos(math.pi * step / s.steps)) / 2


def train(targets: Targets, run: Path, s: Settings, *, after: Path | None = None, every: int = 250) -> Student:
    """Trains from the last checkpoint of RUN on, else from the end of an earlier training, else from nothing.

    Args:
        targets: what the teachers said.
        run: takes the checkpoint.
        s: the settings.
        after: the folder of an earlier training.
        every: steps from one checkpoint to the next.

    Raises:
        SystemExit: RUN holds a training of other settings, of other targets, or after another.
    """
    run.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(s.seed)
    student = Student(s.row_dim, s.embedding_dim)
    student.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    used = optimisers(student, rate=s.rate, trunk_rate=s.trunk_rate, decay=s.decay)
    order = Order(targets, s)
    story = {"settings": asdict(s), "targets": targets.facts, "earlier": _earlier(after, student) if after else []}
    curve = _resumed(run, student, used, story)
    step = int(curve[-1]["step"]) if curve else 0
    student.train()
    sums: dict[str, float] = {}
    started = time.perf_counter()
    with ThreadPoolExecutor(1) as ahead:
        coming = ahead.submit(order.batch, step)
        while step < s.steps:
            batch = coming.result()
            coming = ahead.submit(order.batch, step + 1)
            for optimiser, rate in zip(used, (s.trunk_rate, s.rate), strict=True):
                optimiser.zero_grad()
                for group in optimiser.param_groups:
                    group["lr"] = rate * share_at(step, s)
            found = losses(student, batch, targets, order, s)
            total(found, s).backward()  # type: ignore[no-untyped-call]
            for optimiser in used:
                optimiser.step()
            step += 1
            for name, loss in found.items():
                sums[name] = sums.get(name, 0.0) + loss.item()
            if step % every == 0 or step == s.steps:
                means = {name: round(value / ((step - 1) % every + 1), 4) for name, value in sums.items()}
                curve.append({"step": step, **means, "seconds": round(time.perf_counter() - started, 1)})
                print(json.dumps(curve[-1]), flush=True)
                _keep(run, student, used, {**story, "curve": curve})
                sums, started = {}, time.perf_counter()
    return student


def _earlier(run: Path, student: Student) -> list[Training]:
    """Takes the weights that a training ended with; gives what led to them."""
    content = torch.load(run / CHECKPOINT, weights_only=True)
    student.load_state_dict(content["student"])
    return [*content["earlier"], {name: content[name] for name in ("settings", "targets", "curve")}]


def _keep(run: Path, student: Student, used: Used, training: Training) -> None:
    content = {
        "student": student.state_dict(),
        "optimisers": [optimiser.state_dict() for optimiser in used],
        **training,
    }
    torch.save(content, run / "unfinished.pt")
    os.replace(run / "unfinished.pt", run / CHECKPOINT)


def _resumed(run: Path, student: Student, used: Used, story: Training) -> list[Line]:
    """Takes up the last checkpoint of the same story, if there is one; gives the curve so far."""
    if not (run / CHECKPOINT).exists():
        return []
    content = torch.load(run / CHECKPOINT, weights_only=True)
    for name, value in story.items():
        if content[name] != value:
            told = "after another (see --after)" if name == "earlier" else f"of other {name}, {content[name]}"
            raise SystemExit(f"{run} holds a training {told}: give another folder")
    student.load_state_dict(content["student"])
    for optimiser, state in zip(used, content["optimisers"], strict=True):
        optimiser.load_state_dict(state)
    curve: list[Line] = content["curve"]
    return curve


def main() -> None:
    """Reads the targets and trains."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("targets", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--after", type=Path, help="the folder of an earlier training, to start from its weights")
    for name, value in asdict(Settings()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    given = vars(parser.parse_args())
    settings = Settings(**{name: given[name] for name in asdict(Settings())})
    targets = Targets(given["targets"], training_pictures(given["data"] / "images"), settings)
    train(targets, given["run"], settings, after=given["after"])


if __name__ == "__main__":
    main()
