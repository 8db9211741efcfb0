"""A collection of memories: texts with metadata, found by meaning."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sage.errors import DimensionMismatch, MemoryFailure, NotFound
from sage.memory.filter_text import FilterLike, as_text
from sage.memory.indexes import MetadataFilter, admission, guarded, memberships
from sage.memory.ingest import content_id
from sage.memory.manifest import IndexEntry, IndexKind, Manifest, Manifests, missing
from sage.memory.metadata import checked, type_name
from sage.model.documents import Document
from sage.ports import Embedder, ScoredVector, StoredVector, VectorStore

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_BATCH = 256
_MAX_HITS = 16_384


class VDBMemoryCollection:
    """Texts, their metadata and vectors in one Milvus collection. Made by ``MemoryManager``.

    Rows live in the store and nowhere else: what one process inserts, every other one finds. Safe to call
    from several threads. Every method may raise Unreachable when the server is gone, and NotFound when
    the collection was deleted meanwhile.
    """

    def __init__(self, manifest: Manifest, store: VectorStore, manifests: Manifests, embedder: Callable[[], Embedder]):
        self._name = manifest.name
        self._known = manifest
        self._store = store
        self._manifests = manifests
        self._load = embedder
        self._loaded: Embedder | None = None
        self._functions: dict[str, MetadataFilter] = {}

    @property
    def name(self) -> str:
        """The collection's name."""
        return self._name

    @property
    def dim(self) -> int:
        """The length of its vectors."""
        return self._known.dim

    @property
    def description(self) -> str:
        """As given when it was made."""
        return self._known.description

    @property
    def metadata_fields(self) -> dict[str, str]:
        """The declared metadata fields and the names of their types."""
        return dict(self._fresh().fields)

    @property
    def indexes(self) -> list[str]:
        """The names of its indexes."""
        return sorted(self._fresh().indexes)

    @property
    def embedder(self) -> Embedder:
        """The embedder of its texts; loaded on first use.

        Raises:
            DimensionMismatch: it makes vectors of another length than the collection holds.
        """
        if self._loaded is None:
            loaded = self._load()
            if loaded.dim != self.dim:
                raise DimensionMismatch(
                    f"collection {self._name!r} holds vectors of {self.dim} numbers, made by {self._known.embedding}; "
                    f"{loaded.name} makes {loaded.dim}. Use the model that the collection was made with"
                )
            self._loaded = loaded
        return self._loaded

    def add_metadata_field(self, name: str, type: type | str = str) -> None:
        """Declare a metadata field: from now on values of another type are refused. Others stay free.

        Args:
            name: the field.
            type: str, int, float, bool, list or dict, or the name of one.

        Raises:
            MemoryFailure: another type, or the field is declared with another one already.
        """
        manifest, wanted = self._fresh(), type_name(type)
        declared = manifest.fields.get(name, wanted)
        if declared != wanted:
            raise MemoryFailure(f"collection {self._name!r}: metadata field {name!r} is declared {declared} already")
        self._save(replace(manifest, fields={**manifest.fields, name: wanted}))

    def insert(self, text: str, metadata: Mapping[str, Any] | None = None, *index_names: str) -> str:
        """Remember a text; found by ``retrieve`` from now on, in every process.

        Args:
            text: at most 65,535 bytes.
            metadata: JSON.
            index_names: only these indexes get it, where their filters let it through; by default all.

        Returns:
            Its id. The same text with the same metadata is the same memory, with the same id.

        Raises:
            MemoryFailure: the metadata is not as declared, or the text is too long.
            NotFound: an index named does not exist.
            IndexFilterMissing: an index was made with a function that this process does not have.
        """
        return self.insert_many([text], [metadata], *index_names)[0]

    def insert_many(
        self,
        texts: Sequence[str],
        metadata: Sequence[Mapping[str, Any] | None] | None = None,
        *index_names: str,
        ids: Sequence[str] | None = None,
        vectors: Sequence[Sequence[float]] | NDArray[np.float32] | None = None,
    ) -> list[str]:
        """Remember many texts, embedded and written in batches. As ``insert``; nothing is written when one is refused.

        Args:
            texts: the texts.
            metadata: one mapping (or ``None``) per text.
            index_names: as with ``insert``.
            ids: ids of your own; a row with the same id is replaced.
            vectors: the texts' vectors, where you have them.
        """
        count = len(texts)
        for what, given in (("metadata", metadata), ("ids", ids), ("vectors", vectors)):
            if given is not None and len(given) != count:
                raise MemoryFailure(f"collection {self._name!r}: {count} texts, and {len(given)} {what}")
        manifest = self._fresh()
        belongs = memberships(self._name, manifest.indexes, self._functions, index_names)
        clean = [
            checked(None if metadata is None else metadata[place], manifest.fields, collection=self._name)
            for place in range(count)
        ]
        keys = list(ids) if ids is not None else [content_id(text, clean[place]) for place, text in enumerate(texts)]
        joined = [belongs(one) for one in clean]
        for start in range(0, count, _BATCH):
            part = range(start, min(start + _BATCH, count))
            found: Any = (
                [vectors[place] for place in part]
                if vectors is not None
                else self.embedder.encode([texts[place] for place in part], kind="passage")
            )
            rows = [
                StoredVector(keys[place], found[nth], texts[place], clean[place], joined[place])
                for nth, place in enumerate(part)
            ]
            self._store.upsert(self._name, rows)
        return keys

    def update(
        self,
        id: str,
        text: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        *index_names: str,
    ) -> str:
        """Replace a memory's text, metadata or both under its id; its indexes are decided anew.

        Raises:
            NotFound: there is no memory with this id.
            and what ``insert`` raises.
        """
        rows = self._store.get(self._name, [id])
        if not rows:
            raise NotFound(f"collection {self._name!r}: there is no memory with the id {id!r}")
        row = rows[0]
        keep = text is None or text == row.text
        return self.insert_many(
            [row.text if text is None else text],
            [row.metadata if metadata is None else metadata],
            *index_names,
            ids=[id],
            vectors=[row.vector] if keep else None,
        )[0]

    def delete(self, id: str | Sequence[str]) -> int:
        """Forget memories by id; how many there were."""
        return self._store.delete(self._name, [id] if isinstance(id, str) else list(id))

    def delete_where(self, filter: FilterLike) -> int:
        """Forget the memories that a filter finds; how many there were."""
        ids = [row.id for batch in self._store.scan(self._name, filter=as_text(filter)) for row in batch]
        return self._store.delete(self._name, ids) if ids else 0

    def create_index(
        self,
        name: str,
        metadata_filter_func: MetadataFilter | None = None,
        filter: FilterLike | None = None,
    ) -> None:
        """Make a named subset that ``retrieve`` can search; what is there already joins it at once.

        Membership is stored with each row, so every process sees it. A function is not stored: a process that
        inserts needs it given again here (the index is then decided anew). A ``filter`` is stored.

        Args:
            name: the index. One that exists is made again.
            metadata_filter_func: a function of the metadata; a true result lets a row in.
            filter: the same as text (``lang == "en"``) or a mapping (``{"lang": "en"}``). Without either,
                every row is in.

        Raises:
            MemoryFailure: both were given, the filter can't be read, or the function failed.
        """
        if metadata_filter_func is not None and filter is not None:
            raise MemoryFailure(f"index {name!r}: give a metadata_filter_func or a filter, not both")
        kind: IndexKind = "function" if metadata_filter_func is not None else "all" if filter is None else "filter"
        entry = IndexEntry(kind, as_text(filter))
        admits = admission(self._name, name, entry, metadata_filter_func)
        manifest = self._fresh()
        # First the entry, so that another process's inserts count already; then the rows that are there.
        self._save(replace(manifest, indexes={**manifest.indexes, name: entry}))
        self._functions.pop(name, None)
        if metadata_filter_func is not None:
            self._functions[name] = metadata_filter_func
        self._rewrite(name, lambda row: admits(dict(row.metadata)))

    def delete_index(self, name: str) -> None:
        """Drop an index; its rows stay.

        Raises:
            NotFound: there is no such index.
        """
        manifest = self._fresh()
        self.check_index(name)
        self._save(replace(manifest, indexes={key: one for key, one in manifest.indexes.items() if key != name}))
        self._functions.pop(name, None)
        self._rewrite(name, lambda row: False)

    def check_index(self, name: str) -> None:
        """Make sure that an index exists, made by whichever process.

        Raises:
            NotFound: it does not; names those that do, and the nearest.
        """
        if name in self._known.indexes or name in self._fresh().indexes:
            return
        raise NotFound(
            missing(f"collection {self._name!r}: index", name, self._known.indexes, "make it with create_index")
        )

    def retrieve(
        self,
        text: str,
        topk: int = 5,
        index_name: str | None = None,
        with_metadata: bool = False,
        metadata_filter_func: MetadataFilter | None = None,
        *,
        top_k: int | None = None,
        filter: FilterLike | None = None,
    ) -> list[Any]:
        """The memories nearest to a text, best first.

        Args:
            text: what to look for.
            topk, top_k: how many at most.
            index_name: only among this index's rows.
            with_metadata: give mappings with ``id``, ``text``, ``score``, ``metadata`` instead of texts.
            metadata_filter_func: only rows whose metadata it returns true for; runs here, so prefer ``filter``.
            filter: only rows that it lets through; runs in Milvus.

        Raises:
            NotFound: there is no such index.
            MemoryFailure: the filter can't be read, or the function failed.
        """
        wanted = topk if top_k is None else top_k
        vectors = self.embedder.encode([text], kind="query")
        if metadata_filter_func is None:
            hits = self.search(vectors, wanted, filter=filter, index=index_name)[0]
        else:
            admits = guarded(self._name, "retrieve", metadata_filter_func)
            hits = self._over_fetched(vectors, wanted, filter, index_name, admits)
        return list(hits) if with_metadata else [hit["text"] for hit in hits]

    def search(
        self,
        queries: Sequence[str] | Sequence[Sequence[float]] | NDArray[np.float32],
        top_k: int = 5,
        filter: FilterLike | None = None,
        index: str | None = None,
    ) -> list[list[Document]]:
        """The nearest memories of each query: all texts in one call of the embedder, all vectors in one of Milvus.

        Raises:
            NotFound: there is no such index.
            DimensionMismatch: vectors of another length.
        """
        if top_k < 1:
            raise MemoryFailure(f"collection {self._name!r}: top_k is {top_k}; it must be 1 or more")
        if index is not None:
            self.check_index(index)
        vectors: Any = queries
        if len(queries) and isinstance(queries[0], str):
            vectors = self.embedder.encode(vectors, kind="query")
        found = self._store.search(self._name, vectors, top_k=top_k, index=index, filter=as_text(filter))
        return [[_document(hit) for hit in hits] for hits in found]

    def get(self, ids: Sequence[str]) -> list[StoredVector]:
        """The memories with these ids that are there, in their order."""
        return self._store.get(self._name, ids)

    def scan(self, filter: FilterLike | None = None) -> Iterator[list[StoredVector]]:
        """All memories that the filter lets through, in batches."""
        yield from self._store.scan(self._name, filter=as_text(filter))

    def count(self) -> int:
        """How many memories there are."""
        return self._store.count(self._name)

    def store(self) -> None:
        """Ask Milvus to write its buffers to disk, the manifest included."""
        self._store.flush(self._name)
        self._manifests.flush()

    @staticmethod
    def clear(
        name: str, data_dir: str | Path | None = None, *, uri: str | None = None, token: str | None = None
    ) -> None:
        """Delete a collection with all it holds, also when no manager has it open; one that isn't there is fine.

        Args:
            name: the collection.
            data_dir: the memory's folder; the default is ``MemoryManager``'s.
            uri, token: the server, where memory is not in a folder.
        """
        from sage.memory.manager import MemoryManager

        with MemoryManager(data_dir, uri, token) as memory:
            memory.delete_collection(name, missing_ok=True)

    def is_of(self, manifest: Manifest) -> bool:
        """Whether this is the collection of that manifest; the manager's own."""
        return (self._known.embedding, self._known.dim) == (manifest.embedding, manifest.dim)

    def adopt_functions(self, other: VDBMemoryCollection) -> None:
        """Take over the filter functions of the same collection, opened before; the manager's own."""
        self._functions = {**other._functions, **self._functions}

    def renamed(self, new_name: str) -> None:
        """Go on under another name; the manager's own."""
        self._name = new_name
        self._known = replace(self._known, name=new_name)

    def _fresh(self) -> Manifest:
        """The manifest as it is now: another process may have added an index."""
        self._known = self._manifests.get(self._name)
        return self._known

    def _save(self, manifest: Manifest) -> None:
        self._manifests.put(manifest)
        self._known = manifest

    def _rewrite(self, index: str, belongs: Callable[[StoredVector], bool]) -> None:
        """Store the index's membership with every row whose membership changes."""
        for batch in self._store.scan(self._name):
            changed = []
            for row in batch:
                rest = tuple(name for name in row.indexes if name != index)
                indexes = (*rest, index) if belongs(row) else rest
                if set(indexes) != set(row.indexes):
                    changed.append(replace(row, indexes=indexes))
            if changed:
                self._store.upsert(self._name, changed)

    def _over_fetched(
        self,
        vectors: NDArray[np.float32],
        wanted: int,
        filter: FilterLike | None,
        index: str | None,
        admits: Callable[[dict[str, Any]], bool],
    ) -> list[Document]:
        """Ask for more and more hits until enough pass the function, or there are no more."""
        asked = min(wanted * 4, _MAX_HITS)
        while True:
            hits = self.search(vectors, asked, filter=filter, index=index)[0]
            passed = [hit for hit in hits if admits(hit["metadata"])]
            if len(passed) >= wanted or len(hits) < asked or asked >= _MAX_HITS:
                return passed[:wanted]
            asked = min(asked * 4, _MAX_HITS)


def _document(hit: ScoredVector) -> Document:
    return Document(id=hit.id, text=hit.text, score=hit.score, metadata=dict(hit.metadata))
