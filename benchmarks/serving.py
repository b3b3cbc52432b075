"""A load test of ``coocnet serve``: 32 clients on one collection, by itself and while a sync runs.

    python benchmarks/serving.py [--minutes 10] [--clients 32] [--pictures 10000] [--option --at-once=64 …]
        [--out results/serving.json]

Makes a collection of that many different files in the temporary folder: rendered scenes, each with bytes of its own
behind the picture, and for each a row near its scene's. The real command serves it on this machine. Clients, all in
one other process, ask one request after the other without a pause, over connections that stay open: what the mix
below says. First as many pictures are sent as the service keeps in memory, so that memory that grows later grows for
another reason. Then the clients ask for a tenth of the time alone, and for all of it while the service takes in a
folder of new pictures. What is refused with 429 or 503 is counted, and asked again when Retry-After says; times are
those of the answers. A search by a picture of the collection that does not find that picture first is an error.

Memory is that of the service's process, read each second: ``pss`` of the system's smaps_rollup, and ``own``, the part
of it that is no file's. Its slope is the median slope of all pairs of samples in the last two thirds of the time.
It is a slope of minutes only where the run lasts some: thumbnails, explanations and what PyTorch keeps for each
size of picture fill their own bounded places first.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from machine import recorded

SCENES, SIZE_PX, WARM_S = 60, 640, 5.0
TAKEN_IN_PER_S = 40
LARGE_BYTES = 1 << 20
SERVED = re.compile(r"coocnet serves .+ at (?P<url>http://\S+/)\s*$")
PATIENCE_S = 120
BUSY = (429, 503)


# The clients, in a process of their own


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


# The collection


def make_collection(folder: Path, count: int) -> list[bytes]:
    """Pictures in ``photographs`` and an index of them in ``photos.cooc``; gives the scenes' files."""
    import numpy as np

    from coocnet.data.images import content_digest
    from coocnet.data.scenes import make_scenes
    from coocnet.data.walk import FileStamp
    from coocnet.describe import Describer
    from coocnet.index import open_index
    from coocnet.index.store import Described
    from coocnet.recipe import Recipe

    make_scenes(folder / "scenes", instances=SCENES, views=2, size_px=SIZE_PX)
    files = sorted((folder / "scenes" / "database").iterdir())
    scenes = [path.read_bytes() for path in files]
    recipe, describer, draws = Recipe(), Describer(Recipe()), np.random.default_rng(0)
    rows = describer.describe(files)
    photographs = os.path.realpath(folder / "photographs")
    ids = []

    def described() -> Iterator[Described]:
        for at, (path, content) in enumerate(different(Path(photographs), scenes, count)):
            row = rows[at % len(rows)] + draws.standard_normal(rows.shape[1]) * (0.3 / rows.shape[1] ** 0.5)
            digest, status = content_digest(content), path.stat()
            ids.append(digest.hex())
            row = (row / np.linalg.norm(row)).astype(np.float32)
            yield Described(str(path), FileStamp(status.st_size, status.st_mtime_ns), digest, row)

    with open_index(folder / "photos.cooc", recipe) as index:
        index._store.bind(recipe, describer.weights_sha256, rows.shape[1], describer.engine)
        index._store.put(described())
        (Path(photographs) / "first.jpg").write_bytes(scenes[0])  # the sync has one to describe, and so a whitening
        report = index.sync(photographs, describer=describer)
    assert (report.added, report.unchanged) == (1, count), report
    (folder / "ids.json").write_text(json.dumps(ids))
    return scenes


def different(folder: Path, scenes: list[bytes], count: int) -> Iterator[tuple[Path, bytes]]:
    """Writes files of different content that show the scenes, a thousand in each subfolder."""
    for at in range(count):
        place = folder / f"{at // 1000:04d}"
        place.mkdir(parents=True, exist_ok=True)
        path, content = place / f"{at:07d}.jpg", scenes[at % len(scenes)] + f"{folder.name} {at}".encode()
        path.write_bytes(content)
        yield path, content


# The service


@contextmanager
def served(folder: Path, options: list[str]) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command, and its address."""
    index = str(folder / "photos.cooc")
    command = [sys.executable, "-m", "coocnet", "serve", "--index", index, "--port", "0", *options]
    source = str(Path(__file__).parents[1] / "src")
    environment = {**os.environ, "PYTHONPATH": source, "COLUMNS": "500"}
    with (folder / "serve.log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        line = process.stdout.readline() if process.stdout else ""
        found = SERVED.match(line)
        if found is None:
            raise SystemExit(f"nothing is served: {line}{(folder / 'serve.log').read_text()}")
        url = found["url"].rstrip("/")
        until = time.monotonic() + PATIENCE_S
        while httpx.get(f"{url}/health/ready", trust_env=False).status_code != 200:
            if time.monotonic() > until:
                raise SystemExit("the service did not become ready")
            time.sleep(0.2)
        yield process, url
        process.terminate()
        process.wait(60)
    finally:
        process.kill()
        process.wait()
        print((folder / "serve.log").read_text(), end="", file=sys.stderr)


def counted(url: str) -> dict[str, float]:
    """What the service counts, by name."""
    told = httpx.get(f"{url}/metrics", trust_env=False, timeout=PATIENCE_S).text
    return {
        name: float(value)
        for name, _, value in (line.rpartition(" ") for line in told.splitlines() if not line.startswith("#"))
    }


def memory_mb(pid: int) -> dict[str, float]:
    """Of a process: its share of what is resident, and what of it is no file's."""
    told = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
    return {name: int(told[key].split()[0]) / 1024 for name, key in (("pss", "Pss"), ("own", "Pss_Anon"))}


