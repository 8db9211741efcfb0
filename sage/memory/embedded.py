"""milvus-lite inside this process: one engine per data folder, shared by all who ask for that folder here."""

from __future__ import annotations

import atexit
import json
import logging
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sage.errors import FolderInUse, MemoryFailure, NotFound

_STOP_GRACE = 2.0


@dataclass
class _Engine:
    server: Any
    database: Any
    uri: str
    users: int = 0


_engines: dict[Path, _Engine] = {}
_lock = threading.Lock()


def open_engine(folder: Path) -> str:
    """Start milvus-lite on a folder, or join the one this process has; returns its ``http://127.0.0.1:port``.

    Every call needs its ``close_engine``.

    Raises:
        FolderInUse: another process holds the folder.
        NotFound: milvus-lite is not installed.
        MemoryFailure: the folder can't be written, or holds something else.
    """
    folder = folder.resolve()
    with _lock:
        engine = _engines.get(folder)
        if engine is None:
            engine = _engines[folder] = _start(folder)
        engine.users += 1
        return engine.uri


def close_engine(folder: Path) -> None:
    """Leave the folder's engine; the last one to leave stops it and frees the folder."""
    folder = folder.resolve()
    with _lock:
        engine = _engines.get(folder)
        if engine is None:
            return
        engine.users -= 1
        if engine.users <= 0:
            del _engines[folder]
            _stop(engine)


def holder_of(folder: Path) -> int | None:
    """The id of the process that holds the folder's lock, where the system tells (Linux)."""
    try:
        status = (folder / "LOCK").stat()
        wanted = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
        for line in Path("/proc/locks").read_text().splitlines():
            fields = line.split()
            if len(fields) > 5 and fields[5] == wanted:
                return int(fields[4]) if int(fields[4]) > 0 else None
    except (OSError, ValueError):
        return None
    return None


def _start(folder: Path) -> _Engine:
    # gRPC's own library writes to stderr when a connection goes, unless told before it is loaded.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        from milvus_lite.adapter.grpc.server import start_server_in_thread
        from milvus_lite.exceptions import DataDirLockedError, MilvusLiteError
    except ImportError as error:
        raise NotFound(
            'memory in a folder needs milvus-lite, which is not installed; pip install "sage-streams[local]", '
            "or give the uri of a Milvus server"
        ) from error
    logging.getLogger("milvus_lite").setLevel(logging.CRITICAL + 1)
    try:
        # One worker: milvus-lite does not guard a collection against two writers at once, and with one the
        # requests of all clients run in turn. More were no faster, since the engine is Python.
        server, database, port = start_server_in_thread(str(folder), host="127.0.0.1", port=0, max_workers=1)
    except DataDirLockedError as error:
        raise FolderInUse(_held(folder), where=str(folder)) from error
    except (MilvusLiteError, json.JSONDecodeError, OSError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise MemoryFailure(f"cannot keep memory here: {reason}; name another data_dir", where=str(folder)) from error
    return _Engine(server, database, f"http://127.0.0.1:{port}")


def _held(folder: Path) -> str:
    holder = holder_of(folder)
    who = "another process" if holder is None else f"process {holder}"
    return (
        f"{who} holds this memory folder, and only one can; "
        "start `sage up` first so that programs share its memory server, or stop the other"
    )


def _stop(engine: _Engine) -> None:
    engine.server.stop(grace=_STOP_GRACE).wait(_STOP_GRACE)
    engine.database.close()


@atexit.register
def _stop_all() -> None:
    with _lock:
        while _engines:
            _stop(_engines.popitem()[1])
