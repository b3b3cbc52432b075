"""Search of very large collections through FAISS: fast, with a recall that was measured, and exact similarities.

The contents are sorted into lists by their nearest centroid (inverted file), each number of a row in one byte; a
query looks through the lists that are nearest to it. What FAISS finds are candidates: their similarities are computed
anew from the rows themselves, so only a picture that is missed tells the answer from an exact one. Contents that came
since are searched exactly beside it, those that are gone are left out, so nothing waits for it to be built anew.

It is derived: ``approximate.npz`` says what it was built of and names the file of FAISS. What does not fit is
ignored. FAISS is an extra (``pip install "coocnet[ann]"``), loaded by the first search that uses it; its threads are
those of OpenMP (``OMP_NUM_THREADS``), which belong to the whole process and are left alone.
"""

from __future__ import annotations

import hashlib
import importlib.util
import math
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8

from coocnet.errors import InputError
from coocnet.index.derived import UNREADABLE, Derived, spread
from coocnet.index.kept import Pictures, firsts, places
from coocnet.ranking.nearest import nearest, similarities_of_pairs
from coocnet.whitening import unit_rows

BUILD_FROM = 500_000
"""From here on a sync builds one where FAISS is installed: below, an exact search takes less time than it takes to
describe the picture that is searched for (results/search.json)."""
LONGEST = 100
"""More hits than this are searched exactly in any case."""
RECALL = 0.95
"""Both recalls of :class:`ApproximateInfo` are at least this when it is built."""
_UNASKED_RECALL, _UP_TO = 0.9, (10, 20, 50, LONGEST)
_MISSING = 'an approximate search needs FAISS: pip install "coocnet[ann]"'
_OVERTAKEN = "more than a fifth of the pictures came since it was built; the next sync builds it anew"
_TAKEN_AWAY = b"taken away by a repair\n"
_ANEW = "build it anew with coocnet index DIR --ann"
ANOTHER_WHITENING = f"it was built with another whitening; {_ANEW}"
"""Why one is no longer in force."""
_USED_UNTIL = 0.2  # of the pictures are newer than it
_REBUILT_FROM = 0.1
_BESIDE = Derived("approximate.npz", "approximate-{}.faiss")
_READ_WHOLE = 64 << 20  # bytes of a file that is read to its end whenever it is opened
SAMPLE = 500
"""Pictures that recall is measured with."""
_TRAINED_ON, _ROUNDS = 32, 8
_SPARE = 32
_AT_ONCE = 8192
_NOT_BY_FAISS = (RuntimeError, OSError, ValueError, TypeError)  # the last two where a name is not text


@dataclass(frozen=True)
class ApproximateInfo:
    """What is known of the approximate search of an index.

    Attributes:
        contents: different pictures it was built of.
        lists: into which they were sorted.
        probes: lists that a query looks through.
        recall: measured when it was built: of the ten most similar pictures to one of the collection, itself left
            out, the part that is found; the mean over 500 of them.
        recall_of_others: the same for 500 queries that are like no picture, each the mean of three of those rows;
            pictures from elsewhere were found to lie between the two (docs/search.md).
        recall_at_100: the same of the hundred most similar, the lesser of both kinds.
        up_to: hits that are answered approximately without being asked for: 10, 20, 50 or 100, the most of which both
            kinds of queries find 0.9.
        installed: whether FAISS is here; if not, searches are exact.
    """

    contents: int
    lists: int
    probes: int
    recall: float
    recall_of_others: float
    recall_at_100: float
    up_to: int
    installed: bool


def need_contents(count: int) -> None:
    """Refuses collections that are too small for an approximate search.

    Raises:
        InputError: fewer than 1,000 different pictures.
    """
    if count < 2 * SAMPLE:
        raise InputError(
            f"an approximate search needs {2 * SAMPLE} different pictures, this collection has {count}: "
            "an exact one takes no time there"
        )


def is_installed() -> bool:
    """Whether FAISS is here; it is not loaded."""
    try:
        return importlib.util.find_spec("faiss") is not None
    except (ImportError, ValueError):
        return False


def need_faiss() -> None:
    """Loads FAISS.

    Raises:
        InputError: it is not installed, or does not load; the message says which.
    """
    _faiss()


