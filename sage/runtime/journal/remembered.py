"""What a journal has in memory: the results of records that are not committed, and how it forgets them.

Bounded in three ways. Results belong to records, and a record is forgotten when its outcome is committed, so there are
no more than the window and the retry topic hold. Their bytes are bounded by ``MEMORY``: beyond it the oldest results
that the broker has are left on the topic and read again when they are asked for. What is kept of committed records, for
doubles of them that follow closely, is bounded by ``RECENT``.
"""

from __future__ import annotations

import asyncio
import heapq
import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from sage.model.partition import TopicPartition
from sage.runtime.journal.entry import CallKey, Place, Stored

MEMORY: Final = 64 * 1024 * 1024
"""Bytes of results at hand at most, per actor; those on their way to the broker come on top."""

RECENT: Final = 4 * 1024 * 1024
"""Bytes of results of committed records."""

UNCOMMITTABLE_KEPT: Final = 600.0
"""Seconds that results are kept after their last use where no commit of ours ends them: those of a timer, which has no
offset, and those of a partition that went while another one that shares the journal's stayed."""


@dataclass(slots=True, eq=False)
class Result:
    """One result.

    Attributes:
        data: its bytes; ``None`` where only the topic has them.
        first, last: its offsets there; -1 until it is written.
        writing: until the broker has answered, the task that gets it there.
        gone: its record is over.
    """

    data: bytes | None
    first: int = -1
    last: int = -1
    writing: asyncio.Task[None] | None = None
    gone: bool = False


@dataclass(slots=True)
class _OfRecord:
    """A record's results, and the offset of the journal below which none of them is."""

    first: int
    place: Place | None = None
    forget_at: float = math.inf
    results: dict[CallKey, Result] = field(default_factory=dict)


@dataclass(slots=True)
class _Partition:
    end: int
    records: dict[str, _OfRecord] = field(default_factory=dict)
    finished: dict[TopicPartition, list[tuple[int, str]]] = field(default_factory=dict)


