"""Brokers that are away for longer than anybody would bound: a worker outlives it, unless it is asked to stop."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import pytest

from sage.errors import TransientFailure, Unreachable
from sage.model import retry_headers as names
from sage.model.partition import TopicPartition
from sage.ports import Commit, TopicSpec
from sage.runtime.actors.patience import patiently
from sage.runtime.actors.takeover import Takeover
from sage.runtime.retries.parking import scan_parked
from sage.testing.broker import InMemoryClients
from sage.testing.virtual_time import ManualClock

AT = TopicPartition("in", 0)


class Away:
    """Clients whose brokers answer no question for ``seconds`` of the clock."""

    def __init__(self, clients: InMemoryClients, clock: ManualClock, seconds: float) -> None:
        self._clients = clients
        self._clock = clock
        self._back = clock.monotonic() + seconds

    def __getattr__(self, name: str) -> Any:
        return getattr(self._clients, name)

    def admin(self) -> Any:
        self._clock.advance(1.0)
        admin = self._clients.admin()
        if self._clock.monotonic() < self._back:
            return Silent()
        return admin


class Silent:
    """An admin that nobody answers."""

    def commits(self, group: str, partitions: Sequence[TopicPartition]) -> None:
        raise Unreachable("nobody answers")

    def end_offsets(self, partitions: Sequence[TopicPartition], *, committed: bool = True) -> None:
        raise TransientFailure("the coordinator is loading")

    def close(self) -> None: ...


def filled() -> InMemoryClients:
    clients = InMemoryClients()
    clients.admin().create([TopicSpec("in", 1)])
    producer = clients.producer()
    for key in (b"a", b"b", b"a"):
        producer.produce("in", b"1", key, [(names.DUE, b"0")])
    producer.flush(1)
    return clients


def test_a_new_owner_waits_for_brokers_that_are_away_for_an_hour() -> None:
    clock, clients = ManualClock(), filled()
    away: Any = Away(clients, clock, 3_600)
    owner = Takeover(
        away,
        clients.consumer("g"),
        "g",
        transactional_id="",
        gives_first_offsets=False,
        clock=clock,
        stopping=threading.Event(),
        where="t step",
    )
    assert owner.prepare([AT]) == {AT: Commit(None, "")}


def test_parked_keys_are_found_when_brokers_that_were_away_are_back() -> None:
    clock = ManualClock()
    away: Any = Away(filled(), clock, 3_600)
    found = scan_parked(away, AT, Commit(1, ""), clock=clock, stopping=threading.Event())
    assert {key: len(origins) for key, origins in found.items()} == {b"a": 1, b"b": 1}


def test_a_stop_ends_the_wait_with_the_reason() -> None:
    stopping, asked = threading.Event(), 0

    def question() -> None:
        nonlocal asked
        asked += 1
        if asked == 3:
            stopping.set()
        raise Unreachable("nobody answers")

    with pytest.raises(Unreachable, match="nobody answers"):
        patiently(question, where="t step", clock=ManualClock(), stopping=stopping)
    assert asked == 3


def test_what_waiting_does_not_mend_is_told_at_once() -> None:
    def question() -> None:
        raise ValueError("not the broker's fault")

    with pytest.raises(ValueError, match="fault"):
        patiently(question, where="t step", clock=ManualClock(), stopping=threading.Event())
