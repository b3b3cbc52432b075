"""Pickled ground truth is read as ``pickle`` reads it, and nothing in it is ever run."""

from __future__ import annotations

import io
import os
import pickle
import struct
import sys
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coocnet.data.benchmarks import pickles
from coocnet.data.benchmarks.pickles import parse_pickle, read_pickle, text_of
from coocnet.errors import BenchmarkError

PROTOCOLS = range(6)
GND = {
    "imlist": [f"all_souls_{n:06d}" for n in range(9)],
    "qimlist": ["all_souls_000000", "café"],
    "gnd": [
        {"bbx": [136.5, 34.1, 648.5, 955.7], "easy": [1, 2], "hard": [], "junk": [8]},
        {"bbx": (1, 2, 3, 4), "easy": [3], "hard": [4, 5], "junk": [300, 70000, 2**40, -1]},
    ],
    "none": None,
    "flags": (True, False, ()),
    "bytes": [b"", b"\xff\x00", b"a" * 300],
}


def plainly(value: object) -> object:
    """Arrays as lists, as the reader gives them."""
    if isinstance(value, dict):
        return {key: plainly(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(plainly, value))
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def refused(content: bytes) -> str:
    with pytest.raises(BenchmarkError) as caught:
        parse_pickle(content, "gnd.pkl")
    assert "gnd.pkl" in str(caught.value)
    assert len(str(caught.value)) < 500
    return str(caught.value)


# ---- what it reads ----


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_ground_truth_is_read_as_pickle_reads_it(protocol: int, tmp_path: Path) -> None:
    path = tmp_path / "gnd_roxford5k.pkl"
    path.write_bytes(pickle.dumps(GND, protocol))
    assert read_pickle(path) == pickle.loads(path.read_bytes()) == GND


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("dtype", ["i1", "u1", "<i2", ">i4", "i8", "u8", "f4", ">f8", "?"])
def test_arrays_and_scalars_of_numpy_are_read_as_numbers(protocol: int, dtype: str) -> None:
    row = np.arange(5).astype(dtype)
    table = {
        "row": row,
        "none": row[:0],
        "one": row[3],
        "shared": [row, row],
        "wide": row[None],
        "tall": row[:, None],
    }
    expected = {**plainly(table), "wide": row.tolist(), "tall": row.tolist()}
    assert parse_pickle(pickle.dumps(table, protocol), "p") == expected


def test_names_in_the_older_and_the_newer_home_of_numpy_are_both_known() -> None:
    content = pickle.dumps(np.arange(3), 2)
    older, newer = b"numpy.core.multiarray", b"numpy._core.multiarray"
    assert (older in content) != (newer in content)
    for home in (older, newer):
        moved = content.replace(newer, home).replace(older, home)
        assert parse_pickle(moved, "p") == [0, 1, 2]


def test_byte_strings_of_python_2_are_text() -> None:
    short = b"\x80\x02U\x03abcq\x00."
    assert parse_pickle(short, "p") == pickle.loads(short) == "abc"
    assert parse_pickle(b"S'abc'\np0\n.", "p") == "abc"
    assert parse_pickle(b"\x80\x02T\x03\0\0\0abc.", "p") == "abc"


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text() | st.integers(-(2**63), 2**63 - 1), inner, max_size=4)
    ),
    max_leaves=12,
)


@pytest.mark.slow
@given(values, st.sampled_from(PROTOCOLS))
@settings(max_examples=150, deadline=None)
def test_any_plain_value_is_read_as_pickle_reads_it(value: object, protocol: int) -> None:
    assert parse_pickle(pickle.dumps([value, value], protocol), "p") == [value, value]


@given(st.data(), st.sampled_from(PROTOCOLS))
@settings(max_examples=200, deadline=None)
def test_a_damaged_pickle_is_read_or_refused_and_nothing_else(data: st.DataObject, protocol: int) -> None:
    content = bytearray(pickle.dumps({**GND, "row": np.arange(3.0)}, protocol))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    del content[data.draw(st.integers(0, len(content))) :]
    with suppress(BenchmarkError):
        parse_pickle(bytes(content), "p")


# ---- what it refuses ----


