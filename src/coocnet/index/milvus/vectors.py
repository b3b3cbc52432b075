"""The rows of an index in Milvus, as they are stored, whitened, and sorted into lists for an approximate search.

Each is a collection of its own, keyed by the contents' digests: ``rows``; ``v1``, ``v2`` … for the versions of the
whitening; ``a0``, ``a1`` … for approximate searches in these, ``a0`` in rows that are not whitened. A copy is
searched from the moment on that a note names it; one that was not finished, or is no longer named, is dropped by the
next writer.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import numpy as np

from coocnet.errors import ForeignIndexError, printable
from coocnet.index.facts import NO_WHITENING, StoredWhitening
from coocnet.index.milvus.notes import Notes
from coocnet.index.milvus.server import MOST_HITS, Server
from coocnet.whitening import Whitening

_ROWS = "rows"
_KEY_LETTERS = 32
_PIECE_LETTERS = 60_000
_AT_ONCE = 500
_SPARE = 32

Found = list[list[tuple[bytes, float]]]


class Vectors:
    """The rows of an index, over one connection to a server."""

    def __init__(self, server: Server, notes: Notes) -> None:
        self._server = server
        self._notes = notes
        self._held: tuple[tuple[str, str], StoredWhitening] | None = None
        self._has_rows = False

    @property
    def lists(self) -> int:
        """Into which rows can be sorted for an approximate search; 0 where the server has no faithful one."""
        return self._server.lists

    def has_rows(self) -> bool:
        """Whether there ever were rows."""
        self._has_rows = self._has_rows or _ROWS in self._server.kinds()
        return self._has_rows

    def count(self) -> int:
        """How many rows there are."""
        return self._server.count(_ROWS) if self.has_rows() else 0

    def __contains__(self, digest: bytes) -> bool:
        return self.has_rows() and bool(self._server.get(_ROWS, [digest.hex()], []))

    def get(self, digests: Sequence[bytes]) -> dict[bytes, np.ndarray]:
        """Rows as they are stored; unknown digests are left out."""
        return self._rows_of(_ROWS, digests) if self.has_rows() else {}

    def each(self) -> Iterator[tuple[list[str], np.ndarray]]:
        """Digests in hexadecimal digits and rows (b, d) of all contents, some at a time, in order of the digests."""
        if not self.has_rows():
            return
        dim = self._server.dim(_ROWS)
        pages = self._server.rows(_ROWS, "", ["row"], numbers=dim)
        while some := list(islice(pages, _AT_ONCE)):
            yield [row["key"] for row in some], np.array([row["row"] for row in some], np.float32)

    def put(self, digests: Sequence[str], rows: np.ndarray) -> None:
        """Stores rows (b, d), and their copies."""
        if not digests:
            return
        if not self.has_rows():
            self._server.make(_ROWS, _KEY_LETTERS, {}, dim=rows.shape[1])
        self._server.put(_ROWS, _with_keys(digests, rows))
        stored = self.whitening()
        whitened = rows if stored is None else stored.whitening.apply(rows)
        for kind in self._copies():
            self._server.put(kind, _with_keys(digests, rows if kind == _lists(None) else whitened))

    def delete(self, digests: Sequence[str]) -> None:
        """Deletes rows and their copies."""
        if digests:
            for kind in (_ROWS, *self._copies()) if self.has_rows() else ():
                self._server.delete(kind, digests)

    def drop_unnamed(self) -> None:
        """Drops copies that no note names, and the pieces of whitenings not in force; for the sole writer.

        Searches that read these at this moment begin anew.
        """
        named = {_ROWS, *self._copies()}
        for kind in self._server.made():
            if kind == _ROWS or kind[:1] not in "va" or not kind[1:].isdecimal() or kind in named:
                continue
            self._server.drop(kind)
        pieces = [key for key, _ in self._notes.below("whitening/") if not key.endswith("/")]
        self._notes.forget(
            [f"whitening/{key}" for key in pieces if _searched(int(key.partition("/")[0])) not in named]
        )

    def _copies(self) -> list[str]:
        facts = self._notes.get(["fact/whitening", "fact/approximate"])
        version = facts.get("fact/whitening", NO_WHITENING)
        copies = [] if version == NO_WHITENING else [_searched(int(version))]
        approximate = json.loads(facts.get("fact/approximate", "null"))
        return copies if approximate is None else [*copies, _lists(approximate["version"])]

    def _rows_of(self, kind: str, digests: Sequence[bytes]) -> dict[bytes, np.ndarray]:
        found = self._server.get(kind, [digest.hex() for digest in digests], ["row"])
        return {bytes.fromhex(key): np.array(row["row"], "<f4") for key, row in found.items()}

    # Whitenings

    def whitening(self) -> StoredWhitening | None:
        """The whitening in force, or None."""
        wanted = self._in_force()
        if wanted is None:
            return None
        if self._held is None or self._held[0] != wanted:
            try:
                self._held = wanted, self._read_whitening(int(wanted[1]))
            except ForeignIndexError:
                if self._in_force() == wanted:
                    raise
                return self.whitening()  # it was replaced meanwhile
        return self._held[1]

    def _in_force(self) -> tuple[str, str] | None:
        """When the index was made, and the version of its whitening; None without one."""
        facts = self._notes.get(["fact/made", "fact/whitening"])
        version = facts.get("fact/whitening", NO_WHITENING)
        return None if version == NO_WHITENING else (facts["fact/made"], version)

    def _read_whitening(self, version: int) -> StoredWhitening:
        before = f"whitening/{version}/"
        head = json.loads(self._notes.get([before])[before])
        keys = [f"{before}{number:06}" for number in range(head["pieces"])]
        found = self._notes.get(keys)
        if len(found) < len(keys):
            place = printable(self._server.address.shown)
            raise ForeignIndexError(f"{place} is damaged: a part of its whitening is missing")
        content = base64.b64decode("".join(found[key] for key in keys))
        return StoredWhitening(version, head["learned_here"], Whitening.from_bytes(content))

    def add_whitening(self, whitening: Whitening, *, learned_here: bool) -> int:
        """Stores a whitening and whitened rows, which are not searched yet; its version."""
        versions = [int(key.partition("/")[0]) for key, _ in self._notes.below("whitening/")]
        version = max(versions, default=0) + 1
        text = base64.b64encode(whitening.to_bytes()).decode()
        pieces = [text[start : start + _PIECE_LETTERS] for start in range(0, len(text), _PIECE_LETTERS)]
        head = {f"whitening/{version}/": json.dumps({"learned_here": learned_here, "pieces": len(pieces)})}
        self._notes.put({f"whitening/{version}/{number:06}": piece for number, piece in enumerate(pieces)} | head)
        self._server.make(_searched(version), _KEY_LETTERS, {}, dim=whitening.dim)
        for digests, rows in self.each():
            self._server.put(_searched(version), _with_keys(digests, whitening.apply(rows)))
        return version

    # Searching

    def add_lists(self, stored: StoredWhitening | None, progress: Callable[[int, int], None] | None) -> None:
        """Sorts the rows of a version into lists, which are not searched yet, and waits until the server has them.

        Raises:
            IndexStorageError: the server does not get on with it.
        """
        kind, total, done = _lists(_version(stored)), self.count(), 0
        dim = self._server.dim(_searched(_version(stored)))
        self._server.make(kind, _KEY_LETTERS, {}, dim=dim, in_lists=True)
        for digests, rows in self.each():
            whitened = rows if stored is None else stored.whitening.apply(rows)
            self._server.put(kind, _with_keys(digests, whitened))
            done += len(digests)
            if progress is not None:
                progress(done, total)
        self._server.finish_lists(kind)

    def nearest(self, stored: StoredWhitening | None, queries: np.ndarray, k: int) -> Found:
        """Digests and inner products of the k nearest contents of each query, best first.

        Args:
            stored: the whitening that the queries have; None for none.
            queries: (q, d).
            k: how many for each.
        """
        return _by_digest(self._server.nearest(_searched(_version(stored)), queries, k))

    def candidates(self, stored: StoredWhitening | None, queries: np.ndarray, k: int, *, probes: int) -> Found:
        """What looks like the k nearest in so many of the lists of each segment, and some more.

        The numbers in the lists are a byte each, and the inner products are of these.
        """
        wanted = min(k + _SPARE, MOST_HITS)
        return _by_digest(self._server.nearest(_lists(_version(stored)), queries, wanted, probes=probes))

    def nearest_in_lists(self, stored: StoredWhitening | None, queries: np.ndarray, k: int, *, probes: int) -> Found:
        """As :meth:`nearest` among :meth:`candidates`: what is missed tells it from that, not the inner products."""
        candidates = self.candidates(stored, queries, k, probes=probes)
        rows = self.searched_rows(stored, list({digest for some in candidates for digest, _ in some}))
        found = []
        for query, some in zip(queries, candidates, strict=True):
            each = [(float(query @ rows[digest]), digest) for digest, _ in some if digest in rows]
            best = sorted(each, key=lambda one: -one[0])[:k]
            found.append([(digest, similarity) for similarity, digest in best])
        return found

    def searched_rows(self, stored: StoredWhitening | None, digests: Sequence[bytes]) -> dict[bytes, np.ndarray]:
        """Rows of contents under a whitening, or as they are stored for None; unknown digests are left out."""
        return self._rows_of(_searched(_version(stored)), digests)

    def sample(self, stored: StoredWhitening | None, count: int) -> tuple[list[bytes], np.ndarray]:
        """Digests and rows (c, d) of some contents: the first in order of the digests, which is chance."""
        some = [row["key"] for row in islice(self._server.rows(_ROWS, "", []), count)] if self.has_rows() else []
        digests = [bytes.fromhex(key) for key in some]
        rows = self.searched_rows(stored, digests)
        known = [digest for digest in digests if digest in rows]
        return known, np.array([rows[digest] for digest in known], np.float32)


def _version(stored: StoredWhitening | None) -> int | None:
    return None if stored is None else stored.version


def _searched(version: int | None) -> str:
    return _ROWS if version is None else f"v{version}"


def _lists(version: int | None) -> str:
    return f"a{version or 0}"


def _with_keys(digests: Sequence[str], rows: np.ndarray) -> list[dict[str, object]]:
    return [{"key": digest, "row": row.tolist()} for digest, row in zip(digests, rows, strict=True)]


def _by_digest(found: list[list[tuple[str, float]]]) -> Found:
    return [[(bytes.fromhex(digest), score) for digest, score in hits] for hits in found]
