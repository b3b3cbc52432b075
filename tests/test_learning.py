"""The centre of a recipe, learned on pictures: the mean itself, and the command that writes it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from coocnet.describe import Describer
from coocnet.errors import InputError
from coocnet.recipe import POOLINGS, Recipe


@pytest.fixture
def centred(recipe: Recipe) -> Recipe:
    return recipe.replace(pooling="centred", sketch_dim=64)


@pytest.fixture
def centred_file(centred: Recipe, tmp_path: Path) -> Path:
    path = tmp_path / "centred.toml"
    path.write_text(centred.to_toml())
    return path


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """Four files of three sizes."""
    random = np.random.default_rng(0)
    paths = []
    for number, (width, height) in enumerate([(120, 48), (48, 64), (120, 48), (9, 7)]):
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(random.integers(0, 255, (height, width, 3), np.uint8)).save(paths[-1])
    return paths


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("change", [{}, {"scales": (1.0, 0.5)}, {"prior": "top-down"}, {"size_px": 40}], ids=str)
def test_the_channel_mean_equals_plain_loops_over_the_maps(
    centred: Recipe, pictures: list[Path], change: dict[str, Any], batch_size: int
) -> None:
    describer = Describer(centred.replace(**change), batch_size=batch_size)
    expected = np.zeros(describer.tap.channels)
    for path in pictures:
        maps = [a[0].double().numpy() for a in describer.maps_of(describer.load(path).pixels)]
        for a in maps:
            for k in range(len(a)):
                cells = [a[k, i, j] for i in range(a.shape[1]) for j in range(a.shape[2])]
                expected[k] += sum(cells) / len(cells) / len(maps) / len(pictures)
    learned = describer.channel_mean(pictures)
    np.testing.assert_allclose(learned.values, expected, rtol=0, atol=1e-6 * expected.max())
    assert (learned.pictures, learned.skipped) == (4, [])


@pytest.mark.slow
def test_the_channel_mean_is_a_centre_that_float32_holds_exactly_in_few_digits(
    centred: Recipe, pictures: list[Path]
) -> None:
    values = Describer(centred).channel_mean(pictures).values
    written = Recipe.from_toml(centred.replace(centre=values).to_toml())
    assert written.centre == values
    assert all(float(str(np.float32(value))) == value for value in values)
    assert not np.array_equal(Describer(written).describe(pictures[:1]), Describer(centred).describe(pictures[:1]))


def test_files_that_cannot_be_described_are_left_out_of_the_channel_mean(
    centred: Recipe, pictures: list[Path]
) -> None:
    bad = pictures[0].with_name("bad.png")
    bad.write_text("not a picture")
    describer = Describer(centred)
    told: list[tuple[int, int]] = []
    learned = describer.channel_mean([bad, *pictures], progress=lambda done, total: told.append((done, total)))
    assert learned.values == describer.channel_mean(pictures).values
    assert (learned.pictures, [error.path for error in learned.skipped]) == (4, [str(bad)])
    assert told == [(done, 5) for done in range(1, 6)]
    with pytest.raises(InputError, match=r"none of 1 can be described; .*bad\.png: not a picture"):
        describer.channel_mean([bad])


@pytest.mark.parametrize(("paths", "says"), [([], "none of 0"), ("q.jpg", "'q.jpg'"), ([7], "got 7")], ids=repr)
def test_no_list_of_pictures_is_refused_by_the_channel_mean(centred: Recipe, paths: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        Describer(centred).channel_mean(paths)


@pytest.mark.slow
def test_a_centre_is_learned_written_indexed_and_searched_with(run, photos: Path, centred_file: Path) -> None:
    done = run("centre", photos, "-o", "learned.toml", "--recipe", centred_file)
    assert "512 channels, learned on 18 pictures" in done.stdout, done.stderr
    assert (done.returncode, done.stderr) == (0, "")
    learned = Recipe.load(centred_file.with_name("learned.toml"))
    given = Recipe.load(centred_file)
    assert learned == given.replace(centre=Describer(given).channel_mean(sorted(photos.iterdir())).values)
    assert run("index", photos, "--recipe", "learned.toml").returncode == 0
    found = run("search", photos / "instance000_view00.jpg", "-k", "2")
    assert "this very picture" in found.stdout
    refused = run("index", photos, "--recipe", centred_file)
    assert "rows of another recipe: centre (" in refused.stderr
    assert len(refused.stderr) < 1000


def test_a_few_pictures_are_spread_evenly_over_the_folder(run, photos: Path, centred_file: Path) -> None:
    names = sorted(photos.iterdir())
    assert "on 3 pictures" in run("centre", photos, "-o", "3.toml", "--recipe", centred_file, "--at-most", "3").stdout
    expected = Describer(Recipe.load(centred_file)).channel_mean([names[3], names[9], names[15]]).values
    assert Recipe.load(centred_file.with_name("3.toml")).centre == expected
    most = run("centre", photos, "-o", "all.toml", "--recipe", centred_file, "--at-most", "99")
    assert "on 18 pictures" in most.stdout


def test_a_centre_is_learned_anew_over_one_of_another_network(run, photos: Path, centred: Recipe, tmp_path) -> None:
    (tmp_path / "other.toml").write_text(centred.replace(centre=(1.0, 2.0)).to_toml())
    assert run("centre", photos, "-o", "new.toml", "--recipe", "other.toml").returncode == 0
    assert len(Recipe.load(tmp_path / "new.toml").centre) == 512


def test_what_is_skipped_while_a_centre_is_learned_is_named(run, photos: Path, centred_file: Path) -> None:
    (photos / "bad.jpg").write_text("not a picture")
    (photos / "folder.jpg").mkdir()
    done = run("centre", photos, "-o", "learned.toml", "--recipe", centred_file)
    assert "learned on 18 pictures" in done.stdout
    assert [line.split()[-3:] for line in done.stderr.splitlines()] == [
        [str(photos / "folder.jpg:"), "a", "folder"], ["not", "a", "picture"]
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("photos", "-o", "new.toml", "--recipe", "quick.toml"), r"pooling 'context' reads no centre.*centred"),
        (("photos", "-o", "new.toml", "--recipe", "nothing"), "no recipe is called 'nothing'"),
        (("photos", "-o", "new.toml", "--recipe", "photos/instance000_view00.jpg"), "instance000_view00"),
        (("photos", "-o", "centred.toml", "--recipe", "centred.toml"), "a file to be read"),
        (("photos", "-o", "photos/instance000_view00.jpg", "--recipe", "centred.toml"), "not that of a recipe"),
        (("photos", "-o", "none/new.toml", "--recipe", "centred.toml"), "there is no folder"),
        (("nowhere", "-o", "new.toml", "--recipe", "centred.toml"), "nowhere does not exist"),
        (("empty", "-o", "new.toml", "--recipe", "centred.toml"), "empty holds no pictures"),
        (("photos", "-o", "new.toml", "--recipe", "centred.toml", "--weights", "quick.toml"), "quick.toml"),
    ],
)
def test_what_no_centre_can_be_learned_from_or_written_to_is_refused(
    run, photos: Path, recipe_file: Path, centred_file: Path, tmp_path: Path, arguments: tuple[str, ...], says: str
) -> None:
    (tmp_path / "empty").mkdir()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*") if path.is_file()}
    done = run("centre", *arguments)
    assert done.returncode == 1
    assert re.search(says, done.stderr)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*") if path.is_file()} == before


@pytest.mark.slow
def test_an_interrupted_centre_leaves_what_was_there(photos: Path, centred_file: Path, tmp_path: Path) -> None:
    for copy in range(400):
        for path in sorted(photos.glob("instance*")):
            shutil.copy(path, photos / f"copy{copy}_{path.name}")
    target = tmp_path / "learned.toml"
    target.write_text("of before")
    code = (
        "import os, signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # tests in the background ignore it
        "from coocnet.describe import Describer\n"
        "load = Describer.load\n"
        "def telling(*args, **options):\n"
        "    os.write(1, b'begun\\n')\n"  # in one piece, as several threads tell
        "    return load(*args, **options)\n"
        "Describer.load = telling\n"
        "from coocnet.cli import main\n"
        "sys.argv = ['coocnet', 'centre', *sys.argv[1:]]\n"
        "main()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, photos, "-o", target, "--recipe", centred_file],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert target.read_text() == "of before"
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".coocnet")]


def test_the_preset_that_the_command_begins_with_reads_a_centre() -> None:
    assert "centre" in POOLINGS[Recipe.preset("centred").pooling]
