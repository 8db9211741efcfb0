"""How a recorded service is, and how services are ended."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Literal

from sage.services import ports, processes
from sage.services.state import ServiceEntry

ServiceState = Literal["running", "silent", "dead"]

STOP_ORDER = ("model", "memory", "broker")


def state_of(entry: ServiceEntry) -> ServiceState:
    """How a recorded service is now: its process, then its port."""
    if not processes.is_same(entry.pid, entry.identity):
        return "dead"
    return "running" if ports.answers(entry.host, entry.port) else "silent"


def in_stop_order(entries: Iterable[ServiceEntry]) -> list[ServiceEntry]:
    """The broker last: the others may still write to it."""
    return sorted(entries, key=lambda entry: STOP_ORDER.index(entry.name) if entry.name in STOP_ORDER else -1)


def stop_entries(entries: Sequence[ServiceEntry], *, timeout: float) -> None:
    """End these processes with SIGTERM, and with SIGKILL what is still there after ``timeout`` seconds.

    All are asked first, so the slowest decides how long it takes.
    """
    for entry in entries:
        processes.ask_to_end(entry.pid, entry.identity)
    deadline = time.monotonic() + timeout
    for entry in entries:
        left = max(0.0, deadline - time.monotonic())
        if not processes.wait_until_gone(entry.pid, entry.identity, timeout=left):
            processes.kill(entry.pid, entry.identity)
