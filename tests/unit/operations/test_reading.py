"""The last records of a topic, whatever else takes offsets there."""

from __future__ import annotations

import pytest

from sage.model.partition import TopicPartition
from sage.operations.reading import read_last
from sage.ports import TopicSpec
from sage.testing.broker import InMemoryClients


def write(clients: InMemoryClients, values: list[bytes], *, partition: int = 0, abort: bool = False) -> None:
    """Each in a transaction of its own."""
    clients.admin().create([TopicSpec("t", 2)])
    producer = clients.producer(transactional_id="t")
    producer.init_transactions()
    for value in values:
        producer.begin_transaction()
        producer.produce("t", value, partition=partition)
        producer.flush(1)
        producer.abort_transaction() if abort else producer.commit_transaction()
    producer.close()


@pytest.mark.parametrize("count", [0, 1, 2, 5, 30, None])
def test_markers_and_aborted_records_are_not_counted(clients: InMemoryClients, count: int | None) -> None:
    values = [b"%d" % number for number in range(10)]
    write(clients, values)
    write(clients, [b"aborted"] * 20, abort=True)
    write(clients, [b"other"], partition=1)
    partitions = [TopicPartition("t", 0), TopicPartition("t", 1)]
    found, ends = read_last(clients, clients.admin(), partitions, count)
    wanted = 10 if count is None else min(count, 10)
    assert [message.value() for message in found if message.partition() == 0] == values[10 - wanted :]
    assert [message.value() for message in found if message.partition() == 1] == ([] if count == 0 else [b"other"])
    assert ends[partitions[1]] == 2
