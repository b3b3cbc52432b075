"""Writes what the package ships: the trained network, the whitening for its rows, and where both come from.

    python training/export.py DATA RUN [--out src/coocnet/shipped]

The network: batch-norms folded in, float16. The whitening: of the default recipe's rows of the pictures of DATA that
were trained on. ``mini.json`` holds the settings, the data by name, and the curve. The digest that it prints belongs
into the network's record.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL
import torch
from safetensors.torch import save_file

import coocnet
from coocnet.describe import Describer
from coocnet.recipe import Recipe
from coocnet.shipped import SHIPPED
from coocnet.whitening import fit_pca
from distil import CHECKPOINT, Settings
from pictures import training_pictures
from student import Student, folded

SHRINKAGE = 0.3
"""Of the whitening; chosen with ``choose.py``."""
LICENCE = "MIT"


def write_weights(run: Path, file: Path) -> dict:
    """Folds the network of a checkpoint, writes it, and gives the settings and curves that led to it."""
    content = torch.load(run / CHECKPOINT, weights_only=True)
    settings = Settings(**content["settings"])
    student = Student(settings.row_dim, settings.embedding_dim)
    student.load_state_dict(content["student"])
    tensors = {name: tensor.half().contiguous() for name, tensor in folded(student.trunk).state_dict().items()}
    if not all(tensor.isfinite().all() for tensor in tensors.values()):
        raise SystemExit("a weight is beyond float16")
    save_file(tensors, file, metadata={"licence": LICENCE})
    file.chmod(0o644)
    return {name: content[name] for name in ("settings", "targets", "curve", "earlier")}


def write_whitening(data: Path, weights: Path, file: Path) -> dict:
    """Fits the default recipe's whitening on the training pictures, writes it, and says on what."""
    recipe = Recipe()
    describer = Describer(recipe.replace(weights=str(weights)), engine="float32")
    pictures = training_pictures(data / "images")
    folders = Counter(one.path.relative_to(data / "images").parts[0] for one in pictures)
    provenance = {
        "row_fingerprint": recipe.row_fingerprint(),
        "weights_sha256": describer.weights_sha256,
        "fitted_on": "unrelated pictures; comes with the package",
        "shipped": coocnet.__version__,
    }
    rows = describer.describe([one.path for one in pictures], progress=_progress)
    fitted = fit_pca(rows, dim=recipe.dim, shrinkage=SHRINKAGE, provenance=provenance)
    dateless = {name: value for name, value in fitted.provenance.items() if name != "made"}
    replace(fitted, provenance=dateless).save(file)
    return {"sha256": describer.weights_sha256, "number": len(pictures), "folders": dict(folders)}


def _progress(done: int, total: int) -> None:
    if done % 500 == 0:
        print(f"described for the whitening: {done} of {total}", flush=True)


def main() -> None:
    """Reads a checkpoint, writes three files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, default=SHIPPED)
    given = parser.parse_args()
    # Made aside, so that an interruption never leaves a network without the whitening that fits it.
    with tempfile.TemporaryDirectory(dir=given.out) as aside:
        weights = Path(aside) / "mini.safetensors"
        trained = write_weights(given.run, weights)
        made = write_whitening(given.data, weights, Path(aside) / "mini-whitening.safetensors")
        told = {
            "licence": LICENCE,
            "weights_sha256": made["sha256"],
            "made_by": "training/ in the repository: teacher.py, distil.py, export.py",
            "training": {"pictures": {name: made[name] for name in ("number", "folders")}, **trained},
            "whitening": {"shrinkage": SHRINKAGE, "dim": Recipe().dim},
            "versions": {module.__name__: module.__version__ for module in (coocnet, torch, np, PIL)},
            "threads": torch.get_num_threads(),
        }
        (Path(aside) / "mini.json").write_text(json.dumps(told, indent=1) + "\n")
        size_mb = weights.stat().st_size / 1e6
        for file in Path(aside).iterdir():
            file.replace(given.out / file.name)
    print(f"{given.out / weights.name}: {size_mb:.2f} MB, SHA-256 {made['sha256']}")


if __name__ == "__main__":
    main()
