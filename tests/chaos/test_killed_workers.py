"""kill -9, SIGTERM and SIGSTOP of workers in the middle of their work: nothing lost, and nothing doubled where asked.

Short rounds; ``make chaos`` goes on for longer. The seed is fixed here and printed there. The kinds of stages are
under attack at the same time, each in a topology of its own, since most of the time goes into waiting.
"""

from __future__ import annotations

import pytest

from tests.chaos.blows import attack, freeze, kill, kill_all, storm, terminate, turn_clocks
from tests.chaos.conftest import Start, together
from tests.chaos.scenario import Scenario, judge
from tests.chaos.worker import KINDS

pytestmark = pytest.mark.chaos

SPECIAL = ["partition", "none", "timer", "async-timer", "loop"]
GROUPS = [
    [kind for kind in KINDS if kind not in ("chain", *SPECIAL)],
    SPECIAL,
]
"""Kinds that are attacked at the same time: more at once would starve each other until their sessions end."""


@pytest.mark.parametrize("kinds", GROUPS, ids=["plain", "special"])
@pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
def test_killed_workers_lose_nothing_and_double_nothing_where_asked(
    start: Start, guarantee: str, kinds: list[str]
) -> None:
    def strike(scenario: Scenario) -> None:
        attack(scenario, 2, kill)
        judge(scenario.reckon(), scenario)

    together(strike, [start(kind, guarantee, seed=11) for kind in kinds])


@pytest.mark.parametrize("kinds", GROUPS, ids=["plain", "special"])
@pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
def test_a_worker_frozen_past_its_session_commits_nothing_that_is_anothers(
    start: Start, guarantee: str, kinds: list[str]
) -> None:
    def strike(scenario: Scenario) -> None:
        attack(scenario, 1, freeze)
        judge(scenario.reckon(), scenario)

    together(strike, [start(kind, guarantee, seed=5) for kind in kinds])


def test_a_chain_is_killed_as_a_whole_and_restarted_one_by_one_and_doubles_nothing(start: Start) -> None:
    scenario = start("chain", "exactly_once", seed=3)
    attack(scenario, 1, kill_all)
    attack(scenario, len(scenario.workers), terminate)
    judge(scenario.reckon(), scenario)


def test_a_storm_of_rebalances_with_work_under_way_doubles_nothing(start: Start) -> None:
    def strike(scenario: Scenario) -> None:
        attack(scenario, 1, storm)
        judge(scenario.reckon(), scenario)

    kinds = ("async", "async-state", "async-falter", "none", "async-timer")
    together(strike, [start(kind, "exactly_once", seed=9) for kind in kinds])


def test_wall_clocks_that_jump_change_nothing(start: Start) -> None:
    def strike(scenario: Scenario) -> None:
        attack(scenario, 1, turn_clocks)
        judge(scenario.reckon(), scenario)

    together(strike, [start(kind, "exactly_once", seed=7) for kind in ("falter", "async-falter", "state", "source")])
