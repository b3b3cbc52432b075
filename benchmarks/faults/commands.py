"""The real command, each time in a process of its own that is forked off one which has loaded all it needs.

So a run begins at once instead of after seconds; what it does is what ``coocnet`` does.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from faults.campaign import must

PATIENCE_S = 180.0
_CRASHED = 70


def load_all() -> None:
    """Loads what the commands need, so that no run has to; no thread may be begun by it."""
    import faiss
    import numba
    import scipy.linalg.blas  # numba loads it to compile; without memory OpenBLAS waits for some without end
    import torch

    import coocnet.cli
    import coocnet.describe
    import coocnet.index.milvus.index
    import coocnet.index.repair
    import coocnet.serve.server

    assert all((faiss, numba, scipy.linalg.blas, torch, coocnet))
    must(len(os.listdir("/proc/self/task")) == 1, "a process with threads cannot be forked off")


def in_child(work: Callable[[], object]) -> None:
    """Does a piece of work in a process of its own, to its end."""
    Run((), work=work).ends()


class Run:
    """A command that was started, with the lines it wrote.

    Args:
        arguments: of the command.
        before: called in the process first, to make it see another world.
        work: done instead of the command.
    """

    def __init__(
        self,
        arguments: tuple[object, ...],
        *,
        before: Callable[[], object] | None = None,
        work: Callable[[], object] | None = None,
    ) -> None:
        handle, name = tempfile.mkstemp(prefix="said-")
        self.said = Path(name)
        self.status: int | None = None
        self.what = "coocnet " + " ".join(map(str, arguments))
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            _child(handle, arguments, before, work)
        os.close(handle)

    @property
    def text(self) -> str:
        """What it has said so far."""
        return self.said.read_text(errors="replace")

    def ended(self) -> bool:
        """Whether it has ended."""
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.status = os.waitstatus_to_exitcode(status) if pid else None
        return self.status is not None

    def within(self, time_s: float) -> bool:
        """Whether it ends within a time, which is waited for."""
        until = time.monotonic() + time_s
        while not self.ended() and time.monotonic() < until:
            time.sleep(0.001)
        return self.ended()

    def kill(self, *, with_group: bool = True) -> None:
        """Ends it, and what it began, at once."""
        with suppress(ProcessLookupError):
            (os.killpg if with_group else os.kill)(self.pid, signal.SIGKILL)
        if self.status is None:
            self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        self._forget()

    def ends(self, *statuses: int) -> str:
        """Waits for its end, which must be one of these, 0 if none is given, and gives what it said."""
        if not self.within(PATIENCE_S):
            self.kill()
            must(False, f"{self.what} did not end within {PATIENCE_S:g} s")
        text = self.text
        must("Traceback" not in text, f"{self.what} ended with an error that is not ours:\n{text}")
        must(self.status in (statuses or (0,)), f"{self.what} ended with {self.status}:\n{text}")
        self._forget()
        return text

    def _forget(self) -> None:
        with suppress(FileNotFoundError):
            self.said.unlink()


def coocnet(*arguments: object, before: Callable[[], object] | None = None) -> Run:
    """Starts a command."""
    return Run(arguments, before=before)


def _child(
    handle: int,
    arguments: tuple[object, ...],
    before: Callable[[], object] | None,
    work: Callable[[], object] | None,
) -> None:
    """The forked process; it never returns."""
    status: object = _CRASHED
    try:
        os.setsid()  # so that what it begins can be ended with it
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        from coocnet.cli.terminal import err, out

        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        out.file, err.file = sys.stdout, sys.stderr
        import torch

        torch.set_num_threads(1)
        if before is not None:
            before()
        if work is not None:
            work()
        else:
            from coocnet.cli import main

            sys.argv = ["coocnet", *map(str, arguments)]
            main()
        status = 0
    except SystemExit as ended:
        status = ended.code or 0
    except BaseException:  # noqa: BLE001 - it is told, and looked for
        traceback.print_exc()
    finally:
        with suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status if isinstance(status, int) else 1)
