"""Pictures to rows on many processes and machines: a describer whose work is done by the workers of a Ray cluster.

A batch is a function of its files, of the recipe and of what was known at the beginning, so it may be computed
anywhere and more than once. A worker that dies, alone or with its machine, costs the batches that it had: they go to
others, and another worker is asked for. Workers only describe: the index stays with the one that asks.
"""

from __future__ import annotations

import logging
import platform
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol, TypeAlias, TypeVar

from coocnet.backbones import WeightsPlace, lookup, need_weights
from coocnet.data.images import Picture
from coocnet.describe import Describer, Row
from coocnet.errors import ClusterError, CoocnetError, ImageError, InputError
from coocnet.fetch import Progress, check_listens
from coocnet.poolings import row_dim
from coocnet.recipe import Recipe

__all__ = ["ClusterDescriber"]

_BATCH, _BATCH_ON_GPU = 16, 128
_AHEAD = 2
"""Batches a worker has at a time, so that it need not wait while what it sent is stored."""
_DEATHS = 3
_GONE_WITHIN_S = 10
_REACH_WITHIN_S = 10
_STORE_BYTES = 256 << 20
_QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
_ADDRESS = re.compile(r"auto|(?:ray://)?(?P<host>[^\s/:@\[\]]+|\[[0-9a-f:.]+\]):(?P<port>\d{1,5})")


class File(Protocol):
    """What is to be described."""

    @property
    def path(self) -> str: ...


Item = TypeVar("Item", bound=File)
Described: TypeAlias = "list[tuple[Item, Row | ImageError | None]]"


