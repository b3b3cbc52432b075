"""From a benchmark's name to its ground truth and its pictures, checked; or an error that says what is missing."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from coocnet.data.benchmarks.check import Found, Report, damage
from coocnet.data.benchmarks.place import (
    Progress,
    checked_archives,
    checksums,
    data_folder,
    fetch_pictures,
    is_unpacked,
    pictures_of,
)
from coocnet.data.benchmarks.table import Archive, BenchmarkSource, lookup
from coocnet.data.benchmarks.training import SPLITS, training_files
from coocnet.data.benchmarks.truth import ground_truth, truth_file
from coocnet.data.images import Box, unreadable
from coocnet.errors import BenchmarkError, InputError, printable
from coocnet.evaluate.ground_truth import GroundTruth, Query
from coocnet.evaluate.provenance import picture_set
from coocnet.fetch import sha256_of

_DISTRACTORS = "revisitop1m"

Place = str | os.PathLike[str]


@dataclass(frozen=True)
class OpenedBenchmark:
    """A benchmark on this machine, ready to be described and scored.

    Attributes:
        source: its entry in the table; ``source.upright`` says how its pictures are to be decoded.
        ground_truth: what is right for each query.
        images: the file of each database picture, in the order of the ground truth.
        queries: for each query, the file and the part of it that is looked for.
        report: what is missing, damaged or unverified.
        truth_origin: which file the ground truth was read from, with its checksum.
        distractors: pictures that are added to the database and are never right, sorted by name.
    """

    source: BenchmarkSource
    ground_truth: GroundTruth
    images: list[Path]
    queries: list[tuple[Path, Box | None]]
    report: Report
    truth_origin: str
    distractors: list[Path] = field(default_factory=list)

    def picture_set(
        self,
        *,
        digest: Callable[[Path], str] = sha256_of,
        progress: Callable[[int, int], None] | None = None,
    ) -> dict[str, Any]:
        """Number of pictures, and one SHA-256 over their names and contents: for a result's manifest.

        Two people with the same pictures get the same, wherever and in whatever folders they lie. Distractors take no
        part.

        Args:
            digest: of a file, where it is known already.
            progress: called with pictures read, and pictures in all.

        Raises:
            BenchmarkError: a picture can no longer be read.
        """
        named = dict(zip(self.ground_truth.images, self.images, strict=True))
        named |= {query.image: path for query, (path, _) in zip(self.ground_truth.queries, self.queries, strict=True)}

        def digests() -> Iterator[tuple[str, str]]:
            for done, (name, path) in enumerate(named.items(), 1):
                try:
                    yield name, digest(path)
                except OSError as error:
                    raise BenchmarkError(f"{printable(path)} {unreadable(error)}") from error
                if progress:
                    progress(done, len(named))

        return picture_set(digests())


def open_benchmark(
    name: str,
    *,
    place: Place | None = None,
    existing: Place | None = None,
    distractors: bool | Place = False,
    download: bool = True,
    full: bool = False,
    allow_missing: bool = False,
    progress: Progress | None = None,
) -> OpenedBenchmark:
    """The pictures and the ground truth of a benchmark, fetched where they are not here, checked, in order.

    Args:
        name: a key of :data:`~coocnet.data.benchmarks.BENCHMARKS`.
        place: the data folder, see :func:`~coocnet.data.benchmarks.data_folder`.
        existing: a folder where the pictures are already, in any sub-folders; used as it is, nothing in it changes.
            A ground truth in it (``gnd_<name>.pkl`` or ``.json``, or the text files) goes before a published one.
            For "folder" it is the folder with the manifest.
        distractors: True to add the million distractors from the data folder; a path to take them from there.
        download: False to use only what is here.
        full: decode every picture, not only look at its start and end.
        allow_missing: leave out what is missing or damaged and go on; the report says what. Such a score is not one
            of this benchmark.
        progress: called with the step, how much is done, of how much, and the unit.

    Raises:
        InputError: no such benchmark, or it is not one that has queries.
        BenchmarkError: pictures are missing or damaged, with their names; or the ground truth cannot be used.
        FetchError: every mirror of a file failed.
    """
    source, root = lookup(name), data_folder(place)
    if source.kind in ("distractors", "training"):
        how = (
            "give distractors=True with another" if source.kind == "distractors" else "it is opened by open_training"
        )
        raise InputError(f"{name} is no benchmark with queries: {how}")
    here = _looked_at(source, root, existing, pictures=download, truth=download, full=full, progress=progress)
    truth, files = here.truth, here.files
    if not here.report.complete:
        if not allow_missing:
            raise BenchmarkError(_what_to_do(source, here, existing))
        truth = _without(truth, {*here.report.missing, *(name for name, _ in here.report.damaged)})
    return OpenedBenchmark(
        source,
        truth,
        [files[image] for image in truth.images],
        [(files[query.image], query.box) for query in truth.queries],
        here.report,
        here.origin,
        _distractors(distractors, root),
    )


def published_truth(
    name: str, *, place: Place | None = None, download: bool = True, progress: Progress | None = None
) -> GroundTruth:
    """The published ground truth of a benchmark, without its pictures: to score what was made elsewhere.

    Args:
        name: of the benchmark.
        place: the data folder; see :func:`data_folder`.
        download: fetch what is not here.
        progress: called while files are downloaded.

    Raises:
        InputError: no such benchmark, or one without queries of its own.
        BenchmarkError: it is not here and must not be downloaded, or cannot be used.
        FetchError: every mirror failed.
    """
    source = lookup(name)
    if source.kind in ("distractors", "training", "manifest"):
        raise InputError(f"{name} has no published ground truth")
    return ground_truth(source, data_folder(place), Found(), None, download=download, progress=progress)[0]


def fetch_benchmark(
    name: str, *, place: Place | None = None, keep_archives: bool = False, progress: Progress | None = None
) -> Path:
    """Downloads what is not here yet of a benchmark, the distractors or a training set; goes on after interruptions.

    Args:
        name: a key of the table.
        place: the data folder.
        keep_archives: leave the archives beside what they held.
        progress: as in :func:`open_benchmark`.

    Returns:
        The folder of its pictures.

    Raises:
        InputError: no such entry, or one that is the user's own folder.
        ArchiveError: an archive is damaged, or has in it what must not be unpacked.
        BenchmarkError: a file is not what was recorded or cannot be had over http, or the disk is too small.
        FetchError: every mirror of a file failed.
    """
    source, root = lookup(name), data_folder(place)
    if source.pictures is None:
        raise InputError(f"{name} is a folder of your own: there is nothing to fetch")
    for archive in source.truth:
        truth_file(source, archive, root, download=True, progress=progress)
    fetch_pictures(source.pictures, root, keep_archives=keep_archives, progress=progress)
    if source.kind == "training":
        for split in SPLITS:
            training_files(name, split=split, place=root, existing=None, download=False, progress=None)
    elif source.truth:
        ground_truth(source, root, Found(), None, download=False, progress=None)
    return root / source.pictures.folder


def check_benchmark(
    name: str,
    *,
    place: Place | None = None,
    existing: Place | None = None,
    full: bool = False,
    progress: Progress | None = None,
) -> Report:
    """What is amiss with a benchmark, the distractors or a training set; pictures are not downloaded, a truth is.

    Args:
        name: a key of the table.
        place: the data folder.
        existing: as in :func:`open_benchmark`.
        full: decode every picture, and compare archives that were kept with what was recorded.
        progress: as in :func:`open_benchmark`.

    Raises:
        InputError: no such entry, or it needs ``existing``.
        BenchmarkError: nothing of it is here, or its ground truth cannot be used.
        FetchError: every mirror of a ground truth failed.
    """
    source, root = lookup(name), data_folder(place)
    if source.pictures and existing is None and not any(is_unpacked(source.pictures, root)):
        raise BenchmarkError(
            f"{name} is not at {printable(root)}: fetch it with  coocnet datasets fetch {name}  or name the folder "
            "that has the pictures with --existing"
        )
    if source.kind == "training":
        report = _check_training(source, root, existing, full=full, progress=progress)
    elif source.kind == "distractors":
        report = _check_distractors(source, root, existing, full=full, progress=progress)
    else:
        report = _looked_at(source, root, existing, pictures=False, truth=True, full=full, progress=progress).report
    wrong = checked_archives(source.pictures, root) if full and source.pictures else []
    return replace(report, differences=(*report.differences, *wrong))


@dataclass(frozen=True)
class _Here:
    """What is here of a benchmark, whether complete or not; its files are in the folder ``where``."""

    truth: GroundTruth
    origin: str
    where: Path
    files: dict[str, Path]
    report: Report


def _looked_at(
    source: BenchmarkSource,
    root: Path,
    existing: Place | None,
    *,
    pictures: bool,
    truth: bool,
    full: bool,
    progress: Progress | None,
) -> _Here:
    """Finds and checks the pictures and the truth, each downloaded first where that is allowed."""
    if source.pictures is None and existing is None:
        raise InputError(f"{source.name} is a folder of your own: name it (on the command line, with --existing)")
    found, where = pictures_of(source, root, existing, download=pictures, progress=progress)
    read, origin = ground_truth(source, root, found, existing, download=truth, progress=progress)
    files = _files(source, read, found, where)
    wanted = dict.fromkeys((*read.images, *(query.image for query in read.queries)))
    report = _report(source, found, wanted, files, root=root, existing=existing, full=full, progress=progress)
    report = replace(report, differences=(*_differences(source, read), *_archives_missing(source, root, existing)))
    return _Here(read, origin, where, files, report)


def _check_training(
    source: BenchmarkSource, root: Path, existing: Place | None, *, full: bool, progress: Progress | None
) -> Report:
    wanted, files = dict[str, None](), dict[str, Path]()
    for split in SPLITS:
        pairs, here, _ = training_files(
            source.name, split=split, place=root, existing=existing, download=existing is not None, progress=progress
        )
        wanted |= dict.fromkeys(pairs.images)
        files |= here
    return _report(source, Found(), wanted, files, root=root, existing=existing, full=full, progress=progress)


def _check_distractors(
    source: BenchmarkSource, root: Path, existing: Place | None, *, full: bool, progress: Progress | None
) -> Report:
    """Nobody lists what is in the archives: what is there is looked at, and archives that are not are counted."""
    found, _ = pictures_of(source, root, existing, download=False, progress=progress)
    report = _report(
        source, found, found.pictures, found.pictures, root=root, existing=existing, full=full, progress=progress
    )
    return replace(report, differences=tuple(_archives_missing(source, root, existing)))


def _files(source: BenchmarkSource, truth: GroundTruth, found: Found, where: Path) -> dict[str, Path]:
    """The file of each picture that the ground truth names and that is there."""
    wanted = dict.fromkeys((*truth.images, *(query.image for query in truth.queries)))
    if source.kind == "manifest":
        return {name: where / name for name in wanted if (where / name).is_file()}
    for name in wanted:
        if name in found.twice:
            one, other = map(printable, found.twice[name])
            raise BenchmarkError(f"{name} is there twice, and the two differ: {one} and {other}; name one's folder")
    return {name: found.pictures[name] for name in wanted if name in found.pictures}


def _report(
    source: BenchmarkSource,
    found: Found,
    wanted: Collection[str],
    files: Mapping[str, Path],
    *,
    root: Path,
    existing: Place | None,
    full: bool,
    progress: Progress | None,
) -> Report:
    def checking(done: int, total: int) -> None:
        if progress:
            progress("Checking", done, total, "pictures")

    damaged = source.pictures.damaged if source.pictures else frozenset()
    here = {str(path) for path in files.values()}
    others = sorted(name for name, path in found.pictures.items() if name not in wanted and str(path) not in here)
    return Report(
        len(wanted),
        tuple(name for name in wanted if name not in files),
        tuple(damage(files, full=full, progress=checking).items()),
        tuple(name for name in others if name not in damaged),
        tuple(name for name in others if name in damaged),
        tuple(_checksums(source, root, existing)),
    )


def _checksums(source: BenchmarkSource, root: Path, existing: Place | None) -> Iterator[str]:
    folders: list[tuple[str, tuple[Archive, ...]]] = [(source.name, source.truth)]
    if source.pictures and existing is None:
        folders.insert(0, (source.pictures.folder, source.pictures.archives))
    for folder, archives in folders:
        known = checksums(root / folder) if archives else {}
        for archive in archives:
            if archive.file in known:
                yield f"{archive.file}: {known[archive.file]}"
            elif archive.sha256 is None:
                yield f"{archive.file}: unverified, no checksum is published and none was recorded"


def _differences(source: BenchmarkSource, truth: GroundTruth) -> Iterator[str]:
    counted = (
        (source.images, len(truth.images), "database pictures"),
        (source.queries, len(truth.queries), "queries"),
    )
    for published, here, what in counted:
        if published is not None and published != here:
            yield f"{source.name} has {published:,} {what}, its ground truth here names {here:,}"


def _archives_missing(source: BenchmarkSource, root: Path, existing: Place | None) -> Iterator[str]:
    unpacked = is_unpacked(source.pictures, root) if source.pictures and existing is None else []
    if not all(unpacked):
        yield f"{sum(unpacked)} of {len(unpacked)} archives are here"


def _what_to_do(source: BenchmarkSource, here: _Here, existing: Place | None) -> str:
    where = here.where
    if source.kind == "manifest":
        how = "put them there or take them out of the manifest"
    elif existing is not None:
        how = "complete the folder, or leave --existing away to have the benchmark fetched"
    else:
        how = f"delete {printable(where)} and fetch it again with  coocnet datasets fetch {source.name}"
    return f"{source.name} at {printable(where)} is not complete: {here.report.summary()}. What to do: {how}."


def _without(truth: GroundTruth, gone: set[str]) -> GroundTruth:
    """The ground truth of the pictures that are left."""
    kept = [place for place, image in enumerate(truth.images) if image not in gone]
    new = {old: place for place, old in enumerate(kept)}
    queries = tuple(
        Query(
            query.image,
            query.box,
            {label: frozenset(new[p] for p in places if p in new) for label, places in query.labels.items()},
        )
        for query in truth.queries
        if query.image not in gone
    )
    return replace(truth, images=tuple(truth.images[place] for place in kept), queries=queries)


def _distractors(wanted: bool | Place, root: Path) -> list[Path]:
    if wanted is False:
        return []
    source = lookup(_DISTRACTORS)
    if wanted is True and (missing := list(_archives_missing(source, root, None))):
        raise BenchmarkError(
            f"{_DISTRACTORS}: {missing[0]}: fetch the others with  coocnet datasets fetch {_DISTRACTORS}"
        )
    found, _ = pictures_of(source, root, None if wanted is True else wanted, download=False, progress=None)
    if not found.pictures:
        raise BenchmarkError("there are no distractors in that folder")
    return [found.pictures[name] for name in sorted(found.pictures)]
