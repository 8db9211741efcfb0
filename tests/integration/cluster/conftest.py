"""Three brokers for all tests of this folder that kill none of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.brokers import ApacheBroker, start_apache


@pytest.fixture(scope="package")
def three_brokers() -> Iterator[ApacheBroker]:
    """Apache Kafka on three nodes. Don't kill them: tests that do take ``three_node_kafka``."""
    broker = start_apache(3)
    yield broker
    broker.cluster.stop()
