"""Gives the system back what this process has freed.

The allocator of glibc keeps freed memory for each thread that used it. Pictures and maps come in many sizes, made by
one thread and freed by another, so that the holes between what is in use grow, though nothing is lost.
"""

from __future__ import annotations

import asyncio
import ctypes
from collections.abc import Callable

_EVERY_S = 5.0


async def give_back_at_intervals() -> None:
    """Goes on until it is cancelled; ends at once where the C library has no such function."""
    trim = _trim()
    while trim is not None:
        await asyncio.sleep(_EVERY_S)
        await asyncio.to_thread(trim, 0)


def _trim() -> Callable[[int], int] | None:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # not glibc, or not even Unix
        return None
