"""The cut is that of the loops, lies between chance and likeness, and a search with it says "nothing found"."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

import reference_ranking as reference
from coocnet.errors import InputError, WhiteningError
from coocnet.index.gallery import Gallery
from coocnet.ranking import similarity_cut
from coocnet.recipe import Recipe
from coocnet.whitening import fit_pca, unit_rows

D = 32


def _directions(n: int, seed: int) -> np.ndarray:
    return unit_rows(np.random.default_rng(seed).standard_normal((n, D)))


def _views(things: np.ndarray, views: int, seed: int, spread: float = 0.05) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal((len(things) * views, D))
    return unit_rows(np.repeat(things, views, axis=0) + spread * noise)


@pytest.mark.parametrize("views", [1, 2, 4])
@pytest.mark.parametrize("rate", [0.05, 0.5])
def test_the_cut_is_the_quantile_of_the_loops(views: int, rate: float) -> None:
    rows = _views(_directions(60, 0), views, 1)
    chance = [reference.chance_likeness(rows.astype(np.float64), at) for at in range(len(rows))]
    assert similarity_cut(rows, rate=rate) == pytest.approx(np.quantile(chance, 1 - rate), abs=1e-6)


@pytest.mark.parametrize("views", [1, 2, 5])
def test_things_of_the_collection_pass_the_cut_and_others_seldom_do(views: int) -> None:
    things = _directions(100, 2)
    rows = _views(things, views, 3)
    cut = similarity_cut(rows)
    assert ((_views(things, 1, 4) @ rows.T).max(1) > cut).all()
    strangers = (_directions(400, 5) @ rows.T).max(1)
    assert (strangers > cut).mean() < 0.2


def test_a_smaller_rate_cuts_higher() -> None:
    rows = _directions(200, 6)
    cuts = [similarity_cut(rows, rate=rate) for rate in (0.5, 0.1, 0.01)]
    assert cuts == sorted(cuts)
    assert cuts[0] < cuts[2]


def test_drawing_some_pictures_gives_nearly_the_cut_of_all() -> None:
    rows = _views(_directions(300, 7), 2, 8)
    every = similarity_cut(rows, pictures=600)
    some = similarity_cut(rows, pictures=200)
    assert some == similarity_cut(rows, pictures=200)
    assert some != every
    assert some == pytest.approx(every, abs=0.05)


def test_blank_pictures_say_nothing_about_chance() -> None:
    rows = _directions(60, 9)
    blank = np.concatenate([rows, np.zeros((40, D), np.float32)])
    with pytest.raises(InputError, match="this one has 49"):
        similarity_cut(np.concatenate([rows[:49], np.zeros((40, D), np.float32)]))
    assert similarity_cut(blank) == similarity_cut(rows)


@pytest.mark.parametrize(
    ("rows", "options", "says"),
    [
        (_directions(60, 0) * 2, {}, "length"),
        (_directions(60, 0), {"rate": 0.0}, "rate"),
        (_directions(60, 0), {"rate": float("nan")}, "rate"),
        (_directions(60, 0), {"pictures": 0}, "pictures"),
        (_directions(12, 0), {}, "give the threshold as a number"),
    ],
)
def test_what_cannot_be_used_is_quoted(rows: np.ndarray, options, says: str) -> None:
    with pytest.raises(InputError, match=says):
        similarity_cut(rows, **options)


def _gallery(rows: np.ndarray, copies: int = 1) -> Gallery:
    names = [f"{number:04}" for number in range(len(rows) * copies)]
    digests = np.random.default_rng(0).integers(0, 256, (len(rows), 16), np.uint8)
    return Gallery("", None, None, names, *(np.repeat(each, copies, axis=0) for each in (digests, rows)))


def _found(gallery: Gallery, queries: np.ndarray, **options) -> list[list[str]]:
    asked = {"k": 5, "threshold": "auto", "expansion": "none", "augmentation": False, "reranking": "none", **options}
    return [[hit.path for hit in hits] for hits in gallery.find(queries, Recipe(), **asked)]


def test_a_thing_that_is_not_there_is_answered_by_nothing() -> None:
    things = _directions(80, 10)
    gallery = _gallery(_views(things, 2, 11))
    found = _found(gallery, _views(things[:20], 1, 12))
    assert [sorted(one[:2]) for one in found] == [[f"{2 * n:04}", f"{2 * n + 1:04}"] for n in range(20)]
    assert sum(len(one) - 2 for one in found) < 10
    strangers = _found(gallery, _directions(50, 13))
    assert sum(map(bool, strangers)) < 10


def test_the_query_itself_has_to_reach_the_cut_not_what_it_was_expanded_to() -> None:
    gallery = _gallery(_views(_directions(80, 10), 2, 11))
    strangers = _directions(50, 13)
    assert _found(gallery, strangers, expansion="aqe").count([]) == _found(gallery, strangers).count([])
    assert _found(gallery, strangers, expansion="aqe", threshold=gallery.cut).count([]) == 0


def test_copies_of_a_picture_do_not_move_the_cut() -> None:
    rows = _directions(60, 14)
    assert _gallery(rows, copies=3).cut == _gallery(rows).cut


def test_the_first_dimensions_are_those_of_a_whitening_to_fewer() -> None:
    rows = _directions(60, 15)
    whole = fit_pca(rows, dim=20)
    np.testing.assert_allclose(whole.first(6).apply(rows), fit_pca(rows, dim=6).apply(rows), atol=1e-5)
    for wrong in (0, 21, True, 2.0):
        with pytest.raises(WhiteningError, match="1 to 20 dimensions"):
            whole.first(wrong)


@pytest.fixture
def many(tmp_path, command, recipe_file):
    """A folder with an index of 60 pictures of noise, under a whitening to 12 dimensions."""
    (tmp_path / "noise").mkdir()
    random = np.random.default_rng(16)
    for number in range(60):
        blocks = random.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(blocks).resize((96, 96), Image.Resampling.NEAREST).save(
            tmp_path / "noise" / f"{number:02}.png"
        )
    assert command(tmp_path, "index", "noise", "--recipe", recipe_file).returncode == 0
    made = command(tmp_path, "whitening", "-o", "white.safetensors", "--dim", "12")
    assert made.returncode == 0, made.stderr
    assert command(tmp_path, "index", "noise", "--whitening", "white.safetensors").returncode == 0
    return tmp_path


@pytest.mark.slow
def test_the_command_learns_the_threshold_and_says_it(many, run) -> None:
    known = run("search", "noise/07.png", "--threshold", "auto")
    assert known.returncode == 0, known.stderr
    assert "this very picture" in known.stdout
    assert "learned from the collection" in known.stdout
    answer = json.loads(run("search", "noise/07.png", "--threshold", "auto", "--json").stdout)
    assert all(hit["similarity"] >= answer["threshold"] for hit in answer["hits"])
    wider = json.loads(run("search", "noise/07.png", "--json").stdout)
    assert wider["threshold"] is None
    assert len(wider["hits"]) == 10 > len(answer["hits"])
    Image.new("RGB", (96, 96), (200, 30, 90)).save(many / "stranger.png")
    stranger = run("search", "stranger.png", "--threshold", "auto")
    assert "Nothing found" in stranger.stdout
    assert "The most similar has" in " ".join(stranger.stdout.split())


@pytest.mark.slow
def test_the_command_uses_fewer_dimensions(many, run) -> None:
    few, every = (
        json.loads(run("search", "noise/07.png", "--json", *options).stdout)["hits"]
        for options in (["--dim", "3"], [])
    )
    assert few[0]["path"] == every[0]["path"]
    assert [hit["similarity"] for hit in few[1:]] != [hit["similarity"] for hit in every[1:]]
    refused = run("search", "noise/07.png", "--dim", "13")
    assert refused.returncode == 1
    assert "1 to 12 dimensions" in " ".join(refused.stderr.split())


@pytest.mark.slow
def test_options_that_cannot_be_are_refused_in_words(many, run) -> None:
    wrong = run("search", "noise/07.png", "--threshold", "some")
    assert (wrong.returncode, "a number or auto" in wrong.stderr) == (1, True)
    assert run("index", "noise", "--whitening", "none").returncode == 0
    without = run("search", "noise/07.png", "--dim", "3")
    assert without.returncode == 1
    assert "no whitening" in " ".join(without.stderr.split())
