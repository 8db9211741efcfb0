"""``sage topology status`` of a stage that stands still."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.support.waiting import wait_until
from tests.unit.cli import memory_broker
from tests.unit.cli.conftest import Sage
from tests.unit.cluster.worker import steps
from tests.unit.cluster.worker.town import TOPICS, Town

TOLD = 'step "work" stands still: 1 partition assigned, 2 records behind'


@pytest.fixture
def town(monkeypatch: pytest.MonkeyPatch) -> Iterator[Town]:
    made = Town()
    memory_broker.use(monkeypatch, made.clients, TOPICS)
    steps.Waiting.goes_on.clear()
    yield made
    steps.Waiting.goes_on.set()
    made.close()


def test_a_stage_that_stands_still_is_failing_until_it_moves_or_is_told_to_rest(sage: Sage, town: Town) -> None:
    town.topic("in", 1)
    town.worker("a", stalled_after=0.4)
    town.deploy(lambda b: b.from_topic("in").map(steps.Waiting, name="work").to("out"))
    town.until("work", a=(1, "running"))
    assert sage("topology", "status", "t").code == 0
    town.feed("in", 1, 2)
    wait_until(lambda: sage("topology", "status", "t").code == 1, timeout=25, what="it exits 1")
    shown = sage("topology", "status", "t")
    assert shown.out.startswith("t v1 running, failing; 1 worker\n")
    assert TOLD in shown.err
    assert "(on worker a)" in shown.err
    (row,) = json.loads(sage("topology", "list", "-o", "json").out)
    assert (row["health"], row["problem"].partition(" (")[0]) == ("failing", TOLD)

    town.deployer.pause("t")
    wait_until(lambda: sage("topology", "status", "t").code == 0, timeout=25, what="a stage that rests is not stuck")
    town.deployer.resume("t")
    steps.Waiting.goes_on.set()
    town.until_out("out", [1, 2])
    wait_until(lambda: sage("topology", "status", "t").code == 0, timeout=25, what="it moves again")


def test_a_stage_that_runs_well_again_says_what_it_stopped_of_and_is_ok(sage: Sage, town: Town) -> None:
    town.topic("in", 1)
    town.worker("a")
    steps.Fragile.broken = "the disk is full"
    try:
        town.deploy(lambda b: b.from_topic("in").map(steps.Fragile, name="work").to("out"))
        wait_until(lambda: sage("topology", "status", "t").code == 1, timeout=25, what="it is failing")
    finally:
        steps.Fragile.broken = ""
    town.until("work", a=(1, "running"))
    assert sage("topology", "status", "t").code == 0
    assert "the disk is full" in json.loads(sage("topology", "status", "t", "-o", "json").out)["stages"][0]["problem"]
