"""Pairs to train on and to fit a whitening on, with the files of their pictures."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from coocnet.data.benchmarks.check import first
from coocnet.data.benchmarks.checks import Bad, Budget, integers, names, told
from coocnet.data.benchmarks.foreign import read_table
from coocnet.data.benchmarks.place import Progress, data_folder, pictures_of, record
from coocnet.data.benchmarks.table import lookup
from coocnet.data.benchmarks.truth import truth_file
from coocnet.errors import BenchmarkError, InputError, printable

SPLITS = ("train", "val", "whiten")


@dataclass(frozen=True)
class TrainingPairs:
    """Pictures in clusters, and pairs of pictures that show the same thing.

    Attributes:
        images: names of the pictures.
        clusters: the 3D model that each picture belongs to; pictures of other clusters are safe negatives. Empty
            where the list, as those to fit a whitening on, does not say.
        queries: positions in ``images``.
        positives: for each query, the position of its match.
    """

    images: tuple[str, ...]
    clusters: tuple[int, ...]
    queries: tuple[int, ...]
    positives: tuple[int, ...]


@dataclass(frozen=True)
class Training:
    """Pairs to train on, with their pictures.

    Attributes:
        pairs: names, clusters and matching pairs.
        images: the file of each picture, in the order of ``pairs.images``.
    """

    pairs: TrainingPairs
    images: list[Path]


def training_pairs(table: object, *, split: str, where: str = "this list") -> TrainingPairs:
    """The form of cirtorch: ``{"cids", "cluster", "qidxs", "pidxs"}``, below "train" and "val" or, to whiten, bare.

    Raises:
        BenchmarkError: another form, or a position outside the list.
    """
    with told(f"{where} cannot be used to train on"):
        part = table.get(split) if isinstance(table, Mapping) and split != "whiten" else table
        if not isinstance(part, Mapping):
            raise Bad(f"it has no table {split!r}" if isinstance(table, Mapping) else "it is not a table")
        images, budget = names(part, "cids"), Budget()
        clusters = integers(part["cluster"], "cluster", budget) if "cluster" in part else ()
        if clusters and len(clusters) != len(images):
            raise Bad(f"'cluster' has {len(clusters)} entries for {len(images)} pictures")
        queries, positives = (integers(part.get(key), key, budget) for key in ("qidxs", "pidxs"))
        if len(queries) != len(positives):
            raise Bad(f"'qidxs' has {len(queries)} entries and 'pidxs' {len(positives)}")
        if outside := [place for place in (*queries, *positives) if not 0 <= place < len(images)]:
            raise Bad(f"position {outside[0]} lies outside the {len(images)} pictures")
        return TrainingPairs(images, clusters, queries, positives)


def open_training(
    name: str = "retrieval-sfm-120k",
    *,
    split: str = "train",
    place: str | os.PathLike[str] | None = None,
    existing: str | os.PathLike[str] | None = None,
    download: bool = True,
    progress: Progress | None = None,
) -> Training:
    """Training pairs and the files of their pictures.

    Args:
        name: a training set of the table.
        split: "train", "val", or "whiten" for the pairs to fit a whitening on.
        place: the data folder.
        existing: a folder where the pictures are already; a list in it goes before the published one.
        download: False to use only what is here.
        progress: as in :func:`~coocnet.data.benchmarks.open_benchmark`.

    Raises:
        InputError: no such training set or split.
        BenchmarkError: pictures are missing, with their names; or the list cannot be used.
        FetchError: every mirror of a file failed.
    """
    pairs, files, where = training_files(
        name, split=split, place=place, existing=existing, download=download, progress=progress
    )
    if missing := [one for one in pairs.images if one not in files]:
        raise BenchmarkError(
            f"{len(missing):,} of {len(pairs.images):,} pictures of {name} are not below {printable(where)}: "
            f"{first(missing)}"
        )
    return Training(pairs, [files[one] for one in pairs.images])


def training_files(
    name: str,
    *,
    split: str,
    place: str | os.PathLike[str] | None,
    existing: str | os.PathLike[str] | None,
    download: bool,
    progress: Progress | None,
) -> tuple[TrainingPairs, dict[str, Path], Path]:
    """The pairs, the files of those pictures that are there, and the folder; raises as :func:`open_training`."""
    source, root = lookup(name), data_folder(place)
    if source.kind != "training":
        raise InputError(f"{name} is no training set: it is opened by open_benchmark")
    if split not in SPLITS:
        raise InputError(f"a split is one of {', '.join(SPLITS)}, got {split!r}")
    found, where = pictures_of(source, root, existing, download=download, progress=progress)
    archive = next(one for one in source.truth if one.file.endswith("-whiten.pkl") == (split == "whiten"))
    path = found.others.get(archive.file) if existing is not None else None
    if path is None:
        path = truth_file(source, archive, root, download=download, progress=progress)
    pairs = training_pairs(read_table(path), split=split, where=printable(path))
    if path.parent == root / source.name:
        record(archive, path, path.parent)
    both = {**found.pictures, **found.others}  # the published pictures have no ending
    return pairs, {one: both[one] for one in pairs.images if one in both}, where
