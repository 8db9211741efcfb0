"""The actors of a plan on one thread: assembled as a worker does it, and moved by hand."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from sage.errors import SageError
from sage.plan.plan import Plan
from sage.ports import TopicInfo, Tracer
from sage.runtime.actors.actor import Actor
from sage.runtime.runs.assembly import assemble_actor, bind_stage
from sage.runtime.runs.topics import prepare_topics
from sage.runtime.steps.stage_context import StageSetting
from sage.spec.context import Services
from sage.state.in_memory import MemoryStores
from sage.testing.crash import Crash
from sage.testing.interleaving import ShuffledLoop, stir
from sage.testing.mortal import DriverClients
from sage.testing.probes import Probes
from sage.testing.virtual_time import ManualClock, VirtualBridge, VirtualLoop

WORKER = "driver"

MAX_DEATHS = 50
"""Crashes within one ``send`` or ``advance`` after which somebody is to be told."""


class Stages:
    """Every stage of a plan but its sources.

    Args:
        plan: what to run.
        clients: the broker.
        services: what steps reach.
        tracer: for spans.
        clock: virtual time.
        environ: variables for secrets in configurations.
        seed: draws the order of what may happen in any; ``None`` is always the same order.
    """

    def __init__(
        self, plan: Plan, clients: DriverClients, services: Services, tracer: Tracer, clock: ManualClock,
        environ: Mapping[str, str], seed: int | None = None,
    ) -> None:  # fmt: skip
        self.probes = Probes(self.kill)
        self._seed = "" if seed is None else str(seed)
        self._chance = None if seed is None else random.Random(seed)
        self._plan = plan
        self._clients = clients
        self._services = services
        self._tracer = tracer
        self._clock = clock
        self._environ = environ
        self.stores = MemoryStores()
        self._loop = VirtualLoop(clock) if self._chance is None else ShuffledLoop(clock, self._chance)
        self._loop.set_exception_handler(self._on_exception)
        self._bridge = VirtualBridge(self._loop)
        self._actors: list[Actor] = []
        self._topics: dict[str, TopicInfo] = {}
        self._failure: BaseException | None = None
        self._closed = False
        self._is_dead = False
        self._deaths = 0
        self.is_moving = False
        """Whether the code that asks is called from inside the topology."""

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
                self._plan,
                stage,
                steps,
                ids,
                self._clock,
                self._tracer,
                WORKER,
                partitions={name: info.partitions for name, info in self._topics.items()},
                random=random.Random(self._seed + stage.name),
            )
            actor = assemble_actor(setting, self._clients, self._bridge, self.stores)
            self._actors.append(actor)
            actor.open()

    @property
    def next_timer(self) -> float | None:
        """When something is due that waits for time to pass."""
        due = [each for actor in self._actors if actor.failure is None and (each := actor.next_due()) < math.inf]
        timer = self._loop.next_timer
        return min([*due, *([] if timer is None else [timer])], default=None)

    def pump(self) -> bool:
        """Let everything happen that can happen now; returns whether anything did.

        Raises:
            SageError: a stage stopped; again at each call, until a crash starts it anew.
        """
        moved, self.is_moving, self._deaths = False, True, 0
        try:
            while True:
                moved |= self._in_turn() if self._chance is None else self._in_any_order(self._chance)
                if not self._is_dead:
                    break
                self._rise()
                moved = True
        finally:
            self.is_moving = False
        if self._failure is not None:
            raise self._failure
        return moved

    def _in_turn(self) -> bool:
        """Each actor as far as it gets, then the loop, and again while anything moves."""
        moved, going = False, True
        while going and not self._is_dead:
            going = False
            for actor in self._actors:
                while self._step(actor):
                    going = True
                going |= self._run(self._loop.run_until_idle)
            moved |= going
        return moved

    def _in_any_order(self, chance: random.Random) -> bool:
        """One step of one actor, or a few turns of the loop, whichever is drawn."""
        assert isinstance(self._loop, ShuffledLoop)
        turns = self._loop.run_a_little
        movers = [partial(self._step, actor) for actor in self._actors]
        moved = stir([*movers, lambda: self._run(turns)], chance, lambda: self._is_dead)
        return self._run(self._loop.run_until_idle) or moved  # to know the next timer

    def _step(self, actor: Actor) -> bool:
        if actor.failure is not None or self._is_dead:
            return False
        try:
            due = actor.next_due()
            moved = actor.step(0)
            # What has waited long enough is let go in one step and polled in the next.
            return moved or (due <= self._clock.monotonic() and actor.next_due() != due)
        except Crash:
            self.kill()
        except SageError as error:
            if not self._is_dead:
                self._fail(actor, error.at(f'{self._plan.name} step "{actor.name}"'))
        except Exception as error:
            if not self._is_dead:
                self._fail(actor, error)
        return False

    def _run(self, loop: Callable[[], bool]) -> bool:
        if self._is_dead:
            return False
        try:
            return loop()
        except Crash:
            self.kill()
            return True

    def _fail(self, actor: Actor, error: Exception) -> None:
        """The stage ends as its thread would: what is settled is committed, the rest is read again."""
        self._failure = self._failure or error
        actor.failure = error
        self._end(actor)

    def _end(self, actor: Actor) -> None:
        actor.stop(0.0)
        actor.run(lambda _: None)

    def kill(self) -> None:
        """Cut the process off: from here on nothing of it reaches the broker."""
        if not self._is_dead:
            self._is_dead = True
            self._clients.kill()

    def crash(self) -> None:
        """Lose all that is in memory, as by kill -9, and start again from what is committed."""
        self.kill()
        self._rise()

    def _rise(self) -> None:
        """Start again what was killed. Raises SageError where it is killed again and again."""
        self._deaths += 1
        if self._deaths > MAX_DEATHS:
            raise SageError(f"killed {MAX_DEATHS} times without anything else happening", where=self._plan.name)
        for actor in self._actors:
            actor.task.lost(sorted(actor.assignment))
        self._cancel_tasks()
        self._actors.clear()
        self._failure = None
        self.stores.forget()
        self._is_dead = False
        self.start()

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
        if self._is_dead or isinstance(error, Crash):
            return  # it happened to nobody any more
        if error is None or self._closed:
            loop.default_exception_handler(context)
        elif self._failure is None:
            self._failure = error
