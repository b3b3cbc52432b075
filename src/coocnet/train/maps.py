"""The feature maps of a frozen network, computed once and kept on disk within a budget."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from coocnet.describe import Describer
from coocnet.errors import UNREADABLE, ImageError, TrainingError, printable
from coocnet.output import written_whole
from coocnet.recipe import PRIORS, REVISION

_LARGEST_HALF = 65504
_NAMED = 10
Progress = Callable[[str, int, int], None]
"""Called with a step's name, what is done of it and what there is in all."""


class Maps:
    """Maps of picture files at a recipe's first scale, by what decides them: the picture, the network, the prior.

    Stored in half precision, which keeps descriptors to a cosine of 0.99999. A file is named by its path, size and
    time of modification, so a changed picture is computed anew. What does not fit into the budget is computed anew
    every time it is asked for.

    Args:
        describer: computes them.
        folder: holds them, for several trainings if need be.
        budget_bytes: how much of the disk they may take in all.
    """

    def __init__(self, describer: Describer, folder: str | os.PathLike[str], *, budget_bytes: int) -> None:
        self._describer = describer
        self._folder = Path(folder)
        self._left = budget_bytes - sum(map(_size, self._folder.glob("??/[0-9a-f]*.npy")))
        self._place: dict[str, Path] = {}
        recipe = describer.recipe
        made_by = {
            name: getattr(recipe, name) for name in ("backbone", "tap", "size_px", "prior", *PRIORS[recipe.prior])
        }
        made_by |= {"revision": REVISION, "scale": recipe.scales[0], "weights": describer.weights_sha256}
        self._made_by = json.dumps(made_by, sort_keys=True)

    def prepare(self, paths: Sequence[str], progress: Progress | None = None) -> int:
        """Computes what is missing, as far as the budget goes, in order.

        Args:
            paths: picture files.
            progress: called after every picture.

        Returns:
            How many of the pictures are not held, and will be computed whenever they are needed.

        Raises:
            TrainingError: pictures that cannot be described, with their reasons; the others are kept.
            InputError: the disk is full or read-only.
        """
        missing = [path for path in dict.fromkeys(paths) if not self._file(path).is_file()]
        failed: list[ImageError] = []
        held = 0
        for done, (path, a) in enumerate(self._computed(self._while_room(missing)), start=1):
            if isinstance(a, ImageError):
                failed.append(a)
            else:
                held += self._stored(path, a)
            if progress:
                progress("Feature maps", done, len(missing))
        if failed:
            named = "; ".join(map(str, failed[:_NAMED]))
            more = f"; and {len(failed) - _NAMED} more" if len(failed) > _NAMED else ""
            raise TrainingError(f"{len(failed)} of {len(paths)} pictures cannot be described: {named}{more}")
        return len(missing) - held

    def of(self, paths: Sequence[str]) -> Iterator[Tensor]:
        """The maps of pictures, each (1, d, h, w) in float32 on the describer's device, in order.

        Raises:
            TrainingError: a picture that cannot be described.
        """
        for path in paths:
            yield torch.from_numpy(self._one(path)).to(self._describer.device).float()[None]

    def _one(self, path: str) -> np.ndarray:
        file = self._file(path)
        try:
            held: object = np.load(file, allow_pickle=False)
            if isinstance(held, np.ndarray) and held.ndim == 3 and held.dtype in (np.float16, np.float32):
                return held
        except UNREADABLE:
            with suppress(OSError):
                file.unlink(missing_ok=True)
        ((_, a),) = self._computed([path])
        if isinstance(a, ImageError):
            raise TrainingError(f"a picture can no longer be described: {a}") from a
        self._stored(path, a)
        return _halved(a)

    def _while_room(self, missing: Sequence[str]) -> Iterator[str]:
        for path in missing:
            if self._left <= 0:
                return
            yield path

    def _computed(self, paths: Iterator[str] | Sequence[str]) -> Iterator[tuple[str, np.ndarray | ImageError]]:
        for path, a in self._describer.stream_maps(paths, self._describer.load):
            assert a is not None
            yield path, a

    def _stored(self, path: str, a: np.ndarray) -> bool:
        file, kept = self._file(path), _halved(a)
        if kept.nbytes > self._left:
            self._left = 0
            return False
        file.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(file) as unfinished:
            np.save(unfinished, kept, allow_pickle=False)
        self._left -= kept.nbytes
        return True

    def _file(self, path: str) -> Path:
        if path not in self._place:
            try:
                status = os.stat(path)
            except OSError as error:
                raise TrainingError(f"{printable(path)} cannot be read: {error.strerror}") from error
            named = f"{self._made_by}|{os.path.abspath(path)}|{status.st_size}|{status.st_mtime_ns}"
            key = hashlib.blake2b(named.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
            self._place[path] = self._folder / key[:2] / f"{key}.npy"
        return self._place[path]


def _halved(a: np.ndarray) -> np.ndarray:
    return a.astype(np.float16) if np.abs(a).max(initial=0) <= _LARGEST_HALF else a


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0  # another training has just put it in its place
