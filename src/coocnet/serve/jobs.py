"""Work that goes on by itself: bringing the index up to date, one job at a time, watched and stopped by clients."""

from __future__ import annotations

import datetime
import itertools
import logging
import os
import queue
import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from coocnet.errors import CoocnetError, InputError, printable
from coocnet.index import LocalIndex, SyncProgress, SyncReport
from coocnet.serve.problems import Places, Problem, problem_of

if TYPE_CHECKING:
    from coocnet.describe import Describer

log = logging.getLogger("coocnet.serve")

_REMEMBERED = 20
_NICENESS = 10
_SKIPPED_TOLD = 1000
State = Literal["waiting", "running", "done", "stopped", "failed"]


class _StoppedError(Exception):
    pass


@dataclass
class Job:
    """A sync that was asked for: where it stands, and at its end what it did. Written by the thread that does it.

    Attributes:
        id: its number, as text.
        folders: to be looked through, by their paths.
        options: of :meth:`coocnet.index.LocalIndex.sync`.
        version: counts the changes, so that watchers see when there is something to tell.
    """

    id: str
    folders: list[str]
    options: dict[str, bool]
    started: str
    state: State = "waiting"
    done: int = 0
    total: int | None = None
    folder: str | None = None
    ended: str | None = None
    report: SyncReport | None = None
    problem: Problem | None = None
    skipped: list[tuple[str, str]] = field(default_factory=list)
    version: int = 0
    stop: threading.Event = field(default_factory=threading.Event)

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen."""
        return self.state not in ("waiting", "running")


class SyncJobs:
    """The thread that brings the index up to date, and what it did lately.

    It gives way to what answers requests: on systems that have it, the thread and those it starts are nicer.

    Args:
        opener: opens the index, in the thread that uses it.
        describer: gives one whose rows belong in the index.
        places: kept out of what is told.
        changed: told when a sync has ended.
    """

    def __init__(
        self,
        opener: Callable[[], LocalIndex],
        describer: Callable[[LocalIndex], Describer],
        places: Places,
        *,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._opener = opener
        self._describer = describer
        self._places = places
        self._changed = changed
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._numbers = itertools.count(1)
        self._queue: queue.Queue[Job | None] = queue.Queue()
        self._guard = threading.Lock()
        self._thread = threading.Thread(target=self._work, name="sync", daemon=True)
        self._thread.start()

    def listed(self) -> list[Job]:
        """All jobs remembered, the newest first."""
        with self._guard:
            return list(reversed(self._jobs.values()))

    def job(self, number: str) -> Job:
        """A job by its id.

        Raises:
            Problem: 404, there is none.
        """
        with self._guard:
            found = self._jobs.get(number)
        if found is None:
            raise Problem(404, "unknown-job", f"no job has the id {number[:40]!r}; /api/jobs lists them")
        return found

    def begin(self, folders: list[str], *, verify_content: bool = False, allow_empty: bool = False) -> Job:
        """Begins a sync of folders, by their paths.

        Raises:
            Problem: 409, one is in work already.
        """
        with self._guard:
            for job in self._jobs.values():
                if not job.is_over:
                    raise Problem(409, "busy", f"job {job.id} is bringing the index up to date", retry_after_s=5)
            options = {"verify_content": verify_content, "allow_empty": allow_empty}
            job = Job(str(next(self._numbers)), folders, options, _now())
            self._jobs[job.id] = job
            while len(self._jobs) > _REMEMBERED:
                self._jobs.popitem(last=False)
        self._queue.put(job)
        return job

    def close(self, wait_s: float) -> None:
        """Stops what is in work, which the next sync takes up again, and waits so long for it."""
        for job in self.listed():
            job.stop.set()
        self._queue.put(None)
        self._thread.join(wait_s)

    def _work(self) -> None:
        with suppress(OSError, AttributeError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
        while (job := self._queue.get()) is not None:
            job.state = "running"
            job.version += 1
            try:
                with self._opener() as index:
                    self._run(index, job)
                ended: State = "done"
            except _StoppedError:
                ended = "stopped"
            except Exception as error:
                if isinstance(error, CoocnetError):
                    log.warning("job %s: %s", job.id, error)
                else:
                    log.exception("job %s", job.id)
                job.problem = problem_of(error, self._places)
                ended = "failed"
            self._changed()
            job.ended = _now()
            job.folder = None
            job.state = ended
            job.version += 1

    def _run(self, index: LocalIndex, job: Job) -> None:
        def show(progress: SyncProgress) -> None:
            job.done, job.total = progress.done, progress.total
            job.version += 1
            if job.stop.is_set():
                raise _StoppedError

        for folder in job.folders:
            if job.stop.is_set():
                raise _StoppedError
            job.folder, job.done, job.total = _base(folder), 0, None
            job.version += 1
            report = index.sync(folder, describer=lambda: self._describer(index), progress=show, **job.options)
            room = _SKIPPED_TOLD - len(job.skipped)
            job.skipped += [
                (index.name_of(error.path), self._places.without(error.reason)) for error in report.skipped[:room]
            ]
            job.report = _both(job.report, report)


def need_folder(folders: list[str], number: int | None) -> list[str]:
    """The folder of a number, or all of them.

    Raises:
        InputError: there is none of this number, or none at all.
    """
    if not folders:
        raise InputError("this index has no folder yet; start the service with one: coocnet serve FOLDER")
    if number is None:
        return folders
    if number >= len(folders):
        raise InputError(f"folders are numbered from 0 to {len(folders) - 1}, got {number}; /api/info lists them")
    return [folders[number]]


def _both(one: SyncReport | None, other: SyncReport) -> SyncReport:
    if one is None:
        return other
    counts = ("added", "updated", "recognised", "unchanged", "dropped", "described", "others", "linked_folders")
    return SyncReport(
        **{name: getattr(one, name) + getattr(other, name) for name in counts},
        skipped=one.skipped + other.skipped,
        whitening=other.whitening or one.whitening,
        approximate=other.approximate or one.approximate,
        time_s=one.time_s + other.time_s,
    )


def _base(folder: str) -> str:
    return printable(os.path.basename(folder) or "/")


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
