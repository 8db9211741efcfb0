"""What a turn does with its records: sinks, blocking code in threads, calls with a context, spans."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage.errors import StageStopped
from sage.model.record import Record
from sage.ports import Commit
from sage.runtime.concurrent.async_task import AsyncTask
from sage.runtime.concurrent.bridge import LoopThread
from sage.runtime.retries.parking import scan_parked
from sage.spec.component import Operator, Sink
from sage.spec.context import Context
from tests.support.waiting import wait_until
from tests.unit.runtime.bench import Bench, at, text
from tests.unit.tracing.spans import Recorded

SAMPLED = ("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")


class Table(Sink[Any]):
    """Keeps batches in the class; fails as told."""

    batches: ClassVar[list[list[Any]]] = []
    records: ClassVar[list[Record[Any]]] = []
    failures: ClassVar[list[Exception]] = []
    refused: ClassVar[set[Any]] = set()

    async def write(self, records: Sequence[Record[Any]]) -> None:
        if Table.failures:
            raise Table.failures.pop(0)
        if bad := [record.value for record in records if record.value in list(Table.refused)]:
            raise ValueError(bad)
        Table.batches.append([record.value for record in records])
        Table.records.extend(records)


@pytest.fixture(autouse=True)
def _empty_table() -> None:
    for kept in (Table.batches, Table.records, Table.failures, Table.refused):
        kept.clear()


def table_bench(**options: Any) -> Bench:
    return Bench(lambda s: s.sink(Table, name="table", **options), parks=False)


# ----------------------------------------------------------------------------------------------- sinks


def test_a_sink_is_given_all_that_is_there_in_order() -> None:
    bench = table_bench()
    task = bench.async_task()
    task.accept(bench.feed(*range(10)))
    bench.run(0.1)
    assert [value for batch in Table.batches for value in batch] == list(range(10))
    assert task.settled() == {at(): 10}
    assert (task.steps[0].counters.read, task.steps[0].counters.written) == (10, 10)


def test_a_sink_knows_of_each_record_where_it_comes_from_and_its_identity() -> None:
    bench = table_bench()
    feeder = bench.clients.producer()
    feeder.produce("in", b'{"a":1}', b"k", [("h", b"1")], timestamp=9)
    bench.async_task().accept(bench.came())
    bench.run(0.1)
    (record,) = Table.records
    assert (record.value, record.key, list(record.headers), record.timestamp) == ({"a": 1}, b"k", [("h", b"1")], 9)
    assert (record.topic, record.partition, record.offset) == ("in", 0, 0)
    assert record.id.endswith(":0:0")


def test_a_sinks_batches_are_no_larger_than_asked_for() -> None:
    bench = table_bench(batch={"max_size": 3, "max_wait": 0})
    bench.async_task().accept(bench.feed(*range(8)))
    bench.run(0.1)
    assert [len(batch) for batch in Table.batches] == [3, 3, 2]


def test_a_batch_that_met_a_transient_failure_is_written_again_in_order() -> None:
    Table.failures.append(ConnectionError("reset"))
    bench = table_bench()
    task = bench.async_task()
    task.accept(bench.feed(*range(5)))
    bench.run(0.01)
    assert task.settled() == {at(): 0}
    bench.run(5)
    assert Table.batches == [list(range(5))]
    assert task.settled() == {at(): 5}


def test_a_refused_batch_costs_only_the_record_that_was_refused() -> None:
    Table.refused.add(2)
    bench = table_bench()
    task = bench.async_task()
    task.accept(bench.feed(1, 2, 3))
    bench.run(1)
    assert [record.value for record in Table.records] == [1, 3]
    assert bench.dead_offsets() == [1]
    assert task.settled() == {at(): 3}


def test_what_cannot_be_decoded_is_left_out_of_the_batch() -> None:
    bench = table_bench()
    task = bench.async_task()
    task.accept(bench.feed(b"1", b"{", b"3", raw=True))
    bench.run(1)
    assert Table.batches == [[1, 3]]
    assert bench.dead_offsets() == [1]
    assert task.settled() == {at(): 3}


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=15),
    st.sets(st.integers(0, 5), max_size=3),
    st.integers(0, 3),
    st.integers(1, 6),
)
def test_every_record_of_a_sink_is_written_or_dead_and_in_order(
    values: list[int], refused: set[int], failures: int, size: int
) -> None:
    _empty()
    Table.refused.update(refused)
    Table.failures.extend(ConnectionError("reset") for _ in range(failures))
    bench = table_bench(batch={"max_size": size, "max_wait": 0.01})
    task = bench.async_task()
    task.accept(bench.feed(*values, keys=[b"k"] * len(values)))
    bench.run(300)
    assert [record.value for record in Table.records] == [value for value in values if value not in refused]
    assert bench.dead_offsets() == [offset for offset, value in enumerate(values) if value in refused]
    assert task.settled() == {at(): len(values)}


def _empty() -> None:
    for kept in (Table.batches, Table.records, Table.failures, Table.refused):
        kept.clear()


# --------------------------------------------------------------------------------------------- threads


class Threaded:
    """A bench whose stage works on a real loop and in real threads."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.loop = LoopThread()
        self.task = AsyncTask(bench.setting, self.loop, partial(scan_parked, bench.clients), producer=bench.producer)
        self.task.open(bench.holds())
        self.task.assigned({at(): Commit(None)})

    def finish(self, count: int) -> None:
        wait_until(lambda: self.task.settled() == {at(): count})

    def close(self) -> None:
        self.task.close()
        self.loop.close()


