"""Named members on the embedded broker, which ends no session: who leaves must say so."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from sage.kafka.clients import ConfluentClients
from sage.model.partition import TopicPartition
from sage.ports import Consumer
from sage.wiring.static_members import StaticMembers
from tests.support.brokers import Broker
from tests.support.records import make_topic
from tests.support.waiting import wait_until

PARTITIONS = 3


class Silent:
    """A listener that has nothing to do."""

    def on_assigned(self, partitions: object) -> None: ...
    def on_revoked(self, partitions: object) -> None: ...
    def on_lost(self, partitions: object) -> None: ...


@pytest.fixture
def named(embedded_broker: Broker, unique: Callable[[str], str]) -> Iterator[Callable[[str], Consumer]]:
    """Makes members of one group by their process's name; all are closed in the end."""
    clients = embedded_broker.clients()
    topic, group = unique("rows"), unique("readers")
    make_topic(clients, topic, PARTITIONS)
    made: list[Consumer] = []

    def member(name: str) -> Consumer:
        own = ConfluentClients(embedded_broker.bootstrap_servers)
        consumer = StaticMembers(own, name).consumer(group)
        consumer.subscribe([topic], Silent())
        made.append(consumer)
        return consumer

    yield member
    for consumer in made:
        consumer.close()


def has_all(consumer: Consumer) -> bool:
    consumer.poll(1, 0.05)
    return len(consumer.assignment()) == PARTITIONS


def test_who_ends_in_order_leaves_its_partitions_to_others(named: Callable[[str], Consumer]) -> None:
    first = named("first")
    wait_until(lambda: has_all(first), what="the first has all partitions")
    first.close()
    second = named("second")
    wait_until(lambda: has_all(second), what="the second has all partitions")
    assert {place.partition for place in second.assignment()} == set(range(PARTITIONS))
    assert all(isinstance(place, TopicPartition) for place in second.assignment())
