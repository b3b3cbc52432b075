"""Reads the pickles in which the field keeps its ground truth, without running anything in them.

A pickle is a program for a small stack machine. This is such a machine with the instructions of plain values and
containers alone: ``pickle`` itself takes no part, so there is no class that a file could reach. Files of this kind
may hold NumPy arrays and scalars; for these, and for the byte strings of old protocols, a few names are understood,
each by a function below that makes a list of numbers, one number or bytes from the raw data. Everything else is
refused.

Memory is bounded: by the size of the file, by the number of instructions and array elements, and because a value that
is referred to again is shared, not copied.
"""

from __future__ import annotations

import os
import pickletools
import re
import struct
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from coocnet.errors import BenchmarkError, printable

MAX_FILE_BYTES = 1 << 26
_MAX_ITEMS = 4_000_000
_BYTES_PER_ITEM = 16
_MAX_AXES = 2
_NUMBER_CODE = re.compile(r"[iu][1248]|f[248]|b1")


def read_pickle(path: str | os.PathLike[str]) -> object:
    """The plain value that a pickle holds: containers, text, bytes and numbers; arrays as lists.

    Raises:
        BenchmarkError: not readable, above 64 MiB, damaged, or holding more than plain values.
    """
    return parse_pickle(small_file(path), printable(path))


