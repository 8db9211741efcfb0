"""What a worker does next, case by case, and over whole changes in random order."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage.cluster.desired import Desired, Leaving
from sage.cluster.status import Check, StageState, StageStatus, TopologyStatus
from sage.cluster.worker.reconcile import (
    HANDOVER_PATIENCE,
    ROLL_PATIENCE,
    Action,
    Adopt,
    Change,
    Goal,
    Peer,
    Place,
    Running,
    Start,
    Stop,
    Wait,
    hosts,
    reconcile,
)
from sage.cluster.worker.units import SOURCES, units_of
from tests.unit.cluster.worker.plans import deployment, stage

ONE = deployment(1, stage("clean", "in", "qa.clean"), stage("out", "qa.clean"))
TWO = deployment(2, stage("clean", "in", "qa.clean", config="other"), stage("out", "qa.clean"))
UNITS = {1: units_of(ONE), 2: units_of(TWO)}
GOOD = (Check(1), Check(2))


def goal(version: int = 1, **more: Any) -> Goal:
    return Goal(Desired("qa", version, **more), UNITS)


def peer(worker: str, *said: StageStatus, checks: tuple[Check, ...] = GOOD, **more: Any) -> Peer:
    return Peer(worker, topologies={"qa": TopologyStatus(worker, "qa", said, checks)}, **more)


def said(name: str, version: int, state: StageState = "running", **more: Any) -> StageStatus:
    return StageStatus(name, version, state, **more)


def running(unit: str, version: int, **more: Any) -> Running:
    found = next(each for each in UNITS[version] if each.name == unit)
    return Running("qa", unit, version, found.digest, **more)


def plan(me: str, wanted: Goal, peers: Sequence[Peer], *mine: Running, impatient: Sequence[Place] = ()) -> list[Action]:
    return reconcile(me, [wanted], peers, mine, frozenset(impatient))


def rank(unit: str, version: int = 1) -> tuple[str, ...]:
    """The workers a, b, c in the order in which they host the unit."""
    return hosts(goal(version), [peer("a"), peer("b"), peer("c")])[Place("qa", unit, version)]


def test_a_worker_alone_starts_everything() -> None:
    assert [action.place.unit for action in plan("a", goal(), [peer("a")])] == ["clean", "out"]


def test_nothing_starts_before_this_worker_has_checked_it() -> None:
    assert plan("a", goal(), [peer("a", checks=())]) == []


def test_what_this_worker_found_bad_is_not_started_and_others_take_it() -> None:
    bad = Check(1, ("other code",), "incompatible")
    peers = [peer("a", checks=(bad,)), peer("b")]
    assert plan("a", goal(), peers) == []
    assert len(plan("b", goal(), peers)) == 2
    assert hosts(goal(scale={"out": 1}), peers)[Place("qa", "out", 1)] == ("b",)


def test_what_runs_as_desired_is_left_alone() -> None:
    assert plan("a", goal(), [peer("a")], running("clean", 1), running("out", 1)) == []


@pytest.mark.parametrize("state", ["stopped", "deleted"])
def test_what_is_stopped_or_deleted_stops(state: Any) -> None:
    actions = plan("a", goal(state=state), [peer("a")], running("clean", 1))
    assert actions == [Stop(Place("qa", "clean", 1), "it is not part of what is desired")]


def test_a_topology_that_nobody_knows_stops() -> None:
    (action,) = reconcile("a", [], [peer("a")], [running("clean", 1)], frozenset())
    assert isinstance(action, Stop)


def test_an_unchanged_stage_of_a_new_version_counts_as_it_without_a_restart() -> None:
    actions = plan("a", goal(2), [peer("a")], running("clean", 1), running("out", 1))
    assert actions == [
        Stop(Place("qa", "clean", 1), "version 2", again=True),
        Adopt(Place("qa", "out", 1), 2),
    ]


def test_a_changed_stage_waits_for_the_hosts_before() -> None:
    first, second, third = rank("clean", 2)
    old = [peer(each, said("clean", 1)) for each in (first, second, third)]
    mine = running("clean", 1)
    assert plan(first, goal(2), old, mine)[0] == Stop(mine.place, "version 2", again=True)
    assert plan(second, goal(2), old, mine)[0] == Wait(mine.place, (first,), ROLL_PATIENCE)
    assert plan(third, goal(2), old, mine)[0] == Wait(mine.place, (first, second), ROLL_PATIENCE)
    moved = [peer(first, said("clean", 2)), *old[1:]]
    assert isinstance(plan(second, goal(2), moved, mine)[0], Stop)
    assert plan(third, goal(2), moved, mine)[0] == Wait(mine.place, (second,), ROLL_PATIENCE)


def test_a_new_version_that_fails_where_it_came_first_is_not_rolled_on() -> None:
    first, second, third = rank("clean", 2)
    peers = [peer(first, said("clean", 2, "backing-off")), peer(second, said("clean", 1)), peer(third)]
    assert plan(second, goal(2), peers, running("clean", 1))[0] == Wait(Place("qa", "clean", 1), (first,), math.inf)


def test_a_wait_that_has_been_too_long_ends() -> None:
    _, second, _ = rank("clean", 2)
    mine = running("clean", 1)
    peers = [peer("a"), peer("b"), peer("c")]
    assert isinstance(plan(second, goal(2), peers, mine, impatient=[mine.place])[0], Stop)


def test_scaling_down_waits_for_those_who_stay() -> None:
    first, second, _ = rank("clean")
    narrow = goal(scale={"clean": 1})
    silent = [peer("a"), peer("b"), peer("c")]
    place = Place("qa", "clean", 1)
    assert plan(second, narrow, silent, running("clean", 1))[0] == Wait(place, (first,), HANDOVER_PATIENCE)
    works = [peer(first, said("clean", 1)), *(each for each in silent if each.worker != first)]
    assert plan(second, narrow, works, running("clean", 1))[0] == Stop(place, "others host it")


@pytest.mark.parametrize(("partitions", "scale", "count"), [(2, 5, 2), (2, 1, 1), (2, None, 2), (None, 5, 5)])
def test_a_scale_is_at_most_the_partitions_where_they_are_known(
    partitions: int | None, scale: int | None, count: int
) -> None:
    units = units_of(deployment(1, stage("work", "in", partitions=partitions)))
    desired = Desired("qa", 1, scale={} if scale is None else {"work": scale})
    found = hosts(Goal(desired, {1: units}), [peer(f"w{number}") for number in range(6)])
    assert len(found[Place("qa", "work", 1)]) == count


def test_a_worker_that_leaves_is_nobodys_host() -> None:
    peers = [peer("a", takes=False), peer("b")]
    assert all("a" not in chosen for chosen in hosts(goal(), peers).values())
    assert isinstance(plan("a", goal(), peers, running("out", 1))[0], Wait)


def test_where_nobody_can_run_the_new_version_the_old_one_goes_on() -> None:
    bad = peer("a", checks=(Check(1), Check(2, ("other code",), "incompatible")))
    assert plan("a", goal(2), [bad], running("clean", 1), running("out", 1)) == []


def test_a_restart_is_a_roll_of_its_own() -> None:
    first, second, _ = rank("clean")
    again = goal(restarts={"clean": 3})
    peers = [peer(first, said("clean", 1, restart_number=2)), peer(second), peer(({*"abc"} - {first, second}).pop())]
    assert plan(first, again, peers, running("clean", 1, restart=2))[0] == Stop(
        Place("qa", "clean", 1), "version 1", again=True
    )
    assert isinstance(plan(second, again, peers, running("clean", 1, restart=2))[0], Wait)
    assert not [a for a in plan(first, again, peers, running("clean", 1, restart=3)) if a.place.unit == "clean"]


def test_paused_and_held_change_the_mode_only() -> None:
    mine = (running("clean", 1), running("out", 1))
    paused = plan("a", goal(state="paused"), [peer("a")], *mine)
    assert paused == [Change(one.place, "paused") for one in mine]
    assert plan("a", goal(held=("out",)), [peer("a")], *mine) == [Change(mine[1].place, "held")]
    resumed = plan("a", goal(), [peer("a")], replace(mine[0], mode="paused"), mine[1])
    assert resumed == [Change(mine[0].place, "run")]


def test_draining_goes_down_the_graph() -> None:
    units = {1: units_of(deployment(1, stage("src", writes="qa.src"), stage("out", "qa.src")))}
    wanted = Goal(Desired("qa", 1, "drained"), units)

    def modes(*stages: StageStatus) -> dict[str, Any]:
        found = plan("a", wanted, [peer("a", *stages)])
        return {action.place.unit: action.mode for action in found if isinstance(action, Start)}

    assert modes() == {SOURCES: "finish", "out": "drain"}
    assert modes(said("src", 1, "draining")) == {SOURCES: "finish", "out": "drain"}
    assert modes(said("src", 1, "drained")) == {SOURCES: "finish", "out": "finish"}


def test_nothing_counts_as_drained_while_anybody_is_still_at_it() -> None:
    units = {1: units_of(deployment(1, stage("src", writes="qa.src"), stage("out", "qa.src")))}
    wanted = Goal(Desired("qa", 1, "drained", scale={"src": 1}), units)
    (first,) = hosts(wanted, [peer("a"), peer("b")])[Place("qa", SOURCES, 1)]
    other = ({"a", "b"} - {first}).pop()
    peers = [peer(first, said("src", 1, "drained")), peer(other, said("src", 1, "draining"))]
    (start,) = [a for a in plan(other, wanted, peers) if isinstance(a, Start) and a.place.unit == "out"]
    assert start.mode == "drain"


def test_a_stage_of_an_older_version_drains_beside_the_new_one() -> None:
    older = deployment(1, stage("clean", "in", "qa.clean"), stage("gone", "qa.clean"))
    newer = deployment(2, stage("clean", "in", "qa.clean"), stage("out", "qa.clean"))
    units = {1: units_of(older), 2: units_of(newer)}
    wanted = Goal(Desired("qa", 2, leaving=(Leaving(1, "gone"),)), units)
    mine = [Running("qa", unit.name, 1, unit.digest) for unit in units[1]]
    actions = plan("a", wanted, [peer("a")], *mine)
    assert Adopt(mine[0].place, 2) in actions
    assert Change(mine[1].place, "finish") in actions
    assert [a.place for a in actions if isinstance(a, Start)] == [Place("qa", "out", 2)]


# --------------------------------------------------------------------------- whole changes, in random order


@dataclass
class Model:
    """Workers that do what reconcile says, one at a time; a start takes a turn to become "running"."""

    goal: Goal
    runs: dict[str, dict[Place, Running]] = field(default_factory=dict)
    starting: set[tuple[str, Place]] = field(default_factory=set)
    stops: list[Place] = field(default_factory=list)

    def peers(self) -> list[Peer]:
        return [peer(worker, *self.words(worker)) for worker in self.runs]

    def words(self, worker: str) -> list[StageStatus]:
        return [
            said(one.unit, one.version, "starting" if (worker, place) in self.starting else "running")
            for place, one in self.runs[worker].items()
        ]

    def turn(self, worker: str) -> bool:
        """One turn of one worker; whether anything changed."""
        begun = {mark for mark in self.starting if mark[0] == worker}
        self.starting -= begun
        mine = self.runs[worker]
        actions = reconcile(worker, [self.goal], self.peers(), mine.values(), frozenset())
        for action in actions:
            self.apply(worker, mine, action)
        return bool(begun) or any(not isinstance(action, Wait) for action in actions)

    def apply(self, worker: str, mine: dict[Place, Running], action: Action) -> None:
        match action:
            case Start(place, digest, restart, mode):
                mine[place] = Running(place.topology, place.unit, place.version, digest, restart, mode)
                self.starting.add((worker, place))
            case Stop(place):
                del mine[place]
                self.stops.append(place)
            case Adopt(place, version):
                mine[replace(place, version=version)] = replace(mine.pop(place), version=version)
            case Change(place, mode):
                mine[place] = replace(mine[place], mode=mode)
            case Wait():
                pass

    def settle(self, order: Sequence[int], watch: Any = lambda: None) -> None:
        """Turns in the given order, then round and round until nothing changes."""
        workers = sorted(self.runs)
        for number in order:
            self.turn(workers[number % len(workers)])
            watch()
        for _ in range(50):
            changed = [self.turn(worker) for worker in workers]
            watch()
            if not any(changed):
                return
        raise AssertionError("it never comes to rest")

    def hosts(self) -> Mapping[Place, set[str]]:
        found: dict[Place, set[str]] = {}
        for worker, mine in self.runs.items():
            for place in mine:
                found.setdefault(place, set()).add(worker)
        return found

    def up(self, unit: str) -> int:
        """Workers on which the unit runs, in whichever version."""
        words = [(w, p) for w, mine in self.runs.items() for p in mine if p.unit == unit]
        return len([mark for mark in words if mark not in self.starting])


ORDERS = st.lists(st.integers(0, 9), max_size=30)


@settings(deadline=None)
@given(st.integers(2, 5), st.integers(2, 5), ORDERS, ORDERS)
def test_a_change_rolls_without_a_moment_in_which_nobody_works(
    workers: int, scale: int, first: list[int], second: list[int]
) -> None:
    model = Model(goal(scale={"clean": scale}), {f"w{number}": {} for number in range(workers)})
    model.settle(first)
    model.stops.clear()
    model.goal = goal(2, scale={"clean": scale})
    (width,) = {unit.width for unit in UNITS[2] if unit.name == "clean"}

    def watch() -> None:
        assert model.up("clean") >= min(scale, workers, width) - 1

    model.settle(second, watch)
    assert {place: set(chosen) for place, chosen in hosts(model.goal, model.peers()).items()} == model.hosts()
    assert {place.unit for place in model.stops} == {"clean"}, "an unchanged stage was restarted"


@settings(deadline=None)
@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 5), ORDERS, ORDERS)
def test_scaling_comes_to_rest_with_the_right_hosts_and_never_with_none(
    workers: int, before: int, after: int, first: list[int], second: list[int]
) -> None:
    model = Model(goal(scale={"clean": before}), {f"w{number}": {} for number in range(workers)})
    model.settle(first)
    model.goal = goal(scale={"clean": after})

    def watch() -> None:
        assert model.up("clean") >= 1

    model.settle(second, watch)
    assert {place: set(chosen) for place, chosen in hosts(model.goal, model.peers()).items()} == model.hosts()


@settings(deadline=None)
@given(st.integers(2, 5), ORDERS, st.integers(0, 4), ORDERS)
def test_the_units_of_a_dead_worker_come_up_elsewhere(
    workers: int, first: list[int], dead: int, second: list[int]
) -> None:
    model = Model(goal(scale={"out": 1}), {f"w{number}": {} for number in range(workers)})
    model.settle(first)
    del model.runs[f"w{dead % workers}"]
    model.settle(second)
    assert {place: set(chosen) for place, chosen in hosts(model.goal, model.peers()).items()} == model.hosts()
    assert all(len(found) >= 1 for found in model.hosts().values())
