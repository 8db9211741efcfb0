"""What tests of traces share: a message, a tracer that keeps its spans, and a look at them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from sage.ports import Tracer
from sage.tracing import build_tracer


@dataclass(frozen=True)
class Message:
    """A ``RawMessage`` with what a test gives it."""

    in_headers: Sequence[tuple[str, bytes | None]] = ()
    in_value: bytes | None = b"{}"
    in_key: bytes | None = None
    in_topic: str = "qa.retrieve"
    in_partition: int = 3
    in_offset: int = 42

    def topic(self) -> str:
        return self.in_topic

    def partition(self) -> int:
        return self.in_partition

    def offset(self) -> int:
        return self.in_offset

    def key(self) -> bytes | None:
        return self.in_key

    def value(self) -> bytes | None:
        return self.in_value

    def headers(self) -> list[tuple[str, bytes | None]] | None:
        return list(self.in_headers) or None

    def timestamp(self) -> tuple[int, int]:
        return (1, 1_700_000_000_000)


class Recorded:
    """A tracer and the spans it ended."""

    def __init__(self, **environ: str) -> None:
        self._exporter = InMemorySpanExporter()
        self.tracer: Tracer = build_tracer(environ, exporter=self._exporter)

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        return self._exporter.get_finished_spans()

    @property
    def names(self) -> list[str]:
        return [span.name for span in self.spans]

    def span(self, name: str) -> ReadableSpan:
        (found,) = [span for span in self.spans if span.name == name]
        return found


def is_child(child: ReadableSpan, parent: ReadableSpan) -> bool:
    return child.parent is not None and (child.parent.trace_id, child.parent.span_id) == (
        parent.context.trace_id,
        parent.context.span_id,
    )
