"""Work that goes on by itself: bringing the index up to date, one job at a time, watched and stopped by clients."""

from __future__ import annotations

import datetime
import itertools
import json
import queue
import subprocess
import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

from coocnet.errors import InputError
from coocnet.index import SyncReport
from coocnet.serve.problems import Places, Problem, log, problem_of
from coocnet.serve.settings import Settings
from coocnet.serve.syncing import begun

_REMEMBERED = 20
_SKIPPED_TOLD = 1000
State = Literal["waiting", "running", "done", "stopped", "failed"]


@dataclass
class Job:
    """A sync that was asked for: where it stands, and at its end what it did. Written by the thread that follows it.

    Attributes:
        id: its number, as text.
        folders: to be looked through, by their paths.
        options: of :meth:`coocnet.index.Index.sync`.
        skipped: what was left out, each with its reason.
        stop: set once it is to end.
        process: what does it.
        report_is_whole: it went to its end.
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
    process: subprocess.Popen[str] | None = None
    report_is_whole: bool = False

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen."""
        return self.state not in ("waiting", "running")


class SyncJobs:
    """The syncs that clients ask for, one at a time, and what was done lately.

    Each is the work of another process, see :mod:`coocnet.serve.syncing`: here it would take the interpreter's lock
    from what answers requests.

    Args:
        settings: of the service.
        places: kept out of what is told.
        changed: told when a sync has ended.
    """

    def __init__(self, settings: Settings, places: Places, *, changed: Callable[[], None] = lambda: None) -> None:
        self._settings = settings
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

    def stop(self, job: Job) -> None:
        """Has a job end; what it did is stored, and the next sync takes the rest up."""
        job.stop.set()
        with self._guard, suppress(OSError, ValueError):
            if job.process is not None and job.process.stdin is not None:
                job.process.stdin.close()

    def close(self, wait_s: float) -> None:
        """Stops what is in work, and waits so long for it."""
        for job in self.listed():
            self.stop(job)
        self._queue.put(None)
        self._thread.join(wait_s)

    def _work(self) -> None:
        while (job := self._queue.get()) is not None:
            job.state = "running"
            job.version += 1
            try:
                ended: State = self._run(job)
            except Exception as error:  # noqa: BLE001 - the next job is to be done all the same
                log.exception("job %s", job.id)
                job.problem = problem_of(error, self._places)
                ended = "failed"
            self._changed()
            job.ended = _now()
            job.folder = None
            job.state = ended
            job.version += 1

    def _run(self, job: Job) -> State:
        asked = {
            "place": self._settings.place,
            "recipe": None if self._settings.recipe is None else self._settings.recipe.to_toml(),
            "device": self._settings.device,
            "engine": self._settings.engine,
            "places": self._places.listed,
            "folders": job.folders,
            "options": job.options,
        }
        with begun(asked) as process:
            with self._guard:
                job.process = process
            if job.stop.is_set():
                self.stop(job)
            assert process.stdout is not None
            for line in process.stdout:
                self._take(job, json.loads(line))
            status = process.wait()
        if status != 0 and job.problem is None:
            log.error("job %s: its process ended with %s", job.id, status)
            job.problem = Problem(
                500, "internal", "the process of the sync ended before its time; what it did is stored"
            )
        if job.problem is not None:
            return "failed"
        return "done" if job.report_is_whole else "stopped"

    def _take(self, job: Job, told: dict[str, Any]) -> None:
        for name in ("folder", "done", "total"):
            if name in told:
                setattr(job, name, told[name])
        if "report" in told:
            skipped = [(name, reason) for name, reason in told["report"].pop("skipped")]
            job.skipped = (job.skipped + skipped)[:_SKIPPED_TOLD]
            job.report = _both(job.report, SyncReport(**told["report"]))
        if "problem" in told:
            job.problem = Problem(**told["problem"])
            log.warning("job %s: %s", job.id, told["log"])
        job.report_is_whole = job.report_is_whole or "end" in told
        job.version += 1


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
    counts = (
        "added",
        "updated",
        "recognised",
        "unchanged",
        "dropped",
        "described",
        "others",
        "linked_folders",
        "thumbnails",
    )
    return SyncReport(
        **{name: getattr(one, name) + getattr(other, name) for name in counts},
        whitening=other.whitening or one.whitening,
        approximate=other.approximate or one.approximate,
        time_s=one.time_s + other.time_s,
    )


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
