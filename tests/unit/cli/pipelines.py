"""Topologies that commands of the tests name, and workers can import."""

from __future__ import annotations

from typing import Any

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
