"""Where each source task has got to: one compacted topic per topology, one partition per task.

A partition's owner is the member of the group over this topic that has it assigned. What it writes is read
back by the next owner, and by whoever waits for the sources to be exhausted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from sage.errors import DecodeFailure, StageStopped, Unreachable
from sage.model.json import Json
from sage.model.partition import TopicPartition
from sage.ports import Consumer, KafkaClients, Producer, RawMessage

READ_TIMEOUT = 30.0
"""Seconds to read one partition of positions to its end."""


@dataclass(frozen=True, slots=True)
class SourcePosition:
    """A source task's state.

    Attributes:
        epoch: the run that gave the records their ids; a new one only on a fresh start.
        position: what the source said comes after the last record whose outputs are acknowledged.
        exhausted: a bounded read has given all that was there.
        run: the run of which that is said; empty otherwise.
    """

    epoch: str
    position: Json = None
    exhausted: bool = False
    run: str = ""

    def encode(self) -> bytes:
        """As the topic carries it."""
        fields = {"epoch": self.epoch, "position": self.position, "exhausted": self.exhausted}
        return orjson.dumps({**fields, "run": self.run} if self.run else fields)

    @classmethod
    def decode(cls, data: bytes) -> SourcePosition:
        """Raises DecodeFailure for bytes that no SAGE wrote."""
        try:
            fields: dict[str, Any] = orjson.loads(data)
            return cls(str(fields["epoch"]), fields["position"], bool(fields["exhausted"]), str(fields.get("run", "")))
        except (orjson.JSONDecodeError, KeyError, TypeError) as error:
            raise DecodeFailure(f"not a source position: {error}") from error


def run_name(worker: str, number: int) -> str:
    """The ``number``-th run that ``worker`` ordered of its sources."""
    return f"{worker}#{number}"


def position_key(step: str, task: str) -> bytes:
    """The key of a task's position."""
    return orjson.dumps([step, task])


def load_position(clients: KafkaClients, partition: TopicPartition, key: bytes) -> SourcePosition | None:
    """The last position written for ``key``, or ``None``. Blocks.

    It is looked for in the whole topic: a task's partition moves when a topology's sources change, also to one where
    it has been before. Which one it was in last only time can tell: the broker's, but in a topic from before SAGE
    asked for that.

    Raises:
        Unreachable: a partition could not be read to its end in time.
    """
    admin = clients.admin()
    consumer = clients.consumer(None)
    newest: RawMessage | None = None
    try:
        known = admin.describe([partition.topic]).get(partition.topic)
        partitions = [TopicPartition(partition.topic, n) for n in range(known.partitions if known else 0)]
        partitions.sort(key=lambda place: place == partition)  # its own is last, so that it wins a tie
        ends, starts = admin.end_offsets(partitions), admin.start_offsets(partitions)
        for place in (p for p in partitions if ends[p] > starts[p]):
            last = _last_of(key, _read_to(consumer, place, starts[place], ends[place]))
            if last is not None and (newest is None or last.timestamp()[1] >= newest.timestamp()[1]):
                newest = last
    finally:
        consumer.close()
        admin.close()
    value = None if newest is None else newest.value()
    return None if value is None else SourcePosition.decode(value)


def _last_of(key: bytes, messages: Sequence[RawMessage]) -> RawMessage | None:
    """The key's record at the highest offset: what was written last, whatever its writer's clock said."""
    mine = (each for each in messages if each.key() == key and each.value() is not None)
    return max(mine, key=lambda each: each.offset(), default=None)


def _read_to(consumer: Consumer, partition: TopicPartition, start: int, end: int) -> list[RawMessage]:
    consumer.assign({partition: start})
    messages: list[RawMessage] = []
    waits = 0
    while True:
        batch = consumer.poll(1_000, 0.1)
        messages += batch
        if messages and messages[-1].offset() >= end - 1:
            return messages
        if consumer.ends_reached().get(partition, -1) >= end:
            return messages
        waits = 0 if batch else waits + 1
        if waits * 0.1 > READ_TIMEOUT:
            raise Unreachable(f"{partition}: positions not readable to offset {end} within {READ_TIMEOUT:.0f} s")


class PositionWriter:
    """Writes a task's positions and waits until the broker has them."""

    def __init__(self, producer: Producer, partition: TopicPartition, key: bytes) -> None:
        self._producer = producer
        self._partition = partition
        self._key = key

    def write(self, position: SourcePosition, timeout: float) -> bool:
        """Write after the records before it were acknowledged. False where the broker did not take it yet.

        Raises:
            StageStopped: the broker refused it.
        """
        topic, partition = self._partition
        self._producer.produce(topic, position.encode(), self._key, partition=partition)
        left = self._producer.flush(timeout)
        failures = self._producer.take_failures()
        for failure in failures:
            if not failure.retriable:
                raise StageStopped(f"{self._partition} did not take a source position: {failure.reason}")
        return left == 0 and not failures


class ExhaustionWatch:
    """Follows the positions topic until every task says that it is exhausted, whoever owns it.

    Args:
        tasks: the key of each task's position, by its partition.
        past_run: the last run of this process: its tasks may still be saying that they are through with that one.
    """

    def __init__(self, clients: KafkaClients, tasks: Mapping[TopicPartition, bytes], past_run: str = "") -> None:
        self._tasks = tasks
        self._past_run = past_run
        self._waiting = set(tasks)
        self._consumer = clients.consumer(None)
        admin = clients.admin()
        try:
            ends = admin.end_offsets(sorted(tasks)) if tasks else {}
        finally:
            admin.close()
        if ends:
            self._consumer.assign(ends)  # what was written before is an earlier run's word

    def exhausted(self, timeout: float) -> bool:
        """Look for up to ``timeout`` seconds; true once all tasks are exhausted."""
        if self._waiting:
            for message in self._consumer.poll(1_000, timeout):
                value = message.value()
                partition = TopicPartition(message.topic(), message.partition())
                if value is None or message.key() != self._tasks.get(partition):
                    continue
                said = SourcePosition.decode(value)
                if said.exhausted and not (said.run and said.run == self._past_run):
                    self._waiting.discard(partition)
                else:
                    self._waiting.add(partition)
        return not self._waiting

    def close(self) -> None:
        """Release the reader."""
        self._consumer.close()
