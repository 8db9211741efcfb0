"""Records of a topic, written and read as any Kafka program would."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import orjson

from sage.model.partition import TopicPartition
from sage.ports import KafkaClients, RawMessage, TopicSpec
from tests.support.waiting import wait_until


def make_topic(clients: KafkaClients, topic: str, partitions: int = 1, *, replicas: int = 1) -> None:
    """Make a topic."""
    admin = clients.admin()
    admin.create([TopicSpec(topic, partitions, replicas)])
    admin.close()


def fill(clients: KafkaClients, topic: str, values: Iterable[Any], *, keyed_by: str | None = None) -> None:
    """Write JSON values; ``keyed_by`` names the field whose text is the key."""
    producer = clients.producer()
    for value in values:
        key = None if keyed_by is None else str(value[keyed_by]).encode()
        producer.produce(topic, value if isinstance(value, bytes) else orjson.dumps(value), key)
    assert producer.flush(30) == 0
    assert producer.take_failures() == []
    producer.close()


def everything(clients: KafkaClients, topic: str) -> list[RawMessage]:
    """All records that are in the topic now, in the order of partitions and offsets."""
    admin = clients.admin()
    info = admin.describe([topic]).get(topic)
    if info is None:
        return []
    partitions = [TopicPartition(topic, number) for number in range(info.partitions)]
    ends = {p: end for p, end in admin.end_offsets(partitions).items() if end}
    admin.close()
    if not ends:
        return []
    consumer = clients.consumer(None)
    consumer.assign(dict.fromkeys(ends, 0))
    found: list[RawMessage] = []
    reached: dict[TopicPartition, int] = {}

    def complete() -> bool:
        found.extend(consumer.poll(1_000, 0.1))
        reached.update(consumer.ends_reached())
        for message in found:
            place = TopicPartition(message.topic(), message.partition())
            reached[place] = max(reached.get(place, 0), message.offset() + 1)
        return all(reached.get(p, 0) >= end for p, end in ends.items())

    wait_until(complete, timeout=30, what=f"{topic} is read to its end")
    consumer.close()
    return sorted(found, key=lambda message: (message.partition(), message.offset()))


def values_of(messages: Sequence[RawMessage]) -> list[Any]:
    """Their decoded JSON values."""
    return [None if (value := message.value()) is None else orjson.loads(value) for message in messages]


def total_lag(clients: KafkaClients, group: str, topic: str, partitions: int) -> int:
    """What a stranger would sum: end offsets less committed ones."""
    admin = clients.admin()
    places = [TopicPartition(topic, number) for number in range(partitions)]
    ends, committed = admin.end_offsets(places), admin.committed(group, places)
    admin.close()
    return sum(ends[place] - (committed[place] or 0) for place in places)
