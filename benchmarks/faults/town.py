"""Pictures that change from round to round, and a quick recipe."""

from __future__ import annotations

import functools
import io
import random
import shutil
from pathlib import Path

from PIL import Image

from coocnet.data.scenes import render

_DIFFERENT = 40
_SIDE_PX = 64


@functools.cache
def rendered() -> tuple[Image.Image, ...]:
    """Rendered pictures of few pixels."""
    return tuple(render(number, 0, size_px=_SIDE_PX)[0] for number in range(_DIFFERENT))


class Town:
    """A folder of pictures."""

    def __init__(self, photos: Path, chance: random.Random) -> None:
        self.photos = photos
        self._chance = chance
        self._made = 0
        photos.mkdir(parents=True, exist_ok=True)

    def content(self) -> bytes:
        """A part of a rendered picture, like no other's: what follows a JPEG's end is not looked at, but counts."""
        self._made += 1
        picture, chance = self._chance.choice(rendered()), self._chance
        left, top, right, bottom = (chance.randrange(_SIDE_PX // 4) for _ in range(4))
        stream = io.BytesIO()
        picture.crop((left, top, picture.width - right, picture.height - bottom)).save(stream, "JPEG")
        return stream.getvalue() + f"{self.photos.name} {self._made}".encode()

    def add(self, count: int, name: str = "new") -> None:
        """New pictures."""
        for number in range(count):
            (self.photos / f"{name}{self._made}_{number}.jpg").write_bytes(self.content())

    def change(self, count: int) -> None:
        """Deletes, renames, copies and changes so many pictures of those that are here, in equal parts."""
        present = sorted(self.photos.glob("*.jpg"))
        self._chance.shuffle(present)
        for number, path in enumerate(present[:count]):
            self._made += 1
            if number % 4 == 0:
                path.unlink()
            elif number % 4 == 1:
                path.rename(self.photos / f"renamed{self._made}.jpg")
            elif number % 4 == 2:
                shutil.copy(path, self.photos / f"copy{self._made}.jpg")
            else:
                path.write_bytes(self.content())


def write_recipes(folder: Path) -> tuple[Path, Path]:
    """A quick recipe with random weights, without and with a whitening, as files."""
    import torch
    from safetensors.torch import save_file

    from coocnet.backbones import BACKBONES
    from coocnet.recipe import Recipe

    torch.manual_seed(0)
    tensors = {}
    for name, tensor in BACKBONES["squeezenet1_1"].build().state_dict().items():
        tensors[name.replace(".", "_")] = torch.randn(tensor.shape) * (2 / tensor[0].numel()) ** 0.5
    weights = folder / "random.safetensors"
    save_file(tensors, weights)
    plain, whitened = folder / "plain.toml", folder / "whitened.toml"
    for path, whitening in ((plain, "none"), (whitened, "pca")):
        recipe = Recipe(
            name="random",
            backbone="squeezenet1_1",
            tap="features",
            weights=str(weights),
            size_px=384,
            whitening=whitening,
            dim=64,
        )
        path.write_text(recipe.to_toml())
    return plain, whitened
