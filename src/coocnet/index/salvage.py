"""What can still be read of a damaged database, row by row, and which of it can be right.

SQLite stops at the first page that makes no sense. So a table is read from its beginning to there, from its end back
to there, and what lies between by the keys that other tables and indexes name. Where the first page is gone, which
holds the header and the places of all tables, that of a new index takes its place: all are made by the same
statements, so their tables begin on the same pages.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from coocnet.errors import CoocnetError
from coocnet.index.columns import DIGEST_BYTES
from coocnet.index.database import DATABASE_NAME, SCHEMA, Database, name_of_fact, sum_noted, sum_of
from coocnet.recipe import Recipe
from coocnet.whitening import Whitening

_PAGE_BYTES = 4096
_LEAF_OF_TABLE = 0x0D
_UNIT_WITHIN = 1e-3
_LONGEST_CONTENT = 1 << 20  # of a row of 262,144 numbers
_FOLLOWED_PER_PAGE = 8
_LEAST_OF_A_ROW = 4  # bytes
_LONGEST_VALUE = 1 << 30  # that SQLite takes
_SPARE_BYTES = 1 << 24
_DIGITS = 18  # of a number that SQLite stores
Row = tuple[Any, ...]


@dataclass(frozen=True)
class Table:
    """A table: its columns, those of its key, and where its keys can be read too."""

    columns: str
    key: str
    keys_elsewhere: tuple[str, ...] = ()

    @property
    def marks(self) -> str:
        """Question marks for a key."""
        return f"({', '.join('?' * len(self.key.split(', ')))})"


TABLES = {
    "meta": Table("key, value", "key"),
    "pictures": Table(
        "path, descriptor, size_bytes, modified_ns",
        "path",
        ("SELECT path FROM pictures INDEXED BY pictures_by_descriptor",),
    ),
    "descriptors": Table(
        "id, digest, row",
        "id",
        (
            "SELECT descriptor FROM pictures INDEXED BY pictures_by_descriptor",
            "SELECT id FROM descriptors INDEXED BY sqlite_autoindex_descriptors_1",
        ),
    ),
    "folders": Table("path, synchronised", "path"),
    "skipped": Table("path, reason", "path"),
    "whitenings": Table("version, made, learned_here, content", "version"),
    "removed": Table("digest, path, size_bytes, modified_ns", "digest, path"),
}
"""All tables but that of checksums, which are made anew; the last one is not in every index."""
OPTIONAL = "removed"


def connect(path: Path, mode: str) -> sqlite3.Connection:
    """A connection whose text is what can be made of it."""
    connection = sqlite3.connect(f"{path.as_uri()}?{mode}", uri=True, timeout=30, isolation_level=None)
    connection.text_factory = lambda content: content.decode(errors="surrogateescape")
    return connection


def tables_of(db: sqlite3.Connection) -> set[str]:
    """Names of the tables.

    Raises:
        sqlite3.DatabaseError: nothing can be read.
    """
    return {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def without_their_columns(db: sqlite3.Connection) -> list[str]:
    """Tables of which a column has another name than it should have, so that no row of theirs can be asked for."""
    columns = {name: table.columns for name, table in TABLES.items()} | {"sums": "name, sum"}
    return [name for name in sorted(columns.keys() & tables_of(db)) if not _has(db, name, columns[name])]


def _has(db: sqlite3.Connection, name: str, columns: str) -> bool:
    try:
        db.execute(f"SELECT {columns} FROM {name} LIMIT 0")  # noqa: S608
    except sqlite3.OperationalError as error:
        if "no such column" in str(error):
            return False
        raise
    return True


def give_columns_back(db: sqlite3.Connection) -> None:
    """Writes the statements that tables are made by anew where they name other columns.

    Raises:
        sqlite3.DatabaseError: what they are in is damaged.
    """
    tables = [one.replace(" IF NOT EXISTS", "") for one in SCHEMA if one.startswith("CREATE TABLE")]
    made_by = {one.split()[2]: one for one in tables}
    for name in without_their_columns(db):
        db.execute("PRAGMA writable_schema = ON")
        db.execute("UPDATE sqlite_master SET sql = ? WHERE type = 'table' AND name = ?", (made_by[name], name))
        db.execute("PRAGMA writable_schema = RESET")


def readable(db: sqlite3.Connection, name: str) -> Iterator[Row]:
    """Every row of a table that can be read; of a damaged one some come twice, and some that were deleted."""
    table = TABLES[name]
    select, key, marks = f"SELECT {table.columns} FROM {name}", f"({table.key})", table.marks  # noqa: S608
    position = [table.columns.split(", ").index(column) for column in table.key.split(", ")]
    last: Row | None = None
    try:
        for row in _rows(db, f"{select} ORDER BY {table.key}"):
            last = tuple(row[at] for at in position)
            yield row
    except (sqlite3.DatabaseError, OverflowError):
        pass
    else:
        return
    # A row is given only when the next one could be read: the one before a damage has to be asked for alone.
    after = f"WHERE {key} > {marks}" if last is not None else ""
    for row in _stream_rows(db, f"{select} {after} ORDER BY {table.key} LIMIT 1", last or ()):
        last = tuple(row[at] for at in position)
        yield row
    first = None
    after = f"WHERE {key} > {marks}" if last is not None else ""
    backwards = ", ".join(f"{column} DESC" for column in table.key.split(", "))
    for row in _stream_rows(db, f"{select} {after} ORDER BY {backwards}", last or ()):
        first = tuple(row[at] for at in position)
        yield row
    before = f"WHERE {key} < {marks}" if first is not None else ""
    for row in _stream_rows(db, f"{select} {before} ORDER BY {backwards} LIMIT 1", first or ()):
        first = tuple(row[at] for at in position)
        yield row
    tried: set[Any] = set()
    for one in chain.from_iterable(stream(db, query) for query in table.keys_elsewhere):
        if not isinstance(one, bytes | int) or one in tried:
            continue
        tried.add(one)
        if (last is None or _order(one) > _order(last[0])) and (first is None or _order(one) < _order(first[0])):
            yield from _stream_rows(db, f"{select} WHERE {key} = {marks}", (one,))
    if name == "descriptors":
        yield from _on_leaves(_file_of(db))


def _on_leaves(path: Path) -> Iterator[Row]:
    """Rows of contents on any page, whether a way from the table's root leads there or not.

    See "B-tree pages" and "record format" in https://sqlite.org/fileformat2.html. What was deleted may be among them.
    """
    with open(path, "rb") as stream:
        size = int.from_bytes(stream.read(18)[16:], "big") or _PAGE_BYTES
        size = 65536 if size == 1 else size
        pages = _Pages(stream, size, _FOLLOWED_PER_PAGE * os.fstat(stream.fileno()).st_size // size)
        number = 0
        while page := pages.read(number := number + 1):
            if page[0] == _LEAF_OF_TABLE:
                for at in range(8, min(8 + 2 * int.from_bytes(page[3:5], "big"), size - 2), 2):
                    with suppress(IndexError):  # no cell of such a page
                        if row := _content_in(pages, page, int.from_bytes(page[at : at + 2], "big")):
                            yield row


@dataclass
class _Pages:
    """The pages of a database, and how many more may be looked at because another one leads there."""

    stream: BinaryIO
    size: int
    left: int

    def read(self, number: int) -> bytes:
        """A page, the first of which is 1; nothing where there is none."""
        self.stream.seek((number - 1) * self.size)
        page = self.stream.read(self.size)
        return page if len(page) == self.size else b""

    def follow(self, number: int) -> bytes:
        """A page that another one names; nothing where there is none, or too many were asked for."""
        self.left -= 1
        return self.read(number) if number and self.left >= 0 else b""


def _content_in(pages: _Pages, page: bytes, at: int) -> Row | None:
    """The row in a cell, if it can be one of a content."""
    length, at = _varint(page, at)
    number, at = _varint(page, at)
    size, least = pages.size, (pages.size - 12) * 32 // 255 - 23
    local = length if length <= size - 35 else least + (length - least) % (size - 4)
    local = least if local > size - 35 else local
    content, further = page[at : at + local], page[at + local : at + local + 4]
    header, place = _varint(content, 0)
    kinds: list[int] = []
    while place < header and len(kinds) < 3:
        kind, place = _varint(content, place)
        kinds.append(kind)
    if kinds[:2] != [0, 12 + 2 * DIGEST_BYTES] or len(kinds) < 3 or kinds[2] < 12 or kinds[2] % 2 or place != header:
        return None
    row = place + DIGEST_BYTES
    if length != row + (kinds[2] - 12) // 2 or length > _LONGEST_CONTENT:
        return None
    parts, missing = [content], length - len(content)
    while missing > 0:
        rest = pages.follow(int.from_bytes(further, "big"))
        if not rest:
            return None
        parts.append(rest[4 : 4 + missing])
        missing, further = missing - len(parts[-1]), rest[:4]
    content = b"".join(parts)
    return number, content[place:row], content[row:length]


def _varint(content: bytes, at: int) -> tuple[int, int]:
    """A number of one to nine bytes, and where it ends."""
    number = 0
    for end in range(at, at + 8):
        number = number << 7 | content[end] & 0x7F
        if content[end] < 0x80:
            return number, end + 1
    return number << 8 | content[at + 8], at + 9


def can_be_read(db: sqlite3.Connection, name: str) -> bool:
    """Whether every row of a table can be read, and can be right."""
    try:
        return all(is_right(name, row, 0) for row in _rows(db, f"SELECT {TABLES[name].columns} FROM {name}"))  # noqa: S608
    except (sqlite3.DatabaseError, OverflowError):
        return False


def facts_of(db: sqlite3.Connection) -> dict[str, str]:
    """The facts of the table ``meta`` that can be read and can be right."""
    found = (row for row in readable(db, "meta") if is_right("meta", row, 0))
    return {row[0]: row[1] for row in found if not contradicted(db, "meta", row)}


def _order(key: Any) -> tuple[bool, Any]:
    """Keys as SQLite orders them: numbers before bytes."""
    return isinstance(key, bytes), key


def _stream_rows(db: sqlite3.Connection, query: str, values: Row = ()) -> Iterator[Row]:
    with suppress(sqlite3.DatabaseError):
        yield from _rows(db, query, values)


def _rows(db: sqlite3.Connection, query: str, values: Row = ()) -> Iterator[Row]:
    """The rows of a scan, no more than the file can hold: pages that lead to one another many times never end.

    Raises:
        sqlite3.DatabaseError: it is damaged; of some damages SQLite says that there is no memory.
    """
    most = os.path.getsize(_file_of(db)) // _LEAST_OF_A_ROW
    try:
        for count, row in enumerate(db.execute(query, values)):
            if count > most:
                raise sqlite3.DatabaseError("it has more rows than bytes for them")
            yield row
    except MemoryError as error:
        raise too_long(db) from error


def too_long(db: sqlite3.Connection) -> sqlite3.DatabaseError:
    """What it means that SQLite has no memory for a row: there is enough for all that the file can hold.

    Raises:
        MemoryError: there is not.
    """
    bytearray(min(os.path.getsize(_file_of(db)), _LONGEST_VALUE) + _SPARE_BYTES)
    return sqlite3.DatabaseError("a row says to be longer than the file")


def _file_of(db: sqlite3.Connection) -> Path:
    return Path(db.execute("PRAGMA database_list").fetchone()[2])


def stream(db: sqlite3.Connection, query: str) -> Iterator[Any]:
    """What can be read of a query's rows."""
    return (key for (key,) in _stream_rows(db, query))


