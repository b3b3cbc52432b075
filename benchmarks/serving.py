"""A load test of ``coocnet serve``: 32 clients on one collection, by itself and while a sync runs.

    python benchmarks/serving.py [--minutes 10] [--clients 32] [--pictures 10000] [--option --at-once=64 …]
        [--out results/serving.json]

Makes a collection of that many different files in the temporary folder: rendered scenes, each with bytes of its own
behind the picture, and for each a row near its scene's. The real command serves it on this machine. Clients
(``serving_clients.py``), all in one other process, ask one request after the other without a pause, over connections
that stay open: what the mix there says. First as many pictures are sent as the service keeps in memory, so that
memory that grows later grows for another reason. Then the clients ask for a tenth of the time alone, and for all of
it while the service takes in a folder of new pictures. What is refused with 429 or 503 is counted, and asked again
when Retry-After says; times are those of the answers. A search by a picture of the collection that does not find that
picture first is an error.

Memory is that of the service's process, read each second: ``pss`` of the system's smaps_rollup, and ``own``, the part
of it that is no file's. Its slope is the median slope of all pairs of samples in the last two thirds of the time.
It is a slope of minutes only where the run lasts some: thumbnails, explanations and what PyTorch keeps for each
size of picture fill their own bounded places first.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from machine import recorded
from serving_clients import MIX

SCENES, SIZE_PX, WARM_S = 60, 640, 5.0
TAKEN_IN_PER_S = 40
LARGE_BYTES = 1 << 20
SERVED = re.compile(r"coocnet serves .+ at (?P<url>http://\S+/)\s*$")
PATIENCE_S = 120


# The collection


def make_collection(folder: Path, count: int) -> list[bytes]:
    """Pictures in ``photographs`` and an index of them in ``photos.cooc``; gives the scenes' files."""
    import numpy as np

    from coocnet.data.images import content_digest
    from coocnet.data.scenes import make_scenes
    from coocnet.data.walk import FileStamp
    from coocnet.describe import Describer
    from coocnet.index import open_index
    from coocnet.index.records import Described
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
    script = str(Path(__file__).with_name("serving_clients.py"))
    command = [sys.executable, script, url, str(folder), "--clients", str(clients)]
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
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--pictures", type=int, default=10_000)
    parser.add_argument("--option", action="append", default=[], help="of coocnet serve, as --option=--at-once=64")
    parser.add_argument("--out", type=Path, default=Path("results/serving.json"))
    given = parser.parse_args()
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
