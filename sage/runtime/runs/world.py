"""What stages run in: made by the composition root, a worker, or the test driver."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sage.ports import Clock, KafkaClients, StateStores, Tracer
from sage.runtime.concurrent.bridge import Bridge
from sage.spec.context import Services


@dataclass(frozen=True)
class World:
    """All that the stages of one topology reach in this process."""

    clients: KafkaClients
    services: Services
    tracer: Tracer
    clock: Clock
    bridge: Bridge
    environ: Mapping[str, str]
    worker: str
    stores: StateStores
    strict_edges: bool = False
    """Whether values between fused steps go through their topic's form."""
