"""What numba leaves behind where it fails; loads nothing of it."""

from __future__ import annotations

import sys
from typing import Any


def let_go() -> None:
    """Gives back the locks of numba and LLVM, kept by a thread whose memory ends as it takes or returns them.

    All other threads would wait for them without end. To be called where something compiled has failed, in the thread
    that called it, and never from within a compilation.
    """
    for module, owner in (("numba.core.compiler_lock", "global_compiler_lock"), ("llvmlite.binding.ffi", "lib")):
        lock: Any = getattr(sys.modules.get(module), owner, None)
        while hasattr(lock, "_lock"):  # a lock that tells others when it is taken, for which there may be no memory
            lock = lock._lock
        while lock is not None and lock._is_owned():
            lock.release()
