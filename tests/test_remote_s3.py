"""Pictures and thumbnails in object storage, over the protocol of S3 to a server on this machine."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from coocnet.data import remote
from coocnet.data.images import read_bytes
from coocnet.data.thumbnails import ThumbnailStore
from coocnet.data.walk import walk
from coocnet.errors import ImageError, IndexStorageError, InputError
from coocnet.index import open_index
from indexing import Unused, counts

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def storage() -> Iterator[str]:
    """The address of a server that speaks S3."""
    pytest.importorskip("s3fs", reason="needs: pip install s3fs")
    server = pytest.importorskip("moto.server", reason="needs: pip install 'moto[s3]' flask flask-cors")
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    yield "http://{}:{}".format(*running.get_host_and_port())
    running.stop()


@pytest.fixture
def bucket(storage: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An empty bucket."""
    for name, value in {
        "AWS_ENDPOINT_URL": storage,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "no_proxy": "127.0.0.1",
    }.items():
        monkeypatch.setenv(name, value)
    remote._connected.cache_clear()
    files = remote._opened("s3://bucket/x")[0]
    files.mkdir("bucket")
    yield "s3://bucket"
    files.rm("bucket", recursive=True)
    remote._connected.cache_clear()


@pytest.fixture
def stored(bucket: str, photos: Path) -> str:
    """The rendered pictures in a folder of the bucket."""
    for path in sorted(photos.iterdir()):
        remote.put(f"{bucket}/photos/{path.name}", path.read_bytes())
    return f"{bucket}/photos"


def test_a_bucket_is_looked_through_with_hidden_files_left_out(bucket):
    names = ["a.jpg", "b/c d/é#?%20.PNG", "b//double.jpg", ".hidden.jpg", ".h/x.jpg", "b/.h/x.jpg", "notes.txt"]
    for name in names:
        remote.put(f"{bucket}/photos/{name}", name.encode())
    remote.put(f"{bucket}/photos-of-others/z.jpg", b"z")
    found = walk(f"{bucket}/photos/")
    assert [file.path for file in found.files] == sorted(f"{bucket}/photos/{name}" for name in names[:3])
    assert (found.others, found.root) == (2, f"{bucket}/photos")
    assert [read_bytes(file.path).decode() for file in found.files] == sorted(names[:3])
    assert len(walk(bucket).files) == 4


def test_more_files_than_one_answer_lists_are_all_found(bucket):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda at: remote.put(f"{bucket}/many/{at:04}.jpg", b"x"), range(1100)))
    assert len(walk(f"{bucket}/many").files) == 1100


def test_a_change_within_one_second_and_of_one_size_is_told(bucket):
    remote.put(f"{bucket}/photos/a.jpg", b"one")
    before = walk(f"{bucket}/photos").files
    assert walk(f"{bucket}/photos").files == before
    remote.put(f"{bucket}/photos/a.jpg", b"two")
    assert walk(f"{bucket}/photos").files != before


def test_a_bucket_is_kept_up_with_in_every_kind_of_index(where, stored, photos, recipe, describer):
    paths = sorted(photos.iterdir())
    with open_index(where, recipe) as index:
        assert counts(index.sync(stored, describer=describer)) == {"added": 18}
        assert counts(index.sync(stored, describer=Unused)) == {"unchanged": 18}
        remote.delete([f"{stored}/{paths[0].name}"])
        remote.put(f"{stored}/new.jpg", paths[1].read_bytes())
        remote.put(f"{stored}/broken.jpg", b"no picture")
        assert counts(index.sync(stored, describer=describer)) == {
            "recognised": 1, "unchanged": 17, "dropped": 1, "skipped": 1,
        }  # fmt: skip
        query = f"{stored}/{paths[2].name}"
        assert index.search(describer.describe([query]), k=1)[0][0].path == query


def test_what_is_gone_or_refused_is_an_error_and_drops_nothing(place, stored, recipe, describer):
    with open_index(place, recipe) as index:
        index.sync(stored, describer=describer)
        with pytest.raises(InputError, match="s3://nothing/photos does not exist"):
            index.sync("s3://nothing/photos", describer=describer)
        remote.delete([file.path for file in walk(stored).files])
        with pytest.raises(InputError, match="18 pictures"):
            index.sync(stored, describer=describer)
        assert index.pictures == 18
        assert counts(index.sync(stored, describer=describer, allow_empty=True)) == {"dropped": 18}


def test_a_server_out_of_reach_is_an_error_even_if_empty_is_allowed(place, stored, recipe, describer, monkeypatch):
    with open_index(place, recipe) as index:
        index.sync(stored, describer=describer)
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        remote._connected.cache_clear()
        with pytest.raises(InputError, match=r"cannot be read.*18 pictures"):
            index.sync(stored, describer=describer, allow_empty=True)
        with pytest.raises(ImageError) as failed:
            read_bytes(f"{stored}/a.jpg")
        assert failed.value.unread
        assert index.pictures == 18
        with pytest.raises(IndexStorageError, match="cannot be listed"):
            ThumbnailStore("s3://bucket/small").digests()


def test_threads_share_one_connection(stored, photos):
    names = sorted(path.name for path in photos.iterdir()) * 3
    seen = set()

    def read(name: str) -> bytes:
        seen.add((threading.get_ident(), id(remote._opened(stored)[0])))
        return read_bytes(f"{stored}/{name}")

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(read, names)) == [(photos / name).read_bytes() for name in names]
    assert len({connection for _, connection in seen}) == 1
    assert len(seen) > 1


def _read_in_child(url: str, told) -> None:
    told.put(read_bytes(url))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_process_that_was_forked_off_reads_by_a_connection_of_its_own(stored, photos):
    path = sorted(photos.iterdir())[0]
    assert read_bytes(f"{stored}/{path.name}") == path.read_bytes()
    forked = multiprocessing.get_context("fork")
    told = forked.SimpleQueue()
    child = forked.Process(target=_read_in_child, args=(f"{stored}/{path.name}", told))
    child.start()
    child.join(30)
    assert child.exitcode == 0
    assert told.get() == path.read_bytes()


def test_thumbnails_are_kept_in_a_bucket(where, stored, bucket, photos, recipe, describer):
    with open_index(where, recipe) as index:
        index.use_thumbnails(f"{bucket}/small")
        index.sync(stored, describer=describer)
        digests = ThumbnailStore(f"{bucket}/small").digests()
        assert len(digests) == 18
        assert all(index.thumbnail(digest) for digest in digests)
        gone = sorted(photos.iterdir())[0].name
        remote.delete([f"{stored}/{gone}"])
        index.sync(stored, describer=describer)
        assert len(ThumbnailStore(f"{bucket}/small").digests()) == 17
        index.use_thumbnails("s3://nothing/small")
        with pytest.raises(IndexStorageError, match="s3://nothing/small cannot be written"):
            index.sync(stored, describer=describer)
        assert index.pictures == 17
