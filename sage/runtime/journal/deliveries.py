"""A producer on the event loop whose records are awaited until the broker has answered for each."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from sage.errors import RecordTooLarge, StageStopped, TransientFailure
from sage.model.record import Headers
from sage.ports import DeliveryFailure, KafkaClients, Producer, ProducerFatal

logger = logging.getLogger("sage.runtime")

MAX_REPLACED: Final = 5
"""Producers in a row that end without having delivered anything, until it is given up."""

_SOON, _LATER = 0.001, 0.02
"""Seconds between looks for reports: at first, and where none came for a while."""


class Deliveries:
    """Its own idempotent producer, and a task that serves its reports while any are due.

    A producer that librdkafka calls broken for good is replaced; what it had under way fails as transient, and is
    sent again by whoever waits for it.
    """

    def __init__(self, clients: KafkaClients) -> None:
        self._clients = clients
        self._producer: Producer | None = None
        self._server: asyncio.Task[None] | None = None
        self._busy = asyncio.Event()
        self._awaited: set[asyncio.Future[int]] = set()
        self._replaced = 0
        self._given_up: StageStopped | None = None

    def open(self) -> None:
        """Make the producer, and start to serve its reports."""
        self._producer = self._clients.producer()
        self._server = asyncio.get_running_loop().create_task(self._serve())

    async def close(self) -> None:
        """Send what is queued, then release the producer."""
        if self._server is not None:
            self._server.cancel()
        # First, as the last reports come in another thread: by then nothing on the loop waits for them.
        self._fail(TransientFailure("the journal's producer was closed"))
        if self._producer is not None:
            await asyncio.to_thread(self._producer.close)

    async def queue(
        self, topic: str, partition: int, key: bytes, value: bytes, headers: Headers
    ) -> asyncio.Future[int]:
        """Queue a record behind everything queued before; the future gives its offset.

        The future raises RecordTooLarge, TransientFailure (send it again), StageStopped or Unauthorized.

        Raises:
            RecordTooLarge, NotFound, Unauthorized, TransientFailure, StageStopped: it can't be queued.
        """
        answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        answer.add_done_callback(_seen)

        def report(failure: DeliveryFailure | None, at: int, offset: int) -> None:
            del at
            if not answer.done():
                self._answer(answer, failure, offset)

        while True:
            if self._given_up is not None:
                raise self._given_up
            assert self._producer is not None, "deliveries are opened before anything is sent"
            try:
                self._producer.produce(topic, value, key, headers, partition=partition, on_delivery=report)
            except BufferError:
                self._busy.set()
                await asyncio.sleep(_SOON)
                continue
            except ProducerFatal as error:
                await self._replace(error)
                continue
            self._awaited.add(answer)
            self._busy.set()
            return answer

    def _answer(self, answer: asyncio.Future[int], failure: DeliveryFailure | None, offset: int) -> None:
        self._awaited.discard(answer)
        if failure is None:
            self._replaced = 0
            answer.set_result(offset)
        elif failure.too_large:
            answer.set_exception(RecordTooLarge(f"{failure.topic}: {failure.reason}"))
        elif failure.retriable:
            answer.set_exception(TransientFailure(f"{failure.topic}: {failure.reason}"))
        else:
            answer.set_exception(StageStopped(f"{failure.topic} did not take a record: {failure.reason}"))

    async def _serve(self) -> None:
        """Serve reports while any are due; runs until cancelled, or given up."""
        pause = _SOON
        while self._given_up is None:
            await self._busy.wait()
            assert self._producer is not None
            try:
                served = self._producer.poll(0)
            except ProducerFatal as error:
                await self._replace(error)
                continue
            except Exception as error:  # for example wrong credentials: whoever waits must hear of it
                self._fail(error)
                served = 0
            if not len(self._producer):
                self._producer.take_failures()  # each was answered for; its list must not grow
                self._busy.clear()
                pause = _SOON
                continue
            pause = _SOON if served else min(2 * pause, _LATER)
            await asyncio.sleep(pause)

    async def _replace(self, error: ProducerFatal) -> None:
        old, self._replaced = self._producer, self._replaced + 1
        if self._replaced > MAX_REPLACED:
            self._given_up = StageStopped(f"{MAX_REPLACED} producers in a row failed for good: {error}")
            self._fail(self._given_up)
            return
        logger.warning("the journal's producer is of no more use, making another: %s", error)
        self._producer = self._clients.producer()
        self._fail(TransientFailure(f"the producer failed: {error}"))
        if old is not None:
            await asyncio.to_thread(old.close, 0.0)

    def _fail(self, error: Exception) -> None:
        for answer in list(self._awaited):
            self._awaited.discard(answer)
            if not answer.done():
                answer.set_exception(error)


def _seen(answer: asyncio.Future[int]) -> None:
    """Whoever queued it may be gone: what it failed with is then nobody's."""
    if not answer.cancelled():
        answer.exception()
