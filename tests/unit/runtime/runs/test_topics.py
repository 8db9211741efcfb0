"""Topics of a plan are made or checked before anything runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from sage.errors import InvalidTopology, Unreachable
from sage.graph.builder import StreamBuilder
from sage.model.names import offsets_topic
from sage.model.partition import TopicPartition
from sage.plan.plan import Plan
from sage.plan.planner import compile_plan
from sage.plan.topics import offsets_partitions
from sage.ports import TopicInfo, TopicSpec
from sage.runtime.runs.topics import prepare_topics
from sage.runtime.sources.positions import PositionWriter, SourcePosition, load_position, position_key
from sage.testing.broker import InMemoryClients


def plan(*sources: str, partitions: int = 1) -> Plan:
    builder = StreamBuilder("t")
    for name in sources:
        builder.from_collection([1], name=name).map(str, name=f"work-{name}", partitions=partitions)
    return compile_plan(builder.build())


def test_a_source_that_came_since_finds_room_and_the_others_their_positions() -> None:
    clients = InMemoryClients()
    old = plan("one")
    prepare_topics(old, clients)
    place = TopicPartition(offsets_topic("t"), offsets_partitions(old)["one", "0"])
    key = position_key("one", "0")
    assert PositionWriter(clients.producer(), place, key).write(SourcePosition("e", 7), 1)
    new = plan("another", "one")
    topics = prepare_topics(new, clients)
    moved = TopicPartition(offsets_topic("t"), offsets_partitions(new)["one", "0"])
    assert (topics[offsets_topic("t")].partitions, place.partition, moved.partition) == (2, 0, 1)
    assert load_position(clients, moved, key) == SourcePosition("e", 7)


def test_fewer_sources_take_no_partition_away() -> None:
    clients = InMemoryClients()
    prepare_topics(plan("one", "two"), clients)
    assert prepare_topics(plan("one"), clients)[offsets_topic("t")].partitions == 2


def test_an_edge_keeps_the_partitions_that_it_was_made_with() -> None:
    clients = InMemoryClients()
    prepare_topics(plan("one"), clients)
    with pytest.raises(InvalidTopology, match=r"'t\.work-one' has 1 partitions, the topology asks for 2"):
        prepare_topics(plan("one", partitions=2), clients)


def test_a_topic_that_is_only_written_is_taken_as_it_is_and_made_as_wide_as_asked_where_it_is_missing() -> None:
    clients = InMemoryClients()
    clients.admin().create([TopicSpec("there", 1), TopicSpec("in", 2)])
    builder = StreamBuilder("t", defaults={"partitions": 3})
    work = builder.from_topic("in").map(str, name="work")
    work.to("there")
    work.to("new")
    topics = prepare_topics(compile_plan(builder.build()), clients)
    assert (topics["there"].partitions, topics["new"].partitions) == (1, 3)


class _Behind:
    """An admin whose brokers answer in turn; one of them hears of a topic later than the others."""

    def __init__(self, clients: InMemoryClients, unheard: str) -> None:
        self._admin = clients.admin()
        self._unheard = unheard
        self.asked = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._admin, name)

    def describe(self, topics: Sequence[str]) -> dict[str, TopicInfo]:
        found = self._admin.describe(topics)
        self.asked += self._unheard in found
        if self.asked == 1:
            found.pop(self._unheard, None)
        return dict(found)


def test_a_broker_that_has_not_heard_of_a_new_topic_yet_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    clients = InMemoryClients()
    behind = _Behind(clients, "t.one")
    monkeypatch.setattr(clients, "admin", lambda: behind)
    assert "t.one" in prepare_topics(plan("one"), clients)
    assert behind.asked > 1


def test_a_topic_that_never_shows_up_stops_the_start_with_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    clients = InMemoryClients()
    prepare_topics(plan("one"), clients)
    admin = clients.admin()
    monkeypatch.setattr(clients, "admin", lambda: admin)
    monkeypatch.setattr(admin, "describe", lambda topics: {})
    monkeypatch.setattr("sage.runtime.runs.topics.HEARSAY", 0.0)
    with pytest.raises(Unreachable, match=r"topic '.+' was made 0 s ago, and the brokers do not show it"):
        prepare_topics(plan("one"), clients)
