"""What changes the collection, asked for by clients: pictures that come, go, and come back."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable
from typing import TYPE_CHECKING

from coocnet.data.images import content_digest, measured
from coocnet.errors import IndexStorageError, InputError, printable
from coocnet.index import LocalIndex
from coocnet.output import written_whole
from coocnet.serve.problems import Problem

if TYPE_CHECKING:
    from coocnet.describe import Describer

_SUFFIXES = {"JPEG": ".jpg", "MPO": ".jpg", "TIFF": ".tif", "HEIF": ".heic"}
_NAME_LETTERS = 80


def add(
    index: LocalIndex, content: bytes, name: str, *, folder: str, describer: Callable[[LocalIndex], Describer]
) -> bytes:
    """Takes a picture into the collection: into the folder as a file, and into the index; gives its digest.

    A picture that is there already is left as it is.

    Raises:
        ImageError: no picture, or one that cannot be described; then no file is left behind.
        CoocnetError: the index cannot be written now; nor then.
    """
    digest = content_digest(content)
    if index.files_of(digest):
        return digest
    kind = measured(content, "the picture").format
    path = os.path.join(folder, _file_name(name, digest, kind))
    existed = os.path.exists(path)
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


def remove(index: LocalIndex, digest: bytes) -> None:
    """Takes a picture out of the collection; its files stay.

    Raises:
        Problem: 404, it is not there.
        CoocnetError: the index cannot be written now.
    """
    if not index.files_of(digest):
        raise Problem(404, "unknown-picture", f"no picture of this collection has the id {digest.hex()}")
    index.remove([digest])


def restore(index: LocalIndex, digest: bytes, *, describer: Callable[[LocalIndex], Describer]) -> None:
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
    stem = plain.strip(" ._")[:_NAME_LETTERS] or "picture"
    return f"{stem} {digest.hex()[:12]}{_SUFFIXES.get(kind, '.' + kind.lower())}"
