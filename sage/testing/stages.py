"""The actors of a plan on one thread: assembled as a worker does it, and moved by hand."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from typing import Any, Literal

from sage.errors import SageError
from sage.model.partition import TopicPartition
from sage.plan.plan import Plan
from sage.ports import TopicInfo, Tracer
from sage.runtime.actor import Actor
from sage.runtime.assembly import assemble_actor, bind_stage
from sage.runtime.stage_context import StageSetting
from sage.runtime.topics import prepare_topics
from sage.spec.context import Services
from sage.testing.broker import InMemoryClients, InMemoryConsumer
from sage.testing.probes import Probes
from sage.testing.virtual_time import ManualClock, VirtualBridge, VirtualLoop

WORKER = "driver"


class DriverClients(InMemoryClients):
    """An in-memory broker that knows which consumers it gave out, so that a crash can abandon them."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(now_ms=clock.now_ms)
        self._given: list[InMemoryConsumer] = []

    def consumer(
        self,
        group: str | None,
        *,
        read_from: Literal["earliest", "latest"] = "earliest",
        config: Mapping[str, Any] | None = None,
    ) -> InMemoryConsumer:
        """A consumer, remembered."""
        made = super().consumer(group, read_from=read_from, config=config)
        self._given.append(made)
        return made

    def abandon_consumers(self) -> None:
        """As when their process dies: no callback, no commit."""
        given, self._given = self._given, []
        for consumer in given:
            consumer.abandon()


class Stages:
    """Every stage of a plan but its sources.

    Args:
        plan: what to run.
        clients: the broker.
        services: what steps reach.
        tracer: for spans.
        clock: virtual time.
        environ: variables for secrets in configurations.
    """

    def __init__(
        self, plan: Plan, clients: DriverClients, services: Services, tracer: Tracer, clock: ManualClock,
        environ: Mapping[str, str],
    ) -> None:  # fmt: skip
        self.probes = Probes()
        self._plan = plan
        self._clients = clients
        self._services = services
        self._tracer = tracer
        self._clock = clock
        self._environ = environ
        self._loop = VirtualLoop(clock)
        self._loop.set_exception_handler(self._on_exception)
        self._bridge = VirtualBridge(self._loop)
        self._actors: list[Actor] = []
        self._topics: dict[str, TopicInfo] = {}
        self._failure: BaseException | None = None
        self._closed = False

    def start(self) -> None:
        """Make topics, open the steps, join the groups. Raises what a step raises, with its place."""
        self._topics = dict(prepare_topics(self._plan, self._clients))
        ids = {name: info.topic_id for name, info in self._topics.items()}
        for stage in self._plan.stages:
            if stage.execution == "source":
                continue
            steps = bind_stage(self._plan, stage, self._services, self._environ)
            if stage.steps:
                for step in steps:
                    self.probes.attach(step)
            setting = StageSetting(
                self._plan, stage, steps, ids, self._clock, self._tracer, WORKER, random=random.Random(stage.name)
            )
            actor = assemble_actor(setting, self._clients, self._bridge)
            self._actors.append(actor)
            actor.open()

    @property
    def next_timer(self) -> float | None:
        """When something is due that waits for time to pass."""
        return self._loop.next_timer

    def pump(self) -> bool:
        """Let everything happen that can happen now; returns whether anything did.

        Raises:
            SageError: a stage stopped; again at each call, until a crash starts it anew.
        """
        moved, going = False, True
        while going:
            going = False
            for actor in self._actors:
                while self._step(actor):
                    going = True
                going |= self._loop.run_until_idle()
            moved |= going
        if self._failure is not None:
            raise self._failure
        return moved

    def _step(self, actor: Actor) -> bool:
        if actor.failure is not None:
            return False
        try:
            return actor.step(0)
        except SageError as error:
            self._fail(actor, error.at(f'{self._plan.name} step "{actor.name}"'))
        except Exception as error:
            self._fail(actor, error)
        return False

    def _fail(self, actor: Actor, error: Exception) -> None:
        """The stage ends as its thread would: what is settled is committed, the rest is read again."""
        self._failure = self._failure or error
        actor.failure = error
        self._end(actor)

    def _end(self, actor: Actor) -> None:
        actor.stop(0.0)
        actor.run(lambda _: None)

    def crash(self) -> None:
        """Lose all that is in memory, as by kill -9, and start again from what is committed."""
        self._clients.abandon_consumers()
        for actor in self._actors:
            actor.task.lost([TopicPartition(i.topic, n) for i in actor.setting.stage.inputs for n in self._of(i.topic)])
        self._cancel_tasks()
        self._actors.clear()
        self._failure = None
        self.start()

    def _of(self, topic: str) -> range:
        return range(self._topics[topic].partitions)

    def _cancel_tasks(self) -> None:
        self._loop.run_until_idle()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_idle()

    def close(self) -> None:
        """Drain nothing, close the steps, leave the groups. Raises what closing a step raised first."""
        if self._closed:
            return
        self._closed = True
        failures: list[BaseException] = []
        for actor in self._actors:
            if actor.failure is None:
                self._end(actor)
                failures += [actor.failure] if actor.failure is not None else []
        self._cancel_tasks()
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()
        if failures:
            raise failures[0]

    def _on_exception(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """What a callback or a forgotten task raised fails the test instead of a log line."""
        error = context.get("exception")
        if error is None or self._closed:
            loop.default_exception_handler(context)
        elif self._failure is None:
            self._failure = error
