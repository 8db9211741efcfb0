"""Records that wait in the retry topic: their key keeps its order, others go on, a restart knows who waits."""

from __future__ import annotations

import logging
import random
import threading
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage.errors import TransientFailure
from sage.model.partition import TopicPartition
from sage.ports import Commit, Producer, TopicSpec
from sage.runtime.actors.actor import Actor
from sage.runtime.concurrent.turns import IN_LANE
from sage.runtime.retries.parked_keys import Origin, ParkedKeys
from sage.runtime.retries.parking import scan_parked
from sage.testing.broker import InMemoryClients, InMemoryConsumer
from sage.testing.virtual_time import ManualClock
from tests.unit.runtime.acting import GROUP, committed, consumer_of, turn
from tests.unit.runtime.bench import IN, Bench, at

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


def test_keys_whose_tries_fail_do_not_wait_for_each_other() -> None:
    """Of the failing keys each waits for its own next try, and not for all tries of those in front of it."""
    flaky = Flaky("a1")
    bench = Bench(lambda s: s.map(flaky, name="work", retry={"attempts": 6, "backoff": 2.0, "max_backoff": 30.0}))
    actor = bench.actor()
    bench.feed("a1", keys=[b"a"])
    run(bench, actor, seconds=0.3)
    flaky.down.add("b1")
    bench.feed("b1", "b2", "a2", keys=[b"b", b"b", b"a"])
    run(bench, actor, seconds=1.0)
    flaky.down.discard("b1")
    run(bench, actor, seconds=9.0)
    assert bench.out() == ["b1", "b2"], "they wait for one try of a's at most"
    flaky.down.clear()
    run(bench, actor, seconds=60.0)
    assert bench.out() == ["b1", "b2", "a1", "a2"]


