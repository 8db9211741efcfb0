"""The asynchronous path's way out: outputs of finished records, produced in order, each answered for."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from sage.errors import RecordTooLarge
from sage.model.record import Headers
from sage.ports import DeliveryFailure, Producer, Tracer
from sage.runtime.concurrent.flight import Flight
from sage.runtime.retries.dead_letters import DeadLetter
from sage.runtime.retries.parking import Parked
from sage.runtime.steps.outputs import headers_of, needs_trace, timestamp_of

Answered = Callable[[Flight, DeliveryFailure | None], None]
TooLarge = Callable[[Flight, RecordTooLarge], None]


class Leaving(NamedTuple):
    """One record as ``Producer.produce`` takes it."""

    topic: str
    value: bytes | None
    key: bytes | None
    headers: Headers | None
    timestamp: int | None
    partition: int = -1


def leaving(flight: Flight, tracer: Tracer) -> list[Leaving]:
    """A finished record's outputs with their headers and spans."""
    came, timestamp = flight.message.headers(), timestamp_of(flight.message)
    root = tracer.start_root() if flight.outputs and needs_trace(came) else ()
    records: list[Leaving] = []
    for output in flight.outputs or ():
        if flight.span is None:
            headers = headers_of(came, output, root)
        else:
            sending, trace = tracer.send(output.topic, flight.span)
            headers = headers_of(came, output, trace)
            sending.end()
        records.append(Leaving(output.topic, output.value, output.key, headers, timestamp))
    return records


class Sending:
    """Queues outputs to the producer on the event loop and serves its delivery reports there.

    Args:
        answered: called once per produced record with its failure or ``None``.
        too_large: called instead for an output that can't be produced at all.
    """

    def __init__(self, producer: Producer, tracer: Tracer, answered: Answered, too_large: TooLarge) -> None:
        self._producer = producer
        self._tracer = tracer
        self._answered = answered
        self._too_large = too_large
        self._waiting: deque[tuple[Flight, bool, Leaving]] = deque()
        self._unanswered = 0
        self._is_alone = False
        self._busy = asyncio.Event()

    def send(self, flight: Flight) -> None:
        """Produce the flight's outputs behind everything sent before; all of them, or its letter."""
        records = leaving(flight, self._tracer)
        if len(records) > 1:
            try:
                for record in records:
                    self._producer.check_size(record.topic, record.value, record.key, record.headers)
            except RecordTooLarge as error:
                self._too_large(flight, error)
                return
        flight.unacknowledged += len(records)
        self._waiting.extend((flight, False, record) for record in records)
        self._push()

    def send_letter(self, flight: Flight, letter: DeadLetter) -> None:
        """Produce the flight's dead letter."""
        flight.unacknowledged += 1
        record = Leaving(letter.topic, letter.value, letter.key, letter.headers, letter.timestamp)
        self._waiting.append((flight, True, record))
        self._push()

    def send_parked(self, flight: Flight, parked: Parked) -> None:
        """Produce the flight into its retry topic."""
        flight.unacknowledged += 1
        record = Leaving(parked.topic, parked.value, parked.key, parked.headers, parked.timestamp, parked.partition)
        self._waiting.append((flight, False, record))
        self._push()

    def _push(self) -> None:
        self._busy.set()
        while self._waiting:
            flight, is_letter, record = self._waiting[0]
            if not flight.home.alive:
                self._waiting.popleft()
                continue
            if flight.letter is not None and not is_letter:  # dead since: its other outputs stay here
                self._waiting.popleft()
                flight.unacknowledged -= 1
                continue
            if self._unanswered and (self._is_alone or flight.is_sent_alone):
                return  # ``serve`` pushes again when that is answered
            try:
                answer = partial(self._deliver, flight)
                self._producer.produce(*record, on_delivery=answer)
            except BufferError:
                return  # ``serve`` pushes again as soon as deliveries made room
            except RecordTooLarge as error:
                self._waiting.popleft()
                flight.unacknowledged -= 1
                self._too_large(flight, error)
                continue
            self._waiting.popleft()
            self._unanswered += 1
            self._is_alone = flight.is_sent_alone

    def _deliver(self, flight: Flight, failure: DeliveryFailure | None, partition: int, offset: int) -> None:
        del partition, offset
        self._unanswered -= 1
        flight.unacknowledged -= 1
        self._answered(flight, failure)

    async def serve(self) -> None:
        """Serve delivery reports while any are due; runs until cancelled."""
        while True:
            await self._busy.wait()
            self._producer.poll(0)
            self._push()
            if not self._waiting and not len(self._producer):
                self._busy.clear()
                continue
            await asyncio.sleep(0.001)
