"""Keyed state and source positions that go along when a topology changes. Everything here may be done again.

Nobody may be at work on what is moved: its stages have drained and left. All writes go through one transactional id
per topology, so that a deployer that comes back too late is fenced from the state as well.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import Final, Self, TypeVar

from sage.cluster.names import ControlTopics
from sage.cluster.offsets import partitions_of
from sage.errors import Conflict, TransientFailure, Unreachable
from sage.model.keys import partition_for
from sage.model.names import offsets_topic
from sage.model.partition import TopicPartition
from sage.plan.plan import Plan
from sage.plan.topics import offsets_partitions
from sage.ports import Admin, KafkaClients, Producer, ProducerFatal, RawMessage, TransactionAbortable
from sage.runtime.sources.positions import PositionWriter, load_position, position_key

PATIENCE: Final = 30.0
_KEYS_PER_TRANSACTION: Final = 1_000
_EARLIEST: Final = -2

T = TypeVar("T")

Write = tuple[str, int, bytes, bytes | None]
"""Topic, partition, key, value."""


class StateMover:
    """Writes state of one topology, fenced against whoever does so too. A context manager.

    Raises:
        Conflict: another deployer has taken over; what was done so far is whole, and may be done again.
        TransientFailure, Unreachable: the brokers.
    """

    def __init__(self, clients: KafkaClients, topics: ControlTopics, topology: str) -> None:
        self._clients = clients
        self._topology = topology
        self._admin: Admin = clients.admin()
        # With a dot, which no topology's name has: else it were the id of who deploys the topology of that name.
        self._producer: Producer = clients.producer(transactional_id=f"{topics.deployer_id(topology)}.state")
        try:
            self._producer.init_transactions(PATIENCE)
        except BaseException:
            self.close()
            raise

    def copy(self, old: str, new: str) -> int:
        """Make changelog ``new`` hold exactly what ``old`` does, partition by partition; returns keys written."""
        count = 0
        for place in partitions_of(self._admin, old):
            there = self._entries(TopicPartition(new, place.partition))
            wanted = self._entries(place)
            writes: list[Write] = [(new, place.partition, key, value) for key, value in wanted.items()]
            writes += [(new, place.partition, key, None) for key in there.keys() - wanted.keys()]
            self._write(writes)
            count += len(writes)
        return count

    def rekey(self, changelog: str) -> int:
        """Bring every key into the partition that it belongs to by now; returns keys moved.

        Each key's new place and the end of its old one are in one transaction, so that it is never in two.
        """
        count = 0
        places = partitions_of(self._admin, changelog)
        for place in places:
            strays = {
                key: value
                for key, value in self._entries(place).items()
                if partition_for(key, len(places)) != place.partition
            }
            for part in _in_parts(strays.items(), _KEYS_PER_TRANSACTION):
                writes: list[Write] = []
                for key, value in part:
                    writes.append((changelog, partition_for(key, len(places)), key, value))
                    writes.append((changelog, place.partition, key, None))
                self._write(writes)
            count += len(strays)
        return count

    def move_positions(self, plan: Plan, sources: Mapping[str, str]) -> None:
        """Have renamed sources go on where they were."""
        topic = offsets_topic(self._topology)
        for (step, task), number in offsets_partitions(plan).items():
            old = next((before for before, after in sources.items() if after == step), None)
            if old is None:
                continue
            place = TopicPartition(topic, number)
            found = load_position(self._clients, place, position_key(old, task))
            if found is None:
                continue
            producer = self._clients.producer()
            try:
                if not PositionWriter(producer, place, position_key(step, task)).write(found, PATIENCE):
                    raise TransientFailure(f"{place} did not take a source position; try again", where=step)
            finally:
                producer.close()

    # ---------------------------------------------------------------------------------------- internals

    def _entries(self, place: TopicPartition) -> dict[bytes, bytes]:
        """What one partition of a changelog says of its keys."""
        found: dict[bytes, bytes] = {}
        for message in _read_all(self._clients, self._admin, place):
            key, value = message.key(), message.value()
            if key is None:
                continue
            if value is None:
                found.pop(key, None)
            else:
                found[key] = value
        return found

    def _write(self, writes: list[Write]) -> None:
        for part in _in_parts(writes, 2 * _KEYS_PER_TRANSACTION):
            self._write_part(part)

    def _write_part(self, writes: list[Write]) -> None:
        producer = self._producer
        try:
            producer.begin_transaction()
            for topic, partition, key, value in writes:
                self._produce(topic, partition, key, value)
            left = producer.flush(PATIENCE)
            failures = producer.take_failures()
            if left or failures:
                raise TransactionAbortable(failures[0].reason if failures else "no answer")
            _commit(producer)
        except TransactionAbortable as error:
            producer.abort_transaction(PATIENCE)
            raise TransientFailure(f"state was not moved: {error}; deploy again", where=self._topology) from error
        except ProducerFatal as error:
            raise Conflict("another deployer has taken over while state was moved", where=self._topology) from error

    def _produce(self, topic: str, partition: int, key: bytes, value: bytes | None) -> None:
        while True:
            try:
                self._producer.produce(topic, value, key, partition=partition)
            except BufferError:
                self._producer.poll(0.1)
            else:
                return

    def close(self) -> None:
        """Release the clients."""
        self._producer.close()
        self._admin.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _in_parts(items: Iterable[T], size: int) -> Iterator[list[T]]:
    part: list[T] = []
    for item in items:
        part.append(item)
        if len(part) == size:
            yield part
            part = []
    if part:
        yield part


def _commit(producer: Producer) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            producer.commit_transaction(PATIENCE)
        except TransientFailure:
            if time.monotonic() > deadline:
                raise
        else:
            return


def _read_all(clients: KafkaClients, admin: Admin, place: TopicPartition) -> Iterator[RawMessage]:
    """Every committed record of a partition, also behind a transaction that is still open: that is waited for."""
    (end,) = admin.end_offsets([place], committed=False).values()
    (start,) = admin.start_offsets([place]).values()
    if start >= end:
        return
    consumer = clients.consumer(None)
    try:
        consumer.assign({place: _EARLIEST})
        heard = time.monotonic()
        position = start
        while position < end:
            batch = consumer.poll(10_000, 0.1)
            for message in batch:
                if message.offset() < end:
                    yield message
                position = message.offset() + 1
            position = max(position, consumer.ends_reached().get(place, 0))
            if batch:
                heard = time.monotonic()
            elif position < end and time.monotonic() - heard > PATIENCE:
                raise Unreachable(f"{place}: read to {position} of {end}, and nothing more for {PATIENCE:.0f} s")
    finally:
        consumer.close()
