"""Runs a plan in this process: its actors, its source tasks, and the end of bounded runs."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from sage.errors import DeadlineExceeded, SageError, StageStopped
from sage.model.partition import TopicPartition
from sage.plan.plan import Plan, Stage
from sage.plan.topics import offsets_partitions
from sage.ports import Clock, KafkaClients, TopicInfo, Tracer
from sage.runtime.actor import Actor
from sage.runtime.assembly import assemble_actor, assemble_source, bind_stage
from sage.runtime.bridge import Bridge
from sage.runtime.counters import StepCounters
from sage.runtime.positions import ExhaustionWatch, position_key, run_name
from sage.runtime.report import RunReport, StepReport, delivered
from sage.runtime.source_host import SourceHost
from sage.runtime.stage_context import StageSetting
from sage.runtime.termination import Termination
from sage.runtime.topics import prepare_topics
from sage.spec.context import Services

logger = logging.getLogger("sage.runtime")

RELEASE_TIMEOUT = 5.0
"""Seconds that all threads together have to leave their groups after the drain."""


@dataclass(frozen=True)
class World:
    """What a runner runs in: made by the composition root or by the test driver."""

    clients: KafkaClients
    services: Services
    tracer: Tracer
    clock: Clock
    bridge: Bridge
    environ: Mapping[str, str]
    worker: str


@dataclass(slots=True)
class _Hosted:
    """An actor or the source host, and its thread."""

    name: str
    thread: threading.Thread
    stop: Callable[[float], None]


@dataclass(slots=True)
class _Failures:
    """The first failure of a run; others are logged."""

    changed: threading.Event = field(default_factory=threading.Event)
    first: BaseException | None = None

    def add(self, name: str, error: BaseException) -> None:
        """Keep it if it is the first."""
        if self.first is None:
            self.first = error
        else:
            logger.error("%s stopped too: %s", name, error)
        self.changed.set()


class TopologyRunner:
    """One plan in one process. ``start``, then bounded runs or an endless one, then ``stop``.

    Args:
        fresh: sources start at their beginning under a new epoch; else where they stopped.
    """

    def __init__(self, plan: Plan, world: World, *, fresh: bool) -> None:
        self.plan = plan
        self._world = world
        self._fresh_epoch = uuid.uuid4().hex[:12] if fresh else None
        self._hosted: list[_Hosted] = []
        self._counters: dict[str, StepCounters] = {}
        self._failures = _Failures()
        self._topics: dict[str, TopicInfo] = {}
        self._host: SourceHost | None = None
        self._stopped = False
        self._dead_seen = 0

    # --------------------------------------------------------------------- life

    def start(self) -> None:
        """Make topics, open every stage, then start all threads; sources wait for orders.

        Raises:
            SageError: whatever makes the plan unable to run here; nothing is left running then.
        """
        self._topics = dict(prepare_topics(self.plan, self._world.clients))
        self._dead_seen = self._count_dead_letters()  # before any actor can add to them
        ids = {name: info.topic_id for name, info in self._topics.items()}
        opened: list[tuple[str, Callable[[], None], Callable[[float], None]]] = []
        try:
            for stage in self.plan.stages:
                if stage.execution != "source":
                    actor = assemble_actor(self._setting(stage, ids), self._world.clients, self._world.bridge)
                    opened.append((stage.name, self._body(actor), actor.stop))
                    actor.open()
            self._host = self._open_sources(ids)
        except BaseException:
            for _, body, stop in reversed(opened):
                stop(0.0)
                body()  # asked to stop already: it only releases
            raise
        if self._host is not None:
            host = self._host
            opened.append(("sources", lambda: host.run(self._source_failed), lambda _: host.stop()))
        for name, body, stop in opened:
            thread = threading.Thread(target=body, name=f"sage-{name}", daemon=True)
            self._hosted.append(_Hosted(name, thread, stop))
            thread.start()

    def _setting(self, stage: Stage, ids: Mapping[str, str]) -> StageSetting:
        world = self._world
        steps = bind_stage(self.plan, stage, world.services, world.environ)
        self._counters.update({step.name: step.counters for step in steps})
        return StageSetting(self.plan, stage, steps, ids, world.clock, world.tracer, world.worker)

    def _open_sources(self, ids: Mapping[str, str]) -> SourceHost | None:
        stages = [stage for stage in self.plan.stages if stage.execution == "source"]
        if not stages:
            return None
        sources = {stage.name: assemble_source(self._setting(stage, ids)) for stage in stages}
        host = SourceHost(
            self.plan.name, sources, offsets_partitions(self.plan), self._world.clients, self._world.bridge,
            fresh_epoch=self._fresh_epoch,
        )  # fmt: skip
        host.open()
        return host

    def _body(self, actor: Actor) -> Callable[[], None]:
        return lambda: actor.run(self._actor_failed)

    def _actor_failed(self, actor: Actor) -> None:
        assert actor.failure is not None
        self._failures.add(actor.name, actor.failure)

    def _source_failed(self, host: SourceHost) -> None:
        assert host.failure is not None
        self._failures.add("sources", host.failure)

    def stop(self, timeout: float) -> None:
        """Drain all stages within ``timeout`` seconds, all together: sources first, then down the graph."""
        if self._stopped:
            return
        self._stopped = True
        deadline = time.monotonic() + timeout
        for hosted in reversed(self._hosted):  # the sources were added last
            hosted.stop(max(0.0, deadline - time.monotonic()))
        for hosted in self._hosted:
            hosted.thread.join(max(0.1, deadline + RELEASE_TIMEOUT - time.monotonic()))
            if hosted.thread.is_alive():
                logger.error(
                    "%s: %s did not stop in time; what it had not committed is read again", self.plan.name, hosted.name
                )

    # --------------------------------------------------------------------- runs

    def order_sources(self, *, bounded: bool) -> None:
        """Have the sources read."""
        if self._host is not None:
            self._host.order(bounded=bounded)

    def run_once(self, timeout: float | None) -> RunReport:
        """Have the sources give all they have, and wait until all it caused is committed.

        Raises:
            SageError: a stage stopped; what it had not committed is kept for the next run.
        """
        started = time.monotonic()
        deadline = None if timeout is None else started + timeout
        admin = self._world.clients.admin()
        tasks = {p: position_key(*place) for p, place in self._host.tasks.items()} if self._host is not None else {}
        past_run = run_name(self._world.worker, self._host.orders.number) if self._host is not None else ""
        watch = ExhaustionWatch(self._world.clients, tasks, past_run)
        termination = Termination(self.plan, admin, watch, self._partitions(), lambda s: self._wait(s, deadline))
        try:
            self.order_sources(bounded=True)
            termination.walk()
        except DeadlineExceeded:
            waiting_for = termination.waiting_for
        else:
            waiting_for = ""
        finally:
            watch.close()
            admin.close()
        dead_before, self._dead_seen = self._dead_seen, self._count_dead_letters()
        dead = self._dead_seen - dead_before
        return self._report(started, waiting_for=waiting_for, dead=dead)

    def wait_for_failure(self, seconds: float) -> bool:
        """Wait; raises what stopped a stage. True where the wait was cut short."""
        if self._failures.changed.wait(seconds):
            self._raise_failure()
        return False

    @property
    def failed(self) -> bool:
        """Whether a stage stopped."""
        return self._failures.first is not None

    def report(self) -> RunReport:
        """The numbers so far."""
        return self._report(time.monotonic())

    def _wait(self, seconds: float, deadline: float | None) -> None:
        if self._failures.changed.wait(seconds):
            self._raise_failure()
        if self._stopped:
            raise StageStopped("stopped before the run was over", where=self.plan.name)
        if deadline is not None and time.monotonic() >= deadline:
            raise DeadlineExceeded("the run took longer than it was given")

    def _raise_failure(self) -> None:
        error = self._failures.first
        if error is None:
            return
        if isinstance(error, SageError):
            raise error
        raise StageStopped(f"{type(error).__name__}: {error}", where=self.plan.name) from error

    def _partitions(self) -> dict[str, int]:
        return {name: info.partitions for name, info in self._topics.items()}

    def _count_dead_letters(self) -> int:
        topic = self.plan.dead_letter_topic
        info = self._topics.get(topic)
        if info is None:
            return 0
        admin = self._world.clients.admin()
        try:
            ends = admin.end_offsets([TopicPartition(topic, number) for number in range(info.partitions)])
        finally:
            admin.close()
        return sum(ends.values())

    def _report(self, started: float, *, waiting_for: str = "", dead: int = 0) -> RunReport:
        order = {step.name: index for index, step in enumerate(self.plan.topology.steps)}
        names = sorted(self._counters, key=lambda name: order.get(name, -1))
        steps = {name: StepReport.of(name, self._counters[name]) for name in names}
        return RunReport(
            self.plan.name, steps, time.monotonic() - started, complete=not waiting_for,
            waiting_for=waiting_for, dead_letters=dead, delivered=delivered(self.plan.topology, steps),
        )  # fmt: skip
