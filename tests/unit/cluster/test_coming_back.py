"""What comes back meets what is new: numbers given again, places that Kafka forgot, deployers that were away."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from sage.cluster.switching import Switching
from sage.errors import Conflict, InvalidTopology
from sage.graph.builder import StreamBuilder
from sage.plan.diff import ALLOW_ORPHANS, REPARTITION
from sage.plan.plan import Plan
from sage.plan.planner import compile_plan
from tests.support.waiting import wait_until
from tests.unit.cluster.test_changing import chain, counting
from tests.unit.cluster.worker import steps
from tests.unit.cluster.worker.town import Town
from tests.unit.cluster.worker.town import town as make_town


@pytest.fixture
def town() -> Iterator[Town]:
    yield from make_town()


def test_what_is_deployed_anew_after_a_purge_runs_as_it_is_and_not_as_its_namesake_did(town: Town) -> None:
    town.topic("in")
    town.worker("a")
    town.deployer.deploy(chain("first", "last"))
    town.until("last", a=(1, "running"))
    town.deployer.delete("t")
    town.deployer.purge("t", timeout=20)
    assert town.deployer.deploy(chain("only")).deployment.version == 1
    town.until("only", a=(1, "running"))
    assert set(town.said()["a"]) == {"only"}


def test_a_check_is_of_the_version_that_was_asked_for_and_not_of_one_that_was_taken_back(town: Town) -> None:
    town.topic("in")
    town.worker("a")
    town.deployer.deploy(chain("first"))
    env = StreamBuilder("t", environ={"MISSING": "x"})
    env.from_topic("in").map(steps.Keyed, {"api_key": "${MISSING}"}, name="first").to("out")
    bad = compile_plan(env.build())
    for name in ("second", "third", "fourth"):  # each of them is version 2
        with pytest.raises(InvalidTopology, match=r"MISSING.*on worker a"):
            town.deployer.check_on_workers(bad, timeout=20)
        preflight, _ = town.deployer.check_on_workers(chain("first", name), timeout=20)
        assert preflight.problems == []
        town.deployer.rollback("t", 1)


def test_offsets_that_kafka_forgot_while_it_was_drained_go_along_to_a_renamed_step(town: Town) -> None:
    town.topic("in")
    town.worker("a")
    town.deployer.deploy(chain("old", "last"))
    town.until("last", a=(1, "running"))
    town.feed("in", 1, 2, 3)
    town.until_out("out", [3, 4, 5])
    town.deployer.drain("t")
    town.deployer.wait_settled("t", 20)
    town.clients.admin().delete_groups(["t.old", "t.last"])  # what Kafka does after seven days
    town.deployer.deploy(chain("new", "last", moved={"old": "new"}), timeout=20)
    town.feed("in", 7)
    wait_until(lambda: 9 in town.out("out"), what="it goes on")
    assert town.out("out") == [3, 4, 5, 9]


def test_a_deployer_that_froze_moves_nothing_after_its_change_was_taken_back(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    town.topic("in")
    town.worker("a")
    town.deployer.deploy(counting(partitions=2))
    town.until("count", a=(1, "running"))
    drain = Switching._drain

    def drain_and_freeze(self: Switching) -> None:
        drain(self)
        town.deployer.rollback("t", 1)

    monkeypatch.setattr(Switching, "_drain", drain_and_freeze)
    with pytest.raises(Conflict, match="changed meanwhile by ann@laptop"):
        town.deployer.deploy(counting(partitions=4), allow={REPARTITION}, timeout=20)
    assert town.clients.admin().describe(["t.by"])["t.by"].partitions == 2
    town.until("count", a=(1, "running"))


def test_a_stage_that_comes_back_reads_nothing_again_though_kafka_forgot_where_it_stood(town: Town) -> None:
    def plan(**options: Any) -> Plan:
        env = StreamBuilder("t", environ={})
        first = env.from_topic("in").map(steps.plus_one, name="first", partitions=2)
        first.map(steps.plus_one, name="last", **options).to("out", partitions=2)
        return compile_plan(env.build())

    town.topic("in")
    town.worker("a")
    town.deployer.deploy(plan(concurrency=1))
    town.until("last", a=(1, "running"))
    town.feed("in", 1, 2, 3)
    town.until_out("out", [3, 4, 5])
    town.deployer.deploy(plan(), timeout=20)
    town.until("first", a=(2, "running"))
    wait_until(lambda: town.states("last") == {}, what="it is fused")
    town.clients.admin().delete_groups(["t.last"])  # what Kafka does after seven days
    town.deployer.rollback("t", 1, timeout=20)
    town.until("last", a=(1, "running"))
    town.feed("in", 7)
    wait_until(lambda: 9 in town.out("out"), what="it goes on")
    assert town.out("out") == [3, 4, 5, 9]


def test_a_reader_that_comes_back_to_an_edge_that_went_on_gets_what_came_meanwhile(town: Town) -> None:
    def plan(*readers: str) -> Plan:
        env = StreamBuilder("t", environ={})
        first = env.from_topic("in").map(steps.plus_one, name="first", partitions=2)
        for name in readers:
            first.map(steps.plus_one, name=name, concurrency=1).to(f"out-{name}", name=f"to-{name}", partitions=2)
        return compile_plan(env.build())

    town.topic("in")
    town.worker("a")
    town.deployer.deploy(plan("left", "right"))
    town.until("right", a=(1, "running"))
    town.feed("in", 1)
    town.until_out("out-right", [3])
    town.deployer.deploy(plan("left"), allow={ALLOW_ORPHANS}, timeout=20)
    town.until("left", a=(2, "running"))
    town.feed("in", 2)
    town.until_out("out-left", [3, 4])
    town.clients.admin().delete_groups(["t.right"])
    town.deployer.rollback("t", 1, timeout=20)
    wait_until(lambda: 4 in town.out("out-right"), what="it gets what came meanwhile")
