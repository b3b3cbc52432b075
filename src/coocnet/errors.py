"""Every error coocnet raises on purpose, on one screen.

::

    CoocnetError
    ├── InputError            an argument that cannot be used (also a ValueError)
    ├── ImageError            one picture that cannot be described: .path, .reason
    ├── RecipeError           a recipe that does not parse or names what does not exist
    ├── WhiteningError        a whitening that cannot be fitted, or belongs to another recipe
    ├── FilterError           a learned filter that cannot be used: damaged, of another network, refused by its gate
    ├── TrainingError         a training that cannot begin or go on: labels amiss, a checkpoint of another run
    ├── ClusterError          a cluster that cannot be reached, or whose workers cannot describe as they should
    ├── FetchError            a download that failed on every mirror
    ├── BenchmarkError        a benchmark that cannot be used: pictures missing, a ground truth amiss
    │   └── ArchiveError          an archive that is damaged, or has in it what must not be unpacked
    ├── WeightsError
    │   ├── WeightsMissingError    not on this machine: the message says which file, from where, where to
    │   └── WeightsMismatchError   a file that is not what its name or the network says
    └── IndexFileError
        ├── IndexMissingError      there is none at this place
        ├── ForeignIndexError      not an index of ours, or a damaged one
        ├── NewerIndexError        written by a newer coocnet
        ├── RecipeMismatchError    rows of another recipe or of other weights
        ├── IndexBusyError         another process is synchronising it
        └── IndexStorageError      the disk is full, read-only or failing; what was stored is intact

A message quotes what was given and says what to do.
"""

from __future__ import annotations

import lzma
import os
import reprlib
import struct
import tokenize
import unicodedata
import zipfile
import zlib

__all__ = [
    "ArchiveError",
    "BenchmarkError",
    "ClusterError",
    "CoocnetError",
    "FetchError",
    "FilterError",
    "ForeignIndexError",
    "ImageError",
    "IndexBusyError",
    "IndexFileError",
    "IndexMissingError",
    "IndexStorageError",
    "InputError",
    "NewerIndexError",
    "RecipeError",
    "RecipeMismatchError",
    "TrainingError",
    "WeightsError",
    "WeightsMismatchError",
    "WeightsMissingError",
    "WhiteningError",
]

UNREADABLE = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    lzma.LZMAError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What libraries raise of a damaged file: NumPy reads headers as Python, archives have errors of their own."""


class CoocnetError(Exception):
    """Base of every error raised on purpose."""


class InputError(CoocnetError, ValueError):
    """An argument that cannot be used."""


class ImageError(CoocnetError):
    """One picture that cannot be described.

    Attributes:
        path: the file.
        reason: a few words without the path, fit for counting ("empty file", "not a picture").
        unread: the file's bytes could not be had, so nothing is known about what it holds.
    """

    def __init__(self, path: str | os.PathLike[str], reason: str, *, unread: bool = False) -> None:
        self.path = os.fspath(path)
        self.reason = reason.encode(errors="backslashreplace").decode()  # drivers quote names that are no text
        self.unread = unread
        super().__init__(self.path, reason)  # what it is made of anew where it was sent to another process

    def __str__(self) -> str:
        return f"{printable(self.path)}: {self.reason}"


class RecipeError(CoocnetError):
    """A recipe that does not parse or names what does not exist."""


class WhiteningError(CoocnetError):
    """A whitening that cannot be fitted, or belongs to another recipe."""


class FilterError(CoocnetError):
    """A learned filter that cannot be used: missing, damaged, of another network, or refused by its gate."""


class TrainingError(CoocnetError):
    """A training that cannot begin or go on: labels that cannot be learned from, a checkpoint of another run."""


class ClusterError(CoocnetError):
    """A cluster that cannot be reached, or whose workers cannot describe as they should."""


class FetchError(CoocnetError):
    """A download that failed on every mirror."""


class BenchmarkError(CoocnetError):
    """A benchmark that cannot be used: pictures are missing, or a file of it is not what it should be."""


class ArchiveError(BenchmarkError):
    """An archive that is damaged, or has in it what must not be unpacked."""


class WeightsError(CoocnetError):
    """Base of the errors about a network's weights."""


class WeightsMissingError(WeightsError):
    """The weights are not on this machine and cannot be downloaded now."""


class WeightsMismatchError(WeightsError):
    """A weights file that is not what its name or the network says."""


class IndexFileError(CoocnetError):
    """Base of the errors about an index on disk."""


class IndexMissingError(IndexFileError):
    """There is no index at this place."""


class ForeignIndexError(IndexFileError):
    """Not an index of ours, or a damaged one."""


class NewerIndexError(IndexFileError):
    """The index was written by a newer coocnet."""


class RecipeMismatchError(IndexFileError):
    """The index holds rows of another recipe or of other weights."""


class IndexBusyError(IndexFileError):
    """Another process is synchronising the index."""


class IndexStorageError(IndexFileError):
    """The disk is full, read-only or failing."""


def quoted(value: object, most: int = 200) -> str:
    """A value as a message shows it: in the middle cut to so many letters, whatever it is."""
    shortened = reprlib.Repr()
    shortened.maxstring = shortened.maxother = shortened.maxlong = most
    try:
        text = shortened.repr(value)
    except ValueError:  # Python spells no number of more than some thousand digits
        return "a number of thousands of digits"
    except RecursionError:
        return f"a {type(value).__name__} of many levels"
    return text if len(text) <= 2 * most else f"{text[:most]}…{text[-most:]}"


def printable(path: str | os.PathLike[str]) -> str:
    """The path as text that every terminal and file can take, whatever bytes and control characters it holds."""
    return "".join(map(_printable, os.fspath(path)))


def _printable(character: str) -> str:
    if character.isprintable() or unicodedata.category(character) == "Zs":
        return character
    return character.encode("unicode_escape").decode("ascii")
