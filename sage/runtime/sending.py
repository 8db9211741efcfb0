"""The asynchronous path's way out: outputs of finished records, produced in order, each answered for."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial

from sage.errors import RecordTooLarge
from sage.model.record import Headers
from sage.ports import DeliveryFailure, Producer, Tracer
from sage.runtime.dead_letters import DeadLetter
from sage.runtime.flight import Flight
from sage.runtime.outputs import headers_of, needs_trace, timestamp_of

Answered = Callable[[Flight, DeliveryFailure | None], None]
TooLarge = Callable[[Flight, RecordTooLarge], None]


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
        self._waiting: deque[tuple[Flight, bool, str, bytes | None, bytes | None, Headers, int | None]] = deque()
        self._busy = asyncio.Event()

    def send(self, flight: Flight) -> None:
        """Produce the flight's outputs behind everything sent before."""
        came, timestamp = flight.message.headers(), timestamp_of(flight.message)
        root = self._tracer.start_root() if flight.outputs and needs_trace(came) else ()
        flight.unacknowledged += len(flight.outputs or ())
        for output in flight.outputs or ():
            if flight.span is None:
                headers = headers_of(came, output, root)
            else:
                sending, trace = self._tracer.send(output.topic, flight.span)
                headers = headers_of(came, output, trace)
                sending.end()
            self._waiting.append((flight, False, output.topic, output.value, output.key, headers, timestamp))
        self._push()

    def send_letter(self, flight: Flight, topic: str, letter: DeadLetter) -> None:
        """Produce the flight's dead letter."""
        flight.unacknowledged += 1
        self._waiting.append((flight, True, topic, letter.value, letter.key, letter.headers, letter.timestamp))
        self._push()

    def _push(self) -> None:
        self._busy.set()
        while self._waiting:
            flight, is_letter, topic, value, key, headers, timestamp = self._waiting[0]
            if not flight.home.alive:
                self._waiting.popleft()
                continue
            if flight.letter is not None and not is_letter:  # dead since: its other outputs stay here
                self._waiting.popleft()
                flight.unacknowledged -= 1
                continue
            try:
                answer = partial(self._deliver, flight)
                self._producer.produce(topic, value, key, headers, timestamp, on_delivery=answer)
            except BufferError:
                return  # ``serve`` pushes again as soon as deliveries made room
            except RecordTooLarge as error:
                self._waiting.popleft()
                flight.unacknowledged -= 1
                self._too_large(flight, error)
                continue
            self._waiting.popleft()

    def _deliver(self, flight: Flight, failure: DeliveryFailure | None, partition: int, offset: int) -> None:
        del partition, offset
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
