"""Arrays of numbers from MATLAB's files of level 5 (versions 5 to 7.2), in which many descriptors come.

Not through scipy, whose reader ends the whole process with a segmentation fault on some damaged files (seen with
scipy 1.17). Source: MathWorks, "MAT-File Format", level 5.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

_HEADER_BYTES = 128
_MATRIX, _COMPRESSED = 14, 15
_COMPLEX = 0x0800
_STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}


class _Matrix(NamedTuple):
    """One array: the dtype of its class, and its numbers as they lie in the file, in a dtype of their own."""

    kind: str
    shape: tuple[int, ...]
    stored: str
    content: memoryview

    def array(self) -> np.ndarray:
        values = np.frombuffer(self.content, self.stored).reshape(self.shape, order="F")
        return values.astype(self.kind, copy=False)  # whole numbers are stored short, whatever their class


def matlab_arrays(path: str | os.PathLike[str], *, most_bytes: int) -> dict[str, _Matrix]:
    """The real, full arrays of numbers in a file, by name; ``array()`` of each makes it. Others are passed over.

    Args:
        path: the file.
        most_bytes: that it may hold unpacked.

    Raises:
        OSError: it cannot be read.
        ValueError: not such a file, or damaged; also struct.error, LookupError and zlib.error where it is.
    """
    content = memoryview(Path(path).read_bytes())
    orders = {b"IM": "<", b"MI": ">"}
    mark = bytes(content[_HEADER_BYTES - 2 : _HEADER_BYTES])
    if mark not in orders:
        raise ValueError("this is no MATLAB file of version 5 or later")
    return dict(_matrices(content[_HEADER_BYTES:], orders[mark], [most_bytes]))


def _matrices(content: memoryview, order: str, left: list[int]) -> Iterator[tuple[str, _Matrix]]:
    """The matrices; what they may still grow by is counted down."""
    for kind, body in _elements(content, order):
        if kind == _COMPRESSED:
            yield from _matrices(memoryview(_unpacked(body, left)), order, left)
        parts = list(_elements(body, order)) if kind == _MATRIX else []
        if len(parts) < 4:  # nothing, or empty of a kind of its own
            continue
        (flags,) = struct.unpack_from(f"{order}I", parts[0][1])
        if flags & 0xFF in _CLASSES and not flags & _COMPLEX:
            shape = tuple(np.frombuffer(parts[1][1], f"{order}u4").tolist())
            stored, values = parts[3]
            name = bytes(parts[2][1]).decode()
            yield name, _Matrix(_CLASSES[flags & 0xFF], shape, order + _STORED[stored], values)


def _unpacked(body: memoryview, left: list[int]) -> bytes:
    stream = zlib.decompressobj()
    content = stream.decompress(body, left[0] + 1)
    left[0] -= len(content)
    if left[0] < 0:
        raise ValueError("unpacked it is much larger than rankings or descriptors ever are")
    if not stream.eof:
        raise ValueError("it is cut short or damaged")
    return content


def _elements(content: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    at = 0
    while at + 8 <= len(content):
        kind, size = struct.unpack_from(f"{order}II", content, at)
        if short := kind >> 16:  # up to four bytes, within the tag
            kind, size, start, end = kind & 0xFFFF, short, at + 4, at + 8
        else:
            start = at + 8
            end = start + (size if kind == _COMPRESSED else -(-size // 8) * 8)
        if start + size > len(content) or (short and size > 4):
            raise ValueError("it is cut short or damaged")
        yield kind, content[start : start + size]
        at = end