def contradicted(db: sqlite3.Connection, name: str, row: Row) -> bool:
    """Whether a checksum, or an index that can be read, says something else than a row of its table."""
    if name in SUMMED and not _agrees(db, *SUMMED[name](row)):
        return True
    if name == "descriptors":
        query = "SELECT id FROM descriptors INDEXED BY sqlite_autoindex_descriptors_1 WHERE digest = ?"
        asked: Row = (row[1],)
    elif name == "pictures":
        query = "SELECT path FROM pictures INDEXED BY pictures_by_descriptor WHERE descriptor = ? AND path = ?"
        asked = (row[1], row[0])
    else:
        return False
    try:
        return bool(db.execute(query, asked).fetchone() != row[:1])
    except sqlite3.DatabaseError:
        return False
    except MemoryError:
        too_long(db)
        return False


SUMMED: dict[str, Callable[[Row], tuple[bytes, bytes]]] = {
    "meta": lambda row: (name_of_fact(row[0]), row[1].encode()),
    "descriptors": lambda row: (row[1], row[2]),
}


def _agrees(db: sqlite3.Connection, name: bytes, content: bytes) -> bool:
    """Whether the checksum that was noted is that of a content, or none can be read."""
    try:
        noted = sum_noted(db, name)
    except MemoryError:
        too_long(db)
        return True
    return noted is None or noted == sum_of(content)


