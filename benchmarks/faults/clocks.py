"""Clocks that jump: files from the past and the future, a process whose time goes back and forth."""

from __future__ import annotations

import os
import random
import time
from functools import partial
from pathlib import Path

from faults.campaign import Ground, must
from faults.commands import coocnet
from faults.looking import Content, content_of, same_answers
from faults.town import Town

_TRIES = 12
_YEAR_S = 365 * 86400


def jumps(ground: Ground) -> None:
    """The times of the files, then those of the process, then both; no picture may be missed for it."""
    for _ in range(_TRIES):
        with ground.round() as place:
            town = Town(place / "photos", ground.chance)
            town.add(24)
            index = place / "index.cooc"
            jumping = partial(_jumping, ground.chance.randrange(10**9))
            run = partial(coocnet, "index", town.photos, "--index", index, "--recipe", ground.recipe, before=jumping)
            _at_any_time(ground, town)
            run().ends()
            _right(ground, town, index, place / "calm1.cooc")
            town.change(20)
            town.add(10)
            _at_any_time(ground, town)
            run().ends()
            _right(ground, town, index, place / "calm2.cooc")
            unseen = _changed_unseen(town)
            coocnet("index", town.photos, "--index", index, "--verify-content", before=jumping).ends()
            _right(ground, town, index, place / "calm3.cooc")
            ground.tally["changed_with_size_and_time_as_before"] += unseen
            same_answers(index, place / "calm3.cooc")


def _right(ground: Ground, town: Town, index: Path, calm: Path) -> Content:
    coocnet("index", town.photos, "--index", calm, "--recipe", ground.recipe).ends()
    right = content_of(calm)
    must(content_of(index) == right, "the index differs from one made by a steady clock")
    return right


def _at_any_time(ground: Ground, town: Town) -> None:
    """Gives some files times between 1902 and 2100."""
    for path in sorted(town.photos.iterdir()):
        if ground.chance.random() < 0.5:
            moment = ground.chance.randint(-68 * _YEAR_S, 130 * _YEAR_S)
            os.utime(path, (moment, moment))
            ground.tally["files_at_other_times"] += 1


def _changed_unseen(town: Town) -> int:
    """Other content of the same size and time, which only ``--verify-content`` can tell."""
    some = sorted(town.photos.iterdir())[:3]
    for path in some:
        status, content = path.stat(), bytearray(path.read_bytes())
        content[-1] ^= 1  # behind the end of the picture
        path.write_bytes(content)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    return len(some)


def _jumping(seed: int) -> None:
    """Has this process's clock say something else each time, up to a year off."""
    chance, true = random.Random(seed), time.time
    time.time = lambda: true() + chance.uniform(-_YEAR_S, _YEAR_S)
