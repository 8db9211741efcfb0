"""A hundred topologies on three workers: each runs, each survives a worker's death, and the list shows them all."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

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
from tests.support.records import everything
from tests.support.waiting import wait_until

TOPOLOGIES = 100
RECORDS = 20
PATIENCE = 240.0


@pytest.fixture
def cluster(apache_kafka: ApacheBroker, unique: Callable[[str], str], tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(apache_kafka, unique("many"), "sync", "at_least_once", tmp_path, workers=3)
    yield made
    made.close()


def small(name: str) -> Plan:
    builder = StreamBuilder(name)
    builder.from_topic(f"{name}-in").map(mark, name="mark").to(f"{name}-out")
    return compile_plan(builder.build())


def test_a_hundred_topologies_share_three_workers_and_survive_one_of_them(cluster: Cluster, tmp_path: Path) -> None:
    names = [f"{cluster.name}-{number:03}" for number in range(TOPOLOGIES)]
    clients = cluster.broker.clients()
    admin = clients.admin()
    admin.create([TopicSpec(f"{name}-{side}", 1) for name in names for side in ("in", "out")])
    admin.close()
    cluster.online(3)
    with ThreadPoolExecutor(4) as deployers:  # four who deploy at the same time, each its own
        for part in [deployers.submit(deploy, cluster, names[number::4]) for number in range(4)]:
            part.result()
    feed(cluster, names, range(RECORDS))
    wait_until(lambda: written(cluster, names) >= TOPOLOGIES * RECORDS, timeout=PATIENCE, what="all work")
    feed(cluster, names, range(RECORDS, 2 * RECORDS))
    cluster.kill(0)
    wait_until(lambda: written(cluster, names) >= 2 * TOPOLOGIES * RECORDS, timeout=PATIENCE, what="all go on")
    for name in names:
        wait_until(partial(has_all, cluster, name), timeout=PATIENCE, what=f"{name} has given everything")
    wait_until(lambda: well(cluster, tmp_path) == names, timeout=PATIENCE, what="the list shows all of them as well")


def deploy(cluster: Cluster, names: list[str]) -> None:
    deployer = Deployer(cluster.broker.clients(), cluster.topics, who="test@here")
    for name in names:
        deployer.deploy(small(name))


def feed(cluster: Cluster, names: list[str], numbers: range) -> None:
    producer = cluster.broker.clients().producer()
    for number in numbers:
        for name in names:
            producer.produce(f"{name}-in", b'{"id": %d}' % number, b"k%d" % number)
        producer.poll(0)
    assert producer.flush(30) == 0
    producer.close()


def written(cluster: Cluster, names: list[str]) -> int:
    admin = cluster.broker.clients().admin()
    try:
        return sum(admin.end_offsets([TopicPartition(f"{name}-out", 0) for name in names]).values())
    finally:
        admin.close()


def has_all(cluster: Cluster, name: str) -> bool:
    found = everything(cluster.broker.clients(), f"{name}-out")
    return {json.loads(message.value() or b"{}")["id"] for message in found} == set(range(2 * RECORDS))


def well(cluster: Cluster, folder: Path) -> list[str]:
    """The topologies that `sage topology list` shows as well."""
    shell = Shell(
        folder, {"SAGE_BOOTSTRAP_SERVERS": cluster.broker.bootstrap_servers, PREFIX_VARIABLE: cluster.topics.prefix}
    )
    found = shell("topology", "list", "-o", "json")
    assert found.code == 0, found
    return [row["name"] for row in json.loads(found.out) if row["health"] == "ok"]
