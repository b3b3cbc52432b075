"""What fuzzing found: each input was once answered by an accident, or by taking memory that it only spoke of."""

from __future__ import annotations

import io
import json
import sqlite3
import struct
import zipfile
import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch
from PIL import Image

from coocnet.backbones.loading import load_backbone, read_checkpoint
from coocnet.data.benchmarks.manifest import from_manifest
from coocnet.data.benchmarks.unpack import unpack
from coocnet.data.images import decode, parse_box
from coocnet.errors import (
    ArchiveError,
    BenchmarkError,
    CoocnetError,
    FilterError,
    ForeignIndexError,
    ImageError,
    InputError,
    RecipeError,
    TrainingError,
    WeightsMismatchError,
    WhiteningError,
    quoted,
)
from coocnet.evaluate import GroundTruth
from coocnet.evaluate.ground_truth import Query
from coocnet.evaluate.readers import read_descriptors, read_rankings
from coocnet.index import open_index, prepared
from coocnet.nn import read_filter
from coocnet.recipe import Recipe
from coocnet.train.checkpoint import State
from coocnet.whitening import Whitening
from indexing import named, put, synthetic_rows

TRUTH = GroundTruth("small", "plain", ("a", "b"), (Query("a", None, {"ok": frozenset({1})}),))
HUGE = 1 << 33


# Values in messages


@pytest.mark.parametrize(
    "value",
    [16**5000, "x" * 10**6, ["x" * 10**6] * 9, {"a": [[[[[[[["deep"]]]]]]]]}],
    ids=["int", "str", "list", "dict"],
)
def test_a_value_in_a_message_is_cut(value: object) -> None:
    assert len(quoted(value)) < 500


def test_short_values_stand_in_messages_whole() -> None:
    assert quoted([1, "two", None]) == "[1, 'two', None]"


@pytest.mark.parametrize("field", ["size_px", "prior_floor", "scales", "name", "cooccurrence", "unknown"])
@pytest.mark.parametrize("value", ["0x" + "f" * 5000, '"' + "x" * 5000 + '"', "[" + "0.5," * 2000 + "]"], ids=len)
def test_a_recipe_with_a_value_beyond_all_measure_is_refused_in_few_words(field: str, value: str) -> None:
    with pytest.raises(RecipeError) as caught:
        Recipe.from_toml(f"{field} = {value}\n" if field != "name" else f"name = [{value}]\n")
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize("edge", ["inf", "-inf", "nan", "1e999"])
def test_a_box_without_an_end_is_refused(edge: str) -> None:
    with pytest.raises(InputError, match="four"):
        parse_box(f"-5,-5,{edge},9")


def test_a_picture_whose_pixels_are_not_as_many_as_its_header_says_is_refused() -> None:
    heif = pytest.importorskip("pillow_heif")
    heif.register_heif_opener()
    stream = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").resize((48, 36)).save(stream, "HEIF")
    content = stream.getvalue()
    width = b"clap" + (48).to_bytes(4, "big")  # what is to be shown of the pixels that are stored
    assert content.count(width) == 1
    with pytest.raises(ImageError, match="112x36"):
        decode(content.replace(width, b"clap" + (112).to_bytes(4, "big")), "a.heic", size_px=None)


# Arrays


def npy(header: str, body: bytes = b"") -> bytes:
    text = header.encode() + b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + body


