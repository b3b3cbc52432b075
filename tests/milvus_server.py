"""A real Milvus server for tests, in a network namespace of its own, because it listens at every address of its host.

The way to it leads through a socket in the file system: a port of this machine's loopback interface is forwarded into
the namespace, by this process at its end and by the one that started the server at the other.
"""

from __future__ import annotations

import asyncio
import fcntl
import importlib.util
import re
import secrets
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from coocnet.index.milvus.address import Address
from coocnet.index.milvus.server import Server

_PATIENCE_S = 120
_PIECE_BYTES = 1 << 16

Connect = Callable[[], Coroutine[Any, Any, tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


class MilvusServer:
    """A running one.

    Attributes:
        url: of an index there, but for its name.
    """

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.url = f"milvus://127.0.0.1:{port}/"
        self._process = process

    @contextmanager
    def place(self) -> Iterator[str]:
        """A place for an index, which is deleted in the end: many collections make a server slow."""
        name = f"index_{secrets.token_hex(8)}"
        yield f"{self.url}{name}"
        server = Server(Address.of(f"{self.url}{name}"))
        for kind in server.made():
            server.drop(kind)
        server.close()

    def kill(self) -> None:
        """Ends the server at once, as a loss of power would."""
        self._tell("kill")

    def start(self) -> None:
        """Starts it again, with what it has stored."""
        self._tell("start")

    def _tell(self, what: str) -> None:
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline().strip()
        assert answer == what, f"the server did not {what}: {answer}"


def why_not() -> str:
    """Why this machine cannot run one; empty where it can."""
    if importlib.util.find_spec("milvus") is None:
        return "a Milvus server for tests needs: pip install milvus==2.3.5 (Linux, x86-64)"
    unshare = shutil.which("unshare")
    if unshare is None:
        return "a Milvus server for tests needs a network namespace of its own: no command unshare"
    tried = subprocess.run([unshare, *_OPTIONS, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        return f"a Milvus server for tests needs a network namespace of its own: {tried.stderr.strip()}"
    return ""


_OPTIONS = ["--net", "--map-root-user"]


@contextmanager
def milvus_server(folder: Path) -> Iterator[MilvusServer]:
    """Runs a server that keeps its data in ``folder``, until the block ends."""
    path = folder / "way"
    command = ["unshare", *_OPTIONS, sys.executable, __file__, str(folder / "data"), str(path)]
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        line = process.stdout.readline()
        if line.strip() != "start":
            raise AssertionError(f"no server was started: {line}{(folder / 'server.log').read_text()[-2000:]}")
        with _forwarded(path) as port:
            yield MilvusServer(process, port)
    finally:
        process.stdin.close()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


@contextmanager
def _forwarded(path: Path) -> Iterator[int]:
    """A port that leads to a socket in the file system."""
    loop = asyncio.new_event_loop()
    ports: list[int] = []
    begun = threading.Event()

    async def serve() -> asyncio.Server:
        listening = await asyncio.start_server(_leading(lambda: asyncio.open_unix_connection(path)), "127.0.0.1", 0)
        ports.append(listening.sockets[0].getsockname()[1])
        begun.set()
        return listening

    def run() -> None:
        asyncio.set_event_loop(loop)
        listening = loop.run_until_complete(serve())
        loop.run_forever()
        listening.close()
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    assert begun.wait(10)
    try:
        yield ports[0]
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


def _leading(connect: Connect) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]:
    """Passes on, both ways, what comes over a connection."""

    async def lead(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there_reader, there_writer = await connect()
        except OSError:
            writer.close()
            return
        ways = [
            asyncio.create_task(_passed(reader, there_writer)),
            asyncio.create_task(_passed(there_reader, writer)),
        ]
        try:
            with suppress(asyncio.CancelledError):  # at the end, which is no failure of a connection
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            for one in (writer, there_writer):
                one.close()

    return lead


async def _passed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while piece := await reader.read(_PIECE_BYTES):
            writer.write(piece)
            await writer.drain()


# Within the namespace


def main() -> None:
    """Runs the server until the standard input ends; a line "kill" or "start" there does that to it."""
    import milvus

    folder, path = sys.argv[1:]
    _raise_loopback()
    server = milvus.MilvusServer()
    server.config.template_text = _quickly(server.config.template_text)
    server.set_base_dir(folder)
    server.start()
    loop = asyncio.new_event_loop()
    lead = _leading(lambda: asyncio.open_connection("127.0.0.1", server.listen_port))  # another one each time
    loop.run_until_complete(asyncio.start_unix_server(lead, path))
    threading.Thread(target=loop.run_forever, daemon=True).start()
    print("start", flush=True)
    try:
        for line in sys.stdin:
            if line.strip() == "kill":
                server.server_proc.kill()
                server.server_proc.wait()
            else:
                server.start()
                _wait_until_reached(server.listen_port)
            print(line.strip(), flush=True)
    finally:
        server.stop()


def _wait_until_reached(port: int) -> None:
    """A server that was killed says that it is there before it listens."""
    for _ in range(10 * _PATIENCE_S):
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.1)


def _quickly(settings: str) -> str:
    """Settings of the server with which it looks after what it was asked for many times a second, not once."""
    known = {"timeTickInterval": 20, "distPullInterval": 50, "checkInterval": 50, "ttl": 3}
    for name, value in known.items():
        settings, count = re.subn(rf"(?m)^( *{name}:) *[0-9]+", rf"\g<1> {value}", settings)
        assert count, f"the server knows no {name}"
    further = {
        "checkChannelInterval": 50,
        "checkSegmentInterval": 50,
        "leaderViewUpdateInterval": 0.05,
        "UpdateNextTargetInterval": 0.1,
    }
    lines = "".join(f"  {name}: {value}\n" for name, value in further.items())
    return settings.replace("\nqueryCoord:\n", f"\nqueryCoord:\n{lines}")


def _raise_loopback() -> None:
    """Sets the loopback interface of this namespace up, as ``ip link set lo up`` does."""
    get_flags, set_flags, up = 0x8913, 0x8914, 0x1
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as some:
        asked = struct.pack("16sh22x", b"lo", 0)
        _, flags = struct.unpack("16sh22x", fcntl.ioctl(some, get_flags, asked))
        fcntl.ioctl(some, set_flags, struct.pack("16sh22x", b"lo", flags | up))


if __name__ == "__main__":
    main()
