"""The Consumer port over librdkafka: batches in, rebalances through a listener, commits that answer.

Rebalances are incremental for KIP-848 and cooperative-sticky; the eager assignors give everything back first
and then receive the new set, which reads to a listener as one large incremental change.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import confluent_kafka
from confluent_kafka import OFFSET_INVALID, KafkaError, KafkaException, Message

from sage.errors import InvalidTopology, NotFound, StageStopped, TransientFailure
from sage.kafka.config import is_cooperative, masked
from sage.kafka.errors import Access, commit_failure, kafka_error, poll_failure, sage_error, text
from sage.kafka.leave_group import leave_group
from sage.kafka.logs import client_logger
from sage.kafka.out_of_range import OutOfRange
from sage.model.partition import TopicPartition
from sage.ports import Commit, CommitRefused, RawMessage, RebalanceListener

_log: Final = logging.getLogger("sage.kafka.consumer")
_error_of: Final = Message.error
_COORDINATOR_TIMEOUT: Final = 5.0
"""Seconds that a commit waits for a broker that can take it."""

_IDLE_CHECK: Final = 5.0
"""Seconds between looks at the topics of a consumer that has no partition."""

_SEEK_PATIENCE: Final = 5.0
"""Seconds to wait for a partition to start fetching before a seek gives up."""


class ConfluentConsumer:
    """One consumer; see the port for what its methods promise.

    Args:
        config: librdkafka's settings, complete.
        address: the brokers, for messages.
        has_group: false for a plain reader, which is assigned by hand and commits nothing.
        leaves_by_hand: whether a member with a name leaves its group when it is closed, which librdkafka does not do.
    """

    def __init__(
        self, config: Mapping[str, Any], *, address: str, has_group: bool, leaves_by_hand: bool = False
    ) -> None:  # fmt: skip
        self._config = config
        self._address = address
        self._has_group = has_group
        self._leaves_by_hand = leaves_by_hand and "group.instance.id" in config
        self.max_poll_interval = int(config.get("max.poll.interval.ms", 300_000)) / 1000
        self._access = Access("Read", group=str(config["group.id"]))
        self._cooperative = is_cooperative(config)
        # An offset that is not there is decided upon here: see ``_resume``. Not with the eager assignors, where one
        # partition cannot be made to fetch again without starting the others anew.
        own = {"auto.offset.reset": "error"} if has_group and self._cooperative else {}
        self._failure: BaseException | None = None
        self._kept: list[RawMessage] = []
        self._ends: dict[TopicPartition, int] = {}
        self._assigned: set[TopicPartition] = set()
        self._starting: dict[TopicPartition, int | None] | None = None
        self._starting_paused: set[TopicPartition] = set()
        self._gone: set[TopicPartition] = set()
        self._is_forgotten = False
        self._coordinator_is_away = False
        self._topics: tuple[str, ...] = ()
        self._companions: dict[str, tuple[str, ...]] = {}
        self._looked = 0.0
        self._consumer = confluent_kafka.Consumer(
            {**config, **own, "error_cb": self._on_error}, logger=client_logger("consumer")
        )
        self._out_of_range = OutOfRange(self._consumer, config["auto.offset.reset"])
        self._closed = False

    def __repr__(self) -> str:
        return f"ConfluentConsumer({masked(self._config)})"

    # ------------------------------------------------------------------------------------- membership

    def subscribe(
        self,
        topics: Sequence[str],
        listener: RebalanceListener,
        *,
        companions: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        """Join the group; the listener is called inside ``poll`` and ``close``."""
        self._topics = tuple(topics)
        self._companions = {topic: tuple(names) for topic, names in (companions or {}).items()}
        self._consumer.subscribe(
            list(topics),
            on_assign=lambda _, partitions: self._guard(self._on_assigned, partitions, listener),
            on_revoke=lambda _, partitions: self._guard(self._on_revoked, partitions, listener),
            on_lost=lambda _, partitions: self._guard(self._on_lost, partitions, listener),
        )

    def assign(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Read these partitions from these offsets, outside any group."""
        self._ends.clear()
        self._kept.clear()
        self._assigned = set(offsets)
        self._consumer.assign(
            [confluent_kafka.TopicPartition(at.topic, at.partition, offset) for at, offset in offsets.items()]
        )

    def assignment(self) -> frozenset[TopicPartition]:
        """What is ours now."""
        return frozenset(self._assigned)

    def group_metadata(self) -> object | None:
        """The member's identity, for ``Producer.send_offsets``; ``None`` while it is no member."""
        metadata = self._consumer.consumer_group_metadata()
        # Asked after it was taken: a member that is expelled has no id until the loss has been told, so an id that
        # is still there says that the metadata is a member's.
        return metadata if self._consumer.memberid() else None

    def _guard(
        self,
        handle: Callable[[set[TopicPartition], RebalanceListener], None],
        partitions: Sequence[confluent_kafka.TopicPartition],
        listener: RebalanceListener,
    ) -> None:
        # An exception must not travel through librdkafka's C frames: what had been polled would be lost with it.
        ours = {TopicPartition(each.topic, each.partition) for each in partitions}
        ours |= {TopicPartition(name, each.partition) for each in ours for name in self._companions.get(each.topic, ())}
        try:
            if self._is_forgotten:
                self._unassign(ours)
            else:
                handle(ours, listener)
        except BaseException as error:  # raised again by the poll that we are in, or by the next one
            if self._failure is None:
                self._failure = error

    def _on_assigned(self, partitions: set[TopicPartition], listener: RebalanceListener) -> None:
        # The listener goes first, so that its seeks and pauses hold from the first record on.
        ordered = sorted(partitions)
        self._starting = dict.fromkeys(ordered)
        self._starting_paused = set()
        self._assigned |= partitions
        try:
            listener.on_assigned(ordered)
        finally:
            starts, self._starting = self._starting, None
            assigned = [_at(where, offset) for where, offset in starts.items()]
            if self._cooperative:
                self._consumer.incremental_assign(assigned)
            else:
                self._consumer.assign(assigned)
            if self._starting_paused:
                self._consumer.pause([_at(where) for where in self._starting_paused])

    def _on_revoked(self, partitions: set[TopicPartition], listener: RebalanceListener) -> None:
        try:
            if partitions:
                listener.on_revoked(sorted(partitions))
        finally:
            self._forget(partitions)
            self._unassign(partitions)

    def _on_lost(self, partitions: set[TopicPartition], listener: RebalanceListener) -> None:
        self._forget(partitions)  # first, so that a commit in the listener is refused
        try:
            if partitions:
                listener.on_lost(sorted(partitions))
        finally:
            self._unassign(partitions)

    def _unassign(self, partitions: set[TopicPartition]) -> None:
        # librdkafka keeps its pause over an unassign: one that came back would never be fetched again.
        self._consumer.resume([_at(where) for where in partitions])
        if self._cooperative:
            self._consumer.incremental_unassign([_at(where) for where in partitions])
        else:
            self._consumer.unassign()

    def _forget(self, partitions: set[TopicPartition]) -> None:
        self._assigned -= partitions
        self._gone |= partitions
        for where in partitions:
            self._ends.pop(where, None)

    # ----------------------------------------------------------------------------------------- polling

    def poll(self, max_messages: int, timeout: float) -> list[RawMessage]:
        """A batch: waits for its first record only (decision 14)."""
        self._raise_failure()
        if self._kept:
            kept, self._kept = self._kept, []
            return kept
        first = self._consumer.poll(timeout)
        if first is None:
            if not self._assigned:
                self._look_for_topics()
            self._raise_failure()
            return []
        batch: list[Message] = [first]
        if max_messages > 1:
            self._gone.clear()
            batch += self._consumer.consume(max_messages - 1, 0)
        if self._gone:
            batch = self._still_ours(batch)
        # One pass in C over the batch; the Python loops below run only where there is something to find.
        if self._ends or any(map(_error_of, batch)):
            batch = self._without_events(batch)
        if self._failure is not None and batch:
            self._kept, batch = self._still_ours(batch), []
        self._raise_failure()
        return batch  # type: ignore[return-value] # Message is a RawMessage

    def ends_reached(self) -> Mapping[TopicPartition, int]:
        """End offsets of the partitions that were read to the end since the last call."""
        ends, self._ends = self._ends, {}
        return ends

    def _still_ours(self, batch: list[Any]) -> list[Any]:
        return [
            message
            for message in batch
            if message.error() or TopicPartition(message.topic(), message.partition()) in self._assigned
        ]

    def _without_events(self, batch: list[Message]) -> list[Message]:
        records = []
        for message in batch:
            error = message.error()
            if error is None:
                records.append(message)
                if self._ends:  # a record after the end that was noted: it is not the end any more
                    self._ends.pop(TopicPartition(str(message.topic()), int(message.partition() or 0)), None)
            elif error.code() == KafkaError._PARTITION_EOF:
                where = TopicPartition(str(message.topic()), int(message.partition() or 0))
                if where in self._assigned:
                    self._ends[where] = int(message.offset() or 0)
            elif error.code() == KafkaError._AUTO_OFFSET_RESET:
                self._resume(message)
            else:
                self._on_event(error)
        return records

    def _resume(self, message: Message) -> None:
        """A partition stopped fetching: nothing is committed, or its offset is not in the log."""
        where = TopicPartition(str(message.topic()), int(message.partition() or 0))
        if where not in self._assigned:
            return
        try:
            offset = self._out_of_range.resume_at(where, message.offset())
        except StageStopped as stopped:
            self._failure = self._failure or stopped
            return
        # Not a seek: that is refused for a partition that does not fetch.
        self._consumer.incremental_unassign([_at(where)])
        self._consumer.incremental_assign([_at(where, offset)])

    def _on_event(self, error: KafkaError) -> None:
        """Classify an error event; keeps the first that another poll can't mend."""
        failure = poll_failure(error, "consume", address=self._address, access=self._access)
        # librdkafka looks for a coordinator although a plain reader has no group to be allowed in.
        if failure is None or (not self._has_group and error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED):
            _log.info("polling on after %s", text(error))
        elif isinstance(failure, NotFound):
            # A broker that has just come up may not know its topics yet; ask before a stage is stopped for it.
            self._looked = 0.0
            self._look_for_topics()
        elif self._failure is None:
            self._failure = failure

    def _on_error(self, error: KafkaError) -> None:
        # librdkafka's global errors: the connection's, mostly. Only refused credentials end a consumer.
        failure = poll_failure(error, "consume", address=self._address, access=self._access)
        if failure is not None and self._failure is None and not self._closed:
            self._failure = failure

    def _look_for_topics(self) -> None:
        """Notice a topic that does not exist: a KIP-848 group waits for it without a word."""
        now = time.monotonic()
        if now - self._looked < _IDLE_CHECK:
            return
        self._looked = now
        for topic in self._topics:
            try:
                found = self._consumer.list_topics(topic, timeout=1.0).topics[topic].error
            except KafkaException as exception:
                _log.info("the brokers are away: %s", text(kafka_error(exception)))
                return
            if found is not None and found.code() == KafkaError.UNKNOWN_TOPIC_OR_PART and self._failure is None:
                self._failure = NotFound(f"consume: topic {topic} does not exist on {self._address}")

    def _raise_failure(self) -> None:
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    # ---------------------------------------------------------------------------------------- position

    def pause(self, partitions: Sequence[TopicPartition]) -> None:
        """Stop fetching; costs the records fetched ahead (decision 13)."""
        if self._starting is not None:
            self._starting_paused |= {where for where in partitions if where in self._starting}
        running = [_at(where) for where in partitions if where in self._assigned and not self._is_starting(where)]
        if running:
            self._consumer.pause(running)

    def resume(self, partitions: Sequence[TopicPartition]) -> None:
        """Fetch again what was paused."""
        self._starting_paused -= set(partitions)
        running = [_at(where) for where in partitions if where in self._assigned and not self._is_starting(where)]
        if running:
            self._consumer.resume(running)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Read on from ``offset``; inside ``on_assigned`` it is where reading starts.

        Raises:
            TransientFailure: the partition is not ours, or did not start fetching in time.
        """
        self._ends.pop(partition, None)
        if self._starting is not None and partition in self._starting:
            self._starting[partition] = offset
            return
        deadline = time.monotonic() + _SEEK_PATIENCE
        while True:
            try:
                self._consumer.seek(_at(partition, offset))
                return
            except KafkaException as exception:
                error = kafka_error(exception)
                # _STATE: assigned a moment ago, and the fetcher does not run yet.
                if error.code() != KafkaError._STATE or time.monotonic() > deadline:
                    raise TransientFailure(f"seek {partition} to {offset}: {text(error)}") from exception
                time.sleep(0.01)

    def commit(
        self, offsets: Mapping[TopicPartition, int], metadata: Mapping[TopicPartition, str] | None = None
    ) -> None:
        """Commit and wait for the answer; all of it or an exception."""
        if not self._has_group:
            raise InvalidTopology("commit: this consumer has no group")
        strangers = [str(where) for where in offsets if where not in self._assigned]
        if strangers:
            raise CommitRefused(f"not ours any more: {', '.join(strangers)}")
        if not offsets:
            return
        positions = positions_of(offsets, metadata)
        try:
            if not self._closed:  # ``close`` has asked, and librdkafka answers no other question while it closes
                self._ask_coordinator(positions[0])
            elif self._coordinator_is_away:
                raise TransientFailure(f"commit: no answer from {self._address}")
            answers = self._consumer.commit(offsets=positions, asynchronous=False)
        except KafkaException as exception:
            raise commit_failure(kafka_error(exception), address=self._address, access=self._access) from exception
        for answer in answers:
            if answer.error is not None:
                raise commit_failure(answer.error, address=self._address, access=self._access)

    def committed(
        self, partitions: Sequence[TopicPartition], timeout: float = 10.0
    ) -> dict[TopicPartition, int | None]:
        """The group's committed offsets.

        Raises:
            TransientFailure: no answer in time, also while a transaction on these offsets is open.
        """
        try:
            return committed_offsets(self._consumer, partitions, timeout)
        except KafkaException as exception:
            error = kafka_error(exception)
            if error.code() == KafkaError._TIMED_OUT:
                raise TransientFailure(f"committed offsets: {text(error)}") from exception
            raise sage_error(error, "committed offsets", address=self._address) from exception

    def close(self) -> None:
        """Leave the group; the listener's ``on_revoked`` runs first, and its exception is raised here."""
        if self._closed:
            return
        self._failure = None
        if self._has_group and self._assigned:
            try:
                self._ask_coordinator(_at(next(iter(self._assigned))))
            except KafkaException as exception:
                _log.info("leaving without a word: %s", text(kafka_error(exception)))
                self._coordinator_is_away = True
        self._closed = True
        member = self._consumer.memberid() if self._leaves_by_hand else None
        self._consumer.close()
        if member:
            leave_group(str(self._config["bootstrap.servers"]), str(self._config["group.id"]), member)
        self._assigned.clear()
        self._raise_failure()

    def __del__(self) -> None:
        # librdkafka leaves the group when the object dies, and waits for an answer to its last rebalance that
        # nobody can give any more: the collector would stand still for good. So leave while we can answer.
        if not getattr(self, "_closed", True):
            _log.warning("a consumer of %s was not closed", self._config["group.id"])
            self._closed = self._is_forgotten = True
            self._consumer.close()

    def _ask_coordinator(self, where: confluent_kafka.TopicPartition) -> None:
        """Make sure that a commit would be answered; raises KafkaException.

        Without a coordinator a commit waits for the session time-out, 45 s with KIP-848, and no other call of
        this consumer gets through. So something with a time-out of its own is asked first; it costs 0.2 ms.
        """
        self._consumer.committed([where], _COORDINATOR_TIMEOUT)

    def _is_starting(self, partition: TopicPartition) -> bool:
        return self._starting is not None and partition in self._starting


