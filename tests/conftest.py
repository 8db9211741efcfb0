"""Brokers for every test that wants one.

``broker`` runs a test on the embedded broker and on Apache Kafka; ``embedded_broker``, ``apache_kafka`` and
``three_node_kafka`` name one. The first two are started once per session, so topics and groups need names of
their own: take them from ``unique``.
"""

from __future__ import annotations

import logging
import signal
import uuid
from collections.abc import Callable, Iterator

import pytest

from sage.model.secrets import forget_secrets
from tests.support.brokers import ApacheBroker, Broker, EmbeddedBroker, require_embedded, start_apache


def pytest_configure() -> None:
    """Hear Ctrl-C: a shell makes what it starts in the background deaf to it, and with it what tests start."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark by folder, so that ``-m "not integration"`` starts nothing."""
    for item in items:
        if "tests/integration/" in item.path.as_posix() or "tests/contract/kafka" in item.path.as_posix():
            item.add_marker(pytest.mark.integration)


@pytest.fixture(autouse=True)
def _nothing_of_other_tests() -> Iterator[None]:
    """What belongs to a process, and a test may have set: secrets, which would be hidden in what the next one expects
    to read, and the command line's log."""
    logger = logging.getLogger("sage")
    level, handlers = logger.level, list(logger.handlers)
    yield
    forget_secrets()
    logger.setLevel(level)
    logger.handlers[:] = handlers


@pytest.fixture(scope="session")
def embedded_broker() -> Iterator[EmbeddedBroker]:
    """The embedded broker. Don't kill it: tests that kill start their own."""
    require_embedded()
    broker = EmbeddedBroker().start()
    yield broker
    broker.stop()


@pytest.fixture(scope="session")
def apache_kafka() -> Iterator[ApacheBroker]:
    """Apache Kafka on one node, with KIP-848 groups. Don't kill it: tests that kill start their own."""
    broker = start_apache(1)
    yield broker
    broker.cluster.stop()


@pytest.fixture
def three_node_kafka() -> Iterator[ApacheBroker]:
    """Apache Kafka on three nodes, of this test's own, so that it may kill them."""
    broker = start_apache(3)
    yield broker
    broker.cluster.stop()


@pytest.fixture(params=["embedded_broker", "apache_kafka"])
def broker(request: pytest.FixtureRequest) -> Broker:
    """Both real brokers in turn."""
    found: Broker = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def unique() -> Callable[[str], str]:
    """Makes a name that no other test has: ``unique("orders")``."""
    return lambda prefix: f"{prefix}-{uuid.uuid4().hex[:8]}"
