"""The command ``coocnet serve``, as a process: where it listens, how it ends, and what it refuses to begin."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

import httpx
import numpy as np
import pytest
from PIL import Image

from asking import Shelf, id_of, problem, shelved
from coocnet.data.scenes import make_scenes
from coocnet.index import open_index
from coocnet.serve import Settings

pytestmark = pytest.mark.slow
# The first answers of a service wait for what it gets ready.
get, head, post = (partial(ask, timeout=60) for ask in (httpx.get, httpx.head, httpx.post))


def certified(folder: Path) -> tuple[Path, Path]:
    """A certificate for this machine and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate with")
    certificate, key = folder / "c.pem", folder / "k.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    kind = ["-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"]
    command = ["openssl", "req", *kind, *subject, "-keyout", key, "-out", certificate]
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key


def once(url: str, holds: Callable[[httpx.Response], bool]) -> None:
    """Waits until an answer is as it should be; asks with one client, whose making takes more than the answers."""
    until = time.monotonic() + 120
    with httpx.Client(timeout=60) as client:
        while not holds(client.get(url)):
            assert time.monotonic() < until
            time.sleep(0.05)


def listens(address: SplitResult) -> bool:
    with suppress(ConnectionResetError):
        try:
            socket.create_connection((address.hostname, address.port), timeout=5).close()
        except ConnectionRefusedError:
            return False
    return True


def ready(url: str) -> None:
    once(f"{url}health/ready", lambda answer: answer.status_code == 200)


def test_a_folder_is_indexed_while_it_is_served(serves, tmp_path, scenes):
    photos = Path(shutil.copytree(scenes[0] / "database", tmp_path / "photos"))
    running = serves(tmp_path / "new.cooc", photos)
    once(f"{running.url}api/pictures", lambda answer: answer.json()["total"] == len(list(photos.glob("*.jpg"))))
    assert running.name == "new"
    with httpx.stream("GET", f"{running.url}api/jobs/1/events") as answer:
        assert answer.status_code == 200


def test_what_is_being_answered_is_finished_before_the_end(serves, shelf, scenes):
    running = serves(shelf.place)
    ready(running.url)
    content = sorted((scenes[0] / "queries").glob("*.jpg"))[0].read_bytes()
    address = urlsplit(running.url)
    with socket.create_connection((address.hostname, address.port), timeout=30) as connection:
        asks = f"POST /api/search/image HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Length: {len(content)}\r\n\r\n"
        connection.sendall(asks.encode() + content[:100])
        once(f"{running.url}metrics", lambda answer: "coocnet_requests_in_work 1.0" in answer.text)
        running.process.send_signal(signal.SIGTERM)
        until = time.monotonic() + Settings("").closing_time_s - 5
        while listens(address):
            assert time.monotonic() < until
            time.sleep(0.05)
        connection.sendall(content[100:])
        answer = b""
        while piece := connection.recv(1 << 16):
            answer += piece
    assert answer.startswith(b"HTTP/1.1 200")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["hits"]


def test_open_event_streams_do_not_keep_it_from_ending(serves, tmp_path):
    make_scenes(tmp_path, instances=30, views=3, size_px=300)
    running = serves(tmp_path / "photos.cooc", tmp_path / "database")
    seen, begun = [], threading.Event()

    def follow() -> None:
        with httpx.stream("GET", f"{running.url}api/jobs/1/events", timeout=60) as answer:
            for line in answer.iter_lines():
                seen.append(line)
                begun.set()

    follower = threading.Thread(target=follow)
    follower.start()
    assert begun.wait(60)
    once(f"{running.url}api/jobs/1", lambda answer: bool(answer.json()["done"]))
    assert "event: end" not in seen
    started = time.monotonic()
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(60) == 0
    assert time.monotonic() - started < Settings("").closing_time_s
    follower.join()
    assert "event: end" not in seen  # it goes on another time


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds the process of the sync in /proc")
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_all_its_processes_stops_a_sync_where_the_next_one_goes_on(serves, tmp_path, sent):
    make_scenes(tmp_path, instances=30, views=3, size_px=300)
    running = serves(tmp_path / "photos.cooc", tmp_path / "database")
    once(f"{running.url}api/jobs/1", lambda answer: bool(answer.json()["done"]))
    syncing: set[int] = set()
    for thread in Path(f"/proc/{running.process.pid}/task").iterdir():
        with suppress(OSError):  # it ended meanwhile
            syncing |= {int(pid) for pid in (thread / "children").read_text().split()}
    assert len(syncing) == 1
    for pid in (*syncing, running.process.pid):  # as a terminal does, or what runs services
        os.kill(pid, sent)
    assert running.process.wait(60) == 0
    assert "its process ended" not in running.log.read_text()
    with open_index(tmp_path / "photos.cooc") as index:
        assert 0 < index.pictures < 90


