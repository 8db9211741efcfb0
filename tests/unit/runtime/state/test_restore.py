"""Copies are brought up to their changelog, or made again where they can't be."""

from __future__ import annotations

import logging
from dataclasses import replace

import orjson
import pytest

from sage.errors import NotFound
from sage.model.partition import TopicPartition
from sage.ports import Producer, TopicSpec
from sage.runtime.state import restore
from sage.runtime.state.copy_facts import MAX_AGE_MS, CopyFacts
from sage.runtime.state.copying import BATCH
from sage.runtime.state.restore import Progress, Restores
from sage.state.in_memory import MemoryStore
from sage.testing.broker import InMemoryClients
from sage.testing.virtual_time import ManualClock

CHANGELOG = "t.count.changelog"


class World:
    """A changelog, and restores of it."""

    def __init__(self, partitions: int = 1) -> None:
        self.clock = ManualClock()
        self.clients = InMemoryClients(now_ms=self.clock.now_ms)
        self.partitions = partitions
        self.make_topic()

    def make_topic(self) -> None:
        self.clients.admin().create([TopicSpec(CHANGELOG, self.partitions)])

    def write(self, *entries: tuple[str, int | None], partition: int = 0) -> None:
        producer = self.clients.producer()
        for key, n in entries:
            value = None if n is None else orjson.dumps({"s": {"n": n}})
            producer.produce(CHANGELOG, value, key.encode(), partition=partition)
        assert producer.flush(5) == 0

    def restores(self, *, has_timers: bool = False) -> Restores:
        return Restores(self.clients, CHANGELOG, has_timers=has_timers, clock=self.clock, where="t")

    def restored(self, store: MemoryStore, *, has_timers: bool = False) -> MemoryStore:
        restores = self.restores(has_timers=has_timers)
        restores.add(0, store)
        while restores.step() != [0]:
            pass
        restores.close()
        return store


@pytest.fixture
def world() -> World:
    return World()


def entries(store: MemoryStore) -> dict[str, int]:
    return {key[1:].decode(): orjson.loads(value)["s"]["n"] for key, value in store.scan(b"s")}


def test_how_much_is_there_is_told_while_it_is_restored(world: World) -> None:
    world.write(*((f"k{number}", number) for number in range(BATCH + 10)))
    restores = world.restores()
    assert restores.share is None
    restores.add(0, MemoryStore())
    assert restores.share == 0.0
    shares = []
    while not restores.step():
        shares.append(restores.share)
    assert shares
    assert shares == sorted(shares)
    assert 0 < shares[-1] < 1
    assert restores.share is None
    restores.close()


def test_the_last_value_of_every_key_is_there(world: World) -> None:
    world.write(("a", 1), ("b", 1), ("a", 2), ("b", None), ("c", 3))
    store = world.restored(MemoryStore())
    assert entries(store) == {"a": 2, "c": 3}
    assert store.applied == 5


def test_an_empty_changelog_is_restored_at_once(world: World) -> None:
    store = world.restored(MemoryStore())
    assert (entries(store), store.applied) == ({}, 0)


