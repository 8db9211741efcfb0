"""How a source task's records and its position leave: one after the other, or in one transaction (KIP-618)."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from sage.errors import StageStopped, TransientFailure
from sage.model.partition import TopicPartition
from sage.ports import Clock, DeliveryFailure, KafkaClients, ProducerFatal, TransactionAbortable
from sage.runtime.actors.transaction import Aborted, Replaced, Transactions
from sage.runtime.sources.positions import PositionWriter, SourcePosition

logger = logging.getLogger("sage.runtime")
R = TypeVar("R")

FLUSH_TIMEOUT = 5.0

OPEN_TRIES = 5
OPEN_AGAIN = 0.5
"""How often a producer is opened, and seconds between two tries."""


class SourceOutput(Protocol):
    """Lives on the event loop; what waits for the broker waits in a thread."""

    interval: float
    """Seconds between two positions."""

    leaving: bool
    """The task goes: a lost transaction is left to its next owner."""

    losses: int
    """How often a record met the loss of the transaction with all that was given since the last position."""

    async def open(self) -> None:
        """Get ready; a predecessor that is not quite dead can write nothing more, where that is promised."""
        ...

    async def produce(self, topic: str, data: bytes | None, key: bytes | None, headers: Any, at: int | None) -> None:
        """Queue one record. Raises RecordTooLarge, TransientFailure."""
        ...

    def serve(self) -> None:
        """Serve delivery reports."""
        ...

    async def save(self, position: SourcePosition) -> None:
        """All records before are safe, and the position after them is written.

        Raises:
            TransientFailure: they are not; read again from the last position that was written.
            StageStopped: the broker refuses one.
        """
        ...

    async def rest(self) -> None:
        """Wait for what a cancelled caller left under way: until then nobody knows which position is written."""
        ...

    async def close(self) -> None:
        """Release the producer."""
        ...


class PlainOutput:
    """At least once: first the records are acknowledged, then the position is written."""

    interval = 1.0
    leaving = False
    losses = 0

    def __init__(self, clients: KafkaClients, partition: TopicPartition, key: bytes, where: str) -> None:
        self._producer = clients.producer()
        self._writer = PositionWriter(self._producer, partition, key)
        self._where = where

    async def open(self) -> None:
        """Nothing to wait for."""

    async def produce(self, topic: str, data: bytes | None, key: bytes | None, headers: Any, at: int | None) -> None:
        """Queue one record."""
        while True:
            try:
                self._producer.produce(topic, data, key, headers, at)
                return
            except BufferError:
                self._producer.poll(0)
                await asyncio.sleep(0.005)

    def serve(self) -> None:
        """Serve delivery reports."""
        self._producer.poll(0)

    async def save(self, position: SourcePosition) -> None:
        """Flush, look at the failures, write the position."""
        while await asyncio.to_thread(self._producer.flush, FLUSH_TIMEOUT):
            logger.warning("%s: waiting for the broker to take records", self._where)
        raise_refusals(self._producer.take_failures(), self._where)
        while not await asyncio.to_thread(self._writer.write, position, FLUSH_TIMEOUT):
            logger.warning("%s: waiting for the broker to take the position", self._where)

    async def rest(self) -> None:
        """A flush that nobody waits for changes nothing."""

    async def close(self) -> None:
        """Release the producer."""
        await asyncio.to_thread(self._producer.close)


class TransactionalOutput:
    """Exactly once: records and the position after them in one transaction.

    The id is the task's, so that a new owner's ``open`` fences and aborts the one before.
    """

    interval = 0.1
    leaving = False
    losses = 0

    def __init__(
        self, clients: KafkaClients, partition: TopicPartition, key: bytes, where: str, *, transactional_id: str,
        clock: Clock, stopping: threading.Event,
    ) -> None:  # fmt: skip
        self._transactions = Transactions(clients, transactional_id, clock=clock, stopping=stopping)
        self._partition = partition
        self._key = key
        self._where = where
        self._under_way: asyncio.Future[Any] | None = None

    async def open(self) -> None:
        """Fence the predecessor, before its position is read."""
        for left in reversed(range(OPEN_TRIES)):
            try:
                await self._apart(self._transactions.open)
                return
            except ProducerFatal as error:  # fenced by another owner that began at the same moment, or of no use at all
                if not left:
                    raise
                logger.warning("%s: opening its producer again: %s", self._where, error)
                await asyncio.sleep(OPEN_AGAIN)

    async def _apart(self, call: Callable[..., R], *arguments: Any) -> R:
        """In a thread of its own, one after the other: who is cancelled leaves a call running behind it."""
        await self.rest()
        self._under_way = asyncio.ensure_future(asyncio.to_thread(call, *arguments))
        answer: R = await asyncio.shield(self._under_way)
        return answer

    async def rest(self) -> None:
        """Wait for the call that a cancelled caller left under way, if there is one."""
        if self._under_way is not None:
            await asyncio.wait({self._under_way})
            if not self._under_way.cancelled():
                self._under_way.exception()  # whoever asked was told, or is gone

    async def produce(self, topic: str, data: bytes | None, key: bytes | None, headers: Any, at: int | None) -> None:
        """Queue one record into the open transaction, opening one if needed."""
        try:
            self._transactions.begin()
            while True:
                try:
                    self._transactions.producer.produce(topic, data, key, headers, at)
                    return
                except BufferError:
                    self._transactions.producer.poll(0)
                    await asyncio.sleep(0.005)
        except (TransactionAbortable, ProducerFatal, Replaced) as error:
            self.losses += 1  # at once: who is cancelled while the rest is done must know it too
            raise await self._apart(self._lost, error) from error

    def serve(self) -> None:
        """The commit serves its own."""

    async def save(self, position: SourcePosition) -> None:
        """Commit the records with the position after them."""
        try:
            self._transactions.begin()
            self._transactions.producer.produce(
                self._partition.topic, position.encode(), self._key, partition=self._partition.partition
            )
            await self._apart(self._transactions.commit, {}, None)
        except (TransactionAbortable, ProducerFatal, Aborted, Replaced) as error:
            raise await self._apart(self._lost, error) from error

    def _lost(self, error: Exception) -> Exception:
        """What the loss of the transaction means for the reader: it goes back to the position that is written."""
        if self.leaving:  # a new producer would fence the next owner, who may be at work already
            return TransientFailure(f"{self._where}: the last transaction is lost: {error}")
        try:
            if isinstance(error, TransactionAbortable):
                error = self._transactions.aborted(error)
            elif isinstance(error, ProducerFatal):
                error = self._transactions.replaced(error)
        except Replaced as replaced:
            error = replaced
        if isinstance(error, Aborted) and error.failures:
            try:
                raise_refusals(list(error.failures), self._where)
            except (StageStopped, TransientFailure) as refused:
                return refused
        return TransientFailure(f"{self._where}: the transaction is lost, reading again: {error}")

    async def close(self) -> None:
        """Abort what is open and release the producer."""
        await self._apart(self._transactions.close)


def raise_refusals(failures: list[DeliveryFailure], where: str) -> None:
    """Raise what refused records mean, if there are any."""
    if not failures:
        return
    what = f"{failures[0].topic} did not take a record: {failures[0].reason}"
    if all(failure.retriable for failure in failures):
        raise TransientFailure(what)
    raise StageStopped(f"{what}; reading again starts at the last position", where=where)
