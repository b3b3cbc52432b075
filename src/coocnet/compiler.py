"""What numba leaves behind where it fails; loads nothing of it."""

from __future__ import annotations

import sys
from typing import Any


def let_go() -> None:
    """Gives back numba's lock, which a thread keeps whose memory ends just as it takes or returns it.

    All other threads would wait for it without end. To be called where something compiled has failed, in the thread
    that called it.
    """
    lock: Any = getattr(sys.modules.get("numba.core.compiler_lock"), "global_compiler_lock", None)
    while lock is not None and lock.is_locked():
        lock.release()
