"""How much memory indexing takes as a folder grows.

    python benchmarks/bounded.py DATA [--pictures 100000] [--out results/bounded.json]

Makes a folder of that many different files in the temporary folder, from the photographs of DATA at 256 pixels, each
with a comment of its own behind the picture, and indexes it in one process at 64 pixels. Written down is the memory
that the process holds (resident, without what files are mapped) each time another tenth is stored, and the most it
ever held.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

from machine import recorded

_BASES = 200


def files(data: Path, folder: Path, count: int) -> None:
    """The folder: subfolders of a thousand files, so that no listing is huge."""
    bases = []
    for path in itertools.islice(sorted(data.rglob("*.jpg")), _BASES):
        with Image.open(path) as image:
            image.draft("RGB", (256, 256))
            small = image.convert("RGB")
        small.thumbnail((256, 256))
        content = io.BytesIO()
        small.save(content, "JPEG", quality=80)
        bases.append(content.getvalue())
    for at in range(count):
        place = folder / f"{at // 1000:04d}"
        place.mkdir(exist_ok=True)
        (place / f"{at:07d}.jpg").write_bytes(bases[at % len(bases)] + f"{at}".encode())


def held_mb() -> dict[str, float]:
    """Of this process: what it holds of its own, and the most that was resident."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {name: int(status[key].split()[0]) / 1024 for name, key in (("own", "RssAnon"), ("peak", "VmHWM"))}


def index(folder: Path, count: int) -> None:
    """The measured process."""
    from coocnet.index import SyncProgress, open_index
    from coocnet.recipe import Recipe

    seen: list[dict[str, float]] = []

    def note(state: SyncProgress) -> None:
        if state.done % (count // 10) == 0:
            seen.append({"pictures": state.done, **held_mb()})

    started = time.perf_counter()
    with open_index(folder.parent / "photos.cooc", Recipe(size_px=64)) as opened:
        report = opened.sync(folder, progress=note)
    assert report.described == count, report.described
    print(json.dumps({"mb": seen, "at_the_end_mb": held_mb(), "s": time.perf_counter() - started}))


def main() -> None:
    """Measures, prints and writes; or is the measured process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--pictures", type=int, default=100_000)
    parser.add_argument("--out", type=Path, default=Path("results/bounded.json"))
    parser.add_argument("--indexes", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.indexes:
        index(given.data, given.pictures)
        return
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "photographs"
        folder.mkdir()
        files(given.data, folder, given.pictures)
        command = [sys.executable, __file__, str(folder), "--pictures", str(given.pictures), "--indexes"]
        ran = subprocess.run(command, check=True, capture_output=True, text=True)
    document = recorded("python benchmarks/bounded.py DATA")
    document |= {"pictures": given.pictures, **json.loads(ran.stdout.splitlines()[-1])}
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