def processor_s(pid: int) -> float:
    """Processor time that a process took so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def slope_per_minute(samples: list[tuple[float, float]]) -> float:
    """The median slope of all pairs of samples (seconds, MB) in the last two thirds of the time."""
    last = [one for one in samples if one[0] >= samples[-1][0] / 3][-2000:]
    slopes = [
        (mb - before) / (at - earlier)
        for number, (earlier, before) in enumerate(last)
        for at, mb in last[number + 1 :]
        if at > earlier
    ]
    return round(60 * statistics.median(slopes), 3) if slopes else 0.0


def fill(url: str, scenes: list[bytes]) -> None:
    """Sends pictures until the service forgets the first ones."""
    with httpx.Client(base_url=url, trust_env=False, timeout=PATIENCE_S) as http:
        held = -1.0
        while (now := counted(url)["coocnet_upload_bytes"]) > held:
            held = now
            for _ in range(32):
                content = scenes[0] + os.urandom(LARGE_BYTES)
                http.post("/api/uploads", content=content).raise_for_status()


def measured(
    process: subprocess.Popen[str], url: str, folder: Path, *, clients: int, seconds: float, seed: int
) -> dict:
    """One stretch of load."""
    command = [sys.executable, __file__, "--ask", url, "--folder", str(folder), "--clients", str(clients)]
    command += ["--seconds", str(seconds), "--seed", str(seed)]
    before, began_s, started = counted(url), processor_s(process.pid), time.monotonic()
    memory: list[tuple[float, dict[str, float]]] = []
    asking = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        while True:
            memory.append((time.monotonic() - started, memory_mb(process.pid)))
            try:
                told, _ = asking.communicate(timeout=1)
            except subprocess.TimeoutExpired:
                if time.monotonic() - started > seconds + PATIENCE_S + 60:
                    raise SystemExit("the clients did not end") from None
                continue
            break
    finally:
        asking.kill()
        asking.wait()
    took_s = time.monotonic() - started
    after = counted(url)
    passes = {
        name: after.get(f"coocnet_queries_per_pass_{name}", 0) - before.get(f"coocnet_queries_per_pass_{name}", 0)
        for name in ("sum", "count")
    }
    result: dict[str, Any] = json.loads(told.splitlines()[-1])
    result["service_cpu"] = round((processor_s(process.pid) - began_s) / took_s, 3)
    result["queries_per_pass"] = round(passes["sum"] / passes["count"], 2) if passes["count"] else None
    for kind in ("pss", "own"):
        samples = [(at, one[kind]) for at, one in memory]
        result[f"{kind}_mb"] = {
            "begin": round(samples[0][1]),
            "end": round(samples[-1][1]),
            "most": round(max(mb for _, mb in samples)),
            "each_minute": [round(mb) for _, mb in samples[::60]],
            "slope_per_minute": slope_per_minute(samples),
        }
    return result


def with_sync(process: subprocess.Popen[str], url: str, folder: Path, scenes: list[bytes], **load: Any) -> dict:
    """A stretch of load while new pictures are taken in, as many as last for all of it."""
    count = int((load["seconds"] + 10) * TAKEN_IN_PER_S)
    for _ in different(folder / "photographs" / "new", scenes, count):
        pass
    with httpx.Client(base_url=url, trust_env=False, timeout=PATIENCE_S) as http:
        job = f"/api/jobs/{http.post('/api/sync', json={'folder': 0}).raise_for_status().json()['id']}"
        until = time.monotonic() + PATIENCE_S
        while not http.get(job).json()["done"] and time.monotonic() < until:
            time.sleep(0.2)
        began, started = http.get(job).json(), time.monotonic()
        result = measured(process, url, folder, **load)
        ended, took_s = http.get(job).json(), time.monotonic() - started
        http.delete(job)
        while (stopped := http.get(job).json())["state"] == "running":
            time.sleep(0.2)
    result["sync"] = {
        "ran_throughout": ended["state"] == "running",
        "taken_in": ended["done"] - began["done"],
        "per_s": round((ended["done"] - began["done"]) / took_s, 2),
        "ended": stopped["state"],
    }
    return result


def main() -> None:
    """Measures, prints and writes; or is the process of the clients."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--pictures", type=int, default=10_000)
    parser.add_argument("--option", action="append", default=[], help="of coocnet serve, as --option=--at-once=64")
    parser.add_argument("--out", type=Path, default=Path("results/serving.json"))
    for hidden, kind in (("--ask", str), ("--folder", Path), ("--seconds", float), ("--seed", int)):
        parser.add_argument(hidden, type=kind, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.ask:
        print(json.dumps(asyncio.run(ask(given.ask, given.folder, given.clients, given.seconds, given.seed))))
        return
    document = recorded(
        f"python benchmarks/serving.py --minutes {given.minutes:g}",
        packages=("torch", "numpy", "fastapi", "pydantic", "starlette", "uvicorn", "h11", "httpx"),
    )
    document |= {"pictures": given.pictures, "clients": given.clients, "options": given.option}
    document["mix"] = {kind: weight for kind, (weight, _) in MIX.items()}
    seconds = 60 * given.minutes
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        scenes = make_collection(folder, given.pictures)
        with served(folder, given.option) as (process, url):
            document["at_rest_mb"] = {name: round(mb) for name, mb in memory_mb(process.pid).items()}
            fill(url, scenes)
            measured(process, url, folder, clients=given.clients, seconds=WARM_S, seed=0)
            alone_s = max(WARM_S, seconds / 10)
            document["alone"] = measured(process, url, folder, clients=given.clients, seconds=alone_s, seed=1)
            load = {"clients": given.clients, "seconds": seconds, "seed": 2}
            document["with_sync"] = with_sync(process, url, folder, scenes, **load)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
