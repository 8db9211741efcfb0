"""Brokers: who reads, who writes, who looks after topics and groups."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from sage.model.partition import TopicPartition
from sage.model.record import Headers


class RawMessage(Protocol):
    """One consumed record, exactly as confluent-kafka gives it, so that no record is wrapped on the way."""

    def topic(self) -> str: ...
    def partition(self) -> int: ...
    def offset(self) -> int: ...
    def key(self) -> bytes | None: ...
    def value(self) -> bytes | None: ...
    def headers(self) -> list[tuple[str, bytes | None]] | None: ...
    def timestamp(self) -> tuple[int, int]:
        """(type, milliseconds); type 0 is "not available"."""
        ...


class RebalanceListener(Protocol):
    """Called inside ``Consumer.poll``, on the consumer's thread, with incremental changes only."""

    def on_assigned(self, partitions: Sequence[TopicPartition]) -> None:
        """These are ours from now on; fetching starts at the committed offset when this returns."""
        ...

    def on_revoked(self, partitions: Sequence[TopicPartition]) -> None:
        """These go to somebody else when this returns: finish and commit them here, in bounded time."""
        ...

    def on_lost(self, partitions: Sequence[TopicPartition]) -> None:
        """These were given away already: throw their work away, commit nothing."""
        ...


