"""Messages as a consumer gives them."""

from __future__ import annotations

from typing import Any

import orjson

from sage.model.record import Headers
from sage.testing.broker import InMemoryMessage

TOPIC = "t.in"


def message(
    value: Any = None,
    *,
    offset: int = 0,
    key: bytes | None = None,
    headers: Headers | None = None,
    topic: str = TOPIC,
    partition: int = 0,
    timestamp: int = 1_000,
    raw: bytes | None = None,
) -> InMemoryMessage:
    """A message whose value is ``value`` as JSON (a ``None`` is Kafka's null), or the bytes ``raw``."""
    data = raw if raw is not None else None if value is None else orjson.dumps(value)
    return InMemoryMessage(topic, partition, offset, key=key, value=data, headers=headers, timestamp=timestamp)
