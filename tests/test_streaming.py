"""Work in threads: in order, bounded, on shares of PyTorch's threads, and again where memory was wanting."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path

import numpy as np
import pytest
import torch

from coocnet.data.scenes import make_scenes
from coocnet.describe import Describer
from coocnet.streaming import loaded_ahead, side_by_side


@pytest.fixture
def four_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def never(result: object) -> bool:
    return False


def slow_at_first(item: int) -> int:
    time.sleep(0.02 if item % 4 == 0 else 0)
    return -item


@pytest.mark.usefixtures("four_threads")
def test_results_come_in_the_order_of_the_items_however_long_each_takes() -> None:
    assert list(side_by_side(range(20), slow_at_first, never)) == [-item for item in range(20)]
    assert list(loaded_ahead(range(20), slow_at_first)) == [(item, -item) for item in range(20)]


@pytest.mark.usefixtures("four_threads")
def test_of_an_endless_supply_a_bounded_number_is_taken_ahead() -> None:
    taken = []

    def supply() -> Iterator[int]:
        for item in count():
            taken.append(item)
            yield item

    results = side_by_side(loaded_ahead(supply(), abs), lambda loaded: loaded[1], never)
    assert list(islice(results, 10)) == list(range(10))
    assert len(taken) <= 10 + 8 + 17
    results.close()
    time.sleep(0.05)
    before = len(taken)
    time.sleep(0.05)
    assert len(taken) == before


@pytest.mark.usefixtures("four_threads")
def test_several_are_computed_at_once_each_on_its_share_of_the_threads() -> None:
    meeting = threading.Barrier(4, timeout=10)

    def compute(item: int) -> int:
        meeting.wait()
        return torch.get_num_threads()

    assert list(side_by_side(range(8), compute, never)) == [1] * 8
    assert torch.get_num_threads() == 4


@pytest.mark.usefixtures("four_threads")
def test_a_single_item_has_all_threads() -> None:
    assert list(side_by_side([0], lambda _: torch.get_num_threads(), never)) == [4]


@pytest.mark.usefixtures("four_threads")
def test_threads_made_later_have_their_number_again() -> None:
    assert len(list(side_by_side(range(8), abs, never))) == 8
    found = []
    thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert found == [4]


@pytest.mark.usefixtures("four_threads")
def test_threads_made_meanwhile_have_their_number_and_a_new_one_is_left_in_force() -> None:
    results = side_by_side(range(100), abs, never)
    next(results)
    found = []
    thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    torch.set_num_threads(3)
    assert len(list(results)) == 99
    assert (found, torch.get_num_threads()) == ([4], 3)


@pytest.mark.usefixtures("four_threads")
def test_two_items_share_all_threads() -> None:
    meeting = threading.Barrier(2, timeout=10)

    def compute(item: int) -> int:
        meeting.wait()
        return torch.get_num_threads()

    assert list(side_by_side(range(2), compute, never)) == [2, 2]


@pytest.mark.usefixtures("four_threads")
def test_an_error_of_one_item_ends_the_work_and_leaves_the_threads_as_they_were() -> None:
    def compute(item: int) -> int:
        if item == 5:
            raise ZeroDivisionError("five")
        return item

    with pytest.raises(ZeroDivisionError, match="five"):
        list(side_by_side(range(20), compute, never))
    assert torch.get_num_threads() == 4


@pytest.mark.usefixtures("four_threads")
def test_what_memory_was_wanting_for_is_computed_again_while_nothing_else_is() -> None:
    running, crowds = [0], []
    guard = threading.Lock()

    def compute(item: int) -> str:
        with guard:
            running[0] += 1
        time.sleep(0.002)
        with guard:
            others = running[0] - 1
            running[0] -= 1
        if item % 3:
            return "fits"
        crowds.append(others)
        return "fits" if others == 0 else "wanting"

    results = list(side_by_side(range(30), compute, lambda result: result == "wanting"))
    assert results == ["fits"] * 30
    assert any(crowds)


def test_rows_are_the_same_to_the_bit_on_one_thread_and_on_several(tmp_path: Path) -> None:
    make_scenes(tmp_path, instances=2, views=3, size_px=160)
    paths = sorted(tmp_path.rglob("*.jpg"))
    describer = Describer(engine="float32")
    alone = describer.describe(paths)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        beside = describer.describe(paths)
    finally:
        torch.set_num_threads(before)
    assert len(paths) == 8
    np.testing.assert_array_equal(beside, alone)


def test_a_thread_that_ends_before_its_work_is_not_waited_for(monkeypatch) -> None:
    def without_memory(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("coocnet.streaming._LOOKS_EVERY_S", 0.05)
    with monkeypatch.context() as patched:
        patched.setattr("concurrent.futures.Future.set_result", without_memory)
        with pytest.raises(MemoryError, match="ended before its work"):
            list(loaded_ahead(range(3), abs))
