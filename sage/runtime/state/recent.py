"""Committed values at hand, so that most reads ask no database."""

from __future__ import annotations

from collections import OrderedDict

CAPACITY = 16 * 1024 * 1024
"""Bytes, by estimate, that one partition may hold."""

_OVERHEAD = 200
"""Bytes that CPython needs for one entry beside key and value, about."""


class RecentValues:
    """The values used last, keys that have none included. Not thread-safe."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._values: OrderedDict[bytes, bytes | None] = OrderedDict()
        self.size = 0

    def __contains__(self, key: bytes) -> bool:
        return key in self._values

    def __getitem__(self, key: bytes) -> bytes | None:
        self._values.move_to_end(key)
        return self._values[key]

    def put(self, key: bytes, value: bytes | None) -> None:
        """Keep it; what was not used for longest goes."""
        values = self._values
        if key in values:
            self.size += len(value or b"") - len(values[key] or b"")
            values.move_to_end(key)
        else:
            self.size += len(key) + len(value or b"") + _OVERHEAD
        values[key] = value
        while self.size > self._capacity and len(values) > 1:
            old, dropped = values.popitem(last=False)
            self.size -= len(old) + len(dropped or b"") + _OVERHEAD
