"""Kills an indexing run again and again, and compares what is left with an undisturbed run.

    python benchmarks/interruptions.py [--kills 200] [--out results/interruptions.json]

Each round changes the folder (new, changed, renamed, copied and deleted pictures), then starts ``coocnet index`` and
kills it with SIGKILL after a random time, until one run reaches its end. After every kill the index must open, be
sound, and hold only rows that are right; after the round it must equal one made from the same folder without a
disturbance: same paths, same contents, same rows to the last bit. The network has random filters: nothing is
downloaded.
"""

from __future__ import annotations

import argparse
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
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file

from coocnet.backbones import BACKBONES
from coocnet.data.scenes import render
from coocnet.index import open_index
from coocnet.index.store import DATABASE_NAME
from coocnet.recipe import Recipe

CHANCE = random.Random(0)
Content = dict[str, tuple[bytes, bytes]]


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


def stored(index: Path) -> Content:
    """Paths with the digest and the row of each, after SQLite's own check of the file."""
    if not (index / DATABASE_NAME).is_file():
        return {}
    connection = sqlite3.connect(index / DATABASE_NAME)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    if not connection.execute("SELECT 1 FROM sqlite_master").fetchone():
        return {}
    rows = connection.execute(
        "SELECT path, digest, row FROM pictures JOIN descriptors ON descriptors.id = pictures.descriptor"
    ).fetchall()
    connection.close()
    return {path.decode(): (digest, row) for path, digest, row in rows}


def start(photos: Path, index: Path, recipe: Path) -> subprocess.Popen[bytes]:
    """An indexing run in a process of its own."""
    command = [sys.executable, "-m", "coocnet", "index", str(photos), "--index", str(index), "--recipe", str(recipe)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(process: subprocess.Popen[bytes]) -> None:
    """Waits for a run that must succeed."""
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors.decode()


def torment(photos: Path, index: Path, recipe: Path, right: Content, run_s: float, most: int) -> Iterator[int]:
    """Starts runs and kills them until one reaches its end; yields how many right pictures each kill left stored."""
    rows_of = {**dict(stored(index).values()), **dict(right.values())}
    done = 0
    for _ in range(most):
        process = start(photos, index, recipe)
        share_left = 1 - done / len(right)
        try:
            process.wait(CHANCE.uniform(0, run_s * (0.4 + 0.7 * share_left)))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
        else:
            finish(process)
            return
        left = stored(index)
        assert all(row == rows_of[digest] for digest, row in left.values()), "a row is wrong"
        done = sum(left.get(path) == value for path, value in right.items())
        yield done


def main() -> None:
    """Runs the campaign and writes what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path("results/interruptions.json"))
    given = parser.parse_args()
    kills, rounds, part_stored = 0, 0, 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photos, index = folder / "photos", folder / "disturbed.cooc"
        photos.mkdir()
        recipe, town = write_recipe(folder), Town(photos, CHANCE)
        while kills < given.kills:
            rounds += 1
            town.change(rounds)
            calm = folder / f"calm{rounds}.cooc"
            began = time.monotonic()
            finish(start(photos, calm, recipe))
            run_s = time.monotonic() - began
            right = stored(calm)
            for done in torment(photos, index, recipe, right, run_s, given.kills - kills):
                kills += 1
                part_stored += 0 < done < len(right)
            finish(start(photos, index, recipe))
            assert stored(index) == right, "the disturbed index differs from the undisturbed one"
            with open_index(index) as opened:
                assert opened.info().pictures == len(right)
                assert opened.info().contents == len(dict(right.values()))
            print(f"round {rounds}: {kills} kills so far, {len(right)} pictures, equal", flush=True)
            shutil.rmtree(calm)
            if rounds % 3 == 0:
                shutil.rmtree(index)
                shutil.rmtree(photos)
                photos.mkdir()
    result = {
        "command": f"python benchmarks/interruptions.py --kills {given.kills}",
        "kills": kills,
        "kills_that_left_part_of_the_work_stored": part_stored,
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
