"""What all clients of one in-memory broker share: logs, groups, producers, faults, and one lock."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from sage.errors import Conflict, InvalidTopology, NotFound, Unreachable
from sage.model.names import folded
from sage.model.partition import TopicPartition
from sage.ports import DeliveryFailure, TopicInfo, TopicSpec
from sage.testing.in_memory_groups import Group
from sage.testing.in_memory_log import Outcome, PartitionLog, Transaction

_NAME = re.compile(r"[a-zA-Z0-9._-]{1,249}")

TRANSACTION_TIMEOUT_MS = 10_000
"""Milliseconds after which the broker aborts a transaction that is still open, and fences its producer."""


@dataclass(slots=True)
class Topic:
    """One topic and its partitions."""

    info: TopicInfo
    logs: list[PartitionLog]


@dataclass(slots=True)
class Faults:
    """What shall go wrong; every entry is used once, but for the limits of topics."""

    deliveries: list[tuple[str | None, DeliveryFailure]] = field(default_factory=list)
    commits: list[Exception] = field(default_factory=list)
    polls: list[Exception] = field(default_factory=list)
    transactions: list[Exception] = field(default_factory=list)
    record_sizes: dict[str, int] = field(default_factory=dict)

    def take_delivery(self, topic: str, partition: int, size: int) -> DeliveryFailure | None:
        """The failure meant for the next record of this topic, if there is one, or for one of this size."""
        if size > self.record_sizes.get(topic, size):
            return DeliveryFailure(topic, partition, "Broker: Message size too large", True, False)
        for index, (wanted, failure) in enumerate(self.deliveries):
            if wanted in {None, topic}:
                del self.deliveries[index]
                return DeliveryFailure(topic, partition, failure.reason, failure.too_large, failure.retriable)
        return None


class BrokerState:
    """The broker itself. Every method holds ``changed``, which is notified of whatever a poll may wait for."""

    def __init__(self, *, now_ms: Callable[[], int] | None = None, nodes: int = 1) -> None:
        self.changed = threading.Condition(threading.RLock())
        self.faults = Faults()
        self.now_ms = now_ms or (lambda: time.time_ns() // 1_000_000)
        self.nodes = nodes
        self.is_down = False
        self.holds_deliveries = False
        self.epochs: dict[str, int] = {}
        self.open: dict[str, OpenTransaction] = {}
        self._topics: dict[str, Topic] = {}
        self._groups: dict[str, Group] = {}
        self._created = 0

    # ------------------------------------------------------------------------------------------ topics

    def create(self, topic: TopicSpec) -> bool:
        """Make a topic; false when it is there already.

        Raises:
            InvalidTopology: the name, the number of partitions or of replicas is one that Kafka refuses.
        """
        with self.changed:
            if topic.name in self._topics:
                return False
            if not _NAME.fullmatch(topic.name) or topic.name in {".", ".."}:
                raise InvalidTopology(f"create topic {topic.name}: the broker refused the name")
            if topic.partitions < 1 or topic.replication_factor > self.nodes:
                raise InvalidTopology(
                    f"create topic {topic.name}: {topic.partitions} partitions x {topic.replication_factor} "
                    f"replicas on {self.nodes} nodes"
                )
            if same := next((other for other in self._topics if folded(other) == folded(topic.name)), None):
                raise InvalidTopology(f"create topic {topic.name}: collides with {same}")
            self._created += 1
            topic_id = hashlib.blake2b(f"{topic.name}/{self._created}".encode(), digest_size=8).hexdigest()
            info = TopicInfo(topic.name, topic_id, topic.partitions, topic.replication_factor)
            logs = [PartitionLog(topic.name, number) for number in range(topic.partitions)]
            self._topics[topic.name] = Topic(info, logs)
            self._rebalance_all()
            return True

    def widen(self, name: str, partitions: int) -> None:
        """Give a topic more partitions; one that has as many stays.

        Raises:
            NotFound: there is none of that name.
        """
        with self.changed:
            topic = self._topics.get(name)
            if topic is None:
                raise NotFound(f"add partitions to {name}: does not exist on the in-memory broker")
            if partitions > len(topic.logs):
                topic.logs += [PartitionLog(name, number) for number in range(len(topic.logs), partitions)]
                topic.info = replace(topic.info, partitions=partitions)
                self._rebalance_all()

    def delete(self, name: str) -> None:
        """Remove a topic with its committed offsets.

        Raises:
            NotFound: there is none of that name.
        """
        with self.changed:
            if self._topics.pop(name, None) is None:
                raise NotFound(f"delete topic {name}: does not exist on the in-memory broker")
            for group in self._groups.values():
                group.offsets = {where: at for where, at in group.offsets.items() if where.topic != name}
            self._rebalance_all()

    def topic(self, name: str) -> Topic | None:
        """A topic, if it exists."""
        return self._topics.get(name)

    def topics(self) -> list[TopicInfo]:
        """All topics by name."""
        with self.changed:
            return [self._topics[name].info for name in sorted(self._topics)]

    def log(self, where: TopicPartition) -> PartitionLog:
        """The log of a partition.

        Raises:
            NotFound: no such partition.
        """
        topic = self._topics.get(where.topic)
        if topic is None or not 0 <= where.partition < len(topic.logs):
            raise NotFound(f"{where} does not exist on the in-memory broker")
        return topic.logs[where.partition]

    def partitions_of(self, name: str) -> int:
        """How many partitions a topic has; 0 when it does not exist."""
        topic = self._topics.get(name)
        return 0 if topic is None else len(topic.logs)

    # ------------------------------------------------------------------------------------------ groups

    def group(self, name: str) -> Group:
        """The group of that name, made when missing."""
        return self._groups.setdefault(name, Group(name, self.partitions_of))

    def groups(self) -> list[str]:
        """Groups that have members or offsets."""
        with self.changed:
            return sorted(name for name, group in self._groups.items() if group.members or group.offsets)

    def delete_group(self, name: str) -> None:
        """Forget a group. Raises Conflict where it has members."""
        with self.changed:
            if self.group(name).members:
                raise Conflict(f"group {name} has members; it is not deleted")
            del self._groups[name]

    def _rebalance_all(self) -> None:
        for group in self._groups.values():
            group.rebalance()
        self.changed.notify_all()

    # ------------------------------------------------------------------------------------ transactions

    def begin_epoch(self, transactional_id: str) -> int:
        """A new epoch of a transactional id: earlier owners are fenced, their open transaction is aborted."""
        with self.changed:
            if (left := self.open.pop(transactional_id, None)) is not None:
                left.end(self, commit=False)
            self.epochs[transactional_id] = self.epochs.get(transactional_id, 0) + 1
            return self.epochs[transactional_id]

    def begin(self, transactional_id: str) -> None:
        """Open a transaction of the id's owner."""
        self.open[transactional_id] = OpenTransaction(Transaction(), self.now_ms() + TRANSACTION_TIMEOUT_MS)

    def end_overdue(self) -> None:
        """Abort the transactions whose time is over; called before anything that an open one would hold up."""
        for name in [name for name, each in self.open.items() if each.ends_ms <= self.now_ms()]:
            self.begin_epoch(name)

    def check_up(self) -> None:
        """Raises Unreachable while the broker is down."""
        if self.is_down:
            raise Unreachable("cannot reach the in-memory broker (refused, 0 s)")


Moved = tuple[Group, dict[TopicPartition, int], dict[TopicPartition, str], set[TopicPartition]]
"""A group, the offsets that a transaction moves, their texts, and what it holds unstable until it ends."""


@dataclass(slots=True)
class OpenTransaction:
    """A transaction that is not yet decided: who it belongs to, when its time is over, and what it touched."""

    transaction: Transaction
    ends_ms: int
    touched: dict[TopicPartition, None] = field(default_factory=dict)
    offsets: list[Moved] = field(default_factory=list)

    def end(self, state: BrokerState, *, commit: bool) -> None:
        """Decide it: outcome, markers, offsets, all at once."""
        self.transaction.outcome = Outcome.COMMITTED if commit else Outcome.ABORTED
        for where in self.touched:
            if state.topic(where.topic) is not None:
                state.log(where).append_marker()
        for group, offsets, texts, held in self.offsets:
            group.unstable = [each for each in group.unstable if each is not held]
            if commit:
                group.commit(offsets, texts)
        state.changed.notify_all()
