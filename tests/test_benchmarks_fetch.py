"""From archives in the real layout, on a server of this machine, to pictures in order; and the command."""

from __future__ import annotations

import json
import os
import pickle
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from coocnet.data.benchmarks import (
    BENCHMARKS,
    Archive,
    check_benchmark,
    data_folder,
    fetch_benchmark,
    open_benchmark,
    open_training,
    place,
)
from coocnet.errors import ArchiveError, BenchmarkError, FetchError, InputError
from coocnet.evaluate import GroundTruth, picture_set
from coocnet.fetch import sha256_of
from publishing import CLASSIC, OXFORD, PARIS, TRAIN, VAL, World, jpeg, packed
from serving import Server


@pytest.fixture
def world(server: Server, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(server, monkeypatch)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "data"


def files_below(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(p.relative_to(folder)): (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.rglob("*") if p.is_file()
    }


# ---- downloading ----


def test_oxford_arrives_in_the_order_of_its_ground_truth(world: World, root: Path) -> None:
    world.oxford()
    steps: dict[str, tuple[int, int | None, str]] = {}
    found = open_benchmark("oxford5k", place=root, progress=lambda step, *rest: steps.update({step: rest}))
    assert [path.stem for path in found.images] == list(found.ground_truth.images) == OXFORD[:8]
    assert [path.read_bytes() for path in found.images] == [jpeg(n) for n in range(8)]
    assert found.queries == [(found.images[0], (1.0, 1.0, 7.0, 6.0)), (found.images[3], (0.0, 0.0, 5.0, 5.0))]
    assert found.report.complete
    assert found.report.unexpected == (OXFORD[8],)
    size = len(world.mirrors["oxbuild_images-v1.tgz"].content)
    assert steps["Downloading oxbuild_images-v1.tgz"] == (size, size, "bytes")
    assert steps["Unpacking oxbuild_images-v1.tgz"] == (size, size, "bytes")
    assert steps["Checking"] == (8, 8, "pictures")
    assert not (root / "oxford-pictures" / "archives").exists()


def test_the_revisited_oxford_takes_its_query_from_the_same_pictures(world: World, root: Path) -> None:
    world.oxford()
    open_benchmark("oxford5k", place=root)
    found = open_benchmark("roxford5k", place=root)
    assert world.mirrors["oxbuild_images-v1.tgz"].requests == [None]
    assert [path.stem for path in found.images] == OXFORD[1:]
    assert found.queries[0][0].stem == OXFORD[0]
    assert found.picture_set()["count"] == 9
    assert found.ground_truth.setups == ("easy", "medium", "hard")


def test_paris_is_put_together_from_two_archives_without_its_damaged_files(world: World, root: Path) -> None:
    world.paris()
    found = open_benchmark("paris6k", place=root)
    assert [path.stem for path in found.images] == PARIS
    assert found.report.complete
    assert found.report.known_damaged == ("paris_louvre_000136",)


def test_a_check_downloads_no_pictures_and_counts_the_archives_that_are_missing(world: World, root: Path) -> None:
    world.paris()
    fetch_benchmark("paris6k", place=root)
    shutil.rmtree(root / "paris-pictures" / "paris_2-v1")
    report = check_benchmark("paris6k", place=root)
    assert report.differences == ("1 of 2 archives are here",)
    assert report.missing == tuple(PARIS[4:])
    assert world.mirrors["paris_2-v1.tgz"].requests == [None]
    with pytest.raises(BenchmarkError, match="1 of 2 archives"):
        open_benchmark("paris6k", place=root, download=False)
    assert open_benchmark("paris6k", place=root).report.complete


def test_the_second_time_nothing_is_fetched(world: World, root: Path) -> None:
    world.paris()
    first = open_benchmark("paris6k", place=root)
    for mirror in world.mirrors.values():
        assert mirror.requests == [None]
    second = open_benchmark("paris6k", place=root, download=False)
    assert (second.images, second.ground_truth) == (first.images, first.ground_truth)
    assert all(mirror.requests == [None] for mirror in world.mirrors.values())


def test_a_ground_truth_is_kept_as_json_and_read_from_there(world: World, root: Path) -> None:
    world.oxford()
    truth = open_benchmark("oxford5k", place=root).ground_truth
    ours = root / "oxford5k" / "ground_truth.json"
    assert GroundTruth.load(ours) == truth
    (root / "oxford5k" / "gnd_oxford5k.pkl").unlink()
    assert open_benchmark("oxford5k", place=root, download=False).ground_truth == truth
    ours.write_text("{")
    with pytest.raises(BenchmarkError, match="Delete it"):
        open_benchmark("oxford5k", place=root, download=False)


def test_a_malicious_ground_truth_is_refused(world: World, root: Path, tmp_path: Path) -> None:
    world.oxford()
    made = tmp_path / "made"

    class Runs:
        def __reduce__(self):
            return os.system, (f"touch {made}",)

    world.mirrors["gnd_oxford5k.pkl"].content = pickle.dumps({"imlist": Runs()})
    with pytest.raises(BenchmarkError, match="is not read"):
        open_benchmark("oxford5k", place=root)
    assert not made.exists()


@pytest.mark.slow
def test_a_cut_connection_is_resumed(world: World, root: Path) -> None:
    world.oxford()
    mirror = world.mirrors["oxbuild_images-v1.tgz"]
    mirror.cuts = [1000]
    assert open_benchmark("roxford5k", place=root).report.complete
    assert mirror.requests == [None, "bytes=1000-"]
    assert mirror.bytes_served == len(mirror.content)


def test_a_later_run_goes_on_where_a_killed_one_stopped(world: World, root: Path) -> None:
    world.oxford()
    mirror = world.mirrors["oxbuild_images-v1.tgz"]
    files = {f"{name}.jpg": jpeg(n) for n, name in enumerate(OXFORD)}
    mirror.content = packed("a.tgz", {**files, "large.bin": random.Random(0).randbytes(400_000)})

    def killed(step: str, done: int, total: int | None, unit: str) -> None:
        if step.startswith("Downloading oxbuild"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch_benchmark("oxford5k", place=root, progress=killed)
    fetch_benchmark("oxford5k", place=root)
    assert check_benchmark("oxford5k", place=root).complete
    assert mirror.requests == [None, f"bytes={1 << 18}-"]


def test_an_unpacking_that_was_interrupted_is_begun_anew_without_another_download(world: World, root: Path) -> None:
    world.oxford()

    def killed(step: str, *_: object) -> None:
        if step.startswith("Unpacking"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch_benchmark("oxford5k", place=root, progress=killed)
    fetch_benchmark("oxford5k", place=root)
    assert check_benchmark("oxford5k", place=root).complete
    assert world.mirrors["oxbuild_images-v1.tgz"].requests == [None]


def test_what_an_interrupted_unpacking_left_does_not_count_as_here(world: World, root: Path) -> None:
    world.paris()
    fetch_benchmark("paris6k", place=root)
    (root / "paris-pictures" / "paris_2-v1").rename(root / "paris-pictures" / "paris_2-v1.unfinished")
    assert check_benchmark("paris6k", place=root).missing == tuple(PARIS[4:])


def test_a_dead_server_is_named_and_a_second_mirror_serves(world: World, root: Path) -> None:
    world.oxford()
    mirror = world.mirrors["oxbuild_images-v1.tgz"]
    dead = world.server.mirror("dead.tgz")
    dead.statuses = [404, 404]
    source = BENCHMARKS["oxford5k"]
    archive = replace(source.pictures.archives[0], urls=(dead.url,))
    world.monkeypatch.setitem(
        BENCHMARKS, "oxford5k", replace(source, pictures=replace(source.pictures, archives=(archive,)))
    )
    with pytest.raises(FetchError, match=r"dead\.tgz: HTTP 404"):
        fetch_benchmark("oxford5k", place=root)
    archive = replace(archive, urls=(dead.url, mirror.url))
    world.monkeypatch.setitem(
        BENCHMARKS, "oxford5k", replace(source, pictures=replace(source.pictures, archives=(archive,)))
    )
    fetch_benchmark("oxford5k", place=root)
    assert check_benchmark("oxford5k", place=root).complete


# ---- checksums ----


def test_what_arrives_first_is_recorded_and_another_file_later_is_refused(world: World, root: Path) -> None:
    world.oxford()
    fetch_benchmark("oxford5k", place=root)
    mirror = world.mirrors["oxbuild_images-v1.tgz"]
    record = json.loads((root / "oxford-pictures" / "checksums.json").read_text())
    digest = record["oxbuild_images-v1.tgz"]["sha256"]
    lines = "\n".join(check_benchmark("oxford5k", place=root).checksums)
    assert f"oxbuild_images-v1.tgz: SHA-256 {digest}, recorded on" in lines
    assert "not published" in lines
    shutil.rmtree(root / "oxford-pictures" / "oxbuild_images-v1")
    mirror.content, mirror.validator = packed("a.tgz", {"other.jpg": jpeg(99)}), ("ETag", '"two"')
    with pytest.raises(BenchmarkError, match="not the file that arrived here on") as caught:
        fetch_benchmark("oxford5k", place=root)
    assert digest in str(caught.value)
    (root / "oxford-pictures" / "checksums.json").unlink()
    fetch_benchmark("oxford5k", place=root)


def test_a_published_checksum_is_held_against_what_arrives(world: World, root: Path, tmp_path: Path) -> None:
    world.oxford()
    source = BENCHMARKS["oxford5k"]
    (tmp_path / "copy").write_bytes(world.mirrors["gnd_oxford5k.pkl"].content)

    def with_checksum(sha256: str) -> None:
        truth = (replace(source.truth[0], sha256=sha256),)
        world.monkeypatch.setitem(BENCHMARKS, "oxford5k", replace(source, truth=truth))

    with_checksum("0" * 64)
    with pytest.raises(FetchError, match="expected 0000"):
        fetch_benchmark("oxford5k", place=root)
    with_checksum(sha256_of(tmp_path / "copy"))
    fetch_benchmark("oxford5k", place=root)
    assert any(
        "gnd_oxford5k.pkl" in line and "as published" in line
        for line in check_benchmark("oxford5k", place=root).checksums
    )


def test_what_was_never_recorded_is_unverified(world: World, root: Path) -> None:
    world.oxford()
    fetch_benchmark("oxford5k", place=root)
    (root / "oxford-pictures" / "checksums.json").unlink()
    assert any("unverified" in line for line in check_benchmark("oxford5k", place=root).checksums)


def test_an_archive_that_was_kept_is_checked_against_the_record(world: World, root: Path) -> None:
    world.oxford()
    fetch_benchmark("oxford5k", place=root, keep_archives=True)
    kept = root / "oxford-pictures" / "archives" / "oxbuild_images-v1.tgz"
    assert check_benchmark("oxford5k", place=root, full=True).complete
    kept.write_bytes(b"bad")
    report = check_benchmark("oxford5k", place=root, full=True)
    assert not report.complete
    assert "oxbuild_images-v1.tgz has SHA-256" in report.summary()


def test_a_damaged_record_is_named(world: World, root: Path) -> None:
    world.oxford()
    fetch_benchmark("oxford5k", place=root)
    (root / "oxford-pictures" / "checksums.json").write_text('{"a": 1}')
    with pytest.raises(BenchmarkError, match=r"checksums\.json is damaged"):
        check_benchmark("oxford5k", place=root)


@pytest.mark.parametrize("content", [b"<html>moved</html>", packed("a.tgz", {"../escape.jpg": b"bad"})])
def test_what_is_no_archive_or_leads_out_is_deleted_and_said(content: bytes, world: World, root: Path) -> None:
    world.oxford()
    mirror = world.mirrors["oxbuild_images-v1.tgz"]
    good, mirror.content = mirror.content, content
    with pytest.raises(ArchiveError, match="What had arrived was deleted"):
        fetch_benchmark("oxford5k", place=root)
    assert not list(root.rglob("escape*"))
    mirror.content, mirror.validator = good, ("ETag", '"two"')
    fetch_benchmark("oxford5k", place=root)
    assert check_benchmark("oxford5k", place=root).complete


def test_a_disk_that_is_too_small_is_said_before_the_download(world: World, root: Path) -> None:
    world.oxford()
    source = BENCHMARKS["oxford5k"]
    huge = replace(source.pictures.archives[0], size_bytes=1 << 60)
    world.monkeypatch.setitem(
        BENCHMARKS, "oxford5k", replace(source, pictures=replace(source.pictures, archives=(huge,)))
    )
    with pytest.raises(BenchmarkError, match="GB are needed"):
        fetch_benchmark("oxford5k", place=root)
    assert world.mirrors["oxbuild_images-v1.tgz"].requests == []


# ---- missing and damaged ----


def test_what_is_missing_or_damaged_is_listed_by_name(world: World, root: Path) -> None:
    world.oxford()
    fetch_benchmark("oxford5k", place=root)
    unpacked = root / "oxford-pictures" / "oxbuild_images-v1"
    (unpacked / f"{OXFORD[1]}.jpg").unlink()
    whole = (unpacked / f"{OXFORD[4]}.jpg").read_bytes()
    (unpacked / f"{OXFORD[4]}.jpg").write_bytes(whole[: len(whole) // 2])
    (unpacked / f"{OXFORD[5]}.jpg").write_bytes(b"")
    report = check_benchmark("oxford5k", place=root)
    assert report.missing == (OXFORD[1],)
    assert report.damaged == ((OXFORD[4], "truncated"), (OXFORD[5], "empty file"))
    with pytest.raises(BenchmarkError) as caught:
        open_benchmark("oxford5k", place=root)
    for name in (OXFORD[1], OXFORD[4], OXFORD[5], "coocnet datasets fetch oxford5k"):
        assert name in str(caught.value)


def test_a_picture_that_is_damaged_inside_is_found_by_decoding(world: World, root: Path) -> None:
    world.oxford()
    fetch_benchmark("oxford5k", place=root)
    path = root / "oxford-pictures" / "oxbuild_images-v1" / f"{OXFORD[4]}.jpg"
    content = bytearray(path.read_bytes())
    table = content.index(b"\xff\xc4") + 5
    content[table : table + 16] = b"\xff" * 16
    path.write_bytes(content)
    assert check_benchmark("oxford5k", place=root).complete
    assert [name for name, _ in check_benchmark("oxford5k", place=root, full=True).damaged] == [OXFORD[4]]


def test_the_rest_can_be_used_where_that_is_asked_for(world: World, root: Path) -> None:
    world.oxford()
    fetch_benchmark("oxford5k", place=root)
    for gone in (1, 3):
        (root / "oxford-pictures" / "oxbuild_images-v1" / f"{OXFORD[gone]}.jpg").unlink()
    found = open_benchmark("oxford5k", place=root, allow_missing=True)
    left = [OXFORD[n] for n in (0, 2, 4, 5, 6, 7)]
    assert [path.stem for path in found.images] == list(found.ground_truth.images) == left
    assert len(found.queries) == 1
    labels = found.ground_truth.queries[0].labels
    assert labels == {"ok": frozenset({0}), "junk": frozenset({1})}
    assert not found.report.complete


def test_another_number_of_pictures_than_published_is_said(world: World, root: Path) -> None:
    world.oxford()
    world.monkeypatch.setitem(BENCHMARKS, "oxford5k", replace(BENCHMARKS["oxford5k"], images=5063))
    with pytest.raises(BenchmarkError, match="oxford5k has 5,063 database pictures, its ground truth here names 8"):
        open_benchmark("oxford5k", place=root)


# ---- a copy that is there already ----


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    folder = tmp_path / "mine"
    for n, name in enumerate(OXFORD):
        path = folder / ("a" if n % 2 else "b/c") / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(n))
    return folder


def test_a_copy_is_used_in_place_and_not_changed(world: World, root: Path, copy: Path) -> None:
    world.oxford()
    before = files_below(copy)
    for path in [*copy.rglob("*"), copy]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        found = open_benchmark("oxford5k", place=root, existing=copy)
    finally:
        for path in [copy, *copy.rglob("*")]:
            path.chmod(0o755 if path.is_dir() else 0o644)
    assert all(copy in path.parents for path in found.images)
    assert files_below(copy) == before
    assert world.mirrors["oxbuild_images-v1.tgz"].requests == []
    fetched = open_benchmark("oxford5k", place=root)
    assert found.picture_set() == fetched.picture_set()
    names = {OXFORD[n]: jpeg(n) for n in range(8)}
    assert found.picture_set()["count"] == len(names)
    digests = [(path.stem, sha256_of(path)) for path in found.images]
    assert found.picture_set() == picture_set(digests)


def test_a_ground_truth_beside_the_pictures_goes_first_and_needs_no_server(
    root: Path, copy: Path, world: World
) -> None:
    world.oxford()
    truth = {"imlist": OXFORD[:8], "qimlist": [OXFORD[0], OXFORD[3]], "gnd": CLASSIC}
    (copy / "gnd_oxford5k.json").write_text(json.dumps(truth))
    found = open_benchmark("oxford5k", place=root, existing=copy, download=False)
    assert found.report.complete
    assert str(copy) in found.truth_origin
    (copy / "gnd_oxford5k.json").unlink()
    for n, query in ((1, 0), (2, 3)):
        (copy / f"all_souls_{n}_query.txt").write_text(f"oxc1_{OXFORD[query]} 1 1 7 6")
        for ending in ("good", "ok", "junk"):
            text = OXFORD[query] if ending == "good" else ""
            (copy / f"all_souls_{n}_{ending}.txt").write_text(text)
    world.monkeypatch.setitem(BENCHMARKS, "oxford5k", replace(BENCHMARKS["oxford5k"], images=9))
    found = open_benchmark("oxford5k", place=root, existing=copy, download=False)
    assert [query.image for query in found.ground_truth.queries] == [OXFORD[0], OXFORD[3]]
    assert all(not mirror.requests for mirror in world.mirrors.values())


def test_a_name_that_stands_for_two_pictures_is_refused(world: World, root: Path, copy: Path) -> None:
    world.oxford()
    shutil.copy(copy / "b/c" / f"{OXFORD[0]}.jpg", copy / "a" / f"{OXFORD[0]}.jpg")
    assert open_benchmark("oxford5k", place=root, existing=copy).report.complete
    (copy / "a" / f"{OXFORD[0]}.jpg").write_bytes(jpeg(7) + b"more")
    with pytest.raises(BenchmarkError, match="is there twice"):
        open_benchmark("oxford5k", place=root, existing=copy)


def test_links_to_folders_are_followed_once(world: World, root: Path, copy: Path) -> None:
    world.oxford()
    linked = copy.with_name("linked")
    linked.mkdir()
    (linked / "there").symlink_to(copy)
    (copy / "a" / "back").symlink_to(linked)
    assert open_benchmark("oxford5k", place=root, existing=linked).report.complete


def test_a_copy_that_is_not_there_is_named(root: Path, tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="nowhere is not a folder"):
        open_benchmark("ukbench", place=root, existing=tmp_path / "nowhere")


# ---- the other benchmarks ----


def test_ukbench_takes_its_full_pictures_not_the_thumbnails(world: World, root: Path) -> None:
    names = [f"ukbench{n:05d}.jpg" for n in range(8)]
    files = {f"full/{name}": jpeg(n) for n, name in enumerate(names)}
    files |= {f"thumbnails/{name}": jpeg(20)[:-1] + b"x\xff\xd9" for name in names}
    world.publish("ukbench", [files], images=8, queries=8)
    found = open_benchmark("ukbench", place=root)
    assert [path.read_bytes() for path in found.images] == [jpeg(n) for n in range(8)]
    assert found.ground_truth.measures == ("ns",)
    assert found.queries[5] == (found.images[5], None)


def test_holidays_says_by_hand_what_to_fetch_and_goes_on_from_there(root: Path) -> None:
    with pytest.raises(BenchmarkError) as caught:
        fetch_benchmark("holidays", place=root)
    archives = root / "holidays-pictures" / "archives"
    for part in ("ftp://ftp.inrialpes.fr/pub/lear/douze/data/jpg1.tar.gz", "jpg2.tar.gz", str(archives)):
        assert part in str(caught.value)
    archives.mkdir(parents=True, exist_ok=True)
    (archives / "jpg1.tar.gz").write_bytes(
        packed("jpg1.tar.gz", {"jpg/100000.jpg": jpeg(1), "jpg/100001.jpg": jpeg(2)})
    )
    (archives / "jpg2.tar.gz").write_bytes(packed("jpg2.tar.gz", {"jpg/149900.jpg": jpeg(3)}))
    fetch_benchmark("holidays", place=root)
    assert (archives / "jpg1.tar.gz").is_file()
    report = check_benchmark("holidays", place=root)
    assert len(report.missing) == 1488
    assert report.missing[0] == "100002"
    shutil.rmtree(root / "holidays-pictures" / "jpg1")
    (archives / "jpg1.tar.gz").write_bytes(packed("jpg1.tar.gz", {"jpg/100000.jpg": jpeg(9)}))
    with pytest.raises(BenchmarkError, match="was recorded for"):
        fetch_benchmark("holidays", place=root)


@pytest.fixture(scope="module")
def holidays_copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from coocnet.data.benchmarks.foreign import holidays

    folder = tmp_path_factory.mktemp("holidays")
    content = jpeg(1, orientation=6)
    for name in holidays("holidays").images:
        (folder / f"{name}.jpg").write_bytes(content)
    return folder


@pytest.mark.parametrize(("name", "upright"), [("holidays", False), ("holidays-upright", True)])
def test_holidays_is_as_stored_or_upright(name: str, upright: bool, holidays_copy: Path, root: Path) -> None:
    found = open_benchmark(name, place=root, existing=holidays_copy)
    assert found.source.upright is upright
    assert (len(found.images), len(found.queries)) == (1491, 500)
    assert found.report.complete
    assert found.ground_truth.queries_in_database() == {"junk": 500}


def test_distractors_are_added_from_their_own_archives(world: World, root: Path, copy: Path) -> None:
    world.oxford()
    source = BENCHMARKS["revisitop1m"]
    two = replace(source, pictures=replace(source.pictures, archives=source.pictures.archives[:2]))
    world.monkeypatch.setitem(BENCHMARKS, "revisitop1m", two)
    world.publish("revisitop1m", [{f"jpg/{n}/{n}b.jpg": jpeg(n + 70)} for n in range(2)])
    with pytest.raises(BenchmarkError, match="0 of 2 archives"):
        open_benchmark("roxford5k", place=root, distractors=True)
    fetch_benchmark("revisitop1m", place=root)
    found = open_benchmark("roxford5k", place=root, distractors=True)
    assert [path.name for path in found.distractors] == ["0b.jpg", "1b.jpg"]
    assert check_benchmark("revisitop1m", place=root).complete
    shutil.rmtree(root / "revisitop1m-pictures" / "revisitop1m.2")
    assert "1 of 2 archives are here" in check_benchmark("revisitop1m", place=root).summary()
    own = open_benchmark("roxford5k", place=root, distractors=copy)
    assert len(own.distractors) == len(OXFORD)
    with pytest.raises(InputError, match="no benchmark with queries"):
        open_benchmark("revisitop1m", place=root)


def test_training_pairs_come_with_their_pictures(world: World, root: Path) -> None:
    world.training()
    for split, table in (("train", TRAIN), ("val", VAL), ("whiten", TRAIN)):
        training = open_training(split=split, place=root)
        assert [path.name for path in training.images] == table["cids"]
        assert (training.pairs.queries, training.pairs.positives) == (tuple(table["qidxs"]), tuple(table["pidxs"]))
    report = check_benchmark("retrieval-sfm-120k", place=root)
    assert (report.expected, report.complete) == (4, True)
    assert "retrieval-SfM-120k-whiten.pkl: SHA-256" in "\n".join(report.checksums)
    elsewhere = root.with_name("elsewhere")
    there = root / "retrieval-sfm-120k-pictures" / "ims"
    assert check_benchmark("retrieval-sfm-120k", place=elsewhere, existing=there).complete
    assert [path.name for path in elsewhere.iterdir()] == ["retrieval-sfm-120k"]
    training.images[0].unlink()
    assert check_benchmark("retrieval-sfm-120k", place=root).missing == (TRAIN["cids"][0],)
    with pytest.raises(BenchmarkError, match=TRAIN["cids"][0]):
        open_training(place=root)
    with pytest.raises(InputError, match="one of train, val, whiten"):
        open_training(split="test", place=root)
    with pytest.raises(InputError, match="opened by open_benchmark"):
        open_training("oxford5k", place=root)
    with pytest.raises(InputError, match="opened by open_training"):
        open_benchmark("retrieval-sfm-120k", place=root)


def test_a_folder_with_a_manifest_is_a_benchmark(scenes, root: Path, tmp_path: Path) -> None:
    folder = scenes[0]
    found = open_benchmark("folder", existing=folder, place=root)
    assert (len(found.images), len(found.queries)) == (18, 6)
    assert found.report.complete
    assert all(path.is_file() for path in found.images)
    assert all(box is not None for _, box in found.queries)
    assert [len(query.labels["ok"]) for query in found.ground_truth.queries] == [3] * 6
    mine = Path(shutil.copytree(folder, tmp_path / "mine"))
    (mine / "database" / "instance000_view00.jpg").unlink()
    with pytest.raises(BenchmarkError, match=r"database/instance000_view00\.jpg.*take them out of the manifest"):
        open_benchmark("folder", existing=mine, place=root)
    with pytest.raises(InputError, match="a folder of your own"):
        open_benchmark("folder", place=root)
    with pytest.raises(InputError, match="nothing to fetch"):
        fetch_benchmark("folder", place=root)


@pytest.mark.slow
def test_the_whole_chain_on_the_real_names_and_ground_truth(real_data: Path, world: World, root: Path) -> None:
    truth = json.loads((real_data / "ground_truth" / "gnd_paris6k.json").read_text())
    filler, halves = jpeg(0), [{}, {}]
    for n, image in enumerate(truth["imlist"]):
        halves[n % 2][f"paris/{image.split('_')[1]}/{image}.jpg"] = filler
    damaged = BENCHMARKS["paris6k"].pictures.damaged
    halves[0] |= {f"paris/{image.split('_')[1]}/{image}.jpg": b"" for image in damaged}
    world.publish("paris6k", halves, [truth])
    world.mirrors["paris_1-v1.tgz"].cuts = [5000]
    found = open_benchmark("paris6k", place=root)
    assert found.report.complete
    assert found.report.known_damaged == tuple(sorted(damaged))
    assert [path.stem for path in found.images] == truth["imlist"]
    assert [query.image for query in found.ground_truth.queries] == truth["qimlist"]


# ---- where things lie ----


def test_the_data_folder_is_given_or_of_the_environment_or_in_the_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, own_home: Path
) -> None:
    assert own_home in data_folder().parents
    monkeypatch.setenv("COOCNET_DATA", str(tmp_path / "set"))
    assert data_folder() == tmp_path / "set"
    assert data_folder(tmp_path / "given") == tmp_path / "given"
    assert data_folder("~/given") == own_home / "given"


def test_a_folder_that_cannot_be_made_is_said(world: World, tmp_path: Path) -> None:
    world.oxford()
    (tmp_path / "file").touch()
    with pytest.raises(BenchmarkError, match="cannot be written"):
        fetch_benchmark("oxford5k", place=tmp_path / "file" / "data")


def test_what_is_not_here_says_how_to_fetch_it(root: Path) -> None:
    for opened in (check_benchmark, lambda name, place: open_benchmark(name, place=place, download=False)):
        with pytest.raises(BenchmarkError, match="coocnet datasets fetch rparis6k"):
            opened("rparis6k", place=root)


def test_an_archive_is_unpacked_below_its_own_name() -> None:
    assert place._unpacked(Archive("a.tar.gz"), Path("x")) == Path("x/a")
    names = [one.file for source in BENCHMARKS.values() if source.pictures for one in source.pictures.archives]
    assert all(place._unpacked(Archive(name), Path("x")).name != name for name in names)


# ---- the command ----


def test_the_command_lists_fetches_and_checks(
    run: Callable[..., object], world: World, root: Path, copy: Path
) -> None:
    world.oxford()
    listed = run("datasets", COOCNET_DATA=str(root)).stdout
    assert all(name in listed for name in BENCHMARKS)
    assert "oxford5k           Oxford Buildings, Philbin et al. 2007, 8 pictures, 2 queries: not here" in listed
    assert "fetch it with" in run("datasets", "check", "oxford5k", "--to", root).stderr
    done = run("datasets", "fetch", "oxford5k", "--to", root)
    assert done.returncode == 0, done.stderr
    assert "8 pictures expected, complete" in done.stdout
    assert "oxbuild_images-v1.tgz: SHA-256" in done.stdout
    assert "queries: here" in run("datasets", "--to", root).stdout
    table = json.loads(run("datasets", "--json", "--to", root).stdout)
    assert table["folder"]["path"] == str(root)
    state = {one["name"]: (one["files_here"], one["files"]) for one in table["benchmarks"]}
    assert state["oxford5k"] == (2, 2)
    assert state["roxford5k"] == (1, 2)
    (copy / "a" / f"{OXFORD[1]}.jpg").unlink()
    checked = run("datasets", "check", "oxford5k", "--existing", copy, "--to", root, "--json")
    assert checked.returncode == 1
    report = json.loads(checked.stdout)
    assert (report["complete"], report["missing"]) == (False, [OXFORD[1]])
    shown = run("datasets", "check", "oxford5k", "--existing", copy, "--to", root)
    assert "1 missing:" in shown.stdout
    assert OXFORD[1] in shown.stdout


def test_options_before_the_command_and_unknown_names_are_refused(run: Callable[..., object], root: Path) -> None:
    assert "after the command" in run("datasets", "--to", root, "fetch", "oxford5k").stderr
    assert "roxford5k" in run("datasets", "fetch", "oxford").stderr
    assert "curl -C - -O ftp://" in run("datasets", "fetch", "holidays", "--to", root).stderr
