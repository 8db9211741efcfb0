import logging
import os
import socket
import subprocess
import sys
import textwrap
import time

import pytest

from sage.tracing import IdleTracer, build_tracer
from sage.tracing.build import Settings, read_settings
from sage.tracing.propagation import is_sampled
from sage.tracing.quiet import Reports
from tests.unit.tracing.spans import Message


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, Settings()),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, Settings()),
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, Settings()),
        ({"OTEL_TRACES_EXPORTER": "console"}, Settings("console")),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, Settings("otlp")),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318/"}, Settings("otlp", endpoint="http://c:4318/v1/traces")),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c/x"}, Settings("otlp", endpoint="http://c/x")),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            Settings("otlp", "grpc", "http://c:4317"),
        ),
    ],
)
def test_the_standard_variables_say_where_spans_go(environ: dict[str, str], expected: Settings) -> None:
    assert read_settings(environ) == expected


@pytest.mark.parametrize("environ", [{}, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_SDK_DISABLED": "true"}])
def test_without_an_exporter_contexts_are_made_and_no_spans(environ: dict[str, str]) -> None:
    tracer = build_tracer(environ)
    assert not tracer.active
    ((name, value),) = tracer.start_root()
    assert name == "traceparent"
    assert not is_sampled(value)
    message = Message([("traceparent", value[:-1] + b"1")])
    assert not tracer.sampled(message.headers() or ())
    span = tracer.process("t", message, group="g", step="s")
    assert tracer.send("u", span)[1] == []
    assert len(tracer.send("u", None)[1]) == 1
    span.end()
    tracer.flush(1.0)


def test_an_explicit_sampler_marks_contexts_for_others_even_so() -> None:
    tracer = build_tracer({"OTEL_TRACES_SAMPLER": "always_on"})
    assert not tracer.active
    assert is_sampled(tracer.start_root()[0][1])


@pytest.mark.parametrize("protocol", ["grpc", "http/json"])
def test_a_missing_exporter_is_one_warning(protocol: str, caplog: pytest.LogCaptureFixture) -> None:
    tracer = build_tracer(
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_PROTOCOL": protocol}
    )
    assert isinstance(tracer, IdleTracer)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "records go on" in caplog.text


def test_a_variable_that_the_sdk_refuses_stops_no_record(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "-1")
    tracer = build_tracer({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"})
    assert isinstance(tracer, IdleTracer)
    assert "records go on" in caplog.text


def test_an_idle_tracer_does_not_import_the_sdk() -> None:
    code = "import sys, sage.tracing; sage.tracing.build_tracer({}); print('opentelemetry' in str(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"


def test_trouble_is_reported_once_an_interval_with_what_was_held_back(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    reports = Reports(60.0, lambda: now[0])
    for now[0] in (0.0, 1.0, 59.0, 61.0):
        reports.say("down")
    assert [record.getMessage() for record in caplog.records] == ["down", "down (2 more since the last report)"]


def test_a_dead_collector_costs_no_record_no_log_storm_and_no_late_exit() -> None:
    with socket.socket() as taken:  # bound and not listening: connections are refused
        taken.bind(("127.0.0.1", 0))
        program = textwrap.dedent("""
            import logging, os, sys, time
            logging.basicConfig(level=logging.INFO)
            from sage.tracing import build_tracer
            from tests.unit.tracing.spans import Message
            tracer = build_tracer(os.environ)
            assert tracer.active
            begun = time.monotonic()
            for offset in range(20_000):
                span = tracer.process("t", Message(in_offset=offset), group="g", step="s")
                tracer.send("u", span)[0].end()
                span.end()
            print("worked", time.monotonic() - begun)
        """)
        environ = {
            **os.environ,
            "PYTHONPATH": ".",
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{taken.getsockname()[1]}",
            "OTEL_BSP_SCHEDULE_DELAY": "50",
        }
        process = subprocess.Popen(
            [sys.executable, "-c", program], env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline().startswith("worked")
        begun = time.monotonic()
        said = process.stderr.read()
        assert process.wait(30) == 0
        assert time.monotonic() - begun < 4.0
    lines = [line for line in said.splitlines() if line.strip()]
    assert any("traces are not reaching their collector" in line for line in lines)
    assert len(lines) <= 6, said


def test_the_programs_own_provider_is_used() -> None:
    program = textwrap.dedent("""
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
        from sage.tracing import build_tracer
        from tests.unit.tracing.spans import Message
        exporter, provider = InMemorySpanExporter(), TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        trace.set_tracer_provider(provider)
        tracer = build_tracer({})
        assert tracer.active
        tracer.process("t", Message(), group="g", step="s").end()
        tracer.close()
        tracer.process("t", Message(), group="g", step="s").end()
        print([span.name for span in exporter.get_finished_spans()])
    """)
    out = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": "."},
    )
    assert out.stdout.strip() == "['process t', 'process t']", out.stderr


def test_spans_of_the_console_exporter_leave_standard_output_alone(capsys: pytest.CaptureFixture[str]) -> None:
    logging.getLogger("sage.tracing").setLevel(logging.WARNING)
    tracer = build_tracer({"OTEL_TRACES_EXPORTER": "console"})
    tracer.process("t", Message(), group="g", step="s").end()
    tracer.flush(5.0)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "process t" in captured.err
