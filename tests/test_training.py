"""How the shipped network is trained: folding, targets, order, and going on after an interruption."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import distil
import teacher
from camera import photograph
from coocnet import ops
from coocnet.backbones.mini import Mini
from coocnet.recipe import Recipe
from optimiser import Muon, half_orthogonal
from pictures import VIEW_PX, TrainingPicture, is_development, training_pictures, view
from student import Student, folded, pool, with_batch_norm
from teacher import HINTS, TEACHERS

pytestmark = pytest.mark.slow

SETTINGS = distil.Settings(steps=6, passes=3, pairs=2, rise=2, row_dim=3, embedding_dim=4)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[TrainingPicture]:
    """Four pictures, two of one thing."""
    folder = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(3)
    listed = []
    for number in range(4):
        coarse = random.integers(0, 255, (9, 12, 3), dtype=np.uint8)
        path = folder / f"{number}.png"
        Image.fromarray(coarse).resize((160, 120), Image.Resampling.BICUBIC).save(path)
        listed.append(TrainingPicture(path, "thing" if number < 2 else ""))
    return listed


@pytest.fixture(scope="module")
def target_folder(pictures: list[TrainingPicture], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As the teachers would leave it, with random numbers for what they say."""
    folder = tmp_path_factory.mktemp("targets")
    random = np.random.default_rng(4)
    teacher.claim(folder, pictures, {"resnet101v2": "ab", "mobilenetv2": "cd"})
    for number in range(3):
        place = folder / f"pass{number}"
        place.mkdir()
        np.save(place / "views.npy", np.stack([view(one, number, pictures) for one in pictures]))
        for t in TEACHERS:
            cells = random.standard_normal((len(pictures), t.cells, t.cells, t.axes))
            np.save(place / f"{t.backbone}-cells.npy", cells.astype(np.float16))
            rows = random.random((len(pictures), t.channels))
            np.save(place / f"{t.backbone}-rows.npy", rows.astype(np.float16))
        for hint in HINTS:
            drawn = 3 + 2 * random.standard_normal((len(pictures), hint.cells, hint.cells, hint.channels))
            np.save(place / f"{hint.file}.npy", drawn.astype(np.float16))
        (place / "done.txt").write_text(str(len(pictures)))
    for t in TEACHERS:
        axes = {"variances": torch.linspace(2, 0.1, t.axes)}
        torch.save(axes, folder / f"{t.backbone}-axes.pt")
    return folder


@pytest.fixture(scope="module")
def targets(target_folder: Path, pictures: list[TrainingPicture]) -> distil.Targets:
    return distil.Targets(target_folder, pictures, SETTINGS)


@pytest.fixture(scope="module")
def undisturbed(targets: distil.Targets, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    """The weights that a training ends with."""
    return distil.train(targets, tmp_path_factory.mktemp("run"), SETTINGS, every=2).state_dict()


def test_a_folded_network_does_what_the_trained_one_does() -> None:
    torch.manual_seed(0)
    trained = with_batch_norm(Mini())
    x = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        for _ in range(3):
            trained(x, "head")
        expected = trained.eval()(x, "head")
        plain = folded(trained)
        torch.testing.assert_close(plain(x, "head"), expected, rtol=1e-4, atol=1e-4)
    assert plain.state_dict().keys() == Mini().state_dict().keys()
    assert any("1.running_mean" in name for name in trained.state_dict())


def test_the_quick_pooling_is_the_recipes() -> None:
    recipe = Recipe()
    a = torch.randn(3, 20, 11, 9).relu() * torch.rand(3, 20, 1, 1)
    expected = ops.context_pooling(
        a,
        radius_cells=recipe.cooccurrence.radius_cells,
        context_power=recipe.context_power,
        power=recipe.value_power,
    )
    torch.testing.assert_close(ops.unit_rows(pool(a)), ops.unit_rows(expected), rtol=1e-3, atol=1e-3)


def test_the_slope_of_the_quick_pooling_is_finite_where_nothing_is_active() -> None:
    a = torch.zeros(1, 5, 4, 4)
    a[:, :2] = torch.rand(1, 2, 4, 4)
    a.requires_grad_()
    pool(a).sum().backward()
    assert a.grad is not None
    assert a.grad.isfinite().all()


def test_a_view_is_decided_by_picture_and_number(pictures: list[TrainingPicture]) -> None:
    one = view(pictures[0], 1, pictures)
    assert one.shape == (VIEW_PX, VIEW_PX, 3)
    assert (view(pictures[0], 1, pictures) == one).all()
    assert (view(pictures[0], 2, pictures) != one).any()
    assert (view(pictures[1], 1, pictures) != one).any()


def test_a_view_without_clutter_is_a_part_of_the_picture(pictures: list[TrainingPicture]) -> None:
    whole = np.asarray(Image.open(pictures[2].path)).reshape(-1, 3).mean(0)
    seen = np.stack([view(pictures[2], 0, pictures)]).reshape(-1, 3).mean(0)
    assert np.abs(whole - seen).max() < 40


def test_the_camera_keeps_size_and_kind_and_is_decided_by_its_numbers() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (64, 48, 3), dtype=np.uint8)
    shots = [photograph(pixels, np.random.default_rng(seed)) for seed in range(40)]
    assert all(shot.shape == pixels.shape and shot.dtype == np.uint8 for shot in shots)
    assert (photograph(pixels, np.random.default_rng(7)) == shots[7]).all()
    assert len({shot.tobytes() for shot in shots}) == len(shots)


