"""Where memory lives in these tests: in a folder of this process, or behind a server."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.memory_server import MemoryServer


@pytest.fixture
def server(tmp_path: Path) -> Iterator[MemoryServer]:
    made = MemoryServer(tmp_path)
    yield made
    made.end(signal.SIGKILL)


@dataclass
class Place:
    """How to reach the memory: the arguments of ``MemoryManager`` and of ``clear``."""

    data_dir: str | None
    uri: str | None


@pytest.fixture(params=["embedded", "server"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "embedded":
        return Place(str(tmp_path / "memory"), None)
    server: MemoryServer = request.getfixturevalue("server")
    return Place(None, server.uri)
