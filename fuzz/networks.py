"""Files of tensors: weights, whitenings, learned filters, checkpoints of trainings."""

from __future__ import annotations

import io
import json
import pickle
import warnings
import zipfile
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import safetensors.torch
import torch
from hypothesis import strategies as st
from torch import nn
from typing_extensions import override

from coocnet.backbones import BACKBONES, load_backbone
from coocnet.backbones.loading import read_checkpoint
from coocnet.backbones.record import Backbone, Tap, Trunk
from coocnet.nn import FactorisedFilter, load_filter, read_filter, save_filter
from coocnet.train.checkpoint import State
from coocnet.whitening import Whitening
from fuzz.target import Reads, Target

_RUN = "a training"
_DTYPES = ["F32", "F64", "F16", "BF16", "I64", "I32", "U8", "BOOL", "F8_E4M3", "F4", "X"]


def _of_tensors(header: Any, body: bytes) -> bytes:
    """A file of safetensors with any header."""
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


_sides = st.one_of(st.integers(0, 5), st.sampled_from([2**31, 2**62, 10**12, -1]))


@st.composite
def _headers(draw: st.DrawFn, names: list[str], metadata: st.SearchStrategy[dict[str, str]]) -> bytes:
    """Files of safetensors whose pieces fit each other for the most part."""
    table: dict[str, Any] = {}
    at = 0
    for name in draw(st.lists(st.sampled_from(names), max_size=5, unique=True)):
        shape = draw(st.lists(_sides, max_size=4))
        kind = draw(st.sampled_from(_DTYPES))
        count = int(np.prod([side for side in shape if side >= 0], dtype=object))
        size = draw(
            st.sampled_from(
                [count * {"F64": 8, "I64": 8, "F16": 2, "BF16": 2, "U8": 1, "BOOL": 1}.get(kind, 4), 0, 4]
            )
        )
        size = min(size, 4096)
        table[name] = {"dtype": kind, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    if draw(st.integers(0, 4)):
        table["__metadata__"] = draw(metadata)
    return _of_tensors(table, draw(st.binary(min_size=at, max_size=at)) if at < 256 else bytes(at))


# Weights

_RAN: list[str] = []
"""What a pickle of ours had run: nothing, unless whoever reads it runs what it says."""


def _ran(what: str = "a function") -> str:
    """What the pickles call; that it was called is a finding."""
    _RAN.append(what)
    return what


class _Waking:
    """Runs something where it is only made again, not called."""

    def __setstate__(self, state: object) -> None:
        _ran("__setstate__")

    def __getstate__(self) -> object:
        return {"a": 1}


class _Call:
    """Pickles as a call of any function."""

    def __init__(self, function: Callable[..., object], arguments: tuple[object, ...]) -> None:
        self._said = function, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self._said


_LEAVES_A_MARK = "__import__('fuzz.networks', fromlist=['_ran'])._ran('{}')"
_HOSTILE: list[object] = [
    _Call(_ran, ()),
    _Call(eval, (_LEAVES_A_MARK.format("eval"),)),
    _Call(exec, (_LEAVES_A_MARK.format("exec"),)),
    _Waking(),
]


class _Tiny(Trunk):
    """A network of some 60 numbers: files that fit it are small, and so are read to their end."""

    def __init__(self) -> None:
        super().__init__()
        self.stem0 = nn.Conv2d(3, 2, 3, bias=False)
        self.head = nn.BatchNorm2d(2)

    @override
    def forward(self, x: torch.Tensor, tap: str) -> torch.Tensor:
        return self.head(self.stem0(x)).relu()  # type: ignore[no-any-return]


_TINY = Backbone(
    "Tiny", _Tiny, {"head": Tap(2, 1, "head")}, 3, {"none": next(iter(BACKBONES["mini"].weights.values()))}
)


def _fitting() -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(1)
    return {
        name: torch.rand(tensor.shape, generator=random) if tensor.is_floating_point() else tensor
        for name, tensor in _Tiny().state_dict().items()
    }


@cache
def _torch_files() -> list[bytes]:
    """Checkpoints that fit, plain and in a table, and such that have something run."""
    named = _fitting()
    table: dict[str, object] = {
        "state_dict": named,
        "meta": {"mean": [0.1, 0.2], "whitening": np.ones((2, 3))},
        "epoch": 3,
    }
    tables = [named, table, *({"state_dict": named, "epoch": one} for one in _HOSTILE)]
    return [_torch_file(content, is_zip, 2) for content in tables for is_zip in (True, False)]


@cache
def _weights_seeds() -> list[bytes]:
    halves = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in _fitting().items()}
    safe = [safetensors.torch.save(tensors, {"format": "pt"}) for tensors in (_fitting(), halves)]
    return [*_torch_files(), *safe]


