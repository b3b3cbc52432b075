"""Pictures over HTTP: exactly those of the collection, byte for byte, and nothing else of the machine."""

from __future__ import annotations

import io
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from asking import Shelf, client_of, id_of, png, problem, shelved
from coocnet.data.images import decode
from coocnet.describe import Describer
from coocnet.index import open_index
from coocnet.recipe import Recipe


@pytest.fixture
def own(shelf: Shelf, tmp_path: Path, quick: Recipe) -> Shelf:
    return shelf.copy_to(tmp_path, quick)


def listed(client) -> list[str]:
    return [one["name"] for one in client.get("/api/pictures", params={"limit": 200}).json()["pictures"]]


def test_the_collection_is_listed_in_order_page_by_page(client, shelf):
    names = [path.relative_to(shelf.photos).as_posix() for path in shelf.paths]
    assert listed(client) == names
    pages = [client.get("/api/pictures", params={"offset": at, "limit": 7}).json() for at in range(0, len(names), 7)]
    assert [one["name"] for page in pages for one in page["pictures"]] == names
    assert {page["total"] for page in pages} == {len(names)}


def test_the_listing_tells_sizes_and_is_filtered_by_name(client, shelf):
    name = shelf.paths[4].name
    answer = client.get("/api/pictures", params={"contains": name.upper()}).json()
    with Image.open(shelf.paths[4]) as image:
        size = image.size
    assert answer == {
        "total": 1,
        "pictures": [{"id": shelf.id(4), "name": name, "width": size[0], "height": size[1]}],
    }


def test_the_filter_knows_nothing_of_the_folders_above(client, shelf):
    for part in (shelf.photos.parent.name, str(shelf.photos), shelf.photos.name + "/"):
        assert client.get("/api/pictures", params={"contains": part}).json()["total"] == 0


def test_an_original_is_the_file_byte_for_byte(client, shelf):
    answer = client.get(f"/api/pictures/{shelf.id(1)}/original")
    assert answer.content == shelf.paths[1].read_bytes()
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.headers["content-disposition"].startswith("inline")
    assert answer.headers["x-content-type-options"] == "nosniff"
    stored = client.get(f"/api/pictures/{shelf.id(1)}/original", params={"download": True})
    assert shelf.paths[1].name in stored.headers["content-disposition"]
    assert stored.headers["content-disposition"].startswith("attachment")


