"""Writes what the engine "int8" needs to know of the shipped network, learned on pictures that it was trained on.

    python training/calibrate.py DATA [--out src/coocnet/shipped]

Every twentieth picture; anew after each ``export.py``. ``python benchmarks/engines.py`` says whether it may stay.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from coocnet.data.images import decode, read_bytes
from coocnet.describe import Describer
from coocnet.engines import calibrated
from coocnet.recipe import Recipe
from coocnet.shipped import SHIPPED
from pictures import training_pictures

EVERY = 20
STEM = 2
"""Convolutions that stay as they are. With one, 5 % of the time is saved, but the lowest cosine is half as good."""


def inputs(data: Path, describer: Describer) -> Iterator[Tensor]:
    """Training pictures as the network is fed."""
    for one in training_pictures(data / "images")[::EVERY]:
        yield describer._network_input(decode(read_bytes(one.path), one.path, size_px=1024).pixels[None])


def main() -> None:
    """Reads the weights and pictures, writes one file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=SHIPPED)
    given = parser.parse_args()
    describer = Describer(Recipe(), device="cpu", engine="float32")
    with torch.inference_mode():
        found = calibrated(describer._loaded.trunk, describer.recipe.tap, inputs(given.data, describer), stem=STEM)
    file = given.out / describer._loaded.weights.calibration
    found.save(file, weights_sha256=describer.weights_sha256)
    file.chmod(0o644)
    print(f"{file}: {file.stat().st_size / 1e3:.1f} kB")


if __name__ == "__main__":
    main()
