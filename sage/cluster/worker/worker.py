"""The worker's own loop: read what is desired and who lives, do what follows, say what is."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from sage.cluster.cluster_view import ClusterView, SeenWorker
from sage.cluster.control_log import WORKER_PREFIX, ControlLog
from sage.cluster.control_topics import ensure_control_topics
from sage.cluster.deployment import Deployment
from sage.cluster.desired import Desired
from sage.cluster.names import ControlTopics
from sage.cluster.status import BEAT_EVERY, TopologyStatus
from sage.cluster.worker.actor_host import RELEASE_PATIENCE
from sage.cluster.worker.checks import Checker
from sage.cluster.worker.chores import Chores, Lags
from sage.cluster.worker.identity import Identity, Pulse
from sage.cluster.worker.inspector import Inspector
from sage.cluster.worker.log_handler import about
from sage.cluster.worker.publisher import Publisher
from sage.cluster.worker.reconcile import Action, Adopt, Change, Goal, Peer, Place, Start, Stop, Wait, reconcile
from sage.cluster.worker.rendezvous import ranked
from sage.cluster.worker.topology_host import MakeWorld, TopologyHost
from sage.cluster.worker.units import Unit, units_of
from sage.errors import SageError
from sage.plan.plan import Plan
from sage.ports import KafkaClients
from sage.runtime.runs.clock import SystemClock
from sage.runtime.runs.watchdog import STALLED_AFTER

logger = logging.getLogger("sage.cluster")

TURN: Final = 0.1
"""Seconds between two looks at the control topics, at most."""

LOOK_OVER_EVERY: Final = 1.0
"""Seconds after which everything is looked at, whether or not anything is known to have changed."""

SETTLE: Final = BEAT_EVERY + 0.5
"""Seconds that a new worker listens before it acts, where others have been heard of: then it knows who lives."""

BURY_AFTER: Final = 600.0
"""Seconds without a heartbeat after which what a dead worker left is removed."""

STANDS_STILL_AFTER: Final = 30.0
"""Seconds without a turn of the loop after which this worker counts as dead, for those who would start it anew."""

GOODBYE: Final = 2.0
"""Seconds for the brokers to take this worker's leave."""

HAND_OVER_SHARE: Final = 0.25
HAND_OVER_MOST: Final = 6.0
"""Of the time that a leaving worker has, how much it may wait for others to run what it hosts; seconds at most."""


@dataclass(frozen=True)
class Settings:
    """How a worker works.

    Attributes:
        drain_timeout: seconds to drain in when it is told to leave.
        stalled_after: seconds that a stage may stand still before its status says so.
    """

    drain_timeout: float = 25.0
    stalled_after: float = STALLED_AFTER


