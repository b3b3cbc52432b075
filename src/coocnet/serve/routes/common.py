"""What routes share: the service behind them, and how they take pictures and ids."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import anyio
from fastapi import Depends, Path, Query, Request
from pydantic import BeforeValidator

from coocnet.data.images import parse_box
from coocnet.serve.problems import MEDIA_TYPE, Problem, overloaded
from coocnet.serve.queries import Source
from coocnet.serve.service import Service, source_of

_ID = "^[0-9a-f]{32}$"
_BOX_LETTERS = 200
_WAITS_S = 5.0


def service_of(request: Request) -> Service:
    """The service that a request is made to."""
    service: Service = request.app.state.service
    return service


async def _service(request: Request) -> Service:
    # FastAPI runs what is not async in a thread, which takes longer than all that is done here.
    return service_of(request)


async def _source(
    picture: Annotated[str | None, Query(pattern=_ID, description="A picture of the collection.")] = None,
    upload: Annotated[str | None, Query(pattern=_ID, description="A picture that was sent.")] = None,
    box: Annotated[
        str | None,
        Query(max_length=_BOX_LETTERS, description="Only this part: x1,y1,x2,y2 in pixels of the upright picture."),
    ] = None,
) -> Source:
    return source_of(picture, upload, None if box is None else parse_box(box))


async def _digest(id: Annotated[str, Path(pattern=_ID)]) -> bytes:  # noqa: A002 - the name in the path
    return bytes.fromhex(id)


Serving = Annotated[Service, Depends(_service)]
Sourced = Annotated[Source, Depends(_source)]
PictureId = Annotated[bytes, Depends(_digest)]

SizePx = Annotated[
    Literal[160, 320, 640, 1280, 2048], BeforeValidator(int), Query(description="Of the longer side, at most.")
]

PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {
        "description": "A problem.",
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}},
    }
    for status in (422, "default")
}
"""How a route says that it may answer with a problem document."""

PICTURE_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "A picture file, byte for byte.",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


def image_answer(*kinds: str) -> dict[int | str, dict[str, Any]]:
    """How a route says that it answers with a picture."""
    content = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in kinds}
    return {200: {"description": "A picture.", "content": content}, **PROBLEMS}


async def picture_body(request: Request) -> bytes:
    """The picture that a request brings; how large it may be is seen to at the gate.

    Raises:
        Problem: 422, it is empty; 413, it is too large; 503, too many arrive at once.
    """
    service = service_of(request)
    with anyio.move_on_after(_WAITS_S) as waiting:
        await service.receiving.acquire()
    if waiting.cancelled_caught:
        raise overloaded()
    try:
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
    finally:
        service.receiving.release()
    if not body:
        raise Problem(422, "picture", "send the picture file as the body of the request, byte for byte")
    return bytes(body)


PictureBody = Annotated[bytes, Depends(picture_body)]
