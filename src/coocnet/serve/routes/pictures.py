"""The pictures of the collection: listed, shown, added, taken out and taken back."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Query, Response
from fastapi.responses import StreamingResponse

from coocnet.index import Index
from coocnet.serve import models
from coocnet.serve.pictures import MEDIA_TYPES
from coocnet.serve.problems import Problem
from coocnet.serve.routes.common import (
    PICTURE_BODY,
    PROBLEMS,
    PictureBody,
    PictureId,
    Serving,
    SizePx,
    image_answer,
)
from coocnet.serve.service import Service

pictures = APIRouter(prefix="/api", responses=PROBLEMS)

_FOREVER = "private, max-age=31536000, immutable"


@pictures.get("/pictures")
async def listing(
    service: Serving,
    offset: Annotated[int, Query(ge=0, le=2**31)] = 0,
    limit: Annotated[int, Query(ge=1, le=200)] = 60,
    contains: Annotated[str, Query(max_length=200, description="Only those with this in their names.")] = "",
) -> models.Pictures:
    """The files of the collection in order of path; copies of a picture are listed each."""

    def listed(index: Index) -> models.Pictures:
        total, page = index.listing(offset=offset, limit=limit, contains=contains)
        names = index.names_of(path for path, _ in page)
        shown = [_picture(service, path, digest, name) for (path, digest), name in zip(page, names, strict=True)]
        return models.Pictures(total=total, pictures=shown)

    found: models.Pictures = await service.look_up(listed)
    return found


@pictures.get("/pictures/{id}")
async def details(service: Serving, digest: PictureId) -> models.PictureDetails:
    """One picture, with all of its files."""
    found: models.PictureDetails = await service.look_up(lambda index: _details(service, index, digest))
    return found


@pictures.get("/pictures/{id}/thumbnail", response_class=Response, responses=image_answer("image/jpeg"))
async def thumbnail(service: Serving, digest: PictureId, size: SizePx = 320) -> Response:
    """A picture as a JPEG, upright, its longer side at most so many pixels."""
    small = await service.decode(lambda index: service.files.thumbnail(index, digest, size))
    return Response(small, media_type="image/jpeg", headers={"Cache-Control": _FOREVER})


@pictures.get("/pictures/{id}/original", response_class=Response, responses=image_answer(*MEDIA_TYPES.values()))
async def original(
    service: Serving,
    digest: PictureId,
    download: Annotated[bool, Query(description="Have a browser store it and not show it.")] = False,
) -> Response:
    """A picture's file, byte for byte: exactly what the index has described."""
    found = await service.decode(lambda index: service.files.original(index, digest))
    name = quote(found.name.rpartition("/")[2], safe="")
    headers = {
        "Cache-Control": _FOREVER,
        "Content-Disposition": f"{'attachment' if download else 'inline'}; filename*=UTF-8''{name}",
        "Content-Length": str(found.size_bytes),
    }
    return StreamingResponse(found.pieces(), media_type=found.media_type, headers=headers)


@pictures.post("/pictures", status_code=201, openapi_extra=PICTURE_BODY)
async def add(
    service: Serving,
    content: PictureBody,
    name: Annotated[str, Query(max_length=300, description="What the file was called.")] = "",
) -> models.PictureDetails:
    """Take a picture into the collection; its file is kept in the folder that the service was given for that."""
    digest = await service.add(content, name)
    found: models.PictureDetails = await service.look_up(lambda index: _details(service, index, digest))
    return found


@pictures.delete("/pictures/{id}", status_code=204)
async def remove(service: Serving, digest: PictureId) -> None:
    """Take a picture out of the collection: syncs leave it out from now on. Its files stay where they are."""
    await service.remove(digest)


@pictures.post("/pictures/{id}/restore")
async def restore(service: Serving, digest: PictureId) -> models.PictureDetails:
    """Take a picture back that was taken out."""
    await service.restore(digest)
    found: models.PictureDetails = await service.look_up(lambda index: _details(service, index, digest))
    return found


@pictures.get("/removed")
async def removed(service: Serving) -> models.RemovedPictures:
    """What was taken out of the collection."""

    def listed(index: Index) -> models.RemovedPictures:
        return models.RemovedPictures(
            pictures=[
                models.Removed(id=digest.hex(), names=[index.name_of(path) for path in paths])
                for digest, paths in index.removed().items()
            ]
        )

    found: models.RemovedPictures = await service.look_up(listed)
    return found


def _picture(service: Service, path: str, digest: bytes, name: str, *, wherever: bool = False) -> models.Picture:
    size = service.files.measured(digest, path, wherever=wherever)
    return models.Picture(
        id=digest.hex(),
        name=name,
        width=size.width if size else None,
        height=size.height if size else None,
    )


def _details(service: Service, index: Index, digest: bytes) -> models.PictureDetails:
    paths = index.files_of(digest)
    if not paths:
        raise Problem(404, "unknown-picture", f"no picture of this collection has the id {digest.hex()}")
    names = index.names_of(paths)
    picture = _picture(service, paths[0], digest, names[0], wherever=True)
    size = service.files.measured(digest, paths[0])
    return models.PictureDetails(
        **picture.model_dump(),
        names=names,
        format=size.format if size else None,
    )
