"""Ground truth as others write it, turned into ours."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from coocnet.data.benchmarks import BENCHMARKS, checks, lookup
from coocnet.data.benchmarks.foreign import from_table, from_vgg_text, holidays, read_table, ukbench
from coocnet.data.benchmarks.manifest import from_manifest
from coocnet.data.benchmarks.training import TrainingPairs, training_pairs
from coocnet.errors import BenchmarkError, InputError
from coocnet.evaluate import GroundTruth, Query, measure_named, score

IMAGES = [f"paris_defense_{n:06d}" for n in range(6)]
CLASSIC = {
    "imlist": IMAGES,
    "qimlist": [IMAGES[0], IMAGES[3]],
    "gnd": [
        {"bbx": [1.0, 2.0, 30.0, 40.0], "ok": [0, 1], "junk": [2]},
        {"bbx": [5, 6, 7, 8], "ok": [3], "junk": []},
    ],
}
REVISITED = {
    "imlist": IMAGES,
    "qimlist": ["q1", "q2"],
    "gnd": [
        {"bbx": [1, 2, 3, 4], "easy": [0], "hard": [1, 2], "junk": [3]},
        {"bbx": [1, 2, 3, 4], "easy": [], "hard": [5], "junk": []},
    ],
}


def table(found: object, labelling: str = "plain", measures: tuple[str, ...] = ("map",)) -> GroundTruth:
    return from_table(found, name="some", labelling=labelling, measures=measures, where="gnd.pkl")


def message(found: object, labelling: str = "plain") -> str:
    with pytest.raises(BenchmarkError, match=r"gnd\.pkl") as caught:
        table(found, labelling)
    return str(caught.value)


# ---- gnd_<name>.pkl ----


def test_a_classic_ground_truth_by_hand() -> None:
    truth = table(CLASSIC)
    assert truth.images == tuple(IMAGES)
    assert truth.queries == (
        Query(IMAGES[0], (1.0, 2.0, 30.0, 40.0), {"ok": frozenset({0, 1}), "junk": frozenset({2})}),
        Query(IMAGES[3], (5.0, 6.0, 7.0, 8.0), {"ok": frozenset({3}), "junk": frozenset()}),
    )
    assert truth.queries_in_database() == {"ok": 2}


def test_a_revisited_ground_truth_by_hand() -> None:
    truth = table(REVISITED, "revisited", ("map", "mp@5"))
    assert truth.setups == ("easy", "medium", "hard")
    first, second = truth.truths("medium")
    assert first is not None
    assert (first.positives, first.junk) == ({0, 1, 2}, {3})
    assert second is not None
    assert truth.truths("easy")[1] is None


def test_pickle_json_and_arrays_say_the_same(tmp_path: Path) -> None:
    arrays = {
        **CLASSIC,
        "gnd": [
            {"bbx": np.array(entry["bbx"]), **{label: np.array(entry[label], int) for label in ("ok", "junk")}}
            for entry in CLASSIC["gnd"]
        ],
    }
    (tmp_path / "gnd.pkl").write_bytes(pickle.dumps(CLASSIC, 2))
    (tmp_path / "gnd2.pkl").write_bytes(pickle.dumps(arrays, 2))
    (tmp_path / "gnd.json").write_text(json.dumps(CLASSIC))
    read = [table(read_table(tmp_path / name)) for name in ("gnd.pkl", "gnd2.pkl", "gnd.json")]
    assert read == [table(CLASSIC)] * 3
    assert GroundTruth.from_json(read[0].to_json()) == read[0]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"imlist": []}, "'imlist' is not a list of names"),
        ({"imlist": [*IMAGES[:5], IMAGES[0]]}, "names a picture twice"),
        ({"imlist": [*IMAGES[:5], 7]}, "no name: 7"),
        ({"imlist": [*IMAGES[:5], "a\x1b"]}, "no name"),
        ({"qimlist": None}, "'qimlist' is not a list of names"),
        ({"gnd": []}, "not a list of 2 entries"),
        ({"gnd": [1, 2]}, "is no table"),
        ({"gnd": [{"bbx": None, "ok": [6], "junk": []}] * 2}, "position 6 lies outside the 6 pictures"),
        ({"gnd": [{"bbx": None, "ok": [-1], "junk": []}] * 2}, "position -1"),
        ({"gnd": [{"bbx": None, "ok": ["1"], "junk": []}] * 2}, "no whole number: '1'"),
        ({"gnd": [{"bbx": None, "ok": [1.5], "junk": []}] * 2}, "no whole number: 1.5"),
        ({"gnd": [{"bbx": None, "ok": [True], "junk": []}] * 2}, "no whole number"),
        ({"gnd": [{"bbx": None, "ok": [float("nan")], "junk": []}] * 2}, "no whole number"),
        ({"gnd": [{"bbx": None, "ok": 1, "junk": []}] * 2}, "not a list of whole numbers"),
        ({"gnd": [{"bbx": None, "ok": [1]}] * 2}, "has no 'junk'"),
        ({"gnd": REVISITED["gnd"]}, "has no 'ok'"),
        ({"gnd": [{"bbx": [1, 2, 3], "ok": [1], "junk": []}] * 2}, "four numbers"),
        ({"gnd": [{"bbx": [1, 2, "3", 4], "ok": [1], "junk": []}] * 2}, "four numbers"),
        ({"gnd": [{"bbx": [1, 2, 10**400, 4], "ok": [1], "junk": []}] * 2}, "four numbers"),
        ({"gnd": [{"bbx": [1, 2, float("nan"), 4], "ok": [1], "junk": []}] * 2}, "four numbers"),
        ({"gnd": [{"bbx": [3, 2, 1, 4], "ok": [1], "junk": []}] * 2}, "left of"),
    ],
)
def test_what_is_wrong_with_a_ground_truth_is_quoted(change: dict[str, object], says: str) -> None:
    assert says in message({**CLASSIC, **change})


def test_lists_without_end_end_in_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    endless: list[object] = []
    endless.append(endless)
    for change in ({"imlist": endless}, {"gnd": [endless, endless]}, {"gnd": [{"ok": endless, "junk": []}] * 2}):
        assert "is no" in message({**CLASSIC, **change})
    monkeypatch.setattr(checks, "MAX_POSITIONS", 1000)
    shared = [0] * 300
    assert "more than 1,000 positions" in message({**CLASSIC, "gnd": [{"ok": shared, "junk": shared}] * 2})


def test_another_protocol_is_told_apart() -> None:
    assert "another protocol" in message(CLASSIC, "revisited")
    assert "is a list, not a table" in message([1])


@pytest.mark.parametrize(("name", "images"), [("oxford5k", 5063), ("paris6k", 6392)])
def test_the_real_ground_truth_is_read(name: str, images: int, real_data: Path) -> None:
    path = real_data / "ground_truth" / f"gnd_{name}.json"
    real = json.loads(path.read_text())
    truth = table(read_table(path))
    assert (len(truth.images), len(truth.queries)) == (images, 55)
    assert table(pickle.loads(pickle.dumps(real))) == truth
    assert truth.queries_in_database() == {"ok": 55}
    if name == "paris6k":
        assert not lookup(name).pictures.damaged & set(truth.images)


# ---- text files of the Oxford and Paris buildings ----


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    files = {
        "all_souls_1_query.txt": "oxc1_all_souls_000013 136.5 34.1 648.5 955.7\n",
        "all_souls_1_good.txt": "all_souls_000026\nall_souls_000013\n",
        "all_souls_1_ok.txt": "oxford_002904\n",
        "all_souls_1_junk.txt": "all_souls_000057\n",
        "radcliffe_2_query.txt": "oxc1_oxford_002904 1 2 3 4",
        "radcliffe_2_good.txt": "",
        "radcliffe_2_ok.txt": "oxford_002904",
        "radcliffe_2_junk.txt": "",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    return tmp_path


NAMES = ["all_souls_000013", "all_souls_000026", "all_souls_000057", "oxford_002904"]


def test_the_text_files_by_hand(texts: Path) -> None:
    truth = from_vgg_text(texts, name="oxford5k", images=NAMES)
    assert truth.queries == (
        Query(NAMES[0], (136.5, 34.1, 648.5, 955.7), {"ok": frozenset({0, 1, 3}), "junk": frozenset({2})}),
        Query(NAMES[3], (1.0, 2.0, 3.0, 4.0), {"ok": frozenset({3}), "junk": frozenset()}),
    )


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("all_souls_1_good.txt", "all_souls_999999", "'all_souls_999999', which is not in the database"),
        ("all_souls_1_query.txt", "oxc1_all_souls_000013 1 2 3", "a name and four numbers"),
        ("all_souls_1_query.txt", "oxc1_all_souls_000013 1 2 three 4", "'three'"),
        ("all_souls_1_query.txt", "oxc1_all_souls_000013 1 2 nan 4", "four numbers"),
        ("all_souls_1_junk.txt", None, "all_souls_1_junk.txt"),
    ],
)
def test_what_is_wrong_with_a_text_file_is_quoted(name: str, text: str | None, says: str, texts: Path) -> None:
    (texts / name).unlink()
    if text is not None:
        (texts / name).write_text(text)
    with pytest.raises(BenchmarkError, match=says):
        from_vgg_text(texts, name="oxford5k", images=NAMES)


def test_a_folder_without_text_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="no file"):
        from_vgg_text(tmp_path, name="oxford5k", images=NAMES)


# ---- Holidays and UKBench ----


def test_holidays_has_500_groups_whose_first_is_the_query() -> None:
    truth = holidays("holidays")
    assert (len(truth.images), len(truth.queries)) == (1491, 500)
    assert len(set(truth.images)) == 1491
    for query in truth.queries:
        assert int(query.image) % 100 == 0
        group = [place for place, image in enumerate(truth.images) if image[:4] == query.image[:4]]
        own = truth.images.index(query.image)
        assert query.labels == {"ok": frozenset(group) - {own}, "junk": frozenset({own})}
        assert query.labels["ok"]
        assert [truth.images[place] for place in group] == [f"{query.image[:4]}{n:02d}" for n in range(len(group))]


def test_the_names_of_holidays_are_those_in_its_archives(real_data: Path) -> None:
    names = (real_data / "ground_truth" / "holidays_names.txt").read_text().split()
    assert holidays("holidays").images == tuple(sorted(Path(name).stem for name in names))


def test_ukbench_shows_each_object_in_four_pictures() -> None:
    truth = ukbench("ukbench", 10_200)
    assert (len(truth.images), len(truth.queries), truth.images[-1]) == (10_200, 10_200, "ukbench10199")
    for number in (0, 3, 4, 6, 10_199):
        first = number // 4 * 4
        assert truth.queries[number].labels == {"ok": frozenset(range(first, first + 4))}
    perfect = [[*range(n // 4 * 4, n // 4 * 4 + 4)] for n in range(8)]
    assert score(np.array(perfect), ukbench("ukbench", 8))[0].interval.mean == 4


# ---- a folder with a manifest ----


def manifest(tmp_path: Path, text: str, encoding: str = "utf-8") -> GroundTruth:
    (tmp_path / "manifest.csv").write_text(text, encoding=encoding)
    return from_manifest(tmp_path / "manifest.csv", name="folder", measures=("map",))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_manifest_by_hand(encoding: str, tmp_path: Path) -> None:
    text = """image,instance,role,x1,y1,x2,y2
