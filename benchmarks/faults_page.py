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
    "repair": "`coocnet repair`, then compared with one left in peace",
}
"""What is killed, by its kind."""


def kills(found: dict[str, Any]) -> str:
    """Kills by what was killed."""
    lines = pages.head(["killed", "kills", "in the first moments", "rounds", "rounds equal to an undisturbed run"])
    killed = {kind: what for kind, what in KILLED.items() if kind in found["kinds"]}
    for kind, what in killed.items():
        one = found["kinds"][kind]
        early = str(one.get("in_the_first_moments", ""))
        equal = one["rounds"] - one.get("lost_by_milvus_lite", 0)
        lines.append(pages.row([what, str(one["kills"]), early, str(one["rounds"]), str(equal)]))
    rounds = sum(found["kinds"][kind]["rounds"] for kind in killed)
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
        one = kinds.get(kind, {"rounds": 0})
        if not one["rounds"]:
            lines.append(pages.row([kind, "0", "not run"]))
        elif one.get("skipped"):
            lines.append(pages.row([kind, "0", "skipped: nothing can be mounted on that machine"]))
        else:
            lines.append(pages.row([kind, str(one["rounds"]), tell(one)]))
    return "\n".join(lines)


DAMAGED = {"damage": "damages", "damage with a log": "damages beside a log"}
"""What is damaged, by its kind."""
_MET: dict[str, dict[str, str]] = {
    "met by `info`, `search` and `index` as they come:": {
        "told by `info` or `search`, with what to do": "told_by_what_reads",
        "told by `index` alone, before it wrote": "told_by_a_sync_alone",
        "made good by the sync alone, to the last bit": "mended_by_a_sync_alone",
        "found by `coocnet repair --check` alone": "found_by_a_look_alone",
        "noticed by nobody: a row of an index without checksums, of length 1": "unnoticed",
    },
    "met by `coocnet repair` first, then by one sync:": {
        "sound again, or sound still": "sound_or_mended",
        "the recipe was nowhere in the file, and had to be named (`--recipe`)": "recipe_lost",
        "nothing left to be saved: no row anywhere in the file": "nothing_left",
        "no database, only its log: made anew": "nothing_left_but_a_log",
        "what had been taken out was lost, as it said": "removals_lost",
        "the whitening was lost, as it said": "whitening_lost",
        "· one that was given, and was given again": "given_whitening_lost",
        "another row of length 1, in an index without checksums": "unnoticed_after_repair",
        "another recipe, in an index without checksums, met either way": "recipe_changed_without_checksums",
    },
}


def damage(found: dict[str, Any]) -> str:
    """Damaged files, met by the commands and by the repair."""
    kinds = {kind: found["kinds"][kind] for kind in DAMAGED if kind in found["kinds"]}
    if not kinds:
        return "Not run."
    lines = pages.head(["", *(f"{one['rounds']} {DAMAGED[kind]}" for kind, one in kinds.items())])
    for title, counted in _MET.items():
        lines.append(pages.row([title, *("" for _ in kinds)]))
        lines += [
            pages.row([f"· {what}", *(str(one.get(key, 0)) for one in kinds.values())])
            for what, key in counted.items()
        ]
    for what, of in (
        ("all that were there", "rows_before_damage"),
        ("those left in the files", "rows_left_in_the_files"),
    ):
        shares = (f"{100 * one['rows_saved'] / max(1, one[of]):.1f} %" for one in kinds.values())
        lines.append(pages.row([f"· rows saved, of {what}", *shares]))
    return "\n".join(lines)


def _disk(one: dict[str, int]) -> str:
    return (
        f"{one['syncs_on_a_full_disk']} syncs, {one['prepare_on_a_full_disk']} preparations, "
        f"{one['migrate_on_a_full_disk']} migrations and {one['repair_on_a_full_disk']} repairs met its end: "
        "each said so, what was stored before stayed, and the same command went on once there was room"
    )


def _log(one: dict[str, int]) -> str:
    return (
        "the database's log damaged or taken away while the last changes were in it alone, and "
        f"{one['of_another_state_or_index']} times that of another state or index put in its place: a sync said so "
        f"{one['told_by_a_sync']} times; what was lost was made again by the next, and nothing was wrong"
    )


def _memory(one: dict[str, int]) -> str:
    told = (
        f"too little for {one['said_so'] + one['ended_by_a_library']}: {one['said_so']} said so, "
        f"{one['ended_by_a_library']} were ended by a library that asks for no more; what was stored was right"
    )
    if rounded := one.get("computed_by_pytorch_instead", 0):
        told += f", to float32 rounding in {rounded}, where the compiled loops had no memory and PyTorch computed"
    return told


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
    "memory": _memory,
}


def about(found: dict[str, Any]) -> str:
    """Where the figures come from: one run of all kinds, or which kinds are of which run."""
    runs: dict[str, list[str]] = {}
    for kind, one in found["kinds"].items():
        runs.setdefault(one.get("command") or found.get("command", ""), []).append(kind)
    told = [
        (f"`{command}`" if command.startswith("python") else command.replace("make faults", "`make faults`"))
        + ("" if len(runs) == 1 or " --only " in command else f" ({', '.join(kinds)})")
        for command, kinds in runs.items()
    ]
    missing = [kind for kind in (*KILLED, *_TOLD, *DAMAGED) if kind not in found["kinds"]]
    without = f", without {', '.join(missing)}" if missing else ""
    return (
        f"{'; '.join(told)}{without}; Python {found['python']}, SQLite {found['sqlite']}; "
        "figures in `results/faults.json`."
    )


def main() -> None:
    """Writes the tables into the page."""
    found = json.loads((ROOT / "results" / "faults.json").read_text())
    tables = (about, kills, others, damage)
    pages.written(PAGE, {one.__name__: one(found) for one in tables}, by="faults_page.py")


if __name__ == "__main__":
    main()
