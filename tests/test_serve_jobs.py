"""Bringing the index up to date over HTTP: followed, stopped, one at a time, and honest about failures."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from asking import Shelf, client_of, problem, shelved
from coocnet.data.scenes import make_scenes
from coocnet.index import open_index
from coocnet.recipe import Recipe

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty pictures: a sync of them can be caught at work."""
    folder = tmp_path_factory.mktemp("many")
    make_scenes(folder, instances=20, views=3, size_px=200)
    return folder / "database"


@pytest.fixture
def own(scenes, tmp_path: Path, quick: Recipe) -> Shelf:
    photos = Path(shutil.copytree(scenes[0] / "database", tmp_path / "photos"))
    return shelved(photos, tmp_path / "photos.cooc", quick)


def ended(client: TestClient, job: str) -> dict:
    until = time.monotonic() + 120
    while (told := client.get(f"/api/jobs/{job}").json())["state"] in ("waiting", "running"):
        assert time.monotonic() < until, told
        time.sleep(0.05)
    return told


def events(client: TestClient, job: str) -> list[tuple[str, dict]]:
    """The whole stream of a job's events."""
    answer = client.get(f"/api/jobs/{job}/events")
    assert answer.headers["content-type"].startswith("text/event-stream")
    found = []
    for block in answer.text.strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if fields:
            found.append((fields["event"], json.loads(fields["data"])))
    return found


def test_a_sync_takes_new_pictures_in_and_tells_how_it_goes(own, many):
    for path in list(many.iterdir())[:20]:
        shutil.copyfile(path, own.photos / f"new {path.name}")
    (own.photos / "broken.jpg").write_bytes(b"nothing")
    own.paths[0].unlink()
    with client_of(own.place) as client:
        assert client.get("/api/info").json()["pictures"] == len(own.paths)  # told anew once that has changed
        begun = client.post("/api/sync")
        assert begun.status_code == 202
        job = begun.json()["id"]
        assert begun.headers["location"] == f"/api/jobs/{job}"
        told = events(client, job)
        assert [name for name, _ in told] == ["progress"] * (len(told) - 1) + ["end"]
        last = told[-1][1]
        assert last == client.get(f"/api/jobs/{job}").json()
        assert last["state"] == "done"
        assert last["report"]["added"] == 20
        assert last["report"]["dropped"] == 1
        assert [one["name"] for one in last["report"]["skipped"]] == ["broken.jpg"]
        assert client.get("/api/pictures").json()["total"] == len(own.paths) - 1 + 20
        info = client.get("/api/info").json()
        assert (info["pictures"], info["skipped_total"]) == (len(own.paths) - 1 + 20, 1)
        assert str(own.photos) not in json.dumps(told)


def test_a_sync_that_is_stopped_keeps_what_it_did_and_the_next_goes_on(tmp_path, many, quick):
    photos = Path(shutil.copytree(many, tmp_path / "photos"))
    open_index(tmp_path / "photos.cooc", quick).close()
    with client_of(tmp_path / "photos.cooc") as client:
        problem(client.post("/api/sync"), 422, "request")  # no folder yet
        job = client.app.state.service.begin_sync(str(photos)).id
        while client.get(f"/api/jobs/{job}").json()["done"] < 5:
            time.sleep(0.02)
        assert client.delete(f"/api/jobs/{job}").status_code == 202
        assert ended(client, job)["state"] == "stopped"
        kept = client.get("/api/pictures").json()["total"]
        assert 5 <= kept < 60
        again = client.app.state.service.begin_sync(str(photos)).id
        report = ended(client, again)["report"]
        assert (report["added"], report["unchanged"]) == (60 - kept, kept)
        assert [one["id"] for one in client.get("/api/jobs").json()["jobs"]] == [again, job]


def test_one_sync_is_in_work_at_a_time_and_searches_go_on_beside_it(own, many):
    for path in many.iterdir():
        shutil.copyfile(path, own.photos / f"new {path.name}")
    with client_of(own.place, add_to=str(own.photos)) as client:
        job = client.post("/api/sync").json()["id"]
        refused = client.post("/api/sync")
        problem(refused, 409, "busy")
        assert int(refused.headers["retry-after"]) > 0
        assert client.get("/api/search", params={"picture": own.id(1)}).status_code == 200
        assert "coocnet_sync_running 1.0" in client.get("/metrics").text
        ended(client, job)
        assert "coocnet_sync_running 0.0" in client.get("/metrics").text


