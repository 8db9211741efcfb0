"""The contract of the Producer port."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sage.errors import RecordTooLarge
from sage.model.keys import partition_for
from sage.model.partition import TopicPartition
from sage.ports import DeliveryFailure, ProducerFatal
from tests.support.kafka import Cluster, poll_until, read

Unique = Callable[[str], str]


def test_a_key_belongs_to_the_partition_that_murmur2_says(cluster: Cluster, unique: Unique) -> None:
    topic = cluster.topic(unique("keyed"), partitions=7)
    producer = cluster.producer()
    keys = ["", "a", "k1", "user-42", "资料", "x" * 100]
    for key in keys:
        producer.produce(topic, b"v", key.encode())
    assert producer.flush(20) == 0
    consumer = cluster.consumer(None)
    consumer.assign({TopicPartition(topic, number): 0 for number in range(7)})
    found = {record.key(): record.partition() for record in read(consumer, len(keys))}
    # The empty key is left out: librdkafka's murmur2_random gives it any partition.
    assert {key: found[key] for key in found if key} == {
        key.encode(): partition_for(key.encode(), 7) for key in keys if key
    }


def test_a_named_partition_wins_over_the_key(cluster: Cluster, unique: Unique) -> None:
    topic = cluster.topic(unique("named"), partitions=3)
    reports: list[tuple[DeliveryFailure | None, int, int]] = []
    producer = cluster.producer()
    for number in (2, 2, 0):
        producer.produce(topic, b"v", b"same", partition=number, on_delivery=lambda *report: reports.append(report))
    assert producer.flush(20) == 0
    assert sorted(reports, key=lambda report: report[1:]) == [(None, 0, 0), (None, 2, 0), (None, 2, 1)]


def test_reports_come_from_poll_and_count_down_the_queue(cluster: Cluster, unique: Unique) -> None:
    topic = cluster.topic(unique("polled"))
    reports: list[object] = []
    producer = cluster.producer()
    producer.produce(topic, b"v", on_delivery=lambda *report: reports.append(report))
    assert len(producer) == 1
    for _ in range(100):
        if reports:
            break
        producer.poll(0.2)
    assert reports == [(None, 0, 0)]
    assert len(producer) == 0


def test_a_record_over_the_limit_is_refused_and_its_neighbours_go_on(cluster: Cluster, unique: Unique) -> None:
    topic = cluster.topic(unique("large"))
    producer = cluster.producer(config={"message.max.bytes": 10_000})
    producer.produce(topic, b"before")
    with pytest.raises(RecordTooLarge):
        producer.produce(topic, b"x" * 10_001)
    producer.produce(topic, b"after")
    assert producer.flush(20) == 0
    assert producer.take_failures() == []
    consumer = cluster.consumer(None)
    consumer.assign({TopicPartition(topic, 0): 0})
    assert [record.value() for record in read(consumer, 2)] == [b"before", b"after"]


def test_a_producer_that_reports_failures_only_still_knows_when_all_is_taken(cluster: Cluster, unique: Unique) -> None:
    topic = cluster.topic(unique("quiet"), partitions=2)
    producer = cluster.producer(config={"delivery.report.only.error": True})
    for number in range(200):
        producer.produce(topic, b"%d" % number)
    assert producer.flush(20) == 0
    assert len(producer) == 0
    assert producer.take_failures() == []
    consumer = cluster.consumer(None)
    consumer.assign({TopicPartition(topic, number): 0 for number in range(2)})
    assert {record.value() for record in read(consumer, 200)} == {b"%d" % number for number in range(200)}


def test_headers_and_key_count_towards_the_limit(cluster: Cluster, unique: Unique) -> None:
    topic = cluster.topic(unique("heads"))
    producer = cluster.producer(config={"message.max.bytes": 10_000})
    with pytest.raises(RecordTooLarge):
        producer.produce(topic, b"x", headers=[("stack", b"y" * 10_000)])
    with pytest.raises(RecordTooLarge):
        producer.produce(topic, b"x" * 5_000, b"y" * 5_000)
    producer.produce(topic, b"x" * 9_000, b"k", headers=[("h", b"y" * 500)])
    assert producer.flush(20) == 0
    assert producer.take_failures() == []


def test_a_full_queue_is_told_and_room_comes_from_polling(cluster: Cluster, unique: Unique) -> None:
    topic = cluster.topic(unique("full"))
    producer = cluster.producer(config={"queue.buffering.max.messages": 10, "linger.ms": 200})
    full = 0
    for number in range(30):
        while True:
            try:
                producer.produce(topic, b"%d" % number)
                break
            except BufferError:
                full += 1
                producer.poll(1.0)
    assert full > 0
    assert producer.flush(20) == 0
    consumer = cluster.consumer(None)
    consumer.assign({TopicPartition(topic, 0): 0})
    assert [record.value() for record in read(consumer, 30)] == [b"%d" % number for number in range(30)]


def test_a_transaction_shows_outputs_and_offsets_together(cluster: Cluster, unique: Unique) -> None:
    source, target, group = cluster.topic(unique("in")), cluster.topic(unique("out")), unique("g")
    where, out = TopicPartition(source, 0), TopicPartition(target, 0)
    cluster.fill(source, b"a")
    consumer = cluster.member(group, source)
    read(consumer, 1)
    producer = cluster.producer(transactional_id=unique("tx"))
    producer.init_transactions()
    producer.begin_transaction()
    producer.produce(target, b"A")
    producer.send_offsets({where: 1}, consumer.group_metadata())
    assert producer.flush(20) == 0
    admin = cluster.admin()
    assert admin.end_offsets([out]) == {out: 0}
    assert admin.end_offsets([out], committed=False) == {out: 1}
    producer.commit_transaction()
    reader = cluster.consumer(None)
    reader.assign({out: 0})
    assert [record.value() for record in read(reader, 1)] == [b"A"]
    assert admin.committed(group, [where]) == {where: 1}


def test_an_aborted_transaction_leaves_no_offsets(cluster: Cluster, unique: Unique) -> None:
    source, target, group = cluster.topic(unique("in")), cluster.topic(unique("out")), unique("g")
    where = TopicPartition(source, 0)
    consumer = cluster.member(group, source)
    poll_until(consumer.assignment, consumer)
    producer = cluster.producer(transactional_id=unique("tx"))
    producer.init_transactions()
    producer.begin_transaction()
    producer.produce(target, b"A")
    producer.send_offsets({where: 1}, consumer.group_metadata())
    producer.abort_transaction()
    assert consumer.committed([where]) == {where: None}
    producer.begin_transaction()
    producer.produce(target, b"B")
    producer.commit_transaction()
    reader = cluster.consumer(None)
    reader.assign({TopicPartition(target, 0): 0})
    assert [record.value() for record in read(reader, 1)] == [b"B"]


def test_a_newer_owner_of_the_transactional_id_fences_the_older(cluster: Cluster, unique: Unique) -> None:
    topic, name = cluster.topic(unique("fenced")), unique("tx")
    old = cluster.producer(transactional_id=name)
    old.init_transactions()
    old.begin_transaction()
    old.produce(topic, b"old")
    old.flush(20)
    new = cluster.producer(transactional_id=name)
    new.init_transactions()
    with pytest.raises(ProducerFatal):
        old.commit_transaction()
    new.begin_transaction()
    new.produce(topic, b"new")
    new.commit_transaction()
    reader = cluster.consumer(None)
    reader.assign({TopicPartition(topic, 0): 0})
    assert [record.value() for record in read(reader, 1)] == [b"new"]


def test_close_can_be_repeated(cluster: Cluster, unique: Unique) -> None:
    topic = cluster.topic(unique("closed"))
    producer = cluster.producer()
    producer.produce(topic, b"v")
    producer.close()
    producer.close()
    where = TopicPartition(topic, 0)
    assert cluster.admin().end_offsets([where]) == {where: 1}
