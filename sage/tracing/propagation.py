"""W3C Trace Context as Kafka headers, cheap enough for every record.

Nothing here imports OpenTelemetry: most records are not sampled, and for them one look at one byte is all.
"""

from __future__ import annotations

import os
import random
from collections.abc import Mapping
from dataclasses import dataclass

from sage.model.record import Headers
from sage.tracing.names import TRACEPARENT

_SAMPLED = b"13579bdf"
"""The last hex digits of the flags that have the sampled bit."""

_LENGTH = len(b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
_LAST_FLAG = _LENGTH - 1

_random = random.Random()
os.register_at_fork(after_in_child=_random.seed)  # two workers must not draw the same trace ids


def traceparent_of(headers: Headers) -> bytes | None:
    """The record's traceparent; the last one, which is the newest, where a forwarder left several."""
    for name, value in reversed(headers):
        if name == TRACEPARENT:
            return value
    return None


def is_sampled(traceparent: bytes) -> bool:
    """Whether the sampled bit is set. Does not check the rest: a malformed one is found when a span is made."""
    return len(traceparent) >= _LENGTH and traceparent[_LAST_FLAG] in _SAMPLED


def new_traceparent(*, sampled: bool) -> bytes:
    """The traceparent of a new trace."""
    bits = _random.getrandbits(192) | 1  # the low bit keeps both ids, of which all zeros is invalid, from being so
    digits = b"%048x" % (bits | 1 << 64)
    return b"00-" + digits[:32] + b"-" + digits[32:] + (b"-01" if sampled else b"-00")


@dataclass(frozen=True, slots=True)
class Sampling:
    """Which records get spans, decided before anything is built.

    Attributes:
        ratio: of new traces, 0 to 1.
        follows_parent: a record that carries a context keeps its decision (the ``parentbased_`` samplers).
    """

    ratio: float = 1.0
    follows_parent: bool = True

    @classmethod
    def from_environ(cls, environ: Mapping[str, str], *, default: float) -> Sampling:
        """As ``OTEL_TRACES_SAMPLER`` and ``OTEL_TRACES_SAMPLER_ARG`` say; ``default`` is the ratio without them."""
        name = environ.get("OTEL_TRACES_SAMPLER", "").strip().lower()
        kind = name.removeprefix("parentbased_")
        follows = not name or name.startswith("parentbased_")
        if kind == "always_on":
            return cls(1.0, follows)
        if kind == "always_off":
            return cls(0.0, follows)
        if kind == "traceidratio":
            return cls(_ratio(environ.get("OTEL_TRACES_SAMPLER_ARG", "")), follows)
        return cls(default)

    def root(self) -> bool:
        """Whether a new trace is sampled."""
        return self.ratio >= 1.0 or (self.ratio > 0.0 and _random.random() < self.ratio)

    def wanted(self, traceparent: bytes | None) -> bool:
        """Whether a record with this traceparent gets a span."""
        if traceparent is None:
            return self.root()
        if self.follows_parent:
            return is_sampled(traceparent)
        return self.ratio >= 1.0 or (self.ratio > 0.0 and _share(traceparent) < self.ratio)


def _ratio(text: str) -> float:
    try:
        ratio = float(text)
    except ValueError:
        return 1.0  # as the specification has it for a missing or unreadable argument
    return ratio if 0.0 <= ratio <= 1.0 else 1.0


def _share(traceparent: bytes) -> float:
    """Where the trace id stands between 0 and 1, by its low 64 bits, as OpenTelemetry's ratio sampler takes it."""
    try:
        return int(traceparent[19:35], 16) / (1 << 64)
    except ValueError:
        return 0.0
