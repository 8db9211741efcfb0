"""``sage topology eval`` as it is typed, over real brokers, beside a topology that works."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from typing import Any

import pytest

from sage.model.partition import TopicPartition
from tests.integration.cli.conftest import Shell
from tests.support.brokers import Broker
from tests.support.records import everything, fill, make_topic, values_of
from tests.support.waiting import wait_until

OPERATORS = """
import asyncio
from collections.abc import Iterator

KNOWN = {"q1": "twenty days", "q2": "the director", "q3": "never"}


async def answer(value):
    record = {"query": value} if isinstance(value, str) else dict(value)
    await asyncio.sleep(0.002)
    if record["query"] == "q4":
        raise ValueError("there is no four")
    if record["query"] == "slow":
        await asyncio.sleep(60)
    if record["query"] in KNOWN:
        record["answer"] = KNOWN[record["query"]]
    return record


def count(value, ctx) -> Iterator[dict]:
    ctx.state["n"] = ctx.state.get("n", 0) + 1
    yield {**value, "metrics": {"first": float(ctx.state["n"] == 1)}}
"""

TOPOLOGY = """
version: 1
name: {name}
guarantee: {guarantee}
defaults: {{partitions: 3}}
steps:
  questions: {{source: topic, config: {{topic: {source}}}}}
  answer: {{map: "ops:answer", from: questions, concurrency: 8, retry: {{attempts: 1}}}}
  by_query: {{key_by: query, from: answer}}
  count: {{process: "ops:count", from: by_query}}
  answers: {{sink: topic, from: count, config: {{topic: {target}}}}}
"""

GOLDEN = [
    {"query": "q1", "expected": "twenty days"},
    {"query": "q2", "expected": ["a director"]},
    {"query": "q3", "references": ["always"]},
    {"query": "q4", "expected": "four"},
    {"query": "q5", "expected": "five"},
    {"query": "q1", "expected": ["nothing", "twenty days"]},
]


def write_project(shell: Shell, questions: list[dict[str, Any]], **names: str) -> None:
    shell.write("ops.py", OPERATORS)
    shell.write("qa.yaml", TOPOLOGY.format(**{"guarantee": "at_least_once", **names}))
    shell.write("golden.jsonl", "".join(json.dumps(one) + "\n" for one in questions))


def of_the_run(broker: Broker, name: str) -> set[str]:
    """Topics and groups that begin with a run's name."""
    admin = broker.clients().admin()
    found = {info.name for info in admin.list_topics()} | set(admin.list_groups())
    admin.close()
    return {one for one in found if one.startswith(f"{name}-eval-")}


def committed(broker: Broker, group: str, topic: str) -> dict[TopicPartition, int | None]:
    admin = broker.clients().admin()
    found = admin.committed(group, [TopicPartition(topic, number) for number in range(3)])
    admin.close()
    return found


@pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
def test_answers_are_measured_beside_a_topology_that_is_not_disturbed(
    broker: Broker, sage: Shell, unique: Callable[[str], str], guarantee: str
) -> None:
    clients = broker.clients()
    names = {"name": unique("qa"), "source": unique("in"), "target": unique("out")}
    make_topic(clients, names["source"], 3)
    write_project(sage, GOLDEN, guarantee=guarantee, **names)
    sage.variables["SAGE_BOOTSTRAP_SERVERS"] = broker.bootstrap_servers
    fill(clients, names["source"], ["q1", "q2"])
    real = sage("topology", "run", "qa.yaml", "--until-idle", "--timeout", "60")
    assert real.code == 0, real.err
    where = f"{names['name']}.answer", names["source"]
    before = committed(broker, *where)
    fill(clients, names["source"], ["q3"])  # waits for the real one: an evaluation must not take it

    found = sage("topology", "eval", "qa.yaml", "--dataset", "golden.jsonl", "--save", "a.json", "-o", "json")
    assert found.code == 0, found.err
    document = json.loads(found.out)
    assert (document["records"], document["answered"], document["missing"], document["dead"]) == (6, 4, 1, 1)
    assert document["metrics"]["exact_match"]["mean"] == round(3 / 6, 4)
    # The state is the run's own: the real one has seen q1 already.
    assert document["metrics"]["first"] == {"mean": round(3 / 6, 4), "count": 4}
    results = json.loads((sage.folder / "a.json").read_text())["results"]
    assert [one["status"] for one in results] == ["answered"] * 3 + ["dead", "missing", "answered"]
    assert results[3]["reason"] == "step answer: ValueError: there is no four"

    assert committed(broker, *where) == before
    assert sorted(value["query"] for value in values_of(everything(clients, names["target"]))) == ["q1", "q2"]
    assert everything(clients, f"{names['name']}.dlq") == []
    assert of_the_run(broker, names["name"]) == set()
    assert list((sage.folder / ".sage" / "state").glob(f"slot-*/{names['name']}-eval-*")) == []

    short = sage("topology", "eval", "qa.yaml", "--dataset", "golden.jsonl", "--min", "f1=0.9", "--compare", "a.json")
    assert short.code == 1, short.err
    assert short.err.splitlines()[-1].startswith(f"{names['name']}: f1 is 0.")
    assert "no answer is worse by f1" in short.out


def test_what_is_deployed_is_evaluated_by_its_name(broker: Broker, sage: Shell, unique: Callable[[str], str]) -> None:
    names = {"name": unique("qa"), "source": unique("in"), "target": unique("out")}
    make_topic(broker.clients(), names["source"], 3)
    write_project(sage, GOLDEN[:3], **names)
    sage.variables["SAGE_BOOTSTRAP_SERVERS"] = broker.bootstrap_servers
    sage.variables["SAGE_CONTROL_PREFIX"] = unique("control")
    missing = sage("topology", "eval", names["name"], "--dataset", "golden.jsonl")
    assert missing.code == 4, missing.err
    deployed = sage("topology", "deploy", "qa.yaml")
    assert deployed.code == 0, deployed.err
    (sage.folder / "qa.yaml").unlink()
    found = sage("topology", "eval", names["name"], "--dataset", "golden.jsonl", "-o", "json")
    assert found.code == 0, found.err
    assert (json.loads(found.out)["version"], json.loads(found.out)["answered"]) == (1, 3)
    assert of_the_run(broker, names["name"]) == set()


def test_its_time_and_a_signal_end_it_and_leave_nothing(
    broker: Broker, sage: Shell, unique: Callable[[str], str]
) -> None:
    names = {"name": unique("qa"), "source": unique("in"), "target": unique("out")}
    write_project(sage, [{"query": "slow", "expected": "x"}, GOLDEN[0]], **names)
    sage.variables["SAGE_BOOTSTRAP_SERVERS"] = broker.bootstrap_servers
    late = sage("topology", "eval", "qa.yaml", "--dataset", "golden.jsonl", "--timeout", "3s")
    assert (late.code, late.out) == (5, ""), late.err
    assert "not every question was done after 3." in late.err
    assert of_the_run(broker, names["name"]) == set()
    for asked in (signal.SIGINT, signal.SIGTERM):
        running = sage.start("topology", "eval", "qa.yaml", "--dataset", "golden.jsonl")
        groups = [f"{names['name']}-eval-"]
        wait_until(
            lambda: any(one.endswith(".count.changelog") for one in of_the_run(broker, names["name"])),
            timeout=60, what=f"{groups} run",
        )  # fmt: skip
        running.send_signal(asked)
        out, err = running.communicate(timeout=90)
        assert (running.returncode, out) == (130, ""), err
        assert of_the_run(broker, names["name"]) == set()
