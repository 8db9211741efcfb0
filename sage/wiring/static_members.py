"""Static membership (KIP-345): a process that comes back under its name gets its partitions back, and no one else's
work stops for it.

A broker with KIP-848 gives the name of a process that was killed back only when its session has ended. librdkafka
takes the refusal for the end of that consumer, so another one is made until the name is free.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal

from sage.errors import InvalidTopology, StageStopped, TransientFailure
from sage.model.partition import TopicPartition
from sage.ports import Admin, Consumer, KafkaClients, Producer, RawMessage, RebalanceListener

logger: Final = logging.getLogger("sage.kafka.consumer")

INSTANCE_VARIABLE = "SAGE_INSTANCE_ID"

PATIENCE = 90.0
"""Seconds to wait for the name: twice the session time-out that brokers have by default."""

AGAIN_AFTER = 1.0
"""Seconds between two tries to join."""

_NAME: Final = re.compile(r"[a-zA-Z0-9._-]{1,200}")


class StaticMembers:
    """The clients of one process whose consumers all have a name that outlives it.

    Args:
        clients: makes the clients.
        instance: this process's name: unique among those that run at the same time, the same after a restart.

    Raises:
        InvalidTopology: the name has characters that Kafka doesn't take.
    """

    def __init__(self, clients: KafkaClients, instance: str) -> None:
        if not _NAME.fullmatch(instance):
            raise InvalidTopology(f"instance id {instance!r}: only letters, digits, '.', '_' and '-' are allowed")
        self._clients = clients
        self._instance = instance

    def consumer(
        self,
        group: str | None,
        *,
        read_from: Literal["earliest", "latest"] = "earliest",
        config: Mapping[str, Any] | None = None,
    ) -> Consumer:
        """A consumer; a group's member is known there as ``<instance>.<group>``."""
        if group is None:
            return self._clients.consumer(None, read_from=read_from, config=config)
        named = {**(config or {}), "group.instance.id": f"{self._instance}.{group}"}
        return _StaticMember(lambda: self._clients.consumer(group, read_from=read_from, config=named), self._instance)

    def producer(self, *, transactional_id: str | None = None, config: Mapping[str, Any] | None = None) -> Producer:
        """A producer; it needs no name."""
        return self._clients.producer(transactional_id=transactional_id, config=config)

    def admin(self) -> Admin:
        """Topics and offsets."""
        return self._clients.admin()

    @property
    def address(self) -> str:
        """The brokers, for messages."""
        return self._clients.address

    @property
    def is_embedded(self) -> bool:
        """Whether this is the embedded broker."""
        return self._clients.is_embedded


class _StaticMember:
    """The Consumer port over a consumer that is made anew where its name was still taken."""

    def __init__(self, make: Callable[[], Consumer], instance: str) -> None:
        self._make = make
        self._instance = instance
        self._consumer = make()
        self.max_poll_interval = self._consumer.max_poll_interval
        self._join: Callable[[Consumer], None] = lambda consumer: None
        self._refused_since: float | None = None

    def subscribe(
        self,
        topics: Sequence[str],
        listener: RebalanceListener,
        *,
        companions: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        """Join the group, now and again where the name was taken."""
        self._join = lambda consumer: consumer.subscribe(topics, listener, companions=companions)
        self._join(self._consumer)

    def poll(self, max_messages: int, timeout: float) -> list[RawMessage]:
        """A batch; empty while the name is somebody else's.

        Raises:
            StageStopped: it still is after ``PATIENCE`` seconds.
        """
        try:
            messages = self._consumer.poll(max_messages, timeout)
        except TransientFailure as refused:  # nothing else that a poll raises may mend
            self._again(refused)
            return []
        if messages or self._consumer.assignment():
            self._refused_since = None  # it is ours: a refusal that comes later is another one
        return messages

    def _again(self, refused: TransientFailure) -> None:
        now = time.monotonic()
        if self._refused_since is None:
            self._refused_since = now
            logger.warning(
                "instance id %s: the group still knows a process of that name; waiting for its session to end",
                self._instance,
            )
        elif now - self._refused_since > PATIENCE:
            raise StageStopped(
                f"instance id {self._instance}: another process has had it for {PATIENCE:.0f} s; give each process "
                "its own --instance-id"
            ) from refused
        self._consumer.close()
        time.sleep(AGAIN_AFTER)
        self._consumer = self._make()
        self._join(self._consumer)

    def assign(self, offsets: Mapping[TopicPartition, int]) -> None:
        """As the port."""
        self._consumer.assign(offsets)

    def ends_reached(self) -> Mapping[TopicPartition, int]:
        """As the port."""
        return self._consumer.ends_reached()

    def pause(self, partitions: Sequence[TopicPartition]) -> None:
        """As the port."""
        self._consumer.pause(partitions)

    def resume(self, partitions: Sequence[TopicPartition]) -> None:
        """As the port."""
        self._consumer.resume(partitions)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """As the port."""
        self._consumer.seek(partition, offset)

    def commit(
        self, offsets: Mapping[TopicPartition, int], metadata: Mapping[TopicPartition, str] | None = None
    ) -> None:
        """As the port."""
        self._consumer.commit(offsets, metadata)

    def committed(
        self, partitions: Sequence[TopicPartition], timeout: float = 10.0
    ) -> dict[TopicPartition, int | None]:
        """As the port."""
        return self._consumer.committed(partitions, timeout)

    def assignment(self) -> frozenset[TopicPartition]:
        """As the port."""
        return self._consumer.assignment()

    def group_metadata(self) -> object | None:
        """As the port."""
        return self._consumer.group_metadata()

    def close(self) -> None:
        """As the port."""
        self._consumer.close()
