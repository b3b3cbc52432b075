"""A disk that is full: a small file system in memory, of random size, which then grows."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from faults.campaign import Ground, must
from faults.commands import coocnet
from faults.looking import content_of, look, rows_are_right

_SIZES = 18
_KILOBYTES = (64, 1200)


def why_not(folder: Path) -> str:
    """Why no file system can be mounted here; empty where one can."""
    tried = folder / "tried"
    tried.mkdir()
    done = _mount("-t", "tmpfs", "-o", "size=64k", "tmpfs", tried)
    if done.returncode == 0:
        subprocess.run(["umount", tried], check=True)
    tried.rmdir()
    return done.stderr.strip()


@contextmanager
def small_disk(place: Path, size_kb: int) -> Iterator[Path]:
    """A file system of so many kilobytes."""
    place.mkdir()
    must(_mount("-t", "tmpfs", "-o", f"size={size_kb}k", "tmpfs", place).returncode == 0, "nothing was mounted")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)
        place.rmdir()


def resize(place: Path, options: str) -> None:
    """Mounts it anew with other options."""
    must(_mount("-o", f"remount,{options}", place).returncode == 0, f"it was not mounted with {options}")


def _mount(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["mount", *map(str, arguments)], capture_output=True, text=True, check=False)


def full(ground: Ground) -> None:
    """Syncs, approximate searches, preparations, migrations and repairs on disks of random size."""
    if reason := why_not(ground.folder):
        ground.say(f"skipped, for nothing can be mounted here: {reason}")
        ground.tally["skipped"] = 1
        return
    town, calm = ground.town(), ground.folder / "calm.cooc"
    town.add(250)
    coocnet("index", town.photos, "--index", calm, "--recipe", ground.recipe).ends()
    right = content_of(calm)
    for _ in range(_SIZES):
        with ground.round() as place, small_disk(place / "disk", ground.chance.randint(*_KILOBYTES)) as disk:
            index = disk / "index.cooc"
            sync = ("index", town.photos, "--index", index, "--recipe", ground.recipe)
            run = coocnet(*sync)
            said = run.ends(0, 1)
            ground.count(syncs_on_a_full_disk=run.status == 1)
            must(run.status == 0 or "could not be written" in said or "cannot be written" in said, f"it says: {said}")
            if (index / "index.sqlite").exists():
                must(rows_are_right(look(index, deeply=True), right), "a row is wrong")
            resize(disk, "size=64m")
            coocnet(*sync).ends()
            must(content_of(index) == right, "the index differs from the undisturbed one")
    for what in ("prepare", "migrate", "repair"):
        for _ in range(_SIZES // 3):
            with ground.round() as place, small_disk(place / "disk", 64 * 1024) as disk:
                index = Path(shutil.copytree(calm, disk / "index.cooc"))
                _on_full_disk(ground, what, index, disk)
                must(content_of(calm) == right, "the index that was copied has changed")


def _on_full_disk(ground: Ground, what: str, index: Path, disk: Path) -> None:
    """Fills a disk up to some kilobytes, lets a command meet the end of it, and makes room again."""
    arguments: dict[str, tuple[object, ...]] = {
        "prepare": ("prepare", "--index", index),
        "migrate": ("migrate", index, disk / "copy.cooc"),
        "repair": ("repair", index),
    }
    if what == "repair":
        _spoil(index / "index.sqlite", ground)
    before = _database(index)
    free_kb = shutil.disk_usage(disk).free // 1024
    left_kb = ground.chance.randint(0, 120 if what == "prepare" else 600)
    (disk / "filling").write_bytes(bytes(max(0, free_kb - left_kb) * 1024))
    run = coocnet(*arguments[what])
    said = run.ends(0, 1)
    must(run.status == 0 or "written" in said or "space" in said, f"{what} says: {said}")
    ground.count(**{f"{what}_on_a_full_disk": run.status == 1})
    if run.status:
        must(what != "repair" or _database(index) == before, "a repair that failed has changed the index")
    (disk / "filling").unlink()
    coocnet(*arguments[what]).ends()
    look(index, deeply=True)


def _database(index: Path) -> dict[str, bytes]:
    """The database and what is beside it, but for what shows that it was looked at."""
    files = [file for file in index.glob("index.sqlite*") if not file.name.endswith("-shm")]
    return {file.name: content for file in files if (content := file.read_bytes())}


def _spoil(database: Path, ground: Ground) -> None:
    with open(database, "rb+") as stream:
        stream.seek(4096 * ground.chance.randrange(10, 60))
        stream.write(bytes(4096))
