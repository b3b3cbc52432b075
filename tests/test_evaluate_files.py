"""Files of others, result files, and the two commands of evaluation."""

from __future__ import annotations

import builtins
import getpass
import hashlib
import json
import platform
import struct
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
import scipy.sparse

from coocnet.errors import InputError
from coocnet.evaluate import (
    NOT_KNOWN,
    OVERLAPS,
    Benchmark,
    GroundTruth,
    Query,
    Result,
    compare,
    made_by_recipe,
    made_elsewhere,
    manifest,
    overlap_notes,
    picture_set,
    read_descriptors,
    read_rankings,
    score,
    score_rows,
)
from coocnet.recipe import Recipe
from coocnet.whitening import unit_rows

N, Q, D = 12, 3, 5


@pytest.fixture
def truth() -> GroundTruth:
    queries = tuple(
        Query(
            f"q{i}",
            None,
            {"easy": frozenset({i} if i else ()), "hard": frozenset({i + 3, i + 6}), "junk": frozenset({11})},
        )
        for i in range(Q)
    )
    return GroundTruth("small", "revisited", tuple(f"i{i}" for i in range(N)), queries, ("map", "mp@5"))


@pytest.fixture
def rows() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(3)
    return tuple(unit_rows(random.normal(size=(n, D)).astype(np.float32)) for n in (N, Q))


