"""The campaign; see :mod:`faults`."""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import faults
from faults import clocks, damage, disk, kills, logs, memory, reading, repairs, serving, vanishing, writers
from faults.campaign import FindingError, Ground
from faults.commands import in_child, load_all
from faults.town import write_recipes

RESULTS = Path(__file__).parents[2] / "results" / "faults.json"
KINDS: dict[str, tuple[Callable[[Ground], object], float]] = {
    "sync": (kills.syncs, 0.30),
    "whitening": (kills.whitenings, 0.18),
    "ann": (kills.approximate_searches, 0.12),
    "prepare": (kills.preparations, 0.08),
    "migrate": (kills.migrations, 0.16),
    "serve": (serving.kills, 0.10),
    "repair": (repairs.kills, 0.06),
    "full disk": (disk.full, 0),
    "read-only and vanishing": (vanishing.folders, 0),
    "changed while read": (reading.pictures, 0),
    "clocks": (clocks.jumps, 0),
    "two writers": (writers.together, 0),
    "memory": (memory.scarce, 0),
    "log": (logs.of_log, 0),
    "damage": (damage.of_files, 0),
    "damage with a log": (damage.with_log, 0),
}
"""Each kind of fault, and its share of the kills."""
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def main() -> None:
    """Runs the campaign, kind by kind, and writes what came of each."""
    parser = argparse.ArgumentParser(
        prog="python -m faults", description=faults.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=KINDS, action="append", help="this kind of fault; may be given again")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    if any(os.environ.get(name) != "1" for name in _ONE_THREAD):
        # Libraries look at these when they are loaded; with threads of theirs no process can be forked off.
        os.execve(sys.executable, [sys.executable, "-m", "faults", *sys.argv[1:]], {**os.environ, **_ONE_THREAD})
    load_all()
    if not given.only:
        given.out.unlink(missing_ok=True)  # so that a file without --only in it is of one run of all
    only = "".join(f" --only {kind!r}" for kind in given.only or ())
    command = f"python -m faults --kills {given.kills} --seed {given.seed}{only}"
    for kind in given.only or KINDS:
        _write(given.out, kind, {**_tried(kind, given.kills, given.seed), "command": command})


def _tried(kind: str, all_kills: int, seed: int) -> dict[str, object]:
    attempt, share = KINDS[kind]
    print(f"{kind} …", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    began = time.monotonic()
    plain, whitened = folder / "plain.toml", folder / "whitened.toml"
    in_child(partial(write_recipes, folder))
    kinds = round(share * all_kills)
    ground = Ground(folder, random.Random(f"{seed} {kind}"), plain, whitened, max(1, kinds) if share else 0)
    try:
        attempt(ground)
    except FindingError as finding:
        print(f"FOUND, {kind}, seed {seed}: {finding}", file=sys.stderr)
        print(f"The files: {folder}. Repeat it: python -m faults --only {kind!r} --seed {seed}", file=sys.stderr)
        sys.exit(1)
    shutil.rmtree(folder)
    tally: dict[str, object] = dict(sorted(ground.tally.items()))
    print(f"{kind}: {tally}, {time.monotonic() - began:.0f} s", flush=True)
    return {**tally, "seed": seed}


def _write(path: Path, kind: str, tally: dict[str, object]) -> None:
    results = json.loads(path.read_text()) if path.exists() else {"kinds": {}}
    results["python"], results["sqlite"] = platform.python_version(), sqlite3.sqlite_version
    results["kinds"][kind] = tally
    results["kinds"] = {name: results["kinds"][name] for name in KINDS if name in results["kinds"]}
    if all("command" in one for one in results["kinds"].values()):
        results.pop("command", None)  # of those that were written without one each
    results["kills"] = sum(one.get("kills", 0) for one in results["kinds"].values())
    path.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
