"""Index folders: the database, and every file that is derived from it."""

from __future__ import annotations

import shutil
import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from hashlib import blake2b
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import numpy as np
from hypothesis import strategies as st

from coocnet.data.walk import FileStamp
from coocnet.errors import CoocnetError, InputError
from coocnet.index import Index, open_index
from coocnet.index.records import Described
from coocnet.recipe import Recipe
from coocnet.whitening import Whitening
from fuzz.target import Reads, Target

_DIM = 8
_RECIPE = Recipe(whitening="none")
_QUERIES = np.eye(2, _DIM, dtype=np.float32)


class _Never:
    """Stands for a describer where nothing needs describing."""

    recipe, weights_sha256, dim = _RECIPE, "0" * 64, _DIM


def filled(place: Path, photos: Path, count: int) -> None:
    """An index of so many files of the folder, with rows that nobody described."""
    random = np.random.default_rng(count)
    rows = random.standard_normal((count, _DIM)) + 4 * np.eye(_DIM)[random.integers(0, 3, count)]
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    given = Whitening(np.zeros(_DIM, np.float32), np.eye(_DIM, dtype=np.float32), _provenance())
    with open_index(place, _RECIPE) as index:
        index._store.bind(_RECIPE, "0" * 64, _DIM, "float32")
        index._store.put_whitening(given, learned_here=False)
        described = []
        for number, row in enumerate(rows):
            path = photos / f"{number:04}.jpg"
            path.write_bytes(row.tobytes())
            status = path.stat()
            stamp = FileStamp(status.st_size, status.st_mtime_ns)
            described.append(Described(str(path), stamp, blake2b(row.tobytes(), digest_size=16).digest(), row))
        index._store.put(described)
        index._store.note_sync(str(photos), {str(photos / "x.jpg"): "empty file"})


def _provenance() -> dict[str, str]:
    return {"row_fingerprint": _RECIPE.row_fingerprint(), "weights_sha256": "0" * 64}


@contextmanager
def _small_ones_are_kept() -> Iterator[None]:
    """What is kept of large collections is kept of these too."""
    with mock.patch("coocnet.index.kept.KEEP_FROM", 1):
        yield


_Answers = list[list[tuple[str, float]]]
_ASKED: dict[str, dict[str, Any]] = {
    "approximate": {},
    "gallery": {"dim": 4, "threshold": 0.1},
    "neighbours": {"reranking": "reciprocal"},
}
"""How a search is asked for that needs the files whose names begin so."""


def _answer(index: Index, kind: str) -> _Answers:
    found = index.search(_QUERIES, k=3, **_ASKED[kind])
    return [[(hit.path, round(hit.similarity, 5)) for hit in hits] for hits in found]


# The database


@cache
def database_seeds() -> list[bytes]:
    """A small database of an index, whose pages are small too."""
    with TemporaryDirectory() as folder:
        place, photos = Path(folder) / "a.cooc", Path("/photos")
        real = Path(folder) / "photos"
        real.mkdir()
        filled(place, real, 3)
        with sqlite3.connect(place / "index.sqlite") as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            for table in ("pictures", "folders", "skipped"):
                db.execute(f"UPDATE {table} SET path = CAST(replace(path, ?, ?) AS BLOB)", (str(real), str(photos)))
            db.execute("PRAGMA journal_mode = DELETE")
            db.commit()
            db.execute("PRAGMA page_size = 1024")
            db.execute("VACUUM")
        return [(place / "index.sqlite").read_bytes()]


def _database_prepared(folder: Path) -> Reads:
    place = folder / "a.cooc"
    (folder / "photos").mkdir()

    def reads(data: bytes) -> None:
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        (place / "index.sqlite").write_bytes(data)
        with open_index(place) as index:
            info = index.info()
            found = [hit for kind in _ASKED for hits in _answer(index, kind) for hit in hits]
            assert len(found) <= 6 * info.pictures
            with suppress(InputError):  # it wants more pictures than there are
                index.auto_threshold()
            index.sync(folder / "photos", describer=_Never, allow_empty=True)  # type: ignore[arg-type]

    return reads


_COLUMNS = [
    ("meta", "value"),
    ("meta", "key"),
    ("descriptors", "id"),
    ("descriptors", "digest"),
    ("descriptors", "row"),
    ("pictures", "path"),
    ("pictures", "descriptor"),
    ("pictures", "size_bytes"),
    ("pictures", "modified_ns"),
    ("folders", "path"),
    ("folders", "synchronised"),
    ("skipped", "path"),
    ("skipped", "reason"),
    ("whitenings", "version"),
    ("whitenings", "made"),
    ("whitenings", "learned_here"),
    ("whitenings", "content"),
]
_KEYS = [
    "recipe",
    "weights_sha256",
    "dim",
    "engines",
    "generation",
    "change",
    "made",
    "whitening",
    "storage",
    "thumbnails",
    "migrating",
]
_cells = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.text(max_size=9),
    st.binary(max_size=40),
    st.sampled_from(["0", "-1", "8", "99999999999999", "1e9", "nan", "x", "1", "2"]),
)
_ENDLESS = (
    "CREATE VIEW removals AS WITH RECURSIVE c (x) AS (SELECT 1 UNION ALL SELECT x FROM c) SELECT x AS digest FROM c"
)
EDITS = st.one_of(
    st.tuples(st.sampled_from(_COLUMNS), _cells).map(
        lambda one: (f"UPDATE OR IGNORE {one[0][0]} SET {one[0][1]} = ?", (one[1],))
    ),
    st.tuples(st.sampled_from(_KEYS), _cells).map(lambda one: ("INSERT OR REPLACE INTO meta VALUES (?, ?)", one)),
    st.sampled_from(["pictures", "descriptors", "whitenings", "meta", "folders", "skipped"]).flatmap(
        lambda table: st.sampled_from([(f"DROP TABLE {table}", ()), (f"DELETE FROM {table}", ())])
    ),
    st.sampled_from(
        [("PRAGMA user_version = 99", ()), ("PRAGMA application_id = 3", ()), ("CREATE TABLE removals (a)", ())]
    ),
    st.just(("CREATE TRIGGER t AFTER INSERT ON meta BEGIN DELETE FROM meta; END", ())),
    st.just((_ENDLESS, ())),
)


