"""``sage topology run --processes``: the work is shared, a killed process comes back, the report is one."""

from __future__ import annotations

import json
import os
import re
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.cli.conftest import Shell
from tests.support.brokers import ApacheBroker
from tests.support.records import everything, fill, make_topic, values_of
from tests.support.waiting import wait_until

OPERATORS = """
import asyncio
import os


async def slow(value: dict) -> dict:
    await asyncio.sleep(0.01)
    if value["id"] == 7:
        raise ValueError("seven")
    return {**value, "by": os.getpid()}
"""

# At four calls of 10 ms at once the work lasts for seconds: long enough for the second process to join the first.
TOPOLOGY = """
version: 1
name: {name}
guarantee: {guarantee}
defaults: {{partitions: 4}}
steps:
  input: {{source: topic, config: {{topic: {source}}}}}
  slow: {{map: "ops:slow", from: input, concurrency: 4, retry: {{attempts: 1}}}}
  output: {{sink: topic, from: slow, config: {{topic: {target}}}}}
"""

FROM_FILE = """
version: 1
name: lines
guarantee: {guarantee}
steps:
  lines: {{source: file, config: {{path: lines.txt}}}}
  output: {{sink: file, from: lines, config: {{path: out.txt}}}}
"""


def write_project(shell: Shell, guarantee: str = "at_least_once", **names: str) -> None:
    shell.write("ops.py", OPERATORS)
    shell.write("topology.yaml", TOPOLOGY.format(guarantee=guarantee, **names))


def test_on_the_embedded_broker_the_report_is_that_of_all(sage: Shell) -> None:
    sage.write("lines.txt", "".join(f"{number}\n" for number in range(50)))
    sage.write("topology.yaml", FROM_FILE.format(guarantee="at_least_once"))
    done = sage("topology", "run", "topology.yaml", "--until-idle", "--processes", "2", "--timeout", "60", "-o", "json")
    assert done.code == 0, done.err
    report = json.loads(done.out)
    assert (report["complete"], report["read"], report["dead_letters"]) == (True, 50, 0)
    # Not exactly: this broker refuses every commit while a group is shared out anew, and that work is done again.
    assert report["delivered"] >= 50
    assert times_written(sage) == {str(number): 1 for number in range(50)}, "the sink knows what it has written"
    again = sage("topology", "run", "topology.yaml", "--until-idle", "--processes", "2", "--from-beginning")
    assert again.code == 0, again.err
    told = re.match(r"50 in, (\d+) out, 0 retried, 0 dead", again.err)  # afresh once, not once for each process
    assert told is not None, again.err
    assert int(told[1]) >= 50
    assert times_written(sage) == {str(number): 2 for number in range(50)}


def times_written(sage: Shell) -> dict[str, int]:
    """Value -> how often it stands in the sink's file."""
    return Counter(json.loads(line) for line in (sage.folder / "out.txt").read_text(encoding="utf-8").splitlines())


def test_exactly_once_on_the_embedded_broker_is_for_one_process(sage: Shell) -> None:
    sage.write("lines.txt", "1\n")
    sage.write("topology.yaml", FROM_FILE.format(guarantee="exactly_once"))
    refused = sage("topology", "run", "topology.yaml", "--until-idle", "--processes", "2")
    assert refused.code == 3, refused.err
    assert "run one, or use Apache Kafka" in refused.err
    first = sage.start("topology", "run", "topology.yaml")
    try:
        assert first.stderr is not None
        assert "runs; Ctrl-C" in first.stderr.readline()
        second = sage("topology", "run", "topology.yaml", "--until-idle")
        assert second.code == 3, second.err
        assert "another process runs a topology exactly_once here" in second.err
    finally:
        first.send_signal(signal.SIGTERM)
        first.communicate(timeout=60)
    assert first.returncode == 0
    alone = sage("topology", "run", "topology.yaml", "--until-idle", "--timeout", "60")
    assert alone.code == 0, alone.err


@pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
def test_on_apache_kafka_processes_share_the_work_and_the_dead_are_counted_once(
    apache_kafka: ApacheBroker, sage: Shell, unique: Callable[[str], str], guarantee: str
) -> None:
    clients = apache_kafka.clients()
    names = {"name": unique("several"), "source": unique("in"), "target": unique("out")}
    make_topic(clients, names["source"], 4)
    make_topic(clients, names["target"], 4)
    write_project(sage, guarantee, **names)
    fill(clients, names["source"], ({"id": number} for number in range(2_000)), keyed_by="id")
    done = sage(
        "topology", "run", "topology.yaml", "--until-idle", "--processes", "2", "--timeout", "100", "-o", "json",
        "--bootstrap-servers", apache_kafka.bootstrap_servers, "--instance-id", "worker",
    )  # fmt: skip
    assert done.code == 1, done.err
    assert "1 of 2000 records dead: ValueError: seven" in done.err
    report = json.loads(done.out)
    assert (report["read"], report["delivered"], report["dead_letters"], report["dead"]) == (2_000, 1_999, 1, 1)
    values = values_of(everything(clients, names["target"]))
    assert sorted(value["id"] for value in values) == sorted(set(range(2_000)) - {7})
    assert len({value["by"] for value in values}) == 2


@pytest.mark.chaos
def test_a_killed_process_is_started_again_and_nothing_is_lost(
    apache_kafka: ApacheBroker, sage: Shell, unique: Callable[[str], str]
) -> None:
    clients = apache_kafka.clients()
    names = {"name": unique("killed"), "source": unique("in"), "target": unique("out")}
    make_topic(clients, names["source"], 4)
    make_topic(clients, names["target"], 4)
    write_project(sage, **names)
    fill(clients, names["source"], ({"id": number} for number in range(3_000)), keyed_by="id")
    running = sage.start(
        "topology", "run", "topology.yaml", "--processes", "2", "--instance-id", "worker",
        "--bootstrap-servers", apache_kafka.bootstrap_servers,
    )  # fmt: skip

    def written() -> list[dict[str, int]]:
        return values_of(everything(clients, names["target"]))

    def workers() -> set[int]:
        return {value["by"] for value in written()}

    try:
        wait_until(lambda: len(workers()) == 2, timeout=90, what="both processes have written")
        victim = sorted(workers())[0]
        os.kill(victim, signal.SIGKILL)
        wait_until(
            lambda: len({value["id"] for value in written()}) == 2_999, timeout=120, what="every record is there"
        )
        children = Path(f"/proc/{running.pid}/task/{running.pid}/children")
        wait_until(lambda: len(children.read_text().split()) == 2, timeout=60, what="there are two again")
        assert str(victim) not in children.read_text().split()
        fill(clients, names["source"], ({"id": number} for number in range(3_000, 4_000)), keyed_by="id")
        # Its name is the dead one's, which the broker gives back when that one's session has ended.
        wait_until(lambda: len(workers()) == 3, timeout=90, what="the new process has written under its name")
    finally:
        running.send_signal(signal.SIGTERM)
        _, said = running.communicate(timeout=60)
    assert running.returncode == 0, said
    assert "was killed by SIGKILL; it is started again in 1 s" in said
