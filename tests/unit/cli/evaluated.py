"""Topologies that answer questions without a model, for commands of the tests to name."""

from __future__ import annotations

import asyncio
from typing import Any

from sage import LocalEnvironment

KNOWN = {"How many days?": "20 days", "Who?": "the director"}

given: list[Any] = []
"""What the step was given, in this process."""


def answer(value: Any) -> dict[str, Any]:
    """Knows two answers, chokes on one question, has nothing to say to the others."""
    given.append(value)
    record = {"query": value} if isinstance(value, str) else dict(value)
    if record["query"] == "Why?":
        raise ValueError("there is no why")
    if record["query"] not in KNOWN:
        return record
    return {"query": record["query"], "answer": KNOWN[record["query"]]}


def judge(value: Any) -> dict[str, Any]:
    """A measure of its own."""
    return {**value, "metrics": {"short": 1.0}} if "answer" in value else value


def qa() -> LocalEnvironment:
    """Reads ``questions`` and writes ``answers``."""
    env = LocalEnvironment("qa")
    env.from_topic("questions", name="questions").map(answer, name="answer").to("answers")
    return env


def judged() -> LocalEnvironment:
    """The same with a measure of its own."""
    env = LocalEnvironment("qa")
    stream = env.from_topic("questions", name="questions").map(answer, name="answer")
    stream.map(judge, name="judge").to("answers")
    return env


def stopping() -> LocalEnvironment:
    """Stops at the first question that it does not know."""
    env = LocalEnvironment("qa")
    env.from_topic("questions", name="questions").map(answer, name="answer", on_error="fail").to("answers")
    return env


def remember(value: Any, ctx: Any) -> dict[str, Any]:
    """Writes to memory."""
    ctx.memory.create_collection("answers")
    return {**value, "answer": "20 days"}


def remembering() -> LocalEnvironment:
    """Would change a collection."""
    env = LocalEnvironment("qa")
    env.set_memory({"uri": "http://127.0.0.1:1"})
    env.from_topic("questions", name="questions").map(remember, name="remember").to("answers")
    return env


async def wait(value: Any) -> Any:
    """Longer than any test."""
    await asyncio.sleep(3_600)
    return value


def stuck() -> LocalEnvironment:
    """Does not come to an end by itself."""
    env = LocalEnvironment("qa")
    env.from_topic("questions", name="questions").map(wait, name="wait").to("answers")
    return env
