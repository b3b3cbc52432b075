"""kill -9 at random moments of what writes: syncs, whitenings, approximate searches, preparations, migrations."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from coocnet.index import open_index
from coocnet.whitening import Whitening
from faults.campaign import Ground, must
from faults.commands import Run, coocnet, in_child
from faults.looking import DATABASE, Content, content_of, look, rows_are_right, same_answers
from faults.town import Town

EARLY_S = 0.03  # at most; making an index takes about a tenth of it
EARLY_SHARE = 1 / 3  # of the kills
MANY = 1060  # contents: an approximate search needs 1,000, a whitening is learned from 1,024
_KILLS_A_ROUND = 12


@dataclass(frozen=True)
class Work:
    """What is killed.

    Attributes:
        start: begins it, or goes on with it.
        place: what it writes.
        after_kill: looks at what a kill left.
        at_end: compares what is there with what an undisturbed run made.
        run_s: how long what is left to be done should take.
        before_early: called before a run that is to be killed in its first moments.
    """

    start: Callable[[], Run]
    place: Path
    after_kill: Callable[[], None]
    at_end: Callable[[], None]
    run_s: Callable[[], float]
    before_early: Callable[[], None] | None = None


def until_one_ends(ground: Ground, work: Work, most: int) -> None:
    """Starts runs and kills them until one reaches its end, which the one after ``most`` kills may."""
    for _ in range(most):
        early = ground.chance.random() < EARLY_SHARE
        if early and work.before_early is not None:
            work.before_early()
        before = _trace(work.place)
        run = work.start()
        while early and not run.ended() and _trace(work.place) == before:
            time.sleep(0.0002)
        moment_s = EARLY_S * ground.chance.random() ** 4 if early else ground.chance.uniform(0, 1.1 * work.run_s())
        if run.within(moment_s):
            run.ends()
            break
        run.kill()
        ground.count(kills=True, in_the_first_moments=early)
        work.after_kill()
    else:
        work.start().ends()
    work.at_end()


def timed(start: Callable[[], Run]) -> float:
    """How long an undisturbed run takes, to its end."""
    began = time.monotonic()
    start().ends()
    return time.monotonic() - began


def _trace(place: Path) -> set[tuple[str, int, int]]:
    """Changes as soon as a run touches a folder or a file."""
    found = set()
    with suppress(FileNotFoundError):
        for path in (place, *(place.iterdir() if place.is_dir() else ())):
            with suppress(FileNotFoundError):
                status = path.stat()
                found.add((path.name, status.st_size, status.st_mtime_ns))
    return found


def syncs(ground: Ground) -> None:
    """New, changed, renamed, copied and deleted pictures; every other round begins without an index."""
    town, index = ground.town(), ground.folder / "disturbed.cooc"
    while ground.tally["kills"] < ground.kills:
        with ground.round() as place:
            town.change(24)
            town.add(80)
            calm = place / "calm.cooc"
            run_s = timed(partial(coocnet, "index", town.photos, "--index", calm, "--recipe", ground.recipe))
            one = _Sync(ground, town, index, content_of(calm), run_s)
            most = min(_KILLS_A_ROUND, ground.kills - ground.tally["kills"])
            work = Work(one.start, index, one.after_kill, one.at_end, one.left_s, one.begin_anew)
            until_one_ends(ground, work, most)
        if ground.tally["rounds"] % 2 == 0:
            shutil.rmtree(index)
            shutil.rmtree(town.photos)
            town = ground.town()
            ground.say(f"{ground.tally['kills']} syncs killed")


class _Sync:
    """A sync that is killed, and what it has to come to."""

    def __init__(self, ground: Ground, town: Town, index: Path, right: Content, run_s: float) -> None:
        self._ground = ground
        self._town = town
        self._index = index
        self._right = right
        self._run_s = run_s
        self._share = 0.0
        self._is_new = not index.exists()

    def begin_anew(self) -> None:
        """Has an index be made once more, to be killed meanwhile, where this round makes one."""
        if self._is_new and self.index_is_stored():
            shutil.rmtree(self._index)
            self._share = 0.0

    def index_is_stored(self) -> bool:
        """Whether there is an index yet."""
        return (self._index / DATABASE).is_file() and look(self._index).has_recipe

    def start(self) -> Run:
        """The next run, at random without the recipe if the index has it."""
        named = not self.index_is_stored() or self._ground.chance.random() < 0.5
        self._ground.count(without_recipe_option=not named)
        options = ("--recipe", self._ground.recipe) if named else ()
        return coocnet("index", self._town.photos, "--index", self._index, *options)

    def left_s(self) -> float:
        """What is left to be done."""
        return self._run_s * (1 - 0.8 * self._share)

    def after_kill(self) -> None:
        """No row may be wrong."""
        left = look(self._index)
        must(rows_are_right(left, self._right), "a row is wrong")
        there = sum(left.content.get(path) == value for path, value in self._right.items())
        self._share = there / len(self._right)
        self._ground.count(
            with_part_of_the_work_stored=0 < self._share < 1, before_there_was_an_index=not left.has_recipe
        )

    def at_end(self) -> None:
        """As the undisturbed one."""
        must(content_of(self._index) == self._right, "the disturbed index differs from the undisturbed one")


def _many(ground: Ground, count: int = MANY, recipe: Path | None = None) -> tuple[Town, Path]:
    """A folder of many pictures and its index, made once."""
    town, base = ground.town("many"), ground.folder / "many.cooc"
    town.add(count)
    coocnet("index", town.photos, "--index", base, "--recipe", recipe or ground.recipe).ends()
    return town, base


def _rounds(
    ground: Ground, base: Path, work: Callable[[Path], Work], share: float, most: int = _KILLS_A_ROUND
) -> None:
    """Rounds of one work, each on a new copy of an index, until a share of the kills is done."""
    wanted = ground.tally["kills"] + max(1, round(share * ground.kills))
    while ground.tally["kills"] < wanted:
        with ground.round() as place:
            index = Path(shutil.copytree(base, place / "index.cooc"))
            until_one_ends(ground, work(index), min(most, wanted - ground.tally["kills"]))


def whitenings(ground: Ground) -> None:
    """A whitening that is learned by a sync, given to one, and fitted into a file."""
    town, base = _many(ground, 1020, ground.whitened)
    town.add(MANY - 1020)
    right = ground.folder / "right.cooc"
    shutil.copytree(base, right)
    run_s = timed(partial(coocnet, "index", town.photos, "--index", right))
    expected = content_of(right)
    with open_index(right) as opened:
        learned_dim = 0 if (whitening := opened.whitening()) is None else whitening.dim
    must(learned_dim, "no whitening was learned")

    def learned(index: Path) -> Work:
        def after_kill() -> None:
            left = look(index, deeply=True)
            must(rows_are_right(left, expected), "a row is wrong")
            with open_index(index) as opened:
                ground.count(killed_before_it_was_learned=opened.whitening() is None)

        def at_end() -> None:
            must(content_of(index) == expected, "the disturbed index differs from the undisturbed one")
            _same_whitening(index, right)

        return Work(lambda: coocnet("index", town.photos, "--index", index), index, after_kill, at_end, lambda: run_s)

    _rounds(ground, base, learned, 0.4)
    ground.say("whitening: learned")

    file = ground.folder / "whitening.safetensors"
    fitted_s = timed(partial(coocnet, "whitening", "--index", right, "-o", file, "--dim", 32))
    given_index = ground.folder / "given.cooc"
    shutil.copytree(right, given_index)
    give = ("index", town.photos, "--whitening", file, "--index")
    given_s = timed(lambda: coocnet(*give, given_index))

    def given(index: Path) -> Work:
        def after_kill() -> None:
            look(index, deeply=True)
            with open_index(index) as opened:
                held = opened.whitening()
            must(
                held is not None and held.dim in {32, learned_dim},
                "neither whitening is there",
            )

        def at_end() -> None:
            must(content_of(index) == expected, "rows have changed")
            _same_whitening(index, given_index)

        return Work(lambda: coocnet(*give, index), index, after_kill, at_end, lambda: given_s)

    _rounds(ground, right, given, 0.3)
    ground.say("whitening: given")

    def fitted(index: Path) -> Work:
        target = index.parent / "fitted.safetensors"
        if ground.chance.random() < 0.5:
            target.write_bytes(file.read_bytes())

        def after_kill() -> None:
            if target.exists():
                Whitening.load(target)

        def at_end() -> None:
            one, other = Whitening.load(target), Whitening.load(file)
            must(np.array_equal(one.projection, other.projection), "another whitening was fitted")

        start = partial(coocnet, "whitening", "--index", index, "-o", target, "--dim", 32)
        return Work(start, index.parent, after_kill, at_end, lambda: fitted_s)

    _rounds(ground, right, fitted, 0.3)


def _same_whitening(one: Path, other: Path) -> None:
    with open_index(one) as here, open_index(other) as there:
        a, b = here.whitening(), there.whitening()
        must(a is not None and b is not None, "no whitening is in force")
        assert a is not None
        assert b is not None
        same = np.array_equal(a.mean, b.mean) and np.array_equal(a.projection, b.projection)
        must(same, "another whitening is in force than in the undisturbed index")


def approximate_searches(ground: Ground) -> None:
    """``coocnet index --ann``: built for the first time, and anew over one that is there."""
    town, base = _many(ground)
    build = ("index", town.photos, "--ann", "--index")
    right = ground.folder / "right.cooc"
    shutil.copytree(base, right)
    run_s = timed(lambda: coocnet(*build, right))
    expected, info = content_of(right), _approximate(right)
    must(info is not None, "no approximate search was built")

    def work(index: Path) -> Work:
        def after_kill() -> None:
            must(look(index, deeply=True).content == expected, "rows have changed")
            ground.count(killed_before_it_was_in_force=_approximate(index) is None)

        def at_end() -> None:
            must(content_of(index) == expected, "rows have changed")
            must(_approximate(index) == info, "another approximate search was built")
            in_child(partial(same_answers, index, right))

        return Work(lambda: coocnet(*build, index), index, after_kill, at_end, lambda: run_s)

    _rounds(ground, base, work, 1)


def _approximate(index: Path) -> object:
    with open_index(index) as opened:
        held = opened.info()
        return None if held.out_of_force else held.approximate


def preparations(ground: Ground) -> None:
    """``coocnet prepare``, with the neighbours of an earlier state beside it or without."""
    _, base = _many(ground)
    right = ground.folder / "right.cooc"
    shutil.copytree(base, right)
    run_s = timed(partial(coocnet, "prepare", "--index", right))
    expected = content_of(right)

    def work(index: Path) -> Work:
        if ground.chance.random() < 0.5:
            (index / "neighbours.npz").write_bytes((right / "neighbours.npz").read_bytes()[:-100])

        def after_kill() -> None:
            must(look(index).content == expected, "rows have changed")
            in_child(partial(_reranked, index))

        def at_end() -> None:
            must(content_of(index) == expected, "rows have changed")
            with np.load(index / "neighbours.npz") as one, np.load(right / "neighbours.npz") as other:
                for name in ("positions", "scores"):
                    must(np.array_equal(one[name], other[name]), "other neighbours were found")

        return Work(partial(coocnet, "prepare", "--index", index), index, after_kill, at_end, lambda: run_s)

    _rounds(ground, base, work, 1)


def _reranked(index: Path) -> None:
    with open_index(index) as opened:
        _, _, rows = opened._store.matrix()
        assert len(opened.search(rows[:1], k=5, reranking="reciprocal")[0]) == 5


def migrations(ground: Ground) -> None:
    """``coocnet migrate`` from folder to folder, from a folder to Milvus Lite, and back."""
    town, base = _many(ground, 300)
    gone = sorted(town.photos.glob("*.jpg"))[:5]
    coocnet("remove", *gone, "--index", base).ends()
    expected = content_of(base)
    ground.count(lost_by_milvus_lite=False)
    lite = f"milvus-lite://{ground.folder}/full"
    coocnet("migrate", base, lite, before=short_leases).ends()

    def work(index: Path, source: str, kind: str) -> Work:
        target = str(index.parent / "copy.cooc") if kind == "folder" else f"milvus-lite://{index.parent}/copy"
        start = partial(coocnet, "migrate", source, target, before=short_leases)

        def after_kill() -> None:
            must(content_of(base) == expected, "the source has changed")
            if kind == "folder" and Path(target).exists():
                must(rows_are_right(look(Path(target)), expected), "a row is wrong")
            if kind != "folder":
                time.sleep(_LEASE_S)  # a writer that was killed holds its lease until it runs out

        def at_end() -> None:
            back = Path(target) if kind == "folder" else index.parent / "back.cooc"
            if kind != "folder":
                moved = coocnet("migrate", target, back, before=short_leases)
                said = moved.ends(0, 1)
                if moved.status == 1 and "unfinished copy" in said and "WAL recovery stopped" in said:
                    # Its own log, torn by a kill, is read up to there only: what came after is lost, and we say so.
                    ground.count(lost_by_milvus_lite=True)
                    return
                must(moved.status == 0, f"the copy in Milvus Lite cannot be copied back: {said}")
            must(content_of(back) == expected, "the copy differs")
            with open_index(back) as one, open_index(base) as other:
                must(one.removed() == other.removed(), "what was taken out was not copied")

        return Work(start, index.parent, after_kill, at_end, lambda: run_s[kind, source == lite])

    run_s = {
        ("folder", False): timed(lambda: coocnet("migrate", base, ground.folder / "a.cooc")),
        ("folder", True): timed(lambda: coocnet("migrate", lite, ground.folder / "b.cooc", before=short_leases)),
        ("milvus", False): timed(
            lambda: coocnet("migrate", base, f"milvus-lite://{ground.folder}/c", before=short_leases)
        ),
    }
    for source, kind, share in ((str(base), "folder", 0.4), (lite, "folder", 0.3), (str(base), "milvus", 0.3)):
        _rounds(ground, base, partial(work, source=source, kind=kind), share)
        ground.say(f"migration: {'Milvus Lite' if source == lite else 'folder'} to {kind}")


_LEASE_S = 4.0


def short_leases() -> None:
    """A lease of Milvus of seconds, not a minute, so that a killed writer's is soon run out."""
    from coocnet.index.milvus import lease

    lease._LASTS_S, lease._RENEWED_S, lease._SETTLES_S = _LEASE_S, 0.2, 0.05