class Runs:
    """What ``pickle`` would call on loading."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.called = (function, arguments)

    def __reduce__(self):
        return self.called


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("function", "arguments"),
    [(os.system, "touch {}"), (eval, "open({!r}, 'w')"), (exec, "open({!r}, 'w')"), (open, "{}")],
    ids=["system", "eval", "exec", "open"],
)
def test_nothing_is_run(protocol: int, function: object, arguments: str, tmp_path: Path) -> None:
    made = tmp_path / "made"
    content = pickle.dumps({"imlist": Runs(function, arguments.format(str(made)))}, protocol)
    assert "refers to" in refused(content)
    assert not made.exists()


def test_a_module_is_not_imported_for_being_named() -> None:
    sys.modules.pop("this", None)
    for content in (b"cthis\ns\n.", b"\x80\x04\x8c\x04this\x8c\x01s\x93."):
        assert "'this.s'" in refused(content)
    assert "this" not in sys.modules


@pytest.mark.parametrize(
    "value",
    [{1, 2}, frozenset({1}), OrderedDict(a=1), 3j, range(3), Path("x"), np.array(["a"]), np.array([object()])],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_more_than_plain_values_is_refused(value: object, protocol: int) -> None:
    refused(pickle.dumps(value, protocol))


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("shape", [(2, 3), (1, 2, 1), (2, 2)])
def test_an_array_that_is_no_row_is_refused(shape: tuple[int, ...], protocol: int) -> None:
    assert "row of numbers" in refused(pickle.dumps(np.zeros(shape), protocol))


HOSTILE = {
    "instance of old": b"(cos\nsystem\nX\x02\0\0\0lso.",
    "INST": b"(X\x02\0\0\0lsios\nsystem\n.",
    "NEWOBJ": b"\x80\x02cnumpy\nndarray\n)\x81.",
    "NEWOBJ_EX": b"\x80\x04cnumpy\nndarray\n)}\x92.",
    "EXT": b"\x80\x02\x82\x01.",
    "PERSID": b"Pabc\n.",
    "BINPERSID": b"X\x01\0\0\0aQ.",
    "reduce of text": b"X\x06\0\0\0systemX\x02\0\0\0ls\x85R.",
    "reduce of a type": b"cnumpy\nndarray\n)R.",
    "build of a list": b"]}b.",
    "build of a dictionary": b"}}X\x01\0\0\0aK\x01sb.",
    "a name made of numbers": b"\x80\x04K\x01K\x02\x93.",
    "key that is a tuple": b"}))s.",
    "key that is an array": b"}cnumpy.core.multiarray\n_reconstruct\n)RK\x01s.",
    "wide integer": b"\x8a\x64" + b"\x7f" * 100 + b".",
    "wide integer in digits": b"L" + b"9" * 100 + b"L\n.",
    "object type": b"cnumpy\ndtype\nX\x02\0\0\0O8\x85R.",
    "structured type": b"cnumpy\ndtype\nX\x05\0\0\0i4,i4\x85R.",
    "scalar of no type": b"cnumpy.core.multiarray\nscalar\nNN\x86R.",
    "bytes in another encoding": b"c_codecs\nencode\nX\x01\0\0\0aX\x05\0\0\0utf16\x86R.",
    "buffer out of band": b"\x80\x05\x97.",
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_every_other_instruction_is_refused(content: bytes) -> None:
    assert "is not read" in refused(content)


SHARED = pickle.dumps(np.arange(3), 2)

DAMAGED = {
    "empty": b"",
    "a web page": b"<!DOCTYPE html>",
    "truncated": pickle.dumps(GND, 2)[:-20],
    "no value": b".",
    "no mark": b"t.",
    "pair of one": b"N\x86.",
    "memory that was never set": b"h\x07.",
    "appended to a number": b"K\x01K\x02a.",
    "key without a value": b"}(K\x01u.",
    "huge text": b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b"a.",
    "huger text": b"\x80\x04\x8d" + struct.pack("<Q", 2**64 - 1) + b"a.",
    "huge bytes": b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"a.",
    "huge integer": b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b"a.",
    "negative length": b"\x80\x02\x8b" + struct.pack("<i", -5) + b"a.",
    "array of fewer numbers": pickle.dumps(np.arange(1), 2).replace(b"K\x01\x85", b"K\x03\x85", 1),
    "array of another length": SHARED.replace(b"K\x03\x85", b"K\x02\x85", 1),
}  # fmt: skip


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_file_is_named(content: bytes) -> None:
    refused(content)


def test_a_list_that_holds_itself_is_read_and_harms_nothing() -> None:
    inside: list[object] = []
    inside.append(inside)
    read = parse_pickle(pickle.dumps(inside, 2), "p")
    assert isinstance(read, list)
    assert read[0] is read


def test_a_value_doubled_many_times_is_shared_not_copied() -> None:
    """A billion laughs: 200 lists, each twice the one before."""
    doubled = b"".join(b"(h" + bytes([n]) + b"h" + bytes([n]) + b"lq" + bytes([n + 1]) for n in range(200))
    read = parse_pickle(b"]q\0" + doubled + b".", "p")
    assert isinstance(read, list)
    assert read[0] is read[1]


def test_work_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.BytesIO()
    pickler = pickle.Pickler(stream, 4)
    pickler.fast = True
    row = np.zeros(900_000, np.uint8)
    pickler.dump([row] * 5)
    assert "more than" in refused(stream.getvalue())
    monkeypatch.setattr(pickles, "_MAX_ITEMS", 1000)
    assert "more than" in refused(b"(" + b"N" * 1001 + b"t.")


@pytest.mark.slow
def test_a_nesting_deeper_than_any_call_stack_is_read() -> None:
    read = parse_pickle(b"]" * 100_000 + b"a" * 99_999 + b".", "p")
    assert isinstance(read, list)


def test_files_that_cannot_be_a_ground_truth_are_named(tmp_path: Path) -> None:
    big = tmp_path / "big.pkl"
    with big.open("wb") as stream:
        stream.truncate((64 << 20) + 1)
    with pytest.raises(BenchmarkError, match="larger than 64 MiB"):
        read_pickle(big)
    with pytest.raises(BenchmarkError, match=r"none\.pkl cannot be read"):
        read_pickle(tmp_path / "none.pkl")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    with pytest.raises(BenchmarkError, match=r"latin\.txt is no text"):
        text_of(tmp_path / "latin.txt")
