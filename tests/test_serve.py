"""Searching over HTTP: what is found is what the library finds."""

from __future__ import annotations

import inspect
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

from asking import client_of, id_of, problem, shelved
from coocnet.describe import Describer
from coocnet.explain import explain
from coocnet.index import Hit, open_index
from coocnet.ranking import RERANKINGS, Reciprocal
from coocnet.serve.routes import ROUTERS


@pytest.fixture(scope="module")
def query(scenes) -> Path:
    return sorted((scenes[0] / "queries").glob("*.jpg"))[0]


def upload(client: TestClient, path: Path) -> str:
    answer = client.post("/api/uploads", content=path.read_bytes())
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


def agree(told: list[dict], hits: list[Hit]) -> bool:
    """Whether hits over HTTP are those of the library, in their order."""
    same = [hit["id"] for hit in told] == [hit.digest.hex() for hit in hits]
    return same and np.allclose(
        [hit["similarity"] for hit in told], [hit.similarity for hit in hits], rtol=0, atol=2e-5
    )


def test_a_picture_that_was_sent_finds_what_the_library_finds(client, shelf, query, quick):
    with shelf.open() as index:
        hits = index.search(Describer(quick).describe([query]), k=8)[0]
    answer = client.get("/api/search", params={"upload": upload(client, query), "limit": 8}).json()
    assert agree(answer["hits"], hits)
    assert [hit["rank"] for hit in answer["hits"]] == list(range(1, 9))
    assert answer["more"] is True
    assert answer["threshold"] is None


def test_sending_and_searching_in_one_request_finds_the_same(client, query):
    params = {"limit": 8}
    at_once = client.post("/api/search/image", params=params, content=query.read_bytes()).json()
    assert at_once == client.get("/api/search", params={"upload": upload(client, query), **params}).json()


def test_a_part_of_a_picture_finds_what_the_library_finds_for_it(client, shelf, query, quick):
    box = (20.0, 30.0, 120.0, 110.0)
    with shelf.open() as index:
        hits = index.search(Describer(quick).describe([query], boxes=[box]), k=5)[0]
    params = {"upload": upload(client, query), "box": "20,30,120,110", "limit": 5}
    answer = client.get("/api/search", params=params).json()
    assert agree(answer["hits"], hits)
    assert not any(hit["identical"] for hit in answer["hits"])


def test_a_picture_of_the_collection_finds_itself_first(client, shelf):
    hits = client.get("/api/search", params={"picture": shelf.id(3)}).json()["hits"]
    assert hits[0]["id"] == shelf.id(3)
    assert [hit["identical"] for hit in hits] == [True] + [False] * (len(hits) - 1)


def test_a_descriptor_finds_what_its_picture_finds(client, query):
    by_upload = {"upload": upload(client, query)}
    row = client.get("/api/descriptor", params=by_upload).json()["row"]
    assert np.linalg.norm(row) == pytest.approx(1, abs=1e-5)
    answer = client.post("/api/search", json={"descriptor": row, "limit": 6}).json()
    ids = [hit["id"] for hit in answer["hits"]]
    assert ids == [hit["id"] for hit in client.get("/api/search", params={**by_upload, "limit": 6}).json()["hits"]]


def test_pages_of_a_ranking_are_the_ranking(client, shelf, query):
    params = {"upload": upload(client, query)}
    whole = client.get("/api/search", params={**params, "limit": 100}).json()
    pages, offset = [], 0
    while True:
        page = client.get("/api/search", params={**params, "limit": 5, "offset": offset}).json()
        pages += page["hits"]
        offset += 5
        if not page["more"]:
            break
    assert pages == whole["hits"]
    assert len(pages) == len(shelf.paths)
    assert whole["more"] is False


def test_hits_below_the_threshold_are_left_out_and_the_nearest_is_told(client, query):
    params = {"upload": upload(client, query), "limit": 100}
    everything = client.get("/api/search", params=params).json()["hits"]
    middle = everything[6]["similarity"]
    some = client.get("/api/search", params={**params, "threshold": middle - 1e-6}).json()
    assert some["hits"] == everything[:7]
    none = client.get("/api/search", params={**params, "threshold": 0.99999}).json()
    assert none["hits"] == []
    assert none["threshold"] == 0.99999
    assert none["nearest"] == pytest.approx(everything[0]["similarity"], abs=1e-5)


def test_pictures_marked_as_right_move_the_query(client, shelf, query, quick):
    right = [shelf.id(5), shelf.id(9)]
    with shelf.open() as index:
        rows = Describer(quick).describe([query])
        hits = index.search(rows, k=8, relevant=[[bytes.fromhex(one) for one in right]])[0]
        plain = index.search(rows, k=8)[0]
    params = {"upload": upload(client, query), "limit": 8, "relevant": ",".join(right)}
    answer = client.get("/api/search", params=params).json()
    assert agree(answer["hits"], hits)
    assert [hit.digest for hit in hits] != [hit.digest for hit in plain]


