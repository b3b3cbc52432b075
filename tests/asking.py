"""What the tests of the service's answers share: an index of rendered scenes, and a client of the application."""

from __future__ import annotations

import io
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import FastAPI
from PIL import Image
from starlette.testclient import TestClient

from coocnet.data.images import content_digest
from coocnet.describe import Describer
from coocnet.index import Index, open_index
from coocnet.recipe import Recipe
from coocnet.serve import Settings, make_app

URL = "http://127.0.0.1:8000"


@dataclass(frozen=True)
class Shelf:
    """A folder of pictures and its index.

    Attributes:
        place: the index's own folder.
        photos: the folder with the pictures.
        paths: of the pictures, in order.
    """

    place: Path
    photos: Path
    paths: list[Path]

    def id(self, at: int) -> str:
        """The id of a picture by its place among the paths."""
        return id_of(self.paths[at])

    def copy_to(self, folder: Path, recipe: Recipe) -> Shelf:
        """The same, free to be changed."""
        photos = Path(shutil.copytree(self.photos, folder / "photos"))
        return shelved(photos, folder / "photos.cooc", recipe)

    def open(self) -> Index:
        return open_index(self.place)


def shelved(photos: Path, place: Path, recipe: Recipe) -> Shelf:
    """Indexes a folder."""
    with open_index(place, recipe) as index:
        index.sync(photos, describer=Describer(recipe))
    return Shelf(place, photos, sorted(path for path in photos.rglob("*.jpg")))


def id_of(path: Path) -> str:
    return content_digest(path.read_bytes()).hex()


@contextmanager
def client_of(place: Path, *, ready: bool = True, **settings: Any) -> Iterator[TestClient]:
    """A client of the real application, in this process; it takes no part in the network."""
    with client_for(make_app(Settings(str(place), **settings))) as client:
        until = time.monotonic() + 60
        while ready and client.get("/health/ready").status_code != 200:
            assert time.monotonic() < until, "the service was never ready"
            time.sleep(0.01)
        yield client


def client_for(app: FastAPI) -> TestClient:
    return TestClient(app, base_url=URL, raise_server_exceptions=False)


def problem(answer: Any, status: int, name: str) -> str:
    """The detail of a problem document, which has to be one."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert document["type"] == f"urn:coocnet:problem:{name}", document
    assert document["status"] == status
    return str(document["detail"])


def png(width: int, height: int, *, seed: int = 0) -> bytes:
    """A picture of noise, byte for byte."""
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()
