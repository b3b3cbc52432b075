"""What a target is, and how one input of it ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hypothesis import strategies as st

from coocnet.errors import CoocnetError

Reads = Callable[[bytes], object]
"""Reads one input through the public interface; asserts what must hold of an answer."""
LONGEST_MESSAGE = 2000


@dataclass(frozen=True)
class Target:
    """Something that reads what others wrote.

    Attributes:
        reads: what, in words.
        prepare: given an empty folder of its own, what reads an input.
        seeds: inputs that are read without an error, to be mutated.
        structured: inputs made piece by piece.
        time_s: of the processor, that one input may take.
        memory_mb: that the process may ask for beyond what it holds before the first input.
        longest_bytes: of an input.
        inputs_a_process: after which another one goes on: the fuzzer keeps inputs, which takes memory too.
    """

    reads: str
    prepare: Callable[[Path], Reads]
    seeds: Callable[[], Sequence[bytes]]
    structured: st.SearchStrategy[bytes]
    time_s: float = 2.0
    memory_mb: int = 512
    longest_bytes: int = 1 << 15
    inputs_a_process: int = 1 << 30


class UnsayableError(AssertionError):
    """One of our errors whose message no terminal takes, or nobody reads."""


def outcome(reads: Reads, data: bytes) -> str:
    """How an input ends: "read", or the name of one of our errors; whatever else it raises is a finding."""
    try:
        reads(data)
    except CoocnetError as error:
        text = str(error)
        if len(text) > LONGEST_MESSAGE:
            raise UnsayableError(f"{type(error).__name__} says {len(text)} letters: {text[:200]}") from error
        try:
            text.encode()
        except UnicodeEncodeError:
            raise UnsayableError(f"{type(error).__name__} says what no terminal takes: {text[:200]!r}") from error
        return type(error).__name__
    return "read"
