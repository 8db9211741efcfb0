"""Passages into memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from sage.memory.ingest import chunk_id, content_id
from sage.operators.embedding import TextVectors, embeds_with_service
from sage.operators.record import as_record, required
from sage.operators.threads import Threads
from sage.spec.component import Operator
from sage.spec.context import Context, OpenContext

if TYPE_CHECKING:
    from sage.memory.collection import VDBMemoryCollection
    from sage.ports import StoredVector

Stored = Literal["added", "updated", "unchanged", "empty"]

_WINDOW = 64


class MemoryWriter(Operator[str | Mapping[str, Any], dict[str, Any]]):
    """Write passages into a collection, by id: writing one twice changes nothing.

    Takes what ``TextSplitter`` gives, with or without the ``vector`` that ``Embedder`` adds: ``text``, and
    where there are any ``id``, ``metadata`` and ``vector``. A record without an id gets one made of its content.
    What has no vector is embedded here, but for passages that are stored already with the same text.

    A changed document replaces what was stored of it: its passages have their places as ids, and after the last
    one those are deleted that an earlier, longer version had behind it. Passages of one document must come in
    order, as they do when they share a key.

    Gives the record without its vector, and with ``stored``: ``added``, ``updated``, ``unchanged``, or ``empty``
    for one without text.
    """

    class Config(BaseModel):
        """Where passages go."""

        model_config = ConfigDict(extra="forbid")

        collection: str = Field(min_length=1, description="The collection of memories to write to.")
        create: bool = Field(default=True, description="Make the collection when it is missing.")
        embedding: str | None = Field(
            default=None, description="The embedding model of a collection that is made; unset: the memory's default."
        )
        replace: bool = Field(
            default=True, description="Delete passages that a document no longer has when its last one has come."
        )
        indexes: list[str] = Field(
            default=[], description="Only these indexes of the collection get the passages; empty: all."
        )

    # A full batch of long passages, on a machine whose cores are busy; nobody waits for an answer here.
    default_timeout = 300.0

    _threads: Threads | None = None
    _collection: VDBMemoryCollection | None = None
    _vectors: TextVectors | None = None

    @classmethod
    def makes_calls(cls, config: Mapping[str, Any], memory: Mapping[str, Any]) -> bool:
        """A service's vectors are journaled, where ``embedding`` or the default tells; else ``TextVectors`` warns."""
        return embeds_with_service(config.get("embedding"), memory)

    async def open(self, ctx: OpenContext) -> None:
        """Connect to the collection, or make it.

        Raises:
            NotFound: it is missing and ``create`` is off, or its embedder is.
            DimensionMismatch, MemoryFailure: the embedder is not the one the collection was made with.
            Unreachable, FolderInUse: the memory.
        """
        self._threads = Threads(ctx.step, ctx.concurrency)
        self._collection = await self._threads.run(self._connected, ctx)
        self._vectors = TextVectors(self._collection.embedder, self._threads, "passage")

    async def close(self) -> None:
        """Have Milvus write its buffers to disk: from there it searches several times faster."""
        if self._threads is None:
            return
        try:
            if self._collection is not None:
                await self._threads.run(self._collection.store)
        finally:
            self._threads.close()

    async def process(self, value: str | Mapping[str, Any], ctx: Context) -> dict[str, Any]:
        """Write one passage; the record as described above.

        Raises:
            KeyError: the record has no ``text``.
            TypeError, MemoryFailure, DimensionMismatch: it can't be stored as it is.
            IndexFilterMissing: the collection has an index made with a function; name other ``indexes``.
        """
        return (await self.process_batch([value], [ctx]))[0]

    async def process_batch(
        self, values: Sequence[str | Mapping[str, Any]], contexts: Sequence[Context]
    ) -> list[dict[str, Any]]:
        """Write the passages; as ``process`` for each. Raises when one can't be stored; it may be called again."""
        assert self._collection is not None, "open() was not called"
        assert self._threads is not None
        records = [_passage(value) for value in values]
        outcomes: list[Stored] = []
        start = 0
        for end, record in enumerate(records, start=1):
            if self.config.replace and (behind := _behind(record)) is not None:
                outcomes += await self._write(records[start:end], contexts[start:end])
                await self._threads.run(_delete_from, self._collection, *behind)
                start = end
        outcomes += await self._write(records[start:], contexts[start:])
        return [
            {**{key: one for key, one in record.items() if key != "vector"}, "stored": outcome}
            for record, outcome in zip(records, outcomes, strict=True)
        ]

    def _connected(self, ctx: OpenContext) -> VDBMemoryCollection:
        memory, config = ctx.services.memory, self.config
        if config.create:
            model = ctx.services.embedder(config.embedding)
            if config.collection not in memory.list_collections():
                return memory.create_collection(config.collection, embedding_model=model, exist_ok=True)
        collection = memory.connect_collection(config.collection, config.embedding)
        for index in config.indexes:
            collection.check_index(index)
        _ = collection.embedder
        return collection

    async def _write(self, records: Sequence[Mapping[str, Any]], contexts: Sequence[Context]) -> list[Stored]:
        filled = [record for record in records if record["text"]]
        if not filled:
            return ["empty" for _ in records]
        assert self._collection is not None
        assert self._threads is not None
        assert self._vectors is not None
        found = await self._threads.run(self._collection.get, [record["id"] for record in filled])
        before = {row.id: row for row in found}
        outcomes: list[Stored] = [_outcome(record, before.get(record["id"])) for record in records]
        with_vector: list[tuple[Mapping[str, Any], Any]] = []
        without: list[tuple[Mapping[str, Any], Context]] = []
        for record, ctx, outcome in zip(records, contexts, outcomes, strict=True):
            if outcome in {"added", "updated"}:
                vector = _vector(record, before.get(record["id"]))
                if vector is None:
                    without.append((record, ctx))
                else:
                    with_vector.append((record, vector))
        if with_vector:
            await self._threads.run(self._insert, self._collection, with_vector)
        if without:
            vectors = await self._vectors.of([record["text"] for record, _ in without], [ctx for _, ctx in without])
            made = [(record, vector) for (record, _), vector in zip(without, vectors, strict=True)]
            await self._threads.run(self._insert, self._collection, made)
        return outcomes

    def _insert(self, collection: VDBMemoryCollection, passages: Sequence[tuple[Mapping[str, Any], Any]]) -> None:
        collection.insert_many(
            [record["text"] for record, _ in passages],
            [record["metadata"] for record, _ in passages],
            *self.config.indexes,
            ids=[record["id"] for record, _ in passages],
            vectors=[vector for _, vector in passages],
        )


