"""Journaled calls through the test driver: what is bought twice after a crash, and what is not."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest

from sage.graph.builder import StreamBuilder
from sage.spec.context import Context
from sage.testing import TopologyDriver


@dataclass(frozen=True)
class Answer:
    """What a service gives."""

    text: str
    number: int


class Service:
    """Counts what it is asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    async def ask(self, question: str) -> Answer:
        self.asked.append(question)
        return Answer(f"to {question}", len(self.asked))


def topology(service: Service, fails: list[Exception], guarantee: Any = "at_least_once") -> StreamBuilder:
    async def step(value: str, ctx: Context) -> dict[str, Any]:
        answer = await ctx.call("ask", service.ask, value)
        if fails:
            raise fails.pop(0)
        return {"text": answer.text, "number": answer.number, "key": ctx.idempotency_key("ask")}

    builder = StreamBuilder("t", guarantee=guarantee)
    builder.from_topic("in").map(step, name="step", retry={"attempts": 3, "backoff": "100ms"})
    return builder


@pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
def test_another_try_uses_the_result_of_the_first(guarantee: str) -> None:
    service = Service()
    with TopologyDriver(topology(service, [ConnectionError("reset")], guarantee)) as driver:
        driver.send("why")
        driver.advance("5s")
        (out,) = driver.outputs("step")
    assert (out["text"], out["number"], service.asked) == ("to why", 1, ["why"])


@pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
def test_a_crash_behind_the_call_does_not_buy_it_again(guarantee: str) -> None:
    service = Service()
    with TopologyDriver(topology(service, [ConnectionError("reset")] * 2, guarantee)) as driver:
        driver.send("why")  # called, journaled, failed, waiting for its next try
        driver.crash()
        driver.advance("5s")
        (out,) = driver.outputs("step")
    assert (out["number"], service.asked) == (1, ["why"])


def test_a_call_in_flight_at_the_crash_is_made_again_with_the_same_idempotency_key() -> None:
    keys: list[str] = []

    async def slow(question: str, key: str) -> str:
        keys.append(key)
        await asyncio.sleep(10)
        return question

    async def step(value: str, ctx: Context) -> str:
        return await ctx.call("slow", slow, value, ctx.idempotency_key("slow"))

    builder = StreamBuilder("t")
    builder.from_topic("in").map(step, name="step")
    with TopologyDriver(builder) as driver:
        driver.send("why")
        driver.crash()
        driver.advance("15s")
        assert driver.outputs("step") == ["why"]
    assert len(keys) == 2
    assert len(set(keys)) == 1


def test_other_arguments_and_other_occurrences_have_results_of_their_own() -> None:
    service = Service()

    async def step(value: str, ctx: Context) -> list[int]:
        asked = [ctx.call("ask", service.ask, question) for question in ("a", "b", "a")]
        return [answer.number for answer in await asyncio.gather(*asked)]

    builder = StreamBuilder("t")
    builder.from_topic("in").map(step, name="step")
    with TopologyDriver(builder) as driver:
        driver.send("x")
        (numbers,) = driver.outputs("step")
    assert sorted(numbers) == [1, 2, 3]
    assert sorted(service.asked) == ["a", "a", "b"]


def test_a_call_without_a_journal_says_what_to_do() -> None:
    def helper(ctx: Context) -> Any:
        return getattr(ctx, "ca" + "ll")

    async def step(value: str, ctx: Context) -> Any:
        return await helper(ctx)("ask", Service().ask, value)

    builder = StreamBuilder("t")
    builder.from_topic("in").map(step, name="step")
    with pytest.raises(Exception, match="journal=True"), TopologyDriver(builder) as driver:
        driver.send("x")
