"""What a camera does to a view: light, colour, focus, noise, compression, and things that stand before it."""

from __future__ import annotations

import io

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter

from coocnet.data.scenes import Random

_LEVELS = np.arange(256, dtype=np.float64) / 255


def photograph(pixels: UInt8[np.ndarray, "h w 3"], random: Random) -> UInt8[np.ndarray, "h w 3"]:
    """The view as a camera might have taken it; sizes stay."""
    image = _coloured(Image.fromarray(pixels), float(pixels.mean()) / 255, random)
    if random.random() < 0.2:
        _hide(image, random)
    if random.random() < 0.35:
        image = image.filter(ImageFilter.GaussianBlur(random.uniform(0.3, 1.8)))
    elif random.random() < 0.35:
        small = [round(side * random.uniform(0.35, 0.9)) for side in image.size]
        image = image.resize((small[0], small[1]), Image.Resampling.BILINEAR).resize(image.size)
    if random.random() < 0.3:
        noise = random.standard_normal((*pixels.shape[:2], 1), np.float32) * np.float32(random.uniform(2, 14))
        image = Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))
    if random.random() < 0.4:
        file = io.BytesIO()
        image.save(file, format="JPEG", quality=int(random.integers(25, 90)))
        image = Image.open(file)
    return np.asarray(image)


def _coloured(image: Image.Image, brightness: float, random: Random) -> Image.Image:
    """Exposure, colour of the light, gamma, contrast, saturation: little enough that colours stay told apart."""
    tint = random.uniform(0.85, 1.15, 3) if random.random() < 0.4 else np.ones(3)
    gains = random.uniform(0.6, 1.35) * tint
    gamma, contrast = np.exp(random.uniform(-0.35, 0.35)), random.uniform(0.65, 1.35)
    curves = (np.clip(gains[:, None] * _LEVELS, 0, 1) ** gamma - brightness) * contrast + brightness
    image = image.point([int(level) for level in np.clip(curves * 255, 0, 255).flatten()])
    if random.random() < 0.04:
        return image.convert("L").convert("RGB")
    return ImageEnhance.Color(image).enhance(random.uniform(0.6, 1.4))


def _hide(image: Image.Image, random: Random) -> None:
    """A rectangle of 2 to 20 % of the view becomes something else."""
    share, stretch = np.sqrt(random.uniform(0.02, 0.2)), np.exp(random.uniform(-0.7, 0.7))
    w, h = (min(side * share * f, side) for side, f in zip(image.size, (stretch, 1 / stretch), strict=True))
    x, y = random.uniform(0, image.width - w), random.uniform(0, image.height - h)
    red, green, blue = (int(c) for c in random.integers(0, 256, 3))
    ImageDraw.Draw(image).rectangle([x, y, x + w, y + h], fill=(red, green, blue))
