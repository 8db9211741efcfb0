"""Which keys have records in the retry topic: while a key has, its later records queue up behind them.

The retry topic is the truth. What is known here is its uncommitted part, read when the partition was assigned
and kept up to date since; changes that hang on records which are read again are taken back with them.
"""

from __future__ import annotations

import sys
from bisect import bisect_left, insort
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sage.model.partition import TopicPartition
from sage.runtime.retries.intake import Retried


class Origin(NamedTuple):
    """Where a parked record was first read: by it the records of a key keep their order, however often they are put
    into the retry topic again."""

    topic: str
    offset: int

    @classmethod
    def of(cls, view: Retried) -> Origin:
        """Of a record from the retry topic; one that does not tell its place has one that is nobody else's."""
        return cls(sys.intern(view.topic()), view.offset() if view.tells_its_place else -1 - view.offset())


class ParkedKeys:
    """Where the parked records of each key come from, per partition number of the retry topic."""

    def __init__(self) -> None:
        self._waiting: dict[int, dict[bytes, list[Origin]]] = {}
        self._uncommitted: dict[TopicPartition, dict[int, tuple[bytes, Origin, bool]]] = {}

    def start(self, partition: int, keys: Mapping[bytes, Sequence[Origin]]) -> None:
        """The partition is ours; these are parked there already."""
        self._waiting[partition] = {key: sorted(origins) for key, origins in keys.items()}

    def end(self, partition: int) -> None:
        """The partition went."""
        self._waiting.pop(partition, None)

    @property
    def any(self) -> bool:
        """Whether any key is parked at all."""
        return any(self._waiting.values())

    def has(self, partition: int, key: bytes | None) -> bool:
        """Whether a record of this key that comes now must wait behind earlier ones."""
        return key is not None and key in self._waiting.get(partition, ())

    def is_overtaken(self, partition: int, key: bytes | None, origin: Origin) -> bool:
        """Whether an earlier record of the key waits further back, having been put there again."""
        if key is None or key not in (waiting := self._waiting.get(partition, {})):
            return False
        return waiting[key][0] < origin

    def has_double(self, partition: int, key: bytes | None, origin: Origin) -> bool:
        """Whether the record is there once more further back: a worker that died had put it there again, and not yet
        committed that it did."""
        origins = self._waiting.get(partition, {}).get(key, ()) if key is not None else ()
        following = bisect_left(origins, origin) + 1
        return following < len(origins) and origins[following] == origin

    def is_alone(self, partition: int, key: bytes | None) -> bool:
        """Whether no other key is parked there."""
        return self._waiting.get(partition, {}).keys() == {key}

    def park(self, at: TopicPartition, offset: int, key: bytes | None) -> None:
        """The record read at ``offset`` of ``at`` was put into the retry topic."""
        if key is not None:
            self._add(at.partition, key, origin := Origin(at.topic, offset))
            self._uncommitted.setdefault(at, {})[offset] = (key, origin, True)

    def leave(self, at: TopicPartition, offset: int, key: bytes | None, origin: Origin) -> None:
        """The record read at ``offset`` of ``at``, the retry topic, reached its outcome.

        Others may write there too, as `sage dlq replay` does: their records were not known to wait.
        """
        if key is not None and self._remove(at.partition, key, origin):
            self._uncommitted.setdefault(at, {})[offset] = (key, origin, False)

    def give_up(self, at: TopicPartition, offset: int) -> None:
        """If the record read at ``offset`` of ``at`` was to be parked: the retry topic did not take it, and it is
        dead. Later ones of its key need not wait for it."""
        waiting = self._uncommitted.get(at)
        if waiting and (found := waiting.pop(offset, None)) is not None:
            self._remove(at.partition, found[0], found[1])

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
            key, origin, was_parked = waiting.pop(place)
            if was_parked:
                self._remove(at.partition, key, origin)
            else:
                self._add(at.partition, key, origin)

    def _add(self, partition: int, key: bytes, origin: Origin) -> None:
        insort(self._waiting.setdefault(partition, {}).setdefault(key, []), origin)

    def _remove(self, partition: int, key: bytes, origin: Origin) -> bool:
        waiting = self._waiting.get(partition, {})
        origins = waiting.get(key, [])
        index = bisect_left(origins, origin)
        if index == len(origins) or origins[index] != origin:
            return False
        del origins[index]
        if not origins:
            del waiting[key]
        return True
