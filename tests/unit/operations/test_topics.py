"""Looking into topics and writing to them."""

from __future__ import annotations

import itertools

import pytest

from sage.errors import DeadlineExceeded, NotFound, RecordTooLarge, TransientFailure
from sage.model.partition import TopicPartition
from sage.operations import reading, topics
from sage.ports import RawMessage
from sage.testing.broker import InMemoryClients
from tests.unit.operations.conftest import Write


def values(messages: list[RawMessage]) -> list[bytes | None]:
    return [message.value() for message in messages]


def test_topics_are_listed_with_what_they_hold(clients: InMemoryClients, write: Write) -> None:
    write("b.two", [b"1", b"2", b"3"], partitions=2)
    write("a.one", [])
    write("__sage.status", [b"1"])
    found = topics.list_topics(clients)
    assert [(one.name, one.partitions, one.records) for one in found] == [("a.one", 1, 0), ("b.two", 2, 3)]
    assert "__sage.status" in {one.name for one in topics.list_topics(clients, internal=True)}


def test_describe_gives_the_lag_of_every_group_that_committed(clients: InMemoryClients, write: Write) -> None:
    write("qa.prompt", [b"1", b"2", b"3"])
    reader = clients.consumer("qa.generate")
    reader.subscribe(["qa.prompt"], _Listener())
    while not reader.assignment():
        reader.poll(1, 0.01)
    reader.commit({TopicPartition("qa.prompt", 0): 1})
    (found,) = topics.describe(clients, "qa.prompt")
    assert (found.start, found.end, found.records, dict(found.lag)) == (0, 3, 3, {"qa.generate": 2})
    reader.close()


def test_a_topic_that_is_there_stays_as_it_is(clients: InMemoryClients) -> None:
    assert topics.create(clients, "t", partitions=3, replication_factor=1, config={})
    assert not topics.create(clients, "t", partitions=5, replication_factor=1, config={})
    assert len(topics.describe(clients, "t")) == 3


@pytest.mark.parametrize(
    ("count", "expected"),
    [(2, [b"3", b"4"]), (0, []), (99, [b"0", b"1", b"2", b"3", b"4"]), (None, [b"0", b"1", b"2", b"3", b"4"])],
)
def test_tail_gives_the_last_ones(
    clients: InMemoryClients, write: Write, count: int | None, expected: list[bytes]
) -> None:
    write("t", [b"0", b"1", b"2", b"3", b"4"])
    assert values(list(topics.tail(clients, "t", count=count))) == expected


def test_tail_puts_partitions_in_order_of_time(clients: InMemoryClients, write: Write) -> None:
    write("t", [b"late"], partitions=2, partition=0, timestamp=2000)
    write("t", [b"early"], partition=1, timestamp=1000)
    assert values(list(topics.tail(clients, "t", count=10))) == [b"early", b"late"]
    assert values(list(topics.tail(clients, "t", count=1))) == [b"late"]
    assert values(list(topics.tail(clients, "t", count=10, partition=1))) == [b"early"]


def test_tail_ends_at_the_end_though_markers_lie_behind_the_last_record(clients: InMemoryClients, write: Write) -> None:
    write("t", [b"plain"])
    producer = clients.producer(transactional_id="x")
    producer.init_transactions()
    for value, ending in ((b"kept", producer.commit_transaction), (b"aborted", producer.abort_transaction)):
        producer.begin_transaction()
        producer.produce("t", value)
        ending()
    assert values(list(topics.tail(clients, "t", count=10))) == [b"plain", b"kept"]


def test_tail_that_follows_sees_what_comes_later(clients: InMemoryClients, write: Write) -> None:
    write("t", [b"there"])
    following = topics.tail(clients, "t", count=10, forever=True)
    assert next(following).value() == b"there"
    write("t", [b"later"])
    assert next(following).value() == b"later"


def test_what_is_missing_is_named(clients: InMemoryClients, write: Write) -> None:
    write("t", [b"1"])
    with pytest.raises(NotFound, match="topic nope: does not exist; see `sage topics list`"):
        list(topics.tail(clients, "nope", count=1))
    with pytest.raises(NotFound, match="topic t: has no partition 7"):
        list(topics.tail(clients, "t", count=1, partition=7))
    with pytest.raises(NotFound, match="make it with `sage topics create nope`"):
        topics.produce(clients, "nope", [(None, b"1")])
    with pytest.raises(NotFound, match="topic t: has no partition 7"):
        topics.produce(clients, "t", [(None, b"1")], partition=7)


def test_a_read_that_never_reaches_the_end_gives_up(clients: InMemoryClients, write: Write) -> None:
    write("t", [b"1"])
    beyond = {TopicPartition("t", 0): 0}, {TopicPartition("t", 0): 5}
    with pytest.raises(DeadlineExceeded, match="t-0"):
        list(reading.read_to_end(clients, *beyond, timeout=0.3))


def test_produce_says_where_each_record_went(clients: InMemoryClients, write: Write) -> None:
    write("t", [], partitions=2)
    done = topics.produce(clients, "t", [(b"k", b"1"), (b"k", b"2"), (None, None)], headers=[("h", b"x")])
    assert len(done) == 3
    assert done[0].partition == done[1].partition
    records = [topics.as_dict(message) for message in topics.tail(clients, "t", count=None)]
    assert sorted((one["key"] or "", one["value"]) for one in records if one["value"]) == [("k", 1), ("k", 2)]
    assert all(one["headers"] == [["h", "x"]] for one in records)


def test_a_full_queue_is_waited_for(write: Write) -> None:
    small = InMemoryClients(queue_limit=2)
    topics.create(small, "t", partitions=1, replication_factor=1, config={})
    done = topics.produce(small, "t", ((None, b"%d" % number) for number in range(10)))
    assert [one.offset for one in done] == list(range(10))


def test_a_record_that_is_too_large_is_an_error(write: Write) -> None:
    small = InMemoryClients(message_max_bytes=1000)
    topics.create(small, "t", partitions=1, replication_factor=1, config={})
    with pytest.raises(RecordTooLarge):
        topics.produce(small, "t", [(None, b"x" * 2000)])


def test_records_become_plain_json(clients: InMemoryClients, write: Write) -> None:
    write("t", [b'{"a": 1}', b"{broken", b"\xff\x00", None], key="员".encode(), headers=[("h", None), ("h", b"\xff")])
    found = [topics.as_dict(message) for message in topics.tail(clients, "t", count=None)]
    assert [one["value"] for one in found] == [{"a": 1}, "{broken", "0xff00", None]
    assert found[0]["key"] == "员"
    assert found[0]["headers"] == [["h", None], ["h", "0xff"]]
    assert list(itertools.pairwise(one["offset"] for one in found)) == [(0, 1), (1, 2), (2, 3)]


def test_failures_of_the_broker_say_how_many_records_went() -> None:
    from sage.operations.topics import Produced, _checked
    from sage.ports import DeliveryFailure

    refused = DeliveryFailure("t", 0, "not enough replicas", too_large=False, retriable=True)
    with pytest.raises(TransientFailure, match="1 of 2 records written; not enough replicas"):
        _checked("t", [Produced(0, 0), refused])
    with pytest.raises(TransientFailure, match="0 of 1 records written; no answer in time"):
        _checked("t", [None])


class _Listener:
    """A member that needs to know nothing."""

    def on_assigned(self, partitions: object) -> None:
        """Nothing to prepare."""

    def on_revoked(self, partitions: object) -> None:
        """Nothing to finish."""

    def on_lost(self, partitions: object) -> None:
        """Nothing to throw away."""
