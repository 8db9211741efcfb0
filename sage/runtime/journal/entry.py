"""One journaled result on the wire: one or several records, with headers that say whose it is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final, NamedTuple

from sage.model.identity import SAGE_ID
from sage.model.record import Headers
from sage.ports import RawMessage

CHUNK: Final = 900_000
"""Bytes of a result per record, below the brokers' usual limit of a million."""

NAME, HASH, OCCURRENCE = "sage.call", "sage.call.hash", "sage.call.occurrence"
PART: Final = "sage.call.part"
"""``i/n``: which of how many records of this result."""
WRITE: Final = "sage.call.write"
"""Drawn for each writing of a result, so that parts written by two owners, or twice by one, are never mixed."""
PLACE: Final = "sage.call.place"
"""``topic:partition:offset`` of the record for which the call was made; absent for a timer."""

TRACE: Final = frozenset({"traceparent", "tracestate"})
TRACE_BYTES: Final = 1_024
"""Of one such header at most: twice what W3C asks for. A stranger's must not make a record too large for the topic."""


class Place(NamedTuple):
    """Where a record was first read."""

    topic: str
    partition: int
    offset: int


class CallKey(NamedTuple):
    """What a result belongs to (the step is the journal's own)."""

    record_id: str
    name: str
    arguments: str
    occurrence: int


class Stored(NamedTuple):
    """A result as it stands in the journal, from the offset ``first`` to ``last``."""

    key: CallKey
    place: Place | None
    data: bytes | None
    first: int
    last: int


Chunk = tuple[bytes, list[tuple[str, bytes | None]]]


def chunks(key: CallKey, place: Place | None, data: bytes, came: Headers = (), size: int = CHUNK) -> Iterator[Chunk]:
    """Value and headers of each record that a result becomes.

    Args:
        came: the record's headers, whose trace goes along.
        size: bytes per record at most.
    """
    count = max(1, -(-len(data) // size))
    common = [
        *((name, value) for name, value in came if name in TRACE and len(value or b"") <= TRACE_BYTES),
        (NAME, key.name.encode()),
        (HASH, key.arguments.encode()),
        (OCCURRENCE, b"%d" % key.occurrence),
        (WRITE, os.urandom(6).hex().encode()),
        *([] if place is None else [(PLACE, f"{place.topic}:{place.partition}:{place.offset}".encode())]),
        (SAGE_ID, key.record_id.encode()),
    ]
    for number in range(count):
        yield data[number * size : (number + 1) * size], [*common, (PART, b"%d/%d" % (number, count))]


class _Half(NamedTuple):
    first: int
    parts: list[bytes]


class Assembly:
    """Puts the records of one journal partition, given in order, together to results.

    A sequence that a crash cut off never becomes one.
    """

    def __init__(self) -> None:
        self._halves: dict[tuple[CallKey, str], _Half] = {}

    def add(self, message: RawMessage) -> Stored | None:
        """Take the next record; the result that it completes. What no SAGE wrote is passed over."""
        found = {name: (value or b"").decode(errors="replace") for name, value in message.headers() or ()}
        number, _, count = found.get(PART, "").partition("/")
        occurrence = found.get(OCCURRENCE, "")
        if not (number.isdecimal() and count.isdecimal() and occurrence.isdecimal() and SAGE_ID in found):
            return None
        key = CallKey(found[SAGE_ID], found.get(NAME, ""), found.get(HASH, ""), int(occurrence))
        writing = (key, found.get(WRITE, ""))
        half = self._halves.setdefault(writing, _Half(message.offset(), []))
        if len(half.parts) != int(number):  # a part before it is missing, for good
            del self._halves[writing]
            return None
        half.parts.append(message.value() or b"")
        if len(half.parts) < int(count):
            return None
        del self._halves[writing]
        return Stored(key, _place(found.get(PLACE)), b"".join(half.parts), half.first, message.offset())


def _place(text: str | None) -> Place | None:
    topic, partition, offset = (text or "").rsplit(":", 2) if text and text.count(":") >= 2 else ("", "", "")
    if not (partition.isdecimal() and offset.isdecimal()):
        return None
    return Place(topic, int(partition), int(offset))


def place_of(message: RawMessage) -> Place:
    """Where a record was first read: for a retried one, as its step sees it, its place in the input."""
    return Place(message.topic(), message.partition(), message.offset())
