"""The learned filter that rows and figures are made with: a file of ours, or the authors' turned into one of ours."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from coocnet.errors import printable
from coocnet.fetch import sha256_of
from coocnet.nn import PUBLISHED_ENDING, load_filter, read_published_filter, save_filter


def given_filter(source: str | os.PathLike[str], folder: Path) -> tuple[Path, str]:
    """A filter's file as a recipe can name it, and what a report says of it.

    A NumPy file as the authors publish theirs is written to the folder as one of ours, under its digest, in our
    scale: theirs is smaller by (2r+1)², which a descriptor's norm takes away, but a picture of the filter shows.

    Raises:
        FilterError: it cannot be read, or is something else.
        InputError: it cannot be written.
    """
    path = Path(source).expanduser()
    if path.suffix.lower() == PUBLISHED_ENDING:
        path = _converted(path, folder)
    learned, said = load_filter(path)
    network = " ".join(filter(None, (said.get("backbone"), said.get("tap")))) or "a network that it does not name"
    verdict = said.get("gate", "never judged by a gate")
    gate = {"passed": "passed by its gate", "refused": "refused by its gate, so that no row is made with it"}
    about = (
        f"The learned filter: {printable(Path(source).name)}, SHA-256 {sha256_of(path)[:12]}…; {learned.kind}, "
        f"{learned.channels} channels, r = {learned.radius_cells}; learned on maps of {network} from "
        f"{said.get('learned_from', 'pictures that it does not name')}; {gate.get(verdict, verdict)}."
    )
    return path, about


def _converted(published: Path, folder: Path) -> Path:
    learned = read_published_filter(published)
    digest = sha256_of(published)
    factor = (2 * learned.radius_cells + 1) ** 2
    with torch.no_grad():
        learned.weight.mul_(factor)
    target = folder / f"published-filter-{digest[:12]}.safetensors"
    save_filter(
        learned,
        target,
        {
            "source": f"{printable(published.name)}, a NumPy file in the layout that the authors publish theirs in",
            "source_sha256": digest,
            "scaled_by": str(factor),
        },
    )
    return target
