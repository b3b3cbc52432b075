"""Synthetic photographs of pictures: each as if photographed anew, before other things, by a poor camera.

Pictures without labels become things with several pictures each, to learn on what stays the same.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from coocnet.data.images import decode, read_bytes
from coocnet.data.scenes import Random, perspective, photographed
from coocnet.errors import ImageError, InputError
from coocnet.output import written_whole

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

    What is there already is left as it is, so the work may be interrupted and goes on. The same seed and the same
    pictures make the same photographs.

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
        InputError: less than one view, sides below 64 pixels, or a folder that cannot be written.
    """
    if views < 1 or size_px < 64:
        raise InputError(f"at least 1 view and 64 pixels, got {views} views, {size_px} pixels")
    skipped: list[ImageError] = []
    for number, path in enumerate(paths):
        place = Path(folder) / f"{number:06d}"
        targets = [place / "picture.jpg", *(place / f"view{view}.jpg" for view in range(views))]
        missing = [target for target in targets if not target.is_file()]
        if missing:
            try:
                image = _read(path, size_px)
            except ImageError as error:
                skipped.append(error)
                continue
            _make_folder(place)
            for target in missing:
                random = np.random.default_rng([seed, number, targets.index(target)])
                made = image if target is targets[0] else view_of(image, _background(paths, random, size_px), random)
                with written_whole(target) as unfinished:
                    made.save(unfinished, format="JPEG", quality=int(random.integers(55, 95)))
        if progress:
            progress(number + 1, len(paths))
    return skipped


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


def _read(path: str | os.PathLike[str], size_px: int) -> Image.Image:
    return Image.fromarray(decode(read_bytes(path), path, size_px=size_px).pixels)


def _make_folder(place: Path) -> None:
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{place} cannot be made: {error.strerror}") from error


def _part(image: Image.Image, random: Random) -> Image.Image:
    wide, tall = (max(1, round(side * random.uniform(_LEAST_SHARE, 1))) for side in image.size)
    left, top = (int(random.integers(0, room + 1)) for room in (image.width - wide, image.height - tall))
    return image.crop((left, top, left + wide, top + tall))


def _background(paths: Sequence[str | os.PathLike[str]], random: Random, size_px: int) -> Image.Image:
    """Another of the pictures, out of focus; or a cloudy ground of one colour."""
    size = (size_px, size_px * 3 // 4) if random.random() < 0.5 else (size_px * 3 // 4, size_px)
    if random.random() < 0.5:
        try:
            other = _read(paths[int(random.integers(len(paths)))], size_px)
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
