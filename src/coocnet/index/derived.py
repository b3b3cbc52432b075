"""Files beside an index that are derived from it: a table, and one large file that the table names.

The table is written last and whole, so it never names a file that is not there, and every array of it is guarded by
the checksum of its format. What cannot be read is as good as absent.
"""

from __future__ import annotations

import json
import secrets
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from coocnet.errors import UNREADABLE as UNREADABLE  # noqa: PLC0414 - for whoever reads such files
from coocnet.output import UNFINISHED, written_whole

_BEING_WRITTEN_S = 3600


@dataclass(frozen=True)
class Derived:
    """The names of a table and of the files it may name, in which ``{}`` stands for a random token."""

    table: str
    files: str

    def file_of(self, folder: Path, facts: dict[str, Any]) -> Path:
        """The large file that a table with these facts names."""
        return folder / self.files.format(bytes.fromhex(facts["token"]).hex())

    @contextmanager
    def reading(self, folder: Path) -> Iterator[tuple[dict[str, Any], Callable[[str], np.ndarray]]]:
        """The facts of the table, and a function that gives an array of it by name.

        Raises:
            One of :data:`UNREADABLE`: there is none, or it is damaged.
        """
        with open(folder / self.table, "rb") as stream, zipfile.ZipFile(stream) as table:
            yield json.loads(array_of(table, "facts").tobytes()), lambda name: array_of(table, name)

    def new(self, folder: Path) -> tuple[str, Path]:
        """A token for a new large file, and its path."""
        token = secrets.token_hex(8)
        return token, folder / self.files.format(token)

    def write(self, folder: Path, facts: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        """Writes the table, and removes the files of former states that no other process may be writing.

        Raises:
            InputError: it cannot be written.
        """
        before = self._named(folder)
        with written_whole(folder / self.table) as unfinished:
            content = np.frombuffer(json.dumps(facts).encode(), np.uint8)
            np.savez(unfinished, allow_pickle=False, facts=content, **arrays)
        current = self.file_of(folder, facts)
        for file in folder.glob(self.files.format("*")):
            with suppress(OSError):
                if file != current and (file == before or _is_abandoned(file)):
                    file.unlink()
        sweep(folder)

    def _named(self, folder: Path) -> Path | None:
        try:
            with self.reading(folder) as (facts, _):
                return self.file_of(folder, facts)
        except UNREADABLE:
            return None


def sweep(folder: Path) -> None:
    """Removes the unfinished files of processes that were ended while they wrote them."""
    for file in folder.glob(f"{UNFINISHED}*"):
        with suppress(OSError):
            if _is_abandoned(file):
                file.unlink()


def _is_abandoned(file: Path) -> bool:
    return time.time() - file.stat().st_mtime > _BEING_WRITTEN_S


def array_of(table: zipfile.ZipFile, name: str) -> np.ndarray:
    """An array that ``numpy.savez`` wrote, read to its end: before that nobody looks at its checksum.

    Raises:
        One of :data:`UNREADABLE`: it is not there, or damaged.
    """
    with table.open(f"{name}.npy") as member, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about what a damaged header says
        array = np.lib.format.read_array(member, allow_pickle=False)  # type: ignore[no-untyped-call]
        if member.read(1):  # only one that was read to its end has had its checksum looked at
            raise ValueError(f"{name} is longer than its header says")
        return np.asarray(array)


def spread(count: int, most: int) -> np.ndarray:
    """Up to ``most`` of the numbers 0 to ``count - 1``, the first and the last among them."""
    return np.linspace(0, max(0, count - 1), min(most, max(1, count))).astype(int)
