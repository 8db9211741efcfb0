"""Figures, samples, comparisons; and a run whose workers are in this process, on a broker in memory."""

from __future__ import annotations

import json
import os
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage import LocalEnvironment, Record, Source
from sage.errors import DeadlineExceeded, DecodeFailure, InvalidTopology, NotFound, SageError
from sage.graph.builder import StreamBuilder
from sage.graph.topology import Topology
from sage.operations.feeding import Feed
from sage.operations.isolation import isolated, remove_run
from sage.operations.measuring import running, saved
from sage.operations.measuring.figures import Figures, Latency, Look, latency_of, rate_of
from sage.operations.measuring.process_times import cpu_seconds, peak_bytes, resident_bytes
from sage.operations.measuring.running import Bench, Load
from sage.operations.measuring.sample import Sample, sample_file, sample_source, sample_topic
from sage.ports import TopicSpec
from sage.runtime.steps.codec import BYTES_MARK
from sage.spec.component import UnboundedSource
from sage.testing import InMemoryClients

# --------------------------------------------------------------------------------------------- figures


@given(
    steps=st.lists(st.tuples(st.floats(0.001, 10), st.integers(0, 500)), min_size=2, max_size=50),
    records=st.integers(1, 10_000),
)
def test_a_rate_lies_between_two_looks(steps: list[tuple[float, int]], records: int) -> None:
    at, done, looks = 0.0, 0, [Look(0.0, 0, 0.0)]
    for seconds, more in steps:
        at, done = at + seconds, done + more
        looks.append(Look(at, done, at / 2))
    rate = rate_of(looks, records)
    if rate is None:
        first = next((look for look in looks if look.done >= max(1, done * 0.02)), None)
        assert first is None or first.done == done
        return
    assert rate.seconds <= at
    assert 0 < rate.per_second * rate.seconds <= records * (1 + 1e-9)
    assert rate.processor == pytest.approx(rate.seconds / 2 / (rate.per_second * rate.seconds) * 1e6)


def test_a_steady_stream_has_its_rate_whatever_comes_of_a_record_and_however_long_nothing_came() -> None:
    for factor in (1, 3):
        looks = [Look(100 + second, factor * 1_000 * second, 0.25 * second) for second in range(11)]
        idle = [Look(second, 0, 0.0) for second in range(100)]
        after = [Look(200 + second, looks[-1].done, 9.0) for second in range(50)]
        rate = rate_of([*idle, *looks, *after], 10_000)
        assert rate is not None
        assert (rate.per_second, rate.seconds) == pytest.approx((1_000, 9))
        assert rate.processor == pytest.approx(250)


def test_nothing_is_made_up_where_nothing_could_be_measured() -> None:
    assert rate_of([], 10) is None
    assert rate_of([Look(0, 0, 0), Look(1, 0, 1)], 10) is None
    assert rate_of([Look(0, 0, 0), Look(1, 5, 1), Look(2, 5, 1)], 5) is None
    assert latency_of([]) is None


@given(st.lists(st.floats(0, 100), min_size=1))
def test_latencies_are_ordered_and_were_all_seen(seconds: list[float]) -> None:
    found = latency_of(seconds)
    assert found is not None
    assert found.p50 <= found.p95 <= found.p99
    assert all(value in [one * 1e3 for one in seconds] for value in found)


def test_the_account_of_this_process_can_be_read() -> None:
    began, end = cpu_seconds(os.getpid()), time.process_time() + 0.05
    while time.process_time() < end:
        pass
    assert cpu_seconds(os.getpid()) > began
    assert 0 < resident_bytes(os.getpid()) <= peak_bytes(os.getpid()) * 1.1
    assert (cpu_seconds(2**30), resident_bytes(2**30), peak_bytes(2**30)) == (0.0, 0, 0)


# ---------------------------------------------------------------------------------------------- samples


class Few(Source[Any]):
    """Text, bytes, and records with keys, in two tasks."""

    closed = False

    def tasks(self) -> list[str]:
        return ["a", "b"]

    async def read(self, task: str, position: Any, *, bounded: bool) -> AsyncIterator[tuple[Any, Any]]:
        assert (position, bounded) == (None, True)
        if task == "a":
            yield "one", 1
            yield b"two", 2
        else:
            yield Record({"n": 3}, key="k", headers=[("h", b"v")]), 1
            yield Record(4, key=b"\x00"), 2

    async def close(self) -> None:
        Few.closed = True


class Endless(Source[int]):
    async def read(self, task: str, position: Any, *, bounded: bool) -> AsyncIterator[tuple[int, Any]]:
        if bounded:
            raise UnboundedSource
        yield 1, 1


def of_source(source: type[Source[Any]]) -> Topology:
    builder = StreamBuilder("t")
    builder.from_source(source, name="given").map(same, name="same").to("out")
    return builder.build()


def same(value: Any) -> Any:
    return value


