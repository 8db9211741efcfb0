"""``sage topology run`` in processes of its own: shared, killed, drained; nothing is lost."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.brokers import ApacheBroker, Broker
from tests.support.programs import sage
from tests.support.records import everything, fill, make_topic, total_lag, values_of
from tests.support.waiting import wait_until

OPERATORS = """
import asyncio
import os


async def slow(value: dict) -> dict:
    await asyncio.sleep(0.02)
    return {**value, "by": os.getpid()}


def plain(value: dict) -> dict:
    return {**value, "seen": True}
"""

TOPOLOGY = """
version: 1
name: {name}
defaults: {{partitions: 4}}
steps:
  input: {{source: topic, config: {{topic: {source}}}}}
  plain: {{map: "ops:plain", from: input}}
  slow: {{map: "ops:slow", from: plain, concurrency: 8}}
  output: {{sink: topic, from: slow, config: {{topic: {target}}}}}
"""


def write_project(folder: Path, **names: str) -> None:
    (folder / "ops.py").write_text(OPERATORS, encoding="utf-8")
    (folder / "topology.yaml").write_text(TOPOLOGY.format(**names), encoding="utf-8")


def ids(broker: Broker, topic: str) -> list[int]:
    return [value["id"] for value in values_of(everything(broker.clients(), topic))]


@pytest.mark.chaos
def test_two_processes_share_the_partitions_and_a_kill_in_mid_run_loses_nothing(
    apache_kafka: ApacheBroker, unique: Callable[[str], str], tmp_path: Path
) -> None:
    name, source, target = unique("kill"), unique("in"), unique("out")
    clients = apache_kafka.clients()
    make_topic(clients, source, 4)
    make_topic(clients, target, 4)
    write_project(tmp_path, name=name, source=source, target=target)
    fill(clients, source, ({"id": number} for number in range(3_000)), keyed_by="id")
    arguments = ("topology", "run", "topology.yaml", "--bootstrap-servers", apache_kafka.bootstrap_servers)

    with sage(tmp_path, *arguments) as first, sage(tmp_path, *arguments) as second:
        wait_until(
            lambda: len({value["by"] for value in values_of(everything(clients, target))}) == 2,
            timeout=90,
            what="both processes have written",
        )
        first.kill()
        assert len(set(ids(apache_kafka, target))) < 3_000, "killed too late to prove anything"
        wait_until(lambda: len(set(ids(apache_kafka, target))) == 3_000, timeout=120, what="every record is there")
        wait_until(lambda: total_lag(clients, f"{name}.plain", source, 4) == 0, what="the lag is 0")
        second.process.send_signal(signal.SIGTERM)
        assert second.wait(30) == 0, second.output

    assert set(ids(apache_kafka, target)) == set(range(3_000))


def test_until_idle_ends_by_itself_and_a_second_run_has_nothing_to_do(
    broker: Broker, unique: Callable[[str], str], tmp_path: Path
) -> None:
    name, source, target = unique("idle"), unique("in"), unique("out")
    clients = broker.clients()
    make_topic(clients, source, 2)
    write_project(tmp_path, name=name, source=source, target=target)
    fill(clients, source, ({"id": number} for number in range(50)), keyed_by="id")
    arguments = ("topology", "run", "topology.yaml", "--until-idle", "--bootstrap-servers", broker.bootstrap_servers)

    for _ in range(2):
        with sage(tmp_path, *arguments) as run:
            assert run.wait(60) == 0, run.output
        assert sorted(ids(broker, target)) == list(range(50))


def test_ctrl_c_drains_commits_and_exits_130(broker: Broker, unique: Callable[[str], str], tmp_path: Path) -> None:
    name, source, target = unique("interrupt"), unique("in"), unique("out")
    clients = broker.clients()
    make_topic(clients, source, 2)
    write_project(tmp_path, name=name, source=source, target=target)
    fill(clients, source, ({"id": number} for number in range(400)), keyed_by="id")
    arguments = ("topology", "run", "topology.yaml", "--bootstrap-servers", broker.bootstrap_servers)

    with sage(tmp_path, *arguments) as run:
        wait_until(lambda: len(everything(clients, target)) > 20, timeout=60, what="some records are through")
        run.process.send_signal(signal.SIGINT)
        assert run.wait(40) == 130, run.output
    assert "Traceback" not in run.output
    before = ids(broker, target)

    with sage(tmp_path, *arguments, "--until-idle") as rest:
        assert rest.wait(60) == 0, rest.output
    after = ids(broker, target)
    assert set(after) == set(range(400))
    assert len(after) == 400, "a drained run commits what it wrote, so nothing is doubled"
    assert len(before) < 400, "interrupted too late to prove anything"


@pytest.mark.chaos
def test_a_source_resumes_after_a_kill_and_gives_the_same_ids_again(
    apache_kafka: ApacheBroker, unique: Callable[[str], str], tmp_path: Path
) -> None:
    name, target = unique("file"), unique("out")
    clients = apache_kafka.clients()
    make_topic(clients, target)
    lines = "".join(f'{{"id": {number}}}\n' for number in range(60_000))
    (tmp_path / "input.jsonl").write_text(lines, encoding="utf-8")
    (tmp_path / "topology.yaml").write_text(
        f"version: 1\nname: {name}\nsteps:\n"
        "  lines: {source: file, config: {path: input.jsonl, format: jsonl}}\n"
        f"  out: {{sink: topic, from: lines, config: {{topic: {target}}}}}\n",
        encoding="utf-8",
    )
    arguments = ("topology", "run", "topology.yaml", "--bootstrap-servers", apache_kafka.bootstrap_servers)

    def written() -> int:
        return len(everything(clients, target))

    with sage(tmp_path, *arguments) as first:
        wait_until(lambda: written() > 500, timeout=60, what="some lines are through")
        first.kill()
    with sage(tmp_path, *arguments, "--until-idle") as second:
        assert second.wait(90) == 0, second.output

    records = everything(clients, target)
    ids_by_line: dict[int, set[bytes | None]] = {}
    for value, message in zip(values_of(records), records, strict=True):
        ids_by_line.setdefault(value["id"], set()).add(dict(message.headers() or ())["sage.id"])
    assert set(ids_by_line) == set(range(60_000))
    assert all(len(found) == 1 for found in ids_by_line.values()), "a line read again has the id it had"
