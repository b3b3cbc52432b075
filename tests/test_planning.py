"""A plan is arithmetic on figures: they are those of the result files, and what comes out is what a hand computes."""

from __future__ import annotations

import json
import math
import sqlite3
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from coocnet import planning
from coocnet.errors import InputError
from coocnet.index import open_index
from coocnet.index.approximate import BUILD_FROM
from coocnet.index.milvus import notes, server
from coocnet.planning import FIGURES, Plan, count_of, database_row_bytes, plan, rate_per_core
from coocnet.planning.describing import network_ms
from coocnet.planning.storage import lists_of
from coocnet.recipe import PRESETS, Recipe
from indexing import put, synthetic_rows

ROOT = Path(__file__).parents[1]
MEASURED = [name for name, figure in FIGURES.items() if figure.source.startswith("results/")]
MILLION, GIB = 10**6, 2**30


def result(name: str) -> dict:
    return json.loads((ROOT / name).read_text())


@pytest.mark.parametrize("name", MEASURED)
def test_a_measured_figure_is_that_of_its_result_file(name):
    found = result(FIGURES[name].source)
    for key in FIGURES[name].path:
        found = found[key]
    assert FIGURES[name].value == found


def test_every_figure_is_measured_documented_or_said_to_be_chosen():
    chosen = {name for name, figure in FIGURES.items() if figure.source == "chosen"}
    assert chosen == {"path", "cores of a machine", "memory of a machine", "memory for rows", "wait after a change"}
    documented = {name for name in FIGURES if name not in MEASURED} - chosen
    assert all(FIGURES[name].source.startswith("https://milvus.io/docs/v2.") for name in documented)


def test_what_is_said_of_the_searches_that_were_measured_is_so():
    searched, opened = result("results/search.json"), result("results/opening.json")
    assert searched["exact"][1]["threads"] == 2
    assert searched["approximate"][3]["rows"] == opened["indexes"][1]["pictures"] == MILLION
    assert opened["indexes"][1]["dim"] == 512
    indexed = result("results/indexing.json")
    assert (indexed["cores"], indexed["threads"]) == (2, 2)
    measured = result("results/footprint.json")["indexes"]
    assert [(one["dim"], one["path_bytes"]) for one in measured[6:]] == [(64, 40), (64, 160)]


def test_the_limits_that_our_code_keeps_to_are_those_of_the_plan():
    assert FIGURES["hits"].value == server.MOST_HITS
    assert FIGURES["text"].value == notes.VALUE_BYTES
    assert FIGURES["request"].value * MILLION > server._BYTES_AT_ONCE


@pytest.mark.parametrize(
    ("text", "count"),
    [
        *(("1e6", MILLION), ("100e6", 10**8), ("1M", MILLION), ("2.5m", 2_500_000), ("1B", 10**9), ("250k", 250_000)),
        *(("1,000,000", MILLION), ("1_000", 1000), (" 7 ", 7), ("1e12", 10**12), ("0.1k", 100)),
    ],
)
def test_numbers_of_pictures_are_read_as_people_write_them(text, count):
    assert count_of(text) == count


@pytest.mark.parametrize(
    "text", ["", "M", "many", "0", "-1M", "1.5", "nan", "inf", "1e13", "1e99", "1 MB", "1M M", "٣"]
)
def test_what_is_no_number_of_pictures_is_quoted(text):
    with pytest.raises(InputError) as caught:
        count_of(text)
    assert str(caught.value).endswith(f"got {text!r}")