class Consumer(Protocol):
    """A member of a group (or, with ``assign``, a plain reader). One thread calls it.

    Attributes:
        max_poll_interval: seconds between two polls after which the group takes the member for dead.
    """

    max_poll_interval: float

    def subscribe(
        self,
        topics: Sequence[str],
        listener: RebalanceListener,
        *,
        companions: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        """Join the group on ``topics``.

        ``companions``: topic -> topics that the group does not share out. Partition ``n`` of each comes and goes
        with partition ``n`` of the topic, in the same call of the listener, so that a record and its later tries
        always meet in one actor, whatever the group's assignor does. They are committed like the others.
        """
        ...

    def assign(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Read these partitions from these offsets (-2 = earliest), outside any group."""
        ...

    def poll(self, max_messages: int, timeout: float) -> list[RawMessage]:
        """Records that are there, at most ``max_messages``; waits ``timeout`` seconds for the first only.

        Rebalance callbacks run inside. Retriable broker errors are logged and polled over.

        Raises:
            SageError: Unauthorized, NotFound and other failures that another poll can't mend.
        """
        ...

    def ends_reached(self) -> Mapping[TopicPartition, int]:
        """Partitions whose end was reached since the last call, with the offset to commit there (decision 9)."""
        ...

    def pause(self, partitions: Sequence[TopicPartition]) -> None: ...
    def resume(self, partitions: Sequence[TopicPartition]) -> None: ...

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Read on from here; for a rewind after a failed checkpoint."""
        ...

    def commit(
        self, offsets: Mapping[TopicPartition, int], metadata: Mapping[TopicPartition, str] | None = None
    ) -> None:
        """Commit next-to-read offsets, each with its text (4,096 bytes at most), and wait for the broker's answer.

        Raises:
            CommitRefused: this member no longer owns them; nothing was committed by it.
            TransientFailure: try again.
        """
        ...

    def committed(
        self, partitions: Sequence[TopicPartition], timeout: float = 10.0
    ) -> dict[TopicPartition, int | None]:
        """Committed offsets of the group; ``None`` where there is none."""
        ...

    def assignment(self) -> frozenset[TopicPartition]: ...
    def group_metadata(self) -> object | None:
        """This member's identity for ``Producer.send_offsets``; ``None`` while it is no member.

        Taken before a poll, it fences what the poll finds lost (KIP-447): a fresh one would let a member commit
        for partitions that it had lost without having heard of it (decision 7).
        """
        ...

    def close(self) -> None:
        """Leave the group (revokes first) and release everything; idempotent."""
        ...


class CommitRefused(Exception):  # noqa: N818 - not an error to a user: the new owner goes on from the last commit
    """The group gave the partitions to another member before the commit arrived."""


class TransactionAbortable(Exception):  # noqa: N818 - an answer to the checkpoint, not an error to a user
    """This transaction can't be committed: abort it, check ownership, send again from memory (decision 6)."""


class ProducerFatal(Exception):  # noqa: N818 - an answer to the checkpoint, not an error to a user
    """This producer is of no more use (fenced, or broken): close it, make a new one and rewind."""


@dataclass(frozen=True, slots=True)
class DeliveryFailure:
    """One record that the broker did not take."""

    topic: str
    partition: int
    reason: str
    too_large: bool
    retriable: bool


class Producer(Protocol):
    """An idempotent producer. ``produce`` may be called from one thread, ``flush`` and ``poll`` from the same."""

    def produce(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None = None,
        headers: Headers | None = None,
        timestamp: int | None = None,
        partition: int = -1,
        on_delivery: Callable[[DeliveryFailure | None, int, int], None] | None = None,
    ) -> None:
        """Queue one record; partition by murmur2 of the key unless ``partition`` >= 0.

        ``on_delivery(failure, partition, offset)`` is called from ``poll`` or ``flush``.

        Raises:
            BufferError: the queue is full; ``poll`` and try again.
            RecordTooLarge: the encoded record, headers included, is over ``message.max.bytes``.
        """
        ...

    def check_size(self, topic: str, value: bytes | None, key: bytes | None, headers: Headers | None) -> None:
        """Raises RecordTooLarge for a record that ``produce`` would refuse."""
        ...

    def poll(self, timeout: float = 0.0) -> int:
        """Serve delivery reports; returns how many."""
        ...

    def flush(self, timeout: float) -> int:
        """Wait for all queued records; returns how many are still under way."""
        ...

    def take_failures(self) -> list[DeliveryFailure]:
        """Delivery failures of records without an ``on_delivery`` of their own since the last call (decision 4)."""
        ...

    def __len__(self) -> int:
        """Records queued or in flight."""
        ...

    # Transactions: only on a producer made with a transactional id.
    def init_transactions(self, timeout: float = 30.0) -> None:
        """Fence earlier owners of the transactional id; after an abort, begin the epoch of what follows."""
        ...

    def begin_transaction(self) -> None:
        """Open a transaction; the first one after an abort is of another epoch, begun here where it was not yet."""
        ...

    def send_offsets(
        self,
        offsets: Mapping[TopicPartition, int],
        group_metadata: object,
        metadata: Mapping[TopicPartition, str] | None = None,
    ) -> None:
        """Put next-to-read offsets, with their texts, into the transaction."""
        ...

    def commit_transaction(self, timeout: float = 30.0) -> None: ...
    def abort_transaction(self, timeout: float = 30.0) -> None: ...

    def close(self, timeout: float = 10.0) -> None: ...


@dataclass(frozen=True, slots=True)
class Commit:
    """What a group has committed for a partition: ``offset`` is ``None`` where there is nothing."""

    offset: int | None
    metadata: str = ""


@dataclass(frozen=True, slots=True)
class GroupMember:
    """One member of a group, and what it has."""

    member_id: str
    client_id: str
    partitions: frozenset[TopicPartition]


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """A topic to be made. ``config`` holds broker-side topic properties such as ``cleanup.policy``."""

    name: str
    partitions: int = 1
    replication_factor: int = 1
    config: Mapping[str, str] = field(default_factory=dict)


Resource = Literal["topic", "group", "transactional-id"]
"""What rights are given on, in the words of Kafka's own tool."""

Operation = Literal["Read", "Write", "Create", "Delete", "Alter", "Describe"]
"""What they allow."""

OPERATIONS: tuple[Operation, ...] = ("Read", "Write", "Create", "Delete", "Alter", "Describe")


@dataclass(frozen=True, slots=True)
class TopicInfo:
    """A topic that exists. ``topic_id`` is its UUID as text, or a stable stand-in where the broker has none."""

    name: str
    topic_id: str
    partitions: int
    replication_factor: int


class Admin(Protocol):
    """Topics and offsets. Every call raises Unreachable, Unauthorized or NotFound where that is the reason."""

    def describe(self, topics: Sequence[str]) -> dict[str, TopicInfo]:
        """Those of ``topics`` that exist."""
        ...

    def list_topics(self) -> list[TopicInfo]: ...

    def create(self, topics: Sequence[TopicSpec]) -> list[str]:
        """Make the missing ones and wait until they can be used; returns the names made."""
        ...

    def delete(self, topics: Sequence[str]) -> None: ...

    def widen(self, topic: str, partitions: int) -> None:
        """Give a topic that many partitions and wait until they can be used; one that has as many stays."""
        ...

    def end_offsets(self, partitions: Sequence[TopicPartition], *, committed: bool = True) -> dict[TopicPartition, int]:
        """The last stable offset (or, with ``committed=False``, the high watermark) of each partition."""
        ...

    def start_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]: ...

    def committed(self, group: str, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int | None]: ...

    def commits(self, group: str, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, Commit]:
        """The last committed offsets with their texts, without waiting for an open transaction that would move them."""
        ...

    def members(self, group: str) -> list[GroupMember]:
        """The group's members now."""
        ...

    def list_groups(self) -> list[str]: ...

    def delete_groups(self, groups: Sequence[str]) -> None:
        """Forget groups and their offsets; those that don't exist are passed over. Raises Conflict where one has
        members."""
        ...

    def offsets_for_time(
        self, partitions: Sequence[TopicPartition], timestamp_ms: int
    ) -> dict[TopicPartition, int | None]:
        """The first offset at or after that time; ``None`` where all records are older."""
        ...

    def delete_records(self, before: Mapping[TopicPartition, int]) -> None:
        """Have the broker drop everything before these offsets."""
        ...

    def allowed(self, kind: Resource, name: str) -> Mapping[Operation, bool]:
        """What this account may do with a topic, group or transactional id; left out is what the brokers don't tell.

        They tell all of a topic or group that exists. Of a topic that does not, whether it may be made and seen. A
        transactional id is tried out: what a producer of that name left open is ended.
        """
        ...

    def close(self) -> None: ...


class KafkaClients(Protocol):
    """Makes clients that share one configuration: the only door from the runtime to Kafka."""

    def consumer(
        self,
        group: str | None,
        *,
        read_from: Literal["earliest", "latest"] = "earliest",
        config: Mapping[str, Any] | None = None,
    ) -> Consumer: ...
    def producer(self, *, transactional_id: str | None = None, config: Mapping[str, Any] | None = None) -> Producer: ...
    def admin(self) -> Admin: ...
    @property
    def address(self) -> str:
        """The brokers, for messages."""
        ...

    @property
    def is_embedded(self) -> bool: ...
