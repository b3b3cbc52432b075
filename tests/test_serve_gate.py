"""What is refused at the door, what every answer carries, and how much is taken in at once."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import anyio
import httpx
import pytest

from asking import URL, Shelf, client_of, png, problem
from coocnet.errors import InputError
from coocnet.serve import Settings, is_loopback, make_app
from coocnet.serve.gate import Gate, Session
from coocnet.serve.metrics import Metrics

TOKEN = "correct horse battery staple"


@pytest.fixture(scope="module")
def guarded(shelf: Shelf):
    with client_of(shelf.place, token=TOKEN) as client:
        yield client


@pytest.mark.parametrize("path", ["/", "/static/base.css", "/api/info", "/api/nothing", "/health/live", "/metrics"])
def test_every_answer_forbids_what_the_page_does_not_need(client, path):
    headers = client.get(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["referrer-policy"] == "no-referrer"


def test_what_a_collection_holds_is_kept_in_no_cache_between(client):
    assert client.get("/api/info").headers["cache-control"] == "no-store"


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "", "192.168.0.7"])
def test_a_name_that_is_not_ours_is_refused(client, host):
    problem(client.get("/api/info", headers={"Host": host}), 421, "host")


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost", "LOCALHOST:1", "[::1]:8000"])
def test_the_loopback_interface_has_these_names(client, host):
    assert client.get("/api/info", headers={"Host": host}).status_code == 200


def test_a_name_that_was_given_is_answered_to(shelf):
    with client_of(shelf.place, hosts=("photos.example",)) as client:
        assert client.get("/api/info", headers={"Host": "photos.example"}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:9"},
    ],
)
def test_pages_of_other_sites_neither_read_nor_write(client, shelf, headers):
    for answer in (
        client.delete(f"/api/pictures/{shelf.id(0)}", headers=headers),
        client.post("/api/sync", headers=headers),
        client.post("/api/uploads", content=png(9, 9), headers=headers),
        client.get("/api/info", headers=headers),
    ):
        problem(answer, 403, "cross-site")
    assert client.get("/api/jobs").json() == {"jobs": []}


def test_a_link_from_another_site_leads_to_the_page(client):
    assert client.get("/", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 200


@pytest.mark.parametrize(
    "headers", [{}, {"Sec-Fetch-Site": "same-origin", "Origin": URL}, {"Sec-Fetch-Site": "none"}]
)
def test_the_page_itself_and_programs_are_answered(client, headers):
    assert client.post("/api/uploads", content=png(9, 9), headers=headers).status_code == 201


def test_without_the_token_nothing_of_the_collection_is_told(guarded, shelf):
    paths = ("/api/info", "/api/pictures", f"/api/pictures/{shelf.id(0)}/original", "/api/openapi.json", "/metrics")
    for path in paths:
        answer = guarded.get(path)
        problem(answer, 401, "token")
        assert answer.headers["www-authenticate"].startswith("Bearer")
    for path in ("/", "/health/live", "/health/ready"):
        assert guarded.get(path).status_code == 200


@pytest.mark.parametrize("shown", ["Bearer wrong", "Bearer", "Basic dTpw", f"Bearer {TOKEN}x", "Bearer é"])
def test_a_wrong_token_is_none(guarded, shown):
    answer = guarded.get("/api/info", headers=[(b"Authorization", shown.encode("latin-1"))])
    problem(answer, 401, "token")


def test_the_token_opens(guarded):
    assert guarded.get("/api/info", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200


@pytest.mark.slow
def test_a_session_is_a_cookie_that_scripts_and_other_sites_do_not_get(shelf):
    with client_of(shelf.place, token=TOKEN) as client:
        problem(client.post("/api/session", json={"token": "wrong" * 5}), 401, "token")
        begun = client.post("/api/session", json={"token": TOKEN})
        assert begun.status_code == 204
        cookie = begun.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        assert TOKEN not in begun.headers["set-cookie"]
        assert client.get("/api/info").status_code == 200
        client.delete("/api/session")
        problem(client.get("/api/info"), 401, "token")


def test_an_odd_cookie_of_another_program_does_not_hide_ours(guarded):
    mine = Session(TOKEN)
    cookie = f'odd=[1,2; "x=y; {mine.cookie_name}={mine.cookie}; last'
    assert guarded.get("/api/info", headers={"Cookie": cookie}).status_code == 200


def test_a_cookie_of_another_token_is_none(shelf):
    other = Session("another token of some length")
    with client_of(shelf.place, token=TOKEN) as client:
        mine = Session(TOKEN)
        for cookie in (f"{mine.cookie_name}={other.cookie}", f"{other.cookie_name}={other.cookie}", "=;=;,"):
            problem(client.get("/api/info", headers={"Cookie": cookie}), 401, "token")


def test_a_token_that_is_easily_guessed_is_refused():
    with pytest.raises(InputError, match="16"):
        Settings("photos.cooc", token="secret")


@pytest.mark.parametrize(
    ("host", "alone"),
    [
        ("127.0.0.1", True),
        ("localhost", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("photos.lan", False),
    ],
)
def test_only_the_loopback_interface_needs_no_token(host, alone):
    assert is_loopback(host) is alone


def test_a_body_that_is_too_large_is_refused_before_it_is_read(shelf):
    with client_of(shelf.place, upload_bytes=1000, json_bytes=100) as client:
        for content in (b"x" * 1001, iter([b"x" * 600, b"x" * 600])):
            problem(client.post("/api/uploads", content=content), 413, "too-large")
        for content in (b"[" * 101, iter([b"[" * 60, b"[" * 60])):
            answer = client.post("/api/search", content=content, headers={"Content-Type": "application/json"})
            problem(answer, 413, "too-large")
        assert client.post("/api/uploads", content=png(9, 9)).status_code == 201


def test_a_million_names_that_are_not_known_are_one_error(client):
    body = {f"name {number}": 0 for number in range(20_000)}
    detail = problem(client.post("/api/search", json={**body, "descriptor": [1.0]}), 422, "request")
    assert "'name 0'" in detail
    assert len(detail) < 1000
    assert "descriptor.0" in problem(client.post("/api/search", json={"descriptor": ["x"] * 9999}), 422, "request")


def test_who_has_shown_no_token_may_send_little(guarded):
    problem(guarded.post("/api/session", json={"token": "x" * 20_000}), 413, "too-large")


def test_strangers_take_no_place_from_those_who_showed_the_token():
    async def run() -> tuple[list[int], httpx.Response]:
        release = anyio.Event()
        transport = gate(await _app_that_waits(release), at_once=3, per_client=3, token=TOKEN)
        async with httpx.AsyncClient(transport=transport, base_url=URL) as client:
            strangers = [asyncio.create_task(client.post("/api/session", content=b"x")) for _ in range(30)]
            await asyncio.sleep(0.05)
            known = asyncio.create_task(client.get("/api/x", headers={"Authorization": f"Bearer {TOKEN}"}))
            await asyncio.sleep(0.05)
            release.set()
            return [answer.status_code for answer in await asyncio.gather(*strangers)], await known

    strangers, known = asyncio.run(run())
    assert known.status_code == 200
    assert strangers.count(503) == 22


def test_a_picture_of_too_many_pixels_is_refused_by_its_header(shelf):
    with client_of(shelf.place, upload_px=10_000) as client:
        for path in ("/api/uploads", "/api/search/image"):
            assert "megapixels" in problem(client.post(path, content=png(101, 100)), 422, "picture")
        assert client.post("/api/uploads", content=png(100, 100)).status_code == 201


@pytest.mark.parametrize("content", [b"", b"<html>", b"\xff\xd8\xff", png(50, 50)[:200]])
def test_what_is_no_picture_is_told_so(client, content):
    answer = client.post("/api/search/image", content=content)
    problem(answer, 422, "picture")


def test_an_unknown_place_and_a_wrong_method_are_problems_too(client):
    problem(client.get("/api/nothing"), 404, "unknown")
    answer = client.put("/api/info")
    problem(answer, 405, "method")
    assert answer.headers["allow"] == "GET"


async def _app_that_waits(release: anyio.Event):
    async def app(scope, receive, send):
        await receive()
        await release.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})

    return app


def gate(app, **settings) -> httpx.ASGITransport:
    chosen = Settings("photos.cooc", **settings)
    return httpx.ASGITransport(Gate(app, chosen, Session(chosen.token), Metrics()))


def test_one_request_more_than_there_are_places_is_refused_and_the_others_are_answered():
    refused, *answered = asyncio.run(_released(3, 3))
    assert "again" in problem(refused, 503, "overloaded")
    assert refused.headers["retry-after"] == "1"
    assert [answer.status_code for answer in answered] == [200, 200, 200, 200]


async def _released(at_once: int, per_client: int) -> list[httpx.Response]:
    """The answer to a request when ``per_client`` others wait, the answers to those, and that to one after them."""
    release = anyio.Event()
    transport = gate(await _app_that_waits(release), at_once=at_once, per_client=per_client)
    async with httpx.AsyncClient(transport=transport, base_url=URL) as client:
        waiting = [asyncio.create_task(client.get("/api/x")) for _ in range(per_client)]
        await asyncio.sleep(0.05)
        refused = await client.get("/api/x")
        release.set()
        return [refused, *await asyncio.gather(*waiting), await client.get("/api/x")]


def test_one_client_has_no_more_than_its_share():
    refused, *answered = asyncio.run(_released(5, 2))
    assert "2 requests of yours" in problem(refused, 429, "too-many")
    assert [answer.status_code for answer in answered] == [200, 200, 200]


def test_one_client_follows_no_more_than_its_share_of_events():
    async def run() -> tuple[httpx.Response, httpx.Response]:
        release = anyio.Event()
        transport = gate(await _app_that_waits(release), streams=8)
        async with httpx.AsyncClient(transport=transport, base_url=URL) as client:
            open_ones = [asyncio.create_task(client.get("/api/jobs/1/events")) for _ in range(2)]
            await asyncio.sleep(0.05)
            refused = await client.get("/api/jobs/1/events")
            release.set()
            await asyncio.gather(*open_ones)
            return refused, await client.get("/api/jobs/1/events")

    refused, later = asyncio.run(run())
    problem(refused, 503, "overloaded")
    assert later.status_code == 200


def test_a_mistake_of_ours_is_a_problem_too_and_goes_to_the_log(caplog):
    async def app(scope, receive, send):
        raise KeyError("/secret/place")

    async def run() -> httpx.Response:
        async with httpx.AsyncClient(transport=gate(app), base_url=URL) as client:
            return await client.get("/api/x")

    answer = asyncio.run(run())
    assert "secret" not in problem(answer, 500, "internal")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "KeyError" in caplog.text


def test_an_answer_that_is_not_ready_in_time_is_given_up():
    async def run() -> httpx.Response:
        transport = gate(await _app_that_waits(anyio.Event()), answer_time_s=0.05)
        async with httpx.AsyncClient(transport=transport, base_url=URL) as client:
            return await client.get("/api/x")

    assert "0.05" in problem(asyncio.run(run()), 503, "slow")


def test_a_body_that_does_not_arrive_in_time_is_given_up():
    async def slowly():
        yield b"x"
        await asyncio.sleep(5)
        yield b"x"

    async def run() -> httpx.Response:
        async def app(scope, receive, send):
            while (await receive()).get("more_body"):
                pass

        transport = gate(app, transfer_time_s=0.05)
        async with httpx.AsyncClient(transport=transport, base_url=URL) as client:
            return await client.post("/api/uploads", content=slowly())

    problem(asyncio.run(run()), 408, "slow")


def test_a_body_that_arrives_in_drops_is_given_up_at_last():
    async def in_drops():
        while True:
            yield b"x"
            await asyncio.sleep(0.02)

    async def run() -> httpx.Response:
        async def app(scope, receive, send):
            while (await receive()).get("more_body"):
                pass

        transport = gate(app, transfer_time_s=5, body_time_s=0.2)
        async with httpx.AsyncClient(transport=transport, base_url=URL) as client:
            return await client.post("/api/uploads", content=in_drops())

    problem(asyncio.run(run()), 408, "slow")


def test_metrics_count_what_was_answered_and_refused(shelf):
    with client_of(shelf.place) as client:
        client.get("/api/info")
        client.get("/api/nothing")
        client.get("/api/info", headers={"Host": "evil.example"})
        client.get("/api/search", params={"picture": shelf.id(0)})
        told = client.get("/metrics").text
    assert 'coocnet_requests_total{method="GET",route="/api/info",status="200"} 1.0' in told
    assert 'coocnet_requests_total{method="GET",route="other",status="404"} 1.0' in told
    assert 'coocnet_refused_total{reason="host"} 1.0' in told
    assert f"coocnet_pictures {len(shelf.paths)}.0" in told
    assert "coocnet_queries_per_pass_count 1.0" in told


def test_a_service_whose_network_cannot_be_had_says_so_and_searches_what_it_knows(shelf, tmp_path, quick):
    own = shelf.copy_to(tmp_path, quick)
    moved = quick.replace(weights=str(tmp_path / "missing.safetensors"))
    with client_of(own.place, ready=False, recipe=moved) as client:
        until = time.monotonic() + 30
        while (health := client.get("/health/ready")).json()["status"] == "starting":
            assert time.monotonic() < until
        assert health.status_code == 503
        assert health.json()["status"] == "failed"
        assert str(tmp_path) not in health.text
        assert client.get("/api/search", params={"picture": own.id(0)}).json()["hits"]
        answer = client.post("/api/search/image", content=png(40, 40))
        assert str(tmp_path) not in problem(answer, 503, "network")


def test_a_service_makes_no_index_even_where_it_is_given_a_recipe(tmp_path: Path, quick):
    from coocnet.errors import IndexMissingError

    with pytest.raises(IndexMissingError):
        make_app(Settings(str(tmp_path / "none.cooc"), recipe=quick))
    assert not (tmp_path / "none.cooc").exists()


def test_making_a_service_of_no_index_is_refused(tmp_path: Path):
    from coocnet.errors import IndexMissingError

    with pytest.raises(IndexMissingError):
        make_app(Settings(str(tmp_path / "none.cooc")))


@pytest.mark.parametrize("wanted", ["bytes=0-9", "bytes=9-0", "letters", "bytes=-", "bytes=0-1,5-6"])
def test_files_are_given_whole_whatever_part_is_asked_for(client, wanted):
    whole = client.get("/")
    answer = client.get("/", headers={"Range": wanted})
    assert (answer.status_code, answer.content) == (200, whole.content)
