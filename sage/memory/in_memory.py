"""The vector store port in this process's memory, for tests: exact search, nothing kept."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from sage.errors import DimensionMismatch, MemoryFailure, NotFound
from sage.memory.filter_text import parse
from sage.memory.filters import matches
from sage.ports import ScoredVector, StoredVector

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Rows = list[StoredVector]
Hits = list[list[ScoredVector]]


@dataclass
class _Collection:
    dim: int
    description: str = ""
    rows: dict[str, StoredVector] = field(default_factory=dict)


class InMemoryVectorStore:
    """``VectorStore`` over a dictionary. Safe to call from several threads."""

    def __init__(self) -> None:
        self._collections: dict[str, _Collection] = {}
        self._lock = threading.RLock()

    def create(self, collection: str, *, dim: int, description: str = "") -> None:
        """Make an empty collection.

        Raises:
            MemoryFailure: it exists.
        """
        with self._lock:
            if collection in self._collections:
                raise MemoryFailure(f"collection {collection!r} exists already")
            self._collections[collection] = _Collection(dim, description)

    def exists(self, collection: str) -> bool:
        """Whether the collection is there."""
        return collection in self._collections

    def list(self) -> list[str]:
        """The collections' names, sorted."""
        return sorted(self._collections)

    def drop(self, collection: str) -> None:
        """Delete a collection with all rows; nothing happens when it isn't there."""
        with self._lock:
            self._collections.pop(collection, None)

    def rename(self, collection: str, new_name: str) -> None:
        """Give a collection another name.

        Raises:
            NotFound: it isn't there.
            MemoryFailure: the new name is taken.
        """
        with self._lock:
            found = self._of(collection)
            if new_name in self._collections:
                raise MemoryFailure(f"collection {new_name!r} exists already")
            self._collections[new_name] = found
            del self._collections[collection]

    def upsert(self, collection: str, rows: Sequence[StoredVector]) -> None:
        """Insert or replace by id; all rows or, when one has the wrong length, none."""
        with self._lock:
            found = self._of(collection)
            for row in rows:
                _check_length(collection, found.dim, len(row.vector))
            for row in rows:
                vector = [float(number) for number in row.vector]
                found.rows[row.id] = replace(row, vector=vector, metadata=dict(row.metadata))

    def delete(self, collection: str, ids: Sequence[str]) -> int:
        """Delete rows by id; how many there were."""
        with self._lock:
            found = self._of(collection)
            return sum(found.rows.pop(one, None) is not None for one in ids)

    def get(self, collection: str, ids: Sequence[str]) -> Rows:
        """The rows that are there, in the order of ``ids``."""
        with self._lock:
            rows = self._of(collection).rows
            return [rows[one] for one in ids if one in rows]

    def scan(
        self,
        collection: str,
        *,
        batch_size: int = 1000,
        filter: str | None = None,
    ) -> Iterator[Rows]:
        """All rows that the filter lets through, in batches, as they were when the scan began."""
        rows = self._rows(self._of(collection), None, filter)
        for start in range(0, len(rows), batch_size):
            yield rows[start : start + batch_size]

    def count(self, collection: str) -> int:
        """How many rows there are."""
        return len(self._of(collection).rows)

    def dim(self, collection: str) -> int:
        """The length of the collection's vectors."""
        return self._of(collection).dim

    def search(
        self,
        collection: str,
        vectors: Sequence[Sequence[float]],
        *,
        top_k: int,
        index: str | None = None,
        filter: str | None = None,
    ) -> Hits:
        """The ``top_k`` nearest rows of each vector by cosine, best first."""
        import numpy as np

        found = self._of(collection)
        for vector in vectors:
            _check_length(collection, found.dim, len(vector))
        rows = self._rows(found, index, filter)
        if not rows or not len(vectors):
            return [[] for _ in vectors]
        scores: NDArray[np.float64] = (
            _unit(np.asarray(vectors, dtype=np.float64))
            @ _unit(np.asarray([row.vector for row in rows], dtype=np.float64)).T
        )
        return [
            [_scored(rows[place], float(line[place])) for place in np.argsort(-line, kind="stable")[:top_k]]
            for line in scores
        ]

    def flush(self, collection: str) -> None:
        """Nothing to do: there is no disk."""
        self._of(collection)

    def close(self) -> None:
        """Forget everything."""
        with self._lock:
            self._collections.clear()

    def _of(self, collection: str) -> _Collection:
        with self._lock:
            if collection not in self._collections:
                raise NotFound(f"collection {collection!r} does not exist")
            return self._collections[collection]

    def _rows(self, found: _Collection, index: str | None, filter_text: str | None) -> Rows:
        tree = parse(filter_text) if filter_text else None
        with self._lock:
            return [
                row
                for row in found.rows.values()
                if (index is None or index in row.indexes) and (tree is None or matches(tree, row.metadata))
            ]


def _check_length(collection: str, dim: int, length: int) -> None:
    if length != dim:
        raise DimensionMismatch(f"collection {collection!r} holds vectors of {dim} numbers; found one of {length}")


def _unit(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    import numpy as np

    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: NDArray[np.float64] = rows / np.where(norms == 0, 1, norms)
    return unit


def _scored(row: StoredVector, score: float) -> ScoredVector:
    return ScoredVector(id=row.id, text=row.text, score=score, metadata=dict(row.metadata))
