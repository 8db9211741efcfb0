"""The passages nearest in meaning to a question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, field_validator

from sage.memory.filter_text import as_text
from sage.operators.embedding import TextVectors, embeds_with_service
from sage.operators.record import as_record, required
from sage.operators.threads import Threads
from sage.spec.component import Operator
from sage.spec.context import Context, OpenContext

if TYPE_CHECKING:
    from sage.memory.collection import VDBMemoryCollection


class DenseRetriever(Operator[str | Mapping[str, Any], dict[str, Any]]):
    """Write as ``documents`` the passages of a collection that are nearest to ``query``, best first.

    The questions of a batch are embedded in one call and searched for in one request. Every other field stays. Where
    somebody reads the branch ``empty``, records for which nothing was found go there instead.
    """

    branches = ("empty",)

    class Config(BaseModel):
        """Where to look, and for how much."""

        model_config = ConfigDict(extra="forbid", populate_by_name=True)

        collection: str = Field(min_length=1, description="The collection of memories to search.")
        top_k: int = Field(
            default=5,
            ge=1,
            le=16_384,
            validation_alias=AliasChoices("top_k", "topk"),
            description="How many passages at most.",
        )
        filter: str | dict[str, Any] | None = Field(
            default=None,
            description='Only passages whose metadata it lets through: text such as lang == "en" and year >= 2024, '
            "or a mapping of fields to the values they must have.",
        )
        index: str | None = Field(default=None, description="Only passages of this index of the collection.")

        @field_validator("filter")
        @classmethod
        def _readable(cls, value: str | dict[str, Any] | None) -> str | dict[str, Any] | None:
            # Refused when the topology is read, not when the first record comes.
            as_text(value)
            return value

    default_timeout = 60.0

    _threads: Threads | None = None
    _collection: VDBMemoryCollection | None = None
    _vectors: TextVectors | None = None

    @classmethod
    def makes_calls(cls, config: Mapping[str, Any], memory: Mapping[str, Any]) -> bool:
        """A service's vectors are journaled, where the memory's default tells of it; else ``TextVectors`` warns."""
        del config
        return embeds_with_service(None, memory)

    async def open(self, ctx: OpenContext) -> None:
        """Connect, load the embedder, and check that they fit.

        Raises:
            NotFound: the collection, its index or its embedder is missing.
            DimensionMismatch, MemoryFailure: the embedder is not the one the collection was made with.
            Unreachable, FolderInUse: the memory.
        """
        self._threads = Threads(ctx.step, ctx.concurrency)
        self._collection = await self._threads.run(self._connected, ctx)
        self._vectors = TextVectors(self._collection.embedder, self._threads, "query")

    async def close(self) -> None:
        """End the threads."""
        if self._threads is not None:
            self._threads.close()

    async def process(self, value: str | Mapping[str, Any], ctx: Context) -> dict[str, Any]:
        """The record with its ``documents``.

        Raises:
            KeyError: the record has no ``query``.
            TypeError: it is not a text.
        """
        return (await self.process_batch([value], [ctx]))[0]

    async def process_batch(
        self, values: Sequence[str | Mapping[str, Any]], contexts: Sequence[Context]
    ) -> list[dict[str, Any]]:
        """As ``process`` for each value; raises when one of them can't be searched for."""
        assert self._collection is not None, "open() was not called"
        assert self._threads is not None
        assert self._vectors is not None
        records = [as_record(value) for value in values]
        queries = [_query(record) for record in records]
        config = self.config
        vectors = await self._vectors.of(queries, contexts)
        found = await self._threads.run(
            self._collection.search, vectors, config.top_k, filter=config.filter, index=config.index
        )
        results = [{**record, "documents": documents} for record, documents in zip(records, found, strict=True)]
        for result, ctx in zip(results, contexts, strict=True):
            if not result["documents"]:
                ctx.divert("empty", result)
        return results

    def _connected(self, ctx: OpenContext) -> VDBMemoryCollection:
        collection = ctx.services.memory.connect_collection(self.config.collection)
        if self.config.index is not None:
            collection.check_index(self.config.index)
        _ = collection.embedder
        return collection


def _query(record: Mapping[str, Any]) -> str:
    query = required(record, "query", hint="Is the question in a field called query?")
    if not isinstance(query, str):
        raise TypeError(f"query is a {type(query).__name__}, not a text")
    return query
