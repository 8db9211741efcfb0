"""What steps reach in a test: memory in this process, an embedder without a model, chat models from a script."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from sage.errors import InvalidTopology
from sage.ports import ChatModel, Embedder

if TYPE_CHECKING:
    from sage.memory.manager import MemoryManager


class ScriptedServices:
    """The ``Services`` of a test. Nothing is connected, loaded or started.

    Args:
        chat_models: by the name of the step that calls them.
        embedder: for every collection and every name of an embedder; ``MockTextEmbedder()`` by default.
    """

    def __init__(self, chat_models: Mapping[str, ChatModel] | None = None, embedder: Embedder | None = None) -> None:
        from sage.llm.embedders.mock import MockTextEmbedder

        self._chat_models = dict(chat_models or {})
        self._embedder: Embedder = MockTextEmbedder() if embedder is None else embedder
        self._memory: MemoryManager | None = None

    @property
    def memory(self) -> MemoryManager:
        """An empty memory at first; vectors are searched exactly."""
        if self._memory is None:
            from sage.memory.in_memory import InMemoryVectorStore
            from sage.memory.manager import MemoryManager

            self._memory = MemoryManager(
                store=InMemoryVectorStore(), embedding=self._embedder, load_embedder=self.embedder
            )
        return self._memory

    def embedder(self, name: str | None = None) -> Embedder:
        """The one embedder, under every name."""
        del name
        return self._embedder

    def chat_model(self, step: str, *, model: str, base_url: str | None, api_key: str | None) -> ChatModel:
        """The step's scripted model, whatever it asks for.

        Raises:
            InvalidTopology: none was given.
        """
        del base_url, api_key
        try:
            return self._chat_models[step]
        except KeyError:
            raise InvalidTopology(
                f"it calls the chat model {model}, and tests call no service; "
                f'give one: overrides={{"{step}": ScriptedChatModel([...])}}',
                where=f'step "{step}"',
            ) from None

    def close(self) -> None:
        """Forget the memory."""
        if self._memory is not None:
            self._memory.close()
            self._memory = None
