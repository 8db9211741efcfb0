"""A real memory server for tests: `milvus-lite server` on a folder and a free port of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

from sage.memory.launcher import memory_server_command


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class MemoryServer:
    """Started when made, and ready; keeps its rows in ``memory`` of the folder; call ``end`` in a finaliser."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.command = memory_server_command(data_dir / "memory", free_port())
        self.uri = f"http://{self.command.host}:{self.command.port}"
        self.log = data_dir / "memory.log"
        self.start()

    def start(self) -> None:
        """Start it on the same folder and port; returns when it answers."""
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
        """Send it a signal and wait until it is gone; nothing happens when it is."""
        if self.process.poll() is None:
            self.process.send_signal(number)
            self.process.wait(20)
