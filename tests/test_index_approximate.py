"""The approximate search finds nearly all, says how much, and sees every change at once."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from coocnet.errors import InputError
from coocnet.index import Index, approximate, kept, open_index, searchable
from coocnet.recipe import Recipe
from coocnet.whitening import unit_rows
from indexing import Unused, named, put, synthetic_rows
from test_index_kept import flipped, flips

pytest.importorskip("faiss")

pytestmark = pytest.mark.slow
COUNT, KEEP_FROM = 3000, 100


@pytest.fixture(autouse=True)
def keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "KEEP_FROM", KEEP_FROM)


@pytest.fixture
def rows() -> np.ndarray:
    return synthetic_rows(COUNT)


@pytest.fixture(scope="module")
def built_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index with an approximate search. Not to be written to."""
    place = tmp_path_factory.mktemp("built") / "photos.cooc"
    put(place, named(synthetic_rows(COUNT)))
    with pytest.MonkeyPatch.context() as patch, open_index(place) as index:
        patch.setattr(kept, "KEEP_FROM", KEEP_FROM)
        index.build_ann()
    return place


@pytest.fixture
def built(place: Path, built_once: Path) -> Path:
    """The same, free to be changed."""
    return Path(shutil.copytree(built_once, place, dirs_exist_ok=True))


def alike(rows: np.ndarray) -> np.ndarray:
    """Rows that are not in the collection, but like these."""
    moved = rows + np.random.default_rng(1).standard_normal(rows.shape).astype(np.float32) / 20
    return moved / np.linalg.norm(moved, axis=1, keepdims=True)


def recall(index: Index, queries: np.ndarray, k: int = 10) -> float:
    """The part of the exact answers that the approximate search gives, all of its similarities being right."""
    found, right = index.search(queries, k=k, exact=False), index.search(queries, k=k, exact=True)
    for ours, theirs in zip(found, right, strict=True):
        assert [hit.rank for hit in ours] == list(range(1, len(theirs) + 1))
        true = {hit.path: hit.similarity for hit in theirs}
        assert all(hit.similarity == true.get(hit.path, hit.similarity) for hit in ours)
        assert [hit.similarity for hit in ours] == sorted((hit.similarity for hit in ours), reverse=True)
    pairs = zip(found, right, strict=True)
    return float(np.mean([len({h.path for h in one} & {h.path for h in two}) / len(two) for one, two in pairs]))


@pytest.mark.parametrize("whitened", [False, True])
def test_it_finds_what_it_says_it_finds(place, rows, whitened) -> None:
    put(place, named(rows))
    with open_index(place) as index:
        if whitened:
            index.learn_whitening(dim=12)
        said = index.build_ann()
        assert index.info().approximate == said
        assert said.contents == COUNT
        assert min(said.recall, said.recall_of_others) >= 0.95
        assert said.probes < said.lists
        assert recall(index, alike(rows[:200])) > 0.9


def test_it_answers_with_relevant_pictures_and_leaves_out_what_was_taken_out(built, rows) -> None:
    with open_index(built) as index:
        queries = alike(rows[:20])
        liked = [[hit.digest for hit in hits[1:3]] for hits in index.search(rows[:20], k=3)]
        found = index.search(queries, k=10, relevant=liked, exact=False)
        right = index.search(queries, k=10, relevant=liked, exact=True)
        pairs = zip(found, right, strict=True)
        assert sum(len({h.path for h in one} & {h.path for h in two}) for one, two in pairs) > 0.9 * 200
        assert found != index.search(queries, k=10, exact=False)
        index.remove([found[0][0].digest])
        after = index.search(queries[:1], k=10, exact=False)[0]
        assert len(after) == 10
        assert found[0][0].digest not in {hit.digest for hit in after}


def test_it_answers_where_nobody_says_how_and_an_exact_search_when_asked(built, rows, monkeypatch) -> None:
    with open_index(built) as index:
        right = index.search(rows[:5], k=10, exact=True)
        one_hit = [(np.arange(1), np.ones(1))]
        monkeypatch.setattr(approximate.ApproximateSearch, "nearest", lambda *asked: one_hit * len(asked[1]))
        assert [len(hits) for hits in index.search(rows[:5], k=10)] == [1] * 5
        assert index.search(rows[:5], k=10, exact=True) == right
        for options in ({"k": 101}, {"expansion": "aqe"}, {"reranking": "reciprocal"}):
            chosen = {"k": 10, **options}
            assert index.search(rows[:5], **chosen) == index.search(rows[:5], exact=True, **chosen)
            with pytest.raises(InputError, match="up to 100 hits"):
                index.search(rows[:5], exact=False, **chosen)


