"""Named processes on Apache Kafka: one that is restarted within its session moves nothing."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource

from sage.ports import KafkaClients
from tests.support.brokers import ApacheBroker
from tests.support.programs import Program, sage
from tests.support.records import everything, make_topic, values_of
from tests.support.waiting import wait_until

PARTITIONS = 4
ROUND = 25
"""Records of each partition in a round."""

STEPS = """
import os


def mark(value: dict) -> dict:
    return {**value, "by": os.getpid()}
"""

TOPOLOGY = """
version: 1
name: {name}
defaults: {{partitions: 4}}
steps:
  input: {{source: topic, config: {{topic: {source}}}}}
  mark: {{map: "marks:mark", from: input}}
  output: {{sink: topic, from: mark, config: {{topic: {target}}}}}
"""


def give_a_long_session(broker: ApacheBroker, group: str) -> None:
    """So that a process has time to come back on a busy machine: the brokers of tests end a session after 6 s."""
    admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
    session = ConfigEntry("consumer.session.timeout.ms", "45000", incremental_operation=AlterConfigOpType.SET)
    (done,) = admin.incremental_alter_configs(
        [ConfigResource(ConfigResource.Type.GROUP, group, incremental_configs=[session])]
    ).values()
    done.result(20)


def shares(clients: KafkaClients, group: str) -> list[frozenset[int]]:
    """The partition numbers of each member that has some."""
    admin = clients.admin()
    try:
        found = [frozenset(place.partition for place in member.partitions) for member in admin.members(group)]
    finally:
        admin.close()
    return sorted((share for share in found if share), key=min)


def feed(clients: KafkaClients, topic: str, number: int) -> None:
    """A round of records into every partition."""
    producer = clients.producer()
    for at in range(PARTITIONS):
        for _ in range(ROUND):
            producer.produce(topic, b'{"round": %d, "at": %d}' % (number, at), partition=at)
    assert producer.flush(30) == 0
    producer.close()


def test_a_named_process_that_is_restarted_within_its_session_moves_nothing(
    apache_kafka: ApacheBroker, unique: Callable[[str], str], tmp_path: Path
) -> None:
    name, source, target = unique("named"), unique("in"), unique("out")
    clients, group = apache_kafka.clients(), f"{name}.mark"
    make_topic(clients, source, PARTITIONS)
    make_topic(clients, target, PARTITIONS)
    give_a_long_session(apache_kafka, group)
    (tmp_path / "marks.py").write_text(STEPS, encoding="utf-8")
    (tmp_path / "topology.yaml").write_text(TOPOLOGY.format(name=name, source=source, target=target), encoding="utf-8")

    def named(instance: str) -> tuple[str, ...]:
        address = apache_kafka.bootstrap_servers
        return ("topology", "run", "topology.yaml", "--bootstrap-servers", address, "--instance-id", instance)

    def written(number: int) -> dict[int, list[int]]:
        """partition -> who did its records of that round."""
        found: dict[int, list[int]] = {}
        values: list[dict[str, Any]] = values_of(everything(clients, target))
        for value in values:
            if value["round"] == number:
                found.setdefault(value["at"], []).append(value["by"])
        return found

    def all_of(number: int, partitions: frozenset[int]) -> bool:
        done = written(number)
        return all(len(done.get(at, ())) >= ROUND for at in partitions)

    def done_by(number: int, partitions: frozenset[int]) -> set[tuple[int, int]]:
        """Who did how many of these partitions' records."""
        return {(by, len(each)) for at, each in written(number).items() if at in partitions for by in each}

    def end(run: Program) -> None:
        run.process.send_signal(signal.SIGTERM)
        assert run.wait(40) == 0, run.output

    everywhere = frozenset(range(PARTITIONS))
    with sage(tmp_path, *named("b")) as stays:
        with sage(tmp_path, *named("a")) as first:
            wait_until(lambda: len(shares(clients, group)) == 2, timeout=60, what="both have their share")
            before = shares(clients, group)
            feed(clients, source, 1)
            wait_until(lambda: all_of(1, everywhere), timeout=40, what="the first round is through")
            (theirs,) = [share for share in before if done_by(1, share) == {(stays.process.pid, ROUND)}]
            gone = everywhere - theirs
            assert done_by(1, gone) == {(first.process.pid, ROUND)}
            end(first)
        feed(clients, source, 2)
        wait_until(lambda: all_of(2, theirs), timeout=40, what="the other one's records go on")
        assert not set(written(2)) & gone, "nobody has taken the place of the one that comes back"
        assert theirs in shares(clients, group)
        with sage(tmp_path, *named("a")) as again:
            wait_until(lambda: all_of(2, everywhere), timeout=40, what="the second round is through")
            assert shares(clients, group) == before
            assert done_by(2, theirs) == {(stays.process.pid, ROUND)}
            assert done_by(2, gone) == {(again.process.pid, ROUND)}
            end(again)
        end(stays)
