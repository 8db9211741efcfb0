"""Answers that get lost: what the broker has then, and what a producer makes of it."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from sage.errors import TransientFailure
from sage.kafka.clients import ConfluentClients
from sage.ports import DeliveryFailure, Producer
from tests.support.brokers import start_apache
from tests.support.lost_answers import LosingRelay
from tests.support.records import everything, make_topic
from tests.support.waiting import wait_until

ROWS = [b"row %d" % number for number in range(8)]


@pytest.fixture
def relay() -> Iterator[LosingRelay]:
    """The only way to a broker of its own."""
    way = LosingRelay()
    try:
        broker = start_apache(1, {"advertised.listeners": f"PLAINTEXT://127.0.0.1:{way.port}"})
        try:
            way.start(int(broker.bootstrap_servers.rpartition(":")[2]))
            yield way
        finally:
            broker.cluster.stop()
    finally:
        way.close()


def abort_patiently(producer: Producer) -> None:
    """As an actor does."""
    while True:
        try:
            producer.abort_transaction(1.0)
        except TransientFailure:
            continue
        return


@pytest.mark.parametrize("tells_each", [False, True], ids=["one listener", "a listener for each record"])
def test_what_was_taken_in_an_aborted_transaction_is_written_again_by_the_next_one(
    relay: LosingRelay, tells_each: bool
) -> None:
    """librdkafka gives both the same numbers: the broker would take the second for a repetition, and write nothing."""
    clients = ConfluentClients(f"127.0.0.1:{relay.port}")
    make_topic(clients, "rows")
    producer = clients.producer(transactional_id="writer")
    told: list[DeliveryFailure | None] = []
    listener = (lambda failure, *_: told.append(failure)) if tells_each else None

    def write(*values: bytes) -> None:
        for value in values:
            producer.produce("rows", value, on_delivery=listener)

    producer.init_transactions()
    producer.begin_transaction()
    write(b"before")
    producer.commit_transaction()
    producer.begin_transaction()
    write(b"aborted")
    assert producer.flush(30) == 0
    relay.lose_next_answer()
    write(*ROWS)
    wait_until(lambda: producer.poll(0.1) is not None and relay.lost.is_set(), timeout=30, what="the answer is lost")
    aborting = threading.Thread(target=abort_patiently, args=(producer,))
    aborting.start()
    refused = relay.refused
    wait_until(lambda: relay.refused > refused + 2, timeout=30, what="it aborts while the broker is away")
    relay.open()
    aborting.join(60)
    assert not aborting.is_alive(), "it does not end"
    assert len(producer.take_failures()) + sum(failure is not None for failure in told) == len(ROWS)

    producer.begin_transaction()
    write(*ROWS)
    producer.commit_transaction()
    producer.close()
    assert [message.value() for message in everything(clients, "rows")] == [b"before", *ROWS]
