"""What a unit says of itself while it comes up."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from sage.cluster.worker.actor_host import ActorHost
from sage.cluster.worker.reconcile import Mode, Running
from sage.cluster.worker.units import Unit
from sage.runtime.runs.counters import StepCounters
from tests.support.waiting import wait_until


class Step:
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