@pytest.mark.parametrize("size", [160, 640])
def test_a_thumbnail_is_the_picture_upright_and_small(tmp_path, quick, size):
    (tmp_path / "photos").mkdir()
    lying = Image.fromarray(np.zeros((60, 900, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    lying.save(tmp_path / "photos" / "lying.jpg", exif=exif)
    own = shelved(tmp_path / "photos", tmp_path / "photos.cooc", quick)
    with client_of(own.place) as client:
        answer = client.get(f"/api/pictures/{own.id(0)}/thumbnail", params={"size": size})
        shown = client.get(f"/api/pictures/{own.id(0)}").json()
    wanted = decode(own.paths[0].read_bytes(), "", size_px=size).pixels
    assert answer.status_code == 200, answer.text
    with Image.open(io.BytesIO(answer.content)) as image:
        assert image.size == wanted.shape[1::-1]
        assert image.height == size
    assert (shown["width"], shown["height"]) == (60, 900)
    assert "immutable" in answer.headers["cache-control"]


@pytest.mark.parametrize(
    "path",
    [
        "/api/pictures/../../etc/passwd",
        "/api/pictures/%2e%2e%2f%2e%2e%2fetc%2fpasswd/original",
        "/api/pictures//etc/passwd/original",
        "/static/../app.py",
        "/static/%2e%2e/app.py",
        "/static/..%2f..%2f..%2fpyproject.toml",
        "/static//etc/passwd",
        "/static/%00",
        "//etc/passwd",
        "/photos.cooc/index.sqlite",
    ],
)
def test_no_path_leads_to_a_file(client, path):
    answer = client.get(path)
    assert answer.status_code in (404, 405, 422), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert "root:" not in answer.text


def test_a_file_that_has_changed_since_the_sync_is_not_given(own):
    with client_of(own.place) as client:
        known = own.id(0)
        own.paths[0].write_bytes(png(30, 20))
        for what in ("original", "thumbnail"):
            assert "up to date" in problem(client.get(f"/api/pictures/{known}/{what}"), 410, "gone")


def test_a_link_put_in_a_pictures_place_leads_nowhere(own, tmp_path):
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(png(30, 20))
    with client_of(own.place) as client:
        known = own.id(0)
        own.paths[0].unlink()
        own.paths[0].symlink_to(secret)
        problem(client.get(f"/api/pictures/{known}/original"), 410, "gone")
        problem(client.get(f"/api/pictures/{id_of(secret)}/original"), 404, "unknown-picture")


def test_a_fifo_in_a_pictures_place_keeps_nobody_waiting(own):
    with client_of(own.place) as client:
        known = own.id(0)
        own.paths[0].unlink()
        os.mkfifo(own.paths[0])
        problem(client.get(f"/api/pictures/{known}/original"), 410, "gone")
        assert client.get(f"/api/pictures/{known}").json()["width"] is None


def test_a_copy_serves_where_one_file_is_gone(own, quick):
    shutil.copyfile(own.paths[0], own.photos / "zz.jpg")
    content = own.paths[0].read_bytes()
    own = shelved(own.photos, own.place, quick)
    with client_of(own.place) as client:
        known = own.id(0)
        own.paths[0].unlink()
        assert client.get(f"/api/pictures/{known}/original").content == content


@pytest.mark.slow
def test_a_picture_that_is_added_is_found_and_stays(own, tmp_path, quick):
    folder = tmp_path / "added"
    folder.mkdir()
    content = png(200, 150)
    with client_of(own.place, add_to=str(folder)) as client:
        answer = client.post("/api/pictures", params={"name": "../../my tower.png"}, content=content)
        assert answer.status_code == 201, answer.text
        added = answer.json()
        assert added["name"].startswith("my tower ")
        assert [path.read_bytes() for path in folder.iterdir()] == [content]
        hits = client.post("/api/search/image", content=content).json()["hits"]
        assert hits[0]["id"] == added["id"]
        assert client.get(f"/api/pictures/{added['id']}/original").content == content
        job = client.post("/api/sync").json()["id"]
        while client.get(f"/api/jobs/{job}").json()["state"] in ("waiting", "running"):
            pass
        assert client.get(f"/api/pictures/{added['id']}").status_code == 200


def test_adding_what_is_there_changes_nothing(own, tmp_path):
    folder = tmp_path / "added"
    folder.mkdir()
    with client_of(own.place, add_to=str(folder)) as client:
        answer = client.post("/api/pictures", content=own.paths[0].read_bytes())
        assert answer.json()["name"] == own.paths[0].name
        assert not list(folder.iterdir())
        assert len(listed(client)) == len(own.paths)


def test_a_picture_whose_file_is_gone_is_stored_when_it_is_added(own, tmp_path):
    folder = tmp_path / "added"
    folder.mkdir()
    content = own.paths[0].read_bytes()
    own.paths[0].unlink()
    with client_of(own.place, add_to=str(folder)) as client:
        assert client.post("/api/pictures", content=content).status_code == 201
        assert [path.read_bytes() for path in folder.iterdir()] == [content]


def test_a_file_that_was_edited_is_not_overwritten_when_its_picture_is_added_again(own, tmp_path):
    folder = tmp_path / "added"
    folder.mkdir()
    with client_of(own.place, add_to=str(folder)) as client:
        for _ in range(2):
            assert client.post("/api/pictures", params={"name": "x.png"}, content=png(60, 50)).status_code == 201
            first = min(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns)
            if len(list(folder.iterdir())) == 1:
                first.write_bytes(png(60, 50, seed=7))
        assert {path.read_bytes() for path in folder.iterdir()} == {png(60, 50), png(60, 50, seed=7)}


def test_a_long_name_in_any_script_is_shortened_to_what_files_may_be_called(own, tmp_path):
    folder = tmp_path / "added"
    folder.mkdir()
    with client_of(own.place, add_to=str(folder)) as client:
        answer = client.post("/api/pictures", params={"name": 90 * "塔" + ".png"}, content=png(60, 50))
        assert answer.status_code == 201, answer.text
        assert answer.json()["name"].startswith("塔塔塔")


def test_what_is_no_picture_is_not_added_and_leaves_no_file(own, tmp_path):
    folder = tmp_path / "added"
    folder.mkdir()
    cut = own.paths[0].read_bytes()[:2000]
    with client_of(own.place, add_to=str(folder)) as client:
        for content in (b"hello", cut):
            problem(client.post("/api/pictures", content=content), 422, "picture")
        assert not list(folder.iterdir())


def test_a_picture_of_too_many_pixels_is_not_added(own, tmp_path):
    folder = tmp_path / "added"
    folder.mkdir()
    with client_of(own.place, add_to=str(folder), upload_px=10_000) as client:
        assert "megapixels" in problem(client.post("/api/pictures", content=png(101, 100)), 422, "picture")
        assert not list(folder.iterdir())


def test_nothing_is_added_where_the_service_was_not_told_to(client):
    assert "--add-to" in problem(client.post("/api/pictures", content=png(30, 20)), 403, "no-adding")


@pytest.mark.slow
def test_a_picture_taken_out_is_gone_from_searches_and_can_be_taken_back(own, quick):
    known = own.id(2)
    with client_of(own.place) as client:
        assert client.delete(f"/api/pictures/{known}").status_code == 204
        found = client.get("/api/search", params={"picture": own.id(0), "limit": len(own.paths)}).json()["hits"]
        assert known not in [hit["id"] for hit in found]
        assert len(found) == len(own.paths) - 1
        problem(client.get(f"/api/pictures/{known}/original"), 404, "unknown-picture")
        problem(client.delete(f"/api/pictures/{known}"), 404, "unknown-picture")
        assert client.get("/api/removed").json() == {"pictures": [{"id": known, "names": [own.paths[2].name]}]}
        with open_index(own.place, quick) as index:
            index.sync(own.photos, describer=Describer(quick), verify_content=True)
        assert own.paths[2].name not in listed(client)
        assert own.paths[2].exists()
        assert client.post(f"/api/pictures/{known}/restore").json()["names"] == [own.paths[2].name]
        problem(client.post(f"/api/pictures/{known}/restore"), 404, "unknown-picture")
        assert own.paths[2].name in listed(client)


@pytest.mark.slow
def test_a_picture_taken_out_that_is_added_again_is_taken_back_and_not_stored_twice(own, tmp_path):
    folder = tmp_path / "added"
    folder.mkdir()
    known, content = own.id(2), own.paths[2].read_bytes()
    with client_of(own.place, add_to=str(folder)) as client:
        client.delete(f"/api/pictures/{known}")
        assert client.post("/api/pictures", content=content).json()["names"] == [own.paths[2].name]
        assert not list(folder.iterdir())
        client.delete(f"/api/pictures/{known}")
        own.paths[2].unlink()
        assert client.post("/api/pictures", content=content).status_code == 201
        assert [path.read_bytes() for path in folder.iterdir()] == [content]


def test_a_picture_whose_file_is_away_stays_among_those_taken_out(own):
    known = own.id(2)
    with client_of(own.place) as client:
        client.delete(f"/api/pictures/{known}")
        content = own.paths[2].read_bytes()
        own.paths[2].unlink()
        problem(client.post(f"/api/pictures/{known}/restore"), 410, "gone")
        assert [one["id"] for one in client.get("/api/removed").json()["pictures"]] == [known]
        own.paths[2].write_bytes(content)
        assert client.post(f"/api/pictures/{known}/restore").status_code == 200


def test_a_service_that_only_reads_changes_nothing(own, tmp_path):
    folder = tmp_path / "added"
    folder.mkdir()
    with client_of(own.place, read_only=True, add_to=str(folder)) as client:
        for answer in (
            client.post("/api/pictures", content=png(30, 20)),
            client.delete(f"/api/pictures/{own.id(0)}"),
            client.post(f"/api/pictures/{own.id(0)}/restore"),
            client.post("/api/sync"),
        ):
            problem(answer, 403, "read-only")
        assert client.get("/api/info").json()["can_write"] is False
        assert len(listed(client)) == len(own.paths)


@pytest.mark.slow
def test_names_are_those_within_the_collection_alone(tmp_path, scenes, quick):
    one, other = tmp_path / "a" / "photos", tmp_path / "b" / "photos"
    shutil.copytree(scenes[0] / "database", one)
    (other / "sub").mkdir(parents=True)
    (other / "sub" / "x.png").write_bytes(png(100, 80))
    shelved(one, tmp_path / "photos.cooc", quick)
    own = shelved(other, tmp_path / "photos.cooc", quick)
    with client_of(own.place) as client:
        names = listed(client)
        assert names[-1] == "photos (2)/sub/x.png"
        assert all(name.startswith("photos/") for name in names[:-1])
        assert str(tmp_path) not in client.get("/api/info").text
