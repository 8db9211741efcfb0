"""Values between fused steps go through their topic's form where that is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date
from typing import Any

import pytest
from pydantic import BaseModel

from sage.errors import RecordFailure
from sage.graph.builder import StreamBuilder
from sage.plan.planner import compile_plan
from sage.runtime.batches.chain import Chain
from sage.runtime.runs.assembly import bind_stage
from sage.runtime.runs.stage_factory import StageFactory
from sage.runtime.runs.world import World
from sage.runtime.steps.outputs import Target, Targets
from sage.runtime.steps.strict_edges import make_strict
from sage.spec.context import Context
from sage.state.in_memory import MemoryStores
from sage.testing.broker import InMemoryClients, InMemoryMessage
from sage.testing.services import ScriptedServices
from sage.testing.virtual_time import ManualClock, VirtualBridge, VirtualLoop
from sage.tracing.idle import IdleTracer


class Person(BaseModel):
    name: str


class Seen:
    """What the second step of a chain was given."""

    def __init__(self, first: Any, kind: str = "map", *, strict: bool = True, second: Any = None) -> None:
        self.values: list[Any] = []
        env = StreamBuilder("t")
        stream: Any = env.from_topic("in")
        stream = getattr(stream, kind)(first, name="first")
        stream.map(second or self._look, name="second")
        plan = compile_plan(env.build())
        (stage,) = plan.stages
        steps = bind_stage(plan, stage, ScriptedServices(), {})
        if strict:
            make_strict(steps)
        self.chain = Chain(steps, Targets({("second", None): (Target("out"),)}))

    def _look(self, value: Any) -> None:
        self.values.append(value)

    def give(self, value: Any) -> list[Any]:
        self.chain.run(value, InMemoryMessage("in", 0, 0), "id")
        return self.values


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ({"when": date(2026, 1, 2)}, {"when": "2026-01-02"}),
        ([{"who": Person(name="ann")}], [{"who": {"name": "ann"}}]),
        ({"pair": (1, 2)}, {"pair": [1, 2]}),
        ({1, 2}, [1, 2]),
        (b"raw", b"raw"),
        (None, None),
        ("text", "text"),
    ],
)
def test_a_fused_step_sees_what_it_would_find_on_a_topic(given: Any, read: Any) -> None:
    def first(value: Any) -> Any:
        return given

    assert Seen(first).give(0) == [read]


def test_without_being_asked_for_values_inside_others_stay_objects() -> None:
    def first(value: Any) -> Any:
        return {"when": date(2026, 1, 2)}

    assert Seen(first, strict=False).give(0) == [{"when": date(2026, 1, 2)}]


def test_each_of_several_values_goes_through() -> None:
    def first(value: int) -> Iterator[Any]:
        for number in range(value):
            yield {"at": (number,)}

    assert Seen(first, "flatmap").give(2) == [{"at": [0]}, {"at": [1]}]


def test_a_filter_hands_on_what_it_was_given() -> None:
    assert Seen(bool, "filter").give({"a": 1}) == [{"a": 1}]


def test_a_value_without_a_form_is_its_givers_failure() -> None:
    def first(value: Any, ctx: Context) -> Any:
        return {"function": len}

    seen = Seen(first)
    with pytest.raises(RecordFailure, match="has no JSON form"):
        seen.give(0)
    assert seen.chain.current.name == "first"


def test_a_model_that_the_reader_names_is_made_of_what_was_read() -> None:
    found: list[Person] = []

    def first(value: Any) -> Any:
        return {"name": value}

    def second(person: Person) -> None:
        found.append(person)

    look: Callable[[Person], None] = second
    Seen(first, second=look).give("ann")
    assert found == [Person(name="ann")]


@pytest.mark.parametrize(("strict", "read"), [(True, {"when": "2026-01-02"}), (False, {"when": date(2026, 1, 2)})])
def test_the_stages_of_a_strict_world_are_strict(strict: bool, read: Any) -> None:
    clock = ManualClock()
    loop = VirtualLoop(clock)
    world = World(
        InMemoryClients(), ScriptedServices(), IdleTracer(), clock, VirtualBridge(loop), {}, "w", MemoryStores(),
        strict_edges=strict,
    )  # fmt: skip
    env = StreamBuilder("t")
    env.from_topic("in").map(lambda value: {"when": date(2026, 1, 2)}, name="first").map(str, name="second")
    plan = compile_plan(env.build())
    first, _ = StageFactory(plan, world, {}).setting(plan.stages[0]).steps
    loop.close()
    assert first.call is not None
    assert first.call(0, None) == read
