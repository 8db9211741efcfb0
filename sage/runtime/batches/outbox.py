"""The synchronous path's way out: produce, and know whether all of it was taken."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sage.errors import RecordTooLarge, SageError
from sage.model.record import Headers
from sage.ports import DeliveryFailure, Producer, ProducerFatal, TransactionAbortable
from sage.runtime.actors.transaction import Aborted, Replaced, Transactions
from sage.runtime.retries.dead_letters import DeadLetter, does_not_fit

TRANSACTION_BYTES = 32 * 1024 * 1024
"""Bytes of values after which a transaction takes no further batch and is closed by the next checkpoint: what is open
holds up all readers behind it, and is sent again as a whole when it is aborted."""


class Outbox:
    """A producer with backpressure: a full queue waits for deliveries instead of failing.

    Args:
        producer: at-least-once; ``None`` with ``transactions``.
        transactions: exactly-once: everything is produced inside one.
    """

    def __init__(self, producer: Producer | None, transactions: Transactions | None = None) -> None:
        self._own = producer
        self._transactions = transactions
        self._held: list[tuple[Any, ...]] | None = None
        self._held_bytes = 0
        self._left_out: SageError | None = None

    @property
    def producer(self) -> Producer:
        """The producer of the moment."""
        if self._transactions is not None:
            return self._transactions.producer
        assert self._own is not None, "an outbox without a producer"
        return self._own

    @property
    def is_transactional(self) -> bool:
        """Whether outputs count only when the transaction is committed."""
        return self._transactions is not None

    def begin(self) -> None:
        """Make sure that what is produced now is in a transaction, where that is asked for. Raises Replaced."""
        if self._transactions is not None and self._held is None:
            if not self._transactions.is_open:
                self._left_out = None
            self._transactions.begin()

    def refuse_part(self) -> None:
        """Raises what kept an output out of the open transaction: others of its record, or of its turn, are in it, so
        that it must not be committed, also when the stage stops for just that."""
        if self._left_out is not None:
            raise self._left_out

    @property
    def is_full(self) -> bool:
        """Whether the open transaction is to be closed before more goes into it."""
        transactions = self._transactions
        if self._held_bytes >= TRANSACTION_BYTES:
            return True
        return transactions is not None and transactions.is_open and transactions.open_bytes >= TRANSACTION_BYTES

    @property
    def has_content(self) -> bool:
        """Whether the broker waits for the end of a transaction."""
        return self._transactions is not None and self._transactions.is_open and self._transactions.open_bytes > 0

    @contextmanager
    def holding(self) -> Iterator[None]:
        """What is sent meanwhile leaves at the end, in a transaction that is opened only then: what its code takes is
        none of the transaction's time. It is dropped where the transaction is lost."""
        self._held = []
        try:
            yield
        except (TransactionAbortable, Aborted, ProducerFatal, Replaced):
            raise
        except BaseException:
            self._release()  # what was run counts, also when a later record stops the stage
            raise
        else:
            self._release()
        finally:
            self._held, self._held_bytes = None, 0

    def _release(self) -> None:
        """Send what is held; what comes next is held again."""
        held, self._held, self._held_bytes = self._held, None, 0
        if held:
            self.begin()
            for each in held:
                self.send(*each)
        self._held = []

    @property
    def produce(self) -> Callable[..., None]:
        """The producer's own method: not to be kept over a checkpoint, after which it may be another one's."""
        if self._held is not None:
            return self._hold
        produce, transactions = self.producer.produce, self._transactions
        if transactions is None:
            return produce

        def counted(topic: str, value: bytes | None, *others: Any) -> None:
            produce(topic, value, *others)
            transactions.open_bytes += len(value) if value else 1

        return counted

    def _hold(self, topic: str, value: bytes | None, key: bytes | None, headers: Headers | None, *others: Any) -> None:
        assert self._held is not None, "held outside of `holding`"
        self.check_size(topic, value, key, headers)
        self._held.append((topic, value, key, headers, *others))
        self._held_bytes += len(value or b"")

    def send(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None,
        headers: Headers | None,
        timestamp: int | None,
        partition: int = -1,
        on_delivery: Callable[[DeliveryFailure | None, int, int], None] | None = None,
    ) -> None:
        """Queue one record; waits while the queue is full. Raises RecordTooLarge."""
        produce = self.produce
        while True:
            try:
                produce(topic, value, key, headers, timestamp, partition, on_delivery)
                return
            except BufferError:
                self.producer.poll(0.1)
            except RecordTooLarge:
                raise
            except SageError as error:
                self._left_out = error
                raise

    def check_size(self, topic: str, value: bytes | None, key: bytes | None, headers: Headers | None) -> None:
        """Raises RecordTooLarge for what ``send`` would refuse."""
        self.producer.check_size(topic, value, key, headers)

    def bury(self, letter: DeadLetter) -> None:
        """Queue a dead letter, its stack trace cut where it would not fit.

        Raises:
            StageStopped: even so it is too large: the loud end, as the record must not vanish.
        """
        for attempt in (letter, letter.shortened()):
            try:
                self.send(attempt.topic, attempt.value, attempt.key, attempt.headers, attempt.timestamp)
                return
            except RecordTooLarge as error:
                refusal = error
        raise does_not_fit(letter.topic, refusal.message) from refusal

    def settle(self, timeout: float) -> list[DeliveryFailure] | None:
        """Wait until all queued records are answered for: failures, or ``None`` where time ran out first.

        ``flush() == 0`` alone is no proof: it returns 0 after refusals too, so the recorded failures count.
        """
        if self._held:
            self._release()
        if self.producer.flush(timeout):
            return None
        return self.producer.take_failures()

    def given_up(self, failures: Sequence[DeliveryFailure]) -> Aborted:
        """Abort what is open, if anything, because of refused outputs or missing answers; the answer to raise."""
        if self._transactions is not None:
            self._transactions.abort()
        return Aborted(f"{failures[0].topic}: {failures[0].reason}" if failures else "no answer came", failures)

    def serve(self) -> None:
        """Serve delivery reports that are there."""
        self.producer.poll(0)

    def close(self) -> None:
        """Release the producer, unless the transactions do."""
        if self._own is not None:
            self._own.close()
