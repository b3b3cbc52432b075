"""What the teachers say of every view: their maps, turned to their main axes, and their pooled rows.

    python training/teacher.py DATA FOLDER [--passes 6]

DATA holds ``images/`` and is where the pictures come from; the teachers' weights are found as the command finds them
(``COOCNET_WEIGHTS``). FOLDER takes about 0.8 MB for each view. Every pass takes one more view of every picture; what
is there already is kept, so the work may be interrupted and goes on. FOLDER says in ``targets.json`` which pictures
and teachers it is of, and takes no others.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from coocnet import ops
from coocnet.backbones import load_backbone
from coocnet.backbones.loading import LoadedBackbone
from coocnet.data.images import content_digest, read_bytes
from coocnet.output import written_whole
from coocnet.poolings import POOLINGS
from coocnet.recipe import Recipe
from pictures import VIEW_PX, TrainingPicture, training_pictures, view

BATCH = 8
FLUSH_EVERY = 50
_AXES_FROM = 800
RECIPE = Recipe()
"""Whose pooling the network is trained for."""
TARGETS = "targets.json"


@dataclass(frozen=True)
class Hint:
    """What a teacher has in between, for the student's early layers to learn from.

    Attributes:
        before_layer: the convolution of MobileNetV2 whose input it is, the first of an inverted residual unit.
        cells: on each side.
        channels: of it.
        after_stage: of the student that is to know it; 0 is the stem, then its blocks.
    """

    before_layer: int
    cells: int
    channels: int
    after_stage: int

    @property
    def file(self) -> str:
        """Name of the file that holds it, without its suffix."""
        return f"hint{self.before_layer}"


HINTS_FROM = "mobilenetv2"
HINTS = (
    Hint(9, VIEW_PX // 4, 24, 0),
    Hint(18, VIEW_PX // 8, 32, 2),
    Hint(30, VIEW_PX // 16, 64, 4),
    Hint(39, VIEW_PX // 16, 96, 5),
)


@dataclass(frozen=True)
class Teacher:
    """A network to learn from.

    Attributes:
        backbone, tap: as the library names them.
        axes: dimensions of a cell that are kept.
        cells: of the map of a view, on each side.
        channels: of the map.
    """

    backbone: str
    tap: str
    axes: int
    cells: int
    channels: int


TEACHERS = (
    Teacher("resnet101v2", "block3", 256, VIEW_PX // 16, 1024),
    Teacher("mobilenetv2", "features", 192, VIEW_PX // 32, 1280),
)


class Said(NamedTuple):
    """What a teacher says of views: maps (b, d, h, w), unit rows (b, d), and hints by their files; float32."""

    maps: Tensor
    rows: Tensor
    hints: dict[str, Tensor]


class Eye:
    """A teacher at work."""

    def __init__(self, teacher: Teacher) -> None:
        self.teacher = teacher
        self._loaded: LoadedBackbone = load_backbone(teacher.backbone)
        weights = self._loaded.weights
        self._mean = torch.tensor(weights.mean)[:, None, None] * 255
        self._std = torch.tensor(weights.std)[:, None, None] * 255
        self._hints: dict[str, Tensor] = {}
        for hint in HINTS if teacher.backbone == HINTS_FROM else ():
            layer = self._loaded.trunk.get_submodule(f"layer{hint.before_layer}")
            layer.register_forward_pre_hook(partial(self._overhear, hint.file))

    def _overhear(self, name: str, _: nn.Module, given: tuple[Tensor, ...]) -> None:
        self._hints[name] = given[0].float()

    @property
    def weights_sha256(self) -> str:
        """Digest of its weights."""
        return self._loaded.place.sha256

    def see(self, pixels: np.ndarray) -> Said:
        """What it says of views (b, h, w, 3)."""
        x = torch.from_numpy(pixels).permute(0, 3, 1, 2).float()
        x = ((x - self._mean) / self._std).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            a = self._loaded.trunk(x, self.teacher.tap).float()
        return Said(a, ops.unit_rows(POOLINGS[RECIPE.pooling](a, RECIPE)), dict(self._hints))


def main() -> None:
    """Takes views, asks the teachers, writes what they say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--passes", type=int, default=6)
    given = parser.parse_args()
    pictures = training_pictures(given.data / "images")
    given.folder.mkdir(parents=True, exist_ok=True)
    eyes = [Eye(teacher) for teacher in TEACHERS]
    claim(given.folder, pictures, {eye.teacher.backbone: eye.weights_sha256 for eye in eyes})
    axes = [_axes(eye, pictures, given.folder) for eye in eyes]
    for number in range(given.passes):
        one_pass(number, eyes, axes, pictures, given.folder)


def claim(folder: Path, pictures: list[TrainingPicture], teachers: dict[str, str]) -> None:
    """Writes down of what a folder's targets are, before the first of them.

    Args:
        folder: takes the targets.
        pictures: of which they are.
        teachers: digests of their weights, by name.

    Raises:
        SystemExit: the folder has targets of other pictures, teachers or pooling.
    """
    file = folder / TARGETS
    note = {"pictures": pictures_digest(pictures), "row_fingerprint": RECIPE.row_fingerprint(), "teachers": teachers}
    if file.exists():
        there = json.loads(file.read_text())
        differing = [name for name, value in note.items() if there.get(name) != value]
        if differing:
            raise SystemExit(f"{folder} has targets of other {', '.join(differing)}: give another folder")
        return
    _write(file, json.dumps(note, indent=2))


