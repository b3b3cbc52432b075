"""Training a filter: where it starts, what it goes on from, that it is the same again, and its gate."""

from __future__ import annotations

import dataclasses
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

import reference_learning
from coocnet.describe import Describer
from coocnet.errors import FilterError, InputError, TrainingError
from coocnet.evaluate import average_precision, rank
from coocnet.nn import load_filter, save_filter
from coocnet.recipe import Recipe
from coocnet.train import (
    CHECKPOINT,
    LOSSES,
    Examples,
    Gate,
    Maps,
    Settings,
    Trained,
    Trainer,
    facts_of,
    of_instances,
    write_filter,
)
from coocnet.train.mining import batch_of, draw, hard_negatives
from coocnet.whitening import fit_pca, unit_rows

pytestmark = pytest.mark.slow


@pytest.fixture
def learnable(recipe: Recipe) -> Recipe:
    return recipe.replace(pooling="chco-sct")


@pytest.fixture
def listed(scenes) -> dict[str, list[str]]:
    """Six things with three pictures each."""
    folder, views = scenes
    found: dict[str, list[str]] = {}
    for view in views:
        if view.role == "database":
            found.setdefault(str(view.instance), []).append(str(folder / view.path))
    return found


@pytest.fixture
def parts(listed) -> tuple[Examples, Examples, Examples]:
    things = list(listed.items())
    return tuple(of_instances([dict(things[start : start + 2])]) for start in (0, 2, 4))


@pytest.fixture(scope="session")
def map_folder(tmp_path_factory) -> Path:
    """Maps of the rendered pictures, kept between tests."""
    return tmp_path_factory.mktemp("maps")


SETTINGS = Settings(
    rank=3,
    loss="ap",
    temperature=0.05,
    epochs=2,
    matches=1,
    negatives=1,
    tuples_per_step=2,
    learning_rate=0.05,
    warmup_steps=1,
    whitened_dim=0,
    memory=False,
)


@pytest.fixture
def training(learnable, parts, map_folder, tmp_path):
    """Makes a trainer; ``stop_at`` raises an error at that step."""

    def make(settings: Settings = SETTINGS, recipe: Recipe = learnable, folder: str = "run", watch=None) -> Trainer:
        describer = Describer(recipe)
        place = tmp_path / folder
        place.mkdir(exist_ok=True)
        maps = Maps(describer, map_folder, budget_bytes=10**9)
        return Trainer(describer, parts, settings, folder=place, maps=maps, watch=watch)

    return make


def weights(trained: Trained) -> dict[str, torch.Tensor]:
    return trained.learned.state_dict()


def equal(one: Trained, other: Trained) -> bool:
    return all(torch.equal(value, weights(other)[name]) for name, value in weights(one).items())


def test_without_an_epoch_the_direct_filter_comes_out(training) -> None:
    trained = training(SETTINGS.__class__(epochs=0, rank=3)).run()
    assert (trained.best_epoch, len(trained.history)) == (0, 1)
    assert trained.learned.distances_from_direct().max() < 1e-5
    assert (trained.gate.difference.interval.mean, trained.gate.passed) == (0, True)


def with_changes(**changes) -> Settings:
    return Settings(**{**SETTINGS.table(), **changes})


def final(trainer: Trainer) -> dict[str, torch.Tensor]:
    """The weights after the last step, whatever epoch was the best."""
    trainer.run()
    return {name: value.detach() for name, value in trainer._filter.named_parameters()}


def test_a_rate_of_zero_learns_nothing(training) -> None:
    trainer = training(with_changes(learning_rate=0.0))
    final(trainer)
    assert trainer._filter.distances_from_direct().max() < 1e-5


