"""What a worker looks after beside its loop: lags, units that are drained, stages that stand still, edges to trim.

One thread and one admin client for all topologies; what it asks the brokers for grows with what is assigned here alone.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final

from sage.cluster.worker.actor_host import ActorHost
from sage.cluster.worker.members import ActorMember
from sage.cluster.worker.topology_host import TopologyHost
from sage.errors import SageError
from sage.model.partition import TopicPartition
from sage.ports import Admin, Clock, KafkaClients
from sage.runtime.actors.actor import Actor
from sage.runtime.runs.retention import Trimmer
from sage.runtime.runs.watchdog import STALLED_AFTER, Watchdog

logger = logging.getLogger("sage.cluster")

LOOK_EVERY: Final = 0.5
"""Seconds between two looks for units that are drained."""

MEASURE_EVERY: Final = 10.0
TRIM_EVERY: Final = 60.0

Lags = Mapping[tuple[str, TopicPartition], int]


class Chores:
    """Runs on a thread of its own, so that it looks also where everything else hangs.

    Args:
        hosts: what is here, by topology.
        trims: whether it is this worker that trims a topology's edges.
        clients: of the brokers.
        stalled_after: seconds that a stage may stand still before it is said of it.
    """

    def __init__(
        self, hosts: Callable[[], Mapping[str, TopologyHost]], trims: Callable[[str], bool], clients: KafkaClients,
        clock: Clock, stalled_after: float = STALLED_AFTER,
    ) -> None:  # fmt: skip
        self._hosts = hosts
        self._trims = trims
        self._clock = clock
        self._stalled_after = stalled_after
        self._measure_every = min(MEASURE_EVERY, stalled_after / 4)
        self._admin = clients.admin()
        self._watched: dict[str, tuple[Watchdog, list[Actor]]] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sage-chores", daemon=True)
        self.lags: Lags = {}
        """(group, partition) -> records that wait, of all that is assigned here, as measured last."""

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, within a call to the brokers."""
        self._stopping.set()
        self._thread.join(timeout=15.0)
        self._admin.close()

    def _run(self) -> None:
        measure_at = trim_at = time.monotonic()
        while not self._stopping.wait(LOOK_EVERY):
            now = time.monotonic()
            hosts = self._hosts()
            for host in hosts.values():
                if any(unit.may_be_drained for unit in host.units):
                    self._guarded(host.name, lambda host=host: host.look_for_drained(self._admin))  # type: ignore[misc]
            if now >= measure_at:
                measure_at = now + self._measure_every
                self._measure(hosts)
            if now >= trim_at:
                trim_at = now + TRIM_EVERY
                for host in hosts.values():
                    if self._trims(host.name):
                        self._guarded(host.name, lambda host=host: self._trim(host))  # type: ignore[misc]

    def _guarded(self, name: str, work: Callable[[], None]) -> None:
        try:
            work()
        except SageError as error:  # the brokers are away for a moment: the next look comes soon
            logger.info("%s: not looked at: %s", name, error)
        except Exception:  # it must not end: the next look may find what matters
            logger.exception("%s: looking after it failed", name)

    # ------------------------------------------------------------------------------------------- lags

    def _measure(self, hosts: Mapping[str, TopologyHost]) -> None:
        actors = {name: _actors(host) for name, host in hosts.items()}
        found: dict[tuple[str, TopicPartition], int] = {}
        everything = [(unit, actor) for each in actors.values() for unit, actor in each]
        try:
            found = lags_of(self._admin, [actor for _, actor in everything])
        except SageError:  # one topic that is gone must not hide the others' lags
            for name, each in actors.items():
                self._guarded(
                    name,
                    lambda each=each: found.update(lags_of(self._admin, [actor for _, actor in each])),  # type: ignore[misc]
                )
        self.lags = found
        behind = {group.partition(".")[0] for (group, _), lag in found.items() if lag}
        for name, each in actors.items():
            if name in behind or name in self._watched:
                self._guarded(name, lambda name=name, each=each: self._watch(name, each, name in behind))  # type: ignore[misc]

    def _watch(self, name: str, units: list[tuple[ActorHost, Actor]], is_behind: bool) -> None:
        """Say of stages that lag and stand still, in their status too; of those that were told to rest nothing."""
        awake = [actor for unit, actor in units if unit.running.mode == "run"]
        if not is_behind or not awake:
            self._watched.pop(name, None)
            for unit, _ in units:
                unit.alarm = ""
            return
        if name not in self._watched:
            actors: list[Actor] = []
            self._watched[name] = (Watchdog(name, actors, self._admin, self._clock, self._stalled_after), actors)
        watchdog, actors = self._watched[name]
        actors[:] = awake
        watchdog.look()
        for unit, actor in units:
            alarm = watchdog.alarms.get(actor.name) if actor in awake else None
            unit.alarm = "" if alarm is None else str(alarm)

    def _trim(self, host: TopologyHost) -> None:
        factory = next((found for unit in host.units if (found := host.factory_of(unit)) is not None), None)
        if factory is not None:
            Trimmer(factory.plan, factory.partitions, self._admin, self._clock).trim()


def lags_of(admin: Admin, actors: list[Actor]) -> dict[tuple[str, TopicPartition], int]:
    """(group, partition) -> records that wait, of what these actors have: two questions at most, however many."""
    committed: dict[tuple[str, TopicPartition], int | None] = {}
    for actor in actors:
        known = actor.committed
        group = actor.setting.stage.group
        committed.update({(group, place): known.get(place) for place in actor.assignment})
    places = sorted({place for _, place in committed})
    if not places:
        return {}
    ends = admin.end_offsets(places)
    unread = sorted({place for (_, place), offset in committed.items() if offset is None})
    starts = admin.start_offsets(unread) if unread else {}
    return {
        (group, place): max(0, ends[place] - (starts[place] if offset is None else offset))
        for (group, place), offset in committed.items()
    }


def _actors(host: TopologyHost) -> list[tuple[ActorHost, Actor]]:
    return [(unit, unit.member.actor) for unit in host.units if isinstance(unit.member, ActorMember)]
