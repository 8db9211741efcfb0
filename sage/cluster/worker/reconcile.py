"""What this worker has to do, from what is desired, who lives, and what runs here. Pure: no I/O, no clock.

Every worker computes the same hosts for every unit from the same topics, so that nobody has to tell anybody. While two
of them see different things for a moment, a unit has a host too many or too few; its group's members share the
partitions out among themselves either way.

A change rolls: of the hosts of a unit, each waits until those of higher rank run the new version. A worker that is to
give a unit up waits until somebody who is to have it runs it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from sage.cluster.desired import Desired
from sage.cluster.status import StageStatus, TopologyStatus
from sage.cluster.worker.rendezvous import ranked
from sage.cluster.worker.units import Unit

Mode = Literal["run", "paused", "held", "drain", "finish"]
"""How a unit runs. ``paused`` and ``held`` stand still as members. ``drain``: sources and foreign topics are not read
any more, what is on its way is. ``finish``: and nobody writes its input any more, so with nothing left to read it is
drained."""

ROLL_PATIENCE: Final = 60.0
"""Seconds that a change waits for the worker before; one that failed with the new version is waited for without end."""

HANDOVER_PATIENCE: Final = 30.0
"""Seconds that a unit is kept for a successor that does not run."""

_READY: Final = frozenset({"running", "paused", "held", "draining", "drained"})


@dataclass(frozen=True, slots=True)
class Place:
    """A unit of one version of a topology: what a worker hosts at most once."""

    topology: str
    unit: str
    version: int


@dataclass(frozen=True, slots=True)
class Running:
    """What runs here of one unit; ``version`` is the one that it counts as."""

    topology: str
    unit: str
    version: int
    digest: str
    restart: int = 0
    mode: Mode = "run"

    @property
    def place(self) -> Place:
        """Its place."""
        return Place(self.topology, self.unit, self.version)


@dataclass(frozen=True, slots=True)
class Peer:
    """A live worker, this one included.

    Attributes:
        takes: whether it takes units on: it neither leaves nor is drained.
        topologies: what it says of each topology.
    """

    worker: str
    labels: Mapping[str, str] = field(default_factory=dict)
    takes: bool = True
    topologies: Mapping[str, TopologyStatus] = field(default_factory=dict)

    def stage(self, topology: str, stage: str, version: int) -> StageStatus | None:
        """What it says of a stage of that version."""
        found = self.topologies.get(topology)
        stages = () if found is None else found.stages
        return next((one for one in stages if (one.stage, one.version) == (stage, version)), None)

    def fits(self, topology: str, version: int) -> bool:
        """Whether nothing is known that keeps that version from running there."""
        found = self.topologies.get(topology)
        return found is None or not any(check.problems for check in found.checks if check.version == version)


@dataclass(frozen=True, slots=True)
class Goal:
    """What is desired of one topology, with the units of the versions that it names."""

    desired: Desired
    units: Mapping[int, Sequence[Unit]]


@dataclass(frozen=True, slots=True)
class Start:
    """Run a unit here."""

    place: Place
    digest: str
    restart: int
    mode: Mode


@dataclass(frozen=True, slots=True)
class Stop:
    """Drain it and leave its group. ``again``: because it is to be started anew."""

    place: Place
    why: str
    again: bool = False


@dataclass(frozen=True, slots=True)
class Adopt:
    """What runs as ``place`` is the same in ``version``: it counts as that from now on."""

    place: Place
    version: int


@dataclass(frozen=True, slots=True)
class Change:
    """Run it in another mode."""

    place: Place
    mode: Mode


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing yet: ``workers`` come first; for ``seconds`` at most."""

    place: Place
    workers: tuple[str, ...]
    seconds: float


Action = Start | Stop | Adopt | Change | Wait


@dataclass(frozen=True, slots=True)
class _Wish:
    """A unit of a version that shall run somewhere."""

    unit: Unit
    version: int
    mode: Mode
    restart: int
    scale: int | None
    is_leaving: bool = False


def reconcile(
    me: str, goals: Iterable[Goal], peers: Sequence[Peer], running: Iterable[Running], impatient: frozenset[Place]
) -> list[Action]:
    """What is to be done here, in order: stops first.

    Args:
        me: this worker, which is among ``peers``.
        goals: all topologies.
        peers: all live workers.
        running: what runs here.
        impatient: places whose wait has been longer than it may be.
    """
    here: dict[str, list[Running]] = {}
    for one in running:
        here.setdefault(one.topology, []).append(one)
    actions: list[Action] = []
    for goal in goals:
        name = goal.desired.name
        actions += _Topology(me, goal, peers, here.pop(name, []), impatient).actions()
    for rest in here.values():
        actions += [Stop(one.place, "its topology is gone") for one in rest]
    return sorted(actions, key=lambda action: not isinstance(action, Stop))


