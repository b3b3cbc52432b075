"""Threads that hold the index open and do what requests ask: never more at once than a machine can bear.

A connection to the index belongs to the thread that opened it, so each thread here opens its own. What waits is
bounded too: a request that finds the queue full is refused at once and told so, and does not wait to be forgotten.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
from jaxtyping import Float

from coocnet.errors import CoocnetError, IndexStorageError
from coocnet.index import Hit, LocalIndex
from coocnet.serve.problems import overloaded

T = TypeVar("T")
Opener = Callable[[], LocalIndex]

QUERIES_AT_ONCE = 64
_SHARE_OF_TIME = 0.1


class _Held:
    """A thread's index, opened at its first use, and anew where the index was replaced."""

    def __init__(self, opener: Opener) -> None:
        self._opener = opener
        self._index: LocalIndex | None = None

    def index(self) -> LocalIndex:
        if self._index is not None:
            try:
                self._index.check_in_place()
            except IndexStorageError:
                self._index.close()
                self._index = None
        if self._index is None:
            self._index = self._opener()
        return self._index


class Desk:
    """A few threads for work on the index, and a bounded queue before them.

    Args:
        name: of the threads.
        opener: opens the index, in the thread that uses it.
        threads: how many work at once.
        waiting: how many pieces of work may wait.
    """

    def __init__(self, name: str, opener: Opener, *, threads: int, waiting: int) -> None:
        self._opener = opener
        self._local = threading.local()
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._most = threads + waiting
        self._taken = 0
        self._guard = threading.Lock()

    async def do(self, work: Callable[[LocalIndex], T]) -> T:
        """Does a piece of work on the index in one of the threads.

        Raises:
            Problem: as many pieces of work wait as may.
        """
        with self._guard:
            if self._taken >= self._most:
                raise overloaded()
            self._taken += 1
        future = self._threads.submit(self._done, work)
        future.add_done_callback(self._free)
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Ends the threads when what they do is done; what waits is given up."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _done(self, work: Callable[[LocalIndex], T]) -> T:
        held: _Held | None = getattr(self._local, "held", None)
        if held is None:
            held = self._local.held = _Held(self._opener)
        return work(held.index())

    def _free(self, future: Future[Any]) -> None:
        del future
        with self._guard:
            self._taken -= 1


@dataclass(frozen=True)
class Asking:
    """How is searched, see :meth:`coocnet.index.LocalIndex.search`; what is asked alike is answered together."""

    k: int
    threshold: float | Literal["auto"] | None = None
    expansion: str | None = None
    reranking: str = "none"
    exact: bool = False
    cut: float | None = None


@dataclass(frozen=True)
class Answer:
    """What is found for one query: hits, the least similarity in force, and whether the search was approximate."""

    hits: list[Hit]
    threshold: float | None
    approximate: bool


@dataclass
class _Waiting:
    row: Float[np.ndarray, " d"]
    relevant: tuple[bytes, ...]
    asking: Asking
    answer: Future[Answer]


class SearchDesk:
    """The one thread that searches, for all requests: those that wait are answered by one pass over the rows.

    Reading the rows of a large collection from memory is what a search costs, and many queries share it.

    Args:
        opener: opens the index, in the thread that uses it.
        waiting: how many queries may wait.
        batched: told how many queries each pass answered.
    """

    def __init__(self, opener: Opener, *, waiting: int, batched: Callable[[int], None] = lambda _: None) -> None:
        self._held = _Held(lambda: _patient(opener()))
        self._queue: queue.Queue[_Waiting | Callable[[], None] | None] = queue.Queue(waiting)
        self._batched = batched
        self._is_stale = threading.Event()
        self._thread = threading.Thread(target=self._work, name="search", daemon=True)
        self._thread.start()

    async def search(self, row: Float[np.ndarray, " d"], asking: Asking, *, relevant: Sequence[bytes] = ()) -> Answer:
        """Searches the index; see :meth:`coocnet.index.LocalIndex.search`.

        Raises:
            Problem: as many queries wait as may.
            CoocnetError: as a search raises.
        """
        answer: Future[Answer] = Future()
        self._put(_Waiting(row, tuple(relevant), asking, answer))
        return await asyncio.wrap_future(answer)

    async def do(self, work: Callable[[LocalIndex], T]) -> T:
        """Does a piece of work that needs what a search holds."""
        future: Future[T] = Future()

        def attempt() -> None:
            if future.set_running_or_notify_cancel():
                _fulfil(future, lambda: work(self._held.index()))

        self._put(attempt)
        return await asyncio.wrap_future(future)

    def look_anew(self) -> None:
        """Has the searches asked from now on see what is stored now."""
        self._is_stale.set()

    def close(self) -> None:
        """Ends the thread once everything asked so far is answered."""
        self._queue.put(None)
        self._thread.join()

    def _put(self, item: _Waiting | Callable[[], None]) -> None:
        try:
            self._queue.put_nowait(item)
        except queue.Full:
            raise overloaded() from None

    def _work(self) -> None:
        ended = False
        while not ended:
            items = [self._queue.get()]
            while len(items) < QUERIES_AT_ONCE and not self._queue.empty():
                items.append(self._queue.get())
            alike: dict[Asking, list[_Waiting]] = {}
            for item in items:
                if item is None:
                    ended = True
                elif isinstance(item, _Waiting):
                    if item.answer.set_running_or_notify_cancel():
                        alike.setdefault(item.asking, []).append(item)
                else:
                    item()
            for asking, group in alike.items():
                self._answer(asking, group)

    def _answer(self, asking: Asking, group: list[_Waiting]) -> None:
        try:
            answers = self._found(asking, group)
        except CoocnetError:
            # One query of several may be amiss: each has its own answer then.
            for one in group:
                _fulfil(one.answer, lambda one=one: self._found(asking, [one])[0])  # type: ignore[misc]
        except Exception as error:  # noqa: BLE001 - belongs to those who asked
            for one in group:
                one.answer.set_exception(error)
        else:
            for one, answer in zip(group, answers, strict=True):
                one.answer.set_result(answer)

    def _found(self, asking: Asking, group: list[_Waiting]) -> list[Answer]:
        index = self._held.index()
        if self._is_stale.is_set():
            self._is_stale.clear()
            index.look_anew()
        found = index.search(
            np.stack([one.row for one in group]),
            k=asking.k,
            threshold=asking.threshold,
            cut=asking.cut,
            expansion=asking.expansion,
            reranking=asking.reranking,
            exact=asking.exact or None,
            relevant=[one.relevant for one in group] if any(one.relevant for one in group) else None,
        )
        least = asking.cut if asking.threshold == "auto" else asking.threshold
        approximate = not asking.exact and index.approximates(
            k=asking.k, expansion=asking.expansion, reranking=asking.reranking
        )
        self._batched(len(group))
        return [Answer(hits, least, approximate) for hits in found]


def _patient(index: LocalIndex) -> LocalIndex:
    index.let_rows_stand(_SHARE_OF_TIME)
    return index


def _fulfil(future: Future[T], work: Callable[[], T]) -> None:
    try:
        future.set_result(work())
    except Exception as error:  # noqa: BLE001 - belongs to the one who asked
        future.set_exception(error)
