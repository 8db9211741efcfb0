"""Which position counts, on brokers, after a worker whose clock was ahead."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from sage.graph.builder import StreamBuilder
from sage.kafka.clients import ConfluentClients
from sage.model.names import offsets_topic
from sage.model.partition import TopicPartition
from sage.plan.plan import Plan
from sage.plan.planner import compile_plan
from sage.ports import TopicSpec
from sage.runtime.runs.topics import prepare_topics
from sage.runtime.sources.positions import SourcePosition, load_position, position_key
from tests.support.brokers import Broker

KEY = position_key("one", "0")
AHEAD = 300.0


def plan_of(name: str) -> Plan:
    """Two sources, so that the positions topic has two partitions."""
    builder = StreamBuilder(name)
    for source in ("one", "two"):
        builder.from_collection([1], name=source).map(str, name=f"text-{source}")
    return compile_plan(builder.build())


def write(clients: ConfluentClients, place: TopicPartition, position: int, *, ahead: float = 0.0) -> None:
    """Write a position as a worker does whose clock is ``ahead`` by so many seconds."""
    producer = clients.producer()
    try:
        at = int((time.time() + ahead) * 1000)
        producer.produce(
            place.topic, SourcePosition("e", position).encode(), KEY, timestamp=at, partition=place.partition
        )
        assert producer.flush(10) == 0
        assert producer.take_failures() == []
    finally:
        producer.close()


@pytest.mark.parametrize("own", [0, 1])
def test_a_task_that_moved_is_found_where_the_broker_heard_of_it_last(
    broker: Broker, unique: Callable[[str], str], own: int
) -> None:
    clients, plan = broker.clients(), plan_of(unique("moved"))
    prepare_topics(plan, clients)
    zero, one = (TopicPartition(offsets_topic(plan.name), number) for number in range(2))
    for position, (place, ahead) in enumerate([(zero, AHEAD), (one, 0.0), (zero, -AHEAD)]):
        write(clients, place, position, ahead=ahead)
        assert load_position(clients, (zero, one)[own], KEY) == SourcePosition("e", position)
        time.sleep(0.05)  # the broker's time is in milliseconds


def test_a_positions_topic_with_the_writers_time_goes_on_working(broker: Broker, unique: Callable[[str], str]) -> None:
    clients, plan = broker.clients(), plan_of(unique("before"))
    place = TopicPartition(offsets_topic(plan.name), 0)
    admin = clients.admin()
    try:
        admin.create([TopicSpec(place.topic, 1, config={"cleanup.policy": "compact"})])
    finally:
        admin.close()
    write(clients, place, 1000, ahead=AHEAD)
    assert prepare_topics(plan, clients)[place.topic].partitions == 2
    write(clients, place, 1500)
    write(clients, place, 2000)
    assert load_position(clients, place, KEY) == SourcePosition("e", 2000)
