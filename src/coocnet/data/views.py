"""Synthetic photographs of pictures: each as if photographed anew, before other things, by a poor camera.

Pictures without labels become things with several pictures each, to learn on what stays the same.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from coocnet.data.images import content_digest, decode, read_bytes
from coocnet.data.scenes import Random, perspective, photographed
from coocnet.errors import ImageError, InputError, printable
from coocnet.output import written_whole

Path_ = str | os.PathLike[str]

_NOTE = "views.json"
_LEAST_SHARE = 0.6
_GLARE = 0.3


def make_views(
    paths: Sequence[str | os.PathLike[str]],
    folder: str | os.PathLike[str],
    *,
    views: int,
    size_px: int = 512,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> list[ImageError]:
    """Writes a folder for every picture, with the picture itself and synthetic photographs of it.

    A folder is named by the picture's content. What is there already is left as it is, so the work may be
    interrupted and goes on, with more views or more pictures too. The same seed and the same pictures make the same
    photographs.

    Args:
        paths: pictures; the others serve as background of each.
        folder: made if it is not there.
        views: photographs of each, ≥ 1.
        size_px: longer side of them.
        seed: another seed, other photographs.
        progress: called with pictures done and pictures in all.

    Returns:
        Pictures that could not be read; they were left out.

    Raises:
        InputError: less than one view, sides below 64 pixels, a folder that cannot be written, or one with views of
            another seed or size.
    """
    if views < 1 or size_px < 64:
        raise InputError(f"at least 1 view and 64 pixels, got {views} views, {size_px} pixels")
    _note(Path(folder), {"seed": seed, "size_px": size_px})
    skipped: list[ImageError] = []
    for done, path in enumerate(paths, start=1):
        try:
            _make_one(path, paths, Path(folder), views=views, size_px=size_px, seed=seed)
        except ImageError as error:
            skipped.append(error)
        if progress:
            progress(done, len(paths))
    return skipped


def _make_one(path: Path_, paths: Sequence[Path_], folder: Path, *, views: int, size_px: int, seed: int) -> None:
    content = read_bytes(path)
    digest = content_digest(content)
    place = folder / digest.hex()
    targets = [place / "picture.jpg", *(place / f"view{view}.jpg" for view in range(views))]
    if all(target.is_file() for target in targets):
        return
    image = Image.fromarray(decode(content, path, size_px=size_px).pixels)
    _make_folder(place)
    for number, target in enumerate(targets):
        if not target.is_file():
            random = np.random.default_rng([seed, number, *digest])
            made = view_of(image, _background(path, paths, random, size_px), random) if number else image
            with written_whole(target) as unfinished:
                made.save(unfinished, format="JPEG", quality=int(random.integers(55, 95)))


def _note(folder: Path, made_by: dict[str, int]) -> None:
    """Keeps what views are made by beside them, and refuses others."""
    _make_folder(folder)
    note = folder / _NOTE
    if not note.exists():
        with written_whole(note) as unfinished:
            Path(unfinished).write_text(json.dumps(made_by), encoding="utf-8")
    try:
        there = json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{printable(note)} cannot be read ({error}): write the views to another folder") from error
    if there != made_by:
        raise InputError(f"{printable(folder)} has views made by {there}, not by {made_by}: write to another folder")


def view_of(image: Image.Image, background: Image.Image, random: Random) -> Image.Image:
    """A picture as if photographed: most of it, seen from a side, somewhere before the background, in other light."""
    if random.random() < 0.5:
        image = _part(image, random)
    width, height = background.size
    corners = _corners(image.size, background.size, random)
    coefficients = perspective(corners, image.size)
    how = Image.Transform.PERSPECTIVE
    warped = image.transform((width, height), how, coefficients, Image.Resampling.BICUBIC)
    inside = Image.new("L", image.size, 255).transform((width, height), how, coefficients, Image.Resampling.BILINEAR)
    scene = Image.composite(warped, background, inside)
    if random.random() < _GLARE:
        scene = _with_glare(scene, random)
    if random.random() < 0.5:
        scene = scene.filter(ImageFilter.GaussianBlur(random.uniform(0, 1.8)))
    return photographed(random, scene)


def _read(path: Path_, size_px: int) -> Image.Image:
    return Image.fromarray(decode(read_bytes(path), path, size_px=size_px).pixels)


def _make_folder(place: Path) -> None:
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{printable(place)} cannot be made: {error.strerror}") from error


def _part(image: Image.Image, random: Random) -> Image.Image:
    wide, tall = (max(1, round(side * random.uniform(_LEAST_SHARE, 1))) for side in image.size)
    left, top = (int(random.integers(0, room + 1)) for room in (image.width - wide, image.height - tall))
    return image.crop((left, top, left + wide, top + tall))


def _background(own: Path_, paths: Sequence[Path_], random: Random, size_px: int) -> Image.Image:
    """Another of the pictures, out of focus; or a cloudy ground of one colour."""
    size = (size_px, size_px * 3 // 4) if random.random() < 0.5 else (size_px * 3 // 4, size_px)
    another = paths[int(random.integers(len(paths)))]
    if random.random() < 0.5 and another != own:
        try:
            other = _read(another, size_px)
        except ImageError:
            pass  # a cloudy ground then
        else:
            return other.resize(size).filter(ImageFilter.GaussianBlur(random.uniform(0, 6)))
    colour, cloudiness = random.integers(20, 235, 3), random.uniform(2, 25)
    clouds = colour + random.normal(0, cloudiness, (max(2, size[1] // 32), max(2, size[0] // 32), 3))
    return Image.fromarray(np.clip(clouds, 0, 255).astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)


def _corners(picture: tuple[int, int], scene: tuple[int, int], random: Random) -> np.ndarray:
    """Where the picture's corners come to stand: a quarter to nearly all of the scene, turned and tilted. (4, 2)."""
    share = np.sqrt(random.uniform(0.25, 0.95)) * min(scene[0] / picture[0], scene[1] / picture[1])
    size = np.array(picture) * share
    flat = np.array([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)])
    points = flat * size * (1 - 0.24 * random.random((4, 2)))
    angle = random.normal(0, 0.12)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    middle = [random.uniform(min(s / 2, w / 2), max(w - s / 2, w / 2)) for s, w in zip(size, scene, strict=True)]
    placed: np.ndarray = points @ turn.T + middle
    return placed


def _with_glare(scene: Image.Image, random: Random) -> Image.Image:
    x, y = random.uniform(0, scene.width), random.uniform(0, scene.height)
    down, across = np.mgrid[: scene.height, : scene.width]
    spot = np.exp(-((across - x) ** 2 + (down - y) ** 2) / (2 * random.uniform(20, 90) ** 2))
    lit = np.asarray(scene, np.float64) + random.uniform(40, 160) * spot[..., None]
    return Image.fromarray(np.clip(lit, 0, 255).astype(np.uint8))
