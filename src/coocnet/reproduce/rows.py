"""Rows of a benchmark's pictures, described once and kept: interrupted work goes on where it stopped."""

from __future__ import annotations

import errno
import hashlib
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from coocnet.data.benchmarks import Progress, data_folder
from coocnet.data.images import Box, unreadable
from coocnet.describe import Describer
from coocnet.errors import UNREADABLE, BenchmarkError, ImageError, printable
from coocnet.fetch import sha256_of
from coocnet.output import written_whole

_SHARD_ROWS = 256
_KEY_BYTES = 16
_NAMED = 10


class Part(NamedTuple):
    """A picture, or a part of one, as it is to be described.

    Attributes:
        path: its file.
        box: the part that is described; None for all of it.
        upright: turned by its EXIF orientation, or taken as stored.
    """

    path: Path
    box: Box | None = None
    upright: bool = False


class Digests:
    """SHA-256 of picture files, each read once."""

    def __init__(self) -> None:
        self._known: dict[Path, str] = {}

    def of(self, path: Path) -> str:
        """Hexadecimal digest of a file.

        Raises:
            BenchmarkError: it cannot be read.
        """
        if path not in self._known:
            try:
                self._known[path] = sha256_of(path)
            except OSError as error:
                raise BenchmarkError(f"{printable(path)} {unreadable(error)}") from error
        return self._known[path]


class RowStore:
    """Rows of one recipe and one set of weights in a folder, by what they were made from.

    A row is filed under its picture's content and box, so pictures may move, and benchmarks may share them. Shards of
    rows are written whole, the rows before their keys: what a killed run leaves is either there or not.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._place: dict[bytes, tuple[Path, int]] = {}
        for keys_file in sorted(folder.glob("*.keys.npy")):
            keys = _loaded(keys_file, keys_file)
            if keys.ndim != 2 or keys.shape[1] != _KEY_BYTES or keys.dtype != np.uint8:
                raise BenchmarkError(f"{printable(keys_file)} holds no keys: delete it, its rows are made anew")
            self._place |= {key.tobytes(): (keys_file, at) for at, key in enumerate(keys)}

    @classmethod
    def of(cls, describer: Describer, place: str | os.PathLike[str] | None) -> RowStore:
        """The store of a describer's rows below the data folder."""
        name = f"{describer.recipe.row_fingerprint()}-{describer.weights_sha256[:16]}"
        return cls(data_folder(place) / "rows" / name)

    def __contains__(self, key: bytes) -> bool:
        return key in self._place

    def rows(self, keys: Sequence[bytes], dim: int) -> Float[np.ndarray, "n dim"]:
        """The rows filed under these keys; one shard is read at a time.

        Raises:
            BenchmarkError: a shard is damaged or gone.
        """
        out = np.empty((len(keys), dim), np.float32)
        wanted: dict[Path, list[int]] = defaultdict(list)
        for number, key in enumerate(keys):
            wanted[self._place[key][0]].append(number)
        for keys_file, numbers in wanted.items():
            shard = _loaded(_rows_file(keys_file), keys_file)
            at = [self._place[keys[number]][1] for number in numbers]
            if shard.ndim != 2 or shard.shape[1] != dim or max(at) >= len(shard):
                raise BenchmarkError(f"{printable(keys_file)} does not fit its rows: delete both, they are made anew")
            out[numbers] = shard[at]
        return out

    def put(self, rows: Mapping[bytes, np.ndarray]) -> None:
        """Writes rows as a shard.

        Raises:
            InputError: the disk is full or read-only.
        """
        if not rows:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        keys = np.array([np.frombuffer(key, np.uint8) for key in rows])
        stacked = np.stack(list(rows.values())).astype(np.float32)
        keys_file = self._folder / f"{hashlib.sha256(keys.tobytes()).hexdigest()[:24]}.keys.npy"
        for target, array in ((_rows_file(keys_file), stacked), (keys_file, keys)):
            with written_whole(target) as unfinished:
                np.save(unfinished, array, allow_pickle=False)
        self._place |= {key: (keys_file, at) for at, key in enumerate(rows)}


def described(
    describer: Describer,
    parts: Sequence[Part],
    store: RowStore,
    digests: Digests,
    *,
    what: str = "Describing",
    progress: Progress | None = None,
) -> Float[np.ndarray, "n dim"]:
    """The row of each part, from the store where it is there; what is described is stored, also when interrupted.

    Raises:
        BenchmarkError: pictures that cannot be described, with their names and reasons; all others are stored.
    """
    keys = [key_of(part, digests) for part in parts]
    missing = {key: part for key, part in zip(keys, parts, strict=True) if key not in store}
    failed: list[ImageError] = []
    fresh: dict[bytes, np.ndarray] = {}
    try:
        for done, (key, row) in enumerate(_stream(describer, missing), start=1):
            if isinstance(row, ImageError):
                failed.append(row)
            else:
                fresh[key] = row
            if len(fresh) >= _SHARD_ROWS:
                store.put(fresh)
                fresh = {}
            if progress:
                progress(what, len(parts) - len(missing) + done, len(parts), "pictures")
    finally:
        store.put(fresh)
    if failed:
        named = "; ".join(map(str, failed[:_NAMED]))
        more = f"; and {len(failed) - _NAMED} more" if len(failed) > _NAMED else ""
        raise BenchmarkError(f"{len(failed)} of {len(parts)} pictures cannot be described: {named}{more}")
    return store.rows(keys, describer.dim)


def key_of(part: Part, digests: Digests) -> bytes:
    """What a row is filed under: the picture's content, the box, and which way up it is taken."""
    box = "" if part.box is None else ",".join(repr(float(edge)) for edge in part.box)
    text = f"{digests.of(part.path)}|{box}|{'upright' if part.upright else 'stored'}"
    return hashlib.blake2b(text.encode(), digest_size=_KEY_BYTES).digest()


def _stream(describer: Describer, missing: Mapping[bytes, Part]) -> Iterator[tuple[bytes, np.ndarray | ImageError]]:
    for (key, _), row in describer.stream(
        missing.items(), lambda item: describer.load(item[1].path, box=item[1].box, upright=item[1].upright)
    ):
        assert row is not None
        yield key, row


def _rows_file(keys_file: Path) -> Path:
    return keys_file.with_name(keys_file.name.replace(".keys.", ".rows."))


def _loaded(file: Path, keys_file: Path) -> np.ndarray:
    try:
        with open(file, "rb") as stream:
            array: np.ndarray = np.lib.format.read_array(stream, allow_pickle=False)  # type: ignore[no-untyped-call]
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE, errno.EACCES, errno.EIO):
            raise BenchmarkError(f"{printable(file)} cannot be read now: {error.strerror}") from error
        raise BenchmarkError(_unreadable(keys_file, error)) from error
    except UNREADABLE as error:
        raise BenchmarkError(_unreadable(keys_file, error)) from error
    return array


def _unreadable(keys_file: Path, error: Exception) -> str:
    return f"{printable(keys_file)} and its rows cannot be read ({error}): delete them, they are made anew"
