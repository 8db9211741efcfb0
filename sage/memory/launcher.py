"""How `sage up` starts the memory server: milvus-lite behind a port, so that several processes share it."""

from __future__ import annotations

import sys
from pathlib import Path

from sage.model.service import ServiceCommand

_PROBE_TIMEOUT = 1.0


def memory_server_command(data_dir: Path, port: int) -> ServiceCommand:
    """The command of the memory server.

    It recovers by itself from kill -9: writes are logged before they are answered, and the folder's lock
    ends with its process.

    Args:
        data_dir: where rows are kept: ``memory`` in SAGE's data folder. ``MemoryManager`` reads the same files
            when no server runs.
        port: where to listen, on this machine's loopback only.
    """
    return ServiceCommand(
        name="memory",
        argv=(
            sys.executable,
            "-m",
            "milvus_lite",
            "server",
            "--data-dir",
            str(data_dir.resolve()),
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
            # One at a time: milvus-lite does not guard a collection against two writers at once.
            "--max-workers",
            "1",
        ),
        host="127.0.0.1",
        port=port,
        ready=lambda: answers("127.0.0.1", port),
        env={"GRPC_VERBOSITY": "NONE", "PYTHONUNBUFFERED": "1"},
    )


def answers(host: str, port: int, *, timeout: float = _PROBE_TIMEOUT) -> bool:
    """Whether a Milvus server tells its version at this address; ``timeout`` in seconds. Never raises.

    The request is sent without pymilvus, whose import alone takes seconds.
    """
    import grpc  # type: ignore[import-untyped]

    channel = grpc.insecure_channel(f"{host}:{port}", options=[("grpc.enable_http_proxy", 0)])
    try:
        ask = channel.unary_unary(
            "/milvus.proto.milvus.MilvusService/GetVersion",
            request_serializer=bytes,
            response_deserializer=bytes,
        )
        return len(ask(b"", timeout=timeout)) > 0
    except grpc.RpcError:
        return False
    finally:
        channel.close()
