"""The service as an ASGI application."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles

from coocnet import __version__
from coocnet.serve import models
from coocnet.serve.gate import Gate, Session
from coocnet.serve.memory import give_back_at_intervals
from coocnet.serve.problems import answer_with_problems
from coocnet.serve.routes import ROUTERS
from coocnet.serve.service import Service
from coocnet.serve.settings import Settings

_ABOUT = """\
Finds the same building, object or scene in a collection of photographs.

Pictures have ids, the digests of their files' contents. Boxes are `x1,y1,x2,y2` in pixels of the upright picture.
Errors are problem documents (RFC 9457). Where a token is needed, show it as `Authorization: Bearer TOKEN`.
"""


def make_app(settings: Settings) -> FastAPI:
    """The service of one index.

    Raises:
        InputError: settings that cannot be.
        IndexFileError: the index cannot be opened; see :mod:`coocnet.errors`.
    """
    service = Service(settings)
    session = Session(settings.token)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        del app
        tasks = [asyncio.create_task(one) for one in (service.start(), give_back_at_intervals())]
        yield
        for task in tasks:
            task.cancel()
        await service.close()

    app = FastAPI(
        title="coocnet",
        version=__version__,
        description=_ABOUT,
        lifespan=lifespan,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
    )
    app.state.service = service
    app.state.session = session
    answer_with_problems(app, service.places)
    for router in ROUTERS:
        app.include_router(router)
    static = str(files("coocnet.serve") / "static")

    @app.get("/api/openapi.json", include_in_schema=False)
    async def openapi() -> dict[str, Any]:
        return _openapi(app)

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return FileResponse(f"{static}/index.html")

    app.mount("/static", StaticFiles(directory=static), name="static")
    app.add_middleware(Gate, settings=settings, session=session, metrics=service.metrics)
    return app


def _openapi(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        schemas = document["components"]["schemas"]
        schemas["ProblemDocument"] = models.ProblemDocument.model_json_schema()
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"token": []}, {}]
        app.openapi_schema = document
    return app.openapi_schema
