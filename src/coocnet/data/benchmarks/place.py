"""Where benchmarks lie on this machine, and how they get there.

Below the data folder each set of pictures and each benchmark has a folder of its own::

    oxford-pictures/
        oxbuild_images-v1/      what the archive held
        archives/               the archive while it arrives; afterwards where it is to be kept
        checksums.json          what arrived first: later copies are held against it
    roxford5k/
        gnd_roxford5k.pkl       as published
        ground_truth.json       the same in our form
        checksums.json
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import platformdirs
from filelock import FileLock

from coocnet.data.benchmarks.check import Found, find_pictures
from coocnet.data.benchmarks.table import Archive, BenchmarkSource, Pictures
from coocnet.data.benchmarks.unpack import ENDINGS, UNFINISHED, unpack
from coocnet.errors import ArchiveError, BenchmarkError, FetchError, printable
from coocnet.fetch import fetch, sha256_of
from coocnet.output import written_whole

DATA_FOLDER_VARIABLE = "COOCNET_DATA"
CHECKSUMS_NAME = "checksums.json"
_ARCHIVES = "archives"
_UNPACKED_PER_ARCHIVE_BYTE = 1.1

Progress = Callable[[str, int, int | None, str], None]
"""Called with the step ("Downloading x.tgz"), how much is done, of how much, and the unit: "bytes" or "pictures"."""


def data_folder(place: str | os.PathLike[str] | None = None) -> Path:
    """The folder of all benchmarks: the one given, else that of ``COOCNET_DATA``, else one in the user's cache."""
    chosen = place or os.environ.get(DATA_FOLDER_VARIABLE)
    if chosen:
        return Path(os.path.abspath(os.path.expanduser(os.fspath(chosen))))
    return Path(platformdirs.user_cache_dir("coocnet")) / "benchmarks"


@dataclass(frozen=True)
class Checksum:
    """What is known of a file that was downloaded.

    Attributes:
        sha256: of its bytes.
        size_bytes: of the file.
        recorded: the day on which it arrived first, ISO 8601; None where its authors publish the checksum.
    """

    sha256: str
    size_bytes: int
    recorded: str | None

    def __str__(self) -> str:
        known = f"recorded on {self.recorded}, not published" if self.recorded else "as published"
        return f"SHA-256 {self.sha256}, {known}"


