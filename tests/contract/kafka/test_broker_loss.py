"""What the ports do while brokers are away, and after they are back."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sage.errors import TransientFailure, Unreachable
from sage.kafka.clients import ConfluentClients
from sage.model.partition import TopicPartition
from sage.ports import TopicSpec
from tests.support.brokers import ApacheBroker, EmbeddedBroker, free_port, require_embedded
from tests.support.kafka import Recorder, poll_until, read
from tests.support.waiting import wait_until

pytestmark = pytest.mark.chaos

Unique = Callable[[str], str]


@pytest.fixture
def own_embedded(tmp_path: Path) -> Iterator[EmbeddedBroker]:
    """An embedded broker that this test may kill."""
    require_embedded()
    broker = EmbeddedBroker(tmp_path / "data").start()
    yield broker
    broker.kill()


def test_a_broker_that_is_not_there_is_reported_within_ten_seconds(unique: Unique) -> None:
    address = f"localhost:{free_port()}"
    clients = ConfluentClients(address, origin="SAGE_BOOTSTRAP_SERVERS")
    for ask in (clients.admin().list_topics, lambda: clients.consumer(unique("g"))):
        started = time.monotonic()
        with pytest.raises(Unreachable) as caught:
            ask()
        assert time.monotonic() - started < 13
        assert str(caught.value) == (
            f"cannot reach {address} (refused, 10 s; from SAGE_BOOTSTRAP_SERVERS). "
            "Start one with `sage up`, or see `sage doctor`. [SAGE201]"
        )


def test_the_embedded_broker_keeps_everything_over_sigterm(own_embedded: EmbeddedBroker) -> None:
    where = TopicPartition("kept", 0)
    clients = own_embedded.clients()
    clients.admin().create([TopicSpec("kept")])
    producer = clients.producer()
    for number in range(1000):
        producer.produce("kept", b"%d" % number, b"k", [("h", b"1")])
    assert producer.flush(20) == 0
    consumer = clients.consumer("g")
    consumer.subscribe(["kept"], Recorder())
    read(consumer, 1000)
    consumer.commit({where: 777})
    own_embedded.terminate()
    own_embedded.start()
    admin = own_embedded.clients().admin()
    assert admin.end_offsets([where]) == {where: 1000}
    assert admin.committed("g", [where]) == {where: 777}
    consumer.close()
    producer.close()


def test_after_kill_9_the_embedded_broker_has_all_that_its_snapshot_had(own_embedded: EmbeddedBroker) -> None:
    where = TopicPartition("crashed", 0)
    clients = own_embedded.clients()
    admin = clients.admin()
    admin.create([TopicSpec("crashed")])
    producer = clients.producer()
    for number in range(500):
        producer.produce("crashed", b"%d" % number)
    assert producer.flush(20) == 0
    snapshot = own_embedded.data_dir / "kafka.json"
    # It saves once a second: what is in the snapshot survives, and nothing promises more.
    wait_until(lambda: snapshot.exists() and '"high_watermark":500' in snapshot.read_text(), what="it has saved")
    own_embedded.kill()
    own_embedded.start()
    assert own_embedded.clients().admin().end_offsets([where]) == {where: 500}
    producer.produce("crashed", b"after")
    assert producer.flush(20) == 0
    assert producer.take_failures() == []
    reader = own_embedded.clients().consumer(None)
    reader.assign({where: 0})
    assert [record.value() for record in read(reader, 501)] == [b"%d" % number for number in range(500)] + [b"after"]
    reader.close()
    producer.close()


def test_clients_live_through_the_loss_of_all_brokers(own_embedded: EmbeddedBroker) -> None:
    where = TopicPartition("away", 0)
    clients = own_embedded.clients()
    clients.admin().create([TopicSpec("away")])
    producer, consumer = clients.producer(), clients.consumer("g")
    producer.produce("away", b"before")
    assert producer.flush(20) == 0
    consumer.subscribe(["away"], Recorder())
    read(consumer, 1)
    own_embedded.terminate()
    assert consumer.poll(10, 0.5) == []
    with pytest.raises(TransientFailure):
        consumer.commit({where: 1})
    producer.produce("away", b"meanwhile")
    assert producer.flush(0.5) == 1
    own_embedded.start()
    assert producer.flush(30) == 0
    assert producer.take_failures() == []
    seen: list[bytes | None] = []

    def arrived() -> bool:
        seen.extend(record.value() for record in consumer.poll(10, 0.1))
        return b"meanwhile" in seen

    wait_until(arrived, timeout=60, what="the record of the outage arrives")
    consumer.close()
    producer.close()


def test_three_nodes_lose_one_and_no_record(three_node_kafka: ApacheBroker) -> None:
    where = TopicPartition("replicated", 0)
    clients = three_node_kafka.clients()
    clients.admin().create([TopicSpec("replicated", 3, replication_factor=3)])
    producer, consumer = clients.producer(), clients.consumer("g")
    consumer.subscribe(["replicated"], Recorder())
    poll_until(consumer.assignment, consumer)
    for number in range(300):
        producer.produce("replicated", b"%d" % number)
        if number == 150:
            assert producer.flush(30) == 0
            three_node_kafka.cluster.kill(1)
    assert producer.flush(60) == 0
    assert producer.take_failures() == []
    values = [record.value() for record in read(consumer, 300, timeout=60)]
    assert sorted(values, key=lambda value: int(value or b"-1")) == [b"%d" % number for number in range(300)]
    position = clients.admin().end_offsets([where])

    def committed() -> bool:
        consumer.poll(10, 0.1)
        try:
            consumer.commit(position)
        except TransientFailure:
            return False
        return True

    wait_until(committed, timeout=60, what="the new coordinator takes a commit")
    three_node_kafka.cluster.start(1)
    assert clients.admin().committed("g", [where]) == position
    consumer.close()
    producer.close()
