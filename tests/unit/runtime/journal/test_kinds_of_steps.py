"""Journaled calls of every kind of step: what they gave survives a crash, a time-out and a broker's absence."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from sage.graph.builder import StreamBuilder
from sage.spec.component import Operator
from sage.spec.context import Context
from sage.spec.options import Guarantee
from sage.testing import TopologyDriver
from tests.unit.runtime.acting import turn
from tests.unit.runtime.bench import Bench

GUARANTEES: Sequence[Guarantee] = ("at_least_once", "exactly_once")
AGAIN: Any = {"attempts": 9, "backoff": "100ms"}


class Service:
    """Sells answers, and fails behind the sale while it is told to."""

    def __init__(self, failures: int = 1) -> None:
        self.sold: list[Any] = []
        self.failures = failures

    async def ask(self, question: Any) -> str:
        self.sold.append(question)
        return f"to {question}"

    def fail(self) -> None:
        if self.failures:
            self.failures -= 1
            raise ConnectionError("reset")


@pytest.mark.parametrize("guarantee", GUARANTEES)
def test_a_keyed_step(guarantee: Guarantee) -> None:
    service = Service()

    async def count(value: str, ctx: Context) -> AsyncIterator[dict[str, Any]]:
        answer = await ctx.call("ask", service.ask, value)
        ctx.state["n"] = ctx.state.get("n", 0) + 1
        service.fail()
        yield {"answer": answer, "n": ctx.state["n"]}

    builder = StreamBuilder("t", guarantee=guarantee)
    builder.from_topic("in").key_by(str, name="key").process(count, name="count", retry=AGAIN)
    with TopologyDriver(builder) as driver:
        driver.send("a")
        driver.crash()
        driver.advance("10s")
        assert driver.outputs("count") == [{"answer": "to a", "n": 1}]
    assert service.sold == ["a"]


class Later(Operator[str, str]):
    """Asks when a timer is due."""

    service = Service()

    async def process(self, value: str, ctx: Context) -> AsyncIterator[str]:
        ctx.timer.set("ask", after="1s")
        for never in list[str]():
            yield never

    async def on_timer(self, name: str, ctx: Context) -> AsyncIterator[str]:
        answer = await ctx.call("ask", self.service.ask, name)
        self.service.fail()
        yield answer


@pytest.mark.parametrize("guarantee", GUARANTEES)
def test_a_timer(guarantee: Guarantee) -> None:
    Later.service = Service(failures=2)
    builder = StreamBuilder("t", guarantee=guarantee)
    builder.from_topic("in").key_by(str, name="key").process(Later, name="later", retry=AGAIN, journal=True)
    with TopologyDriver(builder) as driver:
        driver.send("a")
        driver.advance("1s")
        driver.crash()
        driver.advance("10s")
        assert driver.outputs("later") == ["to ask"]
    assert Later.service.sold == ["ask"]


class InBatches(Operator[str, str]):
    """One call for each record of a batch."""

    journaled = True
    service = Service()

    async def process_batch(self, values: Sequence[str], contexts: Sequence[Context]) -> Sequence[str]:
        asked = [ctx.call("ask", self.service.ask, value) for value, ctx in zip(values, contexts, strict=True)]
        answers = await asyncio.gather(*asked)
        self.service.fail()
        return answers


@pytest.mark.parametrize("guarantee", GUARANTEES)
def test_a_micro_batch(guarantee: Guarantee) -> None:
    InBatches.service = Service(failures=2)
    builder = StreamBuilder("t", guarantee=guarantee)
    builder.from_topic("in").map(InBatches, name="ask", retry=AGAIN, batch={"max_size": 4, "max_wait": "10ms"})
    with TopologyDriver(builder) as driver:
        for value in "abcd":
            driver.send(value)
        driver.crash()
        driver.advance("10s")
        assert sorted(driver.outputs("ask")) == [f"to {value}" for value in "abcd"]
    assert sorted(InBatches.service.sold) == list("abcd")


def test_a_result_that_is_larger_than_a_record() -> None:
    service = Service()
    large = "x" * 2_500_000

    async def fetch(question: str) -> str:
        service.sold.append(question)
        return large

    async def step(value: str, ctx: Context) -> int:
        page = await ctx.call("fetch", fetch, value)
        service.fail()
        return len(page)

    builder = StreamBuilder("t")
    builder.from_topic("in").map(step, name="step", retry=AGAIN)
    with TopologyDriver(builder) as driver:
        driver.send("a")
        driver.crash()
        driver.advance("10s")
        assert set(driver.outputs("step")) == {len(large)}
    assert service.sold == ["a"]


def test_what_a_call_raises_is_not_kept() -> None:
    asked: list[str] = []

    async def fetch(question: str) -> str:
        asked.append(question)
        if len(asked) < 3:
            raise ConnectionError("reset")
        return question

    async def step(value: str, ctx: Context) -> str:
        return await ctx.call("fetch", fetch, value)

    builder = StreamBuilder("t")
    builder.from_topic("in").map(step, name="step", retry=AGAIN)
    with TopologyDriver(builder) as driver:
        driver.send("a")
        driver.advance("10s")
        assert driver.outputs("step") == ["a"]
    assert asked == ["a"] * 3


def test_a_try_that_times_out_behind_a_call_leaves_its_result_to_the_next_one() -> None:
    service = Service(failures=1)

    async def step(value: str, ctx: Context) -> str:
        answer = await ctx.call("ask", service.ask, value)
        if service.failures:
            service.failures -= 1
            await asyncio.sleep(60)
        return answer

    builder = StreamBuilder("t")
    builder.from_topic("in").map(step, name="step", retry=AGAIN, timeout=2)
    with TopologyDriver(builder) as driver:
        driver.send("a")
        driver.advance("10s")
        assert driver.outputs("step") == ["to a"]
    assert service.sold == ["a"]


@pytest.mark.parametrize("guarantee", GUARANTEES)
def test_a_broker_that_is_away_for_a_minute_times_out_no_try_whose_answer_is_there(guarantee: Guarantee) -> None:
    service = Service()

    async def step(value: str, ctx: Context) -> str:
        return await ctx.call("ask", service.ask, value)

    bench = Bench(lambda s: s.map(step, name="work", timeout=2, retry={"attempts": 2}), guarantee=guarantee)
    actor = bench.actor()
    bench.feed("a")
    with bench.clients.deliveries_held():
        turn(bench, actor, seconds=60)
        assert service.sold == ["a"]
        assert bench.out() == []
    turn(bench, actor, times=6)
    assert bench.out() == ["to a"]
    assert bench.dead() == []
    assert service.sold == ["a"]
