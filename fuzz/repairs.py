"""Damaged databases and their logs, looked over and mended."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing, suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import strategies as st

from coocnet.errors import CoocnetError
from coocnet.index import open_index
from coocnet.index.repair import repair
from fuzz.indexes import EDITS, database_seeds, filled
from fuzz.target import Reads, Target

_LOG = b"\n--log--\n"
"""What stands between the bytes of a database and those of its log."""
_PAGE = 4096
_NO_SUMS = ("DROP TABLE sums", ())
_LONGEST_BYTES = 1 << 18


@cache
def _logged() -> tuple[bytes, bytes]:
    """A database of pages as they are made, and the log that holds its last changes."""
    with TemporaryDirectory() as folder:
        place, photos = Path(folder) / "a.cooc", Path(folder) / "photos"
        photos.mkdir()
        filled(place, photos, 3)
        database, log = place / "index.sqlite", place / "index.sqlite-wal"
        with open_index(place) as index:  # while it is open, nobody merges the log
            index._store.take_out([next(index._store.each_picture()).digest])
            return database.read_bytes(), log.read_bytes()


@cache
def _seeds() -> list[bytes]:
    database, log = _logged()
    small = database_seeds()[0]
    return [small, _without_sums(small), database, database + _LOG + log, _without_sums(database) + _LOG]


def _without_sums(data: bytes) -> bytes:
    """So that no checksum says it where a value has changed, and the value itself is looked at."""
    return _edited([_NO_SUMS], data)


def _edited(some: list[tuple[str, tuple[object, ...]]], data: bytes) -> bytes:
    with TemporaryDirectory() as folder:
        file = Path(folder) / "index.sqlite"
        file.write_bytes(data)
        with closing(sqlite3.connect(file, isolation_level=None)) as db:
            db.execute("PRAGMA journal_mode = DELETE")
            db.execute("PRAGMA synchronous = OFF")
            for statement, values in some:
                with suppress(sqlite3.Error, OverflowError, UnicodeError):
                    db.execute(statement, values)
        return file.read_bytes()


def _prepared(folder: Path) -> Reads:
    place = folder / "a.cooc"

    def reads(data: bytes) -> None:
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        database, _, log = data.partition(_LOG)
        (place / "index.sqlite").write_bytes(database)
        if log:
            (place / "index.sqlite-wal").write_bytes(log)
        try:
            found = repair(place, check=True)
            report = repair(place)
        finally:
            assert not (place / "index.sqlite.repairing").exists(), "what was begun is left"
        assert report.is_mended == bool(report.damage) == bool(found.damage), "it was not mended as it was found"
        left = repair(place, check=True)
        assert not left.damage, f"what was mended is damaged: {left.damage}"
        try:
            with open_index(place) as index:
                info = index.info()
        except CoocnetError as error:
            raise AssertionError(f"what is said to be sound cannot be opened: {error}") from error
        assert not report.kept_as or info.pictures == report.pictures

    return reads


# Inputs made piece by piece

_FACTS = ["recipe", "weights_sha256", "engines", "change", "made", "storage"]
_NUMBERS = ["dim", "generation", "whitening"]
_BEYOND = ["9" * 17, "9" * 20, "9" * 5000]
_VALUES = ["-1", "0", "1", "", "x", "00", "8.0", "\0", "١", "²"]
_facts = st.tuples(
    st.one_of(st.sampled_from(_NUMBERS), st.sampled_from(_FACTS)),
    st.one_of(st.sampled_from(_BEYOND), st.sampled_from(_VALUES), st.text()),
).map(lambda one: ("INSERT OR REPLACE INTO meta VALUES (?, ?)", one))
_statements = st.builds(
    lambda sums, some: [*sums, *some],
    st.sampled_from([[], [_NO_SUMS], [("DELETE FROM sums", ())]]),
    st.lists(st.one_of(_facts, _facts, EDITS), min_size=1, max_size=3),
)
_content = st.one_of(st.just(bytes(_PAGE)), st.binary(min_size=1, max_size=64), st.just(b"\xff" * 16))


def _pages_changed(data: bytes, changes: list[tuple[int, int, bytes, int]]) -> bytes:
    """Pages written over in part, or exchanged with others."""
    made = bytearray(data)
    count = max(1, len(made) // _PAGE)
    for page, at, content, other in changes:
        place = page % count * _PAGE
        if other:
            one, two = made[place : place + _PAGE], made[other % count * _PAGE :][:_PAGE]
            made[other % count * _PAGE :][:_PAGE] = one
            made[place : place + len(two)] = two
        else:
            made[place + at : place + at + len(content)] = content[: _PAGE - at]
    return bytes(made)


_changes = st.lists(
    st.tuples(st.integers(0, 40), st.integers(0, 200), _content, st.just(0) | st.integers(0, 40)),
    min_size=1,
    max_size=3,
)


def _with_log(database: bytes, log: bytes) -> bytes:
    return database + (_LOG + log if log else b"")


_logs = st.one_of(st.just(b""), st.builds(_pages_changed, st.deferred(lambda: st.just(_logged()[1])), _changes))


def _number(value: int) -> bytes:
    """A number as SQLite writes it, in three bytes."""
    return bytes([0x80 | value >> 14 & 0x7F, 0x80 | value >> 7 & 0x7F, value & 0x7F])


@cache
def _without_root() -> bytes:
    """A database whose rows of contents are found only where every page is looked at."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "index.sqlite"
        file.write_bytes(_logged()[0])
        with closing(sqlite3.connect(file)) as db:
            query = "SELECT rootpage FROM sqlite_master WHERE name = 'descriptors'"
            place = (db.execute(query).fetchone()[0] - 1) * _PAGE
        data = _logged()[0]
        return data[:place] + bytes(_PAGE) + data[place + _PAGE :]


