"""The collections of an index on a Milvus server, with its errors as ours."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from coocnet.errors import IndexStorageError, InputError, printable
from coocnet.index.milvus.address import Address

MOST_HITS = 16_384
"""Of one search; Milvus has no more."""
_AT_ONCE = 1000
_BYTES_AT_ONCE = 16 << 20
_KEYS_AT_ONCE = 500
_TIME_S = 60.0
_VECTOR = "row"
_PLACE_HOLDER = "nothing"

Row = dict[str, Any]


class Server:
    """A connection. Reads see what this connection wrote, and what others wrote some moments ago at the latest.

    Args:
        address: of the index.

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
        with self._errors():
            self._client = pymilvus.MilvusClient(uri=address.uri, token=address.token, timeout=_TIME_S)
            for kind in self.kinds():
                self._client.load_collection(self.name(kind))  # Milvus Lite forgets what was loaded

    def close(self) -> None:
        """Ends the connection."""
        self._client.close()

    def name(self, kind: str) -> str:
        """Of a collection of this index."""
        return f"{self.address.name}__{kind}"

    def kinds(self) -> list[str]:
        """The collections of this index."""
        before = self.name("")
        with self._errors():
            return [name.removeprefix(before) for name in self._client.list_collections() if name.startswith(before)]

    def make(self, kind: str, key_letters: int, fields: Mapping[str, int | None], *, dim: int | None = None) -> None:
        """Makes a collection, keyed by text.

        Args:
            kind: of the collection.
            key_letters: of the key "key", at most.
            fields: further ones: the most letters of a text, None for whole numbers.
            dim: of the vector "row" that is searched, if there is one.
        """
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
        index.add_index(vector, index_type="FLAT", metric_type="IP")
        with self._errors():
            self._client.create_collection(
                self.name(kind), schema=schema, index_params=index, consistency_level="Session"
            )

    def drop(self, kind: str) -> None:
        """Deletes a collection, if it is there."""
        with self._errors():
            self._client.drop_collection(self.name(kind))

    def put(self, kind: str, rows: Sequence[Row]) -> None:
        """Stores rows, all with the vector "row" or none, each in place of that with its key."""
        width = max((len(row[_VECTOR]) for row in rows if _VECTOR in row), default=0)
        filled = list(rows) if width else [{**row, _PLACE_HOLDER: [0.0, 0.0]} for row in rows]
        step = max(1, min(_AT_ONCE, _BYTES_AT_ONCE // (4 * max(width, 1))))
        with self._errors():
            for start in range(0, len(filled), step):
                self._client.upsert(self.name(kind), filled[start : start + step])

    def delete(self, kind: str, keys: Sequence[str]) -> None:
        """Deletes the rows of keys, as far as they are there; the next read waits until that is seen."""
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

    def rows(self, kind: str, where: str, fields: Sequence[str]) -> Iterator[Row]:
        """Rows for which an expression is true, in order of their keys; all of them for ``""``."""
        with self._errors():
            pages = self._client.query_iterator(
                self.name(kind),
                batch_size=_AT_ONCE,
                filter=where or 'key like "%"',
                output_fields=["key", *fields],
                consistency_level=self._level(kind),
            )
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
            self._unseen.remove(kind)
            return "Strong"
        return "Session"

    def nearest(self, kind: str, queries: np.ndarray, k: int) -> list[list[tuple[str, float]]]:
        """Keys and inner products of the k nearest rows of each query, exactly, best first."""
        with self._errors():
            found = self._client.search(
                self.name(kind),
                data=queries.astype(np.float32).tolist(),
                anns_field=_VECTOR,
                limit=k,
                output_fields=["key"],
                consistency_level=self._level(kind),
            )
        return [[(hit["entity"]["key"], float(hit["distance"])) for hit in hits] for hits in found]

    @contextmanager
    def _errors(self) -> Iterator[None]:
        import grpc  # noqa: PLC0415 - comes with the extra

        try:
            yield
        except (self._pymilvus.MilvusException, grpc.RpcError, OSError) as error:
            place = printable(self.address.shown)
            raise IndexStorageError(
                f"{place} cannot be used: {error}. Is the server running, and reached?"
            ) from error
