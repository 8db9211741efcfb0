"""The in-memory broker's own doings: faults on demand, lost members, trimmed logs."""

from __future__ import annotations

import threading

import pytest

from sage.errors import InvalidTopology, TransientFailure, Unreachable
from sage.model.partition import TopicPartition
from sage.ports import CommitRefused, DeliveryFailure, ProducerFatal, TopicSpec, TransactionAbortable
from sage.testing.broker import InMemoryClients, InMemoryConsumer
from sage.testing.virtual_time import ManualClock
from tests.support.kafka import Recorder

T0, T1 = TopicPartition("t", 0), TopicPartition("t", 1)


@pytest.fixture
def clients() -> InMemoryClients:
    made = InMemoryClients(now_ms=lambda: 1234)
    made.admin().create([TopicSpec("t", 2)])
    return made


def member(clients: InMemoryClients, listener: Recorder | None = None) -> InMemoryConsumer:
    consumer = clients.consumer("g")
    consumer.subscribe(["t"], listener or Recorder())
    consumer.poll(10, 0)
    return consumer


def test_records_without_a_timestamp_carry_the_given_clock(clients: InMemoryClients) -> None:
    clients.producer().produce("t", b"v", partition=0)
    assert clients.messages("t")[0].timestamp() == (1, 1234)


def test_records_without_a_key_go_round_in_the_same_order_each_time(clients: InMemoryClients) -> None:
    producer = clients.producer()
    for number in range(4):
        producer.produce("t", b"%d" % number)
    assert [message.value() for message in clients.messages("t", 0)] == [b"0", b"2"]
    assert [message.value() for message in clients.messages("t", 1)] == [b"1", b"3"]


def test_a_failed_delivery_is_reported_and_nothing_is_written(clients: InMemoryClients) -> None:
    producer = clients.producer()
    clients.fail_next_delivery("t", reason="disk on fire", retriable=False)
    producer.produce("t", b"lost", partition=1)
    producer.produce("t", b"kept", partition=1)
    assert producer.flush(1) == 0
    assert producer.take_failures() == [DeliveryFailure("t", 1, "disk on fire", False, False)]
    assert producer.take_failures() == []
    assert [message.value() for message in clients.messages("t")] == [b"kept"]


def test_a_failure_goes_to_the_records_own_callback_where_there_is_one(clients: InMemoryClients) -> None:
    producer = clients.producer()
    reports: list[DeliveryFailure | None] = []
    clients.fail_next_delivery(too_large=True)
    producer.produce("t", b"v", on_delivery=lambda failure, _partition, _offset: reports.append(failure))
    producer.poll()
    assert [report is not None and report.too_large for report in reports] == [True]
    assert producer.take_failures() == []


def test_a_record_for_a_missing_topic_fails_for_good(clients: InMemoryClients) -> None:
    producer = clients.producer()
    producer.produce("nowhere", b"v")
    assert producer.flush(1) == 0
    assert [failure.retriable for failure in producer.take_failures()] == [False]


def test_a_flush_times_out_while_deliveries_are_held(clients: InMemoryClients) -> None:
    producer = clients.producer()
    with clients.deliveries_held():
        producer.produce("t", b"v")
        assert producer.flush(0.01) == 1
        assert clients.messages("t") == []
    assert producer.flush(1) == 0
    assert len(clients.messages("t")) == 1


def test_a_transaction_is_not_committed_while_deliveries_are_held(clients: InMemoryClients) -> None:
    producer = clients.producer(transactional_id="mine")
    producer.init_transactions()
    producer.begin_transaction()
    with clients.deliveries_held():
        producer.produce("t", b"v")
        with pytest.raises(TransientFailure, match="not all records were delivered in time"):
            producer.commit_transaction(0.01)
    producer.commit_transaction(1)
    assert [message.value() for message in clients.messages("t")] == [b"v"]


def test_commits_and_polls_fail_once_when_told_so(clients: InMemoryClients) -> None:
    consumer = member(clients)
    clients.fail_next_commit()
    with pytest.raises(CommitRefused):
        consumer.commit({T0: 1})
    clients.fail_next_commit(TransientFailure("again"))
    with pytest.raises(TransientFailure):
        consumer.commit({T0: 1})
    consumer.commit({T0: 1})
    assert clients.committed("g") == {T0: 1}
    clients.fail_next_poll(InvalidTopology("no"))
    with pytest.raises(InvalidTopology):
        consumer.poll(1, 0)
    assert consumer.poll(1, 0) == []