def _in_circles(length: int, cells: int, leaves: int, further: int) -> bytes:
    """Leaves whose cells are all one content, which goes on over pages that lead back to each other."""
    base = _without_root()
    first = len(base) // _PAGE + 1
    least = (_PAGE - 12) * 32 // 255 - 23
    local = least + (length - least) % (_PAGE - 4)
    local = local if local <= _PAGE - 35 else least
    leaf, at = bytearray(_PAGE), _PAGE - 8 - local
    cells = min(cells, (at - 8) // 2)
    leaf[0], leaf[3:5] = 0x0D, cells.to_bytes(2, "big")
    leaf[8 : 8 + 2 * cells] = at.to_bytes(2, "big") * cells
    content = bytes([6, 0, 12 + 2 * 16]) + _number(12 + 2 * (length - 22)) + bytes(local)
    leaf[at:] = _number(length) + b"\1" + content[:local] + (first + leaves).to_bytes(4, "big")
    circle = [(first + leaves + (number + 1) % further).to_bytes(4, "big") for number in range(further)]
    long_enough = bytes(-(-length // _PAGE) * _PAGE)
    return base + bytes(leaf) * leaves + b"".join(one + bytes(_PAGE - 4) for one in circle) + long_enough


_circles = st.builds(
    _in_circles, st.integers(4100, 1 << 16), st.integers(1, 1000), st.integers(1, 30), st.integers(1, 3)
)
_structured = st.one_of(
    st.builds(_edited, _statements, st.deferred(lambda: st.sampled_from(_seeds()[:3]))),
    st.builds(
        _with_log,
        st.builds(_pages_changed, st.deferred(lambda: st.sampled_from([_logged()[0], _seeds()[1]])), _changes),
        _logs,
    ),
    _circles,
)
REPAIRS = Target(
    "databases of indexes and their logs: looked over, mended, and then sound",
    _prepared,
    _seeds,
    _structured,
    longest_bytes=_LONGEST_BYTES,
    inputs_a_process=1500,
)
