"""A stored plan comes back as the plan it was, with the code that it names or without."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from pydantic import BaseModel, Field

from sage.errors import InvalidTopology, UnknownName
from sage.graph import StreamBuilder
from sage.graph.topology import Origin, Topology
from sage.plan.decoding import load_installed, plan_from_json
from sage.plan.encoding import Elsewhere
from sage.plan.plan import Plan
from sage.plan.planner import compile_plan
from sage.spec.component import Operator, Sink, Source
from tests.unit.plan.test_planner_properties import planned, topologies


class Ask(Operator[Any, Any]):
    class Config(BaseModel):
        model: str = "small"
        api_key: str | None = Field(default=None, json_schema_extra={"secret": True})

    def process(self, value: Any, ctx: Any) -> Any:
        return value


class Count(BaseModel):
    seen: int = 0


class Lines(Source[Any]): ...


class Out(Sink[Any]): ...


def clean(value: Any) -> Any:
    return value


def count(value: Any, ctx: Any) -> Any:
    ctx.state.seen += 1
    yield value


def due(name: str, ctx: Any) -> Any:
    yield name


def is_long(value: Any) -> bool:
    return len(value) > 3


def everything() -> Plan:
    """A plan that uses all that a step can have."""
    env = StreamBuilder(
        "all", guarantee="exactly_once", defaults={"partitions": 3, "retry": {"attempts": 2}}, environ={},
        memory={"token": "${TOKEN}"}, kafka={"linger.ms": 1},
    )  # fmt: skip
    lines = env.from_source(Lines, name="lines", partitions=2)
    asked = lines.map(Ask, {"api_key": "${KEY}"}, name="ask", concurrency=4, timeout="2s")
    branches = asked.route({"long": is_long, "short": "size(value) < 2"}, name="pick")
    counted = branches.long.key_by("user").process(count, state=Count, ttl="1h", on_timer=due, name="count")
    counted.map(clean).to("counted")
    branches.short.union(branches.other).sink(Out, name="rest")
    return compile_plan(env.build(), source_tasks={"lines": ["a", "b"]})


def through_text(plan: Plan) -> dict[str, Any]:
    stored: dict[str, Any] = json.loads(json.dumps(plan.to_json()))
    return stored


@given(topologies())
@settings(max_examples=100, deadline=None)
def test_every_plan_comes_back_the_same_with_its_code_and_without(topology: Topology) -> None:
    plan = planned(topology)
    stored = through_text(plan)
    back = plan_from_json(stored, load=load_installed)
    assert back.hash == plan.hash
    assert back.to_json() == plan.to_json()
    assert plan_from_json(stored).to_json() == plan.to_json()


def test_all_that_a_step_can_have_comes_back() -> None:
    plan = everything()
    back = plan_from_json(through_text(plan), load=load_installed)
    assert back.hash == plan.hash
    assert back.topology == plan.topology
    assert back.stages == plan.stages
    assert back.topics == plan.topics
    assert back.source_tasks == plan.source_tasks
    assert back.to_json() == plan.to_json()
    step = back.topology.by_name["count"]
    assert (step.target, step.state, step.on_timer, step.ttl) == (count, Count, due, 3600.0)


def test_without_a_loader_code_is_named_and_not_imported() -> None:
    plan = everything()
    back = plan_from_json(through_text(plan))
    step = back.topology.by_name["count"]
    assert isinstance(step.target, Elsewhere)
    assert step.target.reference == f"{__name__}:count"
    assert isinstance(step.state, Elsewhere)
    assert back.hash == plan.hash


def test_code_that_differs_gives_another_hash() -> None:
    plan = everything()
    others = {f"{__name__}:clean": is_long}

    def load(reference: str, component: Any) -> Any:
        return others.get(reference) or load_installed(reference, component)

    assert plan_from_json(through_text(plan), load=load).hash != plan.hash


def test_all_code_that_is_missing_is_told_with_its_step() -> None:
    def load(reference: str, component: Any) -> Any:
        if reference.endswith((":clean", ":due")):
            raise UnknownName(f"no module for {reference}")
        return load_installed(reference, component)

    with pytest.raises(InvalidTopology) as raised:
        plan_from_json(through_text(everything()), load=load)
    lines = str(raised.value).splitlines()
    assert len(lines) == 2
    assert all("test_decoding.py" in line or "step" in line for line in lines)


def test_steps_of_another_process_are_not_loaded() -> None:
    loaded: list[str] = []

    def load(reference: str, component: Any) -> Any:
        loaded.append(reference)
        return load_installed(reference, component)

    back = plan_from_json(through_text(everything()), load=load, elsewhere={"lines", "count"})
    assert isinstance(back.topology.by_name["lines"].target, Elsewhere)
    assert back.hash == everything().hash
    assert not {name for name in loaded if name.endswith((":Lines", ":count", ":Count", ":due"))}


def test_the_place_of_a_secret_is_there_for_the_worker() -> None:
    plan = everything()
    stored = through_text(plan)
    (ask,) = (step for step in stored["steps"] if step["name"] == "ask")
    ask["origin"] = ["rag.yaml", 9, 3, "steps.ask"]
    ask["places"] = {"config.api_key": ["rag.yaml", 11, 86, "steps.ask.config.api_key"]}
    back = plan_from_json(stored, load=load_installed)
    step = back.topology.by_name["ask"]
    assert step.origin == Origin("rag.yaml", 9, 3, "steps.ask")
    assert step.where_of("config.api_key") == "rag.yaml:11:86 steps.ask.config.api_key"
    assert back.hash == plan.hash, "where a step was written is no part of what it does"


@pytest.mark.parametrize(
    ("damage", "reason"),
    [({"format": 99}, "newer SAGE"), ({"steps": [{}]}, "not a plan"), ({"stages": None}, "not a plan")],
)
def test_what_is_newer_or_damaged_is_refused(damage: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidTopology, match=reason):
        plan_from_json({**through_text(everything()), **damage})
