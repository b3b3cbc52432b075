"""The clients of the load test: many who ask one service, one request after the other, in a process of their own.

    python benchmarks/serving_clients.py URL FOLDER [--clients 32] [--seconds 60] [--seed 0]

Prints what they saw as one line of JSON. ``serving.py`` starts it, and makes FOLDER.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx

PATIENCE_S = 120
BUSY = (429, 503)


class Client:
    """One of those who ask, one request after the other.

    Args:
        http: what all clients send by.
        ids: of the collection's pictures.
        queries: picture files that are not in it.
        seed: another for each client.
    """

    def __init__(self, http: httpx.AsyncClient, ids: list[str], queries: list[bytes], seed: int) -> None:
        self._http = http
        self._ids = ids
        self._queries = queries
        self._random = random.Random(seed)
        self._seen = ids[seed : seed + 1]
        self.times_ms: dict[str, list[float]] = defaultdict(list)
        self.refused: Counter[str] = Counter()
        self.errors: list[str] = []

    async def ask_until(self, end: float) -> None:
        """Asks until the time has come."""
        kinds, weights = list(MIX), [weight for weight, _ in MIX.values()]
        while time.monotonic() < end:
            kind = self._random.choices(kinds, weights)[0]
            try:
                await MIX[kind][1](self)
            except (httpx.HTTPError, ValueError, KeyError, AssertionError) as error:
                self.errors.append(f"{kind}: {type(error).__name__} {error}"[:300])

    async def search(self) -> None:
        """With a picture of the collection, which is to be found first."""
        one = self._random.choice(self._ids)
        found = await self._json("search by picture", f"/api/search?picture={one}")
        self._seen = [hit["id"] for hit in found["hits"]]
        assert found["hits"][0]["id"] == one, f"{one} is not found by itself"

    async def search_with_cut(self) -> None:
        """As the page does where only what shows the same is wanted."""
        await self._json("search with a cut", f"/api/search?picture={self._random.choice(self._ids)}&threshold=auto")

    async def search_part(self) -> None:
        """With a part of a picture: described when it is asked."""
        box = f"{self._random.randrange(200)},{self._random.randrange(200)},{self._random.randrange(300, 600)},430"
        found = await self._json(
            "search by a part", f"/api/search?picture={self._random.choice(self._ids)}&box={box}"
        )
        assert found["hits"], "nothing found"

    async def search_upload(self) -> None:
        """Sends a picture nobody sent before, and searches with it."""
        content = self._random.choice(self._queries) + self._random.randbytes(16)
        sent = await self._answer("upload", "/api/uploads", content)
        found = await self._json("search by upload", f"/api/search?upload={sent.json()['id']}")
        assert found["hits"], "nothing found"

    async def next_page(self) -> None:
        """A page further down the results of the last search."""
        offset = 50 * self._random.randrange(1, 6)
        found = await self._json("further results", f"/api/search?picture={self._seen[0]}&offset={offset}")
        assert found["hits"], "nothing found"

    async def thumbnail(self) -> None:
        """One of the pictures found last."""
        await self._answer("thumbnail", f"/api/pictures/{self._random.choice(self._seen)}/thumbnail?size=320")

    async def listing(self) -> None:
        """A page of the collection."""
        await self._json("listing", f"/api/pictures?offset={60 * self._random.randrange(len(self._ids) // 60)}")

    async def info(self) -> None:
        """What the collection is."""
        await self._json("info", "/api/info")

    async def original(self) -> None:
        """A file found last."""
        await self._answer("original", f"/api/pictures/{self._random.choice(self._seen)}/original")

    async def explanation(self) -> None:
        """Why something found last was found."""
        query, result = self._random.choice(self._ids), self._random.choice(self._seen)
        await self._json("explanation", f"/api/explanation?picture={query}&result={result}")

    async def _json(self, kind: str, path: str) -> dict[str, Any]:
        found: dict[str, Any] = (await self._answer(kind, path)).json()
        return found

    async def _answer(self, kind: str, path: str, body: bytes | None = None) -> httpx.Response:
        while True:
            started = time.perf_counter()
            answer = await (self._http.get(path) if body is None else self._http.post(path, content=body))
            if answer.status_code not in BUSY:
                break
            self.refused[str(answer.status_code)] += 1
            await asyncio.sleep(float(answer.headers["Retry-After"]))
        answer.raise_for_status()
        self.times_ms[kind].append(1e3 * (time.perf_counter() - started))
        return answer


MIX: dict[str, tuple[int, Callable[[Client], Awaitable[None]]]] = {
    "search by picture": (25, Client.search),
    "search with a cut": (4, Client.search_with_cut),
    "search by a part": (6, Client.search_part),
    "upload and search by it": (6, Client.search_upload),
    "further results": (8, Client.next_page),
    "thumbnail": (40, Client.thumbnail),
    "listing": (4, Client.listing),
    "info": (3, Client.info),
    "original": (3, Client.original),
    "explanation": (1, Client.explanation),
}


async def ask(url: str, folder: Path, clients: int, seconds: float, seed: int) -> dict[str, Any]:
    """What all clients saw."""
    ids = json.loads((folder / "ids.json").read_text())
    queries = [path.read_bytes() for path in sorted((folder / "scenes" / "queries").iterdir())]
    limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients, keepalive_expiry=10)
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=PATIENCE_S, trust_env=False) as http:
        asking = [Client(http, ids, queries, clients * seed + number) for number in range(clients)]
        started = time.monotonic()
        await asyncio.gather(*(one.ask_until(started + seconds) for one in asking))
        took_s = time.monotonic() - started
    times: dict[str, list[float]] = defaultdict(list)
    for one in asking:
        for kind, some in one.times_ms.items():
            times[kind] += some
    searches = [ms for kind, some in times.items() if kind.startswith(("search", "further")) for ms in some]
    errors = [error for one in asking for error in one.errors]
    return {
        "s": round(took_s, 1),
        "errors": len(errors),
        "first_errors": errors[:5],
        "refused": dict(sum((one.refused for one in asking), Counter())),
        "all": summary([ms for some in times.values() for ms in some], took_s),
        "searches": summary(searches, took_s),
        "kinds": {kind: summary(some, took_s) for kind, some in sorted(times.items())},
        "clients_cpu": round(sum(os.times()[:2]) / took_s, 3),
    }


def summary(times_ms: list[float], took_s: float) -> dict[str, float]:
    """Percentiles and throughput."""
    if len(times_ms) < 2:
        return {"count": len(times_ms)}
    cuts = statistics.quantiles(times_ms, n=100, method="inclusive")
    return {
        "count": len(times_ms),
        "per_s": round(len(times_ms) / took_s, 2),
        "p50_ms": round(cuts[49], 1),
        "p95_ms": round(cuts[94], 1),
        "p99_ms": round(cuts[98], 1),
        "most_ms": round(max(times_ms), 1),
    }


def main() -> None:
    """Asks, and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    print(json.dumps(asyncio.run(ask(given.url, given.folder, given.clients, given.seconds, given.seed))))


if __name__ == "__main__":
    main()
