"""The loops behind :mod:`coocnet.ops.quick`, compiled by numba: direct co-occurrence at the speed of memory.

One pass over the map for the mean, one for the sum over the channels that are active; then each channel's window sums
are made within the processor's nearest cache, and nothing but the result is written. No difference is taken of sums,
so there is no rounding below 0, and what should be 0 is.

A window of n cells is summed by thirds: its first, second and last ⌊n/3⌋ cells, each of which was summed likewise,
and the one or two that are left. Along a column that runs over whole rows at once; along a row too, because between
two rows lie as many zeros as the radius.

Maps are contiguous arrays (n, d, h, w), float32, or bfloat16 as the uint16 of its bits. Imported only by
:mod:`coocnet.ops.quick`, as numba is an extra.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba.extending import overload

_PLAIN = {"cache": True, "nogil": True, "error_model": "numpy"}
# Products and sums may be fused, which rounds once less; a total may be summed in any order.
_fused: Any = numba.njit(fastmath={"contract"}, **_PLAIN)
_within: Any = numba.njit(fastmath={"contract"}, inline="always", **_PLAIN)
_reordered: Any = numba.njit(fastmath={"contract", "reassoc"}, **_PLAIN)


@_reordered
def total(a: np.ndarray) -> float:
    """Sum of one image's entries in float64; not finite where an entry is not."""
    plane = np.empty(a.shape[1], np.float32)
    sum_ = 0.0
    for k in range(a.shape[0]):
        x = _wide(a[k], plane)
        for p in range(x.size):
            sum_ += np.float64(x[p])
    return sum_


@_fused
def active_sum(a: np.ndarray, t: np.float32) -> np.ndarray:
    """Sum over the channels of what is above t, per cell of one image (d, cells)."""
    plane = np.empty(a.shape[1], np.float32)
    sums = np.zeros(a.shape[1], np.float32)
    for k in range(a.shape[0]):
        x = _wide(a[k], plane)
        for p in range(x.size):
            v = x[p]
            sums[p] += v if v > t else np.float32(0)
    return sums


@_fused
def cooccurrence(a: np.ndarray, w: int, r: int, t: np.float32, scale: np.float32, out: np.ndarray) -> None:
    """The co-occurrence tensor of one image (d, cells) of w columns, into ``out``, of the same kind."""
    n = a.shape[1]
    sums = active_sum(a, t)
    room = _room(n, w, r)
    plane, result = np.empty(n, np.float32), np.empty(n, np.float32)
    for k in range(a.shape[0]):
        x = _wide(a[k], plane)
        ct = _target(out[k], result)
        _channel(x, sums, w, r, t, scale, room, ct)
        _narrow(ct, out[k])


@_fused
def sums(
    a: np.ndarray, w: int, r: int, t: np.float32, scale: np.float32, cells: np.ndarray, channels: np.ndarray
) -> None:
    """The same tensor's sums over the channels, into ``cells``, and over the cells, into ``channels``, both zero."""
    n = a.shape[1]
    active = active_sum(a, t)
    room = _room(n, w, r)
    plane, ct = np.empty(n, np.float32), np.empty(n, np.float32)
    for k in range(a.shape[0]):
        _channel(_wide(a[k], plane), active, w, r, t, scale, room, ct)
        for p in range(n):
            cells[p] += ct[p]
        channels[k] = _plane_sum(ct)


@_fused
def context(a: np.ndarray, w: int, r: int, t: np.float32, out: np.ndarray) -> None:
    """The window sums of what is active in one image, into ``out`` (cells), float32."""
    n = a.shape[1]
    room = _room(n, w, r)
    active = active_sum(a, t)
    nothing = np.zeros(n, np.float32)
    # As the others of a channel that holds nothing, wherever 1 is above 0.
    room[0][r * w : r * w + n] = active
    _window(room, w, r, nothing, np.float32(-1), np.float32(1), out)


@_within
def _channel(
    x: np.ndarray,
    active: np.ndarray,
    w: int,
    r: int,
    t: np.float32,
    scale: np.float32,
    room: np.ndarray,
    ct: np.ndarray,
) -> None:
    others = room[0][r * w : r * w + x.size]
    for p in range(x.size):
        v = x[p]
        others[p] = active[p] - (v if v > t else np.float32(0))
    _window(room, w, r, x, t, scale, ct)


