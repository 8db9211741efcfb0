"""``sage bench`` as it is typed, over real brokers, with worker processes of its own."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tests.integration.cli.conftest import Shell
from tests.support.brokers import Broker
from tests.support.records import everything, fill, make_topic
from tests.support.waiting import wait_until

OPERATORS = """
import time


def work(value):
    if value["id"] % 100 == 7:
        raise ValueError("seven")
    return {**value, "seen": True}


def slow(value):
    time.sleep(0.05)
    return value
"""

TOPOLOGY = """
version: 1
name: {name}
defaults: {{partitions: 4}}
steps:
  in: {{source: topic, config: {{topic: {source}}}}}
  work: {{map: "ops:{work}", from: in, retry: {{attempts: 1}}}}
  out: {{sink: topic, from: work, config: {{topic: {target}}}}}
"""


def write_project(shell: Shell, work: str, **names: str) -> None:
    shell.write("ops.py", OPERATORS)
    shell.write("t.yaml", TOPOLOGY.format(work=work, **names))
    shell.write("in.jsonl", "".join(f'{{"id": {number}}}\n' for number in range(100)))


def of_the_run(broker: Broker, name: str) -> set[str]:
    """Topics and groups whose names begin so."""
    admin = broker.clients().admin()
    found = {info.name for info in admin.list_topics()} | set(admin.list_groups())
    admin.close()
    return {one for one in found if one.startswith(name)}


def runs_at_work(broker: Broker, topology: str) -> list[str]:
    """The runs of a topology whose worker is in its group."""
    admin = broker.clients().admin()
    groups = [group for group in admin.list_groups() if group.startswith(f"{topology}-bench-")]
    found = [group.removesuffix(".work") for group in groups if admin.members(group) and group.endswith(".work")]
    # Of an earlier run its topics are gone, whoever is kept in its group.
    there = admin.describe([f"{name}.in" for name in found])
    admin.close()
    return [name for name in found if f"{name}.in" in there]


def children_of(pid: int) -> list[int]:
    found: list[int] = []
    for children in Path(f"/proc/{pid}/task").glob("*/children"):  # a process belongs to the thread that started it
        with suppress(FileNotFoundError, ProcessLookupError):  # that thread has ended since
            found += [int(child) for child in children.read_text().split()]
    return found


def test_a_run_is_measured_and_compared_and_leaves_nothing(
    broker: Broker, sage: Shell, unique: Callable[[str], str]
) -> None:
    names = {"name": unique("bench"), "source": unique("in"), "target": unique("out")}
    write_project(sage, "work", **names)
    sage.variables["SAGE_BOOTSTRAP_SERVERS"] = broker.bootstrap_servers
    words = ("--input", "in.jsonl", "--records", "5000", "--processes", "2", "--timeout", "100")
    found = sage("bench", "run", "t.yaml", *words, "--save", "a.json", "-o", "json")
    assert found.code == 0, found.err
    figures = json.loads(found.out)
    assert (figures["records"], figures["outputs"], figures["dead"]) == (5_000, 4_950, 50)
    assert figures["latency"] is None
    assert figures["memory_mib"] > 50  # two interpreters
    assert figures["machine"]["broker"] == ("embedded" if broker.is_embedded else "kafka")
    assert of_the_run(broker, f"{names['name']}-bench-") == set()
    admin = broker.clients().admin()
    assert admin.describe([names["source"], names["target"], f"{names['name']}.dlq"]) == {}
    admin.close()
    same = sage("bench", "compare", "a.json", "a.json")
    assert same.code == 0, same.err


def test_at_a_rate_the_way_of_each_record_is_timed(broker: Broker, sage: Shell, unique: Callable[[str], str]) -> None:
    clients = broker.clients()
    names = {"name": unique("bench"), "source": unique("in"), "target": unique("out")}
    write_project(sage, "work", **names)
    make_topic(clients, names["source"], 2)
    fill(clients, names["source"], [{"id": number} for number in (1, 2, 3)])
    sage.variables["SAGE_BOOTSTRAP_SERVERS"] = broker.bootstrap_servers
    begun = time.monotonic()
    found = sage("bench", "run", "t.yaml", "--records", "300", "--rate", "20", "--timeout", "100", "-o", "json")
    assert found.code == 0, found.err
    assert time.monotonic() - begun > 299 / 20, "it was fed faster than it was told"
    figures = json.loads(found.out)
    assert (figures["input"], figures["outputs"], figures["dead"]) == (f"topic {names['source']}", 300, 0)
    assert 0 < figures["latency"]["p50"] <= figures["latency"]["p95"] <= figures["latency"]["p99"]
    assert len(everything(clients, names["source"])) == 3
    assert of_the_run(broker, f"{names['name']}-bench-") == set()


def test_a_killed_worker_and_a_signal_end_it_and_leave_nothing(
    broker: Broker, sage: Shell, unique: Callable[[str], str]
) -> None:
    names = {"name": unique("bench"), "source": unique("in"), "target": unique("out")}
    write_project(sage, "slow", **names)
    sage.variables["SAGE_BOOTSTRAP_SERVERS"] = broker.bootstrap_servers
    for asks_the_worker, asked, code in ((True, signal.SIGKILL, 1), (False, signal.SIGINT, 130)):
        running = sage.start("bench", "run", "t.yaml", "--input", "in.jsonl", "--records", "100000")
        workers = wait_until(lambda pid=running.pid: children_of(pid), timeout=60, what="a worker runs")
        (name,) = wait_until(lambda: runs_at_work(broker, names["name"]), timeout=60, what="it works")
        os.kill(workers[0] if asks_the_worker else running.pid, asked)
        out, err = running.communicate(timeout=120)
        assert (running.returncode, out) == (code, ""), err
        wait_until(lambda pid=workers[0]: not Path(f"/proc/{pid}").exists(), timeout=30, what="no worker is left")
        assert of_the_run(broker, name) == set(), err
