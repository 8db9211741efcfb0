import asyncio
import logging
import time
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import SpanKind, get_current_span

from sage.tracing import NO_SPAN, build_tracer, names
from sage.tracing.propagation import is_sampled, new_traceparent, traceparent_of
from tests.unit.tracing.spans import Message, Recorded, is_child


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def test_one_trace_goes_through_all_stages() -> None:
    recorded = Recorded()
    tracer = recorded.tracer
    sent, headers = tracer.send("qa.questions", None)
    sent.end()
    for topic, outgoing in (("qa.questions", "qa.retrieve"), ("qa.retrieve", "qa.answers")):
        message = Message([*headers, ("sage.id", b"e:q:1")], in_topic=topic)
        assert tracer.sampled(message.headers() or ())
        work = tracer.process(topic, message, group=f"g-{topic}", step="retrieve")
        inner = tracer.step("clean", work)
        inner.end()
        sent, headers = tracer.send(outgoing, work)
        sent.end()
        work.end()
    assert len({span.context.trace_id for span in recorded.spans}) == 1
    first = recorded.span("send qa.questions")
    assert first.parent is None
    assert is_child(recorded.span("process qa.questions"), first)
    assert is_child(recorded.span("send qa.retrieve"), recorded.span("process qa.questions"))
    assert is_child(recorded.span("process qa.retrieve"), recorded.span("send qa.retrieve"))
    assert is_child(recorded.span("send qa.answers"), recorded.span("process qa.retrieve"))
    assert {
        is_child(span, recorded.span("process qa.questions")) for span in recorded.spans if span.name == "clean"
    } == {True, False}
    assert [span.kind for span in recorded.spans[:4]] == [
        SpanKind.PRODUCER, SpanKind.INTERNAL, SpanKind.PRODUCER, SpanKind.CONSUMER,
    ]  # fmt: skip


def test_a_new_record_of_a_source_has_a_root_span_where_it_is_sampled() -> None:
    recorded = Recorded(OTEL_TRACES_SAMPLER="parentbased_traceidratio", OTEL_TRACES_SAMPLER_ARG="0.1")
    contexts = [dict(recorded.tracer.start_root())["traceparent"] for _ in range(2000)]
    sampled = [each for each in contexts if is_sampled(each)]
    assert 140 < len(sampled) < 270
    assert [f"{span.context.trace_id:032x}-{span.context.span_id:016x}".encode() for span in recorded.spans] == [
        each[3:52] for each in sampled
    ]
    assert {(span.name, span.kind, span.parent) for span in recorded.spans} == {("create", SpanKind.PRODUCER, None)}


def test_spans_have_the_names_of_the_conventions() -> None:
    recorded = Recorded()
    headers = [("traceparent", new_traceparent(sampled=True)), ("sage.id", b"topic:0:1")]
    span = recorded.tracer.process(
        "qa.q", Message(headers, in_value=b"12345", in_key="键".encode()), group="qa.r", step="r"
    )
    span.end()
    (ended,) = recorded.spans
    assert ended.kind is SpanKind.CONSUMER
    assert attributes(ended) == {
        "messaging.system.name": "kafka",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "qa.q",
        "messaging.destination.partition.id": "3",
        "messaging.consumer.group.name": "qa.r",
        "messaging.message.body.size": 5,
        "kafka.offset": 42,
        "kafka.message.key": "键",
        "sage.step": "r",
        "sage.record.id": "topic:0:1",
    }
    assert ended.instrumentation_scope is not None
    assert ended.instrumentation_scope.schema_url == "https://opentelemetry.io/schemas/1.45.0"


def test_a_null_value_is_a_tombstone_and_a_key_of_bytes_is_left_out() -> None:
    recorded = Recorded()
    recorded.tracer.process("t", Message(in_value=None, in_key=b"\xff"), group="g", step="s").end()
    (ended,) = recorded.spans
    assert attributes(ended)["kafka.message.tombstone"] is True
    assert names.MESSAGE_KEY not in attributes(ended)
    assert names.BODY_SIZE not in attributes(ended)


def test_tracestate_and_baggage_travel_on() -> None:
    recorded = Recorded()
    headers = [
        ("traceparent", new_traceparent(sampled=True)),
        ("tracestate", b"vendor=1"),
        ("baggage", b"user=%E4%B8%80"),
    ]
    work = recorded.tracer.process("t", Message(headers), group="g", step="s")
    _, out = recorded.tracer.send("u", work)
    work.end()
    assert dict(out)["tracestate"] == b"vendor=1"
    assert dict(out)["baggage"] == b"user=%E4%B8%80"
    assert is_sampled(dict(out)["traceparent"])


def test_a_span_is_current_until_it_ends_also_when_several_are_open() -> None:
    tracer = Recorded().tracer
    before = get_current_span()
    one = tracer.process("t", Message(), group="g", step="s")
    two = tracer.process("t", Message(), group="g", step="s")
    assert get_current_span() is not before
    two.end()
    two.end()
    one.end()
    assert get_current_span() is before


