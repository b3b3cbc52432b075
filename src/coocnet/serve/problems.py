"""Errors as a client sees them: RFC 9457 problem documents that never name a place on this machine."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from coocnet.errors import (
    CoocnetError,
    ImageError,
    IndexBusyError,
    IndexFileError,
    IndexStorageError,
    WeightsError,
    printable,
)

log = logging.getLogger("coocnet.serve")

MEDIA_TYPE = "application/problem+json"
_TRY_AGAIN_S = 2
_TRY_WHEN_WRITTEN_S = 5
_FIELDS_TOLD = 10
_LETTERS_TOLD = 60
_WORDS = {"(--allow-empty)": '("allow_empty": true)'}
"""What messages call by the name of the command's option, and how it is called over HTTP."""


class Problem(HTTPException):
    """An answer that says what is wrong.

    Attributes:
        status: of HTTP.
        name: of the kind of problem, in lower case with hyphens.
        detail: what is wrong with this request, and what to do.
        retry_after_s: when to try again, if that may help.
    """

    def __init__(self, status: int, name: str, detail: str, *, retry_after_s: int | None = None) -> None:
        super().__init__(status, detail)
        self.status = status
        self.name = name
        self.retry_after_s = retry_after_s

    @property
    def document(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "type": f"urn:coocnet:problem:{self.name}",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
        }

    def response(self) -> Response:
        """As HTTP has it."""
        headers = {} if self.retry_after_s is None else {"Retry-After": str(self.retry_after_s)}
        if self.status == HTTPStatus.UNAUTHORIZED:
            headers["WWW-Authenticate"] = 'Bearer realm="coocnet"'
        return JSONResponse(self.document, self.status, headers, MEDIA_TYPE)


def problem_of_service() -> Problem:
    """A mistake of ours."""
    return Problem(500, "internal", "this is a mistake of the service; its log says more")


def overloaded() -> Problem:
    """As many requests are in work as this service takes."""
    return Problem(503, "overloaded", "all places are taken; try again in a moment", retry_after_s=1)


def ending() -> Problem:
    """The service ends before it has an answer."""
    return Problem(503, "overloaded", "the service ends; try again when it runs again", retry_after_s=_TRY_AGAIN_S)


class Places:
    """Names of this machine's places, to be kept out of every answer."""

    def __init__(self, places: Iterable[str]) -> None:
        self._places: list[str] = []
        self.add(places)

    def add(self, places: Iterable[str]) -> None:
        """Keeps further places out."""
        known = set(self._places)
        for place in places:
            if len(place) > 1:
                known |= {place, printable(place), repr(place)[1:-1]}
        self._places = sorted(known, key=len, reverse=True)

    @property
    def listed(self) -> list[str]:
        """All of them."""
        return list(self._places)

    def without(self, text: str) -> str:
        """The text with each of the places replaced by an ellipsis, and options called by their names over HTTP."""
        for place in self._places:
            text = text.replace(place, "…")
        for words, there in _WORDS.items():
            text = text.replace(words, there)
        return text


def problem_of(error: Exception, places: Places) -> Problem:
    """The problem that one of our errors is to a client."""
    text = places.without(str(error))
    if isinstance(error, ImageError):
        found = Problem(422, "picture", f"this picture cannot be used: {places.without(error.reason)}")
    elif isinstance(error, IndexBusyError):
        detail = "the index is being written by somebody else; searching is possible meanwhile"
        found = Problem(409, "busy", detail, retry_after_s=_TRY_WHEN_WRITTEN_S)
    elif isinstance(error, IndexFileError | WeightsError):
        # Their messages are for whoever runs the service, and name its files.
        what = "storage" if isinstance(error, IndexStorageError) else "index"
        detail = "the index or its network cannot be used now; the log of the service says why"
        found = Problem(503, what, detail, retry_after_s=_TRY_AGAIN_S)
    elif isinstance(error, CoocnetError):
        found = Problem(422, "request", text)
    else:
        found = problem_of_service()
    return found


def answer_with_problems(app: FastAPI, places: Places) -> None:
    """Has every error of an application answered by a problem document."""

    async def problem(request: Request, error: Exception) -> Response:
        del request
        assert isinstance(error, Problem)
        return error.response()

    async def ours(request: Request, error: Exception) -> Response:
        del request
        if isinstance(error, IndexFileError | WeightsError) and not isinstance(error, IndexBusyError):
            log.error("%s", error)
        return problem_of(error, places).response()

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        is_secret = request.url.path == "/api/session"
        return Problem(422, "request", places.without(_told(error.errors(), quote=not is_secret))).response()

    async def of_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        details = {
            404: ("unknown", f"there is nothing at {request.url.path}; /api/openapi.json says what there is"),
            405: ("method", f"{request.method} is not for {request.url.path}; /api/openapi.json says what is"),
        }
        name, detail = details.get(error.status_code, ("request", str(error.detail)))
        answer = Problem(error.status_code, name, detail).response()
        answer.headers.update(error.headers or {})
        return answer

    app.add_exception_handler(Problem, problem)
    app.add_exception_handler(CoocnetError, ours)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, of_http)


def _told(errors: Iterable[Mapping[str, Any]], *, quote: bool) -> str:
    """What is wrong with the fields of a request."""
    listed = list(errors)
    lines = [
        f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}{_quoted(one) if quote else ''}"
        for one in listed[:_FIELDS_TOLD]
    ]
    return "; ".join(lines) + ("; …" if len(listed) > _FIELDS_TOLD else "")


def _quoted(error: Mapping[str, Any]) -> str:
    """The value that is wrong, if it is a single one."""
    given = error.get("input")
    if not isinstance(given, str | int | float):
        return ""
    shown = repr(given if not isinstance(given, str) or len(given) <= _LETTERS_TOLD else given[:_LETTERS_TOLD] + "…")
    return f", got {shown[: 2 * _LETTERS_TOLD]}"
