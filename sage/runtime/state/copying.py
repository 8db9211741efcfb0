"""Copies of changelog partitions, brought up to date through one reader."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sage.errors import NotFound
from sage.model.partition import TopicPartition
from sage.ports import Clock, Consumer, KafkaClients, RawMessage, StateStore
from sage.runtime.state.copy_facts import FRESHEN_MS, CopyFacts, misfit
from sage.runtime.state.table import add_entry

logger = logging.getLogger("sage.runtime")

BATCH = 5_000
"""Records read and applied at once."""


class Bounds(NamedTuple):
    """What was asked of the broker: the facts of a copy that is complete now; first offsets and ends of the logs."""

    facts: CopyFacts
    offsets: Mapping[int, tuple[int, int]]


@dataclass(slots=True)
class Copy:
    """One partition's copy.

    Attributes:
        first, position, end: where reading began, where it is, and the log's end when it began.
        records: read so far.
        facts: what it is when it has reached its end.
    """

    store: StateStore
    first: int
    position: int
    end: int
    facts: CopyFacts
    records: int = 0

    @property
    def is_complete(self) -> bool:
        """Whether it has all that the changelog had when reading began."""
        return self.position >= self.end


class Copying:
    """Follows partitions of one changelog. ``poll`` and ``ask`` may run beside the rest, which one thread at a time
    calls.

    Args:
        topic: the changelog.
        has_timers: whether to keep the index of timers.
        where: topology and step, for messages.
    """

    def __init__(self, clients: KafkaClients, topic: str, *, has_timers: bool, clock: Clock, where: str) -> None:
        self._clients = clients
        self._topic = topic
        self._has_timers = has_timers
        self._clock = clock
        self._where = where
        self._reader: Consumer | None = None
        self._reads: dict[int, Copy] = {}
        self.copies: dict[int, Copy] = {}

    def ask(self, numbers: Collection[int]) -> Bounds:
        """Look where these partitions of the changelog begin and end.

        Raises:
            Unreachable, TransientFailure: no answer; it may be asked again.
            NotFound: there is no such changelog.
        """
        places = [TopicPartition(self._topic, number) for number in numbers]
        admin = self._clients.admin()
        try:
            # Not the last stable offset: an open transaction, or one whose marker is still to come, holds that back
            # in front of changes that are committed. The reader gets there when the broker has decided it.
            ends, starts = admin.end_offsets(places, committed=False), admin.start_offsets(places)
            info = admin.describe([self._topic]).get(self._topic)
        finally:
            admin.close()
        if info is None:
            raise NotFound("does not exist; deploy the topology again", where=f"topic {self._topic}")
        facts = CopyFacts(info.topic_id, self._clock.now_ms(), self._has_timers)
        return Bounds(facts, {at.partition: (starts[at], ends[at]) for at in places})

    def begin(self, number: int, store: StateStore, bounds: Bounds) -> None:
        """Wipe the copy if it does not fit its changelog, and follow it. Raises DiskFull."""
        start, end = bounds.offsets[number]
        if (reason := misfit(store, bounds.facts, start, end)) is not None:
            logger.warning("%s: the copy of %s-%d is made again: %s", self._where, self._topic, number, reason)
            store.wipe()
        first = max(store.applied, start)
        if store.applied == 0:
            bounds.facts.write(store, first)
        self.copies[number] = Copy(store, first, first, end, bounds.facts)

    def end(self, number: int) -> Copy | None:
        """Follow it no longer."""
        return self.copies.pop(number, None)

    def poll(self, timeout: float) -> Sequence[RawMessage]:
        """Records of what is followed; waits ``timeout`` seconds for the first. Raises what a reader raises."""
        copies = dict(self.copies)
        if not copies:
            return ()
        if self._reader is None:
            self._reader = self._clients.consumer(None)
            self._reads = {}
        if any(self._reads.get(number) is not copy for number, copy in copies.items()):
            # What is followed no longer is read on until then: assigning throws away what is fetched for the others.
            self._reader.assign({TopicPartition(self._topic, n): copy.position for n, copy in copies.items()})
            self._reads = copies
        return self._reader.poll(BATCH, timeout)

    def apply(self, messages: Sequence[RawMessage]) -> None:
        """Write what ``poll`` gave. Raises DiskFull."""
        writes: dict[int, dict[bytes, bytes | None]] = defaultdict(dict)
        for message in messages:
            copy = self.copies.get(message.partition())
            if copy is None:
                continue
            copy.position = message.offset() + 1
            copy.records += 1
            if (key := message.key()) is not None:
                add_entry(writes[message.partition()], key, message.value(), has_timers=self._has_timers)
        for number, changes in writes.items():
            self.copies[number].store.apply(changes, self.copies[number].position)
        for at, offset in (self._reader.ends_reached() if self._reader is not None else {}).items():
            if (copy := self.copies.get(at.partition)) is not None:
                self._at_end(copy, offset)

    def _at_end(self, copy: Copy, offset: int) -> None:
        """Markers of transactions take offsets and are never given: the end itself is the sign."""
        copy.position = max(copy.position, offset)
        now = self._clock.now_ms()
        if copy.is_complete and now - copy.facts.complete > FRESHEN_MS:
            copy.facts = CopyFacts(copy.facts.topic, now, self._has_timers)
            copy.facts.write(copy.store, copy.position)

    def rest(self) -> None:
        """Release the reader; it is made again when it is needed."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None
