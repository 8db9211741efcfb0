"""Async code that watches over itself, on a bench."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import strategies as st

from tests.unit.runtime.bench import Bench


class Watched:
    """An async function whose values say how long they take, and that keeps watch over itself."""

    def __init__(self) -> None:
        self.running = 0
        self.most = 0
        self.started: list[Any] = []
        self.ended: list[Any] = []

    async def __call__(self, value: dict[str, Any]) -> Any:
        self.running += 1
        self.most = max(self.most, self.running)
        self.started.append(value["n"])
        try:
            await asyncio.sleep(value.get("takes", 0))
        finally:
            self.running -= 1
        self.ended.append(value["n"])
        if "raises" in value:
            raise ValueError(value["n"])
        return value["n"]


def numbered(*takes: float) -> list[dict[str, Any]]:
    return [{"n": number, "takes": seconds} for number, seconds in enumerate(takes)]


def watched_bench(watched: Watched, **options: Any) -> Bench:
    async def call(value: Any) -> Any:
        return await watched(value)

    return Bench(lambda s: s.map(call, name="call", **options), partitions=options.pop("topic_partitions", 1))


DURATIONS = st.sampled_from([0, 0.01, 0.05, 0.2, 1.0])
KEYED = st.lists(st.tuples(st.sampled_from([b"a", b"b", b"c"]), DURATIONS), min_size=1, max_size=16)


class Flaky:
    """Raises for some values as often as told, and notes when it was called."""

    def __init__(self, bench_clock: Any, **failures: int) -> None:
        self.left = dict(failures)
        self.calls: list[tuple[str, float]] = []
        self.clock = bench_clock

    async def __call__(self, value: str) -> str:
        self.calls.append((value, self.clock()))
        if self.left.get(value, 0) > 0:
            self.left[value] -= 1
            raise ConnectionError("reset")
        return value


def flaky_bench(**failures: int) -> tuple[Bench, Flaky]:
    flaky = Flaky(None, **failures)

    async def call(value: str) -> str:
        return await flaky(value)

    bench = Bench(lambda s: s.map(call, name="call", retry={"attempts": 3}))
    flaky.clock = bench.clock.monotonic
    return bench, flaky
