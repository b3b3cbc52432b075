"""Databases, logs and derived files with bytes that are no longer those that were written.

What coocnet says of a damage is not taken for true: what is left is looked for in the bytes of the damaged files. So
a repair that gives up too early, or drops without a word what it could have carried, is a finding.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coocnet.index import open_index
from faults.campaign import Ground, must
from faults.commands import Run, coocnet, in_child
from faults.damages import DAMAGES, GONE, OF_DATABASE
from faults.looking import DATABASE, content_of, look
from faults.town import Town
from faults.whole import Left, Whole, recipe_of, removed_of, whitening_of

_TRIES = 120
_LOGGED_TRIES = 40
_KEPT_FROM = 50
_LEAST_SHARE = 0.98
"""Of the rows that are found in a damaged file: pages of them that say no more where a row begins are not read."""
_SPARED = 3
_TAKEN_OUT, _WHITENING = "taken out", "whitening"
"""The words by which a repair says that it lost these."""


def of_files(ground: Ground) -> None:
    """Each damage twice: once met by the commands as they come, once by ``coocnet repair`` first."""
    town, learned = ground.town(), ground.folder / "learned.cooc"
    town.add(1040)
    coocnet("index", town.photos, "--index", learned, "--recipe", ground.whitened, "--ann", before=kept_early).ends()
    coocnet("prepare", "--index", learned, before=kept_early).ends()
    file = ground.folder / "whitening.safetensors"
    coocnet("whitening", "--index", learned, "-o", file, "--dim", 32).ends()
    out = sorted(town.photos.glob("*.jpg"))[:3]
    coocnet("remove", *out, "--index", learned, before=kept_early).ends()
    coocnet("index", town.photos, "--index", learned, before=kept_early).ends()
    coocnet("search", out[0], "--index", learned, before=kept_early).ends()
    given, old = (Path(shutil.copytree(learned, ground.folder / f"{name}.cooc")) for name in ("given", "old"))
    coocnet("index", town.photos, "--index", given, "--whitening", file, before=kept_early).ends()
    coocnet("search", out[0], "--index", given, before=kept_early).ends()
    with closing(sqlite3.connect(old / DATABASE)) as db:
        db.execute("DROP TABLE sums")
    wholes = [Whole.of(learned), Whole.of(given, file), Whole.of(old)]
    must(wholes[1].whitening != wholes[0].whitening, "a whitening that was given is not in force")
    must(not wholes[2].has_sums, "checksums are still there")
    _each_twice(ground, town, wholes, list(DAMAGES), _TRIES)


def with_log(ground: Ground) -> None:
    """Damages of a database whose last changes, some taken out and put back among them, are in its log."""
    town, logged = ground.town(), ground.folder / "logged.cooc"
    leave_in_log(ground, town, logged)
    _each_twice(ground, town, [Whole.of(logged)], [*OF_DATABASE, *GONE], _LOGGED_TRIES)


def leave_in_log(ground: Ground, town: Town, logged: Path, *, earlier: Path | None = None) -> set[str]:
    """Makes an index of some pictures, whose last changes are in its log alone.

    Args:
        ground: where it is tried.
        town: its pictures.
        logged: where it is to be.
        earlier: where it is put as it was before the last of them.

    Returns:
        The files that were taken out, put back or not.
    """
    whole = logged.with_name(f"whole of {logged.name}")
    town.add(60)
    sync = ("index", town.photos, "--index", whole, "--recipe", ground.recipe)
    coocnet(*sync).ends()
    some = sorted(town.photos.glob("*.jpg"))
    coocnet("remove", some[0], "--index", whole).ends()
    with open_index(whole) as opened:  # while it is open, no other process merges the log
        opened.state()
        if earlier is not None:
            coocnet("remove", some[4], "--index", whole).ends()
            shutil.copytree(whole, earlier)
        coocnet("remove", *some[1:4], "--index", whole).ends()
        coocnet("restore", some[2], "--index", whole).ends()
        for path in some[8:]:
            if ground.chance.random() < 0.3:
                path.unlink()
        town.add(20)
        coocnet(*sync).ends()
        shutil.copytree(whole, logged)
    must((logged / f"{DATABASE}-wal").stat().st_size, "nothing is in the log")
    return set(map(str, some[:5]))


def kept_early() -> None:
    """Has rows be kept beside the index for few pictures already."""
    from coocnet.index import kept

    kept.KEEP_FROM = _KEPT_FROM


def _each_twice(ground: Ground, town: Town, wholes: Sequence[Whole], names: list[str], tries: int) -> None:
    for number in range(tries):
        name, whole = names[number % len(names)], wholes[number // len(names) % len(wholes)]
        state = ground.chance.getstate()
        with ground.round() as place:
            for first in ("use", "repair"):
                index = Path(shutil.copytree(whole.index, place / f"{first}.cooc"))
                ground.chance.setstate(state)
                DAMAGES[name](ground, index)
                try:
                    (_used if first == "use" else _repaired)(ground, town, index, whole)
                except Exception:
                    ground.say(f"{name}; {whole.index.name}; met by {first}; try {number + 1}; {index}")
                    raise
        if number % 10 == 9:
            ground.say(f"{number + 1} of {tries} damages")


def _used(ground: Ground, town: Town, index: Path, whole: Whole) -> None:
    """Every command ends well or says what is damaged; after a sync that ended well nothing is wrong unsaid."""
    query = sorted(town.photos.glob("*.jpg"))[5]
    for what, arguments in (
        ("told_by_what_reads", ("info",)),
        ("told_by_what_reads", ("search", query, "-k", 5)),
        ("told_by_a_sync_alone", ("index", town.photos)),
    ):
        if _said(coocnet(*arguments, "--index", index, before=kept_early)):
            ground.count(**{what: True})
            return
    found = coocnet("repair", index, "--check", before=kept_early)
    found.ends(0, 1)
    if found.status == 1:
        ground.count(found_by_a_look_alone=True)
        return
    if _is_of_another_recipe(ground, index, whole):
        return
    content = look(index).content
    must(whole.is_same(content), "pictures or rows are not those that were there, and nothing tells")
    must(removed_of(index) == whole.removed, "what was taken out is not what it was, and nothing tells")
    must(whitening_of(index) == whole.whitening, "another whitening is in force, and nothing tells")
    ground.count(mended_by_a_sync_alone=content == whole.content, unnoticed=content != whole.content)


@dataclass
class Repaired:
    """What ``coocnet repair`` said, and how it ended."""

    status: int | None
    said: str
    to_do: list[str] = field(default_factory=list)

    @classmethod
    def by(cls, index: Path, *options: object) -> Repaired:
        """Runs it to its end."""
        run = coocnet("repair", index, "--json", *options, before=kept_early)
        said = run.ends(0, 1)
        told: dict[str, Any] = json.loads(said[said.index("{") :]) if run.status == 0 else {}
        return cls(run.status, said, told.get("to_do", []))

    def says(self, words: str) -> bool:
        """Whether what is left to be done speaks of something."""
        return any(words in one.lower() for one in self.to_do)


def _repaired(ground: Ground, town: Town, index: Path, whole: Whole) -> None:
    """A repair saves all that is left, and says what is not; one sync later all else is as it was."""
    left, logged = whole.left_in(index), (index / f"{DATABASE}-wal").exists()
    is_gone = not (index / DATABASE).exists() or not (index / DATABASE).stat().st_size
    ground.tally["rows_before_damage"] += len(whole.rows)
    ground.tally["rows_left_in_the_files"] += left.rows
    ground.tally["rows_saved"] += 0
    repaired, recipe_named = Repaired.by(index), False
    if repaired.status == 1 and "--recipe" in repaired.said:
        must(not left.recipe, f"the recipe is called lost, and is in the file: {repaired.said}")
        ground.count(recipe_lost=True)
        repaired, recipe_named = Repaired.by(index, "--recipe", whole.recipe_file), True
    if repaired.status == 1:
        must("no index at" in repaired.said or "anew" in repaired.said, f"repair says: {repaired.said}")
        if is_gone and logged:
            must((index / f"{DATABASE}-wal").exists(), "repair refused, and the log is gone")
            ground.count(nothing_left_but_a_log=True)
        else:
            must(not left.rows, f"nothing is said to be left, and {left.rows} rows are: {repaired.said}")
            ground.count(nothing_left=True)
        _anew(town, index.with_name("anew.cooc"), whole)
        return
    ground.count(sound_or_mended=True)
    _saved(ground, index, whole, left, recipe_named=recipe_named)
    out = removed_of(index)
    back = whole.removed - out
    must(not out - whole.removed, "something is taken out that never was")
    must(not back or repaired.says(_TAKEN_OUT), f"what was taken out is lost, and repair says only: {repaired.to_do}")
    ground.count(removals_lost=bool(back))
    lost = whitening_of(index) != whole.whitening
    must(not lost or repaired.says(_WHITENING), f"the whitening is lost, and repair says only: {repaired.to_do}")
    ground.count(whitening_lost=lost, given_whitening_lost=lost and whole.given is not None)
    again = ("--whitening", whole.given) if lost and whole.given else ()
    if _is_of_another_recipe(ground, index, whole):
        return
    said = coocnet("index", town.photos, "--index", index, *again, before=kept_early).ends()
    must(bool(whitening_of(index)) == bool(whole.whitening), "there is no whitening any more")
    must(lost or whitening_of(index) == whole.whitening, "another whitening is in force")
    content = content_of(index)
    content = {path: value for path, value in content.items() if path in whole.content or value[0] not in back}
    must(whole.is_same(content), f"after repair and sync the index differs: {said}")
    ground.count(unnoticed_after_repair=content != whole.content)
    in_child(lambda: _searched(index))


def _saved(ground: Ground, index: Path, whole: Whole, left: Left, *, recipe_named: bool) -> None:
    """What was carried is right, and is what was left."""
    coocnet("repair", index, "--check", before=kept_early).ends()
    must(whole.is_right(look(index).content), "a row that was carried is wrong")
    saved = whole.saved_in(index)
    ground.tally["rows_saved"] += saved
    least = min(left.rows - _SPARED, _LEAST_SHARE * left.rows)
    must(recipe_named or saved >= least, f"{left.rows} rows are in the file, and {saved} were carried")


def _is_of_another_recipe(ground: Ground, index: Path, whole: Whole) -> bool:
    """Whether the text of the recipe has changed to another, which nothing can tell where there are no checksums."""
    changed = recipe_of(index) != whole.recipe
    must(not changed or not whole.has_sums, "the recipe is another, and nothing tells")
    ground.count(recipe_changed_without_checksums=changed)
    return changed


def _anew(town: Town, place: Path, whole: Whole) -> None:
    coocnet("index", town.photos, "--index", place, "--recipe", whole.recipe_file, before=kept_early).ends()
    content = {path: value for path, value in content_of(place).items() if value[0] not in whole.removed}
    must(content == whole.content, "an index made anew differs")


def _said(run: Run) -> bool:
    """Whether a command refused, in our words, which then name the repair or what to do anew."""
    said = run.ends(0, 1)
    must(run.status == 0 or is_told(said), f"{run.what} says: {said}")
    return run.status == 1


def is_told(said: str) -> bool:
    """Whether a text names the repair, or what to do anew."""
    return "coocnet repair" in said or "no index at" in said or "anew" in said


def _searched(index: Path) -> None:
    kept_early()
    with open_index(index) as opened:
        _, _, rows = opened._store.matrix()
        assert all(opened.search(rows[:3], k=5))
