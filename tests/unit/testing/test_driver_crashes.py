"""A process that dies in the middle of its work: what was committed stays, the rest is done again."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from sage.errors import SageError
from sage.graph.builder import StreamBuilder
from sage.testing import Crash, ScriptedChatModel, TopologyDriver
from sage_connectors import TerminalSink
from tests.unit.testing.driven import MakeDriver, double, later, simple


def build(function: Any, guarantee: str = "at_least_once", **options: Any) -> StreamBuilder:
    builder = StreamBuilder("t", guarantee=guarantee)  # type: ignore[arg-type]
    builder.from_collection([], name="source").map(function, name="work", **options)
    return builder


async def quick(value: int) -> int:
    await asyncio.sleep(0)
    return value * 2


@pytest.mark.parametrize("function", [double, quick])
@pytest.mark.parametrize("after", [False, True])
def test_killed_before_or_after_the_call_the_record_is_done_once_more(
    sage_driver: MakeDriver, function: Any, after: bool
) -> None:
    calls: list[int] = []

    def counted(value: int) -> Any:
        calls.append(value)
        return value * 2

    async def awaited(value: int) -> Any:
        return counted(value)

    driver = sage_driver(build(counted if function is double else awaited))
    driver.send(1)
    driver.fail_next("work", Crash(after=after))
    driver.send(2)
    driver.advance(1)
    assert driver.outputs("work") == [2, 4]
    assert calls == ([1, 2, 2] if after else [1, 2])
    assert sum(driver.lag().values()) == 0
    assert driver.dead_letters() == []


def test_crash_called_by_a_steps_own_code_happens_there(sage_driver: MakeDriver) -> None:
    seen: list[int] = []

    def work(value: int) -> int:
        seen.append(value)
        if len(seen) == 2:
            driver.crash()
        return value

    driver: TopologyDriver = sage_driver(build(work))
    for number in range(3):
        driver.send(number)
    driver.advance(1)
    assert (driver.outputs("work"), seen) == ([0, 1, 2], [0, 1, 1, 2])


def test_a_step_cannot_catch_its_own_death(sage_driver: MakeDriver) -> None:
    tries: list[int] = []

    def stubborn(value: int) -> int:
        tries.append(value)
        if len(tries) == 1:
            try:
                driver.crash()
            except BaseException:
                return -1
        return value

    driver: TopologyDriver = sage_driver(build(stubborn))
    driver.send(7)
    driver.advance(1)
    assert (driver.outputs("work"), tries) == ([7], [7, 7])  # the -1 never reached the broker


def test_others_in_flight_die_with_it(sage_driver: MakeDriver) -> None:
    driver = sage_driver(build(later, concurrency=4))
    for number in range(3):
        driver.send(number, key=str(number))
    driver.advance(29)
    driver.fail_next("work", Crash())
    driver.send(9, key="9")
    driver.advance(20)
    assert driver.outputs("work") == []  # all four began anew
    driver.advance(15)
    assert sorted(driver.outputs("work")) == [1, 2, 3, 10]


@pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
def test_killed_between_output_and_commit(sage_driver: MakeDriver, guarantee: str) -> None:
    driver = sage_driver(build(double, guarantee))
    driver.send(1)
    if guarantee == "exactly_once":
        driver.broker.fail_next_transaction(Crash())  # type: ignore[arg-type]
    else:
        driver.broker.fail_next_commit(Crash())  # type: ignore[arg-type]
    driver.send(2)
    driver.advance(2)
    assert driver.outputs("work") == ([2, 4] if guarantee == "exactly_once" else [2, 4, 4])
    ids = [record.id for record in driver.records("work")]
    assert len(set(ids)) == 2
    driver.send(3)
    assert driver.outputs("work")[-1] == 6


def test_a_generator_dies_between_its_values_and_nothing_of_it_stays(sage_driver: MakeDriver) -> None:
    lives: list[int] = []

    def split(value: int) -> Iterator[int]:
        lives.append(value)
        yield 1
        if len(lives) == 1:
            driver.crash()
        yield 2

    builder = StreamBuilder("t")
    builder.from_collection([], name="source").flatmap(split, name="work")
    driver: TopologyDriver = sage_driver(builder)
    driver.send(0)
    driver.advance(1)
    assert driver.outputs("work") == [1, 2]
    driver.fail_next("work", Crash(after=True))
    driver.send(0)
    driver.advance(1)
    assert (driver.outputs("work"), len(lives)) == ([1, 2, 1, 2], 4)


def test_a_sink_that_is_killed_is_given_the_records_again(sage_driver: MakeDriver) -> None:
    got: list[Any] = []
    builder = StreamBuilder("t")
    builder.from_collection([], name="source").sink(TerminalSink, name="out")
    driver = sage_driver(builder, {"out": got.append})
    driver.fail_next("out", Crash(after=True))
    driver.send("a")
    driver.advance(1)
    assert got == ["a", "a"]
    assert [record.value for record in driver.records("out")] == ["a", "a"]


def test_a_model_can_be_what_the_process_dies_of(sage_driver: MakeDriver) -> None:
    from sage.operators import OpenAIGenerator

    builder = StreamBuilder("t")
    builder.from_collection([], name="source").map(OpenAIGenerator, {"model": "m"}, name="generate")
    model = ScriptedChatModel(["one", Crash(), "two"])
    driver = sage_driver(builder, {"generate": model})
    for text in ("a", "b"):
        driver.send({"query": text, "messages": [{"role": "user", "content": text}]})
    driver.advance(2)
    assert [value["answer"] for value in driver.outputs("generate")] == ["one", "two"]
    assert model.prompts == ["a", "b", "b"]


def test_a_process_that_always_dies_is_told(sage_driver: MakeDriver) -> None:
    def deadly(value: int) -> int:
        raise Crash

    driver = sage_driver(build(deadly))
    with pytest.raises(SageError, match="killed 50 times without anything else happening"):
        driver.send(1)


def test_a_crash_between_two_sends_is_as_before(sage_driver: MakeDriver) -> None:
    driver = sage_driver(simple())
    driver.send(1)
    driver.crash()
    driver.send(2)
    assert driver.outputs("work") == [2, 4]