def zipped(content: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("X.npy", content)
    return out.getvalue()


def matlab(content: bytes) -> bytes:
    packed = zlib.compress(content, 9)
    return b"MATLAB 5.0".ljust(124) + b"\x00\x01IM" + struct.pack("<II", 15, len(packed)) + packed


def hdf5(shape: tuple[int, ...]) -> bytes:
    h5py = pytest.importorskip("h5py")
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        file.create_dataset("X", shape=shape, dtype="f8", chunks=True)
    return stream.getvalue()


ARRAYS: dict[str, Callable[[], bytes]] = {
    "more-than-all-memory.npy": lambda: npy(f"{{'descr': '<f8', 'fortran_order': True, 'shape': ({HUGE}, {HUGE})}}"),
    "nothing.npy": lambda: npy("{'descr': '<f8', 'fortran_order': False, 'shape': (0, 0)}"),
    "no-python.npy": lambda: npy("{'descr': '\0\0\0"),
    "bomb.npz": lambda: zipped(
        npy("{'descr': '|u1', 'fortran_order': False, 'shape': (2, 134217728)}", bytes(1 << 28))
    ),
    "bomb.mat": lambda: matlab(bytes(1 << 28)),
    "bomb.h5": lambda: hdf5((2, HUGE)),
    "cut.mat": lambda: matlab(bytes(99))[:-3],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_that_is_none_or_grows_beyond_measure_is_refused(name: str, tmp_path: Path) -> None:
    place = tmp_path / name
    place.write_bytes(ARRAYS[name]())
    with pytest.raises(InputError, match=name):
        read_descriptors(place, TRUTH)


def test_rankings_that_are_no_positions_are_refused(tmp_path: Path) -> None:
    place = tmp_path / "ranks.npy"
    np.save(place, np.array([[1e300, 0.0]]))
    with pytest.raises(InputError, match="whole numbers"):
        read_rankings(place, TRUTH)


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_rankings_of_any_float_are_read(tmp_path: Path, kind: type) -> None:
    np.save(tmp_path / "ranks.npy", np.array([[1, 0]], kind))
    assert read_rankings(tmp_path / "ranks.npy", TRUTH).tolist() == [[1, 0]]


@pytest.mark.parametrize(
    ("mean", "projection", "says"), [(0, 1e300, "finite"), (0, 3e38, "too large"), (1e30, 1e9, "too large")]
)
def test_a_whitening_beyond_the_numbers_it_computes_with_is_refused(mean, projection, says) -> None:
    with pytest.raises(WhiteningError, match=says):
        Whitening.from_bytes(Whitening(np.full(2, mean), np.full((1, 2), projection)).to_bytes())


@pytest.mark.parametrize(
    "text",
    [
        "image,instance,role\ra\x00\r\n,b",
        f"image,instance,role\n{'x' * 90_000}/../a,one,both\n",
        f"image,{'é' * 200_000}\n",
    ],
    ids=["line ends", "long", "wide"],
)
def test_a_manifest_that_is_no_table_is_refused_in_few_words(text: str, tmp_path: Path) -> None:
    place = tmp_path / "manifest.csv"
    place.write_bytes(text.encode())
    with pytest.raises(BenchmarkError) as caught:
        from_manifest(place, name="own", measures=["map"])
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize("text", ["[" * 100_000, '{"kind": ' * 9000], ids=["lists", "tables"])
def test_a_ground_truth_of_many_levels_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="ground truth"):
        GroundTruth.from_json(text)


def test_a_ground_truth_with_a_position_beyond_all_numbers_is_refused() -> None:
    text = TRUTH.to_json().replace("[1]", "[1e999]")
    assert text != TRUTH.to_json()
    with pytest.raises(InputError, match="ground truth"):
        GroundTruth.from_json(text)


# Archives


def test_a_damaged_zip_by_lzma_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "a.zip"
    with zipfile.ZipFile(place, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a.jpg", bytes(range(256)))
    content = bytearray(place.read_bytes())
    at = content.index(b"a.jpg") + 9  # the settings of the compression
    refused = 0
    for changed in range(at, at + 12):
        place.write_bytes(content[:changed] + bytes([content[changed] ^ 0xFF]) + content[changed + 1 :])
        try:
            unpack(place, tmp_path / str(changed))
        except ArchiveError:
            refused += 1
    assert refused > 6


# Filters, checkpoints


@pytest.mark.parametrize(
    "content",
    [
        npy("{'descr': '\0\0"),
        npy(f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({HUGE},)}}"),
        zipped(b"x"),
        b"",
    ],
    ids=["no-python", "cut", "an-archive", "empty"],
)
def test_what_is_no_published_filter_is_refused(content: bytes, tmp_path: Path) -> None:
    place = tmp_path / "filter.npy"
    place.write_bytes(content)
    with pytest.raises(FilterError, match="filter"):
        read_filter(place)


def test_a_filter_that_python_2_wrote_is_read_without_a_warning(tmp_path: Path) -> None:
    place = tmp_path / "filter.npy"
    place.write_bytes(npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2L, 2L, 1L, 1L)}", bytes(16)))
    assert read_filter(place)[0].channels == 2


