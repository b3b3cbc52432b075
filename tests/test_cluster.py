"""Describing on a cluster gives what describing here gives, whatever dies meanwhile."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import coocnet
from coocnet.cluster import ClusterDescriber
from coocnet.data.images import Picture, content_digest, read_bytes
from coocnet.data.walk import find_file
from coocnet.describe import Describer
from coocnet.errors import ClusterError, ImageError, IndexStorageError, InputError
from coocnet.index import SyncProgress, SyncReport, open_index
from coocnet.index.sync import Job, Loader, Sorted
from coocnet.recipe import Recipe
from indexing import contents, counts

pytestmark = pytest.mark.slow
_ENVIRONMENT = {
    "RAY_AUTH_MODE": "disabled",  # or a token would be written
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # or Ray would take this machine's address on the network for 127.0.0.1
    "PYTHONPATH": os.pathsep.join([str(Path(coocnet.__file__).parents[1]), str(Path(__file__).parent)]),
}
_PLACE = {"node_ip_address": "127.0.0.1", "object_store_memory": 80 << 20}
_PATIENCE_S = 120


class Machines:
    """A cluster of several nodes on this machine, each a set of processes with one core; the first one only leads."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        leader = {"num_cpus": 0, "include_dashboard": False, **_PLACE}
        self.cluster = Cluster(initialize_head=True, head_node_args=leader)
        self.address = self.cluster.address
        for _ in range(2):
            self.add()

    def add(self) -> Any:
        return self.cluster.add_node(num_cpus=1, **_PLACE)

    def workers(self, node: Any = None) -> list[int]:
        """Processes that describe, of one node or of all."""
        nodes = self.cluster.list_all_nodes() if node is None else [node]
        raylets = {process.process.pid for one in nodes for process in one.all_processes.get("raylet", ())}
        return [pid for pid in _processes(b"ray::_Worker") if _parent(pid) in raylets]


def _processes(name: bytes) -> list[int]:
    return [int(place.name) for place in Path("/proc").glob("[0-9]*") if _read(place / "cmdline").startswith(name)]


def _parent(pid: int) -> int:
    """As the system has it, after the name in parentheses and the state; 0 where the process is no more."""
    status = _read(Path(f"/proc/{pid}/stat")).rpartition(b")")[2].split()
    return int(status[1]) if status else 0


def _read(place: Path) -> bytes:
    try:
        return place.read_bytes()
    except OSError:
        return b""


