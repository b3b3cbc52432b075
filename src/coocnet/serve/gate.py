"""What every request passes before anything is done for it, and every answer on its way out."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import math
import platform
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import anyio
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect

from coocnet.serve.metrics import Metrics
from coocnet.serve.problems import Problem, ending, log, overloaded, problem_of_service
from coocnet.serve.settings import Settings

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_WITHOUT_TOKEN = ("/health/", "/static/", "/api/session")
_PICTURE_BODIES = ("/api/uploads", "/api/pictures", "/api/search/image")
_SHORT_BODIES = ("/api/session", "/api/sync")
_SHORT_BYTES = 1 << 14
_LEAST_BYTES_PER_S = 1 << 13
_CLIENTS_STREAMING = 4
_STRANGERS = 8
_STRANGERS_TIME_S = 5.0
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
WRONG_TOKEN_COSTS_S = 0.5
_TRY_LATER_S = 5
_GONE = 499  # as proxies count a client that left before its answer
_PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_DATA_POLICY = "default-src 'none'; img-src 'self'; sandbox; frame-ancestors 'none'"
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Session:
    """What a client has to show where a token is needed: the token itself, or a cookie that was given for it."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()
        key = hmac.new(self._token, b"coocnet session", hashlib.sha256).hexdigest()
        # Cookies are shared by all ports of a host: each token has a name of its own.
        self.cookie_name = f"coocnet_{hashlib.sha256(key.encode()).hexdigest()[:8]}"
        self.cookie = key

    @property
    def is_needed(self) -> bool:
        """Whether a token is asked for at all."""
        return bool(self._token)

    def accepts_token(self, given: str) -> bool:
        """Whether this is the token, compared in a time that tells nothing."""
        return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), self._token)

    def is_shown(self, headers: Headers) -> bool:
        """Whether a request shows the token or the cookie."""
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer":
            return self.accepts_token(given.strip())
        # Not by the parser of the standard library, which stops at the first cookie that is odd.
        cookies = (pair.strip().partition("=") for pair in headers.get("cookie", "").split(";"))
        return any(
            name == self.cookie_name and hmac.compare_digest(value.encode(), self.cookie.encode())
            for name, _, value in cookies
        )


