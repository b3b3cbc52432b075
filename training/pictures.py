"""The pictures that the network is trained on, those it is chosen by, and the views that are taken of them."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from coocnet.data.images import content_digest, decode, read_bytes
from coocnet.data.scenes import Random, perspective
from coocnet.data.views import view_of

VIEW_PX = 256
_READ_PX = 512
_IN_CLUTTER = 0.2
_BORDER = 0.15
_OWN_SCALE_FROM = 4
_LEAST_SIDE_PX = 180
_FIRST_DEVELOPMENT_OBJECT = 100
_FIRST_DEVELOPMENT_COVER = 68


@dataclass(frozen=True)
class TrainingPicture:
    """A picture to train on.

    Attributes:
        path: the file.
        thing: what it shows, where that is known; "" otherwise.
        untold: whether it may show the same thing as others that are untold, so that none is held to differ.
    """

    path: Path
    thing: str = ""
    untold: bool = False


def training_pictures(images: Path) -> list[TrainingPicture]:
    """All that may be trained on, in a fixed order, without the things that the network is chosen by.

    Raises:
        SystemExit: a folder has no pictures.
    """
    listed = [TrainingPicture(path) for name in ("unlabelled", "scenes") for path in _jpegs(images / name)]
    listed += [TrainingPicture(path, untold=True) for path in _jpegs(images / "porto" / "train")]
    for folder, column in (("ukbench", "object"), ("dvd_covers", "instance")):
        with (images / folder / "manifest.csv").open(newline="") as stream:
            for entry in csv.DictReader(stream):
                if not is_development(folder, entry[column]):
                    listed.append(TrainingPicture(images / folder / entry["path"], f"{folder} {entry[column]}"))
    return listed


def is_development(folder: str, thing: str) -> bool:
    """Whether a thing of UKBench or of the covers is held out, to choose by."""
    first = {"ukbench": _FIRST_DEVELOPMENT_OBJECT, "dvd_covers": _FIRST_DEVELOPMENT_COVER}[folder]
    return int(thing) >= first


def read(path: Path) -> Image.Image:
    """A picture, upright, its longer side at most 512 pixels."""
    return Image.fromarray(decode(read_bytes(path), path, size_px=_READ_PX).pixels)


def view(picture: TrainingPicture, number: int, others: list[TrainingPicture]) -> UInt8[np.ndarray, "256 256 3"]:
    """One view: a part of the picture, seen from a side; every fifth time before another picture instead.

    The first shows most of the picture, the next three a fifth of its area or more; those after that are hardly ever
    larger than the picture's own pixels, as a search sees them. The same picture, number and list of others give the
    same view.
    """
    content = read_bytes(picture.path)
    random = np.random.default_rng([number, *content_digest(content)])
    image = Image.fromarray(decode(content, picture.path, size_px=_READ_PX).pixels)
    if number and random.random() < _IN_CLUTTER:
        ground = read(others[int(random.integers(len(others)))].path).resize((VIEW_PX, VIEW_PX))
        return np.asarray(view_of(image, ground, random))
    shorter = min(image.size)
    if number < _OWN_SCALE_FROM:
        side_px = shorter * float(np.sqrt(random.uniform(0.2 if number else 0.7, 1)))
    else:
        side_px = float(np.exp(random.uniform(np.log(min(shorter, _LEAST_SIDE_PX)), np.log(shorter))))
    return np.asarray(_part(image, random, side_px))


def _part(image: Image.Image, random: Random, side_px: float) -> Image.Image:
    """A part of about this side, turned, tilted, stretched and mirrored a little; borders reflected."""
    wide, tall = image.size
    margin_x, margin_y = round(wide * _BORDER), round(tall * _BORDER)
    padded = np.pad(np.asarray(image), ((margin_y, margin_y), (margin_x, margin_x), (0, 0)), mode="reflect")
    stretch = np.exp(random.uniform(-0.25, 0.25))
    w, h = min(side_px * stretch, wide), min(side_px / stretch, tall)
    x, y = random.uniform(0, wide - w) + margin_x, random.uniform(0, tall - h) + margin_y
    flat = np.array([(0.0, 0.0), (1, 0), (1, 1), (0, 1)]) - 0.5
    angle = random.normal(0, 0.08)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    corners = (flat * (1 - random.uniform(0, 0.2, (4, 2))) * (w, h)) @ turn.T + (x + w / 2, y + h / 2)
    if random.random() < 0.5:
        corners = corners[[1, 0, 3, 2]]
    # Drawn at twice the size and halved, so that a large part is not read at too few of its pixels.
    size = (2 * VIEW_PX, 2 * VIEW_PX)
    frame = np.array([(0.0, 0.0), (size[0], 0), size, (0, size[1])])
    coefficients = _between(frame, corners)
    drawn = Image.fromarray(padded).transform(
        size, Image.Transform.PERSPECTIVE, coefficients, Image.Resampling.BICUBIC
    )
    return drawn.resize((VIEW_PX, VIEW_PX), Image.Resampling.BOX)


def _between(frame: np.ndarray, corners: np.ndarray) -> list[float]:
    """Coefficients from the frame to the picture's corners."""
    unit = (1, 1)
    to_frame = np.array([*perspective(frame, unit), 1]).reshape(3, 3)
    to_corners = np.array([*perspective(corners, unit), 1]).reshape(3, 3)
    both = np.linalg.inv(to_corners) @ to_frame
    return [float(c) for c in (both / both[2, 2]).flatten()[:8]]


def _jpegs(folder: Path) -> list[Path]:
    found = sorted(folder.rglob("*.jpg"))
    if not found:
        raise SystemExit(f"{folder} holds no .jpg: give the folder whose images/ has the folders of pictures.py")
    return found