def test_a_batch_has_two_views_of_every_thing_and_tells_which_show_the_same(targets: distil.Targets) -> None:
    order = distil.Order(targets, SETTINGS)
    seen = set()
    for step in range(8):
        batch = order.batch(step)
        again = order.batch(step)
        assert batch.chosen == again.chosen
        assert (batch.pixels == again.pixels).all()
        same, different = order.same_and_different(batch)
        for one, (first, first_pass) in enumerate(batch.chosen):
            for two, (second, _) in enumerate(batch.chosen):
                alike = first == second or {first, second} == {0, 1}
                assert same[one, two] == (alike and one != two)
                assert different[one, two] == (not alike)
            partner, partner_pass = batch.chosen[one ^ 1]
            assert same[one, one ^ 1]
            assert partner_pass != first_pass
            seen.add((first, partner))
        assert {picture for picture, _ in batch.chosen[::2]} <= {0, 1, 2, 3}
    assert {(0, 1), (1, 0)} & seen, "a thing's other picture is never its partner"


def test_pictures_whose_things_are_untold_are_never_held_to_differ(targets: distil.Targets) -> None:
    there = targets.pictures
    targets.pictures = [*(replace(one, thing="", untold=True) for one in there[:2]), *there[2:]]
    try:
        order = distil.Order(targets, SETTINGS)
        batch = distil.Batch(torch.zeros(3), [(0, 0), (1, 0), (2, 0)])
        _, different = order.same_and_different(batch)
    finally:
        targets.pictures = there
    assert different.tolist() == [[False, False, True], [False, False, True], [True, True, False]]


def test_a_cell_of_the_targets_has_unit_squared_length_on_average(targets: distil.Targets) -> None:
    variances = torch.linspace(2, 0.1, TEACHERS[0].axes)
    assert (variances * targets.scales[0] ** 2).sum().item() == pytest.approx(1, rel=1e-5)
    cells = targets.cells(0, [(1, 2)])
    raw = targets._passes[2]["resnet101v2-cells"][1]
    np.testing.assert_allclose(cells[0, 5, 3, 4], raw[3, 4, 5] * targets.scales[0][5].item(), rtol=1e-3)


def test_every_channel_of_a_hint_comes_with_mean_0_and_variance_1(targets: distil.Targets) -> None:
    for number in range(len(HINTS)):
        hint = targets.hint(number, [(0, 0)])
        torch.testing.assert_close(hint.mean((0, 2, 3)), torch.zeros(hint.shape[1]), atol=1e-2, rtol=0)
        torch.testing.assert_close(hint.std((0, 2, 3)), torch.ones(hint.shape[1]), atol=1e-2, rtol=0)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(targets.hint(0, [(1, 0)]), targets.hint(0, [(0, 0)]))


