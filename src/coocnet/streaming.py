"""Work on an endless supply of items in threads: a bounded number at a time, results in the order of the items."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from itertools import chain, islice
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")

_LOADED_AHEAD = 16
_LOADERS = 8
_BEGIN_WITHIN_S = 60
_LOOKS_EVERY_S = 5.0
_SIDE_BY_SIDE = 4  # each holds the maps of a picture, which for large networks is hundreds of megabytes


def loaded_ahead(items: Iterable[Item], load: Callable[[Item], Result]) -> Iterator[tuple[Item, Result]]:
    """Each item with what ``load`` returns of it, called some items ahead of the one that is taken."""
    return _in_threads(items, load, workers=min(_LOADERS, os.cpu_count() or 1), ahead=_LOADED_AHEAD)


def side_by_side(
    items: Iterable[Item], compute: Callable[[Item], Result], wants_memory: Callable[[Result], bool]
) -> Iterator[Result]:
    """What ``compute`` returns of each item, several at a time on a share of PyTorch's threads each.

    A network on one picture keeps a few threads busy only part of the time, and threads of one computation wait for
    one another by spinning, which takes the processor from whoever decodes the next picture. A single item has all
    threads.

    Args:
        items: taken only as they are needed.
        compute: called in other threads.
        wants_memory: of a result, whether memory was wanting; it is then computed again while no other is.
    """
    threads = torch.get_num_threads()
    source = iter(items)
    first = list(islice(source, min(threads, _SIDE_BY_SIDE)))
    workers = len(first)
    if workers < 2:
        yield from map(compute, chain(first, source))
        return
    places, alone = threading.Semaphore(workers), threading.Lock()

    def computed(item: Item) -> Result:
        with places:
            result = compute(item)
        if wants_memory(result):
            with alone:
                for _ in range(workers):
                    places.acquire()
                try:
                    result = compute(item)
                finally:
                    places.release(workers)
        return result

    all_begun = threading.Barrier(workers + 1, timeout=_BEGIN_WITHIN_S)

    def begin() -> None:
        torch.set_num_threads(threads // workers)
        torch.get_num_threads()  # a thread takes its own number with the first question for it
        all_begun.wait()

    def begun() -> None:
        all_begun.wait()
        # Each thread keeps its own number; setting one also sets that of threads to come, so it is put back.
        torch.set_num_threads(threads)

    results = _in_threads(
        chain(first, source), computed, workers=workers, ahead=2 * workers, begin=begin, begun=begun
    )
    yield from (result for _, result in results)


def _in_threads(
    items: Iterable[Item],
    work: Callable[[Item], Result],
    *,
    workers: int,
    ahead: int,
    begin: Callable[[], None] | None = None,
    begun: Callable[[], None] | None = None,
) -> Iterator[tuple[Item, Result]]:
    source = iter(items)
    threads: list[threading.Thread] = []

    def entered() -> None:
        threads.append(threading.current_thread())
        if begin is not None:
            begin()

    pool = ThreadPoolExecutor(workers, thread_name_prefix="coocnet", initializer=entered)
    try:
        started: deque[tuple[Item, Future[Result]]] = deque(
            (item, pool.submit(work, item)) for item in islice(source, ahead)
        )
        if begun is not None:
            begun()
        while started:
            item, future = started.popleft()
            _await(future, threads)
            yield item, future.result()
            started.extend((following, pool.submit(work, following)) for following in islice(source, 1))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _await(future: Future[Result], threads: list[threading.Thread]) -> None:
    """Waits for a result, but not for that of a thread which is no more: without memory, one ends before it tells."""
    while not wait([future], timeout=_LOOKS_EVERY_S).done:
        if not all(thread.is_alive() for thread in threads):
            raise MemoryError("a thread has ended before its work")