def small_file(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a file of ground truth.

    Raises:
        BenchmarkError: not readable, or above 64 MiB.
    """
    try:
        with Path(path).open("rb") as stream:
            content = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise BenchmarkError(f"{printable(path)} cannot be read: {error.strerror or error}") from error
    if len(content) > MAX_FILE_BYTES:
        raise BenchmarkError(f"{printable(path)} is larger than {MAX_FILE_BYTES >> 20} MiB: it is not a ground truth")
    return content


def text_of(path: Path) -> str:
    """What a text file holds, UTF-8 with or without a mark at its start.

    Raises:
        BenchmarkError: not readable, above 64 MiB, or no text.
    """
    try:
        return small_file(path).decode("utf-8-sig")
    except ValueError as error:
        raise BenchmarkError(f"{printable(path)} is no text in UTF-8: {error}") from error


def parse_pickle(content: bytes, where: str) -> object:
    """As :func:`read_pickle`, of bytes; ``where`` is for messages."""
    machine = _Machine()
    try:
        return machine.run(content)
    except _Refused as error:
        raise BenchmarkError(f"{where} is not read: {error}. A ground truth holds lists and numbers only.") from error
    except (
        ValueError,
        TypeError,
        LookupError,
        ArithmeticError,
        AttributeError,
        struct.error,
    ) as error:
        reason = printable(str(error))[:200]
        raise BenchmarkError(f"{where} is not a pickle, or damaged ({reason}): fetch it again") from error


class _Refused(Exception):  # noqa: N818 - never leaves this module
    """The file asks for what is not allowed."""


class _Name:
    """A function or class that a file refers to."""

    def __init__(self, module: object, name: object) -> None:
        self.key = f"{module}.{name}"
        if self.key not in _CALLS and self.key not in _TYPES:
            raise _Refused(f"it refers to {printable(self.key)[:100]!r}")


class _Array(list[object]):
    """A one-dimensional array; empty until its data has come."""


class _NumberType:
    """A NumPy type of numbers."""

    def __init__(self, code: str) -> None:
        self.code = code
        self.order = "<"

    def numbers(self, data: bytes | bytearray) -> np.ndarray:
        return np.frombuffer(data, np.dtype(self.order + self.code))


class _Machine:
    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.below_marks: list[list[Any]] = []
        self.memo: dict[int, object] = {}
        self.items_left = _MAX_ITEMS

    def run(self, content: bytes) -> object:
        for opcode, argument, _ in pickletools.genops(content):
            self.spend(1)
            if opcode.name == "STOP":
                return self.stack.pop()
            self.do(opcode.name, argument)
        raise ValueError("it has no end")

    def spend(self, items: int) -> None:
        self.items_left -= items
        if self.items_left < 0:
            raise _Refused(f"it has more than {_MAX_ITEMS} parts")

    def do(self, name: str, argument: Any) -> None:
        if name in _LITERALS:
            if isinstance(argument, int) and argument.bit_length() > 64:
                raise _Refused("it holds an integer of more than 64 bits")
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name]())
        elif name in _STEPS:
            _STEPS[name](self, argument)
        elif name not in ("PROTO", "FRAME"):
            raise _Refused(f"it uses the instruction {name}")

    def mark(self, _: object) -> None:
        self.below_marks.append(self.stack)
        self.stack = []

    def since_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.below_marks.pop()
        return items

    def put(self, place: object) -> None:
        self.memo[len(self.memo) if place is None else int(str(place))] = self.stack[-1]

    def get(self, place: object) -> None:
        self.stack.append(self.memo[int(str(place))])

    def tuple_of(self, count: int) -> None:
        if len(self.stack) < count:
            raise ValueError("too few values for a tuple")
        items = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        self.stack.append(tuple(items))

    def tuple_since_mark(self, _: object) -> None:
        items = tuple(self.since_mark())
        self.stack.append(items)

    def append(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise ValueError("values are appended to what is not a list")
        self.stack[-1].extend(items)

    def set_items(self, items: list[Any]) -> None:
        table = self.stack[-1]
        if type(table) is not dict or len(items) % 2:
            raise ValueError("keys and values are set in what is not a dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # The hash of a deeply nested tuple would exhaust the processor's stack.
            if not isinstance(key, str | int):
                raise _Refused("it has a key that is neither text nor a number")
            table[key] = value

    def make(self, container: list[Any] | dict[Any, Any], fill: Callable[[_Machine, list[Any]], None]) -> None:
        items = self.since_mark()
        self.stack.append(container)
        fill(self, items)

    def pair(self) -> list[Any]:
        value, key = self.stack.pop(), self.stack.pop()
        return [key, value]

    def refer(self, argument: object) -> None:
        module, name = self.pair() if argument is None else str(argument).split(" ", 1)
        self.stack.append(_Name(module, name))

    def call(self, _: object) -> None:
        name, arguments = self.pair()
        if type(name) is not _Name or name.key not in _CALLS or type(arguments) is not tuple:
            raise _Refused("it calls what is not a function known here")
        self.stack.append(_CALLS[name.key](self, *arguments))

    def build(self, _: object) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if type(target) is _NumberType:
            if state[1] not in ("<", ">", "|"):
                raise _Refused("it has a type of numbers of unknown byte order")
            target.order = state[1]
        elif type(target) is _Array and not target:
            _, shape, number_type, _, data = state
            self.fill(target, data, number_type, shape)
        else:
            raise _Refused("it sets the state of an object")

    def fill(self, array: _Array, data: object, number_type: object, shape: tuple[int, ...]) -> None:
        if type(number_type) is not _NumberType:
            raise _Refused("it has an array of what are not numbers")
        numbers = number_type.numbers(self.bytes_of(data))
        sides: list[object] = [*shape] if type(shape) is tuple and len(shape) <= _MAX_AXES else [None]
        if not all(type(side) is int for side in sides) or len(numbers) not in (*shape, 1):
            raise _Refused("it has an array that is no row of numbers")
        if len(numbers) != prod(shape):
            raise ValueError("an array has more or fewer numbers than its shape says")
        self.spend(len(numbers))
        array.extend(numbers.tolist())

    def bytes_of(self, data: object, encoding: object = "latin1") -> bytes | bytearray:
        """Bytes, which Python 2 and old protocols write as text."""
        if isinstance(data, bytes | bytearray):
            return data
        if not isinstance(data, str) or encoding != "latin1":
            raise _Refused("it has bytes in an unknown form")
        self.spend(len(data) // _BYTES_PER_ITEM)
        return data.encode("latin-1")

    def no_bytes(self) -> bytes:
        """Old protocols write empty bytes as a call without arguments."""
        return b""

    def new_array(self, *_: object) -> _Array:
        return _Array()

    def new_number_type(self, code: object, *_: object) -> _NumberType:
        if not isinstance(code, str) or not _NUMBER_CODE.fullmatch(code):
            raise _Refused(f"it has an array of the type {printable(str(code)[:20])!r}; numbers are read")
        return _NumberType(code)

    def array_from_buffer(self, data: object, number_type: object, shape: tuple[int, ...], _: object) -> _Array:
        array = _Array()
        self.fill(array, data, number_type, shape)
        return array

    def scalar(self, number_type: object, data: object) -> object:
        array = _Array()
        self.fill(array, data, number_type, (1,))
        return array[0]


_CALLS: dict[str, Callable[..., object]] = {
    **{f"numpy.{core}.multiarray._reconstruct": _Machine.new_array for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray.scalar": _Machine.scalar for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": _Machine.array_from_buffer for core in ("core", "_core")},
    "numpy.dtype": _Machine.new_number_type,
    "_codecs.encode": _Machine.bytes_of,
    **{f"{builtins}.bytes": _Machine.no_bytes for builtins in ("__builtin__", "builtins")},
}
_TYPES = {"numpy.ndarray"}
_LITERALS = {
    "INT",
    "BININT",
    "BININT1",
    "BININT2",
    "LONG",
    "LONG1",
    "LONG4",
    "FLOAT",
    "BINFLOAT",
    "STRING",
    "BINSTRING",
    "SHORT_BINSTRING",
    "UNICODE",
    "SHORT_BINUNICODE",
    "BINUNICODE",
    "BINUNICODE8",
    "BINBYTES",
    "SHORT_BINBYTES",
    "BINBYTES8",
    "BYTEARRAY8",
}
_CONSTANTS: dict[str, Callable[[], object]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_TUPLE": tuple,
}
_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    "MARK": _Machine.mark,
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), _Machine.put),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _Machine.get),
    "TUPLE": _Machine.tuple_since_mark,
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    "LIST": lambda machine, _: machine.make([], _Machine.append),
    "DICT": lambda machine, _: machine.make({}, _Machine.set_items),
    "APPEND": lambda machine, _: machine.append([machine.stack.pop()]),
    "APPENDS": lambda machine, _: machine.append(machine.since_mark()),
    "SETITEM": lambda machine, _: machine.set_items(machine.pair()),
    "SETITEMS": lambda machine, _: machine.set_items(machine.since_mark()),
    **dict.fromkeys(("GLOBAL", "STACK_GLOBAL"), _Machine.refer),
    "REDUCE": _Machine.call,
    "BUILD": _Machine.build,
}
