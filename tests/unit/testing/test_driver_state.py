"""The state that a driven step keeps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel, Field

from sage.errors import InvalidTopology, UnknownName
from sage.graph.builder import StreamBuilder
from sage.spec.component import Operator
from sage.spec.context import Context
from sage.testing import Crash
from tests.unit.testing.driven import MakeDriver, simple


class Count(BaseModel):
    n: int = 0


def count(value: str, ctx: Context) -> Iterator[int]:
    ctx.state["n"] = ctx.state.get("n", 0) + 1
    yield ctx.state["n"]


def typed(value: str, ctx: Context) -> Iterator[int]:
    ctx.state.n += 1
    yield ctx.state.n


def forgetful(value: str, ctx: Context) -> Iterator[int]:
    if value == "forget":
        ctx.clear_state()
    else:
        ctx.state["n"] = 1
    yield 1


def build(function: Any, guarantee: str = "at_least_once", **options: Any) -> StreamBuilder:
    builder = StreamBuilder("t", guarantee=guarantee)  # type: ignore[arg-type]
    stream: Any = builder.from_collection([], name="source", partitions=2).key_by(lambda value: value, name="keyed")
    stream.process(function, name="count", **options)
    return builder


@pytest.mark.parametrize(
    ("guarantee", "counts"),
    # The step before died with it: at least once it may have written its record once more.
    [("at_least_once", [{"n": 3}, {"n": 4}]), ("exactly_once", [{"n": 3}])],
)
def test_each_key_has_its_own_and_a_crash_loses_nothing(
    sage_driver: MakeDriver, guarantee: str, counts: list[dict[str, int]]
) -> None:
    driver = sage_driver(build(count, guarantee))
    for value in ("a", "b", "a"):
        driver.send(value)
    driver.advance(1)
    driver.fail_next("count", Crash(after=True))
    driver.send("a")
    driver.advance(2)
    assert driver.state("count", "a") in counts
    assert driver.state("count", "b") == {"n": 1}
    assert driver.state("count", "never") is None


def test_a_declared_model_comes_back_as_one(sage_driver: MakeDriver) -> None:
    driver = sage_driver(build(typed, state=Count))
    driver.send("a")
    driver.advance(1)
    assert driver.state("count", "a") == Count(n=1)


def test_a_model_with_other_names_outside_comes_back_by_its_own(sage_driver: MakeDriver) -> None:
    class Aliased(BaseModel):
        n: int = Field(0, alias="theNumber")

    def once(value: str, ctx: Context) -> Iterator[int]:
        ctx.state.n = 7
        yield 1

    driver = sage_driver(build(once, state=Aliased))
    driver.send("a")
    assert driver.state("count", "a").n == 7


def test_what_was_cleared_is_nothing(sage_driver: MakeDriver) -> None:
    builder = StreamBuilder("t")
    stream: Any = builder.from_collection([], name="source").key_by(lambda value: "k", name="keyed")
    stream.process(forgetful, name="count")
    driver = sage_driver(builder)
    driver.send("keep")
    driver.advance(1)
    assert driver.state("count", "k") == {"n": 1}
    driver.send("forget")
    driver.advance(1)
    assert driver.state("count", "k") is None


def ticked(name: str, ctx: Context) -> Iterator[str]:
    ctx.state["ticked"] = True
    yield name


def timed(value: str, ctx: Context) -> Iterator[str]:
    ctx.timer.set("tick", after=5)
    yield value


class Timed(Operator[str, str]):
    def process(self, value: str, ctx: Context) -> Iterator[str]:
        yield from timed(value, ctx)

    def on_timer(self, name: str, ctx: Context) -> Iterator[str]:
        yield from ticked(name, ctx)


@pytest.mark.parametrize(("step", "options"), [(timed, {"on_timer": ticked}), (Timed, {})])
def test_a_timer_can_be_made_to_fail_and_to_be_what_the_process_dies_of(
    sage_driver: MakeDriver, step: Any, options: Any
) -> None:
    driver = sage_driver(build(step, **options))
    driver.send("a")
    driver.fail_next("count", Crash(after=True))
    driver.advance(6)
    assert driver.outputs("count") == ["a", "tick"]
    assert driver.state("count", "a") == {"ticked": True}
    driver.send("b")
    driver.fail_next("count", ValueError("no"))
    driver.advance(6)
    assert sorted(driver.outputs("count")) == ["a", "b", "tick"]
    assert [(dead.step, dead.message) for dead in driver.dead_letters()] == [("count", "no")]


def test_a_step_without_state_says_so(sage_driver: MakeDriver) -> None:
    driver = sage_driver(simple())
    with pytest.raises(InvalidTopology, match="step 'work' keeps no state"):
        driver.state("work", "k")
    with pytest.raises(UnknownName, match="no step 'wrok'"):
        driver.state("wrok", "k")
