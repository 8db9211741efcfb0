"""A bounded run ends when the timers that are overdue have fired, those that an earlier run left included."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from sage.graph.builder import StreamBuilder
from sage.model.partition import TopicPartition
from sage.plan.planner import compile_plan
from tests.support.waiting import wait_until
from tests.unit.runtime.acting import committed, keyed_bench, turn
from tests.unit.runtime.bench import at
from tests.unit.runtime.runs.test_runner import Town
from tests.unit.runtime.runs.test_termination import Hand

K = b"k"


def ringing(value: Any, ctx: Any) -> Iterator[Any]:
    ctx.timer.set("ring", after=value)
    yield value


def ring(name: str, ctx: Any) -> Iterator[Any]:
    yield name


async def ringing_later(value: Any, ctx: Any) -> AsyncIterator[Any]:
    ctx.timer.set("ring", after=value)
    yield value


async def ring_later(name: str, ctx: Any) -> AsyncIterator[Any]:
    yield name


KINDS: Any = {"sync": (ringing, ring), "async": (ringing_later, ring_later)}


@pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_actor_is_not_at_rest_before_its_overdue_timers_are_fired_and_committed(kind: str, guarantee: Any) -> None:
    step, on_timer = KINDS[kind]
    bench = keyed_bench(step, on_timer=on_timer, guarantee=guarantee)
    first = bench.actor()
    bench.feed(2, keys=[K])
    turn(bench, first, seconds=0.15, times=8)
    assert committed(bench) == {at(): 1}
    assert first.is_at_rest, "its timer is not due yet"
    first.stop(1.0)
    first.run(lambda _: None)
    bench.run(5.0)

    second = bench.actor()
    assert not second.is_at_rest, "it has nothing yet"
    for _ in range(60):
        turn(bench, second, seconds=0.05)
        assert bench.out() == [2, "ring"] or not second.is_at_rest
    assert bench.out() == [2, "ring"]
    assert second.is_at_rest


def test_an_actor_that_is_given_nothing_is_not_at_rest() -> None:
    bench = keyed_bench(ringing, on_timer=ring)
    first, second = bench.actor(), bench.actor()
    turn(bench, first, second, seconds=0.15, times=8)
    assert [bool(actor.assignment) for actor in (first, second)] == [actor.is_at_rest for actor in (first, second)]


@dataclass
class Stand:
    """An actor as the end of a run sees it."""

    assignment: frozenset[TopicPartition] = frozenset()
    is_at_rest: bool = False
    is_taking_over: bool = False


def keyed_plan() -> Any:
    builder = StreamBuilder("t")
    stream = builder.from_collection([1], name="source")
    stream.key_by(lambda v: v, name="keyed").process(ringing, on_timer=ring, name="work").map(
        lambda v: v, name="after", blocking=True
    )
    return compile_plan(builder.build())


def test_a_run_waits_for_the_overdue_timers_of_this_process_and_for_what_they_cause() -> None:
    hand, stand = Hand(keyed_plan()), Stand()
    steps = [
        lambda: (hand.produce("t.source", 1), hand.exhaust()),
        lambda: (hand.produce("t.keyed", 1), hand.commit("keyed", "t.source", 1)),
        lambda: (hand.produce("t.work", 1), hand.commit("work", "t.keyed", 1)),
        lambda: setattr(stand, "assignment", frozenset({TopicPartition("t.keyed", 0)})),
        lambda: (hand.produce("t.work", 1), setattr(stand, "is_at_rest", True)),
        lambda: hand.commit("after", "t.work", 2),
    ]
    hand.walk(*steps, here={"work": stand})
    assert hand.steps == []
    assert hand.waited_for[-3:] == [
        'step "work": timers that are overdue', 'step "work": timers that are overdue', 'step "after": 2 records behind'
    ]  # fmt: skip


def test_a_stage_whose_partitions_are_all_another_processs_is_not_waited_for() -> None:
    hand = Hand(keyed_plan())
    consumer = hand.clients.consumer("t.work")
    consumer.subscribe(["t.keyed"], Nobody())
    consumer.poll(1, 0)
    consumer.poll(1, 0)
    assert consumer.assignment()
    hand.walk(hand.exhaust, here={"work": Stand()})


def test_a_stage_that_is_taking_its_partitions_over_is_waited_for() -> None:
    """The broker says already that a member has them all, and it is this one: what it takes over may be overdue."""
    hand, stand = Hand(keyed_plan()), Stand(is_taking_over=True)
    consumer = hand.clients.consumer("t.work")
    consumer.subscribe(["t.keyed"], Nobody())
    consumer.poll(1, 0)
    consumer.poll(1, 0)
    taken: Any = {"is_taking_over": False, "is_at_rest": True}
    hand.walk(
        hand.exhaust, lambda: None, lambda: [setattr(stand, *each) for each in taken.items()], here={"work": stand}
    )
    assert hand.waited_for[-1] == 'step "work": timers that are overdue'


def test_an_actor_says_that_it_is_taking_over_until_its_partitions_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = keyed_bench(ringing, on_timer=ring)
    actor = bench.actor()
    said: list[tuple[bool, bool]] = []
    prepare = actor._takeover.prepare

    def watched(partitions: Any) -> Any:
        said.append((actor.is_taking_over, bool(actor.assignment)))
        return prepare(partitions)

    monkeypatch.setattr(actor._takeover, "prepare", watched)
    turn(bench, actor, times=3)
    assert said == [(True, False)]
    assert (actor.is_taking_over, bool(actor.assignment)) == (False, True)


class Nobody:
    """Hears of rebalances and does nothing."""

    def on_assigned(self, partitions: Any) -> None: ...
    def on_revoked(self, partitions: Any) -> None: ...
    def on_lost(self, partitions: Any) -> None: ...


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_fires_what_fell_due_since_the_last_one_though_its_sources_have_nothing_new(kind: str) -> None:
    step, on_timer = KINDS[kind]
    town = Town()
    try:

        def runner() -> Any:
            builder = StreamBuilder("t")
            keyed = builder.from_collection([0.3], name="source").key_by(lambda v: "k", name="keyed")
            keyed.process(step, on_timer=on_timer, name="work")
            return town.of(builder)

        first = runner()
        assert first.run_once(30).complete
        first.stop(10)
        due = time.time() + 0.3
        wait_until(lambda: time.time() > due, what="the timer is overdue")
        second = runner()
        assert second.run_once(30).complete
        assert town.values("t.work") == [b'"ring"', b"0.3"]
    finally:
        town.close()
