"""What the pictures of an index are called to others than its owner: nothing above its folders is named."""

from __future__ import annotations

import os
from collections.abc import Sequence

from coocnet.errors import InputError, printable
from coocnet.index.records import Records

_SEPARATOR = os.fsencode(os.sep)


class Names:
    """Names of pictures by the folders that an index was synchronised with.

    A picture below several of them, one within the other, counts to the innermost.

    Args:
        folders: their paths, in order.
    """

    def __init__(self, folders: Sequence[bytes]) -> None:
        self.folders = tuple(folders)
        self._titles = _titles(self.folders)
        self._known: dict[bytes, tuple[int, str]] = {}

    def of(self, path: str) -> str:
        """The name of a picture, fit to be shown; see :meth:`coocnet.index.LocalIndex.name_of`."""
        raw = os.fsencode(path)
        start, title = self.place(raw[: raw.rfind(_SEPARATOR)])
        name = title + os.fsdecode(raw[start:]).replace(os.sep, "/")
        return name if name.isprintable() else printable(name)

    def place(self, parent: bytes) -> tuple[int, str]:
        """Where the name of a file in this folder begins in its path, and what is put before it."""
        found = self._known.get(parent)
        if found is None:
            found = self._known[parent] = self._look_up(parent or _SEPARATOR)
        return found

    def _look_up(self, parent: bytes) -> tuple[int, str]:
        folder = parent
        while folder not in self._titles:
            above = os.path.dirname(folder)
            if above == folder:
                return len(os.path.join(parent, b"")), ""
            folder = above
        title = f"{self._titles[folder]}/" if len(self.folders) > 1 else ""
        return len(os.path.join(folder, b"")), title


def listing(
    store: Records, names: Names, *, offset: int, limit: int, contains: str
) -> tuple[int, list[tuple[str, bytes]]]:
    """See :meth:`coocnet.index.LocalIndex.listing`."""
    _need_number("offset", offset)
    _need_number("limit", limit)
    with store.snapshot():
        if contains:
            total, page = _matching(store, names, _needle(contains), offset, limit)
        else:
            total, page = store.count_pictures(), list(store.paths(offset, limit))
        return total, [(os.fsdecode(path), store.digest_of(path)) for path in page]


def _matching(store: Records, names: Names, needle: bytes, offset: int, limit: int) -> tuple[int, list[bytes]]:
    total, page, place = 0, list[bytes](), names.place
    for path in store.paths():
        start, _ = place(path[: path.rfind(_SEPARATOR)])
        if needle in path[start:].lower():
            if offset <= total < offset + limit:
                page.append(path)
            total += 1
    return total, page


def _need_number(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 63:
        raise InputError(f"{name} is a whole number of at least 0, got {value!r}")


def _needle(contains: object) -> bytes:
    """Text as it stands in paths, its ASCII letters small."""
    try:
        return os.fsencode(str(contains).replace("/", os.sep)).lower()
    except UnicodeEncodeError as error:
        raise InputError(f"{contains!r} is no text that a path can hold") from error


def _titles(folders: Sequence[bytes]) -> dict[bytes, str]:
    """A short name for each folder, a number behind it where another has the same."""
    titles: dict[bytes, str] = {}
    for folder in folders:
        name = os.fsdecode(os.path.basename(folder)) or "root"
        title, number = name, 1
        while title in titles.values():
            number += 1
            title = f"{name} ({number})"
        titles[folder] = title
    return titles
