"""One worker of a scenario: ``python -m tests.chaos.worker BROKERS TOPOLOGY KIND GUARANTEE FOLDER [REPLICAS]``."""

from __future__ import annotations

import asyncio
import faulthandler
import itertools
import logging
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from sage import LocalEnvironment
from sage.graph.topology import TopicSettings
from sage.model.record import Record
from sage.spec.component import Source
from sage.spec.context import Context

PARTITIONS = 4
POISON = 97
"""Of a faltering kind every record whose number divides by this is dead; by ``FALTERS`` its first try fails."""
FALTERS = 13

Kind = str
KINDS: tuple[Kind, ...] = (
    "sync", "async", "state", "async-state", "source", "chain", "falter", "async-falter",
    "partition", "none", "timer", "async-timer", "loop",
)  # fmt: skip
"""What a topology of a scenario is made of; see ``environment``."""
FALTERING = {"falter", "async-falter", "partition", "none"}
COUNTING = {"state", "async-state", "chain", "timer", "async-timer"}
"""Kinds whose outputs carry the number of their key's records up to then."""


class Count(BaseModel):
    """A key's state."""

    n: int = 0


Numbered = tuple[Record[dict[str, Any]], int]


class Numbers(Source[dict[str, Any]]):
    """Two tasks that give the numbers below the one that a file says, which grows."""

    class Config(BaseModel):
        path: str

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._path = Path(config.path)

    def tasks(self) -> list[str]:
        return ["even", "odd"]

    async def read(self, task: str, position: Any, *, bounded: bool) -> AsyncIterator[Numbered]:
        first = 0 if task == "even" else 1
        number = first if position is None else position + 2
        while True:
            for there in range(number, numbers_given(self._path), 2):
                key = f"k{there % 50}"
                yield Record({"id": there, "k": key}, key), there
                number = there + 2
            if bounded:
                return
            await asyncio.sleep(0.05)


def give_numbers(path: Path, end: int) -> None:
    """Let ``Numbers`` have those below ``end``."""
    written = path.with_suffix(".new")
    written.write_text(str(end))
    written.replace(path)


def numbers_given(path: Path) -> int:
    """Up to where they have been given, exclusive."""
    try:
        return int(path.read_text())
    except FileNotFoundError:  # nobody has begun to
        return 0


def numbers_file(folder: Path, name: str) -> Path:
    """Where that stands, in the folder that has the folders of the topology's workers."""
    return folder / f"{name}.numbers"


def mark(value: dict[str, Any]) -> dict[str, Any]:
    return {**value, "marked": True}


async def service(number: int) -> int:
    await asyncio.sleep(0.01)
    return number


async def ask(value: dict[str, Any], ctx: Context) -> dict[str, Any]:
    """By the journal, which moves and waits with its partitions."""
    return {**value, "asked": await ctx.call("service", service, value["id"]) == value["id"]}


def count(value: dict[str, Any], ctx: Context) -> Iterator[dict[str, Any]]:
    ctx.state.n += 1
    yield {**value, "n": ctx.state.n}


async def count_slowly(value: dict[str, Any], ctx: Context) -> AsyncIterator[dict[str, Any]]:
    await asyncio.sleep(0.005)
    ctx.state.n += 1
    yield {**value, "n": ctx.state.n}


TIMER_AFTER_MS = 500


def remind(value: dict[str, Any], ctx: Context) -> Iterator[dict[str, Any]]:
    """Nothing now; by a timer of the record's own, later."""
    due = int(time.time() * 1000) + TIMER_AFTER_MS
    ctx.timer.set(f"{value['id']} {due}", at=due)
    yield from ()


def ring(name: str, ctx: Context) -> Iterator[dict[str, Any]]:
    number, due = map(int, name.split())
    ctx.state.n += 1
    yield {"id": number, "k": ctx.key, "n": ctx.state.n, "early_ms": due - int(time.time() * 1000)}


async def remind_slowly(value: dict[str, Any], ctx: Context) -> AsyncIterator[dict[str, Any]]:
    await asyncio.sleep(0.005)
    for nothing in remind(value, ctx):
        yield nothing


async def ring_slowly(name: str, ctx: Context) -> AsyncIterator[dict[str, Any]]:
    await asyncio.sleep(0.005)
    for rung in ring(name, ctx):
        yield rung


MOST_ROUNDS = 3


