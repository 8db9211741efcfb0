"""Members of groups on the embedded broker, which ends no session itself."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

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


def test_who_comes_just_when_the_wait_for_more_members_ends_is_not_forgotten(
    embedded_broker: Broker, unique: Callable[[str], str]
) -> None:
    """That is 0.3 s after the first one; the broker answers neither then, of some pairs."""
    topic = unique("rows")
    make_topic(embedded_broker.clients(), topic, 2)

    def pair(delay: float) -> None:
        clients = ConfluentClients(embedded_broker.bootstrap_servers)
        group = unique("readers")
        first, second = clients.consumer(group), clients.consumer(group)
        try:
            first.subscribe([topic], Silent())
            began = time.monotonic()
            while time.monotonic() - began < delay:
                first.poll(1, 0.002)
            second.subscribe([topic], Silent())

            def shared() -> bool:
                for member in (first, second):
                    member.poll(1, 0.01)
                return [len(member.assignment()) for member in (first, second)] == [1, 1]

            wait_until(shared, what=f"both members of {group} have their share, {delay:.2f} s apart")
        finally:
            first.close()
            second.close()

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(pair, [0.26 + 0.01 * number for number in range(8)])) == [None] * 8
