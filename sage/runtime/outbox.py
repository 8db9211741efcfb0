"""The synchronous path's way out: produce, and know whether all of it was taken."""

from __future__ import annotations

from sage.errors import RecordTooLarge, StageStopped
from sage.model.record import Headers
from sage.ports import DeliveryFailure, Producer
from sage.runtime.dead_letters import DeadLetter


class Outbox:
    """A producer with backpressure: a full queue waits for deliveries instead of failing."""

    def __init__(self, producer: Producer, dead_letter_topic: str) -> None:
        self._producer = producer
        self.produce = producer.produce
        self._dead_letter_topic = dead_letter_topic

    def send(
        self, topic: str, value: bytes | None, key: bytes | None, headers: Headers | None, timestamp: int | None
    ) -> None:
        """Queue one record; waits while the queue is full. Raises RecordTooLarge."""
        while True:
            try:
                self.produce(topic, value, key, headers, timestamp)
                return
            except BufferError:
                self._producer.poll(0.1)

    def bury(self, letter: DeadLetter) -> None:
        """Queue a dead letter, its stack trace cut where it would not fit.

        Raises:
            StageStopped: even so it is too large: the loud end, as the record must not vanish.
        """
        for attempt in (letter, letter.shortened()):
            try:
                self.send(self._dead_letter_topic, attempt.value, attempt.key, attempt.headers, attempt.timestamp)
                return
            except RecordTooLarge as error:
                refusal = error
        raise StageStopped(
            f"a dead letter does not fit {self._dead_letter_topic}: {refusal.message}; "
            "raise max.message.bytes of that topic and message.max.bytes of the client"
        ) from refusal

    def settle(self, timeout: float) -> list[DeliveryFailure] | None:
        """Wait until all queued records are answered for: failures, or ``None`` where time ran out first.

        ``flush() == 0`` alone is no proof: it returns 0 after refusals too, so the recorded failures count.
        """
        if self._producer.flush(timeout):
            return None
        return self._producer.take_failures()

    def serve(self) -> None:
        """Serve delivery reports that are there."""
        self._producer.poll(0)

    def close(self) -> None:
        """Release the producer."""
        self._producer.close()
