"""kill -9 of ``coocnet serve`` while it syncs, takes pictures in and out: what it has answered is stored."""

from __future__ import annotations

import re
import shutil
import time
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

import httpx
from filelock import FileLock, Timeout

from coocnet.index import open_index
from faults.campaign import Ground, must
from faults.commands import PATIENCE_S, Run, coocnet
from faults.looking import Content, content_of, look, rows_are_right
from faults.town import Town

_SERVED = re.compile(r"coocnet serves .+ at (http://\S+/)")
_LONGEST_S = 6.0
_GOES_ON = (409, 429, 503)  # busy: not now


class Client:
    """One who changes the collection through the service, and remembers what was answered.

    Attributes:
        added: contents that the service has taken in, by their ids.
        removed: contents that it has taken out.
        unsure: those of which a request was under way when the service was killed.
        forgotten: those that were to be put back, and whose files have another content by now.
    """

    def __init__(self, ground: Ground, town: Town) -> None:
        self._ground = ground
        self._town = town
        self.added: set[str] = set()
        self.removed: set[str] = set()
        self.unsure: set[str] = set()
        self.forgotten: set[str] = set()
        self.answers = 0

    def asks(self, url: str, until: float) -> None:
        """Sends requests, one after the other, until a moment or until nobody answers."""
        with httpx.Client(base_url=url, timeout=max(0.1, until - time.monotonic()), trust_env=False) as http:
            what = ["add", "remove", "restore", "search"]
            if self._ground.chance.random() < 0.5:  # a sync that runs keeps what changes single pictures waiting
                what.append("sync")
                with suppress(httpx.HTTPError):
                    http.post("/api/sync", json={"folder": None})
            while time.monotonic() < until:
                http.timeout = httpx.Timeout(max(0.01, until - time.monotonic()))
                with suppress(httpx.HTTPError):
                    self._ask(http, self._ground.chance.choice(what))

    def _ask(self, http: httpx.Client, what: str) -> None:
        chance = self._ground.chance
        if what == "add":
            content = self._town.content()
            one = blake2b(content, digest_size=16).hexdigest()
            if self._answered(http, one, "POST", "/api/pictures", params={"name": "sent.jpg"}, content=content):
                self.added.add(one)
                self.removed.discard(one)
        elif what == "remove":
            page = http.get("/api/pictures", params={"limit": 50}).json()["pictures"]
            if page:
                one = chance.choice(page)["id"]
                if self._answered(http, one, "DELETE", f"/api/pictures/{one}"):
                    self.removed.add(one)
        elif what == "restore" and self.removed:
            one = chance.choice(sorted(self.removed))
            if self._answered(http, one, "POST", f"/api/pictures/{one}/restore"):
                self.removed.discard(one)
        elif what == "search":
            answer = http.post("/api/search/image", params={"limit": 5}, content=self._town.content())
            must(answer.status_code in {200, *_GOES_ON}, f"a search was answered {answer.status_code} {answer.text}")
        else:
            answer = http.post("/api/sync", json={"folder": None})
            must(
                answer.status_code in {202, 200, *_GOES_ON}, f"a sync was answered {answer.status_code} {answer.text}"
            )

    def _answered(self, http: httpx.Client, one: str, method: str, address: str, **asked: object) -> bool:
        """Whether the service said that it has done it."""
        self.unsure.add(one)
        answer = http.request(method, address, **asked)  # type: ignore[arg-type]
        must(
            answer.is_success or answer.status_code in {404, 410, *_GOES_ON},
            f"{method} {address} was answered {answer.status_code} {answer.text}",
        )
        self.unsure.discard(one)
        if answer.status_code == 410:  # its file is another by now: then it is no longer remembered as taken out
            self.forgotten.add(one)
        self.answers += answer.is_success
        return answer.is_success


def kills(ground: Ground) -> None:
    """Rounds of starting, asking and killing; in every other kill the process of the sync is killed too."""
    while ground.tally["kills"] < ground.kills:
        with ground.round() as place:
            town = Town(place / "photos", ground.chance)
            town.add(60)
            index, added = place / "index.cooc", place / "added"
            added.mkdir()
            coocnet("index", town.photos, "--index", index, "--recipe", ground.recipe).ends()
            client = Client(ground, town)
            for _ in range(min(10, ground.kills - ground.tally["kills"])):
                town.add(20)
                town.change(8)
                _serve_and_kill(ground, client, index, added)
                _after_kill(client, index)
            _at_end(ground, client, index, place)


def _serve_and_kill(ground: Ground, client: Client, index: Path, added: Path) -> None:
    run = coocnet("serve", "--index", index, "--add-to", added, "--port", 0)
    url = _url(run)
    client.asks(url, time.monotonic() + ground.chance.uniform(0.2, _LONGEST_S))
    must(not run.ended(), f"the service has ended by itself:\n{run.text}")
    must("Traceback" not in run.text, f"the service has failed:\n{run.text}")
    with_sync = ground.chance.random() < 0.5
    run.kill(with_group=with_sync)
    _await_writer(index)
    ground.count(kills=True, with_its_sync=with_sync)


def _url(run: Run) -> str:
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until and not run.ended():
        if served := _SERVED.search(run.text):
            return served.group(1)
        time.sleep(0.01)
    must(False, f"nothing is served:\n{run.text}")
    raise AssertionError


def _await_writer(index: Path) -> None:
    """Waits until the process of a sync has noticed that its service is no more."""
    try:
        with FileLock(index / "sync.lock", timeout=60):
            pass
    except Timeout:
        must(False, "the process of the sync outlives its service")


def _after_kill(client: Client, index: Path) -> None:
    look(index, deeply=True)
    with open_index(index) as opened:
        here = {digest.hex() for digest in opened._store.digests()}  # type: ignore[attr-defined]
        out = {digest.hex() for digest in opened.removed()}
    lost = client.removed - out - client.unsure - client.forgotten
    must(not lost, f"taken out, as was answered, and now not: {lost}")
    missing = client.added - client.removed - here - out - client.unsure
    must(not missing, f"taken in, as was answered, and now not there: {missing}")
    client.removed = out  # what was under way has been done or not


def _at_end(ground: Ground, client: Client, index: Path, place: Path) -> None:
    """One sync of each folder; then the same as an index made anew, with the same taken out."""
    calm = place / "calm.cooc"
    with open_index(index) as opened:
        out = set(opened.removed())
        folders = opened.folders
    for folder in dict.fromkeys([str(place / "photos"), str(place / "added"), *folders]):
        if any(Path(folder).iterdir()):
            coocnet("index", folder, "--index", index).ends()
            coocnet("index", folder, "--index", calm, "--recipe", ground.recipe).ends()
    whole = content_of(calm)
    right: Content = {path: value for path, value in whole.items() if value[0] not in out}
    left = look(index, deeply=True)
    must(rows_are_right(left, whole), "a row is wrong")
    must(left.content == right, "the index differs from one that is made anew")
    ground.tally["requests_that_changed_something"] += client.answers
    shutil.rmtree(calm)
