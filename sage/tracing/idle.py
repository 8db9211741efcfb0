"""The tracer without an exporter: it keeps contexts going and makes no span."""

from __future__ import annotations

from collections.abc import Sequence

from sage.model.record import Headers
from sage.ports import RawMessage, Span
from sage.tracing.names import TRACEPARENT
from sage.tracing.propagation import Sampling, new_traceparent


class NoSpan:
    """A span that nobody will see."""

    __slots__ = ()

    def set(self, name: str, value: str | int | float | bool) -> None:
        """Nothing."""

    def fail(self, error: BaseException) -> None:
        """Nothing."""

    def end(self) -> None:
        """Nothing."""


NO_SPAN = NoSpan()


class IdleTracer:
    """Implements ``sage.ports.Tracer`` for a process that exports nothing.

    Args:
        sampling: what ``start_root`` writes into new contexts, for processes downstream that do export.
    """

    active = False

    def __init__(self, sampling: Sampling | None = None) -> None:
        self._sampling = sampling or Sampling(0.0)

    def sampled(self, headers: Headers) -> bool:
        """False: no record gets a span here."""
        del headers
        return False

    def start_root(self) -> list[tuple[str, bytes]]:
        """A new context."""
        return [(TRACEPARENT, new_traceparent(sampled=self._sampling.root()))]

    def process(self, topic: str, message: RawMessage, *, group: str, step: str) -> Span:
        """No span."""
        del topic, message, group, step
        return NO_SPAN

    def step(self, name: str, parent: Span) -> Span:
        """No span."""
        del name, parent
        return NO_SPAN

    def send(self, topic: str, parent: Span | None) -> tuple[Span, list[tuple[str, bytes]]]:
        """No span; a new context for a record that has no parent, else none: the record keeps its own."""
        del topic
        return NO_SPAN, self.start_root() if parent is None else []

    def poll(self, topic: str, messages: Sequence[RawMessage], *, group: str, started: int) -> None:
        """Nothing."""

    def commit(self, topic: str, parent: Span | None, *, group: str) -> Span:
        """No span."""
        del topic, parent, group
        return NO_SPAN

    def flush(self, timeout: float) -> None:
        """Nothing is waiting."""

    def close(self, timeout: float = 1.0) -> None:
        """Nothing to release."""
