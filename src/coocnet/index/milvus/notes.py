"""What an index in Milvus remembers in words: its collection "facts", of texts by key.

The keys begin with what they are: ``fact/`` for those of the index as a whole, ``folder/``, ``skipped/``,
``removed/``, ``unused/`` (contents that may have lost their last picture) and ``whitening/``; ``writer`` holds the
lease, and ``pending`` what is at stake.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from coocnet.index.milvus.server import Server

KIND = "facts"
KEY_LETTERS = 16_384
VALUE_BYTES = 65_535


class Notes:
    """Texts by key on a server; held here as well while nobody else changes them, or while they belong together."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._held: dict[str, str] | None = None
        self._held_below = ""

    def make(self) -> None:
        """Makes the collection."""
        self._server.make(KIND, KEY_LETTERS, {"value": VALUE_BYTES})

    @contextmanager
    def held(self, below: str = "") -> Iterator[None]:
        """Reads what begins like this once, and no more until the block ends: to read back takes long."""
        if self._held is not None:
            yield
            return
        self._held_below, self._held = below, dict(self._read(below))
        try:
            yield
        finally:
            self._held, self._held_below = None, ""

    def get(self, keys: Iterable[str]) -> dict[str, str]:
        """What stands under keys; unknown keys are left out."""
        wanted = list(keys)
        if self._held is not None and all(key.startswith(self._held_below) for key in wanted):
            return {key: self._held[key] for key in wanted if key in self._held}
        return {key: str(row["value"]) for key, row in self._server.get(KIND, wanted, ["value"]).items()}

    def below(self, before: str) -> list[tuple[str, str]]:
        """What stands under keys that begin like this, without that beginning, in order."""
        if self._held is not None and before.startswith(self._held_below):
            found = sorted((key, text) for key, text in self._held.items() if key.startswith(before))
        else:
            found = self._read(before)
        return [(key.removeprefix(before), text) for key, text in found]

    def put(self, values: Mapping[str, str]) -> None:
        """Stores texts."""
        if values:
            self._server.put(KIND, [{"key": key, "value": value} for key, value in values.items()])
            if self._held is not None:
                self._held |= values

    def forget(self, keys: Sequence[str]) -> None:
        """Deletes texts, as far as they are there."""
        if self._held is not None and not self._held_below:
            keys = [key for key in keys if self._held.pop(key, None) is not None]
        self._server.delete(KIND, keys)

    def _read(self, before: str) -> list[tuple[str, str]]:
        where = f'key like "{before}%"' if before else ""
        return [(row["key"], row["value"]) for row in self._server.rows(KIND, where, ["value"])]
