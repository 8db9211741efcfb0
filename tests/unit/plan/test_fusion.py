from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from sage.graph import StreamBuilder
from sage.plan.plan import Plan
from sage.plan.planner import compile_plan
from sage.spec.component import Operator


def clean(value: str) -> str:
    return value


def shout(value: str) -> str:
    return value


async def later(value: str) -> str:
    return value


async def stream(value: str) -> AsyncIterator[str]:
    yield value


def batched(values: list[str]) -> list[str]:
    return values


class Upper(Operator[str, str]):
    def process(self, value: str, ctx: Any) -> str:
        return value


class Blocking(Upper):
    blocking = True


class Batched(Upper):
    async def process_batch(self, values: Any, contexts: Any) -> Any:
        return values


@pytest.fixture
def env() -> StreamBuilder:
    return StreamBuilder("t")


def labels(env: StreamBuilder) -> list[str]:
    return [f"{stage.label()} [{stage.execution}]" for stage in compile_plan(env.build()).stages]


def reason(plan: Plan, stage: str) -> str:
    return plan.by_name[stage].reasons[0]


def test_cheap_neighbours_share_a_stage(env: StreamBuilder) -> None:
    lines = env.from_topic("in")
    lines.map(clean).filter(bool, name="keep").flatmap(str.split).map(Upper).key_by("id").map(shout)
    assert labels(env) == ["clean + keep + split + upper + key_by [sync]", "shout [sync]"]


def test_the_first_of_a_chain_may_have_options_and_defaults_are_none() -> None:
    env = StreamBuilder("t", defaults={"partitions": 4, "ordering": "none"})
    env.from_topic("in").map(clean, partitions=2).map(shout)
    assert labels(env) == ["clean + shout [sync]"]


def test_nothing_fuses_onto_a_source(env: StreamBuilder) -> None:
    env.from_collection(["a"]).map(clean)
    assert labels(env) == ["collection [source]", "clean [sync]"]


def test_a_route_ends_its_stage(env: StreamBuilder) -> None:
    branches = env.from_topic("in").map(clean).route({"a": bool})
    branches.a.map(shout)
    assert labels(env) == ["clean + route [sync]", "shout [sync]"]


@pytest.mark.parametrize(
    ("second", "execution", "why"),
    [
        (lambda s: s.map(later, name="b"), "async", "b begins a stage: it is async"),
        (lambda s: s.flatmap(stream, name="b"), "async", "b begins a stage: it is async"),
        (lambda s: s.map(Blocking, name="b"), "async", "b begins a stage: it is blocking"),
        (lambda s: s.map(shout, name="b", blocking=True), "async", "b begins a stage: it is blocking"),
        (lambda s: s.map(Batched, name="b"), "async", "b begins a stage: it takes micro-batches"),
        (lambda s: s.map_batches(batched, max_size=2, max_wait=0, name="b"), "async", "it takes micro-batches"),
        (lambda s: s.route({"x": later}, name="b"), "async", "b begins a stage: it is async"),
        (lambda s: s.map(shout, name="b", timeout=3), "sync", "b begins a stage: it has options of its own (timeout)"),
        (lambda s: s.print(name="b"), "sink", "b begins a stage: it is a sink"),
    ],
)
def test_what_does_not_fuse_says_why(env: StreamBuilder, second: Any, execution: str, why: str) -> None:
    second(env.from_topic("in").map(clean))
    plan = compile_plan(env.build())
    assert plan.by_name["b"].execution == execution
    assert why in reason(plan, "b")
    assert reason(plan, "clean") == "clean begins a stage: it reads the topic in"


def test_nothing_fuses_onto_what_waits_or_is_read_twice(env: StreamBuilder) -> None:
    waited = env.from_topic("in").map(later)
    cleaned = waited.map(clean)
    cleaned.map(shout)
    cleaned.map(shout)
    plan = compile_plan(env.build())
    assert len(plan.stages) == 4
    assert reason(plan, "clean") == "clean begins a stage: later is async"
    assert reason(plan, "shout-2") == "shout-2 begins a stage: clean has 2 readers"


def test_a_step_that_is_also_written_to_a_topic_ends_its_stage(env: StreamBuilder) -> None:
    cleaned = env.from_topic("in").map(clean)
    cleaned.to("out")
    cleaned.map(shout)
    assert labels(env) == ["clean [sync]", "shout [sync]"]


def test_a_reader_of_an_emitted_branch_has_its_own_stage(env: StreamBuilder) -> None:
    cleaned = env.from_topic("in").map(clean)
    cleaned.branch("odd").map(shout)
    plan = compile_plan(env.build())
    assert reason(plan, "shout") == "shout begins a stage: it reads the branch odd of clean"


def test_a_blocking_operator_can_be_declared_quick(env: StreamBuilder) -> None:
    env.from_topic("in").map(Blocking, name="b", blocking=False)
    assert labels(env) == ["b [sync]"]
