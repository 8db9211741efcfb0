"""Who keeps which copies warm, and how one is handed over."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage.errors import FolderInUse
from sage.model.partition import TopicPartition
from sage.ports import Consumer, GroupMember, TopicSpec
from sage.runtime.state import standby
from sage.runtime.state.standby import Standby, find_self, standby_members
from sage.state.rocks import RocksStores
from sage.testing.broker import InMemoryClients
from sage.testing.virtual_time import ManualClock
from tests.support.kafka import Recorder
from tests.support.waiting import wait_until

CHANGELOG = "t.count.changelog"
IN, GROUP = "t.keys", "t.count"
PARTITIONS = 4


class World:
    """A group of two workers; the first is here, the second only a member."""

    def __init__(self, folder: Path) -> None:
        self.clients = InMemoryClients()
        self.clients.admin().create([TopicSpec(CHANGELOG, PARTITIONS), TopicSpec(IN, PARTITIONS)])
        self.stores = RocksStores(folder)
        self.owned: frozenset[TopicPartition] = frozenset()
        self.consumers: list[Consumer] = []
        self.standby = self.make()

    def make(self, client_id: str = "w1") -> Standby:
        return Standby(
            self.clients, self.stores, ManualClock(), place=("t", "count"), changelog=CHANGELOG, partitions=PARTITIONS,
            group=GROUP, copies=1, has_timers=False, owned=lambda: self.owned, client_id=client_id,
        )  # fmt: skip

    def join(self) -> Consumer:
        consumer = self.clients.consumer(GROUP)
        consumer.subscribe([IN], Recorder())
        self.consumers.append(consumer)
        for _ in range(3):
            for each in self.consumers:
                each.poll(1, 0)
        return consumer

    def write(self, key: bytes, value: bytes | None, partition: int) -> None:
        producer = self.clients.producer()
        producer.produce(CHANGELOG, value, key, partition=partition)
        assert producer.flush(5) == 0

    def two_workers(self) -> frozenset[int]:
        """Both have joined; the numbers that the other one owns."""
        mine, other = self.join(), self.join()
        for _ in range(3):
            mine.poll(1, 0)
            other.poll(1, 0)
        self.owned = mine.assignment()
        return frozenset(partition.partition for partition in other.assignment())


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.standby.stop()
    for consumer in made.consumers:
        consumer.close()


def test_what_the_other_worker_owns_is_followed(world: World) -> None:
    others = world.two_workers()
    world.standby.look()
    assert world.standby.following == others
    assert len(others) == 2


def test_a_copy_is_warm_when_it_is_handed_over(world: World) -> None:
    number = min(world.two_workers())
    world.write(b"k", b"1", number)
    world.standby.look()
    world.standby.turn(0)
    world.write(b"k", b"2", number)
    world.write(b"l", b"3", number)
    world.standby.turn(0)
    world.standby.hand_over(number)
    store = world.stores.open("t", "count", number)
    assert (store.get(b"sk"), store.get(b"sl"), store.applied) == (b"2", b"3", 3)
    store.close()


def test_what_was_handed_over_is_left_alone_until_it_goes_away_again(world: World) -> None:
    number = min(world.two_workers())
    world.standby.look()
    world.standby.hand_over(number)
    world.standby.look()
    assert number not in world.standby.following
    world.standby.take_back(number)
    world.standby.look()
    assert number in world.standby.following


def test_alone_there_is_nothing_to_follow(world: World) -> None:
    world.owned = world.join().assignment()
    world.standby.look()
    world.standby.turn(0)
    assert world.standby.following == frozenset()


def test_copies_are_let_go_when_the_group_changes(world: World) -> None:
    others = world.two_workers()
    world.standby.look()
    world.consumers.pop().close()
    for _ in range(3):
        world.consumers[0].poll(1, 0)
    world.standby.look()
    assert world.standby.following == frozenset()
    for number in others:
        world.stores.open("t", "count", number).close()


def test_trouble_is_logged_and_tried_again(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(standby, "PAUSE", 0.01)
    monkeypatch.setattr(standby, "WAIT", 0.01)
    others = world.two_workers()
    stores, refusals = world.stores, [FolderInUse("made to fail"), ValueError("made to fail too")]

    class Refusing:
        def open(self, topology: str, step: str, partition: int) -> object:
            if refusals:
                raise refusals.pop(0)
            return stores.open(topology, step, partition)

    monkeypatch.setattr(world.standby, "_stores", Refusing())
    with caplog.at_level(logging.WARNING, "sage.runtime"):
        world.standby.start()
        wait_until(lambda: world.standby.following == others, what="the copies are followed")
    world.standby.stop()
    assert "trying again: made to fail" in caplog.text
    assert "made to fail too" in caplog.text


def test_the_thread_follows_and_closes_everything_at_its_end(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standby, "WAIT", 0.01)
    number = min(world.two_workers())
    world.standby.start()
    world.standby.start()
    wait_until(lambda: number in world.standby.following, what="the copy is followed")
    world.write(b"k", b"1", number)
    copy = world.standby._copying.copies[number]
    wait_until(lambda: copy.position == 1, what="the change is there")
    world.standby.stop()
    store = world.stores.open("t", "count", number)
    assert store.get(b"sk") == b"1"
    store.close()


# ------------------------------------------------------------------------------ who keeps what

NAMES = st.sets(st.text("abcdef0123456789", min_size=1, max_size=6), min_size=2, max_size=8)


def shares(members: set[str], copies: int = 1) -> dict[int, list[str]]:
    return {number: standby_members(TopicPartition(CHANGELOG, number), members, None, copies) for number in range(64)}


@given(members=NAMES, copies=st.integers(1, 3))
def test_every_partition_has_its_copies_and_none_at_its_owner(members: set[str], copies: int) -> None:
    owner = min(members)
    for number in range(16):
        kept = standby_members(TopicPartition(CHANGELOG, number), members, owner, copies)
        assert owner not in kept
        assert len(set(kept)) == len(kept) == min(copies, len(members) - 1)


@given(members=NAMES)
def test_when_a_member_goes_only_its_copies_move(members: set[str]) -> None:
    gone = max(members)
    before, after = shares(members), shares(members - {gone})
    assert all(after[number] == kept for number, kept in before.items() if kept != [gone])


def test_copies_are_spread() -> None:
    counts = Counter(kept[0] for kept in shares({f"worker-{n}" for n in range(4)}).values())
    assert len(counts) == 4
    assert max(counts.values()) < 32


def member(name: str, *numbers: int, client_id: str = "sage") -> GroupMember:
    return GroupMember(name, client_id, frozenset(TopicPartition(IN, number) for number in numbers))


def test_a_worker_knows_itself_by_what_it_has() -> None:
    members = [member("a", 0), member("b", 1, 2)]
    assert find_self(members, [TopicPartition(IN, 2)], "w1") == "b"
    assert find_self(members, [TopicPartition(IN, 7)], "w1") is None


def test_a_worker_without_partitions_knows_itself_by_its_name_or_because_nobody_else_is_idle() -> None:
    assert find_self([member("a", 0), member("b")], [], "w1") == "b"
    assert find_self([member("a", client_id="w1"), member("b", client_id="w2")], [], "w1") == "a"
    assert find_self([member("a"), member("b")], [], "w1") is None