@pytest.mark.parametrize("shape", [(24, 216), (80, 80), (512, 160)])
def test_a_step_of_muon_has_singular_values_near_one_and_the_gradients_directions(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    found = u.T @ half_orthogonal(matrix) @ v.T
    assert found.diagonal()[s > 0.1 * s[0]].min() > 0.5
    assert found.diagonal().max() < 1.3
    torch.testing.assert_close(found, found.diagonal().diag(), atol=1e-6, rtol=0)


def test_muon_goes_downhill_with_decay_towards_zero() -> None:
    weight = torch.nn.Parameter(torch.randn(6, 3, 3, 3, generator=torch.Generator().manual_seed(2)))
    still = torch.nn.Parameter(torch.ones(2, 2))
    muon = Muon([weight, still], lr=0.05, weight_decay=0.1)
    before = weight.square().sum().item()
    for _ in range(60):
        muon.zero_grad()
        weight.square().sum().backward()
        muon.step()
    assert weight.square().sum().item() < 0.2 * before
    assert (still == 1).all(), "a weight without a gradient stays"


def test_a_training_that_was_interrupted_ends_with_the_same_weights(
    targets: distil.Targets, undisturbed: dict[str, Tensor], tmp_path: Path, monkeypatch
) -> None:
    keep = distil._keep
    kept = 0

    def killed(*arguments) -> None:
        nonlocal kept
        keep(*arguments)
        kept += 2
        if kept == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(distil, "_keep", killed)
    with pytest.raises(KeyboardInterrupt):
        distil.train(targets, tmp_path, SETTINGS, every=2)
    monkeypatch.setattr(distil, "_keep", keep)
    resumed = distil.train(targets, tmp_path, SETTINGS, every=2).state_dict()
    assert all(torch.equal(resumed[name], tensor) for name, tensor in undisturbed.items())


def test_a_training_moves_every_weight(targets: distil.Targets, undisturbed: dict[str, Tensor]) -> None:
    torch.manual_seed(SETTINGS.seed)
    before = dict(Student(SETTINGS.row_dim, SETTINGS.embedding_dim).named_parameters())
    assert all((undisturbed[name] != parameter).any() for name, parameter in before.items())


def test_a_training_after_another_starts_from_its_weights_and_tells_of_it(
    targets: distil.Targets, tmp_path: Path
) -> None:
    first, slow = replace(SETTINGS, steps=2), replace(SETTINGS, steps=1, rate=0.0, trunk_rate=0.0)
    ended = distil.train(targets, tmp_path / "one", first, every=2).state_dict()
    again = distil.train(targets, tmp_path / "two", slow, after=tmp_path / "one", every=1).state_dict()
    moved = {name for name in ended if not torch.equal(ended[name], again[name])}
    assert all("running" in name or "num_batches" in name for name in moved)
    told = torch.load(tmp_path / "two" / distil.CHECKPOINT, weights_only=True)["earlier"]
    assert [one["settings"]["steps"] for one in told] == [2]
    assert told[0]["curve"][-1]["step"] == 2
    assert told[0]["targets"]["teachers"] == {"resnet101v2": "ab", "mobilenetv2": "cd"}
    with pytest.raises(SystemExit, match="after another"):
        distil.train(targets, tmp_path / "two", slow)


def test_a_training_of_other_settings_is_not_gone_on_with(targets: distil.Targets, tmp_path: Path) -> None:
    distil.train(targets, tmp_path, replace(SETTINGS, steps=2), every=2)
    with pytest.raises(SystemExit, match="other settings"):
        distil.train(targets, tmp_path, SETTINGS)


def test_targets_of_other_pictures_or_of_too_few_passes_are_refused(
    target_folder: Path, targets: distil.Targets, pictures: list[TrainingPicture], tmp_path: Path
) -> None:
    with pytest.raises(SystemExit, match="other pictures"):
        distil.Targets(target_folder, pictures[::-1], SETTINGS)
    for passes in (1, 4):
        with pytest.raises(SystemExit, match=f"{passes} passes"):
            distil.Targets(target_folder, pictures, replace(SETTINGS, passes=passes))
    distil.train(targets, tmp_path, replace(SETTINGS, steps=2), every=2)
    others = distil.Targets(target_folder, pictures, SETTINGS)
    others.facts = {**others.facts, "teachers": {"resnet101v2": "another"}}
    with pytest.raises(SystemExit, match="other targets"):
        distil.train(others, tmp_path, replace(SETTINGS, steps=2))


def test_a_folder_takes_targets_of_its_own_pictures_and_teachers_only(
    pictures: list[TrainingPicture], tmp_path: Path
) -> None:
    teacher.claim(tmp_path, pictures, {"resnet101v2": "ab"})
    teacher.claim(tmp_path, pictures, {"resnet101v2": "ab"})
    with pytest.raises(SystemExit, match="other teachers"):
        teacher.claim(tmp_path, pictures, {"resnet101v2": "cd"})
    with pytest.raises(SystemExit, match="other pictures"):
        teacher.claim(tmp_path, pictures[1:], {"resnet101v2": "ab"})


def test_a_folder_without_pictures_is_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="unlabelled"):
        training_pictures(tmp_path)


