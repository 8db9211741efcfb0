"""Putting a record into its stage's retry topic, and finding out which keys are there (decision 12)."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import NamedTuple

from sage.errors import TransientFailure, Unreachable
from sage.model import retry_headers as names
from sage.model.partition import TopicPartition
from sage.model.record import Headers
from sage.ports import Admin, Clock, Commit, KafkaClients, RawMessage
from sage.runtime.actors.patience import patiently
from sage.runtime.retries.intake import Retried
from sage.runtime.retries.parked_keys import Origin
from sage.runtime.steps.outputs import timestamp_of

SILENCE = 60
"""Seconds in which a retry partition that has records gives none, until it is read from the start again."""

ASK_AGAIN = 0.2
"""Seconds between two looks whether an open transaction is decided."""

WORD_AFTER, WORD_EVERY = 1.0, 5.0
"""Seconds after which the wait for one is told, and told again."""

logger = logging.getLogger("sage.runtime")


class TryLater(Exception):  # noqa: N818 - a way out of a try, never shown
    """A record is to be tried again after ``delay`` seconds; ``attempts`` were made."""

    def __init__(self, delay: float, attempts: int) -> None:
        super().__init__(delay, attempts)
        self.delay = delay
        self.attempts = attempts


class Parked(NamedTuple):
    """A record as it goes into the retry topic."""

    topic: str
    partition: int
    value: bytes | None
    key: bytes | None
    headers: Headers
    timestamp: int | None


def parked(view: RawMessage, topic: str, partition: int, *, attempts: int, due: int = 0) -> Parked:
    """``view`` for partition ``partition`` of the retry topic.

    Args:
        view: the record as its stage sees it.
        topic, partition: where it waits: the retry topic, the number of the partition it was read from.
        attempts: tries so far.
        due: milliseconds since the epoch of the next try; 0 is at once.
    """
    headers: list[tuple[str, bytes | None]] = [
        *(view.headers() or ()),
        (names.TOPIC, view.topic().encode()),
        (names.PARTITION, b"%d" % view.partition()),
        (names.OFFSET, b"%d" % view.offset()),
        (names.DUE, b"%d" % due),
        (names.ATTEMPTS, b"%d" % attempts),  # last: by it the fast way knows the record
    ]
    return Parked(topic, partition, view.value(), view.key(), headers, timestamp_of(view))


ScanParked = Callable[[TopicPartition, Commit], dict[bytes, list[Origin]]]


def scan_parked(
    clients: KafkaClients, partition: TopicPartition, commit: Commit, *, clock: Clock, stopping: threading.Event,
    default_topic: str = "",
) -> dict[bytes, list[Origin]]:  # fmt: skip
    """The keys of the records that wait in a retry partition, and where each was first read, however long the broker
    takes to say so.

    All that stands in the log is looked at, and not only what comes before the last stable offset: that one is held
    back by whatever transaction is open, such as of a worker that died before anybody knew its name, or is
    committed and has no marker here yet, and records behind it are parked all the same. The broker ends what is left
    open after ``transaction.timeout.ms``.

    Args:
        default_topic: the stage's first input, of which a record without a word of its origin is.

    Raises:
        TransientFailure, Unreachable: it can't be read, and the actor is asked to stop.
    """

    def scan() -> dict[bytes, list[Origin]]:
        first, end = _bounds(clients, partition, commit, clock, stopping)
        return _keys(clients, partition, first, end, default_topic) if first < end else {}

    return patiently(scan, where=str(partition), clock=clock, stopping=stopping)


def _bounds(
    clients: KafkaClients, partition: TopicPartition, commit: Commit, clock: Clock, stopping: threading.Event
) -> tuple[int, int]:
    """The first uncommitted offset, and the end of the log, when all before that is decided."""
    admin = clients.admin()
    try:
        (end,) = admin.end_offsets([partition], committed=False).values()
        (start,) = admin.start_offsets([partition]).values()
        first = max(start, commit.offset or 0)
        if first < end:
            _await_decided(admin, partition, end, clock, stopping)
        return first, end
    finally:
        admin.close()


def _await_decided(admin: Admin, partition: TopicPartition, end: int, clock: Clock, stopping: threading.Event) -> None:
    speak = clock.monotonic() + WORD_AFTER
    while (stable := admin.end_offsets([partition])[partition]) < end:
        if stopping.is_set():
            raise TransientFailure(f"{partition}: a transaction is open at offset {stable}, before its end {end}")
        if clock.monotonic() >= speak:
            speak += WORD_EVERY
            logger.warning(
                "%s waits for the end of a transaction that somebody left open at offset %d: the keys of parked "
                "records up to offset %d are known only then. The broker ends it after transaction.timeout.ms; if it "
                "does not, `kafka-transactions.sh find-hanging` names it",
                partition, stable, end,
            )  # fmt: skip
        clock.wait(stopping, ASK_AGAIN)


def _keys(
    clients: KafkaClients, partition: TopicPartition, first: int, end: int, default_topic: str
) -> dict[bytes, list[Origin]]:
    keys: dict[bytes, list[Origin]] = {}
    reader = clients.consumer(None)
    silent = 0
    try:
        reader.assign({partition: first})
        while silent < SILENCE:
            messages = reader.poll(10_000, 1.0)
            for message in messages:
                key = message.key()
                if key is not None and message.offset() < end:
                    keys.setdefault(key, []).append(Origin.of(Retried(message, default_topic)))
                if message.offset() + 1 >= end:
                    return keys
            if reader.ends_reached().get(partition, -1) >= end:
                return keys
            silent = 0 if messages else silent + 1
    finally:
        reader.close()
    raise Unreachable(f"{partition}: nothing came for {SILENCE} s before offset {end} was reached")
