"""``sage dlq`` on real brokers: records that died, mended, and given back to the step that gave them up."""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from tests.integration.cli.conftest import Shell
from tests.support.brokers import ApacheBroker, Broker
from tests.support.records import everything, fill, make_topic, values_of
from tests.support.waiting import wait_until

OPERATORS = """
import pathlib


def count(value: dict) -> dict:
    return {**value, "seen": True}


def check(value: dict) -> dict:
    if value["id"] % 10 == 3 and not pathlib.Path("mended").exists():
        raise ValueError("three")
    return value
"""

TOPOLOGY = """
version: 1
name: {name}
guarantee: {guarantee}
defaults: {{partitions: 2}}
steps:
  input: {{source: topic, config: {{topic: {source}}}}}
  count: {{map: "ops:count", from: input}}
  check: {{map: "ops:check", from: count}}
  output: {{sink: topic, from: check, config: {{topic: {target}}}}}
"""


class Topology:
    """A topology whose ``check`` kills every tenth record until it is mended."""

    def __init__(self, sage: Shell, broker: Broker, unique: Callable[[str], str], guarantee: str) -> None:
        self.name, self.source, self.target = unique("dead"), unique("in"), unique("out")
        self.sage, self.clients = sage, broker.clients()
        self.brokers = ("--bootstrap-servers", broker.bootstrap_servers)
        make_topic(self.clients, self.source, 2)
        make_topic(self.clients, self.target, 2)
        sage.write("ops.py", OPERATORS)
        names = {"name": self.name, "source": self.source, "target": self.target}
        sage.write("topology.yaml", TOPOLOGY.format(guarantee=guarantee, **names))
        fill(self.clients, self.source, ({"id": number} for number in range(100)), keyed_by="id")

    def run(self) -> tuple[int, str]:
        words = ("topology", "run", "topology.yaml", "--until-idle", "--timeout", "100")
        done = self.sage(*words, *self.brokers)
        return done.code, done.err

    def dlq(self, verb: str, *words: str) -> Any:
        done = self.sage("dlq", verb, self.name, *words, *self.brokers, "-o", "json")
        assert done.code == 0, done.err
        return json.loads(done.out)

    def mend(self) -> None:
        self.sage.write("mended", "")

    def ids(self) -> Counter[int]:
        return Counter(value["id"] for value in values_of(everything(self.clients, self.target)))


@pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
def test_on_apache_kafka_mended_records_come_through_each_once(
    apache_kafka: ApacheBroker, sage: Shell, unique: Callable[[str], str], guarantee: str
) -> None:
    topology = Topology(sage, apache_kafka, unique, guarantee)
    code, said = topology.run()
    assert (code, "10 of 100 records dead: ValueError: three" in said) == (1, True), said
    listed = topology.dlq("list", "--filter", "error=Value*")
    assert len(listed) == 10
    assert {(letter["step"], letter["stage"]) for letter in listed} == {("check", "count")}  # fused: one stage
    planned = topology.dlq("replay", "--dry-run")
    assert (planned["replayed"], planned["reasons"]) == (10, {"ValueError at step check": 10})
    assert topology.dlq("replay", "--max", "4", "--rate", "100")["replayed"] == 4
    topology.mend()
    assert topology.dlq("replay")["replayed"] == 6
    assert topology.dlq("replay")["replayed"] == 0
    code, said = topology.run()
    assert code == 0, said
    assert topology.ids() == Counter(range(100))
    assert topology.dlq("purge", "--replayed", "--yes")["deleted"] == 10
    assert topology.dlq("list") == []


def test_on_the_embedded_broker_too(with_broker: Shell, sage: Shell, unique: Callable[[str], str]) -> None:
    from sage.wiring.brokers import find_brokers

    found = find_brokers(None, with_broker.folder / ".sage")

    class Embedded:
        bootstrap_servers, is_embedded = found.address, True

        def clients(self, config: dict[str, Any] | None = None) -> Any:
            return found.clients(config)

    topology = Topology(sage, Embedded(), unique, "at_least_once")
    code, said = topology.run()
    assert code == 1, said
    topology.mend()
    assert topology.dlq("replay")["replayed"] == 10
    code, said = topology.run()
    assert code == 0, said
    assert topology.ids() == Counter(range(100))


@pytest.mark.chaos
def test_a_replay_that_was_killed_goes_on_and_replays_nothing_twice(
    apache_kafka: ApacheBroker, sage: Shell, unique: Callable[[str], str]
) -> None:
    topology = Topology(sage, apache_kafka, unique, "at_least_once")
    fill(topology.clients, topology.source, ({"id": 10 * number + 3} for number in range(10, 400)), keyed_by="id")
    assert topology.run()[0] == 1
    retry = f"{topology.name}.count.retry"
    replaying = sage.start("dlq", "replay", topology.name, "--rate", "5", *topology.brokers)
    wait_until(lambda: len(everything(topology.clients, retry)) > 0, timeout=60, what="a batch was replayed")
    replaying.kill()
    replaying.communicate()
    killed_at = len(everything(topology.clients, retry))
    assert killed_at < 400, "killed too late to prove anything"
    again = sage.start("dlq", "replay", topology.name, "--rate", "5", *topology.brokers, "-o", "json")
    wait_until(
        lambda: len(everything(topology.clients, retry)) > killed_at, timeout=120, what="the next one has gone on"
    )
    again.send_signal(signal.SIGTERM)  # it finishes its batch
    out, said = again.communicate(timeout=60)
    assert again.returncode == 0, said
    report = json.loads(out)
    assert report["interrupted"]
    assert len(everything(topology.clients, retry)) == killed_at + report["replayed"]
    assert topology.dlq("replay")["replayed"] == 400 - killed_at - report["replayed"]
    topology.mend()
    assert topology.run()[0] == 0
    assert topology.ids() == Counter([*range(100), *(10 * number + 3 for number in range(10, 400))])
