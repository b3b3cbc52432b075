"""Pictures at URLs: what a local file system gives under file:// is what it gives under its paths."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from PIL import Image

from coocnet.data import remote
from coocnet.data.images import open_file, read_bytes
from coocnet.data.walk import Walk, find_file, walk
from coocnet.errors import ImageError, InputError
from coocnet.index import open_index
from indexing import Unused, counts


def at(path: Path) -> str:
    return f"file://{path}"


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """A folder with one of everything that a walk meets."""
    root = tmp_path / "odd ü #?%20"
    for name in ("a/x.jpg", "a::b.png", ".hidden/y.jpg", ".z.jpg", "notes.txt", "a/b/c/d.WEBP", "empty.jpg"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"" if name == "empty.jpg" else name.encode())
    (root / "folder.jpg").mkdir()
    (root / "linked").symlink_to(root / "a")
    (root / "link.jpg").symlink_to(root / "a" / "x.jpg")
    (root / "broken.jpg").symlink_to(root / "nowhere.jpg")
    os.mkfifo(root / "fifo.jpg")
    return root


def told(found: Walk, root: str) -> tuple[object, ...]:
    """What a walk says, with paths from its root on."""
    start = len(root)
    return (
        [(file.path[start:], file.stamp.size_bytes) for file in found.files],
        sorted((error.path[start:], error.reason, error.unread) for error in found.skipped),
        found.others,
        found.linked_folders,
    )


def test_a_url_is_looked_through_as_a_path_is(odd):
    here, there = walk(odd), walk(at(odd) + "/")
    assert there.root == at(odd)
    assert told(there, at(odd)) == told(here, str(odd))
    assert len(here.files) == 5
    for one, other in zip(here.files, there.files, strict=True):
        assert abs(one.stamp.modified_ns - other.stamp.modified_ns) < 1000


def test_a_single_file_has_the_stamp_that_the_walk_gives_it(odd):
    for file in walk(at(odd)).files:
        assert find_file(file.path) == file
    assert find_file(at(odd / "nothing.jpg")) is None
    for name, reason in (("a", "a folder"), ("fifo.jpg", "not a regular file")):
        with pytest.raises(ImageError, match=reason):
            find_file(at(odd / name))


def test_a_file_that_is_written_again_has_another_stamp(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"one")
    before = find_file(at(tmp_path / "a.jpg"))
    (tmp_path / "a.jpg").write_bytes(b"two")
    assert find_file(at(tmp_path / "a.jpg")) != before


def test_a_folder_that_cannot_be_listed_is_reported_with_what_is_below_unknown(odd, monkeypatch):
    listed = remote.listed

    def refused(url: str, **options: bool) -> list[remote.Entry]:
        if url == at(odd / "a"):
            raise PermissionError("Access Denied")
        return listed(url, **options)

    monkeypatch.setattr(remote, "listed", refused)
    found = walk(at(odd))
    assert [(error.path, error.reason) for error in found.unread_folders] == [
        (at(odd / "a"), "folder cannot be listed: access denied")
    ]
    assert not any(file.path.startswith(at(odd / "a") + "/") for file in found.files)


def test_bytes_are_read_or_it_is_said_why_not(odd):
    assert read_bytes(at(odd / "a::b.png")) == b"a::b.png"
    with open_file(at(odd / "a" / "x.jpg")) as stream:
        assert stream.read(3) == b"a/x"
    for name in ("a", "empty.jpg", "fifo.jpg", "nowhere.jpg"):
        with pytest.raises(ImageError) as here:
            read_bytes(odd / name)
        with pytest.raises(ImageError) as there:
            read_bytes(at(odd / name))
        assert (there.value.reason, there.value.unread) == (here.value.reason, here.value.unread)


def test_a_file_too_large_is_not_fetched(odd, monkeypatch):
    monkeypatch.setattr("coocnet.data.images.MAX_FILE_BYTES", 3)
    monkeypatch.setattr(remote, "content", lambda _: pytest.fail("it was fetched"))
    with pytest.raises(ImageError, match="larger than"):
        read_bytes(at(odd / "a" / "x.jpg"))


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nothing://bucket/photos", "no file system is known for nothing://"),
        ("sftp://host/photos", "sftp:// needs a driver: .*paramiko"),
        ("memory://", "names no bucket"),
        ("file:///no/such/folder", "file:///no/such/folder does not exist"),
    ],
)
def test_a_url_that_is_no_folder_is_an_error_that_says_why(url, said):
    with pytest.raises(InputError, match=said):
        walk(url)


@pytest.mark.parametrize("authority", ["key:secret@bucket", "key:sec/ret@bucket", ":secret@bucket", "me@host:secret"])
def test_a_password_in_a_url_is_refused_and_not_shown(authority):
    for ask in (walk, read_bytes, find_file, remote.status):
        with pytest.raises(InputError, match="environment") as refused:
            ask(f"s3://{authority}/photos/a.jpg")
        assert "sec" not in str(refused.value)


def test_what_is_stored_is_there_whole_or_not_at_all(tmp_path, monkeypatch):
    target = at(tmp_path / "new" / "deep" / "a.bin")
    remote.put(target, b"first")
    remote.put(target, b"second")
    assert remote.content(target) == b"second"
    files = remote._opened(target)[0]
    monkeypatch.setattr(type(files), "mv", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        remote.put(target, b"third")
    assert [path.read_bytes() for path in (tmp_path / "new" / "deep").iterdir()] == [b"second"]
    remote.delete([target, target])
    assert list((tmp_path / "new" / "deep").iterdir()) == []


# ---- as a collection ----


def test_a_url_is_kept_up_with_in_every_kind_of_index(where, photos, recipe, describer):
    first, second, third = sorted(photos.iterdir())[:3]
    with open_index(where, recipe) as index:
        assert counts(index.sync(at(photos), describer=describer)) == {"added": 18}
        assert counts(index.sync(at(photos) + "/", describer=Unused)) == {"unchanged": 18}
        assert index.folders == [at(photos)]
        first.unlink()
        Image.new("RGB", (90, 70), "teal").save(second)
        third.rename(photos / "renamed.jpg")
        (photos / "broken.jpg").write_bytes(b"no picture")
        assert counts(index.sync(at(photos), describer=describer)) == {
            "updated": 1, "recognised": 1, "unchanged": 15, "dropped": 2, "skipped": 1,
        }  # fmt: skip
        query = photos / "renamed.jpg"
        hit = index.search(index.row_of_file(at(query))[None], k=1)[0][0]
        assert hit.path == at(query)
        assert index.holds(at(query))
        assert not index.holds(query)
        assert index.name_of(hit.path) == "renamed.jpg"
        assert index.listing(offset=0, limit=1, contains="RENAMED")[0] == 1
        assert index.listing(offset=0, limit=1, contains=photos.name)[0] == 0


def test_a_url_that_is_gone_or_empty_drops_nothing_unless_it_is_allowed(place, photos, recipe, describer):
    with open_index(place, recipe) as index:
        index.sync(at(photos), describer=describer)
        moved = photos.rename(photos.parent / "moved")
        with pytest.raises(InputError, match="18 pictures"):
            index.sync(at(photos), describer=describer)
        photos.mkdir()
        with pytest.raises(InputError, match="18 pictures"):
            index.sync(at(photos), describer=describer)
        assert index.pictures == 18
        assert counts(index.sync(at(photos), describer=describer, allow_empty=True)) == {"dropped": 18}
        photos.rmdir()
        moved.rename(photos)
        index.sync(at(photos), describer=describer)
        shutil.rmtree(photos)
        assert counts(index.sync(at(photos), describer=describer, allow_empty=True)) == {"dropped": 18}
        assert index.folders == []


def test_what_is_below_a_folder_that_cannot_be_listed_stays(place, photos, recipe, describer, monkeypatch):
    (photos / "album").mkdir()
    for path in sorted(photos.glob("*.*"))[:5]:
        path.rename(photos / "album" / path.name)
    with open_index(place, recipe) as index:
        index.sync(at(photos), describer=describer)
        listed = remote.listed

        def refused(url: str, **options: bool) -> list[remote.Entry]:
            if url == at(photos / "album"):
                raise PermissionError("Access Denied")
            return listed(url, **options)

        monkeypatch.setattr(remote, "listed", refused)
        report = index.sync(at(photos), describer=Unused)
        assert counts(report) == {"unchanged": 13, "skipped": 1}
        assert index.pictures == 18


def test_a_url_that_cannot_be_asked_drops_nothing_even_if_allowed(place, photos, recipe, describer, monkeypatch):
    with open_index(place, recipe) as index:
        index.sync(at(photos), describer=describer)

        def refused(url: str) -> remote.Entry:
            raise PermissionError("Access Denied")

        monkeypatch.setattr(remote, "status", refused)
        with pytest.raises(InputError, match=r"access denied.*18 pictures"):
            index.sync(at(photos), describer=describer, allow_empty=True)
        assert index.pictures == 18


def test_single_pictures_at_urls_come_and_go(place, photos, recipe, describer):
    one, other = sorted(photos.iterdir())[:2]
    with open_index(place, recipe) as index:
        report = index.add([at(one), at(other), at(photos / "none.jpg")], describer=describer)
        assert counts(report) == {"added": 2, "skipped": 1}
        digest = index.search(index.row_of_file(one)[None], k=1)[0][0].digest
        index.remove([digest])
        assert index.removed() == {digest: [at(one)]}
        assert [error.reason for error in index.sync(at(photos), describer=describer).skipped] == [
            "taken out of the collection"
        ]
        assert counts(index.restore([digest], describer=describer)) == {"added": 1}
        assert index.files_of(digest) == [at(one)]


def test_a_content_met_again_at_a_url_is_remembered_with_both_names(place, photos, recipe, describer):
    one = sorted(photos.iterdir())[0]
    with open_index(place, recipe) as index:
        index.sync(at(photos), describer=describer)
        digest = index.search(index.row_of_file(one)[None], k=1)[0][0].digest
        index.remove([digest])
        shutil.copy(one, photos / "again.jpg")
        index.sync(at(photos), describer=describer)
        assert index.removed() == {digest: sorted([at(one), at(photos / "again.jpg")])}


@pytest.mark.slow
def test_the_command_takes_urls_for_folders_and_pictures(run, tmp_path, photos, quick):
    (tmp_path / "quick.toml").write_text(quick.to_toml())
    query = at(sorted(photos.iterdir())[0])
    done = run("index", at(photos) + "/", "-i", "urls.cooc", "--recipe", "quick.toml")
    assert (done.returncode, "18 added" in done.stdout) == (0, True), done.stderr
    done = run("search", query, "-i", "urls.cooc", "-k", 2, "--montage", "found.png")
    assert query in done.stdout
    assert "this very picture" in done.stdout
    assert (tmp_path / "found.png").is_file()
    assert run("explain", query, query, "-i", "urls.cooc", "-o", "why.png").returncode == 0
    assert run("heatmap", query, "--recipe", "quick.toml", "-o", "heat.png").returncode == 0
    assert run("remove", query, "-i", "urls.cooc").returncode == 0
    assert query in run("restore", "-i", "urls.cooc").stdout
    shutil.copy(sorted(photos.iterdir())[0], tmp_path / "same.jpg")
    assert run("restore", at(tmp_path / "same.jpg"), "-i", "urls.cooc").returncode == 0
    failed = run("index", "file:///no/such/folder", "-i", "urls.cooc")
    assert (failed.returncode, "is not a folder" in failed.stderr) == (1, True)
    failed = run("search", "s3://key:secret@bucket/a.jpg", "-i", "urls.cooc")
    assert (failed.returncode, "secret" in failed.stderr) == (1, False)
