"""Workers that do what the control topics say: many in one process, over a broker in memory."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from sage.cluster.worker import actor_host
from sage.cluster.worker.checks import Policy
from sage.graph.builder import StreamBuilder
from sage.operations.cluster import Cluster
from tests.support.waiting import wait_until
from tests.unit.cluster.worker import steps
from tests.unit.cluster.worker.town import DRAIN_TIMEOUT, TOPICS, Town
from tests.unit.cluster.worker.town import town as make_town


@pytest.fixture
def town() -> Iterator[Town]:
    yield from make_town()


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    steps.Numbers.limit, steps.Fragile.broken, steps.Fragile.opened = 0, "", 0
    steps.Waiting.entered.clear()
    monkeypatch.setattr(actor_host, "FIRST_DELAY", 0.2)


def tens(builder: StreamBuilder) -> None:
    builder.from_topic("in").map(steps.times_ten, name="work").to("out")


def hundreds(builder: StreamBuilder) -> None:
    builder.from_topic("in").map(steps.times_hundred, name="work").to("out")


def numbered(builder: StreamBuilder) -> None:
    builder.from_source(steps.Numbers, name="numbers").map(steps.times_ten, name="work", concurrency=2).to("out")


def test_what_is_deployed_runs_and_says_so(town: Town) -> None:
    town.topic("in")
    town.worker("a")
    town.deploy(tens)
    town.feed("in", 1, 2, 3)
    town.until_out("out", [10, 20, 30])
    wait_until(lambda: town.said()["a"]["work"].read == 3, what="it says what it read")
    said = town.said()["a"]["work"]
    assert (said.version, said.state, said.written, said.dead) == (1, "running", 3, 0)
    assert said.partitions == ("in:0", "in:1", "in:2", "in:3")


def test_workers_that_come_share_and_one_that_goes_is_replaced(town: Town) -> None:
    town.topic("in")
    town.worker("a")
    town.deploy(tens)
    town.until("work", a=(1, "running"))
    town.worker("b")
    town.until("work", a=(1, "running"), b=(1, "running"))
    wait_until(lambda: len(town.said()["b"]["work"].partitions) == 2, what="the partitions are shared out")
    town.leave("a")
    town.until("work", b=(1, "running"))
    town.feed("in", 1, 2, 3, 4)
    town.until_out("out", [10, 20, 30, 40])


def test_a_new_version_replaces_the_old_one_and_a_rollback_brings_it_back(town: Town) -> None:
    town.topic("in")
    for name in ("a", "b"):
        town.worker(name)
    town.deploy(tens)
    town.until("work", a=(1, "running"), b=(1, "running"))
    town.feed("in", 1, 2)
    town.until_out("out", [10, 20])
    town.deploy(hundreds)
    town.until("work", a=(2, "running"), b=(2, "running"))
    town.feed("in", 3, 4)
    town.until_out("out", [10, 20, 300, 400])


def test_scale_moves_to_fewer_and_to_more(town: Town) -> None:
    town.topic("in")
    for name in ("a", "b", "c"):
        town.worker(name)
    town.deploy(tens)
    town.until("work", a=(1, "running"), b=(1, "running"), c=(1, "running"))
    town.deployer.scale("t", {"work": 1})
    wait_until(lambda: len(town.states("work")) == 1, timeout=20, what="one hosts it")
    town.feed("in", *range(8))
    town.until_out("out", [number * 10 for number in range(8)])
    town.deployer.scale("t", {"work": 2})
    wait_until(lambda: len(town.states("work")) == 2, timeout=20, what="two host it")


def test_pause_keeps_members_and_resume_goes_on(town: Town) -> None:
    town.topic("in")
    town.worker("a")
    town.deploy(tens)
    town.until("work", a=(1, "running"))
    town.deployer.pause("t")
    town.until("work", a=(1, "paused"))
    town.feed("in", 1)
    assert town.said()["a"]["work"].partitions == ("in:0", "in:1", "in:2", "in:3")
    assert town.out("out") == []
    town.deployer.resume("t")
    town.until_out("out", [10])


def test_drain_finishes_what_is_on_its_way_and_resume_goes_on_after_it(town: Town) -> None:
    town.worker("a")
    steps.Numbers.limit = 200
    town.deploy(numbered)
    wait_until(lambda: len(town.out("out")) > 20, what="it runs")
    town.deployer.drain("t")
    town.until("numbers", a=(1, "drained"))
    town.until("work", a=(1, "drained"))
    given = len(town.clients.messages("t.numbers"))
    assert len(town.out("out")) == given
    assert town.workers["a"].hosts["t"].units, "a drained unit stays as a word"
    steps.Numbers.limit = 250
    town.deployer.resume("t")
    town.until_out("out", [number * 10 for number in range(250)])


def test_a_stage_that_was_removed_drains_before_it_goes(town: Town) -> None:
    def two(builder: StreamBuilder) -> None:
        stream = builder.from_topic("in").map(steps.times_ten, name="work", concurrency=1)
        stream.map(steps.plus_one, name="more", concurrency=1).to("out")

    town.topic("in")
    town.worker("a")
    first = town.deploy(two)
    town.until("more", a=(first, "running"))
    town.feed("in", 1, 2)
    town.until_out("out", [11, 21])
    town.feed("in", 3)
    second = town.deploy(tens)  # returns when what was on its way to the old stage is through
    town.until("work", a=(second, "running"))
    wait_until(lambda: town.states("more") == {}, what="the removed stage is gone")
    town.feed("in", 4)
    town.until_out("out", [11, 21, 31, 40])


def test_a_topology_that_fails_starts_again_and_touches_no_other(town: Town) -> None:
    steps.Fragile.broken = "the disk is full"
    town.topic("in")
    town.topic("other")
    town.worker("a")
    town.deploy(lambda b: b.from_topic("in").map(steps.Fragile, name="work").to("out"))
    town.deploy(lambda b: b.from_topic("other").map(steps.times_ten, name="work").to("fine"), name="u")
    wait_until(lambda: town.states("work") == {"a": (1, "backing-off")}, what="it backs off")
    assert "the disk is full" in town.said()["a"]["work"].problem
    town.feed("other", 1)
    town.until_out("fine", [10])
    steps.Fragile.broken = ""
    town.until("work", a=(1, "running"))
    assert town.said()["a"]["work"].restarts >= 1


def test_code_that_a_worker_may_not_run_does_not_run_there(town: Town) -> None:
    town.topic("in")
    town.worker("closed", policy=Policy())
    town.worker("open")
    town.deploy(tens)
    town.until("work", open=(1, "running"))
    view = town.workers["closed"]._inspector.checks("t")
    assert [(check.version, check.kind) for check in view] == [(1, "refused")]
    assert "--allow-code tests" in view[0].problems[0]


def test_other_code_and_missing_variables_are_told_and_kept_away(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    town.topic("in")
    worker = town.worker("a", policy=Policy(("tests",), ("SERVICE_KEY",)))

    def keyed(builder: StreamBuilder) -> None:
        builder.from_topic("in").map(steps.Keyed, {"api_key": "${SERVICE_KEY}"}, name="work").to("out")

    town.deploy(keyed)
    wait_until(lambda: worker._inspector.checks("t"), what="it is checked")
    (check,) = worker._inspector.checks("t")
    assert check.kind == "unready"
    assert "SERVICE_KEY is not set (on worker a)" in check.problems[0]
    monkeypatch.setattr("sage.cluster.worker.checks.code_of", lambda plan: dict.fromkeys(_code(town, 2), "other"))
    town.deploy(tens)
    wait_until(lambda: [c.version for c in worker._inspector.checks("t")] == [2], what="the next one is checked")
    (check,) = worker._inspector.checks("t")
    assert check.kind == "incompatible"
    assert town.states("work") == {}


def _code(town: Town, version: int) -> Any:
    log = town.deployer.look()
    try:
        return log.deployment("t", version).code
    finally:
        log.close()


def test_a_drained_worker_gives_everything_away_and_takes_nothing_on(town: Town) -> None:
    town.topic("in")
    for name in ("a", "b"):
        town.worker(name)
    town.deploy(tens)
    town.until("work", a=(1, "running"), b=(1, "running"))
    town.deployer.drain_worker("a")
    town.until("work", b=(1, "running"))
    town.deployer.drain_worker("a", drain=False)
    town.until("work", a=(1, "running"), b=(1, "running"))


def test_labels_say_where_a_step_may_run(town: Town) -> None:
    town.topic("in")
    town.worker("a")
    town.worker("b", disk="large")
    town.deploy(lambda b: b.from_topic("in").map(steps.times_ten, name="work", labels={"disk": "large"}).to("out"))
    town.until("work", b=(1, "running"))


def test_what_is_stopped_leaves_nothing_behind(town: Town) -> None:
    town.topic("in")
    town.worker("a")
    town.deploy(tens)
    town.until("work", a=(1, "running"))
    town.deployer.stop("t")
    wait_until(lambda: town.clients.admin().members("t.work") == [], what="the group is empty")
    wait_until(lambda: town.said() == {}, what="nothing is said of it")


def test_a_worker_lives_through_brokers_that_are_away(town: Town) -> None:
    town.topic("in")
    worker = town.worker("a")
    town.deploy(tens)
    town.until("work", a=(1, "running"))
    with town.clients.down():
        before = worker._turned_at
        wait_until(lambda: worker._turned_at > before + 1.0, what="its loop turns")
    town.feed("in", 5)
    town.until_out("out", [50])
    assert worker.is_alive


def test_a_stage_that_stands_still_is_said_of_until_it_moves_again(town: Town) -> None:
    town.topic("in", 1)
    steps.Waiting.goes_on.clear()
    town.worker("a", stalled_after=0.4)
    town.deploy(lambda b: b.from_topic("in").map(steps.Waiting, name="work").to("out"))
    town.until("work", a=(1, "running"))
    town.feed("in", 1, 2)
    told = 'step "work" stands still: 1 partition assigned, 2 records behind'
    try:
        wait_until(lambda: told in town.said()["a"]["work"].problem, timeout=25, what="its status says so")
    finally:
        steps.Waiting.goes_on.set()
    town.until_out("out", [1, 2])
    wait_until(lambda: town.said()["a"]["work"].problem == "", what="it moves again, and its status says that too")


def test_a_step_that_hangs_does_not_keep_a_worker_from_ending_within_its_time(
    town: Town, caplog: pytest.LogCaptureFixture
) -> None:
    town.topic("in", 1)
    town.topic("other", 1)
    steps.Waiting.goes_on.clear()
    town.worker("a")
    town.deploy(lambda b: b.from_topic("in").map(steps.Waiting, name="work").to("out"))
    town.deploy(lambda b: b.from_topic("other").map(steps.times_ten, name="work").to("fine"), name="u")
    town.until("work", a=(1, "running"))
    town.until("work", "u", a=(1, "running"))
    town.feed("in", 1)
    town.feed("other", 1)
    town.until_out("fine", [10])
    wait_until(steps.Waiting.entered.is_set, what="the step hangs")
    began = time.monotonic()
    try:
        with caplog.at_level(logging.ERROR, logger="sage.cluster"):
            town.leave("a")
        assert time.monotonic() - began < DRAIN_TIMEOUT + 2.0
    finally:
        steps.Waiting.goes_on.set()
    given_up = [line for line in caplog.messages if "did not stop in time" in line]
    assert given_up == ["sage-t.work did not stop in time; what it had not committed is read again"]
    assert town.said() == town.said("u") == {}, "it took its leave"


def test_a_plan_that_nothing_can_be_made_of_stops_nobody(town: Town) -> None:
    town.topic("in")
    town.worker("a")
    producer = town.clients.producer()
    for name, plan in (("x", {}), ("y", {"stages": [], "steps": None}), ("z", {"format": 99, "graph": []})):
        bad = {"format": 1, "name": name, "version": 1, "plan": plan}
        producer.produce(TOPICS.topologies, orjson.dumps(bad), f"{name}@1".encode(), partition=0)
        pointer = {"format": 1, "name": name, "version": 1}
        producer.produce(TOPICS.topologies, orjson.dumps(pointer), name.encode(), partition=0)
    producer.flush(5)
    town.deploy(tens)
    town.until("work", a=(1, "running"))
    with Cluster(town.clients, TOPICS) as cluster:
        assert {row.name: row.health for row in cluster.topologies()} == {
            "t": "ok", "x": "stalled", "y": "stalled", "z": "stalled",
        }  # fmt: skip
