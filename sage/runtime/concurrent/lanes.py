"""Lanes: the serial queue of one key, and who runs next.

Records of one key wait for each other, others don't. Partitions take turns, so that a long queue in one does
not starve the rest. Everything here runs on the event loop.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Hashable

from sage.model.partition import TopicPartition
from sage.runtime.concurrent.flight import Flight


class Lane:
    """One key's records in order. ``busy`` while some are at work or wait for another try."""

    __slots__ = ("busy", "key", "partition", "queue")

    def __init__(self, partition: TopicPartition, key: Hashable | None) -> None:
        self.partition = partition
        self.key = key
        self.queue: deque[Flight] = deque()
        self.busy = False


class Lanes:
    """All lanes of an actor, and those that are ready, by partition."""

    def __init__(self, ordering: str) -> None:
        self._ordering = ordering
        self._keyed: dict[TopicPartition, dict[Hashable, Lane]] = {}
        self._ready: OrderedDict[TopicPartition, deque[Lane]] = OrderedDict()
        self.waiting = 0

    def add(self, flight: Flight) -> None:
        """Queue a record behind those of its key."""
        partition = flight.home.partition
        key = flight.lane_key(self._ordering)
        if key is None:
            lane = Lane(partition, None)
        else:
            lanes = self._keyed.setdefault(partition, {})
            lane = lanes.get(key) or lanes.setdefault(key, Lane(partition, key))
        flight.lane = lane
        lane.queue.append(flight)
        self.waiting += 1
        if not lane.busy and len(lane.queue) == 1:
            self._make_ready(lane)

    def take(self, most: int) -> list[Flight]:
        """At most ``most`` records that may run now; their lanes are busy until ``release``."""
        taken: list[Flight] = []
        while self._ready and len(taken) < most:
            partition, lanes = next(iter(self._ready.items()))
            lane = lanes.popleft()
            if lanes:
                self._ready.move_to_end(partition)
            else:
                del self._ready[partition]
            lane.busy = True
            alone = lane.queue[0].alone
            if alone and taken:
                lane.busy = False
                self._ready.setdefault(partition, deque()).append(lane)
                break
            while lane.queue and len(taken) < most:
                taken.append(lane.queue.popleft())
                if alone or (lane.queue and lane.queue[0].alone):
                    break
            if alone:
                break
        self.waiting -= len(taken)
        return taken

    def release(self, lane: Lane) -> None:
        """The lane's records at work are finished: the next ones may run."""
        lane.busy = False
        if lane.queue:
            self._make_ready(lane)
        elif lane.key is not None:
            lanes = self._keyed.get(lane.partition)
            if lanes is not None and lanes.get(lane.key) is lane:
                del lanes[lane.key]

    def put_back(self, flights: list[Flight]) -> None:
        """Unfinished records of busy lanes go back to the front, in order; ``release`` makes them run."""
        for flight in reversed(flights):
            if flight.lane is not None:
                flight.lane.queue.appendleft(flight)
                self.waiting += 1

    def forget(self, partition: TopicPartition) -> None:
        """Drop everything that waits in ``partition``."""
        lanes = set(self._keyed.pop(partition, {}).values()) | set(self._ready.pop(partition, ()))
        for lane in lanes:
            self.waiting -= len(lane.queue)
            lane.queue.clear()

    @property
    def ready(self) -> bool:
        """Whether any record may run now."""
        return bool(self._ready)

    def _make_ready(self, lane: Lane) -> None:
        self._ready.setdefault(lane.partition, deque()).append(lane)
