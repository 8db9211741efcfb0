"""What a run did, in numbers."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage.graph.builder import StreamBuilder
from sage.graph.topology import Input, Step, Topology
from sage.model.json import Json
from sage.plan.planner import compile_plan
from sage.runtime.runs.counters import Durations, StepCounters
from sage.runtime.runs.report import RunReport, StepReport, delivered, entered
from sage.spec.component import Source


@given(st.lists(st.floats(1e-5, 1e3), min_size=1, max_size=200), st.sampled_from([0.5, 0.95, 0.99]))
def test_a_quantile_is_right_within_a_tenth(times: list[float], q: float) -> None:
    durations = Durations()
    for seconds in times:
        durations.add(seconds)
    right = sorted(times)[math.ceil(q * len(times)) - 1]
    found = durations.quantile(q)
    assert found is not None
    assert right / 1.11 <= found <= right * 1.11
    assert durations.count == len(times)


def test_many_calls_of_one_batch_count_each() -> None:
    durations = Durations()
    durations.add(0.001, 99)
    durations.add(10.0)
    assert durations.count == 100
    assert durations.quantile(0.5) == pytest.approx(0.001, rel=0.1)
    assert durations.quantile(0.99) == pytest.approx(0.001, rel=0.1)
    assert durations.quantile(1.0) == pytest.approx(10.0, rel=0.1)


def test_nothing_measured_is_nothing_and_not_zero() -> None:
    assert Durations().quantile(0.5) is None
    assert StepReport.of("a", StepCounters()).p95 is None


def test_no_time_at_all_is_a_time() -> None:
    durations = Durations()
    durations.add(0.0)
    assert durations.quantile(0.5) == pytest.approx(1e-6, rel=0.1)


def test_a_step_report_is_a_snapshot() -> None:
    counters = StepCounters(read=3, written=2, retried=5, skipped=1, dead=1, last_error="KeyError: 'x'")
    report = StepReport.of("work", counters)
    counters.read = 99
    assert (report.read, report.written, report.retried, report.skipped, report.dead) == (3, 2, 5, 1, 1)
    assert report.last_error == "KeyError: 'x'"


def test_a_run_sums_its_steps() -> None:
    steps = {"source": StepReport("source", 10, 10), "work": StepReport("work", 10, 7, 4, 2, 1)}
    report = RunReport("t", steps, 1.5)
    assert (report.retried, report.skipped, report.dead) == (4, 2, 1)


class Numbers(Source[int]):
    async def read(self, task: str, position: Json | None, *, bounded: bool) -> AsyncIterator[tuple[int, Json]]:
        yield 1, 1


def numbers(**read: int) -> dict[str, StepReport]:
    return {name: StepReport(name, count, count) for name, count in read.items()}


def test_all_sources_count_as_read() -> None:
    builder = StreamBuilder("t")
    one, two = builder.from_source(Numbers, name="one"), builder.from_source(Numbers, name="two")
    one.union(two).map(str, name="work")
    plan = compile_plan(builder.build(), source_tasks={"one": ("0",), "two": ("0",)})
    assert entered(plan, numbers(one=3, two=4, work=7)) == 7
    assert entered(plan, {}) == 0


def test_a_topic_counts_once_however_many_stages_read_it() -> None:
    builder = StreamBuilder("t")
    lines, more = builder.from_topic("lines", name="lines"), builder.from_topic("more", name="more")
    lines.map(str, name="first")
    lines.map(str, name="second")
    more.map(str, name="third")
    plan = compile_plan(builder.build())
    assert entered(plan, numbers(first=5, second=5, third=2)) == 7


def test_a_stage_that_reads_a_source_and_a_topic_counts_each_record_once() -> None:
    builder = StreamBuilder("t")
    builder.from_source(Numbers, name="one").union(builder.from_topic("lines", name="lines")).map(str, name="work")
    plan = compile_plan(builder.build(), source_tasks={"one": ("0",)})
    assert entered(plan, numbers(one=3, work=8)) == 8


@given(st.lists(st.floats(1e-5, 1e3), max_size=50), st.lists(st.floats(1e-5, 1e3), max_size=50))
def test_the_numbers_of_a_second_run_are_its_own(first: list[float], second: list[float]) -> None:
    counters, alone = StepCounters(), Durations()
    for times in (first, second):
        earlier = counters.copy()
        for seconds in times:
            counters.read += 1
            counters.durations.add(seconds)
    for seconds in second:
        alone.add(seconds)
    run = counters.since(earlier)
    assert (run.read, run.durations.count) == (len(second), len(second))
    assert run.durations.quantile(0.5) == alone.quantile(0.5)
    assert counters.read == len(first) + len(second)


def test_an_error_of_an_earlier_run_is_not_told_again() -> None:
    counters = StepCounters(dead=1, last_error="KeyError: 'x'")
    earlier = counters.copy()
    assert counters.since(earlier).last_error == ""
    counters.dead = 2
    assert counters.since(earlier).last_error == "KeyError: 'x'"


def test_a_run_is_one_line_with_the_steps_that_took_time() -> None:
    steps = {
        "questions": StepReport("questions", 5, 5),
        "retrieve": StepReport("retrieve", 5, 5, p50=0.0182),
        "generate": StepReport("generate", 5, 5, p50=1.26),
        "answers": StepReport("answers", 5, 0, p50=0.0001),
    }
    line = str(RunReport("qa", steps, 4.13, delivered=5, read=5))
    assert line == "5 in, 5 out, 0 retried, 0 dead, 4.1 s.  retrieve p50 18 ms, generate p50 1.3 s"


def test_what_a_topic_sink_was_given_counts_as_delivered() -> None:
    topology = Topology(
        "t",
        (
            Step("lines", "source"),
            Step("up", "map", inputs=(Input("lines"),)),
            Step("out", "sink", "topic", inputs=(Input("up"),)),
            Step("shown", "sink", inputs=(Input("lines"),)),
        ),
    )
    steps = {"lines": StepReport("lines", 3, 3), "up": StepReport("up", 3, 2), "shown": StepReport("shown", 3, 3)}
    assert delivered(topology, steps) == 2 + 3


def test_the_line_says_what_was_skipped_and_that_time_was_over() -> None:
    steps = {"source": StepReport("source", 3, 3), "work": StepReport("work", 3, 1, retried=2, skipped=1, dead=1)}
    report = RunReport("t", steps, 0.2, complete=False, waiting_for="t.work", dead_letters=1, delivered=1, read=3)
    assert str(report) == "3 in, 1 out, 2 retried, 1 skipped, 1 dead, 0.2 s, not complete."