a/one.jpg,tower,database,1,2,3,4
a/two.jpg,tower,both
three.jpg,,database
a/one.jpg,café,database
four.jpg,tower,query,10,20.5,30,40
four.jpg,café,query,,,,
"""
    truth = manifest(tmp_path, text, encoding)
    assert truth.images == ("a/one.jpg", "a/two.jpg", "three.jpg")
    assert truth.queries == (
        Query("a/two.jpg", None, {"ok": frozenset({0}), "junk": frozenset({1})}),
        Query("four.jpg", (10.0, 20.5, 30.0, 40.0), {"ok": frozenset({0, 1}), "junk": frozenset()}),
        Query("four.jpg", None, {"ok": frozenset({0}), "junk": frozenset()}),
    )


HEAD = "image,instance,role,x1,y1,x2,y2\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("image,role\na.jpg,both\n", "there is no instance"),
        ("", "there is no image"),
        (HEAD, "0 database pictures and 0 queries"),
        (HEAD + "a.jpg,t,database\n", "0 queries"),
        (HEAD + "a.jpg,t,query\n", "0 database pictures"),
        (HEAD + "a.jpg,t,both\nb.jpg,t,db\n", "line 3: a role is one of database, query, both, got 'db'"),
        (HEAD + "a.jpg,,both\n", "line 2: the query 'a.jpg' has no instance"),
        (HEAD + ",t,both\n", "line 2: an image is a path"),
        (HEAD + "../a.jpg,t,both\n", "a path below the folder"),
        (HEAD + "/a.jpg,t,both\n", "a path below the folder"),
        (HEAD + "C:\\a.jpg,t,both\n", "a path below the folder"),
        (HEAD + "a.jpg,t,query,1,2,3\n", "line 2: a box is four numbers"),
        (HEAD + "a.jpg,t,query,1,2,3,x\n", "line 2: a box is four numbers, got 'x'"),
        (HEAD + "a.jpg,t,query,3,2,1,4\n", "line 2: in a box x1 is left"),
        (HEAD + "a.jpg,t,both\na.jpg,t,both\n", "line 3: the query 'a.jpg' is there twice"),
        (HEAD + "a" * 200_000 + ",t,both\n", "field larger"),
    ],
)
def test_what_is_wrong_with_a_manifest_is_quoted_with_its_line(text: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError) as caught:
        manifest(tmp_path, text)
    assert says in str(caught.value)
    assert "manifest.csv" in str(caught.value)


# ---- pairs to train on ----


PAIRS = {"cids": ["c0", "c1", "c2", "c3"], "cluster": [0, 0, 1, 1], "qidxs": [0, 2], "pidxs": np.array([1, 3])}


def test_pairs_to_train_on_by_hand() -> None:
    expected = TrainingPairs(("c0", "c1", "c2", "c3"), (0, 0, 1, 1), (0, 2), (1, 3))
    pairs = {**PAIRS, "pidxs": [1, 3]}
    assert training_pairs({"train": pairs, "val": {}}, split="train") == expected
    bare = {key: value for key, value in pairs.items() if key != "cluster"}
    assert training_pairs(bare, split="whiten") == TrainingPairs(expected.images, (), (0, 2), (1, 3))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"cids": None}, "'cids'"),
        ({"cluster": [0]}, "1 entries for 4 pictures"),
        ({"qidxs": [0]}, "'qidxs' has 1 entries and 'pidxs' 2"),
        ({"qidxs": [0, 4]}, "position 4 lies outside the 4 pictures"),
    ],
)
def test_what_is_wrong_with_training_pairs_is_quoted(change: dict[str, object], says: str) -> None:
    with pytest.raises(BenchmarkError, match=says):
        training_pairs({**PAIRS, "pidxs": [1, 3], **change}, split="whiten")
    with pytest.raises(BenchmarkError, match="no table 'val'"):
        training_pairs({"train": PAIRS}, split="val")


# ---- the table ----


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_says_where_it_comes_from(name: str) -> None:
    source = lookup(name)
    archives = (*(source.pictures.archives if source.pictures else ()), *source.truth)
    for archive in archives:
        assert bool(archive.urls) != bool(archive.by_hand)
        assert all(url.startswith(("http://", "https://")) and url.endswith(archive.file) for url in archive.urls)
    assert len({archive.file for archive in archives}) == len(archives)
    assert bool(archives) == (source.kind != "manifest")
    for measure in source.measures:
        measure_named(measure)


def test_an_unknown_benchmark_lists_those_there_are() -> None:
    with pytest.raises(InputError, match="rparis6k"):
        lookup("rparis")
    assert len(lookup("paris6k").pictures.damaged) == 20
    assert len(lookup("revisitop1m").pictures.archives) == 100
