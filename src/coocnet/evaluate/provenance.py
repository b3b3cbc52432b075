"""What stands behind a result, said in full: how it was made, on which pictures, tuned on what.

A manifest is a plain table for JSON. What nobody said is "not known" or "nothing declared", never left out. It names
no host, no user and no folder.
"""

from __future__ import annotations

import datetime
import hashlib
import os
import platform
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from coocnet.errors import InputError, printable
from coocnet.evaluate.ground_truth import GroundTruth

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

NOT_KNOWN = "not known"
"""What stands in a manifest for what nobody said."""
NOTHING_DECLARED = "nothing declared"
"""What stands there for sets that nobody named."""

_READ_AT_ONCE = 1 << 20


class Overlap(NamedTuple):
    """What is known about things that a training set shares with a benchmark."""

    training_set: str
    benchmark: str
    note: str
    source: str


_SONG = 'Song et al. 2024, "On Train-Test Class Overlap and Detection for Image Retrieval", arXiv:2404.01524'
OVERLAPS = (
    Overlap("gldv2-clean", "roxford5k", "shares the landmarks of 36 of the 70 queries", _SONG),
    Overlap("gldv2-clean", "rparis6k", "shares the landmarks of 38 of the 70 queries", _SONG),
    *(
        Overlap(training_set, benchmark, "shares no query landmark", _SONG)
        for training_set in ("sfm-120k", "nc-clean")
        for benchmark in ("roxford5k", "rparis6k")
    ),
)
"""The overlaps that somebody has counted. A training set that is not here has not been checked, as far as we know."""

_ALIASES = {"retrieval-sfm-120k": "sfm-120k"}
_LIBRARIES = ("torch", "pillow", "safetensors")


def manifest(
    ground_truth: GroundTruth,
    *,
    rows: Mapping[str, Any],
    seconds: float,
    pictures: Mapping[str, Any] | str = NOT_KNOWN,
    query_crop: str = NOT_KNOWN,
    whitening: Mapping[str, Any] | str = NOT_KNOWN,
    expansion: Mapping[str, Any] | str = NOT_KNOWN,
    reranking: Mapping[str, Any] | str = NOT_KNOWN,
    tuned_on: Sequence[str] = (),
    trained_on: Sequence[str] = (),
) -> dict[str, Any]:
    """The table that goes with a result.

    Args:
        ground_truth: the benchmark.
        rows: how descriptors were made: :func:`made_elsewhere` or :func:`made_by_recipe`.
        seconds: how long what is reported took in this run, on this machine, without what was kept from earlier ones.
        pictures: :func:`picture_set`.
        query_crop: "box" where queries were cut to their boxes, "whole picture" where not.
        whitening: set that it was fitted on, dim, kind and provenance; or "none".
        expansion: of the query, its name and numbers; or "none".
        reranking: its name and numbers; or "none".
        tuned_on: every set on which something was chosen.
        trained_on: every set that the network or the whitening learned from; :data:`OVERLAPS` are looked up by it.
    """
    return {
        "rows": dict(rows),
        "pictures": pictures,
        "query_crop": query_crop,
        "queries_in_database": ground_truth.queries_in_database(),
        "whitening": whitening,
        "expansion": expansion,
        "reranking": reranking,
        "tuned_on": list(tuned_on) or NOTHING_DECLARED,
        "trained_on": list(trained_on) or NOTHING_DECLARED,
        "overlap": overlap_notes(ground_truth.name, trained_on),
        "versions": _versions(),
        "machine": {"processor": _processor(), "cores": os.cpu_count()},
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "seconds": round(seconds, 3),
    }


def made_elsewhere(*paths: str | os.PathLike[str]) -> dict[str, Any]:
    """The files that rankings or descriptors were read from: name without folder, and SHA-256.

    Raises:
        InputError: one cannot be read.
    """
    return {"made elsewhere": [{"file": printable(Path(path).name), "sha256": _sha256(path)} for path in paths]}


def made_by_recipe(toml: str, fingerprint: str, weights_sha256: str) -> dict[str, Any]:
    """The recipe that made the rows: its TOML with files by name at most, its fingerprint, the weights' SHA-256.

    Args:
        toml: the recipe's, as ``Recipe.to_toml`` gives it.
        fingerprint: the recipe's.
        weights_sha256: of the network, 64 hexadecimal digits.

    Raises:
        InputError: this is not TOML.
    """
    try:
        recipe = tomllib.loads(toml)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"this is not a recipe's TOML: {error}") from error
    for key, table in (("weights", recipe), ("filter", recipe.get("cooccurrence", {}))):
        path = str(table.get(key, ""))
        name = re.split(r"[/\\]", path)[-1]
        if name != path:  # a path says where things lie on one machine, and the digest says more
            toml = re.sub(rf"(?m)^{key} *=.*$", f'{key} = "{name}"', toml)
    return {"recipe": toml, "fingerprint": fingerprint, "weights_sha256": weights_sha256}


def picture_set(pictures: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Which pictures were described: their number, and one SHA-256 over the sorted names and digests.

    Args:
        pictures: name and SHA-256 of each file.
    """
    named = sorted(pictures)
    digest = hashlib.sha256("".join(f"{name}\0{sha256}\n" for name, sha256 in named).encode())
    return {"count": len(named), "sha256": digest.hexdigest()}


def overlap_notes(benchmark: str, trained_on: Sequence[str] = ()) -> list[dict[str, str]] | str:
    """What is known about overlaps of these training sets with a benchmark; of all where none is named.

    Args:
        benchmark: its name.
        trained_on: training sets by name.
    """
    named = {_ALIASES.get(name.lower(), name.lower()) for name in trained_on}
    notes = [one for one in OVERLAPS if one.benchmark == benchmark.lower()]
    notes = [one for one in notes if not named or one.training_set in named]
    known = {one.training_set for one in notes}
    unchecked = [name for name in trained_on if _ALIASES.get(name.lower(), name.lower()) not in known]
    said = [{"training_set": one.training_set, "note": one.note, "source": one.source} for one in notes]
    said += [{"training_set": name, "note": NOT_KNOWN, "source": ""} for name in unchecked]
    return said or NOT_KNOWN


def _sha256(path: str | os.PathLike[str]) -> str:
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while part := file.read(_READ_AT_ONCE):
                digest.update(part)
    except OSError as error:
        raise InputError(f"{printable(path)} cannot be read: {error.strerror}") from error
    return digest.hexdigest()


def _versions() -> dict[str, str]:
    from coocnet import __version__  # noqa: PLC0415 - the package that holds this module

    said = {"coocnet": __version__, "numpy": np.__version__, "python": platform.python_version()}
    for library in _LIBRARIES:
        with suppress(metadata.PackageNotFoundError):
            said[library] = metadata.version(library)
    return said


def _processor() -> str:
    listed = Path("/proc/cpuinfo")
    lines = listed.read_text(errors="replace").splitlines() if listed.is_file() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine() or NOT_KNOWN)
