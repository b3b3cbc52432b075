"""The benchmarks there are: what each is, where its pictures and ground truth come from, what to expect of them.

No publisher of these files states a checksum that we know of, so every entry without one is shown as unverified; what
arrives first is recorded, and later copies are held against it (:mod:`coocnet.data.benchmarks.place`). The addresses
are those that the public code of the field names; which of them still answer was not tried from here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from coocnet.errors import InputError

Kind = Literal["classic", "revisited", "holidays", "ukbench", "manifest", "distractors", "training"]


@dataclass(frozen=True)
class Archive:
    """A file to be had from a server.

    Attributes:
        file: its name.
        urls: mirrors in order of preference; none where it cannot be downloaded over http.
        sha256: as published by its authors; None where they publish none.
        size_bytes: roughly, where known; for the check of free space.
        by_hand: what to do where there is no URL.
    """

    file: str
    urls: tuple[str, ...] = ()
    sha256: str | None = None
    size_bytes: int | None = None
    by_hand: str = ""


@dataclass(frozen=True)
class Pictures:
    """A set of pictures; benchmarks may share one.

    Attributes:
        folder: where it lies below the data folder.
        archives: what it is made of; each is unpacked into a folder of its own.
        damaged: names of files that are no pictures in the published archive; no ground truth uses them.
        passed_over: names of folders in the archives that hold no pictures of the benchmark.
    """

    folder: str
    archives: tuple[Archive, ...] = ()
    damaged: frozenset[str] = frozenset()
    passed_over: tuple[str, ...] = ()


@dataclass(frozen=True)
class BenchmarkSource:
    """One benchmark.

    Attributes:
        name: its key in :data:`BENCHMARKS`.
        title: what it is, in a few words.
        kind: how its ground truth is written.
        pictures: its pictures; None where they are the user's own.
        truth: files of its ground truth; none where the names of the pictures say it all.
        images: number of database pictures; None where it is not fixed.
        queries: number of queries.
        measures: as in :class:`coocnet.evaluate.GroundTruth`.
        upright: whether pictures are turned by their EXIF orientation. The field's code ignores that tag and the
            boxes are in stored pixels, so benchmarks are taken as stored unless they say otherwise.
        note: what a user should know.
    """

    name: str
    title: str
    kind: Kind
    pictures: Pictures | None = None
    truth: tuple[Archive, ...] = ()
    images: int | None = None
    queries: int | None = None
    measures: tuple[str, ...] = ("map",)
    upright: bool = False
    note: str = ""


_VGG = "https://www.robots.ox.ac.uk/~vgg/data"
_CIRTORCH = "http://cmp.felk.cvut.cz/cnnimageretrieval/data"
_REVISITOP = "http://cmp.felk.cvut.cz/revisitop/data/datasets"
_DISTRACTORS = "http://ptak.felk.cvut.cz/revisitop/revisitop1m/jpg"
_HOLIDAYS = "ftp://ftp.inrialpes.fr/pub/lear/douze/data"


def _one(url: str, size_bytes: int | None = None) -> Archive:
    return Archive(url.rpartition("/")[2], (url,), size_bytes=size_bytes)


def _by_ftp(url: str, size_bytes: int) -> Archive:
    how = f"It is offered by FTP alone, which coocnet does not speak: fetch it with  curl -C - -O {url}"
    return Archive(url.rpartition("/")[2], size_bytes=size_bytes, by_hand=how)


_PARIS_DAMAGED = frozenset(
    f"paris_{name}"
    for name in [
        "louvre_000136",
        "louvre_000146",
        "moulinrouge_000422",
        "museedorsay_001059",
        "notredame_000188",
        "pantheon_000284",
        "pantheon_000960",
        "pantheon_000974",
        "pompidou_000195",
        "pompidou_000196",
        "pompidou_000201",
        "pompidou_000467",
        "pompidou_000640",
        "sacrecoeur_000299",
        "sacrecoeur_000330",
        "sacrecoeur_000353",
        "triomphe_000662",
        "triomphe_000833",
        "triomphe_000863",
        "triomphe_000867",
    ]
)
"""The 20 of 6,412 files that hold an error page instead of a picture (``parisbuildings/corrupt.txt`` of VGG)."""

_OXFORD = Pictures(
    "oxford-pictures",
    (
        Archive(
            "oxbuild_images-v1.tgz",
            (
                f"{_VGG}/oxbuildings/oxbuild_images-v1.tgz",
                "https://thor.robots.ox.ac.uk/oxbuildings/oxbuild_images-v1.tgz",
            ),
            size_bytes=1_940_000_000,
        ),
    ),
)
_PARIS = Pictures(
    "paris-pictures",
    (_one(f"{_VGG}/parisbuildings/paris_1-v1.tgz"), _one(f"{_VGG}/parisbuildings/paris_2-v1.tgz")),
    _PARIS_DAMAGED,
)
_HOLIDAYS_PICTURES = Pictures(
    "holidays-pictures",
    (_by_ftp(f"{_HOLIDAYS}/jpg1.tar.gz", 1_140_000_000), _by_ftp(f"{_HOLIDAYS}/jpg2.tar.gz", 1_700_000_000)),
)
_BLURRED = "The v1 archives have faces blurred; the originals, which older results used, were withdrawn."
_REVISITED_MEASURES = ("map", "mp@1", "mp@5", "mp@10")


def _classic(name: str, title: str, pictures: Pictures, images: int) -> BenchmarkSource:
    truth = (_one(f"{_CIRTORCH}/test/{name}/gnd_{name}.pkl"),)
    return BenchmarkSource(name, title, "classic", pictures, truth, images, 55, note=_BLURRED)


def _revisited(name: str, title: str, pictures: Pictures, images: int) -> BenchmarkSource:
    truth = (_one(f"{_REVISITOP}/{name}/gnd_{name}.pkl"),)
    return BenchmarkSource(name, title, "revisited", pictures, truth, images, 70, _REVISITED_MEASURES, note=_BLURRED)


_ALL = (
    _classic("oxford5k", "Oxford Buildings, Philbin et al. 2007", _OXFORD, 5063),
    _classic("paris6k", "Paris Buildings, Philbin et al. 2008", _PARIS, 6392),
    _revisited("roxford5k", "Oxford revisited, Radenović et al. 2018", _OXFORD, 4993),
    _revisited("rparis6k", "Paris revisited, Radenović et al. 2018", _PARIS, 6322),
    BenchmarkSource(
        "holidays",
        "INRIA Holidays, Jégou et al. 2008, pixels as stored",
        "holidays",
        _HOLIDAYS_PICTURES,
        images=1491,
        queries=500,
        note="The EXIF orientation is ignored, as most published results do without saying so.",
    ),
    BenchmarkSource(
        "holidays-upright",
        "INRIA Holidays, turned upright",
        "holidays",
        _HOLIDAYS_PICTURES,
        images=1491,
        queries=500,
        upright=True,
        note="Turned by the EXIF orientation. Published 'rotated' results come from a copy that was turned by hand, "
        "which is not public as far as we know: they need not agree. Whoever has it names it with --existing.",
    ),
    BenchmarkSource(
        "ukbench",
        "UKBench, Nistér and Stewénius 2006: four views of each object",
        "ukbench",
        Pictures(
            "ukbench-pictures",
            (_one("https://archive.org/download/ukbench/ukbench.zip"),),
            passed_over=("thumbnails",),
        ),
        images=10_200,
        queries=10_200,
        measures=("ns",),
        note="Its authors' page is gone; the address is that of a copy in an archive.",
    ),
    BenchmarkSource(
        "revisitop1m",
        "distractors of the revisited benchmarks: a million pictures",
        "distractors",
        Pictures(
            "revisitop1m-pictures",
            tuple(_one(f"{_DISTRACTORS}/revisitop1m.{number}.tar.gz") for number in range(1, 101)),
        ),
        note="Added to the database of roxford5k or rparis6k; it has no queries of its own.",
    ),
    BenchmarkSource(
        "retrieval-sfm-120k",
        "training pairs from 3D models, Radenović et al. 2018",
        "training",
        Pictures("retrieval-sfm-120k-pictures", (_one(f"{_CIRTORCH}/train/ims/ims.tar.gz"),)),
        (
            _one(f"{_CIRTORCH}/train/dbs/retrieval-SfM-120k.pkl"),
            _one(f"{_CIRTORCH}/train/dbs/retrieval-SfM-120k-whiten.pkl"),
        ),
        note="91,642 pictures to train on and 6,403 to validate; not a benchmark to report.",
    ),
    BenchmarkSource(
        "folder",
        "any folder of pictures with a manifest.csv",
        "manifest",
        measures=("map", "mp@1"),
        upright=True,
        note="Columns image, instance, role (database, query or both) and, for a part of the query, x1, y1, x2, y2.",
    ),
)
BENCHMARKS: dict[str, BenchmarkSource] = {source.name: source for source in _ALL}
"""Every benchmark by name."""


def lookup(name: str) -> BenchmarkSource:
    """The entry of a benchmark.

    Raises:
        InputError: there is none of this name; the message lists those there are.
    """
    if name not in BENCHMARKS:
        raise InputError(f"no benchmark is called {name!r}; there are {', '.join(BENCHMARKS)}")
    return BENCHMARKS[name]