def test_the_nearest_is_that_of_the_plain_query_on_every_page(client, query):
    params = {"upload": upload(client, query)}
    first = client.get("/api/search", params=params).json()["hits"][0]["similarity"]
    for options in ({}, {"offset": 5, "limit": 2}, {"reranking": "reciprocal", "limit": 2}, {"expansion": "aqe"}):
        assert client.get("/api/search", params={**params, **options}).json()["nearest"] == first


@pytest.mark.parametrize("options", [{"expansion": "aqe"}, {"reranking": "reciprocal"}])
def test_expansion_and_reranking_are_the_librarys(client, shelf, query, quick, options):
    with shelf.open() as index:
        hits = index.search(Describer(quick).describe([query]), k=8, **options)[0]
    answer = client.get("/api/search", params={"upload": upload(client, query), "limit": 8, **options}).json()
    assert agree(answer["hits"], hits)


def test_copies_of_a_picture_are_one_hit(tmp_path, shelf, quick):
    own = shelf.copy_to(tmp_path, quick)
    for number in range(30):
        (own.photos / f"copy {number}.jpg").write_bytes(own.paths[0].read_bytes())
    own = shelved(own.photos, own.place, quick)
    with client_of(own.place) as client:
        hits = client.get("/api/search", params={"picture": shelf.id(0), "limit": 3}).json()["hits"]
        assert [hit["names_total"] for hit in hits] == [31, 1, 1]
        assert len({hit["id"] for hit in hits}) == 3


def test_an_explanation_is_that_of_the_library(client, shelf, query, quick):
    describer = Describer(quick)
    with shelf.open() as index:
        centre = index.mean_row()
    maps = [describer.maps_of(describer.load(path).pixels) for path in (query, shelf.paths[2])]
    wanted = explain(*maps, quick, centre=centre)
    params = {"upload": upload(client, query), "result": shelf.id(2)}
    told = client.get("/api/explanation", params=params).json()
    assert told["similarity"] == pytest.approx(wanted.similarity)
    assert told["constant"] == pytest.approx(wanted.constant)
    for side in ("query", "result"):
        grid = np.array(told[side]["values"]).reshape(told[side]["rows"], told[side]["columns"])
        np.testing.assert_allclose(grid, getattr(wanted, side), atol=1e-9)
        assert grid.sum() == pytest.approx(told["similarity"] - told["constant"])
    assert [tuple(match["query"]) for match in told["matches"]] == [match.query_cell for match in wanted.matches]


def test_an_explanation_of_a_part_says_where_the_part_lies(client, shelf, query):
    params = {"upload": upload(client, query), "box": "-10,30.4,120,9999", "result": shelf.id(2)}
    told = client.get("/api/explanation", params=params).json()
    assert told["query"]["box"] == [0, 30, 120, told["query"]["height"]]
    assert told["result"]["box"] == [0, 0, told["result"]["width"], told["result"]["height"]]


def test_heat_maps_are_sums_over_channels(client, query, quick):
    from coocnet.poolings import direct_cooccurrence

    describer = Describer(quick)
    a = describer.map_of(describer.load(query).pixels)
    params = {"upload": upload(client, query)}
    for kind, tensor in (("activation", a), ("cooccurrence", direct_cooccurrence(a, quick))):
        told = client.get("/api/heatmap", params={**params, "kind": kind}).json()
        np.testing.assert_allclose(told["values"], tensor[0].sum(0).flatten().numpy(), rtol=1e-5)
    drawn = client.get("/api/heatmap", params={**params, "format": "png"})
    assert drawn.headers["content-type"] == "image/png"
    assert drawn.content.startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({}, "picture=ID or upload=ID"),
        ({"picture": "0" * 32, "upload": "0" * 32}, "picture=ID or upload=ID"),
        ({"picture": "zz"}, "got 'zz'"),
        ({"picture": "z" * 5000}, "zzz…'"),
        ({"picture": "KNOWN", "box": "1,2,3"}, "1,2,3"),
        ({"picture": "KNOWN", "box": "9,2,3,4"}, "9,2,3,4"),
        ({"picture": "KNOWN", "box": "1,2,nan,4"}, "nan"),
        ({"picture": "KNOWN", "box": "9000,9000,9001,9001"}, "leaves nothing"),
        ({"picture": "KNOWN", "threshold": "high"}, "high"),
        ({"picture": "KNOWN", "expansion": "magic"}, "magic"),
        ({"picture": "KNOWN", "reranking": "magic"}, "magic"),
        ({"picture": "KNOWN", "limit": 0}, "limit: Input should be greater than or equal to 1, got '0'"),
        ({"picture": "KNOWN", "offset": 1990, "limit": 20}, "2000"),
    ],
)
def test_what_cannot_be_searched_for_is_refused_and_quoted(client, shelf, params, says):
    if params.get("picture") == "KNOWN":
        params = {**params, "picture": shelf.id(0)}
    answer = client.get("/api/search", params=params)
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert says in answer.json()["detail"]


