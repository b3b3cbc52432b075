"""Kills an indexing run again and again, and compares what is left with an undisturbed run.

    python benchmarks/interruptions.py [--kills 200] [--out results/interruptions.json]

Each round changes the folder (new, changed, renamed, copied and deleted pictures), then starts ``coocnet index`` and
kills it with SIGKILL, until one run reaches its end: at a random time, or in the first moments after it touched the
index. Every other round begins without an index; there, these moments are those when it is being made. The run after
a kill names the recipe or leaves it out, at random, if the index has one stored; if not, ``coocnet info`` must say
that there is no index. After every kill the database must be sound and hold only rows that are right; after the round
it must equal one made from the same folder without a disturbance: same paths, same contents, same rows to the last
bit. What is left is looked at in a copy, so that the next run meets it as the kill left it. The network has random
filters: nothing is downloaded.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import platform
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from coocnet.backbones import BACKBONES
from coocnet.data.scenes import render
from coocnet.index import open_index
from coocnet.recipe import Recipe

CHANCE = random.Random(0)
DATABASE = "index.sqlite"
EARLY_S = 0.03  # at most; making an index takes about a tenth of it
EARLY_SHARE = 1 / 3  # of the kills
Content = dict[str, tuple[bytes, bytes]]


def _must(holds: bool, what: str) -> None:
    """Ends the campaign unless something holds."""
    if not holds:
        raise RuntimeError(what)


def write_recipe(folder: Path) -> Path:
    """A quick recipe with random weights, as a file."""
    torch.manual_seed(0)
    tensors = {}
    for name, tensor in BACKBONES["squeezenet1_1"].build().state_dict().items():
        tensors[name.replace(".", "_")] = torch.randn(tensor.shape) * (2 / tensor[0].numel()) ** 0.5
    weights = folder / "random.safetensors"
    save_file(tensors, weights)
    recipe = Recipe(
        name="random", backbone="squeezenet1_1", tap="features", weights=str(weights), size_px=384, whitening="none"
    )
    path = folder / "random.toml"
    path.write_text(recipe.to_toml())
    return path


class Town:
    """A folder of pictures that changes from round to round."""

    def __init__(self, photos: Path, chance: random.Random) -> None:
        self.photos = photos
        self.chance = chance
        self.made = 0
        self.jpegs = []
        for number in range(40):
            stream = io.BytesIO()
            render(number, 0, size_px=384)[0].save(stream, "JPEG")
            self.jpegs.append(stream.getvalue())

    def new(self, path: Path) -> None:
        """A picture whose bytes are like no other's: what follows a JPEG's end is not looked at, but counts."""
        self.made += 1
        path.write_bytes(self.chance.choice(self.jpegs) + str(self.made).encode())

    def change(self, number: int) -> None:
        """Adds, changes, renames, copies and deletes pictures."""
        present = sorted(self.photos.glob("*.jpg"))
        self.chance.shuffle(present)
        for i, path in enumerate(present[:40]):
            if i % 4 == 0:
                path.unlink()
            elif i % 4 == 1:
                path.rename(self.photos / f"renamed{number}_{i}.jpg")
            elif i % 4 == 2:
                shutil.copy(path, self.photos / f"copy{number}_{i}.jpg")
            else:
                self.new(path)
        for i in range(200):
            self.new(self.photos / f"round{number}_{i}.jpg")


@dataclass(frozen=True)
class Left:
    """What an index holds: paths with the digest and the row of each, and whether its recipe is stored."""

    content: Content
    has_recipe: bool


@contextlib.contextmanager
def copied(index: Path) -> Iterator[Path]:
    """A copy of an index, if there is one, so that looking at it mends nothing."""
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name) / "copy.cooc"
        if index.exists():
            shutil.copytree(index, copy)
        yield copy


def look(index: Path) -> Left:
    """What a kill or a run left; without a stored recipe it must count as no index."""
    with copied(index) as copy:
        left = read(copy / DATABASE) if (copy / DATABASE).is_file() else Left({}, has_recipe=False)
    if not left.has_recipe:
        counts_as_none(index)
    return left


def read(database: Path) -> Left:
    """The content of a sound database."""
    with contextlib.closing(sqlite3.connect(database)) as connection:
        _must(connection.execute("PRAGMA integrity_check").fetchone() == ("ok",), "the database is not sound")
        _must(not connection.execute("PRAGMA foreign_key_check").fetchall(), "a picture points to no row")
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone():
            return Left({}, has_recipe=False)
        recipe = connection.execute("SELECT value FROM meta WHERE key = 'recipe'").fetchone()
        rows = connection.execute(
            "SELECT path, digest, row FROM pictures JOIN descriptors ON descriptors.id = pictures.descriptor"
        ).fetchall()
    return Left({path.decode(): (digest, row) for path, digest, row in rows}, has_recipe=recipe is not None)


def counts_as_none(index: Path) -> None:
    """A place without a stored recipe must be told to be no index, not a damaged one."""
    with copied(index) as copy:
        command = [sys.executable, "-m", "coocnet", "info", "--index", str(copy)]
        told = subprocess.run(command, capture_output=True, text=True, check=False)
    text = told.stdout + told.stderr
    _must(told.returncode == 1 and "there is no index" in text and "damaged" not in text, f"info says: {text}")


def start(photos: Path, index: Path, recipe: Path | None) -> subprocess.Popen[bytes]:
    """An indexing run in a process of its own."""
    command = [sys.executable, "-m", "coocnet", "index", str(photos), "--index", str(index)]
    command += ["--recipe", str(recipe)] if recipe else []
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(process: subprocess.Popen[bytes]) -> None:
    """Waits for a run that must succeed."""
    _, errors = process.communicate(timeout=300)
    _must(process.returncode == 0, errors.decode())


def trace(index: Path) -> set[tuple[str, int, int]]:
    """Changes as soon as a run touches the index."""
    found = set()
    with contextlib.suppress(FileNotFoundError):
        for path in (index, *index.iterdir()):
            status = path.stat()
            found.add((path.name, status.st_size, status.st_mtime_ns))
    return found


class Torment:
    """An index whose runs are killed, and a tally of what came of it."""

    def __init__(self, photos: Path, index: Path, recipe: Path) -> None:
        self.photos = photos
        self.index = index
        self.recipe = recipe
        self.tally: Counter[str] = Counter()

    def until_one_ends(self, right: Content, run_s: float, most: int) -> None:
        """Starts runs and kills them until one reaches its end, which the one after ``most`` kills may."""
        left = look(self.index)
        making = not left.has_recipe
        rows_of = {**dict(left.content.values()), **dict(right.values())}
        share = 0.0
        for _ in range(most):
            early = CHANCE.random() < EARLY_SHARE
            if early and making and left.has_recipe:
                shutil.rmtree(self.index)  # to be made anew, and killed meanwhile
                left = Left({}, has_recipe=False)
            if self._ends(left, early, run_s * (0.7 + 0.6 * (1 - share))):
                break
            left = look(self.index)
            _must(all(row == rows_of[digest] for digest, row in left.content.values()), "a row is wrong")
            share = sum(left.content.get(path) == value for path, value in right.items()) / len(right)
            self.tally["part stored"] += 0 < share < 1
            self.tally["no recipe"] += not left.has_recipe
            self.tally["no recipe, but a database"] += not left.has_recipe and (self.index / DATABASE).is_file()
        finish(self._start(left))

    def _ends(self, left: Left, early: bool, longest_s: float) -> bool:
        """Starts a run that is killed unless it ends first; early is just after it touched the index."""
        before = trace(self.index)
        process = self._start(left)
        while early and process.poll() is None and trace(self.index) == before:
            time.sleep(0.0002)
        try:
            process.wait(EARLY_S * CHANCE.random() ** 4 if early else CHANCE.uniform(0, longest_s))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            self.tally["kills"] += 1
            self.tally["early"] += early
            return False
        finish(process)
        return True

    def _start(self, left: Left) -> subprocess.Popen[bytes]:
        """The next run, at random without the recipe if the index has it."""
        leave_out = left.has_recipe and CHANCE.random() < 0.5
        self.tally["without --recipe"] += leave_out
        return start(self.photos, self.index, None if leave_out else self.recipe)


def main() -> None:
    """Runs the campaign and writes what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path("results/interruptions.json"))
    given = parser.parse_args()
    rounds = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photos, index = folder / "photos", folder / "disturbed.cooc"
        photos.mkdir()
        recipe, town = write_recipe(folder), Town(photos, CHANCE)
        torment = Torment(photos, index, recipe)
        tally = torment.tally
        while tally["kills"] < given.kills:
            rounds += 1
            town.change(rounds)
            calm = folder / f"calm{rounds}.cooc"
            began = time.monotonic()
            finish(start(photos, calm, recipe))
            run_s = time.monotonic() - began
            right = look(calm).content
            torment.until_one_ends(right, run_s, given.kills - tally["kills"])
            _must(look(index).content == right, "the disturbed index differs from the undisturbed one")
            with open_index(index) as opened:
                _must(opened.info().pictures == len(right), "not every picture is counted")
                _must(opened.info().contents == len(dict(right.values())), "contents are left that no picture has")
            print(f"round {rounds}: {tally['kills']} kills so far, {len(right)} pictures, equal", flush=True)
            shutil.rmtree(calm)
            if rounds % 2 == 0:
                shutil.rmtree(index)
                shutil.rmtree(photos)
                photos.mkdir()
    result = {
        "command": f"python benchmarks/interruptions.py --kills {given.kills}",
        "kills": tally["kills"],
        "kills_in_the_first_moments": tally["early"],
        "kills_before_the_recipe_was_stored": tally["no recipe"],
        "of_these_with_a_database": tally["no recipe, but a database"],
        "kills_that_left_part_of_the_work_stored": tally["part stored"],
        "runs_without_recipe_option": tally["without --recipe"],
        "rounds": rounds,
        "rounds_equal_to_an_undisturbed_run": rounds,
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
    }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
