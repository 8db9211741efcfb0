"""Commands for the small real service of ``tcp_server.py``, and how it is asked."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from pathlib import Path

from sage.model.service import ServiceCommand


def factory(name: str = "broker", mode: str = "serve", **capabilities: str) -> Callable[[Path, int], ServiceCommand]:
    """A factory for ``ServiceSet.up`` that starts ``tcp_server.py`` in that mode."""

    def make(data_dir: Path, port: int) -> ServiceCommand:
        return ServiceCommand(
            name=name,
            argv=(sys.executable, str(Path(__file__).with_name("tcp_server.py")), str(port), mode),
            host="127.0.0.1",
            port=port,
            ready=lambda: ask(port) is not None,
            env={"SAGE_TEST_SERVICE": name},
            capabilities={"kind": f"tcp {name}", **capabilities},
        )

    return make


def ask(port: int) -> int | None:
    """The process id that the service on ``port`` says it has; ``None`` where nobody answers."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=0.5) as connection:
            connection.settimeout(0.5)
            return int(connection.recv(64))
    except (OSError, ValueError):
        return None
