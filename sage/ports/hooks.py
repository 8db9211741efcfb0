"""Time and traces."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Protocol

from sage.model.record import Headers
from sage.ports.kafka import RawMessage


class Clock(Protocol):
    """Time, so that tests can turn it by hand."""

    def monotonic(self) -> float: ...
    def now_ms(self) -> int:
        """Milliseconds since the epoch."""
        ...

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Wait until ``event`` is set, at most ``seconds``; returns whether it is."""
        ...


class Span(Protocol):
    """A started span. Every method is safe when tracing is off."""

    def set(self, name: str, value: str | int | float | bool) -> None: ...
    def fail(self, error: BaseException) -> None: ...
    def end(self) -> None: ...


class Tracer(Protocol):
    """Spans around records. Telemetry never stops a record: no method raises."""

    @property
    def active(self) -> bool:
        """Whether an exporter is configured; when false no span is ever made."""
        ...

    def sampled(self, headers: Headers) -> bool:
        """Whether the record's own traceparent has the sampled bit."""
        ...

    def start_root(self) -> list[tuple[str, bytes]]:
        """W3C headers of a new trace for a record that a source yields (made even when nothing exports).

        Where the trace is sampled its root span, ``create``, is made and ended here.
        """
        ...

    def process(self, topic: str, message: RawMessage, *, group: str, step: str) -> Span:
        """``process TOPIC``, CONSUMER, child of the span in the message's headers; current until ended."""
        ...

    def step(self, name: str, parent: Span) -> Span:
        """An INTERNAL child for a fused step."""
        ...

    def send(self, topic: str, parent: Span | None) -> tuple[Span, list[tuple[str, bytes]]]:
        """``send TOPIC``, PRODUCER; with the W3C headers that the produced record carries."""
        ...

    def poll(self, topic: str, messages: Sequence[RawMessage], *, group: str, started: int) -> None:
        """``poll TOPIC``, CLIENT, from ``started`` (nanoseconds since the epoch), linked to its sampled records."""
        ...

    def commit(self, topic: str, parent: Span | None, *, group: str) -> Span:
        """``commit TOPIC``, CLIENT, child of the work on a record that it commits; to be ended."""
        ...

    def flush(self, timeout: float) -> None:
        """Wait for spans to be exported, at most ``timeout`` seconds."""
        ...

    def close(self, timeout: float = 1.0) -> None:
        """Export what there is within ``timeout`` seconds and release the exporter; idempotent."""
        ...