def _weights_prepared(folder: Path) -> Reads:
    safe, checkpoint = folder / "given.safetensors", folder / "given.pth"
    shapes = {name: tensor.shape for name, tensor in _Tiny().state_dict().items()}

    def reads(data: bytes) -> None:
        is_torch = data[:2] in (b"PK", b"\x80\x02") or data[8:9] != b"{"
        place = checkpoint if is_torch else safe
        place.write_bytes(resealed_zip(data) if data[:2] == b"PK" and zlib.crc32(data) & 8 else data)
        _RAN.clear()
        try:
            if is_torch:
                read_checkpoint(place)
            with mock.patch.dict(BACKBONES, {"tiny": _TINY}):
                trunk = load_backbone("tiny", str(place)).trunk
        finally:
            assert not _RAN, f"what a file said was run: {_RAN}"
        assert {name: tensor.shape for name, tensor in trunk.state_dict().items()} == shapes
        assert all(tensor.dtype in (torch.float32, torch.int64) for tensor in trunk.parameters())
        assert trunk(torch.zeros(1, 3, 4, 4), "head").shape == (1, 2, 2, 2)

    return reads


def resealed_zip(data: bytes) -> bytes:
    """An archive made anew of the members that can be read, with their checksums right and a byte of one changed."""
    at = zlib.crc32(data)
    out = io.BytesIO()
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as given, zipfile.ZipFile(out, "w") as made, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about names that are there twice
            for info in given.infolist()[:20]:
                content = bytearray(given.read(info.filename)[: 1 << 16])
                if content and info.filename.endswith((".pkl", ".npy")):
                    content[at % len(content)] ^= 1 << (at >> 16) % 8
                made.writestr(info.filename, bytes(content))
    except Exception:
        return data
    return out.getvalue()


_RECONSTRUCT: Any = np.array(0).__reduce__()[0]
_SCALAR: Any = np.float64(0).__reduce__()[0]
_CALLS: list[tuple[Callable[..., object], tuple[object, ...]]] = [
    (torch.zeros, (3,)),
    (bytearray, (1 << 40,)),
    (np.zeros, (1 << 40,)),
    (torch._utils._rebuild_tensor_v2, (1, 0, (1 << 40,), (0,), False, None)),
    (_RECONSTRUCT, (np.ndarray, (1 << 40,), b"O")),
    (np.dtype, ("O", False, True)),
    (np.dtype, (("f8", (1 << 30,)),)),
    (_SCALAR, (np.dtype("O"), b"x")),
    (__import__("_codecs").encode, ("x" * 99, "punycode")),
    (torch.Size, ((1 << 62, 1 << 62),)),
]
_leaves: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.text(max_size=4),
    st.integers(),
    st.floats(),
    st.sampled_from(_CALLS).map(lambda call: _Call(*call)),
    st.sampled_from(_HOSTILE),
    st.builds(
        lambda shape, kind: torch.zeros(1, dtype=kind).expand(shape),
        st.lists(st.sampled_from([1, 2, 512, 1 << 20]), min_size=1, max_size=4).filter(
            lambda s: np.prod(s, dtype=object) < 1 << 50
        ),
        st.sampled_from([torch.float16, torch.float32, torch.int64, torch.bool, torch.complex64]),
    ),
    st.sampled_from(
        [
            torch.zeros(2).to_sparse(),
            torch.zeros(2, device="meta"),
            torch.zeros(2, dtype=torch.complex64).conj(),
        ]
    ),
)
_names = st.one_of(st.sampled_from(["state_dict", "head.bias", "stem0.weight"]), st.text(max_size=4), st.integers())
_tables = st.recursive(
    _leaves,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(_names, inner, max_size=4)),
    max_leaves=8,
)


def _torch_file(content: object, is_zip: bool, protocol: int) -> bytes:
    stream = io.BytesIO()
    try:
        torch.save(content, stream, pickle_protocol=protocol, _use_new_zipfile_serialization=is_zip)
    except Exception:  # what it cannot write
        return pickle.dumps([protocol])
    return stream.getvalue()


_kinds = st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64])


@st.composite
def _nearly_fitting(draw: st.DrawFn) -> bytes:
    """Files that fit the network but for one tensor at most, of any numbers, with other things beside them."""
    kind = draw(_kinds)
    tensors = {name: one.to(kind) if one.is_floating_point() else one for name, one in _fitting().items()}
    name = draw(st.sampled_from(list(tensors)))
    if draw(st.booleans()):
        tensors[draw(st.sampled_from([name, "other"]))] = torch.zeros(draw(st.lists(st.integers(0, 3), max_size=4)))
    if draw(st.integers(0, 3)) == 0:
        del tensors[name]
    if draw(st.booleans()):
        return safetensors.torch.save(tensors, {"format": "pt"})
    beside = draw(st.dictionaries(_names, _leaves, max_size=2))
    content: dict[Any, Any] = {**beside, "state_dict": tensors} if draw(st.booleans()) else {**tensors, **beside}
    return _torch_file(content, draw(st.booleans()), draw(st.sampled_from([2, 4])))


