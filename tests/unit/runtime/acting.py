"""Actors on a bench, stepped by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any, cast

from sage.graph.stream import DataStream, KeyedStream
from sage.model.partition import TopicPartition
from sage.runtime.actors.actor import Actor
from sage.runtime.batches.sync_task import SyncTask
from sage.runtime.concurrent.async_task import AsyncTask
from sage.testing.broker import InMemoryConsumer
from tests.unit.runtime.bench import IN, Bench

GROUP = "t.work"


class Gate:
    """An async function that holds values back until they are let through."""

    def __init__(self) -> None:
        self.held: dict[Any, asyncio.Event] = {}
        self.started: list[Any] = []

    async def __call__(self, value: Any) -> Any:
        self.started.append(value)
        await self.held.setdefault(value, asyncio.Event()).wait()
        return value

    def open(self, *values: Any) -> None:
        for value in values:
            self.held.setdefault(value, asyncio.Event()).set()


def sync_bench(function: Callable[[Any], Any] = lambda v: v, **options: Any) -> Bench:
    return Bench(lambda s: s.map(function, name="work"), **options)


def gated_bench(gate: Gate, *, concurrency: int = 4, **options: Any) -> Bench:
    async def call(value: Any) -> Any:
        return await gate(value)

    return Bench(lambda s: s.map(call, name="work", concurrency=concurrency), **options)


def keyed_bench(function: Callable[..., Any], **options: Any) -> Bench:
    """A ``process`` step that reads ``in`` itself, by the keys that its records have."""
    step = options.pop("step", {}) | {name: options.pop(name) for name in ("on_timer", "ttl") if name in options}

    def build(stream: DataStream[Any]) -> Any:
        return KeyedStream(stream._builder, stream._input).process(function, name="work", **step)

    return Bench(build, **options)


def counting(value: Any, ctx: Any) -> Iterator[Any]:
    """Says how many records of its key there were."""
    ctx.state["n"] = ctx.state.get("n", 0) + 1
    yield [value, ctx.state["n"]]


async def counting_later(value: Any, ctx: Any) -> AsyncIterator[Any]:
    """The same, as an asynchronous step."""
    await asyncio.sleep(0)
    ctx.state["n"] = ctx.state.get("n", 0) + 1
    yield [value, ctx.state["n"]]


def consumer_of(actor: Actor) -> InMemoryConsumer:
    return cast(InMemoryConsumer, actor._consumer)


def inputs_of(actor: Actor) -> frozenset[TopicPartition]:
    """What an actor has of the topic ``in``; the partitions of its retry topic aside."""
    return frozenset(place for place in actor.assignment if place.topic == IN)


def turn(bench: Bench, *actors: Actor, seconds: float = 0.06, times: int = 1) -> None:
    """Some turns of every actor, a little time apart, so that idle checkpoints come due."""
    for _ in range(times):
        for actor in actors:
            actor.step(0)
        bench.run(seconds)


def committed(bench: Bench) -> dict[TopicPartition, int]:
    """What the group committed of the topic ``in``; its retry topic aside."""
    return {place: offset for place, offset in bench.clients.committed(GROUP).items() if place.topic == IN}


def revoked(
    task: AsyncTask | SyncTask, partitions: Sequence[TopicPartition], timeout: float
) -> dict[TopicPartition, int]:
    """What an actor does with a task whose partitions go: finish, settle, let go; what it could commit of them."""
    task.finish(partitions, timeout)
    settled = {place: offset for place, offset in task.settled().items() if place in partitions}
    task.lost(partitions)
    return settled
