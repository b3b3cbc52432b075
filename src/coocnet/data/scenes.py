"""Pictures of our own: rendered facades, towers and objects under changing viewpoint, light, scale and occlusion.

For tests, the demo and training, where photographs cannot be shipped. An instance is one building or object;
its views differ as photographs of it would. The same numbers give the same picture.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from coocnet.data.images import Box
from coocnet.errors import InputError

Colour = tuple[int, int, int]
Random = np.random.Generator

MANIFEST_NAME = "manifest.csv"
_CANVAS_PX = 480


@dataclass(frozen=True)
class View:
    """One rendered picture and what is in it.

    Attributes:
        path: the file, below the folder it was made in.
        instance: number of the building or object.
        role: "database" or "query".
        box: where the instance stands, in pixels.
    """

    path: str
    instance: int
    role: str
    box: Box


def make_scenes(
    folder: str | os.PathLike[str], *, instances: int, views: int, seed: int = 0, size_px: int = 512
) -> list[View]:
    """Renders a collection with ground truth: ``views`` database pictures and one query for each instance.

    Writes ``database/*.jpg``, ``queries/*.jpg`` and ``manifest.csv`` (image, instance, role, x1, y1, x2, y2).

    Args:
        folder: made if it is not there.
        instances: number of buildings and objects, ≥ 1; a third each facades, towers and objects.
        views: database pictures of each, ≥ 1.
        seed: another seed, another world.
        size_px: longer side of the pictures.

    Raises:
        InputError: a number below 1, or pictures below 64 pixels.
    """
    if instances < 1 or views < 1 or size_px < 64:
        raise InputError(
            f"at least 1 instance, 1 view and 64 pixels, got {instances} instances, {views} views, {size_px} pixels"
        )
    root = Path(folder)
    made = []
    for instance in range(instances):
        for view in range(views + 1):
            role, place = ("query", "queries") if view == views else ("database", "database")
            name = f"{place}/instance{instance:03d}_view{view:02d}.jpg"
            (root / place).mkdir(parents=True, exist_ok=True)
            image, box = render(instance, view, seed=seed, size_px=size_px)
            quality = int(_random(seed, instance, view, 2).integers(70, 95))
            image.save(root / name, quality=quality)
            made.append(View(name, instance, role, box))
    with (root / MANIFEST_NAME).open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(("image", "instance", "role", "x1", "y1", "x2", "y2"))
        writer.writerows((view.path, view.instance, view.role, *view.box) for view in made)
    return made


def render(instance: int, view: int, *, seed: int = 0, size_px: int = 512) -> tuple[Image.Image, Box]:
    """One view of one instance, RGB, and the box around it."""
    draw_texture = _KINDS[instance % len(_KINDS)]
    texture = draw_texture(_random(seed, instance, 0, 0))
    random = _random(seed, instance, view, 1)
    portrait = random.random() < 0.3
    width, height = (size_px * 3 // 4, size_px) if portrait else (size_px, size_px * 3 // 4)
    scene = _background(random, width, height)
    corners = _corners(random, texture.size, width, height)
    warped = texture.transform(
        (width, height), Image.Transform.PERSPECTIVE, perspective(corners, texture.size), Image.Resampling.BICUBIC
    )
    box = _box_of(warped, width, height)
    scene.paste(warped, (0, 0), warped)
    _occlude(random, scene, box)
    return photographed(random, scene), box


def _random(*numbers: int) -> Random:
    return np.random.default_rng(numbers)


def _colour(random: Random, low: int = 40, high: int = 230) -> Colour:
    red, green, blue = (int(c) for c in random.integers(low, high, 3))
    return red, green, blue


def _muted(random: Random, low: int, high: int) -> Colour:
    """A colour as skies, stones and fields have it: two thirds grey."""
    red, green, blue = _colour(random, low, high)
    grey = (red + green + blue) / 3
    return int((red + 2 * grey) / 3), int((green + 2 * grey) / 3), int((blue + 2 * grey) / 3)


def _shaded(colour: Colour, factor: float) -> Colour:
    red, green, blue = (int(min(255, max(0, c * factor))) for c in colour)
    return red, green, blue


# What stands in the scene: drawn flat and upright on a transparent canvas, the same for every view.


def _canvas(width: int, height: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("RGBA", (width, height), (0, 0, 0, 0))
    return image, ImageDraw.Draw(image)


def _facade(random: Random) -> Image.Image:
    width, height = _CANVAS_PX, int(_CANVAS_PX * random.uniform(0.6, 1.1))
    image, draw = _canvas(width, height)
    wall, trim, glass = _muted(random, 100, 240), _muted(random, 50, 250), _colour(random, 15, 110)
    roof = int(height * random.uniform(0.08, 0.24))
    if random.random() < 0.5:
        draw.polygon([(0, roof), (width // 2, 0), (width, roof)], fill=_shaded(trim, 0.8))
    else:
        teeth = int(random.integers(4, 14))
        for tooth in range(0, 2 * teeth, 2):
            left = tooth * width // (2 * teeth)
            draw.rectangle([left, roof // 2, left + width // (2 * teeth), roof], fill=_shaded(wall, 0.8))
    draw.rectangle([0, roof, width, height], fill=wall)
    _masonry(random, draw, (0, roof, width, height), wall)
    rows, columns = int(random.integers(2, 6)), int(random.integers(3, 9))
    shapes = [int(s) for s in random.integers(0, 4, rows)]
    lit = random.random((rows, columns)) < 0.2
    bay, floor = width / columns, (height - roof) / (rows + 0.5)
    margin_x, margin_y = random.uniform(0.15, 0.3) * bay, random.uniform(0.12, 0.25) * floor
    for row in range(rows):
        top = roof + row * floor
        draw.rectangle([0, top, width, top + max(3, floor * 0.06)], fill=trim)
        for column in range(columns):
            frame = (
                column * bay + margin_x,
                top + margin_y,
                (column + 1) * bay - margin_x,
                top + floor - margin_y,
            )
            _window(draw, frame, shapes[row], _shaded(glass, 2.2) if lit[row, column] else glass, trim)
    door = width * random.uniform(0.2, 0.8)
    draw.rectangle([door - bay * 0.4, height - floor * 0.6, door + bay * 0.4, height], fill=_shaded(glass, 0.7))
    draw.ellipse([door - bay * 0.4, height - floor * 0.85, door + bay * 0.4, height - floor * 0.35], fill=trim)
    return image


def _window(
    draw: ImageDraw.ImageDraw, frame: tuple[float, float, float, float], shape: int, glass: Colour, trim: Colour
) -> None:
    x1, y1, x2, y2 = frame
    if shape == 0:
        draw.rectangle(frame, fill=glass, outline=trim, width=4)
    elif shape == 1:
        draw.ellipse(frame, fill=glass, outline=trim, width=4)
    else:
        arch = min(x2 - x1, y2 - y1) / 2
        draw.pieslice([x1, y1, x2, y1 + 2 * arch], 180, 360, fill=glass, outline=trim, width=4)
        draw.rectangle([x1, y1 + arch, x2, y2], fill=glass, outline=trim, width=3)
    if shape != 2:
        draw.line([((x1 + x2) / 2, y1), ((x1 + x2) / 2, y2)], fill=trim, width=3)
        draw.line([(x1, (y1 + y2) / 2), (x2, (y1 + y2) / 2)], fill=trim, width=3)


def _masonry(random: Random, draw: ImageDraw.ImageDraw, area: tuple[int, int, int, int], wall: Colour) -> None:
    x1, y1, x2, y2 = area
    course = int(random.integers(10, 26))
    for number, top in enumerate(range(y1, y2, course)):
        offset = (number % 2) * course
        for left in range(x1 - offset, x2, 2 * course):
            stone = _shaded(wall, random.uniform(0.9, 1.08))
            draw.rectangle(
                [max(left, x1), top, min(left + 2 * course - 2, x2), min(top + course - 2, y2)], fill=stone
            )


def _tower(random: Random) -> Image.Image:
    width, height = int(_CANVAS_PX * random.uniform(0.3, 0.5)), _CANVAS_PX
    image, draw = _canvas(width, height)
    wall, trim, roof = _muted(random, 90, 235), _muted(random, 40, 250), _colour(random, 30, 170)
    tiers = int(random.integers(2, 6))
    cap = int(height * random.uniform(0.15, 0.35))
    inset = random.uniform(0.03, 0.09) * width
    if random.random() < 0.5:
        draw.polygon([(inset * tiers, cap), (width / 2, 0), (width - inset * tiers, cap)], fill=roof)
    else:
        draw.pieslice([inset * tiers, cap * 0.2, width - inset * tiers, cap * 1.8], 180, 360, fill=roof)
        draw.line([(width / 2, 0), (width / 2, cap * 0.3)], fill=trim, width=6)
    tier_height = (height - cap) / tiers
    for tier in range(tiers):
        left, top = inset * (tiers - 1 - tier), cap + tier * tier_height
        bottom = min(top + tier_height, height)
        draw.rectangle([left, top, width - left, bottom], fill=_shaded(wall, 0.85 + 0.3 * random.random()))
        _masonry(random, draw, (int(left), int(top), int(width - left), int(bottom)), wall)
        draw.rectangle([left - 4, top, width - left + 4, top + 8], fill=trim)
        openings = int(random.integers(1, 5))
        bay = (width - 2 * left) / openings
        shape = int(random.integers(0, 4))
        for opening in range(openings):
            x = left + opening * bay
            frame = (x + 0.25 * bay, top + 0.3 * tier_height, x + 0.75 * bay, top + 0.8 * tier_height)
            _window(draw, frame, shape, _shaded(roof, 0.5), trim)
    if random.random() < 0.6:
        radius, middle = width * random.uniform(0.13, 0.2), cap + tier_height * 0.5
        face = [width / 2 - radius, middle - radius, width / 2 + radius, middle + radius]
        draw.ellipse(face, fill=(245, 240, 225), outline=trim, width=6)
        draw.line([(width / 2, middle), (width / 2, middle - radius * 0.8)], fill=(20, 20, 20), width=5)
        draw.line([(width / 2, middle), (width / 2 + radius * 0.5, middle)], fill=(20, 20, 20), width=5)
    return image


def _object(random: Random) -> Image.Image:
    """A painted board, box or round sign, with a pattern of its own."""
    width, height = (int(_CANVAS_PX * f) for f in random.uniform(0.6, 0.95, 2))
    image, draw = _canvas(width, height)
    ground = _colour(random, 60, 240)
    if random.random() < 0.4:
        draw.ellipse([0, 0, width - 1, height - 1], fill=ground)
    else:
        draw.rounded_rectangle([0, 0, width - 1, height - 1], radius=int(random.integers(0, 60)), fill=ground)
    outline = image.getchannel("A")
    for _ in range(int(random.integers(14, 26))):
        x, y = random.uniform(0, width), random.uniform(0, height)
        reach = random.uniform(0.04, 0.22) * width
        colour = _colour(random, 10, 250)
        figure = int(random.integers(0, 4))
        if figure == 0:
            draw.ellipse(
                [x - reach, y - reach, x + reach, y + reach], fill=colour, outline=_shaded(colour, 0.5), width=5
            )
        elif figure == 1:
            corners = int(random.integers(3, 8))
            draw.regular_polygon((x, y, max(4, reach)), corners, rotation=int(random.integers(0, 90)), fill=colour)
        elif figure == 2:
            for stripe in range(4):
                draw.line([(x - reach, y + stripe * 14), (x + reach, y + stripe * 14)], fill=colour, width=6)
        else:
            draw.arc([x - reach, y - reach, x + reach, y + reach], 20, 300, fill=colour, width=10)
    image.putalpha(outline)
    return image


_KINDS: tuple[Callable[[Random], Image.Image], ...] = (_facade, _tower, _object)


# What differs from view to view.


def _background(random: Random, width: int, height: int) -> Image.Image:
    above, below = np.array(_muted(random, 110, 250)), np.array(_muted(random, 130, 250))
    ramp = np.linspace(0, 1, height)[:, None, None]
    scene = np.broadcast_to(above * (1 - ramp) + below * ramp, (height, width, 3))
    image = Image.fromarray(scene.astype(np.uint8))
    draw = ImageDraw.Draw(image)
    horizon = int(height * random.uniform(0.55, 0.85))
    for _ in range(int(random.integers(3, 9))):
        left, breadth = random.uniform(-0.1, 1) * width, random.uniform(0.05, 0.25) * width
        top = horizon - random.uniform(0.05, 0.4) * height
        block = _muted(random, 90, 200)
        draw.rectangle([left, top, left + breadth, horizon], fill=block)
        for y in range(int(top) + 6, horizon - 6, 14):
            draw.line([(left + 4, y), (left + breadth - 4, y)], fill=_shaded(block, 0.7), width=4)
    draw.rectangle([0, horizon, width, height], fill=_muted(random, 60, 170))
    for _ in range(int(random.integers(2, 8))):
        _tree(random, draw, random.uniform(0, 1) * width, horizon, height * random.uniform(0.05, 0.2))
    return image


def _tree(random: Random, draw: ImageDraw.ImageDraw, x: float, foot: float, size: float) -> None:
    draw.rectangle([x - size * 0.08, foot - size, x + size * 0.08, foot], fill=(90, 62, 40))
    green = (int(random.integers(20, 90)), int(random.integers(70, 150)), int(random.integers(20, 70)))
    for _ in range(6):
        dx, dy = random.uniform(-0.5, 0.5, 2) * size
        reach = size * random.uniform(0.25, 0.45)
        centre_x, centre_y = x + dx, foot - size * 1.3 + dy
        leaf = _shaded(green, random.uniform(0.75, 1.25))
        draw.ellipse([centre_x - reach, centre_y - reach, centre_x + reach, centre_y + reach], fill=leaf)


def _corners(random: Random, texture: tuple[int, int], width: int, height: int) -> np.ndarray:
    """Where the texture's four corners come to stand: seen from a side, tilted, nearer or farther. (4, 2)."""
    aspect = texture[0] / texture[1]
    tall = random.uniform(0.5, 0.95) * min(height, width / aspect)
    wide = tall * aspect
    yaw, tilt, roll = random.uniform(-0.3, 0.3), random.uniform(0, 0.15), random.uniform(-0.06, 0.06)
    flat = np.array([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)])
    nearness = 1 + yaw * flat[:, :1] * 2 + tilt * flat[:, 1:]
    points = flat * nearness * (wide * (1 - 0.4 * abs(yaw)), tall)
    turn = np.array([[np.cos(roll), -np.sin(roll)], [np.sin(roll), np.cos(roll)]])
    centre = (random.uniform(0.42, 0.58) * width, random.uniform(0.45, 0.58) * height)
    placed: np.ndarray = points @ turn.T + centre
    return placed


def perspective(corners: np.ndarray, texture: tuple[int, int]) -> list[float]:
    """Pillow's eight coefficients, from picture to texture; the corners are where the texture's stand, (4, 2)."""
    w, h = texture
    rows, values = [], []
    for (x, y), (u, v) in zip(corners, [(0, 0), (w, 0), (w, h), (0, h)], strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        values += [u, v]
    return [float(c) for c in np.linalg.solve(np.array(rows), np.array(values, float))]


def _box_of(warped: Image.Image, width: int, height: int) -> Box:
    found = warped.getchannel("A").point(lambda alpha: 255 if alpha > 127 else 0).getbbox()
    return found or (0, 0, width, height)


def _occlude(random: Random, scene: Image.Image, box: Box) -> None:
    """Trees, people and posts in front, at the foot of the instance."""
    draw = ImageDraw.Draw(scene)
    x1, y1, x2, y2 = box
    foot = min(scene.height, y2 + 0.1 * (y2 - y1))
    for _ in range(int(random.integers(0, 4))):
        x = random.uniform(x1, x2)
        size = (y2 - y1) * random.uniform(0.15, 0.4)
        what = int(random.integers(0, 3))
        if what == 0:
            _tree(random, draw, x, foot, size * 0.6)
        elif what == 1:
            clothes = _colour(random, 20, 220)
            draw.rounded_rectangle([x - size * 0.12, foot - size * 0.75, x + size * 0.12, foot], 6, fill=clothes)
            draw.ellipse(
                [x - size * 0.09, foot - size * 0.95, x + size * 0.09, foot - size * 0.75], fill=(205, 160, 130)
            )
        else:
            draw.rectangle([x - 3, foot - size * 2, x + 3, foot], fill=(50, 50, 55))
            draw.ellipse([x - 10, foot - size * 2 - 14, x + 10, foot - size * 2 + 6], fill=(235, 225, 170))


def photographed(random: Random, scene: Image.Image) -> Image.Image:
    """Light from a side, exposure, colour of the light, blur and noise."""
    pixels = np.asarray(scene, np.float64) / 255
    height, width = pixels.shape[:2]
    direction, strength = random.uniform(0, 2 * np.pi), random.uniform(0, 0.35)
    across = np.linspace(-1, 1, width)[None, :] * np.cos(direction)
    down = np.linspace(-1, 1, height)[:, None] * np.sin(direction)
    pixels = pixels * (1 + strength * (across + down))[..., None]
    pixels = np.clip(pixels, 0, 1) ** random.uniform(0.65, 1.5) * random.uniform(0.85, 1.1, 3)
    blurred = Image.fromarray((np.clip(pixels, 0, 1) * 255).astype(np.uint8))
    blurred = blurred.filter(ImageFilter.GaussianBlur(random.uniform(0, 1.2)))
    noisy = np.asarray(blurred, np.float64) + random.normal(0, random.uniform(0, 7), (height, width, 1))
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))