class Worker:
    """Hosts what is desired of it. ``run`` returns after ``leave``; all else is safe from any thread.

    Args:
        identity: who it is.
        clients: of the control topics' brokers.
        topics: the control topics.
        checker: what may run here.
        make_world: what a topology runs in.
    """

    def __init__(
        self, identity: Identity, clients: KafkaClients, topics: ControlTopics, checker: Checker, make_world: MakeWorld,
        settings: Settings = Settings(),
    ) -> None:  # fmt: skip
        self.identity = identity
        self._clients = clients
        self._topics = topics
        self._checker = checker
        self._make_world = make_world
        self._settings = settings
        self._pulse = Pulse(identity)
        self._inspector = Inspector(checker, make_world, self._touched)
        self._leaving = threading.Event()
        self._wake = threading.Event()
        self._touched_topologies: set[str] = set()
        self._hosts: dict[str, TopologyHost] = {}
        self._units: dict[str, dict[int, tuple[Deployment, tuple[Unit, ...]]]] = {}
        self._waiting: dict[tuple[Place, tuple[str, ...]], tuple[float, float]] = {}
        self._seen: dict[str, SeenWorker] = {}
        self._roster: object = None
        self._trims: frozenset[str] = frozenset()
        self._chores: Chores | None = None
        self._next_beat = 0.0
        self._next_look_over = 0.0
        self._turned_at = time.monotonic()
        self._log: ControlLog
        self._view: ClusterView
        self._publisher: Publisher

    # ---------------------------------------------------------------------------------- for other threads

    def leave(self) -> None:
        """Have it hand over, drain and end. Safe in a signal handler."""
        self._leaving.set()
        self._wake.set()

    @property
    def is_alive(self) -> bool:
        """Whether its loop turns."""
        return time.monotonic() - self._turned_at < STANDS_STILL_AFTER

    @property
    def is_ready(self) -> bool:
        """Whether the brokers take its heartbeats, and it takes units on."""
        heard = getattr(self, "_publisher", None)
        return heard is not None and time.monotonic() - heard.heard_at < 5 * BEAT_EVERY and not self._leaving.is_set()

    @property
    def hosts(self) -> Mapping[str, TopologyHost]:
        """What runs here, by topology."""
        return dict(self._hosts)

    @property
    def lags(self) -> Lags:
        """Records that wait for what is assigned here, as measured last."""
        return {} if self._chores is None else self._chores.lags

    def _touched(self, topology: str) -> None:
        self._touched_topologies.add(topology)
        self._wake.set()

    # ------------------------------------------------------------------------------------------ life

    def run(self) -> None:
        """Work until told to leave.

        Raises:
            Unreachable, Unauthorized: the brokers can't be used at the start; later it waits for them.
        """
        ensure_control_topics(self._clients, self._topics)
        self._log = ControlLog(self._clients, self._topics)
        try:
            self._view = ClusterView(self._clients, self._topics)
            try:
                self._work()
            finally:
                self._view.close()
        finally:
            self._log.close()

    def _work(self) -> None:
        self._log.read_to_end()
        self._view.read_to_end()
        self._publisher = Publisher(self._clients, self._topics)
        chores = self._chores = Chores(
            lambda: self.hosts, lambda name: name in self._trims, self._clients, SystemClock(),
            self._settings.stalled_after,
        )  # fmt: skip
        chores.start()
        try:
            self._settle()
            while not self._leaving.is_set():
                self._guarded_turn()
                self._wake.wait(TURN)
                self._wake.clear()
            self._hand_over()
            self._end()
        finally:
            chores.stop()
            self._publisher.close()

    def _settle(self) -> None:
        """Be heard and hear the others before anything is done: a newcomer that knows of nobody takes everything."""
        mine = self._view.workers.get(self.identity.worker)
        if mine is not None:  # an earlier life's words are not true any more
            self._publisher.bury(self.identity.worker, list(mine.topologies))
        others = [name for name in self._view.live if name != self.identity.worker]
        deadline = time.monotonic() + (SETTLE if others else 0.0)
        self._beat()
        while time.monotonic() < deadline and not self._leaving.is_set():
            self._view.poll(TURN)

    def _guarded_turn(self) -> None:
        try:
            self._turn()
        except SageError as error:  # the brokers are away, or say no: what runs goes on
            logger.warning("the control topics can't be read: %s", error)
            time.sleep(1.0)

    def _turn(self) -> None:
        self._turned_at = now = time.monotonic()
        dirty = self._read()
        roster = self._current_roster()
        if roster != self._roster or now >= self._next_look_over:
            self._roster = roster
            self._next_look_over = now + LOOK_OVER_EVERY
            dirty = {*self._log.pointers, *self._hosts}
            self._trims = frozenset(name for name in self._hosts if self._is_first_host(name))
            self._bury()
        self._inspect(dirty)
        self._reconcile(dirty)
        for host in list(self._hosts.values()):
            host.tidy()
        self._say(dirty)
        if now >= self._next_beat:
            self._beat()

    def _read(self) -> set[str]:
        """What has changed, by topology."""
        dirty: set[str] = set()
        while self._touched_topologies:
            dirty.add(self._touched_topologies.pop())
        dirty |= {name for name in self._log.poll(0.0) if not name.startswith(WORKER_PREFIX)}
        spoke = self._view.poll(0.0)
        self._seen = self._view.workers
        for worker in spoke - {self.identity.worker}:
            dirty |= set() if worker not in self._seen else self._seen[worker].topologies.keys()
        return dirty

    def _live(self) -> Iterator[tuple[str, SeenWorker]]:
        """Those who live, as they were seen when this turn began."""
        return ((name, seen) for name, seen in self._seen.items() if seen.is_live)

    def _current_roster(self) -> object:
        """Who there is to host anything."""
        return {peer.worker: (peer.takes, dict(peer.labels)) for peer in self._peers(())}

    # ------------------------------------------------------------------------------------- what is to be done

    def _peers(self, mine: Iterable[TopologyStatus]) -> list[Peer]:
        """Who lives, this worker included, whatever others hear of it."""
        me = self.identity
        drained = self._log.drained_workers
        found = [
            Peer(name, seen.status.labels, not seen.status.leaving and name not in drained, seen.topologies)
            for name, seen in self._live()
            if name != me.worker
        ]
        takes = not self._leaving.is_set() and me.worker not in drained
        return [*found, Peer(me.worker, me.labels, takes, {said.topology: said for said in mine})]

    def _inspect(self, names: Iterable[str]) -> None:
        """Have all versions that matter of these topologies checked."""
        for name in names:
            pointer = self._log.pointers.get(name)
            used = frozenset() if pointer is None else _used(pointer)
            self._inspector.forget(name, used)
            for version in used:
                deployment = self._log.deployments.get((name, version))
                if deployment is not None:
                    self._inspector.look(deployment, deep=pointer is not None and version == pointer.candidate)

    def _reconcile(self, names: Iterable[str]) -> None:
        goals = [goal for name in names if (goal := self._goal(name)) is not None]
        known = {goal.desired.name for goal in goals}
        here = [
            unit.running
            for name in names
            if (host := self._hosts.get(name)) is not None
            for unit in host.units
            if not unit.is_stopping
        ]
        mine = [self._status(name) for name in known]
        actions = reconcile(self.identity.worker, goals, self._peers(mine), here, self._impatient())
        self._note_waits(names, actions)
        for action in actions:
            self._do(action)

    def _goal(self, name: str) -> Goal | None:
        known = self._units.pop(name, {})
        pointer = self._log.pointers.get(name)
        if pointer is None:
            return None
        found = self._units[name] = {}
        for version in _used(pointer):
            deployment = self._log.deployments.get((name, version))
            if deployment is None:
                continue
            one = known.get(version)
            # A number is given again: after a purge, and after a version that was checked and taken back.
            found[version] = one if one is not None and one[0] == deployment else (deployment, units_of(deployment))
        return Goal(pointer, {version: units for version, (_, units) in found.items()})

    def _do(self, action: Action) -> None:
        place = action.place
        if isinstance(action, Start):
            self._start(action)
        elif isinstance(action, Stop):
            self._hosts[place.topology].stop(action)
        elif isinstance(action, Adopt):
            self._hosts[place.topology].adopt(action)
        elif isinstance(action, Change):
            self._hosts[place.topology].change(action)

    def _start(self, action: Start) -> None:
        place = action.place
        host = self._hosts.get(place.topology)
        if host is None:
            host = self._new_host(place.topology)
        if self.identity.is_named and any(unit.unit.name == place.unit for unit in host.units):
            return  # its predecessor still has this worker's name in the group
        _, units = self._units[place.topology][place.version]
        unit = next(unit for unit in units if unit.name == place.unit)
        logger.info(
            "%s: %s starts as version %d", place.topology, place.unit, place.version,
            extra=about(place.topology, place.unit),
        )  # fmt: skip
        host.start(action, unit)

    def _new_host(self, name: str) -> TopologyHost:
        def plan_of(version: int) -> Plan:
            return self._checker.plan_of(self._log.deployment(name, version))

        self._hosts[name] = TopologyHost(name, plan_of, self._make_world, lambda: self._touched(name))
        return self._hosts[name]

    def _note_waits(self, names: Iterable[str], actions: Iterable[Action]) -> None:
        """Since when each wait goes on: a wait for other workers is another one."""
        now = time.monotonic()
        looked = set(names)
        waits = {(each.place, each.workers): each.seconds for each in actions if isinstance(each, Wait)}
        for key in [key for key in self._waiting if key[0].topology in looked and key not in waits]:
            del self._waiting[key]
        for key, seconds in waits.items():
            self._waiting.setdefault(key, (now, seconds))

    def _impatient(self) -> frozenset[Place]:
        now = time.monotonic()
        return frozenset(place for (place, _), (since, seconds) in self._waiting.items() if now - since > seconds)

    def _is_first_host(self, name: str) -> bool:
        """Whether it is this worker, of those who host a topology, that does what one of them has to do."""
        others = [worker for worker, seen in self._live() if name in seen.topologies and seen.topologies[name].stages]
        return ranked(name, "", {*others, self.identity.worker})[0] == self.identity.worker

    # ------------------------------------------------------------------------------------------- words

    def _beat(self) -> None:
        self._next_beat = time.monotonic() + BEAT_EVERY
        is_leaving = self._leaving.is_set() or self.identity.worker in self._log.drained_workers
        hosted = tuple(sorted(name for name, host in self._hosts.items() if host.units))
        self._publisher.beat(self._pulse.status(leaving=is_leaving, topologies=hosted, seen=self._log.position))

    def _status(self, name: str) -> TopologyStatus:
        host = self._hosts.get(name)
        stages = [status for unit in (host.units if host is not None else ()) for status in unit.statuses()]
        return TopologyStatus(self.identity.worker, name, tuple(stages), self._inspector.checks(name))

    def _say(self, names: Iterable[str]) -> None:
        for name in names:
            status = self._status(name)
            if status.stages or status.checks:
                self._publisher.say(status)
            else:
                self._publisher.silence(self.identity.worker, name)
            host = self._hosts.get(name)
            if host is not None and host.is_empty and name not in self._log.running:
                del self._hosts[name]

    def _bury(self) -> None:
        """Remove what workers left that died long ago; one of those who live does it."""
        if next((name for name, _ in self._live()), None) == self.identity.worker:
            for name, seen in self._seen.items():
                if seen.age > BURY_AFTER:
                    logger.info("worker %s has been away for %.0f s: its words are removed", name, seen.age)
                    self._publisher.bury(name, list(seen.topologies))

    # -------------------------------------------------------------------------------------------- leaving

    def _hand_over(self) -> None:
        """Take nothing more on, and let others start what is here before it stops, for a part of the time there is."""
        deadline = time.monotonic() + min(HAND_OVER_MOST, self._settings.drain_timeout * HAND_OVER_SHARE)
        self._beat()
        while time.monotonic() < deadline and any(host.units for host in self._hosts.values()):
            if not any(peer.takes for peer in self._peers(())):
                return
            self._guarded_turn()
            self._wake.wait(TURN)
            self._wake.clear()

    def _end(self) -> None:
        """Drain what is left, all together, and say goodbye."""
        left = self._settings.drain_timeout * (1.0 - HAND_OVER_SHARE)
        for host in self._hosts.values():
            for unit in host.units:
                unit.stop(max(1.0, left - RELEASE_PATIENCE - GOODBYE))
        while any(not unit.is_gone for host in self._hosts.values() for unit in host.units):
            self._turned_at = time.monotonic()
            self._wake.wait(TURN)
            self._wake.clear()
            if time.monotonic() >= self._next_beat:
                self._beat()
        self._say(list(self._hosts))  # what was counted to the end
        for host in self._hosts.values():
            host.close(GOODBYE / 4)
        self._publisher.goodbye(self.identity.worker, GOODBYE)


def _used(pointer: Desired) -> frozenset[int]:
    """The versions that a pointer names."""
    leaving = {each.version for each in pointer.leaving}
    running = set() if pointer.state in {"stopped", "deleted"} else {pointer.version, *leaving}
    return frozenset((running | ({pointer.candidate} if pointer.candidate is not None else set())) - {0})
