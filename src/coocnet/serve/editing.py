"""What changes the collection, asked for by clients: pictures that come, go, and come back."""

from __future__ import annotations

import itertools
import os
import unicodedata
from collections.abc import Callable
from typing import TYPE_CHECKING

from coocnet.data.images import content_digest, measured, read_bytes
from coocnet.errors import ImageError, IndexStorageError, InputError, printable
from coocnet.index import Index
from coocnet.output import written_whole
from coocnet.serve.problems import Problem

if TYPE_CHECKING:
    from coocnet.describe import Describer

_SUFFIXES = {"JPEG": ".jpg", "MPO": ".jpg", "TIFF": ".tif", "HEIF": ".heic"}
_NAME_BYTES = 120


def add(index: Index, content: bytes, name: str, *, folder: str, describer: Callable[[Index], Describer]) -> bytes:
    """Takes a picture into the collection: into the folder as a file, and into the index; gives its digest.

    A picture that is there already is left as it is, and one that was taken out is taken back.

    Raises:
        ImageError: no picture, or one that cannot be described; then no file is left behind.
        CoocnetError: the index cannot be written now; nor then.
    """
    digest = content_digest(content)
    if any(_holds(path, digest) for path in index.files_of(digest)):
        return digest
    if any(_holds(path, digest) for path in index.removed().get(digest, [])):
        index.restore([digest], describer=lambda: describer(index))
        return digest
    kind = measured(content, "the picture").format
    path = _free_place(folder, name, digest, kind)
    existed = os.path.lexists(path)
    try:
        with written_whole(path) as unfinished, open(unfinished, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
    except (OSError, InputError) as error:
        raise IndexStorageError(f"the picture could not be stored: {error}") from error
    taken = False
    try:
        report = index.add([path], describer=lambda: describer(index))
        taken = not report.skipped
    finally:
        if not taken and not existed:
            os.unlink(path)
    if report.skipped:
        raise report.skipped[0]
    return digest


def _holds(path: str, digest: bytes) -> bool:
    """Whether a file has this content now; what the index says of it may be old."""
    try:
        return content_digest(read_bytes(path)) == digest
    except ImageError:
        return False


def _free_place(folder: str, name: str, digest: bytes, kind: str) -> str:
    """Where the picture is stored: never over a file that has become something else."""
    stem, suffix = os.path.splitext(_file_name(name, digest, kind))
    names = (stem + (f" {number}" if number > 1 else "") + suffix for number in itertools.count(1))
    places = (os.path.join(folder, name) for name in names)
    return next(path for path in places if not os.path.lexists(path) or _holds(path, digest))


def remove(index: Index, digest: bytes) -> None:
    """Takes a picture out of the collection; its files stay.

    Raises:
        Problem: 404, it is not there.
        CoocnetError: the index cannot be written now.
    """
    if not index.files_of(digest):
        raise Problem(404, "unknown-picture", f"no picture of this collection has the id {digest.hex()}")
    index.remove([digest])


def restore(index: Index, digest: bytes, *, describer: Callable[[Index], Describer]) -> None:
    """Takes a picture back that was taken out.

    Raises:
        Problem: 404, it was not taken out; 410, none of its files is there any more.
        CoocnetError: the index cannot be written now.
    """
    if digest not in index.removed():
        raise Problem(404, "unknown-picture", f"no picture with the id {digest.hex()} was taken out")
    index.restore([digest], describer=lambda: describer(index))
    if not index.files_of(digest):
        raise Problem(410, "gone", "none of the picture's files is there any more")


def _file_name(name: str, digest: bytes, kind: str) -> str:
    """A name that every file system takes, recognisable, and of this content alone."""
    stem = unicodedata.normalize("NFC", os.path.splitext(name.replace("\\", "/").rpartition("/")[2])[0])
    plain = "".join(letter if letter.isalnum() or letter in " -_" else "_" for letter in printable(stem))
    short = plain.strip(" ._").encode()[:_NAME_BYTES].decode(errors="ignore")
    stem = short.strip() or "picture"
    return f"{stem} {digest.hex()[:12]}{_SUFFIXES.get(kind, '.' + kind.lower())}"
