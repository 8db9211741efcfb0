import os

import pytest
from opentelemetry.trace import get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from sage.tracing.propagation import Sampling, is_sampled, new_traceparent, traceparent_of

SAMPLED = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize("flags", range(256))
def test_reads_the_sampled_bit_of_every_flag(flags: int) -> None:
    for text in (b"%02x" % flags, b"%02X" % flags):
        assert is_sampled(SAMPLED[:-2] + text.lower()) == bool(flags & 1)


@pytest.mark.parametrize("traceparent", [b"", b"00", b"nonsense", SAMPLED[:-1]])
def test_a_malformed_context_is_not_sampled(traceparent: bytes) -> None:
    assert not is_sampled(traceparent)


@pytest.mark.parametrize("sampled", [True, False])
def test_a_new_context_is_read_by_opentelemetry(sampled: bool) -> None:
    made = [new_traceparent(sampled=sampled) for _ in range(1000)]
    assert len(set(made)) == 1000
    for each in made:
        context = get_current_span(
            TraceContextTextMapPropagator().extract({"traceparent": each.decode()})
        ).get_span_context()
        assert context.is_valid
        assert context.trace_flags.sampled == sampled


def test_forked_processes_draw_other_ids() -> None:
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(write, new_traceparent(sampled=True))
        os._exit(0)
    os.waitpid(pid, 0)
    theirs = os.read(read, 100)
    os.close(read)
    os.close(write)
    assert theirs != new_traceparent(sampled=True)


def test_the_newest_context_of_a_record_counts() -> None:
    assert traceparent_of([("traceparent", b"old"), ("x", None), ("traceparent", b"new"), ("sage.id", b"1")]) == b"new"
    assert traceparent_of([("x", b"1")]) is None
    assert traceparent_of([]) is None


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, Sampling(0.5)),
        ({"OTEL_TRACES_SAMPLER": "always_on"}, Sampling(1.0, False)),
        ({"OTEL_TRACES_SAMPLER": "always_off"}, Sampling(0.0, False)),
        ({"OTEL_TRACES_SAMPLER": "parentbased_always_off"}, Sampling(0.0)),
        ({"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.01"}, Sampling(0.01)),
        ({"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.01"}, Sampling(0.01, False)),
        ({"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "often"}, Sampling(1.0)),
        ({"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "7"}, Sampling(1.0)),
    ],
)
def test_the_standard_variables_say_what_is_sampled(environ: dict[str, str], expected: Sampling) -> None:
    assert Sampling.from_environ(environ, default=0.5) == expected


def test_a_ratio_is_kept_for_new_traces_and_for_given_ids() -> None:
    assert 400 < sum(Sampling(0.1).root() for _ in range(5000)) < 600
    given = [new_traceparent(sampled=False) for _ in range(5000)]
    assert 400 < sum(Sampling(0.1, follows_parent=False).wanted(each) for each in given) < 600
    assert not any(Sampling(1.0).wanted(each) for each in given)
