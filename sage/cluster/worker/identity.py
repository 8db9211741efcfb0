"""Who a worker is, and what it uses of its machine."""

from __future__ import annotations

import os
import re
import socket
import sys
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sage.cluster.status import WorkerStatus
from sage.errors import InvalidTopology
from sage.version import __version__

_STATM = Path("/proc/self/statm")


_ID = re.compile(r"[A-Za-z0-9._-]{1,100}")


def check_worker_id(name: str) -> str:
    """A name that a worker may have: it is part of keys, folders and groups.

    Raises:
        InvalidTopology: it has other characters than letters, digits, ``.``, ``_`` and ``-``.
    """
    if not _ID.fullmatch(name) or name in {".", ".."}:
        raise InvalidTopology(f"worker id {name!r}: only letters, digits, '.', '_' and '-' are allowed")
    return name


@dataclass(frozen=True)
class Identity:
    """A worker's name and what it says of itself besides.

    Attributes:
        worker: unique among the workers of a cluster.
        is_named: whether the user gave the name: it is then the same after a restart, and known to the groups.
        labels: for placement.
    """

    worker: str
    is_named: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    started_at: int = field(default_factory=lambda: int(time.time() * 1000))

    @classmethod
    def unnamed(cls, labels: Mapping[str, str]) -> Identity:
        """One for a process that nobody named."""
        return cls(f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:4]}", labels=labels)


class Pulse:
    """Makes heartbeats."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._spent = time.process_time()
        self._at = time.monotonic()
        self._cpu = 0.0

    def status(self, *, leaving: bool, topologies: tuple[str, ...], seen: int) -> WorkerStatus:
        """A heartbeat of now."""
        now, spent = time.monotonic(), time.process_time()
        if now - self._at >= 1.0:
            self._cpu = round((spent - self._spent) / (now - self._at), 3)
            self._at, self._spent = now, spent
        identity = self._identity
        return WorkerStatus(
            identity.worker, socket.gethostname(), os.getpid(), identity.started_at, __version__, identity.labels,
            leaving, self._cpu, resident_bytes(), topologies, seen,
        )  # fmt: skip


def resident_bytes() -> int:
    """The memory that this process holds; its most so far where the system does not tell the present one."""
    try:
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        import resource

        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024