WEIGHTS = Target(
    "weights (safetensors, torch files)",
    _weights_prepared,
    _weights_seeds,
    st.one_of(
        _headers([*_Tiny().state_dict()], st.just({"format": "pt"})),
        st.builds(_torch_file, _tables, st.booleans(), st.sampled_from([2, 4])),
        _nearly_fitting(),
    ),
    time_s=5,
)


# Whitenings


@cache
def _whitening_seeds() -> list[bytes]:
    random = np.random.default_rng(1)
    plain = Whitening(random.random(6).astype(np.float32), random.random((4, 6)).astype(np.float32), {"kind": "pca"})
    named = Whitening(np.zeros(3, np.float64), np.eye(3), {"row_fingerprint": "0" * 16, "weights_sha256": "1" * 64})
    return [plain.to_bytes(), named.to_bytes()]


def resealed(data: bytes) -> bytes:
    """A whitening whose digest fits, so that its numbers and its provenance are looked at."""
    import hashlib

    try:
        size = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + size])
        provenance = header["__metadata__"]["provenance"].encode()
        parts = [data[8 + size :][slice(*header[name]["data_offsets"])] for name in ("mean", "projection")]
        header["__metadata__"]["sha256"] = hashlib.sha256(b"".join([*parts, provenance])).hexdigest()
        return _of_tensors(header, data[8 + size :])
    except Exception:
        return data


def _whitening_prepared(folder: Path) -> Reads:
    place = folder / "w.safetensors"

    def reads(data: bytes) -> None:
        place.write_bytes(resealed(data) if zlib.crc32(data) & 1 else data)
        read = Whitening.load(place)
        rows = read.apply(np.ones((2, len(read.mean)), np.float32) / max(1, len(read.mean)))
        assert rows.shape == (2, read.dim)
        assert Whitening.from_bytes(read.to_bytes()).equals(read)
        read.first(1)
        read.check_fits("0" * 16, "1" * 64, len(read.mean))

    return reads


_provenances = st.one_of(
    st.dictionaries(st.text(max_size=3), st.text(max_size=3)).map(json.dumps), st.text(max_size=9)
)
WHITENINGS = Target(
    "whitenings",
    _whitening_prepared,
    _whitening_seeds,
    _headers(
        ["mean", "projection", "other"],
        st.fixed_dictionaries({"kind": st.just("coocnet-whitening-1"), "provenance": _provenances}),
    ).map(resealed),
)


# Filters


@cache
def _filter_seeds() -> list[bytes]:
    import tempfile

    made = []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "f.safetensors"
        save_filter(FactorisedFilter(4, radius_cells=1, rank=2), place, {"made": "here"})
        made.append(place.read_bytes())
    stream = io.BytesIO()
    np.save(stream, np.zeros((3, 3, 3, 3), np.float32))
    return [*made, stream.getvalue()]


def _filter_prepared(folder: Path) -> Reads:
    ours, theirs = folder / "f.safetensors", folder / "f.npy"

    def reads(data: bytes) -> None:
        place = theirs if data.startswith(b"\x93NUMPY") else ours
        place.write_bytes(data)
        learned, _ = read_filter(place)
        if learned.channels < 64 and learned.radius_cells < 8:
            assert learned.dense().shape[:2] == (learned.channels, learned.channels)
        if place == ours:
            load_filter(place)

    return reads


_filter_kinds = st.fixed_dictionaries(
    {
        "kind": st.just("coocnet-filter-1"),
        "filter": st.sampled_from(["dense", "factorised", "x"]),
        "provenance": _provenances,
    }
)
FILTERS = Target(
    "learned filters",
    _filter_prepared,
    _filter_seeds,
    _headers(["weight", "log_out", "log_in", "log_windows", "log_own"], _filter_kinds),
)


# Checkpoints of trainings


@cache
def _state_seeds() -> list[bytes]:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "state"
        state = State(_RUN, epoch=1, step=2, loss=0.5, history=[{"map": 0.5}])
        state.keep("filter", {"log_out": torch.zeros(3)})
        state.save(place)
        return [place.read_bytes()]


def _state_prepared(folder: Path) -> Reads:
    place = folder / "state.safetensors"

    def reads(data: bytes) -> None:
        place.write_bytes(data)
        state = State.load(place, _RUN)
        assert state is not None
        assert state.run == _RUN
        state.part("filter")

    return reads


_states = st.one_of(
    st.dictionaries(
        st.sampled_from(["run", "epoch", "step", "loss", "history", "x"]), st.just(_RUN) | st.integers()
    ).map(json.dumps),
    st.text(max_size=5),
    st.integers(1, 3000).map(lambda depth: "[" * depth),
)
CHECKPOINTS = Target(
    "checkpoints of trainings",
    _state_prepared,
    _state_seeds,
    _headers(["filter.a", "b"], st.fixed_dictionaries({"kind": st.just("coocnet-training-1"), "state": _states})),
)
