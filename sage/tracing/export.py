"""Exporters and the SDK around them: bounded queues, few words, a quick end.

A collector that is dead or slow costs the records nothing: spans wait in the SDK's bounded queue, a thread of its own
sends them, what does not fit is dropped, and one line a minute says so.
"""

from __future__ import annotations

import atexit
import logging
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SimpleSpanProcessor, SpanExporter

from sage.tracing import names
from sage.tracing.live import LiveTracer
from sage.tracing.propagation import Sampling
from sage.tracing.quiet import Reports
from sage.tracing.sampler import sdk_sampler
from sage.version import __version__

if TYPE_CHECKING:
    from sage.tracing.build import Settings

_TALKATIVE = (
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.exporter.otlp.proto.grpc.exporter",
    "opentelemetry.exporter.otlp.common.http",
    "opentelemetry.sdk._shared_internal",
)
"""Loggers of the exporters and the queue, which speak for every batch that fails."""

_PACKAGES = {
    "http/protobuf": "opentelemetry-exporter-otlp-proto-http",
    "grpc": "opentelemetry-exporter-otlp-proto-grpc",
}


def make_exporter(settings: Settings) -> SpanExporter:
    """The exporter that the settings name.

    Raises:
        ImportError: its package is not installed, or nobody has one for the protocol; says what to install.
    """
    if settings.exporter == "console":
        import sys

        return ConsoleSpanExporter(out=sys.stderr)  # standard output is for data
    package = _PACKAGES.get(settings.protocol)
    if package is None:
        raise ImportError(
            f"OTLP over {settings.protocol} is not supported; set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf"
        )
    try:
        if settings.protocol == "grpc":
            from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (  # type: ignore[import-not-found]
                OTLPSpanExporter as GrpcExporter,
            )

            made: SpanExporter = GrpcExporter(endpoint=settings.endpoint)
            return made
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        return OTLPSpanExporter(endpoint=settings.endpoint)
    except ImportError:
        raise ImportError(f"the package {package} is not installed (`pip install {package}`)") from None


def batching_tracer(
    exporter: SpanExporter, sampling: Sampling, environ: Mapping[str, str], *, where: str
) -> LiveTracer:
    """A tracer whose spans are sent by a thread, in batches. ``where`` is the address for messages."""
    for name in _TALKATIVE:
        logger = logging.getLogger(name)
        if not any(isinstance(handler, _Seldom) for handler in logger.handlers):
            logger.addHandler(_Seldom(where))
            logger.propagate = False
    provider = _provider(BatchSpanProcessor(exporter), sampling, environ)
    tracer = tracer_of(provider, sampling, owned=True)
    atexit.register(tracer.close)
    return tracer


def immediate_tracer(exporter: SpanExporter, sampling: Sampling, environ: Mapping[str, str]) -> LiveTracer:
    """A tracer whose spans reach the exporter as they end."""
    return tracer_of(_provider(SimpleSpanProcessor(exporter), sampling, environ), sampling, owned=True)


def tracer_of(provider: TracerProvider, sampling: Sampling, *, owned: bool = False) -> LiveTracer:
    """A tracer over a provider; one that is not ``owned`` is never shut down."""
    tracer: LiveTracer

    def close(timeout: float) -> None:
        if owned:
            atexit.unregister(tracer.close)
            _within(timeout, provider.shutdown)
        else:
            flush(timeout)

    def flush(timeout: float) -> None:
        _within(timeout, provider.force_flush)

    tracer = LiveTracer(
        provider.get_tracer(names.SCOPE, __version__, schema_url=names.SCHEMA_URL), sampling, flush=flush, close=close
    )
    return tracer


def _provider(processor: SpanProcessor, sampling: Sampling, environ: Mapping[str, str]) -> TracerProvider:
    resource = Resource.create({"service.version": __version__})
    if resource.attributes.get("service.name") in {None, "unknown_service"}:
        resource = resource.merge(Resource({"service.name": environ.get("OTEL_SERVICE_NAME") or "sage"}))
    provider = TracerProvider(sampler=sdk_sampler(sampling), resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(processor)
    return provider


def _within(seconds: float, action: Callable[[], object]) -> None:
    """Wait for ``action`` so long and no longer: the SDK's own waits go on for up to half a minute."""
    thread = threading.Thread(target=action, name="sage-tracing-close", daemon=True)
    thread.start()
    thread.join(seconds)


class _Seldom(logging.Handler):
    """Passes on what the exporter says, at most once a minute, as SAGE's own word."""

    def __init__(self, where: str) -> None:
        super().__init__(logging.WARNING)
        self._where = f" to {where}" if where else ""
        self._reports = Reports()

    def emit(self, record: logging.LogRecord) -> None:
        """Report it, or count it."""
        try:
            self._reports.say(
                f"traces are not reaching their collector{self._where}; records go on: {record.getMessage()}"
            )
        except Exception:
            self.handleError(record)