@pytest.fixture(scope="module", autouse=True)
def ray() -> Iterator[None]:
    """Ray as it keeps to this machine, which it decides as it is imported."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in _ENVIRONMENT.items():
            patch.setenv(name, value)
        pytest.importorskip("ray", reason="a cluster needs: pip install 'coocnet[cluster]'")
        yield


@pytest.fixture(scope="module")
def machines(ray: None) -> Iterator[Machines]:
    made = Machines()
    yield made
    made.cluster.shutdown()


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coocnet.cluster._BATCH", 2)


@pytest.fixture
def mixed(photos: Path) -> Path:
    """Pictures with copies, odd names, and files that are none."""
    first, second = sorted(photos.iterdir())[:2]
    for number in range(3):
        shutil.copy(first, photos / f"copy{number}.jpg")
    shutil.copy(second, photos / "ümläut\n.jpg")
    second.rename(photos / os.fsdecode(b"not \xff utf-8.jpg"))
    (photos / "broken.jpg").write_bytes(b"no picture")
    (photos / "empty.jpg").write_bytes(b"")
    (photos / "cut.jpg").write_bytes(first.read_bytes()[:900])
    return photos


def sync(place: Path, photos: Path, recipe: Recipe, source: Any, **options: Any) -> SyncReport:
    with open_index(place, recipe) as index:
        return index.sync(photos, describer=source, **options)


def skipped(report: SyncReport) -> set[tuple[str, str, bool]]:
    return {(error.path, error.reason, error.unread) for error in report.skipped}


def until(holds: Callable[[], bool]) -> None:
    ends = time.monotonic() + _PATIENCE_S
    while not holds():
        assert time.monotonic() < ends
        time.sleep(0.05)


def test_a_cluster_gives_what_one_process_gives(machines, small_batches, mixed, place, recipe, tmp_path) -> None:
    seen: list[SyncProgress] = []
    elsewhere = ClusterDescriber(recipe, workers=2, address=machines.address)
    report = sync(place, mixed, recipe, elsewhere, progress=seen.append)
    here = sync(tmp_path / "here.cooc", mixed, recipe, Describer(recipe))
    assert contents(place) == contents(tmp_path / "here.cooc")
    assert counts(report) == counts(here)
    assert report.described == here.described
    assert skipped(report) == skipped(here)
    assert [(one.done, one.total) for one in seen] == [(done, len(seen)) for done in range(1, len(seen) + 1)]
    with open_index(place) as index, open_index(tmp_path / "here.cooc") as other:
        assert index.info().engines == other.info().engines == ["float32"]
        assert index.info().weights_sha256 == other.info().weights_sha256
    assert counts(sync(place, mixed, recipe, elsewhere)) == {"unchanged": 22, "skipped": 3}


@pytest.mark.parametrize("what", ["process", "machine"])
def test_what_dies_in_the_middle_costs_no_picture_and_doubles_none(
    what, machines, small_batches, mixed, place, recipe, tmp_path
) -> None:
    doomed = machines.add() if what == "machine" else None
    killed: list[int] = []

    def kill(progress: SyncProgress) -> None:
        if killed or progress.done < 3:
            return
        until(lambda: bool(machines.workers(doomed)))
        found = machines.workers(doomed)
        killed.append(progress.done)
        if doomed is None:
            os.kill(found[0], signal.SIGKILL)
        else:
            machines.cluster.remove_node(doomed)

    report = sync(place, mixed, recipe, ClusterDescriber(recipe, workers=3, address=machines.address), progress=kill)
    here = sync(tmp_path / "here.cooc", mixed, recipe, Describer(recipe))
    assert killed
    assert killed[0] < 25
    assert contents(place) == contents(tmp_path / "here.cooc")
    assert (counts(report), skipped(report)) == (counts(here), skipped(here))


def test_an_interrupted_run_ends_its_workers_and_goes_on(
    machines, small_batches, mixed, place, recipe, tmp_path
) -> None:
    def interrupt(progress: SyncProgress) -> None:
        if progress.done == 7:
            raise KeyboardInterrupt

    source = ClusterDescriber(recipe, workers=2, address=machines.address)
    with pytest.raises(KeyboardInterrupt):
        sync(place, mixed, recipe, source, progress=interrupt)
    until(lambda: not machines.workers())
    assert 0 < len(contents(place)) <= 7
    sync(place, mixed, recipe, source)
    sync(tmp_path / "here.cooc", mixed, recipe, Describer(recipe))
    assert contents(place) == contents(tmp_path / "here.cooc")


@dataclass
class Named:
    path: str


def deadly(item: Named) -> Picture:
    if item.path.startswith("deadly"):
        os.kill(os.getpid(), signal.SIGKILL)
    return Picture(np.full((40, 50, 3), 99, np.uint8), (50, 40), item.path)


def test_a_file_that_ends_every_process_is_told_and_the_others_are_described(
    machines, small_batches, recipe, monkeypatch
) -> None:
    monkeypatch.setattr("coocnet.cluster._DEATHS", 1)
    source = ClusterDescriber(recipe, workers=2, address=machines.address)
    items = [Named(path) for path in ("a.jpg", "deadly.jpg", "b.jpg", "c.jpg")]
    came = {item.path: outcome for item, outcome in source.stream(items, deadly)}
    assert isinstance(came["deadly.jpg"], ImageError)
    assert came["deadly.jpg"].unread
    assert "ended each of 1 processes" in str(came.pop("deadly.jpg"))
    expected = Describer(recipe).describe_pixels(deadly(items[0]).pixels[None])[0]
    assert set(came) == {"a.jpg", "b.jpg", "c.jpg"}
    for row in came.values():
        np.testing.assert_array_equal(row, expected)


@dataclass
class Unlucky:
    """As a file looks that was described while the process ended at the next one: what it gave was lost once."""

    before: Path

    def __call__(self, item: Named) -> Picture:
        if item.path == "a.jpg" and not self.before.exists():
            self.before.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return deadly(item)


def test_a_file_is_only_blamed_for_the_end_of_a_process_that_had_nothing_else(
    machines, recipe, monkeypatch, tmp_path
) -> None:
    monkeypatch.setattr("coocnet.cluster._BATCH", 1)
    monkeypatch.setattr("coocnet.cluster._DEATHS", 1)
    items = [Named(path) for path in ("a.jpg", "deadly.jpg", "b.jpg", "c.jpg")]
    source = ClusterDescriber(recipe, workers=1, address=machines.address)
    stream = source.stream(items, Unlucky(tmp_path / "before"))
    came = [(item.path, isinstance(outcome, ImageError)) for item, outcome in stream]
    assert sorted(came) == [("a.jpg", False), ("b.jpg", False), ("c.jpg", False), ("deadly.jpg", True)]


def test_a_run_whose_workers_only_die_ends(machines, small_batches, recipe, monkeypatch) -> None:
    monkeypatch.setattr("coocnet.cluster._DEATHS", 1)
    items = [Named(f"deadly{number}.jpg") for number in range(8)]
    with pytest.raises(ClusterError, match=r"the Ray cluster .* failed"):
        list(ClusterDescriber(recipe, workers=1, address=machines.address).stream(items, deadly))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"engine": "steam"}, "no engine is called 'steam'"),
        ({"device": "cuda"}, "no machine of the cluster has a GPU"),
    ],
)
def test_workers_that_cannot_describe_as_asked_say_why(asked, message, machines, photos, place, recipe) -> None:
    with pytest.raises(ClusterError, match=message):
        sync(place, photos, recipe, ClusterDescriber(recipe, workers=1, address=machines.address, **asked))
    assert contents(place) == []


def test_a_worker_that_cannot_store_a_small_copy_says_so_as_one_process_does(
    machines, small_batches, photos, place, recipe, tmp_path
) -> None:
    (tmp_path / "full").write_bytes(b"a file, no folder")
    with open_index(place, recipe) as index:
        index.use_thumbnails(tmp_path / "full")
        with pytest.raises(IndexStorageError, match="full cannot be written"):
            index.sync(photos, describer=ClusterDescriber(recipe, workers=1, address=machines.address))


def test_workers_with_other_weights_are_refused(machines, photos, place, recipe, tmp_path) -> None:
    weights = Path(shutil.copy(recipe.weights, tmp_path / "weights.safetensors"))
    changed = recipe.replace(weights=str(weights))
    source = ClusterDescriber(changed, workers=1, address=machines.address)
    content = weights.read_bytes()
    weights.write_bytes(content[:-4] + bytes(4))
    with pytest.raises(ClusterError, match=f"other weights, SHA-256: .*, not {source.weights_sha256}"):
        sync(place, photos, changed, source)
    assert contents(place) == []


def test_the_command_starts_workers_of_its_own_and_ends_them(mixed, place, recipe, recipe_file, tmp_path) -> None:
    command = ["index", mixed, "--index", place, "--recipe", recipe_file, "--workers", "2"]
    environment = {**os.environ, **_ENVIRONMENT, "COLUMNS": "500"}
    asked = [sys.executable, "-m", "coocnet", *map(str, command)]
    done = subprocess.run(asked, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert "18 added, 4 recognised by content" in done.stdout
    assert done.stderr.splitlines()[0] == "Skipped 3:"
    sync(tmp_path / "here.cooc", mixed, recipe, Describer(recipe))
    assert contents(place) == contents(tmp_path / "here.cooc")


def test_a_loader_sent_elsewhere_leaves_known_and_removed_contents_undescribed(photos) -> None:
    first, second, third = (find_file(str(path)) for path in sorted(photos.iterdir())[:3])
    digests = [content_digest(read_bytes(file.path)) for file in (first, second)]
    loader = pickle.loads(pickle.dumps(Loader({digests[0]}, {digests[1]}, 64)))
    assert loader(Job(first, is_new=True)) is None
    with pytest.raises(ImageError, match="taken out"):
        loader(Job(second, is_new=True))
    job = Job(third, is_new=True)
    assert loader(job).pixels.shape[:2] == Loader(set(), set(), 64)(Job(third, is_new=True)).pixels.shape[:2]
    assert job.digest == content_digest(read_bytes(third.path))
    assert loader(Job(third, is_new=True)) is None


def test_digests_in_one_array_are_told_apart_to_the_last_byte() -> None:
    digests = [bytes(16), b"\1" * 16, b"a" * 15 + b"\0", b"a" + bytes(15), b"\xff" * 16]
    held = Sorted(digests[::2])
    assert [digest in held for digest in digests] == [True, False] * 2 + [True]
    assert b"a" * 16 not in Sorted([])


def test_an_image_error_arrives_as_it_was_sent() -> None:
    sent = ImageError("line\nbreak.jpg", "empty file", unread=True)
    came = pickle.loads(pickle.dumps(sent))
    assert (str(came), came.path, came.reason, came.unread) == (str(sent), sent.path, sent.reason, True)


@pytest.mark.parametrize("workers", [0, -1, 1.5, True, "2"])
def test_workers_are_counted_from_one(workers, recipe) -> None:
    with pytest.raises(InputError, match=f"1 or more, got {workers!r}"):
        ClusterDescriber(recipe, workers=workers)


@pytest.mark.parametrize("address", ["", "host", "http://host:1", "host:port", "ray://user:secret@host:1", 6379])
def test_an_address_that_is_none_is_refused(address, recipe) -> None:
    with pytest.raises(InputError, match="HOST:PORT"):
        ClusterDescriber(recipe, workers=1, address=address)


def test_a_cluster_that_is_not_there_is_named(photos, place, recipe) -> None:
    for address in ("127.0.0.1:9", "ray://127.0.0.1:9"):
        with pytest.raises(ClusterError, match=f"no Ray cluster can be reached at '{address}'"):
            sync(place, photos, recipe, ClusterDescriber(recipe, workers=1, address=address))
