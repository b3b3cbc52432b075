"""What others keep rankings, descriptors and ground truth in."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from hypothesis import strategies as st

from coocnet.data.benchmarks.foreign import from_table, from_vgg_text, read_table
from coocnet.data.benchmarks.manifest import from_manifest
from coocnet.evaluate import GroundTruth
from coocnet.evaluate.ground_truth import Query
from coocnet.evaluate.readers import read_descriptors, read_rankings
from fuzz.target import Reads, Target

_NPY = b"\x93NUMPY"
_HDF5 = b"\x89HDF"
_TRUTH = GroundTruth(
    "small",
    "plain",
    ("a", "b", "c", "d", "e"),
    (
        Query("a", None, {"ok": frozenset({1}), "junk": frozenset({0})}),
        Query("b", (0.0, 0.0, 9.0, 9.0), {"ok": frozenset({2})}),
    ),
)
_RANKS = np.array([[0, 1, 2, 3, 4], [4, 3, 2, 1, 0]])


# Arrays


@cache
def _array_seeds() -> list[bytes]:
    rows = np.eye(5, 4, dtype=np.float32)
    npy, npz, packed, h5 = io.BytesIO(), io.BytesIO(), io.BytesIO(), io.BytesIO()
    np.save(npy, _RANKS)
    np.savez(npz, ranks=_RANKS.T, X=rows)
    np.savez_compressed(packed, X=rows, Q=rows[:2])
    with h5py.File(h5, "w") as file:
        file["ranks"] = _RANKS.astype(np.float64)
        file.create_dataset("X", data=rows, chunks=(2, 2), compression="gzip")
    return [npy.getvalue(), npz.getvalue(), packed.getvalue(), h5.getvalue(), *map(_matlab, (False, True))]


def _element(kind: int, body: bytes) -> bytes:
    return struct.pack("<II", kind, len(body)) + body + bytes(-len(body) % 8)


def _matlab(compressed: bool) -> bytes:
    made = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"
    for name, array, kind in ((b"ranks", _RANKS.astype("<f8"), 6), (b"X", np.eye(4, 5, dtype="<f4"), 7)):
        parts = [
            _element(6, struct.pack("<II", kind, 0)),
            _element(5, struct.pack("<II", *array.shape)),
            _element(1, name),
            _element({6: 9, 7: 7}[kind], array.tobytes("F")),
        ]
        matrix = _element(14, b"".join(parts))
        packed = zlib.compress(matrix)
        made += struct.pack("<II", 15, len(packed)) + packed if compressed else matrix
    return made


def _ending(data: bytes) -> str:
    if data.startswith(_NPY):
        return ".npy"
    if data.startswith(b"PK"):
        return ".npz"
    return ".h5" if data.startswith(_HDF5) else ".mat"


def _resealed(data: bytes) -> bytes:
    """An archive made anew, its checksums right, with a byte of one member changed; packed MATLAB likewise."""
    at = zlib.crc32(data)
    if data.startswith(b"PK"):
        from fuzz.networks import resealed_zip

        return resealed_zip(data)
    return data if at & 1 else data[:128] + _repacked(data[128:], at)


def _repacked(body: bytes, at: int) -> bytes:
    try:
        kind, size = struct.unpack_from("<II", body)
        content = bytearray(zlib.decompress(body[8 : 8 + size]))
        content[at % len(content)] ^= 1 << (at >> 16) % 8
        packed = zlib.compress(bytes(content), 1)
        return struct.pack("<II", kind, len(packed)) + packed + body[8 + size :]
    except Exception:
        return body


def _arrays_prepared(folder: Path) -> Reads:
    places = {ending: folder / f"given{ending}" for ending in (".npy", ".npz", ".mat", ".h5")}

    def reads(data: bytes) -> None:
        if zlib.crc32(data) & 2:
            data = _resealed(data)
        place = places[_ending(data)]
        place.unlink(missing_ok=True)  # one that is mapped is not to be changed
        place.write_bytes(data)
        if zlib.crc32(data) & 4:
            ranks = read_rankings(place, _TRUTH)
            assert ranks.dtype.kind in "iu"
            assert len(ranks) == 2
            return
        found = read_descriptors(place, _TRUTH)
        assert (len(found.database), len(found.queries)) == (5, 2)

    return reads


def _npy(shape: list[int], kind: str, columns: bool, body: bytes) -> bytes:
    header = repr({"descr": kind, "fortran_order": columns, "shape": tuple(shape)}).encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return _NPY + b"\x01\x00" + struct.pack("<H", len(header)) + header + body


_shapes = st.lists(st.one_of(st.sampled_from([2, 5, 4, 0, 1, -1, 2**31, 2**40, 2**62]), st.integers()), max_size=4)
_kinds = st.sampled_from(
    ["<i8", "<f4", "<f8", "|O", "|b1", "<U9", "<c8", "<M8[s]", "|V8", "('<f4', (9,))", "<f2", ">i2", "?", ","]
)
_bodies = st.one_of(
    st.binary(max_size=160), st.integers(0, 300).map(bytes), st.just(np.array([1e300, np.nan] * 5).tobytes())
)
_npys = st.builds(_npy, _shapes, _kinds, st.booleans(), _bodies)


def _npz(members: dict[str, bytes], method: int) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as made:
        for name, content in members.items():
            made.writestr(f"{name}.npy", content)
    return out.getvalue()


_npzs = st.builds(
    _npz,
    st.dictionaries(st.sampled_from(["ranks", "X", "Q", "é", "../x"]), _npys | st.binary(max_size=90), max_size=3),
    st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]),
)


def _hdf5(shape: list[int], kind: str, how: dict[str, Any], fill: float) -> bytes:
    stream = io.BytesIO()
    try:
        with h5py.File(stream, "w") as file:
            file.create_dataset("X", shape=shape, dtype=kind, fillvalue=fill, **how)
            file["Q"] = h5py.SoftLink("/X") if fill else h5py.ExternalLink("other.h5", "/X")
    except Exception:
        return _HDF5
    return stream.getvalue()


_hdf5s = st.builds(
    _hdf5,
    _shapes.map(lambda sides: [abs(side) for side in sides]),
    st.sampled_from(["f4", "i8", "f8"]),
    st.sampled_from([{}, {"chunks": True}, {"chunks": True, "compression": "gzip", "shuffle": True}]),
    st.sampled_from([0.0, 1.0]),
)
ARRAYS = Target(
    "rankings and descriptors (.npy, .npz, .mat, .h5)",
    _arrays_prepared,
    _array_seeds,
    st.one_of(_npys, _npzs, _hdf5s),
    time_s=5,
)


# Ground truth

_TABLE: dict[str, Any] = {
    "imlist": ["a", "b", "c"],
    "qimlist": ["b"],
    "gnd": [{"ok": [0, 2], "junk": [1], "easy": [0], "hard": [], "bbx": [1.0, 2.0, 30.5, 40.0]}],
}
_MANIFEST = b"image,instance,role,x1,y1,x2,y2\na/1.jpg,one,both,1,2,30,40\nb.jpg,one,database,,,,\n"


@cache
def _truth_seeds() -> list[bytes]:
    arrays = {**_TABLE, "gnd": [{**_TABLE["gnd"][0], "ok": np.array([0, 2]), "bbx": np.array([1.0, 2, 30, 40])}]}
    made = [pickle.dumps(table, protocol=protocol) for table in (_TABLE, arrays) for protocol in (0, 2, 4)]
    return [*made, json.dumps(_TABLE).encode(), _TRUTH.to_json().encode(), _MANIFEST, b"oxc1_a 1.5 2 30 40\n"]


def _truths_prepared(folder: Path) -> Reads:
    vgg = folder / "vgg"
    vgg.mkdir()
    for kind in ("good", "ok", "junk"):
        (vgg / f"one_{kind}.txt").write_text("b\n" if kind == "good" else "")

    def table(data: bytes, name: str) -> None:
        place = folder / name
        place.write_bytes(data)
        labelling = "revisited" if zlib.crc32(data) & 8 else "plain"
        from_table(read_table(place), name="given", labelling=labelling, measures=["map"])  # type: ignore[arg-type]

    def reads(data: bytes) -> None:
        if data.startswith((b"{", b"[")):
            if zlib.crc32(data) & 4:
                table(data, "gnd.json")
                return
            truth = GroundTruth.from_json(data)
            assert GroundTruth.from_json(truth.to_json()) == truth
            truth.digest()
        elif data.startswith(b"image"):
            place = folder / "manifest.csv"
            place.write_bytes(data)
            from_manifest(place, name="given", measures=["map"])
        elif data.startswith(b"oxc1_"):
            (vgg / "one_query.txt").write_bytes(data)
            from_vgg_text(vgg, name="given", images=["a", "b", "c"])
        else:
            table(data, "gnd.pkl")

    return reads


_numbers = st.one_of(st.integers(), st.floats(), st.sampled_from([0, 1, 2, 1e300, 10**30]))
_anything: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.booleans(), _numbers, st.text(max_size=4)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=6,
)
_places = st.lists(_numbers, max_size=3) | _anything
_entries = st.fixed_dictionaries({}, optional=dict.fromkeys(("ok", "junk", "easy", "hard", "bbx"), _places))
_tables = st.fixed_dictionaries(
    {
        "imlist": st.just(["a", "b", "c"]) | _anything,
        "qimlist": st.just(["b"]) | _anything,
        "gnd": st.lists(_entries, max_size=2) | _anything,
    }
)
_ours = st.fixed_dictionaries(
    {
        "kind": st.just("coocnet-ground-truth-1"),
        "name": st.just("x") | _anything,
        "labelling": st.just("plain") | _anything,
        "images": st.just(["a", "b"]) | _anything,
        "measures": st.lists(st.sampled_from(["map", "ns", "mp@5", "mp@0", "mp@" + "9" * 30, "x"]), max_size=3)
        | _anything,
        "queries": st.lists(
            st.fixed_dictionaries(
                {
                    "image": st.just("a") | _anything,
                    "box": _places,
                    "labels": st.dictionaries(st.sampled_from(["ok", "junk", "x"]), _places, max_size=2) | _anything,
                }
            ),
            max_size=2,
        ),
    }
)
_csvs = st.lists(
    st.tuples(
        st.sampled_from(["a.jpg", "../x", "é.jpg", "b.jpg", '"', "x" * 200_000]),
        st.sampled_from(["one", "", "\0"]),
        st.sampled_from(["both", "query", "database", "x"]),
        st.sampled_from([",,,", "1,2,3,4", "nan,1,2,3", "1e400,,,", "-inf,0,inf,1"]),
    ),
    max_size=4,
).map(lambda rows: _MANIFEST.splitlines(keepends=True)[0] + "".join(f"{','.join(row)}\n" for row in rows).encode())
_texts = st.lists(st.one_of(st.floats().map(repr), st.text(max_size=3)), max_size=5).map(
    lambda edges: ("oxc1_a " + " ".join(edges)).encode("utf-8", "surrogatepass")
)
TRUTHS = Target(
    "ground truth (pickles, JSON, text, manifests)",
    _truths_prepared,
    _truth_seeds,
    st.one_of(
        st.builds(
            lambda table, protocol: pickle.dumps(table, protocol=protocol), _tables, st.sampled_from([0, 2, 4])
        ),
        _tables.map(lambda table: json.dumps(table).encode()),
        _ours.map(lambda table: json.dumps(table).encode()),
        st.integers(1, 9000).map(lambda depth: b"[" * depth),
        _csvs,
        _texts,
    ),
)