def test_a_case_computed_by_hand():
    found = plan(
        20 * MILLION, rate=20, cores=100, picture_bytes=2e6, thumbnail_bytes=1e4, machine_cores=8, machine_gib=100
    )
    work = found.describing
    assert (work.unit_hours, work.machines, work.hours) == (20e6 / 20 / 3600, 13, 20e6 / 20 / 3600 / 100)
    assert work.read_bytes == 4e13
    assert work.read_bytes_per_s == pytest.approx(100 * 20 * 2e6)
    assert found.thumbnails == 2e11
    # Kept: a number is 4 bytes; digest, place in the table of paths, path.
    assert found.folder.kept_rows == 20e6 * (512 * 4 + 16 + 8 + 80)
    assert found.folder.kept_rows_float16 == 20e6 * (512 * 2 + 16 + 8 + 80)
    # 4√20,000,000 = 17,888 lists, each with a centroid of 512 numbers and a number of its own.
    assert found.folder.approximate == 20e6 * (512 + 8 + 16 + 8) + 17_888 * (2048 + 8)
    # A row of 512 numbers has a page of 4096 bytes for itself; 14 rows of 64 share one.
    short, long = 476.2 - 4096 / 14, 752.8 - 4096 / 14
    assert found.folder.database == pytest.approx(20e6 * (4096 + short + (long - short) / 3))
    assert found.searching.exact_ms == pytest.approx(20 * 68.95)
    assert found.searching.exact_per_s == pytest.approx(64 / 0.60324 / 20)
    # 51 of 17,888 lists are looked through, and the centroids of all; with a million 51 of 4000.
    looked, in_a_million = 17_888 + 51 * 20e6 / 17_888, 4000 + 51 * 1e6 / 4000
    assert found.searching.approximate_ms == pytest.approx(1.837 * looked / in_a_million)
    assert found.searching.built_s == pytest.approx((20 * 275.4, 20**1.5 * 275.4))
    files = 2 * 80 + 32 + 16 + 8
    by_kind = {kind.kind: kind for kind in found.milvus}
    assert by_kind["FLAT"].memory == 20e6 * (2 * (2048 + 32) + files)
    assert by_kind["IVF_SQ8"].memory == by_kind["FLAT"].memory + 20e6 * (512 + 32)
    assert by_kind["IVF_SQ8"].nodes == math.ceil(by_kind["IVF_SQ8"].memory / (0.9 * 100 * GIB)) == 2
    assert by_kind["IVF_FLAT"].index == 4 * by_kind["IVF_SQ8"].index == 20e6 * 2048
    assert by_kind["DISKANN"].index == pytest.approx(20e6 * 2048 * 0.225)
    assert by_kind["DISKANN"].local_disk == 20e6 * 4096
    assert by_kind["IVF_SQ8"].object_storage == by_kind["FLAT"].memory + 20e6 * (2048 + 32 + 512)
    assert found.segments == math.ceil(20e6 * 2080 / 2**30)


def test_what_grows_with_the_pictures_grows_in_step():
    one, ten = plan(10**8, cores=8), plan(10**9, cores=8)
    assert ten.describing.hours == pytest.approx(10 * one.describing.hours)
    assert ten.describing.read_bytes_per_s == pytest.approx(one.describing.read_bytes_per_s)
    for name in ("database", "kept_rows", "kept_rows_float16", "exact_memory"):
        assert getattr(ten.folder, name) == pytest.approx(10 * getattr(one.folder, name))
    for more, less in zip(ten.milvus, one.milvus, strict=True):
        for name in ("index", "memory", "local_disk", "object_storage"):
            assert getattr(more, name) == pytest.approx(10 * getattr(less, name))
    assert ten.searching.exact_ms == pytest.approx(10 * one.searching.exact_ms)
    assert ten.thumbnails == 10 * one.thumbnails


def test_a_deadline_is_kept_by_the_fewest_cores_that_keep_it():
    work = plan(10**8, hours=24).describing
    assert work.hours <= 24 < work.unit_hours / (work.units - 1)


def test_the_rate_of_the_default_recipe_is_half_of_that_measured_on_two_cores():
    rate, source = rate_per_core(Recipe())
    assert rate == pytest.approx(result("results/indexing.json")["pictures_per_s"]["index"]["median"] / 2)
    assert source.startswith("results/indexing.json")


def test_rates_that_were_not_measured_are_said_to_be_arithmetic():
    for recipe, engine in ((Recipe(), "int8"), (Recipe(size_px=1024), None), (PRESETS["resnet101v2"], None)):
        rate, source = rate_per_core(recipe, engine)
        assert source.startswith("arithmetic")
        assert rate != rate_per_core(Recipe())[0]


