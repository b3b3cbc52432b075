"""Which pictures of a benchmark are here and whole: found by name, looked at, told by name."""

from __future__ import annotations

import os
import stat
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from coocnet.data.images import decode, read_bytes
from coocnet.data.walk import SUFFIXES, real_folder
from coocnet.errors import BenchmarkError, ImageError, InputError, printable

_QUICK_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP")
_JPEG_TAIL_BYTES = 2048

Progress = Callable[[int, int], None]
"""Called with pictures looked at so far, and all of them."""


@dataclass(frozen=True)
class Found:
    """What a folder holds.

    Attributes:
        pictures: the file for each name; the name is the file's, without a picture's ending.
        others: other files by their full name.
        twice: names that stand for two files of different size, with both.
    """

    pictures: dict[str, Path] = field(default_factory=dict)
    others: dict[str, Path] = field(default_factory=dict)
    twice: dict[str, tuple[Path, Path]] = field(default_factory=dict)


def find_pictures(folder: str | os.PathLike[str], *, passed_over: Collection[str] = ()) -> Found:
    """Every file below a folder by its name, whatever sub-folders it lies in; hidden ones left out.

    Links to folders are followed, as copies of these benchmarks are often shared by links. A picture that is there
    twice, in files of one size, counts as one: the first by path.

    Args:
        folder: where to look.
        passed_over: names of sub-folders that do not count.

    Raises:
        BenchmarkError: no such folder, or one below it cannot be listed.
    """
    try:
        root = real_folder(folder)
    except InputError as error:
        raise BenchmarkError(str(error)) from error
    if not os.path.isdir(root):
        raise BenchmarkError(f"{printable(root)} is not a folder; give the one that holds the pictures")
    found, seen = Found(), set[str]()

    def unlisted(error: OSError) -> None:
        raise BenchmarkError(f"the folder {printable(str(error.filename))} cannot be listed: {error.strerror}")

    for parent, folders, names in os.walk(root, followlinks=True, onerror=unlisted):
        if (real := os.path.realpath(parent)) in seen:
            folders[:] = []
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in passed_over)
        for name in sorted(names):
            if not name.startswith("."):
                _note(found, Path(parent, name))
    return found


def _note(found: Found, path: Path) -> None:
    if path.suffix.lower() not in SUFFIXES:
        found.others.setdefault(path.name, path)
        return
    there = found.pictures.setdefault(path.stem, path)
    if there != path:
        with suppress(OSError):
            if os.stat(there).st_size != os.stat(path).st_size:
                found.twice.setdefault(path.stem, (there, path))


def damage(pictures: Mapping[str, Path], *, full: bool, progress: Progress | None = None) -> dict[str, str]:
    """Why files are no pictures, by name; those that are do not appear.

    Cheaply, a header has to parse and a JPEG has to end as one; where either is in doubt, all is decoded.

    Args:
        pictures: the files.
        full: decode every pixel of every one.
        progress: called as it goes.
    """
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for done, (name, path) in enumerate(pictures.items(), 1):
            if full or not _looks_whole(path):
                try:
                    decode(read_bytes(path), path, size_px=None)
                except ImageError as error:
                    found[name] = error.reason
            if progress:
                progress(done, len(pictures))
    return found


@dataclass(frozen=True)
class Report:
    """How what is here compares with what a benchmark's ground truth names.

    Attributes:
        expected: number of pictures that it names, database and queries.
        missing: names of those that are not there.
        damaged: those that are there and are no pictures, with the reason.
        unexpected: names of pictures that it does not name.
        known_damaged: files that are there and are damaged in the published archive; nothing names them.
        checksums: each file that was downloaded with its checksum, or that it is unverified.
        differences: what disagrees with the published numbers of pictures and queries, or with a checksum.
    """

    expected: int
    missing: tuple[str, ...] = ()
    damaged: tuple[tuple[str, str], ...] = ()
    unexpected: tuple[str, ...] = ()
    known_damaged: tuple[str, ...] = ()
    checksums: tuple[str, ...] = ()
    differences: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether this is the benchmark as published: nothing missing, damaged or different."""
        return not (self.missing or self.damaged or self.differences)

    def summary(self) -> str:
        """What keeps it from being complete, the first 20 names of each kind; empty if nothing does."""
        parts = list(self.differences)
        if self.missing:
            parts.append(f"{len(self.missing):,} of {self.expected:,} pictures are missing: {first(self.missing)}")
        if self.damaged:
            named = [f"{name} ({reason})" for name, reason in self.damaged]
            parts.append(f"{len(self.damaged):,} are damaged: {first(named)}")
        return "; ".join(parts)


def first(names: Iterable[str], count: int = 20) -> str:
    """The first names of many, and how many more there are."""
    listed = [printable(name) for name in names]
    rest = f" and {len(listed) - count:,} more" if len(listed) > count else ""
    return ", ".join(listed[:count]) + rest


def _looks_whole(path: Path) -> bool:
    """Whether a picture's start and end look right."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return False
        with path.open("rb") as stream:
            with Image.open(stream, formats=_QUICK_FORMATS) as image:
                kind = image.format
            stream.seek(0, os.SEEK_END)
            stream.seek(max(0, stream.tell() - _JPEG_TAIL_BYTES))
            return kind != "JPEG" or b"\xff\xd9" in stream.read()
    except Exception:  # noqa: BLE001 - decoding all of it finds the reason
        return False
