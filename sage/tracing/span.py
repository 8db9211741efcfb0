"""A started OpenTelemetry span, and which context is the current one while it lasts."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING

from opentelemetry import context as contexts
from opentelemetry.context import Context
from opentelemetry.trace import Link, StatusCode, get_current_span
from opentelemetry.trace import Span as OtelSpan

from sage.model.secrets import hide_secrets
from sage.tracing import names
from sage.tracing.quiet import quietly

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer as OtelTracer

TRACER = contexts.create_key("sage-tracer")
"""Where the context holds the tracer, for spans of model calls inside a step; no global state is needed."""

_OPEN = contexts.create_key("sage-open-spans")
_LIVE = contexts.create_key("sage-live-span")


class LiveSpan:
    """Implements ``sage.ports.Span``.

    Args:
        span: started.
        context: the context that children start from, with ``span`` in it.
        current: whether it is the current one of this thread or task from now until ``end``.
    """

    __slots__ = ("_current", "_previous", "_span", "context")

    def __init__(self, span: OtelSpan, context: Context, *, current: bool) -> None:
        self._span = span
        self._current = current
        self._previous: Context | None = None
        self.context = context
        if current:
            self._previous = _before_ended(contexts.get_current())
            contexts.attach(contexts.set_value(_LIVE, self, _among_open(self._previous, context, span)))

    @property
    def link(self) -> Link:
        """A link to this span."""
        return Link(self._span.get_span_context())

    @quietly
    def set(self, name: str, value: str | int | float | bool) -> None:
        """Add an attribute."""
        self._span.set_attribute(name, value)

    @quietly
    def fail(self, error: BaseException) -> None:
        """Mark the span as failed by ``error``."""
        record_failure(self._span, error)

    @quietly
    def end(self) -> None:
        """End it, and make the context current again that was so before. Further calls do nothing."""
        if self._span.is_recording():
            self._span.end()
        if self._current:
            self._current = False
            if get_current_span() is self._span and self._previous is not None:
                # By attaching what was there, not by the token: a token is of no use in another task than its own.
                contexts.attach(_before_ended(self._previous))


def _before_ended(context: Context) -> Context:
    """``context``, or the last one before it whose span still lasts: spans may end in any order, in any task."""
    while isinstance(live := contexts.get_value(_LIVE, context), LiveSpan) and not live._current:
        assert live._previous is not None
        context = live._previous
    return context


def record_failure(span: OtelSpan, error: BaseException) -> None:
    """Set status, type and event of an exception; secrets that it quotes are hidden."""
    message, trace = hide_secrets(str(error)), hide_secrets("".join(traceback.format_exception(error)))
    span.set_attribute(names.ERROR_TYPE, type(error).__qualname__)
    span.set_status(StatusCode.ERROR, message)
    span.record_exception(error, {names.EXCEPTION_MESSAGE: message, names.EXCEPTION_STACKTRACE: trace})


def current_tracer() -> OtelTracer | None:
    """The tracer of the step that runs here, if its record is traced."""
    tracer: OtelTracer | None = contexts.get_value(TRACER)  # type: ignore[assignment]
    return tracer


def links_to_other_records() -> list[Link]:
    """Links to the records of a micro-batch beside the one whose span is current."""
    mine = get_current_span()
    spans: tuple[OtelSpan, ...] = contexts.get_value(_OPEN) or ()  # type: ignore[assignment]
    return [Link(each.get_span_context()) for each in spans if each is not mine and each.is_recording()]


def _among_open(previous: Context, context: Context, span: OtelSpan) -> Context:
    already: tuple[OtelSpan, ...] = contexts.get_value(_OPEN, previous) or ()  # type: ignore[assignment]
    still = tuple(each for each in already if each.is_recording())
    return contexts.set_value(_OPEN, (*still, span), context)
