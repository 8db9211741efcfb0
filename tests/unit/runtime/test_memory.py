"""What a stage holds does not grow with the records that went through it: counted, object by object."""

from __future__ import annotations

import asyncio
import gc
import types
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Any

import pytest

from sage.errors import TransientFailure
from sage.plan.plan import Plan
from sage.runtime.actors.actor import Actor
from sage.runtime.runs.counters import Durations
from sage.runtime.state import table
from sage.runtime.state.recent import RecentValues
from sage.spec.options import Guarantee
from sage.state.in_memory import MemoryStores
from tests.unit.runtime.acting import committed, keyed_bench, turn
from tests.unit.runtime.bench import Bench, at

RECORDS = 240
"""In a round; each has a key that no other has, in this round or another."""


class Trouble:
    """Has some records fail once, and some for good."""

    def __init__(self) -> None:
        self.met: set[int] = set()

    def __call__(self, value: int) -> int:
        if value % 97 == 0:
            raise ValueError("it stays bad")
        if value % 13 == 0 and value not in self.met:
            self.met.add(value)
            raise TransientFailure("not now")
        return value


NOT_LOOKED_INTO = (
    types.ModuleType, types.FunctionType, types.BuiltinFunctionType, types.FrameType, type, Plan, MemoryStores,
    Durations, Trouble,
)  # fmt: skip
"""What is everybody's, what holds state, what has a fixed number of buckets, and the test's own."""


def held(actor: Actor) -> dict[str, int]:
    """How many objects of each kind can be reached from an actor, without the brokers and the stored state: those
    hold what went through, as they should."""
    gc.collect()
    seen: set[int] = set()
    found: dict[str, int] = {}
    todo: list[Any] = [actor]
    while todo:
        item = todo.pop()
        kind = type(item)
        outside = isinstance(item, NOT_LOOKED_INTO) or kind.__module__.startswith(
            ("sage.testing", "sage.state", "sage.plan", "sage.graph", "hypothesis", "_pytest")
        )
        if outside or id(item) in seen or not gc.is_tracked(item):
            continue
        seen.add(id(item))
        name = f"{kind.__module__}.{kind.__qualname__}"
        found[name] = found.get(name, 0) + 1
        if isinstance(item, dict | list | set):
            found[f"in {name}"] = found.get(f"in {name}", 0) + len(item)
        todo += gc.get_referents(item)
    return found


def _sync(trouble: Trouble, **options: Any) -> Bench:
    return Bench(lambda s: s.map(trouble, name="work", retry={"backoff": 0.05}), **options)


def _async(trouble: Trouble, **options: Any) -> Bench:
    async def call(value: int) -> int:
        await asyncio.sleep(0.001 * (value % 3))
        return trouble(value)

    return Bench(lambda s: s.map(call, name="work", retry={"backoff": 0.05}, timeout=5, concurrency=16), **options)


def _keyed(trouble: Trouble, **options: Any) -> Bench:
    def step(value: int, ctx: Any) -> Iterator[int]:
        ctx.state["n"] = ctx.state.get("n", 0) + 1
        ctx.timer.set("forget", after=0.2)
        yield trouble(value)

    def forget(name: str, ctx: Any) -> Iterator[int]:
        ctx.state.clear()
        yield from ()

    return keyed_bench(step, on_timer=forget, step={"retry": {"backoff": 0.05}}, **options)


def _keyed_async(trouble: Trouble, **options: Any) -> Bench:
    async def step(value: int, ctx: Any) -> AsyncIterator[int]:
        await asyncio.sleep(0.001 * (value % 3))
        ctx.state["n"] = ctx.state.get("n", 0) + 1
        yield trouble(value)

    return keyed_bench(step, ttl=0.5, step={"retry": {"backoff": 0.05}, "concurrency": 16}, **options)


KINDS: dict[str, Callable[..., Bench]] = {"sync": _sync, "async": _async, "keyed": _keyed, "keyed async": _keyed_async}


@pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_stage_holds_no_more_after_many_records_than_after_few(
    kind: str, guarantee: Guarantee, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "RecentValues", partial(RecentValues, 5_000))  # bounded in bytes: let it be full soon
    bench = KINDS[kind](Trouble(), guarantee=guarantee)
    actor = bench.actor()
    fed = 0

    def a_round() -> dict[str, int]:
        nonlocal fed
        values = range(fed, fed + RECORDS)
        bench.feed(*values, keys=[b"k%d" % value for value in values])
        fed += RECORDS
        for _ in range(200):
            turn(bench, actor)
            if committed(bench).get(at(), 0) >= fed and actor.task.idle() and actor.task.at_rest():
                break
        turn(bench, actor, seconds=0.3, times=6)  # timers, what is swept, what is trimmed
        assert set(bench.out()) | set(range(0, fed, 97)) == set(range(fed))
        return held(actor)

    a_round()
    few = a_round()
    for _ in range(3):
        many = a_round()
    grown = {name: (count, many.get(name, 0)) for name, count in many.items() if count > few.get(name, 0)}
    assert not grown, f"few, many: { {name: (few.get(name, 0), many[name]) for name in grown} }"
    assert sum(few.values()) > 100, "it looked at the stage at all"
