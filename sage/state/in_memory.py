"""State stores that live as long as the process: for tests, and for the test driver."""

from __future__ import annotations

from collections.abc import Iterator, Mapping


class MemoryStore:
    """The StateStore port over a dict."""

    def __init__(self) -> None:
        self._entries: dict[bytes, bytes] = {}
        self._applied = 0

    @property
    def applied(self) -> int:
        """The changelog offset up to which (exclusive) this copy is complete."""
        return self._applied

    def get(self, key: bytes) -> bytes | None:
        """A key's value."""
        return self._entries.get(key)

    def scan(self, prefix: bytes = b"", start: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        """Entries by prefix, in the order of their keys, as they are when it is asked for."""
        found = sorted(key for key in self._entries if key.startswith(prefix) and (start is None or key >= start))
        return iter([(key, self._entries[key]) for key in found])

    def apply(self, writes: Mapping[bytes, bytes | None], applied: int) -> None:
        """Write all, with the offset."""
        for key, value in writes.items():
            if value is None:
                self._entries.pop(key, None)
            else:
                self._entries[key] = value
        self._applied = applied

    def wipe(self) -> None:
        """Forget everything."""
        self._entries.clear()
        self._applied = 0

    def close(self) -> None:
        """Kept for who opens it again."""


class MemoryStores:
    """The StateStores port; a store that is opened again is the same one, as a folder would be."""

    def __init__(self) -> None:
        self._stores: dict[tuple[str, str, int], MemoryStore] = {}

    def open(self, topology: str, step: str, partition: int) -> MemoryStore:
        """The store of that place."""
        return self._stores.setdefault((topology, step, partition), MemoryStore())

    def forget(self) -> None:
        """As after a move to another machine."""
        self._stores.clear()

    def close(self) -> None:
        """Nothing is held."""
