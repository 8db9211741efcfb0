"""Traces: W3C context in every record's headers, and OpenTelemetry spans where an exporter is configured.

``build_tracer`` reads the standard ``OTEL_*`` variables. Without them no span is ever made and the SDK is not imported;
records carry a valid context all the same, so that programs before and after SAGE stay in one trace.
"""

from __future__ import annotations

from sage.tracing.build import build_tracer
from sage.tracing.idle import NO_SPAN, IdleTracer

__all__ = ["NO_SPAN", "IdleTracer", "build_tracer"]
