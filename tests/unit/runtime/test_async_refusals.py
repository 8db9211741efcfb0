"""Asynchronous stages: outputs that the broker does not take."""

from __future__ import annotations

from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage.errors import StageStopped
from sage.model.partition import TopicPartition
from sage.ports import DeliveryFailure
from sage.runtime.concurrent.async_task import AsyncTask
from tests.unit.runtime.bench import Bench, at, text
from tests.unit.runtime.watched import KEYED, Watched, numbered, watched_bench


class BatchRefusing:
    """A producer whose broker refuses, as Kafka's does, all that is sent together with a value that is too large."""

    def __init__(self, producer: Any, topic: str, values: set[bytes]) -> None:
        self._producer = producer
        self._topic = topic
        self._values = values
        self._batch: list[tuple[Any, Any]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._producer, name)

    def __len__(self) -> int:
        return len(self._batch) + len(self._producer)

    def produce(self, *record: Any, on_delivery: Any = None) -> None:
        if record[0] == self._topic:
            self._producer.check_size(*record[:4])
            self._batch.append((record, on_delivery))
        else:
            self._producer.produce(*record, on_delivery=on_delivery)

    def poll(self, timeout: float = 0.0) -> int:
        batch, self._batch = self._batch, []
        refused = any(record[1] in self._values for record, _ in batch)
        for record, on_delivery in batch:
            if refused:
                on_delivery(DeliveryFailure(self._topic, 0, "too large", too_large=True, retriable=False), 0, -1)
            else:
                self._producer.produce(*record, on_delivery=on_delivery)
        return int(self._producer.poll(timeout))


def refuse_batches_with(bench: Bench, topic: str, values: set[bytes]) -> None:
    bench.producer = cast(Any, BatchRefusing(bench.producer, topic, values))


def taking(task: AsyncTask, bench: Bench, limit: int = 50) -> dict[TopicPartition, int]:
    """What an actor does until nothing moves: hand over, rewind, settle."""
    position, settled = 0, dict[TopicPartition, int]()
    for _ in range(limit):
        messages = bench.came(position)[: task.room()]
        if messages:
            task.accept(messages)
            position = messages[-1].offset() + 1
        bench.run(5)
        rewinds = task.rewinds()
        for offset in rewinds.values():
            position = offset
        task.rewound(tuple(rewinds))
        idle = task.idle()
        settled |= task.settled()
        if idle and not rewinds and not bench.came(position):
            return settled
    raise AssertionError("it never settled")


def test_a_refused_output_makes_its_partition_read_again_from_what_is_settled() -> None:
    watched = Watched()
    bench = watched_bench(watched)
    task = bench.async_task()
    bench.clients.fail_next_delivery("t.call")
    task.accept(bench.feed(*numbered(0, 0.5, 0)))
    bench.run(1)
    assert task.rewinds() == {at(): 0}
    assert task.rewinds() == {}
    assert task.settled() == {}
    assert task.idle()


def test_what_is_handed_over_before_the_seek_is_let_go() -> None:
    bench = watched_bench(Watched())
    task = bench.async_task()
    bench.clients.fail_next_delivery("t.call")
    task.accept(bench.feed(*numbered(0)))
    bench.run(1)
    bench.feed({"n": 1}, {"n": 2})
    task.accept(bench.came(1))  # polled before the actor knew
    bench.run(1)
    assert (bench.out(), task.idle()) == ([], True)
    task.rewound(tuple(task.rewinds()))
    task.accept(bench.came())
    bench.run(1)
    assert bench.out() == [0, 1, 2]
    assert task.settled() == {at(): 3}


