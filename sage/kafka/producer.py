"""The Producer port over librdkafka: idempotent, sizes checked before the queue, failures never lost."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

import confluent_kafka
from confluent_kafka import KafkaError, KafkaException, Message

from sage.errors import Forbidden, RecordTooLarge, SageError
from sage.kafka.config import DEFAULT_MESSAGE_MAX_BYTES, masked
from sage.kafka.consumer import positions_of
from sage.kafka.errors import Access, delivery_failure, kafka_error, poll_failure, sage_error, text, transaction_failure
from sage.kafka.logs import client_logger
from sage.model.partition import TopicPartition
from sage.model.record import Headers
from sage.ports import DeliveryFailure, ProducerFatal, TransactionAbortable

_log: Final = logging.getLogger("sage.kafka.producer")

_BATCH_HEAD: Final = 61
"""Bytes of a record batch's head, which the broker counts and librdkafka's own check does not."""

_OVERHEAD: Final = _BATCH_HEAD + 36
"""Bytes of a record batch's head and of one record's own fields at their longest (36)."""

_HEADER_OVERHEAD: Final = 10
"""Two lengths of at most five bytes each."""

_LEAST_LIMIT: Final = 1000
"""The lowest ``message.max.bytes`` that librdkafka takes."""

_PURGED: Final = frozenset({KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT})

_OFFSETS_TIMEOUT: Final = 5.0


class ConfluentProducer:
    """One producer; see the port for what its methods promise.

    Args:
        config: librdkafka's settings, complete.
        address: the brokers, for messages.
    """

    def __init__(self, config: Mapping[str, Any], *, address: str) -> None:
        self._config = config
        self._address = address
        self._limit = int(config.get("message.max.bytes", DEFAULT_MESSAGE_MAX_BYTES))
        self._is_transactional = "transactional.id" in config
        self._access = Access("Write", transactional_id=str(config.get("transactional.id", "")))
        self._failures: list[DeliveryFailure] = []
        self._has_begun = False
        self._purged: set[str] = set()
        self._refused: SageError | None = None
        self._closed = False
        self._is_spent = False
        self._awaits_epoch = False
        self._producer = self._made()
        self._produce = self._producer.produce  # bound once: this is the hot path

    def _made(self) -> confluent_kafka.Producer:
        # librdkafka measures every record in C, by this limit; so nothing is measured here on the hot path.
        own_limit = max(self._limit - _BATCH_HEAD, _LEAST_LIMIT)
        own = {"message.max.bytes": own_limit, "error_cb": self._on_error, "on_delivery": self._on_delivery}
        return confluent_kafka.Producer({**self._config, **own}, logger=client_logger("producer"))

    def __repr__(self) -> str:
        return f"ConfluentProducer({masked(self._config)})"

    def __len__(self) -> int:
        """Records queued or in flight, and events (errors, log lines) that the next ``poll`` will serve."""
        return len(self._producer)

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
        """Queue one record."""
        if self._refused is not None:
            raise self._refused
        try:
            # By position, since keywords cost a tenth of a microsecond. The fifth and sixth (callback, on_delivery)
            # are two names of one thing, and a None in the fifth hides the sixth.
            report = None if on_delivery is None else _reporter(on_delivery, topic)
            self._produce(topic, value, key, partition, report, None, timestamp or 0, headers or None)  # type: ignore[arg-type]
        except KafkaException as exception:
            error = kafka_error(exception)
            if error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
                raise self._too_large(encoded_size(value, key, headers), topic) from exception
            if error.fatal() or error.code() in {KafkaError._FATAL, KafkaError._FENCED}:
                raise ProducerFatal(f"produce to {topic}: {text(error)}") from exception
            if error.code() == KafkaError._STATE and self._is_transactional:
                # An earlier record of the transaction was refused: nothing more goes into it.
                self._raise_forbidden(topic)
                raise TransactionAbortable(f"produce to {topic}: {text(error)}") from exception
            raise sage_error(
                error, f"produce to {topic}", address=self._address, access=replace(self._access, topic=topic)
            ) from exception

    def check_size(self, topic: str, value: bytes | None, key: bytes | None, headers: Headers | None) -> None:
        """Raises RecordTooLarge for a record that ``produce`` would refuse."""
        size = encoded_size(value, key, headers)
        if size > self._limit:
            raise self._too_large(size, topic)

    def _too_large(self, size: int, topic: str) -> RecordTooLarge:
        return RecordTooLarge(
            f"a record of {size} bytes for {topic} is over message.max.bytes={self._limit}; "
            "make it smaller, or raise the limit here and on the topic (max.message.bytes)"
        )

    def poll(self, timeout: float = 0.0) -> int:
        """Serve delivery reports.

        Raises:
            ProducerFatal: this producer is of no more use.
            Unauthorized: the broker refused our credentials.
        """
        served = self._served(self._producer.poll, timeout)
        self._raise_refused()
        return served

    def flush(self, timeout: float) -> int:
        """Wait for queued records; 0 says that each was answered, not that each was taken: see ``take_failures``."""
        left = self._served(self._producer.flush, timeout)
        if left:
            self._raise_refused()
        if self._purged:
            self._raise_forbidden(*self._purged)
        return left

    def take_failures(self) -> list[DeliveryFailure]:
        """Failures since the last call; ``poll`` or ``flush`` first."""
        failures, self._failures = self._failures, []
        return failures

    # ------------------------------------------------------------------------------------ transactions

    def init_transactions(self, timeout: float = 30.0) -> None:
        """Fence earlier owners of the transactional id and finish their transactions; after an abort, begin an epoch.

        librdkafka (2.16) gives the sequence numbers of records that an abort drops to those that come next. Where the
        broker has one of the dropped, as only its answer was lost, it takes the next transaction's records for a
        repetition: they are acknowledged and committed, and are not there. So the next transaction is another epoch's,
        in which nothing that was sent before counts, however late it comes (as with KIP-890); only a new client is
        given one.
        """
        if self._is_spent:
            self._producer = self._made()
            self._produce = self._producer.produce
            self._is_spent, self._awaits_epoch = False, True
        self._transactional("init_transactions", self._producer.init_transactions, timeout)
        self._awaits_epoch = False

    def begin_transaction(self) -> None:
        """Open a transaction; nothing is sent to the broker yet, unless an epoch is to be begun first."""
        if self._is_spent or self._awaits_epoch:
            self.init_transactions()
        self._transactional("begin_transaction", self._producer.begin_transaction)
        self._has_begun = True

    def send_offsets(
        self,
        offsets: Mapping[TopicPartition, int],
        group_metadata: object,
        metadata: Mapping[TopicPartition, str] | None = None,
    ) -> None:
        """Put a group's next-to-read offsets, with their texts, into the transaction."""
        self._transactional(
            "send_offsets", self._producer.send_offsets_to_transaction, positions_of(offsets, metadata),
            group_metadata, _OFFSETS_TIMEOUT,
        )  # fmt: skip

    def commit_transaction(self, timeout: float = 30.0) -> None:
        """Flush and commit; after a TransientFailure call it again, never abort (decision 6)."""
        self._transactional("commit_transaction", self._producer.commit_transaction, timeout)
        self._has_begun = False

    def abort_transaction(self, timeout: float = 30.0) -> None:
        """Throw the transaction away, with the records that still wait in the queue."""
        try:
            self._transactional("abort_transaction", self._producer.abort_transaction, timeout)
            self._is_spent = True
        finally:
            self._has_begun = False
            self._purged.clear()

    def close(self, timeout: float = 10.0) -> None:
        """Flush for ``timeout`` seconds, then drop what is left; idempotent."""
        if self._closed:
            return
        self._closed = True
        try:
            left = self._served(self._producer.flush, timeout)
            if left:
                _log.warning("closing with %d records not delivered to %s", left, self._address)
                self._producer.purge()
                self._producer.flush(1.0)
        except (ProducerFatal, SageError, KafkaException) as error:  # it is given up because of just that
            _log.info("closed a failed producer: %s", error)

    def _served(self, call: Callable[[float], int], timeout: float) -> int:
        try:
            return call(timeout)
        except KafkaException as exception:  # a fenced or broken producer says so in whatever call comes next
            raise self._failed("produce", exception) from exception

    def _transactional(self, what: str, call: Callable[..., Any], *arguments: Any) -> None:
        try:
            call(*arguments)
        except KafkaException as exception:
            raise self._failed(what, exception) from exception

    def _failed(self, what: str, exception: KafkaException) -> Exception:
        error = kafka_error(exception)
        if error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            with suppress(KafkaException):
                self._producer.poll(0)  # what was purged for it says which topics it may be
        needed = replace(self._access, topic=" or ".join(sorted(self._purged)))
        return transaction_failure(error, what, address=self._address, access=needed)

    def _on_delivery(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            if self._is_transactional and error.code() in _PURGED:
                self._purged.add(message.topic() or "")
            self._failures.append(delivery_failure(error, message.topic() or "", _partition(message)))

    def _on_error(self, error: KafkaError) -> None:
        failure = poll_failure(error, "produce", address=self._address, access=self._access)
        if failure is not None and not error.fatal():  # a fatal one is told by produce or the transaction
            self._refused = failure

    def _raise_forbidden(self, *topics: str) -> None:
        """Raise for an open transaction that librdkafka gave up since we may not write: sending again mends nothing.

        It purges the records, and says why only when asked for something that can't be done in such a transaction, as
        to begin another; in one that goes on, that is refused without harm.
        """
        if not self._has_begun:
            return
        self._purged.update(topics)
        try:
            self._producer.begin_transaction()
        except KafkaException as exception:
            failure = self._failed("produce", exception)
            if isinstance(failure, Forbidden):
                raise failure from exception
        finally:
            self._purged.clear()

    def _raise_refused(self) -> None:
        if self._refused is not None:
            refused, self._refused = self._refused, None
            raise refused


def encoded_size(value: bytes | None, key: bytes | None, headers: Headers | None) -> int:
    """Bytes of a record alone in its batch, uncompressed, at most 40 above the true size."""
    size = _OVERHEAD + len(value or b"") + len(key or b"")
    for name, content in headers or ():
        size += len(name.encode()) + len(content or b"") + _HEADER_OVERHEAD
    return size


def _reporter(
    on_delivery: Callable[[DeliveryFailure | None, int, int], None], topic: str
) -> Callable[[KafkaError | None, Message], None]:
    def report(error: KafkaError | None, message: Message) -> None:
        partition = _partition(message)
        if error is None:
            offset = message.offset()
            on_delivery(None, partition, -1 if offset is None else offset)
        else:
            on_delivery(delivery_failure(error, topic, partition), partition, -1)

    return report


def _partition(message: Message) -> int:
    partition = message.partition()
    return -1 if partition is None else partition
