"""Writing a batch of replayed records together with the news of it: both or neither, where the broker can do that."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from sage.errors import TransientFailure
from sage.model.partition import TopicPartition
from sage.model.record import Headers
from sage.operations.replay_progress import Progress
from sage.ports import CommitRefused, Consumer, DeliveryFailure, Producer, ProducerFatal, TransactionAbortable

logger = logging.getLogger("sage.operations")

_TIMEOUT = 30.0
"""Seconds that the broker has to take a batch."""

_COMMIT_TRIES = 4
"""A commit without an answer is asked for again, never given up by an abort: it may have happened."""

Places = Mapping[TopicPartition, Progress]


class Replayed(NamedTuple):
    """A dead letter as it goes into its stage's retry topic, where it lies, and why it had died."""

    letter: TopicPartition
    offset: int
    reason: str
    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    timestamp: int | None


class Writer(Protocol):
    """Writes batches; ``places`` is moved on by what was written."""

    def prepare(self) -> None:
        """The letters were given to us: end what a predecessor left open."""
        ...

    def write(self, batch: Sequence[Replayed], places: Places) -> None:
        """Write and commit.

        Raises:
            TransactionAbortable: the group moved on meanwhile; nothing was written, and the batch may come again.
            TransientFailure: the broker did not take all of it; ``places`` then holds what it took.
        """
        ...


class TransactionWriter:
    """Records and offsets in one transaction: after a crash either both are there or neither."""

    def __init__(self, producer: Producer, consumer: Consumer) -> None:
        self._producer = producer
        self._consumer = consumer
        self._is_ready = False

    def prepare(self) -> None:
        """Fence a predecessor, and abort its open transaction; once."""
        if not self._is_ready:
            self._producer.init_transactions()
            self._is_ready = True

    def write(self, batch: Sequence[Replayed], places: Places) -> None:
        """All of the batch, or nothing."""
        after = _after(batch, places)
        offsets, texts = _committed(after)
        member = self._consumer.group_metadata()
        if member is None:
            raise TransactionAbortable("this replay is no member of its group at the moment")
        try:
            self._producer.begin_transaction()
            for record in batch:
                _produce(self._producer, record)
            self._producer.send_offsets(offsets, member, texts)
            self._commit()
        except TransactionAbortable:
            self._producer.abort_transaction()
            raise
        except ProducerFatal as error:
            raise TransientFailure(f"another replay took over, or the producer broke: {error}; run it again") from error
        _take_over(after, places)

    def _commit(self) -> None:
        for left in reversed(range(_COMMIT_TRIES)):
            try:
                self._producer.commit_transaction(_TIMEOUT)
                return
            except TransientFailure as error:
                if not left:
                    raise
                logger.warning("replay: %s; asking again", error)


class PlainWriter:
    """Records first, offsets after the broker's answer, for a broker whose transactions take no offsets."""

    def __init__(self, producer: Producer, consumer: Consumer) -> None:
        self._producer = producer
        self._consumer = consumer

    def prepare(self) -> None:
        """Nothing can be open."""

    def write(self, batch: Sequence[Replayed], places: Places) -> None:
        """What the broker took is committed, also where it refused a part."""
        taken: list[Replayed] = []
        failures: list[DeliveryFailure] = []
        for record in batch:
            _produce(self._producer, record, taken, failures)
        self._producer.flush(_TIMEOUT)
        after = _after(taken, places)
        offsets, texts = _committed(after)
        try:
            self._consumer.commit(offsets, texts)
        except CommitRefused as error:
            raise TransientFailure(
                f"{len(taken)} letters were written, and another replay took over before that was committed: "
                "it may write them again"
            ) from error
        _take_over(after, places)
        if len(taken) < len(batch):
            reason = failures[0].reason if failures else f"no answer within {_TIMEOUT:.0f} s"
            raise TransientFailure(f"{len(batch) - len(taken)} of {len(batch)} records were not taken: {reason}")


def _produce(
    producer: Producer,
    record: Replayed,
    taken: list[Replayed] | None = None,
    failures: list[DeliveryFailure] | None = None,
) -> None:
    def report(failure: DeliveryFailure | None, partition: int, offset: int) -> None:
        del partition, offset
        if failure is not None and failures is not None:
            failures.append(failure)
        elif failure is None and taken is not None:
            taken.append(record)

    heard = report if taken is not None else None
    while True:
        try:
            producer.produce(
                record.topic, record.value, record.key, record.headers, record.timestamp, record.partition, heard
            )
            return
        except BufferError:
            producer.poll(0.1)


def _after(batch: Sequence[Replayed], places: Places) -> dict[TopicPartition, Progress]:
    after = {where: progress.copy() for where, progress in places.items()}
    for record in batch:
        after[record.letter].add(record.offset)
    return after


def _committed(after: Places) -> tuple[dict[TopicPartition, int], dict[TopicPartition, str]]:
    offsets = {where: progress.first for where, progress in after.items()}
    return offsets, {where: progress.text() for where, progress in after.items()}


def _take_over(after: Places, places: Places) -> None:
    for where, progress in places.items():
        progress.first, progress.done = after[where].first, after[where].done
