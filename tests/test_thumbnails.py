"""Small copies of pictures: by content, whole or not at all, for whoever cannot read the pictures."""

from __future__ import annotations

import io
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from asking import client_of, id_of, png, problem
from coocnet.data import remote
from coocnet.data.images import content_digest, decode
from coocnet.data.thumbnails import THUMBNAIL_PX, ThumbnailStore
from coocnet.describe import Describer
from coocnet.errors import ImageError, IndexStorageError, InputError
from coocnet.index import open_index
from indexing import Unused, counts

pytestmark = pytest.mark.slow

ONE, OTHER = b"\x01" * 16, b"\xab" * 16


def digest_of(path: Path) -> bytes:
    return content_digest(path.read_bytes())


def size_of(content: bytes | None) -> tuple[int, int]:
    assert content is not None
    with Image.open(io.BytesIO(content)) as image:
        assert image.format == "JPEG"
        return image.size


def kept(place: Path) -> set[bytes]:
    """The contents of which there are files, found by a plain look at the folder."""
    files = [path for path in place.rglob("*") if path.is_file()]
    assert all(path.suffix == ".jpg" and path.parent.name == path.stem[:2] for path in files)
    return {bytes.fromhex(path.stem) for path in files}


@pytest.fixture(params=["", "file://"])
def small(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A place for copies, by its path and by its URL."""
    return f"{request.param}{tmp_path}/small ones"


# ---- the store ----


@pytest.mark.parametrize(
    ("shape", "size"),
    [((900, 600), (293, 440)), ((100, 1000), (440, 44)), ((30, 40), (40, 30)), ((1, 9000), (440, 1))],
)
def test_a_copy_is_a_jpeg_of_a_bounded_size(small, shape, size):
    ThumbnailStore(small).put(ONE, np.full((*shape, 3), 200, np.uint8))
    assert size_of(ThumbnailStore(small).get(ONE)) == size


def test_copies_are_named_by_content(small, tmp_path):
    store = ThumbnailStore(small)
    assert (store.get(ONE), store.digests()) == (None, set())
    for digest in (ONE, OTHER):
        store.put(digest, np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "small ones" / "notes.txt").write_text("not ours")
    (tmp_path / "small ones" / "cd").mkdir()
    (tmp_path / "small ones" / "cd" / f"{'cd' * 16}.jpg").touch()  # as a crash of the machine may leave it
    assert (tmp_path / "small ones" / "ab" / f"{OTHER.hex()}.jpg").is_file()
    assert store.digests() == {ONE, OTHER}
    assert store.get(b"\xcd" * 16) is None
    store.delete([ONE, ONE])
    assert ThumbnailStore(small).digests() == {OTHER}


def test_a_copy_that_cannot_be_written_is_not_there(small, tmp_path, monkeypatch):
    store = ThumbnailStore(small)
    monkeypatch.setattr(type(remote._opened("file:///")[0]), "mv", full)
    with pytest.raises(IndexStorageError, match=r"small ones cannot be written: .*No space left"):
        store.put(ONE, np.zeros((8, 8, 3), np.uint8))
    assert kept(tmp_path / "small ones") == set()


def full(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


# ---- what an index does with it ----


def test_a_sync_makes_one_for_each_content(where, small, tmp_path, photos, recipe, describer):
    first = sorted(photos.iterdir())[0]
    shutil.copy(first, photos / "copy.jpg")
    Image.new("RGB", (1200, 700), "teal").save(photos / "large.png")
    (photos / "broken.jpg").write_bytes(b"no picture")
    with open_index(where, recipe) as index:
        index.use_thumbnails(small)
        assert index.sync(photos, describer=describer).thumbnails == 0
        assert kept(tmp_path / "small ones") == {digest_of(path) for path in photos.iterdir()} - {
            content_digest(b"no picture")
        }
        assert size_of(index.thumbnail(digest_of(photos / "large.png"))) == (440, 257)
        assert index.thumbnail(b"?" * 16) is None
    with open_index(where) as index:
        assert index.info().thumbnails == small
        Image.new("RGB", (70, 90), "navy").save(photos / "later.jpg")
        assert counts(index.sync(photos, describer=describer)) == {"added": 1, "unchanged": 20, "skipped": 1}
        assert size_of(index.thumbnail(digest_of(photos / "later.jpg"))) == (70, 90)


def test_a_copy_looks_like_the_picture_whatever_size_is_described(tmp_path, photos, recipe, describer):
    noise = np.random.default_rng(0).integers(0, 255, (40, 30, 3), np.uint8)
    Image.fromarray(noise).resize((900, 1200)).save(photos / "large.png")
    assert recipe.size_px < THUMBNAIL_PX
    with open_index(tmp_path / "index.cooc", recipe) as index:
        index.use_thumbnails(tmp_path / "small")
        index.sync(photos, describer=describer)
        copy = decode(index.thumbnail(digest_of(photos / "large.png")) or b"", "", size_px=None).pixels
    wanted = decode((photos / "large.png").read_bytes(), "", size_px=THUMBNAIL_PX).pixels
    assert np.abs(copy.astype(int) - wanted).mean() < 4


def test_pictures_that_were_there_before_get_theirs_without_being_described(
    where, small, tmp_path, photos, recipe, describer
):
    with open_index(where, recipe) as index:
        index.sync(photos, describer=describer)
        assert index.thumbnail(digest_of(sorted(photos.iterdir())[0])) is None
        index.use_thumbnails(small)
        told = []
        report = index.sync(photos, describer=Unused, progress=lambda state: told.append((state.done, state.total)))
        assert (counts(report), report.thumbnails) == ({"unchanged": 18}, 18)
        assert told[-1] == (18, 18)
        assert kept(tmp_path / "small ones") == {digest_of(path) for path in photos.iterdir()}
        one = digest_of(sorted(photos.iterdir())[3])
        ThumbnailStore(small).delete([one])
        assert index.sync(photos, describer=Unused).thumbnails == 1
        assert index.thumbnail(one) is not None


def test_a_file_that_cannot_be_read_now_gets_its_copy_another_time(tmp_path, photos, recipe, describer, monkeypatch):
    changed, away, other = sorted(photos.iterdir())[:3]
    with open_index(tmp_path / "index.cooc", recipe) as index:
        index.sync(photos, describer=describer)
        index.use_thumbnails(tmp_path / "small")

        def read(path: str) -> bytes:
            if Path(path) == away:
                raise ImageError(path, "cannot be read", unread=True)
            return (other if Path(path) == changed else Path(path)).read_bytes()

        with monkeypatch.context() as patch:
            patch.setattr("coocnet.index.thumbnails.read_bytes", read)
            assert index.sync(photos, describer=Unused).thumbnails == 16
        assert index.sync(photos, describer=Unused).thumbnails == 2


def test_copies_leave_with_their_contents(where, small, tmp_path, photos, recipe, describer):
    first, second, third, fourth, *_ = sorted(photos.iterdir())
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(third, elsewhere / "same.jpg")
    with open_index(where, recipe) as index:
        index.use_thumbnails(small)
        for folder in (photos, elsewhere):
            index.sync(folder, describer=describer)
        there = kept(tmp_path / "small ones")
        gone, changed, moved = digest_of(first), digest_of(second), digest_of(third)
        first.unlink()
        Image.new("RGB", (90, 70), "teal").save(second)
        third.unlink()  # the same content is still elsewhere
        index.sync(photos, describer=describer)
        there = (there - {gone, changed}) | {digest_of(second)}
        assert moved in there
        assert kept(tmp_path / "small ones") == there
        out = digest_of(fourth)
        index.remove([out])
        assert kept(tmp_path / "small ones") == there - {out}
        index.restore([out], describer=describer)
        assert kept(tmp_path / "small ones") == there
        before = digest_of(fourth)
        Image.new("RGB", (91, 71), "olive").save(fourth)
        index.add([fourth], describer=describer)
        assert kept(tmp_path / "small ones") == (there - {before}) | {digest_of(fourth)}
        index.sync(shutil.move(photos, tmp_path / "moved"), describer=describer)
        shutil.rmtree(tmp_path / "moved")
        for folder in (photos, tmp_path / "moved"):
            index.sync(folder, describer=Unused, allow_empty=True)
        assert kept(tmp_path / "small ones") == {moved}


def test_a_store_that_is_full_is_an_error_and_nothing_is_lost(
    where, small, tmp_path, photos, recipe, describer, monkeypatch
):
    with open_index(where, recipe) as index:
        index.use_thumbnails(small)
        with monkeypatch.context() as patch:
            put, written = remote.put, []

            def put_some(url: str, content: bytes) -> None:
                if len(written) >= 5:
                    full()
                put(url, content)
                written.append(url)

            patch.setattr(remote, "put", put_some)
            with pytest.raises(IndexStorageError, match="No space left"):
                index.sync(photos, describer=describer)
        copies = kept(tmp_path / "small ones")
        assert all(index.thumbnail(digest) for digest in index.files_of_each(list(copies)))
        assert index.pictures <= len(copies)
        report = index.sync(photos, describer=describer)
        assert index.pictures == 18
        assert report.unchanged + report.added == 18
        assert kept(tmp_path / "small ones") == {digest_of(path) for path in photos.iterdir()}


def test_none_are_made_any_more_where_none_are_wanted(place, tmp_path, photos, recipe, describer):
    with open_index(place, recipe) as index:
        index.use_thumbnails(tmp_path / "small")
        index.use_thumbnails(None)
        index.sync(photos, describer=describer)
        assert (index.info().thumbnails, index.thumbnail(digest_of(sorted(photos.iterdir())[0]))) == ("", None)
    assert not (tmp_path / "small").exists()


def test_copies_among_the_pictures_are_refused(place, photos, recipe):
    with open_index(place, recipe) as index:
        for inside in (photos, photos / "small", f"file://{photos}/small"):
            before = index.thumbnails_place
            with pytest.raises(InputError, match="would take them for pictures"):
                index.use_thumbnails(inside, apart_from=[photos])
            assert index.thumbnails_place == before
            index.use_thumbnails(inside)
            with pytest.raises(InputError, match="would take them for pictures"):
                index.sync(photos, describer=Unused)
        index.use_thumbnails(photos.parent / "photos and more")
        index.sync(photos, describer=lambda: Describer(recipe))
        with pytest.raises(InputError, match="would take them for pictures"):
            index.use_thumbnails(photos / "small")
        assert index.thumbnails_place == str(photos.parent / "photos and more")


def test_a_place_that_cannot_be_used_is_refused_at_once(place, recipe):
    with open_index(place, recipe) as index:
        for wrong in ("s3://key:secret@bucket/small", "nothing://bucket"):
            with pytest.raises(InputError):
                index.use_thumbnails(wrong)


# ---- who shows them ----


@pytest.fixture
def seen_from_afar(tmp_path, photos, recipe, describer):
    """An index whose pictures cannot be read any more, but for their copies."""
    Image.new("RGB", (900, 600), "teal").save(photos / "large.png")
    known = id_of(photos / "large.png")
    with open_index(tmp_path / "index.cooc", recipe) as index:
        index.use_thumbnails(tmp_path / "small")
        index.sync(photos, describer=describer)
    shutil.move(photos, tmp_path / "moved")
    return tmp_path / "index.cooc", known


def test_the_service_shows_the_copy_of_a_picture_it_cannot_read(seen_from_afar):
    place, known = seen_from_afar
    with client_of(place) as client:
        for size, shown in ((160, (160, 107)), (320, (320, 213))):
            answer = client.get(f"/api/pictures/{known}/thumbnail", params={"size": size})
            assert size_of(answer.content) == shown
        problem(client.get(f"/api/pictures/{known}/thumbnail", params={"size": 640}), 410, "gone")
        problem(client.get(f"/api/pictures/{known}/original"), 410, "gone")
        problem(client.get(f"/api/pictures/{'ab' * 16}/thumbnail"), 404, "unknown-picture")


def test_the_service_tells_nobody_where_copies_are_kept(tmp_path, photos, recipe, describer):
    with open_index(tmp_path / "index.cooc", recipe) as index:
        index.sync(photos, describer=describer)
        with index._store.sole_writer():
            index._store.put_thumbnails(str(photos / "small"))  # as a release before did
    with client_of(tmp_path / "index.cooc") as client:
        job = client.post("/api/sync").json()["id"]
        while (state := client.get(f"/api/jobs/{job}").json())["state"] in ("waiting", "running"):
            time.sleep(0.05)
        assert (state["state"], "thumbnails are to be in …" in state["problem"]["detail"]) == ("failed", True)
        assert "small" not in str(state)


def test_the_service_reads_the_copy_and_not_the_url_where_that_is_enough(
    tmp_path, photos, recipe, describer, monkeypatch
):
    with open_index(tmp_path / "index.cooc", recipe) as index:
        index.use_thumbnails(tmp_path / "small")
        index.sync(f"file://{photos}", describer=describer)
    known = id_of(sorted(photos.iterdir())[0])
    read = []
    monkeypatch.setattr("coocnet.serve.pictures.read_bytes", lambda path: read.append(path) or remote.content(path))
    monkeypatch.setattr("coocnet.serve.pictures.open_file", lambda path: pytest.fail(f"{path} was opened"))
    with client_of(tmp_path / "index.cooc") as client:
        listed = client.get("/api/pictures").json()["pictures"]
        assert [one["width"] for one in listed] == [None] * 18
        assert client.get(f"/api/pictures/{known}/thumbnail", params={"size": 320}).status_code == 200
        assert read == []
        assert client.get(f"/api/pictures/{known}/thumbnail", params={"size": 640}).status_code == 200
        assert len(read) == 1


def test_the_service_gives_pictures_at_urls_without_any_copies(tmp_path, photos, recipe, describer):
    path = sorted(photos.iterdir())[0]
    with open_index(tmp_path / "index.cooc", recipe) as index:
        index.sync(f"file://{photos}", describer=describer)
    with client_of(tmp_path / "index.cooc") as client:
        known = id_of(path)
        assert client.get(f"/api/pictures/{known}/original").content == path.read_bytes()
        assert client.get(f"/api/pictures/{known}/thumbnail").status_code == 200
        with Image.open(path) as image:
            assert client.get(f"/api/pictures/{known}").json()["width"] == image.width
        path.write_bytes(png(30, 20))
        problem(client.get(f"/api/pictures/{known}/original"), 410, "gone")


def test_a_montage_shows_the_copies_of_pictures_that_cannot_be_read(run, seen_from_afar, tmp_path):
    place, _ = seen_from_afar
    query = tmp_path / "moved" / "large.png"
    for name, thumbnails in (("with.png", True), ("without.png", False)):
        if not thumbnails:
            shutil.move(tmp_path / "small", tmp_path / "away")
        assert run("search", query, "-i", place, "-k", 3, "--montage", name).returncode == 0
    shown, missing = (np.asarray(Image.open(tmp_path / name).convert("RGB")) for name in ("with.png", "without.png"))
    teal = (np.abs(shown.astype(int) - (0, 128, 128)) < 12).all(2).sum()
    assert teal > 1.5 * (np.abs(missing.astype(int) - (0, 128, 128)) < 12).all(2).sum()


def test_the_command_keeps_them_and_says_where(run, tmp_path, photos, recipe_file):
    done = run("index", photos, "-i", "x.cooc", "--recipe", recipe_file, "--thumbnails", "small")
    assert done.returncode == 0, done.stderr
    assert len(kept(tmp_path / "small")) == 18
    assert str(tmp_path / "small") in run("info", "-i", "x.cooc").stdout
    shutil.rmtree(tmp_path / "small")
    assert "18 thumbnails made" in run("index", photos, "-i", "x.cooc").stdout
    assert run("index", photos, "-i", "x.cooc", "--thumbnails", "none").returncode == 0
    assert "thumbnails" in run("info", "-i", "x.cooc", "--json").stdout
