"""Offsets that the broker has no record for: a member neither starts over nor skips without a word."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sage.errors import StageStopped
from sage.kafka.clients import ConfluentClients
from sage.kafka.out_of_range import PATIENCE, OutOfRange
from sage.model.partition import TopicPartition
from tests.support.brokers import ApacheBroker
from tests.support.kafka import Cluster, poll_until, read


@pytest.fixture(params=["consumer", "classic"])
def cluster(request: pytest.FixtureRequest, apache_kafka: ApacheBroker) -> Iterator[Cluster]:
    """Apache Kafka in both of its group protocols."""
    made = Cluster("apache", ConfluentClients(apache_kafka.bootstrap_servers, group_protocol=request.param))
    yield made
    made.close()


def test_records_that_are_dropped_in_front_of_a_member_stop_it(cluster: Cluster, unique: Callable[[str], str]) -> None:
    topic = cluster.topic(unique("dropped"), partitions=2)
    at = TopicPartition(topic, 0)
    cluster.fill(topic, *(b"%d" % number for number in range(10)), partition=0)
    consumer = cluster.member(unique("g"), topic)
    assert len(read(consumer, 10)) == 10
    consumer.seek(at, 3)
    consumer.pause([at])
    cluster.admin().delete_records({at: 8})
    consumer.resume([at])
    with pytest.raises(StageStopped, match=r"5 records of .*-0 were dropped .*it was at 3, the log starts at 8"):
        poll_until(lambda: False, consumer)


def test_an_offset_that_is_not_there_yet_is_waited_for(cluster: Cluster, unique: Callable[[str], str]) -> None:
    topic = cluster.topic(unique("ahead"), partitions=2)
    cluster.fill(topic, b"0", b"1", b"2", partition=0)
    cluster.fill(topic, b"0", partition=1)
    consumer = cluster.member(unique("g"), topic)
    assert len(read(consumer, 4)) == 4
    consumer.seek(TopicPartition(topic, 0), 5)  # as where brokers come back that do not know their end yet
    for _ in range(5):
        assert consumer.poll(10, 0.1) == []
    cluster.fill(topic, b"3", b"4", b"5", b"6", partition=0)
    cluster.fill(topic, b"1", partition=1)
    found = read(consumer, 3)
    assert sorted((each.partition(), each.offset()) for each in found) == [(0, 5), (0, 6), (1, 1)]


class Log:
    """A consumer that knows where a log begins and ends."""

    def get_watermark_offsets(self, partition: object, timeout: float, cached: bool) -> tuple[int, int]:
        return 0, 7


def test_a_log_that_stays_shorter_than_what_was_read_of_it_stops_the_member(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    now = 100.0
    log: Any = Log()
    places = OutOfRange(log, "earliest", now=lambda: now)
    at = TopicPartition("orders", 0)
    while now < 100.0 + PATIENCE:
        assert places.resume_at(at, 9) == 9
        now += 1.0
    now += PATIENCE  # it was there again meanwhile
    assert places.resume_at(at, 9) == 9
    with pytest.raises(StageStopped, match="the log of orders-0 ends at 7, and was read up to 9"):
        for _ in range(100):
            now += 1.0
            places.resume_at(at, 9)
