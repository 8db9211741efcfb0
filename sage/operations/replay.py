"""``sage dlq replay``: dead letters once more to the stage that gave them up.

A letter goes to the retry topic of its stage, and not to the topic where the record was first read: others read
that one too, and would see the record twice. The stage reads partition n of its retry topic together with
partition n of its inputs, so the letter meets the actor that has its key.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from sage.cluster.names import ControlTopics
from sage.errors import DeadlineExceeded, TransientFailure
from sage.model.names import dead_letter_topic, group_id
from sage.model.partition import TopicPartition
from sage.operations.letter_stage import stages_now
from sage.operations.reading import partitions_of, read_to_end
from sage.operations.replay_choice import Choice, ReplayReport, Sorter
from sage.operations.replay_progress import Progress
from sage.operations.replay_writers import PlainWriter, Replayed, TransactionWriter, Writer
from sage.ports import Admin, Consumer, KafkaClients, Producer, RawMessage, TransactionAbortable

BATCH = 500
"""Letters in one transaction."""

PATIENCE = 90.0
"""Seconds to wait for partitions that another replay, or a dead one, still holds: its session time-out, and more."""

_BATCH_SECONDS = 10.0
"""With a rate, a batch holds no more than this many seconds' worth, so that the group hears of us in time."""

_WAIT = 0.2

_TELL_AFTER = 3.0
"""Seconds without a share of the letters before the person is told why."""

_MAX_ABORTS = 5
"""Batches in a row that the broker may refuse because the group moved on."""


class Stop(Protocol):
    """Says that somebody asked for the end; an Event does, and so may what a signal handler sets."""

    def is_set(self) -> bool:
        """Whether it was asked for."""
        ...

    def wait(self, timeout: float) -> bool:
        """Whether it is asked for within so many seconds."""
        ...


def replay(
    clients: KafkaClients,
    topology: str,
    choice: Choice,
    *,
    stop: Stop | None = None,
    waiting: Callable[[str], None] = lambda _: None,
    topics: ControlTopics | None = None,
) -> ReplayReport:
    """Write the chosen dead letters, as far as they were not replayed yet, to their stages' retry topics.

    Started twice at the same time, the second waits for the first. After a crash the next one goes on and replays
    nothing twice; on the embedded broker, whose transactions take no offsets, nothing but the batch under way.

    Args:
        stop: set to end after the batch under way.
        waiting: told what is waited for.
        topics: the control topics, which say what has become of a step; those that the environment names unless given.

    Raises:
        NotFound: no topology of that name has run on these brokers.
        TransientFailure: the broker did not take a batch.
        DeadlineExceeded: another replay holds dead letters and does not go on.
    """
    report = ReplayReport(topology, dry_run=False)
    admin = clients.admin()
    try:
        partitions = _partitions(admin, clients, topology)
        consumer = clients.consumer(replay_group(topology))
        try:
            producer, writer = _writer(clients, consumer, topology)
            try:
                sorter = Sorter(admin, topology, choice, report, producer, stages_now(clients, topology, topics))
                run = _Run(admin, consumer, writer, sorter, partitions, choice, report)
                run.until_done(stop or threading.Event(), waiting)
            finally:
                producer.close()
        finally:
            consumer.close()
    finally:
        admin.close()
    return report


def preview(
    clients: KafkaClients, topology: str, choice: Choice, *, topics: ControlTopics | None = None
) -> ReplayReport:  # fmt: skip
    """What ``replay`` would do now; writes and commits nothing. Raises as ``replay`` does."""
    report = ReplayReport(topology, dry_run=True)
    admin = clients.admin()
    try:
        partitions = _partitions(admin, clients, topology)
        sorter = Sorter(admin, topology, choice, report, stages=stages_now(clients, topology, topics))
        places = places_of(admin, topology, partitions)
        starts = {where: progress.first for where, progress in places.items()}
        for message in read_to_end(clients, starts, admin.end_offsets(partitions)):
            if report.replayed == choice.most:
                break
            if places[TopicPartition(message.topic(), message.partition())].has(message.offset()):
                continue
            record = sorter.sort(message)
            if record is not None:
                report.count(record)
    finally:
        admin.close()
    return report


def replay_group(topology: str) -> str:
    """The group in which replays keep their place."""
    return f"{group_id(topology, 'dlq')}.replay"


def places_of(admin: Admin, topology: str, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, Progress]:
    """How far replays of this topology have got."""
    starts = admin.start_offsets(partitions)
    commits = admin.commits(replay_group(topology), partitions)
    return {where: Progress.of(commits[where], starts[where]) for where in partitions}


def _partitions(admin: Admin, clients: KafkaClients, topology: str) -> list[TopicPartition]:
    advice = f"no topology named {topology} has run on {clients.address}; see `sage topics list`"
    return partitions_of(admin, dead_letter_topic(topology), advice=advice)


def _writer(clients: KafkaClients, consumer: Consumer, topology: str) -> tuple[Producer, Writer]:
    if clients.is_embedded:
        plain = clients.producer()
        return plain, PlainWriter(plain, consumer)
    # One id for all replays of a topology: who was given the letters ends what a dead predecessor left open.
    producer = clients.producer(transactional_id=replay_group(topology))
    return producer, TransactionWriter(producer, consumer)