@settings(max_examples=60)
@given(KEYED, st.integers(0, 4), st.integers(1, 4), st.booleans())
def test_refusals_lose_nothing_and_release_nothing_twice(
    records: list[tuple[bytes, float]], refusals: int, concurrency: int, keyed: bool
) -> None:
    bench = watched_bench(Watched(), concurrency=concurrency)
    task = bench.async_task()
    keys = [key if keyed else None for key, _ in records]
    bench.feed(*numbered(*(takes for _, takes in records)), keys=keys)
    for _ in range(refusals):
        bench.clients.fail_next_delivery("t.call")
    assert taking(task, bench) == {at(): len(records)}
    assert sorted(set(bench.out())) == list(range(len(records)))
    assert task.room() == task.window_size


def test_an_output_over_the_limit_kills_its_record_whether_we_see_it_or_the_broker() -> None:
    async def grow(value: int) -> str:
        return "x" * value

    bench = Bench(lambda s: s.map(grow, name="call"), message_max_bytes=20_000)
    refuse_batches_with(bench, "t.call", {b'"%s"' % (b"x" * 10)})
    task = bench.async_task()
    bench.feed(10, 50_000, 20)
    assert taking(task, bench) == {at(): 3}
    assert {len(value) for value in bench.out()} == {20}
    assert set(bench.dead_offsets()) == {0, 1}


@settings(max_examples=40)
@given(st.lists(st.booleans(), min_size=1, max_size=20), st.integers(1, 8))
def test_of_a_refused_batch_only_the_record_that_is_too_large_dies(large: list[bool], concurrency: int) -> None:
    async def same(value: int) -> int:
        return value

    bench = Bench(lambda s: s.map(same, name="call", concurrency=concurrency))
    too_large = {number for number, is_large in enumerate(large) if is_large}
    refuse_batches_with(bench, "t.call", {b"%d" % number for number in too_large})
    task = bench.async_task()
    bench.feed(*range(len(large)))
    assert taking(task, bench, limit=200) == {at(): len(large)}
    assert set(bench.out()) == set(range(len(large))) - too_large
    assert set(bench.dead_offsets()) == too_large


def test_a_letter_that_does_not_fit_loses_its_trace_and_then_stops_the_stage() -> None:
    async def fail(value: str) -> str:
        raise ValueError(value)

    bench = Bench(lambda s: s.map(fail, name="call"), message_max_bytes=4_000)
    task = bench.async_task()
    task.accept(bench.feed("x" * 1_000))
    bench.run(1)
    assert text(bench.dead()[0])["__connect.errors.exception.stacktrace"] == "(cut)"
    assert task.settled() == {at(): 1}
    bench.feed("y" * 5_000)
    task.accept(bench.came(1))
    bench.run(1)
    with pytest.raises(StageStopped, match=r"a dead letter does not fit t\.dlq"):
        task.room()


def test_a_refusal_that_nothing_can_mend_stops_the_stage() -> None:
    bench = watched_bench(Watched())
    task = bench.async_task()
    bench.clients.fail_next_delivery("t.call", reason="TOPIC_AUTHORIZATION_FAILED", retriable=False)
    task.accept(bench.feed({"n": 1}))
    bench.run(1)
    with pytest.raises(StageStopped, match=r"t\.call-0 did not take a record: TOPIC_AUTHORIZATION_FAILED"):
        task.settled()


def test_a_full_producer_queue_is_waited_for() -> None:
    async def many(value: int) -> Any:
        for number in range(value):
            yield number

    bench = Bench(lambda s: s.flatmap(many, name="call"))
    bench.producer = bench.clients.producer(config={"queue.buffering.max.messages": 3})
    task = bench.async_task()
    task.accept(bench.feed(50))
    bench.run(5)
    assert bench.out() == list(range(50))
    assert task.settled() == {at(): 1}


def test_a_record_is_settled_only_when_the_broker_has_answered() -> None:
    bench = watched_bench(Watched())
    task = bench.async_task()
    messages = bench.feed({"n": 1}, {"n": 2})
    with bench.clients.deliveries_held():
        task.accept(messages)
        bench.run(1)
        assert task.settled() == {at(): 0}
        assert not task.idle()
    bench.run(1)
    assert task.settled() == {at(): 2}
    assert task.idle()
