"""What is kept beside the index answers as the index itself does, and is made anew whenever it does not fit."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from coocnet.errors import InputError
from coocnet.index import kept, open_index
from coocnet.index.store import Store
from indexing import named, put, synthetic_rows

COUNT = 300


@pytest.fixture
def keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "KEEP_FROM", 10)


@pytest.fixture
def rows() -> np.ndarray:
    made = synthetic_rows(COUNT)
    made[50:60] = made[40:50]  # copies
    made[70] = 0  # a blank picture
    return made


def answers(place: Path, queries: np.ndarray, **options) -> list:
    with open_index(place) as index:
        return index.search(queries, k=25, **options)


def plainly(place: Path, queries: np.ndarray, **options) -> list:
    """The answers of what is read from the database."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(kept, "KEEP_FROM", 1 << 40)
        return answers(place, queries, **options)


def agree(one: list, other: list) -> None:
    assert [[hit.digest for hit in hits] for hits in one] == [[hit.digest for hit in hits] for hits in other]
    assert [[hit.path for hit in hits] for hits in one] == [[hit.path for hit in hits] for hits in other]
    for ours, theirs in zip(one, other, strict=True):
        np.testing.assert_allclose([h.similarity for h in ours], [h.similarity for h in theirs], atol=1e-6)


def files(place: Path) -> set[str]:
    return {file.name for file in place.iterdir() if file.name.startswith("gallery")}


def no_reading(monkeypatch: pytest.MonkeyPatch, *, but: int = 0) -> None:
    """From here on no row is read from the database, but for so many."""
    read = Store.rows_of

    def counted(store, contents):
        assert len(contents) <= but
        return read(store, contents)

    monkeypatch.setattr(Store, "rows_of", counted)
    monkeypatch.setattr(Store, "matrix", lambda _: pytest.fail("all rows read"))


@pytest.mark.usefixtures("keeps")
@pytest.mark.parametrize("whitened", [False, True])
def test_what_is_kept_answers_as_the_database_does_and_spares_reading_it(place, rows, whitened, monkeypatch) -> None:
    put(place, named(rows))
    if whitened:
        with open_index(place) as index:
            index.learn_whitening(dim=12)
    expected = plainly(place, rows[:80])
    agree(answers(place, rows[:80]), expected)
    assert len(files(place)) == 2
    no_reading(monkeypatch)
    agree(answers(place, rows[:80]), expected)


@pytest.mark.usefixtures("keeps")
def test_first_dimensions_are_those_of_the_whitening(place, rows) -> None:
    put(place, named(rows))
    with open_index(place) as index:
        index.learn_whitening(dim=12)
    agree(answers(place, rows[:20], dim=5), plainly(place, rows[:20], dim=5))


@pytest.mark.usefixtures("keeps")
def test_after_a_change_only_what_is_new_is_read(place, rows, monkeypatch) -> None:
    pictures = named(rows)
    put(place, pictures)
    with open_index(place) as index:
        index.learn_whitening(dim=12)
        index.search(rows[:1], k=1)
    before = files(place)
    put(place, named(synthetic_rows(7, seed=9), "a new "))
    with open_index(place) as index:
        index._store.drop(list(pictures)[::30])
    expected = plainly(place, rows[:80])
    no_reading(monkeypatch, but=7)
    agree(answers(place, rows[:80]), expected)
    assert len(files(place)) == 2
    assert files(place) != before


@pytest.mark.usefixtures("keeps")
def test_another_whitening_or_none_is_seen_at_once(place, rows) -> None:
    put(place, named(rows))
    with open_index(place) as index:
        for change in (lambda: index.learn_whitening(dim=12), lambda: index.use_whitening(None)):
            index.search(rows[:1], k=1)
            change()
            agree(index.search(rows[:9], k=25), plainly(place, rows[:9]))


