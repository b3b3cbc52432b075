"""Threads that hold the index open and do what requests ask: never more at once than a machine can bear.

A connection to the index belongs to the thread that opened it, so each thread here opens its own. What waits is
bounded too: a request that finds the queue full is refused at once and told so, and does not wait to be forgotten.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

import numpy as np
from jaxtyping import Float

from coocnet.errors import CoocnetError, IndexStorageError
from coocnet.index import Hit, Index
from coocnet.serve.problems import Problem, overloaded

T = TypeVar("T")
Opener = Callable[[], Index]

QUERIES_AT_ONCE = 64
_SHARE_OF_TIME = 0.1


class _Held:
    """A thread's index, opened at its first use, and anew where the index was replaced."""

    def __init__(self, opener: Opener) -> None:
        self._opener = opener
        self._index: Index | None = None

    def index(self) -> Index:
        if self._index is not None:
            try:
                self._index.check_in_place()
            except IndexStorageError:
                self.close()
        if self._index is None:
            self._index = self._opener()
        return self._index

    def close(self) -> None:
        """In the thread that opened it, as every use."""
        index, self._index = self._index, None
        if index is not None:
            index.close()


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
        self._queue: queue.SimpleQueue[Callable[[_Held], None] | None] = queue.SimpleQueue()
        self._most = threads + waiting
        self._taken: set[Future[Any]] = set()
        self._guard = threading.Lock()
        self._threads = [threading.Thread(target=self._work, name=name, daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    async def do(self, work: Callable[[Index], T]) -> T:
        """Does a piece of work on the index in one of the threads.

        Raises:
            Problem: as many pieces of work wait as may.
        """
        future: Future[T] = Future()

        def attempt(held: _Held) -> None:
            if future.set_running_or_notify_cancel():
                _fulfil(future, lambda: work(held.index()))

        with self._guard:
            if len(self._taken) >= self._most:
                raise overloaded()
            self._taken.add(future)
        future.add_done_callback(self._free)
        self._queue.put(attempt)
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Ends the threads, each with its index, when what they do is done; what waits is given up."""
        with self._guard:
            self._most, waiting = 0, list(self._taken)
        for future in waiting:
            future.cancel()
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        held = _Held(self._opener)
        try:
            while (attempt := self._queue.get()) is not None:
                attempt(held)
                del attempt  # and with it what was asked, until the next
        finally:
            held.close()

    def _free(self, future: Future[Any]) -> None:
        with self._guard:
            self._taken.discard(future)


@dataclass(frozen=True)
class Asking:
    """How is searched, see :meth:`coocnet.index.Index.search`; what is asked alike is answered together."""

    k: int
    threshold: float | Literal["auto"] | None = None
    expansion: str | None = None
    reranking: str = "none"
    exact: bool = False
    cut: float | None = None


@dataclass(frozen=True)
class Answer:
    """What is found for one query.

    Attributes:
        hits: best first.
        threshold: the least similarity in force.
        is_approximate: the search was.
        is_plain: similarities are those to the query, and the order is theirs.
    """

    hits: list[Hit]
    threshold: float | None
    is_approximate: bool
    is_plain: bool


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
        full: what a query is told that may not wait.
    """

    def __init__(
        self,
        opener: Opener,
        *,
        waiting: int,
        batched: Callable[[int], None] = lambda _: None,
        full: Callable[[], Problem] = overloaded,
    ) -> None:
        self._held = _Held(lambda: _patient(opener()))
        self._queue: queue.Queue[_Waiting | Callable[[], None] | None] = queue.Queue(waiting)
        self._batched = batched
        self._full = full
        self._is_stale = threading.Event()
        self._is_closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="search", daemon=True)
        self._thread.start()

    async def search(self, row: Float[np.ndarray, " d"], asking: Asking, *, relevant: Sequence[bytes] = ()) -> Answer:
        """Searches the index; see :meth:`coocnet.index.Index.search`.

        Raises:
            Problem: as many queries wait as may.
            CoocnetError: as a search raises.
        """
        answer: Future[Answer] = Future()
        self._put(_Waiting(row, tuple(relevant), asking, answer))
        return await asyncio.wrap_future(answer)

    async def do(self, work: Callable[[Index], T]) -> T:
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

    def close(self, time_s: float | None = None) -> None:
        """Ends the thread once everything asked so far is answered, waiting so long at most."""
        self._is_closing.set()
        with suppress(queue.Full):
            self._queue.put_nowait(None)
        self._thread.join(time_s)

    def _put(self, item: _Waiting | Callable[[], None]) -> None:
        try:
            self._queue.put_nowait(item)
        except queue.Full:
            raise self._full() from None

    def _work(self) -> None:
        ended = False
        try:
            while not (ended or (self._is_closing.is_set() and self._queue.empty())):
                items = [self._queue.get()]
                while len(items) < QUERIES_AT_ONCE and not self._queue.empty():
                    items.append(self._queue.get())
                alike: dict[Asking, list[_Waiting]] = {}
                for item in items:
                    if item is None:
                        ended = True
                    elif isinstance(item, _Waiting):
                        if item.answer.set_running_or_notify_cancel():
                            alike.setdefault(_but_for_k(item.asking), []).append(item)
                    else:
                        item()
                for group in alike.values():
                    self._answer(group)
        finally:
            self._held.close()

    def _answer(self, group: list[_Waiting]) -> None:
        try:
            answers = self._found(group)
        except CoocnetError:
            # One query of several may be amiss: each has its own answer then.
            for one in group:
                _fulfil(one.answer, lambda one=one: self._found([one])[0])  # type: ignore[misc]
        except Exception as error:  # noqa: BLE001 - belongs to those who asked
            for one in group:
                one.answer.set_exception(error)
        else:
            for one, answer in zip(group, answers, strict=True):
                one.answer.set_result(answer)

    def _found(self, group: list[_Waiting]) -> list[Answer]:
        index = self._held.index()
        if self._is_stale.is_set():
            self._is_stale.clear()
            index.look_anew()
        asking = replace(group[0].asking, k=max(one.asking.k for one in group))
        approximate = not asking.exact and index.approximates(
            k=min(one.asking.k for one in group), expansion=asking.expansion, reranking=asking.reranking
        )
        if approximate and any(one.asking.k != asking.k for one in group):
            # The first hits of an approximate search depend on how many are asked for.
            return [self._found([one])[0] for one in group]
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
        self._batched(len(group))
        is_plain = asking.reranking == "none" and (asking.expansion or index.recipe.expansion) == "none"
        return [
            Answer(hits[: one.asking.k], least, approximate, is_plain and not one.relevant)
            for one, hits in zip(group, found, strict=True)
        ]


def _but_for_k(asking: Asking) -> Asking:
    """What searches have in common that differ at most in how many hits they want; a re-ranking depends on that."""
    return replace(asking, k=0) if asking.reranking == "none" else asking


def _patient(index: Index) -> Index:
    index.let_rows_stand(_SHARE_OF_TIME)
    return index


def _fulfil(future: Future[T], work: Callable[[], T]) -> None:
    try:
        future.set_result(work())
    except BaseException as error:  # noqa: BLE001 - belongs to the one who asked
        future.set_exception(error)
