"""Actors on a bench, stepped by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from sage.model.partition import TopicPartition
from sage.runtime.actor import Actor
from sage.testing.broker import InMemoryConsumer
from tests.unit.runtime.bench import Bench

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


def consumer_of(actor: Actor) -> InMemoryConsumer:
    return cast(InMemoryConsumer, actor._consumer)


def turn(bench: Bench, *actors: Actor, seconds: float = 0.06, times: int = 1) -> None:
    """Some turns of every actor, a little time apart, so that idle checkpoints come due."""
    for _ in range(times):
        for actor in actors:
            actor.step(0)
        bench.run(seconds)


def committed(bench: Bench) -> dict[TopicPartition, int]:
    return bench.clients.committed(GROUP)
