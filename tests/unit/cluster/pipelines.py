"""Plans that can be deployed, for tests of the control plane."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Any

from pydantic import BaseModel, Field

from sage.graph import StreamBuilder
from sage.graph.topology import Topology
from sage.model.json import Json
from sage.plan.plan import Plan
from sage.plan.planner import compile_plan
from sage.spec.component import Operator, Source


class Ask(Operator[Any, Any]):
    """Stands for a step with options."""

    class Config(BaseModel):
        top_k: int = 2
        api_key: str | None = Field(default=None, json_schema_extra={"secret": True})

    def process(self, value: Any, ctx: Any) -> Any:
        return value


class Nothing(Source[int]):
    """Stands for a source."""

    async def read(self, task: str, position: Json | None, *, bounded: bool) -> AsyncIterator[tuple[int, Json]]:
        for number in range(0):
            yield number, number


class Seen(BaseModel):
    """The state of one key."""

    n: int = 0


class Spelt(BaseModel):
    """The same in words: neither can read the other."""

    n: str = ""


def shout(value: Any) -> Any:
    return value


def count(value: Any, ctx: Any) -> Any:
    ctx.state.n += 1
    yield {"key": ctx.key, "n": ctx.state.n}


def environment(name: str = "qa", **options: Any) -> StreamBuilder:
    return StreamBuilder(name, environ={}, **options)


def asking(name: str = "qa", config: Mapping[str, Any] | None = None, **options: Any) -> Plan:
    """Reads ``NAME-in``, one stage ``ask``, one stage ``say`` that writes ``NAME-out``."""
    env = environment(name)
    env.from_topic(f"{name}-in").map(Ask, config, name="ask", **options).map(shout, name="say", partitions=1).to(
        f"{name}-out"
    )
    return compile_plan(env.build())


def counting(
    name: str = "qa", *, partitions: int = 2, moved: Mapping[str, str] | None = None, step: str = "count",
    state: type[BaseModel] = Seen,
) -> Plan:  # fmt: skip
    """Reads ``NAME-in``, keys it in stage ``by``, counts per key in stage ``count``, writes ``NAME-out``."""
    env = environment(name)
    keyed = env.from_topic(f"{name}-in").key_by("user", name="by", partitions=partitions)
    keyed.process(count, state=state, name=step).to(f"{name}-out")
    return compile_plan(_moved(env.build(), moved or {}))


def two_sources(left: dict[str, str], right: dict[str, str]) -> Plan:
    """Sources ``left`` and ``right``, with these labels, each into a topic of its own."""
    env = environment()
    env.from_source(Nothing, name="left", labels=left).to("qa-left", name="left-out")
    env.from_source(Nothing, name="right", labels=right).to("qa-right", name="right-out")
    return compile_plan(env.build(), source_tasks={"left": ["0"], "right": ["0"]})


def _moved(topology: Topology, moved: Mapping[str, str]) -> Topology:
    return replace(topology, moved=dict(moved))
