"""One stage on a bench: its setting, its task, an in-memory broker, and virtual time, without an actor around."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Protocol, cast

import orjson

from sage.graph.builder import StreamBuilder
from sage.graph.stream import DataStream
from sage.model.partition import TopicPartition
from sage.plan.plan import Plan
from sage.plan.planner import compile_plan
from sage.ports import Commit, RawMessage, TopicSpec, Tracer
from sage.runtime.actors.actor import Actor
from sage.runtime.actors.holds import Holds
from sage.runtime.batches.outbox import Outbox
from sage.runtime.batches.sync_task import SyncTask
from sage.runtime.concurrent.async_task import AsyncTask
from sage.runtime.retries.parking import ScanParked, scan_parked
from sage.runtime.runs.assembly import assemble_actor, bind_stage
from sage.runtime.runs.topics import prepare_topics
from sage.runtime.steps.stage_context import StageSetting
from sage.spec.options import Guarantee
from sage.state.in_memory import MemoryStores
from sage.testing.broker import InMemoryClients, InMemoryMessage
from sage.testing.services import ScriptedServices
from sage.testing.virtual_time import ManualClock, VirtualBridge, VirtualLoop
from sage.tracing.idle import IdleTracer

IN = "in"
"""The topic that every bench's topology reads."""


TRACE = ("traceparent", b"00-00000000000000000000000000000001-0000000000000002-00")
"""What a record without a context gets on a bench."""


class SameTrace(IdleTracer):
    """Exports nothing, and starts every trace the same."""

    def start_root(self) -> list[tuple[str, bytes]]:
        return [TRACE]


class Closable(Protocol):
    """What a test leaves open."""

    def close(self) -> None: ...


OPEN: list[Closable] = []
"""What the running test has set up; closed by a fixture when it ends."""


