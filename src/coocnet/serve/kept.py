"""What is kept in memory for a while, by content: never more bytes than were allowed."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Kept(Generic[Value]):
    """The values used last, as many as fit; usable from several threads.

    Args:
        most: what all values may weigh together.
        weight: of a value, in bytes, or 1 to count them.
    """

    def __init__(self, most: int, weight: Callable[[Value], int] = lambda _: 1) -> None:
        self._most = most
        self._weight = weight
        self._values: OrderedDict[Hashable, Value] = OrderedDict()
        self._weighs = 0
        self._guard = threading.Lock()

    @property
    def weighs(self) -> int:
        """What the values weigh together now."""
        return self._weighs

    def get(self, key: Hashable) -> Value | None:
        """The value of a key, which thereby leaves last; None where there is none."""
        with self._guard:
            value = self._values.get(key)
            if value is not None:
                self._values.move_to_end(key)
            return value

    def put(self, key: Hashable, value: Value) -> None:
        """Keeps a value, and lets those go that were used longest ago; one that weighs too much is not kept."""
        with self._guard:
            former = self._values.pop(key, None)
            if former is not None:
                self._weighs -= self._weight(former)
            self._values[key] = value
            self._weighs += self._weight(value)
            while self._weighs > self._most:
                _, gone = self._values.popitem(last=False)
                self._weighs -= self._weight(gone)