def test_a_filter_of_empty_tensors_with_long_sides_is_refused(tmp_path: Path) -> None:
    empty = {"log_out": (1 << 20, 0), "log_in": (1 << 20, 0), "log_windows": (1 << 20, 0, 0), "log_own": (0,)}
    header: dict[str, object] = {
        name: {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]} for name, shape in empty.items()
    }
    header["__metadata__"] = {"kind": "coocnet-filter-1", "filter": "factorised", "provenance": "{}"}
    text = json.dumps(header).encode()
    place = tmp_path / "filter.safetensors"
    place.write_bytes(len(text).to_bytes(8, "little") + text)
    with pytest.raises(FilterError, match="filter"):
        read_filter(place)


def test_a_checkpoint_of_many_levels_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "state.safetensors"
    facts = {"kind": "coocnet-training-1", "state": "[" * 100_000}
    place.write_bytes(safetensors.numpy.save({"a": np.zeros(1)}, facts))
    with pytest.raises(TrainingError, match="damaged"):
        State.load(place, "a run")


def test_a_checkpoint_with_sides_beyond_all_numbers_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "state.safetensors"
    tensor = {"dtype": "F32", "shape": [0, 1 << 62, 1 << 62], "data_offsets": [0, 0]}
    facts = {"kind": "coocnet-training-1", "state": json.dumps({"run": "a run"})}
    text = json.dumps({"__metadata__": facts, "a": tensor}).encode()
    place.write_bytes(len(text).to_bytes(8, "little") + text)
    with pytest.raises(TrainingError, match="damaged"):
        State.load(place, "a run")


def test_a_filter_beyond_the_numbers_it_computes_with_is_refused(tmp_path: Path) -> None:
    for value in (1e300, np.nan, np.inf):
        np.save(tmp_path / "f.npy", np.full((2, 2, 3, 3), value))
        with pytest.raises(FilterError, match="finite"):
            read_filter(tmp_path / "f.npy")
    for kind in (np.float16, np.float32, np.float64):
        np.save(tmp_path / "f.npy", np.ones((2, 2, 3, 3), kind))
        assert read_filter(tmp_path / "f.npy")[0].channels == 2


# Weights


def refusal(place: Path) -> str:
    with pytest.raises(WeightsMismatchError) as caught:
        load_backbone("mini", str(place))
    return str(caught.value)


def test_a_tensor_that_says_to_be_large_takes_no_memory(tmp_path: Path) -> None:
    place = tmp_path / "w.pth"
    torch.save({"head.bias": torch.zeros(1, dtype=torch.float16).expand(1 << 40)}, place)
    assert "of another shape" in refusal(place)


@pytest.mark.parametrize("kind", ["sparse", "meta", "complex"])
def test_tensors_whose_numbers_are_not_plainly_there_are_refused(kind: str, tmp_path: Path) -> None:
    plain = torch.zeros(512)
    kinds = {"sparse": plain.to_sparse, "meta": lambda: plain.to("meta"), "complex": lambda: plain + 1j}
    place = tmp_path / "w.pth"
    torch.save({"head.bias": kinds[kind]()}, place)
    assert "named tensors" in refusal(place)


def test_a_checkpoint_that_grows_when_it_is_read_is_refused(tmp_path: Path) -> None:
    plain, packed = tmp_path / "plain.pth", tmp_path / "packed.pth"
    torch.save({"head.bias": torch.zeros(1 << 20)}, plain)
    with zipfile.ZipFile(plain) as given, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as made:
        for member in given.infolist():
            made.writestr(member.filename, given.read(member.filename))
    assert list(read_checkpoint(plain)) == ["head.bias"]
    with pytest.raises(WeightsMismatchError, match="packed"):
        read_checkpoint(packed)


