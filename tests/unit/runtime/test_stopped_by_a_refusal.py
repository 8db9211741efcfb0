"""A stage that stops because the broker refuses its output for good: its last checkpoint commits nothing past that."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from sage import Context
from sage.errors import StageStopped
from sage.model.partition import TopicPartition
from sage.runtime.actors.actor import Actor
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
