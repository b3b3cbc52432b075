"""Sessions, health and metrics."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from coocnet.errors import CoocnetError
from coocnet.serve import models
from coocnet.serve.gate import WRONG_TOKEN_COSTS_S, Session
from coocnet.serve.problems import Problem
from coocnet.serve.routes.common import PROBLEMS, Serving

state = APIRouter(responses=PROBLEMS)

_SESSION_S = 30 * 24 * 3600


@state.post("/api/session", status_code=204)
async def begin_session(request: Request, body: models.SessionAsked) -> Response:
    """Exchange the token for a cookie, which a browser shows with every picture too."""
    session: Session = request.app.state.session
    if session.is_needed and not session.accepts_token(body.token):
        await asyncio.sleep(WRONG_TOKEN_COSTS_S)
        raise Problem(401, "token", "this is not the token of this service")
    answer = Response(status_code=204)
    answer.set_cookie(
        session.cookie_name,
        session.cookie,
        max_age=_SESSION_S,
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )
    return answer


@state.delete("/api/session", status_code=204)
async def end_session(request: Request) -> Response:
    """Have the browser forget the cookie."""
    session: Session = request.app.state.session
    answer = Response(status_code=204)
    answer.delete_cookie(session.cookie_name, httponly=True, samesite="strict")
    return answer


@state.get("/health/live")
async def live() -> models.Health:
    """The service runs."""
    return models.Health(status="ok")


@state.get("/health/ready")
async def ready(service: Serving, response: Response) -> models.Health:
    """The service can answer: 503 as long as it cannot."""
    health = await service.health()
    if health.status != "ok":
        response.status_code = 503
        response.headers["Retry-After"] = "1"
    return health


@state.get("/metrics", response_class=Response)
async def metrics(service: Serving) -> Response:
    """Counters in the format of Prometheus."""
    with suppress(CoocnetError):  # without the index, how many pictures there were stays what is told
        service.metrics.pictures.set(await service.look_up(lambda index: index.pictures))
    service.metrics.job_running.set(any(not job.is_over for job in service.jobs.listed()))
    service.metrics.upload_bytes.set(service.queries.kept_upload_bytes)
    return Response(generate_latest(service.metrics.registry), media_type=CONTENT_TYPE_LATEST)