def hosts(goal: Goal, peers: Sequence[Peer]) -> dict[Place, tuple[str, ...]]:
    """Who shall host each unit that is desired, first rank first."""
    name = goal.desired.name
    return {Place(name, wish.unit.name, wish.version): _chosen(goal, wish, peers) for wish in _wishes(goal, peers)}


class _Topology:
    """One topology, seen from one worker."""

    def __init__(
        self, me: str, goal: Goal, peers: Sequence[Peer], running: list[Running], impatient: frozenset[Place]
    ) -> None:
        self.me = me
        self.goal = goal
        self.name = goal.desired.name
        self.peers = {peer.worker: peer for peer in peers}
        self.running = running
        self.impatient = impatient

    def actions(self) -> list[Action]:
        found: list[Action] = []
        peers = tuple(self.peers.values())
        rest = {one.place: one for one in self.running}
        wishes = _wishes(self.goal, peers)
        leaving = {Place(self.name, wish.unit.name, wish.version) for wish in wishes if wish.is_leaving}
        for wish in wishes:
            mine = [
                one
                for one in rest.values()
                if one.unit == wish.unit.name
                and (one.version == wish.version if wish.is_leaving else one.place not in leaving)
            ]
            for one in mine:
                del rest[one.place]
            found += self._unit(wish, _chosen(self.goal, wish, peers), mine)
        return [*found, *(Stop(place, "it is not part of what is desired") for place in rest)]

    def _unit(self, wish: _Wish, chosen: tuple[str, ...], mine: list[Running]) -> list[Action]:
        # At most one is the rule; what a crash of the order of things left besides goes.
        extra: list[Action] = [Stop(one.place, "it runs twice") for one in mine[1:]]
        one = mine[0] if mine else None
        if self.me not in chosen:
            return extra if one is None else [*extra, *self._give_up(wish, chosen, one)]
        if one is None:
            return [*extra, *self._take_on(wish)]
        if one.digest == wish.unit.digest and one.restart >= wish.restart:
            return [*extra, *self._keep(wish, one)]
        return [*extra, *self._renew(wish, chosen, one)]

    def _take_on(self, wish: _Wish) -> list[Action]:
        if not self._checked(wish.version):
            return []
        return [Start(Place(self.name, wish.unit.name, wish.version), wish.unit.digest, wish.restart, wish.mode)]

    def _checked(self, version: int) -> bool:
        """Whether this worker has looked at that version, and found it good."""
        status = self.peers[self.me].topologies.get(self.name)
        return status is not None and any(c.version == version and not c.problems for c in status.checks)

    def _keep(self, wish: _Wish, one: Running) -> list[Action]:
        found: list[Action] = []
        place = one.place
        if one.version != wish.version:
            if not self._checked(wish.version):
                return []
            found.append(Adopt(place, wish.version))
            place = Place(self.name, one.unit, wish.version)
        if one.mode != wish.mode:
            found.append(Change(place, wish.mode))
        return found

    def _renew(self, wish: _Wish, chosen: tuple[str, ...], one: Running) -> list[Action]:
        """Restart it, when the hosts of higher rank have done so."""
        if one.version != wish.version and not self._checked(wish.version):
            return []
        before = chosen[: chosen.index(self.me)]
        behind = tuple(worker for worker in before if not self._is_ready(worker, wish))
        place = Place(self.name, one.unit, one.version)
        if behind and place not in self.impatient:
            has_failed = any(self._has_failed(worker, wish) for worker in behind)
            return [Wait(place, behind, math.inf if has_failed else ROLL_PATIENCE)]
        return [Stop(place, f"version {wish.version}", again=True)]

    def _give_up(self, wish: _Wish, chosen: tuple[str, ...], one: Running) -> list[Action]:
        """Stop it, when one of those who are to have it runs it."""
        if not chosen and self.peers[self.me].takes:
            return []  # nobody can run what is desired: better the old version than none
        if not chosen or any(self._is_ready(worker, wish) for worker in chosen) or one.place in self.impatient:
            return [Stop(one.place, "others host it")]
        return [Wait(one.place, chosen, HANDOVER_PATIENCE)]

    def _is_ready(self, worker: str, wish: _Wish) -> bool:
        said = self._said(worker, wish)
        return len(said) == len(wish.unit.stages) and all(one.state in _READY for one in said)

    def _has_failed(self, worker: str, wish: _Wish) -> bool:
        return any(one.state == "backing-off" for one in self._said(worker, wish))

    def _said(self, worker: str, wish: _Wish) -> list[StageStatus]:
        peer = self.peers[worker]
        found = (peer.stage(self.name, stage, wish.version) for stage in wish.unit.stages)
        return [one for one in found if one is not None and one.restart_number >= wish.restart]


