"""The contract of the Consumer port."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext, suppress
from itertools import chain

import pytest

from sage.errors import InvalidTopology, NotFound
from sage.model.partition import TopicPartition
from sage.ports import CommitRefused, Consumer
from tests.support.kafka import Cluster, Recorder, poll_until, read
from tests.support.waiting import wait_until

Unique = Callable[[str], str]


def test_gives_records_in_the_order_of_their_partition(cluster: Cluster, unique: Unique) -> None:
    topic = cluster.topic(unique("ordered"))
    cluster.fill(topic, *(b"%d" % number for number in range(1000)))
    records = read(cluster.member(unique("g"), topic), 1000, batch=100)
    assert [record.value() for record in records] == [b"%d" % number for number in range(1000)]
    assert [record.offset() for record in records] == list(range(1000))


def test_a_batch_is_never_larger_than_asked_for(cluster: Cluster, unique: Unique) -> None:
    topic = cluster.topic(unique("batches"))
    cluster.fill(topic, *[b"x"] * 50)
    consumer = cluster.member(unique("g"), topic)
    sizes: list[int] = []
    while sum(sizes) < 50:
        sizes.append(len(consumer.poll(7, 1.0)))
    assert max(sizes) <= 7


def test_keeps_key_value_headers_and_timestamp_as_they_were(cluster: Cluster, unique: Unique) -> None:
    topic = cluster.topic(unique("whole"))
    headers = [("a", b"1"), ("a", b"2"), ("empty", b""), ("null", None)]
    producer = cluster.producer()
    producer.produce(topic, b"", b"", headers, timestamp=1_700_000_000_123)
    producer.produce(topic, None, None)
    assert producer.flush(20) == 0
    first, second = read(cluster.member(unique("g"), topic), 2)
    assert (first.key(), first.value(), first.headers()) == (b"", b"", headers)
    assert first.timestamp() == (1, 1_700_000_000_123)
    assert (second.key(), second.value(), second.headers()) == (None, None, None)
    assert (second.topic(), second.partition(), second.offset()) == (topic, 0, 1)


def test_goes_on_at_the_committed_offset(cluster: Cluster, unique: Unique) -> None:
    topic, group = cluster.topic(unique("resumed")), unique("g")
    cluster.fill(topic, b"0", b"1", b"2")
    first = cluster.member(group, topic)
    read(first, 3)
    first.commit({TopicPartition(topic, 0): 2})
    first.close()
    again = read(cluster.member(group, topic), 1)
    assert [record.value() for record in again] == [b"2"]


def test_starts_at_the_end_when_told_so(cluster: Cluster, unique: Unique) -> None:
    topic = cluster.topic(unique("latest"))
    cluster.fill(topic, b"old")
    listener = Recorder()
    consumer = cluster.consumer(unique("g"), read_from="latest")
    consumer.subscribe([topic], listener)
    ends: dict[TopicPartition, int] = {}
    poll_until(lambda: ends.update(consumer.ends_reached()) or ends, consumer)
    cluster.fill(topic, b"new")
    assert [record.value() for record in read(consumer, 1)] == [b"new"]


def test_committed_offsets_are_none_until_committed(cluster: Cluster, unique: Unique) -> None:
    topic = cluster.topic(unique("committed"), partitions=2)
    consumer = cluster.member(unique("g"), topic)
    both = [TopicPartition(topic, 0), TopicPartition(topic, 1)]
    poll_until(lambda: consumer.assignment() == frozenset(both), consumer)
    assert consumer.committed(both) == {both[0]: None, both[1]: None}
    consumer.commit({both[1]: 0})
    assert consumer.committed(both) == {both[0]: None, both[1]: 0}


def test_tells_the_end_of_each_partition_once_reached(cluster: Cluster, unique: Unique) -> None:
    topic = cluster.topic(unique("ends"), partitions=2)
    cluster.fill(topic, b"a", b"b", b"c", partition=0)
    consumer = cluster.member(unique("g"), topic)
    ends: dict[TopicPartition, int] = {}
    poll_until(lambda: ends.update(consumer.ends_reached()) or len(ends) == 2, consumer)
    assert ends == {TopicPartition(topic, 0): 3, TopicPartition(topic, 1): 0}
    assert consumer.ends_reached() == {}


def test_an_end_passed_by_later_records_is_forgotten(cluster: Cluster, unique: Unique) -> None:
    topic = cluster.topic(unique("passed"))
    where = TopicPartition(topic, 0)
    cluster.fill(topic, b"a")
    consumer = cluster.consumer(None)
    consumer.assign({where: 0})
    read(consumer, 1)
    consumer.poll(10, 1.0)  # the end at 1 is noted, and nobody takes it
    cluster.fill(topic, b"b", b"c")
    read(consumer, 2)
    ends: dict[TopicPartition, int] = {}
    poll_until(lambda: ends.update(consumer.ends_reached()) or ends, consumer)
    assert ends == {where: 3}


def test_reads_by_hand_from_any_offset(cluster: Cluster, unique: Unique) -> None:
    topic = cluster.topic(unique("plain"))
    where = TopicPartition(topic, 0)
    cluster.fill(topic, *(b"%d" % number for number in range(10)))
    consumer = cluster.consumer(None)
    consumer.assign({where: 7})
    assert [record.value() for record in read(consumer, 3)] == [b"7", b"8", b"9"]
    consumer.assign({where: -2})
    assert read(consumer, 1)[0].value() == b"0"
    assert consumer.assignment() == {where}


def test_seek_rewinds(cluster: Cluster, unique: Unique) -> None:
    topic = cluster.topic(unique("rewound"))
    cluster.fill(topic, *(b"%d" % number for number in range(100)))
    consumer = cluster.member(unique("g"), topic)
    read(consumer, 100)
    consumer.seek(TopicPartition(topic, 0), 95)
    assert [record.offset() for record in read(consumer, 5)] == [95, 96, 97, 98, 99]


def test_a_seek_while_assigned_is_where_reading_starts(cluster: Cluster, unique: Unique) -> None:
    topic = cluster.topic(unique("started"))
    cluster.fill(topic, *(b"%d" % number for number in range(10)))
    consumer = cluster.consumer(unique("g"))
    listener = Recorder(when_assigned=lambda partitions: consumer.seek(partitions[0], 6))
    consumer.subscribe([topic], listener)
    assert [record.offset() for record in read(consumer, 4)] == [6, 7, 8, 9]


def test_a_pause_while_assigned_holds_from_the_first_record_on(cluster: Cluster, unique: Unique) -> None:
    topic = cluster.topic(unique("held"), partitions=2)
    cluster.fill(topic, b"a", partition=0)
    cluster.fill(topic, b"b", partition=1)
    consumer = cluster.consumer(unique("g"))
    held = TopicPartition(topic, 0)
    consumer.subscribe([topic], Recorder(when_assigned=lambda _: consumer.pause([held])))
    assert [record.value() for record in read(consumer, 1)] == [b"b"]
    assert consumer.poll(10, 0.5) == []
    consumer.resume([held])
    assert [record.value() for record in read(consumer, 1)] == [b"a"]


def test_a_paused_partition_gives_nothing_until_resumed(cluster: Cluster, unique: Unique) -> None:
    topic = cluster.topic(unique("paused"))
    consumer = cluster.member(unique("g"), topic)
    where = TopicPartition(topic, 0)
    poll_until(consumer.assignment, consumer)
    consumer.pause([where])
    cluster.fill(topic, b"a")
    assert consumer.poll(10, 0.5) == []
    consumer.resume([where])
    assert [record.value() for record in read(consumer, 1)] == [b"a"]


def test_members_share_the_partitions_and_hand_over_what_is_committed(cluster: Cluster, unique: Unique) -> None:
    topic, group = cluster.topic(unique("shared"), partitions=4), unique("g")
    first_listener, second_listener = Recorder(), Recorder()
    first = cluster.member(group, topic, first_listener)
    poll_until(lambda: len(first.assignment()) == 4, first)
    if cluster.commits_while_revoking:
        first_listener.when_revoked = lambda partitions: first.commit(dict.fromkeys(partitions, 0))
    else:
        first.commit(dict.fromkeys(first.assignment(), 0))
    second = cluster.member(group, topic, second_listener)
    poll_until(lambda: len(first.assignment()) == 2 and len(second.assignment()) == 2, first, second)
    assert first.assignment() | second.assignment() == {TopicPartition(topic, number) for number in range(4)}
    assert set(chain(*first_listener.revoked)) >= second.assignment()
    assert set(second.committed(sorted(second.assignment())).values()) == {0}
    second.close()
    poll_until(lambda: len(first.assignment()) == 4, first)
    assert set(chain(*second_listener.revoked)) == set(chain(*second_listener.assigned))


def test_no_record_is_lost_or_given_twice_when_members_come_and_go(cluster: Cluster, unique: Unique) -> None:
    topic, group = cluster.topic(unique("moved"), partitions=4), unique("g")
    values = [b"%d" % number for number in range(400)]
    cluster.fill(topic, *values)
    seen: list[bytes | None] = []
    positions: dict[TopicPartition, int] = {}

    def take(consumer: Consumer, timeout: float) -> None:
        for record in consumer.poll(10, timeout):
            seen.append(record.value())
            positions[TopicPartition(record.topic(), record.partition())] = record.offset() + 1

    def committing(consumer: Consumer) -> Recorder:
        def commit(partitions: list[TopicPartition]) -> None:
            with nullcontext() if cluster.commits_while_revoking else suppress(CommitRefused):
                consumer.commit({each: positions[each] for each in partitions if each in positions})

        return Recorder(when_revoked=commit)

    first, second = cluster.consumer(group), cluster.consumer(group)
    first.subscribe([topic], committing(first))
    take(first, 5.0)
    second.subscribe([topic], committing(second))

    def all_seen() -> bool:
        take(first, 0.02)
        take(second, 0.02)
        return len(set(seen)) == 400

    wait_until(all_seen, timeout=60)
    if cluster.commits_while_revoking:
        assert len(seen) == 400
    assert set(seen) == set(values)


def test_a_commit_for_a_partition_that_went_away_is_refused(cluster: Cluster, unique: Unique) -> None:
    topic, group = cluster.topic(unique("refused"), partitions=2), unique("g")
    first = cluster.member(group, topic)
    poll_until(lambda: len(first.assignment()) == 2, first)
    before = first.assignment()
    second = cluster.member(group, topic)
    poll_until(lambda: len(first.assignment()) == 1 and len(second.assignment()) == 1, first, second)
    (gone,) = before - first.assignment()
    with pytest.raises(CommitRefused):
        first.commit({gone: 5})
    assert second.committed([gone]) == {gone: None}


def test_close_gives_everything_back_and_can_be_repeated(cluster: Cluster, unique: Unique) -> None:
    topic = cluster.topic(unique("closed"))
    listener = Recorder()
    consumer = cluster.member(unique("g"), topic, listener)
    poll_until(consumer.assignment, consumer)
    consumer.close()
    consumer.close()
    assert listener.revoked == [[TopicPartition(topic, 0)]]
    assert listener.lost == []


def test_an_exception_of_the_listener_reaches_the_caller_of_poll(cluster: Cluster, unique: Unique) -> None:
    topic = cluster.topic(unique("raised"))

    def refuse(_: object) -> None:
        raise LookupError("not today")

    consumer = cluster.member(unique("g"), topic, Recorder(when_assigned=refuse))
    with pytest.raises(LookupError, match="not today"):
        poll_until(lambda: False, consumer)


def test_a_topic_that_does_not_exist_is_reported(cluster: Cluster, unique: Unique) -> None:
    consumer = cluster.member(unique("g"), unique("never-made"))
    with pytest.raises(NotFound):
        poll_until(lambda: False, consumer, timeout=60)


def test_hides_aborted_records_and_ends_behind_the_marker(cluster: Cluster, unique: Unique) -> None:
    topic = cluster.topic(unique("transactional"))
    where = TopicPartition(topic, 0)
    producer = cluster.producer(transactional_id=unique("tx"))
    producer.init_transactions()
    for value, commit in ((b"kept", True), (b"dropped", False)):
        producer.begin_transaction()
        producer.produce(topic, value)
        assert producer.flush(20) == 0
        producer.commit_transaction() if commit else producer.abort_transaction()
    consumer = cluster.consumer(None)
    consumer.assign({where: 0})
    ends: dict[TopicPartition, int] = {}
    records = poll_until(lambda: ends.update(consumer.ends_reached()) or ends.get(where) == 4, consumer)
    assert [record.value() for record in records] == [b"kept"]


def test_a_reader_without_a_group_commits_nothing(cluster: Cluster, unique: Unique) -> None:
    where = TopicPartition(cluster.topic(unique("groupless")), 0)
    consumer = cluster.consumer(None)
    consumer.assign({where: 0})
    with pytest.raises(InvalidTopology):
        consumer.commit({where: 0})
