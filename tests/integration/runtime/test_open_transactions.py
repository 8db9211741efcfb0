"""On Apache Kafka: what a worker left open hides nothing from the next owner that others have committed behind it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from sage.model.partition import TopicPartition
from sage.ports import Commit, KafkaClients, Producer, TopicSpec
from sage.runtime.retries.parking import scan_parked
from sage.runtime.runs.clock import SystemClock
from sage.runtime.state.restore import Restores
from sage.state.rocks import RocksStores
from tests.support.brokers import ApacheBroker
from tests.support.waiting import wait_until

pytestmark = pytest.mark.integration


def opened(clients: KafkaClients, topic: str, name: str, key: bytes) -> Producer:
    """A producer with a record in its open transaction that the broker has."""
    producer = clients.producer(transactional_id=name)
    producer.init_transactions()
    producer.begin_transaction()
    producer.produce(topic, b'{"s":{"n":1}}', key, partition=0)
    assert producer.flush(30) == 0
    return producer


def test_parked_records_and_state_behind_a_transaction_that_nobody_ends(
    apache_kafka: ApacheBroker, unique: Callable[[str], str], tmp_path: Path
) -> None:
    """Its owner's name is nowhere, so nobody fences it: the broker's time-out ends it."""
    clients, topology = apache_kafka.clients(), unique("shop")
    topic = f"{topology}.count.changelog"
    place = TopicPartition(topic, 0)
    clients.admin().create([TopicSpec(topic)])
    dead = opened(clients, topic, f"{topology}.dead", b"never")
    left = opened(clients, topic, f"{topology}.left", b"committed")
    left.commit_transaction()
    assert clients.admin().end_offsets([place])[place] < clients.admin().end_offsets([place], committed=False)[place]

    store = RocksStores(tmp_path).open(topology, "count", 0)
    restores = Restores(clients, topic, has_timers=False, clock=SystemClock(), where="t")
    restores.add(0, store)
    assert restores.step() == []
    found = scan_parked(clients, place, Commit(0), clock=SystemClock(), stopping=threading.Event())
    assert list(found) == [b"committed"]
    wait_until(lambda: 0 in restores.step(), timeout=60, what="the copy is complete")
    assert [key for key, _ in store.scan(b"s")] == [b"scommitted"]
    restores.close()
    store.close()
    for producer in (dead, left):
        producer.close()
