"""How many threads PyTorch computes with, where several requests compute at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Shares:
    """The processor's threads, divided among those who compute now: one alone has all of them."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._all = 0
        self._taken = 0

    @contextmanager
    def taken(self) -> Iterator[int]:
        """A share for what is computed within, in this thread; gives how many threads it is."""
        import torch  # noqa: PLC0415 - takes long, only where needed

        # PyTorch keeps the number for each thread; to ask for it keeps it from taking another's at the first use.
        here = torch.get_num_threads()
        with self._guard:
            self._all = self._all or here
            self._taken += 1
            share = max(1, self._all // self._taken)
        torch.set_num_threads(share)
        try:
            yield share
        finally:
            with self._guard:
                self._taken -= 1
