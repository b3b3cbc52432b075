"""The tables of docs/reliability.md, from what ``make faults`` counted.

python benchmarks/faults_page.py
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pages

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reliability.md"
KILLED = {
    "sync": "a sync, `coocnet index`; half of them make the index",
    "whitening": "learned by a sync, given by `--whitening FILE`, fitted into a file",
    "ann": "`coocnet index --ann`",
    "prepare": "`coocnet prepare`",
    "migrate": "`coocnet migrate`: folder to folder, to Milvus Lite, and back",
    "serve": "`coocnet serve` at work: syncing, taking pictures in and out",
}
"""What is killed, by its kind."""


def kills(found: dict[str, Any]) -> str:
    """Kills by what was killed."""
    lines = pages.head(["killed", "kills", "in the first moments", "rounds", "rounds equal to an undisturbed run"])
    for kind, what in KILLED.items():
        one = found["kinds"][kind]
        early = str(one.get("in_the_first_moments", ""))
        equal = one["rounds"] - one.get("lost_by_milvus_lite", 0)
        lines.append(pages.row([what, str(one["kills"]), early, str(one["rounds"]), str(equal)]))
    rounds = sum(found["kinds"][kind]["rounds"] for kind in KILLED)
    equal = rounds - found["kinds"]["migrate"]["lost_by_milvus_lite"]
    lines.append(pages.row(["**in all**", f"**{found['kills']}**", "", f"**{rounds}**", f"**{equal}**"]))
    sync, serve = found["kinds"]["sync"], found["kinds"]["serve"]
    return "\n".join(lines) + (
        f"\n\nOf the syncs, {sync['with_part_of_the_work_stored']} kills left part of the work stored, "
        f"none of it wrong; "
        f"{sync['before_there_was_an_index']} fell before there was an index; "
        f"{sync['without_recipe_option']} runs were started without `--recipe`. {_lost(found['kinds']['migrate'])}"
        f"The service had answered {serve['requests_that_changed_something']} requests that changed the collection "
        f"before it was killed: each of them was stored."
    )


def _lost(migrate: dict[str, int]) -> str:
    """What Milvus Lite itself lost."""
    lost = migrate["lost_by_milvus_lite"]
    if not lost:
        return ""
    return (
        f"Of the rounds into Milvus Lite, {lost} ended otherwise: a kill tore its own log, behind which it reads "
        "nothing any more, and the copy was then called unfinished, as it is. "
    )


def others(found: dict[str, Any]) -> str:
    """What else was done to it, and what came of that."""
    kinds = found["kinds"]
    lines = pages.head(["fault", "tries", "what came of them"])
    for kind, tell in _TOLD.items():
        one = kinds[kind]
        if one.get("skipped"):
            lines.append(pages.row([kind, "0", "skipped: nothing can be mounted on that machine"]))
        else:
            lines.append(pages.row([kind, str(one["rounds"]), tell(one)]))
    return "\n".join(lines)


def damage(found: dict[str, Any]) -> str:
    """Damaged files, met by the commands and by the repair."""
    one = found["kinds"]["damage"]
    share = one["rows_saved"] / one["rows_before_damage"]
    lines = pages.head([f"{one['rounds']} damages", ""])
    met = {
        "met by `info`, `search` and `index` as they come:": "",
        "· told, with what to do": one.get("told_by_the_commands", 0),
        "· made good by the sync alone, to the last bit": one.get("mended_by_a_sync_alone", 0),
        "· found by `coocnet repair --check` alone": one.get("found_by_a_look_alone", 0),
        "· noticed by nobody, a row hardly wrong": one.get("unnoticed", 0),
        "met by `coocnet repair` first, then by one sync:": "",
        "· sound again, or sound still": one.get("sound_or_mended", 0),
        "· the recipe had to be named (`--recipe`)": one.get("recipe_lost", 0),
        "· nothing left to be saved": one.get("nothing_left", 0),
        "· what had been taken out was lost, and came back": one.get("removals_lost", 0),
        "· not as before to the last bit": one.get("unnoticed_after_repair", 0),
        "· rows saved, of all that were there": f"{100 * share:.1f} %",
    }
    return "\n".join([*lines, *(pages.row([what, str(count)]) for what, count in met.items())])


def _disk(one: dict[str, int]) -> str:
    return (
        f"{one['syncs_on_a_full_disk']} syncs, {one['prepare_on_a_full_disk']} preparations, "
        f"{one['migrate_on_a_full_disk']} migrations and {one['repair_on_a_full_disk']} repairs met its end: "
        "each said so, what was stored before stayed, and the same command went on once there was room"
    )


def _log(one: dict[str, int]) -> str:
    return (
        f"the database's log damaged while the last changes were in it alone: {one['something_lost']} times some of "
        "them were gone, none was wrong, and the next sync made them again"
    )


_TOLD: dict[str, Callable[[dict[str, int]], str]] = {
    "full disk": _disk,
    "read-only and vanishing": lambda one: (
        f"pictures moved away {one['pictures_gone']} times, the index {one['index_gone']} times, "
        f"{one['in_the_middle']} of them in the middle of a sync: nothing was dropped; "
        f"a read-only index was searched, and {one.get('refused_read_only', 0)} commands that write were refused"
    ),
    "changed while read": lambda one: (
        f"files written {one['written']} times, cut {one['cut'] + one['emptied']}, replaced {one['replaced']}, "
        f"deleted {one['deleted']}, turned into folders {one['made_a_folder']}, beside a sync: "
        "one in peace made all right"
    ),
    "clocks": lambda one: (
        f"{one['files_at_other_times']} files from 1902 to 2100, and a process whose clock jumps by up to a year: "
        f"nothing was missed; {one['changed_with_size_and_time_as_before']} files that had changed though "
        "size and time had not were found by `--verify-content`, which alone can"
    ),
    "two writers": lambda one: (
        f"{one['done']} commands at once did their work, {one['refused']} were told that another was at it"
    ),
    "log": _log,
    "memory": lambda one: (
        f"too little for {one['said_so'] + one['ended_by_a_library']}: {one['said_so']} said so, "
        f"{one['ended_by_a_library']} were ended by a library that asks for no more; what was stored was right"
    ),
}


def about(found: dict[str, Any]) -> str:
    """Where the figures come from."""
    seeds = ", ".join(map(str, sorted({one["seed"] for one in found["kinds"].values()})))
    command = found["command"].replace("make faults", "`make faults`")
    return (
        f"{command}, seed {seeds}, Python {found['python']}, SQLite {found['sqlite']}; "
        "figures in `results/faults.json`."
    )


def main() -> None:
    """Writes the tables into the page."""
    found = json.loads((ROOT / "results" / "faults.json").read_text())
    tables = (about, kills, others, damage)
    pages.written(PAGE, {one.__name__: one(found) for one in tables}, by="faults_page.py")


if __name__ == "__main__":
    main()
