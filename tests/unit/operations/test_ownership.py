"""A stage of which nobody has some partitions is not well, though all its workers are."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sage.errors import Forbidden
from sage.graph.builder import StreamBuilder
from sage.operations import ownership
from sage.operations.cluster import Cluster, StageRow, TopologyRow
from sage.ports import Consumer
from tests.support.kafka import Recorder
from tests.support.waiting import wait_until
from tests.unit.cluster.worker import steps
from tests.unit.cluster.worker.town import TOPICS, Town
from tests.unit.cluster.worker.town import town as make_town


def tens(builder: StreamBuilder) -> None:
    builder.from_topic("in").map(steps.times_ten, name="work").to("out")


@pytest.fixture
def town() -> Iterator[Town]:
    """A worker, and a topology of one stage with two partitions."""
    for town in make_town():
        town.topic("in", 2)
        town.worker("a")
        town.deploy(tens)
        town.until("work", a=(1, "running"))
        yield town


@pytest.fixture
def other(town: Town) -> Iterator[Consumer]:
    """A member of its group that is no worker, and has one of its partitions."""
    consumer = town.clients.consumer("t.work")
    consumer.subscribe(["in"], Recorder())

    def share() -> bool:
        consumer.poll(1, 0.0)
        return len(consumer.assignment()) == len(town.said()["a"]["work"].partitions) == 1

    wait_until(share, what="each has a partition")
    yield consumer
    consumer.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ownership, "GRACE", 0.5)


def feed(town: Town) -> None:
    """A record into each partition."""
    producer = town.clients.producer()
    for partition in (0, 1):
        producer.produce("in", b"1", partition=partition)
    producer.flush(5)
    producer.close()


def look(town: Town) -> tuple[TopologyRow, StageRow]:
    with Cluster(town.clients, TOPICS) as cluster:
        (stage,) = cluster.stages("t")
        return cluster.topology("t"), stage


def past_grace(town: Town) -> bool:
    with Cluster(town.clients, TOPICS) as cluster:
        return cluster.view.settled("t") > ownership.GRACE


@pytest.mark.usefixtures("impatient")
def test_a_partition_with_records_that_no_worker_has_is_named(town: Town, other: Consumer) -> None:
    feed(town)
    (place,) = other.assignment()
    wait_until(lambda: look(town)[0].health == "stalled", what="it is found out")
    row, stage = look(town)
    assert row.problem.startswith(f"{place}: no worker has had it for ")
    assert row.problem.endswith("s, and 1 record waits there; see `sage groups describe t.work`")
    assert (stage.state, stage.ready, stage.problem[:14]) == ("running", 1, row.problem[:14])


def test_a_group_has_time_to_find_a_new_owner(town: Town, other: Consumer) -> None:
    feed(town)
    town.until_out("out", [10])
    assert look(town)[0].health == "ok"


@pytest.mark.usefixtures("impatient")
def test_a_partition_without_records_may_be_nobodys(town: Town, other: Consumer) -> None:
    wait_until(lambda: past_grace(town), what="all has been so for a while")
    row, stage = look(town)
    assert (row.health, row.problem, stage.problem) == ("ok", "", "")


@pytest.mark.usefixtures("impatient", "other")
def test_a_paused_topology_is_not_looked_at(town: Town) -> None:
    feed(town)
    town.deployer.pause("t")
    town.until("work", a=(1, "paused"))
    wait_until(lambda: past_grace(town), what="it has rested for a while")
    assert look(town)[0].health == "ok"


@pytest.mark.usefixtures("impatient")
def test_a_partition_that_a_worker_has_again_is_ok(town: Town, other: Consumer) -> None:
    feed(town)
    wait_until(lambda: look(town)[0].health == "stalled", what="it is found out")
    other.close()
    town.until_out("out", [10, 10])
    wait_until(lambda: look(town)[0].health == "ok", what="the worker says that it has both")
    wait_until(lambda: past_grace(town), what="all has been so for a while")
    assert look(town)[0].health == "ok"


@pytest.mark.usefixtures("impatient", "other")
def test_who_may_not_see_its_topics_sees_the_rest(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    wait_until(lambda: past_grace(town), what="all has been so for a while")

    def refuse(*_: object) -> None:
        raise Forbidden("not for you")

    monkeypatch.setattr("sage.operations.cluster.not_owned", refuse)
    assert look(town)[0].health == "ok"