def test_spans_ended_in_another_order_leave_nothing_current() -> None:
    recorded = Recorded()
    before = get_current_span()
    one = recorded.tracer.process("t", Message(), group="g", step="s")
    two = recorded.tracer.process("t", Message(), group="g", step="s")
    one.end()
    two.end()
    assert get_current_span() is before
    assert len(recorded.spans) == 2


async def test_a_span_ended_in_another_task_is_forgotten_by_the_next_one() -> None:
    tracer = Recorded().tracer
    before = get_current_span()
    for _ in range(3):
        span = tracer.process("t", Message(), group="g", step="s")
        await asyncio.create_task(asyncio.to_thread(span.end))
        assert not get_current_span().is_recording()
    last = tracer.process("t", Message(), group="g", step="s")
    last.end()
    assert get_current_span() is before


def test_a_failure_is_on_the_span() -> None:
    recorded = Recorded()
    span = recorded.tracer.process("t", Message(), group="g", step="s")
    span.set("sage.attempts", 3)
    span.fail(KeyError("documents"))
    span.end()
    (ended,) = recorded.spans
    assert attributes(ended)["error.type"] == "KeyError"
    assert attributes(ended)["sage.attempts"] == 3
    assert not ended.status.is_ok
    assert ended.events[0].name == "exception"


def test_a_poll_links_to_its_sampled_records() -> None:
    recorded = Recorded()
    contexts = [new_traceparent(sampled=sampled) for sampled in (True, False, True)]
    tracer = recorded.tracer
    started = time.time_ns() - 1_000_000
    tracer.poll("t", [Message([("traceparent", each)]) for each in contexts], group="g", started=started)
    tracer.poll("t", [Message([("traceparent", contexts[1])])], group="g", started=started)
    (ended,) = recorded.spans
    assert ended.name == "poll t"
    assert ended.kind is SpanKind.CLIENT
    assert [f"{link.context.trace_id:032x}".encode() for link in ended.links] == [contexts[0][3:35], contexts[2][3:35]]
    assert attributes(ended)["messaging.batch.message_count"] == 3
    assert attributes(ended)["messaging.operation.type"] == "receive"
    assert ended.start_time == started


def test_a_commit_is_a_child_of_the_work_that_it_commits() -> None:
    recorded = Recorded()
    tracer = recorded.tracer
    work = tracer.process("t", Message(), group="g", step="s")
    work.end()
    tracer.commit("t", work, group="g").end()
    assert is_child(recorded.span("commit t"), recorded.span("process t"))
    assert recorded.span("commit t").kind is SpanKind.CLIENT
    assert tracer.commit("t", None, group="g") is NO_SPAN


def test_a_ratio_decides_for_records_without_a_context_and_is_drawn_once() -> None:
    recorded = Recorded(OTEL_TRACES_SAMPLER="parentbased_traceidratio", OTEL_TRACES_SAMPLER_ARG="0.1")
    wanted = [message for message in [Message()] * 3000 if recorded.tracer.sampled(message.headers() or ())]
    assert 220 < len(wanted) < 380
    for message in wanted:
        recorded.tracer.process("t", message, group="g", step="s").end()
    assert len(recorded.spans) == len(wanted)
    roots = [recorded.tracer.send("t", None) for _ in range(3000)]
    assert 220 < sum(is_sampled(traceparent_of(headers) or b"") for _, headers in roots) < 380
    assert {span is NO_SPAN for span, headers in roots if not is_sampled(traceparent_of(headers) or b"")} == {True}


def test_an_unsampled_record_keeps_its_own_context() -> None:
    recorded = Recorded()
    unsampled = [("traceparent", new_traceparent(sampled=False))]
    assert not recorded.tracer.sampled(unsampled)
    assert recorded.tracer.send("t", NO_SPAN) == (NO_SPAN, [])
    assert recorded.spans == ()


@pytest.mark.parametrize("traceparent", [b"nonsense", b"\xff" * 55, b"00-" + b"0" * 32 + b"-" + b"0" * 16 + b"-01"])
def test_a_malformed_context_begins_a_new_trace(traceparent: bytes) -> None:
    recorded = Recorded()
    recorded.tracer.process("t", Message([("traceparent", traceparent)]), group="g", step="s").end()
    (ended,) = recorded.spans
    assert ended.parent is None


class Broken(SpanExporter):
    def export(self, spans: Any) -> SpanExportResult:
        raise RuntimeError("collector on fire")

    def shutdown(self) -> None:
        raise RuntimeError("still on fire")


def test_broken_telemetry_never_reaches_a_record(caplog: pytest.LogCaptureFixture) -> None:
    tracer = build_tracer({}, exporter=Broken())

    class Cursed(Message):
        def value(self) -> bytes | None:
            raise RuntimeError("no value")

    with caplog.at_level(logging.WARNING, "sage.tracing"):
        assert tracer.process("t", Cursed(), group="g", step="s") is NO_SPAN
        span = tracer.process("t", Message(), group="g", step="s")
        span.set("ok", 1)
        span.end()
        tracer.flush(1.0)
    assert "records go on" in caplog.text
