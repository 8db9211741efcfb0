"""What SAGE knows of a collection beyond its rows, kept as rows of a collection of its own.

So whoever reaches the rows reaches this too: another process, another machine, any Milvus.
"""

from __future__ import annotations

import difflib
import threading
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from sage.errors import MemoryFailure, NotFound
from sage.ports import StoredVector, VectorStore

MANIFEST_COLLECTION = "sage_manifest"
"""The collection that holds one row per collection of SAGE's."""

FORMAT = 1

_DIM = 2
_VECTOR = (1.0, 0.0)  # Milvus has no rows without a vector

IndexKind = Literal["all", "filter", "function"]


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """One index: which rows are let in.

    Attributes:
        kind: every row; those that ``filter`` lets through; those that a function let through.
        filter: the filter's text, for ``filter``.
    """

    kind: IndexKind
    filter: str | None = None


@dataclass(frozen=True, slots=True)
class Manifest:
    """One collection.

    Attributes:
        name: as users see it.
        embedding: the name of the embedder that made the vectors.
        dim: their length.
        description: as given when it was made.
        fields: declared metadata fields and the names of their types.
        indexes: by name.
        backend_type: ``VDB``.
    """

    name: str
    embedding: str
    dim: int
    description: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)
    indexes: Mapping[str, IndexEntry] = field(default_factory=dict)
    backend_type: str = "VDB"

    def to_json(self) -> dict[str, Any]:
        """As stored."""
        return {
            **{key: value for key, value in asdict(self).items() if key != "name"},
            "fields": dict(self.fields),
            "indexes": {name: asdict(entry) for name, entry in self.indexes.items()},
            "format": FORMAT,
        }

    @classmethod
    def from_json(cls, name: str, data: Mapping[str, Any]) -> Manifest:
        """From what was stored.

        Raises:
            MemoryFailure: another version of SAGE wrote it.
        """
        try:
            if data["format"] != FORMAT:
                raise ValueError(f"format {data['format']}")
            indexes = {key: IndexEntry(**entry) for key, entry in data["indexes"].items()}
            rest = {key: data[key] for key in ("embedding", "dim", "description", "fields", "backend_type")}
            return cls(name=name, indexes=indexes, **rest)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise MemoryFailure(
                f"collection {name!r}: its entry in {MANIFEST_COLLECTION} is not one that this version of SAGE wrote "
                f"({type(error).__name__}: {error})"
            ) from error


class Manifests:
    """The manifests in one vector store. Safe to call from several threads."""

    def __init__(self, store: VectorStore) -> None:
        self._store = store
        self._lock = threading.Lock()

    def names(self) -> list[str]:
        """The collections that SAGE made, sorted."""
        if not self._store.exists(MANIFEST_COLLECTION):
            return []
        return sorted(row.id for batch in self._store.scan(MANIFEST_COLLECTION) for row in batch)

    def find(self, name: str) -> Manifest | None:
        """The collection's manifest, where there is one."""
        try:
            rows = self._store.get(MANIFEST_COLLECTION, [name])
        except NotFound:
            return None
        return Manifest.from_json(name, rows[0].metadata) if rows else None

    def get(self, name: str) -> Manifest:
        """The collection's manifest.

        Raises:
            NotFound: there is no such collection; names those that exist, and the nearest.
        """
        found = self.find(name)
        if found is None:
            raise NotFound(missing("collection", name, self.names(), f"make it with `sage memory ingest {name} docs/`"))
        return found

    def put(self, manifest: Manifest) -> None:
        """Write a manifest; seen by every process when this returns."""
        with self._lock:
            if not self._store.exists(MANIFEST_COLLECTION):
                self._make()
        row = StoredVector(manifest.name, _VECTOR, manifest.description[:1000], manifest.to_json())
        self._store.upsert(MANIFEST_COLLECTION, [row])

    def remove(self, name: str) -> None:
        """Forget a collection; nothing happens when it isn't known."""
        if self._store.exists(MANIFEST_COLLECTION):
            self._store.delete(MANIFEST_COLLECTION, [name])

    def rename(self, name: str, new_name: str) -> Manifest:
        """Move an entry to a new name."""
        renamed = replace(self.get(name), name=new_name)
        self.put(renamed)
        self.remove(name)
        return renamed

    def flush(self) -> None:
        """Ask the store to write the manifests to disk."""
        if self._store.exists(MANIFEST_COLLECTION):
            self._store.flush(MANIFEST_COLLECTION)

    def _make(self) -> None:
        try:
            self._store.create(MANIFEST_COLLECTION, dim=_DIM, description="What SAGE knows of its collections")
        except MemoryFailure:
            # Another process was faster.
            if not self._store.exists(MANIFEST_COLLECTION):
                raise


def missing(kind: str, name: str, known: Iterable[str], remedy: str) -> str:
    """The sentence for a name that isn't there: the nearest one, those that exist, and what to do."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    there = f"there are {', '.join(names[:10])}{' ...' if len(names) > 10 else ''}" if names else "there are none"
    question = f"; did you mean {near[0]}?" if near else ""
    return f"{kind} {name!r} does not exist; {there}{question or ';'} {'Or ' if near else ''}{remedy}"
