"""What a sound index has to lose, and how much of it a damage has left, whatever coocnet says of it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from faults.campaign import must
from faults.looking import DATABASE, Content, content_of, copied

_UNIT_WITHIN = 1e-3
Row = tuple[bytes, bytes]


@dataclass(frozen=True)
class Whole:
    """A sound index, as it was before it was damaged.

    Attributes:
        index: its folder, which stays as it is.
        content: paths with the digest and the row of each.
        removed: digests of what was taken out.
        recipe: the text of its recipe.
        whitening: the bytes of the whitening in force, empty without one.
        given: the file that whitening was given by, if it was.
        has_sums: whether it has checksums; without them a row may be wrong as long as it is one.
    """

    index: Path
    content: Content
    removed: frozenset[bytes]
    recipe: bytes
    whitening: bytes
    given: Path | None = None
    has_sums: bool = True

    @classmethod
    def of(cls, index: Path, given: Path | None = None) -> Whole:
        """Reads a sound index."""
        content = content_of(index)
        with copied(index) as copy, closing(sqlite3.connect(copy / DATABASE)) as db:
            has_sums = db.execute("SELECT 1 FROM sqlite_master WHERE name = 'sums'").fetchone() is not None
        return cls(index, content, removed_of(index), recipe_of(index), whitening_of(index), given, has_sums)

    @cached_property
    def rows(self) -> dict[bytes, bytes]:
        """Rows by the digest of their content."""
        return dict(self.content.values())

    @cached_property
    def recipe_file(self) -> Path:
        """A file with its recipe."""
        file = self.index.with_suffix(".toml")
        file.write_bytes(self.recipe)
        return file

    @cached_property
    def _bytes(self) -> bytes:
        return _bytes_of(self.index)

    @cached_property
    def _places(self) -> dict[bytes, int]:
        places = {digest: self._bytes.find(digest + row) for digest, row in self.rows.items()}
        must(min(places.values()) >= 0, "a row of a sound index is not found in its file")
        return places

    @cached_property
    def _pieces(self) -> list[bytes]:
        """The recipe as it stands in the file: a long one goes on in another place."""
        least, most = 0, len(self.recipe)
        while least < most:
            middle = (least + most + 1) // 2
            least, most = (middle, most) if self.recipe[:middle] in self._bytes else (least, middle - 1)
        pieces = [piece for piece in (self.recipe[:least], self.recipe[least:]) if piece]
        must(all(piece in self._bytes for piece in pieces), "the recipe of a sound index is not found in its file")
        return pieces

    def left_in(self, index: Path) -> Left:
        """What of it is found in the bytes of a damaged one and of its log, read by nothing of coocnet."""
        found = _bytes_of(index)
        rows = 0
        for digest, row in self.rows.items():
            place = self._places[digest]
            rows += found[place : place + len(digest + row)] == digest + row or digest + row in found
        return Left(rows, all(piece in found for piece in self._pieces))

    def saved_in(self, index: Path) -> int:
        """How many of its rows an index holds, to the last bit."""
        with copied(index) as copy, closing(sqlite3.connect(copy / DATABASE)) as db:
            held: list[Row] = db.execute("SELECT digest, row FROM descriptors").fetchall()
        return sum(self.rows.get(digest) == row for digest, row in held)

    def is_right(self, content: Content) -> bool:
        """Whether each row that an index holds is the one it should be, or, without checksums, could be it."""
        return all(self._is_right(digest, row) for digest, row in content.values())

    def is_same(self, content: Content) -> bool:
        """Whether an index holds the same pictures with the same rows; without checksums, with rows that could be."""
        digests = {path: digest for path, (digest, _) in content.items()}
        return digests == {path: digest for path, (digest, _) in self.content.items()} and self.is_right(content)

    def _is_right(self, digest: bytes, row: bytes) -> bool:
        right = self.rows.get(digest, row)
        if row == right or self.has_sums:
            return row == right
        return len(row) == len(right) and abs(float(np.linalg.norm(np.frombuffer(row, "<f4"))) - 1) < _UNIT_WITHIN


@dataclass(frozen=True)
class Left:
    """How many rows are still somewhere in a damaged file, and whether the text of the recipe is."""

    rows: int
    recipe: bool


def _bytes_of(index: Path) -> bytes:
    files = (index / DATABASE, index / f"{DATABASE}-wal")
    return b"".join(file.read_bytes() for file in files if file.exists())


def recipe_of(index: Path) -> bytes:
    """The text of an index's recipe."""
    with copied(index) as copy, closing(sqlite3.connect(copy / DATABASE)) as db:
        return bytes(db.execute("SELECT CAST(value AS BLOB) FROM meta WHERE key = 'recipe'").fetchone()[0])


def removed_of(index: Path) -> frozenset[bytes]:
    """Digests of what was taken out of an index."""
    with copied(index) as copy, closing(sqlite3.connect(copy / DATABASE)) as db:
        if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'removed'").fetchone():
            return frozenset()
        return frozenset(digest for (digest,) in db.execute("SELECT digest FROM removed"))


def whitening_of(index: Path) -> bytes:
    """The bytes of the whitening in force, empty without one."""
    query = "SELECT content FROM whitenings WHERE version = (SELECT value + 0 FROM meta WHERE key = 'whitening')"
    with copied(index) as copy, closing(sqlite3.connect(copy / DATABASE)) as db:
        found = db.execute(query).fetchone()
    return bytes(found[0]) if found else b""
