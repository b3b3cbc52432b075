"""The command as a person uses it: real processes, real files."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from coocnet import ops, viz
from coocnet.cli.app import PANELS, app
from coocnet.describe import Describer
from coocnet.explain import explain
from coocnet.index import open_index
from coocnet.nn import new_filter, save_filter
from coocnet.recipe import PRESETS, Recipe


def coocnet(folder: Path, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs the command in a folder."""
    return subprocess.run(
        [sys.executable, "-m", "coocnet", *map(str, arguments)],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory, scenes, random_weights: Path) -> Path:
    """A folder with photographs, a recipe and an index, shared by the tests that change nothing in it."""
    folder = tmp_path_factory.mktemp("library")
    shutil.copytree(scenes[0] / "database", folder / "photos")
    recipe = Recipe(
        backbone="squeezenet1_1", tap="features", weights=str(random_weights), size_px=128, whitening="none"
    )
    (folder / "quick.toml").write_text(recipe.to_toml())
    done = coocnet(folder, "index", "photos", "--recipe", "quick.toml")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_index_search_montage_heatmap_and_info_work_together(photos, recipe_file, tmp_path, scenes) -> None:
    run = partial(coocnet, tmp_path)
    done = run("index", photos, "--recipe", recipe_file)
    assert done.returncode == 0, done.stderr
    assert "18 added" in done.stdout
    again = run("index", photos)
    assert again.returncode == 0
    assert "18 unchanged" in again.stdout
    assert again.stderr == ""
    query = scenes[0] / next(view.path for view in scenes[1] if view.role == "query")
    found = run("search", query, "-k", "3", "--montage", "found.png")
    assert found.returncode == 0, found.stderr
    lines = found.stdout.splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["1", "2", "3"]
    assert all(Path(line.split()[2]).is_file() for line in lines[:3])
    with Image.open(tmp_path / "found.png") as image:
        assert image.width > 800
    drawn = run("heatmap", query, "-o", "heat.png", "--recipe", recipe_file)
    assert drawn.returncode == 0, drawn.stderr
    with Image.open(tmp_path / "heat.png") as image:
        assert image.width > 400
    info = json.loads(run("info", "--json").stdout)
    assert info["pictures"] == 18
    assert Recipe.from_toml(info["toml"]).name == "quick"


@pytest.mark.slow
def test_an_index_is_described_by_the_engine_that_is_asked_for(
    run, photos: Path, recipe_file: Path, tmp_path
) -> None:
    done = run("index", photos, "--recipe", recipe_file, "--engine", "bfloat16")
    assert done.returncode == 0, done.stderr
    picture = next(photos.iterdir())
    with open_index(tmp_path / "photos.cooc") as index:
        stored = index.row_of_file(picture)
        expected = {
            engine: index.describer(engine=engine).describe([picture])[0] for engine in ("float32", "bfloat16")
        }
    assert np.array_equal(stored, expected["bfloat16"])
    assert not np.array_equal(stored, expected["float32"])
    unknown = run("index", photos, "-i", "other.cooc", "--recipe", recipe_file, "--engine", "int4")
    assert unknown.returncode == 1
    assert "no engine is called 'int4'; there are float32, bfloat16, int8" in " ".join(unknown.stderr.split())
    assert not (tmp_path / "other.cooc").exists()
    assert json.loads(run("info", "--json").stdout)["described in"] == "bfloat16"
    (photos / "another.jpg").write_bytes(picture.read_bytes() + b"another")
    assert run("index", photos, "--engine", "float32").returncode == 0
    assert json.loads(run("info", "--json").stdout)["described in"] == "bfloat16, float32"


