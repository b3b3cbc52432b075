"""Searching, and why something was found."""

from __future__ import annotations

import io
import math
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Depends, Query, Response
from fastapi.responses import JSONResponse
from PIL import Image

from coocnet.data.images import parse_box
from coocnet.errors import InputError
from coocnet.index.gallery import checked_rows
from coocnet.serve import models
from coocnet.serve.desks import Asking
from coocnet.serve.pictures import reduced
from coocnet.serve.queries import Part, Source
from coocnet.serve.routes.common import (
    PICTURE_BODY,
    PROBLEMS,
    PictureBody,
    PictureId,
    Serving,
    SizePx,
    Sourced,
    image_answer,
)
from coocnet.serve.service import Asked, Service

search = APIRouter(prefix="/api", responses=PROBLEMS)

_RELEVANT = "^([0-9a-f]{32}(,[0-9a-f]{32}){0,99})?$"
_LONGEST_PAGE = 200


def _threshold(text: str) -> float | Literal["auto"] | None:
    if text in ("none", "auto"):
        return "auto" if text == "auto" else None
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f"a threshold is none, auto or a number, got {text[:40]!r}")
    return number


async def _asked(  # noqa: PLR0917 - FastAPI calls it by names
    limit: Annotated[int, Query(ge=1, le=_LONGEST_PAGE, description="How many hits at most.")] = 50,
    offset: Annotated[int, Query(ge=0, le=10_000, description="Leave out so many first hits.")] = 0,
    threshold: Annotated[
        str, Query(max_length=40, description="none, auto (a cut learned from the collection) or a similarity.")
    ] = "none",
    expansion: Annotated[
        str | None,
        Query(max_length=40, description="Query expansion: aqe, alpha-qe or none; the recipe's if left out."),
    ] = None,
    reranking: Annotated[str, Query(max_length=40, description="none, reciprocal or diffusion.")] = "none",
    exact: Annotated[bool, Query(description="Search exactly even where an approximate search was built.")] = False,
    relevant: Annotated[
        str, Query(pattern=_RELEVANT, description="Ids of pictures that are right: the query is moved towards them.")
    ] = "",
) -> Asked:
    right = [bytes.fromhex(one) for one in relevant.split(",") if one]
    asking = Asking(limit, _threshold(threshold), expansion, reranking, exact)
    return Asked(asking, offset, limit, right)


Options = Annotated[Asked, Depends(_asked)]


@search.post("/uploads", status_code=201, openapi_extra=PICTURE_BODY)
async def upload(service: Serving, content: PictureBody) -> models.Upload:
    """Send a picture to search with. It is kept in memory for a while, and stored nowhere."""
    digest, size = await service.look_up(lambda _: service.queries.take(content))
    known = await service.look_up(lambda index: bool(index.files_of(digest)))
    service.metrics.upload_bytes.set(service.queries.kept_upload_bytes)
    return models.Upload(id=digest.hex(), width=size.width, height=size.height, picture=known)


