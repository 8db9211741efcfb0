"""What is read of a changelog before its state moves to other partitions, and who is kept from it meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sage.cluster.deployer import Deployer
from sage.cluster.desired import Desired
from sage.cluster.names import ControlTopics
from sage.cluster.state_moves import StateMover, _read_all
from sage.model.partition import TopicPartition
from sage.ports import TopicSpec
from sage.testing.broker import InMemoryClients

PLACE = TopicPartition("t.count.changelog", 0)


class CommitsWhenAsked:
    """An admin during whose question for the end an open transaction is still open, and committed right after it."""

    def __init__(self, clients: InMemoryClients, producer: Any) -> None:
        self._admin = clients.admin()
        self._producer = producer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._admin, name)

    def end_offsets(self, partitions: Sequence[TopicPartition], *, committed: bool = True) -> Any:
        found = self._admin.end_offsets(partitions, committed=committed)
        self._producer.commit_transaction(5)
        return found


def test_changes_behind_a_transaction_that_is_still_open_are_read_too() -> None:
    clients = InMemoryClients()
    clients.admin().create([TopicSpec(PLACE.topic, 1)])
    late = clients.producer(transactional_id="late")
    late.init_transactions(5)
    late.begin_transaction()
    late.produce(PLACE.topic, b"1", b"a", partition=0)
    assert late.flush(5) == 0
    plain = clients.producer()
    plain.produce(PLACE.topic, b"2", b"b", partition=0)
    assert plain.flush(5) == 0
    admin: Any = CommitsWhenAsked(clients, late)
    found = [(message.key(), message.value()) for message in _read_all(clients, admin, PLACE)]
    assert found == [(b"a", b"1"), (b"b", b"2")]


def test_moving_state_of_one_topology_fences_no_deployer_of_another() -> None:
    clients, topics = InMemoryClients(), ControlTopics()
    deployer = Deployer(clients, topics, who="ann@laptop")
    with deployer.session("qa-state") as session, StateMover(clients, topics, "qa"):
        session.point(Desired("qa-state", 1))