def test_a_source_gives_its_records_as_it_would_write_them(tmp_path: Path) -> None:
    topology = of_source(Few)
    sample = sample_source(topology.by_name["given"], topology, tmp_path, {})
    assert sample.records == (
        Feed(b'"one"', None, []),
        Feed(b"two", None, [BYTES_MARK]),
        Feed(b'{"n":3}', b"k", [("h", b"v")]),
        Feed(b"4", b"\x00", []),
    )
    assert Few.closed
    assert sample_source(topology.by_name["given"], topology, tmp_path, {}, 3).records == sample.records[:3]


def test_a_source_that_never_ends_or_has_nothing_says_what_to_do(tmp_path: Path) -> None:
    topology = of_source(Endless)
    with pytest.raises(InvalidTopology, match="never ends: give records with --input") as raised:
        sample_source(topology.by_name["given"], topology, tmp_path, {})
    assert raised.value.exit_code == 2
    builder = StreamBuilder("t")
    builder.from_collection([], name="given").to("out")
    with pytest.raises(NotFound, match="has no records now"):
        sample_source(builder.build().by_name["given"], builder.build(), tmp_path, {})


def test_a_topic_is_sampled_without_its_ids(clients: InMemoryClients, write: Any) -> None:
    write("orders", [b"1", b"2"], key=b"k", headers=[("h", b"v"), ("sage.id", b"x")])
    assert sample_topic(clients, "orders").records == tuple(Feed(value, b"k", [("h", b"v")]) for value in (b"1", b"2"))
    assert len(sample_topic(clients, "orders", 1).records) == 1
    clients.admin().create([TopicSpec("empty")])
    with pytest.raises(NotFound, match="has no records now"):
        sample_topic(clients, "empty")
    with pytest.raises(NotFound, match="--input"):
        sample_topic(clients, "none")


def test_a_file_is_sampled_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text('{"a": 1}\n\n"text"\n')
    assert [record.value for record in sample_file(path, "json").records] == [b'{"a":1}', b'"text"']
    with pytest.raises(DecodeFailure) as raised:
        sample_file(path, "str")
    assert str(raised.value) == f"{path}:1: the source reads str: write a text in quotes [SAGE502]"
    path.write_text("\n")
    with pytest.raises(DecodeFailure, match="has no records"):
        sample_file(path, "json")


@given(st.lists(st.binary(max_size=5), min_size=1, max_size=5), st.integers(0, 20))
def test_records_are_repeated_in_their_order(values: list[bytes], count: int) -> None:
    sample = Sample("x", tuple(Feed(value) for value in values))
    found = [record.value for record in sample.repeated(count)]
    assert found == [values[index % len(values)] for index in range(count)]


def test_the_digest_knows_where_one_record_ends() -> None:
    def digest(*records: Feed) -> str:
        return Sample("x", records).digest

    different = [
        digest(Feed(b"ab")), digest(Feed(b"a"), Feed(b"b")), digest(Feed(b"b", b"a")), digest(Feed(None, b"ab")),
    ]  # fmt: skip
    assert len(set(different)) == 4
    assert digest(Feed(b"ab", None, [("h", b"1")])) == different[0]


# -------------------------------------------------------------------------------------- saved, compared


def figures(**changed: Any) -> Figures:
    base: dict[str, Any] = {
        "topology": "qa", "graph": "g", "plan": "p", "input": "in.jsonl", "input_digest": "d", "records": 1_000,
        "rate": None, "processes": 1, "guarantee": "at_least_once", "machine": {"cores": 2, "sage": "1"},
        "records_per_second": 100.0, "seconds": 9.8, "latency": Latency(1.0, 2.0, 3.0), "processor_us": 50.0,
        "memory_mib": 100.0, "outputs": 1_000, "dead": 0,
    }  # fmt: skip
    return Figures(**(base | changed))


def test_saved_figures_come_back_the_same(tmp_path: Path) -> None:
    for found in (figures(), figures(latency=None, records_per_second=None)):
        saved.save(tmp_path / "a.json", found)
        assert saved.load(tmp_path / "a.json") == found
    for text in ("{", "[]", '{"kind": "evaluation", "format": 1}', '{"kind": "bench", "format": 1}'):
        (tmp_path / "a.json").write_text(text)
        with pytest.raises(InvalidTopology, match="is not what `sage bench run --save FILE`"):
            saved.load(tmp_path / "a.json")
    with pytest.raises(NotFound):
        saved.load(tmp_path / "none.json")
    with pytest.raises(SageError, match="cannot be written"):
        saved.save(tmp_path / "no" / "a.json", figures())


@pytest.mark.parametrize(
    ("changed", "worse"),
    [
        ({}, []),
        ({"records_per_second": 91.0}, []),
        ({"records_per_second": 89.0}, ["records/s"]),
        ({"records_per_second": 200.0, "processor_us": 10.0}, []),
        ({"processor_us": 56.0}, ["processor us/record"]),
        ({"latency": Latency(1.2, 1.0, 1.0)}, ["latency p50 ms"]),
        ({"latency": Latency(1.0, 2.3, 3.0)}, ["latency p95 ms"]),
        ({"latency": Latency(1.0, 2.0, 30.0), "memory_mib": 1_000.0}, []),
        ({"latency": None, "records_per_second": None}, []),
        ({"dead": 1}, ["dead letters"]),
    ],
)
def test_what_is_worse_than_allowed_is_named(changed: dict[str, Any], worse: list[str]) -> None:
    ratios = saved.compare(figures(), figures(**changed), 0.1)
    assert [one.measure for one in ratios if one.is_worse] == worse


