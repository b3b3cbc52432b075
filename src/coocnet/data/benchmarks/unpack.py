"""Unpacks archives of strangers: nothing lands outside the folder, nothing grows without bound.

Every member is written here, byte by byte, as a new regular file under a name that was checked; links, devices, modes
and owners are never honoured. That leaves ``tarfile``'s own data filter nothing to do, which the oldest supported
Pythons do not have.
"""

from __future__ import annotations

import gzip
import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from coocnet.errors import ArchiveError, BenchmarkError, printable

UNFINISHED = ".unfinished"
ENDINGS = (".tar.gz", ".tgz", ".tar", ".zip")
_BLOCK_BYTES = 1 << 20
_MAX_FILE_BYTES = 1 << 29
_MAX_FILES = 500_000
_MAX_DEPTH = 16
_MAX_NAME_BYTES = 255
_FREE_AT_LEAST_BYTES = 1 << 28
# Photographs do not compress; a text file of names does, ten times.
_GROWTH_LIMIT = 4
_GROWTH_FREE_BYTES = 1 << 26

Progress = Callable[[int, int], None]
"""Called with the bytes of the archive that were read, and all of them."""


def unpack(
    archive: str | os.PathLike[str], folder: str | os.PathLike[str], *, progress: Progress | None = None
) -> int:
    """Unpacks a tar, compressed or not, or a zip into a new folder, which appears when it is complete.

    It is filled as ``folder`` + ``.unfinished``; one that an interruption left is begun anew.

    Args:
        archive: the file, by its ending one of :data:`ENDINGS`.
        folder: must not be there.
        progress: called as it goes.

    Returns:
        Number of files.

    Raises:
        ArchiveError: not an archive, damaged, or one with a member that has no business there: a path that leads
            out, a link, a device, a name twice, a file above 512 MiB, more than half a million files, or in all more
            than four times the archive. Nothing of it stays.
        BenchmarkError: the folder is there, cannot be written, or its disk is nearly full.
    """
    source, target = Path(archive), Path(folder)
    unfinished = target.with_name(target.name + UNFINISHED)
    if target.exists():
        raise BenchmarkError(f"{printable(target)} is there already: delete it to unpack {source.name} anew")
    try:
        if unfinished.exists():
            shutil.rmtree(unfinished)
        unfinished.mkdir(parents=True)
        with _understood(source):
            count = _Writer(source, unfinished, progress).write_all()
        unfinished.rename(target)
    except ArchiveError:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    except OSError as error:
        raise BenchmarkError(
            f"{source.name} cannot be unpacked to {printable(unfinished)}: {error.strerror or error}"
        ) from error
    return count


@contextmanager
def _understood(source: Path) -> Iterator[None]:
    """What the readers of archives raise on damaged ones, as our error."""
    try:
        yield
    except (
        *(tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError, ValueError, LookupError),
        *(RuntimeError, NotImplementedError, OverflowError, MemoryError, lzma.LZMAError),
    ) as error:
        start = _first_bytes(source)
        page = ": it holds a web page" if start.lstrip()[:1] == b"<" else ""
        raise ArchiveError(
            f"{source.name} is not an archive of its kind, or damaged ({printable(str(error))[:200]}).{page}"
        ) from error


def _first_bytes(source: Path) -> bytes:
    with suppress(OSError), source.open("rb") as stream:
        return stream.read(64)
    return b""