def test_connections_that_say_nothing_are_closed(shelf):
    code = (
        "import sys; from coocnet.serve import Settings, serve\n"
        f"serve(Settings({str(shelf.place)!r}, transfer_time_s=0.3), port=0,"
        " ready=lambda name, url, token: print(url, flush=True))"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        address = urlsplit(process.stdout.readline().strip())
        try:
            whole = f"GET /health/live HTTP/1.1\r\nHost: {address.netloc}\r\n\r\n".encode()
            for said in (b"", whole[:20], whole + whole[:20]):
                with socket.create_connection((address.hostname, address.port), timeout=10) as connection:
                    connection.sendall(said)
                    while connection.recv(1000):
                        pass
        finally:
            process.send_signal(signal.SIGTERM)
    assert process.returncode == 0


@contextmanager
def held_to(shelf: Shelf, files: int, settings: str = "", options: str = "", before: str = "") -> Iterator[str]:
    """The service in a process that may have so many files open; gives its address."""
    resource = pytest.importorskip("resource")
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < files:
        pytest.skip("this machine allows fewer open files")
    code = (
        f"import resource, time\nresource.setrlimit(resource.RLIMIT_NOFILE, ({files}, {files}))\n"
        f"from coocnet.index import LocalIndex\nfrom coocnet.serve import Settings, serve\n{before}\n"
        f"serve(Settings({str(shelf.place)!r}, {settings}), port=0, {options}"
        " ready=lambda name, url, token: print(url, flush=True))"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process.stdout.readline().strip()
        finally:
            process.send_signal(signal.SIGTERM)
    assert process.returncode == 0


@pytest.mark.parametrize("kind", ["plain", "TLS"])
def test_idle_connections_make_room_for_those_that_ask(shelf, tmp_path, kind):
    options = ""
    if kind == "TLS":
        certificate, key = certified(tmp_path)
        options = f"certificate={str(certificate)!r}, key={str(key)!r},"
    with ExitStack() as held, held_to(shelf, 400, options=options) as url:  # half of them for connections
        address = urlsplit(url)
        with httpx.Client(base_url=url, verify=False, timeout=60) as kept:
            assert kept.get("/api/info").status_code == 200
            idle = [
                held.enter_context(socket.create_connection((address.hostname, address.port), timeout=10))
                for _ in range(450)
            ]
            for connection in idle[:200]:
                with suppress(ConnectionResetError):
                    assert not connection.recv(1)
            for path in ("/", "/static/app.js", "/api/info", f"/api/pictures/{shelf.id(0)}/original"):
                assert kept.get(path).status_code == 200
            assert get(f"{url}health/live", verify=False).status_code == 200


def test_what_has_no_answer_when_the_time_to_end_is_over_is_told_so(shelf):
    before = (
        "search = LocalIndex.search\n"
        "def slow(*asked, reranking='none', **options):\n"
        "    time.sleep(120 if reranking != 'none' else 0)\n"
        "    return search(*asked, **options)\n"
        "LocalIndex.search = slow"
    )
    answers = []
    with held_to(shelf, 400, "closing_time_s=1", before=before) as url:
        ready(url)
        address = f"{url}api/search?picture={shelf.id(0)}&reranking=reciprocal"
        asking = threading.Thread(target=lambda: answers.append(get(address)))
        asking.start()
        once(f"{url}metrics", lambda answer: "coocnet_requests_in_work 1.0" in answer.text)
        ended = time.monotonic()
    assert time.monotonic() - ended < 60
    asking.join()
    assert "ends" in problem(answers[0], 503, "overloaded")
    assert answers[0].headers["retry-after"]


def test_what_is_no_request_is_answered_by_a_problem_document(serves, shelf):
    address = urlsplit(serves(shelf.place).url)
    with socket.create_connection((address.hostname, address.port), timeout=10) as connection:
        connection.sendall(b"what is this\r\n\r\n")
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert answer.status == 400
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert answer.headers["Content-Security-Policy"]
        assert json.loads(answer.read())["type"] == "urn:coocnet:problem:request"
    with socket.create_connection((address.hostname, address.port), timeout=10) as connection:
        connection.sendall(b"POST /nothing HTTP/1.1\r\nHost: elsewhere\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 421")
        connection.sendall(b"ZZZ\r\n\r\n")
        while connection.recv(1000):
            pass


def test_the_head_of_an_answer_can_be_asked_for_alone(serves, shelf):
    url = serves(shelf.place).url
    for path in (
        "",
        "static/app.js",
        f"api/pictures/{shelf.id(0)}/original",
        f"api/pictures/{shelf.id(0)}/thumbnail",
    ):
        whole, alone = get(url + path), head(url + path)
        assert alone.status_code == whole.status_code == 200
        assert alone.headers["content-length"] == whole.headers["content-length"]
        assert alone.headers["content-type"] == whole.headers["content-type"]
        assert not alone.content


def test_an_answer_that_nobody_takes_is_given_up(tmp_path, quick):
    photos = tmp_path / "photos"
    photos.mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (2000, 2000, 3), np.uint8)
    Image.fromarray(noise).save(photos / "large.bmp")
    shelved(photos, tmp_path / "photos.cooc", quick)
    code = (
        "from coocnet.serve import Settings, serve\n"
        f"serve(Settings({str(tmp_path / 'photos.cooc')!r}, transfer_time_s=2), port=0,"
        " ready=lambda name, url, token: print(url, flush=True))"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        url = process.stdout.readline().strip()
        address = urlsplit(url)
        try:
            ready(url)
            known = id_of(photos / "large.bmp")
            whole = get(f"{url}api/pictures/{known}/original").content
            assert whole == (photos / "large.bmp").read_bytes()
            with socket.create_connection((address.hostname, address.port), timeout=20) as connection:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                connection.sendall(
                    f"GET /api/pictures/{known}/original HTTP/1.1\r\nHost: {address.netloc}\r\n\r\n".encode()
                )
                once(f"{url}metrics", lambda answer: "coocnet_requests_in_work 1.0" in answer.text)
                once(f"{url}metrics", lambda answer: "coocnet_requests_in_work 0.0" in answer.text)
        finally:
            process.send_signal(signal.SIGTERM)
    assert process.returncode == 0


def test_beyond_this_machine_a_token_is_made_and_asked_for(serves, shelf):
    running = serves(shelf.place, "--host", "0.0.0.0")
    place, token = running.url, running.token
    assert len(token) >= 16
    url = f"http://127.0.0.1:{urlsplit(place).port}/"
    problem(get(f"{url}api/info"), 401, "token")
    assert get(f"{url}api/info", headers={"Authorization": f"Bearer {token}"}).status_code == 200


def test_a_proxy_that_is_named_is_believed_whom_it_speaks_for(serves, shelf):
    forwarded = {"X-Forwarded-For": "192.0.2.7", "X-Forwarded-Proto": "https"}
    token = "a token of my own"
    for options, secure in ((["--proxy", "127.0.0.1"], True), (["--proxy", "192.0.2.1"], False), ([], False)):
        running = serves(shelf.place, *options, COOCNET_TOKEN=token)
        answer = post(f"{running.url}api/session", json={"token": token}, headers=forwarded)
        assert answer.status_code == 204
        assert ("secure" in answer.headers["set-cookie"].lower()) is secure


def test_a_token_that_is_given_is_not_printed(serves, shelf):
    running = serves(shelf.place, COOCNET_TOKEN="a token of my own")
    assert running.token == ""
    problem(get(f"{running.url}api/info"), 401, "token")
    shown = {"Authorization": "Bearer a token of my own"}
    assert get(f"{running.url}api/info", headers=shown).status_code == 200


def test_any_address_of_the_loopback_interface_is_answered_at(serves, shelf):
    running = serves(shelf.place, "--host", "127.0.0.2")
    # The tests' own process may speak to no other address than 127.0.0.1.
    code = f"import httpx; print(httpx.get('{running.url}api/info', timeout=60).status_code)"
    asked = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert asked.stdout.strip() == "200", asked.stderr


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--index", "none.cooc"], "no index"),
        (["--token", "short"], "16"),
        (["--add-to", "nowhere"], "nowhere"),
        (["nowhere"], "nowhere"),
        (["--host", "no.such.host.invalid"], "no.such.host.invalid"),
        (["--certificate", "missing.pem"], "missing.pem"),
    ],
)
def test_what_cannot_be_served_is_refused_and_quoted(run, shelf, options, says):
    where = [] if "--index" in options else ["--index", shelf.place]
    ended = run("serve", "--port", "0", *where, *options)
    assert ended.returncode == 1
    assert says in ended.stderr