@dataclass(frozen=True)
class Approximate:
    """An approximate search that was built: which contents it knows, and the state whose pictures ``shown`` names."""

    info: ApproximateInfo
    digests: UInt8[np.ndarray, "m 16"]
    state: str
    shown: Int[np.ndarray, " n"]
    file: Path

    @classmethod
    def build(
        cls,
        folder: Path,
        kind: dict[str, str],
        state: str,
        pictures: Pictures,
        progress: Callable[[int, int], None] | None = None,
    ) -> Approximate:
        """Builds one and keeps it beside the index.

        Raises:
            InputError: FAISS is not installed, fewer than 1,000 different pictures, pictures that are so little alike
                that it would not be faster, or it cannot be written.
        """
        faiss = _faiss()
        first = firsts(pictures.digests)
        need_contents(len(first))
        if progress is not None:
            progress(0, len(first))  # the lists are learned before they are filled
        built = _sorted_into_lists(pictures.rows, first, progress)
        digests = pictures.digests[first]
        try:
            info = _tuned(built, pictures.rows, first)
        except TooLittleAlikeError as error:
            with suppress(InputError):
                _remember_refusal(folder, kind, digests, str(error))
            raise
        shown = np.arange(len(first)) if len(first) == len(pictures.digests) else places(digests, pictures.digests)
        token, file = _BESIDE.new(folder)
        try:
            faiss.write_index(built, str(file))
            known = {key: value for key, value in asdict(info).items() if key != "installed"}
            facts = {
                "kind": _without_storage(kind),
                "state": state,
                "token": token,
                "sample": _digest(file, wholly=False),
                "digest": _digest(file, wholly=True),
                "info": known,
            }
            _BESIDE.write(folder, facts, {"digests": digests, "shown": shown})
        except BaseException as error:
            with suppress(OSError):
                file.unlink()
            if isinstance(error, _NOT_BY_FAISS):
                raise InputError(f"the approximate search cannot be kept: {error}") from error
            raise
        return cls(info, digests, state, shown, file)

    def content_of(self, state: str, digests: UInt8[np.ndarray, "n 16"]) -> Int[np.ndarray, " n"]:
        """The number of the content of each picture; -1 for one that came since."""
        return self.shown if state == self.state else places(self.digests, digests)

    def is_overtaken(self, state: str, digests: UInt8[np.ndarray, "n 16"]) -> bool:
        """Whether so many pictures came since that it is not to be used."""
        content = self.content_of(state, digests)
        return bool((content < 0).sum() > _USED_UNTIL * len(content))


class TooLittleAlikeError(InputError):
    """Refused for what the pictures are, so that it would be refused again."""


@dataclass(frozen=True)
class Standing:
    """What there is of an approximate search for the rows of an index.

    Attributes:
        built: one that was built of these rows, or None.
        reason: why one that was built, or was to be built, is not in force; empty where there never was one.
        refused: the contents for which building it did not pay, or None.
    """

    built: Approximate | None = None
    reason: str = ""
    refused: UInt8[np.ndarray, "m 16"] | None = None

    @staticmethod
    def is_kept(folder: Path) -> bool:
        """Whether one was built, or refused, for whatever rows."""
        return (folder / _BESIDE.table).exists()

    @classmethod
    def of(cls, folder: Path, kind: dict[str, str], *, wholly: bool = False) -> Standing:
        """What is kept beside an index for rows of this kind.

        Of a file of more than 64 MiB only 64 blocks are compared with what was written, unless ``wholly``.
        """
        if not cls.is_kept(folder):
            return cls()
        try:
            with _BESIDE.reading(folder) as (facts, array):
                made_of, wanted = facts["kind"], _without_storage(kind)
                if "refused" in facts:
                    return cls(reason=facts["refused"], refused=array("digests")) if made_of == wanted else cls()
                if made_of != wanted:
                    is_of_other_rows = made_of["whitening"] == wanted["whitening"]
                    return cls(
                        reason=f"it was built with other rows; {_ANEW}" if is_of_other_rows else ANOTHER_WHITENING
                    )
                file = _BESIDE.file_of(folder, facts)
                wholly = wholly or os.stat(file).st_size <= _READ_WHOLE
                if facts["digest" if wholly else "sample"] == _digest(file, wholly=wholly):
                    info = ApproximateInfo(**facts["info"], installed=is_installed())
                    return cls(Approximate(info, array("digests"), facts["state"], array("shown"), file))
        except UNREADABLE:
            pass
        if _is_taken_away(folder):
            return cls(reason=f"a repair took it away; {_ANEW}")
        return cls(reason=f"its files are damaged, or of another version; {_ANEW}")

    def is_due(self, digests: UInt8[np.ndarray, "n 16"]) -> bool:
        """Whether a sync should build one for pictures with these contents."""
        many = len(digests) >= BUILD_FROM
        known = self.refused if self.built is None else self.built.digests
        if known is None:
            return many or bool(self.reason)
        if self.built is None and not many:
            return False
        different = digests[firsts(digests)]
        unknown = int((places(known, different) < 0).sum())
        gone = len(known) - (len(different) - unknown)
        return bool(unknown + gone > _REBUILT_FROM * len(known))

    def why_not(self, state: str, digests: Callable[[], UInt8[np.ndarray, "n 16"]]) -> str:
        """Why no approximate search is in force for the pictures of this state; empty where one is, or never was."""
        if self.built is None:
            return self.reason
        if not self.built.info.installed:
            return _MISSING
        return _OVERTAKEN if state != self.built.state and self.built.is_overtaken(state, digests()) else ""


