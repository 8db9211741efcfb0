"""From the standard ``OTEL_*`` variables to a tracer."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from sage.ports import Tracer
from sage.tracing.idle import IdleTracer
from sage.tracing.propagation import Sampling

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

_log = logging.getLogger("sage.tracing")

ExporterName = Literal["otlp", "console"]


@dataclass(frozen=True, slots=True)
class Settings:
    """What the environment asks for.

    Attributes:
        exporter: where spans go; ``None`` is nowhere.
        protocol: of OTLP: ``http/protobuf`` or ``grpc``.
        endpoint: the full address for spans, where one is given.
    """

    exporter: ExporterName | None = None
    protocol: str = "http/protobuf"
    endpoint: str | None = None


def build_tracer(environ: Mapping[str, str], *, exporter: SpanExporter | None = None) -> Tracer:
    """The tracer that ``environ`` asks for.

    Spans are exported where ``OTEL_TRACES_EXPORTER`` is ``otlp`` or ``console``, where
    ``OTEL_EXPORTER_OTLP_ENDPOINT`` is set, or where the program has set an SDK provider of its own, which is then
    used. Otherwise, and where the exporter's package is missing, the tracer is idle. Headers, certificates and
    limits of the exporter, and the resource, are read by the SDK from the process's own environment.

    Args:
        environ: usually ``os.environ``.
        exporter: given spans as they end, whatever ``environ`` says; for tests.
    """
    if exporter is not None:
        from sage.tracing.export import immediate_tracer

        return immediate_tracer(exporter, Sampling.from_environ(environ, default=1.0), environ)
    settings = read_settings(environ)
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        settings = Settings()
    elif (provider := _program_provider()) is not None:
        from sage.tracing.export import tracer_of

        return tracer_of(provider, Sampling.from_environ(environ, default=1.0))
    if settings.exporter is None:
        return IdleTracer(Sampling.from_environ(environ, default=0.0))
    from sage.tracing.export import batching_tracer, make_exporter

    sampling = Sampling.from_environ(environ, default=1.0)
    try:
        return batching_tracer(make_exporter(settings), sampling, environ, where=settings.endpoint or "")
    except (ImportError, ValueError) as error:  # a package that is missing; a variable that the SDK refuses
        _log.warning("traces are not exported: %s; records go on without", error)
        return IdleTracer(Sampling.from_environ(environ, default=0.0))


def read_settings(environ: Mapping[str, str]) -> Settings:
    """The variables of OpenTelemetry's specification that say where spans go."""
    wanted = environ.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    base = environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "").strip()
    own = environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "").strip()
    protocol = (
        environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "").strip().lower()
        or environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "").strip().lower()
        or "http/protobuf"
    )
    if not wanted:
        wanted = "otlp" if base or own else "none"
    names = [each.strip() for each in wanted.split(",")]
    if "otlp" in names:
        path = "" if protocol == "grpc" else "/v1/traces"
        return Settings("otlp", protocol, own or (base.rstrip("/") + path if base else None))
    if "console" in names:
        return Settings("console")
    if names != ["none"]:
        _log.warning("OTEL_TRACES_EXPORTER=%s is not known here; use otlp, console or none", wanted)
    return Settings()


def _program_provider() -> TracerProvider | None:
    """The SDK provider that the program itself has set, if it has; looking does not import the SDK."""
    sdk = sys.modules.get("opentelemetry.sdk.trace")
    if sdk is None:
        return None
    from opentelemetry.trace import get_tracer_provider

    provider: Any = get_tracer_provider()
    return provider if isinstance(provider, sdk.TracerProvider) else None
