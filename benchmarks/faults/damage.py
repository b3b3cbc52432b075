"""Bytes that are no longer those that were written: of the database, its log, and what is derived."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from coocnet.index import open_index
from faults.campaign import Ground, must
from faults.commands import Run, coocnet, in_child
from faults.looking import DATABASE, Content, content_of, look, rows_are_right
from faults.town import Town

_TRIES = 120
_LOGS = 14
_PAGE = 4096
_KEPT_FROM = 50


def of_files(ground: Ground) -> None:
    """Each damage twice: once met by the commands as they come, once by ``coocnet repair`` first."""
    town, whole = ground.town(), ground.folder / "whole.cooc"
    town.add(1040)
    coocnet("index", town.photos, "--index", whole, "--recipe", ground.whitened, "--ann", before=kept_early).ends()
    coocnet("prepare", "--index", whole, before=kept_early).ends()
    out = sorted(town.photos.glob("*.jpg"))[:3]
    coocnet("remove", *out, "--index", whole, before=kept_early).ends()
    coocnet("index", town.photos, "--index", whole, before=kept_early).ends()
    coocnet("search", out[0], "--index", whole, before=kept_early).ends()
    right = content_of(whole)
    for number in range(_TRIES):
        name = list(DAMAGES)[number % len(DAMAGES)]
        state = ground.chance.getstate()
        with ground.round() as place:
            for first in ("use", "repair"):
                index = Path(shutil.copytree(whole, place / f"{first}.cooc"))
                ground.chance.setstate(state)
                DAMAGES[name](ground, index)
                (_used if first == "use" else _repaired)(ground, town, index, right)
        if number % 10 == 9:
            ground.say(f"damage: {number + 1} of {_TRIES}")


def of_log(ground: Ground) -> None:
    """The log of a database whose last changes are in it alone."""
    town, whole, logged = ground.town(), ground.folder / "whole.cooc", ground.folder / "logged.cooc"
    town.add(60)
    sync = ("index", town.photos, "--index", whole, "--recipe", ground.recipe)
    coocnet(*sync).ends()
    with open_index(whole) as opened:  # while it is open, no other process merges the log
        opened.state()
        town.change(20)
        town.add(20)
        coocnet(*sync).ends()
        shutil.copytree(whole, logged)
    must((logged / f"{DATABASE}-wal").stat().st_size, "nothing is in the log")
    right = content_of(whole)
    for number in range(_LOGS):
        with ground.round() as place:
            index = Path(shutil.copytree(logged, place / "index.cooc"))
            how = list(_HOW)[number % len(_HOW)]
            _HOW[how](ground, index / f"{DATABASE}-wal")
            if ground.chance.random() < 0.5:
                coocnet("repair", index).ends()
            must(rows_are_right(look(index, deeply=True), right), "a row is wrong")
            ground.count(something_lost=look(index).content != right)
            coocnet("index", town.photos, "--index", index).ends()
            must(content_of(index) == right, "the index differs from the undisturbed one")


def kept_early() -> None:
    """Has rows be kept beside the index for few pictures already."""
    from coocnet.index import kept

    kept.KEEP_FROM = _KEPT_FROM


def _used(ground: Ground, town: Town, index: Path, right: Content) -> None:
    """Every command ends well or says what is damaged; after a sync that ended well nothing is wrong unsaid."""
    query = sorted(town.photos.glob("*.jpg"))[5]
    told = False
    for arguments in (("info",), ("search", query, "-k", 5), ("index", town.photos)):
        run = coocnet(*arguments, "--index", index, before=kept_early)
        told |= _said(run)
    if told:
        ground.count(told_by_the_commands=True)
        return
    found = coocnet("repair", index, "--check", before=kept_early)
    found.ends(0, 1)
    if found.status == 1:
        ground.count(found_by_a_look_alone=True)
        return
    content = look(index).content
    ground.count(mended_by_a_sync_alone=content == right, unnoticed=content != right)
    must(content == right or _hardly_wrong(content, right), "rows are wrong, and nothing tells")


def _repaired(ground: Ground, town: Town, index: Path, right: Content) -> None:
    """A repair ends in a sound index, or asks for the recipe; one sync later all is as it was."""
    run = coocnet("repair", index, before=kept_early)
    said = run.ends(0, 1)
    if run.status == 1 and "no index at" in said:  # nothing of it is left
        ground.count(nothing_left=True)
        coocnet("index", town.photos, "--index", index, "--recipe", ground.whitened, before=kept_early).ends()
    elif run.status == 1:
        must("--recipe" in said or "anew" in said, f"repair says: {said}")
        ground.count(recipe_lost=True)
        again = coocnet("repair", index, "--recipe", ground.whitened, before=kept_early)
        if "--recipe" not in said or (again.ends(0, 1) and again.status == 1):
            ground.count(nothing_left=True)
            return
    else:
        ground.count(sound_or_mended=True)
    coocnet("repair", index, "--check", before=kept_early).ends()
    rows = _count(index)
    before = look(index)
    must(rows_are_right(before, right) or _hardly_wrong(before.content, right), "a row that was carried is wrong")
    sync = coocnet("index", town.photos, "--index", index, before=kept_early).ends()
    left = content_of(index)
    with open_index(index) as opened:
        out = opened.removed()
    if len(out) < 3:  # what was taken out came back, since nobody knows of it any more
        ground.count(removals_lost=True)
        left = {path: value for path, value in left.items() if path in right}
    ground.count(unnoticed_after_repair=left != right)
    must(left == right or _hardly_wrong(left, right), f"after repair and sync the index differs: {sync}")
    ground.tally["rows_before_damage"] += len(right)
    ground.tally["rows_saved"] += min(rows, len(right))
    in_child(lambda: _searched(index))


def _said(run: Run) -> bool:
    """Whether a command refused, in our words, which then name the repair or what to do anew."""
    said = run.ends(0, 1)
    if run.status == 0:
        return False
    must("coocnet repair" in said or "no index at" in said or "anew" in said, f"{run.what} says: {said}")
    return True


def _hardly_wrong(content: Content, right: Content) -> bool:
    """Whether the index has the right pictures, with rows that are nearly those they should be."""
    import numpy as np

    return all(
        path in right
        and value[0] == right[path][0]
        and abs(np.frombuffer(value[1], "<f4") - np.frombuffer(right[path][1], "<f4")).max() < 1e-2
        for path, value in content.items()
    )


def _count(index: Path) -> int:
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(index / DATABASE)) as db:
        return int(db.execute("SELECT count(*) FROM descriptors").fetchone()[0])


def _searched(index: Path) -> None:
    kept_early()
    with open_index(index) as opened:
        _, _, rows = opened._store.matrix()
        assert all(opened.search(rows[:3], k=5))


# The damages


def _write(path: Path, at: int, content: bytes) -> None:
    with open(path, "rb+") as stream:
        stream.seek(at)
        stream.write(content)


def _somewhere(ground: Ground, path: Path, unit: int = 1) -> int:
    return unit * ground.chance.randrange(max(1, path.stat().st_size // unit))


def _bytes(ground: Ground, path: Path) -> None:
    for _ in range(ground.chance.choice((1, 1, 3, 20))):
        _write(path, _somewhere(ground, path), ground.chance.randbytes(ground.chance.choice((1, 4, 16, 64))))


def _bits(ground: Ground, path: Path) -> None:
    content = bytearray(path.read_bytes())
    for _ in range(ground.chance.choice((1, 5, 50))):
        content[ground.chance.randrange(len(content))] ^= 1 << ground.chance.randrange(8)
    path.write_bytes(content)


def _zeros(ground: Ground, path: Path) -> None:
    for _ in range(ground.chance.choice((1, 1, 5))):
        _write(path, _somewhere(ground, path, _PAGE), bytes(_PAGE))


def _noise(ground: Ground, path: Path) -> None:
    for _ in range(ground.chance.choice((1, 1, 5))):
        _write(path, _somewhere(ground, path, _PAGE), ground.chance.randbytes(_PAGE))


def _swapped(ground: Ground, path: Path) -> None:
    one, other = (_somewhere(ground, path, _PAGE) for _ in range(2))
    content = path.read_bytes()
    _write(path, one, content[other : other + _PAGE])
    _write(path, other, content[one : one + _PAGE])


def _cut(ground: Ground, path: Path) -> None:
    with open(path, "rb+") as stream:
        stream.truncate(_somewhere(ground, path))


def _head(ground: Ground, path: Path) -> None:
    _write(path, ground.chance.randrange(100), ground.chance.randbytes(ground.chance.choice((1, 8, 100))))


_HOW: dict[str, Callable[[Ground, Path], None]] = {
    "bytes": _bytes,
    "bits": _bits,
    "zeros": _zeros,
    "noise": _noise,
    "swapped": _swapped,
    "cut": _cut,
    "head": _head,
}


def _database(how: str) -> Callable[[Ground, Path], None]:
    return lambda ground, index: _HOW[how](ground, index / DATABASE)


def _derived(ground: Ground, index: Path) -> None:
    files = sorted(file for file in index.iterdir() if file.name.startswith(("gallery", "approx", "neighbours")))
    for file in ground.chance.sample(files, ground.chance.randint(1, len(files))):
        _HOW[ground.chance.choice(list(_HOW))](ground, file)


def _exchanged(ground: Ground, index: Path) -> None:
    """Two of the derived files change their places."""
    files = sorted(file for file in index.iterdir() if file.name.startswith(("gallery", "approx", "neighbours")))
    one, other = ground.chance.sample(files, 2)
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)


DAMAGES: dict[str, Callable[[Ground, Path], None]] = {
    **{f"database, {how}": _database(how) for how in _HOW},
    "derived": _derived,
    "derived, exchanged": _exchanged,
}