class Gate:
    """Refuses what must not come in, bounds what does, and gives every answer the headers it needs."""

    def __init__(self, app: App, settings: Settings, session: Session, metrics: Metrics) -> None:
        self._app = app
        self._settings = settings
        self._session = session
        self._metrics = metrics
        self._hosts = {name.lower() for name in (*_LOOPBACK, *settings.hosts)}
        if session.is_needed:
            own = platform.node().lower()
            self._hosts |= {own, f"{own}.local"}
        self._in_work = 0
        self._apart: Counter[str] = Counter()
        self._by_client: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1000})
            return
        started = time.perf_counter()
        answer = _Answer(scope, send, self._settings.transfer_time_s)
        method = _method(scope)
        if method == "HEAD":
            scope = {**scope, "method": "GET"}  # the same but for the body, which the server leaves out
        # Parts of files are not given, as a server is free to do; what gives files here would refuse a bad range in
        # plain text.
        scope = {**scope, "headers": [header for header in scope["headers"] if header[0] != b"range"]}
        try:
            await self._passed(scope, receive, answer)
        except Problem as problem:
            self._metrics.refused.labels(problem.name).inc()
            if answer.status is None:
                await problem.response()(scope, receive, answer.send)
        except ClientDisconnect:
            pass
        except asyncio.CancelledError:
            # Only the end of the service cancels a request, when its time to finish what it answers is over.
            if answer.status is None:
                await ending().response()(scope, receive, answer.send)
        except Exception:  # noqa: BLE001 - whatever it is, the client is told, and the log
            log.exception("%s %s", method, scope["path"])
            if answer.status is None:
                await problem_of_service().response()(scope, receive, answer.send)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.requests.labels(method, route, answer.status or _GONE).inc()
            self._metrics.seconds.labels(route).observe(time.perf_counter() - started)

    async def _passed(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        self._check_host(scope)
        self._check_origin(scope)
        await self._check_token(scope)
        try:
            await self._admitted(scope, receive, answer)
        except TimeoutError:
            if answer.status is None:
                raise
            log.warning("%s %s: the answer was not taken in time", _method(scope), scope["path"])

    def _check_host(self, scope: Scope) -> None:
        """A name that leads here by somebody else's name service would let other sites read what is here."""
        named = Headers(scope=scope).get("host", "")
        host = _host(named)
        if host in self._hosts or (self._session.is_needed and _is_address(host)):
            return
        raise Problem(
            421,
            "host",
            f"this service does not answer to the name {named[:100]!r}; start it with --name to have it do so",
        )

    def _check_origin(self, scope: Scope) -> None:
        """Other sites may lead to the page, and do nothing else here."""
        headers = Headers(scope=scope)
        site, origin = headers.get("sec-fetch-site"), headers.get("origin")
        leads_here = scope["method"] == "GET" and not scope["path"].startswith(("/api/", "/metrics"))
        foreign = site in ("cross-site", "same-site")
        if site is None and origin is not None:
            foreign = origin.partition("://")[2].lower() != headers.get("host", "").lower()
        if foreign and not leads_here:
            raise Problem(403, "cross-site", "requests from pages of other sites are refused")

    async def _check_token(self, scope: Scope) -> None:
        path = scope["path"]
        if not self._session.is_needed or path == "/" or path.startswith(_WITHOUT_TOKEN):
            return
        headers = Headers(scope=scope)
        if self._session.is_shown(headers):
            return
        if "authorization" in headers:
            await anyio.sleep(WRONG_TOKEN_COSTS_S)
        raise Problem(401, "token", "show the token: Authorization: Bearer TOKEN, or exchange it at /api/session")

    async def _admitted(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        path = scope["path"]
        if not path.startswith("/api/"):
            await self._in_time(scope, receive, answer)
            return
        client = str((scope.get("client") or ("",))[0])
        if path.endswith("/events"):
            share = max(1, self._settings.streams // _CLIENTS_STREAMING)
            async with (
                self._place_among("streams", self._settings.streams),
                self._place_among(f"streams of {client}", share),
            ):
                await self._app(scope, receive, answer.send)
            return
        if path == "/api/session":
            # Those who have shown no token yet take no place from those who have, and are given less time.
            async with self._place_among("strangers", _STRANGERS):
                await self._in_time(scope, receive, answer, at_most_s=_STRANGERS_TIME_S)
            return
        if self._in_work >= self._settings.at_once:
            raise overloaded()
        if self._by_client[client] >= self._settings.per_client:
            detail = f"{self._by_client[client]} requests of yours are in work; wait for answers before asking more"
            raise Problem(429, "too-many", detail, retry_after_s=1)
        self._in_work += 1
        self._by_client[client] += 1
        self._metrics.in_work.inc()
        try:
            await self._in_time(scope, receive, answer)
        finally:
            self._metrics.in_work.dec()
            self._in_work -= 1
            self._by_client[client] -= 1
            if not self._by_client[client]:
                del self._by_client[client]

    @asynccontextmanager
    async def _place_among(self, kind: str, most: int) -> AsyncIterator[None]:
        if self._apart[kind] >= most:
            raise overloaded()
        self._apart[kind] += 1
        try:
            yield
        finally:
            self._apart[kind] -= 1
            if not self._apart[kind]:
                del self._apart[kind]

    async def _in_time(self, scope: Scope, receive: Receive, answer: _Answer, *, at_most_s: float = math.inf) -> None:
        settings = self._settings
        if at_most_s < settings.body_time_s:
            settings = replace(settings, body_time_s=at_most_s)
        body = _Body(scope, receive, settings)
        with anyio.move_on_after(self._settings.answer_time_s) as clock:
            body.clock = answer.clock = clock
            await self._app(scope, body.receive, answer.send)
        if not clock.cancelled_caught:
            return
        if not body.is_whole:
            raise Problem(408, "slow", "the request did not arrive in time; send it faster, or less of it")
        detail = f"no answer was ready within {self._settings.answer_time_s:g} s"
        raise Problem(503, "slow", detail, retry_after_s=_TRY_LATER_S)


class _Body:
    """A request's body as it arrives: no more of it than may be sent, and in time.

    While it is awaited the clock stands at what it may still take, and then at what the answer may.
    """

    def __init__(self, scope: Scope, receive: Receive, settings: Settings) -> None:
        is_picture = scope["method"] == "POST" and scope["path"].rstrip("/") in _PICTURE_BODIES
        self._most = settings.upload_bytes if is_picture else settings.json_bytes
        if scope["path"] in _SHORT_BODIES:
            self._most = min(self._most, _SHORT_BYTES)
        self._receive = receive
        self._settings = settings
        self._got = 0
        self._began: float | None = None
        self.clock: anyio.CancelScope | None = None
        headers = Headers(scope=scope)
        stated = headers.get("content-length", "")
        self.is_whole = stated in ("", "0") and "transfer-encoding" not in headers
        if stated.isdecimal() and int(stated) > self._most:
            raise self._too_large()

    async def receive(self) -> Message:
        """The next piece."""
        if not self.is_whole and self.clock is not None:
            now = anyio.current_time()
            self._began = self._began or now
            slowest_s = self._settings.transfer_time_s + self._got / _LEAST_BYTES_PER_S
            until = self._began + min(self._settings.body_time_s, slowest_s)
            self.clock.deadline = min(until, now + self._settings.transfer_time_s)
        message = await self._receive()
        if message["type"] == "http.request":
            self._got += len(message.get("body", b""))
            if self._got > self._most:
                raise self._too_large()
            if not message.get("more_body", False) and not self.is_whole:
                self.is_whole = True
                if self.clock is not None:
                    self.clock.deadline = anyio.current_time() + self._settings.answer_time_s
        return message

    def _too_large(self) -> Problem:
        most = f"{self._most >> 20} MiB" if self._most >> 20 else f"{self._most >> 10} KiB"
        return Problem(413, "too-large", f"more than {most} are not taken")


class _Answer:
    """An answer as it leaves: with the headers that every answer has, and each piece taken in time."""

    def __init__(self, scope: Scope, send: Send, transfer_time_s: float) -> None:
        self._scope = scope
        self._send = send
        self._transfer_time_s = transfer_time_s
        self.status: int | None = None
        self.clock: anyio.CancelScope | None = None

    async def send(self, message: Message) -> None:
        """The next piece.

        Raises:
            TimeoutError: the client does not take it.
        """
        if message["type"] == "http.response.start":
            self.status = message["status"]
            path = self._scope["path"]
            guarded(MutableHeaders(scope=message), is_page=path == "/" or path.startswith("/static/"))
            if self.clock is not None:
                self.clock.deadline = math.inf
        with anyio.fail_after(self._transfer_time_s):
            await self._send(message)


def guarded(headers: MutableHeaders, *, is_page: bool) -> None:
    """Puts the headers among an answer's that every answer has."""
    headers["Content-Security-Policy"] = _PAGE_POLICY if is_page else _DATA_POLICY
    for name, value in _HEADERS.items():
        headers[name] = value
    if "cache-control" not in headers:
        headers["Cache-Control"] = "no-cache" if is_page else "no-store"


def _method(scope: Scope) -> str:
    method = str(scope["method"])
    return method if method in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH") else "other"


def _host(named: str) -> str:
    """The host of a header Host, without its port."""
    if named.startswith("["):
        return named[1:].partition("]")[0].lower()
    return named.rpartition(":")[0].lower() if named.count(":") == 1 else named.lower()


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
