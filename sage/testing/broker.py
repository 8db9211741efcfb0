"""A Kafka in memory: the same ports, the same order of events in every run, and faults on demand.

What it keeps of Kafka: partitions by murmur2, groups with incremental rebalances, commits that only an owner
may make, transactions with markers that take offsets and with an end after 10 s, last stable offsets, fencing, ends
of logs, headers and timestamps. What it does not: retention, compaction, quotas, and random choices (a record without
a key goes to the next partition in turn).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from sage.model.partition import TopicPartition
from sage.ports import CommitRefused, DeliveryFailure
from sage.testing.in_memory_admin import InMemoryAdmin
from sage.testing.in_memory_consumer import InMemoryConsumer
from sage.testing.in_memory_log import InMemoryMessage
from sage.testing.in_memory_producer import InMemoryProducer
from sage.testing.in_memory_state import BrokerState

__all__ = ["InMemoryClients", "InMemoryConsumer", "InMemoryMessage", "InMemoryProducer"]


class InMemoryClients:
    """One in-memory broker and the door to it; thread-safe.

    Args:
        now_ms: the clock that stamps records without a timestamp; the real one by default.
        message_max_bytes: larger records raise RecordTooLarge.
        queue_limit: records that may wait in one producer before it raises BufferError.
        nodes: brokers that the cluster claims to have; the limit of ``replication_factor``.
    """

    def __init__(
        self,
        *,
        now_ms: Callable[[], int] | None = None,
        message_max_bytes: int = 1_000_000,
        queue_limit: int = 100_000,
        nodes: int = 1,
    ) -> None:
        self._state = BrokerState(now_ms=now_ms, nodes=nodes)
        self._message_max_bytes = message_max_bytes
        self._queue_limit = queue_limit

    @property
    def address(self) -> str:
        """For messages."""
        return "in-memory"

    @property
    def is_embedded(self) -> bool:
        """False: it has all that the runtime asks of Kafka."""
        return False

    def consumer(
        self,
        group: str | None,
        *,
        read_from: Literal["earliest", "latest"] = "earliest",
        config: Mapping[str, Any] | None = None,
    ) -> InMemoryConsumer:
        """A member of ``group``, or a plain reader. ``config`` is for librdkafka and changes nothing here."""
        return InMemoryConsumer(self._state, group, read_from)

    def producer(
        self, *, transactional_id: str | None = None, config: Mapping[str, Any] | None = None
    ) -> InMemoryProducer:
        """A producer; of ``config`` it knows ``message.max.bytes`` and ``queue.buffering.max.messages``."""
        settings = dict(config or {})
        return InMemoryProducer(
            self._state,
            transactional_id=transactional_id,
            message_max_bytes=int(settings.get("message.max.bytes", self._message_max_bytes)),
            queue_limit=int(settings.get("queue.buffering.max.messages", self._queue_limit)),
        )

    def admin(self) -> InMemoryAdmin:
        """Topics and offsets."""
        return InMemoryAdmin(self._state)

    # ------------------------------------------------------------------------- for tests: look and break

    def messages(self, topic: str, partition: int | None = None) -> list[InMemoryMessage]:
        """What a reader of committed records would see; all partitions one after the other.

        Raises:
            NotFound: no such topic.
        """
        with self._state.changed:
            if partition is not None:
                return self._state.log(TopicPartition(topic, partition)).messages()
            self._state.log(TopicPartition(topic, 0))
            numbers = range(self._state.partitions_of(topic))
            return [message for each in numbers for message in self._state.log(TopicPartition(topic, each)).messages()]

    def committed(self, group: str) -> dict[TopicPartition, int]:
        """All committed offsets of a group."""
        with self._state.changed:
            return dict(self._state.group(group).offsets)

    def trim(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Remove the records before these offsets, as retention does."""
        with self._state.changed:
            for where, offset in offsets.items():
                self._state.log(where).trim(offset)

    def fail_next_delivery(
        self, topic: str | None = None, *, reason: str = "made to fail", too_large: bool = False, retriable: bool = True
    ) -> None:
        """The next record produced (to ``topic``, if named) is not taken, and its failure is reported."""
        with self._state.changed:
            self._state.faults.deliveries.append((topic, DeliveryFailure("", -1, reason, too_large, retriable)))

    def limit_record_size(self, topic: str, limit: int) -> None:
        """Larger records of this topic are refused when they arrive, as by ``max.message.bytes`` of a real one."""
        with self._state.changed:
            self._state.faults.record_sizes[topic] = limit

    def fail_next_commit(self, error: Exception | None = None) -> None:
        """The next ``Consumer.commit`` raises this; CommitRefused by default."""
        with self._state.changed:
            self._state.faults.commits.append(error or CommitRefused("made to fail"))

    def fail_next_poll(self, error: Exception) -> None:
        """The next ``Consumer.poll`` raises this."""
        with self._state.changed:
            self._state.faults.polls.append(error)
            self._state.changed.notify_all()

    def fail_next_transaction(self, error: Exception) -> None:
        """The next ``commit_transaction`` raises this, before anything is decided."""
        with self._state.changed:
            self._state.faults.transactions.append(error)

    @contextmanager
    def deliveries_held(self) -> Iterator[None]:
        """Inside, records stay queued and ``flush`` times out; afterwards they arrive."""
        self._hold(deliveries=True)
        try:
            yield
        finally:
            self._hold(deliveries=False)

    @contextmanager
    def down(self) -> Iterator[None]:
        """Inside, nobody answers: admin and commits raise Unreachable, polls are empty, records stay queued."""
        self._set_down(True)
        try:
            yield
        finally:
            self._set_down(False)

    def topics(self) -> Sequence[str]:
        """Names of all topics."""
        return [info.name for info in self._state.topics()]

    def _hold(self, *, deliveries: bool) -> None:
        with self._state.changed:
            self._state.holds_deliveries = deliveries
            self._state.changed.notify_all()

    def _set_down(self, is_down: bool) -> None:
        with self._state.changed:
            self._state.is_down = is_down
            self._state.changed.notify_all()
