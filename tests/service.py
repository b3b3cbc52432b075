"""A collection of pictures with everything a service meets, and the real command that serves its index."""

from __future__ import annotations

import os
import queue
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from PIL import Image

import coocnet
from coocnet.data.scenes import make_scenes
from coocnet.describe import Describer
from coocnet.index import open_index
from coocnet.recipe import Recipe

SUBFOLDER = "Größe & <script>alert(1) 'x'"
"""A folder's name that a careless page or address would not survive."""
ODD_NAME = 'Tür "1" <b> 100% #2?.jpg'
SERVED = re.compile(r"coocnet serves (?P<name>.+) at (?P<url>https?://[^\s#]+/)(#token=(?P<token>\S+))?\s*$")
_PATIENCE_S = 60


@dataclass(frozen=True)
class Collection:
    """Pictures in a folder, and an index of them.

    Attributes:
        index: the index's own folder.
        photos: the folder that it is synchronised with.
        queries: pictures of the same things that are not in it, one of each.
        names: of the pictures in the index, relative to ``photos``, in order of path.
        copies: two of them with the same content.
        odd: one with an odd name in an odd folder.
        turned: one that is stored lying on its side, 214 × 320 pixels when upright.
        broken: a file in ``photos`` that is no picture, though its name says so.
    """

    index: Path
    photos: Path
    queries: list[Path]
    names: list[str]
    copies: tuple[str, str]
    odd: str
    turned: str
    broken: str

    def id_of(self, name: str) -> str:
        """What the service knows a picture by."""
        return picture_id(self.photos / name)


def picture_id(path: Path) -> str:
    """What the service knows a picture in a file by."""
    return blake2b(path.read_bytes(), digest_size=16).hexdigest()


def make_collection(folder: Path, *, instances: int = 17) -> Collection:
    """Renders pictures, 320 pixels wide, three of each thing, and indexes them with the recipe of the package.

    Of 17 instances come 51 different ones and a copy: enough for a threshold from the collection itself.
    """
    make_scenes(folder, instances=instances, views=3, size_px=320)
    photos = (folder / "database").rename(folder / "photos")
    (photos / SUBFOLDER).mkdir()
    first, second, third, fourth = sorted(photos.glob("*.jpg"))[:4]
    copy = photos / SUBFOLDER / "copy.jpg"
    shutil.copyfile(first, copy)
    odd = second.rename(photos / SUBFOLDER / ODD_NAME)
    with Image.open(third) as upright:
        lying = upright.resize((214, 320)).transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # its right side is the top
    lying.save(photos / "turned.jpg", exif=exif)
    third.unlink()
    (photos / "broken.jpg").write_bytes(fourth.read_bytes()[:300])
    with open_index(folder / "photos.cooc", Recipe()) as index:
        index.sync(photos, describer=Describer(Recipe()))
    relative = [path.relative_to(photos).as_posix() for path in photos.rglob("*.jpg")]
    return Collection(
        index=folder / "photos.cooc",
        photos=photos,
        queries=sorted((folder / "queries").glob("*.jpg")),
        names=sorted(name for name in relative if name != "broken.jpg"),
        copies=(first.name, copy.relative_to(photos).as_posix()),
        odd=odd.relative_to(photos).as_posix(),
        turned="turned.jpg",
        broken="broken.jpg",
    )


@dataclass(frozen=True)
class Service:
    """The command ``coocnet serve``, running.

    Attributes:
        url: of the page, with a slash at its end.
        name: the collection's, as the command says it.
        token: the one that it made, if any.
        process: the command's.
        log: the file with its standard error.
    """

    url: str
    name: str
    token: str
    process: subprocess.Popen[str]
    log: Path


def steady_port() -> int:
    """A free port that the system gives nobody who asks for any, for what is to come back at the same address."""
    for port in random.Random(os.getpid()).sample(range(20_000, 32_000), 50):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError("no port is free")


@contextmanager
def serve(index: Path, *options: object, home: Path, **environment: str) -> Iterator[Service]:
    """Serves an index on a free port of this machine until the block ends; the command must then end well.

    Args:
        index: the index's own folder.
        options: further ones of the command.
        home: a folder for its cache, settings and log.
        environment: further variables.
    """
    command = [sys.executable, "-m", "coocnet", "serve", "--index", index, "--port", 0, *options]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("COOCNET_")}
    own = {
        "HOME": str(home),
        "XDG_CACHE_HOME": str(home / "cache"),
        "PYTHONPATH": str(Path(coocnet.__file__).parents[1]),
        "COLUMNS": "500",
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    home.mkdir(parents=True, exist_ok=True)
    log = home / "serve.log"
    with log.open("w") as errors:
        process = subprocess.Popen(
            list(map(str, command)),
            cwd=home,
            env={**clean, **own, **environment},
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    reader = threading.Thread(target=_read, args=(process, lines))
    reader.start()
    try:
        served = _await(lines, process, log)
        yield Service(served["url"], served["name"], served["token"] or "", process, log)
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        status = process.wait(_PATIENCE_S)
        assert status == 0, f"the command ended with {status} when it was told to stop:\n{log.read_text()}"
        assert "Traceback" not in log.read_text(), log.read_text()
    finally:
        process.kill()
        process.wait()
        reader.join()
        process.stdout.close()


def _read(process: subprocess.Popen[str], lines: queue.SimpleQueue[str | None]) -> None:
    for line in process.stdout:
        lines.put(line)
    lines.put(None)


def _await(lines: queue.SimpleQueue[str | None], process: subprocess.Popen[str], log: Path) -> re.Match[str]:
    said = []
    try:
        while (line := lines.get(timeout=_PATIENCE_S)) is not None:
            if served := SERVED.match(line):
                return served
            said.append(line)
    except queue.Empty:
        state = "still ran"
    else:
        state = f"had ended with {process.wait()}"
    raise AssertionError(f"the command served nothing and {state}:\n{''.join(said)}{log.read_text()}")
