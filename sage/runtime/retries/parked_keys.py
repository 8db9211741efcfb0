"""Which keys have records in the retry topic: while a key has, its later records queue up behind them.

The retry topic is the truth. What is counted here is its uncommitted part, read when the partition was assigned
and kept up to date since; counts that hang on records which are read again are taken back with them.
"""

from __future__ import annotations

from collections import Counter

from sage.model.partition import TopicPartition


class ParkedKeys:
    """Counts parked records by key, per partition number of the retry topic."""

    def __init__(self) -> None:
        self._counts: dict[int, Counter[bytes]] = {}
        self._uncommitted: dict[TopicPartition, dict[int, tuple[bytes, int]]] = {}

    def start(self, partition: int, keys: Counter[bytes]) -> None:
        """The partition is ours; these keys are parked there already."""
        self._counts[partition] = Counter(keys)

    def end(self, partition: int) -> None:
        """The partition went."""
        self._counts.pop(partition, None)

    @property
    def any(self) -> bool:
        """Whether any key is parked at all."""
        return any(self._counts.values())

    def has(self, partition: int, key: bytes | None) -> bool:
        """Whether a record of this key must wait behind earlier ones."""
        return key is not None and bool(self._counts.get(partition)) and self._counts[partition][key] > 0

    def park(self, at: TopicPartition, offset: int, key: bytes | None) -> None:
        """The record read at ``offset`` of ``at`` was put into the retry topic."""
        self._change(at, offset, key, 1)

    def leave(self, at: TopicPartition, offset: int, key: bytes | None) -> None:
        """The record read at ``offset`` of ``at``, the retry topic, reached its outcome."""
        self._change(at, offset, key, -1)

    def committed(self, at: TopicPartition, next_offset: int) -> None:
        """Changes before this offset are final."""
        waiting = self._uncommitted.get(at)
        if waiting:
            for offset in [offset for offset in waiting if offset < next_offset]:
                del waiting[offset]

    def rewind(self, at: TopicPartition, offset: int) -> None:
        """Records from ``offset`` on are read again: what they did did not happen."""
        waiting = self._uncommitted.get(at) or {}
        for place in [place for place in waiting if place >= offset]:
            key, step = waiting.pop(place)
            self._count(at.partition, key, -step)

    def _change(self, at: TopicPartition, offset: int, key: bytes | None, step: int) -> None:
        if key is not None:
            self._uncommitted.setdefault(at, {})[offset] = (key, step)
            self._count(at.partition, key, step)

    def _count(self, partition: int, key: bytes, step: int) -> None:
        counts = self._counts.setdefault(partition, Counter())
        counts[key] += step
        if counts[key] <= 0:
            del counts[key]