class _Writer:
    def __init__(self, source: Path, folder: Path, progress: Progress | None) -> None:
        self.source = source
        self.folder = folder
        self.progress = progress
        self.archive_bytes = source.stat().st_size
        self.limit_bytes = _GROWTH_LIMIT * self.archive_bytes + _GROWTH_FREE_BYTES
        self.files = 0
        self.written_bytes = 0

    def write_all(self) -> int:
        if self.source.name.endswith(".zip"):
            self.write_zip()
        elif self.source.name.endswith(ENDINGS):
            self.write_tar()
        else:
            raise ArchiveError(f"{self.source.name} is not a kind of archive known here: {', '.join(ENDINGS)}")
        return self.files

    def write_tar(self) -> None:
        with self.source.open("rb") as raw:
            plain = gzip.GzipFile(fileobj=raw) if self.source.name.endswith("gz") else raw
            bounded = _Bounded(plain, self.limit_bytes, self.refuse)
            with tarfile.open(fileobj=bounded, mode="r:") as tar:  # type: ignore[call-overload]
                while (member := tar.next()) is not None:
                    tar.members = []  # or a million of them would stay in memory
                    if member.isdir():
                        self.place(member.name)
                        continue
                    if not member.isreg() or member.sparse is not None:
                        self.refuse(f"{self.quoted(member.name)} is not a regular file: a link, a device or sparse")
                    stream = tar.extractfile(member)
                    assert stream is not None
                    self.write(member.name, stream, member.size, raw)
            bounded.read_on()  # only at its end a gzip stream is held against its checksum

    def write_zip(self) -> None:
        with self.source.open("rb") as raw, zipfile.ZipFile(raw) as archive:
            for member in archive.infolist():
                kind = stat.S_IFMT(member.external_attr >> 16)
                if member.is_dir():
                    self.place(member.filename)
                    continue
                if kind not in (0, stat.S_IFREG):
                    self.refuse(f"{self.quoted(member.filename)} is not a regular file: a link or a device")
                with archive.open(member) as stream:
                    self.write(member.filename, stream, member.file_size, raw)

    def write(self, name: str, stream: IO[bytes], size_bytes: int, raw: IO[bytes]) -> None:
        path = self.place(name)
        self.files += 1
        if self.files > _MAX_FILES:
            self.refuse(f"it has more than {_MAX_FILES:,} files")
        if size_bytes > _MAX_FILE_BYTES:
            self.refuse(f"{self.quoted(name)} is larger than {_MAX_FILE_BYTES >> 20} MiB")
        self.need_space(size_bytes)
        path.parent.mkdir(parents=True, exist_ok=True)
        if os.path.lexists(path):
            self.refuse(f"{self.quoted(name)} is in it twice, or differs from another name by case alone")
        left = size_bytes
        with path.open("xb") as file:
            while block := stream.read(_BLOCK_BYTES):
                left -= len(block)
                self.written_bytes += len(block)
                if left < 0:
                    self.refuse(f"{self.quoted(name)} is larger than it says")
                if self.written_bytes > self.limit_bytes:
                    self.refuse(f"it grows to more than {self.limit_bytes >> 20} MiB")
                file.write(block)
        if left:
            raise EOFError(f"{printable(name)} ends {left} bytes early")
        if self.progress:
            self.progress(min(raw.tell(), self.archive_bytes), self.archive_bytes)

    def place(self, name: str) -> Path:
        """Where a member goes: below the folder, whatever its name says."""
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if name.startswith("/") or ".." in parts or any(mark in name for mark in ("\\", ":", "\0")):
            self.refuse(f"{self.quoted(name)} leads out of its folder")
        too_long = any(len(os.fsencode(part)) > _MAX_NAME_BYTES for part in parts) or len(parts) > _MAX_DEPTH
        if too_long or not name.isprintable():
            self.refuse(f"{self.quoted(name)} is no name that a picture has")
        return self.folder.joinpath(*parts)

    def need_space(self, size_bytes: int) -> None:
        free = shutil.disk_usage(self.folder).free
        if free < size_bytes + _FREE_AT_LEAST_BYTES:
            raise BenchmarkError(
                f"the disk of {printable(self.folder.parent)} is nearly full ({free / 1e9:.1f} GB are free): free "
                "some, or choose another place, and give the same command again"
            )

    def refuse(self, reason: str) -> None:
        raise ArchiveError(f"{self.source.name} is not unpacked: {reason}")

    @staticmethod
    def quoted(name: str) -> str:
        return repr(printable(name))[:200]


class _Bounded:
    """A stream of which no reader can have too much: headers of a tar may claim any size."""

    def __init__(self, stream: IO[bytes] | gzip.GzipFile, limit_bytes: int, refuse: Callable[[str], None]) -> None:
        self.stream = stream
        self.limit_bytes = limit_bytes
        self.refuse = refuse

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= 2 * _BLOCK_BYTES:
            self.refuse("one of its headers is of absurd size")
        return self.stream.read(size)

    def seek(self, place: int) -> int:
        # A skipped member has to be decompressed too, and a place far beyond the end would take as long.
        if place > self.limit_bytes:
            self.refuse(f"it grows to more than {self.limit_bytes >> 20} MiB")
        return self.stream.seek(place)

    def read_on(self) -> None:
        while self.stream.read(_BLOCK_BYTES):
            if self.stream.tell() > self.limit_bytes:
                self.refuse(f"it grows to more than {self.limit_bytes >> 20} MiB")

    def tell(self) -> int:
        return self.stream.tell()
