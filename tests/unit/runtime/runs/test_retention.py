"""Edges are trimmed behind their slowest reader, and not before their time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sage.graph.builder import StreamBuilder
from sage.graph.topology import TopicSettings
from sage.model.partition import TopicPartition
from sage.plan.plan import Plan
from sage.plan.planner import compile_plan
from sage.runtime.runs.retention import Trimmer
from sage.runtime.runs.topics import prepare_topics
from sage.testing.broker import InMemoryClients
from sage.testing.virtual_time import ManualClock
from tests.unit.runtime.actors.test_takeover import Nobody

EDGE = TopicPartition("t.first", 0)


async def step(value: int) -> int:
    return value


def plan() -> Plan:
    builder = StreamBuilder("t")
    first = builder.from_collection([1], name="in").map(step, name="first")
    first.map(step, name="quick")
    first.map(step, name="slow")
    made = compile_plan(builder.build())
    return replace(made, topology=replace(made.topology, topics=TopicSettings(retention=60.0)))


def world(timestamps: Sequence[int] = (0,) * 10) -> tuple[InMemoryClients, ManualClock, Trimmer]:
    """An edge with ten records, by default of now; ``timestamps`` in seconds from now."""
    clock = ManualClock()
    clients = InMemoryClients(now_ms=clock.now_ms)
    topics = prepare_topics(plan(), clients)
    producer = clients.producer()
    for number, seconds in enumerate(timestamps):
        at = clock.now_ms() + seconds * 1000
        producer.produce(EDGE.topic, b"%d" % number, timestamp=at)
    producer.flush(1)
    widths = {name: info.partitions for name, info in topics.items()}
    return clients, clock, Trimmer(plan(), widths, clients.admin(), clock)


def commit(clients: InMemoryClients, group: str, offset: int) -> None:
    member = clients.consumer(group)
    member.subscribe([EDGE.topic], Nobody())
    member.poll(10, 0)
    member.commit({EDGE: offset})
    member.close()


def test_nothing_goes_that_one_reader_has_not_read() -> None:
    clients, clock, trimmer = world()
    clock.advance_to(clock.monotonic() + 3_600)
    commit(clients, "t.quick", 10)
    trimmer.trim()
    assert clients.admin().start_offsets([EDGE]) == {EDGE: 0}
    commit(clients, "t.slow", 4)
    assert trimmer.trim()[EDGE] == 4
    assert clients.admin().start_offsets([EDGE]) == {EDGE: 4}


def test_what_is_younger_than_the_retention_stays_for_people_to_look_at() -> None:
    clients, _, trimmer = world()
    for group in ("t.quick", "t.slow"):
        commit(clients, group, 10)
    assert EDGE not in trimmer.trim()


def test_the_age_is_that_of_the_timestamp_that_outputs_have_from_their_input() -> None:
    """As the module's text and the README tell it: a backfill goes when it is read, a date ahead keeps what follows."""
    clients, clock, trimmer = world([-3_600] * 6 + [3_600] + [-3_600] * 3)
    for group in ("t.quick", "t.slow"):
        commit(clients, group, 10)
    assert trimmer.trim()[EDGE] == 6
    clock.advance_to(clock.monotonic() + 3_600)
    assert EDGE not in trimmer.trim()
    clock.advance_to(clock.monotonic() + 61)
    assert trimmer.trim()[EDGE] == 10
