"""A dead-letter topic that is gone or takes no letter stops a worker loudly, with its record uncommitted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sage.ports import TopicSpec
from tests.support.brokers import ApacheBroker
from tests.support.programs import sage
from tests.support.records import everything, fill, make_topic, total_lag, values_of
from tests.support.waiting import wait_until

STEPS = """
import asyncio


def plain(value: dict) -> dict:
    return {**value, "share": 1 / value["n"]}


async def slow(value: dict) -> dict:
    await asyncio.sleep(0)
    return plain(value)
"""

TOPOLOGY = """
version: 1
name: {name}
guarantee: {guarantee}
steps:
  input: {{source: topic, config: {{topic: {name}-in}}}}
  work: {{map: "steps:{step}", from: input}}
  output: {{sink: topic, from: work, config: {{topic: {name}-out}}}}
"""

CASES = [("plain", "at_least_once"), ("slow", "at_least_once"), ("plain", "exactly_once"), ("slow", "exactly_once")]


def project(folder: Path, name: str, step: str, guarantee: str) -> None:
    (folder / "steps.py").write_text(STEPS, encoding="utf-8")
    (folder / "topology.yaml").write_text(TOPOLOGY.format(name=name, step=step, guarantee=guarantee), encoding="utf-8")


def delete(broker: ApacheBroker, topic: str) -> None:
    admin = broker.clients().admin()
    admin.delete([topic])
    wait_until(lambda: not admin.describe([topic]), what=f"{topic} is gone")
    admin.close()


def run(broker: ApacheBroker, *more: str) -> tuple[str, ...]:
    return ("topology", "run", "topology.yaml", "--bootstrap-servers", broker.bootstrap_servers, *more)


@pytest.mark.parametrize(("step", "guarantee"), CASES)
def test_a_dead_letter_topic_that_is_gone_stops_the_stage_and_the_letter_is_written_when_it_is_there_again(
    apache_kafka: ApacheBroker, unique: Callable[[str], str], tmp_path: Path, step: str, guarantee: str
) -> None:
    name, clients = unique("gone"), apache_kafka.clients()
    make_topic(clients, f"{name}-in")
    project(tmp_path, name, step, guarantee)
    # Else the client hopes for half a minute that the topic is only new.
    (tmp_path / "client.properties").write_text("topic.metadata.propagation.max.ms=500\n", encoding="utf-8")
    with sage(tmp_path, *run(apache_kafka, "--kafka-config", "client.properties")) as worker:
        fill(clients, f"{name}-in", [{"n": 1}])
        wait_until(lambda: everything(clients, f"{name}-out"), timeout=60, what="the first record is through")
        wait_until(lambda: total_lag(clients, f"{name}.work", f"{name}-in", 1) == 0, what="it is committed")
        delete(apache_kafka, f"{name}.dlq")
        fill(clients, f"{name}-in", [{"n": 0}, {"n": 2}])
        assert worker.wait(90) in (1, 4), worker.output
    assert f"{name}.dlq" in worker.output.strip().splitlines()[-1]
    assert total_lag(clients, f"{name}.work", f"{name}-in", 1) > 0, worker.output

    with sage(tmp_path, *run(apache_kafka, "--until-idle", "--allow-dead", "1")) as again:
        assert again.wait(60) == 0, again.output
    assert values_of(everything(clients, f"{name}.dlq")) == [{"n": 0}]
    assert {value["n"] for value in values_of(everything(clients, f"{name}-out"))} == {1, 2}


@pytest.mark.parametrize(("step", "guarantee"), CASES)
def test_a_dead_letter_topic_that_takes_no_letter_stops_the_stage_and_loses_nothing(
    apache_kafka: ApacheBroker, unique: Callable[[str], str], tmp_path: Path, step: str, guarantee: str
) -> None:
    name, clients = unique("full"), apache_kafka.clients()
    make_topic(clients, f"{name}-in")
    admin = clients.admin()
    admin.create([TopicSpec(f"{name}.dlq", 1, config={"max.message.bytes": "100"})])
    admin.close()
    project(tmp_path, name, step, guarantee)
    fill(clients, f"{name}-in", [{"n": 1}, {"n": 0}, {"n": 2}])
    with sage(tmp_path, *run(apache_kafka)) as worker:
        assert worker.wait(60) == 1, worker.output
    assert f"{name}.dlq" in worker.output.strip().splitlines()[-1], worker.output
    assert total_lag(clients, f"{name}.work", f"{name}-in", 1) > 0, worker.output

    delete(apache_kafka, f"{name}.dlq")
    with sage(tmp_path, *run(apache_kafka, "--until-idle", "--allow-dead", "1")) as again:
        assert again.wait(60) == 0, again.output
    assert values_of(everything(clients, f"{name}.dlq")) == [{"n": 0}]
    assert {value["n"] for value in values_of(everything(clients, f"{name}-out"))} == {1, 2}
