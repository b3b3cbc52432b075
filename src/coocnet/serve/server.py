"""The process that serves: listens, answers, and ends when it is told to, with what it began finished."""

from __future__ import annotations

import asyncio
import platform
import secrets
import signal
import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import FrameType
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from coocnet.errors import InputError
from coocnet.serve.app import make_app
from coocnet.serve.connections import Listening, places
from coocnet.serve.gate import guarded
from coocnet.serve.problems import Problem
from coocnet.serve.settings import Settings, is_loopback

_KEPT_OPEN_S = 15
_EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104 - told apart here, and listened at where the user says so


class _Protocol(H11Protocol):
    """HTTP/1.1 that closes a connection over which the head of a request does not come in time, first or later."""

    head_time_s = 30.0
    listening: Listening

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._address = transport.get_extra_info("peername")
        self._clock: asyncio.TimerHandle | None = self.loop.call_later(self.head_time_s, self._close)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._look_at_clock()
        if self.conn.their_state is not h11.IDLE:
            self.listening.is_asking(self._address)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._look_at_clock()
        if self.conn.their_state is h11.IDLE:
            self.listening.is_idle(self._address)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_clock()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        # Not even a request: the application, which answers all others, never sees it.
        if self.conn.our_state is h11.IDLE:
            answer = Problem(400, "request", msg).response()
            guarded(answer.headers, is_page=False)
            headers = [*answer.raw_headers, (b"connection", b"close")]
            begin = h11.Response(status_code=400, headers=headers, reason=b"Bad Request")
            for event in (begin, h11.Data(data=bytes(answer.body)), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _unsupported_upgrade_warning(self) -> None:
        """There is nothing to upgrade to, and nobody to be told at every request that asks."""

    def _look_at_clock(self) -> None:
        """Has the clock run while a head has begun and not ended."""
        has_begun = self.conn.their_state is h11.IDLE and bool(self.conn.trailing_data[0])
        if not has_begun:
            self._stop_clock()
        elif self._clock is None:
            self._clock = self.loop.call_later(self.head_time_s, self._close)

    def _stop_clock(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    def _close(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()


class _Server(uvicorn.Server):
    """Tells what streams to clients that it is time to end, and the caller when it answers."""

    def __init__(self, config: uvicorn.Config, closing: asyncio.Event, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._closing = closing
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # Unlike uvicorn's own, it does not raise the signal once more at the end: this end is the one asked for.
        del frame
        self._closing.set()
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True


def serve(
    settings: Settings,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    certificate: str | None = None,
    key: str | None = None,
    proxies: Sequence[str] = (),
    sync: str | None = None,
    log_requests: bool = False,
    ready: Callable[[str, str, str], None] = lambda *_: None,
) -> None:
    """Serves an index until the process is told to end (SIGINT or SIGTERM).

    Then it takes no more connections, finishes what it answers, and stops a sync where the next one goes on.

    Args:
        settings: what is served, and its limits. Beyond the loopback interface a token is made if there is none.
        host: the address to listen at.
        port: 0 for any that is free.
        certificate: a file in PEM, to speak TLS.
        key: that of the certificate.
        proxies: addresses of proxies, whose word is taken for whom they speak and whether that one speaks TLS.
        sync: a folder to bring the index up to date with at once.
        log_requests: write a line for each to the standard error output.
        ready: told the index's name, the page's address and the token that was made, once requests are answered.

    Raises:
        InputError: settings that cannot be, or an address that cannot be listened at.
        IndexFileError: the index cannot be opened.
    """
    made = ""
    if not is_loopback(host):
        made = "" if settings.token else secrets.token_urlsafe(24)
        settings = replace(settings, token=settings.token or made)
    settings = replace(settings, hosts=(*settings.hosts, host))
    if certificate is not None:
        _check_certificate(certificate, key)
    app = make_app(settings)
    service = app.state.service
    listening = _listening(host, port)
    listening.most = places()
    protocol = type("Protocol", (_Protocol,), {"head_time_s": settings.transfer_time_s, "listening": listening})
    config = uvicorn.Config(
        app,
        http=protocol,
        loop="asyncio",
        ws="none",
        lifespan="on",
        log_level="warning",
        access_log=log_requests,
        server_header=False,
        date_header=True,
        proxy_headers=bool(proxies),
        forwarded_allow_ips=list(proxies),
        timeout_keep_alive=_KEPT_OPEN_S,
        timeout_graceful_shutdown=int(settings.closing_time_s),
        ssl_certfile=certificate,
        ssl_keyfile=key,
    )
    shown = f"[{host}]" if ":" in host else host
    if host in _EVERYWHERE:
        shown = platform.node() or shown
    url = f"{'https' if certificate else 'http'}://{shown}:{listening.getsockname()[1]}/"

    def answering() -> None:
        if sync is not None:
            service.begin_sync(sync)
        ready(service.name, url, made)

    with listening:
        _Server(config, service.closing, answering).run(sockets=[listening])


def _check_certificate(certificate: str, key: str | None) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot speak TLS by {certificate!r} and {key!r} ({error}): give both in PEM") from error


def _listening(host: str, port: int) -> Listening:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        made = socket.create_server(address[:2], family=family, backlog=256)
    except OSError as error:
        raise InputError(
            f"cannot listen at {host} port {port} ({error.strerror or error}); give another --host or --port, "
            "or --port 0 for any that is free"
        ) from error
    listening = Listening(made.family, made.type, made.proto, fileno=made.detach())
    listening.setblocking(False)
    return listening
