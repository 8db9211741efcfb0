"""What holds for the plan of every topology."""

from __future__ import annotations

from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sage.errors import InvalidTopology
from sage.graph.topology import Input, Step, Topology
from sage.graph.validate import problems_of
from sage.model.names import folded
from sage.plan.plan import Plan
from sage.plan.planner import compile_plan
from sage.spec.component import Sink, Source
from sage.spec.options import Options


class Lines(Source[str]): ...


class Out(Sink[Any]): ...


def clean(value: str) -> str:
    return value


async def later(value: str) -> str:
    return value


def batched(values: list[str]) -> list[str]:
    return values


OPTIONS = st.sampled_from(
    [Options(), Options(), Options(partitions=3), Options(concurrency=2), Options(blocking=False)]
)


@st.composite
def topologies(draw: st.DrawFn) -> Topology:
    """Any wiring of any kinds of step; inputs stand before their readers, or after, at random."""
    steps: list[Step] = []
    readable: list[Input] = []
    for number in range(draw(st.integers(1, 12))):
        name = f"s{number}"
        if not readable or draw(st.integers(0, 5)) == 0:
            topic = {"topic": f"given{draw(st.integers(0, 2))}", "format": "json"}
            steps.append(
                draw(st.sampled_from([Step(name, "source", Lines), Step(name, "source", "topic", config=topic)]))
            )
            readable.append(Input(name))
            continue
        inputs = tuple(draw(st.lists(st.sampled_from(readable), min_size=1, max_size=3, unique=True)))
        kinds: list[Step] = [
            Step(name, "map", clean),
            Step(name, "map", later),
            Step(name, "filter", clean),
            Step(name, "map_batches", batched),
            Step(name, "key_by", "field"),
            Step(name, "union"),
            Step(name, "sink", Out),
            Step(name, "sink", "topic", config={"topic": f"out{draw(st.integers(0, 2))}"}),
            Step(name, "route", branches={"a": clean}, default_branch="b"),
        ]
        chosen = draw(st.sampled_from(kinds))
        steps.append(Step(**{**_fields(chosen), "inputs": inputs, "options": draw(OPTIONS)}))
        if chosen.kind == "route":
            readable += [Input(name, "a"), Input(name, "b")]
        elif chosen.kind != "sink":
            readable.append(Input(name))
    return Topology("t", tuple(steps))


def _fields(step: Step) -> dict[str, Any]:
    return {name: getattr(step, name) for name in step.__dataclass_fields__}


def planned(topology: Topology) -> Plan:
    assert problems_of(topology) == []
    try:
        return compile_plan(topology)
    except InvalidTopology as error:
        assume("twice, by way of a union" not in str(error))
        raise


@given(topologies())
@settings(max_examples=200, deadline=None)
def test_every_plan_is_sound(topology: Topology) -> None:
    plan = planned(topology)
    running = [step.name for step in topology.steps if step.kind != "union" and not step.is_topic]
    # Each step is in exactly one stage; groups, names and topics are nobody else's.
    assert sorted(step.name for stage in plan.stages for step in stage.steps) == sorted(running)
    assert len(plan.by_name) == len(plan.stages)
    assert len({stage.group for stage in plan.stages if stage.group}) == sum(bool(stage.group) for stage in plan.stages)
    names = [topic.name for topic in plan.topics]
    assert len({folded(name) for name in names}) == len(names)
    # Everything read is written by somebody before, or is somebody else's; everything written is made.
    written: set[str] = set()
    for stage in plan.stages:
        assert all(i.topic in written or i.topic in plan.external for i in stage.inputs)
        assert all(i.owned == i.topic.startswith("t.") for i in stage.inputs)
        written |= {output.topic for output in stage.outputs}
    assert written <= set(names)
    assert not written & set(plan.external)
    # Ids stay distinct where several inputs meet, and only there.
    for stage in plan.stages:
        merges = [i.merges for i in stage.inputs]
        assert len(set(merges)) == len(merges) if len(merges) > 1 else merges in ([], [None])
        assert None not in merges or len(merges) == 1
    # A topic has one writer, so that ids in it are distinct as well.
    outputs = [output.topic for stage in plan.stages for output in stage.outputs]
    assert len(set(outputs)) == len(outputs)


@given(topologies())
@settings(max_examples=50, deadline=None)
def test_only_cheap_steps_are_fused(topology: Topology) -> None:
    for stage in planned(topology).stages:
        assert stage.execution == "sync" or len(stage.steps) == 1
        for before, step in zip(stage.steps, stage.steps[1:], strict=False):
            assert step.options.is_default
            assert before.kind not in {"key_by", "route"}
            assert len(topology.consumers(before.name)) == 1


@given(topologies())
@settings(max_examples=50, deadline=None)
def test_planning_is_deterministic(topology: Topology) -> None:
    assert planned(topology).hash == planned(topology).hash
    assert planned(topology).stages == planned(topology).stages
