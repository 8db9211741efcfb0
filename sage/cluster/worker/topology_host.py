"""One topology in this process: its units, and what they share; nothing of it is shared with other topologies."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final

import orjson

from sage.cluster.worker.actor_host import ActorHost
from sage.cluster.worker.log_handler import about
from sage.cluster.worker.members import ActorMember, Member, SourcesMember, left_to_read
from sage.cluster.worker.reconcile import Adopt, Change, Place, Running, Start, Stop
from sage.cluster.worker.units import Unit
from sage.errors import NotFound
from sage.model.partition import TopicPartition
from sage.plan.plan import Plan
from sage.ports import Admin
from sage.runtime.runs.stage_factory import StageFactory
from sage.runtime.runs.topics import prepare_topics
from sage.runtime.runs.world import World

logger = logging.getLogger("sage.cluster")

LEAVE_TIMEOUT: Final = 5.0
"""Seconds in which a unit that others take over finishes what it has in hand; the rest is read again by them."""


@dataclass(frozen=True)
class OpenWorld:
    """A world, and how it is released."""

    world: World
    close: Callable[[], None]


MakeWorld = Callable[[Plan], OpenWorld]


class TopologyHost:
    """Units of one topology, of one version or of several while it changes.

    Args:
        name: the topology.
        plan_of: the plan of a version, its code imported. Raises what keeps it from being.
        make_world: what the units of a plan run in; plans of equal settings share one.
        changed: called from any thread when there is something new to say.
    """

    def __init__(
        self, name: str, plan_of: Callable[[int], Plan], make_world: MakeWorld, changed: Callable[[], None]
    ) -> None:
        self.name = name
        self._plan_of = plan_of
        self._make_world = make_world
        self._changed = changed
        self._making = threading.Lock()
        self._worlds: dict[bytes, OpenWorld] = {}
        self._factories: dict[int, tuple[StageFactory, bytes]] = {}
        self._units: dict[Place, ActorHost] = {}

    # ------------------------------------------------------------------------------------------ orders

    def start(self, action: Start, unit: Unit) -> None:
        """Host a unit; one that is still leaving is left behind first."""
        place = action.place
        if place in self._units:
            return
        host = ActorHost(
            unit,
            Running(place.topology, place.unit, place.version, action.digest, action.restart, action.mode),
            lambda: self._member(place.version, unit),
            name=f"sage-{self.name}.{unit.name}",
            changed=self._changed,
        )
        self._units[place] = host
        host.start()

    def stop(self, action: Stop, timeout: float = LEAVE_TIMEOUT) -> None:
        """Have a unit drain within ``timeout`` seconds and leave."""
        host = self._units.get(action.place)
        if host is not None and not host.is_stopping:
            unit = action.place.unit
            logger.info("%s: %s stops: %s", self.name, unit, action.why, extra=about(self.name, unit))
            host.stop(timeout)

    def adopt(self, action: Adopt) -> None:
        """Have a unit count as another version."""
        host = self._units.pop(action.place, None)
        if host is not None:
            host.adopt(action.version)
            self._units[host.place] = host

    def change(self, action: Change) -> None:
        """Have a unit run in another mode."""
        host = self._units.get(action.place)
        if host is not None:
            host.change(action.mode)

    def tidy(self) -> None:
        """Forget units that are gone, and release what no unit uses any more."""
        for place, host in list(self._units.items()):
            if host.is_stopping and host.is_gone:
                del self._units[place]
        if self._making.acquire(blocking=False):  # a unit that is being made may take long: another time, then
            try:
                worlds = self._unused()
            finally:
                self._making.release()
            for world in worlds:  # not here: what hangs in its loop must not hold up other topologies
                threading.Thread(target=world.close, name=f"sage-{self.name}.end", daemon=True).start()

    def _unused(self) -> list[OpenWorld]:
        """Take out what nothing here was made by."""
        used = {host.made_for for host in self._units.values()}
        for version in [version for version in self._factories if version not in used]:
            del self._factories[version]
        kept = {settings for _, settings in self._factories.values()}
        return [self._worlds.pop(settings) for settings in list(self._worlds) if settings not in kept]

    # ----------------------------------------------------------------------------------------- looking

    @property
    def units(self) -> tuple[ActorHost, ...]:
        """All units that are here, leaving ones included."""
        return tuple(self._units.values())

    def close(self, timeout: float) -> None:
        """Release everything, within ``timeout`` seconds; units are gone by now."""
        closing = [
            threading.Thread(target=world.close, name=f"sage-{self.name}.end", daemon=True)
            for world in self._worlds.values()
        ]
        for each in closing:
            each.start()
        for each in closing:
            each.join(timeout)
        self._worlds.clear()
        self._factories.clear()

    @property
    def is_empty(self) -> bool:
        """Whether nothing is here any more."""
        return not self._units and not self._worlds

    def factory_of(self, host: ActorHost) -> StageFactory | None:
        """What a unit was made by; ``None`` while it is not made yet."""
        found = self._factories.get(host.made_for)
        return None if found is None else found[0]

    def look_for_drained(self, admin: Admin) -> None:
        """Let units go that finish, where all that they read is read to its end. Raises what the brokers answer."""
        for host in self._units.values():
            factory = self.factory_of(host)
            if host.may_be_drained and factory is not None:
                pairs = left_to_read(factory.plan, factory.plan.by_name[host.unit.name])
                if is_all_read(admin, pairs, factory.partitions):
                    host.drained()

    # ---------------------------------------------------------------------------------- on units' threads

    def _member(self, version: int, unit: Unit) -> Member:
        factory = self._factory(version)
        if unit.is_sources:
            sources = factory.sources(only=unit.stages)
            if sources is None:
                raise NotFound(f"version {version} has no sources", where=self.name)
            return SourcesMember(sources)
        return ActorMember(factory.actor(factory.plan.by_name[unit.name]))

    def _factory(self, version: int) -> StageFactory:
        with self._making:  # topics are made once, not by each unit
            found = self._factories.get(version)
            if found is None:
                plan = self._plan_of(version)
                settings = orjson.dumps([plan.topology.kafka, plan.topology.memory], option=orjson.OPT_SORT_KEYS)
                if settings not in self._worlds:
                    self._worlds[settings] = self._make_world(plan)
                world = self._worlds[settings].world
                found = (StageFactory(plan, world, prepare_topics(plan, world.clients)), settings)
                self._factories[version] = found
            return found[0]


def is_all_read(admin: Admin, pairs: Collection[tuple[str, str]], partitions: Mapping[str, int]) -> bool:
    """Whether each group has committed all that stands in its topic.

    What is committed is asked first, of all, and then where the topics end: what becomes of a record (it is parked, it
    goes around once more) is written before its offset is committed, so that it can't slip between two looks.

    Args:
        pairs: of group and topic.
        partitions: how many each topic has.
    """
    places = {
        (group, topic): [TopicPartition(topic, number) for number in range(partitions.get(topic, 0))]
        for group, topic in pairs
    }
    committed = {pair: admin.committed(pair[0], each) for pair, each in places.items() if each}
    every = sorted({place for each in places.values() for place in each})
    ends, starts = (admin.end_offsets(every), admin.start_offsets(every)) if every else ({}, {})
    return all(
        ends[place] <= max(offset or 0, starts[place]) for each in committed.values() for place, offset in each.items()
    )
