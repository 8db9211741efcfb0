"""Runs a plan in this process: its actors, its source tasks, and the end of bounded runs."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from sage.errors import DeadlineExceeded, SageError, StageStopped
from sage.model.names import group_id
from sage.plan.plan import Plan
from sage.ports import Admin, TopicInfo
from sage.runtime.actors.actor import Actor
from sage.runtime.retries.dead_count import DeadCount
from sage.runtime.runs.counters import StepCounters
from sage.runtime.runs.housekeeping import LOOK_EVERY, Housekeeping
from sage.runtime.runs.report import RunReport, StepReport, delivered, entered
from sage.runtime.runs.retention import Trimmer
from sage.runtime.runs.stage_factory import StageFactory
from sage.runtime.runs.termination import Termination
from sage.runtime.runs.topics import prepare_topics
from sage.runtime.runs.watchdog import Alarm, Watchdog, alarm_after
from sage.runtime.runs.world import World
from sage.runtime.sources.positions import ExhaustionWatch, position_key, run_name
from sage.runtime.sources.source_host import SourceHost
from sage.runtime.steps.binding import BoundStep

__all__ = ["TopologyRunner", "World"]

logger = logging.getLogger("sage.runtime")

RELEASE_TIMEOUT = 5.0
"""Seconds that all threads together have to leave their groups after the drain."""


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
        epoch: that epoch, where several processes start afresh together.
        only: the stages that run here; ``None`` is all. The others are somebody else's, and are waited for as well.

    Raises:
        InvalidTopology: ``SAGE_ALARM_AFTER`` is no duration.
    """

    def __init__(
        self, plan: Plan, world: World, *, fresh: bool, epoch: str = "", only: Collection[str] | None = None
    ) -> None:
        self.plan = plan
        self._only = only
        self._world = world
        self._alarm_after = alarm_after(world.environ)
        self._fresh_epoch = (epoch or uuid.uuid4().hex[:12]) if fresh else None
        self._hosted: list[_Hosted] = []
        self._counters: dict[str, StepCounters] = {}
        self._failures = _Failures()
        self._topics: dict[str, TopicInfo] = {}
        self._host: SourceHost | None = None
        self._actors: list[Actor] = []
        self._housekeeping: Housekeeping | None = None
        self._admin: Admin | None = None
        self._stopped = False
        self._dead: DeadCount | None = None
        self._reported: dict[str, StepCounters] = {}
        """The numbers when the last run was reported: a report tells what came after."""

    # --------------------------------------------------------------------- life

    def start(self) -> None:
        """Make topics, open every stage, then start all threads; sources wait for orders.

        Raises:
            SageError: whatever makes the plan unable to run here; nothing is left running then.
        """
        self._topics = dict(prepare_topics(self.plan, self._world.clients))
        self._dead = self._dead_count()  # before any actor can add to them
        factory = StageFactory(self.plan, self._world, self._topics)
        opened: list[tuple[str, Callable[[], None], Callable[[float], None]]] = []
        try:
            for stage in self.plan.stages:
                if stage.execution != "source" and (self._only is None or stage.name in self._only):
                    actor = factory.actor(stage)
                    self._count(actor.setting.steps)
                    self._actors.append(actor)
                    opened.append((stage.name, self._body(actor), actor.stop))
                    actor.open()
            self._host = self._open_sources(factory)
        except BaseException:
            for _, body, stop in reversed(opened):
                stop(0.0)
                body()  # asked to stop already: it only releases
            raise
        if self._host is not None:
            host = self._host
            opened.append(("sources", lambda: host.run(self._source_failed), lambda _: host.stop()))
        self._hosted = [
            _Hosted(name, threading.Thread(target=body, name=f"sage-{name}", daemon=True), stop)
            for name, body, stop in opened
        ]
        begun = 0
        try:
            for hosted in self._hosted:
                begun += 1  # before: a start that is cut short is one that may have happened
                hosted.thread.start()
            self._housekeeping = self._keep_house()
        except BaseException:  # Ctrl-C, most likely: who has joined a group leaves it again
            self._leave(begun)
            raise

    def _leave(self, begun: int) -> None:
        """Stop the first ``begun`` threads; the others are asked to stop before they start, and only release."""
        for number, hosted in enumerate(self._hosted):
            hosted.stop(0.0)
            if number >= begun:
                hosted.thread.start()
        # One whose start was cut short may not run yet, or never will: it is asked to stop, and not waited for.
        self._hosted = [hosted for hosted in self._hosted if hosted.thread.ident is not None]
        self.stop(0.0)

    def _keep_house(self) -> Housekeeping:
        self._admin = self._world.clients.admin()
        clock = self._world.clock
        house = Housekeeping(
            Watchdog(self.plan.name, self._actors, self._admin, clock, self._alarm_after),
            Trimmer(self.plan, self._partitions(), self._admin, clock),
            look_every=min(LOOK_EVERY, self._alarm_after / 4),
        )
        house.start()
        return house

    @property
    def alarms(self) -> list[Alarm]:
        """Stages of this process that are assigned, lag and don't move; after ``stop``: that did not to the end."""
        return [] if self._housekeeping is None else self._housekeeping.alarms

    def _count(self, steps: Sequence[BoundStep]) -> None:
        self._counters.update({step.name: step.counters for step in steps})

    def _open_sources(self, factory: StageFactory) -> SourceHost | None:
        # A group of their own, where others have theirs: each is given all partitions, and reads its own tasks'.
        group = "" if self._only is None else group_id(self.plan.name, "offsets-here")
        host = factory.sources(fresh_epoch=self._fresh_epoch, only=self._only, group=group)
        if host is not None:
            self._count(host.steps)
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
        had_failed = self.failed
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
        if self._housekeeping is not None:
            self._housekeeping.stop()
        for alarm in self.alarms:
            logger.error("%s stops with an alarm: %s", self.plan.name, alarm)
        if self.failed and not had_failed:
            logger.error("%s: a step failed while it was being stopped: %s", self.plan.name, self.failure)
        if self._admin is not None:
            self._admin.close()
        self._world.stores.close()

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
        here = {actor.name: actor for actor in self._actors}
        termination = Termination(self.plan, admin, watch, self._partitions(), lambda s: self._wait(s, deadline), here)
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
        dead = 0 if self._dead is None else self._dead.growth()
        now = {name: counters.copy() for name, counters in self._counters.items()}
        before, self._reported = self._reported, now
        run = {name: now[name].since(before[name]) if name in before else now[name] for name in now}
        return self._report(started, run, waiting_for=waiting_for, dead=dead)

    def wait_for_failure(self, seconds: float) -> bool:
        """Wait; raises what stopped a stage. True where the wait was cut short."""
        if self._failures.changed.wait(seconds):
            self._raise_failure()
        return False

    @property
    def failure(self) -> SageError | None:
        """What stopped the first stage that stopped by itself."""
        error = self._failures.first
        if error is None or isinstance(error, SageError):
            return error
        wrapped = StageStopped(f"{type(error).__name__}: {error}", where=self.plan.name)
        wrapped.__cause__ = error
        return wrapped

    @property
    def failed(self) -> bool:
        """Whether a stage stopped."""
        return self._failures.first is not None

    def report(self) -> RunReport:
        """The numbers since the start, over all runs."""
        return self._report(time.monotonic(), self._counters)

    def _wait(self, seconds: float, deadline: float | None) -> None:
        if self._failures.changed.wait(seconds):
            self._raise_failure()
        if self._stopped:
            raise StageStopped("stopped before the run was over", where=self.plan.name)
        if deadline is not None and time.monotonic() >= deadline:
            raise DeadlineExceeded("the run took longer than it was given")

    def _raise_failure(self) -> None:
        if (error := self.failure) is not None:
            raise error

    def _partitions(self) -> dict[str, int]:
        return {name: info.partitions for name, info in self._topics.items()}

    def _dead_count(self) -> DeadCount:
        topic = self.plan.dead_letter_topic
        info = self._topics.get(topic)
        return DeadCount(
            self._world.clients, topic, info.partitions if info is not None else 0,
            has_markers=self.plan.topology.guarantee == "exactly_once",
        )  # fmt: skip

    def _report(
        self, started: float, counters: Mapping[str, StepCounters], *, waiting_for: str = "", dead: int = 0
    ) -> RunReport:
        order = {step.name: index for index, step in enumerate(self.plan.topology.steps)}
        names = sorted(counters, key=lambda name: order.get(name, -1))
        steps = {name: StepReport.of(name, counters[name]) for name in names}
        return RunReport(
            self.plan.name, steps, time.monotonic() - started, complete=not waiting_for,
            waiting_for=waiting_for, dead_letters=dead, delivered=delivered(self.plan.topology, steps),
            read=entered(self.plan, steps),
        )  # fmt: skip
