"""What ``sage demo crash`` counts: on topics written by hand, so that each number is known."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest

from sage.errors import StageStopped
from sage.graph.yaml import read_topology
from sage.model.identity import SAGE_ID
from sage.model.partition import TopicPartition
from sage.operations import crash
from sage.operations.crash import ANSWERS, ASKED, QUESTIONS, Scene, Tally
from sage.plan.plan import Plan
from sage.plan.planner import compile_plan
from sage.ports import TopicSpec
from sage.testing.broker import InMemoryClients

STARTER = files("sage_topologies") / "rag_qa"


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """The plan of the starter's topology, as the demo changes it."""
    path = tmp_path / crash.TOPOLOGY
    starter = (STARTER / "rag-qa.yaml").read_text(encoding="utf-8")
    path.write_text(crash.topology_text(starter, "exactly_once"), encoding="utf-8")
    return compile_plan(read_topology(path, environ={}))


@pytest.fixture
def clients(plan: Plan) -> InMemoryClients:
    made = InMemoryClients()
    prepared = [replace(topic, partitions=topic.partitions or crash.PARTITIONS) for topic in plan.topics]
    made.admin().create([*prepared, TopicSpec(QUESTIONS, crash.PARTITIONS)])
    return made


@pytest.fixture
def calls() -> list[int]:
    """What the model server says was started, in its last word."""
    return [7]


@pytest.fixture
def scene(clients: InMemoryClients, plan: Plan, calls: list[int]) -> Iterator[Scene]:
    made = Scene(clients, plan, lambda: calls[-1])
    yield made
    made.close()


def put(clients: InMemoryClients, topic: str, *ids: int) -> None:
    """Records of these questions, each in its question's partition."""
    partitions = clients.admin().describe([topic])[topic].partitions
    producer = clients.producer()
    for number in ids:
        where = number % partitions
        producer.produce(topic, b"{}", None, [(SAGE_ID, str(number).encode())], partition=where)
    assert producer.flush(5) == 0
    producer.close()


def committed(clients: InMemoryClients, group: str, offsets: dict[TopicPartition, int]) -> None:
    reader = clients.consumer(group)
    reader.assign(offsets)
    reader.commit(offsets)
    reader.close()


def test_the_starters_topology_becomes_one_that_a_cluster_hosts(plan: Plan) -> None:
    asking = plan.by_name["generate"]
    assert (plan.name, plan.topology.guarantee, asking.concurrency) == ("crash", "exactly_once", 1)
    assert asking.journal_topic == "crash.generate.journal"
    assert {QUESTIONS} == set(plan.external)
    assert ANSWERS in {output.topic for stage in plan.stages for output in stage.outputs}
    with pytest.raises(ValueError, match="the starter's topology has"):
        crash.topology_text("name: other\n", "exactly_once")


def test_as_many_questions_are_asked_as_are_said() -> None:
    questions = crash.questions_of((STARTER / "golden.jsonl").read_text(encoding="utf-8"))
    assert len(questions) == ASKED
    assert all(isinstance(question, str) and question for question in questions)
    assert len(crash.questions_of(json.dumps({"query": "x"}), 9)) == 9
    assert (crash.kill_at(ASKED), crash.kill_at(crash.FEWEST)) == (17, 3)


def test_everything_is_counted_where_it_was_written(
    scene: Scene, clients: InMemoryClients, plan: Plan, calls: list[int]
) -> None:
    scene.ask([f"question {number}" for number in range(8)])
    asking = plan.by_name["generate"]
    edge = asking.inputs[0].topic
    put(clients, edge, *range(8))
    # The dead worker had partitions 0 and 1: 0 and 1 are committed; 4 was paid for, 5 was in flight.
    put(clients, asking.journal_topic, 0, 1, 2, 4)
    put(clients, ANSWERS, 0, 1, 2)
    committed(clients, asking.group, {TopicPartition(edge, 0): 1, TopicPartition(edge, 1): 1})
    calls.append(7 + 5)
    scene.killed(frozenset({0, 1}))
    assert scene.at_kill == 3

    put(clients, ANSWERS, 2, 3, 4, 5, 6)
    put(clients, "crash.dlq", 7)
    calls.append(7 + 9)
    assert scene.tally() == Tally(
        asked=8, answered=7, lost=1, twice=1, calls=9, repeated=1, from_journal=1, dead=1, at_kill=3, takeover=0.0
    )


def test_the_line_that_is_shown() -> None:
    tally = Tally(40, 40, 0, 0, 41, 1, 3, 0, 17, 6.8)
    assert str(tally) == (
        "asked 40 | answered 40 | lost 0 | twice 0 | model calls 41 = 40 + 1 in flight at the kill | from the journal 3"
    )
    assert "model calls 40 = 40 | from the journal 0" in str(Tally(40, 40, 0, 0, 40, 0, 0, 0, 17, 6.8))


def test_questions_that_die_end_the_wait(scene: Scene, clients: InMemoryClients) -> None:
    put(clients, "crash.dlq", 1)
    with pytest.raises(StageStopped, match="1 questions died; `sage dlq list crash` says why"):
        scene.wait_for_answers(1, lambda _: None)


def test_the_takeover_is_over_when_somebody_goes_on(scene: Scene, clients: InMemoryClients, plan: Plan) -> None:
    asking = plan.by_name["generate"]
    put(clients, asking.inputs[0].topic, 0, 4)
    scene.killed(frozenset({0, 1}))
    looks: list[str] = []

    def look(said: str) -> None:
        looks.append(said)
        committed(clients, asking.group, {TopicPartition(asking.inputs[0].topic, 0): 1})

    assert scene.wait_for_takeover(look) > 0
    assert looks == ["worker-1 is dead, its questions wait"]


def test_a_worker_that_had_nothing_to_do_needs_no_takeover(scene: Scene) -> None:
    scene.killed(frozenset({0}))
    assert scene.wait_for_takeover(pytest.fail) >= 0


def test_the_end_is_when_nothing_lags(scene: Scene, clients: InMemoryClients, plan: Plan) -> None:
    scene.ask(["one"])
    looks: list[int] = []

    def look(answers: int) -> None:
        looks.append(answers)
        committed(clients, "crash.retrieve", {TopicPartition(QUESTIONS, 0): 1})

    scene.wait_for_the_end(look)
    assert looks == [0]