def test_nothing_that_judges_or_chooses_is_trained_on(real_data: Path) -> None:
    listed = training_pictures(real_data / "images")
    folders = {one.path.relative_to(real_data / "images").parts[0] for one in listed}
    assert folders == {"unlabelled", "scenes", "porto", "ukbench", "dvd_covers"}
    assert {one.path.parent.parent.name for one in listed if "porto" in one.path.parts} == {"train"}
    assert {one.untold for one in listed if "porto" in one.path.parts} == {True}
    told = [one.thing.split() for one in listed if one.thing]
    assert len(told) > 500
    assert not any(is_development(*thing) for thing in told)
    assert len({one.path for one in listed}) == len(listed)


def test_an_interrupted_pass_goes_on_and_ends_as_undisturbed(
    pictures: list[TrainingPicture], tmp_path: Path, monkeypatch
) -> None:
    class Eye:
        def __init__(self, t: teacher.Teacher) -> None:
            self.teacher = t

        def see(self, pixels: np.ndarray) -> teacher.Said:
            t = self.teacher
            x = torch.from_numpy(pixels).float().mean((1, 2, 3))[:, None, None, None]
            listed = HINTS if t.backbone == teacher.HINTS_FROM else ()
            hints = {one.file: x.expand(-1, one.channels, one.cells, one.cells) for one in listed}
            return teacher.Said(x.expand(-1, t.channels, t.cells, t.cells), x[:, 0, 0].expand(-1, t.channels), hints)

    monkeypatch.setattr(teacher, "BATCH", 1)
    monkeypatch.setattr(teacher, "FLUSH_EVERY", 2)
    eyes = [Eye(t) for t in TEACHERS]
    axes = [{"mean": torch.zeros(t.channels), "axes": torch.eye(t.axes, t.channels)} for t in TEACHERS]
    runs = {}
    for name, fails_at in (("one", None), ("two", 3)):
        (tmp_path / name).mkdir()
        calls = 0

        def watched(*arguments, limit=fails_at) -> np.ndarray:
            nonlocal calls
            calls += 1
            if calls == limit:
                raise KeyboardInterrupt
            return view(*arguments)

        monkeypatch.setattr(teacher, "view", watched)
        if fails_at:
            with pytest.raises(KeyboardInterrupt):
                teacher.one_pass(1, eyes, axes, pictures, tmp_path / name)
            assert (tmp_path / name / "pass1" / "done.txt").read_text() == "2"
        teacher.one_pass(1, eyes, axes, pictures, tmp_path / name)
        place = tmp_path / name / "pass1"
        runs[name] = {file.name: np.load(file) for file in sorted(place.glob("*.npy"))}
    assert calls == 5
    assert all((runs["one"][name] == array).all() for name, array in runs["two"].items())
    assert len(runs["two"]) == 1 + 2 * len(TEACHERS) + len(HINTS)
    assert all(array.any(axis=tuple(range(1, array.ndim))).all() for array in runs["two"].values())


def test_a_checkpoint_is_exported_as_the_package_reads_it(targets: distil.Targets, tmp_path: Path) -> None:
    import export
    from coocnet.backbones import load_backbone

    trained = distil.train(targets, tmp_path, replace(SETTINGS, steps=2), every=2)
    file = tmp_path / "mini.safetensors"
    told = export.write_weights(tmp_path, file)
    loaded = load_backbone("mini", str(file)).trunk
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        expected, found = folded(trained.trunk)(x, "head"), loaded(x, "head")
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.05 * float(expected.max()))
    assert told["settings"]["steps"] == told["curve"][-1]["step"] == 2
