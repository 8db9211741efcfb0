"""A key whose records come from two partitions: the prefix of one must not carry what the other has not finished."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import orjson
import pytest

from sage.model.partition import TopicPartition
from sage.ports import TopicSpec
from tests.unit.runtime.acting import GROUP, consumer_of, keyed_bench, turn
from tests.unit.runtime.bench import Bench, at

K, L = b"k", b"l"
OTHER = TopicPartition("other", 0)


def two_inputs(step: Any, **options: Any) -> Bench:
    """A keyed stage that reads ``other`` beside ``in``."""
    bench = keyed_bench(step, **options)
    (only,) = bench._stage.inputs
    bench.clients.admin().create([TopicSpec(OTHER.topic)])
    bench._stage = replace(bench._stage, inputs=(only, replace(only, topic=OTHER.topic)))
    bench._ids[OTHER.topic] = OTHER.topic
    return bench


@pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
def test_a_change_is_not_committed_before_the_one_that_it_builds_upon_whose_partition_waits(guarantee: Any) -> None:
    """Else a crash counts the earlier record again, upon a count that has it already."""
    slow, ran = asyncio.Event(), list[str]()

    async def counting(value: str, ctx: Any) -> AsyncIterator[Any]:
        if value == "slow":
            await slow.wait()
        ctx.state["n"] = ctx.state.get("n", 0) + 1
        ran.append(value)
        yield [value, ctx.state["n"]]

    bench = two_inputs(counting, guarantee=guarantee)
    first = bench.actor()
    turn(bench, first, times=2)
    bench.feed("slow", "early", keys=[L, K])
    turn(bench, first, times=2)
    bench._feeder.produce(OTHER.topic, orjson.dumps("late"), K, partition=0)
    turn(bench, first, seconds=0.2, times=5)
    assert ran == ["early", "late"]
    assert bench.clients.committed(GROUP).get(OTHER, 0) == 0, "it builds upon what is not committed"
    assert list(bench.clients.messages("t.work.changelog")) == []

    consumer_of(first).abandon()
    slow.set()
    second = bench.actor()
    turn(bench, second, seconds=0.2, times=10)
    offsets = bench.clients.committed(GROUP)
    assert (offsets[at()], offsets[OTHER]) == (2, 1)
    counts = sorted(n for value, n in bench.out() if value in {"early", "late"})
    assert counts == [1, 2]


def test_they_are_committed_together_when_the_first_partition_goes_on() -> None:
    slow = asyncio.Event()

    async def counting(value: str, ctx: Any) -> AsyncIterator[Any]:
        if value == "slow":
            await slow.wait()
        ctx.state["n"] = ctx.state.get("n", 0) + 1
        yield [value, ctx.state["n"]]

    bench = two_inputs(counting, guarantee="exactly_once")
    actor = bench.actor()
    turn(bench, actor, times=2)
    bench.feed("slow", "early", keys=[L, K])
    turn(bench, actor, times=2)
    bench._feeder.produce(OTHER.topic, orjson.dumps("late"), K, partition=0)
    turn(bench, actor, seconds=0.2, times=5)
    slow.set()
    turn(bench, actor, seconds=0.2, times=5)
    offsets = bench.clients.committed(GROUP)
    assert (offsets[at()], offsets[OTHER]) == (2, 1)
    assert sorted(bench.out()) == [["early", 1], ["late", 2], ["slow", 1]]
    assert actor.task.idle()