@_within
def _window(
    room: np.ndarray, w: int, r: int, x: np.ndarray, t: np.float32, scale: np.float32, ct: np.ndarray
) -> None:
    """Window sums of what lies in ``room[0]``, times ``scale``, where x > t."""
    n, length = x.size, 2 * r + 1
    h, wide = n // w, w + r
    column, row = room[0], room[1]
    part = _by_thirds(column, room[2], room[3], w, length // 3, n + 2 * r * w)
    _add_up(row[r:], wide, part, column, w, h, w, w, length)
    part = _by_thirds(row, room[2], room[3], 1, length // 3, h * wide + r)
    if length % 3:
        _add_up(ct, w, part, row, wide, h, w, 1, length)
        for p in range(n):
            ct[p] = ct[p] * scale if x[p] > t else np.float32(0)
    else:
        _add_three_where(ct, part, wide, h, w, length // 3, x, t, scale)


@_within
def _by_thirds(of: np.ndarray, one: np.ndarray, other: np.ndarray, step: int, length: int, count: int) -> np.ndarray:
    """Sums of ``length`` entries of ``of``, ``step`` apart; in ``one`` or ``other``, or ``of`` itself."""
    digits = 0
    while length // 3**digits > 2:
        digits += 1
    made = length // 3**digits
    part = of
    if made == 2:
        _add_up(one, 0, part, of, 0, 1, count - step, step, 2)
        part, one, other = one, other, one
    while digits > 0:
        digits -= 1
        made = length // 3**digits
        _add_up(one, 0, part, of, 0, 1, count - (made - 1) * step, step, made)
        part, one, other = one, other, one
    return part


@_within
def _add_up(
    to: np.ndarray,
    to_wide: int,
    part: np.ndarray,
    of: np.ndarray,
    of_wide: int,
    h: int,
    w: int,
    step: int,
    length: int,
) -> None:
    """Sums of ``length`` entries of ``of``, ``step`` apart, from those of a third as many in ``part``, in h rows."""
    if length >= 3:
        _add_three(to, to_wide, part, of_wide, h, w, length // 3 * step)
    if length % 3 > 0:
        _add_rest(to, to_wide, of, of_wide, h, w, step, length)


# Indices without a sign: numba would look at each for one, and not take several at once.


@_within
def _add_three(to: np.ndarray, to_wide: int, part: np.ndarray, wide: int, h: int, w: int, third: int) -> None:
    second = np.uintp(third)
    last = second + second
    for i in range(h):
        here, at = np.uintp(i * to_wide), np.uintp(i * wide)
        for j in range(w):
            p = np.uintp(j)
            to[here + p] = part[at + p] + part[at + second + p] + part[at + last + p]


@_within
def _add_three_where(
    to: np.ndarray,
    part: np.ndarray,
    wide: int,
    h: int,
    w: int,
    third: int,
    x: np.ndarray,
    t: np.float32,
    scale: np.float32,
) -> None:
    second = np.uintp(third)
    last = second + second
    for i in range(h):
        here, at = np.uintp(i * w), np.uintp(i * wide)
        for j in range(w):
            p = np.uintp(j)
            value = (part[at + p] + part[at + second + p] + part[at + last + p]) * scale
            to[here + p] = value if x[here + p] > t else np.float32(0)


@_fused
def _add_rest(
    to: np.ndarray, to_wide: int, of: np.ndarray, of_wide: int, h: int, w: int, step: int, length: int
) -> None:
    for one in range(length - length % 3, length):
        more = np.float32(one > 0)
        for i in range(h):
            here, at = np.uintp(i * to_wide), np.uintp(i * of_wide + one * step)
            for j in range(w):
                p = np.uintp(j)
                to[here + p] = (to[here + p] if more else np.float32(0)) + of[at + p]


@_fused
def _room(n: int, w: int, r: int) -> np.ndarray:
    """Four zero rows for a channel between margins of zeros, each beginning with a line of the cache.

    And at another quarter of a page of 4 KiB: a processor takes places at a multiple of that apart for the same one.
    """
    length = (max(n + 2 * r * w, n // w * (w + r) + 2 * r) + 767) // 1024 * 1024 + 256
    room = np.zeros(4 * length + 16, np.float32)
    skipped = -room.ctypes.data % 64 // 4
    return room[skipped : skipped + 4 * length].reshape(4, length)


@_reordered
def _plane_sum(x: np.ndarray) -> np.float32:
    sum_ = np.float32(0)
    for p in range(x.size):
        sum_ += x[p]
    return sum_


def _wide(x: Any, plane: Any) -> Any:
    """A channel in float32: itself, or in ``plane``."""
    raise AssertionError("compiled code takes one of those below")


def _target(out: Any, result: Any) -> Any:
    """Where a channel's result is made: in ``out`` itself, or in ``result`` to be rounded."""
    raise AssertionError("compiled code takes one of those below")


def _narrow(x: Any, out: Any) -> Any:
    """Rounds ``x`` to the nearest bfloat16, of two the even one."""
    raise AssertionError("compiled code takes one of those below")


@overload(_wide)
def _wide_of(x: Any, plane: Any) -> Any:
    def itself(x: Any, plane: Any) -> Any:
        return x

    def widened(x: Any, plane: Any) -> Any:
        bits = plane.view(np.uint32)
        for p in range(x.size):
            bits[p] = np.uint32(x[p]) << np.uint32(16)
        return plane

    return itself if x.dtype == numba.float32 else widened


@overload(_target)
def _target_of(out: Any, result: Any) -> Any:
    def itself(out: Any, result: Any) -> Any:
        return out

    def apart(out: Any, result: Any) -> Any:
        return result

    return itself if out.dtype == numba.float32 else apart


@overload(_narrow)
def _narrow_of(x: Any, out: Any) -> Any:
    def nothing(x: Any, out: Any) -> Any:
        pass

    def narrowed(x: Any, out: Any) -> Any:
        bits = x.view(np.uint32)
        for p in range(x.size):
            b = bits[p]
            out[p] = (b + np.uint32(0x7FFF) + ((b >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)

    return nothing if out.dtype == numba.float32 else narrowed
