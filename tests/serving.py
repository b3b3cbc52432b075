"""A real server on this machine that can be told to misbehave."""

from __future__ import annotations

import socket
import struct
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CONTENT = bytes(range(256)) * 3000


@dataclass
class Mirror:
    """A file on the server, how its server behaves, and what it was asked.

    Attributes:
        url: where it is.
        content: its bytes.
        validator: the header that names this version, and its value.
        statuses: answers to the next requests, before the file is given.
        cuts: after how many bytes the next answers break off.
        reset: a break is a reset connection, not a closed one.
        ranges: False: Range is ignored.
        if_range: False: If-Range is ignored.
        range_starts_at: the place from which it resumes, whatever it was asked.
        stated_length: Content-Length, where it is not the truth.
        location: where every request is sent instead.
        may_answer: no answer before this is set.
        asked: set by the first request.
        requests: the Range header of each request, None where there was none.
        bytes_served: in all answers together.
    """

    url: str
    content: bytes = CONTENT
    validator: tuple[str, str] | None = ("ETag", '"one"')
    statuses: list[int] = field(default_factory=list)
    cuts: list[int] = field(default_factory=list)
    reset: bool = False
    ranges: bool = True
    if_range: bool = True
    range_starts_at: int | None = None
    stated_length: str | None = None
    location: str | None = None
    may_answer: threading.Event = field(default_factory=threading.Event)
    asked: threading.Event = field(default_factory=threading.Event)
    requests: list[str | None] = field(default_factory=list)
    bytes_served: int = 0


class Server(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.mirrors: dict[str, Mirror] = {}

    def mirror(self, name: str = "file.bin") -> Mirror:
        mirror = Mirror(f"http://127.0.0.1:{self.server_port}/{name}")
        mirror.may_answer.set()
        self.mirrors[f"/{name}"] = mirror
        return mirror

    def handle_error(self, *_: object) -> None:
        """That a client hangs up is the client's affair; what it made of the answer is what the tests look at."""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        mirror = self.server.mirrors[self.path]
        mirror.requests.append(self.headers["Range"])
        mirror.asked.set()
        mirror.may_answer.wait(20)
        if mirror.statuses:
            self.send_error(mirror.statuses.pop(0))
        elif mirror.location:
            self.send_response(302)
            self.send_header("Location", mirror.location)
            self.end_headers()
        else:
            self.give(mirror)

    def give(self, mirror: Mirror) -> None:
        whole, start = len(mirror.content), 0
        same = not mirror.if_range or (mirror.validator and self.headers["If-Range"] == mirror.validator[1])
        if self.headers["Range"] and mirror.ranges and same:
            start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
            if mirror.range_starts_at is not None:
                start = mirror.range_starts_at
            if start >= whole:
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{whole - 1}/{whole}")
        else:
            self.send_response(200)
        if mirror.validator:
            self.send_header(*mirror.validator)
        self.send_header("Content-Length", mirror.stated_length or str(whole - start))
        self.end_headers()
        cut = mirror.cuts.pop(0) if mirror.cuts else None
        body = mirror.content[start:][:cut]
        mirror.bytes_served += len(body)  # before, as the client goes on as soon as it has them
        self.wfile.write(body)
        if cut is not None and mirror.reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    def log_message(self, *_: object) -> None:
        """Nothing is logged."""