def test_more_work_for_a_picture_is_a_lower_rate():
    rates = [rate_per_core(Recipe(), engine)[0] for engine in ("int8", "bfloat16", "float32")]
    rates += [rate_per_core(Recipe(size_px=size), "float32")[0] for size in (700, 1024, 1500)]
    rates += [rate_per_core(Recipe(size_px=1500, scales=(1.0, 0.7)), "float32")[0]]
    assert rates == sorted(rates, reverse=True)
    assert len(set(rates)) == len(rates)


def test_a_network_takes_as_long_in_between_as_was_measured_there():
    for size, px in (("512x384", 512), ("1024x768", 1024)):
        assert network_ms("mobile", "float32", px) == FIGURES[f"mobile float32 {size}"].value


@pytest.mark.parametrize(
    ("recipe", "engine", "said"),
    [
        (PRESETS["resnet50"], None, "'resnet50'"),
        (Recipe(), "int4", "'int4'"),
        (Recipe(size_px=0), None, "unlimited px"),
        (Recipe(backbone="nothing"), None, "'nothing'"),
    ],
)
def test_a_rate_that_nobody_measured_is_asked_for(recipe, engine, said):
    with pytest.raises(InputError, match=said):
        plan(MILLION, recipe=recipe, engine=engine)


def test_a_given_rate_needs_no_measured_one():
    assert plan(MILLION, recipe=PRESETS["resnet50"], rate=3).describing.rate == 3


def test_gpus_count_with_the_rate_that_is_given():
    work = plan(10**9, gpus=8, gpu_rate=500).describing
    assert (work.unit, work.units, work.machines) == ("GPU", 8, None)
    assert work.hours == pytest.approx(10**9 / 500 / 3600 / 8)
    assert plan(10**9, hours=100, gpu_rate=500).describing.units == math.ceil(10**9 / 500 / 3600 / 100)


def test_rows_have_the_numbers_of_the_recipe():
    assert (plan(1000).stored_dim, plan(1000).dim) == (512, 512)
    taller = plan(1000, recipe=PRESETS["resnet101v2"])
    assert (taller.stored_dim, taller.dim) == (1024, 512)
    assert (plan(1000, dim=64).stored_dim, plan(1000, dim=64).dim) == (64, 64)


def test_rows_that_are_not_whitened_stand_in_milvus_once():
    once = plan(MILLION, recipe=Recipe(whitening="none")).milvus[0]
    assert plan(MILLION).milvus[0].memory - once.memory == MILLION * 2080


@pytest.mark.parametrize(
    ("pictures", "options", "verdict"),
    [
        (BUILD_FROM - 1, {}, planning.FOLDER),
        (BUILD_FROM, {}, planning.FOLDER_APPROXIMATE),
        (12 * MILLION, {}, planning.FOLDER_APPROXIMATE),
        (13 * MILLION, {"machine_gib": 128}, planning.STANDALONE),
        (100 * MILLION, {}, planning.CLUSTER),
        (5 * MILLION, {"machine_gib": 2}, planning.CLUSTER),
        (100 * MILLION, {"dim": 40_000}, planning.NOTHING),
    ],
)
def test_the_verdict_is_the_first_that_holds_it(pictures, options, verdict):
    found = plan(pictures, **options)
    assert found.verdict == verdict
    assert len(found.reasons) == 2


def test_milvus_has_no_rows_of_more_numbers_than_it_takes():
    assert plan(MILLION, dim=32_768).milvus
    assert not plan(MILLION, dim=32_769).milvus


