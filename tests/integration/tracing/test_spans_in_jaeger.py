import os
import subprocess
import sys
import textwrap

import pytest

from tests.integration.tracing.jaeger import Jaeger

pytestmark = pytest.mark.integration

STAGE = textwrap.dedent("""
    import ast, os, sys
    from sage.ports import ChatResponse
    from sage.tracing import build_tracer
    from sage.tracing.generative import chat
    from tests.unit.tracing.spans import Message
    tracer = build_tracer(os.environ)
    assert tracer.active
    topic, outgoing, headers = sys.argv[1], sys.argv[2], ast.literal_eval(sys.argv[3])
    if not headers:
        span, out = tracer.send(outgoing, None)
    else:
        assert tracer.sampled(headers)
        work = tracer.process(topic, Message(headers, in_topic=topic), group="qa.generate", step="generate")
        with chat("local/smollm2", provider="openai") as call:
            call.answered(ChatResponse("20 days.", "smollm2", {"input_tokens": 4, "output_tokens": 2}))
        span, out = tracer.send(outgoing, work)
        work.end()
    span.end()
    print(out)
    tracer.close(5.0)
""")


def stage(jaeger: Jaeger, topic: str, outgoing: str, headers: str, service: str) -> str:
    """Run one stage in a process of its own; returns the headers that it wrote."""
    environ = {**os.environ, **jaeger.environ, "PYTHONPATH": ".:connectors", "OTEL_SERVICE_NAME": service}
    done = subprocess.run(
        [sys.executable, "-c", STAGE, topic, outgoing, headers],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_jaeger_shows_one_trace_over_processes(jaeger: Jaeger) -> None:
    first = stage(jaeger, "", "qa.questions", "[]", "sage-source")
    stage(jaeger, "qa.questions", "qa.answers", first, "sage-worker")
    trace_id = first.split("00-")[1][:32]
    spans = jaeger.wait_for_trace(trace_id, lambda found: len(found) == 4)
    by_name = {span.name: span for span in spans}
    assert set(by_name) == {"send qa.questions", "process qa.questions", "chat local/smollm2", "send qa.answers"}
    assert by_name["send qa.questions"].parent == ""
    assert by_name["process qa.questions"].parent == by_name["send qa.questions"].span_id
    assert by_name["chat local/smollm2"].parent == by_name["process qa.questions"].span_id
    assert by_name["send qa.answers"].parent == by_name["process qa.questions"].span_id
    assert by_name["send qa.questions"].service == "sage-source"
    assert by_name["process qa.questions"].service == "sage-worker"
    assert by_name["process qa.questions"].tags["span.kind"] == "consumer"
    assert by_name["process qa.questions"].tags["messaging.destination.name"] == "qa.questions"
    assert by_name["chat local/smollm2"].tags["gen_ai.usage.output_tokens"] == 2
    assert not any("invalid parent" in str(span.tags) for span in spans)
