"""What a broker says of itself that ``sage doctor`` prints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType  # type: ignore[attr-defined]

from sage.kafka.config import admin_config
from sage.kafka.logs import client_logger

_SESSION_MINIMUM: Final = "group.consumer.min.session.timeout.ms"
_TIMEOUT: Final = 5.0


def min_session_timeout_ms(bootstrap_servers: str, config: Mapping[str, Any]) -> int | None:
    """The shortest session time-out that a KIP-848 group can have there, in milliseconds.

    ``None`` where the broker has no such groups, or does not show us its settings.
    """
    client = AdminClient(admin_config(bootstrap_servers, config), logger=client_logger("facts"))
    try:
        nodes = client.list_topics(timeout=_TIMEOUT).brokers
        resource = ConfigResource(ResourceType.BROKER, str(next(iter(nodes))))
        (answer,) = client.describe_configs([resource], request_timeout=_TIMEOUT).values()
        entry = answer.result(_TIMEOUT).get(_SESSION_MINIMUM)
        return int(entry.value) if entry is not None and entry.value is not None else None
    except (KafkaException, TimeoutError, StopIteration, ValueError):
        return None
