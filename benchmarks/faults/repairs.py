"""kill -9 of ``coocnet repair``: it is run again, and loses no more than one that was left in peace."""

from __future__ import annotations

import shutil
import time
from functools import partial
from pathlib import Path

from faults.campaign import Ground, must
from faults.commands import coocnet
from faults.damage import Repaired, leave_in_log
from faults.damages import HOW
from faults.kills import Work, until_one_ends
from faults.logs import merged_copy
from faults.looking import DATABASE, content_of
from faults.whole import removed_of

_KILLS_A_ROUND = 6


def kills(ground: Ground) -> None:
    """Repairs of databases that are damaged anywhere, half of them with a log."""
    town, logged = ground.town(), ground.folder / "logged.cooc"
    leave_in_log(ground, town, logged)
    merged = merged_copy(logged, ground.folder / "merged.cooc")
    while ground.tally["kills"] < ground.kills:
        with ground.round() as place:
            base = ground.chance.choice((logged, merged))
            damaged = Path(shutil.copytree(base, place / "damaged.cooc"))
            HOW[ground.chance.choice(list(HOW))](ground, damaged / DATABASE)
            calm = Path(shutil.copytree(damaged, place / "calm.cooc"))
            began = time.monotonic()
            undisturbed = Repaired.by(calm)
            run_s = time.monotonic() - began
            if undisturbed.status == 1:
                ground.count(nothing_to_be_mended=True)
                continue
            index = Path(shutil.copytree(damaged, place / "index.cooc"))

            def after_kill(index: Path = index) -> None:
                coocnet("repair", index, "--check").ends(0, 1)

            def at_end(index: Path = index, calm: Path = calm) -> None:
                coocnet("repair", index, "--check").ends()
                must(content_of(index) == content_of(calm), "other pictures were saved than by a repair in peace")
                must(removed_of(index) == removed_of(calm), "other removals were saved than by a repair in peace")

            start = partial(coocnet, "repair", index)
            work = Work(start, index, after_kill, at_end, lambda run_s=run_s: run_s)  # type: ignore[misc]
            ground.count(with_a_log=base == logged)
            until_one_ends(ground, work, min(_KILLS_A_ROUND, ground.kills - ground.tally["kills"]))