@pytest.mark.parametrize("given", ["of the recipe", "refused", "published", "none"])
def test_a_heat_map_shows_the_learned_cooccurrence_beside_the_direct_one(
    run, photos: Path, recipe: Recipe, recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    learned = new_filter("dense", 512, radius_cells=0, rank=1)
    with torch.no_grad():
        learned.weight.add_(torch.randn(learned.weight.shape, generator=torch.Generator().manual_seed(0)))
    made_for = {"backbone": "squeezenet1_1", "tap": "features", "gate": "passed"}
    save_filter(learned, tmp_path / "passed.safetensors", made_for)
    save_filter(learned, tmp_path / "refused.safetensors", {**made_for, "tap": "fire8", "gate": "refused"})
    np.save(tmp_path / "published.npy", learned.dense().numpy())
    options = {
        "of the recipe": ("--recipe", "learned.toml"),
        "refused": ("--recipe", recipe_file, "--filter", "refused.safetensors"),
        "published": ("--recipe", recipe_file, "--filter", "published.npy"),
        "none": ("--recipe", recipe_file),
    }[given]
    of_filter = recipe.replace(pooling="chco-sct").with_filter(tmp_path / "passed.safetensors")
    (tmp_path / "learned.toml").write_text(of_filter.to_toml())
    drawn, real = {}, viz.heatmap

    def noted(*arguments, **options):
        drawn.update(options, sums=arguments[1:])
        return real(*arguments, **options)

    monkeypatch.setattr(viz, "heatmap", noted)
    done = run("heatmap", sorted(photos.iterdir())[0], "-o", "heat.png", *options)
    assert done.returncode == 0, done.stderr
    describer = Describer(recipe)
    a = describer.map_of(describer.load(sorted(photos.iterdir())[0]).pixels)
    mask = ops.activation_mask(a)
    expected = [a, ops.direct_cooccurrence(a, radius_cells=4, mask=mask)]
    if given != "none":
        expected.append(ops.filtered_cooccurrence(a, learned.dense(), mask=mask))
    for ours, one in zip(drawn["sums"], expected, strict=True):
        np.testing.assert_allclose(ours, one[0].sum(0).numpy(), rtol=1e-4, atol=1e-5 * float(one[0].sum(0).max()))
    says = {
        "of the recipe": "learned filter passed.safetensors, r = 0",
        "refused": "refused.safetensors, r = 0, learned on another network, squeezenet1_1 fire8, refused by its gate",
        "published": "learned filter published.npy, r = 0",
        "none": "r = 4",
    }[given]
    assert drawn["caption"].endswith(says)


def test_a_filter_that_cannot_be_laid_over_a_heat_map_is_refused(run, photos, recipe_file, tmp_path) -> None:
    save_filter(new_filter("factorised", 7, radius_cells=1, rank=1), tmp_path / "small.safetensors", {})
    asked = ("heatmap", sorted(photos.iterdir())[0], "--recipe", recipe_file, "-o", "heat.png", "--filter")
    for name, says in (
        ("small.safetensors", "small.safetensors is a filter of 7 channels, but squeezenet1_1 features has 512"),
        ("none.npy", "none.npy cannot be read"),
        ("quick.toml", "quick.toml is no learned filter"),
    ):
        done = run(*asked, name)
        assert done.returncode == 1
        assert says in " ".join(done.stderr.split())
        assert not (tmp_path / "heat.png").exists()
    shutil.copy(tmp_path / "small.safetensors", tmp_path / "odd.png")
    assert "to be read" in run(*asked[:-2], "odd.png", "--filter", "odd.png").stderr


@pytest.mark.slow
def test_json_is_for_programs(command, library: Path) -> None:
    run = partial(command, library)
    query = sorted((library / "photos").iterdir())[4]
    done = run("search", query, "--json", "-k", "2", "--threshold", "0.5")
    answer = json.loads(done.stdout)
    assert answer["query"] == str(query)
    assert [hit["rank"] for hit in answer["hits"]] == [1, 2]
    assert answer["hits"][0] == {"rank": 1, "path": str(query), "similarity": 1.0, "identical": True}
    assert json.loads(run("search", query, "--json", "--threshold", "1.5").stdout)["hits"] == []


@pytest.mark.slow
def test_a_known_picture_is_found_without_loading_torch(library: Path) -> None:
    code = (
        "import sys; sys.argv = ['coocnet', 'search', sys.argv[1], '--json']\n"
        "from coocnet.cli import main\n"
        "try: main()\n"
        "finally: print('torch' in sys.modules, file=sys.stderr)\n"
    )
    command = [sys.executable, "-c", code, str(sorted((library / "photos").iterdir())[0])]
    done = subprocess.run(command, capture_output=True, text=True, cwd=library)
    assert done.stderr.strip() == "False"
    assert json.loads(done.stdout)["hits"]


def test_a_box_searches_for_the_part(command, library: Path) -> None:
    run = partial(command, library)
    query = sorted((library / "photos").iterdir())[0]
    whole, part = (
        json.loads(run("search", query, "--json", *extra).stdout)["hits"] for extra in ((), ("--box", "20,10,90,80"))
    )
    assert whole[0]["similarity"] == 1
    assert part[0]["similarity"] < 1


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (("search", "nowhere.jpg"), 1, "nowhere.jpg: no such file"),
        (("search", "quick.toml"), 1, "not a picture"),
        (("search", "photos/instance000_view00.jpg", "--box", "1,2,3"), 1, "'1,2,3'"),
        (("search", "photos/instance000_view00.jpg", "--box", "9,9,1,1"), 1, "9,9,1,1"),
        (("search", "photos/instance000_view00.jpg", "--box", "900,900,901,901"), 1, "900,900,901,901"),
        (("search", "photos/instance000_view00.jpg", "-k", "0"), 2, "-k"),
        (("search", "photos/instance000_view00.jpg", "--index", "none.cooc"), 1, "coocnet index"),
        (("search", "photos/instance000_view00.jpg", "--montage", "found.xyz"), 1, "found.xyz"),
        (("search", "photos/instance000_view00.jpg", "--montage", "none/found.png"), 1, "there is no folder"),
        (("search", "photos/instance000_view00.jpg", "--montage", "photos"), 1, "not that of a picture"),
        (("search", "quick.toml", "--montage", "photos/instance000_view00.jpg"), 1, "of the collection"),
        (("search", "photos/instance000_view00.jpg", "--threshold", "nan"), 1, "nan"),
        (("search", "photos/instance000_view00.jpg", "--box", "1,1,9,9", "--weights", "none.pth"), 1, "none.pth"),
        (("search", "photos/instance000_view00.jpg", "--box", "1,1,9,9", "--device", "abacus"), 1, "abacus"),
        (
            ("search", "photos/instance000_view00.jpg", "-i", "typo.cooc", "--weights", "quick.toml"),
            1,
            "there is no index",
        ),
        (("index", "nowhere", "-i", "typo.cooc", "--allow-empty"), 1, "there is no index"),
        (("search", "photos/instance000_view00.jpg", "-i", "redis://host/x"), 1, "'redis://host/x'"),
        (("search", "photos/instance000_view00.jpg", "--qe", "more"), 1, "none, aqe, alpha-qe; got 'more'"),
        (("search", "photos/instance000_view00.jpg", "--qe", "alpha-qe"), 1, "never whitened"),
        (
            ("search", "photos/instance000_view00.jpg", "--rerank", "more"),
            1,
            "none, reciprocal, diffusion; got 'more'",
        ),
        (("search", "photos/instance000_view00.jpg", "--scales", "1;2"), 1, "'1;2'"),
        (("search", "photos/instance000_view00.jpg", "--scales", "9"), 1, "scales"),
        (("explain", "photos/instance000_view00.jpg", "quick.toml", "-o", "why.png"), 1, "not a picture"),
        (("search", "x" * 300), 1, "cannot be read: file name too long"),
        (("index", "~nobody-of-this-name/x"), 1, "~nobody-of-this-name/x is not a folder"),
        (("index", "x" * 300), 1, "is not a folder"),
        (("index", "photos", "--recipe", "x" * 300), 1, "no recipe"),
        (("index", "photos", "-i", "x" * 300), 1, "too long"),
        (("index", "nowhere", "--allow-empty"), 1, "does not exist"),
        (("whitening", "-o", "white.png"), 1, ".safetensors"),
        (("whitening", "-o", "white.safetensors", "--dim", "99"), 1, "99 were asked for"),
        (("heatmap", "photos/instance000_view00.jpg", "-o", "photos/instance000_view00.jpg"), 1, "to be read"),
        (("index", "nowhere"), 1, "nowhere"),
        (("index", "photos", "--index", "photos"), 1, "--index"),
        (("index", "photos", "--recipe", "no-such"), 1, "paper-crow"),
        (("index", "photos", "--recipe", "mini"), 1, "another recipe"),
        (("index", "photos", "--index", "new.cooc", "--recipe", "resnet101v2"), 1, "COOCNET_WEIGHTS"),
        (("index", "photos", "--weights", "none.pth", "--index", "new.cooc"), 1, "none.pth"),
        (("index", "photos", "--whitening", "none.safetensors"), 1, "none.safetensors"),
        (
            ("heatmap", "photos/instance000_view00.jpg", "-o", "h.png", "--recipe", "resnet101v2"),
            1,
            "COOCNET_WEIGHTS",
        ),
        (("recipes", "no-such"), 1, "no-such"),
        (("shine",), 2, "shine"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_wrong_use_is_answered_in_words(command, library: Path, arguments, status, says) -> None:
    done = command(library, *arguments)
    assert done.returncode == status, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert not (library / "typo.cooc").exists()


def test_skipped_files_are_named_and_the_run_goes_on(run, photos: Path, recipe_file: Path) -> None:
    (photos / "broken [x].jpg").write_text("no")
    done = run("index", photos, "--recipe", recipe_file)
    assert done.returncode == 0
    assert "18 added" in done.stdout
    assert "broken [x].jpg: not a picture" in done.stderr
    assert "broken [x].jpg: not a picture" in run("info").stdout


@pytest.mark.slow
def test_a_similarity_is_explained_in_a_picture(command, library: Path, tmp_path: Path) -> None:
    query, result = sorted((library / "photos").iterdir())[:2]
    whole = json.loads(command(library, "search", query, "-k", "18", "--json").stdout)["hits"]
    similarity = next(hit["similarity"] for hit in whole if hit["path"] == str(result))
    done = command(library, "explain", query, result, "-o", tmp_path / "why.png")
    assert done.returncode == 0, done.stderr
    assert f"Similarity {similarity:.3f}." in done.stdout
    with Image.open(tmp_path / "why.png") as image:
        assert image.width > 300
    boxed = command(library, "explain", query, result, "-o", tmp_path / "why.png", "--box", "20,10,90,80")
    assert f"Similarity {similarity:.3f}." not in boxed.stdout
    assert "to be read" in command(library, "explain", query, result, "-o", result).stderr


def test_neighbours_are_kept_for_re_ranking(command, library: Path) -> None:
    query = sorted((library / "photos").iterdir())[4]
    before = command(library, "search", query, "--rerank", "reciprocal", "--json").stdout
    done = command(library, "prepare")
    assert done.returncode == 0, done.stderr
    assert (library / "photos.cooc" / "neighbours.npz").is_file()
    assert command(library, "search", query, "--rerank", "reciprocal", "--json").stdout == before
    refused = command(library, "search", query, "--dba")
    assert "never whitened" in " ".join(refused.stderr.split())


@pytest.mark.slow
@pytest.mark.parametrize("whitened", [False, True])
def test_the_picture_of_an_explanation_shows_what_was_explained(
    run, photos: Path, recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whitened: bool
) -> None:
    assert run("index", photos, "--recipe", recipe_file).returncode == 0
    if whitened:
        assert run("whitening", "-o", "white.safetensors", "--dim", "6").returncode == 0
        assert run("index", photos, "--whitening", "white.safetensors").returncode == 0
    query, result = sorted(photos.iterdir())[:2]
    drawn = {}
    real = viz.explanation

    def noted(*arguments, **options):
        drawn.update(options, arguments=arguments)
        return real(*arguments, **options)

    monkeypatch.setattr(viz, "explanation", noted)
    done = run("explain", query, result, "-o", "why.png")
    assert done.returncode == 0, done.stderr
    with open_index(tmp_path / "photos.cooc") as index:
        describer, whitening = index.describer(), index.whitening()
        mean = None if whitened else index.mean_row()
        assert (whitening is not None) == whitened
    pixels = [describer.load(path).pixels for path in (query, result)]
    found = explain(*map(describer.maps_of, pixels), describer.recipe, whitening=whitening, centre=mean)
    (query_pixels, contributions), (result_pixels, contributions2), joined = drawn["arguments"]
    np.testing.assert_array_equal(query_pixels, pixels[0])
    np.testing.assert_array_equal(result_pixels, pixels[1])
    np.testing.assert_allclose(contributions, found.query, atol=1e-12)
    np.testing.assert_allclose(contributions2, found.result, atol=1e-12)
    assert joined == [(match.query_cell, match.result_cell) for match in found.matches]
    assert [name in title for name, title in zip((query.name, result.name), drawn["titles"], strict=True)] == [
        True
    ] * 2
    shared = f"{found.constant:.3f} comes from what all pictures of the collection have in common"
    assert (shared in drawn["caption"][0]) == (shared in done.stdout) == (not whitened)
    assert "pairs of cells that raise it most together" in drawn["caption"][1]


@pytest.mark.slow
def test_an_expansion_of_the_recipe_is_said_not_to_be_explained(
    run, photos: Path, recipe: Recipe, tmp_path: Path
) -> None:
    expanding = tmp_path / "expanding.toml"
    expanding.write_text(recipe.replace(expansion="aqe").to_toml())
    assert run("index", photos, "--recipe", expanding).returncode == 0
    query, result = sorted(photos.iterdir())[:2]
    done = run("explain", query, result, "-o", "why.png")
    assert "This is the similarity of a plain search: search expands the query (aqe)" in done.stdout
    hits = json.loads(run("search", query, "-k", "18", "--json", "--qe", "none").stdout)["hits"]
    similarity = next(hit["similarity"] for hit in hits if hit["path"] == str(result))
    assert f"Similarity {similarity:.3f}." in done.stdout


def test_search_options_reach_the_search(command, library: Path) -> None:
    query = sorted((library / "photos").iterdir())[0]

    def found(*options: str) -> list[tuple[str, float]]:
        done = command(library, "search", query, "-k", "18", "--json", *options)
        assert done.returncode == 0, done.stderr
        return [(hit["path"], hit["similarity"]) for hit in json.loads(done.stdout)["hits"]]

    plain = found()
    assert found("--qe", "aqe") != plain
    assert {path for path, _ in found("--rerank", "reciprocal")} == {path for path, _ in plain}
    assert found("--scales", "1,0.5") != plain
    assert found("--scales", "1") == plain


def test_the_index_place_can_come_from_the_environment(run, photos: Path, recipe_file: Path, tmp_path: Path) -> None:
    done = run("index", photos, "--recipe", recipe_file, COOCNET_INDEX=str(tmp_path / "here.cooc"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "here.cooc").is_dir()
    assert not (tmp_path / "photos.cooc").exists()


def test_an_interrupted_start_does_not_stand_in_the_way(run, photos: Path, recipe_file: Path, tmp_path: Path) -> None:
    (tmp_path / "photos.cooc").mkdir()
    (tmp_path / "photos.cooc" / "index.sqlite").touch()
    assert "there is no index" in run("info").stderr
    assert "COOCNET_WEIGHTS" in run("index", photos, "--recipe", "resnet101v2").stderr
    assert run("index", photos, "--recipe", recipe_file).returncode == 0


def test_a_whitening_is_fitted_written_given_and_declined(
    run, photos: Path, recipe_file: Path, tmp_path: Path
) -> None:
    assert run("index", photos, "--recipe", recipe_file).returncode == 0
    done = run("whitening", "-o", "white.safetensors", "--dim", "4")
    assert "4 dimensions, fitted on 18 pictures" in done.stdout
    assert run("index", photos, "--whitening", "white.safetensors").returncode == 0
    assert json.loads(run("info", "--json").stdout)["whitening"].startswith("version 1, pca, fitted on 18 pictures")
    other = tmp_path / "other.safetensors"
    other.write_bytes(b"no weights")
    before = json.loads(run("info", "--json").stdout)["whitening"]
    assert run("index", photos, "--whitening", "none", "--weights", other).returncode == 1
    assert json.loads(run("info", "--json").stdout)["whitening"] == before
    assert run("index", photos, "--whitening", "none").returncode == 0
    assert json.loads(run("info", "--json").stdout)["whitening"] == "none, as asked for"


def test_a_whitening_is_learned_from_a_list_of_what_pictures_show(run, photos: Path, recipe_file, tmp_path) -> None:
    assert run("index", photos, "--recipe", recipe_file).returncode == 0
    lines = [f"photos/{path.name},{path.name.split('_')[0]}" for path in sorted(photos.iterdir())]
    (tmp_path / "shown.csv").write_text("\n".join(["image,instance", *lines]))
    done = run("whitening", "-o", "white.safetensors", "--pairs", "shown.csv", "--dim", "4")
    assert done.returncode == 0, done.stderr
    assert "4 dimensions, fitted on 18 pairs of 18 pictures" in done.stdout
    assert run("index", photos, "--whitening", "white.safetensors").returncode == 0
    assert "pairs" in json.loads(run("info", "--json").stdout)["whitening"]
    (tmp_path / "shown.csv").write_text("image,instance\nphotos/a.jpg,1\nphotos/b.jpg,1\n")
    assert "is not in this index" in " ".join(
        run("whitening", "-o", "w.safetensors", "--pairs", "shown.csv").stderr.split()
    )


def test_fewer_dimensions_than_asked_for_are_said(run, photos: Path, recipe_file: Path) -> None:
    assert run("index", photos, "--recipe", recipe_file).returncode == 0
    said = " ".join(run("whitening", "-o", "white.safetensors").stdout.split())
    assert "9 dimensions, fitted on 18 pictures" in said
    assert "these pictures determine 17" in said
    given = run("index", photos, "--whitening", "white.safetensors")
    assert "has 9 dimensions, the recipe names 512" in " ".join(given.stderr.split())


def test_no_output_takes_the_place_of_what_is_read(
    run, photos: Path, recipe_file: Path, tmp_path: Path, random_weights: Path
) -> None:
    weights = tmp_path / "own.safetensors"
    shutil.copy(random_weights, weights)
    assert run("index", photos, "--recipe", recipe_file, "--weights", weights).returncode == 0
    query = photos / "instance000_view00.jpg"
    part = photos / "instance000_view00.part.jpg"
    shutil.copy(query, part)
    (photos / "link.jpg").symlink_to(query)
    (tmp_path / "alias").symlink_to(photos)
    before = {path: path.read_bytes() for path in (*photos.iterdir(), weights)}
    assert run("index", photos).returncode == 0
    for target in (query, part, photos / "link.jpg", tmp_path / "alias" / "link.jpg"):
        done = run("search", sorted(photos.iterdir())[5], "--montage", target)
        assert "of the collection" in done.stderr
    assert "to be read" in run("whitening", "-o", weights).stderr
    assert run("search", query, "--montage", tmp_path / "instance000_view00.jpg").returncode == 0
    assert {path: path.read_bytes() for path in (*photos.iterdir(), weights)} == before
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".coocnet")]


@pytest.mark.slow
def test_text_that_the_terminal_cannot_take_is_escaped(run, photos: Path, recipe_file: Path, tmp_path: Path) -> None:
    sorted(photos.iterdir())[0].rename(photos / "日本.jpg")
    assert run("index", photos, "--recipe", recipe_file).returncode == 0
    done = coocnet(tmp_path, "search", photos / "日本.jpg", "-k", "1", PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert r"\u65e5\u672c.jpg" in done.stdout
    refused = run("index", photos, "--recipe", recipe_file, "--device", "\x1b[31mX", "--verify-content")
    assert "\x1b" not in refused.stderr + refused.stdout


@pytest.mark.slow
def test_moved_weights_are_named_in_a_search_and_taken_over_by_the_next_index(
    run, photos: Path, recipe_file: Path, tmp_path: Path, random_weights: Path, scenes
) -> None:
    here = tmp_path / "here.safetensors"
    shutil.copy(random_weights, here)
    assert run("index", photos, "--recipe", recipe_file, "--weights", here).returncode == 0
    moved = here.rename(tmp_path / "moved.safetensors")
    query = scenes[0] / next(view.path for view in scenes[1] if view.role == "query")
    assert "here.safetensors" in run("search", query).stderr
    assert run("search", query, "--weights", moved).returncode == 0
    assert "here.safetensors" in run("explain", query, query, "-o", "why.png").stderr
    done = run("explain", query, query, "-o", "why.png", "--weights", moved)
    assert done.returncode == 0, done.stderr
    assert run("index", photos, "--weights", moved).returncode == 0
    assert run("search", query).returncode == 0


def test_names_with_control_characters_and_without_a_text_are_harmless(run, photos: Path, recipe_file: Path) -> None:
    some = sorted(photos.iterdir())[0]
    shutil.copy(some, photos / "two\nlines \x1b[31m.jpg")
    shutil.copy(some, os.fsencode(photos) + b"/caf\xe9.jpg")
    assert run("index", photos, "--recipe", recipe_file).returncode == 0
    shown = run("search", some, "-k", "3").stdout
    assert "\x1b" not in shown
    assert r"two\nlines \x1b[31m.jpg" in shown
    hits = json.loads(run("search", some, "-k", "3", "--json").stdout)["hits"]
    assert {Path(hit["path"]).name for hit in hits} == {some.name, "two\nlines \x1b[31m.jpg", r"caf\udce9.jpg"}
    odd = next(hit for hit in hits if "path_bytes" in hit)
    assert os.path.exists(bytes.fromhex(odd["path_bytes"]))


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_output_that_cannot_be_written_is_said_in_words(library: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "coocnet", "recipes", "mini"],
            stdout=full, stderr=subprocess.PIPE, text=True, cwd=library,
        )  # fmt: skip
    assert done.returncode == 1
    assert "could not be written" in done.stderr
    assert "Traceback" not in done.stderr


def test_recipes_are_listed_and_printed_as_toml_to_start_from(run, tmp_path: Path) -> None:
    listed = run("recipes").stdout
    assert all(name in listed for name in PRESETS)
    assert Recipe.from_toml(run("recipes", "paper-chco-sct-td").stdout) == PRESETS["paper-chco-sct-td"]


def test_weights_are_listed_with_where_they_are(run, tmp_path: Path) -> None:
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "vgg16-397923af.pth").write_text("not these")
    listed = run("weights", COOCNET_WEIGHTS=str(folder)).stdout
    assert "vgg16-397923af.pth: a file of this name is here, but damaged" in listed
    assert "resnet50-0676ba61.pth: not here, downloaded when needed" in listed
    assert "resnet101v2_block3.safetensors: not here, and not to be downloaded" in listed


