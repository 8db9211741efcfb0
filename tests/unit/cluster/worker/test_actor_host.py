"""What a unit says of itself while it comes up, and how long one that fails waits before it is started again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from sage.cluster.worker import actor_host
from sage.cluster.worker.actor_host import ActorHost
from sage.cluster.worker.reconcile import Mode, Running
from sage.cluster.worker.units import Unit
from sage.runtime.runs.counters import StepCounters
from tests.support.waiting import wait_until


class Step:
    name = "work"
    counters = StepCounters()


class Standing:
    """A member that works until it is stopped; a test says how much of its state is there."""

    failure = None
    assignment: frozenset[Any] = frozenset()
    is_at_rest = True
    has_joined = True
    transactional_ids: tuple[str, ...] = ()

    def __init__(self) -> None:
        self.restored: float | None = 0.0
        self.committed: dict[Any, int] = {}
        self._stopped = threading.Event()

    def steps_of(self, stage: str) -> Any:
        return [Step()]

    def open(self) -> None: ...

    def run(self) -> None:
        self._stopped.wait()

    def stop(self, timeout: float) -> None:
        self._stopped.set()

    def change(self, mode: Mode) -> None: ...


@pytest.fixture
def member() -> Standing:
    return Standing()


@pytest.fixture
def host(member: Standing) -> Iterator[ActorHost]:
    unit = Unit("count", ("count",), "digest")
    made = ActorHost(unit, Running("t", "count", 1, "digest", 0, "run"), lambda: member, name="sage-t.count")
    made.start()
    wait_until(lambda: made.member is not None, what="the member is made")
    yield made
    made.stop(1.0)
    wait_until(lambda: made.is_gone, what="the unit has left")


def said(host: ActorHost) -> tuple[str, float | None]:
    (status,) = host.statuses()
    return status.state, status.restored


def test_a_unit_runs_only_when_its_state_is_there(host: ActorHost, member: Standing) -> None:
    member.restored = 0.4
    assert said(host) == ("restoring", 0.4)
    member.restored = None
    assert said(host) == ("running", None)


def test_a_unit_that_stands_still_says_so_rather_than_what_it_restores(host: ActorHost, member: Standing) -> None:
    host.change("paused")
    assert said(host) == ("paused", 0.0)


class Failing(Standing):
    """A member that dies of something, in its opening or at work; ``lasts`` seconds of work."""

    def __init__(self, clock: list[float], *, opens: bool, takes: float = 0.0, lasts: float = 0.0) -> None:
        super().__init__()
        self.failure: Any = RuntimeError("the disk is full")
        self._clock = clock
        self._opens = opens
        self._takes = takes
        self._lasts = lasts

    def open(self) -> None:
        self._clock[0] += self._takes
        if not self._opens:
            raise self.failure

    def run(self) -> None:
        if not self._stopped.is_set():
            self._clock[0] += self._lasts


class Lives:
    """The lives of one unit, on a clock that only they turn, and the delays after them.

    Args:
        spread: what of a delay is taken by chance.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, spread: Callable[[float, float], float]) -> None:
        self.clock = [0.0]
        clock = SimpleNamespace(monotonic=lambda: self.clock[0], time=lambda: self.clock[0])
        monkeypatch.setattr(actor_host, "time", clock)
        monkeypatch.setattr(actor_host, "random", SimpleNamespace(uniform=spread))
        self._delays: list[float | None] = []
        monkeypatch.setattr(ActorHost, "_wait", lambda _, seconds: self._delays.append(seconds))

    def delays(self, *members: Failing) -> list[float | None]:
        """The delay after each of them, one after the other."""
        left = list(members)

        def make() -> Failing:
            member = left.pop(0)
            if not left:
                host.stop(0.0)
            return member

        running = Running("t", "count", 1, "digest", 0, "run")
        host = ActorHost(Unit("count", ("count",), "digest"), running, make, name="sage-t.count")
        host._run()
        return self._delays


def test_the_delay_before_the_next_life_doubles_up_to_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    lives = Lives(monkeypatch, lambda low, high: 1.0)
    delays = lives.delays(*(Failing(lives.clock, opens=number % 2 == 0) for number in range(9)))
    assert delays == [1, 2, 4, 8, 16, 32, 60, 60, 60]


@pytest.mark.parametrize(("chance", "share"), [(min, 0.8), (max, 1.2)])
def test_a_delay_is_a_fifth_more_or_less_by_chance(
    monkeypatch: pytest.MonkeyPatch, chance: Callable[[float, float], float], share: float
) -> None:
    lives = Lives(monkeypatch, chance)
    assert lives.delays(*(Failing(lives.clock, opens=True) for _ in range(2))) == [share, 2 * share]


def test_a_minute_of_work_is_what_makes_an_earlier_failure_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    lives = Lives(monkeypatch, lambda low, high: 1.0)
    at_once = [Failing(lives.clock, opens=True) for _ in range(3)]
    too_short = Failing(lives.clock, opens=True, lasts=actor_host.GOOD_LIFE - 1)
    well = Failing(lives.clock, opens=True, lasts=actor_host.GOOD_LIFE)
    assert lives.delays(*at_once, too_short, well, *at_once[:1]) == [1, 2, 4, 8, 1, 2]


def test_the_time_that_opening_takes_is_no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    lives = Lives(monkeypatch, lambda low, high: 1.0)
    assert lives.delays(*(Failing(lives.clock, opens=True, takes=100.0) for _ in range(3))) == [1, 2, 4]


def test_an_order_that_a_member_has_obeyed_shortens_no_later_delay(
    member: Standing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actor_host, "FIRST_DELAY", 30.0)
    lives: list[Standing] = []
    again = threading.Event()

    def make() -> Any:
        lives.append(member)
        if len(lives) > 1:
            again.set()
        return member

    unit = Unit("count", ("count",), "digest")
    host = ActorHost(unit, Running("t", "count", 1, "digest", 0, "run"), make, name="sage-t.count")
    host.start()
    wait_until(lambda: host.member is not None, what="the member is made")
    host.change("paused")
    host.change("run")
    member.failure = ValueError("no")  # type: ignore[assignment]
    member.stop(0.0)
    wait_until(lambda: host.member is None, what="it has died")
    assert not again.wait(1.0)
    assert said(host)[0] == "backing-off"
    host.stop(1.0)
    wait_until(lambda: host.is_gone, what="the unit has left")
