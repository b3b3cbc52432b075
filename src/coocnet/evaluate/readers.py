"""Rankings and descriptors that others made, from the files that the field keeps them in."""

from __future__ import annotations

import os
import warnings
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from coocnet.errors import UNREADABLE, InputError, printable
from coocnet.evaluate.ground_truth import GroundTruth
from coocnet.evaluate.matlab import matlab_arrays

NAMES: dict[str, tuple[str, ...]] = {
    "rankings": ("ranks", "rankings"),
    "database": ("X", "database", "descriptors"),
    "queries": ("Q", "queries"),
}
"""What arrays are called in a file of several; X, Q and ranks are the names in the revisited benchmarks' code."""

LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {"rows": lambda a: a, "columns": lambda a: a.T}
"""How a file holds pictures or queries: each a row, or each a column, as the revisited benchmarks' files do."""


_QUOTED = 300
_FARTHEST = np.float64(1 << 53)
_GROWTH_LIMIT = 100
_GROWTH_FREE_BYTES = 1 << 26


class Descriptors(NamedTuple):
    """The rows of a benchmark.

    Attributes:
        database: (n, d), the benchmark's pictures in its order, then distractors.
        queries: (q, d), its queries in its order.
        from_database: the query rows are those of the same pictures in the database: of whole pictures.
    """

    database: Float[np.ndarray, "n d"]
    queries: Float[np.ndarray, "q d"]
    from_database: bool


def read_rankings(
    path: str | os.PathLike[str], ground_truth: GroundTruth, *, distractors: int = 0, layout: str | None = None
) -> Int[np.ndarray, "q k"]:
    """Rankings from a .npy, .npz, .mat or .h5 file: for each query positions in the database, from 0 on, best first.

    The layout is found by the numbers of queries and pictures and by what a ranking is: no list names a picture
    twice. MATLAB's floats are taken where they are whole.

    Args:
        path: the file, with one array, or one by a name of :data:`NAMES`.
        ground_truth: the benchmark.
        distractors: pictures beyond those of the benchmark.
        layout: one of :data:`LAYOUTS`, where both would do.

    Raises:
        InputError: not such a file, no rankings of this benchmark, or rankings in either layout; h5py is
            needed and not there.
    """
    array = _read(path, "rankings")
    count, size = len(ground_truth.queries), len(ground_truth.images) + distractors
    fitting = [name for name in _layouts(layout) if _ranks_shape(LAYOUTS[name](array), count, size)]
    if len(fitting) > 1:
        fitting = [name for name in fitting if _each_once(LAYOUTS[name](array))] or fitting
    wanted = f"rankings ({count} queries, at most {size} pictures), as rows or as columns"
    return _whole(LAYOUTS[_the_one(fitting, array, path, wanted)](array), path)


def read_descriptors(
    path: str | os.PathLike[str],
    ground_truth: GroundTruth,
    *,
    queries: str | os.PathLike[str] | None = None,
    distractors: int = 0,
    layout: str | None = None,
) -> Descriptors:
    """Descriptors of a benchmark from .npy, .npz, .mat or .h5 files. A .npy file is mapped, not loaded.

    Args:
        path: the file of the database, with one array, or with X and perhaps Q as in the files that accompany the
            revisited benchmarks; see :data:`NAMES`.
        ground_truth: the benchmark.
        queries: the file of the queries. Without it they are in the first file under a name of their own, or they are
            pictures of the database.
        distractors: rows of the database beyond those of the benchmark.
        layout: one of :data:`LAYOUTS`, where both would do.

    Raises:
        InputError: not such a file, no descriptors of this benchmark, or in either layout; queries that are nowhere;
            h5py is needed and not there.
    """
    size, count = len(ground_truth.images) + distractors, len(ground_truth.queries)
    database = _rows(_read(path, "database"), path, "descriptors", size, layout)
    if queries is not None:
        return Descriptors(database, _rows(_read(queries, "queries"), queries, "queries", count, layout), False)
    asked = _read(path, "queries", optional=True)
    if asked is not None:
        return Descriptors(database, _rows(asked, path, "queries", count, layout), False)
    position = {name: place for place, name in enumerate(ground_truth.images)}
    outside = [query.image for query in ground_truth.queries if query.image not in position]
    if outside:
        raise InputError(
            f"{printable(path)} holds no queries, and {len(outside)} queries of {ground_truth.name}, among them "
            f"{outside[0]!r}, are not in its database: give a file with their descriptors"
        )
    return Descriptors(database, database[[position[query.image] for query in ground_truth.queries]], True)


def _rows(array: np.ndarray, path: str | os.PathLike[str], what: str, count: int, layout: str | None) -> np.ndarray:
    if array.dtype.kind not in "fiu":
        raise InputError(f"{printable(path)}: {what} are real numbers, got {array.dtype}")
    fitting = [name for name in _layouts(layout) if array.ndim == 2 and len(LAYOUTS[name](array)) == count]
    return LAYOUTS[_the_one(fitting, array, path, f"{count} {what} of any dimension, as rows or as columns")](array)


def _layouts(layout: str | None) -> Sequence[str]:
    if layout is not None and layout not in LAYOUTS:
        raise InputError(f"a layout is one of {', '.join(LAYOUTS)}, got {layout!r}")
    return list(LAYOUTS) if layout is None else [layout]