class ClusterDescriber:
    """Describes as a :class:`~coocnet.describe.Describer` does, by workers of a Ray cluster; for ``Index.sync``.

    Every worker is a process with one core, or one GPU where the cluster has any, and the engine that is best there.
    It opens the files itself, under the same paths, with the same release of coocnet and the same weights, which it
    looks for as every machine does; a worker that would give other rows is refused.

    Workers that the cluster has no room for are waited for while the others go on. A process that uses Ray already
    stays connected as it is, whatever address is given. Without an address, Ray is started on this machine, and ended
    when the last row was given.

    Args:
        recipe: what to do.
        workers: at most so many at a time.
        address: of a cluster, as Ray has it: ``HOST:PORT`` from one of its machines, ``ray://HOST:PORT`` from
            elsewhere, or ``auto``; None to start one here.
        device: where workers compute, "cpu" or "cuda"; the best there is if not given.
        engine: as for a :class:`~coocnet.describe.Describer`, of every worker.
        progress: called while weights are downloaded.

    Raises:
        InputError: fewer workers than one, no address, an unknown backbone or tap, or Ray is not installed.
        WeightsError: the weights are missing or not what they should be.
    """

    def __init__(
        self,
        recipe: Recipe,
        *,
        workers: int,
        address: str | None = None,
        device: str | None = None,
        engine: str | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.recipe = recipe
        self.workers = _checked_workers(workers)
        self.address = None if address is None else _checked_address(address)
        self.weights_place: WeightsPlace = need_weights(recipe.backbone, recipe.weights or None, progress=progress)
        self.engines: set[str] = set()
        """Of the workers that have given rows so far."""
        self._device, self._engine = device, engine
        _, tap = lookup(recipe.backbone, recipe.tap)
        self._facts = _Facts(recipe.row_fingerprint(), self.weights_sha256, row_dim(recipe, tap.channels))
        _ray()

    @property
    def dim(self) -> int:
        """Dimensions of a row."""
        return self._facts.dim

    @property
    def weights_sha256(self) -> str:
        """Digest of the weights that every worker has to use."""
        return self.weights_place.sha256

    def stream(
        self, items: Iterable[Item], load: Callable[[Item], Picture | None]
    ) -> Iterator[tuple[Item, Row | ImageError | None]]:
        """As :meth:`coocnet.describe.Describer.stream`, in the order in which batches arrive.

        Both travel by pickle: an item comes back as ``load`` left it, and each batch is given a copy of ``load`` as
        it was at the beginning. A file that ends the process again and again gets an ImageError.

        Args:
            items: whatever identifies a picture to the caller, with its path.
            load: from an item to its picture, called by a worker; None to leave the item undescribed.

        Raises:
            ClusterError: the cluster cannot be reached, or its workers cannot describe as they should.
        """
        with _connected(self.address, self.workers) as ray:
            yield from self._streamed(ray, iter(items), load)

    def _streamed(
        self, ray: Any, items: Iterator[Item], load: Callable[[Item], Picture | None]
    ) -> Iterator[tuple[Item, Row | ImageError | None]]:
        gpus = ray.cluster_resources().get("GPU", 0)
        device = self._device or ("cuda" if gpus else "cpu")
        on_gpu = device.startswith("cuda")
        if on_gpu and not gpus:
            raise ClusterError(f"no machine of the cluster has a GPU for device {device!r}; take 'cpu'")
        resources = {"num_cpus": 1, "num_gpus": int(on_gpu), "max_restarts": 0, "max_task_retries": 0}
        worker = ray.remote(_Worker).options(**resources)
        recipe = self.recipe.to_toml()
        crew = _Crew(ray, lambda: worker.remote(recipe, device, self._engine), ray.put(load), self._accept)
        batches = iter(lambda: list(islice(items, _BATCH_ON_GPU if on_gpu else _BATCH)), [])
        try:
            for batch, result in crew.described(batches, self.workers):
                if result is not None:
                    yield from result
                else:
                    why = f"ended each of {_DEATHS} processes that were to describe it"
                    yield batch[0], ImageError(batch[0].path, why, unread=True)
        except (ray.exceptions.RayError, ConnectionError) as error:
            ours = getattr(error, "cause", None)  # what a worker raised
            if isinstance(ours, CoocnetError):
                raise ours from None
            raise ClusterError(f"the Ray cluster {self.address or 'on this machine'} failed: {error}") from error
        finally:
            crew.dismiss()

    def _accept(self, facts: _Facts | str) -> None:
        """Takes the facts of a worker that begins; a string is the reason why it cannot."""
        if isinstance(facts, str):
            raise ClusterError(f"a worker of the cluster cannot describe: {facts}")
        for what, ours, theirs in (
            ("rows of another recipe or release", self._facts.row_fingerprint, facts.row_fingerprint),
            ("rows of other weights, SHA-256", self._facts.weights_sha256, facts.weights_sha256),
            ("rows of another length", self._facts.dim, facts.dim),
        ):
            if ours != theirs:
                raise ClusterError(
                    f"the worker on {facts.node} would give {what}: {theirs}, not {ours}. "
                    "Every machine needs the same release of coocnet and the same weights."
                )
        self.engines.add(facts.engine)


@dataclass(frozen=True)
class _Facts:
    row_fingerprint: str
    weights_sha256: str
    dim: int
    engine: str = ""
    node: str = ""


class _Worker:
    """A process of the cluster; Ray gives it one core, and a GPU of its own if it asked for one."""

    def __init__(self, recipe: str, device: str, engine: str | None) -> None:
        self._asked = recipe, device, engine

    def begin(self) -> _Facts | str:
        """Loads the network; a string says why it cannot."""
        import torch  # noqa: PLC0415 - in the worker

        recipe, device, engine = self._asked
        torch.set_num_threads(1)
        try:
            self._describer = describer = Describer(Recipe.from_toml(recipe), device=device, engine=engine)
        except CoocnetError as error:
            return f"on {platform.node()}, {error}"
        fingerprint = describer.recipe.row_fingerprint()
        self._facts = _Facts(fingerprint, describer.weights_sha256, describer.dim, describer.engine, platform.node())
        return self._facts

    def answer(self) -> _Facts:
        """That it is there."""
        return self._facts

    def describe(self, batch: list[Item], load: Callable[[Item], Picture | None]) -> Described[Item]:
        """Each item of a batch with what came of it."""
        return list(self._describer.stream(batch, load))


@dataclass
class _Batch:
    """Files that a worker has, whether it is to have nothing else beside them, and how many died of them alone."""

    items: list[Any]
    alone: bool = False
    deaths: int = 0


class _Crew:
    """The workers: each gets batches once it has begun; what a dead one had goes to others.

    Ray is told to repeat nothing: a call that waits for a worker that finds no room any more would wait for ever.

    What a worker had done last may be lost with it before it was sent, and one that waits dies unseen. What a worker
    seems to have died of is therefore given out alone from then on, to one that has just been heard of, and only what
    was alone is said to end a process.

    Args:
        ray: the module.
        hire: asks the cluster for a worker, which begins when there is room for it.
        load: what every batch is given.
        accept: called with the facts of each worker that begins.
    """

    def __init__(self, ray: Any, hire: Callable[[], Any], load: Any, accept: Callable[[_Facts | str], None]) -> None:
        self._ray = ray
        self._hire = hire
        self._load = load
        self._accept = accept
        self._begins: dict[Any, Any] = {}
        self._has: dict[Any, dict[Any, _Batch]] = {}
        self._fresh: Iterator[_Batch] = iter(())
        self._again: deque[_Batch] = deque()
        self._in_vain = 0

    def described(self, batches: Iterator[list[Item]], workers: int) -> Iterator[tuple[list[Item], Described | None]]:
        """Each batch with its result, as they arrive; None for a single item that ends every process."""
        self._fresh = map(_Batch, batches)
        self._again.extend(islice(self._fresh, workers))
        for _ in range(len(self._again)):
            self._ask_for_one()
        while any(self._has.values()) or self._waits():
            running = {ref: worker for worker, has in self._has.items() for ref in has}
            (ref,), _ = self._ray.wait([*running, *self._begins], num_returns=1)
            heard = None
            try:
                answer = self._ray.get(ref)
            except self._deaths():
                self._in_vain += 1
                if self._in_vain > (_DEATHS + 1) * (workers + _DEATHS):  # since the last batch that was described
                    raise
                yield from self._bury(ref, running.get(ref))
            else:
                if ref in running:
                    self._in_vain = 0
                    heard = running[ref]
                    yield self._has[heard].pop(ref).items, answer
                else:
                    self._accept(answer)
                    heard = self._begins.pop(ref)
                    self._has[heard] = {}
            self._give_out(heard)

    def dismiss(self) -> None:
        """Ends the workers, whatever they are at."""
        with suppress(Exception):  # Ray asserts that the cluster is there; where it is gone, so are the workers
            for worker in (*self._has, *self._begins.values()):
                self._ray.kill(worker)

    def _ask_for_one(self) -> None:
        worker = self._hire()
        self._begins[worker.begin.remote()] = worker

    def _waits(self) -> bool:
        """Whether a batch is to be given out: one that came back, or else the next of all."""
        if not self._again:
            self._again.extend(islice(self._fresh, 1))
        return bool(self._again)

    def _give_out(self, heard: Any) -> None:
        """Gives each worker what it has room for, and what is to be alone to one that was just heard of."""
        for worker, has in list(self._has.items()):
            while self._has_room(has):
                if self._again[0].alone and worker is not heard:
                    del self._has[worker]
                    self._begins[worker.answer.remote()] = worker
                    break
                batch = self._again.popleft()
                has[worker.describe.remote(batch.items, self._load)] = batch

    def _has_room(self, has: dict[Any, _Batch]) -> bool:
        """Whether a worker that has this already may have what waits first."""
        if len(has) >= _AHEAD or any(batch.alone for batch in has.values()) or not self._waits():
            return False
        return not (has and self._again[0].alone)

    def _bury(self, ref: Any, worker: Any) -> Iterator[tuple[list[Item], None]]:
        """Asks for another worker, and has others do what this one had; yields what ended too many."""
        self._ask_for_one()
        if worker is None:
            del self._begins[ref]
            return
        self._ray.kill(worker)  # it may only have been out of reach
        had = self._has.pop(worker)
        was_at = next((one for one in had if not self._is_done(one)), ref)  # they are in order
        suspect = had.pop(was_at)
        self._again.extend(had.values())
        suspect.deaths += suspect.alone
        if suspect.deaths < _DEATHS:
            suspect.alone = True
            self._again.append(suspect)
        elif len(suspect.items) > 1:
            self._again.extend(_Batch([item], alone=True) for item in suspect.items)
        else:
            yield suspect.items, None

    def _is_done(self, ref: Any) -> bool:
        """Whether a worker that is dead had done this."""
        try:
            self._ray.get(ref, timeout=_GONE_WITHIN_S)
        except (*self._deaths(), self._ray.exceptions.GetTimeoutError):
            return False
        return True

    def _deaths(self) -> tuple[type[Exception], ...]:
        """How it shows that a worker, or its machine, is no more."""
        errors = self._ray.exceptions
        return errors.RayActorError, errors.ObjectLostError, errors.NodeDiedError, errors.OutOfMemoryError


@contextmanager
def _connected(address: str | None, workers: int) -> Iterator[Any]:
    """Ray, connected; a connection that was there before stays."""
    ray = _ray()
    if ray.is_initialized():
        yield ray
        return
    try:
        if (there := _ADDRESS.fullmatch(address or "")) and there["host"]:
            check_listens(there["host"].strip("[]"), int(there["port"]), within_s=_REACH_WITHIN_S)
        ray.init(address or "local", **({} if address else _here(workers)), **_QUIET)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        what = "Ray cannot be started here" if address is None else f"no Ray cluster can be reached at {address!r}"
        raise ClusterError(f"{what}: {error or type(error).__name__}") from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _here(workers: int) -> dict[str, Any]:
    return {"num_cpus": workers, "include_dashboard": False, "object_store_memory": _STORE_BYTES}


def _checked_address(address: object) -> str:
    if not isinstance(address, str) or not _ADDRESS.fullmatch(address):
        raise InputError(f"a cluster is HOST:PORT, ray://HOST:PORT or auto, got {address!r}")
    return address


def _checked_workers(workers: object) -> int:
    if not isinstance(workers, int) or isinstance(workers, bool) or workers < 1:
        raise InputError(f"workers are a whole number, 1 or more, got {workers!r}")
    return workers


def _ray() -> Any:
    try:
        import ray  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise InputError("a cluster needs an extra: pip install 'coocnet[cluster]'") from error
    return ray