class Bench:
    """Builds ``from_topic("in")`` and what ``build`` adds to it, and gives the parts of one stage.

    Args:
        build: adds steps to the stream of the topic ``in``.
        stage: the stage on the bench; the first that reads ``in`` by default.
        partitions: of the topic ``in``.
        parks: whether records may go into the retry topic; a task by itself does not read it back.
        format: of the topic ``in``.
    """

    def __init__(
        self,
        build: Callable[[DataStream[Any]], Any],
        *,
        stage: str | None = None,
        partitions: int = 1,
        format: str = "json",
        message_max_bytes: int = 1_000_000,
        queue_limit: int = 100_000,
        tracer: Tracer | None = None,
        fuse: bool = True,
        guarantee: Guarantee = "at_least_once",
        parks: bool = True,
    ) -> None:
        builder = StreamBuilder("t", guarantee=guarantee)
        build(cast("DataStream[Any]", builder.from_topic(IN, format=format)))  # type: ignore[call-overload]
        self.plan: Plan = compile_plan(builder.build(), fuse=fuse)
        self.clock = ManualClock()
        self.clients = InMemoryClients(
            now_ms=self.clock.now_ms, message_max_bytes=message_max_bytes, queue_limit=queue_limit
        )
        self.clients.admin().create([TopicSpec(IN, partitions)])
        topics = prepare_topics(self.plan, self.clients)
        self.loop = VirtualLoop(self.clock)
        self.loop.set_exception_handler(lambda _, context: self.unexpected.append(context))
        self.unexpected: list[dict[str, Any]] = []
        OPEN.append(self)
        self.bridge = VirtualBridge(self.loop)
        self._stage = self.plan.by_name[stage] if stage else self.plan.stages[0]
        if not parks:
            self._stage = replace(self._stage, retry_topic="")
        self._ids = {name: info.topic_id for name, info in topics.items()}
        self._partitions = {name: info.partitions for name, info in topics.items()}
        self._tracer = tracer or SameTrace()
        self.setting = self.new_setting()
        self.producer = self.clients.producer()
        self._feeder = self.clients.producer(
            config={"message.max.bytes": 10_000_000, "queue.buffering.max.messages": 100_000}
        )

    def close(self) -> None:
        """End what is left on the loop, and the loop; nothing may have failed there unseen."""
        failed = [context for context in self.unexpected if "exception" in context]
        end(self.loop)
        assert not failed, failed

    # -------------------------------------------------------------------------------------- the parts

    def new_setting(self) -> StageSetting:
        """The stage's setting, as another worker would make its own."""
        steps = bind_stage(self.plan, self._stage, ScriptedServices(), {})
        return StageSetting(
            self.plan, self._stage, steps, self._ids, self.clock, self._tracer, "worker-1",
            partitions=self._partitions, random=random.Random(7),
        )  # fmt: skip

    def sync_task(self) -> SyncTask:
        """The stage's task, opened."""
        task = SyncTask(self.setting, Outbox(self.producer), self.bridge.call, self._scan())
        task.open(self.holds())
        return task

    def _scan(self) -> ScanParked:
        return partial(scan_parked, self.clients, clock=self.clock, stopping=self.setting.stopping)

    def holds(self) -> Holds:
        """What pauses single partitions of nobody's consumer."""
        return Holds(self.clients.consumer(None), self.clock)

    def async_task(self, *partitions: int) -> AsyncTask:
        """The stage's task, opened and assigned the partitions of ``in``."""
        task = AsyncTask(self.setting, self.bridge, self._scan(), producer=self.producer)
        task.open(self.holds())
        task.assigned({TopicPartition(IN, number): Commit(None) for number in partitions or (0,)})
        return task

    def actor(self) -> Actor:
        """An actor of the stage, opened; ``step`` it by hand."""
        actor = assemble_actor(self.new_setting(), self.clients, self.bridge, MemoryStores())
        actor.open()
        return actor

    # ---------------------------------------------------------------------------------------- moving

    def feed(self, *values: Any, keys: Any = None, partition: int = -1, raw: bool = False) -> list[RawMessage]:
        """Put values on ``in``; all that stands there now, as a consumer would give it."""
        for index, value in enumerate(values):
            key = keys[index] if keys else None
            data = value if raw else None if value is None else orjson.dumps(value)
            self._feeder.produce(IN, data, key, partition=partition if key is None else -1)
        self._feeder.flush(0)
        return self.came()

    def came(self, start: int = 0) -> list[RawMessage]:
        """What stands on ``in``, as a consumer would give it, from the ``start``-th record on."""
        found: list[RawMessage] = [*self.clients.messages(IN)]
        return found[start:]

    def run(self, seconds: float = 0.0) -> None:
        """Let the loop do what it can, and ``seconds`` pass."""
        end = self.clock.monotonic() + seconds
        self.loop.run_until_idle()
        while self.clock.monotonic() < end:
            timer = self.loop.next_timer
            self.clock.advance_to(end if timer is None else min(end, timer))
            self.loop.run_until_idle()

    # --------------------------------------------------------------------------------------- looking

    def out(self, step: str | None = None, branch: str | None = None) -> list[Any]:
        """The JSON values on the output topic of ``step`` (of the stage's last step by default)."""
        return [_value(message) for message in self.produced(step, branch)]

    def produced(self, step: str | None = None, branch: str | None = None) -> list[InMemoryMessage]:
        """The messages there."""
        name = step or self.setting.steps[-1].name
        topics = [o.topic for o in self.setting.stage.outputs if o.step == name and o.branch == branch]
        return list(self.clients.messages(topics[0]))

    def dead(self) -> list[InMemoryMessage]:
        """The dead letters."""
        return list(self.clients.messages(self.plan.dead_letter_topic))

    def dead_offsets(self) -> list[int]:
        """The input offsets of the dead letters."""
        return [int(text(each)["__connect.errors.offset"]) for each in self.dead()]


def text(message: RawMessage) -> Mapping[str, str]:
    """A message's headers as texts."""
    return {name: (value or b"").decode() for name, value in message.headers() or ()}


def _value(message: RawMessage) -> Any:
    data = message.value()
    return None if data is None else orjson.loads(data)


def end(loop: VirtualLoop) -> None:
    """Cancel what is left on a loop, and close it."""
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.run_until_idle()
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


def at(partition: int = 0) -> TopicPartition:
    """A partition of ``in``."""
    return TopicPartition(IN, partition)