def test_blocking_code_runs_in_threads_as_many_as_its_concurrency_and_keeps_order() -> None:
    barrier, threads = threading.Barrier(3, timeout=20), set[str]()
    at_work, most, lock = 0, 0, threading.Lock()

    def block(value: int) -> int:
        nonlocal at_work, most
        with lock:
            at_work += 1
            most = max(most, at_work)
        threads.add(threading.current_thread().name)
        barrier.wait()  # only passes where three calls are under way at once
        with lock:
            at_work -= 1
        return value

    bench = Bench(lambda s: s.map(block, name="call", blocking=True, concurrency=3))
    threaded = Threaded(bench)
    try:
        threaded.task.accept(bench.feed(*range(6)))
        threaded.finish(6)
    finally:
        threaded.close()
    assert bench.out() == list(range(6))
    assert all(name.startswith("sage-call") for name in threads)
    assert most == 3


def test_a_blocking_generator_is_run_to_its_end_in_its_thread() -> None:
    names: set[str] = set()

    def split(line: str) -> Iterator[str]:
        for word in line.split():
            names.add(threading.current_thread().name)
            yield word

    bench = Bench(lambda s: s.flatmap(split, name="split", blocking=True, concurrency=1))
    threaded = Threaded(bench)
    try:
        threaded.task.accept(bench.feed("a b", "c"))
        threaded.finish(2)
    finally:
        threaded.close()
    assert bench.out() == ["a", "b", "c"]
    assert names == {"sage-split_0"}


def test_a_blocking_call_that_takes_too_long_is_given_up() -> None:
    release = threading.Event()

    def hang(value: int) -> int:
        release.wait(20)
        return value

    bench = Bench(lambda s: s.map(hang, name="call", blocking=True, timeout=0.05, retry={"attempts": 1}))
    threaded = Threaded(bench)
    try:
        threaded.task.accept(bench.feed(1))
        threaded.finish(1)
        assert text(bench.dead()[0])["__connect.errors.exception.class.name"] == "builtins.TimeoutError"
    finally:
        release.set()
        threaded.close()


# ---------------------------------------------------------------------------------------------- context


def test_each_of_many_records_at_work_has_a_context_of_its_own() -> None:
    async def where(value: Any, ctx: Context) -> Any:
        before = (ctx.offset, ctx.key, ctx.record_id)
        await asyncio.sleep(1 / (value + 1))
        assert before == (ctx.offset, ctx.key, ctx.record_id)
        return [value, ctx.offset, ctx.key, ctx.topology, ctx.step]

    bench = Bench(lambda s: s.map(where, name="where"))
    bench.async_task().accept(bench.feed(*range(5), keys=[b"%d" % number for number in range(5)]))
    bench.run(5)
    assert sorted(bench.out()) == [[number, number, str(number), "t", "where"] for number in range(5)]