def rounds_of(number: int) -> int:
    """How often a record goes around before it leaves; as often as all of its key."""
    return MOST_ROUNDS - number % 2


async def go_round(value: dict[str, Any]) -> dict[str, Any]:
    await asyncio.sleep(0.005)
    return {**value, "rounds": value.get("rounds", 0) + 1}


def is_not_done(value: dict[str, Any]) -> bool:
    return bool(value["rounds"] < rounds_of(value["id"]))


AT_WORK = "at work as {}"
"""What a worker's log says as soon as it answers signals."""

tried: set[int] = set()
"""Which records this process has let fail once."""


def falter(value: dict[str, Any]) -> dict[str, Any]:
    """Poison stays poison; some others fail the first time that this process meets them."""
    number = value["id"]
    if number % POISON == 0:
        raise ValueError(f"{number} is poison")
    if number % FALTERS == 0 and number not in tried:
        tried.add(number)
        raise ConnectionError(f"{number} fails once")
    return value


async def falter_slowly(value: dict[str, Any]) -> dict[str, Any]:
    await asyncio.sleep(0.005)
    return falter(value)


def environment(
    brokers: str, name: str, kind: Kind, guarantee: Any, folder: str, replicas: str = "1"
) -> LocalEnvironment:
    """The topology of a kind of stage, from ``<name>-in`` (or a source) to ``<name>-out``."""
    env = LocalEnvironment(
        name, bootstrap_servers=brokers, guarantee=guarantee, data_dir=folder, defaults={"partitions": PARTITIONS},
        resume=True,
    )  # fmt: skip
    env.topics = TopicSettings(replication_factor=int(replicas))
    retry = {"attempts": 5, "backoff": 0.05, "max_backoff": 0.5}
    stream: Any = (
        env.from_source(Numbers, {"path": str(numbers_file(Path(folder).parent, name))}, name="numbers")
        if kind == "source" else env.from_topic(f"{name}-in")
    )  # fmt: skip
    if kind in ("sync", "source", "chain"):
        stream = stream.map(mark, name="mark")
    if kind in ("async", "chain"):
        stream = stream.map(ask, name="ask", concurrency=32)
    if kind in ("state", "chain"):
        stream = stream.key_by("k", name="keyed").process(count, name="count", state=Count)
    if kind == "async-state":
        stream = stream.key_by("k", name="keyed").process(count_slowly, name="count", state=Count, concurrency=32)
    if kind == "timer":
        stream = stream.key_by("k", name="keyed").process(remind, name="remind", state=Count, on_timer=ring)
    if kind == "async-timer":
        stream = stream.key_by("k", name="keyed").process(
            remind_slowly, name="remind", state=Count, on_timer=ring_slowly, concurrency=32
        )
    if kind == "falter":
        stream = stream.map(falter, name="falter", retry=retry)
    if kind in ("async-falter", "partition", "none"):
        ordering = "key" if kind == "async-falter" else kind
        stream = stream.map(falter_slowly, name="falter", retry=retry, concurrency=32, ordering=ordering)
    if kind == "loop":
        around = stream.loop(max_hops=MOST_ROUNDS - 1, name="around")
        routed = around.map(go_round, name="round", concurrency=32).route(
            {"again": is_not_done}, default="done", name="where"
        )
        around.close(routed.again)
        stream = routed.done
    stream.to(f"{name}-out")
    return env


def let_the_clock_jump() -> None:
    """At each SIGUSR2 the wall clock of this process jumps: an hour ahead, to the truth, an hour behind it."""
    true_ns = time.time_ns
    jumps = itertools.cycle((3_600, 0, -3_600))
    shift = 0

    def jump(*_: object) -> None:
        nonlocal shift
        shift = next(jumps) * 1_000_000_000

    time.time_ns = lambda: true_ns() + shift
    time.time = lambda: time.time_ns() / 1e9
    signal.signal(signal.SIGUSR2, jump)


if __name__ == "__main__":
    faulthandler.enable()  # where it was when a library's code crashed
    faulthandler.register(signal.SIGUSR1)  # kill -USR1 shows where every thread stands
    let_the_clock_jump()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(process)d %(levelname)s %(name)s %(message)s")
    with environment(*sys.argv[1:]) as running:
        running.submit()
        logging.getLogger("chaos").info("%s", AT_WORK.format(os.getpid()))
        running.run_streaming()
