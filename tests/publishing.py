"""Small archives in the real layout of the published ones, on a server of this machine."""

from __future__ import annotations

import io
import pickle
import tarfile
import zipfile
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from coocnet.data.benchmarks import BENCHMARKS
from serving import Mirror, Server


def jpeg(number: int, orientation: int = 1) -> bytes:
    """A tiny picture that no other number has."""
    tags, stream = Image.Exif(), io.BytesIO()
    tags[0x0112] = orientation
    pixels = np.random.default_rng(number).integers(0, 255, (8, 12, 3), np.uint8)
    Image.fromarray(pixels).save(stream, "JPEG", quality=90, exif=tags)
    return stream.getvalue()


def packed(file: str, files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    if file.endswith(".zip"):
        with zipfile.ZipFile(stream, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
    else:
        with tarfile.open(fileobj=stream, mode="w:gz") as tar:
            for name, content in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return stream.getvalue()


OXFORD = [f"all_souls_{n:06d}" for n in range(9)]
PARIS = [f"paris_{site}_{n:06d}" for site in ("defense", "pompidou") for n in range(4)]
CLASSIC = [{"bbx": [1, 1, 7, 6], "ok": [0, 1], "junk": [2]}, {"bbx": [0, 0, 5, 5], "ok": [3], "junk": []}]
REVISITED = [{"bbx": [1, 1, 7, 6], "easy": [0], "hard": [1], "junk": [2]}]
TRAIN = {"cids": ["0aB1c2", "ffe0d1"], "cluster": [0, 0], "qidxs": [0], "pidxs": [1]}
VAL = {"cids": ["a1b2c3", "d4e5f6"], "cluster": [1, 1], "qidxs": [1], "pidxs": [0]}


class World:
    """The real table with addresses of this machine, and small archives in the real layout."""

    def __init__(self, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        self.server, self.monkeypatch = server, monkeypatch
        self.mirrors: dict[str, Mirror] = {}

    def serve(self, file: str, content: bytes) -> tuple[str, ...]:
        self.mirrors[file] = self.server.mirror(file)
        self.mirrors[file].content = content
        return (self.mirrors[file].url,)

    def publish(
        self, name: str, archives: Iterable[dict[str, bytes]], truth: Iterable[object] = (), **changes
    ) -> None:
        source = BENCHMARKS[name]
        pictures = tuple(
            replace(archive, urls=self.serve(archive.file, packed(archive.file, files)), size_bytes=None)
            for archive, files in zip(source.pictures.archives, archives, strict=True)
        )
        truths = tuple(
            replace(archive, urls=self.serve(archive.file, pickle.dumps(one, 2)))
            for archive, one in zip(source.truth, truth, strict=True)
        )
        changed = replace(source, pictures=replace(source.pictures, archives=pictures), truth=truths, **changes)
        self.monkeypatch.setitem(BENCHMARKS, name, changed)

    def oxford(self) -> None:
        files = {f"{name}.jpg": jpeg(n) for n, name in enumerate(OXFORD)}
        truth = {"imlist": OXFORD[:8], "qimlist": [OXFORD[0], OXFORD[3]], "gnd": CLASSIC}
        self.publish("oxford5k", [files], [truth], images=8, queries=2)
        truth = {"imlist": OXFORD[1:], "qimlist": [OXFORD[0]], "gnd": REVISITED}
        self.publish("roxford5k", [files], [truth], images=8, queries=1)

    def paris(self) -> None:
        halves = [{f"paris/{name.split('_')[1]}/{name}.jpg": jpeg(50 + PARIS.index(name)) for name in half}
                  for half in (PARIS[:4], PARIS[4:])]  # fmt: skip
        halves[0]["paris/louvre/paris_louvre_000136.jpg"] = b"<html>an error page</html>"
        truth = {"imlist": PARIS, "qimlist": [PARIS[0], PARIS[3]], "gnd": CLASSIC}
        self.publish("paris6k", halves, [truth], images=8, queries=2)

    def training(self) -> None:
        files = {f"ims/{cid[-2:]}/{cid[-4:-2]}/{cid[-6:-4]}/{cid}": jpeg(n) for n, cid in
                 enumerate([*TRAIN["cids"], *VAL["cids"]])}  # fmt: skip
        whiten = {key: TRAIN[key] for key in ("cids", "qidxs", "pidxs")}
        self.publish("retrieval-sfm-120k", [files], [{"train": TRAIN, "val": VAL}, whiten])
