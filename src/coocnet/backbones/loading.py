"""From a backbone's name to a module with the right weights, or an error that says what to do.

Weights are looked for, in this order: the file the user names; the package itself; the folder
``COOCNET_WEIGHTS``; the cache; the mirrors of the record. A file with a known name must have the checksum of its
record; a file the user names may be anything that fits the network, tensor by tensor.
"""

from __future__ import annotations

import os
import warnings
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
import torch
from safetensors.torch import load_file
from torch import Tensor

from coocnet.backbones.record import Backbone, StateDict, Tap, Trunk, Weights
from coocnet.backbones.table import BACKBONES
from coocnet.errors import FetchError, InputError, WeightsMismatchError, WeightsMissingError, printable
from coocnet.fetch import Progress, fetch, sha256_of
from coocnet.shipped import SHIPPED

WEIGHTS_FOLDER_VARIABLE = "COOCNET_WEIGHTS"


def _empty_array(*_: object) -> np.ndarray:
    """What NumPy's own function makes, whatever size the file asks for: its numbers bring theirs along."""
    return np.empty(0, np.uint8)


def _bytes_of(text: object, encoding: object = "latin1") -> bytes:
    """Bytes that old protocols write as text; newer versions of PyTorch have a function of their own for that."""
    if not isinstance(text, str) or encoding != "latin1":
        raise ValueError("bytes in an unknown form")
    return text.encode("latin-1")


def _number_type(code: object, *_: object) -> np.dtype:
    """A type of numbers, and none of objects or records."""
    if not isinstance(code, str) or code not in ("f2", "f4", "f8", "i4", "i8"):
        raise ValueError("an array of what are not numbers")
    return np.dtype(code)


def _scalar(kind: np.dtype, data: bytes) -> object:
    (number,) = np.frombuffer(data, kind)
    return number


