"""The log of a database that is damaged, not there, or of another state or another index."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from faults.campaign import Ground, must
from faults.commands import coocnet
from faults.damage import Repaired, is_told, leave_in_log
from faults.damages import HOW
from faults.looking import DATABASE, Content, content_of, look
from faults.whole import Whole

_LOG = f"{DATABASE}-wal"
_ROUNDS = 2
"""How often each way is tried with each of the first commands."""


def of_log(ground: Ground) -> None:
    """The log of a database whose last changes are in it alone; what it held may be lost, nothing may be wrong."""
    town, logged = ground.town(), ground.folder / "logged.cooc"
    earlier, others = ground.folder / "earlier.cooc", ground.folder / "others.cooc"
    taken = leave_in_log(ground, town, logged, earlier=earlier)
    leave_in_log(ground, ground.town("others"), others)
    whole = Whole.of(logged)
    merged = merged_copy(logged, ground.folder / "merged.cooc")
    # Whether the few that were taken out are so nobody can know without the log.
    right = {path: value for path, value in whole.content.items() if path not in taken}

    def mine(content: Content) -> Content:
        below = f"{town.photos}/"
        return {path: one for path, one in content.items() if path.startswith(below) and path not in taken}

    ways: dict[str, tuple[Path, Callable[[Path], object]]] = {
        **{how: (logged, lambda log, how=how: HOW[how](ground, log)) for how in HOW},  # type: ignore[misc]
        "missing": (logged, Path.unlink),
        "emptied": (logged, lambda log: log.write_bytes(b"")),
        "of an earlier state": (logged, lambda log: shutil.copyfile(earlier / _LOG, log)),
        "of an earlier state, merged since": (merged, lambda log: shutil.copyfile(earlier / _LOG, log)),
        "of another index": (logged, lambda log: shutil.copyfile(others / _LOG, log)),
        "of another index, merged since": (merged, lambda log: shutil.copyfile(others / _LOG, log)),
    }
    for way, (base, exchange) in ways.items():
        for number in range(2 * _ROUNDS):
            with ground.round() as place:
                index = Path(shutil.copytree(base, place / "index.cooc"))
                exchange(index / _LOG)
                if number % 2:
                    must(Repaired.by(index).status == 0, f"{way}: nothing was mended")
                elif way in HOW or way in {"missing", "emptied"}:  # part of a log is an earlier state, and sound
                    must(whole.is_right(look(index, deeply=True).content), f"{way}: a row is wrong")
                sync = coocnet("index", town.photos, "--index", index)
                said = sync.ends(0, 1)
                if told := sync.status == 1:
                    must(is_told(said), f"{way}: {sync.what} says: {said}")
                    must(Repaired.by(index).status == 0, f"{way}: nothing was mended")
                    coocnet("index", town.photos, "--index", index).ends()
                content = content_of(index)
                must(whole.is_right(content), f"{way}: a row is wrong")
                must(mine(content) == right, f"{way}: the index differs from the undisturbed one: {said}")
                ground.count(told_by_a_sync=told, of_another_state_or_index=way.startswith("of"))
        ground.say(f"log {way}")


def merged_copy(index: Path, place: Path) -> Path:
    """A copy whose log is merged into it."""
    shutil.copytree(index, place)
    with closing(sqlite3.connect(place / DATABASE)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return place
