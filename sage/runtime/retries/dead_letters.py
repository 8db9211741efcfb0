"""Dead letters: the record as it came, and why and where it failed.

Headers are Kafka Connect's (KIP-298), so that tools for Connect's dead letters read these too.
"""

from __future__ import annotations

import traceback
from dataclasses import dataclass, replace

import orjson

from sage.errors import StageStopped
from sage.model import dead_letter_headers as names
from sage.model.identity import SAGE_ID
from sage.model.record import Headers
from sage.model.secrets import hide_secrets
from sage.ports import RawMessage

MAX_TRACE = 8_000
"""Bytes of stack trace that a dead letter carries at most."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One record ready for the dead-letter topic, or for the ``error`` branch of its step."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers
    timestamp: int | None

    def as_json_text(self) -> DeadLetter:
        """The same with its plain text as JSON, for a branch that holds JSON; what is no text stays as it came."""
        try:
            return self if self.value is None else replace(self, value=orjson.dumps(self.value.decode()))
        except UnicodeDecodeError:
            return self

    def shortened(self) -> DeadLetter:
        """The same without its stack trace, for a record that is at the size limit itself."""
        kept = [(name, b"(cut)" if name == names.STACKTRACE else value) for name, value in self.headers]
        return replace(self, headers=kept)


def does_not_fit(topic: str, reason: str) -> StageStopped:
    """What to raise for a letter that its topic does not take even without its trace: the loud end."""
    return StageStopped(
        f"a dead letter does not fit {topic}: {reason}; raise max.message.bytes of that topic and message.max.bytes of "
        "the client; nothing was committed past it"
    )


def dead_letter(
    message: RawMessage, error: BaseException, *, topology: str, stage: str, step: str, code: str, worker: str,
    attempts: int, topic: str, record_id: str | None = None, timer: str | None = None,
) -> DeadLetter:  # fmt: skip
    """The letter about ``message``, which failed in ``step`` of ``stage``, whose class or function is ``code``.

    ``topic`` is where it goes. ``record_id``: put last, where the letter is read on as a record of its own. ``timer``:
    its name, where the message is one that was due.
    """
    class_name = f"{type(error).__module__}.{type(error).__qualname__}"
    trace = hide_secrets("".join(traceback.format_exception(error)))[-MAX_TRACE:]
    reason: list[tuple[str, bytes | None]] = [
        (names.TOPIC, message.topic().encode()),
        (names.PARTITION, str(message.partition()).encode()),
        (names.OFFSET, str(message.offset()).encode()),
        (names.CONNECTOR, topology.encode()),
        (names.TASK, worker.encode()),
        (names.STAGE, step.encode()),
        (names.CLASS, code.encode()),
        (names.EXCEPTION, class_name.encode()),
        (names.MESSAGE, hide_secrets(str(error)).encode(errors="replace")[:2_000]),
        (names.STACKTRACE, trace.encode(errors="replace")),
        (names.FAILED_STAGE, stage.encode()),
        (names.ATTEMPTS, str(attempts).encode()),
    ]
    if timer is not None:
        reason.append((names.TIMER, timer.encode()))
    came = list(message.headers() or ())
    if record_id is not None:
        came = [pair for pair in came if pair[0] not in (SAGE_ID, names.REPLAYS)]
        reason.append((SAGE_ID, record_id.encode()))
    kind, timestamp = message.timestamp()
    return DeadLetter(topic, message.key(), message.value(), [*came, *reason], timestamp if kind else None)
