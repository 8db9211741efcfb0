"""What an account may do, asked of the brokers, who tell it of what exists."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import confluent_kafka
from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AclOperation, AdminClient, NewTopic  # type: ignore[attr-defined] # not in __all__

from sage.kafka.errors import kafka_error
from sage.kafka.logs import client_logger
from sage.ports import OPERATIONS, Operation

_NAMES: Final[Mapping[Operation, AclOperation]] = {name: getattr(AclOperation, name.upper()) for name in OPERATIONS}

_TOPIC_MISSING: Final = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC})
_GROUP_MISSING: Final = frozenset({KafkaError.GROUP_ID_NOT_FOUND, KafkaError.INVALID_GROUP_ID})
_TRANSACTION_TIMEOUT: Final = 9.0


def topic_rights(client: AdminClient, topic: str, timeout: float) -> dict[Operation, bool]:
    """Rights on a topic; on one that does not exist, whether it may be seen and made. Raises KafkaException."""
    collection = TopicCollection([topic])
    (future,) = client.describe_topics(collection, include_authorized_operations=True, request_timeout=timeout).values()
    try:
        return _named(future.result().authorized_operations)
    except KafkaException as exception:
        code = kafka_error(exception).code()
        if code == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            found: dict[Operation, bool] = dict.fromkeys(OPERATIONS, False)
        elif code in _TOPIC_MISSING:
            found = {"Describe": True}
        else:
            raise
    return {**found, "Create": _may_create(client, topic, timeout)}


def group_rights(client: AdminClient, group: str, timeout: float) -> dict[Operation, bool]:
    """Rights on a group; on one that does not exist, only that it may be seen. Raises KafkaException."""
    (future,) = client.describe_consumer_groups(
        [group], include_authorized_operations=True, request_timeout=timeout
    ).values()
    try:
        return _named(future.result().authorized_operations)
    except KafkaException as exception:
        code = kafka_error(exception).code()
        if code == KafkaError.GROUP_AUTHORIZATION_FAILED:
            return dict.fromkeys(OPERATIONS, False)
        if code in _GROUP_MISSING:
            return {"Describe": True}
        raise


def may_use_transactions(config: Mapping[str, Any], transactional_id: str) -> dict[Operation, bool]:
    """Rights on a transactional id, found out by taking it: brokers answer no question for them.

    Raises KafkaException.
    """
    producer = confluent_kafka.Producer(
        {**config, "transactional.id": transactional_id}, logger=client_logger("producer")
    )
    try:
        producer.init_transactions(_TRANSACTION_TIMEOUT)
    except KafkaException as exception:
        if kafka_error(exception).code() != KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED:
            raise
        return {"Write": False}
    return {"Write": True, "Describe": True}


def _may_create(client: AdminClient, topic: str, timeout: float) -> bool:
    (future,) = client.create_topics(
        [NewTopic(topic, num_partitions=1)], validate_only=True, request_timeout=timeout
    ).values()
    try:
        future.result()
    except KafkaException as exception:
        if kafka_error(exception).code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            return False
        raise
    return True


def _named(operations: Any) -> dict[Operation, bool]:
    """The brokers name what is implied, too: who may read may describe."""
    allowed = set(operations or ())
    everything = AclOperation.ALL in allowed
    return {name: everything or operation in allowed for name, operation in _NAMES.items()}