class Call:
    """Pickles as a call."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.said = function, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.said


CALLS = {
    "an array of objects": Call(np.dtype, "O", False, True),
    "a record": Call(np.dtype, (("f8", (1 << 30,)),)),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_checkpoint_makes_nothing_but_plain_arrays(name: str, tmp_path: Path) -> None:
    place = tmp_path / "w.pth"
    torch.save({"meta": CALLS[name]}, place)
    with pytest.raises(WeightsMismatchError, match="tensors only"):
        read_checkpoint(place)


def test_an_array_in_a_checkpoint_asks_for_no_more_memory_than_its_numbers(tmp_path: Path) -> None:
    place = tmp_path / "w.pth"
    reconstruct = np.array(0).__reduce__()[0]
    torch.save({"meta": Call(reconstruct, np.ndarray, (HUGE, HUGE), b"b")}, place)
    assert read_checkpoint(place)["meta"].size == 0


@pytest.mark.parametrize("kind", ["f2", "f4", "f8", "i4", "i8"])
def test_arrays_and_numbers_of_a_checkpoint_arrive_whole(kind: str, tmp_path: Path) -> None:
    place = tmp_path / "w.pth"
    array = np.arange(6).astype(kind).reshape(2, 3)
    torch.save({"array": array, "number": array[1, 2]}, place)
    read = read_checkpoint(place)
    assert np.array_equal(read["array"], array)
    assert read["array"].dtype == array.dtype
    assert read["number"] == 5


# Indexes

EDITS = {
    "a path that is none": "UPDATE OR IGNORE pictures SET path = 3",
    "a digest that is text": "UPDATE OR IGNORE descriptors SET digest = 'x'",
    "a short digest": "UPDATE OR IGNORE descriptors SET digest = x'0102'",
    "dimensions below nothing": "UPDATE meta SET value = '-8' WHERE key = 'dim'",
    "dimensions beyond memory": "UPDATE meta SET value = '99999999999' WHERE key = 'dim'",
    "dimensions in letters": "UPDATE meta SET value = 'x' WHERE key = 'dim'",
    "a whitening that is text": "INSERT INTO whitenings VALUES (1, 'now', 0, 'x');"
    "INSERT OR REPLACE INTO meta VALUES ('whitening', '1')",
    "a view": "CREATE VIEW more AS SELECT 1",
    "a view without an end": "ALTER TABLE pictures RENAME TO p; CREATE VIEW pictures AS WITH RECURSIVE c (x) AS"
    " (SELECT 1 UNION ALL SELECT x FROM c) SELECT x AS path, 1 AS descriptor, 1 AS size_bytes FROM c",
    "a trigger": "CREATE TRIGGER t AFTER INSERT ON meta BEGIN DELETE FROM meta; END",
}


@pytest.mark.parametrize("name", EDITS)
def test_a_database_with_what_no_coocnet_wrote_is_refused(name: str, tmp_path: Path) -> None:
    place = tmp_path / "a.cooc"
    put(place, named(synthetic_rows(3)))
    with closing(sqlite3.connect(place / "index.sqlite")) as db:
        db.executescript(EDITS[name])
        db.commit()
    with pytest.raises(CoocnetError) as caught, open_index(place) as index:  # noqa: PT012 - which of these says it
        index.info()
        index.search(np.eye(1, 24, dtype=np.float32), k=1)
    assert isinstance(caught.value, ForeignIndexError), caught.value
    assert str(place) in str(caught.value)


def test_a_database_whose_tables_have_names_that_are_no_text_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "a.cooc"
    put(place, named(synthetic_rows(3)))
    file = place / "index.sqlite"
    with closing(sqlite3.connect(file)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        db.execute("PRAGMA journal_mode = DELETE")
    file.write_bytes(file.read_bytes().replace(b"CREATE TABLE skipped", b"CRE\x97TE TABLE skipped"))
    with pytest.raises(ForeignIndexError, match="damaged"):
        open_index(place)


@pytest.mark.parametrize(
    ("written", "read"), [(b"'shape': (60, 51)", b"'shape': (60, 11)"), (b"'descr': '<f4'", b"'descr': '<f2'")]
)
def test_neighbours_whose_header_says_less_than_there_is_are_made_anew(
    tmp_path: Path, written: bytes, read: bytes
) -> None:
    place, rows = tmp_path / "a.cooc", synthetic_rows(60)
    put(place, named(rows))
    with open_index(place) as index:
        index.prepare_reranking()
        found = index.search(rows[:2], k=3, reranking="reciprocal")
    file = place / prepared._NAME
    assert prepared.damage(place) == ""
    content = file.read_bytes()
    assert written in content
    file.write_bytes(content.replace(written, read, 1))
    assert "neighbours" in prepared.damage(place)
    with open_index(place) as index:
        assert index.search(rows[:2], k=3, reranking="reciprocal") == found


def test_a_row_that_was_changed_among_those_kept_is_not_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coocnet.index.kept.KEEP_FROM", 1)
    place, rows = tmp_path / "a.cooc", synthetic_rows(200)
    put(place, named(rows))
    with open_index(place) as index:
        found = index.search(rows[:2], k=200)
    (file,) = place.glob("gallery-*.npy")
    content = bytearray(file.read_bytes())
    content[128 + 100 * rows[0].nbytes + 3] ^= 0xFF  # none of the 64 that were looked at
    file.write_bytes(content)
    with open_index(place) as index:
        assert index.search(rows[:2], k=200) == found
