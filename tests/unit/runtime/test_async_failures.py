"""Asynchronous stages: records that fail, and those that are tried again."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sage.errors import StageStopped, Unauthorized
from tests.unit.runtime.bench import Bench, at, text
from tests.unit.runtime.watched import Watched, flaky_bench, watched_bench


def test_only_the_bad_record_dies_and_keeps_its_place_in_the_order() -> None:
    bench = watched_bench(Watched())
    task = bench.async_task()
    task.accept(bench.feed({"n": 0, "takes": 1}, {"n": 1, "raises": 1}, {"n": 2}))
    bench.run(0.5)
    assert (bench.out(), bench.dead()) == ([], [])
    bench.run(1)
    assert bench.out() == [0, 2]
    assert bench.dead_offsets() == [1]
    assert task.settled() == {at(): 3}
    counters = task.steps[0].counters
    assert (counters.read, counters.written, counters.dead) == (3, 2, 1)


def test_skipped_records_leave_nothing_and_are_counted() -> None:
    bench = watched_bench(Watched(), on_error="skip")
    task = bench.async_task()
    task.accept(bench.feed({"n": 0, "raises": 1}, {"n": 1}))
    bench.run(0.1)
    assert (bench.out(), bench.dead()) == ([1], [])
    assert task.settled() == {at(): 2}
    assert task.steps[0].counters.skipped == 1


def test_a_step_that_says_fail_stops_the_stage_at_that_record() -> None:
    bench = watched_bench(Watched(), on_error="fail")
    task = bench.async_task()
    task.accept(bench.feed({"n": 0}, {"n": 1, "raises": 1}, {"n": 2}, keys=[b"a", b"a", b"a"]))
    bench.run(0.1)
    with pytest.raises(StageStopped, match="the step says on_error: fail"):
        task.room()
    assert bench.out() == [0]
    assert bench.dead() == []


def test_wrong_credentials_stop_the_stage_instead_of_killing_records() -> None:
    async def refused(value: Any) -> Any:
        raise Unauthorized("the key was refused")

    bench = Bench(lambda s: s.map(refused, name="call"))
    task = bench.async_task()
    task.accept(bench.feed(1, 2))
    bench.run(0.1)
    with pytest.raises(Unauthorized, match="the key was refused"):
        task.settled()
    assert bench.dead() == []


def test_a_record_waits_for_its_next_try_inside_its_lane_while_others_go_on() -> None:
    bench, flaky = flaky_bench(a1=2)
    task = bench.async_task()
    task.accept(bench.feed("a1", "a2", "b1", keys=[b"a", b"a", b"b"]))
    bench.run(0.05)
    assert bench.out() == ["b1"]
    assert task.settled() == {at(): 0}
    bench.run(1)
    assert bench.out() == ["b1", "a1", "a2"]
    times = [moment for value, moment in flaky.calls if value == "a1"]
    first, second = times[1] - times[0], times[2] - times[1]
    assert 0.1 <= first <= 0.2
    assert 0.2 <= second <= 0.4
    assert task.steps[0].counters.retried == 2
    assert task.settled() == {at(): 3}


def test_tries_are_bounded_and_their_number_is_in_the_letter() -> None:
    bench, _ = flaky_bench(a=9)
    task = bench.async_task()
    task.accept(bench.feed("a"))
    bench.run(5)
    assert text(bench.dead()[0])["sage.attempts"] == "3"
    assert task.settled() == {at(): 1}


def test_a_call_that_takes_too_long_is_transient() -> None:
    takes = iter([5.0, 0.1])

    async def call(value: Any) -> Any:
        await asyncio.sleep(next(takes))
        return value

    bench = Bench(lambda s: s.map(call, name="call", timeout="1s"))
    task = bench.async_task()
    task.accept(bench.feed("a"))
    bench.run(3)
    assert bench.out() == ["a"]
    assert task.steps[0].counters.retried == 1
    assert task.steps[0].counters.last_error.startswith("TimeoutError")
