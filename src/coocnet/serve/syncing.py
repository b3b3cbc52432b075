"""A sync as a process of its own, told what to do and telling how it goes in lines of JSON.

It reads one line, then nothing: when its standard input ends, because the service says so or is itself no more, it
stores what it has and ends. It is nicer than the service, which answers meanwhile.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import Any, TextIO

from coocnet.errors import CoocnetError, IndexBusyError, InputError, printable
from coocnet.index import SyncProgress, SyncReport, open_index
from coocnet.index.collection import BUILDING
from coocnet.recipe import Recipe
from coocnet.serve.problems import Places, Problem, problem_of

_NICENESS = 10
_SKIPPED_TOLD = 1000
_ENDS_WITHIN_S = 30
_WAITS_S = 5.0
_LOOKS_EVERY_S = 0.2


class _StoppedError(Exception):
    pass


@contextmanager
def begun(asked: Mapping[str, Any]) -> Iterator[subprocess.Popen[str]]:
    """Starts such a process and has it begin; at the end of the block it is told to end, and awaited.

    Args:
        asked: the index's "place", its "recipe" as TOML or null, "device" and "engine" (see
            :class:`coocnet.describe.Describer`), "folders", "options" of :meth:`coocnet.index.Index.sync`, and
            "places", which are kept out of what it tells.
    """
    # What is said to all processes of a terminal or a unit is the service's, which then says so here. In a session of
    # its own the process would not hear it, but Linux shares the processor out by session before niceness counts.
    with subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import signal\n"
            "for name in {'SIGINT', 'SIGTERM', 'SIGHUP'} & set(dir(signal)):\n"
            "    signal.signal(getattr(signal, name), signal.SIG_IGN)\n"
            "from coocnet.serve.syncing import main; main()",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        with suppress(BrokenPipeError):
            process.stdin.write(json.dumps(dict(asked)) + "\n")
            process.stdin.flush()
        try:
            yield process
        finally:
            with suppress(OSError):
                process.stdin.close()
            try:
                process.wait(_ENDS_WITHIN_S)
            except subprocess.TimeoutExpired:
                process.kill()


def main() -> None:
    """The process."""
    # What libraries print must not come among our lines; nobody reads them where the service was killed.
    with suppress(BrokenPipeError), os.fdopen(os.dup(sys.stdout.fileno()), "w") as out:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        asked = json.loads(sys.stdin.readline())
        stop = threading.Event()
        threading.Thread(target=_await_end, args=(stop,), daemon=True).start()
        with suppress(OSError, AttributeError):
            os.nice(_NICENESS)
        places = Places([*asked["places"], *asked["folders"], *map(os.path.realpath, asked["folders"])])
        try:
            _sync(asked, places, stop, out)
        except _StoppedError:
            return
        except CoocnetError as error:
            _tell(out, problem=_problem_fields(problem_of(error, places)), log=str(error))


def _sync(asked: Mapping[str, Any], places: Places, stop: threading.Event, out: TextIO) -> None:
    def show(progress: SyncProgress) -> None:
        if progress.what != BUILDING:  # of which those who wait are told when it is done
            _tell(out, done=progress.done, total=progress.total)
        if stop.is_set():
            raise _StoppedError

    recipe = None if asked["recipe"] is None else Recipe.from_toml(asked["recipe"])
    with open_index(asked["place"], recipe) as index:
        for folder in asked["folders"]:
            if stop.is_set():
                raise _StoppedError
            title = printable(os.path.basename(folder) or "/")
            _tell(out, folder=title, done=0, total=None)
            try:
                report = _when_free(
                    lambda folder=folder: index.sync(  # type: ignore[misc]
                        folder,
                        describer=lambda: index.describer(device=asked["device"], engine=asked["engine"]),
                        progress=show,
                        **asked["options"],
                    ),
                    stop,
                )
            except InputError as error:  # of this folder; the others are looked through all the same
                problem = problem_of(error, places)
                problem.detail = f"{title}: {problem.detail}"
                _tell(out, problem=_problem_fields(problem), log=str(error))
                continue
            skipped = [
                (index.name_of(error.path), places.without(error.reason)) for error in report.skipped[:_SKIPPED_TOLD]
            ]
            _tell(out, report={**_report_fields(report), "skipped": skipped})
    _tell(out, end=True)


def _when_free(sync: Callable[[], SyncReport], stop: threading.Event) -> SyncReport:
    """Waits a little where somebody else writes: the service itself adds a picture in a moment."""
    until = time.monotonic() + _WAITS_S
    while time.monotonic() < until and not stop.is_set():
        with suppress(IndexBusyError):
            return sync()
        stop.wait(_LOOKS_EVERY_S)
    return sync()


def _report_fields(report: SyncReport) -> dict[str, Any]:
    report.skipped = []
    return asdict(report)


def _problem_fields(problem: Problem) -> dict[str, Any]:
    return {
        "status": problem.status,
        "name": problem.name,
        "detail": problem.detail,
        "retry_after_s": problem.retry_after_s,
    }


def _tell(out: TextIO, **facts: Any) -> None:
    out.write(json.dumps(facts) + "\n")
    out.flush()


def _await_end(stop: threading.Event) -> None:
    sys.stdin.read()
    stop.set()
