"""One actor's transactions, one after the other: what they commit is all there or not at all (KIP-98, KIP-447).

An abortable failure costs this transaction: it is aborted and its outputs are made again. A fatal one costs the
producer: a new one takes its place, under the same id, which fences the old. A commit that was not answered is
asked again and never aborted, since it may have happened.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from sage.errors import SageError, TransientFailure, Unreachable
from sage.model.partition import TopicPartition
from sage.ports import Clock, DeliveryFailure, KafkaClients, Producer, ProducerFatal, TransactionAbortable
from sage.runtime.actors.call_thread import CallThread, Hung

logger = logging.getLogger("sage.runtime")
R = TypeVar("R")

RETRY_DELAY = 0.2
"""Seconds between two questions to a broker that does not answer."""

CALL_TIMEOUT = 5.0
"""Seconds that one call to the broker may take before it is made again."""


HUNG_AFTER = 20.0
"""Seconds without a return after which a producer is given up: longer than any call's time-out, and than the broker
keeps a transaction open."""


class Aborted(Exception):  # noqa: N818 - an answer to the checkpoint, not an error to a user
    """Nothing of the transaction happened: make its outputs again, from memory or from the log.

    ``failures`` are the outputs that the broker refused, where that was the reason.
    """

    def __init__(self, reason: str, failures: Sequence[DeliveryFailure] = ()) -> None:
        super().__init__(reason)
        self.failures = tuple(failures)


class Replaced(Exception):  # noqa: N818 - an answer to the checkpoint, not an error to a user
    """The producer was fenced or broke, and a new one stands ready: go back to what is committed."""


class Transactions:
    """A producer with a transactional id. One thread calls it.

    Args:
        clients: makes the producers.
        transactional_id: names this actor; no other one may have it at the same time.
        clock, stopping: waits between two tries end when the actor is asked to stop.
        config: settings of the producers.
    """

    def __init__(
        self, clients: KafkaClients, transactional_id: str, *, clock: Clock, stopping: threading.Event,
        config: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        self.id = transactional_id
        self._clients = clients
        self._config = config
        self._clock = clock
        self._stopping = stopping
        self._producer: Producer | None = None
        self._thread = CallThread(f"{transactional_id}-transactions")
        self._awaits_commit = False
        self.is_open = False
        self.open_bytes = 0
        """Bytes of values in the transaction that is open, or was last; counted by who produces."""

    def open(self) -> None:
        """Make the producer and finish what an earlier owner of the id left open.

        Raises:
            SageError, ProducerFatal: it is of no use; ``open`` may be tried again.
        """
        if (useless := self._producer) is not None:  # on a thread of its own: one that hangs does so here too
            threading.Thread(target=useless.close, args=(0.0,), name=f"{self.id}-given-up", daemon=True).start()
        self._producer = self._clients.producer(transactional_id=self.id, config=self._config)
        self._patiently(lambda: self.producer.init_transactions(CALL_TIMEOUT))

    @property
    def producer(self) -> Producer:
        """The producer of the moment; another one after ``Replaced``."""
        assert self._producer is not None, "transactions are used before they are opened"
        return self._producer

    def begin(self) -> None:
        """Open a transaction unless one is open.

        Raises:
            Replaced: the producer was of no more use.
        """
        if self.is_open:
            return
        try:
            self.producer.begin_transaction()
        except ProducerFatal as error:
            raise self.replaced(error) from error
        self.is_open = True
        self.open_bytes = 0

    def commit(
        self,
        offsets: Mapping[TopicPartition, int],
        group_metadata: object | None,
        metadata: Mapping[TopicPartition, str] | None = None,
    ) -> None:
        """Commit what was produced since ``begin`` together with a group's offsets, if there are any.

        Raises:
            Aborted: it did not happen; the transaction is closed.
            Replaced: it did not happen, or is finished by the broker; the offsets that are committed say which.
        """
        self.begin()
        try:
            if offsets:
                self._patiently(lambda: self.producer.send_offsets(offsets, group_metadata, metadata))
            self._awaits_commit = True
            self._patiently(lambda: self.producer.commit_transaction(CALL_TIMEOUT))
        except TransactionAbortable as error:
            raise self.aborted(error) from error
        except ProducerFatal as error:
            raise self.replaced(error) from error
        self.is_open = self._awaits_commit = False

    def aborted(self, error: BaseException) -> Aborted:
        """Abort after a failure; the answer to raise, with what the broker refused.

        Raises:
            Replaced: even aborting failed.
        """
        logger.info("%s: transaction aborted: %s", self.id, error)
        self._awaits_commit = False
        failures = self.producer.take_failures()  # before the abort, which adds all that was queued
        self.abort()
        return Aborted(str(error), failures)

    def abort(self) -> None:
        """Throw away what was produced since ``begin``, if anything.

        Raises:
            Replaced: even that failed, and a new producer was made: the broker has thrown it away then.
        """
        if not self.is_open:
            return
        try:
            self._patiently(lambda: self.producer.abort_transaction(CALL_TIMEOUT))
            self.is_open = False
            self.producer.take_failures()
            self._patiently(lambda: self.producer.init_transactions(CALL_TIMEOUT))  # the next one is another epoch's
        except (ProducerFatal, TransactionAbortable) as error:
            raise self.replaced(error) from error

    def close(self) -> None:
        """Abort what is open, unless it may be committed, and release the producer."""
        producer = self._producer
        if producer is None:
            return
        try:
            if self.is_open and not self._awaits_commit:
                self.is_open = False
                self._thread.call(lambda: producer.abort_transaction(CALL_TIMEOUT), HUNG_AFTER)
            self._thread.call(producer.close, HUNG_AFTER)
        except (SageError, ProducerFatal, TransactionAbortable, Hung) as error:  # the broker's time-out ends it then
            logger.info("%s: closed with an open transaction: %s", self.id, error)
        self._thread.close()

    def replaced(self, error: BaseException) -> Replaced:
        """Put a new producer in the place of one that is of no more use; the answer to raise.

        Raises:
            SageError, ProducerFatal: the actor is asked to stop, and there is none that works.
        """
        self.is_open = self._awaits_commit = False
        while True:
            logger.warning("%s: its producer is fenced or broken, making a new one: %s", self.id, error)
            try:
                self.open()
            except ProducerFatal as again:  # fenced by whoever took over from us, or hanging, before it was of any use
                if self._stopping.is_set():
                    raise
                error = again
                self._clock.wait(_NEVER, RETRY_DELAY)
            else:
                return Replaced(str(error))

    def _patiently(self, call: Callable[[], R]) -> R:
        """Ask until there is an answer: the broker may be away for minutes. Not so long while stopping."""
        deadline: float | None = None
        while True:
            try:
                return self._thread.call(call, HUNG_AFTER)
            except Hung as hung:
                raise ProducerFatal(f"its producer hangs: {hung}") from hung
            except (TransientFailure, Unreachable) as error:
                now = self._clock.monotonic()
                if self._stopping.is_set():
                    deadline = now + CALL_TIMEOUT if deadline is None else deadline
                    if now >= deadline:
                        raise
                logger.info("%s: asking the broker again: %s", self.id, error)
                self._clock.wait(_NEVER, RETRY_DELAY)


_NEVER = threading.Event()