def pictures_digest(pictures: list[TrainingPicture]) -> str:
    """Digest of the pictures' contents, in their order."""
    digest = hashlib.sha256()
    for one in pictures:
        digest.update(content_digest(read_bytes(one.path)))
    return digest.hexdigest()


def passes_done(folder: Path, pictures: int) -> list[Path]:
    """The folders of the passes that are complete, in their order."""
    places = sorted(folder.glob("pass*"), key=lambda place: int(place.name.removeprefix("pass")))
    return [place for place in places if _done(place) == pictures]


def one_pass(
    number: int, eyes: list[Eye], axes: list[dict[str, Tensor]], pictures: list[TrainingPicture], folder: Path
) -> None:
    """Takes one view of every picture and writes what the teachers say, from where it was interrupted."""
    place = folder / f"pass{number}"
    place.mkdir(exist_ok=True)
    count = len(pictures)
    arrays = {"views": _array(place / "views.npy", (count, VIEW_PX, VIEW_PX, 3), np.uint8)}
    for name, shape in _shapes().items():
        arrays[name] = _array(place / f"{name}.npy", (count, *shape), np.float16)
    done = _done(place)
    started, first = time.perf_counter(), done
    while done < count:
        chosen = range(done, min(done + BATCH, count))
        pixels = np.stack([view(pictures[at], number, pictures) for at in chosen])
        arrays["views"][chosen] = pixels
        for eye, turned in zip(eyes, axes, strict=True):
            said, name = eye.see(pixels), eye.teacher.backbone
            cells = torch.einsum("bdhw,kd->bhwk", said.maps - turned["mean"][:, None, None], turned["axes"])
            arrays[f"{name}-cells"][chosen] = cells.half().numpy()
            arrays[f"{name}-rows"][chosen] = said.rows.half().numpy()
            for file, hint in said.hints.items():
                arrays[file][chosen] = hint.permute(0, 2, 3, 1).half().numpy()
        done = chosen[-1] + 1
        if done == count or done % (FLUSH_EVERY * BATCH) == 0:
            for array in arrays.values():
                array.flush()
            _write(place / "done.txt", str(done))
            rate = (done - first) / (time.perf_counter() - started)
            print(f"pass {number}: {done} of {count} views, {rate:.1f} a second", flush=True)


def _done(place: Path) -> int:
    file = place / "done.txt"
    return int(file.read_text()) if file.exists() else 0


def _write(file: Path, text: str) -> None:
    with written_whole(file) as unfinished:
        Path(unfinished).write_text(text)


def _shapes() -> dict[str, tuple[int, ...]]:
    """What is kept of each view, by file."""
    shapes: dict[str, tuple[int, ...]] = {hint.file: (hint.cells, hint.cells, hint.channels) for hint in HINTS}
    for t in TEACHERS:
        shapes[f"{t.backbone}-cells"] = (t.cells, t.cells, t.axes)
        shapes[f"{t.backbone}-rows"] = (t.channels,)
    return shapes


def _axes(eye: Eye, pictures: list[TrainingPicture], folder: Path) -> dict[str, Tensor]:
    """The main axes of a teacher's cells: mean (d,), axes (k, d) and variances (k,)."""
    t = eye.teacher
    file = folder / f"{t.backbone}-axes.pt"
    if not file.exists():
        count, total, product = 0, torch.zeros(t.channels, dtype=torch.float64), torch.zeros(1)
        drawn = np.random.default_rng(0).permutation(len(pictures))[:_AXES_FROM]
        for start in range(0, len(drawn), BATCH):
            pixels = np.stack([view(pictures[at], 0, pictures) for at in drawn[start : start + BATCH]])
            cells = eye.see(pixels).maps.permute(0, 2, 3, 1).flatten(0, 2)
            total += cells.double().sum(0)
            product = product + (cells.T @ cells).double()
            count += len(cells)
        mean = total / count
        values, vectors = torch.linalg.eigh(product / count - torch.outer(mean, mean))
        kept = vectors.flip(1)[:, : t.axes].T.contiguous().float()
        content = {"mean": mean.float(), "axes": kept, "variances": values.flip(0)[: t.axes].float()}
        content["all_variance"] = values.sum()[None].float()
        with written_whole(file) as unfinished:
            torch.save(content, unfinished)
    loaded: dict[str, Tensor] = torch.load(file, weights_only=True)
    return loaded


def _array(file: Path, shape: tuple[int, ...], dtype: type) -> np.memmap:
    if file.exists():
        there: np.memmap = np.load(file, mmap_mode="r+")
        return there
    made: np.memmap = np.lib.format.open_memmap(file, mode="w+", dtype=dtype, shape=shape)  # type: ignore[no-untyped-call]
    return made


if __name__ == "__main__":
    main()
