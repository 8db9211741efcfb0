"""What an actor does before it reads a partition: fencing who did not hand over, and refusing lost records."""

from __future__ import annotations

import threading

import pytest

from sage.errors import StageStopped
from sage.model.partition import TopicPartition
from sage.ports import ProducerFatal, TopicSpec
from sage.runtime.actors.commit_text import CommitText
from sage.runtime.actors.takeover import Takeover
from sage.testing.broker import InMemoryClients
from sage.testing.virtual_time import ManualClock

AT = TopicPartition("in", 0)


class Nobody:
    """A listener that does nothing."""

    def on_assigned(self, partitions: object) -> None: ...
    def on_revoked(self, partitions: object) -> None: ...
    def on_lost(self, partitions: object) -> None: ...


def made(records: int = 3) -> InMemoryClients:
    clients = InMemoryClients()
    clients.admin().create([TopicSpec("in", 1)])
    producer = clients.producer()
    for _ in range(records):
        producer.produce("in", b"1")
    producer.flush(1)
    return clients


def takeover(clients: InMemoryClients, name: str) -> Takeover:
    return Takeover(
        clients, clients.consumer("g"), "g", transactional_id=name, gives_first_offsets=bool(name),
        clock=ManualClock(), stopping=threading.Event(), where="t step",
    )  # fmt: skip


def commit_as(clients: InMemoryClients, name: str, offset: int) -> None:
    member = clients.consumer("g")
    member.subscribe(["in"], Nobody())
    member.poll(10, 0)
    member.commit({AT: offset}, {AT: CommitText(name).encode()})
    member.abandon()


def test_a_predecessor_that_did_not_hand_over_is_fenced_and_its_transaction_ended() -> None:
    clients = made()
    commit_as(clients, "dead-owner", 1)
    dead = clients.producer(transactional_id="dead-owner")
    dead.init_transactions()
    dead.begin_transaction()
    dead.produce("in", b"half")
    commits = takeover(clients, "mine").prepare([AT])
    assert commits[AT].offset == 1
    with pytest.raises(ProducerFatal):
        dead.commit_transaction()
    assert [m.value() for m in clients.messages("in")] == [b"1"] * 3


def test_a_clean_hand_over_fences_nobody() -> None:
    clients = made()
    commit_as(clients, "", 1)
    alive = clients.producer(transactional_id="other")
    alive.init_transactions()
    alive.begin_transaction()
    takeover(clients, "mine").prepare([AT])
    alive.commit_transaction()


def test_records_that_the_broker_dropped_unread_stop_the_stage() -> None:
    clients = made(5)
    commit_as(clients, "", 1)
    clients.admin().delete_records({AT: 4})
    with pytest.raises(
        StageStopped,
        match=r"3 records of in-0 were dropped by the broker.*`sage groups reset g --to earliest --execute`",
    ):
        takeover(clients, "").prepare([AT])


def test_a_first_start_under_exactly_once_begins_at_the_logs_start() -> None:
    assert takeover(made(), "mine").prepare([AT])[AT].offset == 0
    assert takeover(made(), "").prepare([AT])[AT].offset is None
