"""A hundred topologies on three workers and three brokers: each runs, each survives a worker's death with nothing lost,
or doubled where that was asked for, and the list shows them all."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from sage.cluster.deployer import Deployer
from sage.cluster.names import PREFIX_VARIABLE
from sage.graph.builder import StreamBuilder
from sage.model.partition import TopicPartition
from sage.plan.plan import Plan
from sage.plan.planner import compile_plan
from sage.ports import TopicSpec
from tests.chaos.worker import mark
from tests.integration.cli.conftest import Shell
from tests.integration.cluster.workers import Cluster
from tests.support.brokers import ApacheBroker
from tests.support.waiting import wait_until

TOPOLOGIES = 100
EXACTLY_ONCE = 30
"""So many of them, spread over all."""

RECORDS = 20
PATIENCE = 240.0


@pytest.fixture
def cluster(three_brokers: ApacheBroker, unique: Callable[[str], str], tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(three_brokers, unique("many"), "sync", "at_least_once", tmp_path, workers=3, replicas=3)
    yield made
    made.close()


class Outputs:
    """What has come out of each topology, read as it comes."""

    def __init__(self, cluster: Cluster, names: list[str]) -> None:
        self.ids: dict[str, Counter[int]] = {name: Counter() for name in names}
        self._consumer = cluster.broker.clients().consumer(None)
        self._consumer.assign(dict.fromkeys((TopicPartition(f"{name}-out", 0) for name in names), 0))

    def read(self) -> bool:
        """Read on; whether something had come."""
        messages = self._consumer.poll(5_000, 0.2)
        for message in messages:
            self.ids[message.topic().removesuffix("-out")][json.loads(message.value() or b"")["id"]] += 1
        return bool(messages)

    def until_all(self, count: int) -> None:
        """Wait until the records up to there have come out of each."""

        def lacking() -> list[str]:
            self.read()
            return [name for name, found in self.ids.items() if not found.keys() >= set(range(count))]

        try:
            wait_until(lambda: not lacking(), timeout=PATIENCE, what=f"{count} records come out of each")
        except AssertionError as error:
            raise AssertionError(f"{error}; not of {lacking()}") from error

    def close(self) -> None:
        self._consumer.close()


def is_exactly_once(number: int) -> bool:
    return number * EXACTLY_ONCE // TOPOLOGIES != (number + 1) * EXACTLY_ONCE // TOPOLOGIES


def small(name: str, guarantee: Any) -> Plan:
    builder = StreamBuilder(name, guarantee=guarantee)
    builder.from_topic(f"{name}-in").map(mark, name="mark").to(f"{name}-out")
    return compile_plan(builder.build())


def test_a_hundred_topologies_share_three_workers_and_survive_one_of_them(cluster: Cluster, tmp_path: Path) -> None:
    names = [f"{cluster.name}-{number:03}" for number in range(TOPOLOGIES)]
    strict = [name for number, name in enumerate(names) if is_exactly_once(number)]
    assert len(strict) == EXACTLY_ONCE
    admin = cluster.broker.clients().admin()
    admin.create([TopicSpec(f"{name}-{side}", 1, 3) for name in names for side in ("in", "out")])
    admin.close()
    cluster.online(3)
    with ThreadPoolExecutor(4) as deployers:  # four who deploy at the same time, each its own
        for part in [deployers.submit(deploy, cluster, names[number::4], strict) for number in range(4)]:
            part.result()
    feed(cluster, names, range(RECORDS))
    outputs = Outputs(cluster, names)
    outputs.until_all(RECORDS)
    feed(cluster, names, range(RECORDS, 2 * RECORDS))
    cluster.kill(0)
    outputs.until_all(2 * RECORDS)
    wait_until(lambda: well(cluster, tmp_path) == names, timeout=PATIENCE, what="the list shows all of them as well")
    while outputs.read():
        """What was written twice has come by now."""
    outputs.close()
    assert all(found.keys() == set(range(2 * RECORDS)) for found in outputs.ids.values())
    doubled = {name: found for name in strict if (found := outputs.ids[name] - Counter(range(2 * RECORDS)))}
    assert not doubled


def deploy(cluster: Cluster, names: list[str], strict: list[str]) -> None:
    deployer = Deployer(cluster.broker.clients(), cluster.topics, who="test@here")
    for name in names:
        deployer.deploy(small(name, "exactly_once" if name in strict else "at_least_once"))


def feed(cluster: Cluster, names: list[str], numbers: range) -> None:
    producer = cluster.broker.clients().producer()
    for number in numbers:
        for name in names:
            producer.produce(f"{name}-in", b'{"id": %d}' % number, b"k%d" % number)
        producer.poll(0)
    assert producer.flush(30) == 0
    producer.close()


def well(cluster: Cluster, folder: Path) -> list[str]:
    """The topologies that `sage topology list` shows as well."""
    shell = Shell(
        folder, {"SAGE_BOOTSTRAP_SERVERS": cluster.broker.bootstrap_servers, PREFIX_VARIABLE: cluster.topics.prefix}
    )
    found = shell("topology", "list", "-o", "json")
    assert found.code == 0, found
    return [row["name"] for row in json.loads(found.out) if row["health"] == "ok"]
