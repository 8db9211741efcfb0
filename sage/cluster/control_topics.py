"""The control topics on the brokers: made by whoever comes first."""

from __future__ import annotations

from typing import Final

from sage.cluster.names import ControlTopics
from sage.errors import Forbidden, InvalidTopology
from sage.ports import Admin, KafkaClients, TopicSpec

LOG_PARTITIONS: Final = 4

_MINUTE: Final = 60_000
_DAY: Final = 24 * 60 * _MINUTE

_REPLICAS: Final = (3, 2, 1)
"""Tried in this order: as many as the brokers can give, three at most."""


def ensure_control_topics(clients: KafkaClients, topics: ControlTopics) -> None:
    """Make the control topics that are missing.

    Raises:
        Forbidden: this user may not make them: somebody who may has to, once.
        Unauthorized: the login is refused.
        Unreachable: nobody answers.
    """
    admin = clients.admin()
    try:
        there = admin.describe(topics.all)
        for spec in _specs(topics):
            if spec.name not in there:
                _create(admin, spec)
    except Forbidden as error:
        raise Forbidden(
            f"the control topics {', '.join(topics.all)} are not all there or not ours to see ({error.message}); have "
            "an administrator start a worker or deploy once, or grant Create, Describe, Read and Write on topics that "
            f"begin with {topics.prefix}.",
            where=clients.address,
        ) from error
    finally:
        admin.close()


def _create(admin: Admin, spec: TopicSpec) -> None:
    for replicas in _REPLICAS:
        try:
            admin.create([TopicSpec(spec.name, spec.partitions, replicas, spec.config)])
        except InvalidTopology:
            # Fewer brokers than replicas; anything else is refused again with one replica, and told then.
            if replicas == _REPLICAS[-1]:
                raise
        else:
            return


def _specs(topics: ControlTopics) -> tuple[TopicSpec, ...]:
    compact = {"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.1"}
    return (
        # One partition: all deployments and changes of pointers have one order. Earlier pointers stay readable for a
        # week, for `history`.
        TopicSpec(topics.topologies, config={**compact, "min.compaction.lag.ms": str(7 * _DAY)}),
        # Each worker writes each two seconds: segments are closed soon, so that there is little to read from the start.
        TopicSpec(
            topics.status,
            config={
                **compact,
                "message.timestamp.type": "LogAppendTime",
                "segment.ms": str(5 * _MINUTE),
                "segment.bytes": str(4 * 1024 * 1024),
                "delete.retention.ms": str(10 * _MINUTE),
            },
        ),
        TopicSpec(topics.logs, LOG_PARTITIONS, config={"cleanup.policy": "delete", "retention.ms": str(_DAY)}),
    )
