"""Who runs when: what one turn leaves to the next."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import Any

from tests.unit.runtime.bench import Bench

SEEN: ContextVar[int] = ContextVar("SEEN", default=-1)


def test_a_turn_does_not_see_what_the_code_of_the_one_before_has_set() -> None:
    found: list[int] = []

    async def work(value: int) -> int:
        found.append(SEEN.get())
        SEEN.set(value)
        await asyncio.sleep(0.01)
        return value

    bench = Bench(lambda s: s.map(work, name="work", concurrency=1))
    task = bench.async_task()
    task.accept(bench.feed(1, 2, 3))
    bench.run(1)
    assert bench.out() == [1, 2, 3]
    assert found == [-1, -1, -1]


def test_the_next_turn_starts_as_soon_as_there_is_a_place() -> None:
    begun: list[Any] = []

    def round_of_the_loop(number: int) -> None:
        begun.append(f"round {number}")
        if number < 3:
            bench.loop.call_soon(round_of_the_loop, number + 1)

    async def work(value: int) -> int:
        begun.append(value)
        await asyncio.sleep(0.01)
        if value == 1:
            bench.loop.call_soon(round_of_the_loop, 1)
        return value

    bench = Bench(lambda s: s.map(work, name="work", concurrency=1))
    task = bench.async_task()
    task.accept(bench.feed(1, 2))
    bench.run(1)
    assert bench.out() == [1, 2]
    assert begun == [1, "round 1", 2, "round 2", "round 3"]  # with a thousand turns, a round is long
