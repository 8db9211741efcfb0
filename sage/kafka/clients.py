"""The door to Kafka: clients that share one configuration."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Literal

from confluent_kafka import KafkaException

from sage.errors import InvalidTopology
from sage.kafka.admin import ConfluentAdmin
from sage.kafka.config import (
    COOPERATIVE,
    EAGER,
    GroupProtocol,
    admin_config,
    bootstrap_addresses,
    check_user_config,
    consumer_config,
    masked,
    producer_config,
)
from sage.kafka.consumer import ConfluentConsumer
from sage.kafka.errors import kafka_error, sage_error, unreachable
from sage.kafka.probe import BrokerFeatures, ProbeFailed, probe
from sage.kafka.producer import ConfluentProducer

_PROBE_PATIENCE = 10.0
_READER_GROUP = "sage-reader"
"""librdkafka wants a group's name even from a consumer that never joins one."""


class ConfluentClients:
    """Makes consumers, producers and admins of one cluster.

    Nothing is connected before a client is made.

    Args:
        bootstrap_servers: ``host:port``, separated by commas.
        config: librdkafka's settings for all clients (security, buffers ...).
        group_protocol: ``consumer`` (KIP-848) or ``classic``; ``None`` asks the broker once (decision 10).
        is_embedded: whether this is the embedded broker of ``sage up``.
        origin: where the address came from (``SAGE_BOOTSTRAP_SERVERS``, a context), for messages.

    Raises:
        InvalidTopology: ``config`` sets what SAGE's guarantees hang on, or an address is none.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        config: Mapping[str, Any] | None = None,
        *,
        group_protocol: GroupProtocol | None = None,
        is_embedded: bool = False,
        origin: str = "",
    ) -> None:
        try:
            bootstrap_addresses(bootstrap_servers)
        except InvalidTopology as error:
            raise error.at(origin) if origin else error from None
        self._bootstrap_servers = bootstrap_servers
        self._config = check_user_config(config or {})
        self._group_protocol: GroupProtocol | None = group_protocol
        self._is_embedded = is_embedded
        self._origin = origin
        self._features: BrokerFeatures | None = None

    def __repr__(self) -> str:
        return f"ConfluentClients({self._bootstrap_servers!r}, {masked(self._config)})"

    @property
    def address(self) -> str:
        """The brokers, for messages."""
        return self._bootstrap_servers

    @property
    def is_embedded(self) -> bool:
        """Whether this is the embedded broker, as far as it was said or found out."""
        return self._is_embedded or (self._features is not None and self._features.is_embedded)

    def consumer(
        self,
        group: str | None,
        *,
        read_from: Literal["earliest", "latest"] = "earliest",
        config: Mapping[str, Any] | None = None,
    ) -> ConfluentConsumer:
        """A member of ``group``, or a plain reader without one.

        Raises:
            Unreachable: the group protocol had to be asked for, and nobody answered for 10 s.
            InvalidTopology: a setting that librdkafka does not know, or that SAGE needs otherwise.
        """
        protocol: GroupProtocol = "classic" if group is None else self.group_protocol()
        settings = consumer_config(
            self._bootstrap_servers,
            self._config,
            check_user_config(config or {}),
            group=group or _READER_GROUP,
            read_from=read_from,
            protocol=protocol,
            # On the embedded broker the second member of a cooperative group never gets its share.
            assignor=EAGER if self.is_embedded else COOPERATIVE,
        )
        try:
            return ConfluentConsumer(
                settings, address=self.address, has_group=group is not None, leaves_by_hand=self.is_embedded
            )
        except KafkaException as exception:
            raise sage_error(kafka_error(exception), "consumer settings", address=self.address) from exception

    def producer(
        self, *, transactional_id: str | None = None, config: Mapping[str, Any] | None = None
    ) -> ConfluentProducer:
        """An idempotent producer, transactional where an id is given.

        Raises:
            InvalidTopology: a setting that librdkafka does not know, or that SAGE needs otherwise.
        """
        settings = producer_config(
            self._bootstrap_servers,
            self._config,
            check_user_config(config or {}),
            transactional_id=transactional_id,
        )
        try:
            return ConfluentProducer(settings, address=self.address)
        except KafkaException as exception:
            raise sage_error(kafka_error(exception), "producer settings", address=self.address) from exception

    def admin(self) -> ConfluentAdmin:
        """Topics and offsets.

        Raises:
            InvalidTopology: a setting that librdkafka does not know.
        """
        try:
            return ConfluentAdmin(
                admin_config(self._bootstrap_servers, self._config),
                reader_config=self._reader_config,
                address=self.address,
                origin=self._origin,
            )
        except KafkaException as exception:
            raise sage_error(kafka_error(exception), "admin settings", address=self.address) from exception

    def group_protocol(self) -> GroupProtocol:
        """How groups work on this broker; asked once.

        Raises:
            Unreachable: nobody answered for 10 s.
            Unauthorized: TLS refused us.
        """
        if self._group_protocol is None:
            started = time.monotonic()
            try:
                self._features = probe(self._bootstrap_servers, self._config, timeout=_PROBE_PATIENCE)
            except ProbeFailed as failed:
                seconds = time.monotonic() - started
                raise unreachable(self.address, str(failed), seconds, origin=self._origin) from failed
            found: GroupProtocol = "consumer" if self._features.has_consumer_protocol else "classic"
            self._group_protocol = found
        return self._group_protocol

    def _reader_config(self, group: str) -> dict[str, Any]:
        return consumer_config(
            self._bootstrap_servers,
            self._config,
            {},
            group=group,
            read_from="earliest",
            protocol="classic",
            assignor=COOPERATIVE,
        )
