"""The collections of an index on a Milvus server, with its errors as ours."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from threading import RLock
from typing import Any

import numpy as np

from coocnet.errors import IndexStorageError, InputError, printable
from coocnet.index.milvus.address import TOKEN, Address

MOST_HITS = 16_384
"""Of one search; Milvus has no more."""
_AT_ONCE = 1000
_BYTES_AT_ONCE = 16 << 20
_KEYS_AT_ONCE = 500
_TIME_S = 60.0
_LISTS = 1024
_LISTED_FROM = 1024
_LOOKS_EVERY_S = 0.5
_LISTED_WITHIN_S = 600.0
_VECTOR = "row"
_PLACE_HOLDER = "nothing"
_BEFORE_2_4 = re.compile(r"v?2\.[0-3]\.")
_NOT_CONNECTED = 2  # as pymilvus numbers what a server never says
# Milvus Lite opens what it lists, and a collection that is being made meanwhile twice: half of what is done to it is
# forgotten then. A file that two threads open at once it refuses to one of them.
_IN_FILES = RLock()

Row = dict[str, Any]


class Server:
    """A connection. Reads see what this connection wrote, and what others wrote some moments ago at the latest.

    Args:
        address: of the index.

    Attributes:
        before_writing: called before anything is changed; what it raises keeps that from happening.

    Raises:
        InputError: pymilvus is not installed.
        IndexStorageError: the server cannot be reached.
    """

    def __init__(self, address: Address) -> None:
        try:
            import pymilvus  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise InputError("an index in Milvus needs an extra: pip install 'coocnet[milvus]'") from error
        logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # what it would print is raised here
        self.address = address
        self._pymilvus = pymilvus
        self._unseen: set[str] = set()
        self._dims: dict[str, int] = {}
        self._finished: set[str] = set()
        self._alone: AbstractContextManager[object] = _IN_FILES if address.is_file else nullcontext()
        self.before_writing: Callable[[], None] = lambda: None
        with self._alone, self._errors():
            self._client = pymilvus.MilvusClient(uri=address.uri, token=address.token, timeout=_TIME_S)
        for kind in self.kinds():
            with suppress(_GoneError), self._errors():
                self._client.load_collection(self.name(kind))  # Milvus Lite forgets what was loaded

    def close(self) -> None:
        """Ends the connection."""
        self._client.close()

    def name(self, kind: str) -> str:
        """Of a collection of this index."""
        return f"{self.address.name}__{kind}"

    def kinds(self) -> list[str]:
        """The collections of this index, but for what an interruption left unfinished."""
        return [kind for kind in self.made() if self._is_finished(kind)]

    def made(self) -> list[str]:
        """The collections of this index, with what an interruption left unfinished."""
        before = self.name("")
        with self._alone, self._errors():
            return [name.removeprefix(before) for name in self._client.list_collections() if name.startswith(before)]

    def _is_finished(self, kind: str) -> bool:
        """Whether a collection has the index without which it cannot be loaded."""
        if kind not in self._finished:
            with suppress(_GoneError), self._errors():
                vectors = (self._client.list_indexes(self.name(kind), field) for field in (_VECTOR, _PLACE_HOLDER))
                if any(vectors):
                    self._finished.add(kind)
        return kind in self._finished

    def make(
        self,
        kind: str,
        key_letters: int,
        fields: Mapping[str, int | None],
        *,
        dim: int | None = None,
        in_lists: bool = False,
        found_by: str = "",
    ) -> None:
        """Makes a collection, keyed by text.

        Args:
            kind: of the collection.
            key_letters: of the key "key", at most.
            fields: further ones: the most letters of a text, None for whole numbers.
            dim: of the vector "row" that is searched, if there is one.
            in_lists: search it approximately, in lists of rows that are alike, each number in a byte. Lists cannot
                stand in for the exact search, even when all are looked through: until they are made, the server looks
                through lists of its own, and no more of them than it likes.
            found_by: one of the fields, to be found by its text without a look at every row.
        """
        self.before_writing()
        kinds = self._pymilvus.DataType
        schema = self._client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("key", kinds.VARCHAR, is_primary=True, max_length=key_letters)
        for name, letters in fields.items():
            if letters is None:
                schema.add_field(name, kinds.INT64)
            else:
                schema.add_field(name, kinds.VARCHAR, max_length=letters)
        # Milvus has no collection without a vector.
        vector = _PLACE_HOLDER if dim is None else _VECTOR
        schema.add_field(vector, kinds.FLOAT_VECTOR, dim=dim or 2)
        index = self._client.prepare_index_params()
        if found_by:
            index.add_index(found_by, index_type=self._of_texts())
        if in_lists:
            index.add_index(vector, index_type="IVF_SQ8", metric_type="IP", params={"nlist": _LISTS})
        else:
            index.add_index(vector, index_type="FLAT", metric_type="IP")
        with self._alone, self._errors():
            if kind in self.made():  # what was not finished
                self._client.drop_collection(self.name(kind))
            self._client.create_collection(self.name(kind), schema=schema, consistency_level="Session")
            self._client.create_index(self.name(kind), index, sync=False)  # of no rows, which takes no time
            self._client.load_collection(self.name(kind))
        self._finished.add(kind)

    def _of_texts(self) -> str:
        """The index of texts that the server has; before 2.4 it was another."""
        with self._errors():
            return "Trie" if _BEFORE_2_4.match(self._client.get_server_version()) else "INVERTED"

    def drop(self, kind: str) -> None:
        """Deletes a collection, if it is there."""
        self.before_writing()
        self._finished.discard(kind)
        with self._alone, self._errors():
            self._client.drop_collection(self.name(kind))

    def put(self, kind: str, rows: Sequence[Row]) -> None:
        """Stores rows, all with the vector "row" or none, each in place of that with its key."""
        self.before_writing()
        width = max((len(row[_VECTOR]) for row in rows if _VECTOR in row), default=0)
        filled = list(rows) if width else [{**row, _PLACE_HOLDER: [0.0, 0.0]} for row in rows]
        step = max(1, min(_AT_ONCE, _BYTES_AT_ONCE // (4 * max(width, 1))))
        with self._errors():
            for start in range(0, len(filled), step):
                self._client.upsert(self.name(kind), filled[start : start + step])

    def delete(self, kind: str, keys: Sequence[str]) -> None:
        """Deletes the rows of keys, as far as they are there; the next read waits until that is seen."""
        self.before_writing()
        with self._errors():
            for start in range(0, len(keys), _KEYS_AT_ONCE):
                self._client.delete(self.name(kind), ids=list(keys[start : start + _KEYS_AT_ONCE]))
                self._unseen.add(kind)

    def get(self, kind: str, keys: Sequence[str], fields: Sequence[str]) -> dict[str, Row]:
        """Rows by their keys; unknown keys are left out."""
        found: dict[str, Row] = {}
        with self._errors():
            for start in range(0, len(keys), _KEYS_AT_ONCE):
                some = list(keys[start : start + _KEYS_AT_ONCE])
                level = self._level(kind)
                for row in self._client.get(
                    self.name(kind), ids=some, output_fields=["key", *fields], consistency_level=level
                ):
                    found[row["key"]] = row
        return found

    def rows(self, kind: str, where: str, fields: Sequence[str], *, numbers: int = 1) -> Iterator[Row]:
        """Rows for which an expression is true, in order of their keys; all of them for ``""``.

        Args:
            kind: of the collection.
            where: the expression.
            fields: to read besides the key.
            numbers: in a row, of which fewer are read at once where they are many.
        """
        at_once = max(1, min(_AT_ONCE, _BYTES_AT_ONCE // (4 * numbers)))
        asked = {"filter": where or 'key like "%"', "output_fields": ["key", *fields]}
        with self._errors():
            level = self._level(kind)
            few = self._client.query(self.name(kind), **asked, limit=at_once, consistency_level=level)
        if len(few) < at_once:  # an iterator takes a second to begin, on older servers
            yield from sorted((dict(row) for row in few), key=lambda row: str(row["key"]))
            return
        with self._errors():
            pages = self._client.query_iterator(self.name(kind), **asked, batch_size=at_once, consistency_level=level)
        try:
            while True:
                with self._errors():
                    page = pages.next()
                if not page:
                    return
                yield from (dict(row) for row in page)
        finally:
            pages.close()

    def count(self, kind: str, where: str = "") -> int:
        """How many rows there are for which an expression is true."""
        with self._errors():
            found = self._client.query(
                self.name(kind), filter=where, output_fields=["count(*)"], consistency_level=self._level(kind)
            )
        return int(found[0]["count(*)"])

    def settle(self) -> None:
        """Has the next read of each collection wait until everything is seen that anybody has written."""
        self._unseen.update(self.kinds())

    def _level(self, kind: str) -> str:
        """How much the next read has to see. A session sees what it has written, but not yet what it has deleted."""
        if kind in self._unseen:
            self._unseen.discard(kind)
            return "Strong"
        return "Session"

    def dim(self, kind: str) -> int:
        """Of the vector "row" of a collection."""
        if kind not in self._dims:
            with self._errors():
                fields = self._client.describe_collection(self.name(kind))["fields"]
            self._dims[kind] = next(int(field["params"]["dim"]) for field in fields if "dim" in field["params"])
        return self._dims[kind]

    def nearest(
        self, kind: str, queries: np.ndarray, k: int, *, probes: int | None = None
    ) -> list[list[tuple[str, float]]]:
        """Keys and inner products of the k nearest rows of each query, best first.

        Exactly; or in so many lists of each segment, where the collection is in lists.
        """
        options = {} if probes is None else {"nprobe": probes}
        with self._errors():
            found = self._client.search(
                self.name(kind),
                data=queries.astype(np.float32).tolist(),
                anns_field=_VECTOR,
                limit=k,
                output_fields=["key"],
                search_params={"metric_type": "IP", "params": options},
                consistency_level=self._level(kind),
            )
        return [[(hit["entity"]["key"], float(hit["distance"])) for hit in hits] for hits in found]

    @property
    def lists(self) -> int:
        """Into which the rows of each segment are sorted; 0 where the server has no faithful approximate search."""
        return 0 if self.address.is_file else _LISTS

    def finish_lists(self, kind: str) -> None:
        """Waits until a collection in lists is searched by them.

        Raises:
            IndexStorageError: the server does not get on with it.
        """
        with self._errors():
            self._client.flush(self.name(kind))
            until = time.monotonic() + _LISTED_WITHIN_S
            loaded = -1
            while time.monotonic() < until:
                segments = self._client.list_loaded_segments(self.name(kind))
                waiting = [one for one in segments if one.num_rows >= _LISTED_FROM and not one.index_name]
                now_loaded = sum(one.num_rows for one in segments if one not in waiting)
                if not waiting and segments:
                    return
                if now_loaded > loaded:
                    loaded, until = now_loaded, time.monotonic() + _LISTED_WITHIN_S
                time.sleep(_LOOKS_EVERY_S)
        raise IndexStorageError(
            f"{printable(self.address.shown)} has made no list for {_LISTED_WITHIN_S:g} s; its log says why"
        )

    @contextmanager
    def _errors(self) -> Iterator[None]:
        import grpc  # noqa: PLC0415 - comes with the extra

        try:
            yield
        except (self._pymilvus.MilvusException, grpc.RpcError, OSError) as error:
            gone = getattr(error, "code", None) == self._pymilvus.exceptions.ErrorCode.COLLECTION_NOT_FOUND
            raised = _GoneError if gone else IndexStorageError
            raise raised(f"{printable(self.address.shown)} cannot be used: {error}{_advice(error)}") from error


class _GoneError(IndexStorageError):
    """A collection was dropped meanwhile."""


def _advice(error: Exception) -> str:
    """What to look at, where it was not the server that gave an answer."""
    code = getattr(error, "code", None)
    is_answer = isinstance(code, int) and code != _NOT_CONNECTED
    asked = f"Is the server running, and reached? Does it want a password ({TOKEN}), or milvus+tls://?"
    return "" if is_answer else f". {asked}"