@search.get("/uploads/{id}/image", response_class=Response, responses=image_answer("image/jpeg"))
async def upload_image(service: Serving, digest: PictureId, size: SizePx = 1280) -> Response:
    """A picture that was sent, upright, its longer side at most so many pixels."""
    source = Source(digest, uploaded=True)
    small = await service.decode(lambda index: reduced(service.queries.content(index, source), size))
    return Response(small, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=86400, immutable"})


@search.get("/search")
async def search_by_picture(service: Serving, source: Sourced, asked: Options) -> models.Found:
    """Pictures that show the same as a picture of the collection, or as one that was sent, or as a part of either."""
    row = await _row(service, source)
    return await service.search(row, asked, identical=source.digest if source.box is None else None)


@search.post("/search")
async def search_by_descriptor(service: Serving, body: models.SearchByDescriptor) -> models.Found:
    """Pictures near a descriptor, as /api/descriptor gives it or a program made it by the same recipe."""
    threshold = None if body.threshold == "none" else body.threshold
    asking = Asking(body.limit, threshold, body.expansion, body.reranking, body.exact)
    right = [bytes.fromhex(one) for one in body.relevant]
    row = await service.look_up(lambda index: checked_rows(np.array([body.descriptor]), index.dim)[0])
    return await service.search(row, Asked(asking, body.offset, body.limit, right))


@search.post("/search/image", openapi_extra=PICTURE_BODY)
async def search_by_image(
    service: Serving,
    asked: Options,
    content: PictureBody,
    box: Annotated[str | None, Query(max_length=200, description="Only this part: x1,y1,x2,y2.")] = None,
) -> models.Found:
    """Send a picture and search with it, in one request."""
    part = None if box is None else parse_box(box)
    digest, _ = await service.look_up(lambda _: service.queries.take(content))
    row = await _row(service, Source(digest, uploaded=True, box=part))
    return await service.search(row, asked, identical=digest if part is None else None)


@search.get("/descriptor")
async def descriptor(service: Serving, source: Sourced) -> models.Descriptor:
    """The descriptor of a picture or of a part of it, before whitening."""
    row = await _row(service, source)
    fingerprint = await service.look_up(lambda index: index.recipe.row_fingerprint())
    return models.Descriptor(row=[float(value) for value in row], row_fingerprint=fingerprint)


@search.get("/explanation")
async def explanation(
    service: Serving,
    source: Sourced,
    result: Annotated[str, Query(pattern="^[0-9a-f]{32}$", description="A picture of the collection.")],
) -> models.ExplanationDocument:
    """Where the similarity of a picture and a result comes from, cell by cell: exactly, see ``coocnet.explain``."""
    other = Source(bytes.fromhex(result))
    found, asked, answered = await service.compute(lambda index: service.queries.explained(index, source, other))
    return models.ExplanationDocument(
        similarity=found.similarity,
        constant=found.constant,
        centred=found.constant != 0,
        query=models.Grid(**_grid(found.query, asked)),
        result=models.Grid(**_grid(found.result, answered)),
        matches=[
            models.CellMatch(
                query=[int(cell) for cell in match.query_cell],
                result=[int(cell) for cell in match.result_cell],
                contribution=match.contribution,
            )
            for match in found.matches
        ],
        notes=found.notes,
    )


@search.get(
    "/heatmap",
    response_model=models.HeatmapGrid,
    responses={
        **PROBLEMS,
        200: {"content": {"image/png": {"schema": {"type": "string", "format": "binary"}}}},
    },
)
async def heatmap(
    service: Serving,
    source: Sourced,
    kind: Annotated[models.Kind, Query(description="Which sums over channels.")] = "cooccurrence",
    format: Annotated[Literal["json", "png"], Query(description="Numbers, or a picture of them.")] = "json",  # noqa: A002
) -> Response:
    """Where the network fires, or where its channels fire together, in a picture or a part of it."""
    from coocnet.viz import heat_over  # noqa: PLC0415 - only where needed

    sums, pixels, part = await service.compute(lambda index: service.queries.heat(index, source, kind))
    if format == "json":
        return JSONResponse({"kind": kind, **_grid(sums, part)})
    drawn = await service.decode(lambda _: _png(heat_over(pixels, sums)))
    return Response(drawn, media_type="image/png")


async def _row(service: Service, source: Source) -> np.ndarray:
    """A row from what is stored or kept where that will do, else from the network."""
    if source.box is None:
        stored: np.ndarray | None = await service.look_up(lambda index: index.row_of(source.digest))
        if stored is not None:
            return stored
    row: np.ndarray = await service.compute(lambda index: service.queries.row(index, source))
    return row


def _grid(values: np.ndarray, part: Part) -> dict[str, Any]:
    rows, columns = values.shape
    width, height = part.full_size_px
    numbers = [float(value) for value in values.flatten()]
    return {"rows": rows, "columns": columns, "values": numbers, "box": part.box, "width": width, "height": height}


def _png(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()
