"""A copy follows its changelog on real brokers, whatever became of the transactions that wrote it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sage.model.partition import TopicPartition
from sage.operations.state import show_state
from sage.ports import KafkaClients, TopicSpec
from sage.runtime.runs.clock import SystemClock
from sage.runtime.state.restore import Restores
from sage.runtime.state.table import PartitionTable
from sage.state.rocks import RocksStore, RocksStores
from tests.support.brokers import ApacheBroker, Broker
from tests.support.waiting import wait_until

pytestmark = pytest.mark.integration


def restored(clients: KafkaClients, topic: str, store: RocksStore) -> RocksStore:
    restores = Restores(clients, topic, has_timers=False, clock=SystemClock(), where="t")
    restores.add(0, store)
    wait_until(lambda: 0 in restores.step(), timeout=60, what="the copy is complete")
    restores.close()
    return store


def state(store: RocksStore) -> dict[bytes, bytes]:
    return dict(store.scan(b"s"))


def test_a_lost_copy_is_made_again_and_a_kept_one_goes_on(
    broker: Broker, unique: Callable[[str], str], tmp_path: Path
) -> None:
    clients, topology = broker.clients(), unique("shop")
    topic = f"{topology}.count.changelog"
    clients.admin().create([TopicSpec(topic, config={"cleanup.policy": "compact"})])
    producer = clients.producer()
    for n in range(2_000):
        producer.produce(topic, b'{"s":{"n":%d}}' % n, b"k%d" % (n % 50), partition=0)
    producer.produce(topic, None, b"k0", partition=0)
    assert producer.flush(30) == 0
    store = restored(clients, topic, RocksStores(tmp_path / "a").open(topology, "count", 0))
    assert store.applied == 2_001
    assert state(store) == {b"sk%d" % n: b'{"s":{"n":%d}}' % (1_950 + n) for n in range(1, 50)}

    producer.produce(topic, b'{"s":{"n":7}}', b"k0", partition=0)
    assert producer.flush(30) == 0
    producer.close()
    assert restored(clients, topic, store).get(b"sk0") == b'{"s":{"n":7}}'
    other = restored(clients, topic, RocksStores(tmp_path / "b").open(topology, "count", 0))
    assert state(other) == state(store)
    found = show_state(clients, topology, "count", "k0")
    assert (found.state, found.offset) == ({"n": 7}, 2_001)


def test_a_table_in_transactions(apache_kafka: ApacheBroker, unique: Callable[[str], str], tmp_path: Path) -> None:
    """The answers of the broker for what a transaction wrote are there when the transaction is."""
    clients, topology = apache_kafka.clients(), unique("shop")
    topic = f"{topology}.count.changelog"
    clients.admin().create([TopicSpec(topic, config={"cleanup.policy": "compact"})])
    store = restored(clients, topic, RocksStores(tmp_path / "a").open(topology, "count", 0))
    table = PartitionTable(store, model=None, ttl=None, has_timers=False)
    producer = clients.producer(transactional_id=f"{topology}.count.1")
    producer.init_transactions()
    for step, commits in enumerate((True, False, True), start=1):
        producer.begin_transaction()
        for key in (b"a", b"b"):
            work = table.begin(key, 0)
            work.state["n"] = work.state.get("n", 0) + step
            change = table.stage(work)
            assert change is not None
            table.prepare(change)
        for key, value in table.prepared.items():
            producer.produce(topic, value, key, partition=0, on_delivery=table.acknowledged)
        if commits:
            producer.commit_transaction()
            table.keep()
        else:
            assert producer.flush(30) == 0
            producer.abort_transaction()
            table.drop()
    producer.close()
    (end,) = clients.admin().end_offsets([TopicPartition(topic, 0)]).values()
    assert end - store.applied == 1, "only the last marker is missing"
    expected = {b"sa": b'{"s":{"n":4}}', b"sb": b'{"s":{"n":4}}'}
    assert state(store) == expected
    assert restored(clients, topic, store).applied == end
    assert state(restored(clients, topic, RocksStores(tmp_path / "b").open(topology, "count", 0))) == expected
