"""When a bounded run is over."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from sage.errors import DeadlineExceeded
from sage.graph.builder import StreamBuilder
from sage.model.partition import TopicPartition
from sage.plan.plan import Plan
from sage.plan.planner import compile_plan
from sage.ports import TopicSpec
from sage.runtime.runs.termination import Hosted, Termination
from sage.runtime.runs.topics import prepare_topics
from sage.runtime.sources.positions import ExhaustionWatch, PositionWriter, SourcePosition, position_key
from sage.testing.broker import InMemoryClients

OFFSETS = TopicPartition("t.offsets", 0)
KEY = position_key("source", "0")


class Hand:
    """Does, one at each wait, what the stages of a run would do."""

    def __init__(self, plan: Plan, partitions: int = 1, external: int = 1) -> None:
        self.plan = plan
        self.clients = InMemoryClients()
        self.clients.admin().create([TopicSpec(topic, external) for topic in plan.external])
        self.partitions = {name: info.partitions for name, info in prepare_topics(plan, self.clients).items()}
        self.steps: list[Callable[[], object]] = []
        self.waits = 0
        self.waited_for: list[str] = []

    def walk(self, *steps: Callable[[], object], here: Mapping[str, Hosted] | None = None) -> Termination:
        sources = {OFFSETS: KEY} if self.plan.source_tasks else {}
        watch = ExhaustionWatch(self.clients, sources)
        self.steps = list(steps)
        self.termination = Termination(self.plan, self.clients.admin(), watch, self.partitions, self._wait, here)
        self.termination.walk()
        return self.termination

    def _wait(self, seconds: float) -> None:
        self.waited_for.append(self.termination.waiting_for)
        if not self.steps:
            raise DeadlineExceeded("nothing more will happen")
        self.steps.pop(0)()

    def produce(self, topic: str, count: int, partition: int = 0) -> Hand:
        producer = self.clients.producer()
        for _ in range(count):
            producer.produce(topic, b"1", partition=partition)
        producer.flush(1)
        return self

    def commit(self, step: str, topic: str, offset: int, partition: int = 0) -> Hand:
        self.clients._state.group(f"t.{step}").commit({TopicPartition(topic, partition): offset})
        return self

    def exhaust(self) -> Hand:
        assert PositionWriter(self.clients.producer(), OFFSETS, KEY).write(SourcePosition("e", 1, True), 1.0)
        return self


def two_stages() -> Plan:
    builder = StreamBuilder("t")
    stream = builder.from_collection([1], name="source")
    stream.map(lambda v: v, name="first").key_by(lambda v: v, name="keyed").map(lambda v: v, name="second")
    return compile_plan(builder.build())


def reading_topic() -> Plan:
    builder = StreamBuilder("t")
    builder.from_topic("in", name="source").map(lambda v: v, name="first")
    return compile_plan(builder.build())


def test_the_plan_of_the_tests_is_what_they_take_it_for() -> None:
    assert [stage.label() for stage in two_stages().stages] == ["source", "first + keyed", "second"]


def test_a_run_is_over_when_each_stage_has_committed_what_those_before_it_wrote() -> None:
    hand = Hand(two_stages())
    termination = hand.walk(
        lambda: (hand.produce("t.source", 2), hand.exhaust()),
        lambda: hand.commit("first", "t.source", 1),
        lambda: (hand.produce("t.keyed", 2), hand.commit("first", "t.source", 2)),
        lambda: hand.commit("second", "t.keyed", 1),
        lambda: hand.commit("second", "t.keyed", 2),
    )
    assert hand.steps == []
    assert termination.waiting_for == ""
    assert hand.waited_for == [
        "sources to give all they have",
        'step "first": 2 records behind',
        'step "first": 1 records behind',
        'step "second": 2 records behind',
        'step "second": 1 records behind',
    ]


def test_what_a_stage_writes_before_it_is_finished_is_waited_for_downstream() -> None:
    """The end of an edge is read only when its writers are through."""
    hand = Hand(two_stages())
    with pytest.raises(DeadlineExceeded):
        hand.walk(
            lambda: (hand.produce("t.source", 1), hand.exhaust()),
            lambda: hand.commit("second", "t.keyed", 0),
            lambda: (hand.produce("t.keyed", 3), hand.commit("first", "t.source", 1)),
            lambda: hand.commit("second", "t.keyed", 2),
        )
    assert hand.termination.waiting_for == 'step "second": 1 records behind'


def test_a_source_that_gave_nothing_ends_at_once() -> None:
    hand = Hand(two_stages())
    hand.walk(hand.exhaust)
    assert hand.waited_for == ["sources to give all they have"]


def test_every_partition_counts() -> None:
    builder = StreamBuilder("t")
    builder.from_collection([1], name="source", partitions=3).map(lambda v: v, name="first")
    hand = Hand(compile_plan(builder.build()))
    with pytest.raises(DeadlineExceeded):
        hand.walk(
            lambda: (hand.produce("t.source", 1, 0), hand.produce("t.source", 4, 2), hand.exhaust()),
            lambda: hand.commit("first", "t.source", 1, 0),
        )
    assert hand.termination.waiting_for == 'step "first": 4 records behind'


def test_a_foreign_topic_ends_where_it_did_when_the_run_began() -> None:
    hand = Hand(reading_topic())
    hand.produce("in", 3)
    hand.walk(lambda: (hand.produce("in", 100), hand.commit("first", "in", 3)))
    assert hand.steps == []


def test_what_comes_to_a_foreign_topic_while_sources_are_read_is_not_waited_for() -> None:
    builder = StreamBuilder("t")
    builder.from_collection([1], name="source").map(lambda v: v, name="first")
    builder.from_topic("in", name="topic").map(lambda v: v, name="other")
    hand = Hand(compile_plan(builder.build()))
    hand.produce("in", 3).commit("other", "in", 3)
    hand.walk(lambda: hand.produce("in", 100), hand.exhaust)
    assert hand.waited_for == ["sources to give all they have"] * 2


def test_records_that_retention_took_are_not_waited_for() -> None:
    hand = Hand(reading_topic())
    hand.produce("in", 5)
    hand.clients.trim({TopicPartition("in", 0): 5})
    hand.walk()
    hand.produce("in", 1)
    with pytest.raises(DeadlineExceeded):
        hand.walk()
    assert hand.termination.waiting_for == 'step "first": 1 records behind'
