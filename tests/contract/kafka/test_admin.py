"""The contract of the Admin port."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sage.errors import Conflict, InvalidTopology, NotFound
from sage.model.partition import TopicPartition
from sage.ports import TopicSpec
from tests.support.kafka import Cluster, poll_until, read
from tests.support.waiting import wait_until

Unique = Callable[[str], str]


def test_creates_the_missing_topics_only(cluster: Cluster, unique: Unique) -> None:
    admin, first, second = cluster.admin(), unique("first"), unique("second")
    assert admin.create([TopicSpec(first, 3)]) == [first]
    assert admin.create([TopicSpec(first, 3), TopicSpec(second)]) == [second]
    found = admin.describe([first, second, unique("other")])
    assert {name: info.partitions for name, info in found.items()} == {first: 3, second: 1}
    assert found[first].name == first
    assert found[first].replication_factor == 1


def test_a_new_topic_can_be_used_at_once(cluster: Cluster, unique: Unique) -> None:
    for _ in range(5):
        topic = cluster.topic(unique("fresh"), partitions=8)
        partitions = [TopicPartition(topic, number) for number in range(8)]
        for where in partitions:
            cluster.fill(topic, b"x", partition=where.partition)
        assert cluster.admin().end_offsets(partitions) == dict.fromkeys(partitions, 1)


def test_topic_ids_are_stable_and_differ(cluster: Cluster, unique: Unique) -> None:
    first, second = cluster.topic(unique("id")), cluster.topic(unique("id"))
    once = cluster.admin().describe([first, second])
    again = cluster.clients.admin().describe([first, second])
    assert once == again
    assert cluster.admin().describe([first, second, first]) == once, "a name that comes twice is one topic"
    assert once[first].topic_id != once[second].topic_id


def test_a_topic_can_be_given_more_partitions_and_none_are_taken_away(cluster: Cluster, unique: Unique) -> None:
    topic = cluster.topic(unique("wider"), partitions=1)
    cluster.fill(topic, b"x")
    before = cluster.admin().describe([topic])[topic]
    for wanted, found in ((3, 3), (3, 3), (2, 3)):
        cluster.admin().widen(topic, wanted)
        assert cluster.admin().describe([topic])[topic].partitions == found
    assert cluster.admin().describe([topic])[topic].topic_id == before.topic_id
    producer = cluster.clients.producer()  # one that has written to it before would hear of it minutes later
    producer.produce(topic, b"y", partition=2)
    assert producer.flush(10) == 0
    producer.close()
    places = [TopicPartition(topic, number) for number in range(3)]
    assert list(cluster.admin().end_offsets(places).values()) == [1, 0, 1]
    with pytest.raises(NotFound):
        cluster.admin().widen(unique("absent"), 2)


def test_knows_partitions_that_another_client_has_added(cluster: Cluster, unique: Unique) -> None:
    topic = cluster.topic(unique("t"), partitions=2)
    admin = cluster.admin()
    places = [TopicPartition(topic, number) for number in range(5)]
    assert admin.end_offsets(places[:2]) == dict.fromkeys(places[:2], 0)
    cluster.clients.admin().widen(topic, 5)
    assert admin.end_offsets(places) == dict.fromkeys(places, 0)
    assert admin.start_offsets(places) == dict.fromkeys(places, 0)
    assert admin.committed(unique("g"), places) == dict.fromkeys(places)
    with pytest.raises(NotFound):
        admin.end_offsets([TopicPartition(topic, 5)])


def test_forgets_groups_without_members(cluster: Cluster, unique: Unique) -> None:
    topic, group = cluster.topic(unique("t")), unique("g")
    cluster.fill(topic, b"x")
    member = cluster.member(group, topic)
    read(member, 1)
    member.commit({TopicPartition(topic, 0): 1})
    with pytest.raises(Conflict, match="members"):
        cluster.admin().delete_groups([group])
    member.close()
    wait_until(lambda: not cluster.admin().members(group), what="the member has left")
    cluster.admin().delete_groups([group, unique("absent")])
    assert group not in cluster.admin().list_groups()
    assert cluster.admin().committed(group, [TopicPartition(topic, 0)]) == {TopicPartition(topic, 0): None}


def test_takes_topic_properties(cluster: Cluster, unique: Unique) -> None:
    topic = unique("compacted")
    assert cluster.admin().create([TopicSpec(topic, config={"cleanup.policy": "compact", "retention.ms": "-1"})]) == [
        topic
    ]


def test_lists_topics_without_the_brokers_own(cluster: Cluster, unique: Unique) -> None:
    topic = cluster.topic(unique("listed"))
    consumer = cluster.member(unique("g"), topic)
    poll_until(consumer.assignment, consumer)
    names = [info.name for info in cluster.admin().list_topics()]
    assert topic in names
    assert names == sorted(names)
    assert "__consumer_offsets" not in names


def test_more_replicas_than_brokers_are_refused_in_words(cluster: Cluster, unique: Unique) -> None:
    topic = unique("replicas")
    with pytest.raises(InvalidTopology, match=topic):
        cluster.admin().create([TopicSpec(topic, 1, replication_factor=9)])


def test_deletes_and_says_what_was_missing(cluster: Cluster, unique: Unique) -> None:
    admin, topic, missing = cluster.admin(), cluster.topic(unique("gone")), unique("missing")
    with pytest.raises(NotFound, match=missing):
        admin.delete([missing, topic])
    assert admin.describe([topic]) == {}


def test_offsets_and_records_of_a_missing_partition_are_not_found(cluster: Cluster, unique: Unique) -> None:
    topic = cluster.topic(unique("short"))
    for where in (TopicPartition(unique("missing"), 0), TopicPartition(topic, 5)):
        with pytest.raises(NotFound):
            cluster.admin().end_offsets([where])
        with pytest.raises(NotFound):
            cluster.admin().delete_records({where: 1})


def test_gives_start_and_end_offsets(cluster: Cluster, unique: Unique) -> None:
    topic = cluster.topic(unique("offsets"), partitions=2)
    full, empty = TopicPartition(topic, 0), TopicPartition(topic, 1)
    cluster.fill(topic, b"a", b"b", partition=0)
    admin = cluster.admin()
    assert admin.start_offsets([full, empty]) == {full: 0, empty: 0}
    assert admin.end_offsets([full, empty]) == {full: 2, empty: 0}
    assert admin.end_offsets([]) == {}


def test_reads_a_groups_offsets_without_joining_it(cluster: Cluster, unique: Unique) -> None:
    topic, group = cluster.topic(unique("read"), partitions=2), unique("g")
    both = [TopicPartition(topic, 0), TopicPartition(topic, 1)]
    consumer = cluster.member(group, topic)
    poll_until(lambda: len(consumer.assignment()) == 2, consumer)
    consumer.commit({both[0]: 0})
    admin = cluster.admin()
    assert admin.committed(group, both) == {both[0]: 0, both[1]: None}
    assert admin.committed(unique("unknown"), both) == {both[0]: None, both[1]: None}
    assert group in admin.list_groups()
    consumer.poll(1, 0)
    assert len(consumer.assignment()) == 2
