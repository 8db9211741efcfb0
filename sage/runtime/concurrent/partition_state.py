"""What an asynchronous stage knows of one assignment of one partition."""

from __future__ import annotations

import asyncio
from collections import deque

from sage.model.partition import TopicPartition
from sage.runtime.concurrent.flight import Flight
from sage.runtime.concurrent.tracker import OffsetTracker


class PartitionState:
    """Made when a partition is assigned, dead when it goes: results that arrive later are thrown away.

    Attributes:
        alive: false after revoke, loss or rewind.
        closing: nothing new starts; what is at work may finish.
        broken: outputs were refused; records are dropped until the consumer has gone back.
        sent_alone_to: outputs of records before this offset go out one by one, so that a refusal for their size names
            one record: the broker refuses all that share a batch with it.
        unkeyed: records without a key under ``ordering: key``. They run at the same time and leave in the
            order in which they came, so that a run gives the same lines again.
        flights: everything under way in order, where it leaves as a prefix.
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
        self.sent_alone_to = -1
        self.running = 0
        self.unanswered = 0
        self.under_way = 0
        self.under_way_bytes = 0
        self.unkeyed: deque[Flight] = deque()
        self.flights: deque[Flight] = deque()
        self.tasks: set[asyncio.Task[None]] = set()

    @property
    def committable(self) -> int | None:
        """The next offset of which all before is acknowledged; ``None`` where nothing is known."""
        return None if self.broken else self.tracker.committable

    @property
    def prepared_to(self) -> int | None:
        """The next offset of which all before is prepared for the checkpoint; ``None`` where nothing is known."""
        if self.broken:
            return None
        waiting = next((flight for flight in self.flights if not flight.prepared and flight.counts), None)
        return waiting.offset if waiting is not None else self.tracker.frontier

    def take_committed(self, offset: int | None) -> list[Flight]:
        """Prepared records before ``offset``, taken out; timers between them as well, also where no offset moved."""
        taken: list[Flight] = []
        before = -1 if offset is None else offset
        while (
            self.flights
            and self.flights[0].prepared
            and (not self.flights[0].counts or self.flights[0].offset < before)
        ):
            taken.append(self.flights.popleft())
        return taken

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
        self.flights.clear()
        self.under_way = self.under_way_bytes = 0
        for task in self.tasks:
            task.cancel()