def positions_of(
    offsets: Mapping[TopicPartition, int], metadata: Mapping[TopicPartition, str] | None = None
) -> list[confluent_kafka.TopicPartition]:
    """Offsets with their texts, as librdkafka commits them."""
    texts = metadata or {}
    return [
        confluent_kafka.TopicPartition(where.topic, where.partition, offset, metadata=texts.get(where, ""))
        for where, offset in offsets.items()
    ]


def commits_of(
    consumer: confluent_kafka.Consumer, partitions: Sequence[TopicPartition], timeout: float
) -> dict[TopicPartition, Commit]:
    """Committed offsets of a consumer's group with their texts; raises KafkaException."""
    commits: dict[TopicPartition, Commit] = {}
    if not partitions:
        return commits
    for answer in consumer.committed([_at(where) for where in partitions], timeout):
        if answer.error is not None:
            raise KafkaException(answer.error)
        offset = None if answer.offset == OFFSET_INVALID else answer.offset
        commits[TopicPartition(answer.topic, answer.partition)] = Commit(offset, answer.metadata or "")
    return commits


def committed_offsets(
    consumer: confluent_kafka.Consumer, partitions: Sequence[TopicPartition], timeout: float
) -> dict[TopicPartition, int | None]:
    """Committed offsets of a consumer's group; raises KafkaException."""
    return {where: commit.offset for where, commit in commits_of(consumer, partitions, timeout).items()}


def _at(where: TopicPartition, offset: int | None = None) -> confluent_kafka.TopicPartition:
    if offset is None:
        return confluent_kafka.TopicPartition(where.topic, where.partition)
    return confluent_kafka.TopicPartition(where.topic, where.partition, offset)
