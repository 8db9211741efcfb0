"""The tracer with an exporter: spans around the records whose trace is sampled."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from opentelemetry import context as contexts
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.trace import Link, SpanKind, get_current_span, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from sage.model.identity import SAGE_ID
from sage.model.keys import decode_key
from sage.model.record import Headers
from sage.ports import RawMessage, Span
from sage.tracing import names
from sage.tracing.idle import NO_SPAN
from sage.tracing.propagation import Sampling, is_sampled, new_traceparent, traceparent_of
from sage.tracing.quiet import quietly, report
from sage.tracing.sampler import SAMPLED_ALREADY
from sage.tracing.span import TRACER, LiveSpan

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer as OtelTracer

_W3C = CompositePropagator([TraceContextTextMapPropagator(), W3CBaggagePropagator()])
_PROPAGATED = frozenset({names.TRACEPARENT, names.TRACESTATE, names.BAGGAGE})
_KIND = {"process": SpanKind.CONSUMER, "send": SpanKind.PRODUCER, "receive": SpanKind.CLIENT, "settle": SpanKind.CLIENT}


class LiveTracer:
    """Implements ``sage.ports.Tracer`` over an OpenTelemetry tracer.

    Args:
        tracer: of the configured provider.
        sampling: decides for each record before anything is built.
        flush: waits so many seconds at most for spans to be exported.
        close: flushes for so many seconds at most and releases the exporter.
    """

    active = True

    def __init__(
        self,
        tracer: OtelTracer,
        sampling: Sampling,
        *,
        flush: Callable[[float], None] = lambda timeout: None,
        close: Callable[[float], None] = lambda timeout: None,
    ) -> None:
        self._tracer = tracer
        self._sampling = sampling
        self._follows_parent = sampling.follows_parent
        self._flush = flush
        self._close = close

    def sampled(self, headers: Headers) -> bool:
        """Whether the record gets a span: its traceparent's sampled bit, or a draw where it has none.

        Ask once a record: a record without a context may be drawn differently the next time.
        """
        traceparent = traceparent_of(headers)
        if traceparent is not None and self._follows_parent:
            return is_sampled(traceparent)  # the way of nearly every record, so it is short
        return self._sampling.wanted(traceparent)

    def start_root(self) -> list[tuple[str, bytes]]:
        """A new context; where it is sampled, with ``create``, PRODUCER, as the root span that later ones hang on."""
        if not self._sampling.root():
            return [(names.TRACEPARENT, new_traceparent(sampled=False))]
        try:
            attributes = {
                names.MESSAGING_SYSTEM: names.KAFKA,
                names.OPERATION_NAME: names.CREATE,
                names.OPERATION_TYPE: names.CREATE,
            }
            root = self._root(Context())
            span = self._tracer.start_span(names.CREATE, root, SpanKind.PRODUCER, attributes)
            span.end()
            return _injected(set_span_in_context(span, root))
        except Exception as error:
            report(error)
            return [(names.TRACEPARENT, new_traceparent(sampled=False))]

    def process(self, topic: str, message: RawMessage, *, group: str, step: str) -> Span:
        """``process TOPIC``, CONSUMER, child of the span in the message's headers, or the root of a new trace."""
        try:
            headers = message.headers() or ()
            attributes = {**_message_attributes(message, headers), names.GROUP: group, names.STEP: step}
            return self._start(
                names.process_span(topic), "process", topic, _extracted(headers), attributes, current=True
            )
        except Exception as error:
            report(error)
            return NO_SPAN

    def step(self, name: str, parent: Span) -> Span:
        """An INTERNAL child for a fused step; current until ended."""
        if not isinstance(parent, LiveSpan):
            return NO_SPAN
        try:
            span = self._tracer.start_span(name, parent.context, SpanKind.INTERNAL, {names.STEP: name})
            return LiveSpan(span, set_span_in_context(span, parent.context), current=True)
        except Exception as error:
            report(error)
            return NO_SPAN

    def send(self, topic: str, parent: Span | None) -> tuple[Span, list[tuple[str, bytes]]]:
        """``send TOPIC``, PRODUCER, with the W3C headers that the produced record carries.

        Without a parent the trace begins here, sampled or not. No headers are given for a parent that is no span:
        the record keeps those it has.
        """
        if parent is None and not self._sampling.root():
            return NO_SPAN, [(names.TRACEPARENT, new_traceparent(sampled=False))]
        if parent is not None and not isinstance(parent, LiveSpan):
            return NO_SPAN, []
        try:
            context = Context() if parent is None else parent.context
            span = self._start(names.send_span(topic), "send", topic, context, {}, current=False)
            return span, _injected(span.context)
        except Exception as error:
            report(error)
            return NO_SPAN, self.start_root() if parent is None else []

    @quietly
    def poll(self, topic: str, messages: Sequence[RawMessage], *, group: str, started: int) -> None:
        """``poll TOPIC``, CLIENT, from ``started`` (nanoseconds since the epoch) until now.

        It is linked to each sampled record of the batch; a batch without one has no span.
        """
        links = [link for message in messages if (link := self._link(message.headers() or ())) is not None]
        if not links:
            return
        attributes = {**_operation("poll", "receive", topic), names.GROUP: group, names.BATCH_COUNT: len(messages)}
        span = self._tracer.start_span(
            names.poll_span(topic), self._root(Context()), SpanKind.CLIENT, attributes, links, start_time=started
        )
        span.end(time.time_ns())

    def commit(self, topic: str, parent: Span | None, *, group: str) -> Span:
        """``commit TOPIC``, CLIENT, child of ``parent``, one of the records that it commits; to be ended."""
        if not isinstance(parent, LiveSpan):
            return NO_SPAN
        try:
            return self._start(
                names.commit_span(topic), "settle", topic, parent.context, {names.GROUP: group}, current=False
            )
        except Exception as error:
            report(error)
            return NO_SPAN

    @quietly
    def flush(self, timeout: float) -> None:
        """Wait for spans to be exported, at most ``timeout`` seconds."""
        self._flush(timeout)

    @quietly
    def close(self, timeout: float = 1.0) -> None:
        """Export what there is within ``timeout`` seconds and release the exporter."""
        self._close(timeout)

    def _start(
        self, name: str, kind: str, topic: str, context: Context, attributes: dict[str, Any], *, current: bool
    ) -> LiveSpan:
        attributes |= _operation(name.partition(" ")[0], kind, topic)
        span = self._tracer.start_span(name, self._root(context), _KIND[kind], attributes)
        inner = contexts.set_value(TRACER, self._tracer, set_span_in_context(span, context))
        return LiveSpan(span, inner, current=current)

    def _root(self, context: Context) -> Context:
        """``context``, marked as drawn already where it has no parent."""
        if get_current_span(context).get_span_context().is_valid:
            return context
        return contexts.set_value(SAMPLED_ALREADY, True, context)

    def _link(self, headers: Headers) -> Link | None:
        traceparent = traceparent_of(headers)
        if traceparent is None or not self._sampling.wanted(traceparent):
            return None
        remote = get_current_span(_extracted(headers)).get_span_context()
        return Link(remote) if remote.is_valid else None


