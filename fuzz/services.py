"""The service: requests to the application in this process, and bytes to the socket of the real server."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import weakref
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import IO, Any

import h11
import numpy as np
from hypothesis import strategies as st

from coocnet.data.images import content_digest
from coocnet.data.scenes import render
from coocnet.describe import Describer
from coocnet.index import open_index
from coocnet.recipe import Recipe
from coocnet.serve.app import make_app
from coocnet.serve.settings import Settings
from fuzz.target import Reads, Target

_INSTANCES = 2
_HOST = b"127.0.0.1:8000"
_TOKEN = "a token of the fuzzer"
_PROBLEM = b"application/problem+json"
_UNKNOWN = "0" * 32
_READY_S = 120.0


@cache
def _pictures() -> list[bytes]:
    made = []
    for number in range(2 * _INSTANCES + 1):
        stream = io.BytesIO()
        render(number // 2, number % 2, size_px=64)[0].save(stream, "JPEG", quality=50)
        made.append(stream.getvalue())
    return made


def _indexed(folder: Path) -> tuple[Path, Path]:
    """An index of some pictures, and their folder."""
    photos, place = folder / "photos", folder / "photos.cooc"
    photos.mkdir()
    for number, content in enumerate(_pictures()[:-1]):
        (photos / f"{number} é.jpg").write_bytes(content)
    with open_index(place, Recipe()) as index:
        index.sync(photos, describer=Describer(Recipe()))
    return place, photos


def _request(method: str, target: str, body: bytes = b"", headers: Sequence[tuple[str, str]] = ()) -> bytes:
    length = [("Content-Length", str(len(body)))] if body else []
    lines = [f"{method} {target} HTTP/1.1", f"Host: {_HOST.decode()}"]
    lines += [f"{name}: {value}" for name, value in (*headers, *length)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8", "surrogatepass") + body


@cache
def _ids() -> list[str]:
    return [content_digest(content).hex() for content in _pictures()]


@cache
def _seeds() -> list[bytes]:
    one, two, *_, new = _ids()
    picture = _pictures()[-1]
    row = {
        "descriptor": [round(float(x), 3) for x in np.eye(1, 512)[0]],
        "limit": 3,
        "threshold": "none",
        "relevant": [two],
    }
    targets = [
        "/",
        "/static/page.js",
        "/health/ready",
        "/metrics",
        "/api/openapi.json",
        "/api/info",
        "/api/jobs",
        "/api/removed",
        "/api/jobs/1/events",
        "/api/pictures?offset=1&limit=2&contains=%C3%A9&folder=0&sort=name",
        f"/api/pictures/{one}",
        f"/api/pictures/{one}/thumbnail?size=160",
        f"/api/pictures/{one}/original?download=true",
        f"/api/uploads/{new}/image?size=320",
        f"/api/search?picture={one}&limit=2&offset=1&threshold=0.2&expansion=aqe",
        f"/api/search?upload={new}&box=1,2,40,40&reranking=reciprocal&exact=true&relevant={one},{two}",
        f"/api/descriptor?picture={two}",
        f"/api/explanation?picture={one}&result={two}&box=0,0,30,30",
        f"/api/heatmap?picture={one}&kind=activation&format=png",
    ]
    made = [_request("GET", target) for target in targets]
    made += [
        _request("HEAD", f"/api/pictures/{one}/original", headers=[("Range", "bytes=3-9"), ("If-None-Match", '"x"')]),
        _request("POST", "/api/uploads", picture),
        _request("POST", "/api/search/image?limit=2&box=1,1,30,30", picture),
        _request("POST", "/api/search", json.dumps(row).encode(), [("Content-Type", "application/json")]),
        _request(
            "POST", "/api/session", json.dumps({"token": _TOKEN}).encode(), [("Content-Type", "application/json")]
        ),
        _request("DELETE", "/api/session", headers=[("Cookie", "coocnet_x=y; a=b")]),
        _request("DELETE", f"/api/pictures/{one}"),
        _request("POST", f"/api/pictures/{one}/restore"),
        _request("POST", "/api/pictures?name=a.jpg", picture),
        _request("OPTIONS", "/api/info", headers=[("Origin", "http://elsewhere"), ("Sec-Fetch-Site", "cross-site")]),
    ]
    return made


class _Application:
    """The application, asked without a server."""

    def __init__(self, place: Path, photos: Path) -> None:
        self._loop = asyncio.new_event_loop()
        self._app = make_app(Settings(str(place), add_to=str(photos)))
        self._secrets = [os.fsencode(place.parent)]
        self._lifespan = self._app.router.lifespan_context(self._app)
        self._loop.run_until_complete(self._lifespan.__aenter__())
        until = time.monotonic() + _READY_S
        while (
            self.answer({"method": b"GET", "target": b"/health/ready", "headers": [(b"host", _HOST)]}, b"")[0] != 200
        ):
            assert time.monotonic() < until, "the service was never ready"
            time.sleep(0.05)

    def answer(self, asked: dict[str, Any], body: bytes) -> tuple[int, dict[bytes, bytes], bytes]:
        """Status, headers and body of the answer."""
        path, _, query = asked["target"].partition(b"?")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": asked["method"].decode("ascii"),
            "scheme": "http",
            "path": urllib.parse.unquote(path.decode("ascii")),
            "raw_path": path,
            "root_path": "",
            "query_string": query,
            "headers": list(asked["headers"]),
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 8000),
        }
        sent: list[dict[str, Any]] = []
        arriving = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> dict[str, Any]:
            if arriving:
                return arriving.pop()
            await asyncio.Event().wait()
            raise AssertionError

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        self._loop.run_until_complete(self._app(scope, receive, send))  # type: ignore[arg-type]
        content = b"".join(message.get("body", b"") for message in sent[1:])
        return sent[0]["status"], dict(sent[0]["headers"]), content

    def check(self, status: int, headers: dict[bytes, bytes], content: bytes) -> None:
        """What holds of every answer."""
        check_answer(status, headers.get(b"content-type", b""), b"retry-after" in headers, content)
        told = content + b"".join(headers.values())
        assert not any(secret in told for secret in self._secrets), "an answer names a place of this machine"


def check_answer(status: int, kind: bytes, says_when: bool, content: bytes) -> None:
    """No answer is an accident; each that refuses says why."""
    assert status < 500 or (status == 503 and says_when), f"{status}: {content[:300]!r}"
    if status >= 400 and content:
        assert kind == _PROBLEM, f"{status} of type {kind!r}"
        problem = json.loads(content)
        assert problem["status"] == status
        assert problem["detail"]
        assert len(content) < 4000, f"{len(content)} bytes say what is wrong"


def _parsed(data: bytes) -> tuple[h11.Request, bytes] | None:
    """The first request in the bytes and its body, as the server would understand them."""
    connection = h11.Connection(h11.SERVER)
    asked, body = None, b""
    with suppress(h11.RemoteProtocolError):
        connection.receive_data(data)
        connection.receive_data(b"")
        event = connection.next_event()
        asked = event if isinstance(event, h11.Request) else None
        while asked and isinstance(event := connection.next_event(), h11.Data):
            body += event.data
    return None if asked is None else (asked, body)


def _prepared(folder: Path) -> Reads:
    application = _Application(*_indexed(folder))

    def reads(data: bytes) -> None:
        found = _parsed(data)
        if found is None:
            return
        asked, body = found
        if asked.method == b"POST" and asked.target.startswith(b"/api/sync"):
            return  # a process of its own for each would be all that this does
        answered = application.answer(
            {"method": asked.method, "target": asked.target, "headers": asked.headers}, body
        )
        application.check(*answered)

    return reads


# Requests made piece by piece

_known = st.sampled_from([*_ids(), _UNKNOWN, "x", "", "A" * 32])
_numbers = st.one_of(st.integers(-2, 60).map(str), st.integers().map(str), st.floats().map(repr), st.text(max_size=4))
_box = st.lists(_numbers, min_size=3, max_size=5).map(",".join)
_parameters: dict[str, st.SearchStrategy[str]] = {
    "picture": _known,
    "upload": _known,
    "result": _known,
    "box": _box,
    "limit": _numbers,
    "offset": _numbers,
    "threshold": st.one_of(_numbers, st.sampled_from(["auto", "none"])),
    "expansion": st.sampled_from(["aqe", "alpha-qe", "none", "x"]),
    "reranking": st.sampled_from(["none", "reciprocal", "diffusion", "x"]),
    "exact": st.sampled_from(["true", "false", "1", "x"]),
    "relevant": st.lists(_known, max_size=3).map(",".join),
    "size": st.sampled_from(["160", "320", "1e3", "0", "٣"]),
    "kind": st.sampled_from(["activation", "cooccurrence", "x"]),
    "format": st.sampled_from(["png", "json", "x"]),
    "contains": st.text(max_size=5),
    "folder": _numbers,
    "name": st.text(max_size=9) | st.sampled_from(["../x.jpg", "a/b.jpg", "x.jpg", "CON"]),
    "download": st.sampled_from(["true", "x"]),
}
_query = st.lists(
    st.sampled_from(list(_parameters)).flatmap(lambda name: st.tuples(st.just(name), _parameters[name])), max_size=5
)
_paths = st.one_of(
    st.sampled_from(
        [
            "/",
            "/static/../x",
            "/api/info",
            "/api/pictures",
            "/api/search",
            "/api/descriptor",
            "/api/explanation",
            "/api/heatmap",
            "/api/removed",
            "/api/uploads",
            "/api/search/image",
            "/api/session",
            "/metrics",
        ]
    ),
    st.builds(
        "/api/pictures/{}{}".format, _known, st.sampled_from(["", "/thumbnail", "/original", "/restore", "/x"])
    ),
    st.builds("/api/uploads/{}/image".format, _known),
    st.builds("/api/jobs/{}{}".format, _known, st.sampled_from(["", "/events"])),
    st.text(max_size=8).map(lambda text: "/" + text),
)
_json: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), _known),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=4), inner, max_size=3)),
    max_leaves=5,
)
_rows = st.one_of(
    st.lists(st.floats(width=32), min_size=512, max_size=512), st.just([0.0] * 512), st.just([1e308] * 512), _json
)
_asked = st.fixed_dictionaries(
    {"descriptor": _rows},
    optional={
        name: _json | _parameters[name]
        for name in ("limit", "offset", "threshold", "expansion", "reranking", "exact")
    }
    | {"relevant": st.lists(_known, max_size=3) | _json, "x": _json},
)
_depths = st.integers(1, 9000).map(lambda depth: b"[" * depth)
_bodies = st.one_of(
    st.just(b""),
    st.binary(max_size=40),
    st.sampled_from(_pictures()),
    _json.map(lambda value: json.dumps(value).encode()),
    _asked.map(lambda value: json.dumps(value).encode()),
    _depths,
    st.just(b'{"descriptor": [' + b"1," * 9000 + b"1]}"),
)
_headers = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "Content-Type",
                "Origin",
                "Cookie",
                "Authorization",
                "Range",
                "If-None-Match",
                "If-Modified-Since",
                "Accept",
                "Sec-Fetch-Site",
                "X-Forwarded-For",
                "Transfer-Encoding",
                "Content-Length",
                "Expect",
                "Upgrade",
            ]
        ),
        st.one_of(
            st.sampled_from(
                [
                    "application/json",
                    "multipart/form-data; boundary=x",
                    "http://127.0.0.1:8000",
                    "Bearer x",
                    "bytes=0-",
                    "bytes=-1,5-2",
                    "chunked",
                    "-1",
                    "9" * 30,
                    "cross-site",
                    "100-continue",
                    "x=" + "y" * 3000,
                ]
            ),
            st.text(max_size=8),
        ),
    ),
    max_size=3,
)


def _spelled(
    method: str, path: str, query: list[tuple[str, str]], body: bytes, headers: list[tuple[str, str]]
) -> bytes:
    target = (
        urllib.parse.quote(path, errors="surrogatepass")
        + ("?" if query else "")
        + urllib.parse.urlencode(query, errors="surrogatepass")
    )
    return _request(
        method, target, body, [(name, value.replace("\n", " ").replace("\r", " ")) for name, value in headers]
    )


_methods = st.sampled_from(["GET", "GET", "POST", "DELETE", "HEAD", "PUT", "OPTIONS", "TRACE", "X"])
_requests = st.builds(_spelled, _methods, _paths, _query, _bodies, _headers)
HTTP = Target(
    "requests to the service (application in the process)",
    _prepared,
    _seeds,
    _requests,
    time_s=20,
    memory_mb=2048,
    longest_bytes=1 << 14,
)


# The real server


class _Server:
    """The command, serving, with a token, so that most of what is asked is refused at its gate."""

    def __init__(self, folder: Path) -> None:
        place, _ = _indexed(folder)
        words = [sys.executable, "-m", "coocnet", "serve", "--index", str(place), "--port", "0"]
        self._log = (folder / "log").open("w+")
        environment = {**os.environ, "HOME": str(folder), "COLUMNS": "300"}
        self._process = subprocess.Popen(
            words,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=environment,
            preexec_fn=_with_parent,  # noqa: PLW1509 - before any thread is begun here
        )
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if " at http://127.0.0.1:" in line:
                self.port = int(line.split("127.0.0.1:")[1].split("/")[0])
                break
        self.told = 0
        weakref.finalize(self, _end, self._process, self._log)

    def check(self) -> None:
        """It still runs, and has logged no accident."""
        assert self._process.poll() is None, "the server has ended"
        self._log.seek(self.told)
        logged = self._log.read()
        self.told += len(logged.encode())
        assert "Traceback" not in logged, logged[-1500:]


def _end(process: subprocess.Popen[str], log: IO[str]) -> None:
    process.terminate()
    process.communicate()
    log.close()


def _with_parent() -> None:
    """Ends the server with the process that started it, however that ends."""
    import ctypes

    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def _socket_prepared(folder: Path) -> Reads:
    server = _Server(folder)

    def reads(data: bytes) -> None:
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
            try:
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
                answer = b""
                while (piece := connection.recv(1 << 16)) and len(answer) < 1 << 20:
                    answer += piece
            except (ConnectionResetError, BrokenPipeError):
                answer = b""
        if answer:
            status = int(answer.split(b" ", 2)[1])
            assert status < 500 or (status == 503 and b"retry-after" in answer.lower()), answer[:500]
        server.check()

    return reads


SOCKETS = Target(
    "bytes to the server's socket (client's side of the time and memory)",
    _socket_prepared,
    _seeds,
    _requests,
    time_s=20,
    longest_bytes=1 << 14,
)
