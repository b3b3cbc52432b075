"""``coocnet evaluate --benchmark`` and ``coocnet reproduce`` as a person uses them, from a server of this machine."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from coocnet.evaluate import GroundTruth, Result
from coocnet.fetch import sha256_of
from publishing import OXFORD, World, jpeg
from serving import Server

pytestmark = pytest.mark.slow


@pytest.fixture
def world(server: Server, monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(server, monkeypatch)
    made.oxford()
    made.paris()
    return made


def said(done) -> str:
    return " ".join(done.stdout.split())


def test_a_benchmark_is_fetched_described_scored_and_kept(
    world: World, run, recipe_file: Path, tmp_path: Path
) -> None:
    asked = ("evaluate", "--benchmark", "roxford5k", "--recipe", recipe_file, "--to", "data", "-o", "ours.json")
    done = run(*asked)
    assert done.returncode == 0, done.stderr
    assert "roxford5k 8 pictures, 1 queries" in said(done)
    assert "pca to 7, fitted on paris6k" in said(done)
    result = Result.load(tmp_path / "ours.json")
    assert [(one.setup, one.measure) for one in result.scores][:2] == [("easy", "map"), ("easy", "mp@1")]
    assert str(tmp_path) not in (tmp_path / "ours.json").read_text()
    served = {name: mirror.bytes_served for name, mirror in world.mirrors.items()}
    again = run(*asked[:-2], "-o", "again.json")
    assert again.returncode == 0, again.stderr
    assert {name: mirror.bytes_served for name, mirror in world.mirrors.items()} == served
    assert Result.load(tmp_path / "again.json").scores == result.scores


def test_a_cut_connection_is_taken_up_again_and_the_numbers_are_the_same(
    world: World, run, recipe_file: Path, tmp_path: Path
) -> None:
    whole = run("evaluate", "--benchmark", "paris6k", "--recipe", recipe_file, "--to", "one", "-o", "one.json")
    assert whole.returncode == 0, whole.stderr
    archive = world.mirrors["paris_1-v1.tgz"]
    before = len(archive.requests)
    archive.cuts = [200, 300]
    cut = run("evaluate", "--benchmark", "paris6k", "--recipe", recipe_file, "--to", "two", "-o", "two.json")
    assert cut.returncode == 0, cut.stderr
    resumed = [asked for asked in archive.requests[before:] if asked]
    assert resumed, "the second answer has to begin where the first broke off"
    one, two = (Result.load(tmp_path / name) for name in ("one.json", "two.json"))
    assert one.scores == two.scores
    assert one.manifest["pictures"] == two.manifest["pictures"]


def test_the_papers_numbers_stand_beside_ours(world: World, run, random_weights: Path) -> None:
    from coocnet.recipe import Recipe

    preset = Recipe.preset("paper-chco-sct-td")
    named = random_weights.parent / "named.toml"
    named.write_text(
        preset.replace(backbone="squeezenet1_1", tap="features", weights=str(random_weights), size_px=64).to_toml()
    )
    done = run(
        "evaluate", "--benchmark", "roxford5k", "--recipe", random_weights.parent / "named.toml", "--to", "data"
    )
    assert done.returncode == 0, done.stderr
    assert "paper 63.37 (table1; here: another recipe)" in said(done)
    assert "paper 47.63 (table1; here: another recipe)" in said(done)


def test_missing_and_damaged_pictures_are_named_and_nothing_is_scored(
    world: World, run, recipe_file: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for number, name in enumerate(OXFORD[:7]):
        (copy / f"{name}.jpg").write_bytes(jpeg(number))
    (copy / f"{OXFORD[2]}.jpg").write_bytes(b"no picture")
    before = {path.name: sha256_of(path) for path in copy.iterdir()}
    asked = ("evaluate", "--benchmark", "oxford5k", "--existing", f"oxford5k={copy}", "--recipe", recipe_file)
    done = run(*asked, "--to", "data", "--whitening", "none", "-o", "ours.json")
    assert done.returncode == 1
    assert OXFORD[7] in done.stderr
    assert OXFORD[2] in done.stderr
    assert not (tmp_path / "ours.json").exists()
    (copy / f"{OXFORD[2]}.jpg").write_bytes(jpeg(2))
    (copy / f"{OXFORD[7]}.jpg").write_bytes(jpeg(7))
    done = run(*asked, "--to", "data", "--whitening", "none", "-o", "ours.json")
    assert done.returncode == 0, done.stderr
    assert {path.name: sha256_of(path) for path in copy.iterdir()}.items() >= {
        key: value for key, value in before.items() if key != f"{OXFORD[2]}.jpg"
    }.items()
    assert {mirror for mirror, one in world.mirrors.items() if one.requests} == {"gnd_oxford5k.pkl"}


def test_what_was_made_elsewhere_is_scored_on_a_published_ground_truth(world: World, run, tmp_path: Path) -> None:
    import numpy as np

    np.save(tmp_path / "ranks.npy", np.array([[0, 1, 3, 2], [3, 0, 1, 2]]))
    done = run("evaluate", "--benchmark", "oxford5k", "--rankings", "ranks.npy", "--to", "data", "--json")
    assert done.returncode == 0, done.stderr
    assert [value for one in json.loads(done.stdout)["scores"] for value in one["values"]] == [1.0, 1.0]
    assert not any(mirror.requests for name, mirror in world.mirrors.items() if name.endswith("tgz"))
    assert GroundTruth.load(tmp_path / "data" / "oxford5k" / "ground_truth.json").queries[1].image == OXFORD[3]


def test_a_folder_of_ones_own_is_a_benchmark(run, scenes, recipe_file: Path, tmp_path: Path) -> None:
    shutil.copytree(scenes[0], tmp_path / "mine")
    done = run("evaluate", "--benchmark", "folder", "--existing", "folder=mine", "--recipe", recipe_file, "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["benchmark"]["pictures"], document["benchmark"]["queries"]) == (18, 6)
    assert document["manifest"]["whitening"] == "none"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--benchmark", "oxford5k"), "--recipe"),
        (("--recipe", "mini"), "either --benchmark"),
        (("--benchmark", "oxford", "--recipe", "mini"), "no benchmark is called 'oxford'"),
        (("--benchmark", "oxford5k", "--recipe", "mini", "--rankings", "x.npy"), "not both"),
        (("--benchmark", "oxford5k", "--rankings", "x.npy", "--rerank", "diffusion"), "--rerank changes nothing"),
        (("--benchmark", "oxford5k", "--recipe", "mini", "--lengths", "normalise"), "--lengths changes nothing"),
        (("--benchmark", "oxford5k", "--recipe", "mini", "--rerank", "some"), "'some'"),
        (("--benchmark", "oxford5k", "--recipe", "mini", "--whitening", "w.npz"), "'w.npz' is none of these"),
        (
            ("--benchmark", "oxford5k", "--recipe", "paper-bp-aa-ms-alpha-qe", "--whitening", "none"),
            "needs a whitening",
        ),
        (("--benchmark", "oxford5k", "--recipe", "mini", "--existing", "oxford5k"), "NAME=DIR"),
        (("--benchmark", "revisitop1m", "--recipe", "mini"), "no benchmark with queries"),
        (("--benchmark", "folder", "--rankings", "x.npy"), "no published ground truth"),
    ],
)
def test_wrong_use_is_answered_in_words(run, arguments, says: str) -> None:
    done = run("evaluate", *arguments)
    assert done.returncode == 1
    assert says in " ".join(done.stderr.split())


def test_a_table_of_the_paper_is_reproduced_as_far_as_what_is_here_allows(
    world: World, run, recipe_file: Path, tmp_path: Path
) -> None:
    asked = ("reproduce", "table2", "figure2", "--backbone", recipe_file, "--to", "data", "-o", "report")
    done = run(*asked)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "report" / "report.md").read_text()
    assert "squeezenet1_1 features in place of VGG16" in text
    assert "| BP(AA) | oxford5k | all | 65.94 |" in text
    assert "holidays" in text.partition("### Missing")[2], "it is offered by FTP alone"
    assert "rparis6k" in text.partition("### Missing")[2]
    assert (tmp_path / "report" / "figure2-oxford5k.png").is_file()
    made = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "report" / "results").iterdir()}
    assert "paper-bp-act-td-aqe--oxford5k--squeezenet1_1.json" in made
    again = run(*asked)
    assert again.returncode == 0, again.stderr
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "report" / "results").iterdir()} == made


def test_the_whole_chain_runs_scaled_down(run, recipe_file: Path, tmp_path: Path) -> None:
    done = run(
        "reproduce",
        "table2",
        "table6",
        "figure5",
        "--scale-down",
        "--backbone",
        recipe_file,
        "--to",
        "data",
        "-o",
        "small",
    )
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "small" / "report.md").read_text()
    assert "nothing about the paper" in text
    assert "27 of 27 rows were made" in text
    assert "| 24 × 32 × 32 | 0.258 | 29.3 | 114 |" in text
    assert "Missing" not in text


def test_with_a_filter_the_figures_and_rows_of_the_learned_one_are_made(
    run, recipe_file: Path, tmp_path: Path
) -> None:
    import numpy as np

    weight = np.random.default_rng(0).random((512, 512, 1, 1)).astype(np.float32)
    np.save(tmp_path / "theirs.npy", weight)
    what = ("table4", "figure7", "figure8", "--scale-down", "--whitening", "none", "--backbone", recipe_file)
    asked = ("reproduce", *what, "--to", "data", "-o", "small", "--filter", "theirs.npy")
    done = run(*asked)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "small" / "report.md").read_text()
    assert "The learned filter: theirs.npy, SHA-256" in text
    assert "12 of 24 rows were made" in text, "those with query expansion want a whitening"
    assert "| BP(ACT)learn + ms | rparis6k | hard | 48.37 |" in text
    assert "figure7-moved.png" in text
    assert len(list((tmp_path / "small").glob("published-filter-*.safetensors"))) == 1
    made = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "small" / "results-scaled-down").iterdir()}
    again = run(*asked)
    assert again.returncode == 0, again.stderr
    results = (tmp_path / "small" / "results-scaled-down").iterdir()
    assert {path.name: path.stat().st_mtime_ns for path in results} == made


def test_a_filter_that_is_none_is_refused_before_any_work(run, recipe_file: Path, tmp_path: Path) -> None:
    done = run("reproduce", "figure7", "--scale-down", "-o", "report", "--filter", recipe_file)
    assert done.returncode == 1
    assert "no learned filter" in " ".join(done.stderr.split())
    assert not list((tmp_path / "report").iterdir())


def test_an_unknown_place_to_learn_a_whitening_is_refused_before_any_work(run, tmp_path: Path) -> None:
    done = run("reproduce", "table1", "--whitening", "nonsense", "-o", "report")
    assert done.returncode == 1
    assert "'nonsense'" in done.stderr
    assert not (tmp_path / "report").exists()


def test_an_unknown_table_is_refused_before_any_work(run, tmp_path: Path) -> None:
    done = run("reproduce", "table8", "-o", "report")
    assert done.returncode == 1
    assert "table1" in done.stderr
    assert "'table8'" in done.stderr
    assert not (tmp_path / "report").exists()


def test_the_real_pictures_of_paris_pass_through_the_whole_chain(
    real_data: Path, server: Server, monkeypatch: pytest.MonkeyPatch, run, recipe_file: Path, tmp_path: Path
) -> None:
    """Real names, ground truth and pictures in archives of the real layout; some pictures are filled in."""
    official = json.loads((real_data / "ground_truth" / "gnd_paris6k.json").read_text())
    here = {path.stem: path for path in (real_data / "images" / "paris6k_subset" / "paris").rglob("*.jpg")}
    chosen = sorted(here)[::8]
    kept = [place for place, name in enumerate(official["imlist"]) if name in chosen]
    queries = [at for at, name in enumerate(official["qimlist"]) if name in here][:4]
    names = sorted({official["imlist"][place] for place in kept} | {official["qimlist"][at] for at in queries})
    filler = [f"paris_louvre_9{number:05d}" for number in range(12)]
    position = {name: at for at, name in enumerate([*names, *filler])}
    gnd = []
    for at in queries:
        entry = official["gnd"][at]
        right = {label: [position[n] for p in entry[label] if (n := official["imlist"][p]) in position]
                 for label in ("ok", "junk")}  # fmt: skip
        gnd.append({"bbx": entry["bbx"], **right})
    truth = {"imlist": list(position), "qimlist": [official["qimlist"][at] for at in queries], "gnd": gnd}
    files = {f"paris/{name.split('_')[1]}/{name}.jpg": here[name].read_bytes() for name in names}
    files |= {f"paris/louvre/{name}.jpg": jpeg(number) for number, name in enumerate(filler)}
    halves = [dict(list(files.items())[::2]), dict(list(files.items())[1::2])]
    published = World(server, monkeypatch)
    published.publish("paris6k", halves, [truth], images=len(position), queries=len(queries))
    published.mirrors["paris_2-v1.tgz"].cuts = [10_000]
    done = run("evaluate", "--benchmark", "paris6k", "--recipe", recipe_file, "--to", "data", "--whitening", "none")
    assert done.returncode == 0, done.stderr
    assert f"paris6k {len(position)} pictures, {len(queries)} queries" in said(done)
    assert f"in the database: {len(queries)} ok" in said(done)