def test_a_strong_pull_keeps_the_filter_at_its_start(training) -> None:
    def distance(pull: float) -> float:
        trainer = training(with_changes(pull=pull), folder=f"pull{pull}")
        final(trainer)
        return float(trainer._filter.distances_from_direct().max())

    assert distance(0.0) > distance(3.0) > 1e-5 > distance(1e4)


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("kind", ["dense", "factorised"])
def test_every_loss_falls_for_every_kind_of_filter(training, kind: str, loss: str, learnable: Recipe) -> None:
    """On the same tuples before and after: what is mined anew would be harder."""
    small = learnable.replace(cooccurrence=learnable.cooccurrence.__class__(radius_cells=1))
    rate = 0.01 if kind == "dense" else 0.05
    trainer = training(with_changes(kind=kind, loss=loss, epochs=4, learning_rate=rate, margin=1.0), small)
    drawn = draw(trainer._train, queries=6, matches=2, pool=6, seed=0, epoch=1)
    rows = trainer._rows.under(trainer._direct(), trainer._train.paths).detach().numpy()
    tuples = hard_negatives(rows, trainer._train.clusters, drawn, 1)
    batch = batch_of(tuples, trainer._train, matches=2, whole=loss in ("ap", "softmax"))

    def loss_now() -> float:
        with torch.no_grad():
            return float(trainer._loss(trainer._rows.under(trainer._filter, trainer._train.paths), batch))

    before = loss_now()
    final(trainer)
    assert loss_now() < before


@pytest.mark.parametrize("pooling", ["sct", "chco", "bp-act", "centred"])
def test_a_filter_is_learned_for_every_pooling_that_reads_the_tensor(training, learnable, pooling: str) -> None:
    trainer = training(SETTINGS, learnable.replace(pooling=pooling, sketch_dim=256))
    final(trainer)
    assert trainer._filter.distances_from_direct().max() > 0


def test_the_same_seed_learns_the_same_and_another_seed_something_else(training) -> None:
    one, same, other = (
        final(training(with_changes(seed=seed), folder=folder)) for seed, folder in ((1, "a"), (1, "b"), (2, "c"))
    )
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


class StoppedError(Exception):
    """As a kill would: nobody gets a chance to save anything."""


def stopping_at(count: int, error: type[BaseException]):
    """Stops at the so-manieth thing that is told."""
    seen = []

    def watch(progress) -> None:
        seen.append(progress)
        if len(seen) == count:
            raise error

    return watch


