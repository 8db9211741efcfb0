"""How the service set starts the local model server."""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request

from sage.llm.local.weights import kept_path
from sage.model.service import ServiceCommand

HOST = "127.0.0.1"
_READY_TIMEOUT = 1.0


def model_server_command(model: str, port: int) -> ServiceCommand:
    """The command that serves ``model`` on ``port`` of this machine.

    Raises:
        UnknownName: ``model`` is not the name of a local model.
    """
    kept_path(model)
    return ServiceCommand(
        name="model",
        argv=(sys.executable, "-m", "sage.llm.local.server", "--model", model, "--port", str(port)),
        host=HOST,
        port=port,
        ready=lambda: serves(model, port),
        capabilities={"model": model, "base_url": server_url(port)},
    )


def server_url(port: int) -> str:
    """Where the OpenAI protocol begins on a local model server."""
    return f"http://{HOST}:{port}/v1"


def serves(model: str, port: int) -> bool:
    """Whether a model server answers for ``model`` on this port; false on any failure."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{server_url(port)}/models", timeout=_READY_TIMEOUT) as answer:
            listed = json.load(answer)
    except (urllib.error.URLError, OSError, ValueError):
        return False
    return isinstance(listed, dict) and any(entry.get("id") == model for entry in listed.get("data", ()))
