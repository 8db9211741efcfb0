"""The SDK's sampler beside ours: a trace that SAGE has drawn is not drawn a second time."""

from __future__ import annotations

from collections.abc import Sequence

from opentelemetry import context as contexts
from opentelemetry.context import Context
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased, Sampler, SamplingResult, TraceIdRatioBased
from opentelemetry.trace import Link, SpanKind, TraceState
from opentelemetry.util.types import Attributes

from sage.tracing.propagation import Sampling

SAMPLED_ALREADY = contexts.create_key("sage-sampled-already")


class DrawnBySage(Sampler):
    """Records and samples what SAGE has drawn; decides by ratio for other traces that begin in this process."""

    def __init__(self, ratio: float) -> None:
        self._others = TraceIdRatioBased(ratio)
        self._drawn = TraceIdRatioBased(1.0)

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        """The decision for one span."""
        drawn = contexts.get_value(SAMPLED_ALREADY, parent_context)
        sampler = self._drawn if drawn else self._others
        return sampler.should_sample(parent_context, trace_id, name, kind, attributes, links, trace_state)

    def get_description(self) -> str:
        """What the exported resource says of it."""
        return f"DrawnBySage({self._others.get_description()})"


def sdk_sampler(sampling: Sampling) -> Sampler:
    """The provider's sampler that fits ``sampling``."""
    root = DrawnBySage(sampling.ratio)
    return ParentBased(root, remote_parent_not_sampled=ALWAYS_OFF if sampling.follows_parent else root)