def test_nobody_answers_while_the_broker_is_down(clients: InMemoryClients) -> None:
    consumer, producer, admin = member(clients), clients.producer(), clients.admin()
    with clients.down():
        producer.produce("t", b"v", partition=0)
        assert consumer.poll(10, 0.01) == []
        assert producer.flush(0.01) == 1
        for ask in (admin.list_topics, lambda: consumer.commit({T0: 1}), lambda: consumer.committed([T0])):
            with pytest.raises(Unreachable):
                ask()
    assert producer.flush(1) == 0
    assert [message.value() for message in consumer.poll(10, 1)] == [b"v"]


def test_a_member_that_lost_its_partitions_is_told_and_comes_back(clients: InMemoryClients) -> None:
    listener = Recorder()
    consumer = member(clients, listener)
    consumer.lose()
    with pytest.raises(CommitRefused):
        consumer.commit({T0: 5})
    consumer.poll(1, 0)
    assert listener.lost == [[T0, T1]]
    assert listener.revoked == []
    assert listener.assigned == [[T0, T1], [T0, T1]]


def test_a_dead_members_partitions_go_to_the_others_without_a_word(clients: InMemoryClients) -> None:
    dead_listener = Recorder()
    dead = member(clients, dead_listener)
    other = member(clients)
    dead.poll(1, 0)
    other.poll(1, 0)
    assert dead.assignment() == {T0}
    assert other.assignment() == {T1}
    dead.abandon()
    other.poll(1, 0)
    assert other.assignment() == {T0, T1}
    assert (dead_listener.revoked, dead_listener.lost) == ([[T1]], [])


def test_a_partition_moves_only_after_its_owner_let_it_go(clients: InMemoryClients) -> None:
    first, second = member(clients), member(clients)
    assert first.assignment() == {T0, T1}
    second.poll(1, 0)
    assert second.assignment() == frozenset()
    first.poll(1, 0)
    second.poll(1, 0)
    assert first.assignment() == {T0}
    assert second.assignment() == {T1}


def test_reading_goes_on_at_the_start_when_the_position_was_trimmed_away(clients: InMemoryClients) -> None:
    producer = clients.producer()
    for number in range(5):
        producer.produce("t", b"%d" % number, partition=0)
    clients.trim({T0: 3})
    assert clients.admin().start_offsets([T0]) == {T0: 3}
    consumer = clients.consumer(None)
    consumer.assign({T0: 0})
    assert [message.offset() for message in consumer.poll(10, 0)] == [3, 4]


def test_offsets_of_a_group_that_moved_on_abort_the_transaction(clients: InMemoryClients) -> None:
    consumer = member(clients)
    stale = consumer.group_metadata()
    producer = clients.producer(transactional_id="x")
    producer.init_transactions()
    producer.begin_transaction()
    member(clients)
    with pytest.raises(TransactionAbortable):
        producer.send_offsets({T0: 1}, stale)


def test_a_failed_record_makes_its_transaction_abortable(clients: InMemoryClients) -> None:
    producer = clients.producer(transactional_id="x")
    producer.init_transactions()
    producer.begin_transaction()
    clients.fail_next_delivery()
    producer.produce("t", b"v")
    with pytest.raises(TransactionAbortable):
        producer.commit_transaction()
    producer.abort_transaction()
    assert clients.messages("t") == []


def test_a_transaction_that_stays_open_is_ended_and_its_producer_fenced() -> None:
    clock = ManualClock()
    clients = InMemoryClients(now_ms=clock.now_ms)
    clients.admin().create([TopicSpec("t")])
    producer, reader = clients.producer(transactional_id="x"), clients.consumer(None)
    producer.init_transactions()
    producer.begin_transaction()
    producer.produce("t", b"never committed")
    clients.producer().produce("t", b"behind it")
    reader.assign({T0: 0})
    clock.advance(9.9)
    assert (reader.poll(10, 0), clients.admin().end_offsets([T0])) == ([], {T0: 0})
    clock.advance(0.2)
    assert [message.value() for message in reader.poll(10, 0)] == [b"behind it"]
    with pytest.raises(ProducerFatal):
        producer.commit_transaction()


def test_names_that_kafka_folds_together_collide(clients: InMemoryClients) -> None:
    clients.admin().create([TopicSpec("a.b")])
    with pytest.raises(InvalidTopology, match=r"a\.b"):
        clients.admin().create([TopicSpec("a_b")])


def test_a_waiting_poll_wakes_up_for_a_record_of_another_thread(clients: InMemoryClients) -> None:
    consumer = clients.consumer(None)
    consumer.assign({T0: 0})
    consumer.poll(10, 0)
    timer = threading.Timer(0.05, lambda: clients.producer().produce("t", b"v", partition=0))
    timer.start()
    assert [message.value() for message in consumer.poll(10, 30)] == [b"v"]
    timer.join()
