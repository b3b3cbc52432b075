"""Mutations of inputs that are right, as strategies of hypothesis: they need no instrumented interpreter."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hypothesis import strategies as st

_PLACES = 1 << 16
_NUMBERS = [
    number.to_bytes(size, order, signed=number < 0)
    for size in (1, 2, 4, 8)
    for order in ("little", "big")
    for number in (0, 1, -1, 2 ** (8 * size - 1) - 1, -(2 ** (8 * size - 1)), 2 ** (8 * size - 2))
]
_Edit = Callable[[bytes], bytes]


def _place(at: int, data: bytes) -> int:
    return at * (len(data) + 1) // _PLACES


def _put(at: int, content: bytes) -> _Edit:
    return lambda data: data[: (p := _place(at, data))] + content + data[p + len(content) :]


def _insert(at: int, content: bytes) -> _Edit:
    return lambda data: data[: (p := _place(at, data))] + content + data[p:]


def _cut(at: int, count: int) -> _Edit:
    return lambda data: data[: (p := _place(at, data))] + data[p + count :]


def _end(at: int) -> _Edit:
    return lambda data: data[: _place(at, data)]


def _flip(at: int, bit: int) -> _Edit:
    def edit(data: bytes) -> bytes:
        if not data:
            return data
        p = min(_place(at, data), len(data) - 1)
        return data[:p] + bytes([data[p] ^ 1 << bit]) + data[p + 1 :]

    return edit


def _repeat(at: int, count: int, times: int) -> _Edit:
    return lambda data: data[: (p := _place(at, data))] + data[p : p + count] * times + data[p + count :]


def _spliced(other: bytes, at: int) -> _Edit:
    return lambda data: data[: _place(at, data)] + other[_place(at, other) :]


def mutated(seeds: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """One of the seeds with one to six edits."""
    places = st.integers(0, _PLACES - 1)
    content = st.one_of(st.sampled_from(_NUMBERS), st.binary(max_size=8))
    edits = st.one_of(
        st.builds(_flip, places, st.integers(0, 7)),
        st.builds(_put, places, content),
        st.builds(_insert, places, content),
        st.builds(_cut, places, st.integers(1, 64)),
        st.builds(_end, places),
        st.builds(_repeat, places, st.integers(1, 64), st.integers(2, 64)),
        st.builds(_spliced, st.sampled_from(list(seeds)), places),
    )

    def applied(seed: bytes, some: list[_Edit]) -> bytes:
        for edit in some:
            seed = edit(seed)
        return seed

    return st.builds(applied, st.sampled_from(list(seeds)), st.lists(edits, min_size=1, max_size=6))
