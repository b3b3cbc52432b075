"""Files that a person asked to be written: never over what is read, and whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress

from coocnet.errors import InputError, printable

Path = str | os.PathLike[str]
UNFINISHED = ".coocnet-"
"""How the names of files begin that are not whole yet."""


def checked_target(path: Path, *, endings: Collection[str], what: str, sources: Sequence[Path] = ()) -> str:
    """The absolute path of a file to be written, refused before any work where that cannot go well.

    Args:
        path: where to.
        endings: lower-case endings that a file of this kind may have.
        what: the kind, in words, with the ending to use.
        sources: files that are read and must not be written over.

    Raises:
        InputError: another ending, a folder, no folder around it, or one of the sources.
    """
    target = os.path.abspath(os.path.expanduser(os.fspath(path)))
    name, around = printable(path), os.path.dirname(target)
    if os.path.splitext(target)[1].lower() not in endings:
        raise InputError(f"{name} cannot be written: its ending is not that of {what}")
    if os.path.isdir(target):
        raise InputError(f"{name} cannot be written: it is a folder")
    if not os.path.isdir(around):
        raise InputError(f"{name} cannot be written: there is no folder {printable(around)}")
    for source in sources:
        if os.path.exists(target) and os.path.exists(source) and os.path.samefile(target, source):
            raise InputError(f"{name} is a file to be read: write to another place")
    return target


@contextmanager
def written_whole(target: Path) -> Iterator[str]:
    """A new file beside the target to write to; it takes the target's place when all went well, else it is removed.

    Raises:
        InputError: it cannot be written there.
    """
    around, name = os.path.split(os.path.abspath(target))
    unfinished = ""
    try:
        handle, unfinished = tempfile.mkstemp(suffix=os.path.splitext(name)[1], prefix=UNFINISHED, dir=around)
        os.close(handle)
        yield unfinished
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(unfinished, 0o666 & ~mask)
        os.replace(unfinished, target)
    except BaseException as error:
        if unfinished:
            with suppress(OSError):
                os.remove(unfinished)
        if isinstance(error, OSError | ValueError):
            raise InputError(f"{printable(target)} cannot be written: {error}") from error
        raise