def save(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    """The arrays in a file of the kind that the ending says; ``.v73.mat`` as MATLAB 7.3 lays it out."""
    if path.name.endswith(".v73.mat"):
        with h5py.File(path, "w", userblock_size=512) as file:
            for name, array in arrays.items():
                file[name] = array.T
        with path.open("r+b") as file:
            file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\0\2IM")
    elif path.suffix == ".mat":
        scipy.io.savemat(path, arrays, do_compression=path.name.startswith("small"))
    elif path.suffix in {".h5", ".hdf5"}:
        with h5py.File(path, "w") as file:
            for name, array in arrays.items():
                file[name] = array
    elif path.suffix == ".npz":
        np.savez(path, **arrays)
    else:
        np.save(path, next(iter(arrays.values())))
    return path


KINDS = ["a.npz", "a.mat", "small.mat", "a.v73.mat", "a.h5", "a.hdf5"]


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("columns", [False, True])
def test_descriptors_are_read_from_every_kind_of_file_in_both_layouts(name, columns, truth, rows, tmp_path) -> None:
    arrays = {"X": rows[0], "Q": rows[1], "something": np.zeros(4)}
    path = save(tmp_path / name, {key: array.T if columns else array for key, array in arrays.items()})
    found = read_descriptors(path, truth)
    assert np.array_equal(found.database, rows[0])
    assert np.array_equal(found.queries, rows[1])
    assert not found.from_database
    assert score_rows(found.database, found.queries, truth) == score_rows(*rows, truth)


@pytest.mark.parametrize("name", ["a.npy", *KINDS])
def test_a_file_of_one_array_needs_no_name(name, truth, rows, tmp_path) -> None:
    database = save(tmp_path / name, {"mine": rows[0]})
    queries = save(tmp_path / f"queries-{name}", {"whatever": rows[1].T})
    found = read_descriptors(database, truth, queries=queries)
    assert np.array_equal(found.database, rows[0])
    assert np.array_equal(found.queries, rows[1])


def test_what_else_a_matlab_file_holds_is_passed_over(truth, rows, tmp_path) -> None:
    others = {
        "X": rows[0],
        "Q": rows[1].astype(">f8"),
        "cfg": {"name": "theirs", "dim": 5},
        "names": np.array(["a", "b"], object),
        "flag": np.array([True]),
        "sparse": scipy.sparse.csc_array(np.eye(4)),
        "complex": np.ones(3) * 1j,
        "empty": np.empty((0, 0)),
        "text": "some text",
    }
    found = read_descriptors(save(tmp_path / "a.mat", others), truth)
    assert np.array_equal(found.database, rows[0])
    assert np.array_equal(found.queries, rows[1])
    with pytest.raises(InputError, match=r"'empty'.*ranks or rankings") as refused:
        read_rankings(tmp_path / "a.mat", truth)
    assert "complex" not in str(refused.value)


@pytest.mark.parametrize(("code", "stored"), [(2, ">u1"), (3, ">i2"), (9, ">f8")])
def test_a_matlab_file_of_big_endians_and_short_numbers_is_read(code, stored, truth, tmp_path) -> None:
    """Laid out by hand: MATLAB stores doubles that are whole as bytes, and little things within their tag."""
    ranks = np.array([range(N)] * Q)
    content = ranks.astype(stored).tobytes("F")
    matrix = b"".join(
        [
            struct.pack(">IIII", 6, 8, 6, 0),  # flags: double
            struct.pack(">IIii", 5, 8, Q, N),
            struct.pack(">II8s", 1, 5, b"ranks"),
            struct.pack(">II", code, len(content)) + content + b"\0" * (-len(content) % 8),
        ]
    )
    path = tmp_path / "a.mat"
    path.write_bytes(b"by hand".ljust(124) + b"\1\0MI" + struct.pack(">II", 14, len(matrix)) + matrix)
    assert np.array_equal(read_rankings(path, truth), ranks)


@pytest.mark.parametrize("name", ["a.npy", *KINDS])
@pytest.mark.parametrize("columns", [False, True])
@pytest.mark.parametrize("kind", [np.int32, np.uint16, np.float64])
def test_rankings_are_read_from_every_kind_of_file_in_both_layouts(name, columns, kind, truth, tmp_path) -> None:
    ranks = np.stack([np.random.default_rng(i).permutation(N) for i in range(Q)]).astype(kind)
    path = save(tmp_path / name, {"ranks": ranks.T if columns else ranks})
    found = read_rankings(path, truth)
    assert np.array_equal(found, ranks)
    assert score(found, truth) == score(ranks.astype(int), truth)


def test_a_square_of_rankings_is_read_by_what_a_ranking_is(truth, tmp_path) -> None:
    first = np.array([[0, 1, 2], [1, 0, 3], [0, 4, 2]])
    assert np.array_equal(read_rankings(save(tmp_path / "a.npy", {"a": first}), truth), first)
    assert np.array_equal(read_rankings(save(tmp_path / "b.npy", {"a": first.T}), truth), first)
    either = np.array([[0, 1, 2], [1, 2, 0], [2, 0, 1]])
    path = save(tmp_path / "c.npy", {"a": either})
    with pytest.raises(InputError, match=r"\(3, 3\).*either way.*rows or columns"):
        read_rankings(path, truth)
    assert np.array_equal(read_rankings(path, truth, layout="rows"), either)
    assert np.array_equal(read_rankings(path, truth, layout="columns"), either.T)
    neither = save(tmp_path / "d.npy", {"a": np.zeros((Q, Q), int)})
    with pytest.raises(InputError, match=r"either way"):
        read_rankings(neither, truth)
    with pytest.raises(InputError, match="'diagonal'"):
        read_rankings(path, truth, layout="diagonal")


def test_square_descriptors_need_a_layout(truth, tmp_path) -> None:
    square, queries = (save(tmp_path / f"{n}.npy", {"a": np.eye(N)[:n]}) for n in (N, Q))
    with pytest.raises(InputError, match=r"\(12, 12\)"):
        read_descriptors(square, truth, queries=queries)
    assert read_descriptors(square, truth, queries=queries, layout="rows").queries.shape == (Q, N)


@pytest.mark.parametrize("name", ["a.mat", "a.v73.mat"])
def test_a_layout_is_that_which_matlab_shows(name, truth, tmp_path) -> None:
    square = np.random.default_rng(0).normal(size=(N, N))
    path = save(tmp_path / name, {"X": square, "Q": square[:, :Q]})
    found = read_descriptors(path, truth, layout="columns")
    assert np.array_equal(found.database, square.T)
    assert np.array_equal(found.queries, square[:, :Q].T)


def test_queries_that_are_pictures_of_the_database_need_no_file(rows, tmp_path) -> None:
    queries = tuple(Query(name, None, {"ok": frozenset({1})}) for name in ("i7", "i2"))
    truth = GroundTruth("t", "plain", tuple(f"i{i}" for i in range(N)), queries)
    path = save(tmp_path / "a.npy", {"a": rows[0]})
    found = read_descriptors(path, truth)
    assert found.from_database
    assert np.array_equal(found.queries, rows[0][[7, 2]])


def test_distractors_have_to_be_announced(truth, rows, tmp_path) -> None:
    path = save(tmp_path / "a.npz", {"X": np.concatenate([rows[0], -rows[0]]), "Q": rows[1]})
    with pytest.raises(InputError, match=r"\(24, 5\).*12 descriptors"):
        read_descriptors(path, truth)
    assert len(read_descriptors(path, truth, distractors=N).database) == 2 * N


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.npy", {"a": np.zeros((7, D))}, r"a\.npy.*\(7, 5\).*12 descriptors"),
        ("a.npy", {"a": np.zeros((N, D, 1))}, r"\(12, 5, 1\)"),
        ("a.npy", {"a": np.zeros((N, D), complex)}, "complex"),
        ("a.npy", {"a": np.array([{}] * N)}, "Python objects"),
        ("a.npz", {"a": np.array([{}] * N)}, "Object arrays"),
        ("a.mat", {"X": np.array([["text"]])}, "'X'|none"),
        ("a.npz", {"a": np.zeros((N, D)), "b": np.zeros((Q, D))}, "'a', 'b'.*X or database"),
        ("a.npy", {"a": np.zeros((N, D))}, "holds no queries.*'q0'"),
    ],
)
def test_files_of_something_else_are_refused(name, content, says, truth, tmp_path) -> None:
    with pytest.raises(InputError, match=says):
        read_descriptors(save(tmp_path / name, content), truth)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (np.zeros((Q, N)) + 0.5, "whole numbers"),
        (np.full((Q, N), np.nan), "whole numbers"),
        (np.zeros((Q, N + 1), int), r"\(3, 13\)"),
    ],
)
def test_rankings_of_something_else_are_refused(content, says, truth, tmp_path) -> None:
    with pytest.raises(InputError, match=says):
        read_rankings(save(tmp_path / "a.npy", {"a": content}), truth)


