"""The implementations of the vector store port that the contract runs on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sage.memory.in_memory import InMemoryVectorStore
from sage.memory.milvus import MilvusVectorStore
from sage.ports import VectorStore
from tests.support.memory_server import MemoryServer


@pytest.fixture(scope="session")
def memory_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MemoryServer]:
    server = MemoryServer(tmp_path_factory.mktemp("memory-server"))
    yield server
    server.end()


@pytest.fixture(params=["in_memory", "embedded", "server"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[VectorStore]:
    made: VectorStore
    if request.param == "in_memory":
        made = InMemoryVectorStore()
    elif request.param == "embedded":
        made = MilvusVectorStore(tmp_path / "memory")
    else:
        server: MemoryServer = request.getfixturevalue("memory_server")
        made = MilvusVectorStore(server.uri)
        for name in made.list():
            made.drop(name)
    yield made
    made.close()
