"""What every tracer promises to the runtime, with and without an exporter."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from sage.ports import Tracer
from sage.tracing import build_tracer
from sage.tracing.propagation import new_traceparent, traceparent_of
from tests.unit.tracing.spans import Message

TRACERS: dict[str, Callable[[], Tracer]] = {
    "idle": lambda: build_tracer({}),
    "live": lambda: build_tracer({}, exporter=InMemorySpanExporter()),
    "live at one percent": lambda: build_tracer(
        {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.01"},
        exporter=InMemorySpanExporter(),
    ),
}


@pytest.fixture(params=TRACERS)
def tracer(request: pytest.FixtureRequest) -> Tracer:
    return TRACERS[request.param]()


HEADERS: Sequence[Sequence[tuple[str, bytes | None]]] = (
    [],
    [("traceparent", None)],
    [("traceparent", b"")],
    [("traceparent", b"\xff\xfe")],
    [("traceparent", new_traceparent(sampled=False)), ("baggage", b"\xff"), ("tracestate", b"===")],
    [("traceparent", new_traceparent(sampled=True)), ("other", None)],
)


@pytest.mark.parametrize("headers", HEADERS)
def test_no_header_makes_it_raise(tracer: Tracer, headers: Sequence[tuple[str, bytes | None]]) -> None:
    message = Message(headers)
    assert tracer.sampled(headers) in {True, False}
    span = tracer.process("t", message, group="g", step="s")
    inner = tracer.step("inner", span)
    sending, out = tracer.send("u", span)
    assert all(isinstance(value, bytes) for _, value in out)
    for each in (sending, inner, span, span):
        each.set("n", 1)
        each.fail(ValueError("x"))
        each.end()
    tracer.flush(1.0)


def test_a_new_record_always_gets_a_valid_context(tracer: Tracer) -> None:
    for headers in (tracer.start_root(), tracer.send("t", None)[1]):
        traceparent = traceparent_of(headers)
        assert traceparent is not None
        assert len(traceparent) == 55
        assert traceparent[3:35] != b"0" * 32


def test_an_idle_tracer_samples_nothing_and_a_live_one_keeps_the_records_decision(tracer: Tracer) -> None:
    sampled, unsampled = ([("traceparent", new_traceparent(sampled=each))] for each in (True, False))
    assert tracer.sampled(sampled) == tracer.active
    assert not tracer.sampled(unsampled)
