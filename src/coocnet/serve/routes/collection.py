"""The collection as a whole: what the index holds, and bringing it up to date."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent

from coocnet.serve import models
from coocnet.serve.jobs import Job
from coocnet.serve.routes.common import PROBLEMS, Serving

collection = APIRouter(prefix="/api", responses=PROBLEMS)

_LOOK_EVERY_S = 0.2


async def _job(service: Serving, id: Annotated[str, Path(max_length=40)]) -> Job:  # noqa: A002 - the name in the path
    return service.jobs.job(id)


KnownJob = Annotated[Job, Depends(_job)]


@collection.get("/info")
async def info(service: Serving) -> models.Info:
    """What the index holds, and what this service can do with it."""
    return await service.info()


@collection.post("/sync", status_code=202)
async def sync(service: Serving, response: Response, body: models.SyncAsked | None = None) -> models.JobDocument:
    """Begin to bring the index up to date with its folders: new pictures in, changed ones anew, deleted ones out."""
    job = await service.sync(body or models.SyncAsked(folder=None))
    response.headers["Location"] = f"/api/jobs/{job.id}"
    return _document(job)


@collection.get("/jobs")
async def jobs(service: Serving) -> models.Jobs:
    """What is in work, and what was done lately."""
    return models.Jobs(jobs=[_document(job) for job in service.jobs.listed()])


@collection.get("/jobs/{id}")
async def job(found: KnownJob) -> models.JobDocument:
    """Where a job stands, and at its end what it did."""
    return _document(found)


@collection.delete("/jobs/{id}", status_code=202)
async def stop(service: Serving, found: KnownJob) -> models.JobDocument:
    """Stop a job that is not over yet. What was described is stored; the next sync goes on from there."""
    service.jobs.stop(found)
    return _document(found)


@collection.get("/jobs/{id}/events", response_class=EventSourceResponse)
async def events(service: Serving, found: KnownJob) -> AsyncIterator[ServerSentEvent]:
    """Follow a job: an event ``progress`` whenever something has changed, and ``end`` at its end.

    A stream that ends without one is that of a service that ends.
    """
    told = -1
    while not found.is_over and not service.closing.is_set():
        if found.version != told:
            told = found.version
            yield ServerSentEvent(event="progress", data=_document(found))
        await asyncio.sleep(_LOOK_EVERY_S)
    if found.is_over:
        yield ServerSentEvent(event="end", data=_document(found))


def _document(job: Job) -> models.JobDocument:
    report = job.report
    done = None
    if report is not None:
        counts = {name: getattr(report, name) for name in ("added", "updated", "recognised", "unchanged", "dropped")}
        done = models.SyncDone(
            **counts,
            skipped=[models.Skipped(name=name, reason=reason) for name, reason in job.skipped],
            whitening=report.whitening,
            approximate=report.approximate,
            time_s=round(report.time_s, 3),
        )
    return models.JobDocument(
        id=job.id,
        state=job.state,
        done=job.done,
        total=job.total,
        folder=job.folder,
        started=job.started,
        ended=job.ended,
        report=done,
        problem=None if job.problem is None else job.problem.document,
    )
