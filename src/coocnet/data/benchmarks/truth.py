"""Which ground truth counts for a benchmark: one beside the user's pictures, else the published one, kept as JSON."""

from __future__ import annotations

import os
from pathlib import Path

from coocnet.data.benchmarks.check import Found
from coocnet.data.benchmarks.foreign import Labelling, from_table, from_vgg_text, holidays, read_table, ukbench
from coocnet.data.benchmarks.manifest import MANIFEST_NAME, from_manifest
from coocnet.data.benchmarks.place import Progress, checksums, fetch_truth, record
from coocnet.data.benchmarks.table import Archive, BenchmarkSource
from coocnet.errors import BenchmarkError, InputError, printable
from coocnet.evaluate.ground_truth import GroundTruth
from coocnet.output import written_whole

TRUTH_NAME = "ground_truth.json"


def ground_truth(
    source: BenchmarkSource,
    root: Path,
    found: Found,
    existing: str | os.PathLike[str] | None,
    *,
    download: bool,
    progress: Progress | None,
) -> tuple[GroundTruth, str]:
    """The ground truth, and where it came from in words.

    Raises:
        BenchmarkError: it is not here, or cannot be used.
        FetchError: every mirror of it failed.
    """
    if source.kind == "holidays":
        return holidays(source.name), "the names of the pictures"
    if source.kind == "ukbench":
        return ukbench(source.name, source.images or 0), "the numbering of the pictures"
    if source.kind == "manifest":
        path = Path(os.path.expanduser(os.fspath(existing or ""))) / MANIFEST_NAME
        return from_manifest(path, name=source.name, measures=source.measures), printable(path)
    if existing is not None and (here := _beside(source, found)):
        return here
    return _published(source, root, download, progress)


def truth_file(
    source: BenchmarkSource, archive: Archive, root: Path, *, download: bool, progress: Progress | None
) -> Path:
    """A published file of ground truth, downloaded where that is allowed.

    Raises:
        BenchmarkError: it is not here, or not the file that was recorded.
        FetchError: every mirror failed.
    """
    if download:
        return fetch_truth(source, archive, root, progress=progress)
    path = root / source.name / archive.file
    if not path.is_file():
        raise BenchmarkError(
            f"{archive.file}, the ground truth of {source.name}, is not at {printable(path.parent)}: fetch it with  "
            f"coocnet datasets fetch {source.name}"
        )
    return path


def _beside(source: BenchmarkSource, found: Found) -> tuple[GroundTruth, str] | None:
    """A ground truth in the user's own folder."""
    for ending in ("pkl", "json"):
        if path := found.others.get(f"gnd_{source.name}.{ending}"):
            return _from_table(source, path), printable(path)
    queries = [path for name, path in found.others.items() if name.endswith("_query.txt")]
    if source.kind == "classic" and queries:
        damaged = source.pictures.damaged if source.pictures else frozenset()
        images = sorted(found.pictures.keys() - damaged)
        folder = queries[0].parent
        return from_vgg_text(folder, name=source.name, images=images), printable(folder)
    return None


def _published(
    source: BenchmarkSource, root: Path, download: bool, progress: Progress | None
) -> tuple[GroundTruth, str]:
    folder, archive = root / source.name, source.truth[0]
    ours = folder / TRUTH_NAME
    if ours.is_file():
        try:
            truth = GroundTruth.load(ours)
        except InputError as error:
            raise BenchmarkError(f"{error} Delete it to have it made anew.") from error
    else:
        path = truth_file(source, archive, root, download=download, progress=progress)
        truth = _from_table(source, path)
        record(archive, path, folder)
        with written_whole(ours) as unfinished:
            Path(unfinished).write_text(truth.to_json(), encoding="utf-8")
    known = checksums(folder).get(archive.file)
    return truth, f"{archive.file}, {known}" if known else archive.file


def _from_table(source: BenchmarkSource, path: Path) -> GroundTruth:
    labelling: Labelling = "revisited" if source.kind == "revisited" else "plain"
    return from_table(
        read_table(path), name=source.name, labelling=labelling, measures=source.measures, where=printable(path)
    )