def checksums(folder: Path) -> dict[str, Checksum]:
    """What was recorded in a folder, by file name; empty where nothing was.

    Raises:
        BenchmarkError: the record does not parse.
    """
    path = folder / CHECKSUMS_NAME
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        return {
            str(name): Checksum(str(one["sha256"]), int(one["size_bytes"]), one["recorded"])
            for name, one in table.items()
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise BenchmarkError(
            f"{printable(path)} is damaged ({error}): delete it to have the checksums recorded anew"
        ) from error


def is_unpacked(pictures: Pictures, root: Path) -> list[bool]:
    """For each archive of a set of pictures, whether what it held is below the data folder.

    Args:
        pictures: the set.
        root: the data folder.
    """
    return [_unpacked(archive, root / pictures.folder).is_dir() for archive in pictures.archives]


def fetch_pictures(
    pictures: Pictures, root: Path, *, keep_archives: bool = False, progress: Progress | None = None
) -> None:
    """Downloads and unpacks what is not there yet; goes on where an interruption left it.

    Raises:
        ArchiveError: an archive that is none, or has in it what must not be unpacked.
        BenchmarkError: an archive that is not what was recorded or cannot be had over http, or too little space on
            the disk.
        FetchError: every mirror failed.
    """
    folder = root / pictures.folder
    _need_by_hand(pictures, folder)
    for archive in pictures.archives:
        target = _unpacked(archive, folder)
        if target.is_dir():
            continue
        with _alone(folder):
            if target.is_dir():
                continue
            _fetch_and_unpack(archive, folder, target, progress, keep=keep_archives)


def pictures_of(
    source: BenchmarkSource,
    root: Path,
    existing: str | os.PathLike[str] | None,
    *,
    download: bool,
    progress: Progress | None,
) -> tuple[Found, Path]:
    """What there is of a benchmark's pictures, and the folder that they are in.

    Raises:
        BenchmarkError: they are not here, or what was fetched cannot be used.
        FetchError: every mirror of a file failed.
    """
    if existing is not None:
        where = Path(os.path.abspath(os.path.expanduser(os.fspath(existing))))
        return find_pictures(where, passed_over=source.pictures.passed_over if source.pictures else ()), where
    assert source.pictures is not None
    if download:
        fetch_pictures(source.pictures, root, progress=progress)
    where = root / source.pictures.folder
    if not any(is_unpacked(source.pictures, root)):
        raise BenchmarkError(
            f"{source.name} is not at {printable(root)}: fetch it with  coocnet datasets fetch {source.name}"
        )
    unfinished = [_unpacked(archive, where).name + UNFINISHED for archive in source.pictures.archives]
    return find_pictures(where, passed_over=(*source.pictures.passed_over, *unfinished, _ARCHIVES)), where


def fetch_truth(source: BenchmarkSource, archive: Archive, root: Path, *, progress: Progress | None = None) -> Path:
    """A file of ground truth, downloaded if it is not there; :func:`record` it once it was read.

    Raises:
        BenchmarkError: it is not the file that was recorded.
        FetchError: every mirror failed.
    """
    folder = root / source.name
    with _alone(folder):
        return _download(archive, folder / archive.file, folder, progress)


def record(archive: Archive, path: Path, folder: Path) -> Checksum:
    """Notes what arrived under an archive's name, unless that is known already."""
    known = checksums(folder)
    if archive.file not in known:
        today = None if archive.sha256 else datetime.now(timezone.utc).date().isoformat()
        known[archive.file] = Checksum(sha256_of(path), path.stat().st_size, today)
        table = {name: vars(one) for name, one in known.items()}
        with written_whole(folder / CHECKSUMS_NAME) as unfinished:
            Path(unfinished).write_text(json.dumps(table, indent=1), encoding="utf-8")
    return known[archive.file]


def checked_archives(pictures: Pictures, root: Path) -> list[str]:
    """Archives that were kept and are not what was recorded, with the two checksums.

    Raises:
        BenchmarkError: the record does not parse.
    """
    folder = root / pictures.folder
    known = checksums(folder)
    wrong = []
    for archive in pictures.archives:
        path = folder / _ARCHIVES / archive.file
        if archive.file in known and path.is_file() and (digest := sha256_of(path)) != known[archive.file].sha256:
            wrong.append(f"{archive.file} has SHA-256 {digest}; {known[archive.file]}")
    return wrong


def _fetch_and_unpack(archive: Archive, folder: Path, target: Path, progress: Progress | None, *, keep: bool) -> None:
    path = folder / _ARCHIVES / archive.file
    was_there = path.is_file()
    _download(archive, path, folder, progress)

    def unpacking(done_bytes: int, total_bytes: int) -> None:
        if progress:
            progress(f"Unpacking {archive.file}", done_bytes, total_bytes, "bytes")

    _need_space(folder, int(path.stat().st_size * _UNPACKED_PER_ARCHIVE_BYTE))
    try:
        unpack(path, target, progress=unpacking)
    except ArchiveError as error:
        if was_there:
            raise ArchiveError(f"{error}. Delete {printable(path)} to have it fetched again.") from error
        path.unlink()
        raise ArchiveError(f"{error}. What had arrived was deleted; the same command fetches it again.") from error
    record(archive, path, folder)
    if not keep and archive.urls:
        path.unlink()
        with suppress(OSError):
            Path(f"{path}.lock").unlink(missing_ok=True)
            path.parent.rmdir()


def _download(archive: Archive, path: Path, folder: Path, progress: Progress | None) -> Path:
    known = checksums(folder).get(archive.file)
    expected = archive.sha256 or (known.sha256 if known else None)
    if not archive.urls:
        return _as_recorded(archive, path, expected)
    checked = False

    def downloading(done_bytes: int, total_bytes: int | None) -> None:
        nonlocal checked
        if not checked and total_bytes is not None:
            unpacked = total_bytes * _UNPACKED_PER_ARCHIVE_BYTE if path.name.endswith(ENDINGS) else 0
            _need_space(folder, int(total_bytes - done_bytes + unpacked))
            checked = True
        if progress:
            progress(f"Downloading {archive.file}", done_bytes, total_bytes, "bytes")

    if archive.size_bytes and not path.is_file():
        _need_space(folder, archive.size_bytes)
    try:
        return fetch(archive.urls, path, sha256=expected, progress=downloading)
    except FetchError as error:
        if archive.sha256 or known is None or "SHA-256" not in str(error):
            raise
        raise BenchmarkError(
            f"{archive.file} is not the file that arrived here on {known.recorded}, whose checksum was recorded then "
            f"because none is published. To accept the new one, delete its entry in "
            f"{printable(folder / CHECKSUMS_NAME)}.\n{error}"
        ) from error


def _need_by_hand(pictures: Pictures, folder: Path) -> None:
    """Says all at once what a person has to fetch."""
    archives = folder / _ARCHIVES
    missing = [
        one
        for one in pictures.archives
        if not (one.urls or _unpacked(one, folder).is_dir() or (archives / one.file).is_file())
    ]
    if missing:
        how = "\n".join(f"  {one.file}: {one.by_hand}" for one in missing)
        raise BenchmarkError(
            f"these cannot be downloaded by coocnet:\n{how}\nPut them into {printable(archives)} and give the same "
            "command again, or name a folder that has the pictures with --existing."
        )


def _as_recorded(archive: Archive, path: Path, expected: str | None) -> Path:
    if expected and (digest := sha256_of(path)) != expected:
        raise BenchmarkError(
            f"{printable(path)} has SHA-256 {digest}, but {expected} was recorded for {archive.file}: "
            f"put the right file there, or delete its entry in {CHECKSUMS_NAME}"
        )
    return path


def _unpacked(archive: Archive, folder: Path) -> Path:
    name = archive.file
    for ending in ENDINGS:
        name = name.removesuffix(ending)
    return folder / name


def _need_space(folder: Path, size_bytes: int) -> None:
    there = next(parent for parent in (folder, *folder.parents) if parent.is_dir())
    free = shutil.disk_usage(there).free
    if free < size_bytes:
        raise BenchmarkError(
            f"the disk of {printable(folder)} has {free / 1e9:.1f} GB free; {size_bytes / 1e9:.1f} GB are needed: "
            "free some, or choose another place with --to; what has arrived is kept"
        )


def _alone(folder: Path) -> FileLock:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BenchmarkError(
            f"{printable(folder)} cannot be written: {error.strerror or error}; choose another place with --to"
        ) from error
    return FileLock(folder / ".lock")