class Remembered:
    """All partitions of one journal. Lives on the event loop.

    Args:
        now: seconds, for timers.
        memory, recent: bounds in bytes.
    """

    def __init__(self, now: Callable[[], float], *, memory: int = MEMORY, recent: int = RECENT) -> None:
        self._now = now
        self._memory = memory
        self._recent_bound = recent
        self._partitions: dict[int, _Partition] = {}
        self._at_hand: OrderedDict[Result, None] = OrderedDict()
        self._recent: OrderedDict[tuple[int, CallKey], bytes] = OrderedDict()
        self.bytes_at_hand = 0
        self.recent_bytes = 0

    # ---------------------------------------------------------------------------------- partitions

    def start(self, partition: int, end: int) -> None:
        """The partition is ours: all offsets from ``end`` on will be written by us. Again: what is known stays."""
        found = self._partitions.setdefault(partition, _Partition(end))
        found.end = max(found.end, end)

    def has(self, partition: int) -> bool:
        """Whether the partition is ours."""
        return partition in self._partitions

    def inherit(self, partition: int, stored: Stored) -> None:
        """Take over a result of a predecessor; of two with one key the first counts."""
        record = self._record(partition, stored.key.record_id, stored.first, stored.place)
        if stored.key not in record.results:
            result = record.results[stored.key] = Result(stored.data, stored.first, stored.last)
            self._keep_at_hand(result)

    def leave(self, at: TopicPartition) -> None:
        """An input's partition went, and another one of the same number stays: the first one's results end by time."""
        found = self._partitions.get(at.partition)
        until = self._now() + UNCOMMITTABLE_KEPT
        for record in found.records.values() if found is not None else ():
            if record.place is not None and (record.place.topic, record.place.partition) == (at.topic, at.partition):
                record.forget_at = until

    def forget(self, partition: int) -> None:
        """The partition went, with all that shared it."""
        gone = self._partitions.pop(partition, None)
        for record in gone.records.values() if gone is not None else ():
            self._let_go(record)
        for key in [key for key in self._recent if key[0] == partition]:
            self.recent_bytes -= len(self._recent.pop(key))

    # ------------------------------------------------------------------------------------- results

    def find(self, partition: int, key: CallKey) -> Result | None:
        """What an earlier try was given, or an earlier double of the record."""
        found = self._partitions.get(partition)
        if found is None:
            return None
        record = found.records.get(key.record_id)
        if record is not None and (result := record.results.get(key)) is not None:
            if record.forget_at < math.inf:
                record.forget_at = self._now() + UNCOMMITTABLE_KEPT
            return result
        data = self._recent.get((partition, key))
        return None if data is None else Result(data)

    def begin(self, partition: int, key: CallKey, place: Place | None, data: bytes) -> Result:
        """A result that will be written: from now on the low mark lets it be found again."""
        record = self._record(partition, key.record_id, self._partitions[partition].end, place)
        if (older := record.results.get(key)) is not None:  # a double's that ran at the same time, or gone from the log
            self._put_away(older)
        result = record.results[key] = Result(data)
        return result

    def written(self, partition: int, result: Result, first: int, last: int) -> None:
        """The broker has it, from offset ``first`` to ``last``."""
        result.first, result.last, result.writing = first, last, None
        found = self._partitions.get(partition)
        if found is not None:
            found.end = max(found.end, last + 1)
            if not result.gone:
                self._keep_at_hand(result)

    def _record(self, partition: int, record_id: str, first: int, place: Place | None) -> _OfRecord:
        records = self._partitions[partition].records
        record = records.setdefault(record_id, _OfRecord(first, place))
        record.first = min(record.first, first)
        if place is None:
            record.forget_at = self._now() + UNCOMMITTABLE_KEPT
        return record

    def _keep_at_hand(self, result: Result) -> None:
        if result.data is None or result in self._at_hand:
            return
        self._at_hand[result] = None
        self.bytes_at_hand += len(result.data)
        while self.bytes_at_hand > self._memory:
            oldest, _ = self._at_hand.popitem(last=False)
            self.bytes_at_hand -= len(oldest.data or b"")
            oldest.data = None

    def _let_go(self, record: _OfRecord) -> None:
        for result in record.results.values():
            self._put_away(result)

    def _put_away(self, result: Result) -> None:
        result.gone = True
        if result in self._at_hand:
            del self._at_hand[result]
            self.bytes_at_hand -= len(result.data or b"")

    # ---------------------------------------------------------------------------------- forgetting

    def finished(self, record_id: str, at: TopicPartition, offset: int) -> None:
        """The record that was read at ``offset`` of ``at`` reached its outcome."""
        found = self._partitions.get(at.partition)
        if found is not None and record_id in found.records:
            heapq.heappush(found.finished.setdefault(at, []), (offset, record_id))

    def committed(self, at: TopicPartition, next_offset: int) -> None:
        """Everything before ``next_offset`` of ``at`` is committed: what finished there is over."""
        found = self._partitions.get(at.partition)
        if found is None:
            return
        waiting = found.finished.get(at, [])
        while waiting and waiting[0][0] < next_offset:
            self._drop(at.partition, heapq.heappop(waiting)[1])

    def _drop(self, partition: int, record_id: str) -> None:
        record = self._partitions[partition].records.pop(record_id, None)
        if record is None:
            return
        self._let_go(record)
        for key, result in record.results.items():
            if result.data is not None and len(result.data) <= self._recent_bound // 16:
                self.recent_bytes += len(result.data) - len(self._recent.pop((partition, key), b""))
                self._recent[partition, key] = result.data
        while self.recent_bytes > self._recent_bound:
            self.recent_bytes -= len(self._recent.popitem(last=False)[1])

    def low_mark(self, partition: int) -> int | None:
        """The lowest offset that is still needed; the end of what is known where nothing is."""
        found = self._partitions.get(partition)
        if found is None:
            return None
        now = self._now()
        for record_id in [each for each, record in found.records.items() if record.forget_at <= now]:
            self._drop(partition, record_id)
        return min((record.first for record in found.records.values()), default=found.end)
