"""Finding the pictures below a folder, and telling whether a file has changed."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field

from coocnet.data.images import unreadable
from coocnet.errors import ImageError, InputError, printable

SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".tif", ".tiff", ".gif", ".bmp", ".heic", ".heif", ".avif")
)


@dataclass(frozen=True)
class FileStamp:
    """What tells a changed file from an unchanged one without reading it."""

    size_bytes: int
    modified_ns: int


@dataclass(frozen=True)
class FoundFile:
    """A file that may hold a picture: absolute path and stamp."""

    path: str
    stamp: FileStamp


@dataclass
class Walk:
    """What a folder holds.

    Attributes:
        root: its absolute path, links in it resolved, so that a folder has one name however it is reached.
        files: pictures by their suffix, sorted by path.
        skipped: what has a picture's name but cannot be one, with the reason.
        unread_folders: folders that could not be listed: what is below them is unknown, not gone.
        others: number of files with other suffixes, or hidden.
        linked_folders: number of links to folders, which are not followed.
    """

    root: str
    files: list[FoundFile] = field(default_factory=list)
    skipped: list[ImageError] = field(default_factory=list)
    unread_folders: list[ImageError] = field(default_factory=list)
    others: int = 0
    linked_folders: int = 0


def real_folder(folder: str | os.PathLike[str]) -> str:
    """The absolute path of a folder, "~" and links in it resolved, whether it is there or not.

    Raises:
        InputError: no path.
    """
    given: object = folder
    if not isinstance(given, str | os.PathLike) or "\0" in os.fspath(given):
        raise InputError(f"a folder is a path, got {given!r}")
    return os.path.realpath(os.path.expanduser(os.fspath(given)))


def walk(folder: str | os.PathLike[str]) -> Walk:
    """Lists the pictures below ``folder``, hidden files and folders left out, links to folders not followed.

    Raises:
        InputError: no such folder, or not a folder.
    """
    root = real_folder(folder)
    try:
        what = "" if stat.S_ISDIR(os.stat(root).st_mode) else "is not a folder"
    except FileNotFoundError:
        what = "does not exist"
    except OSError as error:
        what = unreadable(error)
    if what:
        raise InputError(f"{printable(root)} {what}; give the folder that holds the photographs")
    found = Walk(root)

    def unread(error: OSError) -> None:
        name = error.filename if isinstance(error.filename, str) else root
        found.unread_folders.append(
            ImageError(name, f"folder cannot be listed: {(error.strerror or str(error)).lower()}")
        )

    for parent, folders, names in os.walk(root, onerror=unread):
        for name in folders:
            if has_picture_name(name):
                path = os.path.join(parent, name)
                found.skipped.append(ImageError(path, "a link to a folder" if os.path.islink(path) else "a folder"))
            found.linked_folders += os.path.islink(os.path.join(parent, name))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in names:
            if not has_picture_name(name):
                found.others += 1
                continue
            path = os.path.join(parent, name)
            try:
                file = find_file(path)
            except ImageError as error:
                found.skipped.append(error)
            else:
                found.files += [file] if file else []
    found.files.sort(key=lambda file: file.path)
    return found


def find_file(path: str) -> FoundFile | None:
    """A file that may hold a picture, by its absolute path, not opened; None where there is none.

    Raises:
        ImageError: a link to nothing, not a regular file, or it cannot be told.
    """
    try:
        status = os.stat(path)
    except FileNotFoundError as error:
        if not os.path.lexists(path):
            return None
        # Where the target's folder is there, the target is gone; where not, a disk may be missing.
        sure = os.path.isdir(os.path.dirname(os.path.realpath(path)))
        reason = "a link to a file that is gone" if sure else unreadable(error)
        raise ImageError(path, reason, unread=not sure) from error
    except OSError as error:
        raise ImageError(path, unreadable(error), unread=True) from error
    if not stat.S_ISREG(status.st_mode):
        raise ImageError(path, "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file")
    return FoundFile(path, FileStamp(status.st_size, _in_64_bits(status.st_mtime_ns)))


def has_picture_name(name: str) -> bool:
    """Whether a file of this name is looked at: not hidden, with one of :data:`SUFFIXES`."""
    return _suffix(name) in SUFFIXES and not name.startswith(".")


def _in_64_bits(time_ns: int) -> int:
    """A stamp that a database can hold, whatever year a file claims to be from."""
    return max(-(2**63), min(2**63 - 1, time_ns))


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()