def test_version_and_help_name_every_command(run) -> None:
    assert run("--version").stdout.startswith("coocnet ")
    top = run("--help").stdout
    names = [name for panel in PANELS.values() for name in panel]
    registered = [one.name or one.callback.__name__ for one in app.registered_commands]
    assert sorted(names) == sorted([*registered, *(one.name for one in app.registered_groups)])
    assert [top.index(f"│ {name} ") for name in names] == sorted(top.index(f"│ {name} ") for name in names)
    for name in names:
        assert name in top
        page = run(name, "--help")
        assert page.returncode == 0
        if name in ("index", "search", "heatmap", "whitening", "centre", "explain", "datasets", "remove", "restore"):
            assert "Example" in page.stdout


def test_pictures_are_taken_out_listed_and_taken_back(run, photos: Path, recipe_file: Path) -> None:
    run("index", photos, "--recipe", recipe_file)
    first, second = sorted(photos.iterdir())[:2]
    copy = Path(shutil.copy(first, photos / "copy.jpg"))
    run("index", photos)
    assert "No picture is taken out" in run("restore").stdout
    out = run("remove", first, second)
    assert out.returncode == 0, out.stderr
    assert out.stdout.splitlines()[:3] == sorted(map(str, (copy, first, second)))
    assert "3 taken out of the collection" in out.stdout
    assert first.is_file()
    assert run("restore").stdout.splitlines() == sorted(map(str, (copy, first, second)))
    synced = run("index", photos)
    assert "taken out of the collection" in synced.stderr
    again = run("remove", first)
    assert (again.returncode, "already" in again.stderr) == (1, True)
    first.unlink()
    back = run("restore", first)
    assert back.returncode == 0, back.stderr
    assert "1 added" in back.stdout
    assert "no such file" in back.stderr
    assert run("restore").stdout.splitlines() == [str(second)]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("remove", "elsewhere.png"), "not in this collection"),
        (("remove", "missing.png"), "no such file"),
        (("restore", "elsewhere.png"), "not taken out"),
        (("restore", "missing.png"), "not taken out"),
    ],
    ids=str,
)
def test_pictures_that_are_not_there_to_be_taken_out_or_back_are_named(
    run, photos: Path, recipe_file: Path, tmp_path: Path, arguments, says
) -> None:
    run("index", photos, "--recipe", recipe_file)
    Image.new("RGB", (50, 40), "teal").save(tmp_path / "elsewhere.png")
    out = run(*arguments)
    assert out.returncode == 1
    assert arguments[1] in out.stderr
    assert says in out.stderr


def test_an_interruption_that_meets_a_callback_from_c_ends_the_command_all_the_same(run, monkeypatch) -> None:
    met: list[str] = []

    @ctypes.CFUNCTYPE(None)
    def meets_one() -> None:
        met.append("it")
        raise KeyboardInterrupt

    def works(*_: object) -> None:
        meets_one()
        for _ in range(1000):
            time.sleep(0.01)
        met.append("its end")

    monkeypatch.setattr("coocnet.index.open_index", works)
    assert run("info", "--index", "anywhere").returncode == 130
    assert met == ["it"]


def test_a_command_without_memory_says_so(run, monkeypatch) -> None:
    def without_memory(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("coocnet.index.open_index", without_memory)
    done = run("info")
    assert done.returncode == 1
    assert done.stderr.startswith("coocnet: out of memory. What was stored is intact")