def damage(folder: Path) -> str:
    """What is damaged of an approximate search that is kept; empty where nothing is, or nothing is kept."""
    if not Standing.is_kept(folder) or _is_taken_away(folder):
        return ""
    try:
        with _BESIDE.reading(folder) as (facts, array):
            array("digests")
            if "refused" not in facts:
                array("shown")
                if facts["digest"] != _digest(_BESIDE.file_of(folder, facts), wholly=True):
                    return "the file of the approximate search is not the one that was written"
    except UNREADABLE as error:
        return f"the approximate search cannot be read ({type(error).__name__}: {error})"
    return ""


def _is_taken_away(folder: Path) -> bool:
    with suppress(OSError), open(folder / _BESIDE.table, "rb") as stream:
        return stream.read(len(_TAKEN_AWAY) + 1) == _TAKEN_AWAY
    return False


def take_away(folder: Path) -> None:
    """Takes away what is kept, and leaves a word in its place, for which the next sync builds one anew."""
    if Standing.is_kept(folder):
        (folder / _BESIDE.table).write_bytes(_TAKEN_AWAY)
        for file in folder.glob(_BESIDE.files.format("*")):
            file.unlink(missing_ok=True)


def _remember_refusal(folder: Path, kind: dict[str, str], digests: np.ndarray, why: str) -> None:
    facts = {"kind": _without_storage(kind), "refused": why, "token": _BESIDE.new(folder)[0]}
    _BESIDE.write(folder, facts, {"digests": digests})