def test_a_copy_reads_only_what_it_lacks(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.write(("a", 1), ("b", 1))
    store = world.restored(MemoryStore())
    world.write(("a", 2))
    with caplog.at_level(logging.INFO, "sage.runtime"):
        world.restored(store)
    assert entries(store) == {"a": 2, "b": 1}
    assert "restored 1 changes of t.count.changelog-0" in caplog.text


def test_what_was_never_committed_is_not_restored(world: World) -> None:
    producer = world.clients.producer(transactional_id="t.count.x")
    producer.init_transactions()
    for key, commits in ((b"yes", True), (b"no", False)):
        producer.begin_transaction()
        producer.produce(CHANGELOG, b'{"s":{"n":1}}', key, partition=0)
        producer.commit_transaction() if commits else producer.abort_transaction()
    store = world.restored(MemoryStore())
    assert entries(store) == {"yes": 1}
    assert store.applied == 4, "the markers that end transactions take offsets"


def open_transaction(world: World, name: str, key: bytes) -> Producer:
    producer = world.clients.producer(transactional_id=name)
    producer.init_transactions()
    producer.begin_transaction()
    producer.produce(CHANGELOG, b'{"s":{"n":2}}', key, partition=0)
    return producer


def test_a_change_that_is_committed_behind_an_open_transaction_is_waited_for(world: World) -> None:
    open_transaction(world, "t.count.dead", b"never")
    open_transaction(world, "t.count.left", b"committed").commit_transaction()
    store, restores = MemoryStore(), world.restores()
    restores.add(0, store)
    assert restores.step() == []
    world.clock.advance(10.1)  # the broker ends what a dead worker left open
    while restores.step() != [0]:
        pass
    assert entries(store) == {"committed": 2}


def test_a_transaction_that_is_decided_while_its_changelog_is_read_counts(world: World) -> None:
    undecided = open_transaction(world, "t.count.left", b"committed")
    store, restores = MemoryStore(), world.restores()
    restores.add(0, store)
    assert restores.step() == []
    undecided.commit_transaction()
    while restores.step() != [0]:
        pass
    assert entries(store) == {"committed": 2}


def changelog_is_made_again(world: World) -> None:
    world.clients.admin().delete([CHANGELOG])
    world.make_topic()


@pytest.mark.parametrize(
    ("entries_after", "reason"),
    [(1, "another changelog of that name"), (9, "another changelog of that name")],
)
def test_a_copy_of_a_deleted_changelog_is_made_again(
    world: World, caplog: pytest.LogCaptureFixture, entries_after: int, reason: str
) -> None:
    world.write(("old", 1), ("old", 2), ("older", 1))
    store = world.restored(MemoryStore())
    changelog_is_made_again(world)
    world.write(*[("new", n) for n in range(entries_after)])
    with caplog.at_level(logging.WARNING, "sage.runtime"):
        world.restored(store)
    assert entries(store) == {"new": entries_after - 1}
    assert reason in caplog.text


def test_a_copy_past_the_changelogs_end_is_made_again(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.write(("a", 1))
    store = world.restored(MemoryStore())
    store.apply({b"sx": b'{"s":{"n":9}}'}, 100)
    with caplog.at_level(logging.WARNING, "sage.runtime"):
        world.restored(store)
    assert (entries(store), store.applied) == ({"a": 1}, 1)
    assert "it is at offset 100, and the changelog ends at 1" in caplog.text


def test_a_copy_before_the_changelogs_begin_is_made_again(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.write(("a", 1))
    store = world.restored(MemoryStore())
    world.write(("a", None), ("b", 1), ("c", 1))
    world.clients.trim({TopicPartition(CHANGELOG, 0): 3})
    with caplog.at_level(logging.WARNING, "sage.runtime"):
        world.restored(store)
    assert entries(store) == {"c": 1}
    assert "the changelog begins at 3" in caplog.text


def test_a_copy_that_is_too_old_to_know_of_all_deletions_is_made_again(world: World) -> None:
    world.write(("a", 1), ("gone", 1))
    store = world.restored(MemoryStore())
    changed = CopyFacts.of(store)
    assert changed is not None
    world.clock.advance_to(world.clock.monotonic() + MAX_AGE_MS / 1000 + 1)
    # The deletion itself was compacted away: nothing is left to read.
    store.apply({b"sgone": b'{"s":{"n":7}}'}, store.applied)
    world.restored(store)
    assert entries(store) == {"a": 1, "gone": 1}


def test_a_copy_whose_time_lies_ahead_says_nothing_of_its_age_and_is_made_again(world: World) -> None:
    """Its worker's clock was wrong then. It would count as fresh for as long as that clock was ahead."""
    world.write(("a", 1), ("gone", 1))
    store = world.restored(MemoryStore())
    facts = CopyFacts.of(store)
    assert facts is not None
    replace(facts, complete=facts.complete + 2 * MAX_AGE_MS).write(store)
    store.apply({b"sgone": b'{"s":{"n":7}}'}, store.applied)
    world.restored(store)
    assert entries(store) == {"a": 1, "gone": 1}


def test_a_copy_without_an_index_of_timers_is_made_again_for_a_step_that_hears_them(world: World) -> None:
    producer = world.clients.producer()
    producer.produce(CHANGELOG, b'{"t":{"timer":5},"s":null}', b"k", partition=0)
    producer.flush(5)
    store = world.restored(MemoryStore())
    assert list(store.scan(b"t")) == []
    world.restored(store, has_timers=True)
    assert list(store.scan(b"t")) == [(b"tk", b'{"timer":5}')]


def test_a_restore_goes_on_where_a_crash_ended_it(world: World) -> None:
    world.write(*[(f"k{n}", n) for n in range(BATCH + 10)])
    store = MemoryStore()
    first = world.restores()
    first.add(0, store)
    assert first.step() == []
    assert first.progress == {0: Progress(BATCH, BATCH + 10)}
    assert store.applied == BATCH
    world.restored(store)
    assert len(entries(store)) == BATCH + 10


def test_several_are_restored_side_by_side_and_one_may_go_meanwhile() -> None:
    world = World(partitions=3)
    for partition in range(3):
        world.write(*[(f"k{n}", n) for n in range(2 * BATCH)], partition=partition)
    stores = {number: MemoryStore() for number in range(3)}
    restores = world.restores()
    for number, store in stores.items():
        restores.add(number, store)
    assert restores.progress == {0: None, 1: None, 2: None}
    assert restores.step() == []
    restores.remove(1)
    assert 1 not in restores
    done: list[int] = []
    while len(done) < 2:
        done += restores.step()
    assert sorted(done) == [0, 2]
    assert [len(entries(stores[number])) for number in (0, 2)] == [2 * BATCH, 2 * BATCH]
    assert restores.progress == {}
    restores.add(1, stores[1])
    while restores.step() != [1]:
        pass
    assert len(entries(stores[1])) == 2 * BATCH


def test_a_broker_that_does_not_answer_is_asked_again(world: World) -> None:
    world.write(("a", 1))
    store = MemoryStore()
    restores = world.restores()
    restores.add(0, store)
    with world.clients.down():
        assert restores.step() == []
        assert 0 in restores
    assert restores.step() == [0]
    assert entries(store) == {"a": 1}


def test_a_changelog_that_is_missing_is_told(world: World) -> None:
    world.clients.admin().delete([CHANGELOG])
    restores = world.restores()
    restores.add(0, MemoryStore())
    with pytest.raises(NotFound, match="changelog"):
        restores.step()


def test_a_restore_is_told_where_a_user_looks_only_if_it_takes_long(
    world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.write(("a", 1), ("b", 2))
    with caplog.at_level(logging.WARNING):
        world.restored(MemoryStore())
        assert caplog.text == ""
        monkeypatch.setattr(restore, "WORD_EVERY", 0.0)
        world.restored(MemoryStore())
    assert "restored 2 changes of t.count.changelog-0" in caplog.text


def test_progress_is_told_while_it_goes_on(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    world.write(*((f"k{number}", number) for number in range(2 * BATCH)))
    monkeypatch.setattr(restore, "WORD_EVERY", 0.0)
    with caplog.at_level(logging.WARNING):
        world.restored(MemoryStore())
    assert f"restoring state of 1 partitions, {BATCH} of {2 * BATCH} changes (50 %)" in caplog.text