def test_a_re_ranking_that_is_being_made_ready_keeps_no_other_search_waiting(shelf, monkeypatch: pytest.MonkeyPatch):
    begun, release = threading.Event(), threading.Event()

    def slow(rows: np.ndarray) -> Reciprocal:
        begun.set()
        assert release.wait(30)
        return Reciprocal.build(rows)

    monkeypatch.setitem(RERANKINGS, "reciprocal", slow)
    params = {"picture": shelf.id(0), "limit": 5}
    with client_of(shelf.place) as client, ThreadPoolExecutor() as asking:
        waiting = asking.submit(client.get, "/api/search", params={**params, "reranking": "reciprocal"})
        try:
            assert begun.wait(30)
            assert len(client.get("/api/search", params=params).json()["hits"]) == 5
            assert not waiting.done()
        finally:
            release.set()
        assert len(waiting.result().json()["hits"]) == 5


@pytest.mark.parametrize("body", [{"token": "secret" * 200}, "secret", ["secret"]])
def test_a_token_that_is_amiss_is_not_repeated(client, body):
    answer = client.post("/api/session", json=body)
    assert answer.status_code == 422
    assert "secret'" not in answer.text


def test_pictures_given_as_relevant_that_are_gone_are_left_out_and_named(client, shelf):
    params = {"picture": shelf.id(0), "limit": 5}
    right, gone = shelf.id(4), "f" * 32
    answer = client.get("/api/search", params={**params, "relevant": f"{gone},{right}"}).json()
    assert answer["gone"] == [gone]
    assert answer["hits"] == client.get("/api/search", params={**params, "relevant": right}).json()["hits"]
    alone = client.get("/api/search", params={**params, "relevant": gone}).json()
    assert alone["hits"] == client.get("/api/search", params=params).json()["hits"]


def test_an_id_that_is_unknown_is_said_to_be(client):
    problem(client.get("/api/search", params={"picture": "0" * 32}), 404, "unknown-picture")
    assert "again" in problem(client.get("/api/search", params={"upload": "0" * 32}), 404, "unknown-upload")


@pytest.mark.parametrize("row", [[0.5], [3.0] * 512, [0.0, "x"], []])
def test_a_descriptor_of_another_kind_is_refused(client, row):
    problem(client.post("/api/search", json={"descriptor": row}), 422, "request")


def test_numbers_that_are_none_are_refused_in_json(client):
    body = json.dumps({"descriptor": [float("nan")] * 512})
    answer = client.post("/api/search", content=body, headers={"Content-Type": "application/json"})
    problem(answer, 422, "request")


def test_what_was_sent_is_kept_only_as_long_as_there_is_room(shelf, scenes):
    files = sorted((scenes[0] / "queries").glob("*.jpg"))
    room = sum(path.stat().st_size for path in files[:2])
    with client_of(shelf.place, kept_upload_bytes=room) as client:
        first, *_ = [upload(client, path) for path in files[:3]]
        problem(client.get(f"/api/uploads/{first}/image"), 404, "unknown-upload")
        assert client.get(f"/api/uploads/{id_of(files[2])}/image").headers["content-type"] == "image/jpeg"


def test_changes_of_the_index_are_seen_at_once(tmp_path, shelf, quick, query):
    own = shelf.copy_to(tmp_path, quick)
    with client_of(own.place) as client:
        params = {"upload": upload(client, query)}
        before = client.get("/api/search", params=params).json()["hits"]
        (own.photos / "new.jpg").write_bytes(query.read_bytes())
        with open_index(own.place, quick) as index:
            index.sync(own.photos, describer=Describer(quick))
        after = client.get("/api/search", params=params).json()["hits"]
    assert after[0]["name"] == "new.jpg"
    assert after[0]["identical"]
    assert len(after) == len(before) + 1


@pytest.mark.slow
def test_an_empty_index_finds_nothing_and_says_so(tmp_path, quick, query):
    open_index(tmp_path / "empty.cooc", quick).close()
    with client_of(tmp_path / "empty.cooc") as client:
        answer = client.post("/api/search/image", content=query.read_bytes()).json()
        nothing = {"hits": [], "more": False, "threshold": None, "nearest": None, "approximate": False, "gone": []}
        assert answer == nothing
        assert client.get("/api/info").json()["pictures"] == 0
        assert client.get("/api/pictures").json() == {"total": 0, "pictures": []}


def test_nothing_that_requests_need_beforehand_takes_a_thread_of_its_own():
    """FastAPI runs what is not async in threads, which with many clients took most of the time."""

    def needed(dependant) -> Iterator[Callable]:
        for one in dependant.dependencies:
            yield one.call
            yield from needed(one)

    calls = [call for router in ROUTERS for route in router.routes for call in needed(route.dependant)]
    assert calls
    assert not [call for call in calls if not inspect.iscoroutinefunction(call)]