def test_what_waiting_steps_emit_goes_to_their_branches() -> None:
    async def mark(value: int, ctx: Context) -> int:
        await asyncio.sleep(0.1)
        if value % 2:
            ctx.emit("odd", value)
        return value

    bench = Bench(lambda s: s.map(mark, name="mark").branch("odd").map(str, name="odd"), stage="mark")
    task = bench.async_task()
    task.accept(bench.feed(1, 2, 3))
    bench.run(1)
    assert bench.out() == [1, 2, 3]
    assert bench.out("mark", "odd") == [1, 3]
    assert task.settled() == {at(): 3}


def test_a_waiting_filter_passes_values_on_as_they_were() -> None:
    async def wanted(value: Any) -> bool:
        return bool(value["keep"])

    bench = Bench(lambda s: s.filter(wanted, name="keep"))
    task = bench.async_task()
    task.accept(bench.feed({"keep": 1, "n": 1}, {"keep": 0, "n": 2}))
    bench.run(0.1)
    assert bench.out() == [{"keep": 1, "n": 1}]
    assert task.settled() == {at(): 2}


# ------------------------------------------------------------------------------------------------ spans


async def call(value: int) -> int:
    return value


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_sampled_record_has_one_trace_through_the_stage(asynchronous: bool) -> None:
    recorded = Recorded()
    bench = Bench(lambda s: s.map(call if asynchronous else abs, name="work"), tracer=recorded.tracer)
    bench.clients.producer().produce("in", b"1", None, [SAMPLED])
    if asynchronous:
        bench.async_task().accept(bench.came())
        bench.run(0.1)
    else:
        bench.sync_task().accept(bench.came())
    spans = {span.name: span for span in recorded.spans}
    assert set(spans) == {"process in", "send t.work"}
    assert {format(span.context.trace_id, "032x") for span in recorded.spans if span.context} == {
        "0af7651916cd43dd8448eb211c80319c"
    }
    sent = spans["send t.work"]
    assert sent.context is not None
    assert text(bench.produced()[0])["traceparent"].split("-")[2] == format(sent.context.span_id, "016x")


@pytest.mark.parametrize("asynchronous", [False, True])
def test_telemetry_that_fails_stops_no_record(asynchronous: bool) -> None:
    recorded = Recorded()
    exporter: Any = recorded._exporter
    exporter.export = lambda spans: 1 / 0
    bench = Bench(lambda s: s.map(call if asynchronous else abs, name="work"), tracer=recorded.tracer)
    bench.clients.producer().produce("in", b"1", None, [SAMPLED])
    if asynchronous:
        bench.async_task().accept(bench.came())
        bench.run(0.1)
    else:
        bench.sync_task().accept(bench.came())
    assert bench.out() == [1]


# ------------------------------------------------------------------------------------------- components


def test_a_steps_time_out_is_its_option_or_its_components() -> None:
    class Patient(Operator[int, int]):
        default_timeout = 60.0

        async def process(self, value: int, ctx: Context) -> int:
            return value

    def timeout(**options: Any) -> float | None:
        return Bench(lambda s: s.map(Patient, name="work", **options)).setting.steps[0].timeout

    assert (timeout(), timeout(timeout="5s")) == (60.0, 5.0)
    assert Bench(lambda s: s.map(call, name="work")).setting.steps[0].timeout is None


def test_a_step_that_fails_every_record_of_its_batch_for_good_stops_nothing_else() -> None:
    bench = Bench(lambda s: s.map_batches(lambda values: [1 / 0 for _ in values], max_size=3, max_wait=0, name="b"))
    task = bench.async_task()
    task.accept(bench.feed(1, 2, 3))
    bench.run(1)
    assert bench.dead_offsets() == [0, 1, 2]
    assert task.settled() == {at(): 3}


def test_an_error_for_all_stops_a_sink_with_its_offsets_uncommitted() -> None:
    Table.failures.append(StageStopped("the table is gone"))
    bench = table_bench()
    task = bench.async_task()
    task.accept(bench.feed(1, 2))
    bench.run(1)
    with pytest.raises(StageStopped, match="the table is gone"):
        task.room()
    assert bench.dead() == []
