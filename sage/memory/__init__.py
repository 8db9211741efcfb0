"""Memory: collections of texts found by meaning, over Milvus."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sage.llm.embedders.mock import MockTextEmbedder
    from sage.memory.collection import VDBMemoryCollection
    from sage.memory.in_memory import InMemoryVectorStore
    from sage.memory.manager import MemoryManager

__all__ = ["InMemoryVectorStore", "MemoryManager", "MockTextEmbedder", "VDBMemoryCollection"]

_HOMES = {
    "InMemoryVectorStore": "sage.memory.in_memory",
    "MemoryManager": "sage.memory.manager",
    "MockTextEmbedder": "sage.llm.embedders.mock",
    "VDBMemoryCollection": "sage.memory.collection",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
