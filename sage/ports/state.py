"""Keyed state on this machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol


class StateStore(Protocol):
    """Keyed state of one partition of one stage, on this machine: a copy of what its changelog says."""

    @property
    def applied(self) -> int:
        """The changelog offset up to which (exclusive) this copy is complete; 0 for an empty one."""
        ...

    def get(self, key: bytes) -> bytes | None: ...

    def scan(self, prefix: bytes = b"", start: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        """Entries whose key begins with ``prefix``, in the order of their keys, from ``start`` on."""
        ...

    def apply(self, writes: Mapping[bytes, bytes | None], applied: int) -> None:
        """Write all (``None`` deletes) and ``applied`` at once: after a crash either all of it is there or nothing.

        Raises DiskFull.
        """
        ...

    def wipe(self) -> None:
        """Forget everything, ``applied`` included."""
        ...

    def close(self) -> None: ...


class StateStores(Protocol):
    """Opens the copies of one worker. One opener per place and time."""

    def open(self, topology: str, step: str, partition: int) -> StateStore:
        """Raises DiskFull, FolderInUse."""
        ...

    def close(self) -> None: ...
