"""What tests of the Kafka ports need around an implementation."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sage.model.partition import TopicPartition
from sage.ports import Admin, Consumer, KafkaClients, Producer, RawMessage, TopicSpec

C = TypeVar("C", Admin, Consumer, Producer)


@dataclass
class Recorder:
    """A rebalance listener that remembers, and does what a test asks of it."""

    assigned: list[list[TopicPartition]] = field(default_factory=list)
    revoked: list[list[TopicPartition]] = field(default_factory=list)
    lost: list[list[TopicPartition]] = field(default_factory=list)
    when_assigned: Callable[[list[TopicPartition]], object] = lambda _: None
    when_revoked: Callable[[list[TopicPartition]], object] = lambda _: None

    def on_assigned(self, partitions: Any) -> None:
        self.assigned.append(list(partitions))
        self.when_assigned(list(partitions))

    def on_revoked(self, partitions: Any) -> None:
        self.revoked.append(list(partitions))
        self.when_revoked(list(partitions))

    def on_lost(self, partitions: Any) -> None:
        self.lost.append(list(partitions))


@dataclass
class Cluster:
    """One implementation of the ports, with what tests need around it."""

    name: str
    clients: KafkaClients
    opened: list[Consumer | Producer | Admin] = field(default_factory=list)
    _filler: Producer | None = None

    @property
    def commits_while_revoking(self) -> bool:
        """False for the embedded broker, which raises the generation before it asks for the partitions."""
        return not self.clients.is_embedded

    def topic(self, name: str, partitions: int = 1, **config: str) -> str:
        self.admin().create([TopicSpec(name, partitions, config=config)])
        return name

    def admin(self) -> Admin:
        return self._keep(self.clients.admin())

    def producer(self, **options: Any) -> Producer:
        return self._keep(self.clients.producer(**options))

    def consumer(self, group: str | None, **options: Any) -> Consumer:
        return self._keep(self.clients.consumer(group, **options))

    def member(self, group: str, topic: str, listener: Recorder | None = None) -> Consumer:
        """A consumer that joins ``group``."""
        consumer = self.consumer(group)
        consumer.subscribe([topic], listener or Recorder())
        return consumer

    def fill(self, topic: str, *values: bytes, key: bytes | None = None, partition: int = -1) -> None:
        """Produce these values and wait for the acknowledgements."""
        if self._filler is None:
            self._filler = self.producer()
        for value in values:
            self._filler.produce(topic, value, key, partition=partition)
        assert self._filler.flush(20) == 0
        assert self._filler.take_failures() == []

    def _keep(self, client: C) -> C:
        self.opened.append(client)
        return client

    def close(self) -> None:
        for client in reversed(self.opened):
            client.close()


def read(consumer: Consumer, count: int, *, timeout: float = 30.0, batch: int = 500) -> list[RawMessage]:
    """At least ``count`` records, by polling; fails the test when they don't come."""
    deadline = time.monotonic() + timeout
    records: list[RawMessage] = []
    while len(records) < count:
        records += consumer.poll(batch, 0.1)
        assert time.monotonic() < deadline, f"{len(records)} of {count} records after {timeout} s"
    return records


def poll_until(condition: Callable[[], object], *consumers: Consumer, timeout: float = 30.0) -> list[RawMessage]:
    """Poll all consumers in turn until the condition holds; returns what came meanwhile."""
    deadline = time.monotonic() + timeout
    records: list[RawMessage] = []
    while not condition():
        for consumer in consumers:
            records += consumer.poll(500, 0.05)
        assert time.monotonic() < deadline, f"not within {timeout} s"
    return records
