"""Asynchronous stages: order, concurrency, and the window."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import replace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage.model.identity import SAGE_ID, topic_root
from sage.runtime.concurrent.async_task import AsyncTask
from sage.runtime.concurrent.window import Window
from tests.unit.runtime.acting import Gate, consumer_of, turn
from tests.unit.runtime.bench import IN, TRACE, Bench, at, text
from tests.unit.runtime.watched import DURATIONS, KEYED, Watched, numbered, watched_bench


@settings(max_examples=60)
@given(KEYED, st.integers(1, 5))
def test_keys_keep_their_order_and_concurrency_is_never_exceeded(
    records: list[tuple[bytes, float]], concurrency: int
) -> None:
    watched = Watched()
    bench = watched_bench(watched, concurrency=concurrency)
    task = bench.async_task()
    keys = [key for key, _ in records]
    task.accept(bench.feed(*numbered(*(takes for _, takes in records)), keys=keys))
    bench.run(60)
    assert watched.most <= concurrency
    assert task.settled() == {at(): len(records)}
    left: dict[bytes, list[int]] = defaultdict(list)
    for sent in bench.produced():
        left[sent.key() or b""].append(int(sent.value() or b""))
    for key in set(keys):
        assert left[key] == [number for number, own in enumerate(keys) if own == key]
    assert task.idle()


@settings(max_examples=40)
@given(st.lists(DURATIONS, min_size=1, max_size=14), st.integers(1, 6))
def test_records_without_a_key_run_together_and_leave_as_they_came(takes: list[float], concurrency: int) -> None:
    watched = Watched()
    bench = watched_bench(watched, concurrency=concurrency)
    task = bench.async_task()
    task.accept(bench.feed(*numbered(*takes)))
    bench.run(60)
    assert bench.out() == list(range(len(takes)))
    assert watched.most == min(concurrency, len(takes)) if all(takes) else watched.most <= concurrency
    assert task.settled() == {at(): len(takes)}


@settings(max_examples=30)
@given(KEYED)
def test_ordering_by_partition_runs_one_record_at_a_time(records: list[tuple[bytes, float]]) -> None:
    watched = Watched()
    bench = watched_bench(watched, ordering="partition", concurrency=8)
    task = bench.async_task()
    task.accept(bench.feed(*numbered(*(takes for _, takes in records)), keys=[key for key, _ in records]))
    bench.run(60)
    assert watched.most == 1
    assert bench.out() == watched.started == list(range(len(records)))
    assert task.settled() == {at(): len(records)}


def test_without_an_order_even_one_keys_records_run_together() -> None:
    watched = Watched()
    bench = watched_bench(watched, ordering="none", concurrency=8)
    task = bench.async_task()
    task.accept(bench.feed(*numbered(3, 2, 1), keys=[b"a"] * 3))
    bench.run(10)
    assert watched.most == 3
    assert bench.out() == [2, 1, 0]
    assert task.settled() == {at(): 3}


def test_a_slow_head_stops_its_own_key_only_and_holds_the_commit() -> None:
    watched = Watched()
    bench = watched_bench(watched, concurrency=4)
    task = bench.async_task()
    task.accept(bench.feed(*numbered(100, 0.1, 0.1, 0.1), keys=[b"slow", b"b", b"slow", b"c"]))
    bench.run(1)
    assert bench.out() == [1, 3]
    assert watched.started == [0, 1, 3]
    assert task.settled() == {at(): 0}
    bench.run(200)
    assert bench.out() == [1, 3, 0, 2]
    assert task.settled() == {at(): 4}


def test_partitions_are_tracked_apart() -> None:
    watched = Watched()
    bench = watched_bench(watched, topic_partitions=2)
    task = bench.async_task(0, 1)
    bench.feed(*numbered(50), partition=0)
    task.accept(bench.feed({"n": 9}, {"n": 8}, partition=1))
    bench.run(1)
    assert task.settled() == {at(0): 0, at(1): 2}


def test_key_timestamp_and_headers_go_on_with_the_id_last() -> None:
    bench = watched_bench(Watched())
    feeder = bench.clients.producer()
    headers = [("a", b"1"), ("a", b"2"), ("empty", b""), ("null", None)]
    feeder.produce(IN, b'{"n": 1}', b"k", headers, timestamp=55)
    bench.async_task().accept(bench.came())
    bench.run(0.1)
    (sent,) = bench.produced()
    assert (sent.key(), sent.timestamp()) == (b"k", (1, 55))
    root = topic_root(bench.setting.topic_ids[IN], 0, 0)
    assert sent.headers() == [*headers, TRACE, (SAGE_ID, root.encode())]


def test_an_async_generator_gives_every_item_an_id_of_its_own() -> None:
    async def split(line: str) -> Any:
        for word in line.split():
            await asyncio.sleep(0.1)
            yield word

    bench = Bench(lambda s: s.flatmap(split, name="split"))
    task = bench.async_task()
    task.accept(bench.feed("a b c", ""))
    bench.run(5)
    assert bench.out() == ["a", "b", "c"]
    assert len({text(sent)[SAGE_ID] for sent in bench.produced()}) == 3
    assert task.settled() == {at(): 2}
    assert task.steps[0].counters.written == 3


# ---------------------------------------------------------------------------------------------- window


def test_the_window_is_bounded_in_records_and_reopens_at_half() -> None:
    watched = Watched()
    bench = watched_bench(watched, concurrency=4)
    task = bench.async_task()
    assert task.window_size == task.room() == 16
    task.accept(bench.feed(*numbered(*[1.0] * 16), keys=[b"%d" % n for n in range(16)]))
    bench.run()
    assert task.room() == 0
    assert not task.may_resume()
    bench.run(1.1)
    assert (task.room(), task.may_resume()) == (4, False)
    bench.run(1.1)
    assert (task.room(), task.may_resume()) == (8, True)


def test_the_window_is_bounded_in_bytes() -> None:
    watched = Watched()
    bench = watched_bench(watched, concurrency=4)
    task = bench.async_task()
    task._window = Window(task.window_size, max_bytes=1_000)
    task.accept(bench.feed({"n": 0, "takes": 1, "pad": "x" * 600}, {"n": 1, "takes": 2, "pad": "x" * 600}))
    assert task.room() == 0
    bench.run(1.5)
    assert task.room() > 0
    assert not task.may_resume()  # 600 bytes are more than half of 1,000
    bench.run(1)
    assert task.may_resume()


def test_room_comes_back_from_records_of_partitions_that_are_gone() -> None:
    bench = watched_bench(Watched(), concurrency=4)
    task = bench.async_task()
    task.accept(bench.feed(*numbered(*[50.0] * 16)))
    bench.run()
    assert task.room() == 0
    task.lost([at()])
    bench.run()
    assert task.room() == task.window_size
    assert task.idle()


# ------------------------------------------------------------------------------------- between partitions


@pytest.mark.parametrize("seconds", [0.05, 2.0])
def test_a_long_backlog_of_one_partition_does_not_keep_another_out(seconds: float) -> None:
    """A client gives what it has fetched in the order in which it came: thousands of one partition, then others."""
    ended: list[Any] = []

    async def call(value: Any) -> Any:
        await asyncio.sleep(seconds)
        ended.append(value)
        return value

    bench = Bench(lambda s: s.map(call, name="work", concurrency=2), partitions=2)
    actor = bench.actor()
    turn(bench, actor)
    consumer, poll = consumer_of(actor), consumer_of(actor).poll

    def first_partition_first(most: int, timeout: float) -> Any:
        consumer._turn = -1
        return poll(most, timeout)

    consumer.poll = first_partition_first  # type: ignore[method-assign]
    bench.feed(*range(2_000), partition=0)
    turn(bench, actor, times=5)
    bench.feed("late", partition=1)
    while "late" not in ended:
        assert len(ended) < 400, "it waits for all of the backlog"
        turn(bench, actor, seconds=0.02)


def test_outputs_that_wait_to_leave_fill_the_window_too() -> None:
    gate = Gate()

    async def grow(value: str) -> str:
        await gate(value)
        return value * 600

    bench = Bench(lambda s: s.map(grow, name="work", concurrency=8), guarantee="exactly_once")
    actor = bench.actor()
    task = cast(AsyncTask, actor.task)
    task._window = replace(task._window, max_bytes=1_000)
    bench.feed("a", "b", "c", keys=[b"1", b"2", b"3"])
    gate.open("b", "c")
    turn(bench, actor, seconds=0.15, times=4)
    assert task.room() == 0
    gate.open("a")
    turn(bench, actor, seconds=0.15, times=6)
    assert task.room() > 0
    assert task.idle()
