"""The implementations of the vector store port that the contract runs on."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sage.memory.in_memory import InMemoryVectorStore
from sage.memory.launcher import memory_server_command
from sage.memory.milvus import MilvusVectorStore
from sage.ports import VectorStore


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """A `milvus-lite server` on a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.command = memory_server_command(folder, free_port())
        self.uri = f"http://{self.command.host}:{self.command.port}"
        self.log = folder / "memory.log"
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                self.command.argv, stdout=output, stderr=output, env={**os.environ, **self.command.env}
            )
        deadline = time.monotonic() + 60
        while not self.command.ready():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            try:
                self.process.wait(0.05)
            except subprocess.TimeoutExpired:
                continue

    def end(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)
        self.process.wait(20)


@pytest.fixture(scope="session")
def memory_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("memory-server"))
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
        server: Server = request.getfixturevalue("memory_server")
        made = MilvusVectorStore(server.uri)
        for name in made.list():
            made.drop(name)
    yield made
    made.close()
