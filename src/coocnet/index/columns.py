"""What the columns of an index's database hold, whatever SQLite would let stand there."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

_KINDS: dict[str, type] = {
    "content": bytes,
    "descriptor": int,
    "digest": bytes,
    "id": int,
    "learned_here": int,
    "modified_ns": int,
    "path": bytes,
    "reason": str,
    "row": bytes,
    "size_bytes": int,
    "synchronised": str,
    "value": str,
    "version": int,
}
DIGEST_BYTES = 16

Check = Callable[[Iterable[tuple[Any, ...]]], str]
"""Says what is wrong with some rows; nothing, if they are right."""


def check_of(names: Iterable[str]) -> Check:
    """What looks over the rows of a query with these columns."""
    wanted = [(at, name, _KINDS[name]) for at, name in enumerate(names) if name in _KINDS]

    def wrong(rows: Iterable[tuple[Any, ...]]) -> str:
        for row in rows:
            for at, name, kind in wanted:
                if type(row[at]) is not kind:
                    return f"a {name} in it is of the type {type(row[at]).__name__}"
                if name == "digest" and len(row[at]) != DIGEST_BYTES:
                    return f"a digest in it has {len(row[at])} bytes"
        return ""

    return wrong
