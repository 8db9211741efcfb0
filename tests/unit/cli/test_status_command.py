"""``sage topology status``: what workers count, added up and shown; what fails is told by the exit code too."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sage.cluster.names import ControlTopics
from sage.cluster.status import StageStatus, TopologyStatus, WorkerStatus
from tests.support.waiting import wait_until
from tests.unit.cli import memory_broker, pipelines
from tests.unit.cli.conftest import Outcome, Sage
from tests.unit.cluster.worker.town import TOPICS, Town

PIPELINES = "tests.unit.cli.pipelines"


@pytest.fixture
def town(monkeypatch: pytest.MonkeyPatch) -> Iterator[Town]:
    made = Town()
    memory_broker.use(monkeypatch, made.clients, TOPICS)
    made.topic("numbers", 2)
    pipelines.Fragile.failed_once.clear()
    yield made
    made.close()


def said(town: Town, topics: ControlTopics, worker: str, stage: StageStatus) -> None:
    """A worker's heartbeat, and its word on the one stage of ``calc``."""
    producer = town.clients.producer()
    for word in (WorkerStatus(worker, topologies=("calc",)), TopologyStatus(worker, "calc", (stage,))):
        producer.produce(topics.status, word.encode(), word.key, partition=0)
    assert producer.flush(5) == 0
    producer.close()


def cells(table: str) -> list[dict[str, str]]:
    """The rows under a table's head."""
    head, *rows = [re.split(r"\s{2,}", line.strip()) for line in table.splitlines()[1:]]
    return [dict(zip(head, row, strict=False)) for row in rows]


def row_of(outcome: Outcome) -> dict[str, Any]:
    (row,) = json.loads(outcome.out)["stages"]
    return dict(row)


def until(typed: Callable[[], Outcome], is_so: Callable[[Outcome], bool], what: str) -> Outcome:
    """The first answer that is so."""
    answers: list[Outcome] = []

    def looks_so() -> bool:
        answers.append(typed())
        return is_so(answers[-1])

    wait_until(looks_so, timeout=30, what=f"{what}; the last answer was {answers[-1:]}")
    return answers[-1]


def test_what_two_workers_say_of_a_stage_is_added_up_and_the_lag_is_divided_by_their_rate(
    sage: Sage, town: Town
) -> None:
    assert sage("topology", "deploy", f"{PIPELINES}:giving_up").code == 0
    town.feed("numbers", *range(90))
    one = StageStatus("work", 1, "running", ("numbers:0",), 50, 40, retried=3, skipped=4, dead=5, rate=10.25)
    other = StageStatus("work", 1, "running", ("numbers:1",), 60, 55, retried=1, skipped=1, dead=2, rate=1.75)
    said(town, TOPICS, "w1", one)
    said(town, TOPICS, "w2", other)
    row = row_of(sage("topology", "status", "calc", "-o", "json"))
    assert (row["rate"], row["lag"], row["eta"]) == (12.0, 90, 7.5)
    assert (row["read"], row["written"], row["retried"], row["skipped"], row["dead"]) == (110, 95, 4, 5, 7)
    assert row["partitions"] == {"numbers:0": "w1", "numbers:1": "w2"}
    (cell,) = cells(sage("topology", "status", "calc").out)
    assert (cell["RATE/S"], cell["LAG"], cell["ETA"]) == ("12", "90", "7.5 s")
    assert (cell["READ"], cell["RETRIED"], cell["DEAD"]) == ("110", "4", "7")


def test_dead_and_retried_records_are_counted_at_the_verb(sage: Sage, town: Town) -> None:
    town.worker("w1")
    assert sage("topology", "deploy", f"{PIPELINES}:giving_up", "--wait").code == 0
    town.feed("numbers", 1, 2, 4, -1, -3, -5)
    town.until_out("results", [1, 2, 4])
    found = until(
        lambda: sage("topology", "status", "calc", "-o", "json"), lambda it: row_of(it)["dead"] == 3, "three are dead"
    )
    row = row_of(found)
    assert (found.code, row["retried"], row["dead"]) == (0, 2, 3)
    (cell,) = cells(sage("topology", "status", "calc").out)
    assert (cell["RETRIED"], cell["DEAD"]) == ("2", "3")


def test_a_stage_that_stops_is_failing_by_name_and_by_exit_code(sage: Sage, town: Town) -> None:
    town.worker("w1")
    assert sage("topology", "deploy", f"{PIPELINES}:stopping", "--wait").code == 0
    assert sage("topology", "status", "calc").code == 0
    town.feed("numbers", -1)
    found = until(lambda: sage("topology", "status", "calc", "-o", "json"), lambda it: it.code == 1, "it is failing")
    document = json.loads(found.out)
    assert document["health"] == "failing"
    assert "less than nothing" in document["problem"]
    assert document["problem"].endswith("(on worker w1)")
    assert row_of(found)["problem"] == document["problem"]

    shown = until(lambda: sage("topology", "status", "calc"), lambda it: it.code == 1, "it is failing")
    assert shown.out.startswith("calc v1 running, failing; 1 worker\n")
    assert "backing-off" in shown.out
    assert "less than nothing" in shown.err
