"""Threads of the service: what waits is answered together, each by its own wishes, and no more is taken than fits."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from coocnet.errors import InputError
from coocnet.index import Index, open_index
from coocnet.serve.cut import LearnedCut
from coocnet.serve.desks import Asking, Desk, SearchDesk
from coocnet.serve.problems import Problem
from coocnet.serve.shares import Shares
from indexing import named, put, synthetic_rows


@pytest.fixture
def filled(place: Path) -> Path:
    put(place, named(synthetic_rows(300)))
    return place


def test_queries_that_wait_are_answered_by_one_pass_each_with_its_own_hits(filled):
    rows = synthetic_rows(20, seed=1)
    passes: list[int] = []
    with open_index(filled) as index:
        wanted = index.search(rows, k=5)
        shorter = index.search(rows, k=2)
        few = index.search(rows, k=2, threshold=0.5)

    async def run() -> None:
        desk = SearchDesk(lambda: open_index(filled), waiting=64, batched=passes.append)
        release = threading.Event()
        waiting = asyncio.create_task(desk.do(lambda _: release.wait(20)))
        await asyncio.sleep(0.05)
        ways = (Asking(5), Asking(2), Asking(2, 0.5))
        asked = [desk.search(row, asking) for asking in ways for row in rows]
        answers = asyncio.gather(*asked)
        await asyncio.sleep(0.05)
        release.set()
        await waiting
        hits = [answer.hits for answer in await answers]
        assert hits == wanted + shorter + few
        desk.close()

    asyncio.run(run())
    assert passes == [40, 20]


def test_one_query_amiss_spoils_no_other(filled):
    rows = synthetic_rows(2, seed=1)

    async def run() -> None:
        desk = SearchDesk(lambda: open_index(filled), waiting=64)
        release = threading.Event()
        waiting = asyncio.create_task(desk.do(lambda _: release.wait(20)))
        await asyncio.sleep(0.05)
        good = asyncio.create_task(desk.search(rows[0], Asking(3)))
        bad = asyncio.create_task(desk.search(rows[1], Asking(3), relevant=[b"?" * 16]))
        await asyncio.sleep(0.05)
        release.set()
        await waiting
        assert len((await good).hits) == 3
        with pytest.raises(InputError, match="3f3f"):
            await bad
        desk.close()

    asyncio.run(run())


def test_a_full_queue_refuses_and_what_was_taken_is_done(filled):
    async def run() -> None:
        desk = Desk("test", lambda: open_index(filled), threads=1, waiting=2)
        release = threading.Event()
        taken = [asyncio.create_task(desk.do(lambda _: release.wait(20))) for _ in range(3)]
        await asyncio.sleep(0.05)
        with pytest.raises(Problem) as refused:
            await desk.do(lambda _: None)
        assert refused.value.status == 503
        release.set()
        assert await asyncio.gather(*taken) == [True, True, True]
        assert await desk.do(lambda index: index.contents) == 300
        desk.close()

    asyncio.run(run())


def test_a_thread_that_is_given_up_keeps_its_place_until_it_is_done(filled):
    async def run() -> None:
        desk = Desk("test", lambda: open_index(filled), threads=1, waiting=1)
        begun, release = threading.Event(), threading.Event()
        given_up = asyncio.create_task(desk.do(lambda _: begun.set() or release.wait(60)))
        assert await asyncio.to_thread(begun.wait, 60)
        given_up.cancel()
        waits = asyncio.create_task(desk.do(lambda _: "done"))
        await asyncio.sleep(0.05)
        with pytest.raises(Problem):
            await desk.do(lambda _: None)
        release.set()
        assert await waits == "done"
        desk.close()

    asyncio.run(run())


def test_every_thread_closes_its_index_when_it_ends_and_what_waits_is_given_up(filled, monkeypatch):
    opened, closed = [], []
    real_close = Index.close

    def opens() -> Index:
        opened.append(threading.get_ident())
        return open_index(filled)

    def closes(index: Index) -> None:
        closed.append(threading.get_ident())
        real_close(index)

    async def run() -> None:
        desks = [Desk("test", opens, threads=3, waiting=9), SearchDesk(opens, waiting=9)]
        together = threading.Barrier(2)
        await asyncio.gather(desks[1].do(lambda _: None), *(desks[0].do(lambda _: together.wait(20)) for _ in "ab"))
        begun, release = threading.Semaphore(0), threading.Event()
        working = [asyncio.create_task(desks[0].do(lambda _: begun.release() or release.wait(60))) for _ in range(3)]
        for _ in working:
            assert await asyncio.to_thread(begun.acquire, timeout=60)
        waits = asyncio.create_task(desks[0].do(lambda _: pytest.fail("it was given up")))
        await asyncio.sleep(0.05)
        closing = asyncio.create_task(asyncio.to_thread(lambda: [desk.close() for desk in desks]))
        await asyncio.sleep(0.05)
        release.set()
        assert await asyncio.gather(*working) == [True] * 3
        await closing
        with pytest.raises(asyncio.CancelledError):
            await waits
        with pytest.raises(Problem):
            await desks[0].do(lambda _: None)

    monkeypatch.setattr(Index, "close", closes)
    asyncio.run(run())
    assert len(opened) == 4
    assert sorted(closed) == sorted(opened)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_index_that_cannot_be_closed_keeps_no_thread(filled, monkeypatch):
    closed = []
    real_close = Index.close

    def fails(index: Index) -> None:
        closed.append(index)
        real_close(index)
        raise OSError("gone")

    async def run() -> None:
        desks = [Desk("test", lambda: open_index(filled), threads=2, waiting=2) for _ in "ab"]
        together = threading.Barrier(2)
        await asyncio.gather(*(desks[0].do(lambda _: together.wait(20)) for _ in "ab"))
        monkeypatch.setattr(Index, "close", fails)
        for desk in (*desks, *desks):
            desk.close()

    asyncio.run(run())
    assert len(closed) == 2


def test_an_index_made_anew_in_its_place_is_opened_anew(filled, tmp_path):
    async def run() -> None:
        desk = Desk("test", lambda: open_index(filled), threads=1, waiting=1)
        assert await desk.do(lambda index: index.contents) == 300
        filled.rename(tmp_path / "former.cooc")
        put(filled, named(synthetic_rows(5)))
        assert await desk.do(lambda index: index.contents) == 5
        desk.close()

    asyncio.run(run())


def test_the_cut_is_learned_again_when_the_collection_has_grown_and_stands_until_then(filled):
    with open_index(filled) as index:
        first = index.auto_threshold()

    async def run() -> None:
        desk = Desk("test", lambda: open_index(filled), threads=1, waiting=9)
        cut = LearnedCut(desk, look_every_s=0)
        assert await cut.needed() == first
        put(filled, named(synthetic_rows(20, seed=5), "few"))
        for _ in range(3):
            assert await cut.needed() == first
            await asyncio.sleep(0.05)
        put(filled, named(synthetic_rows(400, seed=6), "many"))
        assert await cut.needed() == first  # nobody waits for the new one
        for _ in range(100):
            await asyncio.sleep(0.05)
            if await cut.needed() != first:
                break
        with open_index(filled) as index:
            assert await cut.needed() == index.auto_threshold()
        desk.close()

    asyncio.run(run())


def test_a_collection_too_small_for_a_cut_says_so_until_it_is_large_enough(place):
    put(place, named(synthetic_rows(10)))

    async def run() -> None:
        desk = Desk("test", lambda: open_index(place), threads=1, waiting=9)
        cut = LearnedCut(desk, look_every_s=0)
        assert await cut.known() is None
        with pytest.raises(InputError, match="50"):
            await cut.needed()
        put(place, named(synthetic_rows(90, seed=5), "more"))
        assert await cut.needed() is not None
        desk.close()

    asyncio.run(run())


def test_rows_may_stand_for_a_while_where_they_take_long_to_make(filled, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("coocnet.index.searchable._QUICK_S", 0.0)
    row = synthetic_rows(1, seed=9)
    with open_index(filled) as index:
        index.let_rows_stand(1e-9)
        before = _nearest(index, row)
        put(filled, {"/photos/itself.jpg": row[0]})
        assert _nearest(index, row) == before
        index.look_anew()
        assert _nearest(index, row) == "/photos/itself.jpg"


def test_rows_that_took_long_stand_even_where_a_change_is_announced(filled, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("coocnet.index.searchable._QUICK_S", 0.0)
    monkeypatch.setattr("coocnet.index.searchable._AT_ONCE_S", 0.0)
    row = synthetic_rows(1, seed=9)
    with open_index(filled) as index:
        index.let_rows_stand(1e-9)
        before = _nearest(index, row)
        put(filled, {"/photos/itself.jpg": row[0]})
        index.look_anew()
        assert _nearest(index, row) == before


def test_rows_that_are_quickly_made_are_never_old(filled, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("coocnet.index.searchable._QUICK_S", 60.0)
    row = synthetic_rows(1, seed=9)
    with open_index(filled) as index:
        index.let_rows_stand(1e-9)
        _nearest(index, row)
        put(filled, {"/photos/itself.jpg": row[0]})
        assert _nearest(index, row) == "/photos/itself.jpg"


@pytest.mark.parametrize("share", [0, -1, 1.5, True, "much", float("nan")])
def test_a_share_of_the_time_is_one(filled, share):
    with open_index(filled) as index, pytest.raises(InputError, match="share"):
        index.let_rows_stand(share)


def test_those_who_compute_at_once_share_the_threads_and_one_alone_has_all():
    shares, seen = Shares(), []
    both = threading.Barrier(2)

    def computes() -> None:
        with shares.taken():
            both.wait(20)
            seen.append(torch.get_num_threads())

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(6)
        with shares.taken() as alone:
            assert (alone, torch.get_num_threads()) == (6, 6)
            with shares.taken() as share:
                assert (share, torch.get_num_threads()) == (3, 3)
        threads = [threading.Thread(target=computes) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(seen) == [3, 6]
        with shares.taken() as alone:
            assert alone == 6
    finally:
        torch.set_num_threads(before)


def test_a_cut_that_is_given_is_the_automatic_threshold(filled):
    rows = synthetic_rows(3, seed=1)
    with open_index(filled) as index:
        assert index.search(rows, k=9, threshold="auto", cut=0.4) == index.search(rows, k=9, threshold=0.4)
        assert index.search(rows, k=9, cut=0.4) == index.search(rows, k=9)
        with pytest.raises(InputError, match="threshold"):
            index.search(rows, k=9, threshold="auto", cut=np.nan)


def _nearest(index: Index, row: np.ndarray) -> str:
    return index.search(row, k=1)[0][0].path