def test_every_addition_and_deletion_is_seen_at_once(built, rows) -> None:
    added = alike(rows[:100])
    put(built, {f"/new/{at:03}.jpg": row for at, row in enumerate(added)})
    gone = sorted(named(rows))[::20]
    with open_index(built) as index:
        found = index.search(added, k=1, exact=False)
        assert [hits[0].path for hits in found] == [f"/new/{at:03}.jpg" for at in range(100)]
        index._store.drop(gone)
        for hits in index.search(rows[::6], k=50, exact=False):
            assert len(hits) == 50
            assert not {hit.path for hit in hits} & set(gone)
        assert recall(index, rows[:300]) > 0.95
    with open_index(built) as index:
        assert recall(index, rows[:300]) > 0.95


def test_a_query_whose_surroundings_are_gone_still_has_all_its_hits(built, rows, monkeypatch) -> None:
    with open_index(built) as index:
        near = index.search(rows[:1], k=500, exact=True)[0]
        gone = {hit.path for hit in near[:300]}
        index._store.drop(list(gone))
        monkeypatch.setattr(approximate, "nearest", lambda *_: pytest.fail("an exact search of all"))
        found = {hit.path for hit in index.search(rows[:1], k=20, exact=False)[0]}
        assert len(found) == 20
        assert not found & gone


def test_where_the_lists_hold_too_few_the_answer_is_exact(built, rows) -> None:
    with open_index(built) as index:
        index.search(rows[:1], k=10, exact=False)
        index._searchable.gallery().approximate._options["nprobe"] = 1
        assert index.search(rows[:3], k=100, exact=False) == index.search(rows[:3], k=100, exact=True)


def test_copies_are_found_in_order_of_path(place, rows) -> None:
    rows[100:130] = rows[7]
    put(place, named(rows))
    with open_index(place) as index:
        assert index.build_ann().contents == COUNT - 30
        assert index.search(rows[7:8], k=40, exact=False)[0][:31] == index.search(rows[7:8], k=40)[0][:31]
        copies = [hit.path for hit in index.search(rows[7:8], k=31, exact=False)[0]]
        assert copies == sorted(copies)
        assert len(copies) == 31


def test_a_blank_query_is_like_no_picture(built) -> None:
    blank = np.zeros((1, 24), np.float32)
    with open_index(built) as index:
        assert index.search(blank, k=5, exact=False) == index.search(blank, k=5, exact=True)


def test_a_threshold_leaves_out_what_is_less_similar(built, rows) -> None:
    with open_index(built) as index:
        hits = index.search(rows[:1], k=10, exact=False)[0]
        assert index.search(rows[:1], k=10, exact=False, threshold=hits[3].similarity)[0] == hits[:4]


def test_with_another_whitening_searches_are_exact_until_it_is_built_again(built, rows) -> None:
    with open_index(built) as index:
        index.learn_whitening(dim=12)
        assert index.info().approximate is None
        index.search(rows[:1], k=5)
        with pytest.raises(InputError, match="no approximate search in force"):
            index.search(rows[:1], k=5, exact=False)
        index.use_whitening(None)
        assert index.search(rows[:1], k=5, exact=False)[0]


