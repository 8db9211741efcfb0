"""What is done to workers and brokers in the middle of their work, each at moments drawn from the scenario's seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from tests.chaos.scenario import Scenario
from tests.support.brokers import leader_of

Blow = Callable[[Scenario], None]

SESSION: Final = 6.0
"""Seconds after which our brokers take a silent worker for dead."""


def kill(scenario: Scenario) -> None:
    """kill -9 of a worker."""
    scenario.kill(_anyone(scenario))


def kill_all(scenario: Scenario) -> None:
    """kill -9 of all workers at once, as when a machine loses its power."""
    for number in range(len(scenario.workers)):
        scenario.kill(number)


def terminate(scenario: Scenario) -> None:
    """SIGTERM of a worker: a rolling restart."""
    scenario.terminate(_anyone(scenario))


def freeze(scenario: Scenario) -> None:
    """SIGSTOP of a worker past its session, then SIGCONT."""
    scenario.freeze(_anyone(scenario), SESSION + scenario.random.uniform(1.5, 3.0))


def storm(scenario: Scenario) -> None:
    """Workers come and go before the group has settled after the last one."""
    for _ in range(3):
        scenario.join()
        scenario.pause(0.2, 1.5)
        if scenario.random.random() < 0.5:
            scenario.kill(_anyone(scenario))
        scenario.pause(0.2, 1.5)
        scenario.terminate(_anyone(scenario), replace=False)


def turn_clocks(scenario: Scenario) -> None:
    """Wall clocks jump an hour ahead, back, and an hour behind the truth, where they stay."""
    for _ in range(3):
        scenario.turn_clocks()
        scenario.pause(0.3, 1.0)


def lose_broker(scenario: Scenario) -> None:
    """kill -9 of one broker, which comes back."""
    _lose(scenario, scenario.random.choice(scenario.broker.cluster.nodes))


def lose_coordinator(scenario: Scenario) -> None:
    """kill -9 of the broker that coordinates a group, or its transactions, whichever the seed says."""
    topic = scenario.random.choice(("__consumer_offsets", "__transaction_state"))
    for partition in range(2):
        _lose(scenario, leader_of(scenario.broker, topic, partition))


def freeze_broker(scenario: Scenario) -> None:
    """SIGSTOP of one broker until the others have taken its partitions, then SIGCONT: it still thinks that it leads."""
    cluster = scenario.broker.cluster
    node = scenario.random.choice(cluster.nodes)
    cluster.freeze(node)
    scenario.pause(4.0, 8.0)
    cluster.thaw(node)


def lose_all_brokers(scenario: Scenario, seconds: float = 15.0) -> None:
    """No broker for longer than the session and than a transaction may take."""
    cluster = scenario.broker.cluster
    for node in cluster.nodes:
        cluster.kill(node)
    scenario.pause(seconds, seconds + 1.0)
    cluster.start_all()


def lose_all_brokers_for_a_minute(scenario: Scenario) -> None:
    """No broker for a minute."""
    lose_all_brokers(scenario, 60.0)


WORKERS: Final[Mapping[str, Blow]] = {
    "kill": kill, "kill-all": kill_all, "terminate": terminate, "freeze": freeze, "storm": storm, "clocks": turn_clocks,
}  # fmt: skip

BROKERS: Final[Mapping[str, Blow]] = {
    "broker": lose_broker, "coordinator": lose_coordinator, "frozen-broker": freeze_broker,
    "all-brokers": lose_all_brokers, "all-brokers-for-a-minute": lose_all_brokers_for_a_minute,
}  # fmt: skip


def attack(scenario: Scenario, rounds: int, blow: Blow) -> None:
    """Strike ``rounds`` times, at random moments while records are under way."""
    scenario.begun()
    for _ in range(rounds):
        scenario.pause(0.3, 3.0)
        scenario.at_work()
        blow(scenario)


def _anyone(scenario: Scenario) -> int:
    return scenario.random.randrange(len(scenario.workers))


def _lose(scenario: Scenario, node: int) -> None:
    cluster = scenario.broker.cluster
    cluster.kill(node)
    scenario.pause(1.0, 4.0)
    cluster.start(node)
