"""Topologies that commands of the tests name, and workers can import."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel

from sage import LocalEnvironment


def double(value: int) -> int:
    return value * 2


def triple(value: int) -> int:
    return value * 3


def parity(value: int) -> int:
    return value % 2


def count(value: Any, ctx: Any) -> Any:
    ctx.state["n"] = ctx.state.get("n", 0) + 1
    yield ctx.state["n"]


def first() -> LocalEnvironment:
    """Reads ``numbers``, doubles, and writes ``doubled``."""
    env = LocalEnvironment("calc")
    env.from_topic("numbers").map(double, name="work").to("results")
    return env


def second() -> LocalEnvironment:
    """The same with other code."""
    env = LocalEnvironment("calc")
    env.from_topic("numbers").map(triple, name="work").to("results")
    return env


def without_the_step() -> LocalEnvironment:
    """A step less, whose group would be left behind."""
    env = LocalEnvironment("calc")
    env.from_topic("numbers").map(double, name="other").to("results")
    return env


def with_a_lambda() -> LocalEnvironment:
    """Nothing that a worker could import."""
    env = LocalEnvironment("calc")
    env.from_topic("numbers").map(lambda value: value, name="work").to("results")
    return env


def counting() -> LocalEnvironment:
    """Keeps state."""
    env = LocalEnvironment("counts")
    env.from_topic("numbers").key_by(parity).process(count, name="count").to("counted")
    return env


class Fragile:
    """What the tests have ``fragile`` run into."""

    failed_once: ClassVar[set[int]] = set()


def fragile(value: int) -> int:
    """Numbers below nothing are wrong; even ones find a service away the first time."""
    if value < 0:
        raise ValueError("less than nothing")
    if value % 2 == 0 and value not in Fragile.failed_once:
        Fragile.failed_once.add(value)
        raise ConnectionError("the service is away")
    return value


def giving_up() -> LocalEnvironment:
    """Records die in it, and others are tried again."""
    env = LocalEnvironment("calc")
    env.from_topic("numbers").map(fragile, name="work", retry={"attempts": 3, "backoff": "10ms"}).to("results")
    return env


def stopping() -> LocalEnvironment:
    """A wrong record stops the stage."""
    env = LocalEnvironment("calc")
    env.from_topic("numbers").map(fragile, name="work", on_error="fail").to("results")
    return env


class Total(BaseModel):
    n: int = 0


class Words(BaseModel):
    words: list[str]


def add(value: int, ctx: Any) -> Any:
    ctx.state.n = ctx.state.n + value
    yield ctx.state.n


def spell(value: int, ctx: Any) -> Any:
    ctx.state.words.append(str(value))
    yield len(ctx.state.words)


def totals() -> LocalEnvironment:
    """Keeps a number."""
    env = LocalEnvironment("totals")
    env.from_topic("numbers").key_by(parity).process(add, name="add", state=Total).to("added")
    return env


def spelt() -> LocalEnvironment:
    """Keeps something else in the same step, which can't be read as what was kept."""
    env = LocalEnvironment("totals")
    env.from_topic("numbers").key_by(parity).process(spell, name="add", state=Words).to("added")
    return env


def _counting_on(partitions: int) -> LocalEnvironment:
    env = LocalEnvironment("spread")
    read = env.from_topic("numbers").map(double, name="read", partitions=2)
    read.key_by(parity, name="by", partitions=partitions).process(count, name="count").to("counted")
    return env


def narrow() -> LocalEnvironment:
    """Counts on two partitions."""
    return _counting_on(2)


def wide() -> LocalEnvironment:
    """The same on six."""
    return _counting_on(6)
