"""Brokers that are killed, frozen and come back: workers live through it, and nothing is lost or doubled.

One cluster of three for all tests of this file; each leaves it whole. All kinds of stages run while it is struck.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sage.model.partition import TopicPartition
from tests.chaos.blows import Blow, freeze_broker, lose_all_brokers_for_a_minute, lose_coordinator
from tests.chaos.conftest import together
from tests.chaos.scenario import Scenario, judge
from tests.chaos.worker import PARTITIONS
from tests.support.brokers import ApacheBroker, start_apache
from tests.support.records import make_topic

pytestmark = pytest.mark.chaos

STAGES = (
    ("chain", "exactly_once"), ("source", "exactly_once"), ("async-state", "exactly_once"), ("async", "at_least_once"),
    ("falter", "at_least_once"), ("loop", "exactly_once"), ("async-timer", "exactly_once"),
)  # fmt: skip


@pytest.fixture(scope="module")
def three_nodes() -> Iterator[ApacheBroker]:
    broker = start_apache(3)
    yield broker
    broker.cluster.stop()


@pytest.fixture
def scenarios(three_nodes: ApacheBroker, unique: Callable[[str], str], tmp_path: Path) -> Iterator[list[Scenario]]:
    """All kinds of stages, at work."""
    three_nodes.cluster.start_all()
    made: list[Scenario] = []
    try:
        for kind, guarantee in STAGES:
            made.append(Scenario(three_nodes, unique("chaos"), kind, guarantee, tmp_path, 2, replicas=3, records=600))
            made[-1].feed()
        together(Scenario.begun, made)
        yield made
    finally:
        for scenario in made:
            scenario.close()


def settle(scenarios: list[Scenario]) -> None:
    together(lambda scenario: judge(scenario.reckon(150), scenario), scenarios)


def test_where_a_log_ends_is_told_right_or_not_at_all_while_its_leader_goes(
    three_nodes: ApacheBroker, unique: Callable[[str], str]
) -> None:
    """A copy of state that took nothing for the end of its changelog would be used as it is, empty or old."""
    three_nodes.cluster.start_all()
    topic, clients = unique("ends"), three_nodes.clients()
    make_topic(clients, topic, PARTITIONS, replicas=3)
    places = [TopicPartition(topic, number) for number in range(PARTITIONS)]
    producer = clients.producer()
    for place in places:
        producer.produce(topic, b"x", partition=place.partition)
    assert producer.flush(30) == 0
    producer.close()
    admin = clients.admin()
    for node in three_nodes.cluster.nodes:
        assert admin.end_offsets(places) == dict.fromkeys(places, 1)
        three_nodes.cluster.kill(node)
        assert admin.end_offsets(places, committed=False) == dict.fromkeys(places, 1)
        assert admin.start_offsets(places) == dict.fromkeys(places, 0)
        three_nodes.cluster.start(node)
    admin.close()


def test_each_broker_of_three_is_lost_once_coordinators_included(scenarios: list[Scenario]) -> None:
    first, cluster = scenarios[0], scenarios[0].broker.cluster
    for node in cluster.nodes:
        together(Scenario.at_work, scenarios)
        cluster.kill(node)
        first.pause(1.0, 3.0)
        cluster.start(node)
    settle(scenarios)


@pytest.mark.parametrize("blow", [lose_coordinator, freeze_broker])
def test_a_coordinator_that_is_lost_or_frozen_costs_nothing(scenarios: list[Scenario], blow: Blow) -> None:
    together(Scenario.at_work, scenarios)
    blow(scenarios[0])
    settle(scenarios)


def test_workers_outlive_the_absence_of_all_brokers_for_a_minute(scenarios: list[Scenario]) -> None:
    together(Scenario.at_work, scenarios)
    lose_all_brokers_for_a_minute(scenarios[0])
    settle(scenarios)
