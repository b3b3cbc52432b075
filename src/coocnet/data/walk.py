"""Finding the pictures below a folder, on this machine or at a URL, and telling whether a file has changed."""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field

from coocnet.data import remote
from coocnet.data.images import unreadable
from coocnet.errors import ImageError, InputError, printable

SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".tif", ".tiff", ".gif", ".bmp", ".heic", ".heif", ".avif")
)


@dataclass(frozen=True)
class FileStamp:
    """What tells a changed file from an unchanged one without reading it.

    Attributes:
        size_bytes: of the file.
        modified_ns: when it was written; of one at a URL see :class:`coocnet.data.remote.Entry`.
    """

    size_bytes: int
    modified_ns: int


@dataclass(frozen=True)
class FoundFile:
    """A file that may hold a picture.

    Attributes:
        path: absolute path or URL.
        stamp: its size and time.
    """

    path: str
    stamp: FileStamp


@dataclass
class Walk:
    """What a folder holds.

    Attributes:
        root: its absolute path, links in it resolved, so that a folder has one name however it is reached;
            or its URL.
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
    """The absolute path of a folder, "~" and links in it resolved, whether it is there or not; or its URL.

    Raises:
        InputError: no path, or a URL that cannot be used; see :func:`coocnet.data.remote.canonical`.
    """
    given: object = folder
    if not isinstance(given, str | os.PathLike) or "\0" in os.fspath(given):
        raise InputError(f"a folder is a path, got {given!r}")
    if remote.is_url(given):
        return remote.canonical(given)
    return os.path.realpath(os.path.expanduser(os.fspath(given)))


def place_of(path: str | os.PathLike[str]) -> str:
    """A file's path as a sync stores it: links to folders resolved, one of the file itself not; or its URL.

    Raises:
        InputError: as :func:`real_folder`.
    """
    name = os.fspath(path)
    if remote.is_url(name):
        return remote.canonical(name)
    folder, name = os.path.split(os.path.abspath(os.path.expanduser(name)))
    return os.path.join(real_folder(folder), name)


def is_folder(folder: str | os.PathLike[str]) -> bool:
    """Whether there is a folder of this name.

    Raises:
        InputError: as :func:`real_folder`; or a URL of which it cannot be told.
    """
    root = real_folder(folder)
    if not remote.is_url(root):
        return os.path.isdir(root)
    try:
        return remote.status(root).kind == "directory"
    except FileNotFoundError:
        return False
    except OSError as error:
        raise InputError(_not_given(root, unreadable(error))) from error


def is_gone(root: str) -> bool:
    """Whether there is certainly no folder of this name, which is not the same as one that cannot be reached."""
    try:
        if remote.is_url(root):
            return remote.status(root).kind != "directory"
        return not stat.S_ISDIR(os.stat(root).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False


def walk(folder: str | os.PathLike[str]) -> Walk:
    """Lists the pictures below ``folder``, hidden files and folders left out, links to folders not followed.

    Args:
        folder: a path; or a URL that fsspec knows, such as ``s3://bucket/photos``.

    Raises:
        InputError: no such folder, or not a folder; a URL that cannot be used or reached.
    """
    root = real_folder(folder)
    found = _walk_at(root) if remote.is_url(root) else _walk_here(root)
    found.files.sort(key=lambda file: file.path)
    return found


def _walk_here(root: str) -> Walk:
    try:
        what = "" if stat.S_ISDIR(os.stat(root).st_mode) else "is not a folder"
    except FileNotFoundError:
        what = "does not exist"
    except OSError as error:
        what = unreadable(error)
    if what:
        raise InputError(_not_given(root, what))
    found = Walk(root)

    def unread(error: OSError) -> None:
        name = error.filename if isinstance(error.filename, str) else root
        found.unread_folders.append(_unlisted(name, error))

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
    return found


def _walk_at(root: str) -> Walk:
    if not is_folder(root):
        raise InputError(_not_given(root, "does not exist, or is not a folder"))
    found = Walk(root)
    for entry in _entries(root, found):
        is_picture = has_picture_name(posixpath.basename(entry.url))
        if entry.kind == "file" and is_picture:
            found.files.append(_at(entry))
        elif is_picture:
            reason = "a folder" if entry.kind == "directory" else entry.kind
            found.skipped.append(ImageError(entry.url, reason))
        found.others += not is_picture and entry.kind not in ("directory", remote.LINKED_FOLDER)
        found.linked_folders += entry.kind == remote.LINKED_FOLDER
    return found


def _entries(root: str, found: Walk) -> Iterator[remote.Entry]:
    """What is below a URL, but in hidden folders; what cannot be listed is noted."""
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        try:
            entries = remote.listed(folder, deep=not remote.has_folders(root))
        except OSError as error:
            if folder == root:
                raise InputError(_not_given(root, unreadable(error))) from error
            found.unread_folders.append(_unlisted(folder, error))
            continue
        for entry in entries:
            *folders, name = entry.url[len(folder) + 1 :].split("/")
            if any(part.startswith(".") for part in folders):
                continue
            if entry.kind == "directory" and not name.startswith("."):
                waiting.append(entry.url)
            yield entry


def _unlisted(folder: str, error: OSError) -> ImageError:
    return ImageError(folder, f"folder cannot be listed: {(error.strerror or str(error)).lower()}")


def _not_given(root: str, what: str) -> str:
    return f"{printable(root)} {what}; give the folder that holds the photographs"


def _at(entry: remote.Entry) -> FoundFile:
    return FoundFile(entry.url, FileStamp(entry.size_bytes, _in_64_bits(entry.changed)))


def find_file(path: str) -> FoundFile | None:
    """A file that may hold a picture, by its absolute path or URL, not opened; None where there is none.

    Raises:
        ImageError: a link to nothing, not a regular file, or it cannot be told.
        InputError: a URL that cannot be used; see :func:`coocnet.data.remote.canonical`.
    """
    if remote.is_url(path):
        return _find_at(path)
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


def _find_at(url: str) -> FoundFile | None:
    try:
        entry = remote.status(url)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ImageError(url, unreadable(error), unread=True) from error
    if entry.kind != "file":
        raise ImageError(url, "a folder" if entry.kind == "directory" else entry.kind)
    return _at(entry)


def has_picture_name(name: str) -> bool:
    """Whether a file of this name is looked at: not hidden, with one of :data:`SUFFIXES`."""
    return _suffix(name) in SUFFIXES and not name.startswith(".")


def _in_64_bits(time_ns: int) -> int:
    """A stamp that a database can hold, whatever year a file claims to be from."""
    return max(-(2**63), min(2**63 - 1, time_ns))


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()
