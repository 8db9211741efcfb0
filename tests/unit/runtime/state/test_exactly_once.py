"""Counting through crashes: overlay, store and changelog together against what was committed.

Records of two partitions share keys. They start, fail and finish in any order that lanes allow; checkpoints commit or
abort; workers crash with or without their disk, give partitions back, or drop what they have. Every key's count must
always be the number of its records before the committed offsets, and in the end that of all its records.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from sage.model.partition import TopicPartition
from sage.ports import TopicSpec
from sage.runtime.state.restore import Restores
from sage.runtime.state.table import PartitionTable
from sage.runtime.state.work import KeyedWork
from sage.runtime.state.write_set import WriteSet
from sage.state.in_memory import MemoryStore
from sage.testing.broker import InMemoryClients
from sage.testing.virtual_time import ManualClock

CHANGELOG = TopicPartition("t.count.changelog", 0)


@dataclass(eq=False)
class Flight:
    """One record under way."""

    key: bytes
    work: KeyedWork | None = None
    finished: bool = False
    change: WriteSet | None = None
    prepared: bool = False


@dataclass
class Home:
    """One partition: its keys in offset order, and how far it has come."""

    keys: list[bytes]
    committed: int = 0
    taken: int = 0
    flights: list[Flight] = field(default_factory=list)


class Worker:
    """What a stage does with a table, written down once more and as plainly as can be."""

    def __init__(self, *partitions: list[bytes]) -> None:
        self.clients = InMemoryClients()
        self.clients.admin().create([TopicSpec(CHANGELOG.topic)])
        self.homes = [Home(keys) for keys in partitions]
        self.store = MemoryStore()
        self.lane: list[Flight] = []
        self.start_anew(keep_store=True)

    def start_anew(self, *, keep_store: bool) -> None:
        if not keep_store:
            self.store = MemoryStore()
        self.producer = self.clients.producer(transactional_id="t.count.1")
        self.producer.init_transactions()
        self.table = PartitionTable(self.store, model=None, ttl=None, has_timers=False)
        restores = Restores(self.clients, CHANGELOG.topic, has_timers=False, clock=ManualClock(), where="t")
        restores.add(0, self.store)
        while not restores.step():
            pass
        restores.close()
        self.read_again()
        self.check()

    def read_again(self) -> None:
        self.lane.clear()
        for home in self.homes:
            home.taken, home.flights = home.committed, []

    # ------------------------------------------------------------------------------ one record

    def take(self, pick: int) -> None:
        home = self.homes[pick % len(self.homes)]
        if home.taken < len(home.keys):
            flight = Flight(home.keys[home.taken])
            home.taken += 1
            home.flights.append(flight)
            self.lane.append(flight)

    def begin(self, pick: int) -> None:
        first: dict[bytes, Flight] = {}
        for flight in self.lane:
            first.setdefault(flight.key, flight)
        if ready := [flight for flight in first.values() if flight.work is None]:
            flight = ready[pick % len(ready)]
            flight.work = self.table.begin(flight.key, 0)
            flight.work.state["n"] = flight.work.state.get("n", 0) + 1

    def end(self, pick: int, *, fails: bool) -> None:
        if running := [flight for flight in self.lane if flight.work is not None]:
            flight = running[pick % len(running)]
            work, flight.work = flight.work, None
            if not fails:
                assert work is not None
                flight.change, flight.finished = self.table.stage(work), True
                self.lane.remove(flight)

    # ----------------------------------------------------------------------------- checkpoints

    def checkpoint(self, *, aborts: bool) -> None:
        for flight in self.ready():
            assert flight.change is not None
            self.table.prepare(flight.change)
        self.producer.begin_transaction()
        for key, value in self.table.prepared.items():
            self.producer.produce(CHANGELOG.topic, value, key, partition=0, on_delivery=self.table.acknowledged)
        if aborts:
            self.producer.abort_transaction()
            self.table.forget_prepared()
            for home in self.homes:
                for flight in home.flights:
                    flight.prepared = False
        else:
            self.producer.commit_transaction()
            for home in self.homes:
                while home.flights and home.flights[0].prepared:
                    home.flights.pop(0)
                    home.committed += 1
            self.table.keep()
        self.check()

    def ready(self) -> list[Flight]:
        """The prefix of each partition, as far as nothing is built upon a change outside of all prefixes."""
        found: list[Flight] = []
        before = -1
        while len(found) > before:
            before = len(found)
            for home in self.homes:
                for flight in home.flights:
                    if flight.prepared:
                        continue
                    if not flight.finished or flight.change is None or not flight.change.claim():
                        break
                    flight.prepared = True
                    found.append(flight)
        return found

    # ----------------------------------------------------------------------------------- what must hold

    def check(self) -> None:
        expected: dict[bytes, int] = {}
        for home in self.homes:
            for key in home.keys[: home.committed]:
                expected[key] = expected.get(key, 0) + 1
        assert {key: envelope.state["n"] for key, envelope in self.table.entries()} == expected

    def act(self, op: str, pick: int) -> None:
        if op == "take":
            self.take(pick)
        elif op == "begin":
            self.begin(pick)
        elif op in ("end", "fail"):
            self.end(pick, fails=op == "fail")
        elif op in ("commit", "abort"):
            self.checkpoint(aborts=op == "abort")
        elif op == "drop":
            self.table.drop()
            self.read_again()
        else:
            self.table.close()
            self.start_anew(keep_store=op == "crash")

    def run_to_the_end(self) -> None:
        for _ in range(sum(len(home.keys) for home in self.homes)):
            for number in range(len(self.homes)):
                self.take(number)
        while self.lane:
            self.begin(0)
            self.end(0, fails=False)
        self.checkpoint(aborts=False)
        assert all(home.committed == len(home.keys) for home in self.homes)


KEYS = st.lists(st.sampled_from([b"a", b"b", b"c"]), min_size=4, max_size=12)
ORDINARY = ["take", "begin", "end"]
OPS = st.sampled_from([*ORDINARY * 16, *["commit", "fail"] * 4, "abort", "drop", "crash", "move"])


@settings(max_examples=300)
@given(first=KEYS, second=KEYS, ops=st.lists(st.tuples(OPS, st.integers(0, 5)), min_size=60, max_size=120))
def test_every_record_is_counted_once(first: list[bytes], second: list[bytes], ops: list[tuple[str, int]]) -> None:
    worker = Worker(first, second)
    for op, pick in ops:
        worker.act(op, pick)
    worker.run_to_the_end()


def test_a_later_record_of_another_partition_does_not_carry_an_earlier_one_along() -> None:
    worker = Worker([b"slow", b"k"], [b"k"])
    for partition in (0, 0, 1):
        worker.take(partition)
    worker.begin(0)  # slow goes on for long
    for _ in range(2):
        worker.begin(0)
        worker.end(1 if worker.lane[1:] and worker.lane[1].work else 0, fails=False)
    worker.checkpoint(aborts=False)
    worker.act("move", 0)
    worker.run_to_the_end()
    assert state(worker, b"k") == {"n": 2}


def state(worker: Worker, key: bytes) -> Any:
    return worker.table.begin(key, 0).state