class ApproximateSearch:
    """An approximate search in the pictures of one state."""

    def __init__(self, built: Approximate, state: str, pictures: Pictures) -> None:
        self._built = built
        self._rows = pictures.rows
        content = built.content_of(state, pictures.digests)
        self._new = np.flatnonzero(content < 0)
        self._by_content = np.argsort(content, kind="stable")
        self._starts = np.searchsorted(content, np.arange(len(built.digests) + 1), sorter=self._by_content)
        self.up_to = built.info.up_to
        self.reason = _OVERTAKEN if built.is_overtaken(state, pictures.digests) else ""
        self._serves = not self.reason
        self._new_rows = pictures.rows[self._new[: len(self._new) * self._serves]]
        self._faiss: Any = None
        self._options: dict[str, Any] = {}

    def serves(self) -> bool:
        """Whether it can be used: FAISS loads and reads its file, and not too many pictures came since.

        Where not, ``reason`` says why.
        """
        if self._serves and self._faiss is None:
            try:
                faiss = _faiss()
                self._faiss = self._checked(faiss.read_index(str(self._built.file), faiss.IO_FLAG_MMAP))
                # Threads that read ahead of every query would take longer than the query.
                faiss.downcast_InvertedLists(self._faiss.invlists).prefetch_nthread = 0
            except InputError as error:
                self._serves, self.reason = False, str(error)
            except UNREADABLE as error:  # damaged, or another process has built it anew meanwhile
                self._faiss, self._serves, self.reason = None, False, f"FAISS cannot read it ({error}); {_ANEW}"
        return self._serves

    def _checked(self, read: Any) -> Any:
        """What FAISS has read, if it has the form of what was built."""
        lists, count = read.invlists, len(self._built.digests)
        held = sum(lists.list_size(one) for one in range(lists.nlist))
        if not (read.d == self._rows.shape[1] and lists.nlist == read.nlist == self._built.info.lists):
            raise ValueError("lists of other rows")
        if not held == read.ntotal == count:
            raise ValueError(f"{held} contents in lists, {read.ntotal} in all, {count} expected")
        return read

    def nearest(
        self, queries: Float[np.ndarray, "q d"], k: int
    ) -> Iterator[tuple[Int[np.ndarray, " k"], Float[np.ndarray, " k"]]]:
        """Positions and similarities for each query, best first, equal ones in order of position."""
        found = self._faiss.search(queries, k + _SPARE, params=self._parameters())[1]
        new = nearest(self._new_rows, queries, k).positions if len(self._new) else np.empty((len(queries), 0), int)
        for query, contents, beside in zip(queries, found, new, strict=True):
            known = np.unique(contents[(contents >= 0) & (contents < len(self._built.digests))])
            shown = [self._by_content[self._starts[one] : self._starts[one + 1]] for one in known]
            positions = np.sort(np.concatenate([*shown, self._new[beside]]))
            if len(positions) < min(k, len(self._rows)) or not query.any():
                exactly = nearest(self._rows, query[None], k)
                yield exactly.positions[0], exactly.scores[0]
                continue
            similarities = similarities_of_pairs(
                query[None], self._rows, np.zeros(len(positions), np.int64), positions
            )
            best = np.argsort(-similarities, kind="stable")[:k]
            yield positions[best], similarities[best]

    def _parameters(self) -> Any:
        if not self._options:
            faiss = _faiss()
            self._options["nprobe"] = self._built.info.probes
            present = self._starts[1:] > self._starts[:-1]
            if not present.all():
                bits = np.packbits(present, bitorder="little")
                self._bits = bits  # FAISS keeps the address only
                self._options["sel"] = faiss.IDSelectorBitmap(len(present), faiss.swig_ptr(bits))
        return _faiss().SearchParametersIVF(**self._options)


def _faiss() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of its bindings, under newer versions of Python
            import faiss  # noqa: PLC0415 - only where an approximate search is used
    except Exception as error:  # a broken installation raises anything
        if isinstance(error, ModuleNotFoundError) and error.name == "faiss":
            raise InputError(_MISSING) from error
        raise InputError(
            f"FAISS is installed but does not load ({type(error).__name__}: {error}): install it anew, "
            'pip install --force-reinstall "coocnet[ann]"'
        ) from error
    return faiss


def _sorted_into_lists(
    rows: Float[np.ndarray, "n d"], first: Int[np.ndarray, " m"], progress: Callable[[int, int], None] | None
) -> Any:
    """The lists of FAISS. Centroids and assignment by numpy, whose matrix products are five times as fast."""
    faiss = _faiss()
    random = np.random.default_rng(0)
    count = int(4 * math.sqrt(len(first)))
    # What recall is measured with takes no part in the training.
    drawn = random.permutation(len(first))[SAMPLE : SAMPLE + _TRAINED_ON * count]
    sample = rows[first[np.sort(drawn)]].astype(np.float32)
    centroids = _centroids(sample, count, random)
    coarse = faiss.IndexFlatIP(rows.shape[1])
    coarse.add(centroids)
    built = faiss.IndexIVFScalarQuantizer(
        coarse, rows.shape[1], count, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT, False
    )
    built.train(sample)
    for start in range(0, len(first), _AT_ONCE):
        block = np.ascontiguousarray(rows[first[start : start + _AT_ONCE]], np.float32)
        numbers = np.arange(start, start + len(block))
        lists = (block @ centroids.T).argmax(1)
        built.add_core(len(block), *(faiss.swig_ptr(array) for array in (block, numbers, lists)))
        if progress is not None:
            progress(start + len(block), len(first))
    return built


def _centroids(sample: Float[np.ndarray, "s d"], count: int, random: np.random.Generator) -> Float[np.ndarray, "c d"]:
    """Spherical k-means: unit means of the rows that are nearest to each; an empty one starts from a row again."""
    centroids = sample[random.choice(len(sample), count, replace=False)]
    for _ in range(_ROUNDS):
        blocks = (sample[start : start + _AT_ONCE] for start in range(0, len(sample), _AT_ONCE))
        nearest_one = np.concatenate([(block @ centroids.T).argmax(1) for block in blocks])
        order = np.argsort(nearest_one, kind="stable")
        sizes = np.bincount(nearest_one, minlength=count)
        starts = np.minimum(np.cumsum(sizes) - sizes, len(sample) - 1)
        sums = np.add.reduceat(sample[order], starts)
        sums[sizes == 0] = sample[random.choice(len(sample), int((sizes == 0).sum()))]
        centroids = unit_rows(sums)
    return centroids