@pytest.mark.parametrize("name", ["a.npy", *KINDS])
def test_damaged_files_are_refused_by_name(name, truth, rows, tmp_path) -> None:
    path = save(tmp_path / name, {"X": rows[0], "Q": rows[1]})
    whole = path.read_bytes()
    for length in range(0, len(whole) - 1, max(1, len(whole) // 40)):
        path.write_bytes(whole[:length])
        try:
            read_descriptors(path, truth)
        except InputError as error:
            assert path.name in str(error)  # noqa: PT017 - a cut behind the last array is no damage
    path.write_bytes(b"something else entirely")
    with pytest.raises(InputError, match=name):
        read_descriptors(path, truth)
    path.unlink()
    with pytest.raises(InputError, match="No such file"):
        read_descriptors(path, truth)
    with pytest.raises(InputError, match=r"\.npy, \.npz, \.mat"):
        read_descriptors(tmp_path / "a.txt", truth)


@pytest.mark.parametrize("name", ["a.v73.mat", "a.h5"])
def test_a_missing_extra_is_named(name, truth, rows, tmp_path, monkeypatch) -> None:
    path, usual = save(tmp_path / name, {"X": rows[0], "Q": rows[1]}), builtins.__import__

    def without(module, *rest):
        if module == "h5py":
            raise ImportError(module)
        return usual(module, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=r"coocnet\[evaluate\]"):
        read_descriptors(path, truth)


# ------------------------------------------------------------------------------------------- results


def result_of(truth: GroundTruth, rankings, **said) -> Result:
    made = {"rows": {"made elsewhere": []}, "seconds": 1.0, **said}
    return Result(Benchmark.of(truth), score(rankings, truth), manifest(truth, **made))


@pytest.fixture
def rankings() -> list[list[int]]:
    return [np.random.default_rng(i).permutation(N).tolist() for i in range(Q)]


def test_a_result_comes_back_from_its_file(truth, rankings, tmp_path) -> None:
    result = result_of(truth, rankings, tuned_on=["nothing"], pictures=picture_set([("i0", "ab")]))
    path = tmp_path / "a.json"
    result.save(path)
    assert Result.load(path) == result
    document = json.loads(path.read_text())
    assert document["kind"] == "coocnet-result-1"
    assert document["benchmark"]["sha256"] == truth.digest()
    easy = document["scores"][0]
    assert (easy["setup"], easy["measure"], easy["queries"], easy["left_out"]) == ("easy", "map", 2, 1)
    assert easy["values"][0] is None
    assert easy["low"] <= easy["mean"] <= easy["high"]


def test_a_manifest_says_what_is_not_known_and_names_no_place(truth, tmp_path) -> None:
    path = tmp_path / "theirs.npy"
    path.write_bytes(b"rows")
    said = manifest(truth, rows=made_elsewhere(path), seconds=2.0)
    digest = hashlib.sha256(b"rows").hexdigest()
    assert said["rows"] == {"made elsewhere": [{"file": "theirs.npy", "sha256": digest}]}
    for field in ("pictures", "query_crop", "whitening", "expansion", "reranking"):
        assert said[field] == NOT_KNOWN
    assert said["tuned_on"] == said["trained_on"] == "nothing declared"
    assert said["queries_in_database"] == {"outside": Q}
    text = json.dumps(said)
    assert str(tmp_path) not in text
    assert platform.node() not in text
    assert f"/{getpass.getuser()}" not in text


def test_a_recipe_in_a_manifest_names_weights_without_their_folder() -> None:
    recipe = Recipe(weights="/somebody/at home/w 1.safetensors")
    said = made_by_recipe(recipe.to_toml(), recipe.fingerprint(), "ab")
    assert "somebody" not in said["recipe"]
    assert Recipe.from_toml(said["recipe"]) == recipe.replace(weights="w 1.safetensors")
    named = Recipe()
    assert made_by_recipe(named.to_toml(), "", "")["recipe"] == named.to_toml()
    with pytest.raises(InputError, match="TOML"):
        made_by_recipe("= =", "", "")


def test_a_set_of_pictures_is_known_by_names_and_contents_in_any_order() -> None:
    two = [("b", "02"), ("a", "01")]
    assert picture_set(two) == picture_set(two[::-1])
    assert picture_set(two)["count"] == 2
    for other in ([("a", "01")], [("a", "02"), ("b", "01")], [("a", "01"), ("c", "02")]):
        assert picture_set(other)["sha256"] != picture_set(two)["sha256"]


def test_known_overlaps_are_said() -> None:
    assert all(one.source for one in OVERLAPS)
    assert "36 of the 70" in overlap_notes("roxford5k", ["GLDv2-clean"])[0]["note"]
    assert "38 of the 70" in overlap_notes("RParis6k", ["gldv2-clean"])[0]["note"]
    assert [one["note"] for one in overlap_notes("rparis6k", ["sfm-120k"])] == ["shares no query landmark"]
    assert overlap_notes("roxford5k", ["my own"]) == [{"training_set": "my own", "note": NOT_KNOWN, "source": ""}]
    assert len(overlap_notes("roxford5k")) == 3
    assert overlap_notes("ukbench") == NOT_KNOWN


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d.pop("scores"), "not a result.*'scores'"),
        (lambda d: d.update(kind="coocnet-result-2"), "coocnet-result-2"),
        (lambda d: d["scores"][1].update(mean=0.99), "0.99"),
        (lambda d: d["scores"][0]["values"].pop(0), "3 queries.*2 values"),
        (lambda d: d["scores"][1].update(values=["x"] * 3), "could not convert"),
        (lambda d: d["scores"][1].update(values=[float("nan")] * 3), "finite"),
        (lambda d: d.update(benchmark=[]), "not a result"),
    ],
)
def test_a_result_that_was_changed_or_is_none_is_refused(change, says, truth, rankings, tmp_path) -> None:
    document = json.loads(json.dumps(result_of(truth, rankings).to_document()))
    change(document)
    path = tmp_path / "a.json"
    path.write_text(json.dumps(document))
    with pytest.raises(InputError, match=says) as refused:
        Result.load(path)
    assert "a.json" in str(refused.value)
    for content in (b"", b"[]", b"1", b"\xff"):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"a\.json"):
            Result.load(path)
    with pytest.raises(InputError, match="JSON can hold"):
        Result(Benchmark.of(truth), (), {"a": object()}).save(path)


