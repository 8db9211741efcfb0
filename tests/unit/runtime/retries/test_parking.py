"""Records that wait in the retry topic: their key keeps its order, others go on, a restart knows who waits."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage.errors import TransientFailure
from sage.model.partition import TopicPartition
from sage.ports import Commit, Producer, TopicSpec
from sage.runtime.actors.actor import Actor
from sage.runtime.retries.parked_keys import ParkedKeys
from sage.runtime.retries.parking import scan_parked
from sage.testing.broker import InMemoryClients
from sage.testing.virtual_time import ManualClock
from tests.unit.runtime.acting import turn
from tests.unit.runtime.bench import Bench, at

OFTEN: Any = {"attempts": 10, "backoff": "1s"}


class Flaky:
    """Fails for some values while it is down."""

    def __init__(self, *values: Any) -> None:
        self.down = set(values)
        self.seen: list[Any] = []

    def __call__(self, value: Any) -> Any:
        if value in self.down:
            raise ConnectionError("down")
        self.seen.append(value)
        return value


def bench_of(flaky: Flaky, **options: Any) -> Bench:
    return Bench(lambda s: s.map(flaky, name="work", retry=OFTEN), **options)


def run(bench: Bench, *actors: Actor, seconds: float = 5.0) -> None:
    turn(bench, *actors, seconds=0.1, times=int(seconds / 0.1))


def test_later_records_of_a_waiting_key_queue_up_behind_it_and_other_keys_go_on() -> None:
    flaky = Flaky("a1")
    bench = bench_of(flaky)
    actor = bench.actor()
    bench.feed("a1", "b1", "a2", "b2", keys=[b"a", b"b", b"a", b"b"])
    run(bench, actor, seconds=0.3)
    assert bench.out() == ["b1", "b2"]
    flaky.down.clear()
    run(bench, actor)
    assert bench.out() == ["b1", "b2", "a1", "a2"]


def test_a_new_owner_knows_which_keys_wait() -> None:
    flaky = Flaky("a1")
    bench = bench_of(flaky)
    first = bench.actor()
    bench.feed("a1", keys=[b"a"])
    run(bench, first, seconds=0.5)
    first.stop(1.0)
    first.run(lambda _: None)
    second = bench.actor()
    bench.feed("a2", keys=[b"a"])
    run(bench, second, seconds=0.3)
    assert bench.out() == []
    flaky.down.clear()
    run(bench, second)
    assert bench.out() == ["a1", "a2"]


def test_an_asynchronous_record_is_parked_when_half_of_the_window_waits_behind_it() -> None:
    flaky = Flaky("a0")

    async def call(value: Any) -> Any:
        return flaky(value)

    bench = Bench(lambda s: s.map(call, name="work", concurrency=4, retry=OFTEN))
    actor = bench.actor()
    bench.feed(*(f"a{n}" for n in range(12)), "b", keys=[b"a"] * 12 + [b"b"])
    run(bench, actor, seconds=0.5)
    assert bench.out() == ["b"]
    assert len(bench.clients.messages("t.work.retry")) == 12
    flaky.down.clear()
    run(bench, actor, seconds=10)
    assert bench.out() == ["b", *(f"a{n}" for n in range(12))]


def test_without_an_order_a_failed_record_is_parked_at_once_and_holds_up_nothing() -> None:
    flaky = Flaky("a1")
    bench = Bench(lambda s: s.map(flaky, name="work", ordering="none", retry=OFTEN))
    actor = bench.actor()
    bench.feed("a1", "a2", keys=[b"a", b"a"])
    run(bench, actor, seconds=0.3)
    assert bench.out() == ["a2"]


RETRY = TopicPartition("t.work.retry", 0)


class Scanned:
    """A retry topic in which somebody has a transaction open, with a record of another, committed, behind it."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.clients = InMemoryClients(now_ms=self.clock.now_ms)
        self.clients.admin().create([TopicSpec(RETRY.topic)])
        self.opened = self.transaction("died")
        self.opened.produce(RETRY.topic, b"1", b"open", partition=0)
        other = self.transaction("left")
        other.produce(RETRY.topic, b"2", b"committed", partition=0)
        other.commit_transaction()

    def transaction(self, name: str) -> Producer:
        producer = self.clients.producer(transactional_id=name)
        producer.init_transactions()
        producer.begin_transaction()
        return producer

    def keys(self, stopping: threading.Event | None = None) -> Counter[bytes]:
        stopping = stopping or threading.Event()
        return scan_parked(self.clients, RETRY, Commit(0), clock=self.clock, stopping=stopping)


def test_parked_records_behind_an_open_transaction_are_known(caplog: pytest.LogCaptureFixture) -> None:
    scanned = Scanned()
    with caplog.at_level(logging.WARNING, "sage.runtime"):
        assert scanned.keys() == {b"committed": 1}
    assert "waits for the end of a transaction" in caplog.text


def test_records_of_a_transaction_that_was_decided_meanwhile_are_known_too() -> None:
    scanned = Scanned()
    scanned.opened.commit_transaction()
    assert scanned.keys() == {b"open": 1, b"committed": 1}


def test_a_scan_behind_an_open_transaction_ends_when_the_actor_is_to_stop() -> None:
    stopping = threading.Event()
    stopping.set()
    with pytest.raises(TransientFailure, match="transaction"):
        Scanned().keys(stopping)


@given(st.lists(st.tuples(st.sampled_from([b"a", b"b"]), st.booleans()), max_size=20), st.integers(0, 20))
def test_counts_are_those_of_what_was_not_read_again(events: list[tuple[bytes, bool]], rewound_to: int) -> None:
    parked = ParkedKeys()
    parked.start(0, Counter({b"a": 30, b"b": 30}))
    for offset, (key, parks) in enumerate(events):
        (parked.park if parks else parked.leave)(at() if parks else RETRY, offset, key)
    for place in (at(), RETRY):
        parked.rewind(place, rewound_to)
    kept = events[:rewound_to]
    for key in (b"a", b"b"):
        left = 30 + sum(1 if parks else -1 for each, parks in kept if each == key)
        for _ in range(left):
            assert parked.has(0, key)
            parked.leave(RETRY, 1_000 + left, key)
        assert not parked.has(0, key) or left <= 0
