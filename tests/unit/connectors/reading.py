"""Asserts that every source and sink must pass, whatever it reads or writes."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Sequence
from typing import Any, cast

from sage.model.json import Json
from sage.model.record import Record
from sage.spec.component import Component, Sink, Source
from sage.spec.context import OpenContext, Services


def open_context() -> OpenContext:
    return OpenContext("qa", "step", cast(Services, None), logging.getLogger("test.step"))


async def opened(component: Component) -> Any:
    await component.open(open_context())
    return component


async def read_all(source: Source[Any], position: Json | None = None) -> list[tuple[Any, Json]]:
    """Everything that is there now."""
    return [item async for item in source.read(source.tasks()[0], position, bounded=True)]


async def values_of(source: Source[Any], position: Json | None = None) -> list[Any]:
    return [value for value, _ in await read_all(source, position)]


async def assert_resumes_at_every_position(source: Source[Any]) -> None:
    """A source goes on after any position that it gave, and the positions are JSON and differ."""
    items = await read_all(source)
    positions = [json.dumps(position, sort_keys=True) for _, position in items]
    assert len(set(positions)) == len(items)
    for index, text in enumerate(positions):
        rest = await read_all(source, json.loads(text))
        assert rest == items[index + 1 :], f"after {text}"


async def assert_takes_a_batch_twice(sink: Sink[Any], records: Sequence[Record[Any]]) -> None:
    """A batch whose commit was lost comes again; what is new in it counts."""
    await sink.write(records[:-1])
    await sink.write(records)


class Collector:
    """Reads a source that does not end, until a test has what it waits for."""

    def __init__(self, source: Source[Any], position: Json | None = None) -> None:
        self.items: list[tuple[Any, Json]] = []
        self._changed = asyncio.Condition()
        self._task = asyncio.create_task(self._run(source, position))

    async def _run(self, source: Source[Any], position: Json | None) -> None:
        async for item in source.read(source.tasks()[0], position, bounded=False):
            self.items.append(item)
            async with self._changed:
                self._changed.notify_all()

    @property
    def values(self) -> list[Any]:
        return [value.value if isinstance(value, Record) else value for value, _ in self.items]

    async def until(self, count: int, seconds: float = 10.0) -> list[Any]:
        async with asyncio.timeout(seconds), self._changed:
            await self._changed.wait_for(lambda: len(self.items) >= count or self._task.done())
        if self._task.done():
            self._task.result()
        return self.values

    async def __aenter__(self) -> Collector:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
