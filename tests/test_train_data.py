"""What a filter learns from: pictures by instance, parts without a thing in common, mined tuples, kept maps."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import reference_learning as reference
from coocnet.data.benchmarks.training import Training, TrainingPairs
from coocnet.data.pairs import pictures_by_instance
from coocnet.data.views import make_views
from coocnet.describe import Describer
from coocnet.errors import InputError, TrainingError
from coocnet.train import Examples, Maps, Settings, hold_out, of_instances, of_training
from coocnet.train.mining import Drawn, batch_of, draw, hard_negatives

quick = settings(max_examples=30, deadline=None)


def examples(*clusters: int, pairs: Sequence[tuple[int, int]] | None = None) -> Examples:
    made = None if pairs is None else np.array(pairs)
    return Examples(tuple(f"/{at}.jpg" for at in range(len(clusters))), np.array(clusters), made)


# ------------------------------------------------------------------------------------ pictures by instance


def a_picture(path: Path, seed: int = 0, size: tuple[int, int] = (48, 32)) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return str(path)


def test_a_folder_has_a_folder_for_every_instance_whose_pictures_may_lie_deeper(tmp_path) -> None:
    a, b = a_picture(tmp_path / "tower" / "a.png"), a_picture(tmp_path / "tower" / "deep" / "b.png")
    c = a_picture(tmp_path / "gate" / "c.png")
    (tmp_path / "gate" / "notes.txt").write_text("no picture")
    root = os.path.realpath(tmp_path)
    assert pictures_by_instance(tmp_path) == {
        "gate": [c.replace(str(tmp_path), root)],
        "tower": [one.replace(str(tmp_path), root) for one in (a, b)],
    }


def test_a_list_names_the_pictures_of_each_instance_each_once(tmp_path) -> None:
    (tmp_path / "list.csv").write_text("image,instance\na.jpg,tower\n/b.jpg,gate\na.jpg,tower\nc.jpg,tower\n")
    a, c = str(tmp_path / "a.jpg"), str(tmp_path / "c.jpg")
    assert pictures_by_instance(tmp_path / "list.csv") == {"tower": [a, c], "gate": ["/b.jpg"]}


def test_a_picture_under_two_instances_is_refused(tmp_path) -> None:
    (tmp_path / "list.csv").write_text("image,instance\na.jpg,tower\na.jpg,gate\n")
    with pytest.raises(InputError, match=r"line 3: 'a\.jpg' is listed as 'tower' and as 'gate'"):
        pictures_by_instance(tmp_path / "list.csv")


def test_pictures_outside_of_any_instance_are_refused(tmp_path) -> None:
    a_picture(tmp_path / "tower" / "a.png")
    a_picture(tmp_path / "lost.png")
    with pytest.raises(InputError, match=r"lost\.png lies in no instance's folder"):
        pictures_by_instance(tmp_path)


def test_a_blank_label_and_a_list_in_another_encoding_are_refused(tmp_path) -> None:
    (tmp_path / "list.csv").write_text("image,instance\na.jpg,  \n")
    with pytest.raises(InputError, match="line 2: an image or its instance is missing"):
        pictures_by_instance(tmp_path / "list.csv")
    (tmp_path / "list.csv").write_bytes("image,instance\na.jpg,Türme\n".encode("latin-1"))
    with pytest.raises(InputError, match="is not UTF-8: save it as that"):
        pictures_by_instance(tmp_path / "list.csv")


def test_one_picture_by_two_spellings_is_one(tmp_path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "list.csv").write_text("image,instance\na.jpg,tower\nsub/../a.jpg,tower\n")
    assert pictures_by_instance(tmp_path / "list.csv") == {"tower": [str(tmp_path / "a.jpg")]}


def test_a_broken_link_among_the_pictures_is_told(tmp_path) -> None:
    a_picture(tmp_path / "tower" / "a.png")
    (tmp_path / "tower" / "b.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(InputError, match=r"1 below .* cannot be used: .*b\.png"):
        pictures_by_instance(tmp_path)


def test_a_folder_without_pictures_is_refused(tmp_path) -> None:
    with pytest.raises(InputError, match="holds no pictures"):
        pictures_by_instance(tmp_path)


def test_one_name_in_two_collections_means_two_things() -> None:
    made = of_instances([{"a": ["/1", "/2"]}, {"a": ["/3"], "b": ["/4"]}])
    assert made.paths == ("/1", "/2", "/3", "/4")
    assert made.clusters.tolist() == [0, 0, 1, 2]
    assert made.lonely == 2
    assert made.things == 3
    with pytest.raises(TrainingError, match=r"/1 is listed twice"):
        of_instances([{"a": ["/1", "/2"]}, {"b": ["/1"]}])


# ------------------------------------------------------------------------------------ what matches


def test_pictures_of_one_cluster_match_each_other_but_not_themselves() -> None:
    made = examples(0, 1, 0, 0, 2)
    assert made.queries.tolist() == [0, 2, 3]
    assert made.matches(2).tolist() == [0, 3]
    query, truth = next(made.truths())
    assert (query, truth.positives, truth.junk) == (0, {2, 3}, {0})


def test_with_pairs_given_other_pictures_of_the_cluster_count_neither_way() -> None:
    made = examples(0, 0, 0, 1, 1, pairs=[(0, 2), (4, 3)])
    assert made.queries.tolist() == [0, 4]
    assert made.matches(0).tolist() == [2]
    truth = dict(made.truths())[0]
    assert (truth.positives, truth.junk) == ({2}, {0, 1})


def test_a_published_training_set_gives_its_clusters_and_pairs() -> None:
    pairs = TrainingPairs(("x", "y", "z"), (7, 7, 8), (0,), (1,))
    made = of_training(Training(pairs, [Path("/x"), Path("/y"), Path("/z")]))
    assert (made.paths, made.clusters.tolist(), made.matches(0).tolist()) == (("/x", "/y", "/z"), [7, 7, 8], [1])
    with pytest.raises(TrainingError, match="same cluster"):
        of_training(Training(TrainingPairs(("x",), (), (0,), (0,)), [Path("/x")]))


def test_matching_pairs_are_listed_once_and_at_most_so_many() -> None:
    made = examples(0, 0, 0, 1, 1)
    assert made.all_pairs(10, 0).tolist() == [[0, 1], [0, 2], [1, 2], [3, 4]]
    few = made.all_pairs(2, 0).tolist()
    assert 0 < len(few) <= 2
    assert all(pair in made.all_pairs(10, 0).tolist() for pair in few)
    assert few == made.all_pairs(2, 0).tolist()
    given = examples(0, 0, 0, pairs=[(0, 1), (1, 2), (2, 0)])
    assert given.all_pairs(5, 0).tolist() == [[0, 1], [1, 2], [2, 0]]
    assert len(given.all_pairs(2, 0)) == 2


@given(seed=st.integers(0, 10**6), share=st.floats(0.1, 0.6))
@quick
def test_parts_have_no_thing_in_common_and_keep_all_pictures(seed: int, share: float) -> None:
    made = examples(*np.random.default_rng(seed).integers(0, 12, 40).tolist(), 100, 101)
    left, out = hold_out(made, share, seed)
    assert not {*left.clusters.tolist()} & {*out.clusters.tolist()}
    assert sorted((*left.paths, *out.paths)) == sorted(made.paths)
    assert {100, 101} <= {*left.clusters.tolist()}
    useful = len(np.unique(made.clusters[made.queries]))
    assert out.things == max(2, round(useful * share))


def test_holding_out_keeps_given_pairs_together() -> None:
    made = examples(0, 0, 1, 1, 2, 2, 3, 3, pairs=[(0, 1), (2, 3), (4, 5), (6, 7)])
    for part in hold_out(made, 0.5, 0):
        assert len(part.pairs) == 2
        assert all(part.clusters[q] == part.clusters[p] for q, p in part.pairs.tolist())


def test_too_few_things_to_hold_any_out_are_refused() -> None:
    with pytest.raises(TrainingError, match=r"3 things .* too few"):
        hold_out(examples(0, 0, 1, 1, 2, 2), 0.3, 0)


def test_pictures_that_are_gone_are_named(tmp_path) -> None:
    here = a_picture(tmp_path / "a.png")
    made = Examples((here, str(tmp_path / "gone.png"), here + "x", here + "y"), np.array([0, 0, 1, 1]))
    with pytest.raises(TrainingError, match=r"3 of 4 pictures of these .*gone\.png"):
        made.need_learnable("these")


@pytest.mark.parametrize("clusters", [(0, 1, 2), (0, 0, 0), (0, 0, 1)], ids=["all lonely", "one thing", "one useful"])
def test_labels_that_nothing_can_be_learned_from_are_refused(tmp_path, clusters) -> None:
    paths = tuple(a_picture(tmp_path / f"{at}.png") for at in range(3))
    with pytest.raises(TrainingError, match=r"these: [01] things with two pictures or more"):
        Examples(paths, np.array(clusters)).need_learnable("these")


# ------------------------------------------------------------------------------------ mining


@given(seed=st.integers(0, 10**6), count=st.integers(0, 4))
@quick
def test_hard_negatives_equal_plain_loops(seed: int, count: int) -> None:
    random = np.random.default_rng(seed)
    rows = random.normal(size=(12, 3)).astype(np.float32)
    clusters = random.integers(0, 4, 12)
    matches = random.integers(-1, 12, (4, 2))
    drawn = Drawn(random.permutation(12)[:4], matches, np.sort(random.permutation(12)[:9]))
    expected = reference.hard_negatives(rows, clusters, drawn.queries, drawn.matches, drawn.pool, count)
    assert hard_negatives(rows, clusters, drawn, count).tolist() == expected


def test_an_epoch_draws_the_same_again_and_another_epoch_something_else() -> None:
    made = examples(*[at // 3 for at in range(60)])
    one, same, other = (draw(made, queries=10, matches=3, pool=20, seed=5, epoch=epoch) for epoch in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(vars(one).values(), vars(same).values(), strict=True))
    assert not np.array_equal(one.queries, other.queries)
    assert len(one.queries) == 10
    assert len(one.pool) == 20
    for query, matches in zip(one.queries.tolist(), one.matches.tolist(), strict=True):
        assert sorted(matches) == [-1, *made.matches(query).tolist()]


def test_of_a_tuple_only_its_own_pictures_count() -> None:
    made = examples(0, 0, 1, 1, 2, 3)
    batch = batch_of(np.array([[0, 1, 4, -1], [2, 3, 0, 5]]), made, matches=1, whole=False)
    assert batch.pictures.tolist() == [0, 1, 2, 3, 4, 5]
    assert batch.queries.tolist() == [0, 2]
    assert [np.flatnonzero(row).tolist() for row in batch.positive.numpy()] == [[1], [3]]
    assert [np.flatnonzero(row).tolist() for row in batch.negative.numpy()] == [[4], [0, 5]]


def test_a_tuple_may_have_several_matches_or_fewer_than_there_is_room_for() -> None:
    made = examples(0, 0, 0, 1, 1, 2)
    batch = batch_of(np.array([[0, 1, 2, 5], [3, 4, -1, 0]]), made, matches=2, whole=False)
    assert [np.flatnonzero(row).tolist() for row in batch.positive.numpy()] == [[1, 2], [4]]
    assert [np.flatnonzero(row).tolist() for row in batch.negative.numpy()] == [[5], [0]]


def test_of_a_whole_batch_all_that_matches_is_right_and_all_of_other_things_wrong() -> None:
    made = examples(0, 0, 1, 1, 0, 3)
    batch = batch_of(np.array([[0, 1, 5], [2, 3, 4]]), made, matches=1, whole=True)
    assert [np.flatnonzero(row).tolist() for row in batch.positive.numpy()] == [[1, 4], [3]]
    assert [np.flatnonzero(row).tolist() for row in batch.negative.numpy()] == [[2, 3, 5], [0, 1, 4, 5]]


def test_a_picture_that_may_match_is_neither_right_nor_wrong() -> None:
    made = examples(0, 0, 0, 1, pairs=[(0, 1)])
    batch = batch_of(np.array([[0, 1, 2, 3]]), made, matches=1, whole=True)
    assert batch.positive.tolist() == [[False, True, False, False]]
    assert batch.negative.tolist() == [[False, False, False, True]]


# ------------------------------------------------------------------------------------ settings


def test_the_rate_rises_straight_and_falls_to_nothing() -> None:
    made = Settings(learning_rate=2.0, warmup_steps=4)
    rates = [made.learning_rate_at(step, 20) for step in range(21)]
    assert rates[:5] == [0.5, 1.0, 1.5, 2.0, 2.0]
    assert all(later < earlier for earlier, later in itertools.pairwise(rates[4:]))
    assert rates[-1] == pytest.approx(0, abs=1e-12)


def test_of_few_steps_the_rise_takes_half_at_most() -> None:
    rates = [Settings(learning_rate=1.0, warmup_steps=50).learning_rate_at(step, 4) for step in range(4)]
    assert rates[:3] == [0.5, 1.0, 1.0]
    assert rates[3] < 1


def test_the_losses_that_need_hard_negatives_have_some_by_default() -> None:
    assert [Settings(loss=loss).mined for loss in ("contrastive", "triplet", "softmax", "ap")] == [5, 5, 0, 0]
    assert Settings(loss="ap", negatives=3).mined == 3


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"kind": "round"}, "dense, factorised, got 'round'"),
        ({"loss": "none"}, "contrastive, triplet, softmax, ap"),
        ({"precision": "float16"}, "float32, bfloat16"),
        ({"rank": 0}, "rank is a whole number from 1"),
        ({"epochs": 2.5}, "epochs is a whole number"),
        ({"learning_rate": float("nan")}, "learning_rate is a number"),
        ({"margin": "wide"}, "margin is a number"),
        ({"held_out": 1.0}, "held_out is a number from 0 to 0.9"),
        ({"seed": True}, "seed is a whole number"),
        ({"memory": 1}, "memory is true or false"),
        ({"loss": "triplet", "negatives": 0}, "negatives is a whole number from 1 .* 'triplet'"),
        ({"negatives": -1}, "negatives is a whole number from 0"),
    ],
    ids=str,
)
def test_settings_that_cannot_be_are_refused(wrong, says: str) -> None:
    with pytest.raises(InputError, match=says):
        Settings(**wrong)


# ------------------------------------------------------------------------------------ maps on disk


@pytest.fixture
def pictures(tmp_path: Path) -> list[str]:
    return [a_picture(tmp_path / f"{at}.png", at, (96, 64 + 16 * at)) for at in range(3)]


def kept(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "maps").rglob("*.npy"))


def maps_of(describer: Describer, tmp_path: Path, budget: int = 10**9) -> Maps:
    return Maps(describer, tmp_path / "maps", budget_bytes=budget)


@pytest.mark.parametrize("change", [{}, {"prior": "top-down"}, {"scales": (0.5, 1.0)}], ids=str)
def test_kept_maps_are_those_of_the_describer_in_half_precision(recipe, pictures, tmp_path, change) -> None:
    describer = Describer(recipe.replace(**change))
    maps = maps_of(describer, tmp_path)
    assert maps.prepare(pictures) == 0
    assert len(kept(tmp_path)) == 3
    for path, a in zip(pictures, maps.of(pictures), strict=True):
        expected = describer.map_of(describer.load(path).pixels)
        torch.testing.assert_close(a, expected, rtol=1e-3, atol=1e-3 * float(expected.max()))


def test_maps_are_computed_once(describer, pictures, tmp_path, monkeypatch) -> None:
    maps_of(describer, tmp_path).prepare(pictures)
    monkeypatch.setattr(Describer, "_first_maps", lambda *_: pytest.fail("computed again"))
    again = maps_of(describer, tmp_path)
    assert again.prepare(pictures) == 0
    assert len(list(again.of(pictures))) == 3


def test_maps_of_another_recipe_or_prior_are_others(recipe, pictures, tmp_path) -> None:
    for made in (recipe, recipe.replace(prior="centre"), recipe.replace(size_px=80), recipe.replace(scales=(0.5,))):
        maps_of(Describer(made), tmp_path).prepare(pictures)
    assert len(kept(tmp_path)) == 12
    maps_of(Describer(recipe.replace(pooling="gem")), tmp_path).prepare(pictures)
    assert len(kept(tmp_path)) == 12


def test_what_does_not_fit_into_the_budget_is_computed_when_it_is_asked_for(describer, pictures, tmp_path) -> None:
    everything = maps_of(describer, tmp_path / "all")
    everything.prepare(pictures)
    one = kept(tmp_path / "all")[0].stat().st_size
    small = maps_of(describer, tmp_path, budget=one + 200)
    left = small.prepare(pictures)
    assert left > 0
    assert len(kept(tmp_path)) == 3 - left
    for a, b in zip(small.of(pictures), everything.of(pictures), strict=True):
        assert torch.equal(a, b)
    assert len(kept(tmp_path)) == 3 - left


def test_a_damaged_map_is_computed_anew(describer, pictures, tmp_path) -> None:
    maps = maps_of(describer, tmp_path)
    maps.prepare(pictures)
    before = [a.clone() for a in maps.of(pictures)]
    for file in kept(tmp_path):
        file.write_bytes(file.read_bytes()[:100])
    for a, b in zip(maps_of(describer, tmp_path).of(pictures), before, strict=True):
        assert torch.equal(a, b)
    assert len({file.stat().st_size for file in kept(tmp_path)} - {100}) > 0
    assert all(file.stat().st_size > 100 for file in kept(tmp_path))


def test_the_map_of_a_picture_that_changed_is_computed_anew(describer, pictures, tmp_path) -> None:
    before = next(maps_of(describer, tmp_path).of(pictures))
    a_picture(Path(pictures[0]), 77, (96, 80))
    assert next(maps_of(describer, tmp_path).of(pictures)).shape != before.shape


def test_pictures_that_cannot_be_described_are_all_named(describer, pictures, tmp_path) -> None:
    for name in ("bad.png", "empty.png"):
        (tmp_path / name).write_bytes(b"" if name == "empty.png" else b"no picture")
    listed = [pictures[0], str(tmp_path / "bad.png"), str(tmp_path / "empty.png"), pictures[1]]
    with pytest.raises(TrainingError, match=r"2 of 4 pictures .*bad\.png.*empty\.png"):
        maps_of(describer, tmp_path).prepare(listed)
    assert len(kept(tmp_path)) == 2


# ------------------------------------------------------------------------------------ synthetic views


def test_every_picture_gets_a_folder_with_itself_and_its_views(pictures, tmp_path) -> None:
    assert make_views(pictures, tmp_path / "things", views=2, size_px=64) == []
    found = pictures_by_instance(tmp_path / "things")
    assert [len(images) for images in found.values()] == [3, 3, 3]
    for images in found.values():
        contents = [np.asarray(Image.open(path)) for path in images]
        assert all(max(one.shape) == 64 for one in contents)
        assert len({one.tobytes() for one in contents}) == 3


def test_the_same_seed_makes_the_same_views_and_what_is_there_is_left(pictures, tmp_path) -> None:
    def made(name: str, seed: int = 0, views: int = 1) -> dict[str, bytes]:
        make_views(pictures, tmp_path / name, views=views, size_px=64, seed=seed)
        return {path.parent.name + path.name: path.read_bytes() for path in sorted((tmp_path / name).rglob("*.jpg"))}

    one = made("one")
    assert made("two") == one
    assert made("three", seed=1) != one
    first, second = sorted(path.parent for path in (tmp_path / "one").rglob("view0.jpg"))[:2]
    (first / "view0.jpg").unlink()
    (second / "view0.jpg").write_bytes(b"mine")
    again = made("one")
    assert again.pop(f"{second.name}view0.jpg") == b"mine"
    assert again == {name: content for name, content in one.items() if name != f"{second.name}view0.jpg"}


def test_more_pictures_and_more_views_come_to_those_that_are_there(pictures, tmp_path) -> None:
    make_views(pictures[1:], tmp_path / "things", views=1, size_px=64)
    before = {path: path.read_bytes() for path in (tmp_path / "things").rglob("*.jpg")}
    make_views([a_picture(tmp_path / "aaa.png", 9), *pictures], tmp_path / "things", views=2, size_px=64)
    after = {path: path.read_bytes() for path in (tmp_path / "things").rglob("*.jpg")}
    assert before.items() <= after.items()
    assert [len(images) for images in pictures_by_instance(tmp_path / "things").values()] == [3, 3, 3, 3]


def test_views_by_another_seed_or_of_another_size_are_not_mixed(pictures, tmp_path) -> None:
    make_views(pictures, tmp_path / "things", views=1, size_px=64)
    for other in ({"seed": 1, "size_px": 64}, {"size_px": 96}):
        with pytest.raises(InputError, match=r"has views made by .*'size_px': 64.*: write to another folder"):
            make_views(pictures, tmp_path / "things", views=1, **other)


def test_a_picture_that_cannot_be_read_is_told_and_left_out(pictures, tmp_path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no picture")
    skipped = make_views([*pictures, tmp_path / "bad.png"], tmp_path / "things", views=1, size_px=64)
    assert [os.path.basename(error.path) for error in skipped] == ["bad.png"]
    assert len(pictures_by_instance(tmp_path / "things")) == 3


def test_views_that_cannot_be_are_refused(tmp_path) -> None:
    for wrong in ({"views": 0}, {"views": 1, "size_px": 10}):
        with pytest.raises(InputError, match="at least 1 view and 64 pixels"):
            make_views([], tmp_path, **wrong)
