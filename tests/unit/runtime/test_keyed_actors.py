"""Stages with keyed state through their actors: what is refused, owed, aborted or not answered, and timers among it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

import pytest

from sage.errors import StageStopped, TransientFailure
from sage.ports import ProducerFatal, TopicSpec, TransactionAbortable
from sage.runtime.batches import sync_task
from sage.runtime.concurrent import async_task
from tests.unit.runtime.acting import committed, consumer_of, counting, counting_later, keyed_bench, turn
from tests.unit.runtime.bench import Bench, at, text

K, L = b"k", b"l"
EXACTLY: Any = {"guarantee": "exactly_once"}


def settle(bench: Bench, *actors: Any) -> None:
    turn(bench, *actors, seconds=0.15, times=12)


def ringing(value: Any, ctx: Any) -> Iterator[Any]:
    """Sets a timer a second ahead, and counts."""
    ctx.timer.set("ring", after=1)
    yield from counting(value, ctx)


def ring(name: str, ctx: Any) -> Iterator[Any]:
    """Counts too."""
    ctx.state["n"] += 1
    yield [name, ctx.state["n"]]


async def ringing_later(value: Any, ctx: Any) -> AsyncIterator[Any]:
    for item in ringing(value, ctx):
        yield item


async def ring_later(name: str, ctx: Any) -> AsyncIterator[Any]:
    for item in ring(name, ctx):
        yield item


TIMERS: Any = {"sync": (ringing, ring), "async": (ringing_later, ring_later)}


@pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
@pytest.mark.parametrize("step", [counting, counting_later])
def test_a_refused_output_of_a_keyed_step_buries_its_record_and_loses_none(step: Any, guarantee: Any) -> None:
    """Refused among others, then when every record is asked for by name."""
    bench = keyed_bench(step, guarantee=guarantee)
    actor = bench.actor()
    bench.feed("a", "b", keys=[K, K])
    refused = bench.clients._state.faults.deliveries
    for _ in range(20):
        if not bench.dead() and not refused:
            bench.clients.fail_next_delivery("t.work", too_large=True, retriable=False)
        turn(bench, actor, seconds=0.15)
    refused.clear()
    settle(bench, actor)
    values = ["a", "b"]
    if guarantee == "exactly_once":
        assert len(bench.out()) + len(bench.dead()) == 2
    assert {value for value, _ in bench.out()} | {values[offset] for offset in bench.dead_offsets()} == set(values)
    assert bench.dead()
    assert committed(bench) == {at(): 2}
    assert actor.task.idle()


def test_a_passing_refusal_of_a_record_asked_for_by_name_is_sent_again() -> None:
    bench = keyed_bench(counting_later)
    actor = bench.actor()
    bench.clients.fail_next_delivery("t.work", too_large=True, retriable=False)
    bench.feed("a", keys=[K])
    while bench.clients._state.faults.deliveries:
        turn(bench, actor, seconds=0.02)
    bench.clients.fail_next_delivery("t.work", retriable=True)
    settle(bench, actor)
    assert (bench.out(), bench.dead(), committed(bench)) == ([["a", 1]], [], {at(): 1})


@pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
@pytest.mark.parametrize("step", [counting, counting_later])
def test_a_state_that_the_changelog_refuses_for_its_size_stops_the_stage(step: Any, guarantee: Any) -> None:
    bench = keyed_bench(step, guarantee=guarantee)
    actor = bench.actor()
    bench.clients.fail_next_delivery("t.work.changelog", too_large=True, retriable=False)
    bench.feed("a", keys=[K])
    with pytest.raises(StageStopped, match=r"did not take a key's state.*max.message.bytes"):
        settle(bench, actor)
    assert committed(bench).get(at(), 0) == 0


def test_what_is_safe_and_owed_is_not_sent_again_with_what_failed_later() -> None:
    """Its offset was refused, later outputs too: it would stay in the window for ever, or put old state over new."""
    bench = keyed_bench(counting_later, partitions=2)
    actor = bench.actor()
    bench.feed("a", keys=[K])
    bench.clients.fail_next_commit(TransientFailure("no coordinator"))
    while bench.clients._state.faults.commits:
        turn(bench, actor)
    bench.clients.fail_next_delivery("t.work", retriable=True)
    bench.feed("b", "c", keys=[K, L])
    settle(bench, actor)
    assert [value for value, _ in bench.out()].count("a") == 1
    assert sorted(set(map(tuple, bench.out()))) == [("a", 1), ("b", 2), ("c", 1)]
    assert actor.task.idle()


@pytest.mark.parametrize("step", [counting, counting_later])
def test_what_the_broker_is_slow_to_answer_is_waited_for_and_not_sent_again(
    step: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A window of records was sent once more with every checkpoint of a broker's absence, and all of it arrived."""
    monkeypatch.setattr(async_task, "FLUSH_TIMEOUT", 0.01)
    monkeypatch.setattr(sync_task, "FLUSH_TIMEOUT", 0.01)
    bench = keyed_bench(step)
    actor = bench.actor()
    turn(bench, actor)
    bench.feed("a", keys=[K])
    with bench.clients.deliveries_held():
        turn(bench, actor, seconds=1.0, times=4)
        with bench.clients.down():  # nor when nobody says whether we are still a member
            turn(bench, actor, seconds=1.0, times=4)
    bench.feed("b", keys=[K])
    settle(bench, actor)
    assert (bench.out(), committed(bench)) == ([["a", 1], ["b", 2]], {at(): 2})
    assert actor.task.idle()


