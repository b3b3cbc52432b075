"""Folders that can only be read, and folders that go while they are used: those of pictures and that of the index."""

from __future__ import annotations

import shutil
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

from coocnet.index import open_index
from faults.campaign import Ground, must
from faults.commands import coocnet, in_child
from faults.disk import resize, small_disk, why_not
from faults.looking import Content, content_of, look, rows_are_right
from faults.town import Town

_TRIES = 12


def folders(ground: Ground) -> None:
    """A read-only index; then pictures, and then the index, that are moved away in the middle of a sync and back."""
    if reason := why_not(ground.folder):
        ground.say(f"no read-only file system, for nothing can be mounted here: {reason}")
    else:
        _read_only(ground)
    for _ in range(_TRIES):
        with ground.round() as place:
            town = Town(place / "photos", ground.chance)
            town.add(60)
            index, calm = place / "index.cooc", place / "calm.cooc"
            coocnet("index", town.photos, "--index", index, "--recipe", ground.recipe).ends()
            former = content_of(index)
            town.add(80)
            began = time.monotonic()
            coocnet("index", town.photos, "--index", calm, "--recipe", ground.recipe).ends()
            run_s, right = time.monotonic() - began, content_of(calm)
            away = ground.chance.choice((town.photos, index))
            run = coocnet("index", town.photos, "--index", index)
            while away == index and not run.ended() and not _is_written(index):
                run.within(0.001)  # one that was not opened yet would be made anew at its place
            run.within(ground.chance.uniform(0, run_s))
            was_at_work = not run.ended()
            away.rename(place / "away")
            said = run.ends(0, 1)
            must(run.status == 1 or away == town.photos or not was_at_work or _whole(place / "away", right), said)
            (place / "away").rename(away)
            _nothing_dropped(index, former, right)
            ground.count(pictures_gone=away == town.photos, index_gone=away == index, in_the_middle=was_at_work)
            coocnet("index", town.photos, "--index", index).ends()
            must(content_of(index) == right, "the index differs from the undisturbed one")


def _is_written(index: Path) -> bool:
    with suppress(FileNotFoundError):
        return (index / "index.sqlite-wal").stat().st_size > 0
    return False


def _whole(index: Path, right: Content) -> bool:
    return content_of(index) == right


def _nothing_dropped(index: Path, former: Content, right: Content) -> None:
    left = look(index, deeply=True)
    must(former.items() <= left.content.items(), "pictures were dropped though their folder was only away")
    must(rows_are_right(left, right), "a row is wrong")


def _read_only(ground: Ground) -> None:
    with ground.round() as place, small_disk(place / "disk", 64 * 1024) as disk:
        town, index = Town(place / "photos", ground.chance), disk / "index.cooc"
        town.add(60)
        coocnet("index", town.photos, "--index", index, "--recipe", ground.recipe).ends()
        right = content_of(index)
        query = sorted(town.photos.iterdir())[0]
        town.add(5)
        resize(disk, "ro")
        for arguments in (
            ("search", query, "--index", index),
            ("info", "--index", index),
            ("repair", index, "--check"),
        ):
            coocnet(*arguments).ends()
        for refused in (
            ("index", town.photos, "--index", index),
            ("remove", query, "--index", index),
            ("prepare", "--index", index),
            ("repair", index),
        ):
            said = coocnet(*refused).ends(1)
            must("written" in said or "read-only" in said, f"it says: {said}")
            ground.tally["refused_read_only"] += 1
        in_child(partial(_still_searched, index))
        resize(disk, "rw")
        must(content_of(index) == right, "a read-only index has changed")
        coocnet("index", town.photos, "--index", index).ends()
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()


def _still_searched(index: Path) -> None:
    with open_index(index) as opened:
        _, _, rows = opened._store.matrix()
        assert all(opened.search(rows[:3], k=5))
