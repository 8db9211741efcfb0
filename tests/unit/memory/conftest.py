from __future__ import annotations

import pytest

from sage.llm.embedders import MockTextEmbedder
from sage.memory import InMemoryVectorStore, MemoryManager, VDBMemoryCollection


@pytest.fixture
def store() -> InMemoryVectorStore:
    return InMemoryVectorStore()


@pytest.fixture
def memory(store: InMemoryVectorStore) -> MemoryManager:
    return MemoryManager(store=store, embedding="mock/32")


@pytest.fixture
def collection(memory: MemoryManager) -> VDBMemoryCollection:
    return memory.create_collection("c", embedding_model=MockTextEmbedder(32))
