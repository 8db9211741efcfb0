"""The growth of the dead-letter topic, in records."""

from __future__ import annotations

import pytest

from sage.errors import Unreachable
from sage.ports import TopicSpec
from sage.runtime.retries import dead_count
from sage.runtime.retries.dead_count import DeadCount
from sage.testing.broker import InMemoryClients


def bury(clients: InMemoryClients, count: int, *, abort: bool = False) -> None:
    """Write records, each in a transaction of its own."""
    producer = clients.producer(transactional_id="t")
    producer.init_transactions()
    for number in range(count):
        producer.begin_transaction()
        producer.produce("t.dlq", b"%d" % number)
        producer.flush(1)
        producer.abort_transaction() if abort else producer.commit_transaction()
    producer.close()


@pytest.fixture
def clients() -> InMemoryClients:
    made = InMemoryClients()
    made.admin().create([TopicSpec("t.dlq", 2)])
    return made


def test_markers_and_aborted_records_are_no_dead_letters(clients: InMemoryClients) -> None:
    bury(clients, 2)
    count = DeadCount(clients, "t.dlq", 2, has_markers=True)
    assert count.growth() == 0
    bury(clients, 3)
    bury(clients, 2, abort=True)
    assert count.growth() == 3
    assert count.growth() == 0


def test_without_transactions_offsets_tell(clients: InMemoryClients) -> None:
    count = DeadCount(clients, "t.dlq", 2, has_markers=False)
    producer = clients.producer()
    for _ in range(4):
        producer.produce("t.dlq", b"dead")
    producer.flush(1)
    assert (count.growth(), count.growth()) == (4, 0)


def test_no_topic_has_no_dead_letters(clients: InMemoryClients) -> None:
    assert DeadCount(clients, "other.dlq", 0, has_markers=True).growth() == 0


def test_letters_that_cannot_be_read_are_not_called_none(
    clients: InMemoryClients, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_count, "READ_TIMEOUT", 0.0)
    count = DeadCount(clients, "t.dlq", 2, has_markers=True)
    bury(clients, 1)
    made = clients.consumer(None)
    monkeypatch.setattr(type(made), "poll", lambda *_: [])
    with pytest.raises(Unreachable, match="not readable to the end"):
        count.growth()