def _edited(some: list[tuple[str, tuple[object, ...]]]) -> bytes:
    with TemporaryDirectory() as folder:
        file = Path(folder) / "index.sqlite"
        file.write_bytes(database_seeds()[0])
        db = sqlite3.connect(file, isolation_level=None)
        db.execute("PRAGMA synchronous = OFF")
        for statement, values in some:
            with suppress(sqlite3.Error, OverflowError, UnicodeError):
                db.execute(statement, values)
        db.close()
        return file.read_bytes()


DATABASES = Target(
    "databases of indexes (index.sqlite): opened, searched, synchronised",
    _database_prepared,
    database_seeds,
    st.lists(EDITS, min_size=1, max_size=3).map(_edited),
    time_s=5,
    longest_bytes=1 << 16,
)


# What is derived

_COUNTS = {"approximate": 1000, "gallery": 200, "neighbours": 60}
"""Pictures of the index whose files of this kind are changed: an approximate search wants a thousand."""
_SEPARATOR = b"\n"


@cache
def _derived(kind: str) -> tuple[dict[str, bytes], dict[str, bytes], _Answers]:
    """The files of an index, those of them that are of this kind, and what it answers with and without them."""
    with TemporaryDirectory() as folder, _small_ones_are_kept():
        place, photos = Path(folder) / "a.cooc", Path(folder) / "photos"
        photos.mkdir()
        filled(place, photos, _COUNTS[kind])
        with open_index(place) as index:
            answer = _answer(index, kind)
            if kind == "approximate":
                index.build_ann()
            index.prepare_reranking()
            assert answer == _answer(index, kind)
        files = {file.name: file.read_bytes() for file in place.iterdir() if file.is_file()}
    return files, {name: content for name, content in files.items() if name.startswith(kind)}, answer


@cache
def _derived_seeds() -> list[bytes]:
    named = [item for kind in _ASKED for item in _derived(kind)[1].items()]
    return [name.split("-")[0].encode() + _SEPARATOR + content for name, content in named]


class _Folder:
    """An index whose files are put back before each input."""

    def __init__(self, place: Path, kind: str) -> None:
        self.place, self.kind = place, kind
        self.files, self.derived, self.answer = _derived(kind)
        place.mkdir()
        self._changed = set(self.files)

    def with_changed(self, name: str, content: bytes) -> None:
        for former in self._changed | ({file.name for file in self.place.iterdir()} - set(self.files)):
            (self.place / former).unlink(missing_ok=True)  # one that is mapped is not to be changed
            if former in self.files:
                (self.place / former).write_bytes(self.files[former])
        self._changed = {name, *(one for one in self.files if one.startswith(("gallery", "index.sqlite")))}
        (self.place / name).unlink()
        (self.place / name).write_bytes(content)


def _derived_prepared(folder: Path) -> Reads:
    folders = {kind: _Folder(folder / f"{kind}.cooc", kind) for kind in _ASKED}
    names = sorted({name.split("-")[0] for one in folders.values() for name in one.derived})

    def reads(data: bytes) -> None:
        first, _, content = data.partition(_SEPARATOR)
        name = first.decode("utf-8", "replace")
        if name not in names:
            name = names[zlib.crc32(first) % len(names)]
        one = next(one for one in folders.values() if name.startswith(one.kind))
        one.with_changed(next(full for full in one.derived if full.split("-")[0] == name), content)
        with _small_ones_are_kept(), open_index(one.place) as index:
            assert index.info().pictures == _COUNTS[one.kind]
            try:
                answer = _answer(index, one.kind)
            except CoocnetError as error:
                raise AssertionError("a damaged file is an error of the search") from error
            assert answer == one.answer, "a damaged file changed what is found"

    return reads


DERIVED = Target(
    "files derived from an index: never an error, and the same answers",
    _derived_prepared,
    _derived_seeds,
    st.builds(
        lambda name, content: name.encode() + _SEPARATOR + content,
        st.sampled_from(["approximate", "approximate.npz", "gallery", "gallery.npz", "neighbours.npz"]),
        st.binary(max_size=200),
    ),
    time_s=5,
    longest_bytes=1 << 17,
    inputs_a_process=1500,
)
