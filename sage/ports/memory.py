"""Vector collections."""

from __future__ import annotations

import builtins
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class StoredVector:
    """One row of a vector collection."""

    id: str
    vector: Sequence[float]
    text: str
    metadata: Mapping[str, Any]
    indexes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ScoredVector:
    """One hit: cosine similarity, higher is nearer."""

    id: str
    text: str
    score: float
    metadata: Mapping[str, Any]


class VectorStore(Protocol):
    """A database of vector collections. Raises NotFound, DimensionMismatch, Unreachable, FolderInUse."""

    def create(self, collection: str, *, dim: int, description: str = "") -> None: ...
    def exists(self, collection: str) -> bool: ...
    def list(self) -> builtins.list[str]: ...
    def drop(self, collection: str) -> None: ...
    def rename(self, collection: str, new_name: str) -> None: ...
    def upsert(self, collection: str, rows: Sequence[StoredVector]) -> None:
        """Insert or replace by id; readable by ``search`` when this returns."""
        ...

    def delete(self, collection: str, ids: Sequence[str]) -> int: ...
    def get(self, collection: str, ids: Sequence[str]) -> builtins.list[StoredVector]: ...
    def scan(self, collection: str, *, batch_size: int = 1000, filter: str | None = None) -> Any:
        """An iterator over lists of StoredVector: all rows that the filter lets through."""
        ...

    def count(self, collection: str) -> int: ...
    def dim(self, collection: str) -> int: ...
    def search(
        self,
        collection: str,
        vectors: Sequence[Sequence[float]],
        *,
        top_k: int,
        index: str | None = None,
        filter: str | None = None,
    ) -> builtins.list[builtins.list[ScoredVector]]: ...
    def flush(self, collection: str) -> None: ...
    def close(self) -> None: ...