def _wishes(goal: Goal, peers: Sequence[Peer]) -> list[_Wish]:
    """Everything that shall run of a topology, on whichever worker."""
    desired = goal.desired
    if desired.state in {"stopped", "deleted"}:
        return []
    leaving = _leaving(goal, peers)
    gone = {(wish.unit.name, wish.version) for wish in leaving}
    units = goal.units.get(desired.version, ())
    by_name = {unit.name: unit for unit in units}
    found: list[_Wish] = []
    for unit in units:
        if (unit.name, desired.version) not in gone:
            upstream = [(by_name[name], desired.version) for name in unit.upstream if name in by_name]
            found.append(_wish(goal, unit, desired.version, _mode(goal, unit, upstream, peers)))
    return found + leaving


def _leaving(goal: Goal, peers: Sequence[Peer]) -> list[_Wish]:
    """What drains, and is not to be there afterwards: of older versions, or of this one before the next takes over."""
    desired = goal.desired
    found: dict[tuple[str, int], _Wish] = {}
    for leaving in desired.leaving:
        unit_of = {stage: unit for unit in goal.units.get(leaving.version, ()) for stage in unit.stages}
        unit = unit_of.get(leaving.stage)
        if unit is not None:
            upstream = [(unit_of[stage], leaving.version) for stage in leaving.after if stage in unit_of]
            mode: Mode = "paused" if desired.state == "paused" else _draining(goal, upstream, peers)
            found[unit.name, leaving.version] = _wish(goal, unit, leaving.version, mode, is_leaving=True)
    return list(found.values())


def _wish(goal: Goal, unit: Unit, version: int, mode: Mode, *, is_leaving: bool = False) -> _Wish:
    desired = goal.desired
    restart = max((desired.restarts.get(stage, 0) for stage in unit.stages), default=0)
    scales = [desired.scale[stage] for stage in unit.stages if stage in desired.scale]
    return _Wish(unit, version, mode, restart, max(scales, default=None), is_leaving)


def _mode(goal: Goal, unit: Unit, upstream: Sequence[tuple[Unit, int]], peers: Sequence[Peer]) -> Mode:
    desired = goal.desired
    if desired.state == "paused":
        return "paused"
    if desired.state == "drained":
        return _draining(goal, upstream, peers)
    return "held" if any(stage in desired.held for stage in unit.stages) else "run"


def _draining(goal: Goal, upstream: Sequence[tuple[Unit, int]], peers: Sequence[Peer]) -> Mode:
    return "finish" if all(_is_drained(goal, unit, version, peers) for unit, version in upstream) else "drain"


def _is_drained(goal: Goal, unit: Unit, version: int, peers: Sequence[Peer]) -> bool:
    """Whether all who shall host it say that nothing is left, and nobody else is still at it."""
    name = goal.desired.name
    wish = _wish(goal, unit, version, "drain")
    said = {
        peer.worker: [one for stage in unit.stages if (one := peer.stage(name, stage, version)) is not None]
        for peer in peers
    }
    chosen = _chosen(goal, wish, peers)
    is_done = all(one.state == "drained" for each in said.values() for one in each)
    return is_done and bool(chosen) and all(said[worker] for worker in chosen)


def _chosen(goal: Goal, wish: _Wish, peers: Sequence[Peer]) -> tuple[str, ...]:
    """The hosts of a unit by rank: as many as can be of use, or fewer where that is asked for."""
    name, unit = goal.desired.name, wish.unit
    able = [
        peer.worker
        for peer in peers
        if peer.takes and peer.fits(name, wish.version) and unit.labels.items() <= peer.labels.items()
    ]
    useful = unit.width or len(able)
    return ranked(name, unit.name, able)[: useful if wish.scale is None else min(wish.scale, useful)]
