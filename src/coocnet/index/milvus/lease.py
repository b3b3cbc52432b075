"""The right to write an index in Milvus."""

from __future__ import annotations

import json
import os
import platform
import secrets
import threading
import time
from contextlib import suppress

from coocnet.errors import IndexBusyError, IndexStorageError, printable
from coocnet.index.milvus.notes import KIND
from coocnet.index.milvus.server import Server

_WRITER = "writer"
_LASTS_S = 60.0
_RENEWED_S = 15.0
_SETTLES_S = 1.0


class Lease:
    """The right to write, for a minute at a time, renewed meanwhile; a process that was killed loses it by then.

    Milvus compares nothing before it writes, so two writers that begin in the same second wait and see who came last.
    Whether another's lease has run out is told by the clocks of both machines, which have to agree. A writer that
    stood still for longer than the lease lasts has lost it, and is told so before it writes again.

    Raises:
        IndexBusyError: another one has it.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._own = f"{platform.node()} {os.getpid()} {secrets.token_hex(8)}"
        self._ended = threading.Event()
        self._renewing = threading.Thread(target=self._renew, daemon=True)
        self._until = 0.0

    def __enter__(self) -> Lease:
        begun = _clock_s()
        self._server.settle()
        owner, until = self._read()
        if owner and until > time.time():
            raise self._busy(owner)
        self._take()
        try:
            time.sleep(max(_SETTLES_S, 2 * (_clock_s() - begun)))
            self._server.settle()
            owner, _ = self._read()
        except BaseException:
            self._give_back()
            raise
        if owner != self._own:
            raise self._busy(owner)
        self._renewing.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._renewing.join()
        if self.is_held():
            self._give_back()

    def _give_back(self) -> None:
        with suppress(IndexStorageError):  # it runs out by itself
            self._write("", 0)

    def is_held(self) -> bool:
        """Whether it has not run out."""
        return _clock_s() < self._until

    def check(self) -> None:
        """Refuses to go on once it has run out.

        Raises:
            IndexBusyError: this process stood still, or did not reach the server, for so long that others may write.
        """
        if not self.is_held():
            raise IndexBusyError(
                f"{printable(self._server.address.shown)} was out of reach, or this process stood still, for more "
                f"than {_LASTS_S:g} s, so that others may write it by now. What was stored is kept: do it again."
            )

    def _renew(self) -> None:
        while not self._ended.wait(_RENEWED_S) and self.is_held():
            with suppress(IndexStorageError):  # what is written meanwhile says so itself
                if self._read()[0] != self._own:
                    self._until = 0.0
                    return
                self._take()

    def _take(self) -> None:
        begun = _clock_s()
        self._write(self._own, time.time() + _LASTS_S)
        self._until = begun + _LASTS_S

    def _read(self) -> tuple[str, float]:
        found = self._server.get(KIND, [_WRITER], ["value"])
        if not found:
            return "", 0.0
        told = json.loads(found[_WRITER]["value"])
        return str(told["owner"]), float(told["until"])

    def _write(self, owner: str, until: float) -> None:
        self._server.put(KIND, [{"key": _WRITER, "value": json.dumps({"owner": owner, "until": until})}])

    def _busy(self, owner: str) -> IndexBusyError:
        return IndexBusyError(
            f"{printable(self._server.address.shown)} is being written by another process ({printable(owner)}); "
            "searching is possible meanwhile, a second sync when it has finished, "
            f"or {_LASTS_S:g} s after it was killed."
        )


def _clock_s() -> float:
    """Seconds that go on while the machine is suspended, where there is such a clock."""
    boot = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boot is None else time.clock_gettime(boot)
