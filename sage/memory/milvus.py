"""The vector store port over Milvus: a server, ``milvus-lite server``, or milvus-lite in this process."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from sage.errors import DimensionMismatch, MemoryFailure, SageError
from sage.memory import embedded
from sage.memory.filter_text import parse
from sage.memory.filters import milvus_text
from sage.memory.milvus_errors import NOT_LOADED, as_sage_error, not_found
from sage.memory.milvus_names import logical_name, physical_name
from sage.model.secrets import remember_secret
from sage.ports import ScoredVector, StoredVector

Rows = list[StoredVector]
Hits = list[list[ScoredVector]]

MAX_TEXT_BYTES = 65_535
"""What Milvus holds in one text field."""

MAX_ID_BYTES = 512

_CHANNEL_OPTIONS = {
    # Without a pool of its own a new connection shares the back-off of the broken one, and a server that was
    # started again stays out of reach for up to two minutes.
    "grpc.use_local_subchannel_pool": 1,
    # milvus-lite hangs up on clients that ping while they have nothing to ask.
    "grpc.keepalive_permit_without_calls": 0,
}

_BATCH_ROWS = 1000
_BATCH_BYTES = 8_000_000
_MAX_HITS = 16_384
_MAX_PAGE = 8192
_PAGE_BYTES = 32_000_000
_ROW_FIELDS = ["id", "vector", "text", "metadata", "indexes"]
_HIT_FIELDS = ["text", "metadata"]


class MilvusVectorStore:
    """``VectorStore`` over pymilvus. Reads see every write that returned before. Safe to call from threads.

    Args:
        uri: ``http://host:port`` of a server, or a folder that milvus-lite keeps in this process.
        token: ``user:password`` or an API key, where the server asks for one.
        timeout: seconds that one call may take, reconnecting included.

    Raises:
        Unreachable, Unauthorized: the server.
        FolderInUse: another process holds the folder.
    """

    def __init__(self, uri: str | Path, token: str | None = None, *, timeout: float = 30.0) -> None:
        self._folder = None if isinstance(uri, str) and "://" in uri else Path(uri)
        self._timeout = timeout
        remember_secret(token or "", (token or "").partition(":")[2])
        self._address = str(uri) if self._folder is None else embedded.open_engine(self._folder)
        try:
            self._client = _connect(self._address, token, timeout)
        except BaseException:
            if self._folder is not None:
                embedded.close_engine(self._folder)
            raise
        self._closed = False

    def create(self, collection: str, *, dim: int, description: str = "") -> None:
        """Make an empty collection, ready for search.

        Raises:
            MemoryFailure: it exists, or the server refuses the dimension.
        """
        if self.exists(collection):
            raise MemoryFailure(f"collection {collection!r} exists already")
        from pymilvus import DataType

        schema = self._client.create_schema(auto_id=False, enable_dynamic_field=False, description=description)
        schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=MAX_ID_BYTES)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=dim)
        schema.add_field("text", DataType.VARCHAR, max_length=MAX_TEXT_BYTES)
        schema.add_field("metadata", DataType.JSON)
        schema.add_field("indexes", DataType.ARRAY, element_type=DataType.VARCHAR, max_capacity=256, max_length=256)
        index = self._client.prepare_index_params()
        index.add_index("vector", index_type=self._index_type(), metric_type="COSINE")
        self._call("create_collection", collection, schema=schema, consistency_level="Strong")
        # Not waited for: an empty collection's index is ready, and pymilvus would sleep half a second first.
        self._call("create_index", collection, index, sync=False)
        self._call("load_collection", collection)

    def exists(self, collection: str) -> bool:
        """Whether the collection is there."""
        return bool(self._call("has_collection", collection))

    def list(self) -> list[str]:
        """The collections' names, sorted."""
        return sorted(logical_name(name) for name in self._call("list_collections"))

    def drop(self, collection: str) -> None:
        """Delete a collection with all rows; nothing happens when it isn't there."""
        if self.exists(collection):
            self._call("drop_collection", collection)

    def rename(self, collection: str, new_name: str) -> None:
        """Give a collection another name.

        Raises:
            NotFound: it isn't there.
            MemoryFailure: the new name is taken.
        """
        if not self.exists(collection):
            raise not_found(collection)
        if self.exists(new_name):
            raise MemoryFailure(f"collection {new_name!r} exists already")
        self._call("rename_collection", collection, physical_name(new_name))

    def upsert(self, collection: str, rows: Sequence[StoredVector]) -> None:
        """Insert or replace by id; of rows with the same id the last counts. Large ones go in several batches.

        Raises:
            NotFound, DimensionMismatch: the collection; nothing is written then.
            MemoryFailure: a text or id is longer than Milvus holds, or the server refuses a row.
        """
        dim = self.dim(collection)
        for row in rows:
            _check(collection, dim, row)
        # Two rows of one id in one request would both be stored.
        distinct = {row.id: row for row in rows}.values()
        for batch in _batches(distinct):
            self._call("upsert", collection, batch)

    def delete(self, collection: str, ids: Sequence[str]) -> int:
        """Delete rows by id; how many there were."""
        present = [row["id"] for row in self._get(collection, ids, ["id"])]
        for start in range(0, len(present), _BATCH_ROWS):
            self._call("delete", collection, ids=present[start : start + _BATCH_ROWS])
        return len(present)

    def get(self, collection: str, ids: Sequence[str]) -> Rows:
        """The rows that are there, in the order of ``ids``."""
        found = {row["id"]: _stored(row) for row in self._get(collection, ids, _ROW_FIELDS)}
        return [found[one] for one in ids if one in found]

    def scan(
        self,
        collection: str,
        *,
        batch_size: int = 1000,
        filter: str | None = None,
    ) -> Iterator[Rows]:
        """All rows that the filter lets through, in batches. Rows written meanwhile may or may not be seen."""
        # Large pages: milvus-lite sorts all rows for each one.
        page = max(1, min(_MAX_PAGE, _PAGE_BYTES // (4 * self.dim(collection) + 1000)))
        iterator = self._call(
            "query_iterator",
            collection,
            filter=milvus_text(parse(filter)) if filter else "",
            batch_size=page,
            output_fields=_ROW_FIELDS,
        )
        try:
            while rows := self._guarded(collection, iterator.next):
                for start in range(0, len(rows), batch_size):
                    yield [_stored(row) for row in rows[start : start + batch_size]]
        finally:
            iterator.close()

    def count(self, collection: str) -> int:
        """How many rows there are."""
        return int(self._call("query", collection, output_fields=["count(*)"])[0]["count(*)"])

    def dim(self, collection: str) -> int:
        """The length of the collection's vectors."""
        fields = self._call("describe_collection", collection)["fields"]
        found = next((field["params"].get("dim") for field in fields if field["name"] == "vector"), None)
        if found is None:
            raise MemoryFailure(f"collection {collection!r} was not made by SAGE: it has no field 'vector'")
        return int(found)

    def search(
        self,
        collection: str,
        vectors: Sequence[Sequence[float]],
        *,
        top_k: int,
        index: str | None = None,
        filter: str | None = None,
    ) -> Hits:
        """The ``top_k`` nearest rows of each vector by cosine, best first; all vectors in one request."""
        if not len(vectors):
            return []
        if len({len(vector) for vector in vectors}) > 1:
            raise DimensionMismatch(f"collection {collection!r}: the vectors searched for differ in length")
        conditions = [] if index is None else [f"array_contains(indexes, {_quoted(index)})"]
        if filter:
            conditions.append(milvus_text(parse(filter)))
        try:
            found = self._call(
                "search",
                collection,
                data=[[float(number) for number in vector] for vector in vectors],
                anns_field="vector",
                limit=min(top_k, _MAX_HITS),
                filter=" and ".join(conditions),
                output_fields=_HIT_FIELDS,
            )
        except MemoryFailure:
            # Asked only now, as it costs a request: the usual reason for a refused search.
            if (dim := self.dim(collection)) != len(vectors[0]):
                raise _wrong_length(collection, dim, len(vectors[0])) from None
            raise
        return [[_scored(hit) for hit in hits] for hits in found]

    def flush(self, collection: str) -> None:
        """Ask Milvus to write its buffers to disk. Rows are safe from this process's end without it."""
        if not self.exists(collection):  # milvus-lite has no word about that
            raise not_found(collection)
        self._call("flush", collection)

    def close(self) -> None:
        """Close the connection, and the embedded engine with its last user; idempotent."""
        if self._closed:
            return
        self._closed = True
        self._client.close()
        if self._folder is not None:
            embedded.close_engine(self._folder)

    def _index_type(self) -> str:
        # milvus-lite's exact search is fast enough for what fits in one process; servers choose for themselves.
        lite = "lite" in str(self._guarded("", self._client.get_server_version, timeout=self._timeout))
        return "FLAT" if lite else "AUTOINDEX"

    def _get(self, collection: str, ids: Sequence[str], fields: Sequence[str]) -> Iterator[Any]:
        distinct = list(dict.fromkeys(ids))
        for start in range(0, len(distinct), _BATCH_ROWS):
            yield from self._call(
                "get", collection, ids=distinct[start : start + _BATCH_ROWS], output_fields=list(fields)
            )

    def _call(self, method: str, collection: str | None = None, *args: Any, **options: Any) -> Any:
        """Call the client; the first argument of most methods is the collection."""
        call = getattr(self._client, method)
        names = () if collection is None else (physical_name(collection),)
        return self._guarded(collection or "", call, *names, *args, timeout=self._timeout, **options)

    def _guarded(self, collection: str, call: Any, *args: Any, **options: Any) -> Any:
        from pymilvus.exceptions import MilvusException

        if self._closed:
            raise SageError("this memory is closed; make another MemoryManager")
        try:
            return call(*args, **options)
        except MilvusException as error:
            if error.code != NOT_LOADED:
                raise as_sage_error(error, self._address, collection) from error
        # A server that was started again, or a renamed collection: milvus-lite wants it loaded first.
        try:
            self._client.load_collection(physical_name(collection), timeout=self._timeout)
            return call(*args, **options)
        except MilvusException as error:
            raise as_sage_error(error, self._address, collection) from error


def _connect(address: str, token: str | None, timeout: float) -> Any:
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from pymilvus import MilvusClient
    from pymilvus.exceptions import MilvusException

    # It logs every failed call with a traceback, on its own handler; what failed is in our error.
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL + 1)
    try:
        return MilvusClient(
            address, token=token or "", timeout=min(timeout, 10.0), dedicated=True, grpc_options=_CHANNEL_OPTIONS
        )
    except MilvusException as error:
        raise as_sage_error(error, address, "") from error


def _check(collection: str, dim: int, row: StoredVector) -> None:
    if len(row.vector) != dim:
        raise _wrong_length(collection, dim, len(row.vector))
    if (size := len(row.text.encode())) > MAX_TEXT_BYTES:
        raise MemoryFailure(
            f"collection {collection!r}: a text has {size:,} bytes, and Milvus holds {MAX_TEXT_BYTES:,}; split it first"
        )
    if not 0 < len(row.id.encode()) <= MAX_ID_BYTES:
        raise MemoryFailure(
            f"collection {collection!r}: an id has {len(row.id)} characters; 1 to 512 bytes are allowed"
        )


def _wrong_length(collection: str, dim: int, found: int) -> DimensionMismatch:
    return DimensionMismatch(
        f"collection {collection!r} holds vectors of {dim} numbers; found one of {found}. "
        "Use the embedding model that the collection was made with"
    )


def _batches(rows: Iterable[StoredVector]) -> Iterator[list[dict[str, Any]]]:
    """Requests of bounded size: a server refuses messages over 64 MB."""
    batch: list[dict[str, Any]] = []
    size = 0
    for row in rows:
        batch.append(
            {
                "id": row.id,
                "vector": [float(number) for number in row.vector],
                "text": row.text,
                "metadata": dict(row.metadata),
                "indexes": [*row.indexes],
            }
        )
        size += 4 * len(row.vector) + len(row.text) + 200
        if len(batch) >= _BATCH_ROWS or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _stored(row: Any) -> StoredVector:
    return StoredVector(
        id=row["id"],
        vector=[float(number) for number in row["vector"]],
        text=row["text"],
        metadata=row["metadata"] or {},
        indexes=tuple(row["indexes"] or ()),
    )


def _scored(hit: Any) -> ScoredVector:
    entity = hit["entity"]
    return ScoredVector(
        id=hit["id"], text=entity["text"], score=float(hit["distance"]), metadata=entity["metadata"] or {}
    )


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
