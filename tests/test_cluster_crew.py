"""Who is given what and who is blamed, in whatever order workers answer and die: on a Ray that draws the order."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from coocnet.cluster import _Crew


class Died(Exception):
    """As Ray tells that a worker is no more."""


class NotYet(Exception):
    """As Ray tells that an answer is not there in time."""


class Call:
    """What a worker was asked, as a reference to the answer."""

    def __init__(self, items: list[int] | None) -> None:
        self.items = items
        self.computed = False
        self.answer: Any = None


class Worker:
    """One process: it does what it is asked in order, and each answer is sent some time after it was computed."""

    def __init__(self, ray: DrawnRay) -> None:
        self._ray, self.machine = ray, ray.draws.randrange(3)
        self.asked: list[Call] = []
        self.alive = True
        self.begin = self.answer = SimpleNamespace(remote=lambda: self._ask(None))
        self.describe = SimpleNamespace(remote=lambda items, _: self._ask(items))

    def _ask(self, items: list[int] | None) -> Call:
        call = Call(items)
        if self.alive:
            self.asked.append(call)
        else:
            call.answer = Died()
        return call

    def work(self) -> None:
        """A step: the next answer is computed, or the first computed one sent."""
        to_do = [call for call in self.asked if not call.computed]
        if to_do and (to_do[0] is self.asked[0] or self._ray.draws.random() < self._ray.computes):
            if self._ray.deadly & set(to_do[0].items or ()):
                self.die()
            to_do[0].computed = True
        else:
            call = self.asked.pop(0)
            call.answer = "facts" if call.items is None else [(item, "row") for item in call.items]

    def die(self) -> None:
        """What was not sent is lost, computed or not."""
        self.alive = False
        for call in self.asked:
            call.answer = Died()
        self.asked = []


class DrawnRay:
    """As much of Ray as a crew asks for; what happens next is drawn.

    Args:
        seed: of all that is drawn.
        deadly: items that end the process that describes them.
        machines_die: how many machines die at some time, each with all its workers.
    """

    exceptions = SimpleNamespace(
        RayActorError=Died,
        ObjectLostError=Died,
        NodeDiedError=Died,
        OutOfMemoryError=Died,
        GetTimeoutError=NotYet,
    )

    def __init__(self, seed: int, deadly: set[int] = frozenset(), machines_die: int = 0) -> None:  # type: ignore[assignment]
        self.draws = random.Random(seed)
        self.computes = self.draws.choice([0.1, 0.5, 0.9])
        self.deadly, self.machines_die = deadly, machines_die
        self.workers: list[Worker] = []
        self.befalls: Callable[[], None] = self._perhaps_a_machine_dies

    def hire(self) -> Worker:
        self.workers.append(Worker(self))
        return self.workers[-1]

    def wait(self, calls: list[Call], num_returns: int) -> tuple[list[Call], list[Call]]:
        for _ in range(10_000):
            if ready := [call for call in calls if call.answer is not None]:
                return ready[:num_returns], []
            self.befalls()
            if busy := [worker for worker in self.workers if worker.asked]:
                self.draws.choice(busy).work()
        raise AssertionError("it waits for what never comes")

    def get(self, call: Call, timeout: float | None = None) -> Any:  # noqa: ARG002 - it never waits
        if isinstance(call.answer, Died):
            raise call.answer
        if call.answer is None:
            raise NotYet
        return call.answer

    def kill(self, worker: Worker) -> None:
        worker.die()

    def _perhaps_a_machine_dies(self) -> None:
        if self.machines_die and self.draws.random() < 0.02:
            self.machines_die -= 1
            self.lose(self.draws.randrange(3))

    def lose(self, machine: int | None = None) -> None:
        """A machine dies, or all."""
        for worker in self.workers:
            if worker.alive and machine in (None, worker.machine):
                worker.die()


def described(ray: DrawnRay, items: int, batch: int, workers: int) -> tuple[Counter[int], set[int]]:
    """How often each item came back, and which were blamed."""
    crew = _Crew(ray, ray.hire, None, lambda _: None)
    batches = iter([list(range(items))[start : start + batch] for start in range(0, items, batch)])
    came, blamed = Counter[int](), set()
    for given, result in crew.described(batches, workers):
        came.update(given)
        assert [item for item, _ in result or ()] == (given if result else [])
        blamed |= set() if result else set(given)
    return came, blamed


@pytest.mark.parametrize("machines_die", [0, 1])
@pytest.mark.parametrize("workers", [1, 2, 5, 9])
@pytest.mark.parametrize("batch", [1, 2, 16])
def test_every_file_comes_once_and_only_what_ends_processes_is_blamed(batch, workers, machines_die) -> None:
    for seed in range(60):
        draws = random.Random(seed)
        items = draws.choice([0, 1, 3, 10, 60])
        deadly = set(draws.sample(range(items), min(items, draws.randrange(3))))
        came, blamed = described(DrawnRay(seed, deadly, machines_die), items, batch, workers)
        assert came == Counter(range(items)), seed
        assert blamed == deadly, seed


@pytest.mark.parametrize(("waiting", "batch"), [(1, 1), (2, 1), (3, 1), (7, 1), (7, 16), (60, 16)])
def test_workers_that_waited_and_died_with_one_at_work_blame_nothing_on_what_it_had(waiting, batch) -> None:
    ray = DrawnRay(0)

    def all_die_as_soon_as_one_alone_works() -> None:
        alive = [worker for worker in ray.workers if worker.alive]
        at_work = [call.items for worker in alive for call in worker.asked]
        if len(ray.workers) == waiting + 1 and len(at_work) == 1 and at_work[0] is not None:
            ray.lose()

    ray.befalls = all_die_as_soon_as_one_alone_works
    items = batch * (waiting + 1)
    assert described(ray, items, batch, waiting + 1) == (Counter(range(items)), set())
    assert len(ray.workers) > waiting + 1


def test_a_file_is_blamed_when_three_processes_had_ended_that_had_nothing_else() -> None:
    ray = DrawnRay(0, {0})
    assert described(ray, 1, 1, 1) == (Counter([0]), {0})
    assert sum(not worker.alive for worker in ray.workers) == 1 + 3


def test_a_run_of_which_every_process_dies_ends() -> None:
    with pytest.raises(Died):
        described(DrawnRay(0, set(range(500))), 500, 1, 2)
