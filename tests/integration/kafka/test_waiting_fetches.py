"""Fetches of the embedded broker that would wait for an hour: what is written ends the wait of those who read it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sage.kafka.clients import ConfluentClients
from sage.kafka.launchers import relay
from sage.kafka.launchers.apache import free_ports
from sage.kafka.launchers.embedded import embedded_broker_command
from sage.kafka.probe import answers
from sage.model.partition import TopicPartition
from sage.ports import Consumer, Producer
from tests.support.records import make_topic
from tests.support.waiting import wait_until

pytestmark = pytest.mark.integration

RECORDS = 60
PARTITIONS = 3


@pytest.fixture
async def clients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ConfluentClients]:
    """Clients of an embedded broker behind a relay that has no end to its patience."""
    monkeypatch.setattr(relay, "WAIT", 3600.0)
    port, broker_port = free_ports(2)
    program = embedded_broker_command(tmp_path, port).argv[-1]
    broker = relay.start_broker(program, tmp_path, broker_port)
    server = await relay.Relay(port, broker_port).serve()
    try:
        await asyncio.to_thread(wait_until, lambda: answers("127.0.0.1", broker_port), what="the broker is up")
        yield ConfluentClients(f"127.0.0.1:{port}")
    finally:
        server.close()
        broker.terminate()
        await asyncio.to_thread(broker.wait, 30)


def give_one_by_one(consumer: Consumer, producer: Producer, *, transactional: bool) -> list[bytes | None]:
    """Write a record when the one before has been read, and read it."""
    found: list[bytes | None] = []

    def has_come(number: int) -> bool:
        found.extend(message.value() for message in consumer.poll(10, 0.05))
        return len(found) > number

    for number in range(RECORDS):
        if transactional:
            producer.begin_transaction()
        producer.produce("rows", b"row %d" % number, b"key %d" % number)
        if transactional:
            producer.commit_transaction()
        else:
            assert producer.flush(10) == 0
        wait_until(lambda: has_come(number), timeout=15, what=f"record {number} has come")  # noqa: B023
    return found


@pytest.mark.parametrize("transactional", [False, True], ids=["at least once", "in transactions"])
async def test_a_record_ends_the_wait_of_an_idle_consumer(clients: ConfluentClients, transactional: bool) -> None:
    await asyncio.to_thread(make_topic, clients, "rows", PARTITIONS)
    consumer = clients.consumer(None)
    consumer.assign({TopicPartition("rows", number): 0 for number in range(PARTITIONS)})
    producer = clients.producer(transactional_id="writer" if transactional else None)
    try:
        if transactional:
            await asyncio.to_thread(producer.init_transactions)
        found = await asyncio.to_thread(give_one_by_one, consumer, producer, transactional=transactional)
        assert found == [b"row %d" % number for number in range(RECORDS)]
    finally:
        producer.close()
        consumer.close()
