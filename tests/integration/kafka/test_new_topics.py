"""A topic that was made a moment ago, asked for at a broker that has not heard of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from sage.errors import NotFound
from sage.model.partition import TopicPartition
from sage.ports import TopicInfo
from tests.support.brokers import ApacheBroker
from tests.support.records import make_topic


def test_a_broker_that_has_not_heard_of_a_new_topic_is_asked_again(
    apache_kafka: ApacheBroker, unique: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    topic, admin = unique("new"), apache_kafka.clients().admin()
    make_topic(apache_kafka.clients(), topic)
    heard_of_it = time.monotonic() + 0.5
    describe, list_offsets = admin.describe, admin._client.list_offsets

    def describe_or_miss(topics: Sequence[str]) -> dict[str, TopicInfo]:
        return describe(topics) if time.monotonic() > heard_of_it else {}

    def list_or_miss(*request: Any, **options: Any) -> Any:
        if time.monotonic() < heard_of_it:
            raise KafkaException(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART))
        return list_offsets(*request, **options)

    monkeypatch.setattr(admin, "describe", describe_or_miss)
    monkeypatch.setattr(admin._client, "list_offsets", list_or_miss, raising=False)
    assert admin.end_offsets([TopicPartition(topic, 0)]) == {TopicPartition(topic, 0): 0}
    with pytest.raises(NotFound, match=f"{topic}-7 does not exist"):
        admin.end_offsets([TopicPartition(topic, 7)])
    admin.close()