def test_comparing_pairs_the_queries_and_says_what_differs(truth, rankings) -> None:
    perfect = [[*sorted(some), *(set(range(N)) - some)] for some in (set(one) for one in truth.labelled())]
    worse = [perfect[0], *rankings[1:]]
    one = result_of(truth, perfect, tuned_on=["A"], whitening={"dim": 512, "fitted_on": "B"})
    other = result_of(truth, worse, tuned_on=["A"], whitening={"dim": 128})
    found = compare(one, other)
    medium = next(each for each in found.scores if (each.setup, each.measure) == ("medium", "map"))
    assert (medium.difference.wins, medium.difference.losses, medium.difference.ties) == (2, 0, 1)
    expected = np.mean(one.scores[2].counted) - np.mean(other.scores[2].counted)
    assert medium.difference.interval.mean == pytest.approx(expected)
    assert found.manifests == (("whitening.dim", 512, 128), ("whitening.fitted_on", "B", "absent"))
    assert compare(
        one, result_of(truth, perfect, tuned_on=["A"], whitening=one.manifest["whitening"], seconds=2)
    ) == (compare(one, one))
    assert compare(one, one).manifests == ()


def test_a_setup_in_which_no_query_counts_is_not_compared(truth, rankings) -> None:
    document = json.loads(truth.to_json())
    for query in document["queries"]:
        query["labels"]["easy"] = []
    found = result_of(GroundTruth.from_json(json.dumps(document)), rankings)
    assert {one.setup for one in compare(found, found).scores} == {"medium", "hard"}


