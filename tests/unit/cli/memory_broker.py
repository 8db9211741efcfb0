"""Commands that find a broker in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from sage import app
from sage.cluster.names import ControlTopics
from sage.ports import KafkaClients
from sage.testing.broker import InMemoryClients


@dataclass(frozen=True)
class Brokers:
    """What ``app.brokers`` finds."""

    found: KafkaClients
    address: str = "in-memory"
    origin: str = "a test"
    config: Mapping[str, Any] = field(default_factory=dict)
    control_topics: ControlTopics = field(default_factory=ControlTopics)

    def clients(self, extra: Mapping[str, Any] | None = None, own: Mapping[str, Any] | None = None) -> KafkaClients:
        del extra, own
        return self.found


def use(
    monkeypatch: pytest.MonkeyPatch, clients: InMemoryClients | None = None, topics: ControlTopics | None = None
) -> InMemoryClients:
    """Have every command of this test find one broker in memory."""
    made = InMemoryClients() if clients is None else clients
    monkeypatch.setattr(app, "brokers", lambda *_: Brokers(made, control_topics=topics or ControlTopics()))
    return made
