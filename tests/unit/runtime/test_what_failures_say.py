"""What a user reads where the code of a step, or of a source, is not what it has to be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from sage.errors import InvalidTopology, StageStopped
from sage.graph.builder import StreamBuilder
from sage.model.json import Json
from sage.spec.component import Operator
from sage.spec.context import Context, OpenContext
from tests.unit.runtime.sources.test_source_task import Desk, Scripted
from tests.unit.testing.driven import MakeDriver


async def promised(value: Any) -> Any:
    return value


def builder_of(verb: str, target: Any, **options: Any) -> StreamBuilder:
    builder = StreamBuilder("t")
    getattr(builder.from_collection([], name="source"), verb)(target, name="work", **options)
    return builder


@pytest.mark.filterwarnings("error")  # of a coroutine that was never awaited
@pytest.mark.parametrize("verb", ["map", "flatmap"])
def test_a_promise_that_a_lambda_hides_is_named(sage_driver: MakeDriver, verb: str) -> None:
    driver = sage_driver(builder_of(verb, lambda value: promised([value])))
    driver.send(1)
    (letter,) = driver.dead_letters()
    assert "gave a coroutine, which nothing awaits; write the step with `async def`" in letter.message


def test_a_step_that_takes_too_long_says_how_long_it_had(sage_driver: MakeDriver) -> None:
    async def slow(value: Any) -> Any:
        await asyncio.sleep(99)
        return value

    driver = sage_driver(builder_of("map", slow, timeout="1500ms", retry={"attempts": 1}))
    driver.send(1)
    driver.advance(5)
    (letter,) = driver.dead_letters()
    assert (letter.error, letter.message) == ("TimeoutError", "it took longer than the step's timeout, 1.5 s")


def test_a_time_out_of_the_code_itself_keeps_its_words(sage_driver: MakeDriver) -> None:
    async def refused(value: Any) -> Any:
        raise TimeoutError("the pool is empty")

    driver = sage_driver(builder_of("map", refused, timeout="5s", retry={"attempts": 1}))
    driver.send(1)
    assert [letter.message for letter in driver.dead_letters()] == ["the pool is empty"]


class Refusing(Operator[str, str]):
    async def open(self, ctx: OpenContext) -> None:
        raise RuntimeError("no database")

    def process(self, value: str, ctx: Context) -> str:
        return value


class Plain(Operator[str, str]):
    """Opens and closes without ``async``."""

    said = ""

    def open(self, ctx: OpenContext) -> None:  # type: ignore[override]
        self.said = f"opened in {ctx.topology}"

    def close(self) -> None:  # type: ignore[override]
        self.said = "closed"

    def process(self, value: str, ctx: Context) -> str:
        return f"{value}, {self.said}"


def test_a_component_that_cannot_be_opened_is_named_with_its_step(sage_driver: MakeDriver) -> None:
    with pytest.raises(StageStopped, match=r't step "work": opening .*Refusing failed: RuntimeError: no database'):
        sage_driver(builder_of("map", Refusing)).send("a")


def test_a_component_may_open_and_close_without_async(sage_driver: MakeDriver) -> None:
    driver = sage_driver(builder_of("map", Plain))
    driver.send("a")
    assert driver.outputs("work") == ["a, opened in t"]


@pytest.mark.parametrize("call", [(5, promised, 1), ("buy", "promised", 1), ("buy", lambda x: x, 1)])
def test_a_call_that_could_not_be_kept_is_refused_by_name(sage_driver: MakeDriver, call: tuple[Any, ...]) -> None:
    async def buys(value: Any, ctx: Context) -> Any:
        return await ctx.call(*call)

    driver = sage_driver(builder_of("map", buys, journal=True))
    driver.send(1)
    (letter,) = driver.dead_letters()
    assert letter.error == "TypeError"
    assert "async function" in letter.message


class Bare(Scripted):
    async def read(self, task: str, position: Json | None, *, bounded: bool) -> AsyncIterator[tuple[Any, Json]]:
        yield 5  # type: ignore[misc]


class Numbered(Bare):
    def tasks(self) -> list[str]:
        return [1, 2]  # type: ignore[list-item]


def test_a_source_that_gives_no_position_is_told_what_to_give() -> None:
    desk = Desk(source=Bare)
    desk.begin()
    desk.order()
    desk.run()
    assert 'source "file": read() must yield (value, position)' in str(desk.failure)


def test_tasks_that_are_no_names_are_refused_where_the_source_is_named() -> None:
    from sage.environments.local import LocalEnvironment

    env = LocalEnvironment("t")
    env.from_source(Numbered, name="numbers").collect()
    with pytest.raises(InvalidTopology, match=r'step "numbers": tasks\(\) must return names, as text; found \(1, 2\)'):
        env.plan()