def _tuned(built: Any, rows: Float[np.ndarray, "n d"], first: Int[np.ndarray, " m"]) -> ApproximateInfo:
    """How many lists a query has to look through, and the recalls that were measured with it."""
    random = np.random.default_rng(0)
    numbers = random.permutation(len(first))[:SAMPLE]
    queries = queries_like(rows[first[numbers]].astype(np.float32), random)
    itself = np.append(numbers, np.full(SAMPLE, -1))
    different = rows if len(first) == len(rows) else rows[first]
    truth = nearest(different, queries, LONGEST + 1)
    others = -np.sort(-np.where(truth.positions == itself[:, None], -np.inf, truth.scores), axis=1)

    def found(k: int, probes: int) -> Iterator[Float[np.ndarray, " _"]]:
        options = _faiss().SearchParametersIVF(nprobe=probes)
        contents = built.search(queries, k + _SPARE, params=options)[1]
        candidates = (contents >= 0) & (contents != itself[:, None])
        scores = similarities_of_pairs(queries, different, np.nonzero(candidates)[0], contents[candidates])
        yield from np.split(scores, np.cumsum(candidates.sum(axis=1))[:-1])

    return tuned(others, found, contents=len(first), lists=int(built.nlist))


def queries_like(rows: Float[np.ndarray, "s d"], random: np.random.Generator) -> Float[np.ndarray, "2s d"]:
    """Queries to measure recall with: some rows of a collection, then as many that are each like three of these."""
    mixed = np.sum([rows[random.permutation(len(rows))] for _ in range(3)], axis=0)
    return np.concatenate([rows, unit_rows(mixed)])


def tuned(
    others: Float[np.ndarray, "2s k"],
    found: Callable[[int, int], Iterable[Float[np.ndarray, " _"]]],
    *,
    contents: int,
    lists: int,
) -> ApproximateInfo:
    """How many lists a query has to look through, and the recalls that are measured with it.

    Args:
        others: of each of :func:`queries_like` the highest similarities to contents other than itself, falling, to
            :data:`LONGEST` of them at least.
        found: for so many hits and so many lists, the similarities to what each query finds, itself left out.
        contents: how many there are.
        lists: how many there are.

    Raises:
        InputError: more than half of the lists would have to be looked through.
    """
    half = len(others) // 2

    def recalls(k: int) -> tuple[float, float]:
        hits = np.array(
            [
                min(k, int((scores >= best[k - 1] - 1e-6).sum()))
                for best, scores in zip(others, found(k, probes), strict=True)
            ]
        )
        return round(float(hits[:half].mean()) / k, 4), round(float(hits[half:].mean()) / k, 4)

    probes = 1
    while min(ten := recalls(_UP_TO[0])) < RECALL:
        probes += max(1, probes // 4)
        if probes > lists // 2:
            raise TooLittleAlikeError(
                f"an approximate search would have to look through more than half of its lists, where it finds "
                f"{min(ten):.3f} of what it should: these pictures are too little alike, so searches stay exact"
            )
    least = [min(ten), *(min(recalls(k)) for k in _UP_TO[1:])]
    enough = next((at for at, recall in enumerate(least) if recall < _UNASKED_RECALL), len(least))
    return ApproximateInfo(
        contents, lists, probes, *ten, recall_at_100=least[-1], up_to=_UP_TO[enough - 1], installed=True
    )


def _without_storage(kind: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in kind.items() if key != "storage"}


def _digest(file: Path, *, wholly: bool) -> str:
    """The size of a file and a digest of its content, or of some of its blocks, the first and the last among them."""
    digest, size = hashlib.blake2b(digest_size=16), os.stat(file).st_size
    with open(file, "rb") as stream:
        if wholly:
            while block := stream.read(1 << 20):
                digest.update(block)
        else:
            for start in spread(size - 4095, 64):
                stream.seek(int(start))
                digest.update(stream.read(4096))
    return f"{size} {digest.hexdigest()}"