def test_results_on_different_queries_are_not_compared(truth, rankings) -> None:
    one = result_of(truth, rankings)
    document = json.loads(truth.to_json())
    document["queries"].reverse()
    other = GroundTruth.from_json(json.dumps(document))
    with pytest.raises(InputError, match=r"same queries and pictures.*small.*small"):
        compare(one, result_of(other, rankings))
    more = Result(Benchmark.of(truth, distractors=5), one.scores, one.manifest)
    with pytest.raises(InputError, match="5 distractors"):
        compare(one, more)
    with pytest.raises(InputError, match="no measure in common"):
        compare(one, Result(one.benchmark, (), one.manifest))


@pytest.mark.parametrize("field", ["pictures", "distractors"])
def test_results_on_pictures_of_other_content_are_not_compared(truth, rankings, field) -> None:
    one = result_of(truth, rankings)
    sets = [{"count": 3, "sha256": digit * 64} for digit in "12"]
    first, second = (Result(one.benchmark, one.scores, {**one.manifest, field: value}) for value in sets)
    assert compare(first, first).scores
    assert compare(first, one).scores, "nobody said what the other's pictures were"
    with pytest.raises(InputError, match=f"same {field}.*111111111111 and 222222222222"):
        compare(first, second)


# ------------------------------------------------------------------------------------------- the commands


@pytest.fixture
def truth_file(truth, tmp_path) -> Path:
    path = tmp_path / "truth.json"
    path.write_text(truth.to_json())
    return path


