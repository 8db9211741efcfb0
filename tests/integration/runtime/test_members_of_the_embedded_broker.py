"""Members of groups on the embedded broker, which ends no session itself."""

from __future__ import annotations

import subprocess
import sys
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


DOOMED = """
import sys
from sage.kafka.clients import ConfluentClients
from sage.wiring.static_members import StaticMembers

class Silent:
    def on_assigned(self, partitions): ...
    def on_revoked(self, partitions): ...
    def on_lost(self, partitions): ...

address, topic, group, name = sys.argv[1:]
clients = ConfluentClients(address)
consumer = (StaticMembers(clients, name) if name else clients).consumer(group)
consumer.subscribe([topic], Silent())
told = False
while True:
    consumer.poll(1, 0.05)
    if consumer.assignment() and not told:
        told = True
        print("has partitions", flush=True)
"""


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


@pytest.mark.parametrize("name", ["", "doomed"], ids=["nameless", "named"])
def test_who_is_killed_loses_its_partitions_when_its_session_ends(
    embedded_broker: Broker, unique: Callable[[str], str], name: str
) -> None:
    clients = embedded_broker.clients()
    topic, group = unique("rows"), unique("readers")
    make_topic(clients, topic, PARTITIONS)
    arguments = [embedded_broker.bootstrap_servers, topic, group, name]
    with subprocess.Popen([sys.executable, "-c", DOOMED, *arguments], stdout=subprocess.PIPE) as doomed:
        assert doomed.stdout is not None and doomed.stdout.readline() == b"has partitions\n"
        doomed.kill()
    heir = ConfluentClients(embedded_broker.bootstrap_servers).consumer(group)
    try:
        heir.subscribe([topic], Silent())
        wait_until(lambda: has_all(heir), what="the heir has all partitions")
    finally:
        heir.close()