class _Run:
    """One member of the replay group at work; also the listener of its consumer."""

    def __init__(
        self, admin: Admin, consumer: Consumer, writer: Writer, sorter: Sorter, partitions: Sequence[TopicPartition],
        choice: Choice, report: ReplayReport,
    ) -> None:  # fmt: skip
        self._admin = admin
        self._consumer = consumer
        self._writer = writer
        self._sorter = sorter
        self._choice = choice
        self._report = report
        self._ends = dict(admin.end_offsets(partitions))
        """What was there at the start: letters that die again meanwhile are for another run."""
        self._places: dict[TopicPartition, Progress] = {}
        self._next: dict[TopicPartition, int] = {}
        self._pending: list[Replayed] = []
        self._aborts = 0

    # -------------------------------------------------------------------------------- rebalances

    def on_assigned(self, partitions: Sequence[TopicPartition]) -> None:
        """Go on where the group stands, once no transaction of a predecessor is open."""
        self._writer.prepare()
        self._wait_for_stable_offsets(partitions)
        for where, progress in places_of(self._admin, self._report.topology, partitions).items():
            self._places[where] = progress
            self._next[where] = progress.first
            self._consumer.seek(where, progress.first)

    def on_revoked(self, partitions: Sequence[TopicPartition]) -> None:
        """What is in hand of them is for the next member: nothing of it was written."""
        self._pending = [record for record in self._pending if record.letter not in partitions]
        for where in partitions:
            self._places.pop(where, None)
            self._next.pop(where, None)

    def on_lost(self, partitions: Sequence[TopicPartition]) -> None:
        """As revoked."""
        self.on_revoked(partitions)

    def _wait_for_stable_offsets(self, partitions: Sequence[TopicPartition]) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                self._consumer.committed(partitions, 1.0)
                return
            except TransientFailure:
                if time.monotonic() >= deadline:
                    raise

    # -------------------------------------------------------------------------------------- work

    def until_done(self, stop: Stop, waiting: Callable[[str], None]) -> None:
        """Read to the end and write, batch by batch."""
        self._consumer.subscribe(sorted({where.topic for where in self._ends}), self)
        moved, told = time.monotonic(), False
        while not self._is_done():
            if stop.is_set():
                self._report.interrupted = True
                return
            if self._step(stop):
                moved = time.monotonic()
            elif time.monotonic() - moved >= PATIENCE:
                raise DeadlineExceeded(
                    f"another `sage dlq replay {self._report.topology}` has held the dead letters for "
                    f"{PATIENCE:.0f} s; run it again later"
                )
            elif not told and not self._places and time.monotonic() - moved >= _TELL_AFTER:
                waiting("waiting for another replay to end, or for the brokers to give up one that died")
                told = True

    def _step(self, stop: Stop) -> bool:
        """Poll once, and write what came; whether anything did."""
        started, before, count = time.monotonic(), dict(self._next), self._report.replayed
        for message in self._consumer.poll(self._batch_size(), _WAIT):
            if self._choice.most is not None and count + len(self._pending) >= self._choice.most:
                break
            self._take(message)
        for where, offset in self._consumer.ends_reached().items():
            if where in self._next:
                self._next[where] = max(self._next[where], offset)
        if self._pending:
            self._write()
            if self._choice.rate is not None:
                written = self._report.replayed - count
                stop.wait(max(0.0, started + written / self._choice.rate - time.monotonic()))
        return self._next != before or self._report.replayed > count

    def _take(self, message: RawMessage) -> None:
        where, offset = TopicPartition(message.topic(), message.partition()), message.offset()
        if where not in self._places:
            return
        if offset >= self._ends[where]:
            self._next[where] = self._ends[where]
            return
        # Markers of transactions and purged letters take offsets and hold nothing: no gap waits for them.
        self._places[where].add(*range(self._next[where], offset))
        self._next[where] = offset + 1
        if not self._places[where].has(offset):
            record = self._sorter.sort(message)
            if record is not None:
                self._pending.append(record)

    def _write(self) -> None:
        """Write what is in hand; after an abort it is kept, to be written with the next look at the group."""
        try:
            self._writer.write(self._pending, self._places)
        except TransactionAbortable as error:
            self._aborts += 1
            if self._aborts > _MAX_ABORTS:
                raise TransientFailure(f"the broker takes no batch: {error}; nothing of it was written") from error
            return
        self._aborts = 0
        for record in self._pending:
            self._report.count(record)
        self._pending.clear()

    def _batch_size(self) -> int:
        size = BATCH
        if self._choice.rate is not None:
            size = min(size, max(1, int(self._choice.rate * _BATCH_SECONDS)))
        if self._choice.most is not None:
            size = min(size, max(1, self._choice.most - self._report.replayed))
        return size

    def _is_done(self) -> bool:
        if self._choice.most is not None and self._report.replayed >= self._choice.most:
            return True
        if self._pending:
            return False
        if not any(self._ends.values()):
            return True
        # What another member holds is its business; without a share of our own there is still one to wait for.
        return bool(self._next) and all(offset >= self._ends[where] for where, offset in self._next.items())
