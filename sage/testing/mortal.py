"""An in-memory broker whose clients die with the process that they belong to."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any, Literal

from sage.model.partition import TopicPartition
from sage.model.record import Headers
from sage.ports import DeliveryFailure, RawMessage
from sage.testing.broker import InMemoryClients, InMemoryConsumer, InMemoryProducer
from sage.testing.virtual_time import ManualClock


class MortalProducer(InMemoryProducer):
    """A producer that does nothing any more once its process is dead, and says that all is well."""

    is_dead = False

    def produce(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None = None,
        headers: Headers | None = None,
        timestamp: int | None = None,
        partition: int = -1,
        on_delivery: Callable[[DeliveryFailure | None, int, int], None] | None = None,
    ) -> None:
        """As usual, while alive."""
        if not self.is_dead:
            super().produce(topic, value, key, headers, timestamp, partition, on_delivery)

    def poll(self, timeout: float = 0.0) -> int:
        """As usual, while alive."""
        return 0 if self.is_dead else super().poll(timeout)

    def flush(self, timeout: float) -> int:
        """As usual, while alive."""
        return 0 if self.is_dead else super().flush(timeout)

    def init_transactions(self, timeout: float = 30.0) -> None:
        """As usual, while alive: the dead fence nobody."""
        if not self.is_dead:
            super().init_transactions(timeout)

    def begin_transaction(self) -> None:
        """As usual, while alive."""
        if not self.is_dead:
            super().begin_transaction()

    def send_offsets(
        self,
        offsets: Mapping[TopicPartition, int],
        group_metadata: object,
        metadata: Mapping[TopicPartition, str] | None = None,
    ) -> None:
        """As usual, while alive."""
        if not self.is_dead:
            super().send_offsets(offsets, group_metadata, metadata)

    def commit_transaction(self, timeout: float = 30.0) -> None:
        """As usual, while alive."""
        if not self.is_dead:
            super().commit_transaction(timeout)

    def abort_transaction(self, timeout: float = 30.0) -> None:
        """As usual, while alive: what a dead process left open stays open until somebody fences it."""
        if not self.is_dead:
            super().abort_transaction(timeout)


class MortalConsumer(InMemoryConsumer):
    """A consumer that gives records in batches of a size that is drawn, where the driver has a seed."""

    chance: random.Random | None = None

    def poll(self, max_messages: int, timeout: float) -> list[RawMessage]:
        """At least one record where there is one, like every other consumer."""
        if self.chance is not None and max_messages > 1 and self.chance.random() < 0.5:
            max_messages = self.chance.randint(1, min(max_messages, 4))
        return super().poll(max_messages, timeout)

    def commit(
        self, offsets: Mapping[TopicPartition, int], metadata: Mapping[TopicPartition, str] | None = None
    ) -> None:
        """As usual, while alive."""
        if not self._closed:
            super().commit(offsets, metadata)


class DriverClients(InMemoryClients):
    """An in-memory broker that knows which clients it gave out, so that a crash can cut them off.

    Args:
        clock: stamps records.
        chance: draws the sizes of batches; ``None`` gives all that there is.
    """

    def __init__(self, clock: ManualClock, chance: random.Random | None = None) -> None:
        super().__init__(now_ms=clock.now_ms)
        self._chance = chance
        self._consumers: list[MortalConsumer] = []
        self._producers: list[MortalProducer] = []

    def consumer(
        self,
        group: str | None,
        *,
        read_from: Literal["earliest", "latest"] = "earliest",
        config: Mapping[str, Any] | None = None,
    ) -> InMemoryConsumer:
        """A consumer of the process."""
        made = MortalConsumer(self._state, group, read_from)
        made.chance = self._chance if group is not None else None
        self._consumers.append(made)
        return made

    def producer(
        self, *, transactional_id: str | None = None, config: Mapping[str, Any] | None = None
    ) -> InMemoryProducer:
        """A producer of the process."""
        made = MortalProducer(
            self._state,
            transactional_id=transactional_id,
            message_max_bytes=self._message_max_bytes,
            queue_limit=self._queue_limit,
        )
        self._producers.append(made)
        return made

    def outside_producer(self) -> InMemoryProducer:
        """A producer of somebody else, which no crash touches."""
        return super().producer()

    def kill(self) -> None:
        """The process is dead: its consumers leave without a word, its producers send nothing any more."""
        consumers, self._consumers = self._consumers, []
        producers, self._producers = self._producers, []
        for producer in producers:
            producer.is_dead = True
        for consumer in consumers:
            consumer.abandon()