@pytest.mark.parametrize("kind", TIMERS)
def test_a_timer_that_moved_no_offset_is_done_when_it_is_committed(kind: str) -> None:
    """It was sent again with a transaction that was aborted later: an output twice, and an old state over a new one."""
    step, on_timer = TIMERS[kind]
    bench = keyed_bench(step, on_timer=on_timer, **EXACTLY)
    actor = bench.actor()
    bench.feed("a", keys=[K])
    settle(bench, actor)
    turn(bench, actor, seconds=0.5, times=4)
    assert bench.out() == [["a", 1], ["ring", 2]]
    bench.clients.fail_next_transaction(TransactionAbortable("moved"))
    bench.feed("b", keys=[K])
    settle(bench, actor)
    assert bench.out()[:3] == [["a", 1], ["ring", 2], ["b", 3]]


@pytest.mark.parametrize("kind", TIMERS)
def test_a_timer_leaves_no_trace_that_a_later_failure_would_send_again(kind: str) -> None:
    step, on_timer = TIMERS[kind]
    bench = keyed_bench(step, on_timer=on_timer)
    actor = bench.actor()
    bench.feed("a", keys=[K])
    turn(bench, actor, seconds=0.5, times=6)
    bench.clients.fail_next_delivery("t.work", retriable=True)
    bench.feed("b", keys=[K])
    turn(bench, actor, seconds=0.1, times=4)
    assert bench.out() == [["a", 1], ["ring", 2], ["b", 3]]


def test_a_frozen_member_commits_no_timer_either() -> None:
    """No offset moves with a timer, so the committed ones go along for the coordinator to look at."""
    bench = keyed_bench(ringing, on_timer=ring, **EXACTLY)
    frozen = bench.actor()
    bench.feed("a", keys=[K])
    turn(bench, frozen, seconds=0.15, times=4)
    bench.run(1.0)
    frozen.task.tick()  # it rings, in an open transaction
    bench.clients._state.group("t.work").expel(frozen._consumer._member)  # type: ignore[attr-defined]
    frozen._guarded(frozen._checkpoint)
    assert bench.out() == [["a", 1]]


@pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
@pytest.mark.parametrize("step", [counting, counting_later])
@pytest.mark.parametrize("before", [0, 1])
def test_a_member_that_was_expelled_writes_no_older_state_over_newer(step: Any, guarantee: Any, before: int) -> None:
    """It was frozen, or a step took longer than its group waits for a poll: its turn ends before it hears of it."""
    bench = keyed_bench(step, guarantee=guarantee)
    frozen = bench.actor()
    bench.feed(*["a"] * before, keys=[K])
    settle(bench, frozen)
    bench.feed("b", keys=[K])
    frozen.task.accept(frozen._poll(10, 0))
    bench.run()
    consumer_of(frozen).lose()
    other = bench.actor()
    bench.feed("c", "d", keys=[K, K])
    settle(bench, other)
    frozen._guarded(frozen._checkpoint)
    settle(bench, frozen, other)
    for actor in (frozen, other):
        actor.stop(1.0)
        actor.run(lambda _: None)
    bench.feed("e", keys=[K])
    settle(bench, bench.actor())
    assert bench.out()[-1] == ["e", before + 4]