@pytest.mark.parametrize("measured", result("results/footprint.json")["indexes"], ids=lambda one: f"{one['dim']}")
def test_the_indexes_that_were_measured_have_the_bytes_of_the_formulas(measured, monkeypatch):
    count, held = result("results/footprint.json")["pictures"], measured["bytes_for_each"]
    path = planning.Figure(measured["path_bytes"], "bytes", "chosen")
    monkeypatch.setitem(FIGURES, "path", path)
    found = plan(count, dim=measured["dim"]).folder
    assert found.database / count == pytest.approx(held["database"], rel=0.015)
    assert found.kept_rows / count == pytest.approx(held["kept_rows"], rel=0.01)
    assert found.approximate / count == pytest.approx(held["approximate"], rel=0.01)


@pytest.mark.parametrize("dim", [20, 96, 1100, pytest.param(512, marks=pytest.mark.slow)])
def test_an_index_that_is_made_has_the_bytes_that_are_planned(tmp_path, dim):
    pytest.importorskip("faiss")
    count = 6000
    rows = synthetic_rows(count, dim=dim)
    put(tmp_path / "photos.cooc", {f"/{place:079}": row for place, row in enumerate(rows)})
    with open_index(tmp_path / "photos.cooc") as index:
        index.search(rows[:1], k=1)
        if dim in {96, 512}:
            index.build_ann()
    made = {file.name: file.stat().st_size for file in (tmp_path / "photos.cooc").iterdir()}
    planned = plan(count, dim=dim).folder
    assert size(made, "index.sqlite") == pytest.approx(planned.database, rel=0.03)
    assert size(made, "gallery") == pytest.approx(planned.kept_rows, rel=0.01)
    if dim in {96, 512}:
        assert size(made, "approximate") == pytest.approx(planned.approximate, rel=0.01)


def size(made: dict[str, int], begins: str) -> int:
    return sum(count for name, count in made.items() if name.startswith(begins))


@pytest.mark.parametrize("dim", [20, 64, 339, 503, 506, 1009, 1012, 1300, 2048, 8192])
def test_a_row_takes_of_the_pages_of_sqlite_what_it_does(dim):
    count = 5000
    database = sqlite3.connect(":memory:")
    database.execute("CREATE TABLE descriptors (id INTEGER PRIMARY KEY, digest BLOB NOT NULL, row BLOB NOT NULL)")
    rows = ((bytes(16), bytes(4 * dim)) for _ in range(count))
    database.executemany("INSERT INTO descriptors (digest, row) VALUES (?, ?)", rows)
    pages = database.execute("PRAGMA page_count").fetchone()[0]
    database.close()
    assert database_row_bytes(dim) == pytest.approx(4096 * pages / count, rel=0.02)


@pytest.mark.parametrize(
    "wrong",
    [
        {"pictures": 0},
        {"dim": -1},
        {"cores": 0},
        {"hours": 0},
        {"hours": math.nan},
        {"rate": -1},
        {"gpu_rate": math.inf},
        {"picture_bytes": 0},
        {"thumbnail_bytes": -5},
        {"machine_cores": 0},
        {"machine_gib": 0},
        {"cores": 2, "hours": 2},
        {"gpus": 2},
        {"gpu_rate": 9, "cores": 2},
        {"gpu_rate": 9, "rate": 2},
    ],
    ids=str,
)
def test_what_makes_no_plan_is_refused_and_quoted(wrong):
    with pytest.raises(InputError) as caught:
        plan(**{"pictures": 1000, **wrong})
    assert any(str(value) in str(caught.value) for value in wrong.values()) or " and ".join(wrong) in str(
        caught.value
    )


def keys(node: object) -> object:
    """The names of a document, without its values."""
    if isinstance(node, dict):
        return {name: keys(below) for name, below in node.items()}
    return [keys(node[0])] if isinstance(node, list | tuple) and node and isinstance(node[0], dict) else None


def test_the_document_for_programs_is_the_plan_with_its_figures(run):
    document = json.loads(run("plan", "--images", "100e6", "--hours", "48", "--json").stdout)
    figures = document.pop("figures")
    assert document == json.loads(json.dumps(asdict(plan(10**8, hours=48))))
    assert figures["described"] == {**asdict(FIGURES["described"]), "path": ["pictures_per_s", "index", "median"]}
    assert list(document) == list(Plan.__dataclass_fields__)
    assert keys(document)["searching"] == dict.fromkeys(
        (
            "exact_ms",
            "exact_per_s",
            "approximate_ms",
            "recall",
            "built_s",
            "ready_s",
            "exact_holds",
            "approximate_holds",
        )
    )


