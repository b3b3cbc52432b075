"""Runs targets and writes down how their inputs ended.

python -m fuzz [TARGET ...] [--runs 100000] [--seed 1]

Four of five inputs are mutations led by coverage (atheris, the extra "fuzz"), the others are made piece by piece by
hypothesis. Without atheris hypothesis makes all, half of them as mutations that nothing leads.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from fuzz.child import Board, has_atheris
from fuzz.table import TARGETS, target

ROOT = Path(__file__).parents[1]
_MOST_DEATHS = 10
_PIECES = 5
"""One input in so many is made piece by piece, which takes longer; of the time it has half."""
_WAITS_S = 60.0
"""An input that takes no time of the processor for so long waits for something that never comes."""
_STARTS_S = 300.0


def campaign(name: str, runs: int, seconds: float, seed: int, folder: Path) -> dict[str, Any]:
    """All inputs of a target, or as many as there is time for, in as many processes as they cost."""
    one = target(name)
    pieces = runs // _PIECES if has_atheris() else runs
    halves = {"atheris": runs - pieces, "hypothesis": pieces}
    total: dict[str, Any] = {"runs": 0, "by": {}, "seconds": 0.0, "longest_s": 0.0, "most_mb": 0}
    outcomes: Counter[str] = Counter()
    findings: dict[str, dict[str, Any]] = {}
    for engine, wanted in halves.items():
        done = deaths = processes = 0
        until = time.monotonic() + seconds / len(halves)
        while done < wanted and deaths < _MOST_DEATHS and (left := until - time.monotonic()) > 0:
            own = folder / f"{name}-{engine}-{processes}"
            own.mkdir()
            some = min(wanted - done, one.inputs_a_process)
            tally = _one_process(name, some, left, seed + 1000 * processes, engine, own)
            processes += 1
            done += tally["runs"]
            outcomes.update(tally["outcomes"])
            for key in ("longest_s", "most_mb"):
                total[key] = max(total[key], tally[key])
            total["seconds"] += tally["seconds"]
            for title, found in tally["findings"].items():
                known = findings.setdefault(title, {**found, "times": 0})
                known["times"] += found["times"]
            deaths += not tally["ended"]
        total["by"][engine] = done
        total["runs"] += done
    bounds = {"time_s": one.time_s, "memory_mb": one.memory_mb, "longest_bytes": one.longest_bytes}
    return {
        "reads": one.reads,
        "bounds": bounds,
        **total,
        "outcomes": dict(outcomes.most_common()),
        "findings": findings,
    }


def _one_process(name: str, runs: int, seconds: float, seed: int, engine: str, own: Path) -> dict[str, Any]:
    words = [
        sys.executable,
        "-m",
        "fuzz.child",
        name,
        "--runs",
        runs,
        "--seconds",
        seconds,
        "--seed",
        seed,
        "--engine",
        engine,
    ]
    temporary = own / "tmp"
    temporary.mkdir()
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]),
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MALLOC_ARENA_MAX": "2",
        "TMPDIR": str(temporary),
        "HOME": str(own),
        "XDG_CACHE_HOME": str(own / "cache"),
    }
    board = Board(own / "board")
    with (own / "output").open("w") as output:
        process = subprocess.Popen(
            [*map(str, words), "--folder", str(own)], cwd=ROOT, env=environment, stdout=output, stderr=output
        )
        waited = _watched(process, board)
    tally: dict[str, Any] = {"runs": 0, "outcomes": {}, "longest_s": 0, "most_mb": 0, "seconds": 0, "findings": {}}
    if (own / "tally.json").exists():
        tally = json.loads((own / "tally.json").read_text())
    tally["ended"] = (own / "done").exists()
    if not tally["ended"]:
        number, data = board.at()
        if not number:
            raise SystemExit(f"{name} did not begin:\n{(own / 'output').read_text()[-3000:]}")
        how = "waits" if waited else f"ends the process ({process.returncode})"
        traces = [
            file.read_text(errors="replace")[-20000:] for file in (own / "traces", own / "output") if file.exists()
        ]
        tally["findings"][how] = {"times": 1, "input": data.hex(), "says": how, "trace": "\n".join(traces)}
        tally["outcomes"]["FINDING"] = tally["outcomes"].get("FINDING", 0) + 1
        tally["runs"] += 1
    for kept in (temporary, *own.glob("work-*"), *own.glob("corpus-*")):
        shutil.rmtree(kept, ignore_errors=True)
    return tally


def _watched(process: subprocess.Popen[bytes], board: Board) -> bool:
    """Waits for the end; ends it where an input does not go on. Whether it had to."""
    at, since = 0, time.monotonic()
    while process.poll() is None:
        time.sleep(0.2)
        number = board.at()[0]
        if number != at:
            at, since = number, time.monotonic()
        if time.monotonic() - since > (_WAITS_S if at else _STARTS_S):
            process.kill()
            process.wait()
            return True
    return False


def main() -> None:
    """Runs the targets named, or all."""
    parser = argparse.ArgumentParser(prog="python -m fuzz")
    parser.add_argument("targets", nargs="*", help=f"of {', '.join(TARGETS)}; all if none is named")
    parser.add_argument("--runs", type=int, default=100_000, help="inputs of each")
    parser.add_argument("--seconds", type=float, default=1e9, help="for each, where its inputs take longer")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "fuzz.json")
    parser.add_argument("--folder", type=Path, help="for everything that is only needed meanwhile; best in memory")
    asked = parser.parse_args()
    if unknown := set(asked.targets) - set(TARGETS):
        parser.error(f"no target is called {sorted(unknown)[0]!r}; there are {', '.join(TARGETS)}")
    sys.path[:0] = [str(ROOT / "src"), str(ROOT / "benchmarks")]  # the code of this checkout, as in the processes
    from machine import recorded

    document = json.loads(asked.output.read_text()) if asked.output.exists() else {"targets": {}}
    failed = False
    for name in asked.targets or TARGETS:
        with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
            found = campaign(name, asked.runs, asked.seconds, asked.seed, Path(folder))
        failed |= bool(found["findings"])
        document["targets"][name] = {"seed": asked.seed, **found}
        packages = ("atheris", "hypothesis", "torch", "numpy", "pillow", "safetensors", "h5py", "starlette", "h11")
        document |= recorded("python -m fuzz", packages=packages)
        asked.output.parent.mkdir(parents=True, exist_ok=True)
        asked.output.write_text(json.dumps(document, indent=1) + "\n")
        told = {key: found[key] for key in ("runs", "by", "seconds", "longest_s", "most_mb", "outcomes")}
        print(name, json.dumps(told), flush=True)
        for title, one in found["findings"].items():
            print(f"  FINDING {one['times']} times: {title}: {one['says'][:300]}", flush=True)
    raise SystemExit(failed)


if __name__ == "__main__":
    main()
