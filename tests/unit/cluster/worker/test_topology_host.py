"""When all that a unit reads counts as read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sage.cluster.worker.topology_host import is_all_read
from sage.model.partition import TopicPartition
from sage.ports import TopicSpec
from sage.testing.broker import InMemoryClients

GROUP = "t.work"
EDGE, RETRY = TopicPartition("t.edge", 0), TopicPartition("t.work.retry", 0)
PAIRS = ((GROUP, EDGE.topic), (GROUP, RETRY.topic))
PARTITIONS = {EDGE.topic: 1, RETRY.topic: 1}


class Brokers:
    """An edge and its retry topic, one record in each; a member of the group does something after a first answer."""

    def __init__(self) -> None:
        self.clients = InMemoryClients()
        self.clients.admin().create([TopicSpec(EDGE.topic), TopicSpec(RETRY.topic)])
        self._admin = self.clients.admin()
        self._consumer = self.clients.consumer(GROUP)
        self._consumer.assign({EDGE: 0, RETRY: 0})
        self.then: Callable[[], None] | None = None
        for place in (EDGE, RETRY):
            self.write(place)

    def write(self, place: TopicPartition) -> None:
        producer = self.clients.producer()
        producer.produce(place.topic, b"1", b"k", partition=place.partition)
        producer.flush(1)

    def commit(self, place: TopicPartition, offset: int) -> None:
        self._consumer.commit({place: offset})

    def __getattr__(self, name: str) -> Any:
        answer = getattr(self._admin, name)

        def ask(*arguments: Any, **options: Any) -> Any:
            found = answer(*arguments, **options)
            if self.then is not None:
                self.then, then = None, self.then
                then()
            return found

        return ask


def is_read(brokers: Any) -> bool:
    return is_all_read(brokers, PAIRS, PARTITIONS)


def test_what_is_not_committed_is_not_read() -> None:
    brokers = Brokers()
    assert not is_read(brokers)
    brokers.commit(EDGE, 1)
    assert not is_read(brokers)
    brokers.commit(RETRY, 1)
    assert is_read(brokers)


def test_a_record_that_is_parked_again_between_two_looks_is_not_missed() -> None:
    brokers = Brokers()
    brokers.commit(EDGE, 1)

    def parked_again() -> None:
        brokers.write(RETRY)
        brokers.commit(RETRY, 1)

    brokers.then = parked_again
    assert not is_read(brokers)


def test_a_record_that_is_parked_from_its_edge_between_two_looks_is_not_missed() -> None:
    brokers = Brokers()
    brokers.commit(RETRY, 1)

    def parked() -> None:
        brokers.write(RETRY)
        brokers.commit(EDGE, 1)

    for _ in range(2):  # whichever is asked about first
        brokers.then = parked
        assert not is_read(brokers)


def test_topics_that_are_not_there_are_read() -> None:
    assert is_all_read(InMemoryClients().admin(), [(GROUP, "t.gone")], {})
