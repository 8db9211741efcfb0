"""The Producer port in memory."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sage.errors import InvalidTopology, RecordTooLarge, TransientFailure
from sage.model.keys import partition_for
from sage.model.partition import TopicPartition
from sage.model.record import Headers
from sage.ports import DeliveryFailure, ProducerFatal, TransactionAbortable
from sage.testing.in_memory_consumer import GroupMetadata
from sage.testing.in_memory_log import Transaction
from sage.testing.in_memory_state import BrokerState, OpenTransaction

_OVERHEAD = 61 + 36
_HEADER_OVERHEAD = 10

OnDelivery = Callable[[DeliveryFailure | None, int, int], None]


@dataclass(slots=True)
class _Sent:
    """A record on its way, or arrived and not yet reported."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    timestamp: int
    on_delivery: OnDelivery | None
    transaction: Transaction | None
    offset: int = -1
    failure: DeliveryFailure | None = None


class InMemoryProducer:
    """One producer; made by ``InMemoryClients.producer``."""

    def __init__(
        self, state: BrokerState, *, transactional_id: str | None, message_max_bytes: int, queue_limit: int
    ) -> None:
        self._state = state
        self._transactional_id = transactional_id
        self._limit = message_max_bytes
        self._queue_limit = queue_limit
        self._waiting: deque[_Sent] = deque()
        self._arrived: deque[_Sent] = deque()
        self._failures: list[DeliveryFailure] = []
        self._refused_in_transaction: DeliveryFailure | None = None
        self._epoch = 0
        self._is_spent = False
        self._next: dict[str, int] = {}
        self._closed = False

    def __len__(self) -> int:
        return len(self._waiting) + len(self._arrived)

    def produce(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None = None,
        headers: Headers | None = None,
        timestamp: int | None = None,
        partition: int = -1,
        on_delivery: OnDelivery | None = None,
    ) -> None:
        """Queue one record; it arrives at once unless deliveries are held."""
        self.check_size(topic, value, key, headers)
        with self._state.changed:
            opened = self._opened()
            if len(self) >= self._queue_limit:
                raise BufferError("Local: Queue full")
            sent = _Sent(
                topic,
                self._partition(topic, key, partition),
                key,
                value,
                tuple(headers or ()),
                self._state.now_ms() if timestamp is None else timestamp,
                on_delivery,
                None if opened is None else opened.transaction,
            )
            self._waiting.append(sent)
            self._deliver()

    def check_size(self, topic: str, value: bytes | None, key: bytes | None, headers: Headers | None) -> None:
        """Raises RecordTooLarge for a record that ``produce`` would refuse."""
        size = _size(value, key, headers)
        if size > self._limit:
            raise RecordTooLarge(f"a record of {size} bytes for {topic} is over message.max.bytes={self._limit}")

    def poll(self, timeout: float = 0.0) -> int:
        """Report what has arrived; waits for the first report."""
        return self._serve(time.monotonic() + timeout, all_of_them=False)

    def flush(self, timeout: float) -> int:
        """Wait until all have arrived and are reported."""
        self._serve(time.monotonic() + timeout, all_of_them=True)
        return len(self)

    def take_failures(self) -> list[DeliveryFailure]:
        """Failures since the last call."""
        failures, self._failures = self._failures, []
        return failures

    def close(self, timeout: float = 10.0) -> None:
        """Flush, then forget the rest."""
        if not self._closed:
            self._closed = True
            self.flush(timeout)
            self._waiting.clear()
            self._arrived.clear()

    # ------------------------------------------------------------------------------------ transactions

    def init_transactions(self, timeout: float = 30.0) -> None:
        """Fence earlier owners of the transactional id; after an abort, begin an epoch."""
        self._epoch = self._state.begin_epoch(self._named())
        self._is_spent = False

    def begin_transaction(self) -> None:
        """Open a transaction; after an abort, in another epoch."""
        with self._state.changed:
            if self._is_spent:
                self.init_transactions()
            self._check_owner()
            if self._named() in self._state.open:
                raise InvalidTopology("begin_transaction: one is open already")
            self._state.begin(self._named())

    def send_offsets(
        self,
        offsets: Mapping[TopicPartition, int],
        group_metadata: object,
        metadata: Mapping[TopicPartition, str] | None = None,
    ) -> None:
        """Put a group's offsets into the transaction; a stale generation makes it abortable."""
        with self._state.changed:
            opened = self._must_be_open("send_offsets")
            if not isinstance(group_metadata, GroupMetadata):
                raise InvalidTopology("send_offsets: this is not Consumer.group_metadata()")
            group = self._state.group(group_metadata.group)
            known = any(member.number == group_metadata.member for member in group.members)
            if not known or group.generation != group_metadata.generation:
                raise TransactionAbortable("send_offsets: the group has moved on")
            held = set(offsets)
            group.unstable.append(held)
            opened.offsets.append((group, dict(offsets), dict(metadata or {}), held))

    def commit_transaction(self, timeout: float = 30.0) -> None:
        """Flush and commit."""
        with self._state.changed:
            opened = self._must_be_open("commit_transaction")
            if self._state.faults.transactions:
                raise self._state.faults.transactions.pop(0)
            self._state.check_up()
            if self.flush(timeout):
                raise TransientFailure("commit_transaction: not all records were delivered in time")
            if self._refused_in_transaction is not None:  # whoever was told of it, as in librdkafka
                raise TransactionAbortable(f"commit_transaction: {self._refused_in_transaction.reason}")
            del self._state.open[self._named()]
            opened.end(self._state, commit=True)

    def abort_transaction(self, timeout: float = 30.0) -> None:
        """Throw the transaction away, with what is queued."""
        with self._state.changed:
            opened = self._must_be_open("abort_transaction")
            self._waiting.clear()
            self._arrived.clear()
            self._failures.clear()
            self._refused_in_transaction = None
            del self._state.open[self._named()]
            opened.end(self._state, commit=False)
            self._is_spent = True

    def _named(self) -> str:
        if self._transactional_id is None:
            raise InvalidTopology("this producer has no transactional id")
        return self._transactional_id

    def _check_owner(self) -> None:
        self._state.end_overdue()
        if self._state.epochs.get(self._named()) != self._epoch:
            raise ProducerFatal("Local: This instance has been fenced by a newer instance")

    def _opened(self) -> OpenTransaction | None:
        return None if self._transactional_id is None else self._must_be_open("produce")

    def _must_be_open(self, what: str) -> OpenTransaction:
        self._check_owner()
        opened = self._state.open.get(self._named())
        if opened is None:
            raise InvalidTopology(f"{what}: no transaction is open")
        return opened

    # ---------------------------------------------------------------------------------------- delivery

    def _partition(self, topic: str, key: bytes | None, partition: int) -> int:
        count = self._state.partitions_of(topic)
        if partition >= 0 or count == 0:
            return partition
        if key is not None:
            return partition_for(key, count)
        # librdkafka picks at random; a test wants the same run twice.
        self._next[topic] = turn = self._next.get(topic, -1) + 1
        return turn % count

    def _deliver(self) -> None:
        """Let arrive what is queued, in order, unless the broker is down or holds it back."""
        if self._state.is_down or self._state.holds_deliveries:
            return
        while self._waiting:
            sent = self._waiting.popleft()
            self._arrive(sent)
            self._arrived.append(sent)
        self._state.changed.notify_all()

    def _arrive(self, sent: _Sent) -> None:
        sent.failure = self._state.faults.take_delivery(
            sent.topic, sent.partition, _size(sent.value, sent.key, sent.headers)
        )
        if sent.failure is not None:
            if self._transactional_id is not None:
                self._refused_in_transaction = sent.failure
            return
        if not 0 <= sent.partition < self._state.partitions_of(sent.topic):
            sent.failure = DeliveryFailure(sent.topic, sent.partition, "Local: Unknown topic", False, False)
            return
        where = TopicPartition(sent.topic, sent.partition)
        sent.offset = self._state.log(where).append(
            key=sent.key,
            value=sent.value,
            headers=sent.headers,
            timestamp=sent.timestamp,
            transaction=sent.transaction,
        )
        if self._transactional_id is not None and self._transactional_id in self._state.open:
            self._state.open[self._transactional_id].touched[where] = None

    def _serve(self, deadline: float, *, all_of_them: bool) -> int:
        served = 0
        while True:
            with self._state.changed:
                self._deliver()
                ready = list(self._arrived)
                self._arrived.clear()
                left = deadline - time.monotonic()
                if not ready and (not self._waiting or left <= 0 or (served and not all_of_them)):
                    return served
                if not ready:
                    self._state.changed.wait(left)
            for sent in ready:  # outside the lock, as callbacks of a real client are
                served += 1
                if sent.on_delivery is not None:
                    sent.on_delivery(sent.failure, sent.partition, sent.offset)
                elif sent.failure is not None:
                    self._failures.append(sent.failure)


def _size(value: bytes | None, key: bytes | None, headers: Headers | None) -> int:
    """Bytes of a record, as Kafka counts them at most."""
    size = _OVERHEAD + len(value or b"") + len(key or b"")
    return size + sum(len(name.encode()) + len(content or b"") + _HEADER_OVERHEAD for name, content in headers or ())
