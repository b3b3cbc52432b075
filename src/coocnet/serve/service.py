"""The service without HTTP: an index, the threads that work on it, and what requests ask of them."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from coocnet.errors import CoocnetError, InputError, printable
from coocnet.index import Hit, Index, open_index
from coocnet.serve import editing, models
from coocnet.serve.cut import LearnedCut
from coocnet.serve.desks import Answer, Asking, Desk, SearchDesk
from coocnet.serve.facts import info_document
from coocnet.serve.jobs import Job, SyncJobs, need_folder
from coocnet.serve.metrics import Metrics
from coocnet.serve.pictures import PictureFiles
from coocnet.serve.problems import Places, Problem, log, problem_of
from coocnet.serve.queries import Queries, Source
from coocnet.serve.settings import Settings
from coocnet.serve.shares import Shares

if TYPE_CHECKING:
    from numpy.typing import NDArray

T = TypeVar("T")

_INFO_STANDS_S = 2.0
_LEAST_THREADS = 2
_MOST_DECODING = 4
_RERANKINGS_WAIT = 8
_RERANKING_TAKES_S = 30
_ENDS_WITHIN_S = 2.0
_RECEIVED_AT_ONCE = 16


@dataclass(frozen=True)
class Asked:
    """A page of a ranking that is asked for."""

    asking: Asking
    offset: int
    limit: int
    relevant: Sequence[bytes] = ()


class Service:
    """An index that is served, with the threads that work on it. Made by :func:`coocnet.serve.make_app`.

    Attributes:
        settings: how it is served.
        metrics: what it counts.
        files: the collection's pictures.
        queries: pictures that were sent, and rows.
        closing: set once the service is told to end.
        receiving: bounds how many pictures arrive at once, and with them the memory.
    """

    def __init__(self, settings: Settings) -> None:
        with self._opened(settings) as index:
            folders = [*index.folders, index.thumbnails_place]
            location = index.location
        self.settings = settings
        self.metrics = Metrics()
        self.files = PictureFiles(settings)
        self.queries = Queries(settings, self.files)
        self.closing = asyncio.Event()
        self.receiving = asyncio.Semaphore(_RECEIVED_AT_ONCE)
        self.name = printable(os.path.basename(location).removesuffix(".cooc") or "photographs")
        home = os.path.expanduser("~")
        self.places = Places([location, *folders, settings.place, settings.add_to, home, os.getcwd()])
        self._info: models.Info | None = None
        self._info_stands_until = 0.0
        self._telling: asyncio.Task[None] | None = None
        self._change = self._told_after = object()
        self._ready = ""
        threads = max(_LEAST_THREADS, os.cpu_count() or 1)
        self._lookups = Desk("lookup", self.open, threads=threads, waiting=4 * settings.at_once)
        self._decode = Desk("decode", self.open, threads=min(threads, _MOST_DECODING), waiting=4 * settings.at_once)
        self._compute = Desk("compute", self.open, threads=_LEAST_THREADS, waiting=settings.at_once)
        self._writer = Desk("write", self.open, threads=1, waiting=8)
        self._search = SearchDesk(self.open, waiting=settings.at_once, batched=self.metrics.batch.observe)
        # What a re-ranking needs may take minutes to make, and other searches do not wait for it.
        self._rerank = SearchDesk(self.open, waiting=_RERANKINGS_WAIT, full=_too_many_rerankings)
        self._shares = Shares()
        self._cut = LearnedCut(self._compute)
        self.jobs = SyncJobs(settings, self.places, changed=self._changed)

    def open(self) -> Index:
        """The index, for the thread that calls."""
        return self._opened(self.settings)

    async def start(self) -> None:
        """Loads what answers need, so that the first does not wait for it."""
        try:
            await self._search.do(_made_ready)
            await self.compute(self.queries.warm_up)
            await self._cut.known()
        except CoocnetError as error:
            log.error("%s", error)
            self._ready = problem_of(error, self.places).detail
        except Problem as problem:
            self._ready = problem.detail
        else:
            self._ready = "ok"

    async def close(self) -> None:
        """Ends the threads; what is in work is finished, a sync is stopped where it can go on later."""
        self.closing.set()
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self.jobs.close(self.settings.closing_time_s)
        for desk in (self._lookups, self._decode, self._compute, self._writer):
            desk.close()
        for searching in (self._search, self._rerank):
            searching.close(_ENDS_WITHIN_S)

    async def health(self) -> models.Health:
        """Whether it is ready to answer.

        Raises:
            Problem: 503, it has too much to do.
            CoocnetError: the index cannot be read now.
        """
        await self._lookups.do(lambda index: index.dim)
        if not self._ready:
            return models.Health(status="starting", detail="the network is being loaded")
        if self._ready != "ok":
            return models.Health(status="failed", detail=self._ready)
        return models.Health(status="ok")

    # What the collection is

    async def info(self) -> models.Info:
        """What the index holds; some seconds old where it takes long to tell, but never older than a change by us."""
        change = self._change
        while self._telling is not None or time.monotonic() >= self._info_stands_until:
            if self._telling is None:
                self._telling = asyncio.create_task(self._tell())
            await asyncio.shield(self._telling)
            if self._told_after is change:
                break
        assert self._info is not None
        return self._info

    async def _tell(self) -> None:
        started = time.monotonic()
        change = self._change
        try:
            cut = await self._cut.known()
            self._info = await self._lookups.do(
                lambda index: info_document(index, self.settings, self.places, name=self.name, cut=cut)
            )
            self._told_after = change
            took_s = time.monotonic() - started
            stands_s = max(_INFO_STANDS_S, 10 * took_s) if change is self._change else 0
            self._info_stands_until = time.monotonic() + stands_s
        finally:
            self._telling = None

    # What requests ask

    async def look_up(self, work: Callable[[Index], T]) -> T:
        """Does something short with the index, or with a file."""
        return await self._lookups.do(work)

    async def decode(self, work: Callable[[Index], T]) -> T:
        """Does something that decodes a picture, which may be a large one."""
        return await self._decode.do(work)

    async def compute(self, work: Callable[[Index], T]) -> T:
        """Does something with the network."""

        def with_a_share(index: Index) -> T:
            with self._shares.taken():
                return work(index)

        return await self._compute.do(with_a_share)

    async def search(self, row: NDArray[Any], asked: Asked, *, identical: bytes | None = None) -> models.Found:
        """A page of the ranking for a row; files of one content are one hit."""
        most = self.settings.hits
        if asked.offset + asked.limit > most:
            raise Problem(422, "request", f"a ranking goes to place {most}: got offset + limit above it")
        asking = asked.asking
        gone: list[bytes] = []
        if asked.relevant:
            there = await self._lookups.do(lambda index: index.files_of_each(asked.relevant))
            gone = [one for one in asked.relevant if one not in there]
            asked = replace(asked, relevant=[one for one in asked.relevant if one in there])
        if asking.threshold == "auto":
            asking = replace(asking, cut=await self._cut.needed())
        desk = self._search if asking.reranking == "none" else self._rerank
        wanted = files = asked.offset + asked.limit + 1
        while True:
            answer = await desk.search(row, replace(asking, k=files), relevant=asked.relevant)
            different = _different(answer.hits)
            if len(different) >= wanted or len(answer.hits) < files:
                break
            files *= 4  # many of the hits are copies of one another
        shown = different[asked.offset : asked.offset + asked.limit]
        nearest = await self._nearest(row, answer)
        told = await self._lookups.do(lambda index: self._hits(index, shown, asked.offset, identical))
        return models.Found(
            hits=told,
            more=len(different) > asked.offset + asked.limit,
            threshold=answer.threshold,
            nearest=None if nearest is None else round(nearest, 6),
            approximate=answer.is_approximate,
            gone=[one.hex() for one in gone],
        )

    async def _nearest(self, row: NDArray[Any], answer: Answer) -> float | None:
        """Similarity of the nearest picture to the plain query, whatever the threshold."""
        if answer.hits and answer.is_plain:
            return answer.hits[0].similarity
        first = await self._search.search(row, Asking(1, expansion="none"))
        return first.hits[0].similarity if first.hits else None

    def _hits(self, index: Index, hits: Sequence[Hit], offset: int, identical: bytes | None) -> list[models.Hit]:
        found = []
        files = index.files_of_each([hit.digest for hit in hits])
        # What is not there any more was taken out, or is gone, since the rows were read that were searched.
        there = [(rank, hit) for rank, hit in enumerate(hits, start=offset + 1) if hit.digest in files]
        paths = [hit.path if hit.path in files[hit.digest] else files[hit.digest][0] for _, hit in there]
        for (rank, hit), path, name in zip(there, paths, index.names_of(paths), strict=True):
            size = self.files.measured(hit.digest, path)
            found.append(
                models.Hit(
                    rank=rank,
                    id=hit.digest.hex(),
                    name=name,
                    names_total=len(files[hit.digest]),
                    similarity=round(hit.similarity, 6),
                    identical=hit.digest == identical,
                    width=size.width if size else None,
                    height=size.height if size else None,
                )
            )
        return found

    # What changes the collection

    def need_writable(self) -> None:
        """Refuses where the service only reads.

        Raises:
            Problem: 403.
        """
        if self.settings.read_only:
            raise Problem(403, "read-only", "this service was started with --read-only")

    async def add(self, content: bytes, name: str) -> bytes:
        """Takes a picture into the collection; gives its digest.

        Raises:
            Problem: 403 where the service was not told where to keep such pictures.
            CoocnetError: see :func:`coocnet.serve.editing.add`.
        """
        self.need_writable()
        folder = self.settings.add_to
        await self._lookups.do(lambda _: self.queries.measured(content))
        if not folder:
            raise Problem(403, "no-adding", "this service was started without --add-to FOLDER, so nothing is added")
        describer = self.queries.describer
        digest = await self._writer.do(
            lambda index: editing.add(index, content, name, folder=folder, describer=describer)
        )
        self._changed()
        return digest

    async def remove(self, digest: bytes) -> None:
        """Takes a picture out; see :func:`coocnet.serve.editing.remove`."""
        self.need_writable()
        await self._writer.do(lambda index: editing.remove(index, digest))
        self._changed()

    async def restore(self, digest: bytes) -> None:
        """Takes a picture back; see :func:`coocnet.serve.editing.restore`."""
        self.need_writable()
        describer = self.queries.describer
        await self._writer.do(lambda index: editing.restore(index, digest, describer=describer))
        self._changed()

    def _changed(self) -> None:
        self._change = object()
        self._info_stands_until = 0.0
        for desk in (self._search, self._rerank):
            desk.look_anew()

    async def sync(self, asked: models.SyncAsked) -> Job:
        """Begins to bring folders up to date.

        Raises:
            Problem: 403 or 409; see :meth:`coocnet.serve.jobs.SyncJobs.begin`.
            InputError: no such folder.
        """
        self.need_writable()
        folders = await self._lookups.do(lambda index: index.folders)
        added_to = self.settings.add_to and os.path.realpath(self.settings.add_to)
        if asked.folder is None and added_to and not any(_is_below(added_to, one) for one in folders):
            folders = [*folders, added_to]
        return self.jobs.begin(
            need_folder(folders, asked.folder),
            verify_content=asked.verify_content,
            allow_empty=asked.allow_empty,
        )

    def begin_sync(self, folder: str) -> Job:
        """Begins to bring one folder up to date, which need not be in the index yet."""
        self.places.add([folder, os.path.realpath(folder)])
        return self.jobs.begin([folder])

    @staticmethod
    def _opened(settings: Settings) -> Index:
        if settings.recipe is not None:
            open_index(settings.place).close()  # refuses where there is none, which a recipe would have made
        return open_index(settings.place, settings.recipe)


def source_of(picture: str | None, upload: str | None, box: Any = None) -> Source:
    """What a request means to search for.

    Raises:
        InputError: neither or both are given.
    """
    if (picture is None) == (upload is None):
        raise InputError("name either a picture of the collection or an upload: picture=ID or upload=ID")
    return Source(bytes.fromhex(picture or upload or ""), upload is not None, box)


def _too_many_rerankings() -> Problem:
    detail = "as many searches with re-ranking wait as may; the first one of a collection takes long"
    return Problem(503, "overloaded", detail, retry_after_s=_RERANKING_TAKES_S)


def _made_ready(index: Index) -> None:
    """Searches once, so that the rows are in memory."""
    _, some = index.listing(offset=0, limit=1)
    for _, digest in some:
        row = index.row_of(digest)
        if row is not None:
            index.search(row[None], k=1)


def _different(hits: Sequence[Hit]) -> list[Hit]:
    """The first hit of each content."""
    found: dict[bytes, Hit] = {}
    for hit in hits:
        found.setdefault(hit.digest, hit)
    return list(found.values())


def _is_below(folder: str, root: str) -> bool:
    return os.path.join(folder, "").startswith(os.path.join(root, ""))