def test_a_port_that_is_taken_is_refused(run, shelf):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ended = run("serve", "--index", shelf.place, "--port", taken.getsockname()[1])
    assert ended.returncode == 1
    assert "--port 0" in ended.stderr


def test_it_speaks_tls(serves, shelf, tmp_path):
    certificate, key = certified(tmp_path)
    running = serves(shelf.place, "--certificate", certificate, "--key", key)
    trusting = ssl.create_default_context(cafile=str(certificate))
    assert running.url.startswith("https://")
    assert get(f"{running.url}health/live", verify=trusting).json()["status"] == "ok"


def test_serving_reads_the_index_and_writes_nothing(serves, shelf, scenes):
    before = {path: path.read_bytes() for path in shelf.place.iterdir() if path.suffix != ".sqlite-shm"}
    running = serves(shelf.place)
    ready(running.url)
    query = sorted((scenes[0] / "queries").glob("*.jpg"))[0]
    hits = post(f"{running.url}api/search/image", content=query.read_bytes()).json()["hits"]
    assert get(f"{running.url}api/pictures/{hits[0]['id']}/original").status_code == 200
    with open_index(shelf.place) as index:
        assert index.info().pictures == len(shelf.paths)
    after = {path: path.read_bytes() for path in before if path.name == "index.sqlite"}
    assert after == {path: content for path, content in before.items() if path.name == "index.sqlite"}
    assert id_of(shelf.paths[0]) in {hit["id"] for hit in hits}
