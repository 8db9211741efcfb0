"""A record as components see it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T_co = TypeVar("T_co", covariant=True)

Headers = Sequence[tuple[str, bytes | None]]
"""Kafka headers: ordered, doubles allowed, values may be empty or null."""


@dataclass(frozen=True, slots=True)
class Record(Generic[T_co]):
    """One record: a value with what Kafka knows of it.

    Attributes:
        value: the decoded value; ``None`` is Kafka's null.
        key: the key's bytes as on the wire, or text that becomes UTF-8; ``None`` is no key.
        headers: in order, as they came.
        timestamp: milliseconds since the epoch; ``None`` lets the broker's clock decide.
        id: the record's identity (header ``sage.id``); sinks are idempotent by it. Empty in what a
            source yields: the runtime sets it.
        topic, partition, offset: where it was read; empty or -1 in what a source yields.
    """

    value: T_co
    key: bytes | str | None = None
    headers: Headers = field(default=())
    timestamp: int | None = None
    id: str = ""
    topic: str = ""
    partition: int = -1
    offset: int = -1