@given(
    seed=st.integers(0, 10_000), guarantee=st.sampled_from(["at_least_once", "exactly_once"]),
    crash=st.integers(0, 40),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_whoever_fails_and_how_often_keys_keep_their_order_also_for_a_new_owner(
    seed: int, guarantee: Any, crash: int
) -> None:
    draw = random.Random(seed)
    failures = {f"{key}{number}": draw.choice([0, 0, 1, 2, 3]) for key in "abc" for number in range(6)}

    def work(value: str) -> str:
        if failures[value]:
            failures[value] -= 1
            raise ConnectionError(value)
        return value

    bench = Bench(
        lambda s: s.map(work, name="work", retry={"attempts": 10, "backoff": 0.3, "max_backoff": 2.0}),
        guarantee=guarantee,
    )
    actor = bench.actor()
    values = sorted(failures, key=lambda value: (value[1], draw.random()))
    for index, value in enumerate(values):
        bench.feed(value, keys=[value[:1].encode()])
        run(bench, actor, seconds=draw.choice([0.1, 0.3, 0.8]))
        if index == crash:
            actor.stop(1.0)
            actor.run(lambda _: None)
            actor = bench.actor()
    run(bench, actor, seconds=60.0)
    for key in "abc":
        assert [value for value in bench.out() if value[0] == key] == [f"{key}{number}" for number in range(6)]
    assert bench.dead() == []


def test_workers_that_die_do_not_multiply_the_records_that_wait() -> None:
    """Each had put all of them there once more, and not committed it; the next one did so with all that it found."""
    flaky = Flaky("a0", "b0")
    bench = Bench(lambda s: s.map(flaky, name="work", retry={"attempts": 100, "backoff": 1.0, "max_backoff": 1.0}))
    names = [f"{key}{number}" for key in "ab" for number in range(4)]
    bench.feed(*names, keys=[name[0].encode() for name in names])
    run(bench, dying := bench.actor(), seconds=1.0)
    for _ in range(4):
        bench.clients._state.faults.commits = [TransientFailure("no coordinator")] * 1_000
        run(bench, dying, seconds=3.0)
        consumer_of(dying).abandon()
        dying.task.lost(sorted(dying.assignment))
        bench.clients._state.faults.commits = []
        run(bench, dying := bench.actor(), seconds=0.2)
    flaky.down.clear()
    run(bench, dying, seconds=20.0)
    assert sorted(bench.out()) == names
    assert len(bench.clients.messages("t.work.retry")) < 40 * len(names)


def test_what_others_put_into_the_retry_topic_is_no_double_of_a_record_that_waits() -> None:
    """Neither tells where it was first read, and they stand where the other one was."""
    flaky = Flaky("a0", "x1")
    bench = bench_of(flaky)
    others = bench.clients.producer()
    for value in (b'"x0"', b'"x1"'):
        others.produce("t.work.retry", value, b"a", partition=0)
    others.flush(0)
    bench.feed("a0", "a1", keys=[b"a", b"a"])
    run(bench, first := bench.actor(), seconds=1.0)
    first.stop(1.0)
    first.run(lambda _: None)
    flaky.down.clear()
    run(bench, bench.actor(), seconds=20.0)
    assert sorted(bench.out()) == ["a0", "a1", "x0", "x1"]


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


def test_an_asynchronous_record_alone_is_parked_when_it_has_failed_for_a_minute() -> None:
    flaky = Flaky("a")

    async def call(value: Any) -> Any:
        return flaky(value)

    bench = Bench(
        lambda s: s.map(call, name="work", retry={"attempts": 1_000, "backoff": 1.0, "max_backoff": 2.0}),
    )
    actor = bench.actor()
    bench.feed("a", keys=[b"a"])
    run(bench, actor, seconds=IN_LANE - 5.0)
    assert bench.clients.messages("t.work.retry") == []
    assert committed(bench) == {at(): 0}
    run(bench, actor, seconds=10.0)
    assert len(bench.clients.messages("t.work.retry")) == 1
    assert committed(bench) == {at(): 1}, "it holds up its partition no longer"
    flaky.down.clear()
    run(bench, actor, seconds=5.0)
    assert bench.out() == ["a"]


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

    def keys(self, stopping: threading.Event | None = None) -> dict[bytes, int]:
        """How many records of each key were found."""
        found = scan_parked(self.clients, RETRY, Commit(0), clock=self.clock, stopping=stopping or threading.Event())
        return {key: len(origins) for key, origins in found.items()}


def test_parked_records_behind_an_open_transaction_are_known(caplog: pytest.LogCaptureFixture) -> None:
    scanned = Scanned()
    with caplog.at_level(logging.WARNING, "sage.runtime"):
        assert scanned.keys() == {b"committed": 1}
    assert "waits for the end of a transaction" in caplog.text


def test_records_of_a_transaction_that_was_decided_meanwhile_are_known_too() -> None:
    scanned = Scanned()
    scanned.opened.commit_transaction()
    assert scanned.keys() == {b"open": 1, b"committed": 1}


def test_however_many_records_wait_and_however_few_come_at_a_time_all_their_keys_are_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clients, poll = InMemoryClients(), InMemoryConsumer.poll
    clients.admin().create([TopicSpec(RETRY.topic)])
    producer = clients.producer()
    for number in range(500):
        producer.produce(RETRY.topic, b"1", b"%d" % (number % 7), partition=0)
    producer.flush(1)
    monkeypatch.setattr(InMemoryConsumer, "poll", lambda self, most, timeout: poll(self, min(most, 3), timeout))
    found = scan_parked(clients, RETRY, Commit(3), clock=ManualClock(), stopping=threading.Event())
    assert sum(map(len, found.values())) == 497
    assert set(found) == {b"%d" % number for number in range(7)}


def test_a_scan_behind_an_open_transaction_ends_when_the_actor_is_to_stop() -> None:
    stopping = threading.Event()
    stopping.set()
    with pytest.raises(TransientFailure, match="transaction"):
        Scanned().keys(stopping)


@given(st.lists(st.tuples(st.sampled_from([b"a", b"b"]), st.booleans()), max_size=20), st.integers(0, 20))
def test_what_waits_is_what_was_not_read_again(events: list[tuple[bytes, bool]], rewound_to: int) -> None:
    parked = ParkedKeys()
    there = {key: [Origin(IN, -number) for number in range(30, 0, -1)] for key in (b"a", b"b")}
    parked.start(0, there)
    left: dict[bytes, list[Origin]] = {key: list(origins) for key, origins in there.items()}
    for offset, (key, parks) in enumerate(events):
        if parks:
            parked.park(at(), offset, key)
        else:
            parked.leave(RETRY, offset, key, there[key].pop(0))
        if offset < rewound_to:
            left[key] = [*left[key], Origin(IN, offset)] if parks else left[key][1:]
    for place in (at(), RETRY):
        parked.rewind(place, rewound_to)
    for key, origins in left.items():
        for origin in sorted(origins):
            assert parked.has(0, key)
            assert not parked.is_overtaken(0, key, origin)
            assert parked.is_overtaken(0, key, Origin(IN, origin.offset + 1))
            parked.leave(RETRY, 1_000 + origin.offset, key, origin)
        assert not parked.has(0, key)


def test_what_others_put_into_the_retry_topic_frees_no_key_of_its_order() -> None:
    parked = ParkedKeys()
    parked.park(at(), 7, b"a")
    parked.leave(RETRY, 0, b"a", Origin(IN, 3))
    assert parked.has(0, b"a")
    parked.rewind(RETRY, 0)
    parked.leave(RETRY, 1, b"a", Origin(IN, 7))
    assert not parked.has(0, b"a")


def test_what_others_put_into_the_retry_topic_is_never_taken_for_input() -> None:
    """Without a key and without headers, as `sage topics produce` writes it."""
    bench = bench_of(Flaky())
    others = bench.clients.producer()
    for number in range(5):
        others.produce("t.work.retry", b'"x%d"' % number, partition=0)
    others.flush(0)
    bench.feed("a0", "a1", keys=[b"a", b"a"])
    run(bench, actor := bench.actor())
    assert sorted(bench.out()) == ["a0", "a1", "x0", "x1", "x2", "x3", "x4"]
    actor.stop(1.0)
    actor.run(lambda _: None)
    assert {place.topic: offset for place, offset in bench.clients.committed(GROUP).items()} == {IN: 2, RETRY.topic: 5}
