"""Asynchronous stages: partitions that come and go while records are under way."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sage.ports import Commit
from tests.unit.runtime.acting import Gate, gated_bench, revoked, turn
from tests.unit.runtime.bench import Bench, at
from tests.unit.runtime.watched import Watched, flaky_bench, numbered, watched_bench


def test_a_revoke_lets_work_finish_starts_nothing_new_and_gives_the_prefix() -> None:
    watched = Watched()
    bench = watched_bench(watched, concurrency=2)
    task = bench.async_task()
    task.accept(bench.feed(*numbered(1, 2, 1, 1), keys=[b"a", b"b", b"c", b"d"]))
    bench.run(0.5)
    assert revoked(task, [at()], 5.0) == {at(): 2}
    assert watched.started == [0, 1]
    assert bench.out() == [0, 1]
    bench.run(60)
    assert watched.started == [0, 1]
    assert task.idle()


def test_a_revoke_waits_no_longer_than_it_may_and_cancels_the_rest() -> None:
    watched = Watched()
    bench = watched_bench(watched, concurrency=3)
    task = bench.async_task()
    task.accept(bench.feed(*numbered(1, 100, 1), keys=[b"a", b"b", b"c"]))
    before = bench.clock.monotonic()
    assert revoked(task, [at()], 5.0) == {at(): 1}
    assert bench.clock.monotonic() - before == pytest.approx(5.0, abs=0.1)
    bench.run(200)
    assert watched.running == 0
    assert bench.out() == [0, 2]  # 2 was through, and comes again: at least once
    assert task.idle()


def test_other_partitions_run_on_while_one_is_revoked() -> None:
    watched = Watched()
    bench = watched_bench(watched, topic_partitions=2, concurrency=4)
    task = bench.async_task(0, 1)
    bench.feed({"n": 0, "takes": 3}, partition=0)
    task.accept(bench.feed({"n": 1, "takes": 4}, partition=1))
    assert revoked(task, [at(0)], 5.0) == {at(0): 1}
    bench.run(2)
    assert task.settled() == {at(1): 1}
    assert bench.out() == [0, 1]


def test_a_lost_partitions_work_is_thrown_away() -> None:
    watched = Watched()
    bench = watched_bench(watched)
    task = bench.async_task()
    task.accept(bench.feed(*numbered(1, 1)))
    bench.run(0.5)
    task.lost([at()])
    bench.run(10)
    assert (bench.out(), watched.ended) == ([], [])
    assert task.settled() == {}
    assert task.idle()


def test_a_late_result_of_a_dead_assignment_moves_nothing() -> None:
    """It ignores its cancellation, as code that shields a call does, and comes back when the partition does."""
    calls = 0

    async def stubborn(value: Any) -> Any:
        nonlocal calls
        calls += 1
        try:
            await asyncio.sleep(2)
        except asyncio.CancelledError:
            await asyncio.sleep(1)
        return calls

    bench = Bench(lambda s: s.map(stubborn, name="call"))
    task = bench.async_task()
    task.accept(bench.feed("x"))
    bench.run(1)
    task.lost([at()])
    task.assigned({at(): Commit(None)})
    bench.run(1.5)
    assert task.settled() == {}
    assert bench.out() == []
    task.accept(bench.came())
    bench.run(5)
    assert task.settled() == {at(): 1}
    assert bench.out() == [2]


def test_a_late_result_without_outputs_gives_no_room_that_was_given_already() -> None:
    async def stubborn(value: Any) -> bool:
        try:
            await asyncio.sleep(2)
        except asyncio.CancelledError:
            await asyncio.sleep(1)
        return False

    bench = Bench(lambda s: s.filter(stubborn, name="call"))
    task = bench.async_task()
    task.accept(bench.feed("x", keys=[b"k"]))
    bench.run(1)
    task.lost([at()])
    bench.run(5)
    assert task.room() == task.window_size
    assert task.idle()


def test_an_assignment_ends_the_one_before_it_though_nobody_said_so() -> None:
    bench = watched_bench(Watched())
    task = bench.async_task()
    task.accept(bench.feed(*numbered(1)))
    bench.run(0.5)
    task.assigned({at(): Commit(None)})
    bench.run(5)
    assert (bench.out(), task.settled(), task.idle()) == ([], {}, True)


def test_outputs_that_still_wait_for_room_are_not_produced_for_a_partition_that_is_gone() -> None:
    async def many(value: int) -> Any:
        for number in range(value):
            yield number

    bench = Bench(lambda s: s.flatmap(many, name="call"))
    bench.producer = bench.clients.producer(config={"queue.buffering.max.messages": 3})
    task = bench.async_task()
    messages = bench.feed(50)
    with bench.clients.deliveries_held():
        task.accept(messages)
        bench.run(0.1)
        task.lost([at()])
    bench.run(1)
    assert len(bench.out()) <= 3
    assert task.idle()


def test_a_next_try_that_comes_due_while_a_revoke_waits_is_not_made() -> None:
    calls: list[str] = []

    async def call(value: str) -> str:
        calls.append(value)
        if value == "a":
            raise ConnectionError("reset")
        await asyncio.sleep(3)
        return value

    bench = Bench(lambda s: s.map(call, name="call"))
    task = bench.async_task()
    task.accept(bench.feed("a", "b", keys=[b"a", b"b"]))
    bench.run(0.01)
    assert revoked(task, [at()], 5.0) == {at(): 0}
    assert calls == ["a", "b"]


def test_records_of_partitions_that_are_not_ours_are_let_go() -> None:
    bench = watched_bench(Watched())
    task = bench.async_task()
    task.lost([at()])
    task.accept(bench.feed({"n": 1}))
    bench.run(1)
    assert (bench.out(), task.settled(), task.idle()) == ([], {}, True)


def test_a_record_that_waits_for_its_next_try_does_not_hold_up_a_revoke_and_does_not_run_after_it() -> None:
    bench, flaky = flaky_bench(a=1)
    task = bench.async_task()
    task.accept(bench.feed("a", "b", keys=[b"a", b"b"]))
    bench.run(0.01)
    before = bench.clock.monotonic()
    assert revoked(task, [at()], 5.0) == {at(): 0}
    assert bench.clock.monotonic() - before < 0.1
    bench.run(60)
    assert [value for value, _ in flaky.calls] == ["a", "b"]
    assert task.idle()


def test_gaps_and_markers_at_the_end_need_no_work() -> None:
    bench = watched_bench(Watched())
    task = bench.async_task()
    task.accept(bench.feed(*numbered(1)))
    task.reached_end({at(): 5})
    bench.run()
    assert task.settled() == {at(): 0}
    bench.run(2)
    assert task.settled() == {at(): 5}


@pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
def test_a_drain_that_is_over_says_how_many_records_were_still_at_work(
    guarantee: Any, caplog: pytest.LogCaptureFixture
) -> None:
    bench = gated_bench(gate := Gate(), guarantee=guarantee)
    actor = bench.actor()
    bench.feed("a", "b", "c", keys=[b"a", b"b", b"c"])
    turn(bench, actor, times=3)
    gate.open("b")
    actor.stop(2.0)
    actor.run(lambda _: None)
    assert 't step "work": 2 records are still at work after 2 s; not committed, so read again' in caplog.text


def test_a_drain_finishes_the_window_within_its_time() -> None:
    watched = Watched()
    bench = watched_bench(watched, concurrency=2)
    task = bench.async_task()
    task.accept(bench.feed(*numbered(1, 1, 1, 1)))
    task.drain(30)
    assert bench.out() == [0, 1, 2, 3]
    assert task.settled() == {at(): 4}
    bench.feed({"n": 9, "takes": 100})
    task.accept(bench.came(4))
    before = bench.clock.monotonic()
    task.drain(2)
    assert bench.clock.monotonic() - before == pytest.approx(2, abs=0.1)
    assert task.settled() == {at(): 4}
