"""Which partitions are not fetched for now, and why: the window is full, one waits for its time, its topic rests."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable

from sage.model.partition import TopicPartition
from sage.ports import Clock, Consumer


class Holds:
    """Pauses and resumes a consumer's partitions. Called on the consumer's thread.

    A partition is fetched again when nothing holds it any more: two reasons never cancel each other.

    A full window stops those partitions that have their share of it. The others are fetched on, up to theirs: else
    one with a long backlog, whose records always come first, would keep them out for good.

    Attributes:
        below_share: gives the partitions that may go on though the window is full; none by default.
    """

    def __init__(self, consumer: Consumer, clock: Clock) -> None:
        self._consumer = consumer
        self._clock = clock
        self._until: dict[TopicPartition, float] = {}
        self.resting: frozenset[str] = frozenset()
        self.below_share: Callable[[], Collection[TopicPartition]] = tuple
        self.full = False
        self._stopped: set[TopicPartition] = set()
        self.wakes = 0
        """How often there came to be something to poll that no broker announced: a wait is over, a seek was made."""

    def fill(self) -> None:
        """The window is full: fetch nothing of what fills it. Called again while it is, as that changes."""
        self.full = True
        assignment, spare = self._consumer.assignment(), frozenset(self.below_share())
        stop = assignment - spare - self._stopped
        if stop:
            self._consumer.pause(sorted(stop))
        resume = self._stopped & spare & assignment
        self._stopped = (self._stopped | stop) - spare
        if resume:
            self._consumer.resume(sorted(p for p in resume if self._is_free(p)))

    def ease(self) -> None:
        """There is room again."""
        if self.full:
            self.full = False
            self._stopped.clear()
            self._consumer.resume(sorted(p for p in self._consumer.assignment() if self._is_free(p)))

    def rest(self, topics: frozenset[str]) -> None:
        """Don't fetch these topics until told otherwise; all others are fetched again."""
        before, self.resting = self.resting, topics
        assignment = self._consumer.assignment()
        self._consumer.pause(sorted(p for p in assignment if p.topic in topics))
        woken = sorted(p for p in assignment if p.topic in before - topics and self._is_free(p))
        self.wakes += bool(woken)
        if woken:
            self._consumer.resume(woken)

    def _is_free(self, partition: TopicPartition) -> bool:
        return partition not in self._until and partition.topic not in self.resting and partition not in self._stopped

    def hold(self, partition: TopicPartition, *, at: int | None = None, seconds: float = math.inf) -> None:
        """Don't fetch this one for ``seconds``, and go on at offset ``at`` then (where it stands, if ``None``)."""
        self._until[partition] = self._clock.monotonic() + seconds
        if at is not None:
            self._consumer.seek(partition, at)
        self._consumer.pause([partition])

    def release(self, partitions: Iterable[TopicPartition]) -> None:
        """Fetch these again."""
        held = [partition for partition in partitions if self._until.pop(partition, None) is not None]
        self.wakes += bool(held)
        freed = [partition for partition in held if self._is_free(partition)]
        if freed:
            self._consumer.resume(freed)

    def release_due(self) -> None:
        """Fetch again what has waited long enough."""
        if self._until:
            now = self._clock.monotonic()
            self.release([partition for partition, until in self._until.items() if until <= now])

    @property
    def next_due(self) -> float:
        """When, by the clock, the next one has waited long enough; infinity where none waits for a time."""
        return min(self._until.values(), default=math.inf)

    def holds(self, partition: TopicPartition) -> bool:
        """Whether this one waits for its time."""
        return partition in self._until

    def reassigned(self, gone: Iterable[TopicPartition] = ()) -> None:
        """The assignment changed: forget what went, let new ones join a pause."""
        for partition in gone:
            self._until.pop(partition, None)
            self._stopped.discard(partition)
        if self.full:
            self.fill()
        if self.resting:
            self._consumer.pause(sorted(p for p in self._consumer.assignment() if p.topic in self.resting))