@pytest.mark.slow
@pytest.mark.parametrize("error", [KeyboardInterrupt, StoppedError])
@pytest.mark.parametrize(
    "settings",
    [with_changes(memory=False), with_changes(whitened_dim=3, loss="softmax", negatives=0)],
    ids=["raw", "white, with a memory"],
)
def test_an_interrupted_training_goes_on_to_the_same_result(training, monkeypatch, error, settings) -> None:
    monkeypatch.setattr("coocnet.train.loop._CHECKPOINT_EVERY_S", 0.0)
    undisturbed = training(settings, folder="whole")
    expected, told = final(undisturbed), []
    training(settings, folder="count", watch=told.append).run()
    for count in range(1, len(told), max(1, len(told) // 3)):
        folder = f"stopped-{count}"
        with pytest.raises(error):
            training(settings, folder=folder, watch=stopping_at(count, error)).run()
        trainer = training(settings, folder=folder)
        found = final(trainer)
        assert all(torch.equal(expected[name], found[name]) for name in expected), count
        assert [record["map"] for record in trainer._state.history] == [
            record["map"] for record in undisturbed._state.history
        ]


def test_a_memory_of_the_pool_changes_what_is_learned(training) -> None:
    one, other = (final(training(with_changes(memory=memory), folder=str(memory))) for memory in (True, False))
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_a_finished_training_is_not_done_again(training) -> None:
    first, told = training().run(), []
    assert equal(first, training(watch=told.append).run())
    assert {progress.what for progress in told} == {"The gate"}


def test_pictures_that_have_changed_make_another_training(training, parts, tmp_path, monkeypatch) -> None:
    training().run()
    monkeypatch.setattr(Examples, "stamps", lambda self: [(1, 1)] * len(self))
    with pytest.raises(TrainingError, match="other pictures"):
        training().run()


def test_a_filter_whose_rows_are_gone_is_told(training, learnable) -> None:
    trainer = training(with_changes(whitened_dim=0), learnable.replace(pooling="context"))
    with torch.no_grad():
        trainer._filter.log_in += 200  # e^200 is no float32
    with pytest.raises(TrainingError, match=r"most pictures have no row any more: .* lower learning rate"):
        trainer.run()


def test_a_recipe_of_several_scales_is_refused(training, learnable) -> None:
    with pytest.raises(InputError, match="learned at one scale, the recipe 'quick' has 2"):
        training(SETTINGS, learnable.replace(scales=(1.0, 0.5)))


def test_only_maps_that_the_training_will_look_at_are_computed(training) -> None:
    trainer = training(with_changes(epochs=1, queries_per_epoch=1, pool_size=2))
    trainer._fit_on = np.array([0])
    drawn = trainer._drawn(1)
    expected = {0, *drawn.queries.tolist(), *drawn.pool.tolist(), *drawn.matches.flatten().tolist()}
    assert {*trainer._ever_needed().tolist()} == expected
    assert len(expected) < 6


def test_a_checkpoint_of_another_training_is_refused(training, learnable) -> None:
    training().run()
    for other in (training(with_changes(seed=9)), training(SETTINGS, learnable.replace(size_px=96))):
        with pytest.raises(TrainingError, match=r"other settings: to begin anew .*--restart"):
            other.run()


def test_a_damaged_checkpoint_is_refused(training, tmp_path) -> None:
    training().run()
    place = tmp_path / "run" / CHECKPOINT
    place.write_bytes(place.read_bytes()[:1000])
    with pytest.raises(TrainingError, match="is damaged"):
        training().run()


def test_a_loss_beyond_all_numbers_is_told(training, learnable) -> None:
    def ruin(progress) -> None:
        if progress.what == "Epoch":
            with torch.no_grad():
                trainer._filter.log_in += 200  # e^200 is no float32

    trainer = training(recipe=learnable.replace(pooling="bp-act", sketch_dim=64), watch=ruin)
    with pytest.raises(TrainingError, match=r"no longer finite, in step 1 of epoch 1: .* learning rate than 0\.05 "):
        trainer.run()


def test_patience_ends_a_training_that_gets_no_better(training) -> None:
    trained = training(with_changes(epochs=9, patience=2, learning_rate=0.0)).run()
    assert len(trained.history) == 3


def test_mixed_precision_learns_nearly_the_same(training) -> None:
    one, other = (
        final(training(with_changes(precision=precision, epochs=1), folder=precision))
        for precision in ("float32", "bfloat16")
    )
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, rtol=0.2, atol=0.2)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_the_held_out_map_is_that_of_rows_described_with_the_filter(training, learnable, parts, tmp_path) -> None:
    trained = training(with_changes(learning_rate=0.2, epochs=3)).run()
    record = trained.history[trained.best_epoch]
    recipe = learnable
    if trained.best_epoch:
        save_filter(trained.learned, tmp_path / "f.safetensors", {"gate": "passed"})
        recipe = learnable.with_filter(tmp_path / "f.safetensors")
    rows = Describer(recipe).describe(parts[1].paths)
    found = [average_precision(rank(rows @ rows[query]), truth) for query, truth in parts[1].truths()]
    assert record["map_raw"] == pytest.approx(np.mean(found), abs=1e-6)


def test_where_the_recipe_whitens_the_held_out_rows_are_whitened_by_the_training_pictures(
    training, learnable, parts
) -> None:
    white = learnable.replace(whitening="pca", dim=3)
    record = training(with_changes(epochs=0), white).run().history[0]
    describer = Describer(white)
    fitted = fit_pca(describer.describe(parts[0].paths), dim=3, shrinkage=white.shrinkage)
    rows = fitted.apply(describer.describe(parts[1].paths))
    found = [average_precision(rank(rows @ rows[query]), truth) for query, truth in parts[1].truths()]
    assert record["map"] == pytest.approx(np.mean(found), abs=0.02)


def test_the_gate_compares_rows_described_with_and_without_the_filter_on_its_own_pictures(
    training, learnable, parts, tmp_path
) -> None:
    base = learnable.replace(pooling="sct-gem")
    trainer = training(with_changes(epochs=0), base)
    final(trainer)
    with torch.no_grad():
        trainer._filter.log_out += 5 * torch.randn(512, 3, generator=torch.Generator().manual_seed(0))
    trainer._state.keep("best", trainer._filter.state_dict())
    trained = trainer._outcome()
    save_filter(trained.learned, tmp_path / "f.safetensors", {"gate": "passed"})
    for recipe, judged in (
        (base, trained.gate.direct),
        (base.with_filter(tmp_path / "f.safetensors"), trained.gate.learned),
    ):
        rows = Describer(recipe).describe(parts[2].paths)
        found = [average_precision(rank(rows @ rows[query]), truth) for query, truth in parts[2].truths()]
        assert judged.mean == pytest.approx(np.mean(found), abs=1e-6)
    assert trained.gate.learned.mean != trained.gate.direct.mean


def test_a_whitening_is_learned_from_the_pairs_that_were_trained_on_under_the_filter(
    training, learnable, parts, tmp_path
) -> None:
    trainer = training()
    final(trainer)
    fitted = trainer.whitening_of_pairs(trainer._filter, {"row_fingerprint": "x"})
    assert fitted.provenance["pairs"] == "6"
    assert fitted.provenance["row_fingerprint"] == "x"
    save_filter(trainer._filter, tmp_path / "f.safetensors", {"gate": "passed"})
    rows = Describer(learnable.with_filter(tmp_path / "f.safetensors")).describe(parts[0].paths)
    asked = parts[0].all_pairs(10, 0)[:, 0]
    np.testing.assert_allclose(fitted.mean, rows[asked].mean(0), atol=2e-4)


def test_the_rate_of_the_last_step_is_that_of_the_schedule(training) -> None:
    trainer = training()
    final(trainer)
    steps = SETTINGS.epochs * trainer._steps
    assert trainer._optimiser.param_groups[0]["lr"] == SETTINGS.learning_rate_at(steps - 1, steps)


def test_the_gradient_is_clipped(training) -> None:
    """Adam divides by the size of past gradients plus 1e-8: only gradients far below that move less."""
    free, clipped = (
        training(with_changes(clip=clip, epochs=1), folder=str(clip)) for clip in (1.0, 1e-9 * 1.0000001)
    )
    moved = []
    for trainer in (free, clipped):
        final(trainer)
        moved.append(trainer._state.history[-1]["moved"])
    assert moved[1] < 0.2 * moved[0]


def test_remembered_rows_are_wrong_only_where_they_are_of_another_thing(training) -> None:
    trainer = training(with_changes(loss="softmax", negatives=0, memory=True))
    clusters = trainer._train.clusters
    batch = batch_of(np.array([[0, 1]]), trainer._train, matches=1, whole=True)
    rows = torch.nn.functional.normalize(torch.rand(2, 4, generator=torch.Generator().manual_seed(0)), dim=1)
    remembered = torch.nn.functional.normalize(torch.rand(6, 4, generator=torch.Generator().manual_seed(1)), dim=1)
    trainer._memory = remembered, clusters
    wrong = [at for at in range(6) if clusters[at] != clusters[0]]
    every = torch.cat([rows, remembered]).numpy()
    negative = [[False, False, *(at in wrong for at in range(6))]]
    expected = reference_learning.softmax(every, [0], [[False, True] + [False] * 6], negative, SETTINGS.temperature)
    assert 0 < len(wrong) < 6
    assert float(trainer._loss(rows, batch)) == pytest.approx(expected, rel=1e-5)


def test_the_gate_refuses_what_is_worse_on_average_and_passes_what_is_not() -> None:
    refused, level = Gate.of([0.9, 0.5, 0.5], [0.8, 0.5, 0.5]), Gate.of([0.9, 0.5], [0.8, 0.6])
    assert (refused.passed, level.passed) == (False, True)
    assert str(refused).startswith("mAP 60.00 against 63.33 of the direct filter, -3.33 [")


@pytest.fixture
def kept(training, learnable, tmp_path):
    """Writes a training as if its gate had judged so."""
    trained = training(with_changes(epochs=1)).run()

    def keep(direct: list[float], learned: list[float], epoch: int = 1) -> Path | None:
        judged = dataclasses.replace(trained, best_epoch=epoch, gate=Gate.of(direct, learned))
        weights = Describer(learnable).weights_sha256
        facts = facts_of(judged, learnable, weights, ["/a/things"], "some")
        return write_filter(judged, SETTINGS, facts, learnable, tmp_path / "f.safetensors")

    return keep


def test_only_a_filter_that_passed_gets_the_name_and_a_recipe(kept, learnable, tmp_path) -> None:
    assert kept([0.5, 0.5], [0.5, 0.6]) == tmp_path / "f.safetensors"
    recipe = Recipe.load(tmp_path / "f.toml")
    assert recipe == learnable.with_filter(tmp_path / "f.safetensors").replace(name="f")
    Describer(recipe)
    before = (tmp_path / "f.safetensors").read_bytes()
    assert kept([0.5, 0.5], [0.5, 0.4]) == tmp_path / "f.refused.safetensors"
    assert kept([0.5], [0.5], epoch=0) is None
    assert (tmp_path / "f.safetensors").read_bytes() == before
    with pytest.raises(FilterError, match=r"refused by its gate: .* \(mAP 45\.00 against 50\.00"):
        Describer(learnable.with_filter(tmp_path / "f.refused.safetensors"))


def test_a_filter_says_where_it_comes_from(kept, tmp_path) -> None:
    kept([0.5], [0.6])
    _, said = load_filter(tmp_path / "f.safetensors")
    assert said["learned_from"] == "things"
    assert json.loads(said["settings"]) == SETTINGS.table()
    assert Recipe.from_toml(said["recipe"]).pooling == "chco-sct"


def test_a_pooling_that_reads_no_tensor_has_no_filter(training, learnable) -> None:
    with pytest.raises(InputError, match=r"'gem' reads no co-occurrence tensor; .*chco-sct"):
        training(SETTINGS, learnable.replace(pooling="gem"))


# ------------------------------------------------------------------------------------ a filter in a recipe


@pytest.fixture
def filter_file(training, tmp_path) -> Path:
    """A filter that has learned something."""
    trainer = training()
    trainer.run()
    facts = {"gate": "passed", "backbone": "squeezenet1_1", "tap": "features"}
    save_filter(trainer._filter, tmp_path / "learned.safetensors", facts)
    return tmp_path / "learned.safetensors"


def test_rows_under_a_learned_filter_are_others(learnable, filter_file, parts) -> None:
    direct, learned = (
        Describer(r).describe(parts[0].paths[:2]) for r in (learnable, learnable.with_filter(filter_file))
    )
    assert np.abs(direct - learned).max() > 1e-4
    np.testing.assert_allclose(unit_rows(learned), learned, atol=1e-6)


def test_the_fingerprint_names_the_filter_by_content(learnable, filter_file, tmp_path) -> None:
    moved = tmp_path / "moved.safetensors"
    moved.write_bytes(filter_file.read_bytes())
    one, other = learnable.with_filter(filter_file), learnable.with_filter(moved)
    assert one.row_fingerprint() == other.row_fingerprint() != learnable.row_fingerprint()


def test_a_recipe_without_a_filter_has_the_fingerprint_it_always_had() -> None:
    recipe = Recipe.preset("resnet101v2").replace(pooling="chco-sct")
    assert recipe.row_fingerprint() == "81fce2dad97aba59"


def test_a_recipe_file_finds_the_filter_beside_it(learnable, filter_file, tmp_path) -> None:
    named = learnable.with_filter(filter_file)
    text = named.to_toml().replace(str(filter_file), filter_file.name)
    (tmp_path / "r.toml").write_text(text)
    assert Recipe.load(tmp_path / "r.toml") == named
    without = "".join(line for line in text.splitlines(keepends=True) if "filter_sha256" not in line)
    (tmp_path / "r.toml").write_text(without)
    assert Recipe.load(tmp_path / "r.toml") == named


def test_a_filter_that_cannot_be_used_is_refused_with_the_reason(learnable, filter_file, training, tmp_path) -> None:
    recipe = learnable.with_filter(filter_file)
    filter_file.write_bytes(filter_file.read_bytes() + b" ")
    with pytest.raises(FilterError, match="is not the filter of the recipe"):
        Describer(recipe)
    filter_file.unlink()
    with pytest.raises(FilterError, match=r"cannot be read: No such file"):
        Describer(recipe)
    trained = training().run()
    for facts, says in (
        ({"gate": "refused"}, "refused by its gate"),
        ({"weights_sha256": "0" * 64}, r"learned over weights of SHA-256 000000000000…, not \w{12}…"),
        ({"backbone": "vgg16", "tap": "pool5"}, "512 channels of vgg16 pool5"),
    ):
        save_filter(trained.learned, tmp_path / "other.safetensors", facts)
        with pytest.raises(FilterError, match=says):
            Describer(learnable.with_filter(tmp_path / "other.safetensors"))


def test_a_filter_is_named_by_file_and_digest_and_for_a_pooling_that_reads_it(learnable, filter_file) -> None:
    from coocnet.errors import RecipeError

    with pytest.raises(RecipeError, match=r"named by its file and its digest"):
        learnable.replace(cooccurrence=learnable.cooccurrence.__class__(filter="f.safetensors"))
    with pytest.raises(RecipeError, match=r"not 'gem'"):
        learnable.with_filter(filter_file).replace(pooling="gem")
    with pytest.raises(RecipeError, match=r"none\.safetensors cannot be read"):
        learnable.with_filter("none.safetensors")


# ------------------------------------------------------------------------------------ the command


@pytest.fixture
def things(listed, tmp_path) -> Path:
    """A list of nine things: enough to hold some out."""
    lines = [f"{path},{name}" for name, paths in listed.items() for path in paths]
    (tmp_path / "things.csv").write_text("\n".join(["image,instance", *lines]))
    return tmp_path / "things.csv"


@pytest.fixture
def train_command(run, learnable, things, map_folder, tmp_path):
    (tmp_path / "learnable.toml").write_text(learnable.to_toml())
    quick = ["--rank", "2", "--epochs", "2", "--batch", "2", "--negatives", "1", "--lr", "0.05", "--warmup", "1"]

    def train(*arguments: object, output: str = "f.safetensors"):
        fixed = ("--recipe", "learnable.toml", "--cache", map_folder, "-o", output, *quick)
        return run("train", things, *fixed, *arguments)

    return train


def gate_says(tmp_path: Path, name: str = "f") -> str:
    facts = json.loads((tmp_path / f"{name}.training" / "history.json").read_text())["facts"]
    return str(facts["gate"])


@pytest.mark.slow
def test_the_command_writes_a_filter_a_report_and_a_recipe_that_an_index_takes(
    train_command, run, scenes, tmp_path
) -> None:
    for seed in range(1, 20):  # the rendered things are few: not every filter passes its gate
        done = train_command("--restart", "--seed", seed, "--lr", 0.3)
        assert (done.returncode == 0) == (gate_says(tmp_path) == "passed"), done.stderr
        if done.returncode == 0:
            break
    assert "The gate: passed" in done.stdout
    assert "to learn from" in done.stdout
    report = (tmp_path / "f.training" / "report.html").read_text()
    for picture in ("curves.png", "filter.png"):
        assert picture in report
        assert (tmp_path / "f.training" / picture).read_bytes().startswith(b"\x89PNG")
    indexed = run("index", scenes[0] / "database", "--recipe", "f.toml", "--index", "with.cooc")
    assert indexed.returncode == 0, indexed.stderr
    found = run("search", scenes[0] / "database" / "instance000_view00.jpg", "--index", "with.cooc", "--json")
    assert json.loads(found.stdout)["hits"][0]["path"].endswith("instance000_view00.jpg")


@pytest.mark.slow
def test_the_same_command_goes_on_and_another_one_is_refused(train_command) -> None:
    first = train_command()
    assert "Report:" in first.stdout
    assert train_command().stdout == first.stdout
    refused = train_command("--seed", 3)
    assert refused.returncode == 1
    assert "--restart" in refused.stderr
    assert "Report:" in train_command("--seed", 3, "--restart").stdout


def test_a_whitening_for_the_recipe_comes_from_the_same_pairs(train_command, tmp_path) -> None:
    from coocnet.whitening import Whitening

    for seed in range(1, 20):
        done = train_command("--restart", "--seed", seed, "--lr", 0.3, "--whitening", "white.safetensors")
        if done.returncode == 0:
            break
    fitted = Whitening.load(tmp_path / "white.safetensors")
    assert len(fitted.mean) == 512
    assert "pairs" in fitted.provenance


def test_pictures_of_their_own_choose_and_judge(train_command, listed, tmp_path, run, learnable, map_folder) -> None:
    names = list(listed)
    for name, some in (("a", names[:2]), ("b", names[2:4]), ("c", names[4:])):
        lines = [f"{path},{one}" for one in some for path in listed[one]]
        (tmp_path / f"{name}.csv").write_text("\n".join(["image,instance", *lines]))
    fixed = (
        "--recipe",
        "learnable.toml",
        "--cache",
        map_folder,
        "-o",
        "f.safetensors",
        "--epochs",
        1,
        "--negatives",
        1,
    )
    done = run("train", "a.csv", *fixed, "--validation", "b.csv", "--gate", "c.csv")
    assert "Report:" in done.stdout, done.stderr
    assert "6 pictures of 2 things to learn from; 6 pictures of 2 things to choose" in done.stdout
    refused = run("train", "a.csv", *fixed, "--validation", "b.csv", "--gate", "a.csv")
    assert refused.returncode == 1
    assert "is in two of" in refused.stderr


def test_two_trainings_at_once_in_one_place_are_refused(train_command, tmp_path) -> None:
    from filelock import FileLock

    (tmp_path / "f.training").mkdir()
    with FileLock(tmp_path / "f.training" / "lock"):
        done = train_command()
    assert done.returncode == 1
    assert "another training is at work" in done.stderr


def test_the_published_training_set_is_trained_on_where_its_pictures_are(run, learnable, listed, tmp_path) -> None:
    """A list of clusters and matching pairs, pictures in folders by the last digits of their names."""
    table: dict[str, dict[str, list]] = {}
    for split, things in (("train", range(2)), ("val", range(2, 6))):
        part: dict[str, list] = {"cids": [], "cluster": [], "qidxs": [], "pidxs": []}
        for thing in things:
            for picture in list(listed.values())[thing]:
                name = f"{thing:02x}{len(part['cids']):04x}"
                target = tmp_path / "sfm" / "ims" / name[-2:] / name[-4:-2] / name[-6:-4] / name
                target.parent.mkdir(parents=True)
                target.write_bytes(Path(picture).read_bytes())
                part["cids"].append(name)
                part["cluster"].append(thing)
            last = len(part["cids"]) - 1
            part["qidxs"] += [last, last - 1]
            part["pidxs"] += [last - 1, last - 2]
        table[split] = part
    (tmp_path / "sfm" / "retrieval-SfM-120k.pkl").write_bytes(pickle.dumps(table, 2))
    (tmp_path / "learnable.toml").write_text(learnable.to_toml())
    fixed = (
        "--recipe",
        "learnable.toml",
        "--cache",
        "maps",
        "-o",
        "f.safetensors",
        "--epochs",
        1,
        "--existing",
        "sfm",
    )
    done = run("train", "retrieval-sfm-120k", *fixed, "--loss", "contrastive")
    assert "Report:" in done.stdout, done.stderr
    assert "6 pictures of 2 things to learn from; 6 pictures of 2 things to choose the epoch by" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--recipe", "gem.toml"), "reads no co-occurrence tensor"),
        (("--filter", "round"), "--filter is one of dense, factorised"),
        (("--rank", "0"), "--rank is a whole number"),
        (("--lr", "-1"), "--lr is a number from 0"),
        (("--loss", "triplet", "--negatives", "0"), "--negatives is a whole number from 1"),
        (("--recipe", "f.toml"), "f.toml is a file to be read"),
        (("-o", "f.txt"), "its ending is not that of a filter"),
        (("-o", "none/f.safetensors"), "there is no folder"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_trained_is_refused_before_any_work(
    train_command, learnable, tmp_path, arguments, says
) -> None:
    (tmp_path / "gem.toml").write_text(learnable.replace(pooling="gem").to_toml())
    (tmp_path / "f.toml").write_text(learnable.to_toml())
    done = train_command(*arguments)
    assert done.returncode == 1
    assert says in done.stderr.replace("\n", " ")
    assert "Traceback" not in done.stderr