def _the_one(fitting: Sequence[str], array: np.ndarray, path: str | os.PathLike[str], wanted: str) -> str:
    if not fitting:
        raise InputError(f"{printable(path)} holds an array of shape {array.shape}; wanted are {wanted}")
    if len(fitting) > 1:
        raise InputError(
            f"{printable(path)} holds an array of shape {array.shape}, which may be read either way as {wanted}: "
            f"name the layout, {' or '.join(LAYOUTS)}"
        )
    return fitting[0]


def _ranks_shape(array: np.ndarray, count: int, size: int) -> bool:
    return array.ndim == 2 and array.shape[0] == count and array.shape[1] <= size


def _each_once(rankings: np.ndarray) -> bool:
    return all(len(np.unique(ranking)) == len(ranking) for ranking in rankings)


def _whole(rankings: np.ndarray, path: str | os.PathLike[str]) -> Int[np.ndarray, "q k"]:
    if rankings.dtype.kind in "iu":
        return rankings
    if rankings.dtype.kind != "f" or not ((abs(rankings) < _FARTHEST) & (rankings == np.floor(rankings))).all():
        raise InputError(f"{printable(path)}: rankings are whole numbers, got {rankings.dtype} with others")
    return rankings.astype(np.int64)


def _read(path: str | os.PathLike[str], what: str, *, optional: bool = False) -> Any:
    """The array of this kind in a file, as it lies there; None where it may be missing and is."""
    ending = Path(path).suffix.lower()
    if ending not in _READERS:
        raise InputError(f"{printable(path)} cannot be read: its ending is none of {', '.join(_READERS)}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about headers that are damaged, or written by Python 2
            array = _READERS[ending](path, lambda names: _chosen(names, what, optional=optional))
    except InputError as error:
        raise InputError(f"{printable(path)}: {error}") from error
    except UNREADABLE as error:
        reason = getattr(error, "strerror", None) or str(error) or repr(error)
        raise InputError(f"{printable(path)} cannot be read as {ending}: {printable(reason)[:_QUOTED]}") from error
    if array is not None and (array.dtype.hasobject or array.dtype.kind not in "fiuc"):
        raise InputError(f"{printable(path)}: arrays of numbers are read, got {array.dtype}")
    return array


def _chosen(names: Sequence[str], what: str, *, optional: bool) -> str | None:
    known = [name for name in NAMES[what] if name in names]
    if known:
        return known[0]
    if optional:
        return None
    if len(names) == 1:
        return names[0]
    raise InputError(
        f"it holds the arrays {', '.join(map(repr, names)) or 'none'}; for the {what} one of them is to be called "
        f"{' or '.join(NAMES[what])}"
    )


Choose = Callable[[Sequence[str]], str | None]


def _read_npy(path: str | os.PathLike[str], choose: Choose) -> np.ndarray | None:
    if choose([""]) is None:
        return None
    mapped: np.ndarray = np.lib.format.open_memmap(path, mode="r")  # type: ignore[no-untyped-call] # takes no objects
    return mapped


def _read_npz(path: str | os.PathLike[str], choose: Choose) -> np.ndarray | None:
    with open(path, "rb") as file, np.lib.npyio.NpzFile(file, allow_pickle=False) as arrays:
        name = choose(arrays.files)
        if name is None:
            return None
        packed: zipfile.ZipFile = arrays.zip
        members = {member.filename.removesuffix(".npy"): member for member in packed.infolist()}
        _check_growth(members[name].file_size, path)
        return np.asarray(arrays[name])


def _read_mat(path: str | os.PathLike[str], choose: Choose) -> np.ndarray | None:
    with open(path, "rb") as file:
        if b"MATLAB 7.3" in file.read(128):
            array = _read_hdf5(path, choose)
            return None if array is None else array.T  # MATLAB writes columns first
    found = matlab_arrays(path, most_bytes=_most_bytes(path))
    name = choose(list(found))
    return None if name is None else found[name].array()


def _read_hdf5(path: str | os.PathLike[str], choose: Choose) -> np.ndarray | None:
    try:
        import h5py  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise InputError(_EXTRA) from error
    with h5py.File(path, "r") as file:
        name = choose([name for name in file if isinstance(file.get(name), h5py.Dataset)])
        if name is None:
            return None
        _check_growth(file[name].nbytes, path)
        return np.asarray(file[name][()])


def _most_bytes(path: str | os.PathLike[str]) -> int:
    """What a file may hold unpacked: numbers that mean something do not pack a hundred times."""
    return _GROWTH_LIMIT * os.path.getsize(path) + _GROWTH_FREE_BYTES


def _check_growth(size_bytes: int, path: str | os.PathLike[str]) -> None:
    if size_bytes > _most_bytes(path):
        raise InputError(
            f"its array has {size_bytes:,} bytes, more than {_GROWTH_LIMIT} times the file: "
            "neither rankings nor descriptors pack like that"
        )


_EXTRA = "reading it needs an extra: pip install 'coocnet[evaluate]'"

_READERS: dict[str, Callable[[str | os.PathLike[str], Choose], np.ndarray | None]] = {
    ".npy": _read_npy,
    ".npz": _read_npz,
    ".mat": _read_mat,
    ".h5": _read_hdf5,
    ".hdf5": _read_hdf5,
}
