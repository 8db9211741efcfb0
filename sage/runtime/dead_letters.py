"""Dead letters: the record as it came, and why and where it failed.

Headers are Kafka Connect's (KIP-298), so that tools for Connect's dead letters read these too.
"""

from __future__ import annotations

import traceback
from dataclasses import dataclass

from sage.model import dead_letter_headers as names
from sage.model.record import Headers
from sage.ports import RawMessage

MAX_TRACE = 8_000
"""Bytes of stack trace that a dead letter carries at most."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One record ready for the dead-letter topic."""

    key: bytes | None
    value: bytes | None
    headers: Headers
    timestamp: int | None

    def shortened(self) -> DeadLetter:
        """The same without its stack trace, for a record that is at the size limit itself."""
        kept = [(name, b"(cut)" if name == names.STACKTRACE else value) for name, value in self.headers]
        return DeadLetter(self.key, self.value, kept, self.timestamp)


def dead_letter(
    message: RawMessage, error: BaseException, *, topology: str, step: str, code: str, worker: str, attempts: int
) -> DeadLetter:
    """The dead letter of ``message``, which failed in ``step``, whose class or function is ``code``."""
    class_name = f"{type(error).__module__}.{type(error).__qualname__}"
    trace = "".join(traceback.format_exception(error))[-MAX_TRACE:]
    reason: list[tuple[str, bytes | None]] = [
        (names.TOPIC, message.topic().encode()),
        (names.PARTITION, str(message.partition()).encode()),
        (names.OFFSET, str(message.offset()).encode()),
        (names.CONNECTOR, topology.encode()),
        (names.TASK, worker.encode()),
        (names.STAGE, step.encode()),
        (names.CLASS, code.encode()),
        (names.EXCEPTION, class_name.encode()),
        (names.MESSAGE, str(error).encode(errors="replace")[:2_000]),
        (names.STACKTRACE, trace.encode(errors="replace")),
        (names.ATTEMPTS, str(attempts).encode()),
    ]
    kind, timestamp = message.timestamp()
    return DeadLetter(
        message.key(), message.value(), [*(message.headers() or ()), *reason], timestamp if kind else None
    )
