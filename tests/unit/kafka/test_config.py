"""Settings: defaults, the user's, and those that nobody may change."""

from __future__ import annotations

import select
import socket
from pathlib import Path
from typing import Any

import pytest

from sage.errors import InvalidTopology
from sage.kafka import config
from sage.kafka.admin import ConfluentAdmin
from sage.kafka.clients import ConfluentClients
from tests.support.waiting import wait_until


def consumer(user: dict[str, Any], call: dict[str, Any], protocol: config.GroupProtocol) -> dict[str, Any]:
    return config.consumer_config(
        "k:9092", user, call, group="g", read_from="earliest", protocol=protocol, assignor=config.COOPERATIVE
    )


def test_a_consumer_reads_committed_records_and_never_commits_by_itself() -> None:
    made = consumer({}, {}, "classic")
    assert made["isolation.level"] == "read_committed"
    assert made["enable.auto.commit"] is False
    assert made["enable.partition.eof"] is True
    assert made["fetch.queue.backoff.ms"] == 10
    assert made["partition.assignment.strategy"] == "cooperative-sticky"


def test_kip_848_gets_none_of_the_settings_that_it_refuses() -> None:
    user = {"session.timeout.ms": 9000, "partition.assignment.strategy": "range", "heartbeat.interval.ms": 1}
    made = consumer(user, {}, "consumer")
    assert made["group.protocol"] == "consumer"
    assert not {"session.timeout.ms", "partition.assignment.strategy", "heartbeat.interval.ms"} & made.keys()


@pytest.mark.parametrize(
    ("protocol", "name"), [("consumer", "group.remote.assignor"), ("classic", "partition.assignment.strategy")]
)
def test_the_wish_for_range_is_kept_in_both_protocols(protocol: config.GroupProtocol, name: str) -> None:
    assert consumer({}, {"group.remote.assignor": "range"}, protocol)[name] == "range"


def test_one_clients_settings_win_over_the_users_and_theirs_over_the_defaults() -> None:
    assert consumer({"fetch.wait.max.ms": 1}, {}, "classic")["fetch.wait.max.ms"] == 1
    assert consumer({"fetch.wait.max.ms": 1}, {"fetch.wait.max.ms": 2}, "classic")["fetch.wait.max.ms"] == 2


def test_each_kind_of_client_gets_only_settings_of_its_kind() -> None:
    user = {"linger.ms": 7, "queued.min.messages": 9, "client.rack": "a", "sasl.username": "bob"}
    made = config.producer_config("k:9092", user, {}, transactional_id=None)
    assert (made["linger.ms"], made["sasl.username"]) == (7, "bob")
    assert not {"queued.min.messages", "client.rack"} & made.keys()
    assert "linger.ms" not in consumer(user, {}, "classic")
    assert not {"linger.ms", "queued.min.messages"} & config.admin_config("k:9092", user).keys()


def test_a_producer_is_idempotent_and_hashes_as_kafka_does() -> None:
    made = config.producer_config("k:9092", {}, {}, transactional_id="t")
    assert (made["acks"], made["enable.idempotence"], made["partitioner"]) == ("all", True, "murmur2_random")
    assert made["linger.ms"] <= 2
    assert (made["transactional.id"], made["transaction.timeout.ms"]) == ("t", 10_000)


@pytest.mark.parametrize(
    ("name", "value"),
    [("enable.auto.commit", "true"), ("isolation.level", "read_uncommitted"), ("partitioner", "random"), ("acks", 1)],
)
def test_what_the_guarantees_hang_on_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(InvalidTopology, match=name):
        ConfluentClients("k:9092", {name: value})


def test_the_same_value_in_another_spelling_is_no_conflict() -> None:
    spelt = {"enable.auto.commit": "False", "acks": "-1", "enable.idempotence": "true"}
    assert config.check_user_config(spelt) == spelt


def test_secrets_are_masked_wherever_clients_show_themselves() -> None:
    secrets = {"sasl.password": "hunter2", "ssl.key.password": "hunter2", "ssl.key.pem": "hunter2"}
    clients = ConfluentClients("localhost:1", {**secrets, "sasl.username": "bob"}, group_protocol="classic")
    assert "hunter2" not in repr(clients)
    assert "bob" in repr(clients)
    producer = ConfluentClients("localhost:1", {"sasl.password": "hunter2"}).producer()
    assert "hunter2" not in repr(producer)
    producer.close(0)


def test_an_unknown_setting_is_an_error_with_its_name() -> None:
    with pytest.raises(InvalidTopology, match=r"no\.such\.thing"):
        ConfluentClients("localhost:1", {"no.such.thing": 1}).producer()


@pytest.mark.parametrize(
    ("text", "addresses"),
    [
        ("a:1,b:2", [("a", 1), ("b", 2)]),
        ("a", [("a", 9092)]),
        (" a:1 , ", [("a", 1)]),
        ("SSL://a:1", [("a", 1)]),
        ("[::1]:5", [("::1", 5)]),
        ("[::1]", [("::1", 9092)]),
    ],
)
def test_bootstrap_addresses(text: str, addresses: list[tuple[str, int]]) -> None:
    assert config.bootstrap_addresses(text) == addresses


@pytest.mark.parametrize(
    "text",
    ["a:b", ":1", "a:0", "a:99999", "a:١", "[::1:9092", "::1", "a b:1", "a:1,b:x", "\udcff:1", "http://a:9", "", " , "],
)
def test_an_address_that_is_none_is_refused_before_any_is_asked(text: str) -> None:
    with pytest.raises(InvalidTopology, match=r"bootstrap servers: .*host:port"):
        config.bootstrap_addresses(text)
    with pytest.raises(InvalidTopology, match=r"^MINE: bootstrap servers: .*host:port"):
        ConfluentClients(text, origin="MINE")


def test_a_password_in_an_address_is_not_shown() -> None:
    with pytest.raises(InvalidTopology, match=r"not host:port") as caught:
        config.bootstrap_addresses("ssl://me:s3cret@broker:9092")
    assert "s3cret" not in str(caught.value)


def test_only_a_caller_and_no_user_can_do_without_reports_of_success() -> None:
    reported = config.producer_config("k:9092", {config.FAILURES_ONLY: True}, {}, transactional_id=None)
    assert reported[config.FAILURES_ONLY] is False
    not_reported = config.producer_config("k:9092", {}, {config.FAILURES_ONLY: True}, transactional_id=None)
    assert not_reported[config.FAILURES_ONLY] is True


THREADS = Path("/proc/self/task")


@pytest.mark.skipif(not THREADS.exists(), reason="this system does not show its threads")
def test_brokers_that_are_away_cost_no_new_thread_with_every_try() -> None:
    """Nor an error with every try that nobody takes: both would grow for as long as they are away."""
    tries = 0
    with socket.create_server(("127.0.0.1", 0)) as refusing:
        address = f"127.0.0.1:{refusing.getsockname()[1]}"
        admin = ConfluentAdmin(config.admin_config(address, {}), reader_config=lambda group: {}, address=address)

        def tried(times: int) -> bool:
            nonlocal tries
            while select.select([refusing], [], [], 0.05)[0]:
                refusing.accept()[0].close()
                tries += 1
            return tries >= times

        wait_until(lambda: tried(2), what="it knows its brokers")
        before = {task.name for task in THREADS.iterdir()}
        wait_until(lambda: tried(6), what="it has tried again and again")
        assert {task.name for task in THREADS.iterdir()} <= before
        admin.close()
