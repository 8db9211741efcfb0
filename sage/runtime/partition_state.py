"""What an asynchronous stage knows of one assignment of one partition."""

from __future__ import annotations

import asyncio
from collections import deque

from sage.model.partition import TopicPartition
from sage.runtime.flight import Flight
from sage.runtime.tracker import OffsetTracker


class PartitionState:
    """Made when a partition is assigned, dead when it goes: results that arrive later are thrown away.

    Attributes:
        alive: false after revoke, loss or rewind.
        closing: nothing new starts; what is at work may finish.
        broken: outputs were refused; records are dropped until the consumer has gone back.
        unkeyed: records without a key under ``ordering: key``. They run at the same time and leave in the
            order in which they came, so that a run gives the same lines again.
        running: turns of work at work on its records.
        unanswered: records whose outputs are sent and not all acknowledged.
        under_way, under_way_bytes: accepted records that are not done, for the window.
        tasks: work in progress, to be cancelled with the partition.
    """

    def __init__(self, partition: TopicPartition) -> None:
        self.partition = partition
        self.tracker = OffsetTracker()
        self.alive = True
        self.closing = False
        self.broken = False
        self.running = 0
        self.unanswered = 0
        self.under_way = 0
        self.under_way_bytes = 0
        self.unkeyed: deque[Flight] = deque()
        self.tasks: set[asyncio.Task[None]] = set()

    @property
    def committable(self) -> int | None:
        """The next offset of which all before is acknowledged; ``None`` where nothing is known."""
        return None if self.broken else self.tracker.committable

    def took_on(self, flight: Flight) -> None:
        """Count a record in."""
        self.under_way += 1
        self.under_way_bytes += flight.size

    def let_go(self, flight: Flight) -> None:
        """Count a record out."""
        self.under_way -= 1
        self.under_way_bytes -= flight.size

    def leave_in_order(self) -> list[Flight]:
        """Unkeyed records whose turn to leave has come: finished, and nothing unfinished before them."""
        waiting, leaving = self.unkeyed, []
        while waiting and waiting[0].outputs is not None:
            leaving.append(waiting.popleft())
        return leaving

    def die(self) -> None:
        """The partition is no longer ours in this assignment."""
        self.alive = False
        self.unkeyed.clear()
        self.under_way = self.under_way_bytes = 0
        for task in self.tasks:
            task.cancel()
