"""Dead letters: the record as it came, and why and where it failed.

Headers are Kafka Connect's (KIP-298), so that tools for Connect's dead letters read these too.
"""

from __future__ import annotations

import traceback
from dataclasses import dataclass

from sage.model.record import Headers
from sage.ports import RawMessage

PREFIX = "__connect.errors."
ATTEMPTS = "sage.attempts"
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
        kept = [(name, b"(cut)" if name == PREFIX + "exception.stacktrace" else value) for name, value in self.headers]
        return DeadLetter(self.key, self.value, kept, self.timestamp)


def dead_letter(
    message: RawMessage, error: BaseException, *, topology: str, step: str, worker: str, attempts: int
) -> DeadLetter:
    """The dead letter of ``message``, which failed in ``step`` with ``error``."""
    name = f"{type(error).__module__}.{type(error).__qualname__}"
    trace = "".join(traceback.format_exception(error))[-MAX_TRACE:]
    reason: list[tuple[str, bytes | None]] = [
        (PREFIX + "topic", message.topic().encode()),
        (PREFIX + "partition", str(message.partition()).encode()),
        (PREFIX + "offset", str(message.offset()).encode()),
        (PREFIX + "connector.name", topology.encode()),
        (PREFIX + "task.id", worker.encode()),
        (PREFIX + "stage", step.encode()),
        (PREFIX + "class.name", type(error).__name__.encode()),
        (PREFIX + "exception.class.name", name.encode()),
        (PREFIX + "exception.message", str(error).encode(errors="replace")[:2_000]),
        (PREFIX + "exception.stacktrace", trace.encode(errors="replace")),
        (ATTEMPTS, str(attempts).encode()),
    ]
    kind, timestamp = message.timestamp()
    return DeadLetter(
        message.key(), message.value(), [*(message.headers() or ()), *reason], timestamp if kind else None
    )