def with_new_first_page(path: Path, scratch: Path) -> None:
    """Puts the first page of a new index in the place of a file's own."""
    skeleton = scratch / "skeleton"
    with closing(Database.open(skeleton, {})) as made:
        page = (made.location / DATABASE_NAME).read_bytes()
        if len(page) <= _PAGE_BYTES:  # still in the log
            made.read("PRAGMA wal_checkpoint(TRUNCATE)")
            page = (made.location / DATABASE_NAME).read_bytes()
    head = bytearray(page[:_PAGE_BYTES])
    head[28:32] = (path.stat().st_size // _PAGE_BYTES).to_bytes(4, "big")
    with open(path, "rb+") as stream:
        stream.write(head)


# What can be right


def is_right(name: str, row: Row, dim: int) -> bool:
    """Whether a row of a table can be what was written there.

    Args:
        name: of the table.
        row: of the columns in :data:`TABLES`.
        dim: numbers of a stored row.
    """
    return all(right(value) for right, value in zip(_RIGHT[name](dim), row, strict=True)) and (
        name != "meta" or _is_right_fact(row)
    )


def is_unit_row(content: object, dim: int) -> bool:
    """Whether these are the bytes of a row: finite, of length 1, or all zero where a picture is blank."""
    if not isinstance(content, bytes) or len(content) != 4 * dim:
        return False
    with np.errstate(invalid="ignore"):
        row = np.frombuffer(content, "<f4").astype(np.float64)
    if not np.isfinite(row).all():
        return False
    return not row.any() or abs(float(np.linalg.norm(row)) - 1) < _UNIT_WITHIN


def whitening_problem(content: object) -> str:
    """Why these bytes are no whitening; empty where they are one."""
    try:
        Whitening.from_bytes(content if isinstance(content, bytes) else b"")
    except CoocnetError as error:
        return str(error)
    return ""


def recipe_of(text: str) -> Recipe | None:
    """The recipe that a text spells, or None."""
    try:
        return Recipe.from_toml(text)
    except CoocnetError:
        return None


def _is_text(value: object) -> bool:
    return isinstance(value, str) and not any("\ud800" <= character <= "\udfff" for character in value)


def _is_path(value: object) -> bool:
    return isinstance(value, bytes) and bool(value) and b"\0" not in value


def _is_digest(value: object) -> bool:
    return isinstance(value, bytes) and len(value) == DIGEST_BYTES


def _is_number(value: object) -> bool:
    return isinstance(value, int)


def _is_version(value: object) -> bool:
    return isinstance(value, int) and value > 0 and _is_count(str(value))


def _is_right_fact(row: Row) -> bool:
    check = _FACTS.get(row[0])
    return check is None or check(row[1])


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _DIGITS


def _is_hex(text: str) -> bool:
    with suppress(ValueError):
        return len(bytes.fromhex(text)) > 0
    return False


_FACTS: dict[str, Callable[[str], bool]] = {
    "recipe": lambda text: recipe_of(text) is not None,
    "dim": _is_count,
    "weights_sha256": lambda text: _is_hex(text) and len(text) == 64,
    "generation": _is_count,
    "whitening": _is_count,
    "change": _is_hex,
}

_Checks = Callable[[int], Iterable[Callable[[object], bool]]]
_RIGHT: dict[str, _Checks] = {
    "meta": lambda _: (_is_text, _is_text),
    "pictures": lambda _: (_is_path, _is_number, _is_number, _is_number),
    "descriptors": lambda dim: (_is_number, _is_digest, lambda content: is_unit_row(content, dim)),
    "folders": lambda _: (_is_path, _is_text),
    "skipped": lambda _: (_is_path, _is_text),
    "whitenings": lambda _: (_is_version, _is_text, _is_number, lambda content: not whitening_problem(content)),
    "removed": lambda _: (_is_digest, _is_path, _is_number, _is_number),
}


def is_database(path: Path) -> bool:
    """Whether a file begins as those of SQLite do, with versions that it can read and write."""
    with open(path, "rb") as stream:
        head = stream.read(100)
    return head[:16] == b"SQLite format 3\0" and set(head[18:20]) <= {1, 2}
