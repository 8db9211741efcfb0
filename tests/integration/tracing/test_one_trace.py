"""One record, one trace: every step's span hangs on the one before, over topics, fused steps and retries."""

from __future__ import annotations

from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from sage import LocalEnvironment
from sage.testing import TopologyDriver
from sage.tracing import build_tracer

TRACE = "0af7651916cd43dd8448eb211c80319c"


def test_all_steps_of_a_record_are_in_its_trace_each_under_the_one_before() -> None:
    exporter = InMemorySpanExporter()
    env = LocalEnvironment("traced")
    tries: list[int] = []

    async def ask(value: dict[str, int]) -> dict[str, int]:
        tries.append(1)
        if len(tries) == 1:
            raise ConnectionError("not yet")
        return value

    numbers = env.from_topic("numbers").map(lambda value: {"n": value["n"] + 1}, name="inc")
    numbers.map(ask, name="ask", retry={"attempts": 2, "backoff": 0.1}).collect(name="seen")
    with TopologyDriver(env, tracer=build_tracer({}, exporter=exporter)) as driver:
        driver.send({"n": 1}, headers=[("traceparent", f"00-{TRACE}-b7ad6b7169203331-01".encode())])
        driver.advance(5)
        assert driver.outputs("ask") == [{"n": 2}]

    spans = sorted(exporter.get_finished_spans(), key=lambda span: span.start_time or 0)
    inside = [span for span in spans if span.name.split()[0] in ("process", "send")]
    by_id = {span.context.span_id: span for span in spans if span.context is not None}

    assert {format(span.context.trace_id, "032x") for span in inside if span.context is not None} == {TRACE}
    names = [span.name for span in inside]
    assert names.count("process numbers") == 1
    assert names.count("send traced.inc") == 1
    assert names.count("process traced.inc") == 2, "each try has its own span"
    assert names.count("send traced.ask") == 1
    assert names.count("process traced.ask") == 1
    for span in inside:
        assert span.parent is not None
        parent = by_id.get(span.parent.span_id)
        if span.name == "process numbers":
            assert format(span.parent.span_id, "016x") == "b7ad6b7169203331"
        elif span.name.startswith("process"):
            assert parent is not None
            assert parent.name == span.name.replace("process", "send")
        else:
            assert parent is not None
            assert parent.name.startswith("process")
    failed = [span for span in inside if not span.status.is_ok and span.name.startswith("process")]
    assert [span.name for span in failed] == ["process traced.inc"]