def test_when_much_is_new_searches_are_exact(built, rows) -> None:
    put(built, named(synthetic_rows(COUNT // 2, seed=5), "new "))
    with open_index(built) as index:
        index.search(rows[:1], k=5)
        with pytest.raises(InputError, match="no approximate search in force"):
            index.search(rows[:1], k=5, exact=False)


def test_one_that_was_asked_for_is_built_anew_by_a_sync_however_few_the_pictures_are(
    built, rows, folder, monkeypatch
) -> None:
    monkeypatch.setattr(kept, "KEEP_FROM", 5000)
    with open_index(built) as index:
        index.learn_whitening(dim=12)
        assert "another whitening" in index.info().out_of_force
        assert "another whitening" in " ".join(str(index._searchable.gallery().why_exact).split())
    put(built, named(synthetic_rows(900, seed=5), "new "))
    with open_index(built) as index:
        assert index.sync(folder, describer=Unused).approximate.startswith(
            "approximate search of 3900 pictures built"
        )
        assert index.info().out_of_force == ""
        assert index.search(rows[:1], k=5, exact=False)[0]
        assert index.sync(folder, describer=Unused).approximate == ""


def test_the_info_says_why_it_is_out_of_force(built, rows, run) -> None:
    put(built, named(synthetic_rows(COUNT // 2, seed=5), "new "))
    with open_index(built) as index:
        assert "a fifth" in index.info().out_of_force
        with pytest.raises(InputError, match="a fifth of the pictures came since"):
            index.search(rows[:1], k=5, exact=False)
    assert "out of force: more than a fifth" in " ".join(run("info", "-i", built).stdout.split())
    next(built.glob("*.faiss")).unlink()
    with open_index(built) as index:
        assert "damaged" in index.info().out_of_force


def test_it_is_not_asked_for_first_dimensions(built, rows) -> None:
    with open_index(built) as index:
        index.learn_whitening(dim=12)
        index.build_ann()
        with pytest.raises(InputError, match=r"of all dimensions, .* dim=5"):
            index.search(rows[:1], k=5, dim=5, exact=False)


def test_more_hits_than_it_finds_well_are_searched_exactly_unless_it_is_asked_for(built, rows, monkeypatch) -> None:
    with open_index(built) as index:
        said = index.build_ann()
        own = recall(index, rows[:300], k=100)
        of_others = recall(index, unit_rows(rows[:300] + rows[300:600] + rows[600:900]), k=100)
        assert min(own, of_others) == pytest.approx(said.recall_at_100, abs=0.03)
        index.search(rows[:1], k=10)
        monkeypatch.setattr(index._searchable.gallery().approximate, "up_to", 20)
        called = []
        search = approximate.ApproximateSearch.nearest
        monkeypatch.setattr(
            approximate.ApproximateSearch, "nearest", lambda *asked: called.append(asked[2]) or search(*asked)
        )
        for k, exact in ((20, None), (21, None), (100, None), (100, False)):
            index.search(rows[:1], k=k, exact=exact)
        assert called == [20, 100]


@pytest.mark.parametrize(
    "body", ["raise ImportError('libgomp.so.1 is missing')", "raise AttributeError('no _ARRAY_API')"], ids=str
)
def test_a_broken_faiss_leaves_searches_exact_and_is_named_where_it_is_asked_for(
    built, rows, body, tmp_path, monkeypatch
) -> None:
    with open_index(built) as index:
        right = index.search(rows[:3], k=5, exact=True)
    (tmp_path / "faiss.py").write_text(body)
    monkeypatch.delitem(sys.modules, "faiss", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with open_index(built) as index:
        assert index.search(rows[:3], k=5) == right
        for asked in (lambda: index.search(rows[:3], k=5, exact=False), index.build_ann):
            with pytest.raises(InputError, match=r"does not load.*(libgomp|_ARRAY_API)"):
                asked()


@pytest.mark.parametrize("pattern", ["approximate.npz", "approximate-*.faiss"])
@pytest.mark.parametrize("cut", [True, False])
def test_a_damaged_file_is_ignored(built, rows, pattern, cut) -> None:
    file = next(built.glob(pattern))
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2] if cut else bytes(len(content)))
    with open_index(built) as index:
        assert index.info().approximate is None
        assert len(index.search(rows[:1], k=5)[0]) == 5


def test_one_bit_flipped_in_the_headers_of_the_table_changes_nothing(built) -> None:
    with open_index(built) as index:
        kind = kept.kind_of(index._store, None)
    file = built / "approximate.npz"
    content, whole = file.read_bytes(), approximate.Standing.of(built, kind).built
    for at in flips(content, 150):
        file.write_bytes(flipped(content, at))
        held = approximate.Standing.of(built, kind).built
        if held is not None:
            assert held.info == whole.info
            np.testing.assert_array_equal(held.digests, whole.digests)
            np.testing.assert_array_equal(held.shown, whole.shown)


@pytest.mark.parametrize("spoil", ["zeros", "ones", "flips"])
def test_damage_inside_the_file_of_faiss_is_seen(built, rows, spoil) -> None:
    damage(next(built.glob("*.faiss")), spoil, seed=0)
    with open_index(built) as index:
        assert index.info().approximate is None
        assert index.search(rows[:20], k=10) == index.search(rows[:20], k=10, exact=True)


@pytest.fixture(scope="module")
def blind_once(built_once: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, float]]]:
    """The same, whose damage nobody sees, and the similarities of its first rows. Not to be written to."""
    place = Path(shutil.copytree(built_once, tmp_path_factory.mktemp("blind") / "photos.cooc"))
    with pytest.MonkeyPatch.context() as patch, open_index(place) as index:
        patch.setattr(kept, "KEEP_FROM", KEEP_FROM)
        patch.setattr(approximate, "_digest", lambda *_, **__: "as it was")
        index.build_ann()
        found = index.search(synthetic_rows(COUNT)[:50], k=COUNT, exact=True)
    return place, [{hit.path: hit.similarity for hit in hits} for hits in found]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("spoil", ["zeros", "ones", "flips"])
def test_damage_that_is_not_seen_gives_no_picture_twice_and_no_error(
    blind_once, rows, spoil, seed, place, monkeypatch
) -> None:
    monkeypatch.setattr(approximate, "_digest", lambda *_, **__: "as it was")
    blind, similarities = blind_once
    shutil.copytree(blind, place, dirs_exist_ok=True)
    damage(next(place.glob("*.faiss")), spoil, seed=seed)
    with open_index(place) as index:
        assert index.info().approximate is not None
        for hits, right in zip(index.search(rows[:50], k=10), similarities, strict=True):
            assert len({hit.path for hit in hits}) == 10
            assert all(hit.similarity == right[hit.path] for hit in hits)


def test_of_a_large_file_some_blocks_are_read_for_a_search_and_all_of_it_for_the_info(
    built, rows, monkeypatch
) -> None:
    monkeypatch.setattr(approximate, "_READ_WHOLE", 0)
    monkeypatch.setattr(approximate, "spread", lambda *_: np.zeros(1, int))
    with open_index(built) as index:
        index.build_ann()
    file = next(built.glob("*.faiss"))
    content = file.read_bytes()
    middle = len(content) // 2
    file.write_bytes(content[:middle] + bytes(100) + content[middle + 100 :])
    with open_index(built) as index:
        assert index.search(rows[:1], k=5, exact=False)[0]
        assert index.info().approximate is None


def damage(file: Path, how: str, *, seed: int) -> None:
    """Spoils a twentieth of a file, somewhere behind its header."""
    content, random = bytearray(file.read_bytes()), np.random.default_rng(seed)
    length = len(content) // 20
    start = int(random.integers(len(content) // 5, len(content) - length))
    if how == "flips":
        for at in random.integers(start, start + length, 200):
            content[at] ^= 1 << int(random.integers(8))
    else:
        content[start : start + length] = (b"\0" if how == "zeros" else b"\xff") * length
    file.write_bytes(content)


def test_a_reader_goes_on_when_another_process_builds_it_anew(built, rows) -> None:
    with open_index(built) as reader:
        reader.search(rows[:1], k=101)  # its pictures are loaded, FAISS is not
        with open_index(built) as other:
            other.build_ann()
        assert len(reader.search(rows[:1], k=5)[0]) == 5


def test_without_faiss_searches_are_exact_and_the_index_says_so(built, rows, monkeypatch, run) -> None:
    with open_index(built) as index:
        right = index.search(rows[:3], k=5, exact=True)
    for home in (approximate, searchable):
        monkeypatch.setattr(home, "is_installed", lambda: False)
    monkeypatch.setitem(sys.modules, "faiss", None)
    with open_index(built) as index:
        assert index.search(rows[:3], k=5) == right
        assert not index.info().approximate.installed
        with pytest.raises(InputError, match=r"pip install \"coocnet\[ann\]\""):
            index.build_ann()
    assert "coocnet[ann]" in run("info", "-i", built).stdout


def test_info_shows_the_recall(built, run) -> None:
    with open_index(built) as index:
        said = index.info().approximate
    shown = run("info", "-i", built).stdout
    assert f"recall@10 {said.recall:.3f}" in " ".join(shown.split())


def test_few_pictures_need_none(place, rows) -> None:
    put(place, named(rows[:500]))
    with open_index(place) as index, pytest.raises(InputError, match="needs 1000 different pictures"):
        index.build_ann()


def test_rows_without_any_likeness_are_searched_exactly(place) -> None:
    random = np.random.default_rng(0).standard_normal((2000, 200))
    put(place, named((random / np.linalg.norm(random, axis=1, keepdims=True)).astype(np.float32)))
    with open_index(place) as index:
        with pytest.raises(InputError, match="half of its lists"):
            index.build_ann()
        assert index.info().approximate is None
        assert "half of its lists" in index.info().out_of_force
    assert not list(place.glob("approximate-*"))


def test_a_refusal_is_remembered_until_a_tenth_has_changed(place, folder, monkeypatch) -> None:
    random = np.random.default_rng(0).standard_normal((2400, 200))
    unlike = (random / np.linalg.norm(random, axis=1, keepdims=True)).astype(np.float32)
    put(place, named(unlike[:2000]))
    monkeypatch.setattr(approximate, "BUILD_FROM", 2000)

    def sync() -> str:
        with open_index(place, Recipe(whitening="none")) as index:
            return index.sync(folder, describer=Unused).approximate

    assert "half of its lists" in sync()
    assert sync() == ""
    put(place, named(unlike[2000:2100], "new "))
    assert sync() == ""
    put(place, named(unlike[2100:], "newer "))
    assert "half of its lists" in sync()


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder of which the index has nothing, to synchronise with."""
    (tmp_path / "photos").mkdir()
    return tmp_path / "photos"


def test_a_sync_builds_one_for_a_large_collection_and_again_when_much_has_changed(
    place, rows, folder, monkeypatch
) -> None:
    put(place, named(rows))
    told = []

    def sync() -> str:
        with open_index(place, Recipe(whitening="none")) as index:
            return index.sync(folder, describer=Unused, progress=told.append).approximate

    assert sync() == ""
    assert told == []
    monkeypatch.setattr(approximate, "BUILD_FROM", 2000)
    assert sync().startswith("approximate search of 3000 pictures built, recall@10 0.9")
    assert {(one.what, one.total) for one in told} == {("Building an approximate search", 3000)}
    assert sync() == ""
    put(place, named(synthetic_rows(200, seed=5), "new "))
    assert sync() == ""
    put(place, named(synthetic_rows(200, seed=6), "newer "))
    assert sync().startswith("approximate search of 3400 pictures built")


def test_one_can_be_built_with_the_command(place, rows, folder, run) -> None:
    put(place, named(rows))
    done = run("index", folder, "-i", place, "--ann", "--storage", "float16", "--whitening", "none")
    assert "recall@10" in done.stderr
    assert "rows kept as float16" in " ".join(run("info", "-i", place).stdout.split())
    with open_index(place) as index:
        assert index.search(rows[:1], k=5, exact=False)[0]


def test_the_command_builds_none_where_one_is_in_force(place, rows, folder, run) -> None:
    put(place, named(rows))
    run("index", folder, "-i", place, "--ann", "--whitening", "none")
    before = next(place.glob("*.faiss"))
    assert "in force already" in run("index", folder, "-i", place, "--ann").stderr
    assert before.exists()


def test_the_command_reports_what_was_done_before_it_says_that_the_pictures_are_too_few(
    place, rows, folder, run
) -> None:
    put(place, named(rows[:500]))
    done = run("index", folder, "-i", place, "--ann", "--whitening", "none")
    assert "holds 500 pictures" in " ".join(done.stdout.split())
    assert "needs 1000 different pictures" in " ".join(done.stderr.split())
    assert done.returncode == 1


def test_without_faiss_the_command_refuses_before_it_does_anything(tmp_path, folder, run, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    done = run("index", folder, "-i", tmp_path / "new.cooc", "--ann")
    assert 'pip install "coocnet[ann]"' in " ".join(done.stderr.split())
    assert done.returncode == 1
    assert not (tmp_path / "new.cooc").exists()


def test_faiss_and_torch_are_loaded_only_where_they_are_used(built) -> None:
    code = (
        "import sys, numpy as np, coocnet; from coocnet.index import kept; kept.KEEP_FROM = 100\n"
        f"index = coocnet.open_index({str(built)!r}); row = np.eye(1, 24, dtype=np.float32)\n"
        "index.info(); index.search(row, k=5, exact=True); assert 'faiss' not in sys.modules\n"
        "index.search(row, k=5); assert 'faiss' in sys.modules and 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_rows_kept_as_float16_can_be_searched_approximately(built, rows) -> None:
    with open_index(built) as index:
        index.use_storage("float16")
        assert recall(index, rows[:100]) > 0.95
        index.build_ann()
        assert recall(index, rows[:100]) > 0.95
