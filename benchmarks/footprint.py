"""What a collection takes on disk: an index by dimensions and length of path, photographs, and thumbnails.

    python benchmarks/footprint.py DATA [--pictures 20000] [--out results/footprint.json]

An index is made of random unit rows, stored as a sync stores them, 64 at a time in order of path, with its rows kept
for searching and an approximate search (FAISS); each of its files is divided by the pictures. Photographs are the 200
that ``indexing.py`` takes; thumbnails are those that a sync keeps, of these and of rendered pictures.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Iterable
from hashlib import blake2b
from pathlib import Path

import numpy as np

from coocnet.data.images import content_digest, decode
from coocnet.data.scenes import make_scenes
from coocnet.data.thumbnails import THUMBNAIL_PX, ThumbnailStore
from coocnet.data.walk import FileStamp
from coocnet.errors import InputError
from coocnet.index import open_index
from coocnet.index.records import Described
from coocnet.recipe import Recipe
from coocnet.whitening import unit_rows
from indexing import largest_photographs
from machine import recorded

DIMS, PATHS = (64, 128, 256, 512, 1024, 2048), (40, 80, 160)
PHOTOGRAPHS = 200
_AT_ONCE = 64


def made_index(place: Path, pictures: int, dim: int, path_bytes: int) -> dict[str, float]:
    """Bytes for each picture, by kind of file, of an index that is made at ``place``."""
    random = np.random.default_rng(0)
    centres = random.standard_normal((pictures // 50, dim))
    with open_index(place, Recipe(whitening="none")) as index:
        store = index._store
        store.bind(Recipe(whitening="none"), "0" * 64, dim, "float32")
        for start in range(0, pictures, _AT_ONCE):
            count = min(_AT_ONCE, pictures - start)
            rows = _rows(centres, count, random)
            store.put(
                Described(
                    f"/{start + at:0{path_bytes - 1}d}",
                    FileStamp(100_000, 1_700_000_000_000_000_000 + at),
                    blake2b(row.tobytes(), digest_size=16).digest(),
                    row,
                )
                for at, row in enumerate(rows)
            )
        index.search(_rows(centres, 1, random), k=1)
        try:
            index.build_ann()
        except InputError as error:
            print(error)
    sizes = {path.name: path.stat().st_size / pictures for path in place.iterdir()}
    return {
        "database": round(sum(size for name, size in sizes.items() if name.startswith("index.sqlite")), 1),
        "kept_rows": round(sum(size for name, size in sizes.items() if name.startswith("gallery")), 1),
        "approximate": round(sum(size for name, size in sizes.items() if name.startswith("approximate")), 1),
    }


def _rows(centres: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
    noise = random.standard_normal((count, centres.shape[1]))
    rows: np.ndarray = unit_rows(centres[random.integers(0, len(centres), count)] + noise).astype(np.float32)
    return rows


def bytes_of(pictures: Iterable[Path]) -> dict[str, float]:
    """Mean size of files, and of their thumbnails."""
    contents = [path.read_bytes() for path in pictures]
    with tempfile.TemporaryDirectory() as scratch:
        store = ThumbnailStore(scratch)
        for content in contents:
            store.put(content_digest(content), decode(content, "a picture", size_px=THUMBNAIL_PX).pixels)
        kept = [len(store.get(content_digest(content)) or b"") for content in contents]
    return {
        "pictures": len(contents),
        "mean_bytes": round(statistics.mean(map(len, contents))),
        "thumbnail_bytes": round(statistics.mean(kept)),
    }


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--pictures", type=int, default=20_000)
    parser.add_argument("--out", type=Path, default=Path("results/footprint.json"))
    options = parser.parse_args()
    indexes = []
    with tempfile.TemporaryDirectory() as scratch:
        cases = [(dim, PATHS[1]) for dim in DIMS] + [(64, length) for length in PATHS if length != PATHS[1]]
        for dim, path_bytes in cases:
            place = Path(scratch) / f"{dim}-{path_bytes}.cooc"
            held = made_index(place, options.pictures, dim, path_bytes)
            indexes.append({"dim": dim, "path_bytes": path_bytes, "bytes_for_each": held})
            print(indexes[-1])
        make_scenes(Path(scratch) / "scenes", instances=30, views=3, size_px=640)
        rendered = bytes_of(sorted((Path(scratch) / "scenes").rglob("*.jpg")))
    photographs = bytes_of(largest_photographs(options.data, PHOTOGRAPHS))
    document = {
        **recorded("python benchmarks/footprint.py DATA", packages=("numpy", "pillow", "faiss-cpu")),
        "pictures": options.pictures,
        "indexes": indexes,
        "thumbnail_px": THUMBNAIL_PX,
        "photographs": photographs,
        "rendered": rendered,
    }
    options.out.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
