"""A stage that stops because an output or a letter can't be sent: its last checkpoint commits nothing past that."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import orjson
import pytest

from sage import Context
from sage.errors import NotFound, StageStopped
from sage.model.partition import TopicPartition
from sage.runtime.actors.actor import Actor
from sage.runtime.batches.slow_turns import SLOW_TURN
from sage.runtime.batches.sync_task import SyncTask
from tests.unit.runtime.acting import turn
from tests.unit.runtime.bench import Bench


def count(value: int, ctx: Context) -> Iterator[int]:
    ctx.state["n"] = value
    yield value


async def count_slowly(value: int, ctx: Context) -> AsyncIterator[int]:
    ctx.state["n"] = value
    yield value


async def same(value: int) -> int:
    return value


KINDS: dict[str, Callable[[Any], Any]] = {
    "sync": lambda s: s.map(lambda v: v, name="work"),
    "async": lambda s: s.map(same, name="work"),
    "state": lambda s: s.key_by(lambda v: v, name="keyed").process(count, name="work"),
    "async-state": lambda s: s.key_by(lambda v: v, name="keyed").process(count_slowly, name="work"),
}


@pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_committed_past_an_output_that_is_refused_for_good(
    kind: str, guarantee: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(KINDS[kind], stage="work", guarantee=guarantee)
    source = bench.setting.stage.inputs[0].topic
    actor, failed = bench.actor(), list[Actor]()
    producer = bench.clients.producer()
    for value in range(3):
        producer.produce(source, b"%d" % value, b"k", partition=0)
    producer.flush(0)
    for _ in range(20):
        bench.clients.fail_next_delivery("t.work", reason="TOPIC_AUTHORIZATION_FAILED", retriable=False)
    step = actor.step

    def step_in_virtual_time() -> bool:
        bench.run(0.1)
        return step(0.0)

    monkeypatch.setattr(actor, "step", step_in_virtual_time)
    actor.run(failed.append)
    assert isinstance(actor.failure, StageStopped)
    assert "did not take a record: TOPIC_AUTHORIZATION_FAILED" in str(actor.failure)
    first = bench.clients.admin().committed(actor.setting.stage.group, [TopicPartition(source, 0)])
    assert next(iter(first.values())) in (None, 0)

    bench.clients._state.faults.deliveries.clear()
    turn(bench, bench.actor(), seconds=0.5, times=10)
    assert bench.out() == [0, 1, 2]


LARGE = "b" * 1_400


def refuse_large(value: str) -> str:
    if value == LARGE:
        raise ValueError("no")
    return value


async def refuse_large_later(value: str) -> str:
    return refuse_large(value)


def refuse_large_with_state(value: str, ctx: Context) -> Iterator[str]:
    ctx.state["last"] = value[:1]
    yield refuse_large(value)


async def refuse_large_with_state_later(value: str, ctx: Context) -> AsyncIterator[str]:
    ctx.state["last"] = value[:1]
    yield refuse_large(value)


REFUSING: dict[str, Callable[[Any], Any]] = {
    "sync": lambda s: s.map(refuse_large, name="work"),
    "async": lambda s: s.map(refuse_large_later, name="work"),
    "state": lambda s: s.key_by(lambda v: v, name="keyed").process(refuse_large_with_state, name="work"),
    "async-state": lambda s: s.key_by(lambda v: v, name="keyed").process(refuse_large_with_state_later, name="work"),
}


@pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
@pytest.mark.parametrize("kind", REFUSING)
def test_nothing_is_committed_past_a_letter_that_does_not_fit(
    kind: str, guarantee: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(REFUSING[kind], stage="work", guarantee=guarantee, message_max_bytes=1_500)
    source = bench.setting.stage.inputs[0].topic
    actor, failed = bench.actor(), list[Actor]()
    producer = bench.clients.producer(config={"message.max.bytes": 10_000})
    for value in ("a", LARGE, "c"):
        producer.produce(source, orjson.dumps(value), b"k", partition=0)
    producer.flush(0)
    step = actor.step

    def step_in_virtual_time() -> bool:
        bench.run(0.1)
        return step(0.0)

    monkeypatch.setattr(actor, "step", step_in_virtual_time)
    actor.run(failed.append)
    assert "a dead letter does not fit" in str(actor.failure)
    first = bench.clients.admin().committed(actor.setting.stage.group, [TopicPartition(source, 0)])
    assert next(iter(first.values())) in (None, 0, 1)
    assert bench.dead() == []


@pytest.mark.parametrize("after_a_loss", [False, True])
def test_no_part_of_what_a_record_became_is_committed_when_the_rest_cannot_be_sent(
    after_a_loss: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def twice(value: int) -> Iterator[int]:
        yield value
        yield 10 * value

    bench = Bench(lambda s: s.flatmap(twice, name="work"), guarantee="exactly_once")
    actor, failed = bench.actor(), list[Actor]()
    turn(bench, actor)
    assert isinstance(actor.task, SyncTask)
    if after_a_loss:  # under slow code: outputs leave at the end of their turn
        actor.task._slow_turns.took(2 * SLOW_TURN)
        actor.task._slow_turns.lost()
    assert actor._transactions is not None
    producer = actor._transactions.producer
    produce = producer.produce

    def produce_some(topic: str, value: bytes | None, *others: Any) -> None:
        if value == b"20":
            raise NotFound("the topic is gone")
        produce(topic, value, *others)

    monkeypatch.setattr(producer, "produce", produce_some)
    bench.feed(1, 2, 3)
    step = actor.step

    def step_in_virtual_time() -> bool:
        bench.run(0.1)
        return step(0.0)

    monkeypatch.setattr(actor, "step", step_in_virtual_time)
    actor.run(failed.append)
    assert isinstance(actor.failure, NotFound)
    turn(bench, bench.actor(), seconds=0.5, times=10)
    assert bench.out() == [1, 10, 2, 20, 3, 30]
