"""Asynchronous stages: concurrency, order, the window, and what may be committed."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage.errors import StageStopped, TransientFailure, Unauthorized
from sage.model.identity import SAGE_ID, topic_root
from sage.model.partition import TopicPartition
from sage.runtime.async_task import AsyncTask
from sage.runtime.window import Window
from sage.spec.component import Operator
from sage.spec.context import Context
from tests.unit.runtime.bench import IN, TRACE, Bench, at, text


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


# ----------------------------------------------------------------------------------------------- order


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


# -------------------------------------------------------------------------------------------- failures


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


# ---------------------------------------------------------------------------------------- micro-batches


class Batches:
    """A ``map_batches`` function that notes its batches; a negative value is refused, a text fails as told."""

    def __init__(self) -> None:
        self.seen: list[list[Any]] = []
        self.failures: list[Exception] = []

    def bench(self, **options: Any) -> Bench:
        def together(values: list[Any]) -> list[Any]:
            self.seen.append(list(values))
            if self.failures:
                raise self.failures.pop(0)
            if any(value < 0 for value in values):
                raise ValueError("negative")
            return [value * 10 for value in values]

        policy = {"max_size": 4, "max_wait": 0.01} | options
        return Bench(lambda s: s.map_batches(together, name="batch", **policy))


def test_a_batch_is_filled_or_its_first_record_has_waited_long_enough() -> None:
    batches = Batches()
    bench = batches.bench(max_wait=0.01)
    task = bench.async_task()
    task.accept(bench.feed(1, 2))
    bench.run(0.005)
    assert batches.seen == []
    bench.run(0.01)
    assert batches.seen == [[1, 2]]
    bench.feed(3, 4, 5, 6)
    task.accept(bench.came(2))
    bench.run()
    assert batches.seen == [[1, 2], [3, 4, 5, 6]]
    assert bench.out() == [10, 20, 30, 40, 50, 60]
    assert task.settled() == {at(): 6}


def test_a_failed_batch_costs_only_the_record_that_made_it_fail() -> None:
    batches = Batches()
    bench = batches.bench()
    task = bench.async_task()
    task.accept(bench.feed(1, -2, 3))
    bench.run(1)
    assert batches.seen == [[1, -2, 3], [1], [-2], [3]]
    assert bench.out() == [10, 30]
    assert bench.dead_offsets() == [1]
    assert text(bench.dead()[0])["sage.attempts"] == "1"
    assert task.settled() == {at(): 3}


def test_a_value_that_cannot_be_decoded_leaves_its_batch_alone() -> None:
    batches = Batches()
    bench = batches.bench()
    task = bench.async_task()
    bench.feed(b"1", b"{", b"3", raw=True)
    task.accept(bench.came())
    bench.run(1)
    assert batches.seen == [[1, 3]]
    assert bench.out() == [10, 30]
    assert bench.dead_offsets() == [1]
    assert task.settled() == {at(): 3}


@pytest.mark.parametrize("key", [b"a", None])
def test_a_batch_that_met_a_transient_failure_is_tried_again_after_a_wait_in_order(key: bytes | None) -> None:
    batches = Batches()
    batches.failures = [ConnectionError("reset"), TransientFailure("busy")]
    bench = batches.bench()
    task = bench.async_task()
    task.accept(bench.feed(1, 2, 3, keys=[key] * 3))
    bench.run(0.05)
    assert batches.seen == [[1, 2, 3]]
    bench.run(5)
    assert [value for batch in batches.seen[1:] for value in batch][:3] == [1, 2, 3] or key is None
    assert bench.out() == [10, 20, 30]
    assert task.settled() == {at(): 3}


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.sampled_from([b"a", b"b"]), st.sampled_from([1, 2, -1])), min_size=1, max_size=12),
    st.lists(st.sampled_from(["transient", "dead"]), max_size=6),
    st.integers(1, 5),
)
def test_whatever_happens_to_batches_keys_keep_their_order_and_every_record_ends_once(
    records: list[tuple[bytes, int]], failures: list[str], size: int
) -> None:
    batches = Batches()
    batches.failures = [ConnectionError("x") if kind == "transient" else KeyError("x") for kind in failures]
    bench = batches.bench(max_size=size, concurrency=2)
    task = bench.async_task()
    keys = [key for key, _ in records]
    task.accept(bench.feed(*(value for _, value in records), keys=keys))
    bench.run(600)
    assert task.settled() == {at(): len(records)}
    root = bench.setting.topic_ids[IN]
    ids = {topic_root(root, 0, offset): offset for offset in range(len(records))}
    done = [ids[text(sent)[SAGE_ID]] for sent in bench.produced()]
    dead = bench.dead_offsets()
    assert sorted(done + dead) == list(range(len(records)))
    for key in set(keys):
        own = [offset for offset in done if keys[offset] == key]
        assert own == sorted(own)


def test_a_batch_function_that_gives_too_few_results_stops_the_stage() -> None:
    bench = Bench(lambda s: s.map_batches(lambda values: values[1:], name="batch", max_size=4, max_wait=0))
    task = bench.async_task()
    task.accept(bench.feed(1, 2))
    bench.run(0.1)
    with pytest.raises(StageStopped, match="a batch of 2 values gave 1 results"):
        task.room()


class Embedding(Operator[str, str]):
    """An operator with ``process_batch``, which gets a context for each value."""

    async def process_batch(self, values: Sequence[str], contexts: Sequence[Context]) -> Sequence[str]:
        return [f"{value}@{ctx.offset}" for value, ctx in zip(values, contexts, strict=True)]


def test_an_operators_batch_gets_each_records_own_context() -> None:
    bench = Bench(lambda s: s.map(Embedding, name="embed"))
    task = bench.async_task()
    task.accept(bench.feed("a", "b"))
    bench.run(0.1)
    assert bench.out() == ["a@0", "b@1"]


# ------------------------------------------------------------------------------------------ assignments


def test_a_revoke_lets_work_finish_starts_nothing_new_and_gives_the_prefix() -> None:
    watched = Watched()
    bench = watched_bench(watched, concurrency=2)
    task = bench.async_task()
    task.accept(bench.feed(*numbered(1, 2, 1, 1), keys=[b"a", b"b", b"c", b"d"]))
    bench.run(0.5)
    assert task.revoked([at()], 5.0) == {at(): 2}
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
    assert task.revoked([at()], 5.0) == {at(): 1}
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
    assert task.revoked([at(0)], 5.0) == {at(0): 1}
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
    task.assigned([at()])
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
    task.assigned([at()])
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
    assert task.revoked([at()], 5.0) == {at(): 0}
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
    assert task.revoked([at()], 5.0) == {at(): 0}
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


# -------------------------------------------------------------------------------------- refused outputs


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
    task = bench.async_task()
    bench.clients.fail_next_delivery("t.call", reason="MSG_SIZE_TOO_LARGE", too_large=True, retriable=False)
    task.accept(bench.feed(10, 50_000, 20))
    bench.run(1)
    assert [len(value) for value in bench.out()] == [20]
    assert sorted(bench.dead_offsets()) == [0, 1]
    assert task.settled() == {at(): 3}
    assert task.steps[0].counters.dead == 2


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
    with pytest.raises(StageStopped, match="a dead letter does not fit its topic"):
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
