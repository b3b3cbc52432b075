"""The threshold "auto" of a collection that changes: learned apart from the searches, and again when it has grown."""

from __future__ import annotations

import asyncio
import time

from coocnet.errors import CoocnetError, InputError
from coocnet.index import Index
from coocnet.serve.desks import Desk
from coocnet.serve.problems import Problem, log

_GROWN_BY = 0.1


class LearnedCut:
    """What :meth:`coocnet.index.Index.auto_threshold` says of an index, or said when it was little different.

    To learn it takes seconds for a large collection. So a search waits for the first one alone; when a tenth of the
    contents is new or gone, or the whitening is another, it is learned again, and the former stands until then.

    Args:
        desk: where it is learned.
        look_every_s: how often, at most, it is asked whether it is to be learned again.
    """

    def __init__(self, desk: Desk, *, look_every_s: float = 2.0) -> None:
        self._desk = desk
        self._look_every_s = look_every_s
        self._contents = -1
        self._whitening = ""
        self._value: float | InputError | None = None
        self._looked_at = -look_every_s
        self._learning: asyncio.Task[None] | None = None

    async def known(self) -> float | None:
        """The threshold; None where the collection has too few pictures."""
        value = await self._current()
        return None if isinstance(value, InputError) else value

    async def needed(self) -> float:
        """The threshold.

        Raises:
            InputError: fewer than 50 different pictures.
        """
        value = await self._current()
        if isinstance(value, InputError):
            raise InputError(str(value))
        return value

    async def _current(self) -> float | InputError:
        if self._learning is None and time.monotonic() - self._looked_at >= self._look_every_s:
            self._learning = asyncio.create_task(self._learn_if_due())
        # Too few pictures are quickly counted, so what is known of them is not worth keeping.
        if self._learning is not None and not isinstance(self._value, float):
            await asyncio.shield(self._learning)
        assert self._value is not None
        return self._value

    async def _learn_if_due(self) -> None:
        try:
            contents, whitening = await self._desk.do(_told_apart)
            few = abs(contents - self._contents) <= _GROWN_BY * self._contents
            if self._value is None or whitening != self._whitening or not few:
                self._value = await self._desk.do(_learned)
                self._contents, self._whitening = contents, whitening
            self._looked_at = time.monotonic()
        except (CoocnetError, Problem) as error:
            if not isinstance(self._value, float):  # somebody waits
                raise
            log.warning("the threshold could not be learned again: %s", error)
        finally:
            self._learning = None


def _told_apart(index: Index) -> tuple[int, str]:
    whitening = index.whitening()
    return index.contents, "" if whitening is None else repr(sorted(whitening.provenance.items()))


def _learned(index: Index) -> float | InputError:
    try:
        return index.auto_threshold()
    except InputError as error:
        return error
