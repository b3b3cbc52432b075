"""What every benchmark shares: the machine and versions it ran on, and sides that are timed in turn."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from importlib.metadata import distributions
from pathlib import Path

import coocnet

Times = dict[str, float]
"""Median, lowest and highest of one side, in milliseconds."""


def processor() -> str:
    """The processor's name as the system gives it."""
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def recorded(command: str, *, threads: int | None = None, packages: tuple[str, ...] = ("torch", "numpy")) -> dict:
    """How a result was made: command, machine, versions of what it used."""
    here = {package.name: package.version for package in distributions()}
    versions = {"coocnet": coocnet.__version__, "python": platform.python_version()}
    versions |= {name: here.get(name, "not installed") for name in packages}
    return {
        "command": command,
        "processor": processor(),
        "cores": os.cpu_count(),
        **({} if threads is None else {"threads": threads}),
        "versions": versions,
    }


def in_turn(sides: Mapping[str, Callable[[], object]], *, rounds: int, enough_s: float = 0.05) -> dict[str, Times]:
    """Times of single calls of each side, the sides taking turns, so that what disturbs one disturbs all.

    Args:
        sides: what to time; each was called before.
        rounds: turns of each side.
        enough_s: a side's turn repeats the call until it has lasted so long, and counts the median of its calls.
    """
    turns: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, run in sides.items():
            calls: list[float] = []
            while sum(calls) < enough_s:
                started = time.perf_counter()
                run()
                calls.append(time.perf_counter() - started)
            turns[name].append(1e3 * statistics.median(calls))
    return {
        name: {"median": statistics.median(ms), "lowest": min(ms), "highest": max(ms)} for name, ms in turns.items()
    }


def told(times: Times, digits: int = 3) -> str:
    """A side's time as a page has it: median [lowest, highest]."""
    low, median, high = (_number(times[key], digits) for key in ("lowest", "median", "highest"))
    return median if low == high else f"{median} [{low}, {high}]"


def _number(value: float, digits: int) -> str:
    return f"{value:,.0f}" if value >= 10 ** (digits - 1) else f"{value:.{digits}g}"