# What NumPy arrays are made of: some checkpoints keep a whitening beside the tensors. Old files use the old names.
_ARRAYS: list[Any] = [
    np.ndarray,
    (_number_type, "numpy.dtype"),
    *(type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i4", "i8")),
    *(
        (function, f"{module}.multiarray.{name}")
        for module in ("numpy.core", "numpy._core")
        for name, function in (("_reconstruct", _empty_array), ("scalar", _scalar))
    ),
    (_bytes_of, "_codecs.encode"),
]
_LISTED = 6
_LETTERS = 100
_SPARE_BYTES, _COPIES = 1 << 26, 3
"""Where so much memory and so many times a file are to be had, it can be read."""


@dataclass(frozen=True)
class WeightsPlace:
    """A weights file on this machine.

    Attributes:
        path: the file.
        found_in: "named by the user", "COOCNET_WEIGHTS", "package" or "cache".
        sha256: digest of its bytes.
        verified: whether the digest is the one that the weights' record knows.
    """

    path: Path
    found_in: str
    sha256: str
    verified: bool = False

    def is_of(self, weights: Weights) -> bool:
        """Whether the file is the one of this record, wherever it was found."""
        return bool(weights.sha256) and self.sha256.startswith(weights.sha256 or "")


@dataclass(frozen=True)
class LoadedBackbone:
    """A trunk in evaluation mode with its weights, and the facts needed to feed it.

    Attributes:
        trunk: ``trunk(pixels, tap)`` gives the map.
        record: the architecture's record.
        weights: the record of the weights, whose ``mean`` and ``std`` the input needs.
        place: the file they came from.
    """

    trunk: Trunk
    record: Backbone
    weights: Weights
    place: WeightsPlace


def lookup(backbone: str, tap: str | None = None) -> tuple[Backbone, Tap]:
    """The record of a backbone and of a tap, its first one by default.

    Raises:
        InputError: no such backbone or tap; the message lists what there is.
    """
    if backbone not in BACKBONES:
        raise InputError(f"no backbone is called {backbone!r}; there are {', '.join(BACKBONES)}")
    record = BACKBONES[backbone]
    if tap is None:
        return record, next(iter(record.taps.values()))
    if tap not in record.taps:
        raise InputError(f"{backbone} has no tap {tap!r}; it has {', '.join(record.taps)}")
    return record, record.taps[tap]


def weights_cache() -> Path:
    """The folder where downloaded weights are kept."""
    return Path(platformdirs.user_cache_dir("coocnet")) / "weights"


def find_weights(weights: Weights) -> WeightsPlace | None:
    """The file of these weights on this machine, its checksum verified, or None.

    Raises:
        WeightsMismatchError: a file has the name but not the checksum.
    """
    folders = [("package", SHIPPED), ("cache", weights_cache())]
    if folder := os.environ.get(WEIGHTS_FOLDER_VARIABLE):
        folders.insert(1, (WEIGHTS_FOLDER_VARIABLE, Path(os.path.expanduser(folder))))
    for found_in, place in folders:
        path = place / weights.file
        if path.is_file():
            digest = _digest(path)
            if weights.sha256 and not digest.startswith(weights.sha256):
                raise WeightsMismatchError(
                    f"{printable(path)} has SHA-256 {digest}, but {weights.file} has {weights.sha256}. "
                    "It is damaged or another file: delete it, or rename it and name it explicitly."
                )
            return WeightsPlace(path, found_in, digest, verified=bool(weights.sha256))
    return None


def load_backbone(
    backbone: str,
    weights: str | None = None,
    *,
    device: torch.device | None = None,
    progress: Progress | None = None,
) -> LoadedBackbone:
    """A trunk with its weights, in evaluation mode, float32.

    Args:
        backbone: a name in ``BACKBONES``.
        weights: a name in the record's ``weights``, or the path of a file (``.safetensors``, or a PyTorch
            checkpoint of tensors only); None for the record's first.
        device: where the trunk is to be.
        progress: called during a download.

    Raises:
        InputError: an unknown backbone or weights.
        WeightsMissingError: not here, and no mirror gave it.
        WeightsMismatchError: the file is damaged or belongs to another network; the message names the keys.
    """
    record, _ = lookup(backbone)
    chosen, place = _obtained(backbone, record, weights, progress)
    with torch.device("meta"):
        trunk = record.build()
    trunk.load_state_dict(_fitted(_read_tensors(place.path), chosen, trunk, backbone, place.path), assign=True)
    trunk.requires_grad_(False)
    trunk.eval().to(device)
    trunk.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return LoadedBackbone(trunk, record, chosen, place)


def locate_weights(backbone: str, weights: str | None = None) -> WeightsPlace | None:
    """Where the weights that a recipe names are on this machine, or None; nothing is downloaded.

    Raises:
        InputError: an unknown backbone, or weights that are neither a name nor a file.
        WeightsMismatchError: a file has the name but not the checksum.
    """
    record, _ = lookup(backbone)
    return _locate(backbone, record, weights)[1]


def need_weights(backbone: str, weights: str | None = None, *, progress: Progress | None = None) -> WeightsPlace:
    """Where the weights that a recipe names are on this machine, downloaded first where they are not.

    Raises:
        InputError: as for :func:`load_backbone`, and so the others.
        WeightsMissingError: not here, and no mirror gave it.
        WeightsMismatchError: a file has the name but not the checksum.
    """
    record, _ = lookup(backbone)
    return _obtained(backbone, record, weights, progress)[1]


def _obtained(
    backbone: str, record: Backbone, weights: str | None, progress: Progress | None
) -> tuple[Weights, WeightsPlace]:
    chosen, found = _locate(backbone, record, weights)
    return chosen, found or _download(backbone, chosen, progress)


def _locate(backbone: str, record: Backbone, weights: str | None) -> tuple[Weights, WeightsPlace | None]:
    name = weights or next(iter(record.weights))
    if name in record.weights:
        return record.weights[name], find_weights(record.weights[name])
    path = Path(os.path.expanduser(name))
    if not os.path.isfile(path):
        raise InputError(
            f"{backbone} has no weights {name!r}, and there is no such file; "
            f"it has {', '.join(record.weights)}, or give the path of a file"
        )
    known = next((w for w in record.weights.values() if w.file == path.name), next(iter(record.weights.values())))
    return known, WeightsPlace(path, "named by the user", _digest(path))


def _download(backbone: str, weights: Weights, progress: Progress | None) -> WeightsPlace:
    target = weights_cache() / weights.file
    where_to_put = (
        f"Put it into the folder that the environment variable {WEIGHTS_FOLDER_VARIABLE} names, or into "
        f"{printable(target.parent)}, or name a file with --weights."
    )
    if not weights.urls:
        raise WeightsMissingError(
            f"the weights of {backbone} are not on this machine, and there is no public download of this file: "
            f"{weights.file} ({weights.source}). {where_to_put}"
        )
    try:
        fetch(weights.urls, target, sha256=weights.sha256, progress=progress)
    except FetchError as error:
        raise WeightsMissingError(
            f"the weights of {backbone} are not on this machine: {weights.file}. {where_to_put}\n{error}"
        ) from error
    return WeightsPlace(target, "cache", _digest(target), verified=bool(weights.sha256))


def _digest(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError as error:
        raise WeightsMismatchError(f"{printable(path)} cannot be read: {error.strerror or error}") from error


def read_checkpoint(path: str | os.PathLike[str]) -> dict[Any, Any]:
    """All that a PyTorch checkpoint holds: tensors and arrays in plain containers; nothing in it is ever run.

    Raises:
        WeightsMismatchError: not such a file, damaged, or with objects of other kinds in it.
    """
    try:
        _check_growth(path)
        with warnings.catch_warnings(), torch.serialization.safe_globals(_ARRAYS):
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        _tell_want_of_memory(error, path)
        raise WeightsMismatchError(
            f"{printable(path)} is not a file of tensors, or damaged ({type(error).__name__}). "
            "Give a .safetensors file or a PyTorch checkpoint that holds tensors only."
        ) from error
    if not isinstance(content, dict):
        raise WeightsMismatchError(f"{printable(path)} does not hold a table of named tensors.")
    return content


def _check_growth(path: str | os.PathLike[str]) -> None:
    """Refuses an archive that holds more than its size; PyTorch packs nothing, and would unpack anything."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        held = sum(member.file_size for member in archive.infolist())
    if held > os.path.getsize(path):
        raise ValueError("it grows when it is read")


def _read_tensors(path: Path) -> StateDict:
    """The tensors of a file; nothing in it is ever run."""
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except Exception as error:
            _tell_want_of_memory(error, path)
            raise WeightsMismatchError(
                f"{printable(path)} is not a file of tensors, or damaged ({type(error).__name__})."
            ) from error
    content = read_checkpoint(path)
    if isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not all(isinstance(name, str) and _is_plain(value) for name, value in content.items()):
        raise WeightsMismatchError(f"{printable(path)} does not hold a table of named tensors.")
    return content


def _is_plain(value: object) -> bool:
    """Whether it is a tensor whose numbers are there, one beside the other."""
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and not (value.is_quantized or value.is_nested or value.is_complex())
    )


def _tell_want_of_memory(error: Exception, path: str | os.PathLike[str]) -> None:
    """Tells what a reader raises without memory from what it raises of a file that asks for more than it holds."""
    if isinstance(error, MemoryError) or "allocate memory" in str(error):
        try:
            np.empty(_SPARE_BYTES + _COPIES * os.path.getsize(path), np.uint8)
        except MemoryError:
            raise MemoryError(str(error)) from error


def _fitted(tensors: StateDict, weights: Weights, trunk: Trunk, backbone: str, path: Path) -> StateDict:
    """The file's tensors under the module's names, in float32; refused unless names and shapes all agree."""
    renamed: StateDict = {}
    twice = []
    for name, tensor in tensors.items():
        ours = weights.rename(name)
        if ours is not None:
            if ours in renamed:
                twice.append(ours)
            renamed[ours] = tensor
    wanted = trunk.state_dict()
    for name in wanted:
        # Absent from checkpoints older than the counter; it takes no part in evaluation.
        if name.endswith(".num_batches_tracked"):
            renamed.setdefault(name, torch.tensor(0))
    problems = [
        *_listed("missing", (name for name in wanted if name not in renamed)),
        *_listed("there twice", twice),
        *_listed(
            "of another type",
            (
                f"{name} {renamed[name].dtype}"
                for name in wanted
                if name in renamed and renamed[name].is_floating_point() != wanted[name].is_floating_point()
            ),
        ),
        *_listed("not known", (name for name in renamed if name not in wanted)),
        *_listed(
            "of another shape",
            (
                f"{name} {tuple(renamed[name].shape)} instead of {tuple(wanted[name].shape)}"
                for name in wanted
                if name in renamed and renamed[name].shape != wanted[name].shape
            ),
        ),
    ]
    if problems:
        raise WeightsMismatchError(f"{printable(path)} does not fit {backbone}: " + "; ".join(problems))
    # Only now: a file may say that one number is a thousand million of them.
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in renamed.items()}


def _listed(title: str, names: Iterable[str]) -> list[str]:
    found = [printable(name)[:_LETTERS] for name in names]
    if not found:
        return []
    rest = f" and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
    return [f"{title}: {', '.join(found[:_LISTED])}{rest}"]
