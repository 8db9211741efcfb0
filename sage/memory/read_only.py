"""A vector store that is looked at and not written to."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from typing import Any, NoReturn

from sage.errors import MemoryFailure
from sage.ports import ScoredVector, StoredVector, VectorStore


class ReadOnlyVectorStore:
    """``VectorStore`` over another one, whose writes raise MemoryFailure: for runs that must change nothing."""

    def __init__(self, store: VectorStore) -> None:
        self._store = store
        self.exists = store.exists
        self.get = store.get
        self.count = store.count
        self.dim = store.dim
        self.close = store.close

    def list(self) -> list[str]:
        """The collections' names."""
        return self._store.list()

    def scan(self, collection: str, *, batch_size: int = 1000, filter: str | None = None) -> Any:
        """An iterator over lists of rows."""
        return self._store.scan(collection, batch_size=batch_size, filter=filter)

    def search(
        self,
        collection: str,
        vectors: Sequence[Sequence[float]],
        *,
        top_k: int,
        index: str | None = None,
        filter: str | None = None,
    ) -> builtins.list[builtins.list[ScoredVector]]:
        """The nearest rows of each vector."""
        return self._store.search(collection, vectors, top_k=top_k, index=index, filter=filter)

    def flush(self, collection: str) -> None:
        """Nothing was written, so nothing is flushed."""

    def create(self, collection: str, *, dim: int, description: str = "") -> None:
        """Raises MemoryFailure."""
        _refuse(collection, "is not made")

    def drop(self, collection: str) -> None:
        """Raises MemoryFailure."""
        _refuse(collection, "is not deleted")

    def rename(self, collection: str, new_name: str) -> None:
        """Raises MemoryFailure."""
        _refuse(collection, "is not renamed")

    def upsert(self, collection: str, rows: Sequence[StoredVector]) -> None:
        """Raises MemoryFailure."""
        _refuse(collection, "is not written to")

    def delete(self, collection: str, ids: Sequence[str]) -> int:
        """Raises MemoryFailure."""
        _refuse(collection, "keeps its rows")


def _refuse(collection: str, what: str) -> NoReturn:
    raise MemoryFailure(f"collection {collection!r} {what}: this run only reads memory")
