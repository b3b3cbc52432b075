"""What an index has to remember, whatever remembers it: pictures, rows, removals and whitenings.

Every method that changes something is to be called by the sole writer, and what it changes is stored when it returns.
Rows belong to content, not to names: a picture is a path with a stamp that points to the row of its bytes.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from coocnet.data.walk import FileStamp
from coocnet.index.facts import Facts
from coocnet.whitening import Whitening


@dataclass(frozen=True)
class Described:
    """A picture to write: its path, its stamp, its content's digest, and the row if the content is new."""

    path: str
    stamp: FileStamp
    digest: bytes
    row: np.ndarray | None


@dataclass(frozen=True)
class SyncedFolder:
    """A folder of the collection.

    Attributes:
        path: the folder.
        pictures: how many of it are here.
        synchronised: when it was last looked through, UTC.
    """

    path: str
    pictures: int
    synchronised: str


@dataclass(frozen=True)
class Removal:
    """A file that had a content when this was taken out, or was met with it later."""

    digest: bytes
    path: str
    stamp: FileStamp


class Known(Protocol):
    """Contents that have rows."""

    def __contains__(self, digest: object) -> bool: ...
    def add(self, digest: bytes) -> None: ...  # noqa: D102


class Records(Facts):
    """The store of record of an index. Not for use by several threads at once."""

    @abstractmethod
    def check_in_place(self) -> None:
        """Refuses to go on where the index is no longer at its place.

        Raises:
            IndexStorageError: it was moved or deleted.
        """

    @abstractmethod
    def close(self) -> None:
        """Closes the connection; the index is complete on disk after every call anyway."""

    @abstractmethod
    def snapshot(self) -> AbstractContextManager[None]:
        """What is read within belongs together, whatever other processes store meanwhile."""

    @abstractmethod
    def sole_writer(self) -> AbstractContextManager[None]:
        """Holds the index against a second writer, until the block ends or this process does.

        Raises:
            IndexBusyError: another one holds it.
            IndexStorageError: it cannot be written.
        """

    def check_soundness(self) -> None:
        """Refuses a damaged index, where looking it over takes no more than a moment.

        Raises:
            ForeignIndexError: it is damaged.
        """

    @abstractmethod
    def state(self) -> str:
        """What is read now, told from every other state of this index, and of one restored from a copy."""

    @abstractmethod
    def pictures_below(self, root: str) -> dict[str, FileStamp]:
        """Stored pictures below a folder, with the stamps they were described at."""

    @abstractmethod
    def contents_below(self, root: str) -> dict[bytes, str]:
        """Digests of the contents of pictures below a folder, each with one of its files there."""

    @abstractmethod
    def digests(self) -> Known:
        """Digests of every content that has a row; what is added to it is known to it alone."""

    @abstractmethod
    def row_of(self, digest: bytes) -> np.ndarray | None:
        """The stored row of a content, or None."""

    @abstractmethod
    def rows_of_each(self, digests: Sequence[bytes]) -> dict[bytes, np.ndarray]:
        """The stored rows of contents, (d,) float32 each; unknown contents are left out."""

    @abstractmethod
    def each_picture(self) -> Iterator[Described]:
        """Every picture, in order of path, without its row."""

    @abstractmethod
    def pictures_at(self, paths: Sequence[str]) -> dict[str, Described]:
        """The pictures of these paths, without their rows; unknown paths are left out."""

    @abstractmethod
    def put(self, described: Iterable[Described]) -> None:
        """Stores pictures, and rows where the content is new, in one transaction where there are such.

        None of it is left out any more.
        """

    @abstractmethod
    def drop(self, paths: Iterable[str]) -> None:
        """Forgets pictures, then rows that no picture points to."""

    @abstractmethod
    def take_out(self, digests: Iterable[bytes]) -> int:
        """Takes contents out of the collection with all their files, which are remembered; says how many files."""

    @abstractmethod
    def taken_out(self) -> list[Removal]:
        """The files that were taken out, by content and path."""

    @abstractmethod
    def forget_removals(self, digests: Iterable[bytes]) -> None:
        """Leaves contents that were taken out to the next sync again."""

    @abstractmethod
    def note_removals(self, met: Sequence[Removal], *, as_they_are: bool = False) -> None:
        """Remembers files that were met with contents which had been taken out.

        Those that they were renamed from may be forgotten, unless they are of another index, to be taken as they are.
        """

    @abstractmethod
    def note_sync(self, root: str, skipped: dict[str, str], *, when: str | None = None) -> None:
        """Notes that ``root`` was looked through, now or ``when``, and which files below it were left out and why."""

    @abstractmethod
    def forget_folder(self, root: str) -> None:
        """No longer counts ``root`` among the folders of the collection."""

    @abstractmethod
    def folder_paths(self) -> list[bytes]:
        """The folders of the collection, in order of their paths; quick, whatever they hold."""

    @abstractmethod
    def folders(self) -> list[SyncedFolder]:
        """The folders of the collection, in order of their paths."""

    @abstractmethod
    def skipped(self) -> dict[str, str]:
        """Files left out when their folders were last looked through, with the reasons."""

    @abstractmethod
    def count_pictures(self) -> int:
        """Number of files."""

    @abstractmethod
    def count_contents(self) -> int:
        """Number of different contents, each with one row."""

    @abstractmethod
    def files_of(self, digest: bytes) -> list[str]:
        """The files with a content, in order of path; none where it is unknown."""

    @abstractmethod
    def files_of_each(self, digests: Sequence[bytes]) -> dict[bytes, list[str]]:
        """The files with each of these contents, in order of path; unknown contents are left out."""

    @abstractmethod
    def stamp_of(self, path: str) -> FileStamp | None:
        """The stamp that a file was described at, or None where it is not in the collection."""

    @abstractmethod
    def paths(self, offset: int = 0, limit: int = -1) -> Iterator[bytes]:
        """Paths of pictures, in order; from ``offset`` on, so many if ``limit`` is not -1."""

    @abstractmethod
    def digest_of(self, path: bytes) -> bytes:
        """The digest of the content of a picture, which is there."""

    @abstractmethod
    def holds(self, path: str) -> bool:
        """Whether a file of this path is in the collection."""

    @abstractmethod
    def matrix(self) -> tuple[list[str], list[bytes], np.ndarray]:
        """Paths in order, their contents' digests, and their rows (n, d) float32."""

    @abstractmethod
    def each_row(self) -> Iterator[np.ndarray]:
        """The rows of every different content, some at a time, (b, d) float32."""

    def mean_row(self) -> np.ndarray:
        """The mean of the rows of every different content, (d,) float64; of one content at least."""
        total, count = np.zeros(int(self.meta("dim") or 0)), 0
        for rows in self.each_row():
            total += rows.sum(0, dtype=np.float64)
            count += len(rows)
        return total / count

    @abstractmethod
    def put_whitening(self, whitening: Whitening | None, *, learned_here: bool) -> None:
        """Puts a whitening in force as a new version; None for none. Earlier versions stay in the file."""

    @abstractmethod
    def forget_whitening(self) -> None:
        """As if none had ever been in force or declined. Earlier versions stay in the file."""