def _operation(name: str, kind: str, topic: str) -> dict[str, Any]:
    return {
        names.MESSAGING_SYSTEM: names.KAFKA,
        names.OPERATION_NAME: name,
        names.OPERATION_TYPE: kind,
        names.DESTINATION: topic,
    }


def _message_attributes(message: RawMessage, headers: Headers) -> dict[str, Any]:
    value, key = message.value(), decode_key(message.key())
    attributes: dict[str, Any] = {names.PARTITION: str(message.partition()), names.OFFSET: message.offset()}
    if value is None:
        attributes[names.TOMBSTONE] = True
    else:
        attributes[names.BODY_SIZE] = len(value)
    if isinstance(key, str):  # a key that is not text would only be noise
        attributes[names.MESSAGE_KEY] = key
    record_id = next((value for name, value in reversed(headers) if name == SAGE_ID), None)
    if record_id is not None:
        attributes[names.RECORD_ID] = record_id.decode("utf-8", "replace")
    return attributes


def _extracted(headers: Headers) -> Context:
    carrier = {name: value.decode("latin-1") for name, value in headers if name in _PROPAGATED and value is not None}
    return _W3C.extract(carrier, Context())


def _injected(context: Context) -> list[tuple[str, bytes]]:
    carrier: dict[str, str] = {}
    _W3C.inject(carrier, context)
    return [(name, value.encode("latin-1", "replace")) for name, value in carrier.items()]
