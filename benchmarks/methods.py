"""Every method on real photographs: one scale and three, raw and whitened elsewhere, with query expansion; ablations.

    python benchmarks/methods.py DATA --cache FOLDER [--recipe mini] [--out results]

DATA holds ``images/``: sets that are only judged on, sets that parameters are chosen by, and pictures that whitenings
are fitted on (see photosets.py). What is judged on a set was fitted without any picture of it. Each picture goes
through the network once for each scale; the maps lie in FOLDER (about 3 MB a picture, float16), then the rows of
every variant: the command may be interrupted and goes on. It writes ``methods-RECIPE.json`` (means, intervals,
manifest) and ``methods-RECIPE.npz`` (average precision of every query); ``methods_page.py`` writes the tables from
them. Weights are found as the command finds them (``COOCNET_WEIGHTS``).
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import platform
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

import coocnet
import photosets
from coocnet.data import Box
from coocnet.describe import Describer
from coocnet.evaluate import Truth, average_precision, mean_with_interval, rank
from coocnet.ranking import EXPANSIONS
from coocnet.recipe import Recipe
from coocnet.whitening import Whitening, fit_pairs, fit_pca, unit_rows
from machine import processor
from photosets import Set
from variants import Learned, Variant, learn, variants

SCALES = (1.0, 2**-0.5, 0.5)
DIM = 512
LONGER_DIMS = (1024, 1400)
PAIRS_SHRINKAGE = 0.1
EXPANDED_BY, ALPHA = 10, 3.0
SHARD = 50
ALIKE = 0.9999
Rows = np.ndarray


@dataclass(frozen=True)
class Seen:
    """A picture, or a part of one, that goes through the network."""

    path: Path
    box: Box | None

    @property
    def key(self) -> str:
        """Names its maps in the cache."""
        part = "" if self.box is None else "@" + ",".join(f"{side:g}" for side in self.box)
        return "__".join(self.path.parts[self.path.parts.index("images") + 1 :]) + part


@dataclass(frozen=True)
class Cache:
    """Maps and rows of one recipe on disk."""

    folder: Path

    def add_maps(self, describer: Describer, pictures: Sequence[Seen]) -> None:
        """Runs the network where maps are missing."""
        self.folder.mkdir(parents=True, exist_ok=True)
        missing = [one for one in pictures if not self._maps_file(one).is_file()]
        for done, one in enumerate(missing, start=1):
            maps = describer.maps_of(describer.load(one.path, box=one.box).pixels)
            unfinished = self.folder / "unfinished.npz"
            arrays = {f"s{number}": a[0].half().numpy() for number, a in enumerate(maps)}
            np.savez(unfinished, allow_pickle=False, **arrays)
            unfinished.rename(self._maps_file(one))
            if done % 100 == 0 or done == len(missing):
                print(f"maps: {done} of {len(missing)}", flush=True)

    def maps(self, one: Seen) -> list[torch.Tensor]:
        """The maps of a picture at every scale, each (1, d, h, w)."""
        try:
            with np.load(self._maps_file(one)) as held:
                return [torch.from_numpy(held[f"s{number}"]).float()[None] for number in range(len(SCALES))]
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise SystemExit(f"{self._maps_file(one)}: {error}; remove it and run again") from error

    def add_rows(self, listed: Sequence[Variant], pictures: Sequence[Seen], workers: int) -> None:
        """Pools what is missing, a shard of pictures at a time, in several processes."""
        shards = [pictures[start : start + SHARD] for start in range(0, len(pictures), SHARD)]
        with ProcessPoolExecutor(workers, initializer=_start_worker, initargs=(self, listed)) as pool:
            for done, _ in enumerate(pool.map(_add_shard, shards, range(len(shards))), start=1):
                print(f"rows: shard {done} of {len(shards)}", flush=True)

    def rows(self, one: Variant, count: int, *, multiscale: bool) -> Rows:
        """The rows of all pictures."""
        shards = [np.load(self.rows_file(one, number)) for number in range(-(-count // SHARD))]
        scales = np.concatenate(shards, axis=1)
        return unit_rows(scales.mean(0)) if multiscale else scales[0]

    def rows_file(self, one: Variant, shard: int) -> Path:
        """Where the rows of a shard lie, (scales, pictures, d); named by what decides them."""
        return self.folder / "rows" / f"{one.name.replace(' ', '_')}-{one.recipe.row_fingerprint()}" / f"{shard}.npy"

    def _maps_file(self, one: Seen) -> Path:
        return self.folder / f"{one.key}.npz"


_work: tuple[Cache, Sequence[Variant]]


def _start_worker(cache: Cache, listed: Sequence[Variant]) -> None:
    global _work  # noqa: PLW0603 - what every task of a worker shares
    torch.set_num_threads(1)
    _work = cache, listed


def _add_shard(pictures: Sequence[Seen], shard: int) -> None:
    cache, listed = _work
    missing = [one for one in listed if not cache.rows_file(one, shard).is_file()]
    if not missing:
        return
    found: dict[str, list[list[np.ndarray]]] = {one.name: [] for one in missing}
    with torch.inference_mode():
        for picture in pictures:
            maps = cache.maps(picture)
            for one in missing:
                used = maps if one.multiscale else maps[:1]
                found[one.name].append([one.row(a).numpy() for a in used])
    for one in missing:
        target = cache.rows_file(one, shard)
        target.parent.mkdir(parents=True, exist_ok=True)
        np.save(target.with_suffix(".unfinished.npy"), np.array(found[one.name]).swapaxes(0, 1))
        target.with_suffix(".unfinished.npy").rename(target)


@dataclass(frozen=True)
class Judge:
    """Where the pictures of each set stand among the rows, and what whitenings are fitted on."""

    images: Path
    sets: Sequence[Set]
    pictures: Sequence[Seen]

    @cached_property
    def place(self) -> dict[Seen, int]:
        """The row of each picture."""
        return {one: number for number, one in enumerate(self.pictures)}

    def treated(self, one: Variant, rows: Rows) -> Iterator[tuple[str, str, list[float]]]:
        """Set, treatment and the average precision of each query."""
        fitted: dict[str, list[tuple[str, Whitening]]] = {}
        for tested in self.sets:
            without = "" if tested.name in photosets.JUDGED else tested.name
            if without not in fitted:
                fitted[without] = list(self._whitenings(one, rows, without))
            database = rows[self._places(tested.database)]
            queries = rows[[self.place[Seen(*pair)] for pair in zip(tested.queries, tested.boxes, strict=True)]]
            yield tested.name, "raw", precisions(database, queries, tested.truths)
            for name, whitening in fitted[without]:
                d, q = whitening.apply(database), whitening.apply(queries)
                yield tested.name, name, precisions(d, q, tested.truths)
                if name == f"pca {DIM}" and one.group != "ablation":
                    for expansion, expanded in EXPANSIONS.items():
                        e = expanded(d, q, n=EXPANDED_BY, alpha=ALPHA, whitened=True)
                        yield tested.name, f"{name}, {expansion}", precisions(d, e, tested.truths)

    def _whitenings(self, one: Variant, rows: Rows, without: str) -> Iterator[tuple[str, Whitening]]:
        fitted = rows[self._places(photosets.fit_pictures(self.images, without=without))]
        most = fit_pca(fitted, dim=max(LONGER_DIMS), at_most=True)
        for dim in (DIM, *LONGER_DIMS):
            if dim <= most.dim and (dim == DIM or one.group.startswith("second order")):
                yield f"pca {dim}", Whitening(most.mean, most.projection[:dim])
        if one.group == "linear" and without in ("", "dvd_covers"):
            pairs = photosets.pairs(self.images, without=without)
            q, p = np.array([[self.place[Seen(path, None)] for path in pair] for pair in pairs]).T
            where = np.unique(np.concatenate([q, p]))
            positions = np.searchsorted(where, q), np.searchsorted(where, p)
            yield f"pairs {DIM}", fit_pairs(rows[where], *positions, dim=DIM, shrinkage=PAIRS_SHRINKAGE)

    def _places(self, paths: Iterable[Path]) -> list[int]:
        return [self.place[Seen(path, None)] for path in paths]


def precisions(database: Rows, queries: Rows, truths: Sequence[Truth]) -> list[float]:
    """Average precision of each query."""
    return [
        average_precision(rank(similarities).tolist(), truth)
        for similarities, truth in zip(queries @ database.T, truths, strict=True)
    ]


def pictures_of(images: Path, sets: Sequence[Set]) -> list[Seen]:
    """Every picture of the sets and of what is fitted on, once; queries with their boxes."""
    whole = [path for one in sets for path in (*one.database, *one.queries)] + photosets.fit_pictures(images)
    boxed = [Seen(path, box) for one in sets for path, box in zip(one.queries, one.boxes, strict=True)]
    return list(dict.fromkeys([Seen(path, None) for path in whole] + boxed))


def checked_rows(describer: Describer, cache: Cache, pictures: Sequence[Seen], one: Variant) -> float:
    """The lowest cosine between rows from the cache and those of the describer, on a few pictures.

    Raises:
        SystemExit: the cache holds something else.
    """
    some = pictures[:: max(1, len(pictures) // 12)]
    cached = np.stack([one.row(cache.maps(seen)[0]).numpy() for seen in some])
    described = describer.describe([seen.path for seen in some], boxes=[seen.box for seen in some])
    lowest = float((cached * described).sum(1).min())
    if lowest < ALIKE:
        raise SystemExit(f"the maps in {cache.folder} are of other weights or pictures: remove them and run again")
    return lowest


def manifest(given: argparse.Namespace, describer: Describer, pictures: Sequence[Seen]) -> dict[str, object]:
    """All that decides the numbers."""
    digest = hashlib.sha256()
    for one in sorted(pictures, key=lambda seen: seen.key):
        digest.update(one.key.encode() + b"\0" + hashlib.sha256(one.path.read_bytes()).digest())
    return {
        "command": f"python benchmarks/methods.py DATA --cache FOLDER --recipe {given.recipe}",
        "recipe": describer.recipe.replace(scales=(1.0,)).to_toml(),
        "weights_sha256": describer.weights_sha256,
        "pictures": {"number": len(pictures), "sha256_of_names_boxes_and_contents": digest.hexdigest()},
        "judged_only": list(photosets.JUDGED),
        "parameters_chosen_by": list(photosets.CHOOSING),
        "whitening": {
            "fitted_on": list(photosets.FIT_ON),
            "without": "the set itself, where it is one of these",
            "pca_dims": [DIM, *LONGER_DIMS],
            "pairs": {"of": list(photosets.CHOOSING), "shrinkage": PAIRS_SHRINKAGE, "dim": DIM},
        },
        "means_and_axes_learned_on": f"every fourth picture of {photosets.LEARN_ON}",
        "query_expansion": {"n": EXPANDED_BY, "alpha": ALPHA},
        "scales": SCALES,
        "maps_held_in": "float16",
        "protocol": "trapezoid AP, junk removed; paris6k_subset: queries cropped to their boxes, query picture stays "
        "in the database; 95 % percentile bootstrap over queries, 10,000 draws",
        "versions": {"coocnet": coocnet.__version__, "torch": torch.__version__, "python": platform.python_version()},
        "processor": processor(),
        "finished": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }


def main() -> None:
    """Maps, rows, numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--recipe", default="mini")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("results"))
    given = parser.parse_args()
    images = (given.data / "images").resolve()
    base = Recipe.load(given.recipe).replace(prior="none")
    describer = Describer(base.replace(scales=SCALES), engine="float32")
    cache = Cache(given.cache / given.recipe)
    sets = [load(images) for load in photosets.SETS.values()]
    pictures = pictures_of(images, sets)
    learning = [Seen(path, None) for path in photosets.learning_pictures(images)]
    cache.add_maps(describer, [*learning, *pictures])
    learned: Learned = learn(cache.maps(one)[0][0] for one in learning)
    listed = variants(base, learned)
    own = next(one for one in listed if one.recipe == base.replace(scales=(1.0,)))
    lowest = checked_rows(Describer(own.recipe, engine="float32"), cache, pictures, own)
    cache.add_rows(listed, pictures, given.workers)

    judge = Judge(images, sets, pictures)
    found: dict[str, np.ndarray] = {}
    for done, one in enumerate(listed, start=1):
        for multiscale in (False, True)[: 1 + one.multiscale]:
            rows = cache.rows(one, len(pictures), multiscale=multiscale)
            for name, treatment, values in judge.treated(one, rows):
                scales = "three scales, " if multiscale else ""
                found["|".join((name, one.name, scales + treatment))] = np.array(values, np.float32)
        print(f"judged: {done} of {len(listed)} ({one.name})", flush=True)

    given.out.mkdir(parents=True, exist_ok=True)
    document = {
        **manifest(given, describer, pictures),
        "lowest_cosine_of_cached_and_described_rows": lowest,
        "variants": {one.name: {"group": one.group, "dim": dim_of(cache, one)} for one in listed},
        "mean_average_precision": {key: interval(values) for key, values in found.items()},
    }
    (given.out / f"methods-{given.recipe}.json").write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    np.savez_compressed(given.out / f"methods-{given.recipe}.npz", allow_pickle=False, **found)


def dim_of(cache: Cache, one: Variant) -> int:
    """Dimensions of a variant's row."""
    return int(np.load(cache.rows_file(one, 0), mmap_mode="r").shape[2])


def interval(values: np.ndarray) -> list[float]:
    """Mean and interval in percent."""
    mean = mean_with_interval(values.tolist())
    return [round(100 * number, 2) for number in (mean.mean, mean.low, mean.high)]


if __name__ == "__main__":
    main()
