"""What is kept for one key, as changelog and store hold it: its state, its timers, and when it last changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from sage.errors import StageStopped
from sage.runtime.steps.codec import json_default

PLAIN_START = b'{"s":'
"""How an entry without timers begins; without a ttl its state is all there is in it."""

_WITH_TIMERS = b'{"t":'
"""How an entry with timers begins, so that one without is known by its first bytes."""


@dataclass(slots=True)
class Envelope:
    """One key's entry: one compact JSON object ``{"t": timers, "s": state, "c": changed}``.

    Attributes:
        state: JSON; ``None`` where there is none.
        timers: name to time, in milliseconds since the epoch.
        changed: milliseconds since the epoch of the last change; kept only where a ttl needs it.
    """

    state: Any = None
    timers: dict[str, int] = field(default_factory=dict)
    changed: int | None = None

    def encode(self) -> bytes | None:
        """The entry; ``None`` where nothing is left to keep. Raises TypeError for what has no JSON form."""
        fields: dict[str, Any] = {}
        if self.timers:
            fields["t"] = self.timers
        elif self.state is None:
            return None
        fields["s"] = self.state
        if self.changed is not None:
            fields["c"] = self.changed
        return orjson.dumps(fields, json_default)

    @classmethod
    def decode(cls, data: bytes) -> Envelope:
        """Raises StageStopped for what no SAGE wrote."""
        try:
            fields = orjson.loads(data)
            return cls(fields["s"], fields.get("t") or {}, fields.get("c"))
        except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            raise StageStopped(
                f"this is no key's state: {data[:80]!r}; only SAGE may write to a changelog topic: delete the record "
                "with a null value for its key"
            ) from error

    def is_expired(self, now_ms: int, ttl: float | None) -> bool:
        """Whether ``ttl`` seconds have gone since the last change."""
        return ttl is not None and self.changed is not None and now_ms - self.changed > ttl * 1000


def timers_of(data: bytes | None) -> Mapping[str, int]:
    """The timers of an entry; cheap where it has none."""
    return Envelope.decode(data).timers if data is not None and data.startswith(_WITH_TIMERS) else {}