def test_what_another_process_writes_meanwhile_is_a_conflict_told(own):
    with client_of(own.place) as client, open_index(own.place) as index, index._store.sole_writer():
        problem(client.delete(f"/api/pictures/{own.id(0)}"), 409, "busy")
        told = ended(client, client.post("/api/sync").json()["id"])
        assert told["state"] == "failed"
        assert told["problem"]["status"] == 409


def test_a_folder_that_is_gone_fails_the_job_and_loses_nothing(own):
    own.photos.rename(own.photos.parent / "elsewhere")
    with client_of(own.place) as client:
        told = ended(client, client.post("/api/sync").json()["id"])
        assert told["state"] == "failed"
        assert "does not exist" in told["problem"]["detail"]
        assert str(own.photos.parent) not in json.dumps(told)
        assert client.get("/api/pictures").json()["total"] == len(own.paths)


@pytest.mark.parametrize("body", [{"folder": 7}, {"folder": -1}, {"folder": "x"}, {"unknown": 1}, []])
def test_a_sync_of_what_there_is_not_is_refused(own, body):
    with client_of(own.place) as client:
        problem(client.post("/api/sync", json=body), 422, "request")


def test_a_folder_that_is_gone_is_named_and_keeps_no_other_from_being_looked_through(own, tmp_path, many, quick):
    odd = Path(shutil.copytree(many, tmp_path / "b \"photos\" of 'old'"))
    with client_of(own.place) as client:
        shelved(odd, own.place, quick)  # by somebody else, after the service began
        shutil.rmtree(odd)
        (own.photos / "new.jpg").write_bytes(own.paths[0].read_bytes() + b" ")
        told = ended(client, client.post("/api/sync").json()["id"])
        assert told["state"] == "failed"
        assert told["problem"]["detail"].startswith(odd.name)
        assert str(tmp_path) not in json.dumps(told)
        assert told["report"]["added"] == 1


def test_an_empty_folder_loses_nothing_unless_it_is_allowed(own):
    for path in own.paths:
        path.unlink()
    with client_of(own.place) as client:
        told = ended(client, client.post("/api/sync").json()["id"])
        assert '"allow_empty": true' in told["problem"]["detail"]
        assert "--allow-empty" not in told["problem"]["detail"]
        assert client.get("/api/pictures").json()["total"] == len(own.paths)
        assert f"coocnet_pictures {len(own.paths)}.0" in client.get("/metrics").text
        told = ended(client, client.post("/api/sync", json={"allow_empty": True}).json()["id"])
        assert told["report"]["dropped"] == len(own.paths)
        assert "coocnet_pictures 0.0" in client.get("/metrics").text


def test_one_folder_of_several_is_brought_up_to_date_by_its_number(own, tmp_path, many, quick):
    shelved(many, own.place, quick)
    (own.photos / "new.jpg").write_bytes(own.paths[0].read_bytes() + b" ")
    with client_of(own.place) as client:
        folders = client.get("/api/info").json()["folders"]
        number = next(one["number"] for one in folders if one["name"] == "photos")
        report = ended(client, client.post("/api/sync", json={"folder": number}).json()["id"])["report"]
        assert report["added"] == 1
        assert report["unchanged"] == len(own.paths)


def test_a_job_that_there_is_not_is_said_to_be_none(own):
    with client_of(own.place) as client:
        for answer in (client.get("/api/jobs/9"), client.delete("/api/jobs/9"), client.get("/api/jobs/9/events")):
            problem(answer, 404, "unknown-job")


def test_a_service_that_ends_stops_its_sync_where_the_next_one_goes_on(tmp_path, many, quick):
    photos = Path(shutil.copytree(many, tmp_path / "photos"))
    open_index(tmp_path / "photos.cooc", quick).close()
    with client_of(tmp_path / "photos.cooc") as client:
        job = client.app.state.service.begin_sync(str(photos)).id
        while client.get(f"/api/jobs/{job}").json()["done"] < 5:
            time.sleep(0.02)
    with open_index(tmp_path / "photos.cooc", quick) as index:
        kept = index.info().pictures
        report = index.sync(photos)
    assert 5 <= kept < 60
    assert report.added == 60 - kept
