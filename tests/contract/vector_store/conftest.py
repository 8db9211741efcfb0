"""The implementations of the vector store port that the contract runs on."""

from __future__ import annotations

import os
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


REMOTE = "SAGE_TEST_MILVUS_URI"
"""The address of a Milvus server that tests may write to; its collections are dropped."""


@pytest.fixture(params=["in_memory", "embedded", "server", *(["remote"] if REMOTE in os.environ else [])])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[VectorStore]:
    made: VectorStore
    if request.param == "in_memory":
        made = InMemoryVectorStore()
    elif request.param == "embedded":
        made = MilvusVectorStore(tmp_path / "memory")
    else:
        server: MemoryServer | None = request.getfixturevalue("memory_server") if request.param == "server" else None
        made = MilvusVectorStore(os.environ[REMOTE] if server is None else server.uri)
        for name in made.list():
            made.drop(name)
    yield made
    made.close()
