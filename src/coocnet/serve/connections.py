"""Connections as they are accepted: never more than the system can hold, and the idle ones make room for the next."""

from __future__ import annotations

import socket
from collections import OrderedDict
from contextlib import suppress
from typing import Any

_MOST = 1000
_OTHER_FILES = 200


class Listening(socket.socket):
    """A socket that listens, and counts what it has accepted, also those that have not shown how they speak TLS.

    Where there is no place for a new connection, the one that has been idle for longest is closed: by far the most of
    those that somebody opens to keep others out are idle.

    Attributes:
        most: connections at once.
    """

    most = _MOST

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        self._open: dict[Any, _Accepted] = {}
        self._idle: OrderedDict[Any, None] = OrderedDict()

    def accept(self) -> tuple[socket.socket, Any]:
        """The next connection; see :meth:`socket.socket.accept`.

        Raises:
            ConnectionAbortedError: there is no place for it, and it was closed.
        """
        connection, address = super().accept()
        if len(self._open) >= self.most:
            if not self._idle:
                connection.close()
                raise ConnectionAbortedError("all places are taken")
            self._open[next(iter(self._idle))].end()
        accepted = _Accepted(self, address, connection)
        self._open[address] = accepted
        self._idle[address] = None
        return accepted, address

    def is_asking(self, address: Any) -> None:
        """Notes that a request has come over a connection."""
        self._idle.pop(address, None)

    def is_idle(self, address: Any) -> None:
        """Notes that a connection waits for its next request."""
        if address in self._open:
            self._idle[address] = None

    def forget(self, address: Any) -> None:
        """Notes that a connection is closed."""
        self._open.pop(address, None)
        self._idle.pop(address, None)


class _Accepted(socket.socket):
    def __init__(self, listening: Listening, address: Any, connection: socket.socket) -> None:
        super().__init__(connection.family, connection.type, connection.proto, fileno=connection.detach())
        self._listening = listening
        self._address = address

    def close(self) -> None:
        self._listening.forget(self._address)
        super().close()

    def end(self) -> None:
        """Has whoever holds the connection see that it is over, and close it; its place is free now."""
        self._listening.forget(self._address)
        with suppress(OSError):  # it may be over already
            self.shutdown(socket.SHUT_RDWR)


def places() -> int:
    """How many connections this process can hold beside the files that it opens; raises what it is allowed."""
    try:
        import resource  # noqa: PLC0415 - only some systems have such a limit
    except ImportError:
        return _MOST
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST + _OTHER_FILES
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return _MOST
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if allowed > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    return max(allowed - _OTHER_FILES, allowed // 4)
