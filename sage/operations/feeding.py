"""Writing records to the topic by which they enter a run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from sage.errors import SageError
from sage.model.record import Headers
from sage.ports import KafkaClients, Producer, TopicSpec

_FLUSH: Final = 60.0


class Feed(NamedTuple):
    """One record to write."""

    value: bytes | None
    key: bytes | None = None
    headers: Headers = ()


def make_input(clients: KafkaClients, topic: str, partitions: int, replication_factor: int) -> None:
    """Make the topic of a run's records, which nothing drops before the run is over."""
    admin = clients.admin()
    try:
        admin.create([TopicSpec(topic, partitions, replication_factor, {"retention.ms": "-1"})])
    finally:
        admin.close()


def put(producer: Producer, topic: str, record: Feed) -> None:
    """Queue one record, with patience where the queue is full."""
    while True:
        try:
            producer.produce(topic, record.value, record.key, record.headers)
        except BufferError:
            producer.poll(0.1)
        else:
            return


def settle(producer: Producer, topic: str) -> None:
    """Wait until the broker has everything.

    Raises:
        SageError: it did not take a record.
    """
    left = producer.flush(_FLUSH)
    failures = producer.take_failures()
    if left or failures:
        why = failures[0].reason if failures else f"{left} are still under way after {_FLUSH:.0f} s"
        raise SageError(f"records could not be written: {why}", where=f"topic {topic}")


def feed(clients: KafkaClients, topic: str, records: Iterable[Feed]) -> int:
    """Write all of them, as fast as the broker takes them; how many that were. Raises SageError."""
    producer = clients.producer(config={"linger.ms": 20})
    count = 0
    try:
        for record in records:
            put(producer, topic, record)
            count += 1
        settle(producer, topic)
    finally:
        producer.close()
    return count