@pytest.mark.parametrize("step", [counting, counting_later])
def test_a_commit_that_happened_without_an_answer_counts_once(step: Any) -> None:
    """The state's copy lags behind it: it is restored before the next record of the key is looked at."""
    bench = keyed_bench(step, **EXACTLY)
    actor = bench.actor()
    bench.feed("a", keys=[K])
    assert actor._transactions is not None
    producer = actor._transactions.producer
    commit = producer.commit_transaction

    def unanswered(timeout: float = 0) -> None:
        if committed(bench).get(at()) or not bench.clients._state.open:
            return commit(timeout)
        commit(timeout)
        bench.feed("b", "c", keys=[K, K])
        raise ProducerFatal("it hangs")

    producer.commit_transaction = unanswered  # type: ignore[method-assign]
    settle(bench, actor)
    assert bench.out() == [["a", 1], ["b", 2], ["c", 3]]
    assert committed(bench)[at()] == 3


@pytest.mark.parametrize("others", [1, 2])
def test_inputs_that_are_not_shared_out_alike_stop_a_stage_that_keeps_state(others: int) -> None:
    bench = keyed_bench(counting, partitions=2)
    (only,) = bench._stage.inputs
    bench.clients.admin().create([TopicSpec("other", others)])
    bench._stage = replace(bench._stage, inputs=(only, replace(only, topic="other")))
    bench._ids["other"] = "other"
    actor = bench.actor()
    if others == 2:
        turn(bench, actor)
        assert {place.topic for place in actor.assignment} >= {"in", "other"}
        return
    with pytest.raises(StageStopped, match=r"not shared out alike: {'in': \[0, 1\], 'other': \[0\]}"):
        turn(bench, actor)


def oversize(name: str, ctx: Any) -> Iterator[Any]:
    """What it keeps is more than the changelog would take."""
    ctx.state["n"] = "n" * 3_000
    yield name


def shapeless(name: str, ctx: Any) -> Iterator[Any]:
    """What it keeps has no form."""
    ctx.state["n"] = object()
    yield name


async def oversize_later(name: str, ctx: Any) -> AsyncIterator[Any]:
    for item in oversize(name, ctx):
        yield item


async def shapeless_later(name: str, ctx: Any) -> AsyncIterator[Any]:
    for item in shapeless(name, ctx):
        yield item


@pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
@pytest.mark.parametrize(
    ("step", "on_timer"),
    [
        (ringing, oversize), (ringing, shapeless), (ringing_later, oversize_later), (ringing_later, shapeless_later),
    ],
)  # fmt: skip
def test_a_timer_whose_state_cannot_be_kept_is_dead_and_has_no_output(step: Any, on_timer: Any, guarantee: Any) -> None:
    """The stage stopped, at each start anew, and had written the output before each time."""
    bench = keyed_bench(step, on_timer=on_timer, guarantee=guarantee, message_max_bytes=2_500)
    actor = bench.actor()
    bench.feed("a", keys=[K])
    turn(bench, actor, seconds=0.5, times=8)
    bench.feed("b", keys=[K])
    turn(bench, actor, seconds=0.1, times=6)
    assert bench.out() == [["a", 1], ["b", 2]]
    assert [text(letter)["sage.timer"] for letter in bench.dead()] == ["ring"]


def test_a_try_whose_output_cannot_be_sent_for_now_leaves_nothing_in_its_keys_state() -> None:
    bench = keyed_bench(ringing, on_timer=ring)
    actor = bench.actor()
    turn(bench, actor)
    assert isinstance(actor.task, sync_task.SyncTask)
    producer = actor.task._outbox.producer
    produce, failures = producer.produce, list[Exception]()

    def later(topic: str, *others: Any) -> None:
        if topic == "t.work" and failures:
            raise failures.pop()
        produce(topic, *others)

    producer.produce = later  # type: ignore[method-assign]
    bench.feed("a", keys=[K])
    for count in (1, 2):  # the record's output, then its timer's
        failures += [TransientFailure("later")] * 3
        deadline = bench.clock.monotonic() + 60
        while len(bench.out()) < count and bench.clock.monotonic() < deadline:
            turn(bench, actor, seconds=0.1)
    settle(bench, actor)
    assert (bench.out(), failures) == ([["a", 1], ["ring", 2]], [])