@pytest.mark.usefixtures("keeps")
def test_a_database_put_back_from_a_copy_is_not_answered_for_by_what_was_kept_of_another(
    place, rows, tmp_path
) -> None:
    put(place, named(rows))
    copy = shutil.copy(place / "index.sqlite", tmp_path / "copy")
    put(place, named(synthetic_rows(20, seed=1), "one "))
    answers(place, rows[:1])
    shutil.copy(copy, place / "index.sqlite")
    put(place, named(synthetic_rows(20, seed=2), "other "))
    agree(answers(place, rows[:9]), plainly(place, rows[:9]))


def _cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 7)


def _zeros(file: Path) -> None:
    file.write_bytes(bytes(file.stat().st_size))


def _other(file: Path) -> None:
    np.save(file.with_suffix(".npy"), np.zeros((3, 5)))
    file.with_suffix(".npy").replace(file)


def _zero_rows(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
    file.write_bytes(content)


@pytest.mark.usefixtures("keeps")
@pytest.mark.parametrize("pattern", ["gallery.npz", "gallery-*.npy"])
@pytest.mark.parametrize("spoil", [_cut, _zeros, _other, _zero_rows, Path.unlink, lambda file: file.write_text("x")])
def test_damaged_files_are_made_anew(place, rows, pattern, spoil) -> None:
    put(place, named(rows))
    expected = answers(place, rows[:9])
    spoil(next(place.glob(pattern)))
    agree(answers(place, rows[:9]), expected)
    with pytest.MonkeyPatch.context() as patched:
        no_reading(patched)
        agree(answers(place, rows[:9]), expected)


@pytest.mark.usefixtures("keeps")
def test_on_a_full_disk_a_search_goes_on_in_memory(place, rows, monkeypatch) -> None:
    put(place, named(rows))

    def full(*_) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(kept, "_reserve", full)
    agree(answers(place, rows[:9]), plainly(place, rows[:9]))
    assert files(place) == set()


@pytest.mark.usefixtures("keeps")
def test_rows_of_former_states_are_swept_away_but_not_what_another_process_writes(place, rows) -> None:
    put(place, named(rows))
    place.joinpath("gallery-00ff.npy").write_bytes(b"abandoned")
    os.utime(place / "gallery-00ff.npy", (1, 1))
    place.joinpath("gallery-11ff.npy").write_bytes(b"being written")
    place.joinpath(".coocnet-00ff.npz").write_bytes(b"abandoned")
    os.utime(place / ".coocnet-00ff.npz", (1, 1))
    place.joinpath(".coocnet-11ff.npz").write_bytes(b"being written")
    answers(place, rows[:1])
    put(place, named(synthetic_rows(3, seed=4), "new "))
    answers(place, rows[:1])
    assert "gallery-11ff.npy" in files(place)
    assert [file.name for file in place.glob(".coocnet-*")] == [".coocnet-11ff.npz"]
    assert len(files(place)) == 3


@pytest.mark.usefixtures("keeps")
def test_a_reader_goes_on_while_another_process_keeps_a_new_state(place, rows) -> None:
    put(place, named(rows))
    with open_index(place) as reader:
        reader.search(rows[:1], k=1)
        gallery = reader._searchable.gallery()
        put(place, named(synthetic_rows(3, seed=4), "new "))
        answers(place, rows[:1])
        np.testing.assert_array_equal(np.sort(gallery.rows, axis=0), np.sort(rows, axis=0))
        agree(reader.search(rows[:9], k=25), answers(place, rows[:9]))


@pytest.mark.usefixtures("keeps")
def test_float16_halves_what_is_kept_and_moves_similarities_by_less_than_is_stated(place, rows) -> None:
    put(place, named(rows))
    exact = answers(place, rows)
    with open_index(place) as index:
        index.use_storage("float16")
        assert index.info().storage == "float16"
        rounded = index.search(rows, k=25)
    kept_rows = np.load(next(place.glob("gallery-*.npy")))
    assert kept_rows.dtype == np.float16
    for ours, theirs in zip(rounded, exact, strict=True):
        np.testing.assert_allclose([h.similarity for h in ours], [h.similarity for h in theirs], atol=5e-4)
    paths, wide = sorted(named(rows)), kept_rows.astype(np.float64)
    for query, hits in zip(rows, rounded, strict=True):
        for hit in hits:
            assert hit.similarity == pytest.approx(wide[paths.index(hit.path)] @ query, abs=1e-6)


@pytest.mark.usefixtures("keeps")
@pytest.mark.parametrize(
    "options",
    [{"expansion": "aqe"}, {"reranking": "reciprocal"}, {"augmentation": True}, {"threshold": "auto"}],
    ids=str,
)
def test_everything_after_the_descriptor_works_on_float16_too(place, rows, options) -> None:
    put(place, named(rows))
    with open_index(place) as index:
        index.learn_whitening(dim=12)
        expected = index.search(rows[:9], k=5, **options)
        index.use_storage("float16")
        found = index.search(rows[:9], k=5, **options)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose([h.similarity for h in ours], [h.similarity for h in theirs], atol=2e-3)


def test_an_unknown_storage_is_refused(place, rows) -> None:
    put(place, named(rows))
    with open_index(place) as index, pytest.raises(InputError, match="float32 or float16, got 'int8'"):
        index.use_storage("int8")


def test_a_small_collection_keeps_nothing(place, rows) -> None:
    put(place, named(rows))
    answers(place, rows[:1])
    assert files(place) == set()


@pytest.mark.usefixtures("keeps")
def test_what_is_kept_counts_as_part_of_the_index(place, rows) -> None:
    put(place, named(rows))
    with open_index(place) as index:
        before = index.info().size_bytes
        index.search(rows[:1], k=1)
        assert index.info().size_bytes >= before + rows.nbytes


@pytest.mark.slow
def test_a_search_from_what_is_kept_loads_no_torch(place, rows) -> None:
    put(place, named(rows))
    code = (
        "import sys, numpy as np, coocnet; from coocnet.index import kept; kept.KEEP_FROM = 10\n"
        f"index = coocnet.open_index({str(place)!r})\n"
        "for _ in range(2):\n"
        "    print(len(index.search(np.eye(1, 24, dtype=np.float32), k=5)[0])); index._searchable.forget()\n"
        "assert 'torch' not in sys.modules and 'faiss' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("5\n5\n", "")


@pytest.mark.usefixtures("keeps")
@pytest.mark.parametrize("pattern", ["gallery.npz", "gallery-*.npy"])
def test_one_bit_flipped_in_a_header_changes_no_answer(place, rows, pattern) -> None:
    put(place, named(rows))
    expected = answers(place, rows[:3])
    file = next(place.glob(pattern))
    content, right = file.read_bytes(), np.load(next(place.glob("gallery-*.npy")))
    with open_index(place) as index:
        kind = kept.kind_of(index._store, None)
    for at in flips(content, 150):
        file.write_bytes(flipped(content, at))
        held = kept._load(place, kind)
        if held is not None:
            assert list(held[1].paths) == sorted(named(rows))
            np.testing.assert_array_equal(held[1].rows, right)
    agree(answers(place, rows[:3]), expected)


def flips(content: bytes, count: int) -> list[int]:
    """Bits of the headers of a file of numpy, or of a zip archive of such."""
    headers, start = set(range(128 * 8)), content.find(b"PK")
    while start >= 0:
        headers |= set(range(start * 8, min(start + 220, len(content)) * 8))
        start = content.find(b"PK", start + 1)
    return [int(at) for at in np.random.default_rng(0).choice(sorted(headers), count, replace=False)]


def flipped(content: bytes, bit: int) -> bytes:
    damaged = bytearray(content)
    damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


def test_the_info_names_the_storage_only_where_rows_are_kept(place, rows, run, monkeypatch) -> None:
    put(place, named(rows))
    with open_index(place) as index:
        index.use_storage("float16")
    assert "float16" not in run("info", "-i", place).stdout
    monkeypatch.setattr(kept, "KEEP_FROM", 10)
    assert "rows kept as float16" in " ".join(run("info", "-i", place).stdout.split())