def test_runs_of_other_steps_input_or_load_are_not_alike_and_other_code_is() -> None:
    assert saved.differences(figures(), figures(plan="other", machine={})) == []
    for changed in (
        {"topology": "x"}, {"graph": "x"}, {"input_digest": "x"}, {"records": 1}, {"rate": 5.0}, {"processes": 2},
        {"guarantee": "exactly_once"},
    ):  # fmt: skip
        assert len(saved.differences(figures(), figures(**changed))) == 1
    assert saved.other_machine(figures(), figures(machine={"cores": 4, "sage": "2"})) == ["cores 2 and 4"]


# ------------------------------------------------------------------------------------------------- runs


class InThisProcess:
    """Workers whose one process is the test's own."""

    failure: SageError | None = None

    def __init__(self, arguments: Any, count: int, environ: Any, note: Any) -> None:
        self.environment: LocalEnvironment = arguments
        self.pids = [os.getpid()]

    def check(self) -> None:
        if InThisProcess.failure is not None:
            raise InThisProcess.failure

    def __enter__(self) -> InThisProcess:
        self.environment.run_streaming(block=False)
        return self

    def __exit__(self, *error: object) -> None:
        self.environment.stop(1)


@pytest.fixture
def bench(clients: InMemoryClients, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Makes a run of a topology that takes words, drops one in four, chokes on one in ten."""

    class Found:
        control_topics = None

        def clients(self, *_: Any) -> InMemoryClients:
            return clients

    monkeypatch.setattr("sage.wiring.brokers.find_brokers", lambda *_, **__: Found())
    monkeypatch.setattr(running, "Workers", InThisProcess)
    monkeypatch.setattr(running, "_LOOK_EVERY", 0.01)
    monkeypatch.setattr(InThisProcess, "failure", None)

    def choke(value: int) -> int:
        if value % 10 == 1:
            raise ValueError("one in ten")
        return value

    def make(load: Load, timeout: float | None = None, **options: Any) -> Bench:
        builder = StreamBuilder("words", guarantee=options.pop("guarantee", "at_least_once"))
        kept = builder.from_topic("elsewhere", name="in").filter(lambda value: value % 4, name="keep")
        kept.map(choke, name="choke", **options).to("out")
        topology = builder.build()
        run = isolated(topology, "words-bench-1")
        environment = LocalEnvironment.of(run.topology, data_dir=tmp_path)
        sample = Sample("numbers", tuple(Feed(b"%d" % number) for number in range(20)))
        workers: Any = environment
        return Bench(topology, run, environment.plan(), sample, load, workers, {}, timeout)

    yield make
    remove_run(clients, "words-bench-1", tmp_path)
    assert [info.name for info in clients.admin().list_topics()] == []


def test_a_run_counts_what_came_out_and_what_died(clients: InMemoryClients, bench: Any) -> None:
    found = bench(Load(400, None, 1)).measure(clients)
    assert (found.records, found.outputs, found.dead) == (400, 260, 40)
    assert found.latency is None
    assert (found.topology, found.input, found.rate, found.processes) == ("words", "numbers", None, 1)
    assert found.memory_mib is not None
    assert found.memory_mib > 1
    json.dumps(found.as_dict())


def test_at_a_rate_latency_is_that_of_the_records_after_the_first(clients: InMemoryClients, bench: Any) -> None:
    found = bench(Load(100, 400.0, 1)).measure(clients)
    assert (found.outputs, found.dead) == (65, 10)
    assert found.latency is not None
    assert 0 < found.latency.p50 <= found.latency.p99
    assert found.records_per_second is not None
    assert found.records_per_second < 800  # it can't be much faster than it is fed


def test_outputs_are_not_counted_where_markers_would_be(clients: InMemoryClients, bench: Any) -> None:
    found = bench(Load(40, None, 1), guarantee="exactly_once").measure(clients)
    assert (found.outputs, found.dead) == (None, 4)


def test_the_end_of_its_time_ends_it(clients: InMemoryClients, bench: Any) -> None:
    with pytest.raises(DeadlineExceeded, match="until the time was over"):
        bench(Load(20, 0.5, 1), timeout=0.2).measure(clients)


def test_a_worker_that_ends_ends_it_with_its_code(clients: InMemoryClients, bench: Any) -> None:
    InThisProcess.failure = SageError("a worker process ended", exit_code=3)
    with pytest.raises(SageError, match="ended") as raised:
        bench(Load(20, None, 1)).measure(clients)
    assert raised.value.exit_code == 3
