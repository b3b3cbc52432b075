"""What an index holds, read without mending anything, and whether two hold the same."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from coocnet.index import open_index
from coocnet.index.repair import repair
from faults.campaign import must
from faults.commands import coocnet

DATABASE = "index.sqlite"
_COPIES = 50
Content = dict[str, tuple[bytes, bytes]]


@dataclass(frozen=True)
class Left:
    """What an index holds: paths with the digest and the row of each, and whether its recipe is stored."""

    content: Content
    has_recipe: bool


@contextlib.contextmanager
def copied(index: Path) -> Iterator[Path]:
    """A copy of an index, if there is one, so that looking at it mends nothing."""
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name) / "copy.cooc"
        for _ in range(_COPIES):
            with contextlib.suppress(shutil.Error):  # a process that ends just now takes its log away
                if index.exists():
                    shutil.copytree(index, copy)
                break
            shutil.rmtree(copy)
            time.sleep(0.2)
        else:
            must(False, f"{index} changes without end")
        yield copy


def look(index: Path, *, deeply: bool = False) -> Left:
    """What a fault left, which must be sound; without a stored recipe it must count as no index.

    Args:
        index: its folder.
        deeply: also by ``coocnet repair --check``, row by row and with all that is derived.
    """
    with copied(index) as copy:
        left = _read(copy / DATABASE) if (copy / DATABASE).is_file() else Left({}, has_recipe=False)
        if left.has_recipe and deeply:
            must(not (damage := repair(copy, check=True).damage), f"{index} is not sound: {damage}")
    if not left.has_recipe:
        _counts_as_none(index)
    return left


def content_of(index: Path) -> Content:
    """The content of a sound index."""
    return look(index, deeply=True).content


def rows_are_right(left: Left, right: Content, *, within: float = 0.0) -> bool:
    """Whether no number of a row that is there is another than it should be, by more than so much."""
    rows = dict(right.values())
    return all(_differ(rows.get(digest, row), row) <= within for digest, row in left.content.values())


def _differ(one: bytes, other: bytes) -> float:
    if one == other:
        return 0.0
    if len(one) != len(other):
        return np.inf
    return float(np.abs(np.frombuffer(one, np.float32) - np.frombuffer(other, np.float32)).max())


def same_answers(one: Path, other: Path, count: int = 5) -> None:
    """Two indexes must answer alike, each as it would unasked."""
    with copied(one) as a, copied(other) as b, open_index(a) as here, open_index(b) as there:
        paths, digests, rows = here._store.matrix()
        must(paths, f"{one} holds nothing")
        some = rows[np.linspace(0, len(rows) - 1, count).astype(int)]
        found = [[(hit.path, hit.similarity) for hit in hits] for hits in here.search(some, k=10)]
        expected = [[(hit.path, hit.similarity) for hit in hits] for hits in there.search(some, k=10)]
        must(found == expected, f"{one} answers otherwise than {other}")
        del digests


def _read(database: Path) -> Left:
    with contextlib.closing(sqlite3.connect(database)) as connection:
        must(connection.execute("PRAGMA integrity_check").fetchone() == ("ok",), "the database is not sound")
        must(not connection.execute("PRAGMA foreign_key_check").fetchall(), "a picture points to no row")
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone():
            return Left({}, has_recipe=False)
        recipe = connection.execute("SELECT value FROM meta WHERE key = 'recipe'").fetchone()
        rows = connection.execute(
            "SELECT path, digest, row FROM pictures JOIN descriptors ON descriptors.id = pictures.descriptor"
        ).fetchall()
    return Left({path.decode(): (digest, row) for path, digest, row in rows}, has_recipe=recipe is not None)


def _counts_as_none(index: Path) -> None:
    """A place without a stored recipe must be told to be no index, not a damaged one."""
    with copied(index) as copy:
        text = coocnet("info", "--index", copy).ends(1)
    must("there is no index" in text and "damaged" not in text, f"info says: {text}")
