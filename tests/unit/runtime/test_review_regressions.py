"""Records that were once lost, doubled or stuck: each test is the story of one."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sage.errors import RecordTooLarge
from sage.runtime.batches.sync_task import BATCH
from tests.unit.runtime.bench import Bench, at


def test_a_stop_during_a_retry_does_not_commit_the_end_of_the_log() -> None:
    """One poll gave the tail of the log and its end; the service is down; the actor is stopped while it waits."""

    def down(value: int) -> int:
        if value == 2:
            bench.setting.stopping.set()
            raise ConnectionError("down")
        return value

    bench = Bench(lambda s: s.map(down, name="ask", ordering="partition"))
    task = bench.sync_task()
    task.accept(bench.feed(1, 2, 3, 4))
    task.reached_end({at(): 4})
    assert task.settled() == {at(): 1}
    assert bench.out() == [1]


def test_slow_records_are_taken_in_small_bites_and_quick_ones_in_large() -> None:
    bench = Bench(lambda s: s.map(lambda v: v, name="same"))
    task = bench.sync_task()
    assert task.room() == 1
    task.accept(bench.feed(*range(50)))
    assert task.room() == BATCH
    task._measure(3.0, 10)
    assert task.room() == 1


def test_what_a_turn_leaves_is_run_before_what_comes_and_its_end_counts_then() -> None:
    bench = Bench(lambda s: s.map(lambda v, ctx: v, name="same"))
    task = bench.sync_task()
    turns = iter([True, True, False, False, False, False])
    task._is_over = lambda: next(turns)  # type: ignore[method-assign]
    task.accept(bench.feed(1, 2, 3))
    assert task.room() == 0
    task.reached_end({at(): 7})
    assert task.settled() == {at(): 1}
    task.accept([])
    assert task.settled() == {at(): 2}
    task.accept([])
    assert task.settled() == {at(): 7}
    assert bench.out() == [1, 2, 3]


def test_a_dead_letter_that_never_fits_stops_an_asynchronous_stage_with_the_record_uncommitted() -> None:
    async def refuse(value: Any) -> Any:
        raise ValueError("no")

    bench = Bench(lambda s: s.map(refuse, name="ask"))
    task = bench.async_task()
    bench.producer.check_size = lambda *a, **k: None  # type: ignore[method-assign]
    bench.producer.produce = lambda *a, **k: (_ for _ in ()).throw(RecordTooLarge("too large"))  # type: ignore[method-assign]
    task.accept(bench.feed(1))
    bench.run(1)
    with pytest.raises(Exception, match=r"does not fit t\.dlq"):
        task.room()
    task.finish([at()], 0.0)
    with pytest.raises(Exception, match=r"does not fit t\.dlq"):
        task.settled()  # so the revoke commits nothing


def test_something_cancelled_inside_a_step_is_a_failed_try_and_not_a_silent_end() -> None:
    calls: list[int] = []

    async def wait(value: int) -> int:
        calls.append(value)
        if len(calls) == 1:
            inner = asyncio.get_running_loop().create_future()
            inner.cancel()
            await inner
        return value

    bench = Bench(lambda s: s.map(wait, name="ask", retry={"attempts": 2, "backoff": 0.01}))
    task = bench.async_task()
    task.accept(bench.feed(7))
    bench.run(5)
    assert bench.out() == [7]
    assert task.settled() == {at(): 1}
    assert calls == [7, 7]


def test_several_outputs_over_the_limit_are_one_dead_letter() -> None:
    async def many(value: int) -> Any:
        for _ in range(3):
            yield "x" * 5_000

    bench = Bench(lambda s: s.flatmap(many, name="grow"))
    task = bench.async_task()
    fits = bench.producer.produce

    def limited(topic: str, value: bytes | None, *rest: Any, **named: Any) -> None:
        if topic != "t.dlq" and value is not None and len(value) > 1_000:
            raise RecordTooLarge("too large")
        fits(topic, value, *rest, **named)

    bench.producer.produce = limited  # type: ignore[method-assign]
    task.accept(bench.feed(1))
    bench.run(1)
    assert bench.dead_offsets() == [0]
    assert task.settled() == {at(): 1}
    assert task.steps[0].counters.dead == 1
