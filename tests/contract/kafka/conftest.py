"""The clusters that every contract of the Kafka ports runs on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sage.testing.broker import InMemoryClients
from tests.support.brokers import KafkaContainerBroker
from tests.support.kafka import Cluster


@pytest.fixture(scope="session")
def kafka_container() -> Iterator[KafkaContainerBroker]:
    broker = KafkaContainerBroker.start_or_skip()
    yield broker
    broker.stop()


@pytest.fixture(params=["in_memory", "embedded", "apache", "container"])
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """The fake, the embedded broker, Apache Kafka with KIP-848 groups, and Kafka in a container."""
    fixtures = {"embedded": "embedded_broker", "apache": "apache_kafka", "container": "kafka_container"}
    if request.param == "in_memory":
        made = Cluster("in_memory", InMemoryClients())
    else:
        made = Cluster(request.param, request.getfixturevalue(fixtures[request.param]).clients())
    yield made
    made.close()