def test_options_reach_the_plan(run, recipe_file):
    options = {"--dim": 96, "--engine": "int8", "--cores": 40, "--picture-bytes": 3e6, "--thumbnail-bytes": 9e3}
    options |= {"--machine-cores": 20, "--machine-gib": 32}
    words = [str(word) for option in options.items() for word in option]
    document = json.loads(run("plan", "--images", "3M", *words, "--json").stdout)
    wanted = {"dim": 96, "engine": "int8", "cores": 40, "picture_bytes": 3e6, "thumbnail_bytes": 9e3}
    made = plan(3 * MILLION, **wanted, machine_cores=20, machine_gib=32)
    assert document["describing"] == asdict(made.describing)
    assert document["folder"] == asdict(made.folder)
    assert document["thumbnails"] == made.thumbnails
    assert document["machine_bytes"] == 32 * GIB
    of_recipe = json.loads(run("plan", "--images", "3M", "--recipe", recipe_file, "--rate", 7, "--json").stdout)
    assert (of_recipe["recipe"], of_recipe["describing"]["rate"]) == ("quick", 7)


@pytest.mark.parametrize("images", ["900", "100k", "1M", "20M", "1B"])
def test_a_person_is_told_the_verdict_and_where_the_numbers_come_from(run, images):
    shown = run("plan", "--images", images)
    assert shown.returncode == 0, shown.stderr
    made = plan(count_of(images))
    assert f"{made.pictures:,} different pictures" in shown.stdout
    assert made.verdict in shown.stdout
    assert all(reason in shown.stdout for reason in made.reasons)
    assert "results/indexing.json" in shown.stdout
    assert ("approximate, to be" in shown.stdout) is (made.pictures >= 1000)


def test_rows_that_milvus_does_not_take_are_not_shown_there(run):
    for dim, is_shown in (("32768", True), ("32769", False)):
        assert ("An index in Milvus" in run("plan", "--images", "1M", "--dim", dim).stdout) is is_shown


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--images", "lots"], "'lots'"),
        (["--images", "1M", "--gpus", "4"], "gpus=4 give --gpu-rate"),
        (["--images", "1M", "--recipe", "nothing"], "nothing"),
        (["--images", "1M", "--hours", "-3"], "-3.0"),
    ],
)
def test_the_command_quotes_what_it_cannot_use(run, words, said):
    refused = run("plan", *words)
    assert refused.returncode == 1
    assert said in " ".join(refused.stderr.split())


def test_the_help_says_what_was_not_measured(run):
    shown = " ".join(run("plan", "--help", COLUMNS="200").stdout.split())
    assert "none was measured here" in shown
    for option in ("--images", "--rate", "--gpu-rate", "--hours", "--machine-gib", "--json"):
        assert option in shown


def test_approximate_searches_that_were_measured_took_as_long_for_each_row_they_read():
    each = []
    for one in result("results/search.json")["approximate"]:
        read = one["lists"] + one["probes"] * one["rows"] / one["lists"]
        each.append(1000 * one["outside"]["ms"] / read)
        assert one["lists"] == lists_of(one["rows"])
    assert len(each) == 4
    assert 0.105 < min(each) < max(each) < 0.135  # µs, as docs/scale.md says


def test_an_approximate_search_is_planned_from_as_many_pictures_as_it_needs():
    assert plan(999).searching.approximate_ms is None
    assert np.isfinite(plan(1000).searching.approximate_ms)


def test_the_page_on_scale_has_the_tables_of_the_planner(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import scale_page

    page = (ROOT / "docs" / "scale.md").read_text()
    for table in scale_page.TABLES:
        begin = f"<!-- {table.__name__}: written by benchmarks/scale_page.py -->"
        assert f"{begin}\n\n{table()}\n\n<!-- end of {table.__name__} -->" in page
