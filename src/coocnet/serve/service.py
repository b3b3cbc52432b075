"""The service without HTTP: an index, the threads that work on it, and what requests ask of them."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from coocnet import __version__
from coocnet.errors import CoocnetError, InputError, printable
from coocnet.index import Hit, IndexInfo, LocalIndex, open_index
from coocnet.serve import editing, models
from coocnet.serve.desks import Asking, Desk, SearchDesk
from coocnet.serve.jobs import Job, SyncJobs, need_folder
from coocnet.serve.metrics import Metrics
from coocnet.serve.pictures import PictureFiles
from coocnet.serve.problems import Places, Problem, log, problem_of
from coocnet.serve.queries import Queries, Source
from coocnet.serve.settings import Settings

if TYPE_CHECKING:
    from numpy.typing import NDArray

T = TypeVar("T")

_INFO_STANDS_S = 2.0
_SKIPPED_TOLD = 1000
_LEAST_THREADS = 2
_RECEIVED_AT_ONCE = 8
_READ_AT_ONCE = 8


@dataclass(frozen=True)
class Asked:
    """A page of a ranking that is asked for."""

    asking: Asking
    offset: int
    limit: int
    relevant: Sequence[bytes] = ()


class Service:
    """An index that is served. Made by :func:`coocnet.serve.make_app`; its threads begin with :meth:`start`.

    Attributes:
        settings: how it is served.
        metrics: what it counts.
        files: the collection's pictures.
        queries: pictures that were sent, and rows.
        closing: set once the service is told to end.
        receiving: bounds how many pictures arrive at once, and with them the memory.
        reading: bounds how many originals are read at once.
    """

    def __init__(self, settings: Settings) -> None:
        with self._opened(settings) as index:
            folders = index.folders
            location = index.location
        self.settings = settings
        self.metrics = Metrics()
        self.files = PictureFiles(settings)
        self.queries = Queries(settings, self.files)
        self.closing = asyncio.Event()
        self.receiving = asyncio.Semaphore(_RECEIVED_AT_ONCE)
        self.reading = asyncio.Semaphore(_READ_AT_ONCE)
        self.name = printable(os.path.basename(location).removesuffix(".cooc") or "photographs")
        home = os.path.expanduser("~")
        self.places = Places([location, *folders, settings.place, settings.add_to, home, os.getcwd()])
        self._info: tuple[float, models.Info] | None = None
        self._ready = ""
        threads = max(_LEAST_THREADS, os.cpu_count() or 1)
        self._lookups = Desk("lookup", self.open, threads=threads, waiting=4 * settings.at_once)
        self._compute = Desk("compute", self.open, threads=_LEAST_THREADS, waiting=settings.at_once)
        self._writer = Desk("write", self.open, threads=1, waiting=8)
        self._search = SearchDesk(self.open, waiting=settings.at_once, batched=self.metrics.batch.observe)
        self.jobs = SyncJobs(self.open, self.queries.describer, self.places)

    def open(self) -> LocalIndex:
        """The index, for the thread that calls."""
        return self._opened(self.settings)

    async def start(self) -> None:
        """Loads what answers need, so that the first does not wait for it."""
        try:
            await self._search.do(_made_ready)
            await self._compute.do(self.queries.describer)
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
        for desk in (self._lookups, self._compute, self._writer, self._search):
            desk.close()

    @property
    def health(self) -> models.Health:
        """Whether it is ready to answer."""
        if not self._ready:
            return models.Health(status="starting", detail="the network is being loaded")
        return (
            models.Health(status="ok") if self._ready == "ok" else models.Health(status="failed", detail=self._ready)
        )

    # What the collection is

    async def info(self) -> models.Info:
        """What the index holds; at most some seconds old."""
        held = self._info
        if held is not None and time.monotonic() - held[0] < _INFO_STANDS_S:
            return held[1]
        # Where a search's rows are held already, the cut is computed once for all.
        found, names, cut = await self._search.do(_facts)
        info = self._told(found, names, cut)
        self.metrics.pictures.set(info.pictures)
        self._info = time.monotonic(), info
        return info

    def _told(self, info: IndexInfo, skipped: Sequence[models.Skipped], cut: float | None) -> models.Info:
        from coocnet.ranking import EXPANSIONS, RERANKINGS  # noqa: PLC0415 - beside what loads it

        recipe = info.recipe
        in_force = info.approximate is not None and not info.out_of_force
        can_write = not self.settings.read_only
        return models.Info(
            version=__version__,
            name=self.name,
            pictures=info.pictures,
            contents=info.contents,
            recipe=models.RecipeFacts(
                name=recipe.name,
                fingerprint=recipe.fingerprint(),
                backbone=recipe.backbone,
                tap=recipe.tap,
                size_px=recipe.size_px,
                pooling=recipe.pooling,
                dim=info.dim,
            ),
            engines=info.engines,
            whitening=None if info.whitening is None else self._whitening_facts(info.whitening),
            search="approximate" if in_force else "exact",
            recall=info.approximate.recall if in_force and info.approximate is not None else None,
            size_bytes=info.size_bytes,
            made=info.made,
            folders=[
                models.Folder(
                    number=number,
                    name=printable(os.path.basename(one.path) or "/"),
                    pictures=one.pictures,
                    synchronised=one.synchronised,
                )
                for number, one in enumerate(info.folders)
            ],
            skipped=[models.Skipped(name=one.name, reason=self.places.without(one.reason)) for one in skipped],
            skipped_total=len(info.skipped),
            auto_threshold=cut,
            expansions=list(EXPANSIONS),
            rerankings=list(RERANKINGS),
            explains=self._explains(recipe.pooling, len(recipe.scales), recipe.scale_power),
            can_add=can_write and bool(self.settings.add_to),
            can_write=can_write,
            limits=models.Limits(
                upload_bytes=self.settings.upload_bytes,
                upload_megapixels=self.settings.upload_px / 1e6,
                hits=self.settings.hits,
            ),
        )

    def _whitening_facts(self, facts: dict[str, str]) -> dict[str, str]:
        told = {key: self.places.without(value) for key, value in facts.items() if key != "fitted_on"}
        return {key: value for key, value in told.items() if len(value) < 200}

    @staticmethod
    def _explains(pooling: str, scales: int, scale_power: float) -> bool:
        from coocnet.explain import EXPLAINED  # noqa: PLC0415 - loads torch, only where needed

        return pooling in EXPLAINED and (scale_power == 1 or scales == 1)

    # What requests ask

    async def look_up(self, work: Callable[[LocalIndex], T]) -> T:
        """Does something short with the index, or with a file."""
        return await self._lookups.do(work)

    async def compute(self, work: Callable[[LocalIndex], T]) -> T:
        """Does something with the network."""
        return await self._compute.do(work)

    async def search(self, row: NDArray[Any], asked: Asked, *, identical: bytes | None = None) -> models.Found:
        """A page of the ranking for a row; files of one content are one hit."""
        most = self.settings.hits
        if asked.offset + asked.limit > most:
            raise Problem(422, "request", f"a ranking goes to place {most}: got offset + limit above it")
        wanted = files = asked.offset + asked.limit + 1
        while True:
            asking = replace(asked.asking, k=files)
            answer = await self._search.search(row, asking, relevant=asked.relevant)
            different = _different(answer.hits)
            if len(different) >= wanted or len(answer.hits) < files:
                break
            files *= 4  # many of the hits are copies of one another
        shown = different[asked.offset : asked.offset + asked.limit]
        nearest = max((hit.similarity for hit in different), default=None)
        if nearest is None:
            first = await self._search.search(row, Asking(1, expansion="none"))
            nearest = first.hits[0].similarity if first.hits else None
        told = await self._lookups.do(lambda index: self._hits(index, shown, asked.offset, identical))
        return models.Found(
            hits=told,
            more=len(different) > asked.offset + asked.limit,
            threshold=answer.threshold,
            nearest=nearest,
            approximate=answer.approximate,
        )

    def _hits(self, index: LocalIndex, hits: Sequence[Hit], offset: int, identical: bytes | None) -> list[models.Hit]:
        found = []
        names = index.names_of(hit.path for hit in hits)
        counts = index.file_counts([hit.digest for hit in hits])
        for rank, (hit, name) in enumerate(zip(hits, names, strict=True), start=offset + 1):
            size = self.files.measured(hit.digest, hit.path)
            found.append(
                models.Hit(
                    rank=rank,
                    id=hit.digest.hex(),
                    name=name,
                    names_total=counts.get(hit.digest, 1),
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
        if not folder:
            raise Problem(403, "no-adding", "this service was started without --add-to FOLDER, so nothing is added")
        describer = self.queries.describer
        return await self._writer.do(
            lambda index: editing.add(index, content, name, folder=folder, describer=describer)
        )

    async def remove(self, digest: bytes) -> None:
        """Takes a picture out; see :func:`coocnet.serve.editing.remove`."""
        self.need_writable()
        await self._writer.do(lambda index: editing.remove(index, digest))

    async def restore(self, digest: bytes) -> None:
        """Takes a picture back; see :func:`coocnet.serve.editing.restore`."""
        self.need_writable()
        describer = self.queries.describer
        await self._writer.do(lambda index: editing.restore(index, digest, describer=describer))

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
    def _opened(settings: Settings) -> LocalIndex:
        return open_index(settings.place, settings.recipe)


def source_of(picture: str | None, upload: str | None, box: Any = None) -> Source:
    """What a request means to search for.

    Raises:
        InputError: neither or both are given.
    """
    if (picture is None) == (upload is None):
        raise InputError("name either a picture of the collection or an upload: picture=ID or upload=ID")
    return Source(bytes.fromhex(picture or upload or ""), upload is not None, box)


def _facts(index: LocalIndex) -> tuple[IndexInfo, list[models.Skipped], float | None]:
    info = index.info()
    skipped = [
        models.Skipped(name=index.name_of(path), reason=reason)
        for path, reason in list(info.skipped.items())[:_SKIPPED_TOLD]
    ]
    try:
        cut = index.auto_threshold()
    except InputError:
        cut = None
    return info, skipped, cut


def _made_ready(index: LocalIndex) -> None:
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