def test_evaluate_and_compare_work_together(run, truth, truth_file, rows, rankings, tmp_path) -> None:
    save(tmp_path / "theirs.mat", {"X": rows[0].T, "Q": rows[1].T})
    save(tmp_path / "ours.npy", {"ranks": np.array(rankings)})
    done = run(
        *("evaluate", "--ground-truth", truth_file, "--descriptors", "theirs.mat", "-o", "theirs.json"),
        *("--tuned-on", "a set", "--tuned-on", "another", "--trained-on", "sfm-120k"),
    )
    assert (done.returncode, done.stderr) == (0, "")
    expected = score_rows(*rows, truth)
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["small", "12", "pictures,", "3", "queries"]
    assert lines[1].startswith(f"easy    mAP    {100 * expected[0].interval.mean:6.2f}")
    assert "2 queries, 1 left out" in lines[1]
    assert "Tuned on: a set, another. Trained on: sfm-120k." in done.stdout
    theirs = Result.load(tmp_path / "theirs.json")
    assert theirs.scores == expected
    assert theirs.manifest["rows"]["made elsewhere"][0]["file"] == "theirs.mat"
    document = json.loads(
        run("evaluate", "--ground-truth", truth_file, "--rankings", "ours.npy", "-o", "ours.json", "--json").stdout
    )
    assert Result.from_document(document).scores == score(rankings, truth)
    done = run("compare", "theirs.json", "ours.json")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0].startswith("easy    mAP")
    assert "tuned_on: ['a set', 'another'] | nothing declared" in done.stdout
    document = json.loads(run("compare", "theirs.json", "ours.json", "--json").stdout)
    assert document["scores"][0]["difference"]["ties"] <= 2
    assert {"field": "tuned_on", "values": [["a set", "another"], "nothing declared"]} in document["manifests"]
    assert "does not differ" in run("compare", "ours.json", "ours.json").stdout


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        ((), 1, "give --benchmark with a --recipe"),
        (("--rankings", "x.npy", "--descriptors", "rows.npy"), 1, "either --rankings or --descriptors"),
        (("--rankings", "x.npy", "--query-descriptors", "rows.npy"), 1, "--query-descriptors"),
        (("--rankings", "x.npy"), 1, "x.npy"),
        (("--descriptors", "rows.npy"), 1, "holds no queries"),
        (("--descriptors", "rows.npy", "--query-descriptors", "q.npy"), 1, "has length 2"),
        (("--descriptors", "rows.npy", "--query-descriptors", "q.npy", "--lengths", "long"), 1, "'long'"),
        (("--descriptors", "rows.npy", "--layout", "sideways"), 1, "'sideways'"),
        (("--descriptors", "rows.npy", "--distractors", "-1"), 2, "--distractors"),
        (("--rankings", "x.npy", "-o", "truth.json"), 1, "to be read"),
        (("--rankings", "x.npy", "-o", "out.txt"), 1, "out.txt"),
    ],
)
def test_wrong_use_of_evaluate_is_answered(arguments, status, says, run, truth_file, rows, tmp_path) -> None:
    save(tmp_path / "rows.npy", {"X": rows[0] * 2})
    save(tmp_path / "q.npy", {"Q": rows[1]})
    done = run("evaluate", "--ground-truth", truth_file.name, *arguments)
    assert done.returncode == status
    assert says in done.stderr
    assert done.stdout == ""


def test_wrong_files_are_answered(run, truth_file, tmp_path) -> None:
    (tmp_path / "other.json").write_text("{}")
    for arguments in (
        ("evaluate", "--ground-truth", "other.json", "--rankings", "x.npy"),
        ("evaluate", "--ground-truth", "none.json", "--rankings", "x.npy"),
        ("compare", "other.json", "other.json"),
        ("compare", "none.json", "other.json"),
    ):
        done = run(*arguments)
        assert done.returncode == 1
        assert arguments[-2] in done.stderr or arguments[2] in done.stderr or arguments[1] in done.stderr
