"""Inputs whose offsets have gaps: compacted topics, aborted transactions, markers, partitions where nothing comes."""

from __future__ import annotations

import orjson
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource

from sage.model.partition import TopicPartition
from sage.ports import TopicSpec
from tests.integration.kafka.conftest import PARTITIONS, Stages
from tests.support.brokers import ApacheBroker
from tests.support.records import everything, make_topic, values_of
from tests.support.waiting import wait_until

READERS = ("sync", "async", "keyed")
"""The stages that read the source itself; those with state read what ``keyed`` writes."""


def committed(stages: Stages, kind: str) -> list[int | None]:
    """What one stage has committed, by partition."""
    admin = stages.broker.clients().admin()
    places = [TopicPartition(stages.source, number) for number in range(PARTITIONS)]
    found = admin.committed(f"{stages.env.topology.name}.{kind}", places)
    admin.close()
    return [found[place] for place in places]


def transact(stages: Stages, values: range, partitions: tuple[int, ...], *, commit: bool) -> None:
    """Write these into each of the partitions, in one transaction that is kept or not."""
    producer = stages.broker.clients().producer(transactional_id=f"{stages.source}-writer")
    producer.init_transactions()
    producer.begin_transaction()
    for partition in partitions:
        for value in values:
            producer.produce(stages.source, orjson.dumps({"n": value}), b"k%d" % (value % 3), partition=partition)
    assert producer.flush(30) == 0
    if commit:
        producer.commit_transaction()
    else:
        producer.abort_transaction()
    producer.close()


def test_aborted_records_and_markers_are_crossed_and_each_partitions_end_is_committed(stages: Stages) -> None:
    clients = stages.broker.clients()
    make_topic(clients, stages.source, PARTITIONS)
    transact(stages, range(10), (0, 2), commit=True)
    transact(stages, range(10, 20), (0, 1), commit=False)  # 0 ends in aborted ones, 1 holds nothing else
    transact(stages, range(20, 30), (2,), commit=False)
    transact(stages, range(30, 40), (2,), commit=True)  # 2 ends in a marker; 3 stays empty
    stages.build()
    stages.env.run_streaming(block=False)

    stages.come_to_rest()
    for kind in stages.kinds:
        assert sorted(value["n"] for value in values_of(stages.written(kind))) == sorted(
            [*range(10), *range(10), *range(30, 40)]
        ), kind
    for kind in READERS:
        assert committed(stages, kind)[:3] == [22, 11, 33], kind
        assert not committed(stages, kind)[3], kind


def test_a_partition_where_nothing_comes_any_more_gets_its_end_committed_while_others_flow(stages: Stages) -> None:
    clients = stages.broker.clients()
    make_topic(clients, stages.source, PARTITIONS)
    transact(stages, range(5), (0, 1), commit=True)
    stages.build()
    stages.env.run_streaming(block=False)
    stages.come_to_rest()

    transact(stages, range(5, 10), (1,), commit=False)  # lag that no record will ever take away
    transact(stages, range(10, 15), (0,), commit=True)
    stages.come_to_rest()
    for kind in stages.kinds:
        assert sorted(value["n"] for value in values_of(stages.written(kind))) == sorted(
            [*range(5), *range(5), *range(10, 15)]
        ), kind


def test_a_compacted_topic_is_read_over_its_gaps_tombstones_included(stages: Stages) -> None:
    clients = stages.broker.clients()
    look_for_work_often(stages.broker)
    admin = clients.admin()
    compacted = {
        "cleanup.policy": "compact", "segment.ms": "100", "min.cleanable.dirty.ratio": "0.001",
        "delete.retention.ms": "3600000",
    }  # fmt: skip
    admin.create([TopicSpec(stages.source, PARTITIONS, config=compacted)])
    admin.close()
    producer = clients.producer()

    def write(key: int, value: bytes | None) -> None:
        for partition in range(PARTITIONS):
            producer.produce(stages.source, value, b"k%d" % key, partition=partition)

    for number in range(200):
        write(number % 10, orjson.dumps({"n": number}))
    write(0, None)
    assert producer.flush(30) == 0

    def shrunk() -> bool:
        write(99, orjson.dumps({"n": 999}))  # rolls the segment, so that the one before may be cleaned
        assert producer.flush(30) == 0
        return all(n < 100 for n in _records_by_partition(stages).values())

    wait_until(shrunk, timeout=60, what="the log is compacted")
    stages.build()
    stages.env.run_streaming(block=False)

    stages.come_to_rest()
    there = everything(clients, stages.source)
    for kind in stages.kinds:
        found = stages.written(kind)
        assert sorted((m.key() or b"", m.value() or b"") for m in found) == sorted(
            (m.key() or b"", m.value() or b"") for m in there
        ), kind
    assert any(message.value() is None for message in there)
    producer.close()


def look_for_work_often(broker: ApacheBroker) -> None:
    """Have the broker's log cleaner sleep half a second where it sleeps fifteen."""
    admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
    change = ConfigEntry("log.cleaner.backoff.ms", "500", incremental_operation=AlterConfigOpType.SET)
    node = ConfigResource(ConfigResource.Type.BROKER, "1", incremental_configs=[change])
    for done in admin.incremental_alter_configs([node]).values():
        done.result(20)


def _records_by_partition(stages: Stages) -> dict[int, int]:
    found = dict.fromkeys(range(PARTITIONS), 0)
    for message in everything(stages.broker.clients(), stages.source):
        found[message.partition()] += 1
    return found