def _passage(value: Any) -> dict[str, Any]:
    record = {"text": value} if isinstance(value, str) else as_record(value)
    text = required(record, "text", hint="Is a text splitter upstream?")
    if not isinstance(text, str):
        raise TypeError(f"text is a {type(text).__name__}, not a text")
    metadata = record.get("metadata") or {}
    if not isinstance(metadata, Mapping):
        raise TypeError(f"metadata is a {type(metadata).__name__}, not an object")
    ident = str(record.get("id") or content_id(text, metadata))
    return {**record, "id": ident, "metadata": dict(metadata)}


def _behind(record: Mapping[str, Any]) -> tuple[str, int] | None:
    """For the last passage of a document: its source, and the first place that it no longer has."""
    metadata = record["metadata"]
    source, chunk, chunks = (metadata.get(name) for name in ("source", "chunk", "chunks"))
    if not isinstance(source, str) or not isinstance(chunk, int) or not isinstance(chunks, int):
        return None
    is_last = chunk == chunks - 1 or (chunks == 0 and not record["text"])
    return (source, chunks) if is_last and record["id"] == chunk_id(source, chunk) else None


def _delete_from(collection: VDBMemoryCollection, source: str, chunk: int) -> None:
    """Delete a document's passages from a place on, a window at a time until one has none."""
    while collection.delete([chunk_id(source, place) for place in range(chunk, chunk + _WINDOW)]):
        chunk += _WINDOW


def _outcome(record: Mapping[str, Any], before: StoredVector | None) -> Stored:
    if not record["text"]:
        return "empty"
    if before is None:
        return "added"
    same = before.text == record["text"] and dict(before.metadata) == record["metadata"]
    return "unchanged" if same else "updated"


def _vector(record: Mapping[str, Any], before: StoredVector | None) -> Any:
    """The vector that came with the record, or the one stored for the same text; ``None``: it must be made."""
    if record.get("vector") is not None:
        return record["vector"]
    return before.vector if before is not None and before.text == record["text"] else None
