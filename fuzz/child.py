"""One process that gives inputs to a target, each in bounded time and memory, and writes down how they end.

It may die of an input: what it was at stands on the board, which outlives it.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import importlib.util
import json
import mmap
import os
import random
import resource
import signal
import struct
import sys
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path
from typing import Any, NoReturn

BOARD_BYTES = 1 << 20
_HEAD = struct.Struct("<QQ")
_FLUSHED_EVERY = 100
_BATCH = 2000
_NOT_INSTRUMENTED = ["coocnet.loops", "coocnet.data.lanczos"]
"""Numba compiles their bytecode, so it must stay as it is."""


class Board:
    """Which input a process is at, by number from 1 on, in a file that another process reads."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(bytes(BOARD_BYTES))
        with path.open("r+b") as stream:
            self._held = mmap.mmap(stream.fileno(), BOARD_BYTES)

    def put(self, number: int, data: bytes) -> None:
        """Writes down what is to be read now."""
        self._held[: _HEAD.size] = _HEAD.pack(number, len(data))
        self._held[_HEAD.size : _HEAD.size + len(data)] = data

    def at(self) -> tuple[int, bytes]:
        """What was written down last."""
        number, size = _HEAD.unpack(self._held[: _HEAD.size])
        return number, self._held[_HEAD.size : _HEAD.size + size]


class Watch:
    """Runs inputs and counts how they end."""

    def __init__(self, folder: Path, name: str, runs: int, seconds: float) -> None:
        from fuzz.table import target
        from fuzz.target import outcome

        self.target = target(name)
        self._folder, self._runs, self._seconds = folder, runs, seconds
        self._board = Board(folder / "board")
        self._tally: dict[str, Any] = {
            "runs": 0,
            "outcomes": Counter(),
            "longest_s": 0.0,
            "most_mb": 0,
            "seconds": 0.0,
        }
        self._findings: dict[str, dict[str, Any]] = {}
        own = folder / f"work-{os.getpid()}"
        own.mkdir()
        self._reads = self.target.prepare(own)
        for seed in self.target.seeds():  # what is loaded at the first time is no input's doing
            with contextlib.suppress(Exception):
                outcome(self._reads, seed)
        self._traces = (folder / "traces").open("a")
        faulthandler.enable(self._traces)
        faulthandler.register(signal.SIGPROF, self._traces, chain=True)
        self._held_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
        asked = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        most = asked + (self.target.memory_mb << 20)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        self._began = time.perf_counter()

    def one(self, data: bytes) -> None:
        """Gives one input to the target."""
        from fuzz.target import outcome

        data = data[: self.target.longest_bytes]
        tally = self._tally
        self._board.put(tally["runs"] + 1, data)
        before = time.process_time()
        signal.setitimer(signal.ITIMER_PROF, self.target.time_s)
        try:
            ended = outcome(self._reads, data)
        except Exception as error:
            signal.setitimer(signal.ITIMER_PROF, 0)
            ended = "FINDING"
            self._found(error, data)
        signal.setitimer(signal.ITIMER_PROF, 0)
        tally["longest_s"] = max(tally["longest_s"], time.process_time() - before)
        tally["runs"] += 1
        tally["outcomes"][ended] += 1
        is_over = tally["runs"] >= self._runs or time.perf_counter() - self._began > self._seconds
        if tally["runs"] % _FLUSHED_EVERY == 0 or is_over:
            self.flush()
        if is_over:
            self._folder.joinpath("done").touch()
            os._exit(0)  # the fuzzer's own end would not come back

    def _found(self, error: Exception, data: bytes) -> None:
        frames = traceback.extract_tb(error.__traceback__)
        ours = [frame for frame in frames if "/src/coocnet/" in frame.filename] or frames
        where = f"{Path(ours[-1].filename).name}:{ours[-1].lineno} {ours[-1].name}"
        known = self._findings.setdefault(f"{type(error).__name__} {where}", {"times": 0})
        known["times"] += 1
        if known["times"] == 1:
            text = "".join(traceback.format_exception(error))[-6000:]
            known |= {"input": data.hex(), "says": str(error)[:500], "trace": text}

    def flush(self) -> None:
        """Writes down what is known so far."""
        self._tally["most_mb"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10) - self._held_mb
        self._tally["seconds"] = time.perf_counter() - self._began
        written = self._folder / "tally.new"
        written.write_text(json.dumps({**self._tally, "findings": self._findings}))
        written.rename(self._folder / "tally.json")


def main() -> None:
    """Runs one target until its inputs are used up."""
    parser = argparse.ArgumentParser()
    parser.add_argument("target")
    parser.add_argument("--runs", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--engine", choices=["atheris", "hypothesis"], required=True)
    parser.add_argument("--folder", type=Path, required=True)
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    warnings.filterwarnings("error", module=r"coocnet(\.|$)")  # a reader has nothing to say beside its errors
    random.seed(asked.seed)
    {"atheris": _by_atheris, "hypothesis": _by_hypothesis}[asked.engine](asked)


def _by_atheris(asked: argparse.Namespace) -> NoReturn:
    """Mutations that are led by what they reach in coocnet."""
    import atheris

    from fuzz import mutations  # noqa: F401 - hypothesis is not to be instrumented

    atheris.instrument_imports(include=["coocnet"], exclude=_NOT_INSTRUMENTED).__enter__()
    watch = Watch(asked.folder, asked.target, asked.runs, asked.seconds)
    corpus = asked.folder / f"corpus-{os.getpid()}"
    corpus.mkdir()
    for number, seed in enumerate(watch.target.seeds()):
        (corpus / f"{number:04}").write_bytes(seed)
    options = {
        "seed": asked.seed % 2**31 or 1,
        "max_len": watch.target.longest_bytes,
        "timeout": 1_000_000,
        "rss_limit_mb": 0,
        "verbosity": 0,
        "handle_segv": 0,
        "handle_bus": 0,
        "handle_abrt": 0,
        "handle_ill": 0,
        "handle_fpe": 0,
        "artifact_prefix": f"{asked.folder}/",
    }
    atheris.Setup([sys.argv[0], *(f"-{name}={value}" for name, value in options.items()), str(corpus)], watch.one)
    atheris.Fuzz()
    raise SystemExit("the fuzzer ended before its inputs did")


def _by_hypothesis(asked: argparse.Namespace) -> NoReturn:
    """Inputs made piece by piece; and, where nothing leads mutations, such that nothing leads."""
    from hypothesis import HealthCheck, Phase, given, seed, settings
    from hypothesis import strategies as st

    from fuzz.mutations import mutated

    watch = Watch(asked.folder, asked.target, asked.runs, asked.seconds)
    inputs = watch.target.structured
    if not has_atheris():
        inputs = st.one_of(inputs, mutated(watch.target.seeds()))
    manners = settings(
        max_examples=_BATCH,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    for batch in range(1 << 30):  # a batch at a time, since hypothesis remembers what it has drawn
        seed(asked.seed + 7919 * batch)(manners(given(inputs)(watch.one)))()
    raise SystemExit("there is no end to this")


def has_atheris() -> bool:
    """Whether the engine that is led by coverage is installed."""
    return importlib.util.find_spec("atheris") is not None


if __name__ == "__main__":
    main()
